//! Opens checkpoints of every format, and reads their data about text.

use std::path::Path;

use crate::checkpoint::checkpoint::{Checkpoint, Format};
use crate::checkpoint::gguf::{self, container::MAGIC};
use crate::checkpoint::model_file::{ModelFile, read_optional};
use crate::checkpoint::{assets, demo, safetensors};
use crate::error::{Error, Result};
use crate::text::TextAssets;

impl Checkpoint {
    /// Opens a directory or a file. A directory has Hugging Face safetensors with config.json, or
    /// one GGUF model. A file is a `.safetensors` file with config.json beside it, or a `.gguf`
    /// file. Any part of a split set will do.
    ///
    /// Errors: [`Error::Io`], [`Error::Checkpoint`] for files that are truncated or corrupt,
    /// [`Error::Config`], [`Error::Unsupported`], [`Error::Tensor`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut checkpoint = Checkpoint::assembled(path.as_ref())?;
        // Mapped bytes are available at once, so this never waits.
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

    /// The small embedded model.
    ///
    /// Errors: [`Error::Checkpoint`] if an embedded file fails its checksum.
    pub fn demo() -> Result<Self> {
        demo::open()
    }

    /// All data about text in the checkpoint. Reads the tokenizer files.
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
