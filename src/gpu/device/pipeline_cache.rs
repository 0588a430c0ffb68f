//! Pipelines that drivers compiled in earlier runs, kept in a file for each adapter and driver.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use sha2::{Digest, Sha256};

use crate::gpu::device::source::KernelSource;

/// The beginning of a file. The SHA-256 of the bytes after it follows.
const MAGIC: &[u8] = b"gemma4-wgpu pipelines 1\n";
const CHECKSUM_BYTES: usize = 32;

/// A larger file is not ours, or too large to be useful.
const MAX_BYTES: u64 = 256 << 20;

/// The beginning of a hash of a kernel's source.
type Key = [u8; 8];

/// Number and time of the compute pipelines made so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PipelineStats {
    pub made: usize,
    /// Number of pipelines that an earlier run had compiled.
    pub cached: usize,
    /// Time for all of them, translation of WGSL included.
    pub time: Duration,
}

impl PipelineStats {
    pub(in crate::gpu) fn add(&mut self, time: Duration, cached: bool) {
        self.made += 1;
        self.cached += usize::from(cached);
        self.time += time;
    }
}

/// The driver's cache and its file.
pub(in crate::gpu) struct PipelineCache {
    pub cache: wgpu::PipelineCache,
    path: PathBuf,
    identity: String,
    kernels: Mutex<Kernels>,
}

/// The kernels whose pipelines are in the cache.
#[derive(Default)]
struct Kernels {
    held: BTreeSet<Key>,
    /// Some are not in the file.
    unsaved: bool,
}

impl PipelineCache {
    /// The cache of an adapter, with the content of its file in `directory`. A broken file, or one
    /// of another driver or program version, is ignored and replaced later. `None` where wgpu or
    /// the driver has no such caches.
    pub async fn open(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        directory: &Path,
    ) -> Option<Self> {
        let key = wgpu::util::pipeline_cache_key(info)
            .filter(|_| device.features().contains(wgpu::Features::PIPELINE_CACHE))?;
        let driver: String = info.driver.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = directory.join(format!("{key}_{}.bin", driver.to_lowercase()));
        // The driver checks its own version too, but only after the file is read.
        let identity =
            [env!("CARGO_PKG_VERSION"), &info.name, &info.driver, &info.driver_info].join("\n");
        let file = read(&path);
        if let Some((held, data)) = file.as_deref().and_then(|file| parse(file, &identity))
            && let Some(cache) = create(device, Some(data)).await
        {
            let kernels = Mutex::new(Kernels { held, unsaved: false });
            return Some(PipelineCache { cache, path, identity, kernels });
        }
        let cache = create(device, None).await?;
        Some(PipelineCache { cache, path, identity, kernels: Mutex::default() })
    }

    /// Notes that a kernel's pipeline was made. Returns whether it was in the file.
    pub fn note(&self, kernel: &KernelSource, checks: bool) -> bool {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = kernels.held.insert(key(kernel, checks));
        kernels.unsaved |= is_new;
        !is_new
    }

    /// Writes the file if it lacks pipelines. A failure is only a warning, because the cache is
    /// optional.
    pub fn save(&self) {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut kernels.unsaved) {
            return;
        }
        let Some(data) = self.cache.get_data() else { return };
        if let Err(error) = write(&self.path, &file(&self.identity, &kernels.held, &data)) {
            log::warn!("compiled pipelines cannot be kept in {}: {error}", self.path.display());
        }
    }
}

/// A cache with these data; `None` if wgpu cannot use them.
async fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let refusal = device.push_error_scope(wgpu::ErrorFilter::Validation);
    // No fallback: that would hide that the data were discarded, and the file would never be
    // replaced.
    let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: false };
    // SAFETY: `get_data` returned these data for this adapter, this driver and this program
    // version. `parse` ensures that: it only takes files that `save` wrote, by their checksum and
    // identity. The directory belongs to the user: anyone who can forge its files can replace the
    // program too.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    match refusal.pop().await {
        Some(error) => {
            log::debug!("stored pipelines are of no use: {error}");
            None
        }
        None => Some(cache),
    }
}

fn key(kernel: &KernelSource, checks: bool) -> Key {
    let hash = Sha256::digest(format!("{kernel:?}, {checks}"));
    std::array::from_fn(|i| hash[i])
}

/// A file's bytes: magic, checksum, then lengths (u32, little-endian) and bytes of the identity and
/// the keys, then the data.
fn file(identity: &str, held: &BTreeSet<Key>, data: &[u8]) -> Vec<u8> {
    let keys: Vec<u8> = held.iter().flatten().copied().collect();
    let mut content = Vec::new();
    for part in [identity.as_bytes(), &keys] {
        content.extend((part.len() as u32).to_le_bytes());
        content.extend(part);
    }
    content.extend(data);
    [MAGIC, &Sha256::digest(&content), &content].concat()
}

/// The kernels and the driver's data in a file. `None` unless the file is complete and has this
/// identity.
fn parse<'a>(file: &'a [u8], identity: &str) -> Option<(BTreeSet<Key>, &'a [u8])> {
    let (checksum, content) = file.strip_prefix(MAGIC)?.split_at_checked(CHECKSUM_BYTES)?;
    if Sha256::digest(content)[..] != *checksum {
        return None;
    }
    let (found, rest) = part(content)?;
    let (keys, data) = part(rest)?;
    (found == identity.as_bytes()).then(|| (keys.as_chunks().0.iter().copied().collect(), data))
}

/// Splits bytes after a length: the bytes that it counts, and the rest.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The file, if there is one of a reasonable size.
fn read(path: &Path) -> Option<Vec<u8>> {
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= MAX_BYTES);
    is_small.then(|| fs::read(path).ok()).flatten()
}

/// Writes a file that appears only when it is whole.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Other processes, and other devices of this process, may write the same file.
    static WRITES: AtomicUsize = AtomicUsize::new(0);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "they take {} bytes, more than {MAX_BYTES}",
            bytes.len()
        )));
    }
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_the_same_identity_are_taken() {
        let held = BTreeSet::from([[1; 8], [2; 8]]);
        let whole = file("1.0\ncard", &held, b"data");
        assert_eq!(parse(&whole, "1.0\ncard"), Some((held, &b"data"[..])));
        assert_eq!(parse(&whole, "1.1\ncard"), None);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], "1.0\ncard"), None, "{length} bytes");
        }
        for byte in 0..whole.len() {
            let mut broken = whole.clone();
            broken[byte] ^= 1;
            assert_eq!(parse(&broken, "1.0\ncard"), None, "byte {byte}");
        }
        // Lengths beyond the file, with a right checksum.
        let content = u32::MAX.to_le_bytes();
        assert_eq!(parse(&[MAGIC, &Sha256::digest(content), &content].concat(), ""), None);
    }
}
