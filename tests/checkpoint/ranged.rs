//! Checkpoints that are read by ranges, as in a browser, equal the same files when mapped.

use std::{
    fs,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
};

use crate::support::{Meta, gemma4, safetensors};
use gemma4_wgpu::{
    checkpoint::{Checkpoint, NamedFile, RangeRead},
    model::{
        source::{LocalBoxFuture, TensorSource},
        weights::planned_tensors,
    },
    quant::{Dtype, Quantize},
};

/// Bytes that record which of them were read.
struct Spied {
    bytes: Vec<u8>,
    read: Arc<Mutex<Vec<Range<u64>>>>,
    /// From this offset on, reads return fewer bytes than requested.
    cut: u64,
}

impl RangeRead for Spied {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, range: Range<u64>) -> LocalBoxFuture<'_, Result<Vec<u8>, String>> {
        assert!(range.end <= self.len());
        self.read.lock().unwrap().push(range.clone());
        let part = range.start as usize..range.end.min(self.cut) as usize;
        Box::pin(async move { self.bytes.get(part).map(<[u8]>::to_vec).ok_or("gone".to_owned()) })
    }
}

fn file(name: &str, bytes: Vec<u8>) -> NamedFile {
    NamedFile {
        name: name.into(),
        bytes: Box::new(Spied { bytes, read: Arc::default(), cut: u64::MAX }),
    }
}

fn files_in(directory: &str) -> Vec<NamedFile> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| file(path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap()))
        .collect()
}

fn open(files: Vec<NamedFile>) -> gemma4_wgpu::Result<Checkpoint> {
    pollster::block_on(Checkpoint::open_ranged(files))
}

fn open_error(files: Vec<NamedFile>) -> String {
    open(files).err().expect("should not open").to_string()
}

/// Compares every tensor, read in pieces from one checkpoint and whole from the other.
fn assert_same(ranged: &Checkpoint, mapped: &Checkpoint) {
    assert_eq!(ranged.config(), mapped.config());
    assert_eq!(ranged.description(), mapped.description());
    let planned = planned_tensors(mapped, Quantize::Int4).unwrap();
    assert_eq!(planned_tensors(ranged, Quantize::Int4).unwrap(), planned);
    for tensor in planned {
        let rows = if tensor.info.shape.len() < 2 { 1 } else { tensor.info.shape[0] };
        let read = |source: &Checkpoint, rows: Range<usize>| {
            pollster::block_on(source.read(&tensor.name, rows)).unwrap().into_owned()
        };
        let pieces = [read(ranged, 0..rows / 2), read(ranged, rows / 2..rows)].concat();
        assert_eq!(pieces, read(mapped, 0..rows), "{}", tensor.name);
    }
    let (ranged, mapped) = (ranged.text_assets().unwrap(), mapped.text_assets().unwrap());
    assert_eq!(format!("{ranged:?}"), format!("{mapped:?}"));
}

#[test]
fn safetensors_and_gguf_equal_their_mapped_selves() {
    // The directory of the split GGUF also has a file of golden logits.
    for directory in
        ["tests/goldens/gemma4-dense-gqa", "assets/demo", "tests/goldens_gguf/gemma4_mixed_split"]
    {
        let mapped = Checkpoint::open(directory).unwrap();
        let ranged = open(files_in(directory)).unwrap();
        assert_same(&ranged, &mapped);
        assert_eq!(ranged.file_bytes(), mapped.file_bytes());
    }
    let path = "tests/goldens_gguf/gemma4/model.gguf";
    let ranged = open(vec![file("model.gguf", fs::read(path).unwrap())]).unwrap();
    assert_same(&ranged, &Checkpoint::open(path).unwrap());
}

#[test]
fn integers_of_other_programs_equal_their_mapped_selves() {
    for form in [
        "mlx",
        "compressed_tensors",
        "compressed_tensors_asymmetric",
        "compressed_tensors_mixed",
        "torchao",
    ] {
        let directory = format!("tests/fixtures/import/{form}");
        let mapped = Checkpoint::open(&directory).unwrap();
        let names = ["config.json", "model.safetensors"];
        let files = names.map(|name| file(name, fs::read(format!("{directory}/{name}")).unwrap()));
        let ranged = open(files.into()).unwrap();
        assert_same(&ranged, &mapped);
        // Rows that begin inside a word of packed zero points.
        let packed = planned_tensors(&mapped, Quantize::Int4).unwrap();
        for tensor in packed.iter().filter(|tensor| matches!(tensor.info.dtype, Dtype::Packed(_))) {
            let read = |source: &Checkpoint| {
                pollster::block_on(source.read(&tensor.name, 3..13)).unwrap().into_owned()
            };
            assert_eq!(read(&ranged), read(&mapped), "{form}: {}", tensor.name);
        }
    }
}

/// A GGUF's head is used if it differs from the embedding. Otherwise the embedding is the head.
#[test]
fn a_head_is_tied_by_its_bytes() {
    let directory = tempfile::tempdir().unwrap();
    for (type_id, change, tied) in [(0, 0, true), (0, 1, false), (1, 0, false)] {
        let mut model = gemma4();
        let mut bytes = model.tensors[0].bytes.clone();
        bytes.truncate(bytes.len() / (1 + type_id as usize));
        *bytes.last_mut().unwrap() ^= change;
        let shape = model.tensors[0].shape.clone();
        model.tensor("output.weight", &shape, type_id, bytes);
        let path = directory.path().join("model.gguf");
        model.write(&path);
        let mapped = Checkpoint::open(&path).unwrap();
        assert_eq!(mapped.config().tie_word_embeddings, tied, "type {type_id}, change {change}");
        let ranged = open(vec![file("model.gguf", model.bytes())]).unwrap();
        assert_eq!(ranged.config(), mapped.config());
        assert_eq!(mapped.unused().len(), tied as usize);
    }
    let mut model = gemma4();
    model.f32("output.weight", &[9, 32]);
    let error = open_error(vec![file("model.gguf", model.bytes())]);
    assert!(
        error.contains("lm_head.weight") && error.contains("[9, 32]") && error.contains("[8, 32]"),
        "{error}"
    );
}

/// All shards without an index are enough, as in mlx-lm. Some of them are not.
#[test]
fn shards_need_no_index() {
    let from = "tests/goldens/gemma4-dense-gqa";
    let whole = Checkpoint::open(from).unwrap();
    let mut files = files_in(from);
    files.retain(|file| {
        file.name != "model.safetensors.index.json" && file.name != "golden.safetensors"
    });
    assert_same(&open(files).unwrap(), &whole);
    let directory = tempfile::tempdir().unwrap();
    for file in
        ["config.json", "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"]
    {
        fs::copy(Path::new(from).join(file), directory.path().join(file)).unwrap();
    }
    let error = Checkpoint::open(directory.path()).err().unwrap().to_string();
    assert!(error.contains("model-00002-of-00003.safetensors is missing"), "{error}");
    assert!(error.contains("model.safetensors.index.json"), "{error}");
    let second = "model-00002-of-00003.safetensors";
    fs::copy(Path::new(from).join(second), directory.path().join(second)).unwrap();
    assert_same(&Checkpoint::open(directory.path()).unwrap(), &whole);
    assert_same(&Checkpoint::open(directory.path().join(second)).unwrap(), &whole);
}

#[test]
fn rope_factors_are_read_wherever_they_lie() {
    let mut model = gemma4();
    let at = model.tensors.iter().position(|tensor| tensor.name == "rope_freqs.weight").unwrap();
    let factors = model.tensors.remove(at);
    let weights = 1 << 23;
    model.tensor("unused.weight", &[weights / 4], 0, vec![0; weights as usize]);
    model.tensors.push(factors);
    let ranged = open(vec![file("model.gguf", model.bytes())]).unwrap();
    let ready = open(vec![file("model.gguf", gemma4().bytes())]).unwrap();
    assert_eq!(ranged.config(), ready.config());
}

#[test]
fn opening_reads_no_more_than_headers_of_any_length() {
    let mut model = gemma4();
    // A vocabulary that exceeds the first read twice over.
    model.set(
        "tokenizer.ggml.tokens",
        Meta::Texts((0..100_000).map(|i| format!("token number {i:09}")).collect()),
    );
    let weights = 1 << 23;
    model.tensor("unused.weight", &[weights / 4], 0, vec![0; weights as usize]);
    let bytes = model.bytes();
    let (header, whole) = (bytes.len() as u64 - weights, bytes.len() as u64);
    let read = Arc::new(Mutex::new(Vec::new()));
    let spied = Box::new(Spied { bytes, read: read.clone(), cut: u64::MAX });
    open(vec![NamedFile { name: "model.gguf".into(), bytes: spied }]).unwrap();
    let read = read.lock().unwrap();
    assert!(read.len() > 2, "{read:?}");
    assert!(
        read.windows(2).all(|pair| pair[0].end == pair[1].start),
        "bytes were read twice: {read:?}"
    );
    let last = read.last().unwrap().end;
    assert!(last < 2 * header && last < whole, "read {last} bytes for a header of {header}");
}

#[test]
fn what_is_no_model_is_named() {
    let tiny = gemma4().bytes();
    let config = || file("config.json", fs::read("assets/demo/config.json").unwrap());
    let shard = || file("a.safetensors", safetensors(&[("x", "F32", &[1], &[0; 4])]));
    let part = "model-00002-of-00003.gguf";
    let part = || {
        file(part, fs::read(Path::new("tests/goldens_gguf/gemma4_mixed_split").join(part)).unwrap())
    };
    let first = "model-00001-of-00003.gguf";
    let first = || {
        file(
            first,
            fs::read(Path::new("tests/goldens_gguf/gemma4_mixed_split").join(first)).unwrap(),
        )
    };
    for (files, wanted) in [
        (vec![file("cat.png", vec![1])], "cat.png: neither a .safetensors nor a .gguf file"),
        (vec![], "no .safetensors and no .gguf"),
        (vec![file("a.gguf", b"PNG".repeat(9))], "a.gguf: not a GGUF file"),
        (vec![file("a.gguf", vec![])], "a.gguf: the file is empty"),
        (vec![file("a.gguf", tiny[..tiny.len() - 9].to_vec())], "a.gguf: tensor"),
        (vec![file("a.gguf", tiny[..300].to_vec())], "ends within its header"),
        (
            vec![file("a.gguf", tiny.clone()), file("b.gguf", tiny.clone())],
            "several GGUF models (a.gguf, b.gguf…)",
        ),
        (vec![first(), part()], "model-00003-of-00003.gguf: missing among the files given"),
        (vec![shard()], "config.json is missing"),
        (vec![shard(), config()], "embed_tokens"),
        (
            vec![shard(), file("b.safetensors", vec![]), config()],
            "without model.safetensors.index.json",
        ),
        (vec![file("a.safetensors", vec![9; 20]), config()], "a.safetensors: claims a header"),
    ] {
        let error = match open(files) {
            Ok(checkpoint) => planned_tensors(&checkpoint, Quantize::Int4)
                .map(|_| String::new())
                .unwrap_err()
                .to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(wanted) && !error.contains('\n'), "{error}, not {wanted}");
    }
}

#[test]
fn short_and_failed_reads_are_errors() {
    let bytes = gemma4().bytes();
    let cut = |cut| {
        let spied = Spied { bytes: bytes.clone(), read: Arc::default(), cut };
        vec![NamedFile { name: "a.gguf".into(), bytes: Box::new(spied) }]
    };
    let error = open_error(cut(100));
    assert!(error.contains("a.gguf: gave 100 bytes from 0"), "{error}");
    let directory = "tests/goldens/gemma4-dense-gqa";
    let mut files = files_in(directory);
    files.retain(|file| file.name != "model-00002-of-00003.safetensors");
    let error = open_error(files);
    assert!(error.contains("model-00002-of-00003.safetensors: missing"), "{error}");
}
