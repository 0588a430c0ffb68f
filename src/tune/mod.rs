//! `--autotune`: measures once which kernel options are fastest for a model's shapes on a device.

mod candidate;
mod reference;
mod search;
mod store;
pub mod workload;

use std::path::Path;

use crate::error::Result;
use crate::gpu::{DeviceOptions, Gpu, KernelOptions};
use crate::model::{config::ModelConfig, kv::CacheType};
use crate::tune::candidate::{CandidateFactory, reduced_config};
use crate::tune::reference::Reference;
use crate::tune::search::{Start, search, shown};
use crate::tune::store::{TuningResult, identity, path_of, read, write};

/// The numbers of sequences that generate together in trials. Devices may have other kernels for up
/// to 8 rows than for more.
const BATCHES: [usize; 2] = [4, 16];

/// The fastest kernel options for a model of this shape on the device of `options`. The command
/// runs at most `sequences` sequences together. The options are a stored result in `directory`, or
/// else a new one. Those that `options.kernels` sets remain. `report` gets a line for each result.
///
/// Errors: there is no such device, or its default kernels fail.
pub fn choose(
    options: &DeviceOptions,
    config: &ModelConfig,
    cache_type: CacheType,
    sequences: usize,
    directory: Option<&Path>,
    report: &mut dyn FnMut(&str),
) -> Result<KernelOptions> {
    let gpu = pollster::block_on(Gpu::open(options))?;
    let (facts, target) = (gpu.facts().clone(), *gpu.target());
    drop(gpu);
    let (reduced, batches) = (reduced_config(config), batches(sequences));
    let identity = identity(&facts, &reduced, cache_type, &batches, &options.kernels);
    let path = directory.map(|directory| path_of(directory, &identity));
    if let Some(kernels) = path.as_deref().and_then(|path| read(path, &identity)) {
        report(&format!("found before: {}", shown(&kernels)));
        return Ok(kernels);
    }
    let reference = Reference::new()?;
    let factory =
        CandidateFactory { options, config: &reduced, cache_type, batches: &batches, reference };
    let start = Start { facts: &facts, target, kernels: options.kernels };
    let (kernels, trials) = search(&start, &mut |kernels| factory.open(kernels), report)?;
    report(&format!("kept: {}", shown(&kernels)));
    if let Some(path) = path {
        let result = TuningResult { identity, kernels: kernels.to_string(), trials };
        if let Err(error) = write(&path, &result) {
            log::warn!("the result cannot be kept in {}: {error}", path.display());
        }
    }
    Ok(kernels)
}

/// The [`BATCHES`] for a command that runs at most `sequences` sequences together.
fn batches(sequences: usize) -> Vec<usize> {
    let mut batches = BATCHES.map(|count| count.min(sequences)).to_vec();
    batches.retain(|&count| count > 1);
    batches.dedup();
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_those_of_the_command() {
        let expected: [(usize, &[usize]); 5] =
            [(1, &[]), (3, &[3]), (4, &[4]), (8, &[4, 8]), (32, &[4, 16])];
        for (sequences, sizes) in expected {
            assert_eq!(batches(sequences), sizes);
        }
    }
}
