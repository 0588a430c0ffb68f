//! [`MlxBackend`]: sequences and steps for the engine on MLX's thread.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use crate::backend::{
    Backend, BackendInfo, SequenceStep, Sequences, StepInput, StepResult, Ticket, suppressible,
};
use crate::error::{Error, Result};
use crate::mlx::device::{self, Facts};
use crate::mlx::engine::{Engine, Part, Slot};
use crate::mlx::forward::Model;
use crate::mlx::kv_cache::KvCache;
use crate::mlx::matrix::MlxStore;
use crate::mlx::ops::{self, Dtype};
use crate::mlx::worker;
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::kv::{CacheType, cache_capacity};
use crate::model::source::{LocalBoxFuture, TensorSource};
use crate::model::synthetic::SyntheticSource;
use crate::model::weights::{LoadOptions, ModelWeights, planned_tensors};
use crate::quant::Quantize;

/// Most tokens of a step on a GPU. Some hundreds are enough to use it fully.
const GPU_STEP_TOKENS: usize = 512;
const CPU_STEP_TOKENS: usize = 256;

/// The options of MLX's computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MlxOptions {
    /// Type of activations. The default is bf16 on a GPU and f32 on a CPU.
    pub activations: Option<Activations>,
    /// Whether the MLP's activation is one fused kernel. The default is true on a GPU.
    pub fused: Option<bool>,
}

/// Type of activations, and of a quantized weight's scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    F32,
    Bf16,
}

/// A model computed by MLX: on a Mac's GPU, or on a CPU.
pub struct MlxBackend {
    config: ModelConfig,
    facts: Facts,
    sequences: Sequences,
    engine: Arc<Mutex<Engine>>,
    /// Unread tickets.
    unread: HashSet<u64>,
    next_ticket: u64,
    weight_bytes: u64,
    unread_bytes: u64,
    kv_bytes: u64,
}

/// Values that are known before a model's weights are loaded.
struct Reservation {
    facts: Facts,
    sequences: Sequences,
    compute: Dtype,
    cache: Dtype,
    kv_bytes: u64,
    fused: bool,
}

impl MlxBackend {
    /// Loads a model. `progress` gets the bytes of the checkpoint consumed since its last call.
    ///
    /// Errors: MLX is missing or differs from that of the build; options of zero. Also a tensor
    /// that is missing, misshapen or unreadable, and weights or a KV cache that exceed memory.
    pub async fn load(
        source: &dyn TensorSource,
        options: &LoadOptions,
        mlx: MlxOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        Self::make(source, options, mlx, None, progress).await
    }

    /// A model of random weights.
    ///
    /// Errors: as [`MlxBackend::load`].
    pub async fn synthetic(
        config: ModelConfig,
        options: &LoadOptions,
        mlx: MlxOptions,
        seed: u64,
    ) -> Result<Self> {
        Self::make(
            &SyntheticSource::with_int8_embedding(config),
            options,
            mlx,
            Some(seed),
            &mut |_| (),
        )
        .await
    }

    async fn make(
        source: &dyn TensorSource,
        options: &LoadOptions,
        mlx: MlxOptions,
        seed: Option<u64>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let config = source.config().clone();
        config.validate()?;
        let reservation = Reservation::new(&config, options, mlx)?;
        reservation.check(source, options.quantize)?;
        let mut store = MlxStore { compute: reservation.compute, bytes: 0, seed };
        let weights = ModelWeights::load(source, options.quantize, &mut store, progress).await?;
        let table = weights.per_layer.as_ref().map_or(0, |tables| tables.table.bytes() as u64);
        let experts = config.layers.iter().zip(&weights.layers).filter_map(|(config, weights)| {
            let weights = weights.experts.as_ref()?;
            let bytes = weights.gate_up.bytes() + weights.down.bytes();
            Some(config.experts?.unread(bytes as u64))
        });
        let unread_bytes = table + experts.sum::<u64>();
        let most = reservation.sequences.max_step_tokens;
        let cache = |layer: &LayerConfig| {
            KvCache::new(layer, options.context_length, most, reservation.cache)
        };
        let slot =
            |_| Ok(Slot::new(config.cached_layers().iter().map(cache).collect::<Result<_>>()?));
        let slots = (0..options.max_sequences).map(slot).collect::<Result<_>>()?;
        let model = Model::new(config.clone(), weights, reservation.compute, reservation.fused)?;
        Ok(MlxBackend {
            config,
            facts: reservation.facts,
            sequences: reservation.sequences,
            engine: Arc::new(Mutex::new(Engine::new(model, slots))),
            unread: HashSet::new(),
            next_ticket: 0,
            weight_bytes: store.bytes,
            unread_bytes,
            kv_bytes: reservation.kv_bytes,
        })
    }

    /// How often steps called each of MLX's operations since the last such request, by the names of
    /// [`ops`]. All backends of the process count together.
    pub fn take_calls(&self) -> Result<BTreeMap<&'static str, usize>> {
        worker::call(|| Ok(ops::take_calls()))
    }
}

impl Reservation {
    fn new(config: &ModelConfig, options: &LoadOptions, mlx: MlxOptions) -> Result<Reservation> {
        let facts = device::facts()?;
        let most = if facts.metal { GPU_STEP_TOKENS } else { CPU_STEP_TOKENS };
        let most = most.max(options.max_sequences);
        let sequences = Sequences::new(config, options, most)?;
        let compute = match (mlx.activations, facts.metal) {
            (Some(Activations::Bf16), _) | (None, true) => Dtype::Bf16,
            (Some(Activations::F32), _) | (None, false) => Dtype::F32,
        };
        let cache = match options.cache_type {
            CacheType::F32 => Dtype::F32,
            // MLX computes bf16 and f16 together in f32.
            CacheType::F16 if compute == Dtype::Bf16 => Dtype::Bf16,
            CacheType::F16 => Dtype::F16,
        };
        let of_layer = |layer: &LayerConfig| {
            let positions = cache_capacity(layer, options.context_length, most) as u128;
            2 * cache.bytes() as u128 * positions * (layer.n_kv_heads * layer.head_dim) as u128
        };
        let kv_bytes = config
            .cached_layers()
            .iter()
            .map(of_layer)
            .sum::<u128>()
            .saturating_mul(options.max_sequences as u128);
        if kv_bytes > facts.memory_limit as u128 {
            let (sequences, positions, limit) =
                (options.max_sequences, options.context_length, facts.memory_limit);
            let what = format!("the KV cache of {sequences} x {positions} positions");
            return Err(Error::Device(format!(
                "no memory for {what}: {kv_bytes} bytes, and MLX holds at most {limit}"
            )));
        }
        let fused = mlx.fused.unwrap_or(facts.metal);
        Ok(Reservation { facts, sequences, compute, cache, kv_bytes: kv_bytes as u64, fused })
    }

    /// Errors if the weights do not fit in memory beside the caches. Loading reports missing
    /// tensors.
    fn check(&self, source: &dyn TensorSource, quantize: Quantize) -> Result<()> {
        let bytes = |tensor: crate::model::weights::PlannedTensor| match (
            tensor.format,
            &tensor.info.shape[..],
        ) {
            (Some(format), &[rows, cols]) => rows as u128 * format.row_bytes(cols) as u128,
            _ => 0,
        };
        let weights: u128 =
            planned_tensors(source, quantize).into_iter().flatten().map(bytes).sum();
        let limit = self.facts.memory_limit;
        match weights + self.kv_bytes as u128 > limit as u128 {
            true => Err(Error::Device(format!(
                "no memory for {weights} bytes of weights and {} of KV cache: MLX holds at most \
                 {limit}; a shorter context or fewer bits need less",
                self.kv_bytes
            ))),
            false => Ok(()),
        }
    }
}

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for MlxBackend {
    /// Finishes submitted steps before their memory is freed.
    fn drop(&mut self) {
        let (engine, unread) = (self.engine.clone(), std::mem::take(&mut self.unread));
        let end = move || {
            unread.iter().for_each(|&ticket| _ = lock(&engine).finish(ticket));
            Ok(())
        };
        // A step's error is for its reader, and nobody reads these steps.
        let _ = worker::call(end);
    }
}

impl Backend for MlxBackend {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "mlx",
            device: format!("{}, MLX {}", self.facts.device, self.facts.version),
            context_length: self.sequences.context_length,
            max_sequences: self.sequences.max_sequences,
            max_step_tokens: self.sequences.max_step_tokens,
            weight_bytes: self.weight_bytes,
            unread_bytes: self.unread_bytes,
            kv_bytes: self.kv_bytes,
            peak_bytes: device::peak_bytes().max(self.weight_bytes + self.kv_bytes),
        }
    }

    fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    fn sequences_mut(&mut self) -> &mut Sequences {
        &mut self.sequences
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        let ids = suppressible(ids, self.config.vocab_size)?;
        let engine = self.engine.clone();
        worker::submit(move || lock(&engine).suppress(ids))
    }

    /// Errors of MLX itself appear when the step is read.
    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        self.sequences.check(step)?;
        let part = |part: &SequenceStep<'_>| {
            let sequence = self.sequences.get(part.sequence)?;
            let tokens = match part.input {
                StepInput::Tokens(tokens) => Some(tokens.to_vec()),
                StepInput::Previous => None,
            };
            Ok(Part { slot: sequence.slot, position: sequence.len, tokens, output: part.output })
        };
        let parts = step.iter().map(part).collect::<Result<Vec<Part>>>()?;
        let (engine, ticket) = (self.engine.clone(), self.next_ticket);
        worker::submit(move || lock(&engine).start(ticket, &parts))?;
        self.sequences.advance(step);
        self.next_ticket += 1;
        self.unread.insert(ticket);
        Ok(Ticket(ticket))
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        let known = self.unread.remove(&ticket.0);
        let engine = self.engine.clone();
        Box::pin(async move {
            if !known {
                return Err(Error::Input(format!("step {} was never submitted", ticket.0)));
            }
            let (sender, receiver) = oneshot::channel();
            worker::submit(move || _ = sender.send(lock(&engine).finish(ticket.0)))?;
            receiver.await.map_err(|_| Error::Device("a step of MLX failed".into()))?
        })
    }
}
