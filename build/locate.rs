//! Finds MLX and explains any fault. Uses only std, because the build script and a test both
//! include this file.

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

/// The oldest MLX whose interface matches the shim's.
pub const OLDEST: Version = Version(0, 30, 0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The build's target in Rust's names: `macos`, `aarch64`.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub os: &'a str,
    pub arch: &'a str,
}

impl Target<'_> {
    pub fn library(self) -> &'static str {
        if self.os == "macos" { "libmlx.dylib" } else { "libmlx.so" }
    }

    /// The way to install MLX on such a machine.
    pub fn install(self) -> &'static str {
        match self.os {
            "macos" => "install it with `python3 -m pip install mlx`, or set MLX_ROOT",
            _ => "install it with `python3 -m pip install mlx-cpu`, or set MLX_ROOT",
        }
    }
}

/// The folder that has MLX's `include` and `lib`: `mlx_root` if it is set.
/// Otherwise it is the first of `packages`, Python's package folders, that has the headers.
/// The error names the remedy.
pub fn locate(
    mlx_root: Option<OsString>,
    packages: &[PathBuf],
    target: Target<'_>,
) -> Result<PathBuf, String> {
    let has_headers = |root: &Path| root.join("include/mlx/version.h").is_file();
    if let Some(root) = mlx_root.filter(|root| !root.is_empty()).map(PathBuf::from) {
        return match has_headers(&root) {
            true => Ok(root),
            false => {
                Err(format!("MLX_ROOT is {}, which has no include/mlx/version.h", root.display()))
            }
        };
    }
    let found = packages.iter().find(|root| has_headers(root)).cloned();
    found.ok_or_else(|| {
        format!(
            "the feature mlx needs MLX, and python3 has none with headers: {}",
            target.install()
        )
    })
}

/// The version of the MLX in `root`, if the shim can be compiled and linked with it. The error
/// names the remedy.
pub fn check(root: &Path, target: Target<'_>) -> Result<Version, String> {
    let header = root.join("include/mlx/version.h");
    let text =
        fs::read_to_string(&header).map_err(|error| format!("{}: {error}", header.display()))?;
    let version =
        version(&text).ok_or_else(|| format!("{}: no version of MLX", header.display()))?;
    if version < OLDEST {
        let upgrade = target.install().replace("install mlx", "install --upgrade mlx");
        return Err(format!(
            "MLX {version} in {} is too old, {OLDEST} is needed: {upgrade}",
            root.display()
        ));
    }
    let library = root.join("lib").join(target.library());
    let bytes = fs::read(&library)
        .map_err(|error| format!("{}: {error}; {}", library.display(), target.install()))?;
    match architecture(&bytes) {
        Some(arch) if arch == target.arch => Ok(version),
        Some(arch) => Err(format!(
            "{} is for {arch}, not for {}: {} with a Python of that architecture",
            library.display(),
            target.arch,
            target.install()
        )),
        None => {
            Err(format!("{} is no library of this system: {}", library.display(), target.install()))
        }
    }
}

/// The version that MLX's header defines.
fn version(header: &str) -> Option<Version> {
    let number = |name: &str| {
        let line =
            header.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some(Version(
        number("MLX_VERSION_MAJOR ")?,
        number("MLX_VERSION_MINOR ")?,
        number("MLX_VERSION_PATCH ")?,
    ))
}

/// The target of a 64-bit ELF or Mach-O library.
fn architecture(library: &[u8]) -> Option<&'static str> {
    let word = |at: usize| {
        library
            .get(at..at + 4)
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
    };
    match (word(0)?, word(4)?, word(16)? >> 16) {
        (0x464c_457f, _, 62) | (0xfeed_facf, 0x0100_0007, _) => Some("x86_64"),
        (0x464c_457f, _, 183) | (0xfeed_facf, 0x0100_000c, _) => Some("aarch64"),
        _ => None,
    }
}
