//! Clients that leave, wait or are refused, over loopback connections.

use std::time::Duration;

use gemma4_wgpu::generate::SchedulerOptions;
use gemma4_wgpu::server::{ServerOptions, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{SLOTS, Server, block_on, greedy, server, server_with};

/// A server that listens. It ends when the sender sends.
async fn listen(server: &Server, drain: Duration) -> (u16, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (end, ended) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = ended.await;
    };
    let serving = serve(server.app.clone(), listener, shutdown, drain);
    (port, end, tokio::spawn(async { serving.await.unwrap() }))
}

async fn send(port: u16, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// An answer that is long enough to be interrupted.
fn long(stream: bool) -> Value {
    greedy("Once upon a time", 400, json!({"stream": stream, "temperature": 5, "top_k": 0}))
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = server();
    block_on(async {
        let (port, _end, _) = listen(&server, Duration::from_secs(5)).await;
        for stream in [true, false] {
            let before = server.engine.load();
            let connection = send(port, &long(stream)).await;
            server.wait_for("an answer", |load| load.running == 1).await;
            let begun = server.engine.load().generated_tokens;
            server.wait_for("a token", |load| load.generated_tokens > begun + 2).await;
            drop(connection);
            let after = server.wait_until_idle().await;
            assert_eq!(after.cancelled, before.cancelled + 1);
            assert!(after.generated_tokens < before.generated_tokens + 400);
        }
    });
}

#[test]
fn a_full_queue_is_refused() {
    let limits = SchedulerOptions { max_queued: 1, ..SchedulerOptions::default() };
    let server = server_with(ServerOptions::default(), limits);
    block_on(async {
        let (port, _end, _) = listen(&server, Duration::from_secs(5)).await;
        let mut held = Vec::new();
        for number in 0..=SLOTS {
            held.push(send(port, &long(true)).await);
            server.wait_for("a place", |load| load.running + load.queued == number + 1).await;
        }
        let answer = server.chat(greedy("Hello", 2, json!({}))).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        let seconds: u32 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=120).contains(&seconds));
        assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
        drop(held);
        server.wait_until_idle().await;
        assert_eq!(server.chat(greedy("Hello", 2, json!({}))).await.status, 200);
    });
}

#[test]
fn a_shutdown_finishes_what_is_under_way() {
    let server = server();
    block_on(async {
        let (port, end, ended) = listen(&server, Duration::from_secs(60)).await;
        let mut connection = send(port, &greedy("Once", 60, json!({"stream": true}))).await;
        server.wait_for("an answer", |load| load.running == 1).await;
        end.send(()).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("data: [DONE]"), "{text}");
        ended.await.unwrap();
        let answer = server.chat(greedy("Hello", 2, json!({}))).await;
        assert_eq!(answer.status, 503);
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(server.get("/health").await.status, 503);
    });
}

#[test]
fn a_shutdown_ends_what_takes_too_long() {
    let server = server();
    block_on(async {
        let (port, end, ended) = listen(&server, Duration::from_millis(1)).await;
        let mut connection = send(port, &long(true)).await;
        server.wait_for("an answer", |load| load.running == 1).await;
        end.send(()).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("the answer was cancelled"), "{text}");
        assert!(!text.contains("[DONE]"));
        ended.await.unwrap();
    });
}
