//! A config.json with the keys of mlx-lm's `gemma4_text` and `gemma3_text`, which know neither
//! `per_layer_config` nor, for Gemma 3, `rope_parameters` and `layer_types`.

use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    config::{self, Architecture, AttentionKind, LayerConfig, ModelConfig},
};

/// The source's config in mlx-lm's keys, all of them written: its defaults are not transformers'.
///
/// Errors: a model that these keys cannot describe.
pub fn of(mut config: Value, model: &ModelConfig) -> Result<Value> {
    config::tie(&mut config, model.tie_word_embeddings);
    let Some(root) = config.as_object_mut() else { return Err(Error::Config("config.json is not an object".into())) };
    // Of a multi-modal model mlx-lm asks the outer config.
    root.insert("vocab_size".into(), model.vocab_size.into());
    if root.get("model_type").and_then(Value::as_str) == Some("gemma4_unified_text") {
        root.insert("model_type".into(), "gemma4_text".into());
    }
    let text = match root.contains_key("text_config") {
        true => root.get_mut("text_config").and_then(Value::as_object_mut),
        false => Some(root),
    };
    if let Some(text) = text {
        text.remove("per_layer_config");
        common(text, model);
        match model.architecture {
            Architecture::Gemma3 => gemma3(text, model)?,
            Architecture::Gemma4 => gemma4(text, model),
        }
    }
    check(&config, model)?;
    Ok(config)
}

fn common(text: &mut Map<String, Value>, model: &ModelConfig) {
    let mut put = |key: &str, value: Value| text.insert(key.into(), value);
    put("vocab_size", model.vocab_size.into());
    put("hidden_size", model.hidden_size.into());
    put("num_hidden_layers", model.layers.len().into());
    put("max_position_embeddings", model.max_position_embeddings.into());
    if let Some(layer) = model.layers.first() {
        put("intermediate_size", layer.intermediate_size.into());
        put("num_attention_heads", layer.n_heads.into());
    }
    let like = sliding_layer(model).or(model.layers.first());
    if let Some(layer) = like {
        put("head_dim", layer.head_dim.into());
        put("num_key_value_heads", layer.n_kv_heads.into());
        if let AttentionKind::Sliding { window } = layer.attention {
            put("sliding_window", window.into());
        }
    }
    put("layer_types", model.layers.iter().map(kind).collect());
}

fn kind(layer: &LayerConfig) -> &'static str {
    if is_full(layer) { "full_attention" } else { "sliding_attention" }
}

fn is_full(layer: &LayerConfig) -> bool {
    layer.attention == AttentionKind::Full
}

fn sliding_layer(model: &ModelConfig) -> Option<&LayerConfig> {
    model.layers.iter().find(|layer| !is_full(layer))
}

fn full_layer(model: &ModelConfig) -> Option<&LayerConfig> {
    model.layers.iter().find(|layer| is_full(layer))
}

fn gemma4(text: &mut Map<String, Value>, model: &ModelConfig) {
    if let Some(full) = full_layer(model) {
        say_whole_pairs(text, full);
    }
    let mut put = |key: &str, value: Value| text.insert(key.into(), value);
    if let Some(full) = full_layer(model).or(model.layers.first()) {
        put("global_head_dim", full.head_dim.into());
        put("num_global_key_value_heads", full.n_kv_heads.into());
    }
    put("attention_k_eq_v", model.layers.iter().any(|layer| layer.k_eq_v).into());
    let own = model.cached_layers();
    put("num_kv_shared_layers", (model.layers.len() - own.len()).into());
    let widths = |layers: &[LayerConfig]| layers.last().map(|layer| layer.intermediate_size);
    put("use_double_wide_mlp", (widths(&model.layers) > widths(own)).into());
    put("final_logit_softcapping", model.final_logit_softcap.map_or(Value::Null, |cap| json!(cap)));
    put("hidden_size_per_layer_input", model.per_layer_input.map_or(0, |input| input.size).into());
    if let Some(input) = model.per_layer_input {
        put("vocab_size_per_layer_input", input.vocab_size.into());
    }
}

/// mlx-lm turns a pair more than transformers where the share is no whole number of pairs.
fn say_whole_pairs(text: &mut Map<String, Value>, full: &LayerConfig) {
    let rope = text.get_mut("rope_parameters").and_then(|ropes| ropes.get_mut("full_attention"));
    let share = rope.and_then(|rope| rope.get_mut("partial_rotary_factor"));
    if let Some(share) = share {
        *share = json!(2.0 * full.rope.rotated_pairs as f64 / full.head_dim as f64);
    }
}

fn gemma3(text: &mut Map<String, Value>, model: &ModelConfig) -> Result<()> {
    let count = model.layers.len();
    let has_period = |period: usize| {
        let mut layers = model.layers.iter().enumerate();
        layers.all(|(index, layer)| is_full(layer) == (index + 1).is_multiple_of(period))
    };
    let period = (1..=count + 1).find(|period| has_period(*period));
    let period = period.ok_or_else(|| refuse("full layers that do not come at even distances"))?;
    if model.final_logit_softcap.is_some() {
        return Err(refuse("a cap on the logits of Gemma 3"));
    }
    text.insert("sliding_window_pattern".into(), period.into());
    text.insert("query_pre_attn_scalar".into(), json!(model.attention_scale.powi(-2)));
    text.remove("rope_parameters");
    text.remove("rope_scaling");
    if let Some(full) = full_layer(model) {
        text.insert("rope_theta".into(), json!(full.rope.theta));
        if full.rope.scale != 1.0 {
            let scaling = json!({ "rope_type": "linear", "factor": full.rope.scale });
            text.insert("rope_scaling".into(), scaling);
        }
    }
    if let Some(sliding) = sliding_layer(model) {
        text.insert("rope_local_base_freq".into(), json!(sliding.rope.theta));
    }
    Ok(())
}

/// Errors if the config is read as another model.
fn check(config: &Value, model: &ModelConfig) -> Result<()> {
    let mut found = ModelConfig::from_hf_json(&config.to_string())?;
    if (found.attention_scale / model.attention_scale - 1.0).abs() < 1e-6 {
        found.attention_scale = model.attention_scale;
    }
    if found == *model {
        return Ok(());
    }
    if found.layer_scalar != model.layer_scalar {
        return Err(refuse("layers without a layer_scalar"));
    }
    let differs = found.layers.iter().zip(&model.layers).position(|(found, wanted)| found != wanted);
    Err(match differs {
        Some(layer) => refuse(&format!("layer {layer} of this model")),
        None => refuse("this model"),
    })
}

fn refuse(what: &str) -> Error {
    Error::Unsupported(format!("mlx-lm's config cannot describe {what}"))
}
