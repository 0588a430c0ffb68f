//! `gemma4-wgpu eval`: perplexity and logits files.

use std::fs;

use crate::support::{TinyModel, VOCAB, error_line, file, on_model, program, stdout};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

const CPU: [&str; 2] = ["--backend", "cpu"];

fn eval(model: &TempDir, args: &[&str]) -> assert_cmd::Command {
    on_model("eval", model.path(), &[&CPU[..], args].concat())
}

/// The logits of a file that `--logits-out` wrote, shape `[tokens, vocab]`.
fn read_logits(bytes: &[u8]) -> Vec<Vec<f32>> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    assert_eq!(file.names(), ["logits"]);
    let logits = file.tensor("logits").unwrap();
    assert_eq!((logits.dtype(), logits.shape()[1]), (Dtype::F32, VOCAB));
    let values: Vec<f32> =
        logits.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values.len(), logits.shape()[0] * VOCAB);
    values.chunks(VOCAB).map(<[f32]>::to_vec).collect()
}

#[test]
fn logits_of_token_ids_without_a_tokenizer_and_their_perplexity() {
    let model = TinyModel::new().write();
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let ids: Vec<u32> = (0..60).map(|i| (i * 37 + 11) % VOCAB as u32).collect();
    let ids_file = file(&model, "ids.json", format!("{ids:?}"));
    let out = model.path().join("logits.safetensors");
    let printed = stdout(
        eval(&model, &["--json", "--token-ids"]).arg(&ids_file).arg("--logits-out").arg(&out),
    );
    let score: Value = serde_json::from_str(&printed).unwrap();

    let logits = read_logits(&fs::read(&out).unwrap());
    assert_eq!(logits.len(), ids.len());
    let nll = |(row, &target): (&Vec<f32>, &u32)| {
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        sum.ln() - f64::from(row[target as usize])
    };
    let mean = logits.iter().zip(&ids[1..]).map(nll).sum::<f64>() / 59.0;
    assert_eq!(score["tokens"], 59);
    assert!((score["nll"].as_f64().unwrap() - mean).abs() < 1e-6, "{score} but {mean}");
    assert!((score["perplexity"].as_f64().unwrap() - mean.exp()).abs() < 1e-4);
    // Only the result is added to the existing files.
    let names = fs::read_dir(model.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("tmp")), "a temporary file is left");
}

#[test]
fn the_first_tokens_alone_give_the_same_logits() {
    let model = TinyModel::new().write();
    let ids_file = file(&model, "ids.json", "[2, 30, 99, 100, 7, 263, 0, 12, 30, 99]");
    let logits = |name: &str, args: &[&str]| {
        let out = model.path().join(name);
        stdout(eval(&model, args).arg("--token-ids").arg(&ids_file).arg("--logits-out").arg(&out));
        read_logits(&fs::read(out).unwrap())
    };
    let (all, four, one) = (
        logits("a", &[]),
        logits("b", &["--max-tokens", "4"]),
        logits("c", &["--max-tokens", "1"]),
    );
    assert_eq!((all.len(), four.len(), one.len()), (10, 4, 1));
    for (long, short) in all.iter().zip(four.iter()).chain(all.iter().zip(&one)) {
        for (a, b) in long.iter().zip(short) {
            assert!((a - b).abs() < 1e-4, "{a} and {b}");
        }
    }
}

#[test]
fn text_starts_with_bos_and_stands_in_one_context() {
    let model = TinyModel::new().write();
    // The spelling of a special token is text here: six bytes.
    let text = file(&model, "text.txt", "To be, or <bos>");
    let ids: Vec<u32> =
        [2].into_iter().chain("To be, or <bos>".bytes().map(|byte| byte as u32 + 8)).collect();
    let ids_file = file(&model, "ids.json", format!("{ids:?}"));
    let score =
        |kind: &str, path: &std::path::Path| stdout(eval(&model, &["--json", kind]).arg(path));
    assert_eq!(score("--text", &text), score("--token-ids", &ids_file));
    let human = stdout(eval(&model, &["--text"]).arg(&text));
    assert!(human.starts_with("15 tokens, nll ") && human.contains(", perplexity "), "{human}");
}

#[test]
fn quantizing_changes_the_logits_a_little() {
    let model = TinyModel::new().write();
    let ids_file = file(&model, "ids.json", "[2, 30, 99, 100, 7, 263, 0, 12, 30, 99]");
    let logits = |quantize: &str| {
        let out = model.path().join(quantize);
        let mut command = eval(&model, &["--quantize", quantize, "--token-ids"]);
        stdout(command.arg(&ids_file).arg("--logits-out").arg(&out));
        read_logits(&fs::read(out).unwrap()).concat()
    };
    let exact = logits("none");
    let distance =
        |other: Vec<f32>| exact.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (int8, int4) = (distance(logits("int8")), distance(logits("int4")));
    assert!(0.0 < int8 && int8 < int4, "int8 {int8}, int4 {int4}");
}

/// The perplexity equals its definition, whatever the size of the steps.
#[test]
fn divergence_from_a_base() {
    let model = TinyModel::new().write();
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % VOCAB as u32).collect();
    let ids_file = file(&model, "ids.json", format!("{ids:?}"));
    let (base, other) = (model.path().join("base"), model.path().join("other"));
    let run = |args: &[&str], out: &std::path::Path| {
        stdout(eval(&model, args).arg("--token-ids").arg(&ids_file).arg("--logits-out").arg(out))
    };
    run(&["--quantize", "none"], &base);
    let base_path = base.to_str().unwrap();
    let compared = |args: &[&str]| {
        let compare = ["--json", "--ubatch-size", "7", "--kl-divergence-base", base_path];
        let printed = run(&[&compare[..], args].concat(), &other);
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    let same = compared(&["--quantize", "none"]);
    assert!(
        same["kl_divergence"].as_f64().unwrap().abs() < 1e-9 && same["same_top"] == 1.0,
        "{same}"
    );

    let int4 = compared(&["--quantize", "int4"]);
    let [p, q] = [&base, &other].map(|path| {
        let softmax = |row: Vec<f32>| {
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            row.into_iter().map(|logit| f64::from(logit).exp() / sum).collect::<Vec<_>>()
        };
        read_logits(&fs::read(path).unwrap()).into_iter().map(softmax).collect::<Vec<_>>()
    });
    let divergence = |(p, q): (&Vec<f64>, &Vec<f64>)| {
        p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
    };
    let divergences: Vec<f64> = p.iter().zip(&q).map(divergence).collect();
    let (mean, max) =
        (divergences.iter().sum::<f64>() / 40.0, divergences.iter().copied().fold(0.0, f64::max));
    assert!(mean > 1e-6, "{mean}");
    assert!(
        (int4["kl_divergence"].as_f64().unwrap() / mean - 1.0).abs() < 1e-6,
        "{int4} but {mean}"
    );
    assert!(
        (int4["kl_divergence_max"].as_f64().unwrap() / max - 1.0).abs() < 1e-6,
        "{int4} but {max}"
    );

    let mut human = eval(&model, &["--kl-divergence-base", base_path, "--token-ids"]);
    assert!(stdout(human.arg(&ids_file)).contains("\nKL divergence 0."));
    let refused = |args: &[&str]| error_line(eval(&model, args).arg("--token-ids").arg(&ids_file));
    let shorter = refused(&["--kl-divergence-base", base_path, "--max-tokens", "39"]);
    assert!(
        shorter.contains("base: has logits of shape [40, 264]; these tokens have [39, 264]"),
        "{shorter}"
    );
    let weights = model.path().join("model.safetensors");
    let other = refused(&["--kl-divergence-base", weights.to_str().unwrap()]);
    assert!(other.contains("model.safetensors: has no f32 tensor logits"), "{other}");
}

/// Activations of 8 bits on the CPU change predictions of the embedded model little.
#[test]
fn rounded_activations_diverge_little() {
    let folder = TempDir::new().unwrap();
    let base = folder.path().join("base");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/demo/heldout.txt");
    let eval = |args: &[&str]| {
        let mut command = program(&["eval", "--model", "demo", "--json", "--max-tokens", "600"]);
        command.args(CPU).args(args).args(["--text", text]);
        serde_json::from_str::<Value>(&stdout(&mut command)).unwrap()
    };
    let base = base.to_str().unwrap();
    let exact = eval(&["--exact", "--logits-out", base]);
    let rounded = eval(&["--kl-divergence-base", base]);
    let divergence = rounded["kl_divergence"].as_f64().unwrap();
    assert!(divergence > 0.0 && divergence < 0.002, "{divergence}");
    let perplexity = |results: &Value| results["perplexity"].as_f64().unwrap();
    let ratio = perplexity(&rounded) / perplexity(&exact);
    assert!((ratio - 1.0).abs() < 0.005, "{ratio}");
}

#[test]
fn unusable_inputs_are_named_and_leave_no_file() {
    let model = TinyModel::new().write();
    let out_dir = tempfile::tempdir().unwrap();
    let out = out_dir.path().join("logits.safetensors");
    let failed = |contents: &str, wanted: &str| {
        let ids = file(&model, "ids.json", contents);
        let line =
            error_line(eval(&model, &["--token-ids"]).arg(&ids).arg("--logits-out").arg(&out));
        assert!(line.contains(wanted), "{line} does not say {wanted}");
        assert_eq!(fs::read_dir(out_dir.path()).unwrap().count(), 0, "a file is left");
    };
    failed("[1, 264]", "ids.json: token id 264 is outside the vocabulary of 264");
    failed("[1, -4]", "ids.json: not a JSON array of token ids");
    failed("{\"a\": 1}", "ids.json: not a JSON array of token ids");
    failed("[1, 2", "ids.json: not a JSON array of token ids");
    failed("[]", "no tokens");
    failed(&format!("{:?}", vec![3; 600]), "600 tokens, but the context holds 512");

    let line = error_line(eval(&model, &["--token-ids"]).arg(file(&model, "one.json", "[4]")));
    assert!(line.contains("at least 2 tokens, not 1"), "{line}");
    let text = file(&model, "latin1.txt", b"caf\xe9");
    let line = error_line(eval(&model, &["--text"]).arg(text));
    assert!(line.contains("latin1.txt: invalid UTF-8 at byte 3"), "{line}");
    let line = error_line(eval(&model, &["--text", "/nonexistent/text.txt"]).arg("--json"));
    assert!(line.contains("/nonexistent/text.txt"), "{line}");
    let ids = file(&model, "ids.json", "[1, 2, 3]");
    let line =
        error_line(eval(&model, &["--logits-out", "/nonexistent/out", "--token-ids"]).arg(ids));
    assert!(line.contains("/nonexistent/out"), "{line}");
}
