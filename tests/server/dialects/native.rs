//! Endpoints of no other API, and those by which clients configure themselves.

use axum::body::Body;
use axum::http::{Method, Request};
use gemma4_wgpu::generate::SchedulerOptions;
use gemma4_wgpu::server::ServerOptions;
use serde_json::json;

use crate::support::{block_on, scripted, scripted_with, server};

#[test]
fn clients_find_context_and_abilities() {
    let server = scripted(&[]);
    let models = block_on(server.get("/v1/models")).json();
    let model = &models["data"][0];
    assert_eq!((&model["type"], &models["first_id"]), (&json!("model"), &json!("demo")));
    assert_eq!(model["context_length"], 4096);
    assert!(model["created_at"].as_str().unwrap().ends_with('Z'));
    let props = block_on(server.get("/props")).json();
    assert_eq!(props["chat_template_caps"]["supports_tools"], true);
    assert_eq!(props["bos_token"], "<bos>");
    let slots = block_on(server.get("/slots")).json();
    assert_eq!(slots.as_array().unwrap().len(), 4);
    assert_eq!(slots[0], json!({"id": 0, "n_ctx": 4096, "is_processing": false}));
    assert_eq!(block_on(server.get("/")).status, 200);
    let head = Request::head("/").body(Body::empty()).unwrap();
    assert_eq!(block_on(server.send(head)).status, 200);
}

#[test]
fn embeddings_are_refused_by_name() {
    let answer = block_on(scripted(&[]).post("/v1/embeddings", r#"{"input": "a"}"#));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["code"], "unsupported_endpoint");
}

/// The embedded model's template has no tools.
#[test]
fn a_template_without_tools_refuses_them() {
    let server = server();
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let body = json!({"messages": [{"role": "user", "content": "a"}], "tools": [tool]});
    let answer = block_on(server.chat(body));
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["param"], "tools");
}

#[test]
fn other_origins_need_permission() {
    let preflight = || {
        let request = Request::builder().method(Method::OPTIONS).uri("/v1/chat/completions");
        let request = request
            .header("origin", "https://chat.example.com")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type");
        request.body(Body::empty()).unwrap()
    };
    let closed = block_on(scripted(&[]).send(preflight()));
    assert!(!closed.headers.contains_key("access-control-allow-origin"), "{closed:?}");
    assert_eq!(closed.headers["allow"], "POST");
    let options = ServerOptions {
        cors_origins: vec!["https://chat.example.com".into()],
        api_key: Some("k".into()),
        ..ServerOptions::default()
    };
    let open = scripted_with(&[], options, SchedulerOptions::default());
    let answer = block_on(open.send(preflight()));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["access-control-allow-origin"], "https://chat.example.com");
    assert!(
        answer.headers["access-control-allow-headers"].to_str().unwrap().contains("authorization")
    );
    // The answer to an error is readable for the page too.
    let request = Request::get("/v1/models").header("origin", "https://chat.example.com");
    let answer = block_on(open.send(request.body(Body::empty()).unwrap()));
    assert_eq!(answer.status, 401);
    assert!(answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
}

/// Every endpoint of the file exists, and every one of the router is in the file.
#[test]
fn the_openapi_file_describes_all_endpoints() {
    let server = scripted(&[]);
    let file = block_on(server.get("/openapi.json")).json();
    assert_eq!(file["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = file["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let uri = path.replace("{name}", "demo");
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(uri);
            let answer = block_on(server.send(request.body(Body::from("{}")).unwrap()));
            assert!(![404, 405].contains(&answer.status.as_u16()), "{method} {path}: {answer:?}");
            let code = answer.status.as_u16().to_string();
            let responses = &methods[method]["responses"];
            assert!(responses[&code].is_object(), "{method} {path} lacks {code}: {answer:?}");
        }
    }
    let source = include_str!("../../../src/server/router.rs");
    let routes = source.split(".route(\"").skip(1);
    for route in routes.map(|rest| rest.split('"').next().unwrap().replace("{*name}", "{name}")) {
        assert!(paths.contains_key(&route), "the file lacks {route}");
    }
}

/// Each API says in its own form what is wrong.
#[test]
fn absurd_bodies_are_the_clients_fault() {
    let server = scripted(&[]);
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let nested = format!("{{\"a\":{}", "{\"a\":".repeat(99)) + "1" + &"}".repeat(100);
    let call = json!({"function": {"name": "f", "arguments": nested}});
    let nested = json!({"model": "demo", "messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]});
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"\"a\"".to_vec(),
        b"{\"model\": \"\xff\"}".to_vec(),
        b"{\"model\": []}".to_vec(),
        deep.into_bytes(),
    ];
    let paths = [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/api/chat",
        "/api/generate",
        "/api/show",
        "/apply-template",
    ];
    for path in paths {
        for body in &bodies {
            let answer = block_on(server.post(path, body.clone()));
            assert_eq!(answer.status, 400, "{path} {answer:?}");
            let json = answer.json();
            let message = match path {
                path if path.starts_with("/api/") => &json["error"],
                path if path.starts_with("/v1/messages") => {
                    assert_eq!(json["type"], "error");
                    &json["error"]["message"]
                }
                _ => &json["error"]["message"],
            };
            assert!(message.is_string(), "{path} {json}");
        }
    }
    for path in ["/v1/chat/completions", "/api/chat"] {
        let answer = block_on(server.post(path, nested.to_string()));
        assert_eq!(answer.status, 400, "{path} {answer:?}");
    }
}
