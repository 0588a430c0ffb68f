//! Models with random weights and chosen kernels, to be measured.

use std::time::{Duration, SystemTime};

use crate::error::Result;
use crate::gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions};
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::kv::CacheType;
use crate::model::weights::LoadOptions;
use crate::tune::reference::Reference;
use crate::tune::search::{Candidate, Rates};
use crate::tune::workload::{Test, Work};

/// The measured model has at most this number of layer kinds, and of tokens in its vocabulary.
const MAX_LAYERS: usize = 4;
const MAX_VOCABULARY: usize = 16384;

/// A model with the same layers, but only one of each kind.
pub fn reduced_config(config: &ModelConfig) -> ModelConfig {
    let mut reduced = config.clone();
    reduced.layers.clear();
    for layer in &config.layers {
        // Shared keys are those of the reduced layer that equals their original layer.
        let own =
            |index: usize| reduced.layers.iter().position(|other| *other == config.layers[index]);
        let layer = LayerConfig { kv_from: layer.kv_from.and_then(own), ..layer.clone() };
        if reduced.layers.len() < MAX_LAYERS && !reduced.layers.contains(&layer) {
            reduced.layers.push(layer);
        }
    }
    reduced.vocab_size = reduced.vocab_size.min(MAX_VOCABULARY);
    if let Some(input) = &mut reduced.per_layer_input {
        input.vocab_size = reduced.vocab_size;
    }
    reduced
}

/// Makes candidates.
pub struct CandidateFactory<'a> {
    pub options: &'a DeviceOptions,
    pub config: &'a ModelConfig,
    pub cache_type: CacheType,
    /// The numbers of sequences that generate together in further tests.
    pub batches: &'a [usize],
    pub reference: Reference,
}

impl CandidateFactory<'_> {
    /// Errors: the device fails, or its results with these kernels are wrong.
    pub fn open(&self, kernels: &KernelOptions) -> Result<SyntheticCandidate> {
        let options = DeviceOptions { kernels: *kernels, ..self.options.clone() };
        let gpu = pollster::block_on(Gpu::open(&options))?;
        self.reference.check(&gpu)?;
        let [prompt, generated] = gpu.tuning().trial_tokens;
        let most = self.config.max_position_embeddings;
        let test = |work, parallel| Test { work, depth: 0, parallel, sampled: false };
        let generation = Work::Generate(generated.min(most.saturating_sub(1)).max(1));
        let tests = Tests {
            prompt: test(Work::Prompt(prompt.min(most)), 1),
            generation: test(generation, 1),
            batches: self.batches.iter().map(|&count| test(generation, count)).collect(),
        };
        let load = LoadOptions {
            context_length: tests.prompt.positions().max(tests.generation.positions()),
            max_sequences: self.batches.iter().copied().max().unwrap_or(1),
            cache_type: self.cache_type,
            ..LoadOptions::default()
        };
        let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64 | 1;
        let backend = pollster::block_on(GpuBackend::synthetic(
            gpu,
            self.config.clone(),
            &load,
            seed as u32,
        ))?;
        Ok(SyntheticCandidate { backend, tests, seed })
    }
}

/// The workload: a prompt, generation, and generation in several sequences.
struct Tests {
    prompt: Test,
    generation: Test,
    batches: Vec<Test>,
}

/// A model on a device, and its workload.
pub struct SyntheticCandidate {
    backend: GpuBackend,
    tests: Tests,
    seed: u64,
}

impl Candidate for SyntheticCandidate {
    fn run_once(&mut self) -> Result<Rates> {
        let mut rate = |test: &Test| -> Result<f64> {
            let times = test.run(&mut self.backend, None, 1, &mut self.seed)?;
            let time: Duration = times.iter().sum();
            Ok(test.tokens() as f64 / time.as_secs_f64().max(1e-9))
        };
        Ok(Rates {
            prompt: rate(&self.tests.prompt)?,
            generation: rate(&self.tests.generation)?,
            batches: self.tests.batches.iter().map(rate).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_models_share_keys_as_their_models_do() {
        for name in ["e4b", "e2b", "31b"] {
            let reduced = reduced_config(&ModelConfig::named(name).unwrap());
            reduced.validate().unwrap();
            let shared: Vec<_> = reduced.layers.iter().map(|layer| layer.kv_from).collect();
            match name {
                "31b" => assert_eq!(shared, [None, None]),
                _ => assert_eq!(shared, [None, None, Some(0), Some(1)]),
            }
        }
    }
}
