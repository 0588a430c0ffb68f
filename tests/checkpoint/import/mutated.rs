//! Mutated files cause an error or give weights, but never a panic.

use super::*;

const FIXTURES: [&str; 5] = [
    "mlx",
    "compressed_tensors",
    "compressed_tensors_asymmetric",
    "compressed_tensors_mixed",
    "torchao",
];

/// Opens the files and reads every matrix: errors are fine, panics are not.
fn exercise(config: &[u8], weights: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    let Ok(checkpoint) = Checkpoint::open(dir.path()) else { return };
    for name in [
        "embed_tokens",
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.v_proj",
        "layers.0.mlp.down_proj",
    ] {
        let name = format!("{name}.weight");
        let Some(info) = checkpoint.info(&name) else { continue };
        let rows = info.shape.first().copied().unwrap_or(1);
        if let (Ok(bytes), &[rows, cols]) =
            (wait(checkpoint.read(&name, 0..rows)), info.shape.as_slice())
            && let Dtype::Packed(format) = info.dtype
        {
            // The bytes that were read are complete.
            pack_rows(info.dtype, &bytes, rows, cols, format).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutated_imports(
        fixture_index in 0usize..4,
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()),
            1..6,
        ),
        in_config in any::<bool>(),
    ) {
        let read = |file: &str| fs::read(fixture(FIXTURES[fixture_index]).join(file)).unwrap();
        let (mut config, mut weights) = (read("config.json"), read("model.safetensors"));
        let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        for (index, byte, digit) in edits {
            // Digits make other numbers. Other bytes make other names, but mostly invalid JSON.
            let value = if digit { b'0' + byte % 10 } else { byte };
            let place = match in_config {
                true => { let at = index.index(config.len()); &mut config[at] }
                false => { let at = 8 + index.index(header - 8); &mut weights[at] }
            };
            if !digit || place.is_ascii_digit() {
                *place = value;
            }
        }
        exercise(&config, &weights);
    }
}
