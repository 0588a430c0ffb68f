//! The real Gemma 3 270M checkpoint: its config, tensors and text assets.

use gemma4_wgpu::{
    checkpoint::Checkpoint,
    model::{
        config::{Architecture, AttentionKind, Rope},
        source::TensorSource,
    },
    quant::Dtype,
    text::Vocabulary,
};

fn open() -> Checkpoint {
    Checkpoint::open(crate::real_model::path()).unwrap()
}

#[test]
fn config_is_that_of_gemma_3_270m() {
    let checkpoint = open();
    let config = checkpoint.config();
    assert_eq!(config.architecture, Architecture::Gemma3);
    assert_eq!((config.vocab_size, config.hidden_size, config.layers.len()), (262_144, 640, 18));
    assert_eq!((config.attention_scale, config.rms_norm_eps), (0.0625, 1e-6));
    assert_eq!((config.norm_weight_offset, config.final_logit_softcap), (0.0, None));
    assert_eq!(config.max_position_embeddings, 32768);
    assert!(config.tie_word_embeddings && !config.v_norm && !config.layer_scalar);
    for (index, layer) in config.layers.iter().enumerate() {
        let full = index % 6 == 5;
        let attention =
            if full { AttentionKind::Full } else { AttentionKind::Sliding { window: 512 } };
        assert_eq!(layer.attention, attention);
        let theta = if full { 1e6 } else { 1e4 };
        assert_eq!(layer.rope, Rope { theta, rotated_pairs: 128, scale: 1.0 });
        assert_eq!((layer.n_heads, layer.n_kv_heads, layer.head_dim), (4, 1, 256));
        assert_eq!((layer.intermediate_size, layer.k_eq_v), (2048, false));
    }
}

#[test]
fn every_tensor_is_there() {
    let checkpoint = open();
    assert_eq!(checkpoint.description(), "Gemma 3 270m, GGUF");
    let info = |name: &str| checkpoint.info(name).unwrap_or_else(|| panic!("no {name}"));
    let embedding = info("embed_tokens.weight");
    assert_eq!(
        (embedding.dtype, embedding.shape.as_slice()),
        (Dtype::Q8_0, [262_144, 640].as_slice())
    );
    for layer in 0..18 {
        for (name, shape) in [
            ("input_layernorm.weight", [640].as_slice()),
            ("self_attn.q_proj.weight", &[1024, 640]),
            ("self_attn.k_proj.weight", &[256, 640]),
            ("self_attn.v_proj.weight", &[256, 640]),
            ("self_attn.o_proj.weight", &[640, 1024]),
            ("self_attn.q_norm.weight", &[256]),
            ("self_attn.k_norm.weight", &[256]),
            ("post_attention_layernorm.weight", &[640]),
            ("pre_feedforward_layernorm.weight", &[640]),
            ("mlp.gate_proj.weight", &[2048, 640]),
            ("mlp.up_proj.weight", &[2048, 640]),
            ("mlp.down_proj.weight", &[640, 2048]),
            ("post_feedforward_layernorm.weight", &[640]),
        ] {
            assert_eq!(
                info(&format!("layers.{layer}.{name}")).shape,
                shape,
                "layer {layer} {name}"
            );
        }
    }
    // The file stores 1 + w, so the mean of a norm's weights is well above 0.
    let bytes = pollster::block_on(checkpoint.read("norm.weight", 0..1)).unwrap();
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(values.len(), 640);
    assert!(values.iter().sum::<f32>() / 640.0 > 1.0);
}

#[test]
fn text_assets() {
    let assets = open().text_assets().unwrap();
    assert_eq!((assets.bos_id, assets.eos_ids, assets.add_bos), (Some(2), vec![1, 106], true));
    let Some(Vocabulary::Gguf(vocabulary)) = assets.vocabulary else { panic!("no vocabulary") };
    assert_eq!((vocabulary.model.as_str(), vocabulary.tokens.len()), ("llama", 262_144));
    assert_eq!((vocabulary.scores.len(), vocabulary.token_types.len()), (262_144, 262_144));
    assert_eq!(
        (vocabulary.tokens[106].as_str(), vocabulary.token_types[106]),
        ("<end_of_turn>", 3)
    );
    assert_eq!((vocabulary.unknown_id, vocabulary.add_space_prefix), (Some(3), false));
}
