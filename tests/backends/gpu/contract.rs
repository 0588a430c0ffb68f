//! The wgpu backend keeps the promises of [`Backend`], in every variant of its kernels that the
//! adapter can run.

use crate::common::{EXACT_KERNELS, gpu, random_model::RandomModel};
use crate::{common, contract_tests};
use gemma4_wgpu::{
    Error,
    backend::{Backend, SequenceStep, StepInput, StepOutput},
    generate::{Generator, Request},
    gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions},
    model::weights::LoadOptions,
    sampling::SamplingParams,
};

/// Tokens one by one run other kernels than many at once: sums come in another order, and a value
/// on the edge between two f16 may go into the cache as either.
const ROUNDING: f32 = 3e-3;

contract_tests!(ROUNDING, gpu(EXACT_KERNELS), "wgpu");

/// Per-layer embeddings, and layers that share keys.
mod effective {
    use super::*;

    contract_tests!(ROUNDING, common::contract::effective(gpu(EXACT_KERNELS)), "wgpu");
}

/// Workgroup memory in place of subgroups, checks on.
mod plainest {
    use super::*;

    const PLAINEST: KernelOptions = KernelOptions { checks: Some(true), ..KernelOptions::OFF };

    contract_tests!(ROUNDING, gpu(PLAINEST), "wgpu");
}

/// A device that is lost with a step under way ends that step and all later ones with an error that
/// says so.
#[test]
fn a_lost_device_is_an_error() {
    let options = LoadOptions { context_length: 64, ..LoadOptions::default() };
    for outputs in [StepOutput::None, StepOutput::Greedy, StepOutput::LastLogits] {
        let gpu = pollster::block_on(Gpu::open(&DeviceOptions::default())).unwrap();
        let model = RandomModel::small();
        let mut backend =
            pollster::block_on(GpuBackend::load(gpu.clone(), &model, &options, &mut |_| ()))
                .unwrap();
        let sequence = backend.open_sequence().unwrap();
        let part = SequenceStep { sequence, input: StepInput::Tokens(&[1, 2, 3]), output: outputs };
        let before = backend.submit(&[part]).unwrap();
        gpu.device().destroy();
        let under_way = pollster::block_on(backend.read(before));
        let lost = |outcome: Result<_, Error>| {
            let error = outcome.expect_err("the device is lost").to_string();
            assert_eq!(error, "device: lost: destroyed: load the model again");
        };
        lost(under_way);
        for _ in 0..2 {
            lost(
                backend.submit(&[part]).and_then(|ticket| pollster::block_on(backend.read(ticket))),
            );
        }
        lost(pollster::block_on(backend.profile(&[part])).map(|_| Vec::new()));
        let again =
            pollster::block_on(GpuBackend::load(gpu.clone(), &model, &options, &mut |_| ()));
        lost(again.map(|_| Vec::new()));
    }
}

/// The same in the middle of an answer, and a later request of the same generator.
#[test]
fn an_answer_on_a_lost_device_is_an_error() {
    let gpu = pollster::block_on(Gpu::open(&DeviceOptions::default())).unwrap();
    let options = LoadOptions { context_length: 64, ..LoadOptions::default() };
    let model = RandomModel::small();
    let mut backend =
        pollster::block_on(GpuBackend::load(gpu.clone(), &model, &options, &mut |_| ())).unwrap();
    let mut generator = Generator::new(&mut backend);
    let request = Request {
        prompt: &[1, 2, 3],
        sampling: SamplingParams { seed: Some(1), ..SamplingParams::default() },
        max_new_tokens: None,
        eos_ids: &[],
        suppressed_ids: &[],
        cancelled: &|| false,
    };
    let mut heard = 0;
    let mut on_token = |_| {
        heard += 1;
        if heard == 5 {
            gpu.device().destroy();
        }
    };
    for _ in 0..2 {
        let error = pollster::block_on(generator.generate(&request, &mut on_token)).unwrap_err();
        assert_eq!(error.to_string(), "device: lost: destroyed: load the model again");
    }
    assert!((5..=6).contains(&heard), "{heard}");
}
