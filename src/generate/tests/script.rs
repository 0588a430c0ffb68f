//! A backend without a model: its next token depends on every token of the context.

use std::collections::HashMap;

use crate::backend::{
    Backend, BackendInfo, SequenceId, SequenceStep, Sequences, StepInput, StepOutput, StepResult,
    Ticket,
};
use crate::error::{Error, Result};
use crate::model::{config::ModelConfig, source::LocalBoxFuture, weights::LoadOptions};
use crate::sampling::{argmax, suppress};

pub const VOCAB: u32 = 97;

/// Argmax of the scripted model after `context`: a hash of all of it.
pub fn model(context: &[u32]) -> u32 {
    context.iter().fold(17u32, |hash, &token| (hash.wrapping_mul(31)).wrapping_add(token + 1))
        % VOCAB
}

/// The first `count` tokens that the scripted model chooses after `prompt`.
pub fn expected(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut context = prompt.to_vec();
    for _ in 0..count {
        context.push(model(&context));
    }
    context.split_off(prompt.len())
}

pub struct Script {
    pub config: ModelConfig,
    pub context_length: usize,
    sequences: Sequences,
    pub open: bool,
    pub held: Vec<u32>,
    /// The token that the last step chose.
    pub chosen: Option<u32>,
    pub results: HashMap<u64, StepResult>,
    pub tickets: u64,
    pub can_truncate: bool,
    /// Tokens run so far, over all sequences.
    pub run: usize,
    /// Most tickets that were unread at once.
    pub most_unread: usize,
    pub fail_after: usize,
    pub suppressed: Vec<u32>,
}

impl Script {
    pub fn new(context_length: usize) -> Script {
        let config = ModelConfig {
            vocab_size: VOCAB as usize,
            max_position_embeddings: context_length,
            ..ModelConfig::named("demo").unwrap()
        };
        let options = LoadOptions { context_length, max_sequences: 1, ..LoadOptions::default() };
        // Without layers, whose windows would limit how far it can be truncated.
        let layerless = ModelConfig { layers: Vec::new(), ..config.clone() };
        Script {
            sequences: Sequences::new(&layerless, &options, 4).unwrap(),
            config,
            context_length,
            open: false,
            held: Vec::new(),
            chosen: None,
            results: HashMap::new(),
            tickets: 0,
            can_truncate: true,
            run: 0,
            most_unread: 0,
            fail_after: usize::MAX,
            suppressed: Vec::new(),
        }
    }

    /// Logits with the script's token on top, shape `[vocab]`.
    pub fn logits(context: &[u32]) -> Vec<f32> {
        let top = model(context);
        (0..VOCAB).map(|id| -(id.abs_diff(top) as f32)).collect()
    }

    /// Logits from which the next token is chosen.
    fn chosen_from(&self) -> Vec<f32> {
        let mut logits = Script::logits(&self.held);
        suppress(&mut logits, &self.suppressed);
        logits
    }
}

impl Backend for Script {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "script",
            device: String::new(),
            context_length: self.context_length,
            max_sequences: 1,
            max_step_tokens: 4,
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
        self.open = true;
        self.held.clear();
        self.sequences.open()
    }

    fn close_sequence(&mut self, sequence: SequenceId) {
        self.open = false;
        self.sequences.close(sequence);
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        if !self.can_truncate {
            return Err(Error::Device("the window is gone".into()));
        }
        self.sequences.truncate(sequence, len)?;
        self.held.truncate(len);
        self.chosen = None;
        Ok(())
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        self.suppressed = ids.to_vec();
        Ok(())
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step).unwrap();
        self.sequences.advance(step);
        let [step] = step else { panic!("one sequence") };
        let before = self.held.len();
        match step.input {
            StepInput::Tokens(tokens) => self.held.extend(tokens),
            StepInput::Previous => self.held.push(self.chosen.expect("the step before chose")),
        }
        self.run += self.held.len() - before;
        if self.run > self.fail_after {
            return Err(Error::Device("lost".into()));
        }
        let result = match step.output {
            StepOutput::None => StepResult::None,
            StepOutput::LastLogits => StepResult::Logits(Script::logits(&self.held)),
            StepOutput::AllLogits => StepResult::Logits(
                (before..self.held.len()).flat_map(|i| Script::logits(&self.held[..=i])).collect(),
            ),
            StepOutput::Greedy => StepResult::Token(argmax(&self.chosen_from())),
            StepOutput::Sample(draw) => StepResult::Token(draw.choose(&self.chosen_from())?),
        };
        self.chosen = match result {
            StepResult::Token(token) => Some(token),
            _ => None,
        };
        self.tickets += 1;
        self.results.insert(self.tickets, result);
        self.most_unread = self.most_unread.max(self.results.len());
        Ok(Ticket(self.tickets))
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        let result = self.results.remove(&ticket.0).expect("a ticket is read once");
        Box::pin(async move { Ok(vec![result]) })
    }
}
