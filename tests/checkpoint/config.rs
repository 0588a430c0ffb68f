//! [`ModelConfig`] from Hugging Face config.json.
//!
//! Fixtures in `data/config/`: `gemma4_31b.json` has the published sizes of the 31B model.
//! transformers 5.17 wrote the others (`to_json_string`) for small configurations.

use gemma4_wgpu::{
    Error,
    model::config::{Architecture, AttentionKind, ModelConfig, PerLayerInput, Rope},
};
use serde_json::{Value, json};

const GEMMA4_31B: &str = include_str!("../data/config/gemma4_31b.json");
const GEMMA4_FLAT: &str = include_str!("../data/config/gemma4_text_flat.json");
const GEMMA4_NESTED: &str = include_str!("../data/config/gemma4_nested.json");
const GEMMA3_FLAT: &str = include_str!("../data/config/gemma3_text_flat.json");

fn parse(value: &Value) -> Result<ModelConfig, Error> {
    ModelConfig::from_hf_json(&value.to_string())
}

/// The fixture with some keys replaced (`null` included).
fn changed(fixture: &str, changes: Value) -> Result<ModelConfig, Error> {
    let mut config: Value = serde_json::from_str(fixture).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    parse(&config)
}

fn without(fixture: &str, keys: &[&str]) -> Result<ModelConfig, Error> {
    let mut config: Value = serde_json::from_str(fixture).unwrap();
    for key in keys {
        config.as_object_mut().unwrap().remove(*key).unwrap();
    }
    parse(&config)
}

fn full_layers(config: &ModelConfig) -> Vec<usize> {
    (0..config.layers.len())
        .filter(|&index| config.layers[index].attention == AttentionKind::Full)
        .collect()
}

#[test]
fn published_31b() {
    let config = ModelConfig::from_hf_json(GEMMA4_31B).unwrap();
    assert_eq!(config.architecture, Architecture::Gemma4);
    assert_eq!((config.vocab_size, config.hidden_size, config.layers.len()), (262_144, 5376, 60));
    assert_eq!((config.rms_norm_eps, config.final_logit_softcap), (1e-6, Some(30.0)));
    assert_eq!((config.attention_scale, config.norm_weight_offset), (1.0, 0.0));
    assert!(config.v_norm && config.layer_scalar && config.tie_word_embeddings);
    assert_eq!(config.max_position_embeddings, 262_144);
    assert_eq!(full_layers(&config), [5, 11, 17, 23, 29, 35, 41, 47, 53, 59]);
    let (sliding, full) = (&config.layers[0], &config.layers[5]);
    assert_eq!(sliding.attention, AttentionKind::Sliding { window: 1024 });
    assert_eq!((sliding.n_heads, sliding.n_kv_heads, sliding.head_dim), (32, 16, 256));
    assert_eq!(sliding.rope, Rope { theta: 1e4, rotated_pairs: 128, scale: 1.0 });
    assert_eq!((sliding.k_eq_v, sliding.intermediate_size), (false, 21504));
    assert_eq!((full.n_heads, full.n_kv_heads, full.head_dim), (32, 4, 512));
    assert_eq!(full.rope, Rope { theta: 1e6, rotated_pairs: 64, scale: 1.0 });
    assert_eq!((full.k_eq_v, full.intermediate_size), (true, 21504));
}

#[test]
fn flat_form_with_per_layer_config() {
    let config = ModelConfig::from_hf_json(GEMMA4_FLAT).unwrap();
    assert_eq!(full_layers(&config), [5, 11]);
    for (index, layer) in config.layers.iter().enumerate() {
        let full = index == 5 || index == 11;
        let expected = if full { (32, 1, 4, true) } else { (16, 2, 8, false) };
        assert_eq!(
            (layer.head_dim, layer.n_kv_heads, layer.rope.rotated_pairs, layer.k_eq_v),
            expected
        );
        assert_eq!((layer.n_heads, layer.intermediate_size), (4, 96));
    }
    assert_eq!(config.layers[0].attention, AttentionKind::Sliding { window: 8 });
    assert_eq!(ModelConfig::from_hf_json(GEMMA4_NESTED).unwrap(), config);
}

#[test]
fn per_layer_config_takes_the_place_of_global_head_dim() {
    let config = changed(
        GEMMA4_FLAT,
        json!({"per_layer_config": {"3": {"head_dim": 64}}, "global_head_dim": 128}),
    );
    let dims: Vec<usize> = config.unwrap().layers.iter().map(|layer| layer.head_dim).collect();
    assert_eq!(dims, [16, 16, 16, 64, 16, 16, 16, 16, 16, 16, 16, 16]);
    // An override with the model's own value changes nothing, whatever its key.
    let repeated = json!({"per_layer_config": {"0": {"hidden_size": 64}}});
    assert!(changed(GEMMA4_FLAT, repeated).is_ok());
    for (per_layer_config, part) in [
        (json!({"12": {"head_dim": 8}}), "\"12\""),
        (json!({"x": {"head_dim": 8}}), "\"x\""),
        (json!({"5": {"head_dim": 8}, "05": {"head_dim": 8}}), "layer 5 twice"),
        (json!({"5": {"head_dim": null}}), "head_dim is 0"),
        (json!({"5": {"intermediate_size": 8}}), "\"intermediate_size\" that differs by layer"),
        (json!({"5": {"skip": ["mlp"]}}), "\"skip\""),
        (json!({"5": 1}), "per_layer_config"),
    ] {
        let message = changed(GEMMA4_FLAT, json!({ "per_layer_config": per_layer_config }))
            .unwrap_err()
            .to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn kv_heads_of_full_layers_need_k_eq_v() {
    // As in configuration_gemma4.py: num_global_key_value_heads counts only with attention_k_eq_v.
    let mut value: Value = serde_json::from_str(GEMMA4_31B).unwrap();
    value["text_config"]["attention_k_eq_v"] = json!(false);
    let config = parse(&value).unwrap();
    assert_eq!((config.layers[5].n_kv_heads, config.layers[5].k_eq_v), (16, false));
}

/// The published configs of E4B and E2B, without the parts for other media than text.
fn published(
    hidden: usize,
    ffn: usize,
    layers: usize,
    period: usize,
    kv: usize,
    shared: usize,
    wide: bool,
) -> Value {
    let kind = |index: usize| {
        if index % period == period - 1 { "full_attention" } else { "sliding_attention" }
    };
    json!({"model_type": "gemma4", "text_config": {
        "attention_bias": false, "attention_k_eq_v": false, "enable_moe_block": false,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": hidden,
        "hidden_size_per_layer_input": 256, "intermediate_size": ffn,
        "layer_types": (0..layers).map(kind).collect::<Vec<_>>(), "max_position_embeddings": 131072,
        "model_type": "gemma4_text", "num_attention_heads": 8, "num_global_key_value_heads": null,
        "num_hidden_layers": layers, "num_key_value_heads": kv, "num_kv_shared_layers": shared,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1e6,
                               "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}},
        "sliding_window": 512, "tie_word_embeddings": true, "use_double_wide_mlp": wide,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144}, "tie_word_embeddings": true})
}

#[test]
fn published_e_models() {
    let e4b = parse(&published(2560, 10240, 42, 6, 2, 18, false)).unwrap();
    assert_eq!(e4b, ModelConfig::named("e4b").unwrap());
    assert_eq!(e4b.per_layer_input, Some(PerLayerInput { size: 256, vocab_size: 262_144 }));
    assert_eq!((e4b.cached_layers().len(), e4b.per_layer_columns()), (24, 10752));
    let sources: Vec<_> =
        [23, 24, 29, 40, 41].iter().map(|&index| e4b.layers[index].kv_from).collect();
    assert_eq!(sources, [None, Some(22), Some(23), Some(22), Some(23)]);
    assert!(
        e4b.layers.iter().all(|layer| layer.intermediate_size == 10240 && layer.n_kv_heads == 2)
    );

    let e2b = parse(&published(1536, 6144, 35, 5, 1, 20, true)).unwrap();
    assert_eq!(e2b, ModelConfig::named("e2b").unwrap());
    assert_eq!(full_layers(&e2b), [4, 9, 14, 19, 24, 29, 34]);
    let sources: Vec<_> = [14, 15, 19, 34].iter().map(|&index| e2b.kv_layer(index)).collect();
    assert_eq!(sources, [14, 13, 14, 14]);
    let widths: Vec<_> =
        [0, 14, 15, 34].iter().map(|&index| e2b.layers[index].intermediate_size).collect();
    assert_eq!(widths, [6144, 6144, 12288, 12288]);
}

/// transformers' own defaults, and invalid KV sharing.
#[test]
fn per_layer_inputs_and_sharing() {
    let config =
        without(GEMMA4_FLAT, &["hidden_size_per_layer_input", "vocab_size_per_layer_input"])
            .unwrap();
    assert_eq!(config.per_layer_input, Some(PerLayerInput { size: 256, vocab_size: 262_144 }));
    // A layer with KV sharing has no K, so its V cannot be K.
    let config = changed(GEMMA4_FLAT, json!({"num_kv_shared_layers": 6})).unwrap();
    assert!(config.layers[5].k_eq_v && !config.layers[11].k_eq_v);
    assert_eq!((config.layers[11].kv_from, config.layers[10].kv_from), (Some(5), Some(4)));
    // Only layers with KV sharing are twice as wide.
    let config = changed(GEMMA4_FLAT, json!({"use_double_wide_mlp": true})).unwrap();
    assert!(config.layers.iter().all(|layer| layer.intermediate_size == 96));
    for (changes, part) in [
        (
            json!({"num_kv_shared_layers": 13}),
            "num_kv_shared_layers = 13: more than there are layers",
        ),
        (
            json!({"num_kv_shared_layers": 12}),
            "num_kv_shared_layers = 12: a layer has none of its kind",
        ),
        (
            json!({"num_kv_shared_layers": 8}),
            "num_kv_shared_layers = 8: a layer has none of its kind",
        ),
        (
            json!({"num_kv_shared_layers": 1, "per_layer_config": {"5": {"head_dim": 8}}}),
            "differs from that of layer 5",
        ),
        (
            json!({"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 9}),
            "9 rows of per-layer embeddings",
        ),
        (json!({"hidden_size_per_layer_input": 1u64 << 40}), "per-layer input size"),
    ] {
        let error = changed(GEMMA4_FLAT, changes).unwrap_err();
        assert!(
            matches!(error, Error::Config(_)) && error.to_string().contains(part),
            "{error} lacks {part}"
        );
    }
}

#[test]
fn gemma4_defaults() {
    let config =
        parse(&json!({"model_type": "gemma4_text", "hidden_size_per_layer_input": 0})).unwrap();
    assert_eq!((config.vocab_size, config.hidden_size, config.layers.len()), (262_144, 2304, 30));
    assert_eq!((config.final_logit_softcap, config.max_position_embeddings), (None, 131_072));
    assert_eq!(config.layers[0].attention, AttentionKind::Sliding { window: 512 });
    assert_eq!(
        (config.layers[0].n_heads, config.layers[0].n_kv_heads, config.layers[0].head_dim),
        (8, 4, 256)
    );
    assert_eq!((config.layers[5].n_kv_heads, config.layers[5].head_dim), (4, 512));
    assert_eq!(config.layers[5].rope, Rope { theta: 1e6, rotated_pairs: 64, scale: 1.0 });
    assert_eq!(config.layers[0].intermediate_size, 9216);
    // The last layer is full, whatever the pattern says.
    let config = parse(&json!({
        "model_type": "gemma4_text",
        "hidden_size_per_layer_input": 0,
        "num_hidden_layers": 8,
    }))
    .unwrap();
    assert_eq!(full_layers(&config), [5, 7]);
    let config = parse(&json!({"model_type": "gemma4_unified_text"})).unwrap();
    assert_eq!(config.max_position_embeddings, 262_144);
    assert_eq!(config.layers[0].attention, AttentionKind::Sliding { window: 1024 });
}

#[test]
fn gemma3_as_transformers_writes_it() {
    let config = ModelConfig::from_hf_json(GEMMA3_FLAT).unwrap();
    assert_eq!(config.architecture, Architecture::Gemma3);
    assert_eq!(config.attention_scale, (20.0f64.powf(-0.5)) as f32);
    assert_eq!((config.norm_weight_offset, config.final_logit_softcap), (1.0, None));
    assert!(!config.v_norm && !config.layer_scalar && config.tie_word_embeddings);
    assert_eq!(full_layers(&config), [5]);
    // Linear scaling is for full layers only.
    assert_eq!(config.layers[0].rope, Rope { theta: 1e4, rotated_pairs: 8, scale: 1.0 });
    assert_eq!(config.layers[5].rope, Rope { theta: 1e6, rotated_pairs: 8, scale: 8.0 });
}

#[test]
fn gemma3_older_form() {
    let old = json!({
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34,
            "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_local_base_freq": 20000,
            "sliding_window_pattern": 4,
        },
        "vision_config": {"hidden_size": 1152},
    });
    let config = parse(&old).unwrap();
    assert_eq!((config.vocab_size, config.hidden_size), (262_208, 2560));
    assert_eq!(full_layers(&config), [3, 7, 11, 15, 19, 23, 27, 31]);
    assert_eq!(config.layers[0].rope, Rope { theta: 2e4, rotated_pairs: 128, scale: 1.0 });
    assert_eq!(config.layers[3].rope, Rope { theta: 1e6, rotated_pairs: 128, scale: 8.0 });
    // In Gemma 3 the last layer may be sliding.
    assert_eq!(config.layers[33].attention, AttentionKind::Sliding { window: 1024 });
    assert_eq!(config.attention_scale, 0.0625);
    let defaults = parse(&json!({"model_type": "gemma3_text"})).unwrap();
    assert_eq!(defaults.layers.len(), 26);
    assert_eq!(defaults.layers[0].attention, AttentionKind::Sliding { window: 4096 });
    assert_eq!(full_layers(&defaults), [5, 11, 17, 23]);
}

#[test]
fn features_are_refused_by_name() {
    for (fixture, changes, part) in [
        (
            GEMMA4_FLAT,
            json!({"model_type": "gemma4_unified_text", "enable_moe_block": true}),
            "enable_moe_block",
        ),
        (GEMMA4_FLAT, json!({"attention_bias": true}), "attention_bias"),
        (GEMMA4_FLAT, json!({"hidden_activation": "silu"}), "hidden_activation \"silu\""),
        (GEMMA4_FLAT, json!({"use_bidirectional_attention": "all"}), "use_bidirectional_attention"),
        (GEMMA4_FLAT, json!({"model_type": "llama"}), "architecture \"llama\""),
        (GEMMA4_FLAT, json!({"model_type": "gemma3n_text"}), "architecture \"gemma3n_text\""),
        (GEMMA4_NESTED, json!({"model_type": "paligemma"}), "architecture \"paligemma\""),
        (
            GEMMA4_FLAT,
            json!({"rope_parameters": {
            "full_attention": {"rope_type": "yarn", "rope_theta": 1e6},
            "sliding_attention": {"rope_theta": 1e4}}}),
            "rope_type \"yarn\"",
        ),
        (
            GEMMA3_FLAT,
            json!({"hidden_size_per_layer_input": 256}),
            "hidden_size_per_layer_input = 256",
        ),
        (GEMMA3_FLAT, json!({"num_kv_shared_layers": 2}), "num_kv_shared_layers = 2"),
        (
            GEMMA4_FLAT,
            json!({"model_type": "gemma4_unified_text", "hidden_size_per_layer_input": 8}),
            "hidden_size_per_layer_input = 8",
        ),
        (GEMMA3_FLAT, json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping = 50"),
        (GEMMA3_FLAT, json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        (GEMMA3_FLAT, json!({"per_layer_config": {"0": {"head_dim": 8}}}), "per_layer_config"),
        (
            GEMMA3_FLAT,
            json!({"layer_types": vec!["chunked_attention"; 6]}),
            "layer type \"chunked_attention\"",
        ),
    ] {
        let error = changed(fixture, changes).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    // This key is about image tokens only.
    assert!(changed(GEMMA4_FLAT, json!({"use_bidirectional_attention": "vision"})).is_ok());
}

#[test]
fn bad_values_are_named() {
    for (changes, part) in [
        (json!({"num_hidden_layers": 1_000_000_000_000u64}), "num_hidden_layers"),
        (json!({"num_hidden_layers": 11}), "layer_types has 12 entries"),
        (json!({"hidden_size": 0}), "hidden_size is 0"),
        (json!({"hidden_size": -4}), "hidden_size is not a whole number"),
        (json!({"hidden_size": 64.5}), "hidden_size is not a whole number"),
        (json!({"hidden_size": u64::MAX}), "hidden_size"),
        (json!({"vocab_size": "many"}), "vocab_size"),
        (json!({"num_attention_heads": 3}), "3 heads cannot share 2 KV heads"),
        (json!({"num_key_value_heads": 0}), "KV heads is 0"),
        (json!({"head_dim": 15}), "head_dim = 15 is odd"),
        (json!({"sliding_window": 0}), "sliding_window is 0"),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps"),
        (json!({"rms_norm_eps": 1e300}), "rms_norm_eps"),
        (json!({"final_logit_softcapping": -1}), "final_logit_softcapping"),
        (json!({"layer_types": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}), "layer_types"),
        (
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
            "not given by layer type",
        ),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}),
            "lack sliding_attention",
        ),
        (
            json!({"rope_parameters": {
                "full_attention": {}, "sliding_attention": {"rope_theta": 1e4},
            }}),
            "lack rope_theta",
        ),
        (
            json!({"rope_parameters": {
                "full_attention": {"rope_theta": -1}, "sliding_attention": {"rope_theta": 1e4},
            }}),
            "RoPE theta",
        ),
        (
            json!({"rope_parameters": {
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6,
                               "partial_rotary_factor": 1.5},
            "sliding_attention": {"rope_theta": 1e4}}}),
            "partial_rotary_factor = 1.5",
        ),
        (
            json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6},
            "sliding_attention": {"rope_theta": 1e4}}}),
            "lack factor",
        ),
        (json!({"text_config": 3}), "text_config"),
        (json!({"model_type": null}), "model_type"),
    ] {
        let error = changed(GEMMA4_FLAT, changes).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains(part), "{error} lacks {part}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let error = changed(GEMMA3_FLAT, json!({"query_pre_attn_scalar": 0})).unwrap_err();
    assert!(error.to_string().contains("attention scale"), "{error}");
    let error = changed(GEMMA3_FLAT, json!({"layer_types": null, "sliding_window_pattern": 0}))
        .unwrap_err();
    assert!(error.to_string().contains("sliding_window_pattern is 0"), "{error}");
    for text in ["", "[]", "{", "null", "{\"model_type\": \"gemma4_text\"", &"[".repeat(1 << 16)] {
        let message = ModelConfig::from_hf_json(text).unwrap_err().to_string();
        assert!(message.starts_with("model config: ") && message.len() < 300, "{message}");
    }
}
