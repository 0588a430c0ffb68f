//! The build script's messages about an MLX that it cannot use. The tests need no MLX.

#[path = "../../build/locate.rs"]
mod locate;

use std::{fs, path::Path};

use locate::{OLDEST, Target, Version, check, locate};
use tempfile::TempDir;

const LINUX: Target = Target { os: "linux", arch: "x86_64" };
const MAC: Target = Target { os: "macos", arch: "aarch64" };

/// The first bytes of libraries.
const ELF_X86_64: [u8; 20] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
const MACH_O_ARM64: [u8; 20] = *b"\xcf\xfa\xed\xfe\x0c\0\0\x01\0\0\0\0\x06\0\0\0\0\0\0\0";

/// A folder with the headers of a version and a library of these bytes.
fn mlx([major, minor, patch]: [u32; 3], target: Target, library: &[u8]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let header = format!(
        "#pragma once\n#define MLX_VERSION_MAJOR {major}\n#define MLX_VERSION_MINOR {minor}\n\
         #define MLX_VERSION_PATCH {patch}\n\
         #define MLX_VERSION_NUMERIC (100000 * MLX_VERSION_MAJOR)\n"
    );
    fs::create_dir_all(root.path().join("include/mlx")).unwrap();
    fs::create_dir(root.path().join("lib")).unwrap();
    fs::write(root.path().join("include/mlx/version.h"), header).unwrap();
    fs::write(root.path().join("lib").join(target.library()), library).unwrap();
    root
}

fn reason(root: &Path, target: Target) -> String {
    check(root, target).unwrap_err()
}

#[test]
fn finds_mlx_by_root_then_by_python() {
    let (a, b) = (mlx([0, 32, 4], LINUX, &ELF_X86_64), mlx([0, 31, 0], LINUX, &ELF_X86_64));
    let empty = tempfile::tempdir().unwrap();
    let packages = [empty.path().to_owned(), b.path().to_owned()];
    assert_eq!(locate(Some(a.path().into()), &packages, LINUX).unwrap(), a.path());
    assert_eq!(locate(None, &packages, LINUX).unwrap(), b.path());
    assert_eq!(locate(Some("".into()), &packages, LINUX).unwrap(), b.path());
    assert_eq!(check(a.path(), LINUX), Ok(Version(0, 32, 4)));
}

#[test]
fn missing_names_the_line_that_installs_it() {
    let missing = locate(None, &[], MAC).unwrap_err();
    assert!(
        missing.contains("python3 -m pip install mlx`") && missing.contains("MLX_ROOT"),
        "{missing}"
    );
    assert!(locate(None, &[], LINUX).unwrap_err().contains("pip install mlx-cpu"));
    let wrong = locate(Some("/nowhere".into()), &[], MAC).unwrap_err();
    assert!(wrong.contains("MLX_ROOT is /nowhere"), "{wrong}");
}

#[test]
fn too_old_names_both_versions() {
    let reason = reason(mlx([0, 29, 3], MAC, &MACH_O_ARM64).path(), MAC);
    assert!(reason.contains("0.29.3") && reason.contains(&OLDEST.to_string()), "{reason}");
    assert!(reason.contains("install --upgrade mlx"), "{reason}");
    assert_eq!(check(mlx([1, 0, 0], MAC, &MACH_O_ARM64).path(), MAC), Ok(Version(1, 0, 0)));
}

#[test]
fn other_architectures_are_refused() {
    let arm = Target { os: "linux", arch: "aarch64" };
    let found = reason(mlx([0, 32, 4], arm, &ELF_X86_64).path(), arm);
    assert!(
        found.contains("is for x86_64, not for aarch64") && found.contains("pip install"),
        "{found}"
    );
    // Python on a Mac under Rosetta.
    let rosetta = [&MACH_O_ARM64[..4], &[7, 0, 0, 1], &MACH_O_ARM64[8..]].concat();
    assert!(reason(mlx([0, 32, 4], MAC, &rosetta).path(), MAC).contains("is for x86_64"));
    let text = reason(mlx([0, 32, 4], LINUX, b"<html>no library at all</html>").path(), LINUX);
    assert!(text.contains("no library of this system"), "{text}");
    assert!(reason(mlx([0, 32, 4], LINUX, b"").path(), LINUX).contains("no library"));
}

#[test]
fn incomplete_folders_are_refused() {
    let root = mlx([0, 32, 4], LINUX, &ELF_X86_64);
    fs::remove_file(root.path().join("lib/libmlx.so")).unwrap();
    let missing = reason(root.path(), LINUX);
    assert!(missing.contains("libmlx.so") && missing.contains("pip install"), "{missing}");
    fs::write(root.path().join("include/mlx/version.h"), "#pragma once\n").unwrap();
    assert!(reason(root.path(), LINUX).contains("no version of MLX"));
}
