//! The embedded model, so that everything works without a download.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::checkpoint::checkpoint::{Checkpoint, Format};
use crate::checkpoint::model_file::ModelFile;
use crate::checkpoint::safetensors::files;
use crate::error::{Error, Result};

macro_rules! embedded {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../assets/demo/", $name)).as_slice())),*]
    };
}

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// The files of the checkpoint.
static FILES: [(&str, &[u8]); 6] = embedded![
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja"
];

/// The output of `sha256sum` for them.
const SUMS: &str = include_str!("../../assets/demo/SHA256SUMS");

/// An embedded file.
pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes)
}

pub(super) fn open() -> Result<Checkpoint> {
    check(&FILES, SUMS)?;
    let path = |name: &str| format!("demo/{name}");
    let config = file(CONFIG).unwrap_or_default();
    let weights = ModelFile::embedded(&path(WEIGHTS), file(WEIGHTS).unwrap_or_default());
    let config_path = path(CONFIG);
    let mut checkpoint =
        files::assemble(Format::Demo, Path::new(&config_path), config, vec![weights])?;
    // Embedded bytes are available at once, so this never waits.
    pollster::block_on(checkpoint.decide_head())?;
    Ok(checkpoint)
}

/// Errors unless `sums` has the checksum of every file.
fn check(files: &[(&str, &[u8])], sums: &str) -> Result<()> {
    for (name, bytes) in files {
        let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if !sums.lines().any(|line| line == format!("{sum}  {name}")) {
            let reason =
                "the embedded file fails its checksum: this copy of the program is damaged";
            return Err(Error::checkpoint(format!("demo/{name}"), reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_are_whole() {
        check(&FILES, SUMS).unwrap();
        assert_eq!(SUMS.lines().count(), FILES.len());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let (name, bytes) = FILES[1];
        let mut damaged = bytes.to_vec();
        damaged[bytes.len() / 2] ^= 1;
        let error = check(&[FILES[0], (name, &damaged)], SUMS).unwrap_err().to_string();
        assert!(error.contains("demo/model.safetensors") && error.contains("checksum"), "{error}");
        assert!(check(&[("other.json", b"{}")], SUMS).is_err());
    }
}
