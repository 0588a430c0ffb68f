//! The embedded model's held-out perplexity.

use gemma4_wgpu::{
    checkpoint::Checkpoint,
    generate::{Perplexity, each_logits},
    model::weights::LoadOptions,
    text::Tokenizer,
};

use super::{Make, all_logits};

/// The perplexity of the excerpt in transformers, in float32 and with the unrounded weights.
/// tools/train_demo wrote it to report.json.
pub const FLOAT32: f64 = 34.2644;
/// The perplexity of the excerpt in int4, from `gemma4-wgpu eval` on the CPU backend.
pub const INT4: f64 = 34.5385;

/// The held-out excerpt's tokens.
pub fn tokens() -> Vec<u32> {
    let text = std::fs::read_to_string("tests/fixtures/demo/heldout.txt").unwrap();
    let tokenizer = Tokenizer::new(&Checkpoint::demo().unwrap().text_assets().unwrap()).unwrap();
    tokenizer.encode_prompt(&text, false).unwrap()
}

/// Fails unless the perplexity of the whole excerpt is near both figures.
/// The int4 figure may differ by 0.5%, the float32 figure by 5%.
#[track_caller]
pub fn assert_perplexity(make: Make<'_>) {
    let tokens = tokens();
    let options = LoadOptions { context_length: tokens.len(), ..LoadOptions::default() };
    let mut backend = make(&Checkpoint::demo().unwrap(), &options).unwrap();
    let vocab = backend.config().vocab_size;
    let mut score = Perplexity::default();
    let visit = &mut |first: usize, rows: &[f32]| score.add(rows, vocab, &tokens[first + 1..]);
    pollster::block_on(each_logits(backend.as_mut(), &tokens, visit)).unwrap();
    let perplexity = score.perplexity().unwrap();
    assert_eq!(score.tokens(), 1971);
    assert!((perplexity / INT4 - 1.0).abs() < 0.005, "{perplexity} in int4, was {INT4}");
    assert!(
        (perplexity / FLOAT32 - 1.0).abs() < 0.05,
        "{perplexity} in int4, {FLOAT32} in float32"
    );
}

/// Perplexity of the first `count` tokens, fed in steps of `chunk`.
pub fn perplexity(make: Make<'_>, count: usize, chunk: usize) -> f64 {
    perplexity_and_logits(make, count, chunk).0
}

/// The same with the logits, shape `[count, vocab]`.
pub fn perplexity_and_logits(make: Make<'_>, count: usize, chunk: usize) -> (f64, Vec<f32>) {
    let tokens = &tokens()[..count];
    let mut backend = make(
        &Checkpoint::demo().unwrap(),
        &LoadOptions { context_length: count, ..Default::default() },
    )
    .unwrap();
    let sequence = backend.open_sequence().unwrap();
    let logits = all_logits(backend.as_mut(), sequence, tokens, &[chunk]);
    let mut score = Perplexity::default();
    score.add(&logits, backend.config().vocab_size, &tokens[1..]).unwrap();
    (score.perplexity().unwrap(), logits)
}
