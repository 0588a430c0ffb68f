//! `--model hf:REPO`: the Hugging Face cache.

#![cfg(unix)] // its snapshots are symbolic links

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::support::{TinyModel, error_line, program, stdout};
use tempfile::TempDir;

/// A cache with the tiny model as `owner/tiny`, laid out as huggingface_hub does.
fn cache() -> TempDir {
    let (model, home) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    let folder = home.path().join("hub/models--owner--tiny");
    let snapshot = folder.join("snapshots/abc123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(folder.join("blobs")).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), "abc123").unwrap();
    for (number, entry) in fs::read_dir(model.path()).unwrap().enumerate() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(format!("blobs/{number}"))).unwrap();
        symlink(format!("../../blobs/{number}"), snapshot.join(entry.file_name())).unwrap();
    }
    home
}

fn with_cache(home: &Path, args: &[&str]) -> assert_cmd::Command {
    let mut command = program(args);
    command.env_remove("HF_HUB_CACHE").env("HF_HOME", home);
    command
}

#[test]
fn a_cached_repository_runs() {
    let home = cache();
    for model in ["hf:owner/tiny", "hf:owner/tiny:model.safetensors"] {
        let args = ["run", "--backend", "cpu", "-n", "2", "--seed", "1", "--model", model, "hi"];
        stdout(&mut with_cache(home.path(), &args));
        let mut by_cache = program(&args);
        stdout(
            by_cache.env("HF_HUB_CACHE", home.path().join("hub")).env("HF_HOME", "/nonexistent"),
        );
    }
    stdout(&mut with_cache(home.path(), &["inspect", "--backend", "cpu", "hf:owner/tiny"]));
    let output = home.path().join("packed");
    let quantize = ["quantize", "--model", "hf:owner/tiny", "--output", output.to_str().unwrap()];
    stdout(&mut with_cache(home.path(), &quantize));
    assert!(output.join("config.json").is_file());
}

#[test]
fn what_is_not_cached_is_named() {
    let home = cache();
    let fails = |model: &str, wanted: &[&str]| {
        let line = error_line(&mut with_cache(
            home.path(),
            &["run", "--backend", "cpu", "--model", model, "hi"],
        ));
        assert!(wanted.iter().all(|part| line.contains(part)), "{wanted:?} in {line}");
    };
    fails(
        "hf:owner/other",
        &["hf:owner/other", "not in the cache", "gemma4-wgpu pull owner/other"],
    );
    fails("hf:owner/tiny:other.gguf", &["file other.gguf is not in the cache"]);
    fails("hf:owner/tiny:../../refs/main", &["not in the cache"]);
    for name in ["hf:", "hf:owner", "hf:../../x", "hf:owner/..", "hf:/owner/tiny"] {
        fails(name, &["want hf:OWNER/NAME"]);
    }
    fails(
        "hf:owner/tiny@v2",
        &["revision v2 (there is hf:owner/tiny@main) is not in", "pull owner/tiny@v2"],
    );
    fails("hf:owner/tiny@../x", &["want a branch, a tag or a commit after @"]);
    fs::remove_dir_all(home.path().join("hub/models--owner--tiny/snapshots")).unwrap();
    fails("hf:owner/tiny", &["the repository is not in the cache"]);
}

/// Pulled by its commit, or copied: no file says what main is, and the program does not guess.
#[test]
fn a_snapshot_without_main_is_named_by_its_commit() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let home = cache();
    let folder = home.path().join("hub/models--owner--tiny");
    fs::remove_dir_all(folder.join("refs")).unwrap();
    fs::rename(folder.join("snapshots/abc123"), folder.join("snapshots").join(COMMIT)).unwrap();
    let run = |model: &str| {
        with_cache(
            home.path(),
            &["run", "--backend", "cpu", "-n", "2", "--seed", "1", "--model", model, "hi"],
        )
    };
    let line = error_line(&mut run("hf:owner/tiny"));
    let named = format!("revision main (there is hf:owner/tiny@{COMMIT}) is not in the cache");
    assert!(line.contains(&named) && line.contains("gemma4-wgpu pull owner/tiny"), "{line}");
    let line = error_line(&mut run("hf:owner/tiny:model.safetensors"));
    assert!(line.contains(&format!("hf:owner/tiny@{COMMIT}:model.safetensors")), "{line}");

    let by_commit = stdout(&mut run(&format!("hf:owner/tiny@{COMMIT}")));
    for name in ["hf:owner/tiny@0123456", &format!("hf:owner/tiny@{COMMIT}:model.safetensors")] {
        assert_eq!(stdout(&mut run(name)), by_commit, "{name}");
    }
    fs::create_dir_all(folder.join("refs/refs/pr")).unwrap();
    fs::write(folder.join("refs/refs/pr/1"), COMMIT).unwrap();
    assert_eq!(stdout(&mut run("hf:owner/tiny@refs/pr/1")), by_commit);
}
