//! [`CpuBackend`]: sequences and steps for the forward pass.

use std::{collections::HashMap, ops::Range};

use rayon::ThreadPool;

use crate::backend::{
    Backend, BackendInfo, SequenceStep, Sequences, StepInput, StepOutput, StepResult, Ticket,
    suppressible,
};
use crate::cpu::forward::{Model, Segment, scaled};
use crate::cpu::kv_cache::KvCache;
use crate::cpu::matrix::CpuStore;
use crate::cpu::options::CpuOptions;
use crate::cpu::path::Path;
use crate::cpu::{ops, out_of_memory, try_with_capacity};
use crate::error::{Error, Result};
use crate::memory::MemoryPlan;
use crate::model::config::{AttentionKind, LayerConfig, ModelConfig};
use crate::model::kv::{CacheType, cache_capacity};
use crate::model::source::{LocalBoxFuture, TensorSource};
use crate::model::weights::{self, LoadOptions, ModelWeights, PlannedTensor};

/// Most tokens of a step, to bound the memory of activations.
const MAX_STEP_TOKENS: usize = 256;

/// A model in memory, computed on all CPU cores.
///
/// Submitting a step computes it, and reading it only returns the result.
pub struct CpuBackend {
    model: Model,
    /// The threads that compute, unless they are those of the whole process.
    pool: Option<ThreadPool>,
    sequences: Sequences,
    /// By slot.
    slots: Vec<Slot>,
    /// Unread results, by ticket.
    finished: HashMap<u64, Vec<StepResult>>,
    next_ticket: u64,
    /// Tokens that are never chosen.
    suppressed: Vec<u32>,
    weight_bytes: u64,
    kv_bytes: u64,
    peak_bytes: u64,
}

/// The state of a slot for a sequence.
struct Slot {
    /// For each layer that has its own keys.
    caches: Vec<KvCache>,
    /// The token that its last step chose, if any.
    chosen: u32,
}

impl CpuBackend {
    /// Loads a model into memory, to compute with the reference. `progress` gets the bytes of the
    /// checkpoint consumed since its last call.
    ///
    /// Errors: a tensor is missing, misshapen or unreadable; options of zero. Also weights or a KV
    /// cache that do not fit in memory.
    pub async fn load(
        source: &dyn TensorSource,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<CpuBackend> {
        Self::load_with(source, options, &CpuOptions::EXACT, progress).await
    }

    /// As [`Self::load`], to compute as `cpu` says.
    ///
    /// Errors: also instructions or threads that the processor does not have.
    pub async fn load_with(
        source: &dyn TensorSource,
        options: &LoadOptions,
        cpu: &CpuOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<CpuBackend> {
        let (path, pool) = (cpu.path()?, cpu.pool()?);
        let config = source.config().clone();
        config.validate()?;
        let sequences = Sequences::new(&config, options, max_step_tokens(options))?;
        let kv_bytes = kv_bytes(&config, options)?;
        let mut store = CpuStore::new(!matches!(path, Path::Exact));
        let weights = ModelWeights::load(source, options.quantize, &mut store, progress).await?;
        let caches =
            || config.cached_layers().iter().map(|layer| new_cache(layer, options)).collect();
        let slot = |_| Slot { caches: caches(), chosen: 0 };
        let slots = (0..options.max_sequences).map(slot).collect();
        Ok(CpuBackend {
            model: Model::new(config, weights, path),
            pool,
            sequences,
            slots,
            finished: HashMap::new(),
            next_ticket: 0,
            suppressed: Vec::new(),
            weight_bytes: store.bytes,
            kv_bytes,
            peak_bytes: store.bytes + kv_bytes,
        })
    }

    /// Computes a step that has passed its checks.
    fn compute(&mut self, step: &[SequenceStep<'_>]) -> Result<Vec<StepResult>> {
        let mut slots: Vec<Option<&mut Slot>> = self.slots.iter_mut().map(Some).collect();
        let (mut tokens, mut segments, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for part in step {
            let sequence = self.sequences.get(part.sequence)?;
            let Some(Slot { caches, chosen }) = slots.get_mut(sequence.slot).and_then(Option::take)
            else {
                continue;
            };
            let first = tokens.len();
            match part.input {
                StepInput::Tokens(host) => tokens.extend_from_slice(host),
                StepInput::Previous => tokens.push(*chosen),
            }
            let rows = first..tokens.len();
            segments.push(Segment { rows: rows.clone(), position: sequence.len, caches });
            outputs.push((rows, part.output, chosen));
        }
        let wanted = step.iter().any(|part| part.output != StepOutput::None);
        let normed = self.model.forward(&tokens, &mut segments, wanted);
        let hidden = self.model.config.hidden_size;
        let mut logit_bytes = 0;
        let mut logits = |rows| {
            let logits = self.model.logits(&normed[scaled(&rows, hidden)]);
            logit_bytes += 4 * logits.len() as u64;
            logits
        };
        let suppressed = &self.suppressed;
        let choosable = |row: Range<usize>, logits: &mut dyn FnMut(Range<usize>) -> Vec<f32>| {
            let mut row = logits(row);
            ops::suppress(&mut row, suppressed);
            row
        };
        let results = outputs
            .into_iter()
            .map(|(rows, output, chosen)| {
                let last = rows.end - 1..rows.end;
                Ok(match output {
                    StepOutput::None => StepResult::None,
                    StepOutput::LastLogits => StepResult::Logits(logits(last)),
                    StepOutput::AllLogits => StepResult::Logits(logits(rows)),
                    StepOutput::Greedy => {
                        let token = ops::argmax(&choosable(last, &mut logits));
                        *chosen = token;
                        StepResult::Token(token)
                    }
                    StepOutput::Sample(draw) => {
                        let token = ops::sample(&choosable(last, &mut logits), &draw)?;
                        *chosen = token;
                        StepResult::Token(token)
                    }
                })
            })
            .collect::<Result<_>>()?;
        let held = self.weight_bytes
            + self.kv_bytes
            + activation_bytes(&self.model.config, tokens.len())
            + logit_bytes;
        self.peak_bytes = self.peak_bytes.max(held);
        Ok(results)
    }
}

impl CpuBackend {
    /// The memory of [`CpuBackend::load`] and its largest step.
    ///
    /// Errors: a tensor that the model needs is missing.
    pub fn plan(source: &dyn TensorSource, options: &LoadOptions) -> Result<MemoryPlan> {
        let (config, options) = (source.config(), &options.countable());
        let bytes = |tensor: &PlannedTensor| match (tensor.format, tensor.info.shape.as_slice()) {
            (Some(format), &[rows, cols]) => rows as u64 * format.row_bytes(cols) as u64,
            _ => 4 * tensor.info.elements() as u64,
        };
        let kv = |sliding: bool| {
            let is = |layer: &&LayerConfig| {
                matches!(layer.attention, AttentionKind::Sliding { .. }) == sliding
            };
            let layers = config.cached_layers().iter().filter(is);
            let of_sequence: u128 = layers.map(|layer| layer_kv_bytes(layer, options)).sum();
            u64::try_from(of_sequence.saturating_mul(options.max_sequences as u128))
                .unwrap_or(u64::MAX)
        };
        let logits = 4 * config.vocab_size as u64;
        let rows = MAX_STEP_TOKENS.min(options.context_length).max(options.max_sequences);
        Ok(MemoryPlan {
            context_length: options.context_length,
            weight_bytes: weights::planned_tensors(source, options.quantize)?
                .iter()
                .map(bytes)
                .sum(),
            kv_sliding_bytes: kv(true),
            kv_full_bytes: kv(false),
            scratch_bytes: activation_bytes(config, rows) + logits,
            largest_buffer: 0,
            buffer_limit: u64::MAX,
        })
    }
}

impl Backend for CpuBackend {
    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "cpu",
            device: format!(
                "{} CPU threads, {}",
                self.pool
                    .as_ref()
                    .map_or_else(rayon::current_num_threads, ThreadPool::current_num_threads),
                self.model.path.name()
            ),
            context_length: self.sequences.context_length,
            max_sequences: self.sequences.max_sequences,
            max_step_tokens: self.sequences.max_step_tokens,
            weight_bytes: self.weight_bytes,
            unread_bytes: self.model.unread_bytes(),
            kv_bytes: self.kv_bytes,
            peak_bytes: self.peak_bytes,
        }
    }

    fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    fn sequences_mut(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        self.suppressed = suppressible(ids, self.model.config.vocab_size)?;
        Ok(())
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step)?;
        let pool = self.pool.take();
        let results = match &pool {
            Some(pool) => pool.install(|| self.compute(step)),
            // One entry into the threads, rather than one for each operation.
            None => rayon::scope(|_| self.compute(step)),
        };
        self.pool = pool;
        let results = results?;
        self.sequences.advance(step);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.finished.insert(ticket, results);
        Ok(Ticket(ticket))
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        let results = self.finished.remove(&ticket.0);
        Box::pin(async move {
            results.ok_or_else(|| Error::Input(format!("step {} was never submitted", ticket.0)))
        })
    }
}

/// Tokens of the largest step. Every sequence can be in it.
fn max_step_tokens(options: &LoadOptions) -> usize {
    MAX_STEP_TOKENS.max(options.max_sequences)
}

fn new_cache(layer: &LayerConfig, options: &LoadOptions) -> KvCache {
    let capacity = cache_capacity(layer, options.context_length, max_step_tokens(options));
    KvCache::new(options.cache_type, capacity, layer.n_kv_heads, layer.head_dim)
}

/// Bytes of a layer's keys and values for one sequence.
fn layer_kv_bytes(layer: &LayerConfig, options: &LoadOptions) -> u128 {
    let element_bytes = match options.cache_type {
        CacheType::F16 => 2,
        CacheType::F32 => 4,
    };
    let positions = cache_capacity(layer, options.context_length, max_step_tokens(options)) as u128;
    2 * element_bytes * positions * (layer.n_kv_heads * layer.head_dim) as u128
}

/// Bytes of the KV caches of all sequences. Errors if they do not fit in memory.
fn kv_bytes(config: &ModelConfig, options: &LoadOptions) -> Result<u64> {
    let of_sequence: u128 =
        config.cached_layers().iter().map(|layer| layer_kv_bytes(layer, options)).sum();
    let bytes = of_sequence.saturating_mul(options.max_sequences as u128);
    let what =
        format!("the KV cache of {} x {} positions", options.max_sequences, options.context_length);
    // Reserves all bytes at once and frees them. Each part alone would seem to fit, because it is
    // zeroed lazily.
    let len = usize::try_from(bytes).map_err(|_| out_of_memory(&what, bytes))?;
    try_with_capacity::<u8>(&what, len)?;
    Ok(bytes as u64)
}

/// The most bytes of a forward pass of `rows` rows, without logits.
fn activation_bytes(config: &ModelConfig, rows: usize) -> u64 {
    let of_layer = |layer: &LayerConfig| {
        let attention = 2 * layer.n_heads * layer.head_dim + 4 * layer.n_kv_heads * layer.head_dim;
        // Results of the chosen experts, and their inputs and logits.
        let experts = layer.experts.map_or(0, |experts| {
            experts.top_k * (config.hidden_size + 3 * experts.intermediate_size)
                + 3 * config.hidden_size
                + experts.count
        });
        attention.max(2 * layer.intermediate_size).max(experts)
    };
    let widest = config.layers.iter().map(of_layer).max().unwrap_or(0);
    // The residual stream, its normed form and the branch. A product is transposed once.
    let per_layer =
        config.per_layer_columns() + config.per_layer_input.map_or(0, |input| 2 * input.size);
    4 * (rows * (3 * config.hidden_size + widest + per_layer)) as u64
}
