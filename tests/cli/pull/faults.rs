//! Broken connections, damaged files and servers that refuse.

use super::*;

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
    // Files that are complete are not requested again.
    assert!(of(&requests, "tokenizer.json").is_empty());
}

/// Without ranges the download restarts. It stops if that makes no progress.
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

    // A small file, verified by git's hash.
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
    // Partial files that are shorter than the complete file, as long, and longer.
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
    // The server says how long to wait. The program obeys, but not for days.
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
    // A server that is no Hub.
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
