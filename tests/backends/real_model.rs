//! Gemma 3 270M as it is published, against llama.cpp on the same file.
//!
//! The reference values in tests/fixtures/gemma3_270m are llama.cpp v0.5.0's.
//! `tools/llama_reference/make_reference.py` wrote them.
//! The tests use the `dequantized` ones, for which llama.cpp had the file's weights as f32.
//! With quantized weights llama.cpp rounds activations to 8 bits.
//! This changes the model's logits by 0.5 and its perplexity by one percent.
//! The tests evaluate a short text instead of the 2000 tokens of this command:
//!
//! ```sh
//! gemma4-wgpu eval --model gemma-3-270m-q4_k_m.gguf \
//!     --text tests/fixtures/gemma3_270m/text.txt --max-tokens 2000
//! ```
//!
//! llama.cpp's perplexity for them is 32.370.

use std::{
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use crate::common::{
    cpu,
    goldens::directory,
    llama_cpp::{assert_same_ids, json, value},
    load_gpu, real_model, step,
};
use gemma4_wgpu::{
    backend::{Backend, StepInput, StepOutput, StepResult},
    checkpoint::Checkpoint,
    generate::{Generator, Perplexity, Request, each_logits},
    gpu::{GpuBackend, KernelOptions},
    model::weights::LoadOptions,
    sampling::SamplingParams,
    text::Tokenizer,
};
use serde_json::Value;

static CHECKPOINT: LazyLock<Checkpoint> =
    LazyLock::new(|| Checkpoint::open(real_model::path()).unwrap());
static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::new(&CHECKPOINT.text_assets().unwrap()).unwrap());

/// A file of tests/fixtures/gemma3_270m.
fn fixture(name: &str) -> PathBuf {
    directory("fixtures/gemma3_270m").join(name)
}

/// The model on the wgpu backend. It is loaded once, and one test at a time uses it.
fn gpu() -> MutexGuard<'static, GpuBackend> {
    static MODEL: LazyLock<Mutex<GpuBackend>> = LazyLock::new(|| {
        let kernels = KernelOptions { dp4a: Some(false), ..KernelOptions::default() };
        Mutex::new(load_gpu(&*CHECKPOINT, &LoadOptions::default(), kernels).unwrap())
    });
    MODEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The prompts called `names`, with llama.cpp's results for them.
fn prompts(file: &Value) -> impl Iterator<Item = (&str, Vec<u32>, &Value)> {
    let prompts = file["prompts"].as_array().unwrap();
    prompts
        .iter()
        .map(|prompt| (prompt["name"].as_str().unwrap(), value(prompt, "prompt_tokens"), prompt))
}

#[test]
fn tokenizer_gives_llama_cpp_ids() {
    let greedy = json(&fixture("greedy.json"));
    let cases = json(&fixture("tokenization.json"))["cases"].as_array().unwrap().clone();
    // llama.cpp lets any text contain the marks of images, which its file types as user-defined.
    let spells_image = |case: &Value| case["text"].as_str().unwrap().contains("<start_of_image>");
    let (images, cases): (Vec<Value>, Vec<Value>) = cases.into_iter().partition(spells_image);
    assert_same_ids(&TOKENIZER, &Value::Array(cases), "plain");
    for case in &images {
        let ids = |special| TOKENIZER.encode(case["text"].as_str().unwrap(), special).unwrap();
        assert_eq!(ids(true), value::<Vec<u32>>(case, "special"));
        assert!(ids(false).iter().all(|&id| !TOKENIZER.is_special(id)));
    }
    for (name, tokens, prompt) in prompts(&greedy) {
        let text = prompt["text"].as_str().unwrap();
        assert_eq!(TOKENIZER.encode_prompt(text, false).unwrap(), tokens, "{name}");
    }
    let text = fs::read_to_string(fixture("text.txt")).unwrap();
    let expected: Vec<u32> = value(&json(&fixture("perplexity.json")), "tokens");
    assert_eq!(TOKENIZER.encode_prompt(&text, false).unwrap(), expected);
}

/// At every token of these prompts, the largest logit exceeds the second by 0.1 or more.
fn check_greedy(backend: &mut dyn Backend, names: &[&str], most: usize) {
    let greedy = json(&fixture("greedy.json"));
    let mut generator = Generator::new(backend);
    let mut tested = 0;
    for (name, tokens, prompt) in prompts(&greedy).filter(|(name, ..)| names.contains(name)) {
        let mut expected: Vec<u32> = value(prompt, "tokens");
        expected.truncate(most);
        let request = Request {
            prompt: &tokens,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_new_tokens: NonZeroUsize::new(expected.len()),
            eos_ids: &[],
            suppressed_ids: &[],
            cancelled: &|| false,
        };
        let answer = pollster::block_on(generator.generate(&request, &mut |_| ())).unwrap();
        assert_eq!(answer.tokens, expected, "{name}: {}", TOKENIZER.decode(&answer.tokens));
        tested += 1;
    }
    assert_eq!(tested, names.len());
}

/// The 20 largest logits after each prompt, and ln Σ exp of all.
fn check_logits(backend: &mut dyn Backend) {
    // A software device differs by 0.03, with tiles in f32 or f16.
    const TOLERANCE: f32 = 0.05;
    let reference = json(&fixture("logits.json"));
    for (name, tokens, prompt) in prompts(&reference) {
        let sequence = backend.open_sequence().unwrap();
        let result =
            step(backend, sequence, StepInput::Tokens(&tokens), StepOutput::LastLogits).unwrap();
        backend.close_sequence(sequence);
        let StepResult::Logits(logits) = result else { panic!("asked for logits, got {result:?}") };
        let check = |what: &str, actual: f32, expected: f32| {
            let close = (actual - expected).abs() <= TOLERANCE;
            assert!(close, "{name}, {what}: {actual}, llama.cpp {expected}");
        };
        let top: Vec<(usize, f32)> = value(&prompt["dequantized"], "top");
        assert_eq!(top.len(), 20, "{name}");
        for (id, expected) in top {
            check(&format!("token {id}"), logits[id], expected);
        }
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        check("ln Σ exp", sum.ln() as f32, value(&prompt["dequantized"], "log_sum_exp"));
    }
}

/// The short text's perplexity.
fn check_perplexity(backend: &mut dyn Backend) {
    // The backends differ by 0.0002. llama.cpp's own rounding of activations makes 0.011.
    const TOLERANCE: f64 = 0.002;
    let reference = json(&fixture("perplexity.json"));
    let expected: f64 = value(&reference["dequantized"]["text_short"], "perplexity");
    let tokens = TOKENIZER
        .encode_prompt(&fs::read_to_string(fixture("text_short.txt")).unwrap(), false)
        .unwrap();
    assert_eq!(tokens, value::<Vec<u32>>(&reference, "tokens")[..tokens.len()]);

    let (vocab, mut score) = (backend.config().vocab_size, Perplexity::default());
    let visit = &mut |first: usize, rows: &[f32]| score.add(rows, vocab, &tokens[first + 1..]);
    pollster::block_on(each_logits(backend, &tokens, visit)).unwrap();
    assert_eq!(
        score.tokens(),
        value::<usize>(&reference["dequantized"]["text_short"], "predicted")
    );
    let perplexity = score.perplexity().unwrap();
    assert!((perplexity / expected - 1.0).abs() <= TOLERANCE, "{perplexity}, llama.cpp {expected}");
}

#[test]
fn greedy_tokens_are_llama_cpps() {
    check_greedy(&mut *gpu(), &["english", "german", "code"], usize::MAX);
}

#[test]
fn logits_are_llama_cpps() {
    check_logits(&mut *gpu());
}

/// Fewer checks than on other backends, as MLX is slow on a CPU.
#[cfg(feature = "mlx")]
#[test]
fn mlx_is_as_near_to_llama_cpp() {
    let mut backend = crate::common::mlx(&*CHECKPOINT, &LoadOptions::default()).unwrap();
    check_greedy(&mut *backend, &["english"], 24);
    check_logits(&mut *backend);
}

#[test]
fn perplexity_on_wgpu_is_llama_cpps() {
    check_perplexity(&mut *gpu());
}

#[test]
fn perplexity_on_cpu_is_llama_cpps() {
    check_perplexity(&mut *cpu(&*CHECKPOINT, &LoadOptions::default()).unwrap());
}
