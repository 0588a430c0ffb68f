//! The three ways in which weights reach the device must give the same logits and errors.
//! These are: repacked on the device, packed on the host and copied, and written in place.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use crate::common::{all_logits, assert_close, load_gpu, random_model::RandomModel};
use gemma4_wgpu::{
    Error, Result,
    backend::{Backend, SequenceStep, StepInput, StepOutput, StepResult},
    checkpoint::Checkpoint,
    gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions},
    model::{
        config::{AttentionKind, LayerConfig, ModelConfig, PerLayerInput, Rope},
        source::{LocalBoxFuture, TensorInfo, TensorSource},
        weights::LoadOptions,
    },
    quant::{Dtype, PackFormat, Quantize, pack_rows},
};
use half::f16;

const OPTIONS: LoadOptions = LoadOptions {
    quantize: Quantize::None,
    context_length: 64,
    max_sequences: 1,
    cache_type: gemma4_wgpu::model::kv::CacheType::F32,
};
const TOKENS: [u32; 7] = [1, 5, 2, 60, 33, 8, 4];

/// The ways in which weights reach the device.
#[derive(Debug, Clone, Copy)]
enum Way {
    Packed,
    Repacked,
    InPlace,
}

const OTHER_WAYS: [Way; 2] = [Way::Repacked, Way::InPlace];

fn kernels(way: Way) -> KernelOptions {
    let options = match way {
        Way::Packed => "repack=off,inplace=off",
        Way::Repacked => "repack=on",
        Way::InPlace => "inplace=on",
    };
    options.parse().unwrap()
}

/// A config whose rows fill blocks of 256.
pub(super) fn config(vocab_size: usize) -> ModelConfig {
    let sliding = LayerConfig {
        attention: AttentionKind::Sliding { window: 6 },
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 64,
        rope: Rope { theta: 1e4, rotated_pairs: 32, scale: 1.0 },
        k_eq_v: false,
        intermediate_size: 768,
        kv_from: None,
        experts: None,
    };
    let full = LayerConfig {
        attention: AttentionKind::Full,
        n_kv_heads: 1,
        head_dim: 128,
        k_eq_v: true,
        ..sliding.clone()
    };
    ModelConfig {
        max_position_embeddings: 4096,
        ..ModelConfig::gemma4(vocab_size, 256, vec![sliding, full])
    }
}

/// A random model whose matrices are stored in other types.
pub(super) struct Stored {
    model: RandomModel,
    matrices: BTreeMap<String, (TensorInfo, Vec<u8>)>,
}

impl Stored {
    /// Layers stored as `linear`, and the embedding as `embedding`.
    fn new(vocab_size: usize, linear: Dtype, embedding: Dtype) -> Stored {
        Stored::of(config(vocab_size), linear, embedding)
    }

    pub(super) fn of(config: ModelConfig, linear: Dtype, embedding: Dtype) -> Stored {
        let model = RandomModel::new(config);
        let mut matrices = BTreeMap::new();
        let planned = gemma4_wgpu::model::weights::planned_tensors(&model, Quantize::None).unwrap();
        for tensor in planned.into_iter().filter(|tensor| tensor.format.is_some()) {
            let dtype = if tensor.name.starts_with("embed_tokens") { embedding } else { linear };
            let shape = tensor.info.shape;
            let values = pollster::block_on(model.read(&tensor.name, 0..shape[0])).unwrap();
            let bytes = store(dtype, &values, shape[0], shape[1]);
            matrices.insert(tensor.name, (TensorInfo { dtype, shape }, bytes));
        }
        Stored { model, matrices }
    }

    /// Stores one matrix as another type.
    pub(super) fn restore(&mut self, name: &str, dtype: Dtype) {
        let (info, stored) = self.matrices.get_mut(name).unwrap();
        let (rows, cols) = (info.shape[0], info.shape[1]);
        let values = pollster::block_on(self.model.read(name, 0..rows)).unwrap();
        (info.dtype, *stored) = (dtype, store(dtype, &values, rows, cols));
    }

    /// Overwrites a part of a row with `bytes`.
    fn spoil(&mut self, name: &str, row: usize, at: usize, bytes: &[u8]) {
        let (info, stored) = self.matrices.get_mut(name).unwrap();
        let row_bytes = info.dtype.bytes_of(info.shape[1]).unwrap();
        stored[row * row_bytes + at..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// Stores f32 values as `dtype`. Floats and packed rows represent these values.
/// Blocks consist of the bits of the values, whatever they mean, and have small scales.
fn store(dtype: Dtype, values: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let floats: &[f32] = bytemuck::cast_slice(values);
    match dtype {
        Dtype::F32 => values.to_vec(),
        Dtype::F16 => floats.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => floats.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::Packed(format) => {
            pack_rows(Dtype::F32, values, rows, cols, format).unwrap().to_bytes()
        }
        _ => {
            let len = dtype.bytes_of(cols).unwrap() * rows;
            let mut bytes: Vec<u8> = values.iter().step_by(2).copied().cycle().take(len).collect();
            let steps: &[f32] = match dtype {
                Dtype::Q4_1 | Dtype::Q5_1 => &[0.004, -0.03],
                Dtype::Q4_K | Dtype::Q5_K => &[0.0001, 0.0007],
                Dtype::IQ4_NL | Dtype::IQ4_XS => &[0.0002],
                _ => &[0.004],
            };
            let at = if dtype == Dtype::Q6_K { 208 } else { 0 };
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                for (to, step) in block[at..].chunks_exact_mut(2).zip(steps) {
                    to.copy_from_slice(&f16::from_f32(*step).to_le_bytes());
                }
            }
            bytes
        }
    }
}

impl TensorSource for Stored {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.matrices.get(name).map(|(info, _)| info.clone()).or_else(|| self.model.info(name))
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        rows: Range<usize>,
    ) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        let Some((info, bytes)) = self.matrices.get(name) else {
            return self.model.read(name, rows);
        };
        let row_bytes = info.dtype.bytes_of(info.shape[1]).unwrap();
        Box::pin(
            async move { Ok(Cow::Borrowed(&bytes[rows.start * row_bytes..rows.end * row_bytes])) },
        )
    }
}

/// The bits of the logits of some tokens, fed one at a time and together.
fn logits(source: &dyn TensorSource, quantize: Quantize, tokens: &[u32], way: Way) -> Vec<u32> {
    let mut backend = load_gpu(source, &LoadOptions { quantize, ..OPTIONS }, kernels(way)).unwrap();
    let mut bits = Vec::new();
    for chunk in [1, tokens.len()] {
        let sequence = backend.open_sequence().unwrap();
        let logits = all_logits(&mut backend, sequence, tokens, &[chunk]);
        assert!(
            logits.iter().all(|logit| logit.is_finite()) && logits[0] != logits[1],
            "{:?}",
            &logits[..4]
        );
        bits.extend(logits.iter().map(|logit| logit.to_bits()));
        backend.close_sequence(sequence);
    }
    bits
}

fn assert_same(source: &dyn TensorSource, tokens: &[u32], what: &str) {
    assert_same_as(source, Quantize::None, tokens, what);
}

fn assert_same_as(source: &dyn TensorSource, quantize: Quantize, tokens: &[u32], what: &str) {
    let packed = logits(source, quantize, tokens, Way::Packed);
    for way in OTHER_WAYS {
        assert!(logits(source, quantize, tokens, way) == packed, "{what}, {way:?}");
    }
}

#[test]
fn all_ways_give_the_same_logits() {
    let int = |bits, group, offset| Dtype::Packed(PackFormat::Int { bits, group, offset });
    for (linear, embedding) in [
        (Dtype::Q4_0, Dtype::Q8_0),
        (Dtype::Q4_1, Dtype::Q4_K),
        (Dtype::Q4_K, Dtype::Q6_K),
        (Dtype::Q5_0, Dtype::F16),
        (Dtype::Q5_K, Dtype::IQ4_XS),
        (Dtype::IQ4_NL, Dtype::Q5_1),
        (Dtype::BF16, Dtype::F32),
        (int(4, 32, false), int(8, 32, false)),
        (int(4, 32, true), int(8, 16, false)),
    ] {
        assert_same(
            &Stored::new(83, linear, embedding),
            &TOKENS,
            &format!("{linear}, {embedding}"),
        );
    }
    // The host packs the quantized matrices, and the embedding keeps its format.
    let source = Stored::new(83, Dtype::BF16, Dtype::Q8_0);
    assert_same_as(&source, Quantize::Int4, &TOKENS, "quantized while it is loaded");
    assert_same(&Checkpoint::demo().unwrap(), &TOKENS, "demo");
}

/// A small model with the architecture of E2B.
pub(super) fn effective_config() -> ModelConfig {
    let mut config = config(83);
    let sharing =
        LayerConfig { kv_from: Some(0), intermediate_size: 1536, ..config.layers[0].clone() };
    config.layers[1].k_eq_v = false;
    config.layers.extend([sharing.clone(), sharing]);
    config.per_layer_input = Some(PerLayerInput { size: 256, vocab_size: 90 });
    config
}

/// Random weights made on the device, as in `bench --synthetic`. Also with several sequences at
/// once.
#[test]
fn synthetic_effective_models() {
    let gpu = pollster::block_on(Gpu::open(&DeviceOptions::default())).unwrap();
    let options = LoadOptions { max_sequences: 2, ..OPTIONS };
    let mut backend =
        pollster::block_on(GpuBackend::synthetic(gpu, effective_config(), &options, 7)).unwrap();
    let sequences = [0, 1].map(|_| backend.open_sequence().unwrap());
    let alone = all_logits(&mut backend, sequences[0], &TOKENS, &[TOKENS.len()]);
    backend.truncate(sequences[0], 0).unwrap();
    assert!(
        alone.iter().all(|logit| logit.is_finite()) && alone[0] != alone[1],
        "{:?}",
        &alone[..4]
    );
    let part = |sequence| SequenceStep {
        sequence,
        input: StepInput::Tokens(&TOKENS),
        output: StepOutput::AllLogits,
    };
    let ticket = backend.submit(&sequences.map(part)).unwrap();
    for result in pollster::block_on(backend.read(ticket)).unwrap() {
        let StepResult::Logits(logits) = result else { panic!("asked for logits, got {result:?}") };
        assert_close(&logits, &alone, 3e-2, "two sequences");
    }
}

/// Per-layer embeddings and KV sharing, where q is not fused with k and v.
/// All ways give the same logits and need no more memory than planned.
#[test]
fn effective_models_in_all_ways() {
    let config = effective_config();
    for (linear, embedding) in
        [(Dtype::Q4_0, Dtype::Q6_K), (Dtype::Q4_K, Dtype::Q5_K), (Dtype::BF16, Dtype::F32)]
    {
        let source = Stored::of(config.clone(), linear, embedding);
        assert_same(&source, &TOKENS, &format!("{linear}, {embedding}"));
        for way in [Way::Packed, Way::Repacked, Way::InPlace] {
            let device = DeviceOptions { kernels: kernels(way), ..Default::default() };
            let gpu = pollster::block_on(Gpu::open(&device)).unwrap();
            let plan = GpuBackend::plan(&gpu, &source, &OPTIONS).unwrap();
            let backend =
                pollster::block_on(GpuBackend::load(gpu.clone(), &source, &OPTIONS, &mut |_| ()))
                    .unwrap();
            let info = backend.info();
            assert!(
                info.peak_bytes <= plan.total_bytes(),
                "{} held, {plan:?}, {way:?}",
                info.peak_bytes
            );
            assert_eq!(info.kv_bytes, plan.kv_sliding_bytes + plan.kv_full_bytes);
            let table = source.info("embed_tokens_per_layer.weight").unwrap();
            assert!(0 < info.unread_bytes && info.unread_bytes <= 4 * table.elements() as u64);
        }
    }
}

/// Matrices with one input. The last or the first cannot be fused with the others.
#[test]
fn matrices_of_different_types_stay_apart() {
    for name in ["layers.0.self_attn.v_proj.weight", "layers.1.mlp.gate_proj.weight"] {
        let mut model = Stored::new(83, Dtype::Q4_K, Dtype::Q8_0);
        model.restore(name, Dtype::Q6_K);
        assert_same(&model, &TOKENS, name);
    }
}

/// A matrix with more slices than buffers, and more bytes than one binding may have on many
/// adapters.
#[test]
fn buffers_take_turns_within_what_was_planned() {
    let model = Stored::new(165_000, Dtype::Q4_0, Dtype::F32);
    for way in OTHER_WAYS {
        let device = DeviceOptions { kernels: kernels(way), ..Default::default() };
        let gpu = pollster::block_on(Gpu::open(&device)).unwrap();
        let plan = GpuBackend::plan(&gpu, &model, &OPTIONS).unwrap();
        let backend =
            pollster::block_on(GpuBackend::load(gpu.clone(), &model, &OPTIONS, &mut |_| ()))
                .unwrap();
        let peak = backend.info().peak_bytes;
        assert!(peak <= plan.total_bytes(), "{peak} bytes held, {plan:?}, {way:?}");
    }
    assert_same(&model, &[3], "many slices");
}

fn load_error(source: &dyn TensorSource, way: Way) -> Error {
    load_gpu(source, &OPTIONS, kernels(way)).err().expect("a matrix that cannot be held is refused")
}

/// The error is the host's, about the first such tensor and its first such row.
#[test]
fn what_is_not_finite_is_named() {
    let nan = f16::NAN.to_le_bytes();
    let spoils: [(Dtype, usize, &[u8]); 5] = [
        (Dtype::Q4_0, 18, &nan),
        (Dtype::Q8_0, 34, &nan),
        (Dtype::Q4_K, 2, &nan),
        (Dtype::F32, 8, &f32::INFINITY.to_le_bytes()),
        (Dtype::Packed(PackFormat::INT4), 128, &nan),
    ];
    for (dtype, at, bytes) in spoils {
        let mut model = Stored::new(83, dtype, Dtype::Q8_0);
        model.spoil("layers.1.mlp.up_proj.weight", 5, at, bytes);
        model.spoil("layers.1.mlp.up_proj.weight", 700, at, bytes);
        model.spoil("layers.1.mlp.down_proj.weight", 3, at, bytes);
        let on_host = load_error(&model, Way::Packed).to_string();
        for way in OTHER_WAYS {
            assert_eq!(load_error(&model, way).to_string(), on_host, "{dtype}, {way:?}");
        }
        assert!(
            on_host.contains("layers.1.mlp.up_proj.weight") && on_host.contains("row 5"),
            "{on_host}"
        );
    }
}

/// An option chooses the way. Otherwise weights are written in place if memory is unified.
#[test]
fn the_way_follows_the_options_and_the_memory() {
    let open =
        |kernels| pollster::block_on(Gpu::open(&DeviceOptions { kernels, ..Default::default() }));
    let ways = |kernels| {
        let gpu = open(kernels).unwrap();
        (gpu.tuning().repack, gpu.tuning().inplace)
    };
    assert_eq!(ways(kernels(Way::Packed)), (false, false));
    assert_eq!(ways(kernels(Way::Repacked)), (true, false));
    assert_eq!(ways(kernels(Way::InPlace)), (false, true));
    assert_eq!(ways("inplace=off".parse().unwrap()), (true, false));
    let gpu = open(KernelOptions::default()).unwrap();
    let unified = gpu.facts().unified_memory && gpu.facts().mappable_storage;
    assert_eq!((gpu.tuning().repack, gpu.tuning().inplace), (!unified, unified));
    let error = open("repack=on,inplace=on".parse().unwrap()).err().unwrap().to_string();
    assert!(error.contains("exclude each other"), "{error}");
}
