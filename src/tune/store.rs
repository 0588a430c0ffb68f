//! Results that outlive the process: a file for each device, model shape and set of options.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::gpu::{AdapterFacts, KernelOptions};
use crate::model::{config::ModelConfig, kv::CacheType};
use crate::tune::search::{MeasuredTrial, shown};

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuningResult {
    /// The device, the model's shapes and the options that the user set.
    pub identity: String,
    pub kernels: String,
    pub trials: Vec<MeasuredTrial>,
}

/// Everything that decides whether a result is still valid.
pub fn identity(
    facts: &AdapterFacts,
    config: &ModelConfig,
    cache_type: CacheType,
    batches: &[usize],
    asked: &KernelOptions,
) -> String {
    let shapes = (config.hidden_size, &config.layers, cache_type, batches);
    // Cards of one name may be different models.
    let device = format!("{facts} {:04x}:{:04x}", facts.vendor, facts.device);
    format!("gemma4-wgpu {}, {device}, {shapes:?}, {}", env!("CARGO_PKG_VERSION"), shown(asked))
}

/// The file of a result.
pub fn path_of(directory: &Path, identity: &str) -> PathBuf {
    let hash = Sha256::digest(identity);
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join(format!("{name}.json"))
}

/// The content of a file; `None` if there is no file, or it is broken or has another identity.
pub fn read(path: &Path, identity: &str) -> Option<KernelOptions> {
    let result: TuningResult = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (result.identity == identity).then(|| result.kernels.parse().ok()).flatten()
}

/// Writes a file that appears only when it is whole.
pub fn write(path: &Path, result: &TuningResult) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(result)?)?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_of_one_name_and_workloads_are_measured_apart() {
        let probe = ModelConfig::named("demo").unwrap();
        let of_batches = |facts: AdapterFacts, batches: &[usize]| {
            identity(&facts, &probe, CacheType::F16, batches, &KernelOptions::default())
        };
        let of = |facts| of_batches(facts, &[]);
        let card = AdapterFacts::example_card;
        assert_eq!(
            of(card()),
            of(AdapterFacts { index: 1, pci_bus_id: Some("0000:5e:00.0".into()), ..card() })
        );
        assert_ne!(of(card()), of(AdapterFacts { device: 2, ..card() }));
        assert_ne!(of(card()), of_batches(card(), &[4, 16]));
    }

    #[test]
    fn only_files_of_the_same_device_and_model_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_of(&directory.path().join("new"), "card A");
        let result = TuningResult {
            identity: "card A".into(),
            kernels: "dp4a=on".into(),
            trials: Vec::new(),
        };
        assert_eq!(read(&path, "card A"), None);
        write(&path, &result).unwrap();
        assert_eq!(read(&path, "card A"), Some("dp4a=on".parse().unwrap()));
        assert_eq!(read(&path, "card B"), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path, "card A"), None);
        fs::write(
            &path,
            serde_json::to_vec(&TuningResult { kernels: "speed=on".into(), ..result }).unwrap(),
        )
        .unwrap();
        assert_eq!(read(&path, "card A"), None);
    }
}
