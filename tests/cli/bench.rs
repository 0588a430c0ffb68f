//! `gemma4-wgpu bench`: its output and its errors.

use std::fs;

use crate::support::{TinyModel, error_line, on_model, program, stdout};
use serde_json::Value;
use tempfile::TempDir;

const SHORT: [&str; 8] = ["-p", "5,9", "-n", "3", "-d", "0,4", "-r", "2"];

fn bench(model: &TempDir, args: &[&str]) -> assert_cmd::Command {
    on_model("bench", model.path(), &[&SHORT[..], args].concat())
}

#[test]
fn rates_of_every_test_on_every_backend() {
    let model = TinyModel::new().write();
    let backends: &[&str] =
        if cfg!(feature = "mlx") { &["cpu", "wgpu", "mlx"] } else { &["cpu", "wgpu"] };
    for &backend in backends {
        let printed =
            stdout(&mut bench(&model, &["--backend", backend, "--parallel", "1,2", "--json"]));
        let report: Value = serde_json::from_str(&printed).unwrap();
        let results = report["results"].as_array().unwrap();
        let names: Vec<&str> = results.iter().map(|row| row["test"].as_str().unwrap()).collect();
        let expected =
            ["pp5", "pp9", "tg3", "tg3 x 2", "pp5 @ d4", "pp9 @ d4", "tg3 @ d4", "tg3 @ d4 x 2"];
        assert_eq!(names, expected);
        for row in results {
            let rate = |name: &str| row[name].as_f64().unwrap();
            assert!(
                0.0 < rate("min") && rate("min") <= rate("median") && rate("median") <= rate("max"),
                "{row}"
            );
            let samples: Vec<f64> = serde_json::from_value(row["samples"].clone()).unwrap();
            assert_eq!(samples.len(), 2, "{row}");
            assert_eq!(samples.iter().copied().fold(f64::INFINITY, f64::min), rate("min"));
            assert_eq!(samples.iter().copied().fold(0.0, f64::max), rate("max"));
            let is_prompt = row["test"].as_str().unwrap().starts_with("pp");
            assert_eq!(row["tflop_per_s"].is_number(), is_prompt, "{row}");
            assert_eq!(row["weight_gb_per_s"].is_number(), !is_prompt, "{row}");
            assert_eq!(row["step_ms"].is_number(), !is_prompt, "{row}");
            assert_eq!(row["backend"], backend);
        }
        let ceiling = &report["facts"]["read_ceiling_gb_per_s"];
        assert_eq!(ceiling.as_f64().is_some_and(|rate| rate > 0.0), backend == "wgpu", "{ceiling}");
    }
}

/// Steps of one sequence, also at a depth beyond the sliding window.
#[test]
fn steps_of_several_tokens() {
    let model = TinyModel::new().write();
    for backend in ["cpu", "wgpu"] {
        let arguments = ["--backend", backend, "-p", "0", "-n", "0", "-d", "0,40", "-r", "1"];
        let steps = ["--step-tokens", "1,5", "--json"];
        let printed =
            stdout(&mut on_model("bench", model.path(), &[&arguments[..], &steps].concat()));
        let report: Value = serde_json::from_str(&printed).unwrap();
        let results = report["results"].as_array().unwrap();
        let names: Vec<&str> = results.iter().map(|row| row["test"].as_str().unwrap()).collect();
        assert_eq!(names, ["step1", "step5", "step1 @ d40", "step5 @ d40"]);
        for (row, tokens) in results.iter().zip([1.0, 5.0, 1.0, 5.0]) {
            let number = |name: &str| row[name].as_f64().unwrap();
            let expected = 1e3 * tokens / number("median");
            assert!((number("step_ms") / expected - 1.0).abs() < 1e-9, "{row}");
        }
    }
}

/// The prompt is longer than the sliding cache, which then loses the positions before it.
#[test]
fn prompts_beyond_the_sliding_window() {
    let model = TinyModel::new().write();
    for backend in ["cpu", "wgpu"] {
        let arguments = ["--backend", backend, "-p", "440", "-n", "0", "-d", "60", "-r", "2"];
        let printed = stdout(on_model("bench", model.path(), &arguments).arg("--json"));
        let report: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(report["results"][0]["samples"].as_array().unwrap().len(), 2, "{printed}");
    }
}

#[test]
fn sampled_beside_greedy() {
    let model = TinyModel::new().write();
    let backends: &[&str] =
        if cfg!(feature = "mlx") { &["cpu", "wgpu", "mlx"] } else { &["cpu", "wgpu"] };
    for backend in backends {
        let printed = stdout(&mut bench(
            &model,
            &["--backend", backend, "--sample", "--parallel", "1,2", "--json"],
        ));
        let report: Value = serde_json::from_str(&printed).unwrap();
        let results = report["results"].as_array().unwrap();
        let at_start = results.iter().map(|row| row["test"].as_str().unwrap()).take(6);
        let expected = ["pp5", "pp9", "tg3", "tg3 (sampled)", "tg3 x 2", "tg3 x 2 (sampled)"];
        assert_eq!(at_start.collect::<Vec<_>>(), expected);
        assert!(results.iter().all(|row| row["median"].as_f64() > Some(0.0)), "{printed}");
    }
}

#[test]
fn tables() {
    let model = TinyModel::new().write();
    let csv = stdout(&mut bench(&model, &["--backend", "cpu", "--csv"]));
    let columns = |line: &str| line.split(',').count();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 6);
    assert!(lines[0].contains("median") && lines[1].contains("\"pp5\""), "{csv}");
    assert!(lines.iter().all(|line| columns(line) >= columns(lines[0])), "{csv}");
    let samples = lines[1].split('"').find(|cell| cell.starts_with('[')).unwrap();
    assert_eq!(serde_json::from_str::<Vec<f64>>(samples).unwrap().len(), 2, "{csv}");

    let markdown = stdout(&mut bench(&model, &["--backend", "cpu"]));
    let table: Vec<&str> = markdown.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(table.len(), 2 + 6);
    let width = table[0].chars().count();
    assert!(table.iter().all(|line| line.chars().count() == width), "{markdown}");
}

#[test]
fn kernels_of_a_step_as_table_and_trace() {
    let model = TinyModel::new().write();
    let trace = model.path().join("trace.json");
    let mut command = bench(
        &model,
        &["--backend", "wgpu", "--sample", "--parallel", "1,3", "--profile", "--step-tokens", "2"],
    );
    let printed = stdout(command.arg("--trace").arg(&trace));
    for test in ["pp5:", "pp9 @ d4:", "tg3:", "tg3 (sampled):", "tg3 @ d4 x 3:", "step2 @ d4:"] {
        assert!(printed.contains(&format!("\n{test}")), "{printed}");
    }
    for kernel in [
        "| matvec",
        "| matmul",
        "| rope_kv_update",
        "| add_rms_norm",
        "| argmax",
        "| top_k_parts",
        "| sample",
        "16x32 int4 g32",
    ] {
        assert!(printed.contains(kernel), "{kernel} in {printed}");
    }
    let trace: Value = serde_json::from_str(&fs::read_to_string(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let (threads, kernels): (Vec<_>, Vec<_>) = events.iter().partition(|event| event["ph"] == "M");
    assert_eq!(threads.len(), 14);
    assert!(
        kernels
            .iter()
            .all(|event| event["ph"] == "X" && event["ts"].as_f64().is_some_and(|ts| ts >= 0.0))
    );
    assert!(
        kernels.iter().any(|event| event["name"] == "embed" && event["dur"].as_f64() > Some(0.0))
    );
}

#[test]
fn bad_requests() {
    let model = TinyModel::new().write();
    let no_table = error_line(&mut bench(&model, &["--backend", "cpu", "--profile", "--csv"]));
    assert!(no_table.contains("--trace"), "{no_table}");
    let too_deep =
        error_line(&mut on_model("bench", model.path(), &["--backend", "cpu", "-d", "5000"]));
    assert!(too_deep.contains("the model has 512"), "{too_deep}");
    let untimed = error_line(&mut bench(&model, &["--backend", "cpu", "--profile"]));
    assert!(untimed.contains("profile"), "{untimed}");
    if cfg!(feature = "mlx") {
        let untimed = error_line(&mut bench(&model, &["--backend", "mlx", "--profile"]));
        assert!(untimed.contains("profiles on the mlx backend"), "{untimed}");
    }
    let too_many = ["--backend", "cpu", "--step-tokens", "400", "-p", "0", "-n", "0"];
    let too_many = error_line(&mut on_model("bench", model.path(), &too_many));
    assert!(too_many.contains("--step-tokens 400: a step has at most "), "{too_many}");
    let nothing = error_line(&mut on_model(
        "bench",
        model.path(),
        &["--backend", "cpu", "-p", "0", "-n", "0"],
    ));
    assert!(nothing.contains("nothing to measure"), "{nothing}");
    let on_cpu = ["bench", "--synthetic", "270m", "--backend", "cpu"];
    let needs_adapter =
        error_line(assert_cmd::Command::cargo_bin("gemma4-wgpu").unwrap().args(on_cpu));
    assert!(needs_adapter.contains("adapter"), "{needs_adapter}");
}

/// On every backend, and before a byte is loaded.
#[test]
fn tests_beyond_memory() {
    let model = TinyModel::new().write();
    for backend in ["cpu", "wgpu"] {
        let line =
            error_line(&mut bench(&model, &["--backend", backend, "--parallel", "1000000000"]));
        assert!(
            line.contains("the model does not fit: ") && line.contains(" weights + "),
            "{line}"
        );
        let (_, fitting) = line.split_once("positions that fit: ").expect("a number that fits");
        let fitting: usize = fitting.strip_suffix(" (--parallel)").unwrap().parse().unwrap();
        assert!((1..=65535).contains(&fitting), "{line}");
    }
}

#[test]
fn unknown_shapes_are_refused_with_the_known_ones() {
    let mut command = program(&["bench", "--synthetic", "7b"]);
    command.assert().failure().code(2).stderr(predicates::str::contains(
        "[possible values: 31b, 26b-a4b, 12b, e4b, e2b, 270m, demo]",
    ));
}

/// Random weights, which need no download, on MLX too.
#[cfg(feature = "mlx")]
#[test]
fn synthetic_models_on_mlx() {
    let arguments = ["--backend", "mlx", "-p", "4", "-n", "2", "-r", "1", "--json"];
    let printed =
        stdout(&mut program(&[&["bench", "--synthetic", "demo"][..], &arguments].concat()));
    let report: Value = serde_json::from_str(&printed).unwrap();
    for row in report["results"].as_array().unwrap() {
        assert!(row["backend"] == "mlx" && row["median"].as_f64() > Some(0.0), "{row}");
    }
}

#[test]
fn kernels_are_measured_once() {
    let home = tempfile::tempdir().unwrap();
    let model = TinyModel::new().write();
    // All options but one are set, which keeps the run short.
    let kernels =
        "subgroups=on,f16=off,dp4a=off,coop=off,large_workgroups=off,prefetch=off,persistent=off";
    let run = |args: &[&str]| {
        let output = bench(&model, &[&["--autotune"], args].concat())
            .env("XDG_CACHE_HOME", home.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let first = run(&["--backend", "wgpu", "--kernels", kernels]);
    assert!(first.contains("autotune: kept: subgroups=on,"), "{first}");
    assert!(!first.contains("found before"), "{first}");
    let again = run(&["--backend", "wgpu", "--kernels", kernels]);
    let tuned = again.lines().filter(|line| line.starts_with("autotune: "));
    assert!(
        again.starts_with("autotune: found before: subgroups=on,") && tuned.count() == 1,
        "{again}"
    );
    assert_eq!(run(&["--backend", "wgpu", "--kernels", kernels, "--quiet"]), "");

    let files: Vec<_> = fs::read_dir(home.path().join("gemma4-wgpu/autotune")).unwrap().collect();
    let [Ok(file)] = files.as_slice() else { panic!("one file, not {files:?}") };
    let found: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
    for trial in found["trials"].as_array().unwrap() {
        assert!(trial["ratios"]["Ok"]["prompt"].as_f64().unwrap() > 0.0, "{trial}");
    }

    // A command of several sequences has one more test, and a result of its own.
    let several = run(&["--backend", "wgpu", "--kernels", kernels, "--parallel", "1,3"]);
    assert!(several.contains(", several sequences ") && !several.contains("found before"));

    let mut refused = bench(&model, &["--backend", "cpu", "--autotune"]);
    assert!(error_line(&mut refused).contains("--autotune do not apply to --backend cpu"));
}
