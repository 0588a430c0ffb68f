//! Files of code are short, and so are their lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

const MOST_LINES: usize = 450;
const MOST_COLUMNS: usize = 100;
const CODE: [&str; 12] =
    ["rs", "wgsl", "ts", "mjs", "js", "css", "html", "py", "sh", "cpp", "toml", "yml"];
/// Folders with files that programs made.
const MADE: [&str; 8] =
    ["target", "node_modules", "dist", "wasm", "artifacts", "__pycache__", "corpus", "coverage"];

fn files_of_code(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_hidden = name.starts_with('.') && name != ".github" && name != ".ci";
        if path.is_dir() {
            if !is_hidden && !MADE.contains(&name) && !path.is_symlink() {
                files_of_code(&path, found);
            }
        } else if path.extension().is_some_and(|kind| CODE.iter().any(|code| kind == *code)) {
            found.push(path);
        }
    }
}

#[test]
fn files_and_lines_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    files_of_code(root, &mut files);
    assert!(files.len() > 300, "{} files", files.len());
    let mut faults = Vec::new();
    for path in files {
        let (file, text) = (path.strip_prefix(root).unwrap(), fs::read_to_string(&path).unwrap());
        let lines = text.lines().count();
        if lines > MOST_LINES {
            faults.push(format!("{}: {lines} lines", file.display()));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            if columns > MOST_COLUMNS {
                faults.push(format!("{}:{number}: {columns} columns", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
