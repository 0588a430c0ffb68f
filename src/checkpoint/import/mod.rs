//! Safetensors of other programs with integer matrices and separate tensors of scales: MLX,
//! compressed-tensors, torchao. Their matrices appear as packed rows, which are made when they are
//! read.

mod compressed_tensors;
pub(super) mod grouped_ranges;
pub(super) mod matrix;
mod mlx;
mod torchao;

use std::collections::HashMap;

use serde_json::Value;

use crate::checkpoint::import::matrix::{Imported, Parts};
use crate::checkpoint::names;
use crate::checkpoint::safetensors::header::StoredTensor;
use crate::error::{Error, Result, quoted};
use crate::json::Fields;

/// The program that wrote the matrices, which decides their description.
pub(super) enum Scheme {
    Mlx(mlx::Settings),
    CompressedTensors(compressed_tensors::Settings),
    TorchAo(torchao::Settings),
}

impl Scheme {
    /// The scheme of a checkpoint with this config.json and the safetensors metadata of all files.
    /// `None` for plain tensors.
    ///
    /// Errors: [`Error::Unsupported`], [`Error::Config`].
    pub fn of(config: &Value, metadata: &HashMap<String, String>) -> Result<Option<Scheme>> {
        if let Some(settings) = torchao::Settings::of(metadata)? {
            return Ok(Some(Scheme::TorchAo(settings)));
        }
        let root = Fields::of(config, "config.json")?;
        let text = root.object("text_config")?;
        for fields in [Some(root), text].into_iter().flatten() {
            if let Some(quantization) = fields.object("quantization_config")?
                && let Some(method) = quantization.text("quant_method")?
            {
                return match method {
                    "compressed-tensors" => {
                        let settings = compressed_tensors::Settings::of(quantization)?;
                        Ok(Some(Scheme::CompressedTensors(settings)))
                    }
                    "torchao" => Err(Error::Unsupported(
                        "quantization_config of torchao without its metadata in the files".into(),
                    )),
                    method => Err(Error::Unsupported(format!(
                        "safetensors quantized by {} (quantization_config)",
                        quoted(method)
                    ))),
                };
            }
        }
        for key in ["quantization", "quantization_config"] {
            if let Some(quantization) = root.object(key)? {
                return mlx::Settings::of(quantization).map(|settings| Some(Scheme::Mlx(settings)));
            }
        }
        Ok(None)
    }

    fn suffixes(&self) -> &'static [&'static str] {
        match self {
            Scheme::Mlx(_) => mlx::SUFFIXES,
            Scheme::CompressedTensors(_) => compressed_tensors::SUFFIXES,
            Scheme::TorchAo(_) => torchao::SUFFIXES,
        }
    }

    /// The module of a tensor, and the part's name. `None` for tensors that belong to no matrix.
    pub fn part_of<'a>(&self, tensor: &'a StoredTensor) -> Option<(&'a str, &'static str)> {
        let mut suffixes = self.suffixes().iter();
        let suffix = suffixes.find(|suffix| tensor.name.ends_with(**suffix))?;
        let module = tensor.name.strip_suffix(suffix)?.strip_suffix('.')?;
        // Plain matrices in MLX's files have the same names.
        let plain = *suffix == mlx::WEIGHT && tensor.dtype_name != "U32";
        (!plain && names::from_hf(&format!("{module}.weight")).is_some())
            .then_some((module, *suffix))
    }

    /// The matrix from the parts of `module`.
    pub fn matrix(&self, module: &str, parts: &Parts) -> Result<Imported> {
        let named = |reason: String| Error::tensor(format!("{module}.weight"), reason);
        match self {
            Scheme::Mlx(settings) => settings.matrix(module, parts),
            Scheme::CompressedTensors(settings) => settings.matrix(module, parts),
            Scheme::TorchAo(settings) => settings.matrix(module, parts),
        }
        .map_err(named)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Scheme::Mlx(_) => "MLX",
            Scheme::CompressedTensors(_) => "compressed-tensors",
            Scheme::TorchAo(_) => "torchao",
        }
    }
}
