//! A file of a checkpoint: mapped, embedded, or read by ranges.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::checkpoint::{directory::refuse_pointer, range_read::RangeRead};
use crate::error::{Error, Result};

/// A file and its bytes.
pub(super) struct ModelFile {
    pub(super) path: PathBuf,
    bytes: Bytes,
    file: Option<File>,
}

/// Bytes that are requested ahead of those in use.
#[cfg(unix)]
const READ_AHEAD: u64 = 128 << 20;

enum Bytes {
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(memmap2::Mmap),
    Embedded(&'static [u8]),
    /// Only the header is in memory. The rest is read on demand.
    Ranged {
        head: Vec<u8>,
        file: Box<dyn RangeRead>,
        /// See [`ModelFile::cache_tensor`].
        cached: Vec<(String, Vec<u8>)>,
    },
}

impl ModelFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        let metadata = file.metadata().map_err(|source| Error::io(path, source))?;
        if !metadata.is_file() {
            return Err(Error::checkpoint(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::checkpoint(path, "the file is empty"));
        }
        let bytes = map(&file).map_err(|source| Error::io(path, source))?;
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
            bytes: Bytes::Ranged { head, file, cached: Vec::new() },
            file: None,
        }
    }

    pub(super) fn is_ranged(&self) -> bool {
        matches!(self.bytes, Bytes::Ranged { .. })
    }

    pub(super) fn len(&self) -> u64 {
        match &self.bytes {
            Bytes::Ranged { file, .. } => file.len(),
            _ => self.bytes().len() as u64,
        }
    }

    /// Bytes of the file. With `copy` they are read into new memory if the system can do that.
    pub(super) async fn read(&self, range: Range<u64>, copy: bool) -> Result<Cow<'_, [u8]>> {
        if let Bytes::Ranged { file, .. } = &self.bytes {
            return Ok(Cow::Owned(file.read_exactly(&self.path, range).await?));
        }
        let mapped = slice(self.bytes(), &range);
        let mapped =
            mapped.ok_or_else(|| Error::checkpoint(&self.path, "the file is too short"))?;
        if copy {
            return self.read_copy(range.start, mapped);
        }
        self.advise_willneed(&range);
        Ok(Cow::Borrowed(mapped))
    }

    /// Tells the system that these mapped bytes and those after them are needed soon. The disk then
    /// reads ahead during other work. Otherwise the system reads only a few pages at a time, on
    /// access.
    fn advise_willneed(&self, range: &Range<u64>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            let end = (range.end + READ_AHEAD).min(map.len() as u64);
            // This is advice, and a system that ignores it loads correctly too.
            let _ = map.advise_range(
                memmap2::Advice::WillNeed,
                range.start as usize,
                (end - range.start) as usize,
            );
        }
        let _ = range;
    }

    /// The file's bytes, or its header alone if the rest is not in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            #[cfg(not(target_arch = "wasm32"))]
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
            Bytes::Ranged { head, .. } => head,
        }
    }

    /// The bytes `mapped`, which begin at `start`, read into new memory if the system can.
    fn read_copy<'a>(&self, start: u64, mapped: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        #[cfg(unix)]
        if let Some(file) = &self.file {
            use std::os::unix::fs::FileExt;
            let mut bytes = vec![0; mapped.len()];
            file.read_exact_at(&mut bytes, start)
                .map_err(|source| Error::io(&self.path, source))?;
            return Ok(Cow::Owned(bytes));
        }
        let _ = (start, &self.file);
        Ok(Cow::Borrowed(mapped))
    }

    /// Small tensors that were read separately, by name.
    pub(super) fn cached_tensors(&self) -> &[(String, Vec<u8>)] {
        match &self.bytes {
            Bytes::Ranged { cached, .. } => cached,
            _ => &[],
        }
    }

    /// Keeps a tensor's bytes, if the file is read by ranges.
    pub(super) fn cache_tensor(&mut self, name: &str, bytes: Vec<u8>) {
        if let Bytes::Ranged { cached, .. } = &mut self.bytes {
            cached.push((name.into(), bytes));
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the map is only read. Another program may write to or truncate the file meanwhile.
    // Weights then change, or a signal kills the process, which is inherent to memory-mapped
    // weights. The parsers hold no pointer that comes from file contents.
    unsafe { memmap2::Mmap::map(file) }.map(Bytes::Mapped)
}

/// A browser cannot map files, and receives weights in another way.
#[cfg(target_arch = "wasm32")]
fn map(_: &File) -> io::Result<Bytes> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A file's bytes. `None` if there is no such file.
pub(super) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => refuse_pointer(path, &bytes).map(|()| Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(path, source)),
    }
}

/// A part of `bytes`. `None` if it exceeds them.
pub(super) fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> Option<&'a [u8]> {
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}
