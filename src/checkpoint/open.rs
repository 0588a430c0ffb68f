//! Opens checkpoints of every format, and reads what they say about text.

use std::path::Path;

use crate::checkpoint::checkpoint::{Checkpoint, Format};
use crate::checkpoint::gguf::{self, container::MAGIC};
use crate::checkpoint::model_file::{ModelFile, read_optional};
use crate::checkpoint::{assets, demo, safetensors};
use crate::error::{Error, Result};
use crate::text::TextAssets;

impl Checkpoint {
    /// Opens a directory (Hugging Face safetensors with config.json, or one GGUF model), a
    /// `.safetensors` file with config.json beside it, or a `.gguf` file (of a split set, any
    /// part).
    ///
    /// Errors: [`Error::Io`], [`Error::Checkpoint`] for files that are truncated or corrupt,
    /// [`Error::Config`], [`Error::Unsupported`], [`Error::Tensor`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut checkpoint = Checkpoint::assembled(path.as_ref())?;
        // Mapped bytes are there at once.
        pollster::block_on(checkpoint.decide_head())?;
        checkpoint.log_unused();
        Ok(checkpoint)
    }

    fn assembled(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
        if metadata.is_dir() {
            return match safetensors::files::weights_in(path)? {
                Some(weights) => safetensors::files::open(path, weights),
                None => gguf::files::open(&gguf::files::model_in(path)?),
            };
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => safetensors::files::open_file(path),
            Some("gguf") => gguf::files::open(path),
            _ if ModelFile::open(path)?.bytes().starts_with(MAGIC) => gguf::files::open(path),
            _ => Err(Error::checkpoint(path, "neither a .safetensors nor a .gguf file")),
        }
    }

    /// The small model that is part of the program.
    ///
    /// Errors: [`Error::Checkpoint`] if an embedded file fails its checksum.
    pub fn demo() -> Result<Self> {
        demo::open()
    }

    /// Everything that the checkpoint says about text. Reads the tokenizer files.
    ///
    /// Errors: [`Error::Io`], [`Error::Tokenizer`], [`Error::Template`], [`Error::Config`].
    pub fn text_assets(&self) -> Result<TextAssets> {
        let Some(first) = self.files.first() else { return Ok(TextAssets::default()) };
        let read = |name: &str| match &self.sidecar_files {
            Some(files) => Ok(files.get(name).cloned()),
            None => read_optional(&first.path.with_file_name(name)),
        };
        match self.format {
            Format::HuggingFace => assets::hf::read(read),
            Format::Demo => assets::hf::read(|name| Ok(demo::file(name).map(<[u8]>::to_vec))),
            Format::Gguf => assets::gguf::read(&first.gguf()?, read("tokenizer.json")?),
        }
    }
}
