//! Code that the tests of all backends share: golden logits, the contract of [`Backend`], random
//! models.

// Each test program uses a part of this module.
#![allow(dead_code)]

pub mod contract;
pub mod demo;
pub mod goldens;
pub mod llama_cpp;
pub mod own_process;
pub mod random_model;
pub mod real_model;

use gemma4_wgpu::{
    Result,
    backend::{Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult},
    cpu::{CpuBackend, CpuOptions, Instructions},
    gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions},
    model::{source::TensorSource, weights::LoadOptions},
};

/// Kernels without int8 and f16 products, which round neither weights nor activations.
pub const EXACT_KERNELS: KernelOptions =
    KernelOptions { f16: Some(false), dp4a: Some(false), ..KernelOptions::UNSET };

/// Loads a model on the backend under test.
pub type Make<'a> = &'a dyn Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>>;

/// The model on the CPU backend, with the reference.
pub fn cpu(source: &dyn TensorSource, options: &LoadOptions) -> Result<Box<dyn Backend>> {
    Ok(Box::new(pollster::block_on(CpuBackend::load(source, options, &mut |_| ()))?))
}

/// The model on the CPU backend's fast path.
pub fn fast_cpu(
    instructions: Option<Instructions>,
) -> impl Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>> {
    let cpu = CpuOptions { instructions, ..CpuOptions::default() };
    move |source, options| {
        let mut progress = |_| ();
        let backend = CpuBackend::load_with(source, options, &cpu, &mut progress);
        Ok(Box::new(pollster::block_on(backend)?))
    }
}

/// The model on the most capable adapter, with these kernels.
pub fn gpu(
    kernels: KernelOptions,
) -> impl Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>> {
    move |source, options| Ok(Box::new(load_gpu(source, options, kernels)?))
}

pub fn load_gpu(
    source: &dyn TensorSource,
    options: &LoadOptions,
    kernels: KernelOptions,
) -> Result<GpuBackend> {
    let gpu = pollster::block_on(Gpu::open(&DeviceOptions { kernels, ..Default::default() }))?;
    pollster::block_on(GpuBackend::load(gpu, source, options, &mut |_| ()))
}

/// The model on MLX, in f32 also on a GPU.
#[cfg(feature = "mlx")]
pub fn mlx(source: &dyn TensorSource, options: &LoadOptions) -> Result<Box<dyn Backend>> {
    Ok(Box::new(load_mlx(source, options, gemma4_wgpu::mlx::Activations::F32)?))
}

#[cfg(feature = "mlx")]
pub fn load_mlx(
    source: &dyn TensorSource,
    options: &LoadOptions,
    activations: gemma4_wgpu::mlx::Activations,
) -> Result<gemma4_wgpu::mlx::MlxBackend> {
    use gemma4_wgpu::mlx::{MlxBackend, MlxOptions};
    let mlx = MlxOptions { activations: Some(activations), ..MlxOptions::default() };
    pollster::block_on(MlxBackend::load(source, options, mlx, &mut |_| ()))
}

/// Submits and reads a step of one sequence.
pub fn step(
    backend: &mut dyn Backend,
    sequence: SequenceId,
    input: StepInput<'_>,
    output: StepOutput,
) -> Result<StepResult> {
    let ticket = backend.submit(&[SequenceStep { sequence, input, output }])?;
    let mut results = pollster::block_on(backend.read(ticket))?;
    assert_eq!(results.len(), 1);
    Ok(results.remove(0))
}

/// The logits of all `tokens`, `[tokens, vocab]`, fed in chunks of `chunks` tokens.
/// The list of chunks is repeated until all tokens are fed.
pub fn all_logits(
    backend: &mut dyn Backend,
    sequence: SequenceId,
    tokens: &[u32],
    chunks: &[usize],
) -> Vec<f32> {
    let (mut rest, mut logits) = (tokens, Vec::new());
    for &chunk in chunks.iter().cycle() {
        let (now, later) = rest.split_at(chunk.min(rest.len()).min(backend.info().max_step_tokens));
        match step(backend, sequence, StepInput::Tokens(now), StepOutput::AllLogits).unwrap() {
            StepResult::Logits(chunk) => logits.extend(chunk),
            other => panic!("asked for logits, got {other:?}"),
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(logits.len(), tokens.len() * backend.config().vocab_size);
    logits
}

/// Fails if an element differs by more than `tolerance` or is NaN.
#[track_caller]
pub fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let close = (actual - expected).abs() <= tolerance;
        assert!(close, "{what}: element {i} is {actual}, expected {expected} within {tolerance}");
    }
}
