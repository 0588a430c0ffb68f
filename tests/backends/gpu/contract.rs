//! The wgpu backend fulfils the contract of [`Backend`].
//! It is tested with the adapter's default kernels and with the plainest ones.

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

/// Kernels for one token sum in another order than kernels for many.
/// So a value between two f16 may be rounded to either of them in the cache.
const ROUNDING: f32 = 3e-3;

contract_tests!(ROUNDING, gpu(EXACT_KERNELS), "wgpu");

/// Per-layer embeddings, and layers with KV sharing.
mod effective {
    use super::*;

    contract_tests!(ROUNDING, common::contract::effective(gpu(EXACT_KERNELS)), "wgpu");
}

/// A mixture of experts.
mod experts {
    use super::*;

    contract_tests!(ROUNDING, common::contract::experts(gpu(EXACT_KERNELS)), "wgpu");
}

/// Workgroup memory in place of subgroups, with runtime checks.
mod plainest {
    use super::*;

    const PLAINEST: KernelOptions = KernelOptions { checks: Some(true), ..KernelOptions::OFF };

    contract_tests!(ROUNDING, gpu(PLAINEST), "wgpu");
}

/// Sequences beyond the largest buffer are refused with the number of those that fit.
#[test]
fn too_many_sequences_are_refused() {
    let fitting = |max_sequences| {
        let options =
            LoadOptions { context_length: 100_000, max_sequences, ..LoadOptions::default() };
        let model = RandomModel::small();
        let error = common::load_gpu(&model, &options, KernelOptions::default()).err().unwrap();
        let error = error.to_string();
        let (begin, fitting) = error.split_once("; sequences that fit: ").expect("a number");
        assert!(begin.contains(&format!(" {max_sequences} sequences of 100000 ")), "{error}");
        fitting.parse::<usize>().unwrap()
    };
    let most = fitting(65535);
    assert!((1..65535).contains(&most), "{most}");
    assert_eq!(fitting(most + 1), most);
}

/// If a device is lost during a step, this step and all later ones end with an error.
/// The error says that the device was lost.
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

/// The same during an answer, and for a later request of the same generator.
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
