use std::collections::HashSet;

use pollster::block_on;

use super::*;
use crate::backend::{SequenceId, StepInput, StepOutput};
use crate::checkpoint::Checkpoint;
use crate::gpu::device::{kernel_options::KernelOptions, select::DeviceOptions};
use crate::gpu::model::step::StepShape;
use crate::gpu::model::warm_up::{BINDING_BYTES, Shapes, WarmUp};

fn demo(persistent: bool) -> Result<GpuBackend> {
    let kernels = KernelOptions {
        persistent: Some(persistent),
        dp4a: Some(true),
        ..KernelOptions::default()
    };
    let gpu = block_on(Gpu::open(&DeviceOptions { kernels, ..DeviceOptions::default() }))?;
    let options = LoadOptions { context_length: 64, ..LoadOptions::default() };
    block_on(GpuBackend::load(gpu, &Checkpoint::demo()?, &options, &mut |_| ()))
}

fn logits(backend: &mut GpuBackend, sequence: SequenceId) -> Result<Vec<StepResult>> {
    let step =
        SequenceStep { sequence, input: StepInput::Tokens(&[5]), output: StepOutput::LastLogits };
    let ticket = backend.submit(&[step])?;
    block_on(backend.read(ticket))
}

/// A step whose workgroups wait in vain fails. The next step has the results of plain kernels.
#[test]
fn a_fault_ends_persistent_kernels() {
    let mut backend = match demo(true) {
        Ok(backend) => backend,
        // SwiftShader runs no persistent kernels.
        Err(error) => {
            assert!(error.to_string().contains("persistent=on"), "{error}");
            return;
        }
    };
    // More workgroups than any device runs at the same time.
    let persistent = backend.runner.model.persistent.as_mut().unwrap();
    for kernel in persistent.kernels.iter_mut().flatten() {
        kernel.workgroups = 320;
    }
    backend.runner.trunks.clear();
    let sequence = backend.open_sequence().unwrap();
    let error = logits(&mut backend, sequence).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("from now on none wait"), "{error}");
    backend.truncate(sequence, 0).unwrap();
    let found = logits(&mut backend, sequence).unwrap();

    let mut plain = demo(false).unwrap();
    let sequence = plain.open_sequence().unwrap();
    assert_eq!(found, logits(&mut plain, sequence).unwrap());
}

#[test]
fn the_kernels_of_an_answer_are_known_before_its_weights() {
    let gpu = block_on(Gpu::open(&DeviceOptions::default())).expect("the test needs an adapter");
    let (checkpoint, options) = (Checkpoint::demo().unwrap(), LoadOptions::default());
    if !gpu.facts().compiles_at_first_run() {
        assert!(block_on(WarmUp::start(&gpu, &checkpoint, &options)).unwrap().is_none());
        return;
    }
    let tensors = weights::planned_tensors(&checkpoint, options.quantize).unwrap();
    let model = block_on(Shapes::new(&gpu, &tensors).model(&checkpoint, &options)).unwrap();
    let of = |shape| model.sources(shape, StepShape::Decode, None).unwrap();
    let kernels = &of(StepShape::Prefill) | &of(StepShape::Decode);
    assert!(gpu.peak_bytes() < 4 << 20, "{} bytes", gpu.peak_bytes());
    gpu.compile_together(kernels.clone()).unwrap();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM;
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: BINDING_BYTES,
        usage,
        mapped_at_creation: false,
    };
    let buffers: Vec<wgpu::Buffer> =
        (0..12).map(|_| gpu.device().create_buffer(&descriptor)).collect();
    let kernel = kernels.iter().min_by_key(|kernel| kernel.wgsl.len()).unwrap();
    gpu.run_nothing(kernel, &buffers).unwrap();
    gpu.check().unwrap();
    drop(model);

    drop(block_on(GpuBackend::load(gpu.clone(), &checkpoint, &options, &mut |_| ())).unwrap());
    assert_eq!(gpu.pipeline_stats().made, kernels.len(), "loading makes others");
}

/// Kernels that are compiled in the background are those of the steps, which then compile none.
#[test]
fn kernels_of_few_rows_are_compiled_ahead() {
    let mut backend = demo(false).unwrap();
    let gpu = backend.runner.model.gpu.clone();
    let (trunk, head) = (StepShape::ShortPrefill(4), StepShape::Decode);
    let sources = backend.runner.model.sources(trunk, head, None).unwrap();
    let before = gpu.pipeline_stats().made;
    WarmUp::compile_later(&gpu, sources).unwrap().finish();
    let made = gpu.pipeline_stats().made;
    assert!(made > before);
    let sequence = backend.open_sequence().unwrap();
    let step = SequenceStep {
        sequence,
        input: StepInput::Tokens(&[5, 6, 7, 8]),
        output: StepOutput::LastLogits,
    };
    let ticket = backend.submit(&[step]).unwrap();
    block_on(backend.read(ticket)).unwrap();
    assert_eq!(gpu.pipeline_stats().made, made);
    assert!(WarmUp::compile_later(&gpu, HashSet::new()).is_none());
}
