//! A mixture of experts on the wgpu backend: stored types, memory, and the CPU's logits.

use super::load::{Stored, config};
use crate::common::{all_logits, assert_close, cpu, load_gpu};
use gemma4_wgpu::{
    backend::Backend,
    gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions},
    model::{
        config::{Experts, ModelConfig},
        kv::CacheType,
        weights::LoadOptions,
    },
    quant::{Dtype, Quantize},
};

const OPTIONS: LoadOptions = LoadOptions {
    quantize: Quantize::None,
    context_length: 64,
    max_sequences: 1,
    cache_type: CacheType::F32,
};

/// Widths are whole blocks of K-quants, except for the experts'.
fn experts_config() -> ModelConfig {
    let mut config = config(83);
    let experts = Experts { count: 6, top_k: 3, intermediate_size: 96 };
    config.layers.iter_mut().for_each(|layer| layer.experts = Some(experts));
    config
}

fn tokens() -> Vec<u32> {
    (0..41).map(|i| (i * i + 3 * i) % 83).collect()
}

/// Token by token, in steps of a few tokens, and as a prompt. With int8 activations of the dense
/// MLP and without them, where the device has them.
#[test]
fn the_logits_are_those_of_the_cpu() {
    for (linear, experts) in [(Dtype::Q4_0, Dtype::Q4_K), (Dtype::Q8_0, Dtype::Q5_1)] {
        let mut source = Stored::of(experts_config(), linear, Dtype::Q6_K);
        for layer in 0..2 {
            source.restore(&format!("layers.{layer}.experts.gate_up_proj"), experts);
            source.restore(&format!("layers.{layer}.router.proj.weight"), Dtype::F32);
        }
        let run = |backend: &mut dyn Backend, chunk: usize| {
            let sequence = backend.open_sequence().unwrap();
            let logits = all_logits(backend, sequence, &tokens(), &[chunk]);
            backend.close_sequence(sequence);
            logits
        };
        let expected = run(&mut *cpu(&source, &OPTIONS).unwrap(), usize::MAX);
        let options: KernelOptions = "dp4a=off".parse().unwrap();
        let mut backend = load_gpu(&source, &OPTIONS, options).unwrap();
        for chunk in [1, 3, 20, usize::MAX] {
            let found = run(&mut backend, chunk);
            assert_close(&found, &expected, 2e-2, &format!("{linear}, {experts}, {chunk}"));
        }
    }
}

#[test]
fn no_more_memory_than_planned() {
    let source = Stored::of(experts_config(), Dtype::Q4_0, Dtype::Q8_0);
    for kernels in ["repack=off,inplace=off", "repack=on", "inplace=on"] {
        let device = DeviceOptions { kernels: kernels.parse().unwrap(), ..Default::default() };
        let gpu = pollster::block_on(Gpu::open(&device)).unwrap();
        let plan = GpuBackend::plan(&gpu, &source, &OPTIONS).unwrap();
        let mut progress = |_| ();
        let load = GpuBackend::load(gpu.clone(), &source, &OPTIONS, &mut progress);
        let info = pollster::block_on(load).unwrap().info();
        let held = info.peak_bytes;
        assert!(held <= plan.total_bytes(), "{held} held, {plan:?}, {kernels}");
        // A token reads half of the experts. Rows have 16 bytes for 32 weights, and f16 scales in
        // whole words.
        let experts = 2 * 6 * (2 * 96 * (128 + 16) + 256 * (48 + 8));
        assert_eq!(info.unread_bytes, experts / 2);
    }
}

#[test]
fn synthetic_experts() {
    let gpu = pollster::block_on(Gpu::open(&DeviceOptions::default())).unwrap();
    let synthetic = GpuBackend::synthetic(gpu, experts_config(), &OPTIONS, 7);
    let mut backend = pollster::block_on(synthetic).unwrap();
    let sequence = backend.open_sequence().unwrap();
    let logits = all_logits(&mut backend, sequence, &tokens(), &[1, 9, 31]);
    assert!(logits.iter().all(|logit| logit.is_finite()) && logits[0] != logits[1]);
}
