//! Where weights come from: tensors by name, with type and shape.

use std::{borrow::Cow, future::Future, ops::Range, pin::Pin};

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::quant::Dtype;

/// A future that need not be `Send` (a browser has one thread).
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Type and shape of a stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    pub dtype: Dtype,
    /// Outermost dimension first: a linear layer is `[out_features, in_features]`.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Elements of the tensor.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the tensor in its own dtype (whole blocks, or whole packed rows).
    pub fn bytes(&self) -> usize {
        match (self.dtype, self.shape.as_slice()) {
            (Dtype::Packed(format), [rows, cols]) => rows * format.row_bytes(*cols),
            _ => self.elements() / self.dtype.block_len() * self.dtype.block_bytes(),
        }
    }
}

/// Where weights come from. Tensors have their Hugging Face names inside the text model, without
/// prefix: `embed_tokens.weight`, `layers.3.self_attn.q_proj.weight`, `layers.3.layer_scalar`,
/// `norm.weight`, `lm_head.weight`.
pub trait TensorSource {
    fn config(&self) -> &ModelConfig;

    /// `None` if the checkpoint has no such tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// An error for a missing tensor, with a hint.
    fn missing(&self, name: &str) -> Error {
        Error::tensor(name, "missing from the checkpoint")
    }

    /// Bytes of rows `rows` of the outermost dimension, in the tensor's own dtype. A tensor of one
    /// dimension or none is one row.
    ///
    /// Errors: no such tensor, rows out of range, a failed read.
    fn read<'a>(
        &'a self,
        name: &'a str,
        rows: Range<usize>,
    ) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>>;
}
