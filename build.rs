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

/// Writes `FILES`: path and text of every file in a folder of shaders. A program for browsers is
/// downloaded, so it has only those that a browser can run, without their comments.
fn list_shaders() -> io::Result<()> {
    let is_browser = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32");
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("shaders");
    let mut list = String::from("static FILES: &[(&str, &str)] = &[\n");
    for folder in sorted(&root)? {
        for name in sorted(&root.join(&folder))? {
            let path = format!("{folder}/{name}");
            let file = root.join(&path);
            if !is_browser {
                let _ = writeln!(list, "(\"shaders/{path}\", include_str!({file:?})),");
                continue;
            }
            let text = fs::read_to_string(&file)?;
            if runs_in_browsers(&folder, &text) {
                let _ = writeln!(list, "(\"shaders/{path}\", {:?}),", without_comments(&text));
            }
        }
    }
    fs::write(Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("shaders.rs"), list + "];\n")
}

/// Browsers have no cooperative matrices, and no memory that workgroups share coherently.
fn runs_in_browsers(folder: &str, text: &str) -> bool {
    folder != "persistent" && !text.contains("wgpu_cooperative_matrix")
}

/// Leaves out comments, empty lines and indentation, but not what a file needs and the marks of
/// unrolled loops.
fn without_comments(text: &str) -> String {
    let code = |line: &str| match line.split_once("//") {
        Some((_, comment)) if comment.starts_with('!') || comment == " unrolled" => {
            line.trim().to_owned()
        }
        Some((code, _)) => code.trim().to_owned(),
        None => line.trim().to_owned(),
    };
    let lines = text.lines().map(code).filter(|line| !line.is_empty());
    lines.map(|line| line + "\n").collect()
}

fn sorted(folder: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into());
    let mut names = fs::read_dir(folder)?.map(name).collect::<io::Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}
