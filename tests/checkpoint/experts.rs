//! Experts in the forms of files, and files whose experts cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gemma4_wgpu::{
    Result,
    checkpoint::Checkpoint,
    cpu::CpuBackend,
    model::{source::TensorSource, weights::LoadOptions},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::support::{GgufFile, HIDDEN, Meta, gemma4};

const PREFIX: &str = "model.language_model.";
const EXPERTS: usize = 8;

/// A checkpoint that tests change: a golden with 2 of 8 experts in bf16.
struct Model {
    config: Value,
    /// Shapes and bytes by name.
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Model {
    fn new() -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gemma4-experts");
        let config = fs::read(directory.join("config.json")).unwrap();
        let bytes = fs::read(directory.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter();
        let tensors = tensors.map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), Dtype::BF16);
            (name, (tensor.shape().to_vec(), tensor.data().to_vec()))
        });
        Model { config: serde_json::from_slice(&config).unwrap(), tensors: tensors.collect() }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.config["text_config"][key] = value;
    }

    fn take(&mut self, name: &str) -> (Vec<usize>, Vec<u8>) {
        self.tensors.remove(&format!("{PREFIX}{name}")).unwrap_or_else(|| panic!("{name}"))
    }

    fn put(&mut self, name: &str, shape: &[usize], bytes: Vec<u8>) {
        self.tensors.insert(format!("{PREFIX}{name}"), (shape.to_vec(), bytes));
    }

    /// Takes a tensor of all experts apart: each expert's bytes.
    fn take_experts(&mut self, name: &str) -> (Vec<usize>, Vec<Vec<u8>>) {
        let (shape, bytes) = self.take(name);
        let experts = bytes.chunks(bytes.len() / shape[0]).map(<[u8]>::to_vec).collect();
        (shape[1..].to_vec(), experts)
    }

    /// Gate, up and down of a layer apart, each `(rows, columns)` with the bytes of every expert.
    #[allow(clippy::type_complexity)]
    fn take_layer(&mut self, layer: usize) -> Vec<(&'static str, Vec<usize>, Vec<Vec<u8>>)> {
        let (shape, both) = self.take_experts(&format!("layers.{layer}.experts.gate_up_proj"));
        let half = |second: usize| {
            let of =
                |bytes: &Vec<u8>| bytes[second * bytes.len() / 2..][..bytes.len() / 2].to_vec();
            both.iter().map(of).collect::<Vec<_>>()
        };
        let rows = vec![shape[0] / 2, shape[1]];
        let (down_shape, down) = self.take_experts(&format!("layers.{layer}.experts.down_proj"));
        vec![
            ("gate_proj", rows.clone(), half(0)),
            ("up_proj", rows, half(1)),
            ("down_proj", down_shape, down),
        ]
    }

    /// Gives all experts of a layer one tensor for each matrix, as MLX does.
    fn stack(&mut self, layer: usize) {
        for (matrix, shape, experts) in self.take_layer(layer) {
            let name = format!("layers.{layer}.experts.switch_glu.{matrix}.weight");
            self.put(&name, &[&[experts.len()], &shape[..]].concat(), experts.concat());
        }
    }

    /// Gives each expert of a layer its own matrices.
    fn separate(&mut self, layer: usize) {
        for (matrix, shape, experts) in self.take_layer(layer) {
            for (expert, bytes) in experts.into_iter().enumerate() {
                let name = format!("layers.{layer}.experts.{expert}.{matrix}.weight");
                self.put(&name, &shape, bytes);
            }
        }
    }

    fn write(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let views = self.tensors.iter().map(|(name, (shape, bytes))| {
            (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
        fs::write(directory.path().join("config.json"), self.config.to_string()).unwrap();
        directory
    }

    /// Opens the checkpoint and loads it on the CPU.
    fn load(&self) -> Result<()> {
        let directory = self.write();
        let checkpoint = Checkpoint::open(directory.path())?;
        let (options, mut progress) = (LoadOptions::default(), |_| ());
        let load = CpuBackend::load(&checkpoint, &options, &mut progress);
        pollster::block_on(load).map(drop)
    }
}

/// A GGUF file with 2 of 4 experts, whose gate and up are merged in the first layer only.
fn gguf() -> GgufFile {
    let mut file = gemma4();
    file.set("gemma4.expert_count", Meta::U32(4))
        .set("gemma4.expert_used_count", Meta::U32(2))
        .set("gemma4.expert_feed_forward_length", Meta::U32(3));
    for layer in 0..2 {
        let name = |tensor: &str| format!("blk.{layer}.{tensor}");
        for norm in ["post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"] {
            file.f32(&name(&format!("{norm}.weight")), &[HIDDEN]);
        }
        file.f32(&name("ffn_gate_inp.weight"), &[4, HIDDEN])
            .f32(&name("ffn_gate_inp.scale"), &[HIDDEN])
            .f32(&name("ffn_down_exps.scale"), &[4])
            .f32(&name("ffn_down_exps.weight"), &[4, HIDDEN, 3]);
    }
    file.f32("blk.0.ffn_gate_up_exps.weight", &[4, 6, HIDDEN])
        .f32("blk.1.ffn_gate_exps.weight", &[4, 3, HIDDEN])
        .f32("blk.1.ffn_up_exps.weight", &[4, 3, HIDDEN]);
    file
}

fn open_gguf(file: &GgufFile) -> Result<(tempfile::TempDir, Checkpoint)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    file.write(&path);
    Checkpoint::open(&path).map(|checkpoint| (directory, checkpoint))
}

#[test]
fn gguf_has_gate_and_up_merged_or_apart() {
    let (_directory, checkpoint) = open_gguf(&gguf()).unwrap();
    let experts = checkpoint.config().experts().unwrap();
    assert_eq!((experts.count, experts.top_k, experts.intermediate_size), (4, 2, 3));
    let values = |layer: usize, row: usize| {
        let name = format!("layers.{layer}.experts.gate_up_proj");
        assert_eq!(checkpoint.info(&name).unwrap().shape, [24, 32]);
        let bytes = rows(&checkpoint, &name, row..row + 1);
        f32::from_le_bytes(bytes[..4].try_into().unwrap())
    };
    // Element i is i. Expert 2 has rows 12 to 17: three of gate, three of up.
    assert_eq!([12, 15, 17].map(|row| values(0, row)), [12.0, 15.0, 17.0].map(|row| row * 32.0));
    assert_eq!([12, 15, 17].map(|row| values(1, row)), [6.0, 6.0, 8.0].map(|row| row * 32.0));
    assert_eq!(checkpoint.info("layers.1.experts.down_proj").unwrap().shape, [128, 3]);

    type Change = fn(&mut GgufFile);
    let cases: [(Change, &[&str]); 5] = [
        (
            |file| _ = file.f32("blk.1.ffn_gate_up_exps.weight", &[4, 6, HIDDEN]),
            &["layers.1.experts.gate_up_proj: is in the files", "too many"],
        ),
        (
            |file| _ = file.remove_tensor("blk.1.ffn_up_exps.weight"),
            &["layers.1.experts.switch_glu.up_proj.weight: missing"],
        ),
        (
            |file| _ = file.set("gemma4.expert_count", Meta::U32(5)),
            &["layers.0.experts.gate_up_proj: has shape [4, 6, 32]", "[5, 6, 32] of 5 experts"],
        ),
        (
            |file| _ = file.set("gemma4.expert_used_count", Meta::U32(5)),
            &["layer 0: a token has 5 experts of 4"],
        ),
        (
            |file| _ = file.remove("gemma4.expert_count"),
            &["layers.0.experts.down_proj: is in the files"],
        ),
    ];
    for (change, wanted) in cases {
        let mut file = gguf();
        change(&mut file);
        let line = open_gguf(&file).err().unwrap_or_else(|| panic!("{wanted:?}")).to_string();
        assert!(!line.contains('\n') && wanted.iter().all(|part| line.contains(part)), "{line}");
    }
}

fn rows(checkpoint: &Checkpoint, name: &str, rows: std::ops::Range<usize>) -> Vec<u8> {
    pollster::block_on(checkpoint.read(name, rows)).unwrap().into_owned()
}

#[test]
fn all_forms_give_the_same_matrices() {
    let plain = Model::new();
    let mut apart = Model::new();
    apart.stack(0);
    apart.separate(1);
    let (plain, apart) = (plain.write(), apart.write());
    let plain = Checkpoint::open(plain.path()).unwrap();
    let apart = Checkpoint::open(apart.path()).unwrap();
    for layer in 0..3 {
        for matrix in ["gate_up_proj", "down_proj"] {
            let name = format!("layers.{layer}.experts.{matrix}");
            let info = plain.info(&name).unwrap();
            assert_eq!(apart.info(&name).as_ref(), Some(&info), "{name}");
            let count = info.shape[0];
            assert_eq!(count % EXPERTS, 0);
            for range in [0..count, 3..4, 13..count - 7, 5..5] {
                let expected = rows(&plain, &name, range.clone());
                assert_eq!(rows(&apart, &name, range), expected, "{name}");
            }
        }
    }
}

#[test]
fn bad_experts_are_named() {
    type Change = fn(&mut Model);
    let cases: [(Change, &[&str]); 14] = [
        (
            |m| m.set("num_experts", json!(16)),
            &["layers.0.experts.gate_up_proj", "[8, 32, 32]", "16 experts"],
        ),
        (|m| m.set("top_k_experts", json!(9)), &["layer 0: a token has 9 experts of 8"]),
        (|m| m.set("top_k_experts", json!(0)), &["experts of a token is 0"]),
        (|m| m.set("num_experts", Value::Null), &["num_experts is missing"]),
        (|m| m.set("moe_intermediate_size", json!(24)), &["experts.gate_up_proj", "[8, 48, 32]"]),
        (
            |m| m.set("enable_moe_block", json!(false)),
            &["layers.0.experts.down_proj: is in the files", "enable_moe_block"],
        ),
        (
            |m| drop(m.take("layers.2.experts.down_proj")),
            &["layers.2.experts.down_proj: missing", "enable_moe_block = true"],
        ),
        (
            |m| {
                m.separate(1);
                drop(m.take("layers.1.experts.5.up_proj.weight"));
            },
            &["layers.1.experts.5.up_proj.weight: missing"],
        ),
        (
            |m| {
                m.separate(1);
                let (shape, bytes) = m.take("layers.1.experts.7.down_proj.weight");
                m.put("layers.1.experts.7.down_proj.weight", &shape, bytes.clone());
                m.put("layers.1.experts.8.down_proj.weight", &shape, bytes);
            },
            &["layers.1.experts.8.down_proj.weight: is in the files", "8 experts"],
        ),
        (
            |m| {
                let (shape, bytes) = m.take("layers.1.experts.gate_up_proj");
                m.put("layers.1.experts.gate_up_proj", &shape, bytes.clone());
                let half = bytes[..bytes.len() / 2].to_vec();
                m.put("layers.1.experts.switch_glu.up_proj.weight", &[8, 16, 32], half);
            },
            &["layers.1.experts.gate_up_proj", "switch_glu.up_proj.weight", "too many"],
        ),
        (
            |m| {
                m.separate(1);
                let (_, bytes) = m.take("layers.1.experts.5.up_proj.weight");
                m.put("layers.1.experts.switch_glu.up_proj.weight", &[1, 16, 32], bytes);
            },
            &["layers.1.experts.0.gate_proj.weight", "switch_glu.up_proj.weight", "too many"],
        ),
        (
            |m| {
                m.stack(1);
                let (_, bytes) = m.take("layers.1.experts.switch_glu.up_proj.weight");
                let some = bytes[..bytes.len() / 2].to_vec();
                m.put("layers.1.experts.switch_glu.up_proj.weight", &[4, 16, 32], some);
            },
            &["layers.1.experts.switch_glu.up_proj.weight", "[64, 32]", "[128, 32] (8 experts)"],
        ),
        (
            |m| {
                let (shape, mut bytes) = m.take("layers.3.router.proj.weight");
                bytes[34..36].copy_from_slice(&0x7fc0u16.to_le_bytes());
                m.put("layers.3.router.proj.weight", &shape, bytes);
            },
            &["layers.3.router.proj.weight", "column 17 is NaN"],
        ),
        (
            |m| {
                let (shape, mut bytes) = m.take("layers.3.router.per_expert_scale");
                bytes[..2].copy_from_slice(&0x7f80u16.to_le_bytes());
                m.put("layers.3.router.per_expert_scale", &shape, bytes);
            },
            &["layers.3.router.per_expert_scale: value 0 is inf"],
        ),
    ];
    for (change, wanted) in cases {
        let mut model = Model::new();
        change(&mut model);
        let line = model.load().expect_err(&format!("{wanted:?}")).to_string();
        assert!(!line.contains('\n') && wanted.iter().all(|part| line.contains(part)), "{line}");
    }
}
