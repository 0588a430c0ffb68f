//! Compiled pipelines are kept between starts. A damaged file of pipelines causes no error.

use std::{fs, path::Path};

use crate::common::random_model::RandomModel;
use gemma4_wgpu::{
    gpu::{DeviceOptions, Gpu, GpuBackend, PipelineStats},
    model::weights::LoadOptions,
};

/// Opens the device and loads a small model on it, which compiles the kernels of decode.
/// Returns `None` where there are no such caches.
fn start(directory: &Path) -> Option<PipelineStats> {
    let options =
        DeviceOptions { pipeline_cache: Some(directory.to_owned()), ..DeviceOptions::default() };
    let gpu = pollster::block_on(Gpu::open(&options)).expect("the test needs an adapter");
    let options = LoadOptions { context_length: 64, ..LoadOptions::default() };
    let backend = pollster::block_on(GpuBackend::load(
        gpu.clone(),
        &RandomModel::small(),
        &options,
        &mut |_| (),
    ));
    drop(backend.unwrap());
    let stats = gpu.pipeline_stats();
    assert!(stats.made > 10 && !stats.time.is_zero(), "{stats:?}");
    gpu.facts().pipeline_cache.then_some(stats)
}

#[test]
fn pipelines_outlive_the_process_whatever_happens_to_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("not/yet/there");
    let Some(cold) = start(&inside) else {
        // On Metal and DirectX, drivers have caches of their own.
        assert!(!inside.exists());
        return;
    };
    assert_eq!(cold.cached, 0);
    let files: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [path] = files.as_slice() else { panic!("one file, not {files:?}") };
    let whole = fs::read(path).unwrap();

    let written = fs::metadata(path).unwrap().modified().unwrap();
    let warm = start(&inside).unwrap();
    assert_eq!((warm.made, warm.cached), (cold.made, cold.made));
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), written, "written again");

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for broken in
        [flipped, whole[..whole.len() - 1].to_vec(), Vec::new(), b"of something else".repeat(1000)]
    {
        fs::write(path, &broken).unwrap();
        assert_eq!(start(&inside).unwrap().cached, 0);
        assert_eq!(start(&inside).unwrap().cached, cold.made, "not replaced");
    }
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 1, "temporary files are left");
}

#[test]
fn a_directory_that_cannot_be_is_no_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    if let Some(stats) = start(&file.path().join("directory")) {
        assert_eq!(stats.cached, 0);
    }
}
