//! Lists the shaders for `src/gpu/kernels/wgsl.rs`, and builds what the feature mlx needs.

use std::{env, fmt::Write, fs, io, path::Path};

#[cfg(feature = "mlx")]
#[path = "build/locate.rs"]
mod locate;
#[cfg(feature = "mlx")]
#[path = "build/mlx.rs"]
mod mlx;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=shaders");
    if let Err(error) = list_shaders() {
        println!("cargo::error=shaders: {error}");
    }
    #[cfg(feature = "mlx")]
    if let Err(reason) = mlx::build() {
        // A directive for each line, because cargo's directives have one line.
        reason.lines().for_each(|line| println!("cargo::error={line}"));
    }
}

/// Writes `FILES`: path and text of every file in a folder of shaders.
fn list_shaders() -> io::Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("shaders");
    let mut list = String::from("static FILES: &[(&str, &str)] = &[\n");
    for folder in sorted(&root)? {
        for name in sorted(&root.join(&folder))? {
            let path = format!("{folder}/{name}");
            let text = root.join(&path);
            let _ = writeln!(list, "(\"shaders/{path}\", include_str!({text:?})),");
        }
    }
    fs::write(Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("shaders.rs"), list + "];\n")
}

fn sorted(folder: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into());
    let mut names = fs::read_dir(folder)?.map(name).collect::<io::Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}
