//! Opening a model by its name.

use std::{num::NonZeroUsize, path::Path};

use crate::api::Model;
use crate::backend::BackendKind;
use crate::checkpoint::Checkpoint;
use crate::cpu::Instructions;
use crate::error::{Error, Result};
use crate::gpu::DeviceOptions;
use crate::hub;
use crate::model::{kv::CacheType, source::TensorSource, weights::LoadOptions};
use crate::quant::Quantize;
use crate::text::Processor;

/// The name of the built-in model.
pub(crate) const DEMO: &str = "demo";

/// Positions of a context unless the options set them.
pub(crate) const DEFAULT_CONTEXT: usize = 4096;

/// The device of a model, and the form of its weights and KV cache.
///
/// ```
/// use gemma4_wgpu::{ModelOptions, backend::BackendKind, quant::Quantize};
///
/// let options = ModelOptions {
///     backend: BackendKind::Cpu,
///     context_length: Some(1024),
///     quantize: Quantize::Int8,
///     ..ModelOptions::default()
/// };
/// assert!(options.device.adapter.is_none());
/// ```
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// The backend that computes.
    pub backend: BackendKind,
    /// The adapter and its kernels. With `backend` `Auto`, options other than the default ones
    /// demand a GPU.
    pub device: DeviceOptions,
    /// Keep activations exact in products. Otherwise the GPU and the CPU may round them to int8,
    /// and MLX to bf16.
    pub exact: bool,
    /// Threads of the CPU backend. `None`: one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Instructions of the CPU backend, unless activations stay exact. `None`: the processor's
    /// fastest.
    pub instructions: Option<Instructions>,
    /// The format that full-precision matrices become.
    pub quantize: Quantize,
    /// Element type of the KV cache.
    pub cache_type: CacheType,
    /// Positions of prompt and answer together. `None`: 4096, or the model's maximum if that is
    /// less.
    pub context_length: Option<usize>,
}

impl ModelOptions {
    /// How a backend loads the model.
    pub(crate) fn load_options(&self, context_length: usize, max_sequences: usize) -> LoadOptions {
        LoadOptions {
            quantize: self.quantize,
            context_length,
            max_sequences,
            cache_type: self.cache_type,
        }
    }
}

impl Model {
    /// Opens a model with the default options. `model` is one of:
    ///
    /// - a Hugging Face directory
    /// - a .safetensors file with config.json beside it
    /// - a .gguf file
    /// - `hf:OWNER/NAME[@REVISION][:FILE]` in the Hugging Face cache
    /// - `demo`, a small model that is part of the library
    ///
    /// Errors: as [`Self::open_with`].
    pub fn open(model: impl AsRef<Path>) -> Result<Model> {
        Model::open_with(model, &ModelOptions::default())
    }

    /// Opens a model.
    ///
    /// Errors: there is no such model, it is broken, or its architecture is unknown. The context
    /// exceeds the model's positions. There is no such device, or the model does not fit there.
    pub fn open_with(model: impl AsRef<Path>, options: &ModelOptions) -> Result<Model> {
        let checkpoint = open_checkpoint(model.as_ref())?;
        let assets = checkpoint.text_assets()?;
        let processor = match assets.vocabulary {
            Some(_) => Some(Processor::new(&assets)?),
            None => None,
        };
        let max = checkpoint.config().max_position_embeddings;
        let context_length = options.context_length.unwrap_or(DEFAULT_CONTEXT.min(max));
        if context_length > max {
            return Err(Error::Input(format!(
                "a context of {context_length} exceeds the model's {max} positions"
            )));
        }
        let load = options.load_options(context_length, 1);
        let device = options.open_device()?;
        let backend = pollster::block_on(options.load(device, &checkpoint, &load, &mut |_| ()))?;
        Ok(Model::new(backend, processor))
    }
}

/// Opens the checkpoint for a path, a name in the Hugging Face cache or `demo`. Reads no weights
/// yet.
pub(crate) fn open_checkpoint(model: &Path) -> Result<Checkpoint> {
    let path = hub::resolve(model)?;
    if path.as_os_str() == DEMO {
        return Checkpoint::demo();
    }
    let is_name = path.components().count() == 1 && path.extension().is_none();
    if is_name && !path.exists() {
        let name = path.display();
        return Err(Error::Input(format!(
            "{name}: no such path, and the only built-in model is {DEMO}"
        )));
    }
    Checkpoint::open(path)
}
