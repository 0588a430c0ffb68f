//! Corrupt and hostile files cause one clear line, no panic, and no large allocations.

use crate::support::{GgufFile, Meta, gemma4, safetensors, safetensors_with, text, texts};
use gemma4_wgpu::{
    checkpoint::{Checkpoint, gguf::container::Gguf, safetensors::header},
    model::config::ModelConfig,
};
use proptest::prelude::*;

/// The start of a valid GGUF file, up to its counts.
fn gguf_header(tensors: u64, metadata: u64) -> Vec<u8> {
    [b"GGUF".as_slice(), &3u32.to_le_bytes(), &tensors.to_le_bytes(), &metadata.to_le_bytes()]
        .concat()
}

/// A file of one metadata pair `k` of this type and these bytes.
fn gguf_pair(kind: u32, value: &[u8]) -> Vec<u8> {
    [gguf_header(0, 1).as_slice(), &1u64.to_le_bytes(), b"k", &kind.to_le_bytes(), value].concat()
}

/// A file of one tensor `t`.
fn gguf_tensor(dimensions: &[u64], type_id: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = dimensions.iter().flat_map(|size| size.to_le_bytes()).collect();
    let count = (dimensions.len() as u32).to_le_bytes();
    let header = gguf_header(1, 0);
    let name = 1u64.to_le_bytes();
    let mut file =
        [&header, &name[..], b"t", &count, &sizes, &type_id.to_le_bytes(), &offset.to_le_bytes()]
            .concat();
    file.resize(file.len().next_multiple_of(32) + 64, 0);
    file
}

#[test]
fn hostile_gguf() {
    let array = |kind: u32, count: u64, bytes: &[u8]| {
        [&kind.to_le_bytes(), &count.to_le_bytes()[..], bytes].concat()
    };
    let alignment = |value: Meta| {
        let mut file = GgufFile::new();
        file.set("general.alignment", value).bytes()
    };
    let mut twice = GgufFile::new();
    twice.f32("t", &[4]).f32("t", &[4]);
    let mut pair_twice = GgufFile::new();
    pair_twice.metadata = vec![("k".into(), Meta::U32(1)), ("k".into(), Meta::U32(1))];
    for (file, part) in [
        (b"".to_vec(), "the file ends within its header"),
        (b"GGUF".to_vec(), "the file ends within its header"),
        (b"GGML\x03\0\0\0".to_vec(), "wrong magic"),
        (b"GGUF\x01\0\0\0".to_vec(), "version 1 is not supported"),
        (b"GGUF\x04\0\0\0".to_vec(), "version 4 is not supported"),
        (b"GGUF\0\0\0\x03".to_vec(), "big-endian"),
        (gguf_header(u64::MAX, 0), "tensors: corrupt"),
        (gguf_header(0, 1 << 63), "metadata pairs: corrupt"),
        (gguf_header(0, 5), "the file ends within its header"),
        (
            [gguf_header(0, 1), u64::MAX.to_le_bytes().to_vec()].concat(),
            "the file ends within its header",
        ),
        (
            [gguf_header(0, 1), (1u64 << 63).to_le_bytes().to_vec()].concat(),
            "the file ends within its header",
        ),
        (gguf_pair(13, &[0; 8]), "metadata \"k\": unknown value type 13"),
        (gguf_pair(8, &u64::MAX.to_le_bytes()), "metadata \"k\": the file ends"),
        (gguf_pair(9, &array(4, u64::MAX, &[0; 8])), "more than the file holds"),
        (gguf_pair(9, &array(10, 1 << 61, &[0; 8])), "more than the file holds"),
        (gguf_pair(9, &array(8, 2, &[0; 15])), "more than the file holds"),
        (gguf_pair(9, &array(8, 1, &100u64.to_le_bytes())), "the file ends"),
        (gguf_pair(9, &array(9, 1, &array(9, 1, &array(4, 1, &[0; 4])))), "arrays of arrays"),
        (pair_twice.bytes(), "metadata \"k\": is there twice"),
        (twice.bytes(), "tensor \"t\" is there twice"),
        (alignment(Meta::U32(0)), "not a power of two"),
        (alignment(Meta::U32(48)), "not a power of two"),
        (alignment(Meta::I32(-32)), "not a power of two"),
        (alignment(text("32")), "not a power of two"),
        (gguf_tensor(&[1; 5], 0, 0), "5 dimensions"),
        (gguf_tensor(&[u64::MAX], 0, 0), "negative size"),
        (gguf_tensor(&[1 << 40, 1 << 40], 0, 0), "does not fit"),
        (gguf_tensor(&[1 << 62], 0, 0), "does not fit"),
        (gguf_tensor(&[17], 0, 0), "past the end of the file"),
        (gguf_tensor(&[1], 0, 64), "past the end of the file"),
        (gguf_tensor(&[1], 0, u64::MAX - 31), "past the end of the file"),
        (gguf_tensor(&[1], 0, 4), "not a multiple of the alignment"),
        (gguf_tensor(&[16], 8, 0), "does not fit Q8_0"),
    ] {
        let message = Gguf::parse(&file).unwrap_err();
        assert!(message.contains(part), "{message} lacks {part}");
        assert!(!message.contains('\n'), "{message}");
    }
    // Files next to the limits of the last cases are valid.
    for file in [
        gguf_tensor(&[16], 0, 0),
        gguf_tensor(&[1], 0, 32),
        gguf_tensor(&[], 0, 0),
        gguf_tensor(&[0], 0, 0),
    ] {
        assert!(Gguf::parse(&file).is_ok());
    }
}

#[test]
fn names_in_messages_are_one_line() {
    let mut file = GgufFile::new();
    let name = format!("a\n\x1b[31m{}", "x".repeat(1000));
    file.f32(&name, &[4]).f32(&name, &[4]);
    let message = Gguf::parse(&file.bytes()).unwrap_err();
    assert!(message.starts_with("tensor \"a[31mxxx") && message.len() < 120, "{message}");
}

#[test]
fn hostile_safetensors() {
    let f32s = |offsets: &str| {
        format!(r#"{{"t": {{"dtype": "F32", "shape": [4], "data_offsets": {offsets}}}}}"#)
    };
    let shaped = |shape: &str| {
        format!(r#"{{"t": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 16]}}}}"#)
    };
    let one = f32s("[0, 16]");
    let twice = format!("{}, {}", &one[..one.len() - 1], &one[1..]);
    let gap = r#"{"t": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                 "u": {"dtype": "U8", "shape": [4], "data_offsets": [12, 16]}}"#;
    let overlap = r#"{"t": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                     "u": {"dtype": "U8", "shape": [12], "data_offsets": [4, 16]}}"#;
    let with = |header: &str| safetensors_with(header, &[0; 16]);
    for (file, part) in [
        (vec![0; 7], "shorter than"),
        (
            [(1u64 << 63).to_le_bytes().to_vec(), vec![b'{'; 64]].concat(),
            "claims a header of 9223372036854775808 bytes",
        ),
        ([u64::MAX.to_le_bytes().to_vec(), vec![b'{'; 64]].concat(), "claims a header"),
        ([65u64.to_le_bytes().to_vec(), vec![b'{'; 64]].concat(), "truncated or corrupt"),
        (with(""), "bad JSON"),
        (with("[]"), "bad JSON"),
        (with("{\"t\": 1}"), "bad JSON"),
        (with(&"[".repeat(100_000)), "bad JSON"),
        (with(&f32s("[0, 17]")), "past the end of the file"),
        (with(&f32s("[0, 9223372036854775807]")), "past the end of the file"),
        (with(&f32s("[16, 0]")), "past the end of the file"),
        (with(&f32s("[-16, 0]")), "past the end of the file"),
        (with(&f32s("[0, 18446744073709551615]")), "bad JSON"),
        (with(&f32s("[0, 12]")), "does not fill its 12 bytes"),
        (with(&shaped("[-4]")), "negative size in shape [-4]"),
        (with(&shaped("[3]")), "does not fill its 16 bytes"),
        (with(&shaped("[4294967296, 4294967296]")), "does not fill its 16 bytes"),
        (with(&shaped("[4611686018427387905]")), "does not fill its 16 bytes"),
        (with(&twice), "tensor \"t\" is there twice"),
        (with(gap), "overlaps its neighbour or leaves a gap"),
        (with(overlap), "overlaps its neighbour or leaves a gap"),
        (safetensors_with(&one, &[0; 20]), "the tensors end at byte"),
        (safetensors_with(&one, &[0; 12]), "past the end of the file"),
    ] {
        let message = header::parse(&file).unwrap_err();
        assert!(message.contains(part), "{message} lacks {part}");
        assert!(!message.contains('\n') && message.len() < 300, "{message}");
    }
    let tensors = header::parse(&with(&one)).unwrap();
    assert_eq!((tensors.len(), tensors[0].range.end - tensors[0].range.start), (1, 16));
}

#[test]
fn truncated_files_fail_with_their_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let whole = gemma4().bytes();
    for len in [5, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        let message = Checkpoint::open(&path).err().unwrap().to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
    }
}

/// Parses a file, reads all its parts and makes a config from it.
fn exercise_gguf(bytes: &[u8]) {
    let Ok(file) = Gguf::parse(bytes) else { return };
    for tensor in file.tensors() {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len() as u64);
        assert_eq!(file.data(tensor).len() as u64, tensor.range.end - tensor.range.start);
    }
    if let Ok(Some(array)) = file.array("tokenizer.ggml.tokens") {
        assert_eq!(array.iter().count(), array.len());
        assert!(array.len() <= bytes.len());
    }
    if let Ok(config) = ModelConfig::from_gguf(&[file]) {
        config.validate().unwrap();
    }
}

fn exercise_safetensors(bytes: &[u8]) {
    let Ok(tensors) = header::parse(bytes) else { return };
    for tensor in tensors {
        assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= bytes.len() as u64);
    }
}

fn valid_gguf() -> Vec<u8> {
    let mut file = gemma4();
    file.set("tokenizer.ggml.tokens", texts(&["<pad>", "<eos>", "<bos>"])).bytes()
}

fn valid_safetensors() -> Vec<u8> {
    safetensors(&[
        ("model.embed_tokens.weight", "BF16", &[3, 4], &[1; 24]),
        ("model.norm.weight", "F32", &[4], &[2; 16]),
        ("model.vision_tower.bias", "F8_E4M3", &[2], &[3; 2]),
    ])
}

/// A valid file with some bytes replaced and its end cut off.
fn mutated(valid: Vec<u8>, header: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0x80)];
    let header = header.min(valid.len());
    let changes = prop::collection::vec((0..header, byte), 0..8);
    let len = prop_oneof![3 => Just(valid.len()), 1 => 0..=valid.len()];
    (changes, len).prop_map(move |(changes, len)| {
        let mut bytes = valid.clone();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        bytes.truncate(len);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_gguf(bytes in mutated(valid_gguf(), 4000)) {
        exercise_gguf(&bytes);
    }

    #[test]
    fn mutated_safetensors(bytes in mutated(valid_safetensors(), usize::MAX)) {
        exercise_safetensors(&bytes);
    }

    #[test]
    fn random_bytes(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise_gguf(&tail);
        exercise_gguf(&[gguf_header(1, 1), tail.clone()].concat());
        exercise_safetensors(&tail);
        exercise_safetensors(&[(tail.len() as u64).to_le_bytes().to_vec(), tail].concat());
    }

    #[test]
    fn mutated_config_json(at in 0usize..2000, insert in "\\PC{0,4}") {
        let mut json = include_str!("../data/config/gemma4_text_flat.json").to_string();
        let at = at.min(json.len());
        json.insert_str(at, &insert);
        if let Ok(config) = ModelConfig::from_hf_json(&json) {
            config.validate().unwrap();
        }
    }
}
