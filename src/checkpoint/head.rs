//! The output head: the files decide whether it is the embedding.

use rayon::prelude::*;

use crate::checkpoint::checkpoint::Checkpoint;
use crate::checkpoint::import::matrix::FileRange;
use crate::checkpoint::model_file::ModelFile;
use crate::checkpoint::tensor_index::{Content, Entry};
use crate::error::{Error, Result};
use crate::model::tensors::{EMBED_TOKENS, LM_HEAD};

/// Bytes of the first comparison, doubled each time. Heads that differ do so early.
const FIRST_BYTES: u64 = 64 << 10;
const MOST_BYTES: u64 = 64 << 20;
/// Bytes that one thread compares at a time.
const PART_BYTES: usize = 1 << 20;

impl Checkpoint {
    /// Ties the head if the stored one equals the embedding bit for bit, and else unties it. The
    /// config decides only where the files have no head.
    ///
    /// Errors: the two differ in shape; a failed read.
    pub(super) async fn decide_head(&mut self) -> Result<()> {
        let (head, embedding) =
            (self.tensors.get(LM_HEAD.name), self.tensors.get(EMBED_TOKENS.name));
        let (Some(head), Some(embedding)) = (head, embedding) else { return Ok(()) };
        if head.info.shape != embedding.info.shape {
            let (head, embedding) = (&head.info.shape, &embedding.info.shape);
            let reason = format!("has shape {head:?}, and {} has {embedding:?}", EMBED_TOKENS.name);
            return Err(Error::tensor(LM_HEAD.name, reason));
        }
        let tied = same_content(&self.files, head, embedding).await?;
        if tied != self.config.tie_word_embeddings {
            let is = if tied { "equals" } else { "differs from" };
            let said = self.config.tie_word_embeddings;
            let (head, embedding) = (LM_HEAD.name, EMBED_TOKENS.name);
            log::info!("{head} {is} {embedding}: tie_word_embeddings is {tied}, not {said}");
        }
        self.config.tie_word_embeddings = tied;
        Ok(())
    }
}

/// Whether two tensors of one shape have the same storage type and bytes.
async fn same_content(files: &[ModelFile], left: &Entry, right: &Entry) -> Result<bool> {
    match (&left.content, &right.content) {
        (Content::Stored(a), Content::Stored(b)) => {
            Ok(left.info.dtype == right.info.dtype && same_bytes(files, a, b).await?)
        }
        (Content::Grouped(a, _), Content::Grouped(b, _)) if a.grouped == b.grouped => {
            Ok(same_bytes(files, &a.scales, &b.scales).await?
                && same_zeros(files, &a.zeros, &b.zeros).await?
                && same_bytes(files, &a.integers, &b.integers).await?)
        }
        _ => Ok(false),
    }
}

async fn same_zeros(
    files: &[ModelFile],
    a: &Option<FileRange>,
    b: &Option<FileRange>,
) -> Result<bool> {
    match (a, b) {
        (Some(a), Some(b)) => same_bytes(files, a, b).await,
        (a, b) => Ok(a == b),
    }
}

/// Whether two ranges hold the same bytes. Reads only up to their first difference, and nothing if
/// they are the same range.
async fn same_bytes(files: &[ModelFile], a: &FileRange, b: &FileRange) -> Result<bool> {
    if a == b {
        return Ok(true);
    }
    let ((a_file, a), (b_file, b)) = (a, b);
    let (Some(a_file), Some(b_file)) = (files.get(*a_file), files.get(*b_file)) else {
        return Ok(false);
    };
    let bytes = a.end - a.start;
    if bytes != b.end - b.start {
        return Ok(false);
    }
    let (mut done, mut step) = (0, FIRST_BYTES);
    while done < bytes {
        let end = bytes.min(done + step);
        let left = a_file.read(a.start + done..a.start + end, false).await?;
        let right = b_file.read(b.start + done..b.start + end, false).await?;
        let parts = left.par_chunks(PART_BYTES).zip(right.par_chunks(PART_BYTES));
        if !parts.into_par_iter().all(|(left, right)| left == right) {
            return Ok(false);
        }
        (done, step) = (end, MOST_BYTES.min(2 * step));
    }
    Ok(true)
}
