//! A server that answers by a script: scripted_server FILE, where FILE is a JSON list of pairs. The
//! first of a pair is a text of the prompt, the second its answer.

use std::time::Duration;

use gemma4_wgpu::generate::SchedulerOptions;
use gemma4_wgpu::server::{ServerOptions, serve};
use tokio::net::TcpListener;

#[path = "../../tests/server/script.rs"]
mod script;

fn main() {
    let file = std::env::args().nth(1).expect("scripted_server FILE");
    let text = std::fs::read_to_string(file).expect("FILE can be read");
    let answers: Vec<(String, String)> = serde_json::from_str(&text).expect("FILE has pairs");
    let options = ServerOptions { model: "script".into(), ..ServerOptions::default() };
    let app = script::app(answers, options, SchedulerOptions::default());
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        eprintln!("listening on http://{}", listener.local_addr().expect("an address"));
        let never = std::future::pending();
        serve(app, listener, never, Duration::from_secs(1)).await.expect("connections");
    });
}
