//! `--backend mlx`: with MLX it runs like other backends. Without MLX the error says how to get it.

use crate::support::{TinyModel, error_line, on_model, program, stdout};
use serde_json::Value;

#[cfg(feature = "mlx")]
#[test]
fn answers_as_the_cpu_does() {
    let model = TinyModel::new().write();
    let answer = |backend: &str| -> Value {
        let options = [
            "--backend",
            backend,
            "--exact",
            "--temperature",
            "0",
            "--max-new-tokens",
            "12",
            "--json",
            "ab",
        ];
        serde_json::from_str(&stdout(&mut on_model("run", model.path(), &options))).unwrap()
    };
    let (cpu, mlx) = (answer("cpu"), answer("mlx"));
    assert_eq!(mlx["backend"], "mlx");
    assert!(mlx["device"].as_str().unwrap().contains("MLX 0."), "{mlx}");
    assert_eq!((&mlx["tokens"], &mlx["text"]), (&cpu["tokens"], &cpu["text"]));
    assert!(mlx["weight_bytes"].as_u64() > Some(0) && mlx["kv_bytes"].as_u64() > Some(0));
}

#[cfg(feature = "mlx")]
#[test]
fn evaluates() {
    let model = TinyModel::new().write();
    let ids =
        crate::support::file(&model, "ids.json", "[2, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50]");
    let perplexity = |backend: &str| {
        let printed = stdout(
            on_model(
                "eval",
                model.path(),
                &["--backend", backend, "--exact", "--json", "--token-ids"],
            )
            .arg(&ids),
        );
        serde_json::from_str::<Value>(&printed).unwrap()["perplexity"].as_f64().unwrap()
    };
    let (cpu, mlx) = (perplexity("cpu"), perplexity("mlx"));
    assert!((mlx / cpu - 1.0).abs() < 1e-3, "{mlx}, on the CPU {cpu}");
}

#[cfg(feature = "mlx")]
#[test]
fn devices_tell_of_it() {
    let text = stdout(&mut program(&["devices"]));
    assert!(text.contains("mlx: ") && text.contains("mlx version"), "{text}");
    let list: Value = serde_json::from_str(&stdout(&mut program(&["devices", "--json"]))).unwrap();
    let mlx = list.as_array().unwrap().iter().find(|device| device["index"] == "mlx").unwrap();
    assert!(mlx["mlx_version"].as_str().unwrap().starts_with("0."), "{mlx}");
    assert!(mlx["memory_limit_bytes"].as_u64() > Some(0), "{mlx}");
}

#[cfg(feature = "mlx")]
#[test]
fn a_context_beyond_memory_names_its_bytes() {
    let mut model = TinyModel::with_full_head_dim(512);
    model.config["max_position_embeddings"] = 1_000_000_000.into();
    let checkpoint = model.write();
    let line = error_line(&mut on_model(
        "run",
        checkpoint.path(),
        &["--backend", "mlx", "--ctx", "1000000000", "a"],
    ));
    assert!(line.contains("KV cache") && line.contains("bytes"), "{line}");
}

#[cfg(feature = "mlx")]
#[test]
fn adapters_are_not_for_it() {
    let model = TinyModel::new().write();
    let line = error_line(&mut on_model(
        "run",
        model.path(),
        &["--backend", "mlx", "--adapter", "0", "a"],
    ));
    assert!(line.contains("--backend mlx"), "{line}");
}

/// A file in place of the temporary folder, so nothing can be loaded from there.
#[cfg(feature = "mlx")]
#[test]
fn a_library_that_cannot_be_loaded_is_an_error() {
    let model = TinyModel::new().write();
    let mut command = on_model("run", model.path(), &["--backend", "mlx", "a"]);
    let line = error_line(command.env("TMPDIR", model.path().join("config.json")));
    assert!(line.contains("MLX cannot be loaded") && line.contains("temporary file"), "{line}");
    // Everything else works without MLX.
    let mut command =
        on_model("run", model.path(), &["--backend", "cpu", "--temperature", "0", "a"]);
    stdout(command.env("TMPDIR", model.path().join("config.json")));
}

/// Another file has MLX's place. The loader finds it before the shim's own path.
#[cfg(all(feature = "mlx", target_os = "linux"))]
#[test]
fn a_broken_mlx_is_an_error_that_says_what_to_install() {
    let model = TinyModel::new().write();
    crate::support::file(&model, "libmlx.so", "not a library");
    let mut command = on_model("run", model.path(), &["--backend", "mlx", "a"]);
    let line = error_line(command.env("LD_LIBRARY_PATH", model.path()));
    assert!(line.contains("MLX cannot be loaded") && line.contains("libmlx.so"), "{line}");
    assert!(
        line.contains("python3 -m pip install") && line.contains("build the program again"),
        "{line}"
    );
    let list = stdout(program(&["devices"]).env("LD_LIBRARY_PATH", model.path()));
    assert!(list.contains("cannot run"), "{list}");
}

#[cfg(not(feature = "mlx"))]
#[test]
fn a_program_without_it_says_how_to_build() {
    let model = TinyModel::new().write();
    let line = error_line(&mut on_model("run", model.path(), &["--backend", "mlx", "a"]));
    assert!(line.contains("--features mlx"), "{line}");
    let list: Value = serde_json::from_str(&stdout(&mut program(&["devices", "--json"]))).unwrap();
    assert!(list.as_array().unwrap().iter().all(|device| device["index"].is_number()), "{list}");
}
