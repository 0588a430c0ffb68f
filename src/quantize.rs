//! Full-precision checkpoints to packed ones: this project's own safetensors form (docs/formats.md).

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    Error, Result,
    checkpoint::{
        TensorSource,
        safetensors::{OWN_FORMAT, OWN_VERSION, describe_packed},
        writer::{NewTensor, SafetensorsWriter},
    },
    quant::{Dtype, Quantize},
    weights::{self, MatrixReader, PlannedTensor},
};

/// Bytes of one file; larger models get several and an index.
const SHARD_BYTES: u64 = 4 << 30;

/// What a checkpoint's directory has beside its weights; config.json comes last, because without it a
/// directory is no checkpoint.
const COMPANIONS: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "config.json"];

/// Writes the packed form of `source` into the directory `output`, slice by slice, with the text assets found in
/// the directory `assets`. `progress` is told bytes of the source consumed since it was last called, and asked
/// whether to go on. Returns the bytes of the weights written.
///
/// Errors: `output` exists and is not empty; a missing or broken tensor, one that is quantized already; a failed read
/// or write; `progress` says no. What was begun is removed then.
pub async fn write_packed(
    source: &dyn TensorSource,
    quantize: Quantize,
    assets: &Path,
    output: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let tensors = weights::plan(source, quantize)?;
    let is_packed = |tensor: &PlannedTensor| tensor.format.is_some() && !tensor.info.dtype.is_float();
    if let Some(packed) = tensors.iter().find(|tensor| is_packed(tensor)) {
        return Err(Error::Unsupported(format!("{} is quantized already", packed.name)));
    }
    fs::create_dir_all(output).map_err(io(output))?;
    if fs::read_dir(output).map_err(io(output))?.next().is_some() {
        return Err(Error::Input(format!("{} is not empty", output.display())));
    }
    let mut guard = Unfinished(Some(output.to_owned()));
    let shards = shards(tensors);
    let mut index = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = shard_name(number, shards.len());
        write_shard(source, shard, &output.join(&name), progress).await?;
        index.extend(shard.iter().map(|tensor| (stored_name(&tensor.name), name.clone())));
    }
    let bytes = shards.iter().flatten().map(|tensor| new_tensor(tensor).bytes).sum();
    if shards.len() > 1 {
        let path = output.join("model.safetensors.index.json");
        let text = json!({ "metadata": { "total_size": bytes }, "weight_map": index }).to_string();
        fs::write(&path, text).map_err(io(&path))?;
    }
    for name in COMPANIONS {
        let (from, to) = (assets.join(name), output.join(name));
        if from.is_file() {
            let bytes = fs::read(&from).map_err(io(&from))?;
            fs::write(&to, bytes).map_err(io(&to))?;
        }
    }
    guard.0 = None;
    Ok(bytes)
}

/// Removes what was written unless the work was finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(output) = &self.0 {
            // The error that led here is the one to report. The directory was empty before.
            let _ = fs::remove_dir_all(output);
        }
    }
}

/// Tensors in files of at most [`SHARD_BYTES`].
fn shards(tensors: Vec<PlannedTensor>) -> Vec<Vec<PlannedTensor>> {
    let mut shards = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        let size = new_tensor(&tensor).bytes;
        if bytes > 0 && bytes + size > SHARD_BYTES {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        shards.last_mut().unwrap_or_else(|| unreachable!("never empty")).push(tensor);
    }
    shards
}

fn shard_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// A tensor's name in the file: as the text model of transformers has it.
fn stored_name(name: &str) -> String {
    if name == "lm_head.weight" { name.into() } else { format!("model.{name}") }
}

fn new_tensor(tensor: &PlannedTensor) -> NewTensor {
    let name = stored_name(&tensor.name);
    match (tensor.format, tensor.info.shape.as_slice()) {
        (Some(format), &[rows, cols]) => {
            let row_bytes = format.row_bytes(cols);
            NewTensor { name, dtype: "U8", shape: vec![rows, row_bytes], bytes: (rows * row_bytes) as u64 }
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

async fn write_shard(
    source: &dyn TensorSource,
    shard: &[PlannedTensor],
    path: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<()> {
    let tensors: Vec<NewTensor> = shard.iter().map(new_tensor).collect();
    let mut metadata: BTreeMap<String, String> =
        [("format", OWN_FORMAT), ("version", OWN_VERSION), ("writer", env!("CARGO_PKG_VERSION"))]
            .map(|(key, value)| (key.into(), value.into()))
            .into();
    for tensor in shard {
        if let (Some(format), &[rows, cols]) = (tensor.format, tensor.info.shape.as_slice()) {
            metadata.insert(stored_name(&tensor.name), describe_packed(format, rows, cols));
        }
    }
    let mut writer = SafetensorsWriter::create(path, &tensors, &metadata)?;
    for PlannedTensor { name, info, format } in shard {
        let (Some(format), &[rows, cols]) = (*format, info.shape.as_slice()) else {
            let bytes = source.read(name, 0..1).await?;
            go_on(progress(bytes.len() as u64))?;
            writer.append(&bytes)?;
            continue;
        };
        let wanted = Cell::new(true);
        let mut told = |bytes| wanted.set(progress(bytes));
        let mut reader = MatrixReader::new(source, name, info.dtype, (rows, cols), format, &mut told);
        while let Some((_, packed)) = reader.next(rows).await? {
            go_on(wanted.get())?;
            writer.append(&packed.to_bytes())?;
        }
    }
    writer.finish()
}

fn go_on(wanted: bool) -> Result<()> {
    if wanted { Ok(()) } else { Err(Error::Input("interrupted".into())) }
}
