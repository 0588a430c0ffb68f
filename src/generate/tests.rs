//! The generator against a scripted backend, whose next token depends on every token of the
//! context.

use std::{cell::Cell, collections::HashMap};

use super::*;
use crate::{
    backend::BackendInfo,
    model::{
        config::{Architecture, ModelConfig},
        source::LocalBoxFuture,
    },
    sampling::{Draw, argmax},
};

const VOCAB: u32 = 97;

/// Argmax of the scripted model after `context`: a hash of all of it.
fn model(context: &[u32]) -> u32 {
    context.iter().fold(17u32, |hash, &token| (hash.wrapping_mul(31)).wrapping_add(token + 1))
        % VOCAB
}

/// The first `count` tokens that the scripted model chooses after `prompt`.
fn expected(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut context = prompt.to_vec();
    for _ in 0..count {
        context.push(model(&context));
    }
    context.split_off(prompt.len())
}

struct Script {
    config: ModelConfig,
    context_length: usize,
    open: bool,
    held: Vec<u32>,
    /// The token that the last step chose.
    chosen: Option<u32>,
    results: HashMap<u64, StepResult>,
    tickets: u64,
    can_truncate: bool,
    /// Tokens run so far, over all sequences.
    run: usize,
    /// Most tickets that were unread at once.
    most_unread: usize,
    fail_after: usize,
    suppressed: Vec<u32>,
}

impl Script {
    fn new(context_length: usize) -> Script {
        let config = ModelConfig {
            architecture: Architecture::Gemma4,
            vocab_size: VOCAB as usize,
            hidden_size: 8,
            layers: Vec::new(),
            rms_norm_eps: 1e-6,
            final_logit_softcap: None,
            attention_scale: 1.0,
            v_norm: true,
            layer_scalar: true,
            norm_weight_offset: 0.0,
            tie_word_embeddings: true,
            max_position_embeddings: context_length,
            per_layer_input: None,
        };
        Script {
            config,
            context_length,
            open: false,
            held: Vec::new(),
            chosen: None,
            results: HashMap::new(),
            tickets: 0,
            can_truncate: true,
            run: 0,
            most_unread: 0,
            fail_after: usize::MAX,
            suppressed: Vec::new(),
        }
    }

    /// Logits with the script's token on top, shape `[vocab]`.
    fn logits(context: &[u32]) -> Vec<f32> {
        let top = model(context);
        (0..VOCAB).map(|id| -(id.abs_diff(top) as f32)).collect()
    }

    /// Logits from which the next token is chosen.
    fn chosen_from(&self) -> Vec<f32> {
        let mut logits = Script::logits(&self.held);
        suppress(&mut logits, &self.suppressed);
        logits
    }
}

impl Backend for Script {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "script",
            device: String::new(),
            context_length: self.context_length,
            max_sequences: 1,
            max_step_tokens: 4,
            weight_bytes: 0,
            table_bytes: 0,
            kv_bytes: 0,
            peak_bytes: 0,
        }
    }

    fn open_sequence(&mut self) -> Result<SequenceId> {
        assert!(!self.open, "the only sequence is open");
        self.open = true;
        self.held.clear();
        Ok(SequenceId(0))
    }

    fn close_sequence(&mut self, _: SequenceId) {
        self.open = false;
    }

    fn sequence_len(&self, _: SequenceId) -> usize {
        self.held.len()
    }

    fn truncate(&mut self, _: SequenceId, len: usize) -> Result<()> {
        assert!(self.open && len <= self.held.len());
        if !self.can_truncate {
            return Err(Error::Device("the window is gone".into()));
        }
        self.held.truncate(len);
        self.chosen = None;
        Ok(())
    }

    fn suppress(&mut self, ids: &[u32]) -> Result<()> {
        self.suppressed = ids.to_vec();
        Ok(())
    }

    fn submit(&mut self, step: &[SequenceStep<'_>]) -> Result<Ticket> {
        let [step] = step else { panic!("one sequence") };
        assert!(self.open);
        let before = self.held.len();
        match step.tokens {
            StepTokens::Host(tokens) => self.held.extend(tokens),
            StepTokens::Previous => self.held.push(self.chosen.expect("the step before chose")),
        }
        let added = self.held.len() - before;
        assert!((1..=4).contains(&added) && self.held.len() <= self.context_length);
        self.run += added;
        if self.run > self.fail_after {
            return Err(Error::Device("lost".into()));
        }
        let result = match step.output {
            StepOutput::None => StepResult::None,
            StepOutput::LastLogits => StepResult::Logits(Script::logits(&self.held)),
            StepOutput::AllLogits => StepResult::Logits(
                (before..self.held.len()).flat_map(|i| Script::logits(&self.held[..=i])).collect(),
            ),
            StepOutput::Greedy => StepResult::Token(argmax(&self.chosen_from())),
            StepOutput::Sample(draw) => StepResult::Token(draw.choose(&self.chosen_from())?),
        };
        self.chosen = match result {
            StepResult::Token(token) => Some(token),
            _ => None,
        };
        self.tickets += 1;
        self.results.insert(self.tickets, result);
        self.most_unread = self.most_unread.max(self.results.len());
        Ok(Ticket(self.tickets))
    }

    fn read(&mut self, ticket: Ticket) -> LocalBoxFuture<'_, Result<Vec<StepResult>>> {
        let result = self.results.remove(&ticket.0).expect("a ticket is read once");
        Box::pin(async move { Ok(vec![result]) })
    }
}

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
    // The step that took in the end token ran, and was taken back.
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
        // The next answer starts from the same tokens and the same state of the seed as if nothing
        // had run ahead.
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
    let outputs = |params: &SamplingParams| Choice::new(params).unwrap().output();
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
        // Positions 9, 10 and 11 take in three tokens; the fourth is chosen and has no place.
        assert_eq!(generation.tokens, expected(&PROMPT, 4));
        assert_eq!(script.run, 12);
    }
}

#[test]
fn the_next_turn_runs_only_what_is_new() {
    let mut script = Script::new(64);
    let mut generator = Generator::new(&mut script);
    let first = generate(&mut generator, &request(&PROMPT, 6, &[])).unwrap();
    let second: Vec<u32> = [&PROMPT[..], &first.tokens, &[3, 1, 4]].concat();
    let answer = generate(&mut generator, &request(&second, 6, &[])).unwrap();
    assert_eq!(answer.tokens, expected(&second, 6));
    // The last token of the first answer was chosen but never run.
    assert_eq!(answer.stats.cached_tokens, PROMPT.len() + 5);
    // A changed history is cut back to what is shared; the same prompt again runs its last token.
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
    // The end token stayed in the cache. A prompt that goes on with it finds it there …
    let with_end: Vec<u32> = [&PROMPT[..], &answer, &[5, 6]].concat();
    let second = generate(&mut generator, &request(&with_end, 4, &[])).unwrap();
    assert_eq!(
        (second.tokens, second.stats.cached_tokens),
        (expected(&with_end, 4), PROMPT.len() + 3)
    );
    // … and one that does not starts anew.
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
        // The prompt has three chunks; from then on it is asked once a token.
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
    assert!(generator.held.is_empty() && generator.sequence.is_none());
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

#[test]
fn perplexity_of_known_logits() {
    let mut script = Script::new(64);
    let tokens: Vec<u32> = (0..11).map(|i| i * 7 % VOCAB).collect();
    let mut score = Perplexity::default();
    let mut rows = 0;
    pollster::block_on(each_logits(&mut script, &tokens, &mut |first, logits| {
        assert_eq!(first, rows);
        rows += logits.len() / VOCAB as usize;
        score.add(logits, VOCAB as usize, &tokens[first + 1..])
    }))
    .unwrap();
    assert_eq!((rows, score.tokens()), (11, 10));
    let nll = |i: usize| {
        let row = Script::logits(&tokens[..i]);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        sum.ln() - f64::from(row[tokens[i] as usize])
    };
    let mean = (1..11).map(nll).sum::<f64>() / 10.0;
    assert!((score.mean_nll().unwrap() - mean).abs() < 1e-9);
    assert!((score.perplexity().unwrap() - mean.exp()).abs() < 1e-9 * mean.exp());
    assert!(!script.open);
}

#[test]
fn divergence_of_known_predictions() {
    let mut divergence = Divergence::default();
    assert_eq!((divergence.mean(), divergence.same_top()), (None, None));
    // Probabilities ½, ½, 0 against ¼, ¾, 0, whatever is added to logits; then the same twice, and
    // large values.
    let none = f32::NEG_INFINITY;
    divergence.add(&[5.0, 5.0, none], &[0.0, 3f32.ln(), none], 3).unwrap();
    let expected = 0.5 * 2f64.ln() + 0.5 * (2.0 / 3f64).ln();
    assert!(
        (divergence.mean().unwrap() - expected).abs() < 1e-7 && divergence.same_top() == Some(0.0)
    );
    divergence.add(&[1.0, 2.0, 3.0], &[3e38; 3], 3).unwrap();
    divergence.add(&[-3e38, 3e38, 0.0], &[-3e38, 3e38, 0.0], 3).unwrap();
    assert!(divergence.mean().unwrap().is_finite() && divergence.max() >= expected);
    assert!(divergence.add(&[0.0; 3], &[0.0; 6], 3).is_err());
}

#[test]
fn uniform_logits_have_the_perplexity_of_the_vocabulary() {
    let mut score = Perplexity::default();
    // Large values must not overflow.
    score.add(&[3e38; 20], 10, &[4, 9]).unwrap();
    assert!((score.perplexity().unwrap() - 10.0).abs() < 1e-9);
    assert!(score.add(&[0.0; 10], 10, &[10]).is_err());
    assert_eq!(Perplexity::default().perplexity(), None);
}

/// The script's likeliest token never comes, wherever tokens are chosen; then it does again.
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
