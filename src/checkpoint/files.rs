//! [`Checkpoint`]: files of a checkpoint, found, memory-mapped (or embedded) and indexed by tensor
//! name.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

pub(super) use crate::checkpoint::directory::{file_names, refuse_pointer};
use crate::{
    checkpoint::{
        LocalBoxFuture, TensorInfo, TensorSource, assets, demo,
        gguf::{self, Gguf},
        gguf_files, grouped_ranges, hf_files,
        import::{Imported, Place},
        ranged::RangeRead,
    },
    config::ModelConfig,
    error::{Error, Result, quoted},
    quant::{Dtype, PackFormat, grouped::GroupedBytes},
    text::TextAssets,
};

/// A checkpoint on disk, memory-mapped: tensors are read as slices of the map. Or the embedded one.
pub struct Checkpoint {
    pub(super) config: ModelConfig,
    pub(super) description: String,
    pub(super) format: Format,
    pub(super) files: Vec<ModelFile>,
    pub(super) tensors: HashMap<String, Entry>,
    /// See [`Checkpoint::copy_reads`].
    pub(super) copies: bool,
    /// Tokenizer and config files of a checkpoint that is read by ranges.
    pub(super) beside: Option<HashMap<String, Vec<u8>>>,
    /// Tensors of the files, by their own names, that no model of the family has.
    pub(super) skipped: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// safetensors, with config.json and tokenizer files beside them.
    HuggingFace,
    /// The same, embedded in the program.
    Demo,
    Gguf,
}

/// A tensor, and what its bytes are made of.
pub(super) struct Entry {
    pub(super) info: TensorInfo,
    pub(super) content: Content,
    /// What its file calls it.
    own_name: String,
}

pub(super) enum Content {
    /// Bytes of a file, as they are.
    Stored(Place),
    /// Integers and their scales in tensors of their own, which become packed rows.
    Grouped(Box<Imported>, PackFormat),
}

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
        let metadata = std::fs::metadata(path).map_err(|source| io_error(path, source))?;
        if metadata.is_dir() {
            return match hf_files::weights_in(path)? {
                Some(weights) => hf_files::open(path, weights),
                None => gguf_files::open(&gguf_files::model_in(path)?),
            };
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => hf_files::open_file(path),
            Some("gguf") => gguf_files::open(path),
            _ if ModelFile::open(path)?.bytes().starts_with(gguf::MAGIC) => gguf_files::open(path),
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
        let read = |name: &str| match &self.beside {
            Some(files) => Ok(files.get(name).cloned()),
            None => read_optional(&first.path.with_file_name(name)),
        };
        match self.format {
            Format::HuggingFace => assets::hf::read(read),
            Format::Demo => assets::hf::read(|name| Ok(demo::file(name).map(<[u8]>::to_vec))),
            Format::Gguf => assets::gguf::read(&first.gguf()?, read("tokenizer.json")?),
        }
    }

    /// Bytes of all files that hold weights.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(ModelFile::len).sum()
    }

    /// Whether the weights are safetensors files.
    pub fn is_hugging_face(&self) -> bool {
        self.format == Format::HuggingFace
    }

    /// The model's name and format in a few words: `Gemma 3 270m, GGUF`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// From now on bytes are read from the files into memory of their own where that is possible,
    /// not borrowed from the maps: pages of a map count as the process's memory as long as the
    /// system does not need them.
    pub fn copy_reads(&mut self) {
        self.copies = true;
    }

    /// Whether files are read by ranges.
    fn is_ranged(&self) -> bool {
        self.files.iter().any(ModelFile::is_ranged)
    }

    /// Finds the formats of grouped integers in files that are read by ranges, which opening left
    /// out.
    ///
    /// Errors: parts that do not fit together, a failed read.
    pub(super) async fn settle_formats(&mut self) -> Result<()> {
        for (name, entry) in &mut self.tensors {
            if let Content::Grouped(imported, format) = &mut entry.content {
                *format = grouped_ranges::format(&self.files, name, imported).await?;
                entry.info.dtype = Dtype::Packed(*format);
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.tensors.get(name).ok_or_else(|| Error::tensor(name, "missing from the checkpoint"))
    }

    /// Bytes of some rows of a tensor.
    async fn rows(&self, name: &str, rows: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let entry = self.entry(name)?;
        let (count, row_elements) = match entry.info.shape.as_slice() {
            [] => (1, 1),
            [len] => (1, *len),
            [rows, inner @ ..] => (*rows, inner.iter().product()),
        };
        if rows.start > rows.end || rows.end > count {
            return Err(Error::tensor(name, format!("rows {rows:?} of {count}")));
        }
        let beyond = || Error::tensor(name, "reaches past the end of its file");
        match &entry.content {
            Content::Stored((file, place)) => {
                let bytes = entry
                    .info
                    .dtype
                    .bytes_of(row_elements)
                    .map_err(|reason| Error::tensor(name, reason))?;
                let at = |row: usize| place.start + row as u64 * bytes as u64;
                let range = at(rows.start)..at(rows.end);
                match self.files.get(*file) {
                    Some(file) if range.end <= place.end && range.end <= file.len() => {
                        file.read(range, self.copies).await
                    }
                    _ => Err(beyond()),
                }
            }
            Content::Grouped(imported, format) if self.is_ranged() => {
                let packed =
                    grouped_ranges::pack(&self.files, name, imported, rows, *format).await?;
                Ok(Cow::Owned(packed.to_bytes()))
            }
            Content::Grouped(imported, format) => {
                let bytes = grouped_bytes(&self.files, imported).ok_or_else(beyond)?;
                let packed = imported.grouped.pack(bytes, rows, *format);
                packed
                    .map(|packed| Cow::Owned(packed.to_bytes()))
                    .map_err(|reason| Error::tensor(name, reason))
            }
        }
    }
}

fn bytes_at<'a>(files: &'a [ModelFile], (file, range): &Place) -> Option<&'a [u8]> {
    gguf::slice(files.get(*file)?.bytes(), range)
}

fn grouped_bytes<'a>(files: &'a [ModelFile], imported: &Imported) -> Option<GroupedBytes<'a>> {
    Some(GroupedBytes {
        integers: bytes_at(files, &imported.integers)?,
        scales: bytes_at(files, &imported.scales)?,
        zeros: match &imported.zeros {
            Some(place) => bytes_at(files, place)?,
            None => &[],
        },
    })
}

impl TensorSource for Checkpoint {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|entry| entry.info.clone())
    }

    fn missing(&self, name: &str) -> Error {
        self.explain_missing(name)
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        rows: Range<usize>,
    ) -> LocalBoxFuture<'a, Result<Cow<'a, [u8]>>> {
        Box::pin(self.rows(name, rows))
    }
}

/// Adds a tensor under its canonical name; its file calls it `own_name`. Errors if there is one
/// already.
pub(super) fn insert(
    tensors: &mut HashMap<String, Entry>,
    (name, own_name): (&str, &str),
    info: TensorInfo,
    place: Place,
) -> Result<()> {
    let own_name = own_name.to_owned();
    insert_entry(tensors, name, Entry { info, content: Content::Stored(place), own_name })
}

/// Adds a matrix of grouped integers. Errors if there is one already, or if its parts do not fit
/// together.
pub(super) fn insert_grouped(
    tensors: &mut HashMap<String, Entry>,
    files: &[ModelFile],
    (name, own_name): (&str, &str),
    imported: Imported,
) -> Result<()> {
    let grouped = imported.grouped;
    let format = match files.iter().any(ModelFile::is_ranged) {
        // Until [`Checkpoint::settle_formats`].
        true => PackFormat::Int { bits: 8, group: 32, offset: true },
        false => {
            let bytes = grouped_bytes(files, &imported)
                .ok_or_else(|| Error::tensor(name, "reaches past its file"))?;
            grouped.check(bytes).map_err(|reason| Error::tensor(name, reason))?;
            grouped.format(bytes)
        }
    };
    let info = TensorInfo { dtype: Dtype::Packed(format), shape: vec![grouped.rows, grouped.cols] };
    let (content, own_name) = (Content::Grouped(Box::new(imported), format), own_name.to_owned());
    insert_entry(tensors, name, Entry { info, content, own_name })
}

fn insert_entry(tensors: &mut HashMap<String, Entry>, name: &str, entry: Entry) -> Result<()> {
    let (own_name, shape) = (entry.own_name.clone(), entry.info.shape.clone());
    match tensors.insert(name.into(), entry) {
        None => Ok(()),
        Some(first) if first.own_name == own_name => {
            Err(Error::tensor(name, "is in the checkpoint twice"))
        }
        Some(first) => {
            let (first, other) = (quoted_shape(&first), format!("{} {shape:?}", quoted(&own_name)));
            Err(Error::tensor(
                name,
                format!("is in the checkpoint twice, as {first} and as {other}"),
            ))
        }
    }
}

fn quoted_shape(entry: &Entry) -> String {
    format!("{} {:?}", quoted(&entry.own_name), entry.info.shape)
}

/// A file and its bytes.
pub(super) struct ModelFile {
    pub(super) path: PathBuf,
    bytes: Bytes,
    file: Option<File>,
}

/// Bytes of a file that are asked for ahead of those in use.
#[cfg(unix)]
const READ_AHEAD: u64 = 128 << 20;

/// Bytes of the largest tensor that is kept in memory.
const MOST_KEPT: u64 = 1 << 20;

enum Bytes {
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(memmap2::Mmap),
    Embedded(&'static [u8]),
    /// Only the header is here; the rest is read when it is wanted.
    Ranged {
        head: Vec<u8>,
        file: Box<dyn RangeRead>,
        /// See [`ModelFile::keep`].
        kept: Vec<(String, Vec<u8>)>,
    },
}

impl ModelFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| io_error(path, source))?;
        let metadata = file.metadata().map_err(|source| io_error(path, source))?;
        if !metadata.is_file() {
            return Err(Error::checkpoint(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::checkpoint(path, "the file is empty"));
        }
        let bytes = map(&file).map_err(|source| io_error(path, source))?;
        let model = ModelFile { path: path.into(), bytes, file: Some(file) };
        refuse_pointer(path, model.bytes())?;
        Ok(model)
    }

    pub(super) fn embedded(path: &str, bytes: &'static [u8]) -> Self {
        ModelFile { path: path.into(), bytes: Bytes::Embedded(bytes), file: None }
    }

    /// A file whose header is `head`.
    pub(super) fn ranged(name: &str, head: Vec<u8>, file: Box<dyn RangeRead>) -> Self {
        ModelFile {
            path: name.into(),
            bytes: Bytes::Ranged { head, file, kept: Vec::new() },
            file: None,
        }
    }

    fn is_ranged(&self) -> bool {
        matches!(self.bytes, Bytes::Ranged { .. })
    }

    pub(super) fn len(&self) -> u64 {
        match &self.bytes {
            Bytes::Ranged { file, .. } => file.len(),
            _ => self.bytes().len() as u64,
        }
    }

    /// Bytes of the file, read anew if `copies` and the system can do that.
    pub(super) async fn read(&self, range: Range<u64>, copies: bool) -> Result<Cow<'_, [u8]>> {
        if let Bytes::Ranged { file, .. } = &self.bytes {
            return Ok(Cow::Owned(file.read_exactly(&self.path, range).await?));
        }
        let mapped = gguf::slice(self.bytes(), &range);
        let mapped =
            mapped.ok_or_else(|| Error::checkpoint(&self.path, "the file is too short"))?;
        if copies {
            return self.read_anew(range.start, mapped);
        }
        self.announce(&range);
        Ok(Cow::Borrowed(mapped))
    }

    /// Tells the system that these mapped bytes and those after them are wanted soon, so that the
    /// disk is busy while they are worked on. Without it pages are read as they are touched, a few
    /// at a time.
    fn announce(&self, range: &Range<u64>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            let end = (range.end + READ_AHEAD).min(map.len() as u64);
            // It is advice: a system that does not take it loads all the same.
            let _ = map.advise_range(
                memmap2::Advice::WillNeed,
                range.start as usize,
                (end - range.start) as usize,
            );
        }
        let _ = range;
    }

    /// The file's bytes; its header alone if the rest is not in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            #[cfg(not(target_arch = "wasm32"))]
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
            Bytes::Ranged { head, .. } => head,
        }
    }

    /// The bytes `mapped`, which begin at `start`, read anew where the system can do that.
    fn read_anew<'a>(&self, start: u64, mapped: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        #[cfg(unix)]
        if let Some(file) = &self.file {
            use std::os::unix::fs::FileExt;
            let mut bytes = vec![0; mapped.len()];
            file.read_exact_at(&mut bytes, start).map_err(|source| io_error(&self.path, source))?;
            return Ok(Cow::Owned(bytes));
        }
        let _ = (start, &self.file);
        Ok(Cow::Borrowed(mapped))
    }

    pub(super) fn gguf(&self) -> Result<Gguf<'_>> {
        let parsed = Gguf::parse_head(self.bytes(), self.len());
        let parsed = parsed.map_err(|error| Error::checkpoint(&self.path, error.reason()))?;
        match &self.bytes {
            Bytes::Ranged { kept, .. } => Ok(parsed.with_kept(kept)),
            _ => Ok(parsed),
        }
    }

    /// Reads a small tensor of a GGUF file that is read by ranges, if the file has it and its
    /// beginning does not reach that far, so that [`Gguf::data`] has its bytes.
    pub(super) async fn keep(&mut self, name: &str) -> Result<()> {
        let range = self.gguf()?.tensor(name).map(|tensor| tensor.range.clone());
        let is_missing = |range: &Range<u64>| range.end > self.bytes().len() as u64;
        let Some(range) =
            range.filter(|range| is_missing(range) && range.end - range.start <= MOST_KEPT)
        else {
            return Ok(());
        };
        let data = self.read(range, false).await?.into_owned();
        if let Bytes::Ranged { kept, .. } = &mut self.bytes {
            kept.push((name.into(), data));
        }
        Ok(())
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the map is only read. Should another program write to or truncate the file
    // meanwhile, weights change or the process is killed by a signal; both are inherent to
    // memory-mapped weights, and the parsers above hold no pointer derived from file contents.
    unsafe { memmap2::Mmap::map(file) }.map(Bytes::Mapped)
}

/// A browser has no files to map; it gets weights another way.
#[cfg(target_arch = "wasm32")]
fn map(_: &File) -> io::Result<Bytes> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.into(), source }
}

/// A file's bytes; `None` if there is no such file.
pub(super) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => refuse_pointer(path, &bytes).map(|()| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
    }
}
