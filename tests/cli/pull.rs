//! `gemma4-wgpu pull` from a local Hub, and runs of the pulled model.

use crate::hub_server::{COMMIT, Fault, HubServer, Request, etag};
use crate::support::{TinyModel, error_line, program, stdout};
use assert_cmd::Command;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

mod faults;
mod forms;

const REPOSITORY: &str = "owner/demo";

const WEIGHTS: &str = "model.safetensors";

/// The embedded model's files, and some that no run needs.
fn demo() -> BTreeMap<String, Vec<u8>> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    let mut files: BTreeMap<_, _> =
        needed().map(|name| (name.to_owned(), fs::read(assets.join(name)).unwrap())).collect();
    for name in [
        ".gitattributes",
        "README.md",
        "pytorch_model.bin",
        "demo-Q4_0.gguf",
        "original/params.json",
    ] {
        files.insert(name.into(), b"not wanted".to_vec());
    }
    files
}

fn needed() -> impl Iterator<Item = &'static str> {
    let names = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    names.into_iter().chain([WEIGHTS])
}

/// A server, and an empty cache.
struct Setup {
    server: HubServer,
    home: TempDir,
}

impl Setup {
    fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Setup {
        Setup { server: HubServer::new(REPOSITORY, files), home: tempfile::tempdir().unwrap() }
    }

    /// A command with this server and cache and no other environment.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = program(args);
        for name in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "SSL_CERT_FILE"]
        {
            command.env_remove(name);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.env("HF_ENDPOINT", &self.server.endpoint).env("HF_HOME", self.home.path());
        command
    }

    fn pull(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["pull"]);
        command.args(args);
        command
    }

    /// Runs a pull that must succeed, and returns the printed path.
    fn pulled(&self, args: &[&str]) -> PathBuf {
        PathBuf::from(stdout(&mut self.pull(args)).trim_end())
    }

    /// Runs a pull that must fail, and returns its one line.
    fn failure(&self, args: &[&str]) -> String {
        error_line(self.pull(&["--quiet"]).args(args))
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--demo")
    }

    fn partial(&self, files: &BTreeMap<String, Vec<u8>>, name: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.incomplete", etag(name, &files[name])))
    }

    /// Fails if any file could be loaded as the model.
    fn assert_nothing_loads(&self) {
        assert!(!self.folder().join("refs").exists() && !self.folder().join("snapshots").exists());
        let line = error_line(&mut self.command(&["inspect", "--backend", "cpu", "hf:owner/demo"]));
        assert!(line.contains("gemma4-wgpu pull owner/demo"), "{line}");
    }
}

/// The requests for a file's content, at the place that has it.
fn of<'a>(requests: &'a [Request], name: &str) -> Vec<&'a Request> {
    let end = format!("/{name}");
    requests
        .iter()
        .filter(|request| {
            request.path.split('?').next().unwrap().ends_with(&end) && request.sent > 0
        })
        .collect()
}

#[test]
fn a_pulled_model_runs() {
    let (files, setup) = (demo(), Setup::new(demo()));
    let output = setup.pull(&[REPOSITORY]).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    for part in [
        "owner/demo at 0123456789",
        "6 files",
        "model.safetensors: 7.10 MiB, whole",
        "run --model hf:owner/demo",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    let snapshot = setup.folder().join("snapshots").join(COMMIT);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", snapshot.display()));
    assert_eq!(fs::read_to_string(setup.folder().join("refs/main")).unwrap(), COMMIT);
    let mut found: Vec<_> =
        fs::read_dir(&snapshot).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    let mut wanted: Vec<_> = needed().collect();
    wanted.sort();
    assert_eq!(found, wanted);
    for name in needed() {
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), files[name], "{name}");
        let blob = Path::new("../../blobs").join(etag(name, &files[name]));
        #[cfg(unix)]
        assert_eq!(fs::read_link(snapshot.join(name)).unwrap(), blob);
        assert!(snapshot.join(blob).is_file());
    }
    let asked: Vec<_> =
        setup.server.requests().into_iter().filter(|request| request.sent > 0).collect();
    assert_eq!(asked.len(), 1 + needed().count(), "{asked:?}");

    // A second pull requests only the listing.
    assert_eq!(setup.pulled(&["hf:owner/demo"]), snapshot);
    assert_eq!(setup.server.requests().len(), 1);

    stdout(&mut setup.command(&["inspect", "--backend", "cpu", "hf:owner/demo"]));
    let run =
        ["run", "--backend", "cpu", "-n", "8", "--temperature", "0", "--quiet", "What is love?"];
    let (by_name, embedded) = (
        stdout(setup.command(&run).args(["--model", "hf:owner/demo"])),
        stdout(&mut program(&run)),
    );
    assert_eq!(by_name, embedded);
    assert!(setup.server.requests().is_empty());
}

#[test]
fn quiet_is_quiet() {
    let setup = Setup::new(demo());
    let output = setup.pull(&[REPOSITORY, "--quiet"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty());
}

#[test]
fn the_token_stays_with_the_endpoint() {
    for by_file in [false, true] {
        let setup = Setup::new(demo());
        if by_file {
            fs::write(setup.home.path().join("token"), "hf_secret\n").unwrap();
        }
        let mut pull = setup.pull(&[REPOSITORY]);
        stdout(if by_file { &mut pull } else { pull.env("HF_TOKEN", "hf_secret") });
        let requests = setup.server.requests();
        assert!(requests.iter().any(|request| request.elsewhere));
        for request in &requests {
            let wanted = (!request.elsewhere).then_some("Bearer hf_secret");
            assert_eq!(request.header("authorization"), wanted, "{request:?}");
        }
    }
    let setup = Setup::new(demo());
    let line = error_line(setup.pull(&[REPOSITORY]).env("HF_TOKEN", "two words"));
    assert!(line.contains("HF_TOKEN holds no token") && !line.contains("two words"), "{line}");
}
