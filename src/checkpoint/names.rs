//! Tensor names of the text model in Hugging Face and GGUF files.

use crate::checkpoint::expert_names;
use crate::model::tensors::{LAYER_TENSORS, LM_HEAD, layer_and_rest, model_specs, spec_of};

/// Prefixes of the text model in Hugging Face classes, the longer first. ExecuTorch writes none.
const HF_PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", ""];

/// Gate and up of all experts apart, which older converters write.
const GGUF_GATE_EXPERTS: &str = "ffn_gate_exps.weight";
const GGUF_UP_EXPERTS: &str = "ffn_up_exps.weight";

/// The canonical name of a GGUF tensor, or that of a part of expert matrices. `None` if the text
/// model has no such tensor.
pub fn from_gguf(name: &str) -> Option<String> {
    if let Some((index, rest)) = layer_and_rest(name, "blk.") {
        if [GGUF_GATE_EXPERTS, GGUF_UP_EXPERTS].contains(&rest) {
            return Some(expert_names::stacked_name(index, rest == GGUF_UP_EXPERTS));
        }
        let spec = LAYER_TENSORS.iter().find(|spec| spec.gguf == rest)?;
        return Some(spec.in_layer(index));
    }
    model_specs().find(|spec| spec.gguf == name).map(|spec| spec.name.to_owned())
}

/// The GGUF name of a tensor. `None` if `name` is not canonical.
pub fn to_gguf(name: &str) -> Option<String> {
    let (layer, spec) = spec_of(name)?;
    Some(layer.map_or_else(|| spec.gguf.to_owned(), |index| format!("blk.{index}.{}", spec.gguf)))
}

/// The layer that a tensor of this canonical name belongs to.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    layer_and_rest(name, "layers.").map(|(index, _)| index)
}

/// The canonical name of a tensor in a Hugging Face file, or that of a part of expert matrices.
/// `None` if it belongs to another part of the model (vision, audio, projectors).
pub fn from_hf(name: &str) -> Option<&str> {
    // Some writers put the head inside the model.
    let is_head = |prefix: &&str| name.strip_prefix(*prefix) == Some(LM_HEAD.name);
    if HF_PREFIXES.iter().chain(&["language_model."]).any(is_head) {
        return Some(LM_HEAD.name);
    }
    let inner = HF_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let is_known = spec_of(inner).is_some_and(|(_, spec)| *spec != LM_HEAD);
    (is_known || expert_names::is_part(inner)).then_some(inner)
}

/// The name of an HF or GGUF tensor within its layer, such as `mlp.up_proj.bias`. `None` for
/// tensors outside the text model's layers.
pub(super) fn within_layer(name: &str) -> Option<&str> {
    let in_hf = || {
        let mut inner = HF_PREFIXES.iter().filter_map(|prefix| name.strip_prefix(prefix));
        inner.find_map(|inner| layer_and_rest(inner, "layers."))
    };
    layer_and_rest(name, "blk.").or_else(in_hf).map(|(_, rest)| rest)
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
        assert_eq!(from_hf("lm_head.weight"), Some(LM_HEAD.name));
        assert_eq!(from_hf("language_model.lm_head.weight"), Some(LM_HEAD.name));
        assert_eq!(from_hf("model.lm_head.weight"), Some(LM_HEAD.name));
        assert_eq!(from_hf("model.language_model.lm_head.weight"), Some(LM_HEAD.name));
        assert_eq!(
            from_gguf("blk.3.post_ffw_norm.weight").as_deref(),
            Some("layers.3.post_feedforward_layernorm.weight")
        );
        assert_eq!(from_gguf("output.weight").as_deref(), Some(LM_HEAD.name));
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
            "layers.2.experts.gate_up_proj",
            "layers.2.router.scale",
            "norm.weight",
            LM_HEAD.name,
        ] {
            assert_eq!(from_gguf(&to_gguf(name).unwrap()).as_deref(), Some(name));
        }
        assert_eq!(to_gguf("layers.03.layer_scalar"), None);
        assert_eq!(from_gguf("v.blk.0.attn_q.weight"), None);
        assert_eq!(from_gguf("blk.0.ffn_gate_exps.bias"), None);
    }
}
