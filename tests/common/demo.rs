//! The embedded model's held-out perplexity.

use gemma4_wgpu::{
    checkpoint::Checkpoint,
    generate::{Perplexity, each_logits},
    text::Tokenizer,
    weights::LoadOptions,
};

use super::Make;

/// Of the excerpt, by transformers in float32 from the weights before rounding (tools/train_demo, report.json).
pub const FLOAT32: f64 = 34.2644;
/// Of the excerpt in int4, as `gemma4-wgpu eval` gives it on the CPU backend.
pub const INT4: f64 = 34.5385;

/// Perplexity of the held-out excerpt's first `max_tokens`, and how many were predicted.
pub fn perplexity(make: Make<'_>, max_tokens: usize) -> (f64, usize) {
    let checkpoint = Checkpoint::demo().unwrap();
    let text = std::fs::read_to_string("tests/fixtures/demo/heldout.txt").unwrap();
    let tokenizer = Tokenizer::new(&checkpoint.text_assets().unwrap()).unwrap();
    let mut tokens = tokenizer.encode_prompt(&text, false).unwrap();
    tokens.truncate(max_tokens);
    let options = LoadOptions { context_length: tokens.len(), ..LoadOptions::default() };
    let mut backend = make(&checkpoint, &options).unwrap();
    let vocab = backend.config().vocab_size;
    let mut score = Perplexity::default();
    pollster::block_on(each_logits(backend.as_mut(), &tokens, &mut |first, rows| {
        score.add(rows, vocab, &tokens[first + 1..])
    }))
    .unwrap();
    (score.perplexity().unwrap(), score.tokens())
}

/// Fails unless the perplexity is the int4 figure within 0.5% and the float32 figure within 5%.
#[track_caller]
pub fn assert_perplexity(make: Make<'_>) {
    let (perplexity, tokens) = perplexity(make, usize::MAX);
    assert_eq!(tokens, 1971);
    assert!((perplexity / INT4 - 1.0).abs() < 0.005, "{perplexity} in int4, was {INT4}");
    assert!((perplexity / FLOAT32 - 1.0).abs() < 0.05, "{perplexity} in int4, {FLOAT32} in float32");
}
