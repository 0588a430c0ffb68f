//! Checks that kernels agree with the CPU backend, so that wrong kernels are not chosen for speed.

use crate::checkpoint::Checkpoint;
use crate::cpu::CpuBackend;
use crate::error::{Error, Result};
use crate::generate::{Divergence, each_logits_in_steps};
use crate::gpu::{Gpu, GpuBackend};
use crate::model::{kv::CacheType, source::TensorSource, weights::LoadOptions};

/// Mean divergence in nats from the CPU's predictions that is allowed. int8 activations need less.
const MAX_DIVERGENCE: f64 = 0.02;

/// The predictions of the embedded model on the CPU.
pub struct Reference {
    checkpoint: Checkpoint,
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

impl Reference {
    const TOKENS: u32 = 24;
    const OPTIONS: LoadOptions = LoadOptions {
        quantize: crate::quant::Quantize::Int4,
        context_length: Self::TOKENS as usize,
        max_sequences: 1,
        cache_type: CacheType::F16,
    };

    pub fn new() -> Result<Reference> {
        let checkpoint = Checkpoint::demo()?;
        let vocab = checkpoint.config().vocab_size as u32;
        let tokens: Vec<u32> = (0..Self::TOKENS).map(|i| (i * 97 + 13) % vocab).collect();
        let mut cpu =
            pollster::block_on(CpuBackend::load(&checkpoint, &Self::OPTIONS, &mut |_| ()))?;
        let mut logits = Vec::new();
        pollster::block_on(each_logits_in_steps(&mut cpu, &tokens, usize::MAX, &mut |_, rows| {
            logits.extend_from_slice(rows);
            Ok(())
        }))?;
        Ok(Reference { checkpoint, tokens, logits })
    }

    /// Errors if the device's predictions differ, in one step, by a few tokens or one by one.
    pub fn check(&self, gpu: &Gpu) -> Result<()> {
        let vocab = self.checkpoint.config().vocab_size;
        let mut backend = pollster::block_on(GpuBackend::load(
            gpu.clone(),
            &self.checkpoint,
            &Self::OPTIONS,
            &mut |_| (),
        ))?;
        for most in [usize::MAX, 4, 1] {
            let mut divergence = Divergence::default();
            pollster::block_on(each_logits_in_steps(
                &mut backend,
                &self.tokens,
                most,
                &mut |first, rows| {
                    divergence.add(&self.logits[first * vocab..][..rows.len()], rows, vocab)
                },
            ))?;
            // NaN counts as wrong.
            match divergence.mean() {
                Some(mean) if mean <= MAX_DIVERGENCE => {}
                mean => {
                    let mean = mean.unwrap_or(f64::NAN);
                    return Err(Error::Device(format!(
                        "its predictions are {mean:.3} nats from the processor's"
                    )));
                }
            }
        }
        Ok(())
    }
}
