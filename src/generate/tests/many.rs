//! A backend without a model that runs many sequences: [`super::script::model`] chooses the tokens.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::script::{Script, VOCAB};
use crate::backend::{
    Backend, BackendInfo, SequenceId, SequenceStep, Sequences, StepInput, StepOutput, StepResult,
    Ticket,
};
use crate::error::{Error, Result};
use crate::model::{config::ModelConfig, source::LocalBoxFuture, weights::LoadOptions};
use crate::sampling::argmax;

/// What the backend has seen, shared with the test.
#[derive(Default)]
pub struct Seen {
    /// The rows of each sequence of each step.
    pub steps: Vec<Vec<(usize, usize)>>,
    pub open: usize,
    /// Steps with this index and later ones fail.
    pub fail_from: Option<usize>,
    /// The ticket whose reading fails.
    pub fail_read: Option<u64>,
    pub cannot_truncate: bool,
}

pub struct Many {
    config: ModelConfig,
    sequences: Sequences,
    held: HashMap<usize, Vec<u32>>,
    results: HashMap<u64, Vec<StepResult>>,
    tickets: u64,
    seen: Rc<RefCell<Seen>>,
    /// Results that nobody has read.
    unread: Rc<Cell<usize>>,
}

impl Many {
    pub fn new(slots: usize, context_length: usize, max_step_tokens: usize) -> Many {
        let config = ModelConfig {
            vocab_size: VOCAB as usize,
            layers: Vec::new(),
            ..ModelConfig::named("demo").unwrap()
        };
        let options =
            LoadOptions { context_length, max_sequences: slots, ..LoadOptions::default() };
        Many {
            sequences: Sequences::new(&config, &options, max_step_tokens).unwrap(),
            config,
            held: HashMap::new(),
            results: HashMap::new(),
            tickets: 0,
            seen: Rc::default(),
            unread: Rc::default(),
        }
    }

    pub fn seen(&self) -> Rc<RefCell<Seen>> {
        Rc::clone(&self.seen)
    }

    pub fn unread(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.unread)
    }
}

impl Backend for Many {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "script",
            device: String::new(),
            context_length: self.sequences.context_length,
            max_sequences: self.sequences.max_sequences,
            max_step_tokens: self.sequences.max_step_tokens,
            weight_bytes: 0,
            unread_bytes: 0,
            kv_bytes: 0,
            peak_bytes: 0,
        }
    }

    fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    fn sequences_mut(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    fn open_sequence(&mut self) -> Result<SequenceId> {
        self.seen.borrow_mut().open += 1;
        self.sequences.open()
    }

    fn close_sequence(&mut self, sequence: SequenceId) {
        self.seen.borrow_mut().open -= 1;
        self.held.remove(&sequence.0);
        self.sequences.close(sequence);
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        if self.seen.borrow().cannot_truncate {
            return Err(Error::Input("the window is gone".into()));
        }
        self.sequences.truncate(sequence, len)?;
        self.held.entry(sequence.0).or_default().truncate(len);
        Ok(())
    }

    fn suppress(&mut self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step)?;
        self.sequences.advance(step);
        let mut seen = self.seen.borrow_mut();
        if seen.fail_from.is_some_and(|from| seen.steps.len() >= from) {
            return Err(Error::Device("lost".into()));
        }
        seen.steps.push(step.iter().map(|part| (part.sequence.0, part.input.count())).collect());
        let mut results = Vec::new();
        for part in step {
            let held = self.held.entry(part.sequence.0).or_default();
            match part.input {
                StepInput::Tokens(tokens) => held.extend(tokens),
                StepInput::Previous => held.push(argmax(&Script::logits(held))),
            }
            let logits = Script::logits(held);
            results.push(match part.output {
                StepOutput::None => StepResult::None,
                StepOutput::Greedy => StepResult::Token(argmax(&logits)),
                StepOutput::LastLogits => StepResult::Logits(logits),
                other => panic!("{other:?}"),
            });
        }
        self.tickets += 1;
        self.results.insert(self.tickets, results);
        self.unread.set(self.results.len());
        Ok(Ticket(self.tickets))
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        let results = self.results.remove(&ticket.0).expect("a ticket is read once");
        self.unread.set(self.results.len());
        let fails = self.seen.borrow().fail_read == Some(ticket.0);
        Box::pin(async move { if fails { Err(Error::Device("lost".into())) } else { Ok(results) } })
    }
}
