//! Repositories with shards, with GGUF files and with other revisions.

use super::*;

/// Mirrors may list names alone. Then headers have the sizes and checksums.
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

    // An index with names that the repository lacks, or with paths outside it.
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

/// Models from other programs: one file each, chosen by name or tag, and one in parts.
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
    // Without the line about free memory, which other processes change.
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

    // A single model, in a folder of its own.
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
        // The same as in the log.
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

    // A commit has no name but its hash.
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
