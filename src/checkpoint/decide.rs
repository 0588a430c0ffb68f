//! Decides which tensors a model has. The files decide where the config contradicts them or says
//! nothing. docs/formats.md has the list of decisions.

use crate::checkpoint::{names, tensor_index::TensorIndex};
use crate::error::{Error, Result, quoted};
use crate::model::config::{Architecture, LayerConfig, ModelConfig};
use crate::model::tensors::{GATE_PROJ, LAYER_SCALAR, PER_LAYER_TABLE, V_PROJ};

const PER_LAYER_SIZE: &str = "hidden_size_per_layer_input";

/// Adapts the config to the files. `said` tells whether the config has a key.
///
/// Errors: a contradiction without a solution, in one line with both sides.
pub(super) fn by_files(
    config: &mut ModelConfig,
    tensors: &TensorIndex,
    said: &dyn Fn(&str) -> bool,
) -> Result<()> {
    refuse_more_layers(config, tensors)?;
    decide_scalars(config, tensors)?;
    decide_per_layer_input(config, tensors, said)?;
    for (index, layer) in config.layers.iter_mut().enumerate() {
        decide_values(layer, index, tensors);
        decide_width(layer, index, tensors);
    }
    Ok(())
}

/// Errors if the files have more layers than the config, because the model would be cut short.
fn refuse_more_layers(config: &ModelConfig, tensors: &TensorIndex) -> Result<()> {
    let count = config.layers.len();
    let is_beyond = |name: &&String| names::layer_of(name).is_some_and(|index| index >= count);
    match tensors.keys().filter(is_beyond).min() {
        Some(name) => {
            Err(Error::tensor(name, format!("is in the files, and the config says {count} layers")))
        }
        None => Ok(()),
    }
}

/// A Gemma 4 without layer scalars in its files does not multiply by any, as in transformers.
fn decide_scalars(config: &mut ModelConfig, tensors: &TensorIndex) -> Result<()> {
    let mut names = (0..config.layers.len()).map(|index| LAYER_SCALAR.in_layer(index));
    let found = names.find(|name| tensors.contains_key(name));
    match (config.architecture, found) {
        (Architecture::Gemma3, Some(name)) => {
            Err(Error::tensor(name, "is in the files, and the config says Gemma 3, which has none"))
        }
        (Architecture::Gemma3, None) => Ok(()),
        (Architecture::Gemma4, found) => {
            config.layer_scalar = found.is_some();
            Ok(())
        }
    }
}

/// Where the config gives no size, a file without the table has no per-layer embeddings.
fn decide_per_layer_input(
    config: &mut ModelConfig,
    tensors: &TensorIndex,
    said: &dyn Fn(&str) -> bool,
) -> Result<()> {
    match (config.per_layer_input, tensors.get(PER_LAYER_TABLE.name)) {
        (Some(_), None) if !said(PER_LAYER_SIZE) => config.per_layer_input = None,
        (None, Some(table)) => {
            let shape = &table.info.shape;
            let reason = format!(
                "is in the files with shape {shape:?}, and the config has no {PER_LAYER_SIZE}"
            );
            return Err(Error::tensor(PER_LAYER_TABLE.name, reason));
        }
        _ => {}
    }
    Ok(())
}

/// A layer whose values are stored uses them, even if `attention_k_eq_v` is set.
fn decide_values(layer: &mut LayerConfig, index: usize, tensors: &TensorIndex) {
    let name = V_PROJ.in_layer(index);
    if layer.k_eq_v && tensors.contains_key(&name) {
        log::info!("{name} is in the files and used, although the config says attention_k_eq_v");
        layer.k_eq_v = false;
    }
}

/// A layer that shares keys may have an MLP of single or double width, even against
/// `use_double_wide_mlp`.
fn decide_width(layer: &mut LayerConfig, index: usize, tensors: &TensorIndex) {
    let gate = tensors.get(&GATE_PROJ.in_layer(index));
    let rows = gate.and_then(|gate| gate.info.shape.first().copied());
    let Some(rows) = rows.filter(|_| layer.kv_from.is_some()) else { return };
    let width = layer.intermediate_size;
    if rows.checked_mul(2) == Some(width) || width.checked_mul(2) == Some(rows) {
        log::info!("the MLP of layer {index} is {rows} wide in the files, and not {width}");
        layer.intermediate_size = rows;
    }
}

/// Errors if ignoring an unknown tensor would change the model's results.
pub(super) fn refuse_needed(name: &str) -> Result<()> {
    let Some(part) = names::within_layer(name) else { return Ok(()) };
    let is_expert = |word| {
        ["experts", "router", "ffn_gate_inp", "switch_glu"].contains(&word) || is_gguf_expert(word)
    };
    let what = match part.split('.').collect::<Vec<_>>().as_slice() {
        words if words.iter().any(|word| is_expert(word)) => "mixture of experts",
        [.., "bias"] => "biases",
        words if words.iter().any(|word| word.starts_with("lora_")) => {
            "an adapter that is not merged"
        }
        _ => return Ok(()),
    };
    Err(Error::Unsupported(format!("{what} (tensor {})", quoted(name))))
}

fn is_gguf_expert(word: &str) -> bool {
    word.starts_with("ffn_") && word.ends_with("_exps")
}
