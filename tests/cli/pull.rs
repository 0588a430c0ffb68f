//! `gemma4-wgpu pull` from a Hub of its own, and what runs afterwards.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::hub_server::{COMMIT, Fault, HubServer, Request, etag};
use crate::support::{TinyModel, error_line, program, stdout};
use assert_cmd::Command;
use serde_json::json;
use tempfile::TempDir;

const REPOSITORY: &str = "owner/demo";
const WEIGHTS: &str = "model.safetensors";

/// The embedded model's files, and some that nobody needs.
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

    /// A command that knows this server and cache, and nothing else of the environment.
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

    /// What a pull that works prints: a path.
    fn pulled(&self, args: &[&str]) -> PathBuf {
        PathBuf::from(stdout(&mut self.pull(args)).trim_end())
    }

    /// The one line of a pull that fails.
    fn failure(&self, args: &[&str]) -> String {
        error_line(self.pull(&["--quiet"]).args(args))
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("hub/models--owner--demo")
    }

    fn partial(&self, files: &BTreeMap<String, Vec<u8>>, name: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.incomplete", etag(name, &files[name])))
    }

    /// Nothing is there that a program would take for the model.
    fn assert_nothing_loads(&self) {
        assert!(!self.folder().join("refs").exists() && !self.folder().join("snapshots").exists());
        let line = error_line(&mut self.command(&["inspect", "--backend", "cpu", "hf:owner/demo"]));
        assert!(line.contains("gemma4-wgpu pull owner/demo"), "{line}");
    }
}

/// The requests for a file's content, where it lies.
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

    // Once more: nothing but the listing.
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

#[test]
fn a_cut_connection_goes_on_where_it_ended() {
    let (files, setup) = (demo(), Setup::new(demo()));
    setup.server.fail("/data/", [Fault::CutAfter(3_000_000), Fault::CutAfter(1_000_000)]);
    let snapshot = setup.pulled(&[REPOSITORY]);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), files[WEIGHTS]);
    let requests = setup.server.requests();
    let parts = of(&requests, WEIGHTS);
    let ranges: Vec<_> = parts.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=3000000-"), Some("bytes=4000000-")]);
    assert_eq!(parts.iter().map(|request| request.sent).sum::<usize>(), files[WEIGHTS].len());
    assert!(!setup.partial(&files, WEIGHTS).exists());
}

#[cfg(unix)]
#[test]
fn after_ctrl_c_the_next_pull_goes_on() {
    let (files, setup) = (demo(), Setup::new(demo()));
    setup.server.fail("/data/", [Fault::SlowAfter(2_000_000)]);
    let mut command = Process::new(assert_cmd::cargo::cargo_bin("gemma4-wgpu"));
    command
        .args(["pull", REPOSITORY])
        .env("HF_ENDPOINT", &setup.server.endpoint)
        .env("HF_HOME", setup.home.path());
    for name in [
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "SSL_CERT_FILE",
    ] {
        command.env_remove(name);
    }
    let child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let partial = setup.partial(&files, WEIGHTS);
    let (begun, size) = (Instant::now(), || fs::metadata(&partial).map_or(0, |found| found.len()));
    while size() < 2_000_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes", size());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        Process::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{log}");
    assert!(
        log.contains("interrupted; the same command goes on") && output.stdout.is_empty(),
        "{log}"
    );
    setup.assert_nothing_loads();
    setup.server.requests();

    let there = size();
    let snapshot = setup.pulled(&[REPOSITORY]);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), files[WEIGHTS]);
    let requests = setup.server.requests();
    let parts = of(&requests, WEIGHTS);
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].header("range"), Some(format!("bytes={there}-").as_str()));
    assert_eq!(parts[0].sent as u64, files[WEIGHTS].len() as u64 - there);
    // What was whole before is not asked for again.
    assert!(of(&requests, "tokenizer.json").is_empty());
}

/// Without ranges it starts anew, and stops trying if that leads nowhere.
#[test]
fn servers_without_ranges() {
    let (files, setup) = (demo(), Setup::new(demo()));
    let whole = files[WEIGHTS].len();
    setup.server.fail("/data/", [Fault::CutAfter(2_000_000), Fault::NoRanges(whole)]);
    let snapshot = setup.pulled(&[REPOSITORY]);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), files[WEIGHTS]);
}

#[test]
fn a_damaged_file_is_not_kept() {
    let (files, setup) = (demo(), Setup::new(demo()));
    setup.server.fail("/data/", [Fault::Damaged]);
    let line = setup.failure(&[REPOSITORY]);
    let wanted = etag(WEIGHTS, &files[WEIGHTS]);
    assert!(
        line.contains(WEIGHTS) && line.contains("checksum") && line.contains(&wanted),
        "{line}"
    );
    assert!(
        !setup.partial(&files, WEIGHTS).exists()
            && !setup.folder().join("blobs").join(wanted).exists()
    );
    setup.assert_nothing_loads();

    // A small file, by git's hash.
    setup.server.fail("/api/resolve-cache/owner/demo/tokenizer.json", [Fault::Damaged]);
    fs::remove_file(
        setup.folder().join("blobs").join(etag("tokenizer.json", &files["tokenizer.json"])),
    )
    .unwrap();
    let line = setup.failure(&[REPOSITORY]);
    assert!(line.contains("tokenizer.json: what came has the checksum"), "{line}");
    setup.assert_nothing_loads();
    setup.pulled(&[REPOSITORY]);
}

#[test]
fn a_damaged_beginning_is_fetched_again() {
    let (files, setup) = (demo(), Setup::new(demo()));
    let partial = setup.partial(&files, WEIGHTS);
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    // As large as the file, and too large.
    for bytes in [1000, files[WEIGHTS].len(), files[WEIGHTS].len() + 1] {
        fs::write(&partial, vec![7; bytes]).unwrap();
        let snapshot = setup.pulled(&[REPOSITORY]);
        assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), files[WEIGHTS]);
        assert!(!partial.exists());
        fs::remove_file(snapshot.join(WEIGHTS)).unwrap();
        fs::remove_file(setup.folder().join("blobs").join(etag(WEIGHTS, &files[WEIGHTS]))).unwrap();
    }
}

#[test]
fn refusals_say_what_to_do() {
    let setup = Setup::new(demo());
    let check = |token: &str, part: &str, status: u16, headers: &'static str, wanted: &[&str]| {
        setup.server.fail(part, [Fault::Status(status, headers)]);
        setup.server.requests();
        let mut pull = setup.pull(&[REPOSITORY, "--quiet", "--revision", "v1"]);
        let line = error_line(pull.env("HF_TOKEN", token));
        for text in wanted.iter().chain(&["owner/demo", &status.to_string()[..]]) {
            assert!(line.contains(text), "{text} in {line}");
        }
        assert!(token.is_empty() || !line.contains(token), "{line}");
        assert_eq!(
            setup.server.requests().iter().filter(|request| request.path.contains(part)).count(),
            1,
            "{line}"
        );
    };
    let licence = format!("licence at {}/owner/demo", setup.server.endpoint);
    let tokens = format!("HF_TOKEN to a token from {}/settings/tokens", setup.server.endpoint);
    check("", "/api/models", 401, "", &["does not exist", &licence, &tokens]);
    check("hf_secret", "/api/models", 401, "", &["token is not valid", &tokens]);
    check(
        "hf_secret",
        "/api/models",
        401,
        "X-Error-Code: RepoNotFound\r\n",
        &["token's account may not see it"],
    );
    check("", "/api/models", 403, "", &[&licence, &tokens]);
    check("hf_secret", "/api/models", 403, "", &["no access with this token", &licence]);
    check("", "/api/models", 404, "", &["no such repository", "revision v1"]);
    check("", "/api/models", 404, "X-Error-Code: RevisionNotFound\r\n", &["has no revision v1"]);
    check(
        "",
        "/api/models",
        404,
        "X-Error-Code: RepoNotFound\r\n",
        &["there is no such repository"],
    );
    check("", "/resolve/", 404, "", &["chat_template.jinja", "no such file"]);
    check("", "/resolve/", 401, "X-Error-Code: GatedRepo\r\n", &[&licence, &tokens]);
    check("", "/api/models", 418, "", &[]);
    setup.assert_nothing_loads();
}

#[test]
fn what_may_pass_is_tried_again() {
    let setup = Setup::new(demo());
    let now = "Retry-After: 0\r\n";
    let count = |part: &str| {
        setup.server.requests().iter().filter(|request| request.path.contains(part)).count()
    };
    for (part, status) in [
        ("/api/models", 500),
        ("/api/models", 429),
        ("/resolve/", 503),
        ("/data/", 502),
        ("/data/", 403),
    ] {
        setup.server.fail(part, vec![Fault::Status(status, now); 5]);
        setup.server.requests();
        let line = setup.failure(&[REPOSITORY]);
        for text in [&status.to_string(), "5 times in a row", "127.0.0.1"] {
            assert!(line.contains(text), "{text} in {line}");
        }
        assert_eq!(count(part), 5, "{part} {status}");
    }
    setup.assert_nothing_loads();
    // The server tells when: that long, and not for days.
    setup.server.fail("/api/models", [Fault::Status(429, "Retry-After: 86400\r\n")]);
    let line = setup.failure(&[REPOSITORY]);
    assert!(line.contains("429") && line.contains("try again in 86400 s"), "{line}");
    assert_eq!(count("/api/models"), 1);
    setup
        .server
        .fail("/api/models", [Fault::Status(429, "Retry-After: 2\r\n"), Fault::Status(500, now)]);
    let begun = Instant::now();
    let output = setup.pull(&[REPOSITORY]).output().unwrap();
    assert!(output.status.success() && begun.elapsed() >= Duration::from_secs(2));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains("429") && log.contains("again in 2 s (1 of 5)") && log.contains("(2 of 5)"),
        "{log}"
    );
    assert_eq!(count("/api/models"), 3);
}

#[test]
fn what_is_no_endpoint() {
    let setup = Setup::new(demo());
    let mut pull = setup.pull(&[REPOSITORY, "--quiet"]);
    let line = error_line(pull.env("HF_ENDPOINT", "ftp://127.0.0.1"));
    assert!(line.contains("HF_ENDPOINT=ftp://127.0.0.1: want a URL"), "{line}");
    let line = error_line(setup.pull(&[REPOSITORY, "--quiet"]).env("HF_HUB_OFFLINE", "1"));
    assert!(line.contains("HF_HUB_OFFLINE=1 forbids downloads"), "{line}");
    // Something that is no Hub.
    let line = error_line(pull.env("HF_ENDPOINT", format!("{}/other", setup.server.endpoint)));
    assert!(line.contains("404"), "{line}");
}

#[test]
fn a_full_disk_is_seen_before() {
    let setup = Setup::new(demo());
    setup.server.claim(WEIGHTS, 1 << 60);
    let line = setup.failure(&[REPOSITORY]);
    let cache = setup.home.path().join("hub").display().to_string();
    for text in ["owner/demo needs", "1.00 EiB in", &cache, "are free", "HF_HOME"] {
        assert!(line.contains(text), "{text} in {line}");
    }
    assert_eq!(setup.server.requests().len(), 1);
    setup.assert_nothing_loads();
}

/// Mirrors may list names alone; headers tell the rest.
#[test]
fn sizes_and_checksums_from_headers() {
    let (files, setup) = (demo(), Setup::new(demo()));
    setup.server.list_names_only();
    let snapshot = setup.pulled(&[REPOSITORY]);
    for name in needed() {
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), files[name], "{name}");
        assert!(setup.folder().join("blobs").join(etag(name, &files[name])).is_file(), "{name}");
    }
    let requests = setup.server.requests();
    let heads: Vec<_> = requests.iter().filter(|request| request.method == "HEAD").collect();
    assert!(heads.len() >= needed().count() && heads.iter().all(|request| !request.elsewhere));
}

#[test]
fn shards_by_their_index() {
    let model = TinyModel::new();
    let (mut halves, mut map) = ([TinyModel::new(), TinyModel::new()], serde_json::Map::new());
    for (number, name) in model.tensors.keys().enumerate() {
        halves[number % 2].tensors.remove(name);
        map.insert(
            name.clone(),
            format!("model-0000{}-of-00002.safetensors", 2 - number % 2).into(),
        );
    }
    let index = json!({ "metadata": {}, "weight_map": map }).to_string().into_bytes();
    let mut files = BTreeMap::from([
        ("config.json".to_owned(), model.config.to_string().into_bytes()),
        ("tokenizer.json".to_owned(), model.tokenizer.to_string().into_bytes()),
        ("model.safetensors.index.json".to_owned(), index.clone()),
        ("consolidated-00001-of-00001.safetensors".to_owned(), b"not wanted".to_vec()),
    ]);
    for (number, half) in halves.iter().enumerate() {
        files.insert(format!("model-0000{}-of-00002.safetensors", number + 1), half.safetensors());
    }
    let setup = Setup::new(files.clone());
    let snapshot = setup.pulled(&[REPOSITORY]);
    assert_eq!(fs::read_dir(&snapshot).unwrap().count(), files.len() - 1);
    let run =
        ["run", "--backend", "cpu", "-n", "2", "--seed", "1", "--model", "hf:owner/demo", "hi"];
    stdout(&mut setup.command(&run));

    // An index that names what the repository lacks, or what lies elsewhere.
    for (name, wanted) in
        [("model-9.safetensors", "no such file"), ("../../x.safetensors", "not a plain file name")]
    {
        let index = json!({ "weight_map": { "a": name } }).to_string().into_bytes();
        files.insert("model.safetensors.index.json".into(), index);
        let setup = Setup::new(files.clone());
        let line = setup.failure(&[REPOSITORY]);
        assert!(line.contains(wanted), "{line}");
        setup.assert_nothing_loads();
    }
}

/// Models of other programs' making: one a file, by name or tag, and one in parts.
#[test]
fn gguf_models() {
    let golden = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens_gguf").join(name))
            .unwrap()
    };
    let mut files = BTreeMap::from([
        ("demo-Q4_0.gguf".to_owned(), golden("gemma4/model.gguf")),
        ("demo-Q8_0.gguf".to_owned(), b"another".to_vec()),
        ("mmproj-demo.gguf".to_owned(), b"not wanted".to_vec()),
        ("config.json".to_owned(), b"{}".to_vec()),
    ]);
    for part in 1..=3 {
        let name = format!("model-0000{part}-of-00003.gguf");
        files.insert(format!("mixed-IQ4_XS/{name}"), golden(&format!("gemma4_mixed_split/{name}")));
    }
    let setup = Setup::new(files.clone());
    let line = setup.failure(&[REPOSITORY]);
    for text in [
        "several GGUF models",
        "owner/demo:FILE",
        "demo-Q4_0.gguf",
        "demo-Q8_0.gguf",
        "mixed-IQ4_XS/model-00001-of",
    ] {
        assert!(line.contains(text), "{text} in {line}");
    }
    assert!(
        setup
            .failure(&["owner/demo:Q5_0"])
            .contains("owner/demo has no file Q5_0; it has demo-Q4_0.gguf")
    );
    setup.assert_nothing_loads();

    let snapshot = setup.folder().join("snapshots").join(COMMIT);
    for name in ["owner/demo:q4_0", "owner/demo:demo-Q4_0.gguf"] {
        assert_eq!(setup.pulled(&[name]), snapshot.join("demo-Q4_0.gguf"));
    }
    assert_eq!(fs::read_dir(&snapshot).unwrap().count(), 1);
    let first = snapshot.join("mixed-IQ4_XS/model-00001-of-00003.gguf");
    // Without the line of the machine's free memory, which other processes move.
    let inspect = |model: &str| -> String {
        let report = stdout(&mut setup.command(&["inspect", "--backend", "cpu", model]));
        report
            .lines()
            .filter(|line| !line.starts_with("  free "))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let alone = inspect("hf:owner/demo");
    assert_eq!(setup.pulled(&["owner/demo:IQ4_XS"]), first);
    for name in ["hf:owner/demo:Q4_0", "hf:owner/demo:demo-Q4_0.gguf"] {
        assert_eq!(inspect(name), alone);
    }
    assert_ne!(inspect("hf:owner/demo:iq4_xs"), alone);
    let line =
        error_line(&mut setup.command(&["inspect", "--backend", "cpu", "hf:owner/demo:Q8_0"]));
    assert!(
        line.contains("file Q8_0 is not in the cache")
            && line.contains("gemma4-wgpu pull owner/demo:Q8_0"),
        "{line}"
    );

    // One model, in a folder of its own.
    files.retain(|name, _| !name.starts_with("demo"));
    files.remove("config.json");
    let setup = Setup::new(files.clone());
    setup.pulled(&[REPOSITORY]);
    stdout(&mut setup.command(&["inspect", "--backend", "cpu", "hf:owner/demo"]));
    files.remove("mixed-IQ4_XS/model-00002-of-00003.gguf");
    let line = Setup::new(files).failure(&[REPOSITORY]);
    assert!(line.contains("part mixed-IQ4_XS/model-00002-of-00003.gguf is not there"), "{line}");
}

#[test]
fn another_revision() {
    let pull = |args: &[&str]| {
        let setup = Setup::new(demo());
        let output = setup.pull(args).output().unwrap();
        let (path, log) =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).into();
        assert!(output.status.success(), "{log}");
        assert!(
            setup.server.requests()[0]
                .path
                .starts_with("/api/models/owner/demo/revision/refs%2Fpr%2F1?")
        );
        assert_eq!(fs::read_to_string(setup.folder().join("refs/refs/pr/1")).unwrap(), COMMIT);
        assert!(!setup.folder().join("refs/main").exists());
        stdout(setup.command(&["inspect", "--backend", "cpu"]).arg(path.trim_end()));
        // As the log says.
        assert!(log.contains("--model hf:owner/demo@refs/pr/1\n"), "{log}");
        stdout(&mut setup.command(&["inspect", "--backend", "cpu", "hf:owner/demo@refs/pr/1"]));
        let line =
            error_line(&mut setup.command(&["inspect", "--backend", "cpu", "hf:owner/demo"]));
        assert!(
            line.contains("revision main (there is hf:owner/demo@refs/pr/1) is not in the cache"),
            "{line}"
        );
    };
    pull(&[REPOSITORY, "--revision", "refs/pr/1"]);
    pull(&["owner/demo@refs/pr/1"]);
    pull(&["hf:owner/demo@refs/pr/1", "--revision", "refs/pr/1"]);

    // A commit has no name of its own.
    let setup = Setup::new(demo());
    assert!(setup.pulled(&[&format!("{REPOSITORY}@{COMMIT}")]).ends_with(COMMIT));
    assert!(!setup.folder().join("refs").exists());
    stdout(&mut setup.command(&["inspect", "--backend", "cpu", "hf:owner/demo@0123456"]));
    assert!(
        setup
            .failure(&[REPOSITORY, "--revision", "../x"])
            .contains("want a branch, a tag or a commit")
    );
    assert!(
        setup.failure(&["owner/demo@../x"]).contains("want a branch, a tag or a commit after @")
    );
    let line = setup.failure(&["owner/demo@v1", "--revision", "v2"]);
    assert!(line.contains("owner/demo@v1: --revision v2 is another one"), "{line}");
    let no_revision = Fault::Status(404, "X-Error-Code: RevisionNotFound\r\n");
    setup.server.fail("/api/models/", [no_revision]);
    let line = setup.failure(&["owner/demo@0123abc"]);
    assert!(line.contains("no revision 0123abc: a commit is named by all 40 digits"), "{line}");
}

#[test]
fn names_from_outside_stay_inside() {
    let setup = Setup::new([("../../../../x.gguf".to_owned(), b"x".to_vec())]);
    let line = setup.failure(&[REPOSITORY]);
    assert!(line.contains("no such file"), "{line}");
    for name in [
        "",
        "owner",
        "../../x",
        "owner/..",
        "/owner/x",
        "owner/demo:",
        "https://huggingface.co/owner/demo",
    ] {
        assert!(setup.failure(&[name]).contains("want OWNER/NAME"), "{name}");
    }
    assert!(fs::read_dir(setup.home.path()).unwrap().next().is_none());
}
