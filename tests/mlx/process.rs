//! How much memory MLX uses, and which operations a step calls.
//! MLX counts both for the whole process.

use std::collections::BTreeMap;

use crate::common::{load_mlx, own_process::in_own_process, random_model::RandomModel, step};
use gemma4_wgpu::{
    backend::{Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult},
    mlx::{
        Activations, MlxBackend, active_bytes,
        ops::{Array, Dtype},
        peak_bytes, reset_peak,
    },
    model::{
        config::{AttentionKind, LayerConfig, ModelConfig, Rope},
        kv::CacheType,
        weights::LoadOptions,
    },
};

/// A model with every third layer full, where V is K. Its sizes need no padding.
fn config(layers: usize) -> ModelConfig {
    let sliding = LayerConfig {
        attention: AttentionKind::Sliding { window: 64 },
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 32,
        rope: Rope { theta: 1e4, rotated_pairs: 16, scale: 1.0 },
        k_eq_v: false,
        intermediate_size: 64,
        kv_from: None,
        experts: None,
    };
    let full = LayerConfig { attention: AttentionKind::Full, k_eq_v: true, ..sliding.clone() };
    ModelConfig {
        max_position_embeddings: 1 << 20,
        ..ModelConfig::gemma4(
            96,
            64,
            (0..layers).map(|i| if i % 3 == 2 { full.clone() } else { sliding.clone() }).collect(),
        )
    }
}

fn load(config: ModelConfig, context_length: usize) -> MlxBackend {
    let options =
        LoadOptions { context_length, cache_type: CacheType::F32, ..LoadOptions::default() };
    load_mlx(&RandomModel::new(config), &options, Activations::F32).unwrap()
}

/// The operations that a step of one sequence calls.
fn calls(
    backend: &mut MlxBackend,
    sequence: SequenceId,
    tokens: &[u32],
) -> BTreeMap<&'static str, usize> {
    backend.take_calls().unwrap();
    step(backend, sequence, StepInput::Tokens(tokens), StepOutput::Greedy).unwrap();
    backend.take_calls().unwrap()
}

/// Each layer has two ropes, two cache updates and one attention.
/// No operation that MLX has is composed of several, because each costs a kernel launch on a Mac.
#[test]
fn operations_of_a_layer() {
    in_own_process("process::operations_of_a_layer", || {
        let layers = 6;
        let full = layers / 3;
        let mut backend = load(config(layers), 128);
        let sequence = backend.open_sequence().unwrap();
        // A prompt and a single token need the same operations. Masks come from the host.
        for tokens in [&[1, 2, 3, 4, 5][..], &[6]] {
            let expected = BTreeMap::from([
                // Words, scales and biases of the embedding's rows.
                ("take", 3),
                ("dequantize", 1),
                ("scale", 1 + layers),
                ("quantized_matmul", 7 * layers - full + 1),
                ("rms_norm", 7 * layers + 1),
                ("rope", 2 * layers),
                ("reshape", 4 * layers),
                ("swap_heads", 4 * layers),
                ("slice_update", 2 * layers),
                // Keys and values of each layer, and the last row.
                ("slice", 2 * layers + 1),
                ("sdpa", layers),
                ("add", 2 * layers),
                ("gelu_mul", layers),
                ("softcap", 1),
                ("argmax", 1),
            ]);
            assert_eq!(calls(&mut backend, sequence, tokens), expected, "{} tokens", tokens.len());
        }
    });
}

/// The most memory that `run` makes MLX hold beyond what it held before.
fn growth(run: impl FnOnce()) -> u64 {
    let before = active_bytes();
    reset_peak().unwrap();
    run();
    peak_bytes().saturating_sub(before)
}

/// A second reference makes MLX copy. This shows that the next test's measurement sees copies.
#[test]
fn a_second_reference_copies() {
    in_own_process("process::a_second_reference_copies", || {
        let elements = 1 << 22;
        let update = |keep: bool| {
            let array = Array::zeros(&[1, elements], Dtype::F32).unwrap();
            let kept = keep.then(|| array.try_clone().unwrap());
            let one = Array::new(&1f32.to_le_bytes(), &[1, 1], Dtype::F32).unwrap();
            let grown =
                growth(|| array.slice_update(&one, &[0, 7], &[1, 8]).unwrap().wait().unwrap());
            drop(kept);
            grown
        };
        assert!(update(true) >= 4 * elements as u64);
        assert!(update(false) < 1 << 16);
    });
}

/// Steps need memory for their activations but not for a second cache.
/// That holds for steps that are read one by one and for steps submitted ahead.
#[test]
fn kv_caches_are_updated_in_place() {
    in_own_process("process::kv_caches_are_updated_in_place", || {
        let context = 1 << 16;
        // Bytes of the keys or values of one full layer.
        let array_bytes = 4 * 32 * context as u64;
        let mut backend = load(config(12), context);
        assert!(backend.info().kv_bytes >= 8 * array_bytes);
        let sequence = backend.open_sequence().unwrap();
        let first = step(&mut backend, sequence, StepInput::Tokens(&[1, 2, 3]), StepOutput::Greedy)
            .unwrap();
        assert!(matches!(first, StepResult::Token(_)));

        let one_by_one = growth(|| {
            for _ in 0..10 {
                step(&mut backend, sequence, StepInput::Previous, StepOutput::Greedy).unwrap();
            }
        });
        assert!(
            one_by_one < array_bytes / 2,
            "{one_by_one} bytes, a layer's keys have {array_bytes}"
        );

        let ahead = growth(|| {
            let mut before = None;
            for _ in 0..20 {
                let next = [SequenceStep {
                    sequence,
                    input: StepInput::Previous,
                    output: StepOutput::Greedy,
                }];
                let ticket = backend.submit(&next).unwrap();
                if let Some(ticket) = before.replace(ticket) {
                    pollster::block_on(backend.read(ticket)).unwrap();
                }
            }
            pollster::block_on(backend.read(before.unwrap())).unwrap();
        });
        assert!(ahead < array_bytes / 2, "{ahead} bytes, a layer's keys have {array_bytes}");
    });
}
