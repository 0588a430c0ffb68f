//! GGUF, as llama.cpp's converters write Gemma: the same integers and scales in ggml's blocks.

mod blocks;
mod metadata;
mod vocabulary;

use std::path::Path;

use super::SLICE_BYTES;
use crate::checkpoint::gguf::container::Gguf;
use crate::checkpoint::gguf::writer::{self, GgufWriter, NewGgufTensor};
use crate::checkpoint::names;
use crate::model::config::{AttentionKind, Experts, ModelConfig};
use crate::model::source::TensorSource;
use crate::model::tensors::Role;
use crate::model::weights::{self, PlannedTensor};
use crate::quant::{self, Dtype, Quantize};
use crate::text::TextAssets;
use crate::{Error, Result};

/// Writes `source` with the data of `text` as a GGUF file `output`, slice by slice. `progress` gets
/// the bytes of the source consumed since its last call, and returns whether to continue. Returns
/// the bytes of the weights.
///
/// Everything is exact. int4 becomes Q4_0 (Q4_1 with offsets), int8 becomes Q8_0, and vectors
/// become f32. Plain matrices stay as they are. Before writing the weights, config and tokenizer
/// are read back and compared, the latter on sample texts.
///
/// Errors: `output` exists; a failed read or write; a refusal by `progress`. Also a matrix, a
/// config or a tokenizer that GGUF cannot hold exactly. No file remains then.
pub async fn to_gguf(
    source: &dyn TensorSource,
    text: &TextAssets,
    output: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64> {
    if output.exists() {
        return Err(Error::Input(format!("{} exists already", output.display())));
    }
    let config = source.config();
    check_effective(config)?;
    let planned = weights::planned_tensors(source, Quantize::None)?;
    let rotation = metadata::rotation_factors(config);
    // Comes first, because the check of the head needs it.
    let mut tensors = Vec::from_iter(rotation.as_ref().map(|factors| NewGgufTensor {
        name: "rope_freqs.weight".into(),
        dtype: Dtype::F32,
        shape: vec![factors.len()],
    }));
    for tensor in &planned {
        tensors.push(target(config, tensor)?);
    }
    let name = output.file_stem().unwrap_or_default().to_string_lossy();
    let mut keys = metadata::of_config(config, &name, &tensors)?;
    keys.extend(vocabulary::keys(config, text)?);
    let head = writer::head(&keys, &tensors)?;
    drop(keys);
    let factors: Vec<u8> =
        rotation.iter().flatten().flat_map(|factor| factor.to_le_bytes()).collect();
    check_config(config, &[head.as_slice(), &factors].concat(), &tensors)?;

    let mut writer = GgufWriter::create(output, &head, &tensors)?;
    if let (Some(_), Some(target)) = (&rotation, tensors.first()) {
        writer.append(&factors)?;
        writer.end(target)?;
    }
    for (tensor, target) in planned.iter().zip(&tensors[rotation.iter().len()..]) {
        write_tensor(source, tensor, &mut writer, progress).await?;
        writer.end(target)?;
    }
    writer.finish()?;
    tensors.iter().map(NewGgufTensor::bytes).sum()
}

/// Errors if llama.cpp would read another table of per-layer embeddings, or keys of other layers.
fn check_effective(config: &ModelConfig) -> Result<()> {
    if let Some(input) =
        config.per_layer_input.filter(|input| input.vocab_size != config.vocab_size)
    {
        let (rows, tokens) = (input.vocab_size, config.vocab_size);
        let reason = format!(
            "{rows} rows of per-layer embeddings for {tokens} tokens: llama.cpp wants as many"
        );
        return Err(Error::Unsupported(reason));
    }
    // llama.cpp shares keys of the last layers that have their own. Full layers use the last one,
    // and sliding layers the last but one.
    let own = config.cached_layers().len();
    for (index, layer) in config.layers.iter().enumerate() {
        let back = if layer.attention == AttentionKind::Full { 1 } else { 2 };
        if let Some(source) = layer.kv_from.filter(|source| source + back != own) {
            let reason = format!(
                "layer {index} uses the keys of layer {source}, and llama.cpp would take another's"
            );
            return Err(Error::Unsupported(reason));
        }
    }
    Ok(())
}

/// The GGUF form of a tensor. Matrices of experts get a dimension of their own.
fn target(config: &ModelConfig, tensor: &PlannedTensor) -> Result<NewGgufTensor> {
    let PlannedTensor { name, role, info, .. } = tensor;
    let stored = names::to_gguf(name).ok_or_else(|| Error::tensor(name, "has no name in GGUF"))?;
    let &[rows, cols] = info.shape.as_slice() else {
        // A scalar may be stored without dimensions.
        let shape = vec![info.elements()];
        return Ok(NewGgufTensor { name: stored, dtype: Dtype::F32, shape });
    };
    let dtype = match is_float_router(tensor) {
        true => Dtype::F32,
        false => blocks::block_type(info).map_err(|reason| Error::tensor(name, reason))?,
    };
    let shape = match (role, config.experts()) {
        (Role::ExpertMatrices, Some(Experts { count, .. })) => vec![count, rows / count, cols],
        _ => vec![rows, cols],
    };
    Ok(NewGgufTensor { name: stored, dtype, shape })
}

/// Whether a matrix becomes f32, as llama.cpp's converter writes routers.
fn is_float_router(PlannedTensor { role, info, .. }: &PlannedTensor) -> bool {
    *role == Role::Router && info.dtype.is_float()
}

/// Errors if the config that llama.cpp's keys give differs. `head` includes the frequency factors.
fn check_config(config: &ModelConfig, head: &[u8], tensors: &[NewGgufTensor]) -> Result<()> {
    let bytes = tensors.iter().map(|tensor| Ok(tensor.bytes()? + 32)).sum::<Result<u64>>()?;
    let parsed = Gguf::parse_head(head, head.len() as u64 + bytes);
    let parsed = parsed.map_err(|error| Error::Config(format!("as GGUF: {error:?}")))?;
    let mut found = ModelConfig::from_gguf(&[parsed])?;
    // GGUF norms' weights include the 1. The scale comes from the same numbers by another formula.
    found.norm_weight_offset = config.norm_weight_offset;
    if (found.attention_scale / config.attention_scale - 1.0).abs() > 1e-6 {
        let (wanted, found) = (config.attention_scale, found.attention_scale);
        let reason = format!(
            "an attention scale of {wanted}: GGUF has no key for it, llama.cpp would take {found}"
        );
        return Err(Error::Unsupported(reason));
    }
    found.attention_scale = config.attention_scale;
    if found == *config {
        return Ok(());
    }
    let layer = found.layers.iter().zip(&config.layers).position(|(found, wanted)| found != wanted);
    let place = layer.map_or("this model".into(), |layer| format!("layer {layer} of this model"));
    Err(Error::Unsupported(format!("llama.cpp's metadata cannot describe {place}")))
}

async fn write_tensor(
    source: &dyn TensorSource,
    tensor: &PlannedTensor,
    writer: &mut GgufWriter,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<()> {
    let PlannedTensor { name, role, info, .. } = tensor;
    let fault = |reason| Error::tensor(name, reason);
    let &[rows, cols] = info.shape.as_slice() else {
        let bytes = source.read(name, 0..1).await?;
        let mut values = quant::dequantize(info.dtype, &bytes).map_err(fault)?;
        if role.is_norm() {
            values.iter_mut().for_each(|value| *value += source.config().norm_weight_offset);
        }
        writer.append(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
        return go_on(progress(bytes.len() as u64));
    };
    let step = (SLICE_BYTES / info.dtype.bytes_of(cols).map_err(fault)?.max(1)).max(1);
    for start in (0..rows).step_by(step) {
        let end = (start + step).min(rows);
        let bytes = source.read(name, start..end).await?;
        match is_float_router(tensor) {
            true => {
                let values = quant::dequantize(info.dtype, &bytes).map_err(fault)?;
                writer.append(bytemuck::cast_slice(&values))?;
            }
            false => writer.append(&blocks::convert(info, &bytes, end - start).map_err(fault)?)?,
        }
        go_on(progress(bytes.len() as u64))?;
    }
    Ok(())
}

fn go_on(wanted: bool) -> Result<()> {
    if wanted { Ok(()) } else { Err(Error::Input("interrupted".into())) }
}
