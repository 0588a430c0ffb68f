//! Full-precision checkpoints to packed ones: this project's own safetensors form
//! (docs/formats.md).

mod resume;
mod shard;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use self::{
    resume::Journal,
    shard::{Target, new_tensor, stored_name, write_shard},
};
use crate::{
    Error, Result,
    gpu::Gpu,
    model::{
        config,
        source::TensorSource,
        weights::{self, PlannedTensor},
    },
    quant::{Quantize, methods::Squares, recipe::Recipe},
};

/// Bytes of one file; larger models get several and an index. After an interruption whole files are
/// kept.
pub const SHARD_BYTES: u64 = 2 << 30;

/// What a checkpoint's directory has beside its weights; config.json comes last, because without it
/// a directory is no checkpoint.
const COMPANIONS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "config.json",
];

/// A checkpoint to be quantized.
pub struct Job<'a> {
    pub source: &'a dyn TensorSource,
    pub recipe: &'a Recipe,
    /// The directory of `source`, where its text assets are.
    pub assets: &'a Path,
    /// The directory to write to: new, empty, or left by an interrupted job of the same source,
    /// recipe and backend.
    pub output: &'a Path,
    /// Where hqq searches ([`Gpu::chooses`]); on the processor's cores if there is none.
    pub gpu: Option<&'a Gpu>,
    /// See [`SHARD_BYTES`].
    pub shard_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Files that an interrupted job had finished.
    pub resumed_files: usize,
    /// By kind of tensor and format.
    pub kinds: Vec<(String, Kind)>,
}

/// Matrices of one name and format in all layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    pub tensors: usize,
    pub elements: u64,
    pub bytes: u64,
    /// Sums of squares: of the errors, and of the weights.
    pub error: f64,
    pub weight: f64,
}

impl Kind {
    /// Bits that a weight takes, scales and padding included.
    pub fn bits(&self) -> f64 {
        8.0 * self.bytes as f64 / self.elements.max(1) as f64
    }

    /// Root mean square of what rounding changed.
    pub fn rms_error(&self) -> f64 {
        (self.error / self.elements.max(1) as f64).sqrt()
    }

    /// The same, as a share of the weights' own root mean square.
    pub fn relative_error(&self) -> f64 {
        if self.weight > 0.0 { (self.error / self.weight).sqrt() } else { 0.0 }
    }

    fn add(&mut self, other: &Kind) {
        self.tensors += other.tensors;
        self.elements += other.elements;
        self.bytes += other.bytes;
        self.error += other.error;
        self.weight += other.weight;
    }

    fn of(elements: u64, bytes: u64, squares: Squares) -> Kind {
        Kind { tensors: 1, elements, bytes, error: squares.error, weight: squares.weight }
    }
}

/// Kinds by name and format, in the order of their names.
type Kinds = BTreeMap<String, Kind>;

fn merge(all: &mut Kinds, more: &Kinds) {
    for (name, kind) in more {
        all.entry(name.clone()).or_default().add(kind);
    }
}

impl Job<'_> {
    /// Writes the packed form of the source, a slice of rows at a time. `progress` is told bytes of
    /// the source consumed since it was last called, and asked whether to go on.
    ///
    /// Errors: `output` holds something else; a missing or broken tensor, one that is quantized
    /// already or that no rule of the recipe fits; a failed read or write; `progress` says no. What
    /// was begun is removed then, but for the finished files of a job that `progress` stopped:
    /// those a later one takes over.
    pub async fn run(&self, progress: &mut dyn FnMut(u64) -> bool) -> Result<Summary> {
        let shards = self.shards(self.targets()?);
        let mut journal = Journal::begin(self, &shards)?;
        let mut guard = Unfinished(Some(self.output.to_owned()));
        let mut stopped = false;
        let mut told = |bytes| {
            let go_on = progress(bytes);
            stopped |= !go_on;
            go_on
        };
        let done = self.write(&shards, &mut journal, &mut told).await;
        if done.is_ok() || (stopped && journal.files() > 0) {
            guard.0 = None;
        }
        done
    }

    async fn write(
        &self,
        shards: &[Vec<Target>],
        journal: &mut Journal,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Summary> {
        let resumed_files = journal.files();
        let (mut kinds, mut index, mut bytes) = (Kinds::new(), BTreeMap::new(), 0);
        for (number, shard) in shards.iter().enumerate() {
            let name = shard_name(number, shards.len());
            let done = match journal.finished(&name) {
                Some(kinds) => {
                    progress(shard.iter().map(|target| target.tensor.info.bytes() as u64).sum());
                    kinds.clone()
                }
                None => {
                    let kinds =
                        write_shard(self, shard, &self.output.join(&name), progress).await?;
                    journal.finish(&name, &kinds)?;
                    kinds
                }
            };
            merge(&mut kinds, &done);
            bytes += shard.iter().map(|target| new_tensor(&target.tensor).bytes).sum::<u64>();
            index.extend(
                shard.iter().map(|target| (stored_name(&target.tensor.name), name.clone())),
            );
        }
        if shards.len() > 1 {
            let path = self.output.join("model.safetensors.index.json");
            let text =
                json!({ "metadata": { "total_size": bytes }, "weight_map": index }).to_string();
            fs::write(&path, text).map_err(|source| Error::Io { path, source })?;
        }
        self.copy_companions()?;
        journal.end()?;
        Ok(Summary { bytes, resumed_files, kinds: kinds.into_iter().collect() })
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let layers = self.source.config().layers.len();
        let target = |tensor: PlannedTensor| {
            if tensor.format.is_none() {
                return Ok(Target { tensor, spec: None });
            }
            if !tensor.info.dtype.is_float() {
                return Err(Error::Unsupported(format!("{} is quantized already", tensor.name)));
            }
            let spec = self.recipe.spec(&tensor.name, layers)?;
            Ok(Target {
                tensor: PlannedTensor { format: spec.map(|spec| spec.format()), ..tensor },
                spec,
            })
        };
        weights::planned_tensors(self.source, Quantize::None)?.into_iter().map(target).collect()
    }

    /// Tensors in files of at most `shard_bytes`.
    fn shards(&self, targets: Vec<Target>) -> Vec<Vec<Target>> {
        let mut shards = vec![Vec::new()];
        let mut bytes = 0;
        for target in targets {
            let size = new_tensor(&target.tensor).bytes;
            if bytes > 0 && bytes + size > self.shard_bytes {
                shards.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            shards.last_mut().unwrap_or_else(|| unreachable!("never empty")).push(target);
        }
        shards
    }

    fn copy_companions(&self) -> Result<()> {
        for name in COMPANIONS {
            let (from, to) = (self.assets.join(name), self.output.join(name));
            if from.is_file() {
                let mut bytes =
                    fs::read(&from).map_err(|source| Error::Io { path: from.clone(), source })?;
                if name == "config.json" {
                    let tied = self.source.config().tie_word_embeddings;
                    bytes = config::hf::with_tied(bytes, tied)
                        .map_err(|reason| Error::checkpoint(from, reason))?;
                }
                fs::write(&to, bytes).map_err(|source| Error::Io { path: to, source })?;
            }
        }
        Ok(())
    }
}

fn shard_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// Removes what was written unless the work was finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(output) = &self.0 {
            // The error that led here is the one to report. The directory holds nothing but this
            // job's files.
            let _ = fs::remove_dir_all(output);
        }
    }
}
