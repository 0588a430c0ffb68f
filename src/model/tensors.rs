//! The tensors of a model: one table of names, roles, shapes and conditions.
//!
//! Loading, names in GGUF, synthetic models and memory plans derive from it. So do the writers of
//! other formats and the list of unused tensors.

use crate::model::config::{LayerConfig, ModelConfig};

use Condition::{Always, Experts, LayerScalar, OwnKeys, OwnValues, PerLayerInput, UntiedHead};
use Dim::{
    ExpertCount, ExpertDown, ExpertGateUp, ExpertIntermediate, HeadSize, Hidden, Intermediate,
    KeyValue, One, PerLayer, PerLayerColumns, PerLayerVocab, Query, Vocab,
};
use Role::{
    ExpertMatrices, HeadNorm, Linear, Norm, OutputHead, PerLayerProjection, PerLayerTable, Router,
    RouterScale, Scalar, TokenEmbedding,
};

/// The purpose of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A matrix of a layer.
    Linear,
    /// A row for each token. A tied output head uses it too.
    TokenEmbedding,
    /// All layers' vectors for each token.
    PerLayerTable,
    /// Computes all layers' vectors from the embedding.
    PerLayerProjection,
    OutputHead,
    /// The rows of all experts' matrices, one expert after another.
    ExpertMatrices,
    /// Scores the experts for a token. It keeps its precision, because near scores decide.
    Router,
    /// Factors of a router's input, or of its results.
    RouterScale,
    /// Weight of an RMS norm.
    Norm,
    /// Weight of the norm of q or k, applied to each head.
    HeadNorm,
    Scalar,
}

impl Role {
    /// Whether the matrix keeps more bits than those of layers. llama.cpp leaves the per-layer
    /// projection unquantized.
    pub fn is_embedding(self) -> bool {
        matches!(self, TokenEmbedding | PerLayerTable | PerLayerProjection | OutputHead)
    }

    pub fn is_norm(self) -> bool {
        matches!(self, Norm | HeadNorm)
    }
}

/// A size that the config gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dim {
    Vocab,
    Hidden,
    /// Heads · head dimension.
    Query,
    /// Key heads · head dimension.
    KeyValue,
    HeadSize,
    Intermediate,
    /// Elements of a layer's vector.
    PerLayer,
    /// Layers · elements of a layer's vector.
    PerLayerColumns,
    PerLayerVocab,
    ExpertCount,
    ExpertIntermediate,
    /// Experts · (gate and up).
    ExpertGateUp,
    /// Experts · hidden size.
    ExpertDown,
    One,
}

/// The condition for a model to have the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// The layer has its own keys and values.
    OwnKeys,
    /// The same, and V is not K.
    OwnValues,
    PerLayerInput,
    /// The layer has a mixture of experts.
    Experts,
    LayerScalar,
    UntiedHead,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name within the text model, for a layer's tensor the part after `layers.N.`.
    pub name: &'static str,
    /// Name in GGUF files, for a layer's tensor the part after `blk.N.`.
    pub gguf: &'static str,
    pub role: Role,
    pub condition: Condition,
    shape: &'static [Dim],
}

const fn spec(
    name: &'static str,
    gguf: &'static str,
    role: Role,
    shape: &'static [Dim],
    condition: Condition,
) -> TensorSpec {
    TensorSpec { name, gguf, role, condition, shape }
}

macro_rules! tensors {
    (
        $(#[$doc:meta])*
        $list:ident:
        $($id:ident = $name:literal, $gguf:literal, $role:ident $shape:expr, $condition:ident;)*
    ) => {
        $(pub static $id: TensorSpec = spec($name, $gguf, $role, &$shape, $condition);)*
        $(#[$doc])*
        pub static $list: &[&TensorSpec] = &[$(&$id),*];
    };
}

tensors! {
    /// Tensors that come before the layers.
    INPUT_TENSORS:
    EMBED_TOKENS = "embed_tokens.weight", "token_embd.weight",
        TokenEmbedding [Vocab, Hidden], Always;
    PER_LAYER_TABLE = "embed_tokens_per_layer.weight", "per_layer_token_embd.weight",
        PerLayerTable [PerLayerVocab, PerLayerColumns], PerLayerInput;
    PER_LAYER_MODEL_PROJECTION = "per_layer_model_projection.weight", "per_layer_model_proj.weight",
        PerLayerProjection [PerLayerColumns, Hidden], PerLayerInput;
    PER_LAYER_PROJECTION_NORM = "per_layer_projection_norm.weight", "per_layer_proj_norm.weight",
        Norm [PerLayer], PerLayerInput;
}

tensors! {
    /// Tensors of one layer, in the order of its forward pass.
    LAYER_TENSORS:
    INPUT_NORM = "input_layernorm.weight", "attn_norm.weight", Norm [Hidden], Always;
    Q_PROJ = "self_attn.q_proj.weight", "attn_q.weight", Linear [Query, Hidden], Always;
    K_PROJ = "self_attn.k_proj.weight", "attn_k.weight", Linear [KeyValue, Hidden], OwnKeys;
    V_PROJ = "self_attn.v_proj.weight", "attn_v.weight", Linear [KeyValue, Hidden], OwnValues;
    O_PROJ = "self_attn.o_proj.weight", "attn_output.weight", Linear [Hidden, Query], Always;
    Q_NORM = "self_attn.q_norm.weight", "attn_q_norm.weight", HeadNorm [HeadSize], Always;
    K_NORM = "self_attn.k_norm.weight", "attn_k_norm.weight", HeadNorm [HeadSize], OwnKeys;
    POST_ATTENTION_NORM = "post_attention_layernorm.weight", "post_attention_norm.weight",
        Norm [Hidden], Always;
    PRE_FEEDFORWARD_NORM = "pre_feedforward_layernorm.weight", "ffn_norm.weight",
        Norm [Hidden], Always;
    GATE_PROJ = "mlp.gate_proj.weight", "ffn_gate.weight", Linear [Intermediate, Hidden], Always;
    UP_PROJ = "mlp.up_proj.weight", "ffn_up.weight", Linear [Intermediate, Hidden], Always;
    DOWN_PROJ = "mlp.down_proj.weight", "ffn_down.weight", Linear [Hidden, Intermediate], Always;
    POST_MLP_NORM = "post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight",
        Norm [Hidden], Experts;
    ROUTER_SCALE = "router.scale", "ffn_gate_inp.scale", RouterScale [Hidden], Experts;
    ROUTER = "router.proj.weight", "ffn_gate_inp.weight", Router [ExpertCount, Hidden], Experts;
    PER_EXPERT_SCALE = "router.per_expert_scale", "ffn_down_exps.scale",
        RouterScale [ExpertCount], Experts;
    PRE_EXPERTS_NORM = "pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight",
        Norm [Hidden], Experts;
    EXPERTS_GATE_UP = "experts.gate_up_proj", "ffn_gate_up_exps.weight",
        ExpertMatrices [ExpertGateUp, Hidden], Experts;
    EXPERTS_DOWN = "experts.down_proj", "ffn_down_exps.weight",
        ExpertMatrices [ExpertDown, ExpertIntermediate], Experts;
    POST_EXPERTS_NORM = "post_feedforward_layernorm_2.weight", "post_ffw_norm_2.weight",
        Norm [Hidden], Experts;
    POST_FEEDFORWARD_NORM = "post_feedforward_layernorm.weight", "post_ffw_norm.weight",
        Norm [Hidden], Always;
    PER_LAYER_GATE = "per_layer_input_gate.weight", "inp_gate.weight",
        Linear [PerLayer, Hidden], PerLayerInput;
    PER_LAYER_PROJECTION = "per_layer_projection.weight", "proj.weight",
        Linear [Hidden, PerLayer], PerLayerInput;
    POST_PER_LAYER_NORM = "post_per_layer_input_norm.weight", "post_norm.weight",
        Norm [Hidden], PerLayerInput;
    LAYER_SCALAR = "layer_scalar", "layer_output_scale.weight", Scalar [One], LayerScalar;
}

tensors! {
    /// Tensors that come after the layers.
    OUTPUT_TENSORS:
    OUTPUT_NORM = "norm.weight", "output_norm.weight", Norm [Hidden], Always;
    LM_HEAD = "lm_head.weight", "output.weight", OutputHead [Vocab, Hidden], UntiedHead;
}

impl TensorSpec {
    /// The name of a layer's tensor.
    pub fn in_layer(&self, index: usize) -> String {
        format!("layers.{index}.{}", self.name)
    }

    /// Outermost dimension first. `None` where the model or the layer has no such tensor.
    pub fn shape(&self, config: &ModelConfig, layer: Option<&LayerConfig>) -> Option<Vec<usize>> {
        let applies = match self.condition {
            Always => true,
            OwnKeys => layer?.kv_from.is_none(),
            OwnValues => layer?.kv_from.is_none() && !layer?.k_eq_v,
            PerLayerInput => config.per_layer_input.is_some(),
            Experts => layer?.experts.is_some(),
            LayerScalar => config.layer_scalar,
            UntiedHead => !config.tie_word_embeddings,
        };
        if !applies {
            return None;
        }
        self.shape.iter().map(|dim| dim.size(config, layer)).collect()
    }
}

impl Dim {
    fn size(self, config: &ModelConfig, layer: Option<&LayerConfig>) -> Option<usize> {
        Some(match self {
            Vocab => config.vocab_size,
            Hidden => config.hidden_size,
            Query => layer?.n_heads * layer?.head_dim,
            KeyValue => layer?.n_kv_heads * layer?.head_dim,
            HeadSize => layer?.head_dim,
            Intermediate => layer?.intermediate_size,
            PerLayer => config.per_layer_input?.size,
            PerLayerColumns => config.per_layer_columns(),
            PerLayerVocab => config.per_layer_input?.vocab_size,
            ExpertCount => layer?.experts?.count,
            ExpertIntermediate => layer?.experts?.intermediate_size,
            ExpertGateUp => {
                let experts = layer?.experts?;
                experts.count * 2 * experts.intermediate_size
            }
            ExpertDown => layer?.experts?.count * config.hidden_size,
            One => 1,
        })
    }
}

/// A tensor that a model has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTensor {
    /// Name within the text model.
    pub name: String,
    pub role: Role,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

/// The tensors that a model has, in the order of the forward pass.
pub fn tensor_specs(config: &ModelConfig) -> Vec<ModelTensor> {
    let of_model = |spec: &&TensorSpec| {
        let shape = spec.shape(config, None)?;
        Some(ModelTensor { name: spec.name.into(), role: spec.role, shape })
    };
    let mut tensors: Vec<_> = INPUT_TENSORS.iter().filter_map(of_model).collect();
    for (index, layer) in config.layers.iter().enumerate() {
        tensors.extend(LAYER_TENSORS.iter().filter_map(|spec| {
            let shape = spec.shape(config, Some(layer))?;
            Some(ModelTensor { name: spec.in_layer(index), role: spec.role, shape })
        }));
    }
    tensors.extend(OUTPUT_TENSORS.iter().filter_map(of_model));
    tensors
}

/// The tensor of this name. `None` if the model has none.
pub fn find(config: &ModelConfig, name: &str) -> Option<ModelTensor> {
    let (layer, spec) = spec_of(name)?;
    let layer = match layer {
        Some(index) => Some(config.layers.get(index)?),
        None => None,
    };
    let shape = spec.shape(config, layer)?;
    Some(ModelTensor { name: name.into(), role: spec.role, shape })
}

/// The row of the table for a name within the text model, and the layer's number.
pub fn spec_of(name: &str) -> Option<(Option<usize>, &'static TensorSpec)> {
    match layer_and_rest(name, "layers.") {
        Some((index, rest)) => {
            let spec = LAYER_TENSORS.iter().find(|spec| spec.name == rest)?;
            Some((Some(index), spec))
        }
        None => model_specs().find(|spec| spec.name == name).map(|spec| (None, spec)),
    }
}

/// Rows of the table outside the layers.
pub fn model_specs() -> impl Iterator<Item = &'static TensorSpec> {
    INPUT_TENSORS.iter().chain(OUTPUT_TENSORS).copied()
}

/// Splits `blk.12.attn_q.weight` into 12 and `attn_q.weight`.
pub fn layer_and_rest<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (digits, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let index: usize = digits.parse().ok()?;
    // "07" and "+7" would be other spellings of layer 7.
    (index.to_string() == digits).then_some((index, rest))
}

/// A tensor's name without the layer's number.
pub fn tensor_kind(name: &str) -> &str {
    layer_and_rest(name, "layers.").map_or(name, |(_, rest)| rest)
}

/// The rows of a matrix that one token reads. This is one row for the tables, unless the embedding
/// is also the output head. Of experts it is the share that a token chooses. Other matrices are
/// read whole, with `rows` rows.
pub fn rows_read(config: &ModelConfig, role: Role, rows: usize) -> usize {
    match role {
        PerLayerTable => rows.min(1),
        TokenEmbedding if !config.tie_word_embeddings => rows.min(1),
        ExpertMatrices => {
            config.experts().map_or(rows, |experts| rows / experts.count * experts.top_k)
        }
        _ => rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_is_found_by_its_name() {
        for name in ["31b", "26b-a4b", "e2b", "270m"] {
            let config = ModelConfig::named(name).unwrap();
            for tensor in tensor_specs(&config) {
                assert_eq!(find(&config, &tensor.name), Some(tensor));
            }
        }
    }

    #[test]
    fn conditions_leave_tensors_out() {
        let has = |model, name| find(&ModelConfig::named(model).unwrap(), name).is_some();
        assert!(has("31b", "layers.0.self_attn.v_proj.weight"));
        assert!(!has("31b", "layers.5.self_attn.v_proj.weight"));
        assert!(has("e2b", "layers.14.self_attn.k_proj.weight"));
        assert!(!has("e2b", "layers.15.self_attn.k_proj.weight"));
        assert!(has("e2b", PER_LAYER_TABLE.name) && !has("31b", PER_LAYER_TABLE.name));
        assert!(!has("270m", "layers.0.layer_scalar") && !has("31b", "layers.60.layer_scalar"));
        let router = "layers.29.router.proj.weight";
        assert!(has("26b-a4b", router) && !has("31b", router));
        assert!(!has("31b", LM_HEAD.name) && !has("31b", "layers.0.bias"));
    }
}
