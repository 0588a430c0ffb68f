//! `gemma4-wgpu quantize` and the packed format that it writes.

use std::{fs, path::Path};

use crate::support::{TinyModel, VOCAB, error_line, file, on_model, program, stdout};
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

fn quantize(model: &Path, output: &Path, args: &[&str]) -> assert_cmd::Command {
    let mut command = on_model("quantize", model, args);
    command.arg("--output").arg(output);
    command
}

/// A packed tiny model in `out/`.
fn packed(args: &[&str]) -> (TempDir, TempDir) {
    let (model, out) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    stdout(&mut quantize(model.path(), out.path(), args));
    (model, out)
}

/// The logits of a model, as bytes of a safetensors file.
fn logits(model: &Path, args: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    // Ids of the goldens too.
    let ids: Vec<u32> = (0..20).map(|i| (i * 37 + 11) % 64).collect();
    let ids = file(&dir, "ids.json", format!("{ids:?}"));
    let out = dir.path().join("logits.safetensors");
    let mut command =
        on_model("eval", model, &[args, &["--backend", "cpu", "--token-ids"]].concat());
    stdout(command.arg(ids).arg("--logits-out").arg(&out));
    fs::read(out).unwrap()
}

/// The packed file with some bytes of its header replaced by the same number of others.
fn patched(out: &TempDir, from: &str, to: &str) {
    let path = out.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    assert_eq!(from.len(), to.len());
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_packed_model_computes_what_quantizing_while_loading_does() {
    for precision in ["int4", "int8"] {
        let (model, out) = packed(&["--quantize", precision]);
        assert_eq!(
            logits(out.path(), &[]),
            logits(model.path(), &["--quantize", precision]),
            "{precision}"
        );
    }
    let (model, out) = packed(&[]);
    assert_ne!(logits(out.path(), &[]), logits(model.path(), &["--quantize", "none"]));
    let size = |dir: &TempDir| fs::metadata(dir.path().join("model.safetensors")).unwrap().len();
    assert!(size(&out) * 2 < size(&model), "{} of {}", size(&out), size(&model));
    // The text assets are copied too.
    stdout(&mut on_model("run", out.path(), &["--backend", "cpu", "-n", "3", "--seed", "1", "hi"]));
}

/// Experts get 4 bits, and their routers keep those of the source.
#[test]
fn experts_are_packed_and_routers_stay() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-experts");
    for precision in ["int4", "int8"] {
        let out = tempfile::tempdir().unwrap();
        stdout(&mut quantize(&model, out.path(), &["--quantize", precision]));
        assert_eq!(
            logits(out.path(), &[]),
            logits(&model, &["--quantize", precision]),
            "{precision}"
        );
        let bytes = fs::read(out.path().join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let dtype = |name: &str| file.tensor(&format!("model.layers.1.{name}")).unwrap().dtype();
        assert_eq!(dtype("router.proj.weight"), Dtype::BF16);
        assert_eq!(dtype("experts.down_proj"), Dtype::U8);
    }
}

/// The error columns of the table that `quantize` prints.
fn tabulated(table: &str) -> Vec<&str> {
    table.lines().filter_map(|line| line.rsplit_once('(')).map(|(_, relative)| relative).collect()
}

#[test]
fn hqq_searches_where_it_is_told_to() {
    let model = TinyModel::new().write();
    let on = |backend: &str| {
        let out = tempfile::tempdir().unwrap();
        let table = stdout(&mut quantize(
            model.path(),
            out.path(),
            &["--recipe", "hqq", "--backend", backend],
        ));
        (out, table)
    };
    let [(wgpu, on_wgpu), (_, on_cpu)] = ["wgpu", "cpu"].map(on);
    let errors = tabulated(&on_wgpu);
    assert!(errors.len() > 5 && errors == tabulated(&on_cpu), "{on_wgpu}{on_cpu}");
    let text = fs::read(wgpu.path().join("model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&text).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["recipe"], "hqq");
    stdout(&mut on_model(
        "run",
        wgpu.path(),
        &["--backend", "cpu", "-n", "3", "--seed", "1", "hi"],
    ));
    let out = tempfile::tempdir().unwrap();
    let mut command = quantize(model.path(), out.path(), &["--backend", "mlx"]);
    command.assert().failure().stderr(predicates::str::contains("auto, wgpu, cpu"));
}

#[test]
fn the_file_is_valid_for_others_and_says_what_it_holds() {
    let (_, out) = packed(&[]);
    let bytes = fs::read(out.path().join("model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!((metadata["format"].as_str(), metadata["version"].as_str()), ("gemma4-wgpu", "1"));
    assert_eq!(metadata["model.layers.0.self_attn.q_proj.weight"], "int4 g32 16x16");
    assert_eq!(metadata["model.embed_tokens.weight"], format!("int8 g32 {VOCAB}x16"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // 16 columns are padded to 32. They have 16 bytes of int4 and a scale, padded to a word.
    let q_proj = file.tensor("model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!((q_proj.dtype(), q_proj.shape()), (Dtype::U8, &[16, 20][..]));
    assert_eq!(file.tensor("model.norm.weight").unwrap().dtype(), Dtype::F32);
}

#[test]
fn bad_packed_files_are_named() {
    let q_proj = "model.layers.0.self_attn.q_proj.weight\":\"";
    for (from, to, wanted) in [
        ("\"version\":\"1\"", "\"version\":\"2\"", "version \"2\""),
        (
            &format!("{q_proj}int4 g32 16x16"),
            &format!("{q_proj}int4 g32 17x16"),
            "does not fit its bytes",
        ),
        (
            &format!("{q_proj}int4 g32 16x16"),
            &format!("{q_proj}int4 g32 16x99"),
            "does not fit its bytes",
        ),
        (
            &format!("{q_proj}int4 g32 16x16"),
            &format!("{q_proj}int3 g32 16x16"),
            "does not fit its bytes",
        ),
        (
            &format!("{q_proj}int4 g32 16x16"),
            &format!("{q_proj}int4 g32  16x6"),
            "does not fit its bytes",
        ),
        (
            &format!("{q_proj}int4 g32 16x16"),
            &format!("{q_proj}int4 g32 9e99x"),
            "does not fit its bytes",
        ),
        // Without their description, no model can use the bytes.
        (
            "\"model.layers.0.self_attn.q_proj.weight\":\"int4",
            "\"model.layers.0.self_attn.q_proj.wight_\":\"int4",
            "U8",
        ),
    ] {
        let (_, out) = packed(&[]);
        patched(&out, from, to);
        let line = error_line(&mut on_model("run", out.path(), &["--backend", "cpu", "hi"]));
        assert!(line.contains(wanted), "{to}: {line}");
    }
}

#[test]
fn a_scale_that_is_not_finite_is_named() {
    let (_, out) = packed(&[]);
    let path = out.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (_, parsed) = SafeTensors::read_metadata(&bytes).unwrap();
    let (start, _) = parsed.info("model.layers.1.mlp.up_proj.weight").unwrap().data_offsets;
    let scale = 8 + header + start + 16;
    bytes[scale..scale + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let line = error_line(&mut on_model("run", out.path(), &["--backend", "cpu", "hi"]));
    assert!(line.contains("layers.1.mlp.up_proj.weight") && line.contains("not finite"), "{line}");
}

#[test]
fn what_cannot_be_quantized_is_refused_and_leaves_nothing() {
    let (model, out) = packed(&[]);
    let line = error_line(&mut quantize(model.path(), out.path(), &[]));
    assert!(line.contains("not empty"), "{line}");
    let line = error_line(&mut quantize(&model.path().join("model.safetensors"), out.path(), &[]));
    assert!(line.contains("not a directory"), "{line}");

    let mut broken = TinyModel::new();
    broken.tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().1[5] = f32::NAN;
    let (broken, parent) = (broken.write(), tempfile::tempdir().unwrap());
    let output = parent.path().join("packed");
    let line = error_line(&mut quantize(broken.path(), &output, &[]));
    assert!(line.contains("layers.1.mlp.up_proj.weight") && line.contains("NaN"), "{line}");
    assert!(!output.exists());

    let mut incomplete = TinyModel::new();
    incomplete.tensors.remove("model.layers.1.mlp.down_proj.weight");
    let line = error_line(&mut quantize(incomplete.write().path(), &output, &[]));
    assert!(line.contains("layers.1.mlp.down_proj.weight") && line.contains("missing"), "{line}");
    let line = error_line(&mut quantize(out.path(), &output, &["--quantize", "int8"]));
    assert!(line.contains("quantized already"), "{line}");
    assert!(!output.exists());

    program(&["quantize", "--model", "x"]).assert().code(2);
}
