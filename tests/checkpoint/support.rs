//! Writers of small checkpoints for the tests of `checkpoint`.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// A metadata value of a GGUF file.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
}

pub fn text(value: &str) -> Meta {
    Meta::Text(value.into())
}

pub fn texts(values: &[&str]) -> Meta {
    Meta::Texts(values.iter().map(|value| value.to_string()).collect())
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Meta {
    /// Type number and bytes.
    fn write(&self, out: &mut Vec<u8>) {
        fn array<const N: usize>(
            out: &mut Vec<u8>,
            kind: u32,
            items: impl ExactSizeIterator<Item = [u8; N]>,
        ) {
            [9, kind].iter().for_each(|number| out.extend(number.to_le_bytes()));
            out.extend((items.len() as u64).to_le_bytes());
            items.for_each(|item| out.extend(item));
        }
        let scalar = |out: &mut Vec<u8>, kind: u32, bytes: &[u8]| {
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Meta::U32(value) => scalar(out, 4, &value.to_le_bytes()),
            Meta::I32(value) => scalar(out, 5, &value.to_le_bytes()),
            Meta::F32(value) => scalar(out, 6, &value.to_le_bytes()),
            Meta::Bool(value) => scalar(out, 7, &[*value as u8]),
            Meta::Text(value) => {
                scalar(out, 8, &[]);
                push_text(out, value);
            }
            Meta::U32s(values) => array(out, 4, values.iter().map(|value| value.to_le_bytes())),
            Meta::I32s(values) => array(out, 5, values.iter().map(|value| value.to_le_bytes())),
            Meta::F32s(values) => array(out, 6, values.iter().map(|value| value.to_le_bytes())),
            Meta::Bools(values) => array(out, 7, values.iter().map(|value| [*value as u8])),
            Meta::Texts(values) => {
                array(out, 8, std::iter::empty::<[u8; 0]>());
                let count = out.len() - 8;
                out[count..].copy_from_slice(&(values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| push_text(out, value));
            }
        }
    }
}

/// A tensor of a GGUF file, outermost dimension first.
#[derive(Clone)]
pub struct GgufTensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub type_id: u32,
    pub bytes: Vec<u8>,
}

/// A GGUF file before it is written.
#[derive(Clone)]
pub struct GgufFile {
    pub version: u32,
    pub alignment: usize,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<GgufTensor>,
}

impl GgufFile {
    pub fn new() -> Self {
        GgufFile { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }

    pub fn set(&mut self, key: &str, value: Meta) -> &mut Self {
        self.remove(key);
        self.metadata.push((key.into(), value));
        self
    }

    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key);
        self
    }

    pub fn remove_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub fn tensor(&mut self, name: &str, shape: &[u64], type_id: u32, bytes: Vec<u8>) -> &mut Self {
        self.tensors.push(GgufTensor { name: name.into(), shape: shape.into(), type_id, bytes });
        self
    }

    /// An F32 tensor whose element i is i.
    pub fn f32(&mut self, name: &str, shape: &[u64]) -> &mut Self {
        let elements: u64 = shape.iter().product();
        self.tensor(name, shape, 0, (0..elements).flat_map(|i| (i as f32).to_le_bytes()).collect())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            push_text(&mut out, key);
            value.write(&mut out);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            push_text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }
}

pub const HIDDEN: u64 = 32;
pub const VOCAB: u64 = 8;

/// A Gemma 4 model with a sliding layer and a full one (K = V, proportional RoPE), all F32.
pub fn gemma4() -> GgufFile {
    let mut file = GgufFile::new();
    file.set("general.architecture", text("gemma4"))
        .set("general.name", text("Tiny"))
        .set("gemma4.block_count", Meta::U32(2))
        .set("gemma4.context_length", Meta::U32(64))
        .set("gemma4.embedding_length", Meta::U32(HIDDEN as u32))
        .set("gemma4.feed_forward_length", Meta::U32s(vec![64, 96]))
        .set("gemma4.attention.head_count", Meta::U32(2))
        .set("gemma4.attention.head_count_kv", Meta::U32s(vec![2, 1]))
        .set("gemma4.attention.key_length", Meta::U32(16))
        .set("gemma4.attention.value_length", Meta::U32(16))
        .set("gemma4.attention.key_length_swa", Meta::U32(8))
        .set("gemma4.attention.value_length_swa", Meta::U32(8))
        .set("gemma4.attention.layer_norm_rms_epsilon", Meta::F32(1e-6))
        .set("gemma4.attention.sliding_window", Meta::U32(4))
        .set("gemma4.attention.sliding_window_pattern", Meta::Bools(vec![true, false]))
        .set("gemma4.attention.shared_kv_layers", Meta::U32(0))
        .set("gemma4.embedding_length_per_layer_input", Meta::U32(0))
        .set("gemma4.final_logit_softcapping", Meta::F32(30.0))
        .set("gemma4.rope.dimension_count", Meta::U32(16))
        .set("gemma4.rope.dimension_count_swa", Meta::U32(8))
        .set("gemma4.rope.freq_base", Meta::F32(1e6))
        .set("gemma4.rope.freq_base_swa", Meta::F32(1e4));
    file.f32("token_embd.weight", &[VOCAB, HIDDEN]).f32("output_norm.weight", &[HIDDEN]);
    let factors = [1.0f32, 1.0, 1e30, 1e30, 1e30, 1e30, 1e30, 1e30];
    file.tensor(
        "rope_freqs.weight",
        &[8],
        0,
        factors.iter().flat_map(|factor| factor.to_le_bytes()).collect(),
    );
    for (layer, head_dim, kv_heads, ffn) in [(0, 8, 2, 64), (1, 16, 1, 96)] {
        let name = |tensor: &str| format!("blk.{layer}.{tensor}.weight");
        for norm in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"] {
            file.f32(&name(norm), &[HIDDEN]);
        }
        file.f32(&name("attn_q"), &[2 * head_dim, HIDDEN])
            .f32(&name("attn_k"), &[kv_heads * head_dim, HIDDEN])
            .f32(&name("attn_output"), &[HIDDEN, 2 * head_dim])
            .f32(&name("attn_q_norm"), &[head_dim])
            .f32(&name("attn_k_norm"), &[head_dim])
            .f32(&name("ffn_gate"), &[ffn, HIDDEN])
            .f32(&name("ffn_up"), &[ffn, HIDDEN])
            .f32(&name("ffn_down"), &[HIDDEN, ffn])
            .f32(&name("layer_output_scale"), &[1]);
        if layer == 0 {
            file.f32(&name("attn_v"), &[kv_heads * head_dim, HIDDEN]);
        }
    }
    file
}

/// A safetensors file of tensors (name, dtype, shape, bytes).
/// It is written without a library so that it can be wrong.
pub fn safetensors(tensors: &[(&str, &str, &[i64], &[u8])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend(*bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.to_string(), entry);
    }
    safetensors_with(&Value::Object(header).to_string(), &data)
}

/// A safetensors file of this header and these bytes.
pub fn safetensors_with(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
