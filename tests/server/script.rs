//! A backend that answers by a script. It has the embedded model's tokenizer, and the built-in
//! template of Gemma 4, which renders tools.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::thread;

use gemma4_wgpu::Result;
use gemma4_wgpu::backend::{
    Backend, BackendInfo, SequenceId, SequenceStep, Sequences, StepInput, StepOutput, StepResult,
    Ticket,
};
use gemma4_wgpu::checkpoint::Checkpoint;
use gemma4_wgpu::generate::{Scheduler, SchedulerOptions};
use gemma4_wgpu::model::config::ModelConfig;
use gemma4_wgpu::model::source::LocalBoxFuture;
use gemma4_wgpu::model::weights::LoadOptions;
use gemma4_wgpu::server::{App, Engine, ServerOptions};
use gemma4_wgpu::text::{Processor, TextAssets, Tokenizer};

const CONTEXT: usize = 4096;
const SLOTS: usize = 4;
const EOS: u32 = 1;

/// The text assets: the embedded model's, without its template.
pub fn assets() -> TextAssets {
    let assets = Checkpoint::demo().unwrap().text_assets().unwrap();
    TextAssets { chat_template: None, ..assets }
}

/// A server's parts. It answers a prompt that contains the first text of a pair with the second. Of
/// several pairs the one whose text comes last in the prompt counts. Answers may spell control
/// tokens.
pub fn app(
    answers: Vec<(String, String)>,
    options: ServerOptions,
    limits: SchedulerOptions,
) -> Arc<App> {
    let (engine, engine_loop) = Engine::new();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let script = Script::new(&answers);
        let config = script.config.clone();
        let scheduler = Scheduler::new(Box::new(script), &[], limits).unwrap();
        sender.send((config, scheduler.info().clone())).unwrap();
        engine_loop.run(scheduler).unwrap();
    });
    let (config, info) = receiver.recv().unwrap();
    let processor = Processor::new(&assets()).unwrap();
    App::new(engine, processor, config, info, options)
}

struct Script {
    config: ModelConfig,
    tokenizer: Tokenizer,
    sequences: Sequences,
    answers: Vec<(String, Vec<u32>)>,
    held: HashMap<SequenceId, Vec<u32>>,
    /// The token that a sequence's last step chose.
    chosen: HashMap<SequenceId, u32>,
    results: HashMap<u64, Vec<StepResult>>,
    tickets: u64,
}

impl Script {
    fn new(answers: &[(String, String)]) -> Script {
        let tokenizer = Tokenizer::new(&assets()).unwrap();
        let tokens = |text: &str| tokenizer.encode(text, true).unwrap();
        let answers =
            answers.iter().map(|(needle, answer)| (needle.clone(), tokens(answer))).collect();
        let config =
            ModelConfig { max_position_embeddings: CONTEXT, ..ModelConfig::named("demo").unwrap() };
        // Without layers, whose windows would limit how far a sequence can be truncated.
        let layerless = ModelConfig { layers: Vec::new(), ..config.clone() };
        let load =
            LoadOptions { context_length: CONTEXT, max_sequences: SLOTS, ..LoadOptions::default() };
        Script {
            sequences: Sequences::new(&layerless, &load, 512).unwrap(),
            config,
            tokenizer,
            answers,
            held: HashMap::new(),
            chosen: HashMap::new(),
            results: HashMap::new(),
            tickets: 0,
        }
    }

    /// The next token after `context`.
    fn next(&self, context: &[u32]) -> u32 {
        let text = self.tokenizer.decode(context);
        let places = self
            .answers
            .iter()
            .filter_map(|(needle, answer)| Some((text.rfind(needle)? + needle.len(), answer)));
        let Some((_, answer)) = places.max_by_key(|(place, _)| *place) else { return EOS };
        // As much of the answer as the context ends with has been given.
        let given = (1..=answer.len()).rev().find(|&given| context.ends_with(&answer[..given]));
        answer.get(given.unwrap_or(0)).copied().unwrap_or(EOS)
    }

    /// Logits of shape `[vocab]`.
    fn logits(&self, context: &[u32]) -> Vec<f32> {
        let mut logits = vec![0.0; self.config.vocab_size];
        logits[self.next(context) as usize] = 100.0;
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
            context_length: CONTEXT,
            max_sequences: SLOTS,
            max_step_tokens: 512,
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
        let id = self.sequences.open()?;
        self.held.insert(id, Vec::new());
        Ok(id)
    }

    fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        self.sequences.truncate(sequence, len)?;
        self.held.entry(sequence).or_default().truncate(len);
        Ok(())
    }

    fn suppress(&mut self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step)?;
        self.sequences.advance(step);
        let mut results = Vec::new();
        for part in step {
            let mut held = self.held.remove(&part.sequence).unwrap_or_default();
            let before = held.len();
            match part.input {
                StepInput::Tokens(tokens) => held.extend(tokens),
                StepInput::Previous => held.push(self.chosen[&part.sequence]),
            }
            let result = match part.output {
                StepOutput::None => StepResult::None,
                StepOutput::LastLogits => StepResult::Logits(self.logits(&held)),
                StepOutput::AllLogits => StepResult::Logits(
                    (before..held.len()).flat_map(|at| self.logits(&held[..=at])).collect(),
                ),
                StepOutput::Greedy | StepOutput::Sample(_) => StepResult::Token(self.next(&held)),
            };
            if let StepResult::Token(token) = result {
                self.chosen.insert(part.sequence, token);
            }
            self.held.insert(part.sequence, held);
            results.push(result);
        }
        self.tickets += 1;
        self.results.insert(self.tickets, results);
        Ok(Ticket(self.tickets))
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        let results = self.results.remove(&ticket.0).expect("a ticket is read once");
        Box::pin(async move { Ok(results) })
    }
}
