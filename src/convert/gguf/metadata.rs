//! A config as the keys that llama.cpp reads (`conversion/gemma.py`, `src/models/gemma3.cpp`,
//! `gemma4.cpp`).

use std::collections::HashMap;

use crate::checkpoint::gguf::writer::{NewGgufTensor, NewValue};
use crate::error::{Error, Result};
use crate::model::config::{Architecture, AttentionKind, LayerConfig, ModelConfig};
use crate::quant::Dtype;

/// The factor with which converters mark a pair that does not rotate.
const NO_ROTATION: f32 = 1e30;
/// The default for Gemma 3: every sixth layer is full.
const USUAL_PERIOD: usize = 6;

/// `rope_freqs.weight` of Gemma 4, which divides the angles of full layers.
pub fn rotation_factors(config: &ModelConfig) -> Option<Vec<f32>> {
    let layer = full_layer(config)?;
    let of_pair =
        |pair| if pair < layer.rope.rotated_pairs { layer.rope.scale } else { NO_ROTATION };
    (config.architecture == Architecture::Gemma4)
        .then(|| (0..layer.head_dim / 2).map(of_pair).collect())
}

/// `general.*` and the architecture's keys.
///
/// Errors: a number beyond u32.
pub fn of_config(
    config: &ModelConfig,
    name: &str,
    tensors: &[NewGgufTensor],
) -> Result<Vec<(String, NewValue)>> {
    let architecture = architecture_name(config);
    let mut keys = Keys { prefix: architecture, keys: Vec::new(), fault: None };
    let general = |key: &str, value: NewValue| (format!("general.{key}"), value);
    keys.keys.extend([
        general("architecture", NewValue::Text(architecture.into())),
        general("type", NewValue::Text("model".into())),
        general("name", NewValue::Text(name.into())),
        general("file_type", NewValue::U32(file_type(tensors))),
        general("quantization_version", NewValue::U32(2)),
    ]);
    keys.size("block_count", config.layers.len());
    keys.size("context_length", config.max_position_embeddings);
    keys.size("embedding_length", config.hidden_size);
    keys.size("vocab_size", config.vocab_size);
    keys.sizes(
        "feed_forward_length",
        config.layers.iter().map(|layer| layer.intermediate_size).collect(),
    );
    keys.sizes("attention.head_count", config.layers.iter().map(|layer| layer.n_heads).collect());
    keys.sizes(
        "attention.head_count_kv",
        config.layers.iter().map(|layer| layer.n_kv_heads).collect(),
    );
    keys.float("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    // Without the key llama.cpp caps Gemma 4's logits at 30.
    keys.float("final_logit_softcapping", config.final_logit_softcap.unwrap_or(0.0));
    match config.architecture {
        Architecture::Gemma3 => gemma3(config, &mut keys),
        Architecture::Gemma4 => gemma4(config, &mut keys),
    }
    keys.fault.map_or(Ok(keys.keys), Err)
}

pub fn architecture_name(config: &ModelConfig) -> &'static str {
    match config.architecture {
        Architecture::Gemma3 => "gemma3",
        Architecture::Gemma4 => "gemma4",
    }
}

/// All layers have heads of one size. Full layers come at a fixed period.
fn gemma3(config: &ModelConfig, keys: &mut Keys) {
    let Some(layer) = full_layer(config) else { return };
    heads(keys, "", layer);
    keys.float("rope.freq_base", layer.rope.theta);
    if layer.rope.scale != 1.0 {
        keys.put("rope.scaling.type", NewValue::Text("linear".into()));
        keys.float("rope.scaling.factor", layer.rope.scale);
    }
    let Some((sliding, window)) = sliding_layer(config) else { return };
    keys.float("rope.freq_base_swa", sliding.rope.theta);
    keys.size("attention.sliding_window", window);
    let pattern = sliding_pattern(config);
    let has_period = |period: usize| {
        pattern.iter().enumerate().all(|(index, sliding)| *sliding == ((index + 1) % period != 0))
    };
    if !has_period(USUAL_PERIOD) {
        match (2..=pattern.len()).find(|period| has_period(*period)) {
            Some(period) => keys.size("attention.sliding_window_pattern", period),
            None => keys.put("attention.sliding_window_pattern", NewValue::Bools(pattern)),
        }
    }
}

/// Heads of two sizes, and each layer's kind of attention.
fn gemma4(config: &ModelConfig, keys: &mut Keys) {
    if let Some(layer) = full_layer(config) {
        heads(keys, "", layer);
        keys.float("rope.freq_base", layer.rope.theta);
        keys.size("rope.dimension_count", layer.head_dim);
    }
    if let Some((layer, window)) =
        sliding_layer(config).or(full_layer(config).map(|layer| (layer, 0)))
    {
        heads(keys, "_swa", layer);
        keys.float("rope.freq_base_swa", layer.rope.theta);
        keys.size("rope.dimension_count_swa", layer.head_dim);
        keys.size("attention.sliding_window", window);
    }
    keys.put("attention.sliding_window_pattern", NewValue::Bools(sliding_pattern(config)));
    if let Some(experts) = config.experts() {
        keys.size("expert_count", experts.count);
        keys.size("expert_used_count", experts.top_k);
        keys.size("expert_feed_forward_length", experts.intermediate_size);
    }
    keys.size("attention.shared_kv_layers", config.layers.len() - config.cached_layers().len());
    keys.size(
        "embedding_length_per_layer_input",
        config.per_layer_input.map_or(0, |input| input.size),
    );
}

fn heads(keys: &mut Keys, kind: &str, layer: &LayerConfig) {
    keys.size(&format!("attention.key_length{kind}"), layer.head_dim);
    keys.size(&format!("attention.value_length{kind}"), layer.head_dim);
}

/// A full layer, or the first layer if none is full.
fn full_layer(config: &ModelConfig) -> Option<&LayerConfig> {
    let full = config.layers.iter().find(|layer| layer.attention == AttentionKind::Full);
    full.or(config.layers.first())
}

fn sliding_layer(config: &ModelConfig) -> Option<(&LayerConfig, usize)> {
    config.layers.iter().find_map(|layer| match layer.attention {
        AttentionKind::Sliding { window } => Some((layer, window)),
        AttentionKind::Full => None,
    })
}

fn sliding_pattern(config: &ModelConfig) -> Vec<bool> {
    config.layers.iter().map(|layer| layer.attention != AttentionKind::Full).collect()
}

/// llama.cpp's number (`llama_ftype`) for files of mostly one type.
fn file_type(tensors: &[NewGgufTensor]) -> u32 {
    let mut elements: HashMap<Dtype, usize> = HashMap::new();
    for tensor in tensors.iter().filter(|tensor| tensor.shape.len() >= 2) {
        *elements.entry(tensor.dtype).or_default() += tensor.shape.iter().product::<usize>();
    }
    match elements.into_iter().max_by_key(|(_, count)| *count).map(|(dtype, _)| dtype) {
        Some(Dtype::F16) => 1,
        Some(Dtype::Q4_0) => 2,
        Some(Dtype::Q4_1) => 3,
        Some(Dtype::Q8_0) => 7,
        Some(Dtype::BF16) => 32,
        _ => 0,
    }
}

/// Keys of an architecture.
struct Keys {
    prefix: &'static str,
    keys: Vec<(String, NewValue)>,
    fault: Option<Error>,
}

impl Keys {
    fn put(&mut self, key: &str, value: NewValue) {
        self.keys.push((format!("{}.{key}", self.prefix), value));
    }

    fn float(&mut self, key: &str, value: f32) {
        self.put(key, NewValue::F32(value));
    }

    fn size(&mut self, key: &str, value: usize) {
        match u32::try_from(value) {
            Ok(value) => self.put(key, NewValue::U32(value)),
            Err(_) => {
                self.fault = Some(Error::Config(format!("{key} = {value} is too large for GGUF")))
            }
        }
    }

    /// One value for each layer, or one for all.
    fn sizes(&mut self, key: &str, values: Vec<usize>) {
        match values.first() {
            Some(first) if values.iter().all(|value| value == first) => self.size(key, *first),
            // Numbers of heads and neurons are far below 2³¹.
            _ => self.put(key, NewValue::I32s(values.iter().map(|value| *value as i32).collect())),
        }
    }
}
