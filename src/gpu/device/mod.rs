//! A GPU, without a model: its adapter's facts, buffers, pipelines and dispatches.

pub(in crate::gpu) mod adapter;
pub(in crate::gpu) mod buffers;
pub(in crate::gpu) mod dispatch;
pub(in crate::gpu) mod faults;
pub(in crate::gpu) mod gpu;
pub(in crate::gpu) mod grid;
pub(in crate::gpu) mod kernel_options;
pub(in crate::gpu) mod pipeline_cache;
pub(in crate::gpu) mod pipelines;
pub(in crate::gpu) mod profile;
pub(in crate::gpu) mod select;
pub(in crate::gpu) mod source;
pub(in crate::gpu) mod tuning;
pub(in crate::gpu) mod variant;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Makers, models and drivers, and PCI ids of makers.
    const HARDWARE: [&str; 19] = [
        "nvidia",
        "geforce",
        "h100",
        "h200",
        "0x10de",
        "amd",
        "radeon",
        "0x1002",
        "intel",
        "0x8086",
        "apple",
        "m4",
        "adreno",
        "mali",
        "llvmpipe",
        "lavapipe",
        "swiftshader",
        "radv",
        "amdvlk",
    ];

    /// Finds lines that name hardware, in a file or a directory's files. Tests may name hardware.
    fn find(path: &Path, found: &mut Vec<String>) {
        // MLX is made for one maker's chips.
        if ["src/gpu/device", "src/mlx"].iter().any(|room| path.ends_with(room)) {
            return;
        }
        if path.is_dir() {
            let entries = fs::read_dir(path).unwrap();
            return entries.for_each(|entry| find(&entry.unwrap().path(), found));
        }
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if path.ends_with("tests.rs") {
            return;
        }
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.to_lowercase();
            let mut words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            if words.any(|word| HARDWARE.contains(&word)) {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }

    #[test]
    fn only_this_room_names_hardware() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        [root.join("src"), root.join("web/src")].iter().for_each(|path| find(path, &mut found));
        assert!(found.is_empty(), "a decision by facts belongs into Tuning:\n{}", found.join("\n"));
        find(&root.join("src/gpu/device/kernel_options.rs"), &mut found);
        assert!(!found.is_empty(), "the search finds nothing");
    }
}
