//! `gemma4-wgpu serve`: the program answers over a connection and ends in order.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::support::program;

/// A server of the built-in model on a free port, and its address.
fn serve(options: &[&str]) -> (Child, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gemma4-wgpu"));
    command.args(["serve", "--backend", "cpu", "--port", "0", "--ctx", "256"]).args(options);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.unwrap().strip_prefix("listening on http://").map(str::to_owned));
    (child, address.expect("the server says where it listens"))
}

fn post(address: &str, key: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         authorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[cfg(unix)]
#[test]
fn a_server_answers_and_ends_on_sigterm() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "sesame\n").unwrap();
    let key_file = file.path().to_str().unwrap();
    let (mut child, address) = serve(&["--api-key-file", key_file, "--parallel", "2"]);
    let body = r#"{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}"#;
    let answer = post(&address, "sesame", body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"content\":\""), "{answer}");
    assert!(post(&address, "wrong", body).starts_with("HTTP/1.1 401"));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let limit = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > limit => {
                child.kill().unwrap();
                panic!("the server did not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn unusable_options_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = |options: &[&str], reason: &str| {
        let one_line = contains(reason).and(contains("\n").count(1));
        program(&[&["serve", "--backend", "cpu"], options].concat())
            .assert()
            .code(1)
            .stderr(one_line);
    };
    refused(&["--port", &port], &format!("127.0.0.1:{port}: "));
    refused(&["--api-key", ""], "the API key is empty");
    refused(&["--api-key-file", "no-such-file"], "no-such-file: ");
    refused(&["--ctx", "100000", "--port", "0"], "--ctx 100000 exceeds");
}
