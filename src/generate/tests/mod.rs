//! The generator against a scripted backend.

mod choices;
mod evaluate;
mod many;
mod prefixes;
mod scheduler;
mod script;

use std::{cell::Cell, num::NonZeroUsize};

use self::script::{Script, expected, model};
use super::*;
use crate::backend::StepOutput;
use crate::generate::decode::Strategy;
use crate::sampling::{Draw, Sampler, SamplingParams};

const GREEDY: SamplingParams = SamplingParams {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: None,
};
const PROMPT: [u32; 9] = [2, 7, 1, 8, 2, 8, 1, 8, 2];

fn request<'a>(prompt: &'a [u32], max_new_tokens: usize, eos_ids: &'a [u32]) -> Request<'a> {
    Request {
        prompt,
        sampling: GREEDY,
        max_new_tokens: NonZeroUsize::new(max_new_tokens),
        eos_ids,
        suppressed_ids: &[],
        cancelled: &|| false,
    }
}

fn generate(generator: &mut Generator<'_>, request: &Request<'_>) -> Result<Generation> {
    let mut heard = Vec::new();
    let generation =
        pollster::block_on(generator.generate(request, &mut |token| heard.push(token)))?;
    assert_eq!(heard, generation.tokens);
    Ok(generation)
}

#[test]
fn greedy_runs_one_step_ahead_and_takes_it_back() {
    let mut script = Script::new(64);
    let answer = expected(&PROMPT, 12);
    let end = answer[7];
    let length = answer.iter().position(|&token| token == end).unwrap();
    let generation =
        generate(&mut Generator::new(&mut script), &request(&PROMPT, 40, &[end])).unwrap();
    assert_eq!(generation.finish_reason, FinishReason::Stop);
    assert_eq!(generation.tokens, answer[..length]);
    assert_eq!(generation.stats.generated_tokens, length + 1);
    // The step whose input was the end token ran, and was taken back.
    assert_eq!(script.run, PROMPT.len() + length + 1);
    assert_eq!(script.held, [&PROMPT[..], &answer[..length]].concat());
    assert_eq!(script.most_unread, 2);
    assert!(script.results.is_empty() && !script.open);
}

#[test]
fn length_runs_no_step_in_vain() {
    let mut script = Script::new(64);
    let generation = generate(&mut Generator::new(&mut script), &request(&PROMPT, 5, &[])).unwrap();
    assert_eq!(
        (generation.finish_reason, &generation.tokens),
        (FinishReason::Length, &expected(&PROMPT, 5))
    );
    assert_eq!(script.run, PROMPT.len() + 4);
    assert!(script.results.is_empty());
}

#[test]
fn all_tokens_are_sampled_on_the_host() {
    let mut script = Script::new(64);
    let sampling = SamplingParams { temperature: 1.0, top_p: 0.0, ..GREEDY };
    let request = Request { sampling, ..request(&PROMPT, 20, &[]) };
    let generation = generate(&mut Generator::new(&mut script), &request).unwrap();
    assert_eq!(generation.tokens, expected(&PROMPT, 20));
    assert_eq!(script.most_unread, 2, "only the prompt's chunks overlap");
}

/// The first `count` tokens that the host's sampler draws after `prompt`.
fn drawn(sampling: SamplingParams, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut context = prompt.to_vec();
    for _ in 0..count {
        context.push(sampler.sample(&Script::logits(&context), &[]).unwrap());
    }
    context.split_off(prompt.len())
}

#[test]
fn sampling_runs_one_step_ahead_and_takes_it_back() {
    for seed in 0..20 {
        let sampling = SamplingParams { seed: Some(seed), ..SamplingParams::default() };
        let mut script = Script::new(64);
        let mut generator = Generator::new(&mut script);
        let answer = drawn(sampling, &PROMPT, 12);
        let end = answer[7];
        let length = answer.iter().position(|&token| token == end).unwrap();
        let generation =
            generate(&mut generator, &Request { sampling, ..request(&PROMPT, 40, &[end]) })
                .unwrap();
        assert_eq!((generation.finish_reason, generation.seed), (FinishReason::Stop, Some(seed)));
        assert_eq!(generation.tokens, answer[..length]);
        // The next answer must start from the same tokens and the same state of the seed. The step
        // that ran ahead must leave no trace.
        let second: Vec<u32> = [&PROMPT[..], &generation.tokens, &[3, 1, 4]].concat();
        let generation =
            generate(&mut generator, &Request { sampling, ..request(&second, 6, &[]) }).unwrap();
        assert_eq!(generation.tokens, drawn(sampling, &second, 6));
        assert_eq!(generation.stats.cached_tokens, PROMPT.len() + length);
        drop(generator);
        assert_eq!(script.run, PROMPT.len() + length + 1 + 3 + 5);
        assert_eq!(script.most_unread, 2);
        assert!(script.results.is_empty() && !script.open);
    }
}

#[test]
fn only_what_a_device_can_draw_goes_there() {
    let sampling = SamplingParams { seed: Some(3), ..SamplingParams::default() };
    let on_host = [
        SamplingParams { top_k: 0, ..sampling },
        SamplingParams { top_k: Draw::MOST_TOP_K + 1, ..sampling },
        SamplingParams { repetition_penalty: 1.0f32.next_up(), ..sampling },
        SamplingParams { repetition_penalty: 1.3, temperature: 0.0, ..sampling },
    ];
    let outputs =
        |params: &SamplingParams| Strategy::new(params, HostChoice::default()).unwrap().output();
    assert!(on_host.iter().all(|params| outputs(params) == StepOutput::LastLogits));
    for top_k in [1, 64, Draw::MOST_TOP_K] {
        let StepOutput::Sample(draw) = outputs(&SamplingParams { top_k, ..sampling }) else {
            panic!("top-k {top_k}")
        };
        assert_eq!((draw.temperature, draw.top_k, draw.top_p, draw.min_p), (1.0, top_k, 0.95, 0.0));
        draw.validate().unwrap();
    }
    assert_eq!(outputs(&SamplingParams { temperature: 0.0, ..sampling }), StepOutput::Greedy);
}

#[test]
fn the_context_fills_to_the_last_position() {
    let drawn = SamplingParams { temperature: 1.0, ..GREEDY };
    for sampling in
        [GREEDY, SamplingParams { top_k: 1, ..drawn }, SamplingParams { top_p: 0.0, ..drawn }]
    {
        let mut script = Script::new(12);
        let request = Request { sampling, max_new_tokens: None, ..request(&PROMPT, 1, &[]) };
        let generation = generate(&mut Generator::new(&mut script), &request).unwrap();
        assert_eq!(generation.finish_reason, FinishReason::ContextFull);
        // Positions 9, 10 and 11 hold three tokens. The fourth is chosen, but no position is left
        // for it.
        assert_eq!(generation.tokens, expected(&PROMPT, 4));
        assert_eq!(script.run, 12);
    }
}

#[test]
fn the_next_prompt_runs_only_what_is_new() {
    let mut script = Script::new(64);
    let mut generator = Generator::new(&mut script);
    let first = generate(&mut generator, &request(&PROMPT, 6, &[])).unwrap();
    let second: Vec<u32> = [&PROMPT[..], &first.tokens, &[3, 1, 4]].concat();
    let answer = generate(&mut generator, &request(&second, 6, &[])).unwrap();
    assert_eq!(answer.tokens, expected(&second, 6));
    // The last token of the first answer was chosen but never run.
    assert_eq!(answer.stats.cached_tokens, PROMPT.len() + 5);
    // A changed history is cut back to the common beginning. The same prompt again runs its last
    // token.
    let changed: Vec<u32> = [&PROMPT[..4], &[90, 91, 92]].concat();
    let answer = generate(&mut generator, &request(&changed, 6, &[])).unwrap();
    assert_eq!((answer.tokens, answer.stats.cached_tokens), (expected(&changed, 6), 4));
    let answer = generate(&mut generator, &request(&changed, 6, &[])).unwrap();
    assert_eq!(
        (answer.tokens, answer.stats.cached_tokens),
        (expected(&changed, 6), changed.len() - 1)
    );
}

#[test]
fn a_cache_that_cannot_go_back_starts_afresh() {
    let mut script = Script::new(64);
    script.can_truncate = false;
    let mut generator = Generator::new(&mut script);
    let answer = expected(&PROMPT, 3);
    let first = generate(&mut generator, &request(&PROMPT, 40, &answer[2..])).unwrap();
    assert_eq!(first.tokens, answer[..2]);
    // The end token stayed in the cache. A prompt that continues with it reuses it …
    let with_end: Vec<u32> = [&PROMPT[..], &answer, &[5, 6]].concat();
    let second = generate(&mut generator, &request(&with_end, 4, &[])).unwrap();
    assert_eq!(
        (second.tokens, second.stats.cached_tokens),
        (expected(&with_end, 4), PROMPT.len() + 3)
    );
    // … and one that continues otherwise starts a new sequence.
    let other = [2, 7, 5];
    let third = generate(&mut generator, &request(&other, 4, &[])).unwrap();
    assert_eq!((third.tokens, third.stats.cached_tokens), (expected(&other, 4), 0));
}

#[test]
fn cancellation_between_chunks_and_between_tokens() {
    for asked in 0..8 {
        let mut script = Script::new(64);
        let count = Cell::new(0);
        let cancelled = || count.replace(count.get() + 1) >= asked;
        let request = Request { cancelled: &cancelled, ..request(&PROMPT, 40, &[]) };
        let generation = generate(&mut Generator::new(&mut script), &request).unwrap();
        assert_eq!(generation.finish_reason, FinishReason::Cancelled);
        // The prompt has three chunks. Then the function is called once for each token.
        assert_eq!(generation.tokens, expected(&PROMPT, (asked + 1usize).saturating_sub(3)));
        assert_eq!(script.run, if asked < 3 { 4 * asked } else { PROMPT.len() + asked - 2 });
        assert!(script.results.is_empty());
    }
}

#[test]
fn a_failed_step_leaves_an_empty_context() {
    let mut script = Script::new(64);
    script.fail_after = PROMPT.len() + 2;
    let mut generator = Generator::new(&mut script);
    let error = generate(&mut generator, &request(&PROMPT, 40, &[])).unwrap_err();
    assert_eq!(error.to_string(), "device: lost");
    assert!(generator.held().is_empty());
    drop(generator);
    assert!(!script.open);
}

#[test]
fn unusable_requests_are_named() {
    let mut script = Script::new(8);
    let mut generator = Generator::new(&mut script);
    let mut error =
        |request: Request<'_>| generate(&mut generator, &request).unwrap_err().to_string();
    assert_eq!(error(request(&PROMPT, 4, &[])), "the prompt has 9 tokens, but the context holds 8");
    assert_eq!(error(request(&[], 4, &[])), "the prompt has no tokens");
    let sampling = SamplingParams { temperature: -1.0, ..GREEDY };
    assert!(error(Request { sampling, ..request(&[1], 4, &[]) }).contains("temperature"));
}

/// The script's likeliest token is suppressed in each way of choosing, and later allowed again.
#[test]
fn suppressed_tokens_never_come() {
    let likeliest = model(&PROMPT);
    let device = SamplingParams { temperature: 1.0, top_k: 2, seed: Some(1), ..GREEDY };
    let host = SamplingParams { top_k: 0, ..device };
    for sampling in [GREEDY, device, host, SamplingParams { repetition_penalty: 1.1, ..GREEDY }] {
        let mut script = Script::new(64);
        let mut generator = Generator::new(&mut script);
        for suppressed in [&[likeliest, 5000][..], &[]] {
            for seed in 0..8 {
                let sampling = SamplingParams { seed: Some(seed), ..sampling };
                let request =
                    Request { sampling, suppressed_ids: suppressed, ..request(&PROMPT, 1, &[]) };
                let token = generate(&mut generator, &request).unwrap().tokens[0];
                assert!(!suppressed.contains(&token), "{sampling:?}");
                assert!(
                    sampling.temperature != 0.0 || (token == likeliest) == suppressed.is_empty()
                );
            }
        }
    }
}

/// A caller may stop at any token. The next prompt must find a valid sequence.
#[test]
fn a_dropped_answer_leaves_its_tokens() {
    let host = SamplingParams { temperature: 1.0, top_p: 0.0, ..GREEDY };
    for (sampling, is_reset) in [(GREEDY, false), (host, false), (GREEDY, true)] {
        for taken in 0..4 {
            let (mut script, mut sequence) = (Script::new(64), SequenceState::default());
            let answer = expected(&PROMPT, taken);
            let first = Request { sampling, ..request(&PROMPT, 40, &[]) };
            let mut stream = TokenStream::new(&script, &first).unwrap();
            for &token in &answer {
                let next = stream.next(&mut script, &mut sequence, &|| false);
                assert_eq!(pollster::block_on(next).unwrap(), Some(token));
            }
            let generation = stream.into_generation();
            assert_eq!(generation.finish_reason, FinishReason::Cancelled);
            assert_eq!(generation.tokens, answer);
            if is_reset {
                sequence.reset(&mut script);
            }
            let second = [&PROMPT[..], &answer, &[3, 1, 4]].concat();
            let mut stream = TokenStream::new(&script, &request(&second, 1, &[])).unwrap();
            let next = stream.next(&mut script, &mut sequence, &|| false);
            assert_eq!(pollster::block_on(next).unwrap(), Some(model(&second)));
            let cached = stream.into_generation().stats.cached_tokens;
            assert_eq!(cached, if is_reset || taken == 0 { 0 } else { PROMPT.len() + taken });
            assert!(script.results.is_empty());
        }
    }
}
