//! Tensor names: what Hugging Face and GGUF files call the tensors of the text model.

/// Tensors of one layer: their name after `layers.N.`, and after `blk.N.` in GGUF files.
pub(crate) const LAYER_TENSORS: [(&str, &str); 17] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("post_attention_layernorm.weight", "post_attention_norm.weight"),
    ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
    ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
    ("per_layer_input_gate.weight", "inp_gate.weight"),
    ("per_layer_projection.weight", "proj.weight"),
    ("post_per_layer_input_norm.weight", "post_norm.weight"),
    ("layer_scalar", "layer_output_scale.weight"),
];

/// Tensors outside the layers, and their GGUF names.
const MODEL_TENSORS: [(&str, &str); 6] = [
    ("embed_tokens.weight", "token_embd.weight"),
    ("embed_tokens_per_layer.weight", "per_layer_token_embd.weight"),
    ("per_layer_model_projection.weight", "per_layer_model_proj.weight"),
    ("per_layer_projection_norm.weight", "per_layer_proj_norm.weight"),
    ("norm.weight", "output_norm.weight"),
    (LM_HEAD, "output.weight"),
];

pub(super) const LM_HEAD: &str = "lm_head.weight";

/// Where Hugging Face classes keep the text model, the longer prefix first; ExecuTorch writes none.
const HF_PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", ""];

/// The canonical name of a GGUF tensor; `None` if the text model has no such tensor.
pub fn from_gguf(name: &str) -> Option<String> {
    if let Some((index, rest)) = layer_and_rest(name, "blk.") {
        let (canonical, _) = LAYER_TENSORS.iter().find(|(_, gguf)| *gguf == rest)?;
        return Some(format!("layers.{index}.{canonical}"));
    }
    MODEL_TENSORS.iter().find(|(_, gguf)| *gguf == name).map(|(canonical, _)| canonical.to_string())
}

/// The GGUF name of a tensor; `None` if `name` is not canonical.
pub fn to_gguf(name: &str) -> Option<String> {
    if let Some((index, rest)) = layer_and_rest(name, "layers.") {
        let (_, gguf) = LAYER_TENSORS.iter().find(|(canonical, _)| *canonical == rest)?;
        return Some(format!("blk.{index}.{gguf}"));
    }
    MODEL_TENSORS.iter().find(|(canonical, _)| *canonical == name).map(|(_, gguf)| gguf.to_string())
}

/// The layer that a tensor of this canonical name belongs to.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    layer_and_rest(name, "layers.").map(|(index, _)| index)
}

/// The canonical name of a tensor in a Hugging Face file; `None` if it is not of the text model
/// (vision, audio, projectors).
pub fn from_hf(name: &str) -> Option<&str> {
    // Some writers put the head inside the model.
    let is_head = |prefix: &&str| name.strip_prefix(*prefix) == Some(LM_HEAD);
    if HF_PREFIXES.iter().chain(&["language_model."]).any(is_head) {
        return Some(LM_HEAD);
    }
    let inner = HF_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let known = match layer_and_rest(inner, "layers.") {
        Some((_, rest)) => LAYER_TENSORS.iter().any(|(canonical, _)| *canonical == rest),
        None => MODEL_TENSORS.iter().any(|(canonical, _)| *canonical == inner && inner != LM_HEAD),
    };
    known.then_some(inner)
}

/// What of a text layer a tensor of an HF or GGUF file is: `mlp.up_proj.bias`; `None` for tensors
/// that are not in the text model's layers.
pub(super) fn within_layer(name: &str) -> Option<&str> {
    let in_hf = || {
        let mut inner = HF_PREFIXES.iter().filter_map(|prefix| name.strip_prefix(prefix));
        inner.find_map(|inner| layer_and_rest(inner, "layers."))
    };
    layer_and_rest(name, "blk.").or_else(in_hf).map(|(_, rest)| rest)
}

/// Splits `blk.12.attn_q.weight` into 12 and `attn_q.weight`.
fn layer_and_rest<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (digits, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let index: usize = digits.parse().ok()?;
    // "07" and "+7" would be second names of layer 7.
    (index.to_string() == digits).then_some((index, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_lead_to_one_name() {
        for prefix in HF_PREFIXES {
            let name = format!("{prefix}layers.10.mlp.up_proj.weight");
            assert_eq!(from_hf(&name), Some("layers.10.mlp.up_proj.weight"));
            assert_eq!(from_hf(&format!("{prefix}norm.weight")), Some("norm.weight"));
        }
        assert_eq!(from_hf("lm_head.weight"), Some(LM_HEAD));
        assert_eq!(from_hf("language_model.lm_head.weight"), Some(LM_HEAD));
        assert_eq!(from_hf("model.lm_head.weight"), Some(LM_HEAD));
        assert_eq!(from_hf("model.language_model.lm_head.weight"), Some(LM_HEAD));
        assert_eq!(
            from_gguf("blk.3.post_ffw_norm.weight").as_deref(),
            Some("layers.3.post_feedforward_layernorm.weight")
        );
        assert_eq!(from_gguf("output.weight").as_deref(), Some(LM_HEAD));
    }

    #[test]
    fn other_tensors_are_skipped() {
        for name in [
            "model.vision_tower.encoder.layers.0.self_attn.q_proj.weight",
            "model.embed_vision.embedding_projection.weight",
            "model.layers.07.mlp.up_proj.weight",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "vision_tower.norm.weight",
            "model.",
            "",
        ] {
            assert_eq!(from_hf(name), None, "{name}");
        }
        for name in [
            "layers.3.mlp.up_proj.weight",
            "layers.0.layer_scalar",
            "layers.2.per_layer_projection.weight",
            "embed_tokens_per_layer.weight",
            "norm.weight",
            LM_HEAD,
        ] {
            assert_eq!(from_gguf(&to_gguf(name).unwrap()).as_deref(), Some(name));
        }
        assert_eq!(to_gguf("layers.03.layer_scalar"), None);
        assert_eq!(from_gguf("v.blk.0.attn_q.weight"), None);
        assert_eq!(from_gguf("blk.0.ffn_gate_inp.weight"), None);
    }
}
