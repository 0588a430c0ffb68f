//! Recipes of `gemma4-wgpu quantize`, and the files that remain after interruptions and failures.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use crate::support::{TinyModel, error_line, file, on_model, stdout};
use gemma4_wgpu::{
    checkpoint::Checkpoint,
    gpu::{DeviceOptions, Gpu},
    model::source::TensorSource,
    quant::{pack_rows, recipe::Recipe},
    quantize::{Job, Summary},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn quantize(model: &Path, output: &Path, args: &[&str]) -> assert_cmd::Command {
    let mut command = on_model("quantize", model, args);
    command.arg("--output").arg(output);
    command
}

/// Metadata of the only file of a packed model.
fn metadata(dir: &Path) -> BTreeMap<String, String> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().clone().unwrap().into_iter().collect()
}

fn answers(dir: &Path) {
    stdout(&mut on_model("run", dir, &["--backend", "cpu", "-n", "3", "--seed", "1", "hi"]));
}

#[test]
fn the_sensitive_recipe_is_told_and_tabulated() {
    let (model, out) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    let table = stdout(&mut quantize(model.path(), out.path(), &["--recipe", "sensitive"]));
    let metadata = metadata(out.path());
    assert_eq!(metadata["recipe"], "sensitive");
    let rules: Value = serde_json::from_str(&metadata["rules"]).unwrap();
    assert_eq!((&rules[1]["layers"], &rules[2]["method"]), (&json!("edge"), &json!("hqq")));
    assert_eq!(metadata["model.layers.0.mlp.down_proj.weight"], "int8 g32 16x32");
    assert_eq!(metadata["model.layers.1.mlp.up_proj.weight"], "int4 g32 32x16");
    // 32 columns of 4 bits and a scale are 20 bytes a row. With 16 columns, half of that is
    // padding.
    let row = |name: &str| {
        let line = table
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name}: {table}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("mlp.up_proj.weight")[1..5], ["int4", "g32", "2", "10.00"]);
    assert_eq!(row("mlp.down_proj.weight")[1..5], ["int8", "g32", "2", "9.00"]);
    let relative = |name: &str| {
        let cells = row(name);
        cells.last().unwrap().trim_matches(['(', ')', '%']).parse::<f64>().unwrap()
    };
    assert!((0.05..1.0).contains(&relative("mlp.down_proj.weight")), "{table}");
    assert!((3.0..12.0).contains(&relative("mlp.up_proj.weight")), "{table}");
    answers(out.path());
}

/// The table and the projection of per-layer embeddings become int8, as the embedding does.
/// Keys that no layer uses are removed.
/// The result has the same logits as quantization during loading.
#[test]
fn models_with_per_layer_embeddings() {
    let out = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-per-layer");
    stdout(&mut quantize(&model, out.path(), &["--recipe", "default"]));
    let metadata = metadata(out.path());
    assert_eq!(metadata["model.embed_tokens_per_layer.weight"], "int8 g32 85x112");
    assert_eq!(metadata["model.per_layer_model_projection.weight"], "int8 g32 112x32");
    assert_eq!(metadata["model.layers.6.per_layer_input_gate.weight"], "int4 g32 16x32");
    assert!(metadata.contains_key("model.layers.3.self_attn.v_proj.weight"));
    assert!(!metadata.contains_key("model.layers.4.self_attn.v_proj.weight"));
    let logits = |model: &Path| {
        let dir = tempfile::tempdir().unwrap();
        let (ids, logits) = (
            file(&dir, "ids.json", "[2, 7, 3, 30, 2, 11, 9]"),
            dir.path().join("logits.safetensors"),
        );
        let args = ["--backend", "cpu", "--token-ids"];
        stdout(on_model("eval", model, &args).arg(ids).arg("--logits-out").arg(&logits));
        fs::read(logits).unwrap()
    };
    assert_eq!(logits(&model), logits(out.path()));
}

#[test]
fn a_file_of_rules() {
    let (model, out) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    let recipe = r#"
        [[rule]]
        pattern = "embed_tokens"
        bits = 8
        group_size = "row"
        [[rule]]
        pattern = "v_proj"
        bits = 16
        [[rule]]
        pattern = "mlp"
        layers = [1]
        bits = 4
        group_size = 16
        symmetric = false
        method = "mse_clip"
        [[rule]]
        pattern = ""
        bits = 4
        symmetric = false
        method = "hqq"
    "#;
    let recipe = file(&model, "rules.toml", recipe);
    stdout(&mut quantize(model.path(), out.path(), &["--recipe", recipe.to_str().unwrap()]));
    let metadata = metadata(out.path());
    assert_eq!(metadata["model.embed_tokens.weight"], "int8 g32 264x16");
    assert_eq!(metadata.get("model.layers.0.self_attn.v_proj.weight"), None);
    assert_eq!(metadata["model.layers.0.mlp.up_proj.weight"], "int4 g32+offset 32x16");
    assert_eq!(metadata["model.layers.1.mlp.up_proj.weight"], "int4 g16+offset 32x16");
    let checkpoint = Checkpoint::open(out.path()).unwrap();
    assert_eq!(
        checkpoint.info("layers.0.self_attn.v_proj.weight").unwrap().dtype.to_string(),
        "F32"
    );
    let original = Checkpoint::open(model.path()).unwrap();
    let name = "layers.0.self_attn.v_proj.weight";
    let read =
        |checkpoint: &Checkpoint| pollster::block_on(checkpoint.read(name, 0..8)).unwrap().to_vec();
    assert_eq!(read(&checkpoint), read(&original));
    answers(out.path());
}

/// Each group has one scale, and the bytes equal those of packing the floats.
#[test]
fn groups_of_64_and_128() {
    let (model, out) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    let recipe = r#"
        [[rule]]
        pattern = "embed_tokens"
        bits = 8
        group_size = 128
        [[rule]]
        pattern = "mlp"
        bits = 4
        group_size = 64
        symmetric = false
        [[rule]]
        pattern = ""
        bits = 4
        group_size = 64
    "#;
    let recipe = file(&model, "rules.toml", recipe);
    stdout(&mut quantize(model.path(), out.path(), &["--recipe", recipe.to_str().unwrap()]));
    let (original, packed) =
        (Checkpoint::open(model.path()).unwrap(), Checkpoint::open(out.path()).unwrap());
    for (name, format) in [
        ("embed_tokens.weight", "int8 g128"),
        ("layers.0.mlp.down_proj.weight", "int4 g64+offset"),
        ("layers.1.self_attn.o_proj.weight", "int4 g64"),
    ] {
        let (info, stored) = (original.info(name).unwrap(), packed.info(name).unwrap());
        assert_eq!(
            (stored.dtype.to_string(), &stored.shape),
            (format.into(), &info.shape),
            "{name}"
        );
        let &[rows, cols] = info.shape.as_slice() else { panic!("{name} is no matrix") };
        let read = |checkpoint: &Checkpoint| {
            pollster::block_on(checkpoint.read(name, 0..rows)).unwrap().to_vec()
        };
        let wanted =
            pack_rows(info.dtype, &read(&original), rows, cols, format.parse().unwrap()).unwrap();
        assert_eq!(read(&packed), wanted.to_bytes(), "{name}");
        assert_eq!(
            pack_rows(stored.dtype, &read(&packed), rows, cols, wanted.format).unwrap(),
            wanted,
            "{name}"
        );
    }
    answers(out.path());
}

#[test]
fn recipes_that_cannot_be_followed_are_named() {
    let (model, parent) = (TinyModel::new().write(), tempfile::tempdir().unwrap());
    let output = parent.path().join("out");
    let fails = |text: &str, wanted: &[&str]| {
        let recipe = file(&model, "rules.toml", text);
        let line = error_line(&mut quantize(
            model.path(),
            &output,
            &["--recipe", recipe.to_str().unwrap()],
        ));
        assert!(wanted.iter().all(|part| line.contains(part)), "{wanted:?} in {line}");
        assert!(!output.exists());
    };
    fails("[[rule]]\npattern = \"\"\nbits = 3", &["rule 1", "bits = 3"]);
    fails("[[rule]]\npattern = \"\"\nbits = 4\ngroup_size = 48", &["rule 1", "group_size = 48"]);
    fails("[[rule]]\npattern = \"(\"\nbits = 4", &["rule 1", "pattern"]);
    fails("[[rule]]\npattern = \"\"\nbits = 4\nmethod = \"gptq\"", &["line 4", "gptq"]);
    fails("[[rule]]\npattern = \"\"\nbits = 4\nbytes = 1", &["line 4", "bytes"]);
    fails("[[rule]]\npattern = \"mlp\"\nbits = 4", &["embed_tokens.weight", "no rule"]);
    fails("rule = 7", &["rules.toml", "line 1"]);
    let line = error_line(&mut quantize(model.path(), &output, &["--recipe", "best"]));
    assert!(line.contains("best") && line.contains("sensitive"), "{line}");
}

/// Files of a directory with their bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

struct Work {
    model: TempDir,
    checkpoint: Checkpoint,
    parent: TempDir,
    gpu: Option<Gpu>,
}

impl Work {
    fn new() -> Work {
        let model = TinyModel::new().write();
        let checkpoint = Checkpoint::open(model.path()).unwrap();
        Work { model, checkpoint, parent: tempfile::tempdir().unwrap(), gpu: None }
    }

    fn output(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    /// Quantizes into some ten files, while `go_on` returns true for the bytes read.
    fn run(
        &self,
        output: &str,
        recipe: &str,
        go_on: impl Fn(u64) -> bool,
    ) -> gemma4_wgpu::Result<Summary> {
        let job = Job {
            source: &self.checkpoint,
            recipe: &Recipe::named(recipe).unwrap(),
            assets: self.model.path(),
            output: &self.output(output),
            gpu: self.gpu.as_ref(),
            shard_bytes: 2000,
        };
        let mut consumed = 0;
        pollster::block_on(job.run(&mut |bytes| {
            consumed += bytes;
            go_on(consumed)
        }))
    }
}

fn open_gpu() -> Gpu {
    pollster::block_on(Gpu::open(&DeviceOptions::default())).expect("hqq on a GPU needs an adapter")
}

#[test]
fn hqq_on_a_gpu_is_as_exact_and_loads() {
    let mut work = Work::new();
    let on_cpu = work.run("cpu", "hqq", |_| true).unwrap();
    work.gpu = Some(open_gpu());
    let on_gpu = work.run("gpu", "hqq", |_| true).unwrap();
    assert!(work.gpu.as_ref().unwrap().pipeline_stats().made > 0, "the GPU did nothing");
    assert_eq!((on_gpu.kinds.len(), on_gpu.bytes), (on_cpu.kinds.len(), on_cpu.bytes));
    for ((name, gpu), (same_name, cpu)) in on_gpu.kinds.iter().zip(&on_cpu.kinds) {
        assert_eq!((name, gpu.weight), (same_name, cpu.weight));
        assert!((gpu.error / cpu.error - 1.0).abs() < 1e-3, "{name}: {gpu:?}, {cpu:?}");
    }
    answers(&work.output("gpu"));
}

#[test]
fn a_job_of_one_backend_is_not_continued_on_another() {
    let mut work = Work::new();
    work.run("parts", "hqq", |consumed| consumed < 24_000).unwrap_err();
    work.gpu = Some(open_gpu());
    let error = work.run("parts", "hqq", |_| true).unwrap_err().to_string();
    assert!(error.contains("not empty") && error.contains("backend"), "{error}");
    // The recipe `default` never uses the GPU, so another backend may continue the job.
    work.gpu = None;
    work.run("range", "default", |consumed| consumed < 24_000).unwrap_err();
    work.gpu = Some(open_gpu());
    assert!(work.run("range", "default", |_| true).unwrap().resumed_files > 0);
}

#[test]
fn an_interrupted_job_goes_on_where_it_stopped() {
    let work = Work::new();
    let whole = work.run("whole", "mse_clip", |_| true).unwrap();
    assert_eq!(whole.resumed_files, 0);
    work.run("parts", "mse_clip", |consumed| consumed < 24_000).unwrap_err();
    let output = work.output("parts");
    let left = contents(&output);
    assert!(left.len() >= 3 && !left.contains_key("config.json"), "{:?}", left.keys());
    assert!(Checkpoint::open(&output).is_err(), "an unfinished checkpoint opened");
    // A killed process would leave such files.
    fs::write(output.join(".model-00005-of-00009.safetensors.99.tmp"), "half").unwrap();
    let error = work.run("parts", "default", |_| true).unwrap_err().to_string();
    assert!(
        error.contains("not empty") && error.contains("another model, recipe or backend"),
        "{error}"
    );
    // A finished file that was truncated later is made again.
    let (cut, _) = left.iter().find(|(name, _)| name.ends_with(".safetensors")).unwrap();
    fs::write(output.join(cut), "cut").unwrap();
    work.run("parts", "mse_clip", |consumed| consumed < 26_000).unwrap_err();
    let summary = work.run("parts", "mse_clip", |_| true).unwrap();
    assert!(summary.resumed_files >= 2, "{}", summary.resumed_files);
    assert_eq!((&summary.kinds, summary.bytes), (&whole.kinds, whole.bytes));
    assert!(contents(&output) == contents(&work.output("whole")), "{:?}", contents(&output).keys());
    answers(&output);
    let error = work.run("parts", "mse_clip", |_| true).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
}

#[test]
fn what_stops_before_a_file_is_whole_leaves_nothing() {
    let work = Work::new();
    work.run("out", "default", |consumed| consumed < 100).unwrap_err();
    assert!(!work.output("out").exists());
}

/// A checkpoint with an embedding of 1 GiB of zeros, which need no disk space.
fn sparse_model() -> TempDir {
    let rows = 1u64 << 24;
    let mut model = TinyModel::new();
    model.config["vocab_size"] = rows.into();
    let dir = model.write();
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = (bytes.len() - 8 - length) as u64;
    let name = "model.embed_tokens.weight";
    let old = header.as_object_mut().unwrap().remove(name).unwrap();
    // The bytes of the old embedding must belong to a tensor.
    header["unused"] = old;
    header[name] =
        json!({ "dtype": "F32", "shape": [rows, 16], "data_offsets": [data, data + rows * 64] });
    let header = header.to_string();
    let start =
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
    fs::write(&path, &start).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(start.len() as u64 + rows * 64).unwrap();
    dir
}

#[cfg(unix)]
#[test]
fn a_signal_stops_it_and_a_full_disk_leaves_nothing() {
    let model = sparse_model();
    let parent = tempfile::tempdir().unwrap();
    let output = parent.path().join("out");
    let program = assert_cmd::cargo::cargo_bin("gemma4-wgpu");
    // A search takes long enough to interrupt it.
    let recipe =
        file(&model, "slow.toml", "[[rule]]\npattern = \"\"\nbits = 8\nmethod = \"mse_clip\"");
    let mut child = Process::new(&program)
        .arg("quantize")
        .arg("--recipe")
        .arg(&recipe)
        .arg("--model")
        .arg(model.path())
        .arg("--output")
        .arg(&output)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let writes = || {
        let entries = fs::read_dir(&output).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
    };
    let start = Instant::now();
    while !writes() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Process::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!output.exists());

    // A limit on the size of files makes writes fail like a full disk.
    let script =
        "trap '' XFSZ; ulimit -f 2000; exec \"$0\" quantize --model \"$1\" --output \"$2\"";
    let full = Process::new("sh")
        .args(["-c", script])
        .arg(&program)
        .arg(model.path())
        .arg(&output)
        .output()
        .unwrap();
    let stderr = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains("model.safetensors"), "{stderr}");
    assert!(!output.exists());
}
