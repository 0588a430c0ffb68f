//! Converts full-precision checkpoints to packed ones, in this project's own safetensors form
//! (docs/formats.md).

mod job;
mod resume;
mod shard;

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::json;

pub use self::job::{Job, Kind, SHARD_BYTES, Summary};
use self::job::{Kinds, merge};
use self::resume::Journal;
use self::shard::{Target, new_tensor, stored_name, write_shard};
use crate::model::config;
use crate::model::tensors::Role;
use crate::model::weights::{self, PlannedTensor};
use crate::quant::Quantize;
use crate::{Error, Result};

/// Files in a checkpoint's directory besides its weights. config.json comes last, because a
/// directory without it is no checkpoint.
const COMPANIONS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "config.json",
];

impl Job<'_> {
    /// Writes the packed form of the source, a slice of rows at a time. `progress` gets the bytes
    /// of the source consumed since its last call, and returns whether to continue.
    ///
    /// Errors: `output` holds something else; a missing or broken tensor; a failed read or write.
    /// Also a tensor that is already quantized, one that no rule fits, and a refusal by `progress`.
    /// Unfinished output is then removed. If `progress` stopped the job, its finished files remain,
    /// and a later job uses them.
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
            // Near scores decide between experts, so that routers keep their precision.
            if tensor.role == Role::Router && tensor.info.dtype.is_float() {
                return Ok(Target { tensor: PlannedTensor { format: None, ..tensor }, spec: None });
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

/// Removes the output unless the work was finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(output) = &self.0 {
            // The error that led here is the one to report. The directory holds only this job's
            // files.
            let _ = fs::remove_dir_all(output);
        }
    }
}
