//! Persistent kernels against the separate kernels.

use super::load::{Stored, effective_config};
use crate::common::{self, demo::perplexity_and_logits, random_model::RandomModel, step};
use gemma4_wgpu::{
    backend::{Backend, SequenceStep, StepInput, StepOutput, StepResult},
    checkpoint::Checkpoint,
    generate::Divergence,
    gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions},
    model::{
        config::{AttentionKind, LayerConfig, ModelConfig, PerLayerInput, Rope},
        source::TensorSource,
        weights::LoadOptions,
    },
    quant::{Dtype, Quantize},
};

const SEPARATE: KernelOptions = KernelOptions { dp4a: Some(true), ..KernelOptions::UNSET };
const PERSISTENT: KernelOptions = KernelOptions { persistent: Some(true), ..SEPARATE };

/// The model with persistent kernels. `None` where the adapter cannot run them, which must be an
/// error. It needs coherent buffers, and subgroups of eight or more.
fn load(source: &dyn TensorSource, options: &LoadOptions) -> Option<GpuBackend> {
    let facts = pollster::block_on(Gpu::open(&DeviceOptions::default()))
        .expect("the test needs an adapter")
        .facts()
        .clone();
    let loaded = common::load_gpu(source, options, PERSISTENT);
    let has_subgroups = facts.subgroup_min_size == facts.subgroup_max_size;
    if facts.coherent && has_subgroups && facts.subgroup_min_size >= 8 {
        return Some(loaded.unwrap());
    }
    assert!(loaded.map(|_| ()).unwrap_err().to_string().contains("leave out persistent=on"));
    None
}

/// Fails unless each layer is two dispatches: attention and the persistent kernel.
fn assert_persistent(backend: &mut GpuBackend) {
    let sequence = backend.open_sequence().unwrap();
    let step =
        SequenceStep { sequence, input: StepInput::Tokens(&[5]), output: StepOutput::Greedy };
    let kernels = pollster::block_on(backend.profile(&[step])).unwrap();
    backend.close_sequence(sequence);
    let layers = backend.config().layers.len();
    let counts = [("sdpa_decode", layers), ("persistent_layer", layers), ("add_rms_norm", 0)];
    for (name, expected) in counts {
        let found = kernels.iter().filter(|kernel| kernel.name == name).count();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn the_demo_predicts_the_same() {
    let options = LoadOptions { context_length: 64, ..LoadOptions::default() };
    let Some(mut backend) = load(&Checkpoint::demo().unwrap(), &options) else { return };
    assert_persistent(&mut backend);

    let (expected, base) = perplexity_and_logits(&common::gpu(SEPARATE), 60, 1);
    let (found, logits) = perplexity_and_logits(&common::gpu(PERSISTENT), 60, 1);
    assert!(
        (found / expected - 1.0).abs() < 0.003,
        "{found}, with kernels of their own {expected}"
    );
    let mut divergence = Divergence::default();
    divergence.add(&base, &logits, base.len() / 60).unwrap();
    assert!(divergence.mean().unwrap() < 0.002, "{divergence:?}");
}

/// A model with the architecture of E2B. Its last two layers have no keys of their own, and their
/// MLP is twice as wide.
fn effective() -> RandomModel {
    let sliding = LayerConfig {
        attention: AttentionKind::Sliding { window: 6 },
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 32,
        rope: Rope { theta: 1e4, rotated_pairs: 16, scale: 1.0 },
        k_eq_v: false,
        intermediate_size: 192,
        kv_from: None,
        experts: None,
    };
    let full = LayerConfig {
        attention: AttentionKind::Full,
        n_kv_heads: 1,
        head_dim: 64,
        rope: Rope { theta: 1e6, rotated_pairs: 8, scale: 1.0 },
        ..sliding.clone()
    };
    let mut layers = vec![sliding.clone(), sliding, full];
    for source in [1, 2] {
        let intermediate_size = 2 * layers[source].intermediate_size;
        let shared =
            LayerConfig { kv_from: Some(source), intermediate_size, ..layers[source].clone() };
        layers.push(shared);
    }
    RandomModel::new(ModelConfig {
        per_layer_input: Some(PerLayerInput { size: 64, vocab_size: 90 }),
        max_position_embeddings: 4096,
        ..ModelConfig::gemma4(83, 128, layers)
    })
}

/// The logits after every third token. The other steps have no outputs.
fn some_logits(backend: &mut GpuBackend, tokens: &[u32]) -> Vec<f32> {
    let sequence = backend.open_sequence().unwrap();
    let mut all = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let output = if index % 3 == 2 { StepOutput::LastLogits } else { StepOutput::None };
        let result = step(backend, sequence, StepInput::Tokens(&[*token]), output).unwrap();
        if let StepResult::Logits(logits) = result {
            all.extend(logits);
        }
    }
    all
}

/// Fails unless persistent kernels run and predict the same as separate kernels.
fn assert_same_predictions(model: &dyn TensorSource, quantize: Quantize) {
    let vocab = model.config().vocab_size;
    let tokens = common::random_model::random_tokens(vocab, 60, 3);
    let options = LoadOptions { context_length: 64, quantize, ..LoadOptions::default() };
    let Some(mut backend) = load(model, &options) else { return };
    assert_persistent(&mut backend);
    let mut separate = common::load_gpu(model, &options, SEPARATE).unwrap();
    let found = some_logits(&mut backend, &tokens);
    let base = some_logits(&mut separate, &tokens);
    assert_eq!(base.len(), 20 * vocab);
    let mut divergence = Divergence::default();
    divergence.add(&base, &found, vocab).unwrap();
    assert!(divergence.mean().unwrap() < 1e-4, "{divergence:?}");
}

#[test]
fn models_with_per_layer_inputs_predict_the_same() {
    for quantize in [Quantize::Int4, Quantize::Int8] {
        assert_same_predictions(&effective(), quantize);
    }
}

/// As in GGUF's files of kind Q4_K_M, where q, k and v are separate matrices.
#[test]
fn mixed_formats_predict_the_same() {
    let mut model = Stored::of(effective_config(), Dtype::Q4_K, Dtype::Q8_0);
    for name in ["layers.1.self_attn.v_proj.weight", "layers.0.mlp.down_proj.weight"] {
        model.restore(name, Dtype::Q6_K);
    }
    assert_same_predictions(&model, Quantize::Auto);
}
