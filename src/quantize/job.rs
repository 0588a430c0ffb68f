//! The input of a quantization, and its results.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::model::source::TensorSource;
use crate::quant::{methods::Squares, recipe::Recipe};

/// Bytes of one file. Larger models get several files and an index. A job that resumes keeps
/// finished files.
pub const SHARD_BYTES: u64 = 2 << 30;

/// A checkpoint to quantize.
pub struct Job<'a> {
    pub source: &'a dyn TensorSource,
    pub recipe: &'a Recipe,
    /// The directory of `source`, where its text assets are.
    pub assets: &'a Path,
    /// The directory to write to. It is new, empty, or left by an interrupted job of the same
    /// source, recipe and backend.
    pub output: &'a Path,
    /// The GPU on which hqq searches ([`Gpu::chooses`]). Without one the CPU's cores do it.
    pub gpu: Option<&'a Gpu>,
    /// See [`SHARD_BYTES`].
    pub shard_bytes: u64,
}

/// The result of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Files that an interrupted job had finished.
    pub resumed_files: usize,
    /// By kind of tensor and format.
    pub kinds: Vec<(String, Kind)>,
}

/// Matrices with the same name and format in all layers.
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
    /// Bits of a weight, scales and padding included.
    pub fn bits(&self) -> f64 {
        8.0 * self.bytes as f64 / self.elements.max(1) as f64
    }

    /// Root mean square of the rounding errors.
    pub fn rms_error(&self) -> f64 {
        (self.error / self.elements.max(1) as f64).sqrt()
    }

    /// The same, as a share of the weights' own root mean square.
    pub fn relative_error(&self) -> f64 {
        if self.weight > 0.0 { (self.error / self.weight).sqrt() } else { 0.0 }
    }

    pub(super) fn add(&mut self, other: &Kind) {
        self.tensors += other.tensors;
        self.elements += other.elements;
        self.bytes += other.bytes;
        self.error += other.error;
        self.weight += other.weight;
    }

    pub(super) fn of(elements: u64, bytes: u64, squares: Squares) -> Kind {
        Kind { tensors: 1, elements, bytes, error: squares.error, weight: squares.weight }
    }
}

/// Kinds by name and format, in the order of their names.
pub(super) type Kinds = BTreeMap<String, Kind>;

pub(super) fn merge(all: &mut Kinds, more: &Kinds) {
    for (name, kind) in more {
        all.entry(name.clone()).or_default().add(kind);
    }
}
