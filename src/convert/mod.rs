//! Converts packed checkpoints to the forms of other programs.

mod gguf;
mod mlx;
mod mlx_config;

pub use gguf::to_gguf;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::safetensors::writer::{NewTensor, SafetensorsWriter};
use crate::model::source::TensorSource;
use crate::model::weights::{self, PlannedTensor};
use crate::quant::{Dtype, Quantize};
use crate::{Error, Result};

/// Files in a checkpoint's directory besides its weights and config.
const COMPANIONS: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// Source bytes that are converted at once.
const SLICE_BYTES: usize = 32 << 20;

/// Writes `source` in mlx-lm's form into the directory `output`, slice by slice. Config and text
/// assets come from the directory `assets`. `progress` gets the bytes of the source consumed since
/// its last call, and returns whether to continue. Returns the bytes of the weights.
///
/// Integers stay the same. Scales and biases are rounded to bf16, in which MLX computes.
///
/// Errors: `output` exists and is not empty; a matrix that MLX cannot hold. Also a failed read or
/// write, and a refusal by `progress`. Unfinished output is removed then.
pub async fn to_mlx(
    source: &dyn TensorSource,
    assets: &Path,
    output: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let tensors = weights::planned_tensors(source, Quantize::None)?;
    let config_path = assets.join("config.json");
    let config = fs::read(&config_path).map_err(io(&config_path))?;
    let config: Value = serde_json::from_slice(&config)
        .map_err(|e| Error::checkpoint(&config_path, e.to_string()))?;
    let prefix = mlx::prefix(&config);
    let plan = mlx::Plan::new(&tensors, source.config(), prefix)?;
    // Comes before any writing, because mlx-lm may not support this model.
    let config = plan.config(config, source.config())?;
    fs::create_dir_all(output).map_err(io(output))?;
    if fs::read_dir(output).map_err(io(output))?.next().is_some() {
        return Err(Error::Input(format!("{} is not empty", output.display())));
    }
    let mut guard = Unfinished(Some(output.to_owned()));
    let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
    let mut writer =
        SafetensorsWriter::create(&output.join("model.safetensors"), &plan.tensors, &metadata)?;
    for (tensor, pieces) in tensors.iter().zip(&plan.pieces) {
        write_tensor(source, tensor, pieces, &mut writer, progress).await?;
    }
    writer.finish()?;
    for name in COMPANIONS {
        let (from, to) = (assets.join(name), output.join(name));
        if from.is_file() {
            let bytes = fs::read(&from).map_err(io(&from))?;
            fs::write(&to, bytes).map_err(io(&to))?;
        }
    }
    // Comes last, because a directory without it is no checkpoint.
    let path = output.join("config.json");
    fs::write(&path, format!("{config:#}\n")).map_err(io(&path))?;
    guard.0 = None;
    Ok(plan.tensors.iter().map(|tensor| tensor.bytes).sum())
}

/// Writes a tensor, or the three tensors of a matrix, one after another. The source is read once
/// for each.
async fn write_tensor(
    source: &dyn TensorSource,
    PlannedTensor { name, info, .. }: &PlannedTensor,
    pieces: &[mlx::Piece],
    writer: &mut SafetensorsWriter,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<()> {
    let (rows, row_bytes) = match info.shape.as_slice() {
        &[rows, cols] => {
            (rows, info.dtype.bytes_of(cols).map_err(|reason| Error::tensor(name, reason))?)
        }
        _ => (1, info.bytes()),
    };
    let step = (SLICE_BYTES / row_bytes.max(1)).max(1);
    for piece in pieces {
        for range in piece.ranges(rows, step) {
            let count = range.len();
            let bytes = source.read(name, range).await?;
            let converted = piece.part.convert(info, &bytes, count);
            writer.append(&converted.map_err(|reason| Error::tensor(name, reason))?)?;
            let told = if piece.part.is_first() { bytes.len() as u64 } else { 0 };
            if !progress(told) {
                return Err(Error::Input("interrupted".into()));
            }
        }
    }
    Ok(())
}

/// safetensors' name of a plain type.
fn float_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "BF16",
        Dtype::F16 => "F16",
        _ => "F32",
    }
}

fn new_tensor(
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    element_bytes: usize,
) -> NewTensor {
    let bytes = (shape.iter().product::<usize>() * element_bytes) as u64;
    NewTensor { name, dtype, shape, bytes }
}

/// Removes the output unless the work was finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(output) = &self.0 {
            // The error that led here is the one to report. The directory was empty before.
            let _ = fs::remove_dir_all(output);
        }
    }
}
