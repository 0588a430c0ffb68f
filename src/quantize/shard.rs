//! One file of a packed checkpoint.

use std::{collections::BTreeMap, path::Path};

use crate::checkpoint::safetensors::header::{OWN_FORMAT, OWN_VERSION, describe_packed};
use crate::checkpoint::safetensors::writer::{NewTensor, SafetensorsWriter};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::tensors::{LM_HEAD, tensor_kind};
use crate::model::weights::PlannedTensor;
use crate::quant::methods::{Spec, Squares};
use crate::quant::recipe::Recipe;
use crate::quant::{Dtype, PackedRows};
use crate::quantize::job::{Job, Kind, Kinds};

/// Source bytes that are quantized at once.
const SLICE_BYTES: usize = 32 << 20;

/// A tensor and its quantization. `None` for tensors that stay as they are.
pub struct Target {
    pub tensor: PlannedTensor,
    pub spec: Option<Spec>,
}

impl Target {
    /// The job's GPU, if it searches for this tensor's scales.
    pub fn searching_gpu<'a>(&self, job: &Job<'a>) -> Option<&'a Gpu> {
        match (job.gpu, &self.spec, self.tensor.info.shape.as_slice()) {
            (Some(gpu), Some(spec), &[_, cols]) if Gpu::chooses(spec, cols) => Some(gpu),
            _ => None,
        }
    }
}

/// A tensor's name in the file, which is that of transformers' text model.
pub fn stored_name(name: &str) -> String {
    if name == LM_HEAD.name { name.into() } else { format!("model.{name}") }
}

pub fn new_tensor(tensor: &PlannedTensor) -> NewTensor {
    let name = stored_name(&tensor.name);
    match (tensor.format, tensor.info.shape.as_slice()) {
        (Some(format), &[rows, cols]) => {
            let row_bytes = format.row_bytes(cols);
            NewTensor {
                name,
                dtype: "U8",
                shape: vec![rows, row_bytes],
                bytes: (rows * row_bytes) as u64,
            }
        }
        (_, shape) => {
            let dtype = match tensor.info.dtype {
                Dtype::BF16 => "BF16",
                Dtype::F16 => "F16",
                _ => "F32",
            };
            NewTensor { name, dtype, shape: shape.to_vec(), bytes: tensor.info.bytes() as u64 }
        }
    }
}

/// Writes the file, which appears when it is complete. Returns the results for its matrices.
pub async fn write_shard(
    job: &Job<'_>,
    shard: &[Target],
    path: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Kinds> {
    let tensors: Vec<NewTensor> = shard.iter().map(|target| new_tensor(&target.tensor)).collect();
    let mut writer = SafetensorsWriter::create(path, &tensors, &metadata(shard, job.recipe))?;
    let mut kinds = Kinds::new();
    for (target, tensor) in shard.iter().zip(&tensors) {
        let squares = write_tensor(job, target, &mut writer, progress).await?;
        if target.tensor.info.shape.len() == 2 {
            let format = target
                .tensor
                .format
                .map_or(tensor.dtype.to_lowercase(), |format| format.to_string());
            let key = format!("{} {format}", tensor_kind(&target.tensor.name));
            let kind = Kind::of(target.tensor.info.elements() as u64, tensor.bytes, squares);
            kinds.entry(key).or_default().add(&kind);
        }
    }
    writer.finish()?;
    Ok(kinds)
}

fn metadata(shard: &[Target], recipe: &Recipe) -> BTreeMap<String, String> {
    let mut metadata: BTreeMap<String, String> = [
        ("format", OWN_FORMAT.to_owned()),
        ("version", OWN_VERSION.to_owned()),
        ("writer", env!("CARGO_PKG_VERSION").to_owned()),
        ("recipe", recipe.to_string()),
        ("rules", recipe.to_json()),
    ]
    .map(|(key, value)| (key.into(), value))
    .into();
    for Target { tensor, .. } in shard {
        if let (Some(format), &[rows, cols]) = (tensor.format, tensor.info.shape.as_slice()) {
            metadata.insert(stored_name(&tensor.name), describe_packed(format, rows, cols));
        }
    }
    metadata
}

async fn write_tensor(
    job: &Job<'_>,
    target: &Target,
    writer: &mut SafetensorsWriter,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Squares> {
    let Target { tensor, spec } = target;
    let (source, name, dtype) = (job.source, &tensor.name, tensor.info.dtype);
    let &[rows, cols] = tensor.info.shape.as_slice() else {
        let bytes = source.read(name, 0..1).await?;
        go_on(progress(bytes.len() as u64))?;
        return writer.append(&bytes).map(|()| Squares::default());
    };
    let row_bytes = dtype.bytes_of(cols).map_err(|reason| Error::tensor(name, reason))?;
    let step = (SLICE_BYTES / row_bytes.max(1)).max(1);
    let mut squares = Squares::default();
    for start in (0..rows).step_by(step) {
        let end = (start + step).min(rows);
        let bytes = source.read(name, start..end).await?;
        match spec {
            None => writer.append(&bytes)?,
            Some(spec) => {
                let (packed, of_slice) =
                    quantize(target.searching_gpu(job), spec, dtype, &bytes, end - start, cols)
                        .await?
                        .map_err(|reason| {
                            Error::tensor(name, format!("rows {start}..{end}: {reason}"))
                        })?;
                squares += of_slice;
                writer.append(&packed.to_bytes())?;
            }
        }
        go_on(progress(bytes.len() as u64))?;
    }
    Ok(squares)
}

/// Quantizes rows. The outer error is the device's, the inner one the weights'.
async fn quantize(
    gpu: Option<&Gpu>,
    spec: &Spec,
    dtype: Dtype,
    bytes: &[u8],
    rows: usize,
    cols: usize,
) -> Result<Result<(PackedRows, Squares), String>> {
    Ok(match gpu {
        None => spec.quantize(dtype, bytes, rows, cols),
        Some(gpu) => {
            let chosen = gpu.choose_steps(spec, dtype, bytes, rows, cols).await?;
            spec.quantize_chosen(dtype, bytes, rows, cols, &chosen)
        }
    })
}

fn go_on(wanted: bool) -> Result<()> {
    if wanted { Ok(()) } else { Err(Error::Input("interrupted".into())) }
}
