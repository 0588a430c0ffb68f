//! The embedded model with other kernels than the adapter's default ones, and the text that it
//! writes.

use crate::common;
use std::num::NonZeroUsize;

use crate::common::demo::{perplexity, perplexity_and_logits};
use gemma4_wgpu::{
    checkpoint::Checkpoint,
    generate::{Divergence, FinishReason, Generation, Generator, Request},
    gpu::KernelOptions,
    model::weights::LoadOptions,
    sampling::SamplingParams,
    text::Tokenizer,
};

/// Longer than the window of 256, in steps of one token and of the most tokens with int8
/// activations.
/// Prefetched weights change nothing.
#[test]
fn int8_activations_keep_the_predictions() {
    let (expected, base) = perplexity_and_logits(&common::cpu, 300, 100);
    let kernels =
        KernelOptions { dp4a: Some(true), prefetch: Some(true), ..KernelOptions::default() };
    for chunk in [1, 8] {
        let (found, logits) = perplexity_and_logits(&common::gpu(kernels), 300, chunk);
        assert!((found / expected - 1.0).abs() < 0.005, "{found}, on the CPU {expected}");
        let mut divergence = Divergence::default();
        divergence.add(&base, &logits, base.len() / 300).unwrap();
        let mean = divergence.mean().unwrap();
        // More than 0, which shows that the products rounded.
        assert!(1e-6 < mean && mean < 0.005, "{mean} in steps of {chunk}");
    }
}

/// Longer than the window of 256, in steps of 9 to 64 tokens.
/// Devices with matrices of 16 × 16 have products of their own for these.
#[test]
fn short_steps_keep_the_predictions() {
    let (expected, base) = perplexity_and_logits(&common::cpu, 300, 100);
    for chunk in [9, 32, 64] {
        let make = common::gpu(KernelOptions::default());
        let (found, logits) = perplexity_and_logits(&make, 300, chunk);
        assert!((found / expected - 1.0).abs() < 0.005, "{found}, on the CPU {expected}");
        let mut divergence = Divergence::default();
        divergence.add(&base, &logits, base.len() / 300).unwrap();
        let mean = divergence.mean().unwrap();
        assert!(mean < 0.005, "{mean} in steps of {chunk}");
    }
}

#[test]
fn workgroup_memory_does_as_well_as_subgroups() {
    let expected = perplexity(&common::cpu, 130, 100);
    let kernels = KernelOptions { subgroups: Some(false), ..KernelOptions::default() };
    let found = perplexity(&common::gpu(kernels), 130, 65);
    assert!((found / expected - 1.0).abs() < 0.001, "{found}, on the CPU {expected}");
}

/// Two turns of a conversation. An end token in the middle of the first answer stops it.
fn converse(
    generator: &mut Generator<'_>,
    prompt: &[u32],
    sampling: SamplingParams,
) -> [Generation; 2] {
    let mut answer = |prompt: &[u32], eos_ids: &[u32], afresh: bool| {
        if afresh {
            generator.reset();
        }
        let max_new_tokens = NonZeroUsize::new(12);
        let (suppressed_ids, cancelled) = (&[][..], &|| false);
        let request =
            Request { prompt, sampling, max_new_tokens, eos_ids, suppressed_ids, cancelled };
        pollster::block_on(generator.generate(&request, &mut |_| ())).unwrap()
    };
    let end = answer(prompt, &[], true).tokens[7];
    let first = answer(prompt, &[end], true);
    assert_eq!(first.finish_reason, FinishReason::Stop);
    let second = [prompt, &first.tokens, &prompt[..5]].concat();
    let second = answer(&second, &[], false);
    [first, second]
}

/// The tokens of a seed, and their cached number, are the same whether device or host chooses them.
#[test]
fn sampled_text_is_the_hosts() {
    let checkpoint = Checkpoint::demo().unwrap();
    let tokenizer = Tokenizer::new(&checkpoint.text_assets().unwrap()).unwrap();
    let prompt = tokenizer.encode_prompt("Once upon a time there was a little", true).unwrap();
    let plainest = KernelOptions { checks: Some(true), ..KernelOptions::OFF };
    let int8 = KernelOptions { dp4a: Some(true), ..KernelOptions::default() };
    for kernels in [KernelOptions::default(), int8, plainest] {
        let options = LoadOptions { context_length: 128, ..LoadOptions::default() };
        let mut backend = common::load_gpu(&checkpoint, &options, kernels).unwrap();
        let mut said = Vec::new();
        for seed in 0..2 {
            let sampling = SamplingParams { seed: Some(seed), ..SamplingParams::default() };
            // This penalty changes no logit by more than its last bit, but makes the host choose.
            let on_host = SamplingParams { repetition_penalty: 1.0f32.next_up(), ..sampling };
            let [device, host] = [sampling, on_host].map(|sampling| {
                let turns = converse(&mut Generator::new(&mut backend), &prompt, sampling);
                turns.map(|turn| {
                    (turn.tokens, turn.finish_reason, turn.seed, turn.stats.cached_tokens)
                })
            });
            assert_eq!(device, host, "{kernels:?}, seed {seed}");
            said.push(device[1].0.clone());
        }
        assert_ne!(said[0], said[1]);
    }
}
