//! [`ModelConfig`] from Hugging Face `config.json`, with the defaults of transformers 5.17
//! (`configuration_gemma3.py`, `configuration_gemma4.py`, `configuration_gemma4_unified.py`).

use serde_json::Value;

use crate::error::{Error, Result, quoted};
use crate::json::{self, Fields};
use crate::model::config::hf_class::{Class, LayerType};
use crate::model::config::hf_rope::Ropes;
use crate::model::config::validate::MAX_LAYERS;
use crate::model::config::{
    AttentionKind, Experts, LayerConfig, ModelConfig, PerLayerInput, share_kv,
};

const TIED: &str = "tie_word_embeddings";
/// Whether layers have experts.
pub(crate) const EXPERTS: &str = "enable_moe_block";

impl ModelConfig {
    /// Reads the text of a `config.json`, as published or as transformers 5.17 writes it. It is a
    /// text model's (flat) or a multi-modal model's (nested `text_config`).
    ///
    /// Errors: [`Error::Config`] for values that are wrong, [`Error::Unsupported`] for features
    /// that this crate lacks.
    pub fn from_hf_json(json: &str) -> Result<Self> {
        let value: Value = json::parse(json.as_bytes())
            .map_err(|error| Error::Config(format!("config.json: {error}")))?;
        let root = Fields::of(&value, "config.json")?;
        let text = root.object("text_config")?.unwrap_or(root);
        let outer = root
            .text("model_type")?
            .ok_or_else(|| Error::Config("model_type is missing".into()))?;
        let class = match (Class::of(outer)?, text.text("model_type")?) {
            (outer, None) => outer,
            (_, Some(inner)) => Class::of(inner)?,
        };
        refuse_unsupported(text, class)?;
        let config = ModelConfig {
            rms_norm_eps: text.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            final_logit_softcap: text.number("final_logit_softcapping")?.map(|cap| cap as f32),
            attention_scale: match class {
                Class::Gemma3 => {
                    text.number("query_pre_attn_scalar")?.unwrap_or(256.0).powf(-0.5) as f32
                }
                _ => 1.0,
            },
            norm_weight_offset: if class == Class::Gemma3 { 1.0 } else { 0.0 },
            // For a multi-modal model, transformers uses the outer config.
            tie_word_embeddings: root.flag(TIED)?.unwrap_or(true),
            max_position_embeddings: text
                .size("max_position_embeddings")?
                .unwrap_or(class.default_max_positions()),
            per_layer_input: per_layer_input(text, class)?,
            ..ModelConfig::new(
                class.architecture(),
                text.size("vocab_size")?.unwrap_or(class.default_vocab_size()),
                text.size("hidden_size")?.unwrap_or(2304),
                layers(text, class)?,
            )
        };
        config.validate()?;
        Ok(config)
    }
}

/// A config.json that says whether the head is tied. The bytes stay the same if it already does.
pub(crate) fn with_tied(bytes: Vec<u8>, tied: bool) -> Result<Vec<u8>, String> {
    let mut value: Value = json::parse(&bytes)?;
    if value.get(TIED).and_then(Value::as_bool).unwrap_or(true) == tied {
        return Ok(bytes);
    }
    tie(&mut value, tied);
    Ok(format!("{value:#}\n").into())
}

/// Sets the key of the tied head in a config.json, for a multi-modal model in both places.
fn tie(config: &mut Value, tied: bool) {
    if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        text.insert(TIED.into(), tied.into());
    }
    if let Some(fields) = config.as_object_mut() {
        fields.insert(TIED.into(), tied.into());
    }
}

/// Errors with the name of the first unsupported feature.
fn refuse_unsupported(text: Fields, class: Class) -> Result<()> {
    let refuse = |feature: String| Err(Error::Unsupported(feature));
    match text.text("hidden_activation")? {
        None | Some("gelu_pytorch_tanh") => {}
        Some(other) => {
            return refuse(format!("hidden_activation {} (only gelu_pytorch_tanh)", quoted(other)));
        }
    }
    match text.get("use_bidirectional_attention") {
        None | Some(Value::Bool(false)) => {}
        // This concerns only image tokens.
        Some(Value::String(kind)) if kind == "vision" => {}
        Some(_) => {
            return refuse(
                "bidirectional attention over text (use_bidirectional_attention)".into(),
            );
        }
    }
    if let Some(cap) = text.number("attn_logit_softcapping")? {
        return refuse(format!("attention logit softcapping (attn_logit_softcapping = {cap})"));
    }
    let lacks_experts = class != Class::Gemma4;
    for (key, feature, is_refused) in [
        ("attention_bias", "attention biases", true),
        (EXPERTS, "mixture of experts in this architecture", lacks_experts),
    ] {
        if is_refused && text.flag(key)? == Some(true) {
            return refuse(format!("{feature} ({key})"));
        }
    }
    let lacking: &[_] = match class {
        Class::Gemma3 => &[
            ("hidden_size_per_layer_input", "per-layer embeddings"),
            ("num_kv_shared_layers", "KV sharing between layers"),
        ],
        Class::Gemma4 => &[],
        Class::Gemma4Unified => &[("hidden_size_per_layer_input", "per-layer embeddings")],
    };
    for (key, feature) in lacking {
        if let Some(size @ 1..) = text.size(key)? {
            return refuse(format!("{feature} in this architecture ({key} = {size})"));
        }
    }
    Ok(())
}

/// The experts of every layer.
///
/// Errors: one of their numbers is missing.
fn experts(text: Fields) -> Result<Option<Experts>> {
    if text.flag(EXPERTS)? != Some(true) {
        return Ok(None);
    }
    let size = |key: &str| {
        let missing = || Error::Config(format!("{key} is missing, and {EXPERTS} is set"));
        text.size(key)?.ok_or_else(missing)
    };
    let intermediate_size = match text.size("expert_intermediate_size")? {
        Some(size) => size,
        None => size("moe_intermediate_size")?,
    };
    Ok(Some(Experts {
        count: size("num_experts")?,
        top_k: size("top_k_experts")?,
        intermediate_size,
    }))
}

/// Per-layer embeddings, unless their size is 0.
fn per_layer_input(text: Fields, class: Class) -> Result<Option<PerLayerInput>> {
    if class != Class::Gemma4 {
        return Ok(None);
    }
    let default = if text.has("hidden_size_per_layer_input") { 0 } else { 256 };
    let size = text.size("hidden_size_per_layer_input")?.unwrap_or(default);
    let vocab_size = text.size("vocab_size_per_layer_input")?.unwrap_or(262_144);
    Ok((size > 0).then_some(PerLayerInput { size, vocab_size }))
}

fn layers(text: Fields, class: Class) -> Result<Vec<LayerConfig>> {
    let count = text.size("num_hidden_layers")?.unwrap_or(class.default_layers());
    if count > MAX_LAYERS {
        return Err(Error::Config(format!(
            "num_hidden_layers = {count} is more than {MAX_LAYERS}"
        )));
    }
    let types = layer_types(text, class, count)?;
    let heads = head_sizes(text, class, &types)?;
    let intermediate_size = text.size("intermediate_size")?.unwrap_or(9216);
    let n_heads = text.size("num_attention_heads")?.unwrap_or(8);
    let window = text.size("sliding_window")?.unwrap_or(class.default_window());
    let k_eq_v = class != Class::Gemma3 && text.flag("attention_k_eq_v")?.unwrap_or(false);
    let ropes = Ropes::read(text, class, &types)?;
    let experts = experts(text)?;
    let layer = |(&layer_type, heads): (&LayerType, Heads)| LayerConfig {
        attention: match layer_type {
            LayerType::Sliding => AttentionKind::Sliding { window },
            LayerType::Full => AttentionKind::Full,
        },
        n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        rope: ropes.of(layer_type).resolve(heads.head_dim),
        k_eq_v: k_eq_v && layer_type == LayerType::Full,
        intermediate_size,
        kv_from: None,
        experts,
    };
    let mut layers: Vec<LayerConfig> = types.iter().zip(heads).map(layer).collect();
    if class != Class::Gemma3 {
        let key = "num_kv_shared_layers";
        share_kv(&mut layers, text.size(key)?.unwrap_or(0), key)?;
        // The MLP of layers that share keys and values is then twice as wide.
        if text.flag("use_double_wide_mlp")? == Some(true) {
            let sharing = layers.iter_mut().filter(|layer| layer.kv_from.is_some());
            sharing.for_each(|layer| {
                layer.intermediate_size = layer.intermediate_size.saturating_mul(2)
            });
        }
    }
    Ok(layers)
}

fn layer_types(text: Fields, class: Class, count: usize) -> Result<Vec<LayerType>> {
    let mut types: Vec<LayerType> = match text.list("layer_types")? {
        Some(list) if list.len() != count => {
            let len = list.len();
            return Err(Error::Config(format!(
                "layer_types has {len} entries, num_hidden_layers is {count}"
            )));
        }
        Some(list) => list.iter().map(LayerType::parse).collect::<Result<_>>()?,
        None => {
            let period = match class {
                Class::Gemma3 => text.size("sliding_window_pattern")?.unwrap_or(6),
                _ => 6,
            };
            if period == 0 {
                return Err(Error::Config("sliding_window_pattern is 0".into()));
            }
            let full_at = |index: usize| {
                if index.is_multiple_of(period) { LayerType::Full } else { LayerType::Sliding }
            };
            (1..=count).map(full_at).collect()
        }
    };
    // transformers forces this, with a warning.
    if class != Class::Gemma3
        && let Some(last) = types.last_mut()
    {
        *last = LayerType::Full;
    }
    Ok(types)
}

/// The values that may differ between layers.
#[derive(Debug, Clone, Copy)]
struct Heads {
    head_dim: usize,
    n_kv_heads: usize,
}

fn head_sizes(text: Fields, class: Class, types: &[LayerType]) -> Result<Vec<Heads>> {
    let common = Heads {
        head_dim: text.size("head_dim")?.unwrap_or(256),
        n_kv_heads: text.size("num_key_value_heads")?.unwrap_or(4),
    };
    let mut heads = vec![common; types.len()];
    if text.has("per_layer_config") {
        apply_per_layer_config(text, class, &mut heads)?;
    } else if class != Class::Gemma3 {
        let mut full = Heads { head_dim: text.size("global_head_dim")?.unwrap_or(512), ..common };
        if text.flag("attention_k_eq_v")? == Some(true) {
            full.n_kv_heads = text.size("num_global_key_value_heads")?.unwrap_or(common.n_kv_heads);
        }
        for (heads, _) in
            heads.iter_mut().zip(types).filter(|(_, layer_type)| **layer_type == LayerType::Full)
        {
            *heads = full;
        }
    }
    Ok(heads)
}

/// `per_layer_config` maps layer indices (zero-padded strings) to values that differ from the
/// model's. Where it is given, `global_head_dim` and similar keys have no effect.
fn apply_per_layer_config(text: Fields, class: Class, heads: &mut [Heads]) -> Result<()> {
    let Some(overrides) = text.object("per_layer_config")? else { return Ok(()) };
    let mut seen = vec![false; heads.len()];
    for (key, value) in overrides.iter() {
        let index = key.parse().ok().filter(|index| *index < heads.len());
        let index: usize = index.ok_or_else(|| {
            Error::Config(format!("per_layer_config has no layer {} to change", quoted(key)))
        })?;
        if std::mem::replace(&mut seen[index], true) {
            return Err(Error::Config(format!("per_layer_config names layer {index} twice")));
        }
        let layer = Fields::of(value, "an entry of per_layer_config")?;
        for (name, value) in layer.iter() {
            // An override may repeat the model's value.
            if text.get(name) == Some(value) {
                continue;
            }
            match (name.as_str(), class) {
                ("head_dim", Class::Gemma4 | Class::Gemma4Unified) => {
                    heads[index].head_dim = layer.size(name)?.unwrap_or(0);
                }
                ("num_key_value_heads", Class::Gemma4 | Class::Gemma4Unified) => {
                    heads[index].n_kv_heads = layer.size(name)?.unwrap_or(0);
                }
                _ => {
                    return Err(Error::Unsupported(format!(
                        "{} that differs by layer (per_layer_config)",
                        quoted(name)
                    )));
                }
            }
        }
    }
    Ok(())
}
