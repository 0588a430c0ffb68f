//! Makes a tiny random Gemma 4 checkpoint on disk and runs the program on it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const VOCAB: usize = 264;
const HIDDEN: usize = 16;
const FFN: usize = 32;
const HEADS: usize = 2;
const HEAD_DIM: usize = 8;

/// A checkpoint that tests may change before they write it.
pub struct TinyModel {
    pub config: Value,
    pub tokenizer_config: Value,
    pub tokenizer: Value,
    /// f32 tensors by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl TinyModel {
    /// Two layers, one sliding and one full, and a byte tokenizer with Gemma 4's turn tokens.
    pub fn new() -> TinyModel {
        TinyModel::with_full_head_dim(HEAD_DIM)
    }

    /// The same with heads of this size in the full layer.
    pub fn with_full_head_dim(full_head_dim: usize) -> TinyModel {
        let mut model = TinyModel {
            config: config(full_head_dim),
            tokenizer_config: json!({
                "bos_token": "<bos>",
                "eos_token": "<eos>",
                "chat_template": "{{ bos_token }}{% for m in messages %}<|turn>\
                                  {{ 'model' if m.role == 'assistant' else m.role }}\n\
                                  {{ m.content }}<turn|>\n\
                                  {% endfor %}{{ '<|turn>model\n' }}",
            }),
            tokenizer: tokenizer(),
            tensors: BTreeMap::new(),
        };
        let mut add = |name: &str, shape: &[usize]| {
            let seed = 7 + model.tensors.len() as u64;
            model.tensors.insert(format!("model.{name}"), (shape.to_vec(), values(shape, seed)));
        };
        add("embed_tokens.weight", &[VOCAB, HIDDEN]);
        add("norm.weight", &[HIDDEN]);
        for (layer, head_dim) in [HEAD_DIM, full_head_dim].into_iter().enumerate() {
            let mut add =
                |name: &str, shape: &[usize]| add(&format!("layers.{layer}.{name}"), shape);
            for norm in ["input", "post_attention", "pre_feedforward", "post_feedforward"] {
                add(&format!("{norm}_layernorm.weight"), &[HIDDEN]);
            }
            add("self_attn.q_proj.weight", &[HEADS * head_dim, HIDDEN]);
            add("self_attn.k_proj.weight", &[head_dim, HIDDEN]);
            add("self_attn.v_proj.weight", &[head_dim, HIDDEN]);
            add("self_attn.o_proj.weight", &[HIDDEN, HEADS * head_dim]);
            add("self_attn.q_norm.weight", &[head_dim]);
            add("self_attn.k_norm.weight", &[head_dim]);
            add("mlp.gate_proj.weight", &[FFN, HIDDEN]);
            add("mlp.up_proj.weight", &[FFN, HIDDEN]);
            add("mlp.down_proj.weight", &[HIDDEN, FFN]);
            add("layer_scalar", &[1]);
        }
        model
    }

    /// A model that always writes these tokens after the generation prompt.
    /// Its layers add nothing, and its head maps each token to the next. No token may occur twice.
    /// Its template is a short one in Gemma 4's form.
    pub fn that_writes(answer: &[&str]) -> TinyModel {
        let mut model = TinyModel::new();
        model.tokenizer_config["chat_template"] = THINKING_TEMPLATE.into();
        let first_new = VOCAB;
        let calls = ["<|tool_call>", "<tool_call|>", "<|\"|>"];
        let marks = [&["<|think|>", "<|channel>", "<channel|>"][..], &calls].concat();
        let is_new = |token: &&&str| {
            let known = [&marks[..], &["<turn|>"]].concat();
            !known.contains(token) && byte_of(token).is_none()
        };
        let words: Vec<&str> = answer.iter().filter(is_new).copied().collect();
        for (id, token) in (first_new..).zip(marks.iter().chain(&words)) {
            model.tokenizer["model"]["vocab"][token] = id.into();
            if marks.contains(token) {
                let added = json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true,
                });
                model.tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
            }
        }
        let vocab = first_new + marks.len() + words.len();
        model.config["vocab_size"] = vocab.into();
        model.config["tie_word_embeddings"] = false.into();
        let id_of = |token: &&str| match byte_of(token) {
            Some(byte) => 8 + usize::from(byte),
            None => model.tokenizer["model"]["vocab"][*token].as_u64().unwrap() as usize,
        };
        let chain: Vec<usize> = ["\n"].iter().chain(answer).map(id_of).collect();
        assert!(chain.len() <= HIDDEN, "each token but the last has a direction of its own");
        let (mut embedding, mut head) = (vec![0.0; vocab * HIDDEN], vec![0.0; vocab * HIDDEN]);
        embedding.chunks_mut(HIDDEN).for_each(|row| row[HIDDEN - 1] = 1.0);
        for (direction, pair) in chain.windows(2).enumerate() {
            embedding[pair[0] * HIDDEN..][..HIDDEN].fill(0.0);
            embedding[pair[0] * HIDDEN + direction] = 1.0;
            head[pair[1] * HIDDEN + direction] = 1.0;
        }
        for (name, (_, values)) in &mut model.tensors {
            match name.rsplit_once("layers.").map_or(name.as_str(), |(_, tensor)| &tensor[2..]) {
                "self_attn.o_proj.weight" | "mlp.down_proj.weight" => values.fill(0.0),
                "layer_scalar" | "model.norm.weight" => values.fill(1.0),
                _ => {}
            }
        }
        model.tensors.insert("model.embed_tokens.weight".into(), (vec![vocab, HIDDEN], embedding));
        model.tensors.insert("lm_head.weight".into(), (vec![vocab, HIDDEN], head));
        model
    }

    /// Writes the checkpoint to a new directory.
    pub fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
        write("config.json", self.config.to_string().into());
        write("tokenizer_config.json", self.tokenizer_config.to_string().into());
        write("tokenizer.json", self.tokenizer.to_string().into());
        write("model.safetensors", self.safetensors());
        dir
    }

    /// The bytes of the file of weights.
    pub fn safetensors(&self) -> Vec<u8> {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }
}

/// As in the template of E2B and E4B, the system turn requests thoughts.
/// Thoughts are removed from earlier answers.
const THINKING_TEMPLATE: &str = "{{- bos_token -}}
{%- if enable_thinking or messages[0].role == 'system' -%}
    {{- '<|turn>system\n' ~ ('<|think|>\n' if enable_thinking else '') -}}
    {{- (messages[0].content if messages[0].role == 'system' else '') ~ '<turn|>\n' -}}
{%- endif -%}
{%- for m in messages if m.role != 'system' -%}
    {%- set ns = namespace(text='') -%}
    {%- for part in m.content.split('<channel|>') -%}
        {%- set ns.text = ns.text ~ part.split('<|channel>')[0] -%}
    {%- endfor -%}
    {{- '<|turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\n' -}}
    {{- ns.text | trim ~ '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}";

/// The byte of a token that is a single byte.
fn byte_of(token: &str) -> Option<u8> {
    match token.as_bytes() {
        [byte] => Some(*byte),
        _ => None,
    }
}

fn config(full_head_dim: usize) -> Value {
    let rope = |theta: f64| json!({ "rope_type": "default", "rope_theta": theta });
    json!({
        "model_type": "gemma4_text",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "global_head_dim": full_head_dim,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": { "sliding_attention": rope(1e4), "full_attention": rope(1e6) },
        "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 512,
        "tie_word_embeddings": true,
        "bos_token_id": 2,
        "eos_token_id": [1, 5],
    })
}

/// Special tokens, then one token for each byte.
fn tokenizer() -> Value {
    let special =
        ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|image>", "<|audio>"];
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = special.iter().map(|token| token.to_string()).chain(bytes);
    let vocab: serde_json::Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({ "id": id, "content": token, "single_word": false, "lstrip": false,
                    "rstrip": false,
                    "normalized": false, "special": true })
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {
            "type": "Sequence",
            "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }],
        },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>",
                   "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                   "ignore_merges": false,
                   "vocab": vocab, "merges": [] },
    })
}

/// Reproducible values: around 1 for vectors, within ±0.25 for matrices.
fn values(shape: &[usize], seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let centre = if shape.len() == 1 { 1.0 } else { 0.0 };
    (0..shape.iter().product()).map(|_| centre + 0.5 * next()).collect()
}

/// The program with `args`, without logging and with nothing on standard input.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gemma4-wgpu").unwrap();
    // The program must not use the user's compiled pipelines.
    command
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env_remove("RUST_LOG")
        .args(args)
        .write_stdin("");
    command
}

/// `subcommand --model MODEL args…`.
pub fn on_model(subcommand: &str, model: &Path, args: &[&str]) -> Command {
    let mut command = program(&[subcommand, "--model"]);
    command.arg(model).args(args);
    command
}

/// Runs the command, which must succeed, and returns its output.
pub fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command, which must fail with exit code 1 and print nothing on stdout.
/// Returns its single line on stderr.
pub fn error_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
    assert!(
        output.stdout.is_empty(),
        "{command:?} printed {}",
        String::from_utf8_lossy(&output.stdout)
    );
    let line = stderr.strip_suffix('\n').unwrap_or(&stderr);
    assert!(
        line.starts_with("error: ") && !line.contains('\n'),
        "{command:?} is not one line: {stderr}"
    );
    line.to_owned()
}

/// A file with these contents in `dir`.
pub fn file(dir: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, contents).unwrap();
    path
}
