//! Builds `src/mlx/shim.cpp` against MLX into a library of its own.
//!
//! The program contains the library and loads it on request. It thus starts without MLX too.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::locate::{Target, check, locate};

const SHIM: &str = "src/mlx/shim.cpp";

/// The place of Python's mlx package.
const ASK_PYTHON: &str = "import importlib.util as u; s = u.find_spec('mlx'); \
                          print('\\n'.join(s.submodule_search_locations if s else []))";

pub fn build() -> Result<(), String> {
    for variable in ["MLX_ROOT", "PATH", "VIRTUAL_ENV"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let variable = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
    let (os, arch) = (variable("CARGO_CFG_TARGET_OS")?, variable("CARGO_CFG_TARGET_ARCH")?);
    if !["linux", "macos"].contains(&os.as_str()) {
        return Err(format!("the feature mlx is for macOS and Linux, not {os}"));
    }
    let target = Target { os: &os, arch: &arch };
    let root = locate(env::var_os("MLX_ROOT"), &python_packages(), target)?;
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let version = check(&root, target)?;
    println!("cargo::rerun-if-changed={}", root.join("include/mlx/version.h").display());
    println!("cargo::rerun-if-changed={SHIM}");
    let out = PathBuf::from(variable("OUT_DIR")?).join("mlx_shim");
    link(&root, target, &out)?;
    println!("cargo::rustc-env=MLX_SHIM={}", out.display());
    println!("cargo::rustc-env=MLX_SHIM_VERSION={version}");
    println!("cargo::rustc-env=MLX_SHIM_ROOT={}", root.display());
    Ok(())
}

fn python_packages() -> Vec<PathBuf> {
    let output = Command::new("python3").args(["-c", ASK_PYTHON]).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().map(PathBuf::from).collect()
}

/// Compiles and links the shim, with MLX's folder as its rpath.
fn link(root: &Path, target: Target<'_>, out: &Path) -> Result<(), String> {
    let lib = root.join("lib");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .include(root.join("include"))
        .pic(true)
        .warnings(false)
        .debug(false);
    let compiler = build.try_get_compiler().map_err(|error| format!("no C++ compiler: {error}"))?;
    let mut command = compiler.to_command();
    match target.os {
        // The minimum of MLX's own wheels.
        "macos" => command.args(["-dynamiclib", "-mmacosx-version-min=14.0"]),
        _ => command.args(["-shared", "-Wl,--no-undefined"]),
    };
    command.args(["-fvisibility=hidden", "-w", SHIM, "-o"]).arg(out);
    command.arg("-L").arg(&lib).arg("-lmlx").arg(format!("-Wl,-rpath,{}", lib.display()));
    let output =
        command.output().map_err(|error| format!("{}: {error}", compiler.path().display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("{SHIM} does not build:\n{}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}
