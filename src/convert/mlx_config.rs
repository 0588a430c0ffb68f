//! config.json as mlx-lm reads it. Its model classes have their own defaults and know only the
//! older keys. Every number of the architecture is therefore written.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::config::{Architecture, AttentionKind, LayerConfig, ModelConfig};

type Fields = Map<String, Value>;

/// Writes `config` into `source`, the model's own config.json, in the keys of mlx-lm 0.32.2
/// (`models/gemma4_text.py`, `models/gemma3_text.py`).
///
/// Errors: [`Error::Unsupported`] naming what those classes cannot express.
pub fn for_mlx_lm(mut source: Value, config: &ModelConfig, tied: bool) -> Result<Value> {
    let fields = match config.architecture {
        Architecture::Gemma3 => gemma3(config)?,
        Architecture::Gemma4 => gemma4(config)?,
    };
    let Value::Object(root) = &mut source else {
        return Err(Error::Config("config.json is not an object".into()));
    };
    let outer = [
        // mlx-lm reads the vocabulary size of a nested config from the outer one.
        ("vocab_size".to_owned(), json!(config.vocab_size)),
        ("tie_word_embeddings".to_owned(), json!(tied)),
    ];
    root.remove("quantization_config");
    match root.get_mut("text_config").and_then(Value::as_object_mut) {
        Some(text) => rewrite(text, fields, &outer),
        None => rewrite(root, fields, &[]),
    }
    // mlx-lm has no class for 12B's text model alone, which is the same.
    if root.get("model_type").is_some_and(|name| name == "gemma4_unified_text") {
        root.insert("model_type".into(), json!("gemma4_text"));
    }
    root.extend(outer);
    Ok(source)
}

/// Replaces all keys of the same meaning by `fields`.
fn rewrite(text: &mut Fields, fields: Fields, outer: &[(String, Value)]) {
    for newer in ["per_layer_config", "quantization_config"] {
        text.remove(newer);
    }
    if fields.contains_key("rope_theta") {
        text.remove("rope_parameters");
    }
    text.extend(fields);
    text.extend(outer.iter().cloned());
}

/// The values of both families.
fn common(config: &ModelConfig) -> Result<Fields> {
    let all = Layers::all(config);
    Ok(Map::from_iter([
        ("hidden_size".to_owned(), json!(config.hidden_size)),
        ("num_hidden_layers".into(), json!(config.layers.len())),
        ("num_attention_heads".into(), json!(all.same("heads", |layer| layer.n_heads)?)),
        ("rms_norm_eps".into(), number(config.rms_norm_eps)),
        ("vocab_size".into(), json!(config.vocab_size)),
        ("max_position_embeddings".into(), json!(config.max_position_embeddings)),
    ]))
}

fn gemma4(config: &ModelConfig) -> Result<Fields> {
    let (sliding, full) = (Layers::of(config, false), Layers::of(config, true));
    let cached = config.cached_layers();
    let own = Layers { name: "layers with keys", layers: cached.iter().collect() };
    let sharing = config.layers[cached.len()..].iter().collect();
    let sharing = Layers { name: "layers that share keys", layers: sharing };
    let width = own.same("MLP width", |layer| layer.intermediate_size)?.unwrap_or(0);
    let is_double = match sharing.same("MLP width", |layer| layer.intermediate_size)? {
        Some(other) if other == 2 * width => true,
        Some(other) if other != width => {
            let reason =
                format!("MLPs {other} wide in layers that share keys and {width} in others");
            return Err(lacks(&reason));
        }
        _ => false,
    };
    let own_full = own.of_kind(true);
    let k_eq_v = own_full.same("K=V", |layer| layer.k_eq_v)?.unwrap_or(false);
    let kv_heads = sliding.or(&full).same("KV heads", |layer| layer.n_kv_heads)?;
    let full_kv_heads = full.same("KV heads", |layer| layer.n_kv_heads)?.or(kv_heads);
    if !k_eq_v && full_kv_heads != kv_heads {
        return Err(lacks("other KV heads in full layers than in sliding ones, without K=V"));
    }
    let head_dim = sliding.or(&full).same("head size", |layer| layer.head_dim)?;
    let full_head_dim = full.same("head size", |layer| layer.head_dim)?.or(head_dim);
    let input = config.per_layer_input;
    let layer_types = config.layers.iter().map(|layer| match layer.attention {
        AttentionKind::Full => "full_attention",
        AttentionKind::Sliding { .. } => "sliding_attention",
    });
    let mut fields = common(config)?;
    fields.extend([
        ("intermediate_size".to_owned(), json!(width)),
        ("use_double_wide_mlp".into(), json!(is_double)),
        ("num_key_value_heads".into(), json!(kv_heads)),
        ("num_global_key_value_heads".into(), json!(full_kv_heads)),
        ("attention_k_eq_v".into(), json!(k_eq_v)),
        ("head_dim".into(), json!(head_dim)),
        ("global_head_dim".into(), json!(full_head_dim)),
        ("num_kv_shared_layers".into(), json!(config.layers.len() - cached.len())),
        ("layer_types".into(), layer_types.collect()),
        ("hidden_size_per_layer_input".into(), json!(input.map_or(0, |input| input.size))),
        ("final_logit_softcapping".into(), config.final_logit_softcap.map_or(Value::Null, number)),
        ("enable_moe_block".into(), json!(config.experts().is_some())),
    ]);
    if let Some(experts) = config.experts() {
        fields.insert("num_experts".into(), json!(experts.count));
        fields.insert("top_k_experts".into(), json!(experts.top_k));
        fields.insert("moe_intermediate_size".into(), json!(experts.intermediate_size));
        fields.insert("expert_intermediate_size".into(), json!(experts.intermediate_size));
    }
    if let Some(input) = input {
        fields.insert("vocab_size_per_layer_input".into(), json!(input.vocab_size));
    }
    if let Some(window) = sliding.window()? {
        fields.insert("sliding_window".into(), json!(window));
    }
    fields.insert("rope_parameters".into(), gemma4_ropes(&sliding, &full)?);
    Ok(fields)
}

/// Rotary parameters by kind of layer.
fn gemma4_ropes(sliding: &Layers, full: &Layers) -> Result<Value> {
    let mut ropes = Map::new();
    for (name, layers) in [("sliding_attention", sliding), ("full_attention", full)] {
        let Some((rope, head_dim)) = layers.same("RoPE", |layer| (layer.rope, layer.head_dim))?
        else {
            continue;
        };
        let pairs = head_dim / 2;
        let parameters = match (rope.rotated_pairs == pairs, rope.scale == 1.0) {
            (true, true) => json!({"rope_type": "default", "rope_theta": number(rope.theta)}),
            (true, false) => {
                let (theta, factor) = (number(rope.theta), number(rope.scale));
                json!({"rope_type": "linear", "rope_theta": theta, "factor": factor})
            }
            (false, _) => json!({
                "rope_type": "proportional",
                "rope_theta": number(rope.theta),
                "partial_rotary_factor": share(rope.rotated_pairs, pairs),
                "factor": number(rope.scale),
            }),
        };
        ropes.insert(name.into(), parameters);
    }
    Ok(Value::Object(ropes))
}

fn gemma3(config: &ModelConfig) -> Result<Fields> {
    if config.final_logit_softcap.is_some() {
        return Err(lacks("a softcap of Gemma 3's logits"));
    }
    let all = Layers::all(config);
    let (sliding, full) = (Layers::of(config, false), Layers::of(config, true));
    let is_full = |layer: &LayerConfig| layer.attention == AttentionKind::Full;
    let pattern = config.layers.iter().position(is_full).map_or(config.layers.len(), |at| at + 1);
    let by_pattern =
        |(index, layer): (usize, &LayerConfig)| is_full(layer) == ((index + 1) % pattern == 0);
    if full.layers.is_empty() || !config.layers.iter().enumerate().all(by_pattern) {
        return Err(lacks("full layers at other places than every n-th"));
    }
    let local = sliding.same("RoPE", |layer| layer.rope)?;
    if local.is_some_and(|rope| rope.scale != 1.0) {
        return Err(lacks("a RoPE factor in sliding layers"));
    }
    let mut fields = common(config)?;
    fields.extend([
        (
            "intermediate_size".to_owned(),
            json!(all.same("MLP width", |layer| layer.intermediate_size)?),
        ),
        ("num_key_value_heads".into(), json!(all.same("KV heads", |layer| layer.n_kv_heads)?)),
        ("head_dim".into(), json!(all.same("head size", |layer| layer.head_dim)?)),
        ("sliding_window_pattern".into(), json!(pattern)),
    ]);
    if let Some(window) = sliding.window()? {
        fields.insert("sliding_window".into(), json!(window));
    }
    if let Some(rope) = local {
        fields.insert("rope_local_base_freq".into(), number(rope.theta));
    }
    if let Some(rope) = full.same("RoPE", |layer| layer.rope)? {
        let scaling = match rope.scale {
            1.0 => Value::Null,
            factor => json!({"rope_type": "linear", "factor": number(factor)}),
        };
        fields.insert("rope_theta".into(), number(rope.theta));
        fields.insert("rope_scaling".into(), scaling);
    }
    Ok(fields)
}

/// Layers with a common config.
struct Layers<'a> {
    name: &'static str,
    layers: Vec<&'a LayerConfig>,
}

impl<'a> Layers<'a> {
    fn all(config: &'a ModelConfig) -> Self {
        Layers { name: "layers", layers: config.layers.iter().collect() }
    }

    fn of(config: &'a ModelConfig, full: bool) -> Self {
        Layers::all(config).of_kind(full)
    }

    fn of_kind(&self, full: bool) -> Self {
        let is_wanted = |layer: &&&LayerConfig| (layer.attention == AttentionKind::Full) == full;
        let name = if full { "full layers" } else { "sliding layers" };
        Layers { name, layers: self.layers.iter().filter(is_wanted).copied().collect() }
    }

    /// These layers, or `others` if there are none.
    fn or<'b>(&'b self, others: &'b Self) -> &'b Self {
        if self.layers.is_empty() { others } else { self }
    }

    /// The value of all layers. `None` without layers. Errors if it differs.
    fn same<T: PartialEq>(&self, what: &str, of: impl Fn(&LayerConfig) -> T) -> Result<Option<T>> {
        let mut values = self.layers.iter().map(|layer| of(layer));
        let first = values.next();
        match values.all(|value| Some(&value) == first.as_ref()) {
            true => Ok(first),
            false => Err(lacks(&format!("{} that differ in {what}", self.name))),
        }
    }

    fn window(&self) -> Result<Option<usize>> {
        let window = |layer: &LayerConfig| match layer.attention {
            AttentionKind::Sliding { window } => window,
            AttentionKind::Full => 0,
        };
        self.same("window", window)
    }
}

/// The share of rotated pairs, such that `floor` of its product with `pairs` gives `rotated`.
fn share(rotated: usize, pairs: usize) -> f64 {
    let exact = rotated as f64 / pairs as f64;
    match (exact * pairs as f64).floor() as usize == rotated {
        true => exact,
        false => (rotated as f64 + 0.25) / pairs as f64,
    }
}

fn lacks(what: &str) -> Error {
    Error::Unsupported(format!("mlx-lm's config cannot describe {what}"))
}

/// An f32 in the fewest digits that identify it.
fn number(value: f32) -> Value {
    let shortest: f64 = value.to_string().parse().unwrap_or(value.into());
    json!(shortest)
}
