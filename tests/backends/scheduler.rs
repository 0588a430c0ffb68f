//! The scheduler with the embedded model on the CPU: interleaved answers are those of each alone.

use std::num::NonZeroUsize;

use crate::common;
use gemma4_wgpu::{
    checkpoint::Checkpoint,
    generate::{
        FinishReason, Generator, Request, Scheduler, SchedulerOptions, SequenceRequest, TokenEvent,
        Tokens,
    },
    model::weights::LoadOptions,
    sampling::SamplingParams,
};

const ANSWER: usize = 12;

fn options(max_sequences: usize) -> LoadOptions {
    LoadOptions { context_length: 512, max_sequences, ..LoadOptions::default() }
}

/// The held-out text from different places, the prompts of different lengths.
fn prompts() -> Vec<Vec<u32>> {
    let tokens = common::demo::tokens();
    (0..6).map(|n| tokens[n * 100..n * 100 + 5 + 37 * n].to_vec()).collect()
}

/// The likeliest tokens, and those of a device's and the host's sampler.
fn sampling(number: usize) -> SamplingParams {
    let params = SamplingParams { seed: Some(number as u64), ..SamplingParams::default() };
    match number % 3 {
        0 => SamplingParams { temperature: 0.0, ..params },
        1 => params,
        _ => SamplingParams { repetition_penalty: 1.2, ..params },
    }
}

fn alone(prompt: &[u32], sampling: SamplingParams) -> Vec<u32> {
    let mut backend = common::cpu(&Checkpoint::demo().unwrap(), &options(1)).unwrap();
    let request = Request {
        prompt,
        sampling,
        max_new_tokens: NonZeroUsize::new(ANSWER),
        eos_ids: &[],
        suppressed_ids: &[],
        cancelled: &|| false,
    };
    let mut generator = Generator::new(backend.as_mut());
    pollster::block_on(generator.generate(&request, &mut |_| ())).unwrap().tokens
}

fn submit(scheduler: &mut Scheduler, prompt: &[u32], sampling: SamplingParams) -> Tokens {
    let request = SequenceRequest {
        prompt: prompt.to_vec(),
        sampling,
        max_new_tokens: NonZeroUsize::new(ANSWER),
        ..SequenceRequest::default()
    };
    scheduler.submit(request).unwrap()
}

fn answer(tokens: &mut Tokens) -> Vec<u32> {
    let mut answer = Vec::new();
    loop {
        match tokens.try_next().expect("the answer ends") {
            TokenEvent::Token { id, .. } => answer.push(id),
            TokenEvent::Finished { reason, .. } => {
                assert_eq!(reason, FinishReason::Length);
                return answer;
            }
            TokenEvent::Failed(error) => panic!("{error}"),
        }
    }
}

#[test]
fn interleaved_answers_are_those_of_each_alone() {
    let backend = common::cpu(&Checkpoint::demo().unwrap(), &options(3)).unwrap();
    let limits = SchedulerOptions { prompt_chunk: 16, ..SchedulerOptions::default() };
    let mut scheduler = Scheduler::new(backend, &[], limits).unwrap();
    let prompts = prompts();
    let mut running: Vec<Tokens> = prompts
        .iter()
        .enumerate()
        .map(|(number, prompt)| submit(&mut scheduler, prompt, sampling(number)))
        .collect();
    // Neighbours that are cancelled in their prompt and in their answer.
    let mut cancelled = vec![submit(&mut scheduler, &prompts[5], sampling(0))];
    let mut steps = 0;
    while !scheduler.is_idle() {
        pollster::block_on(scheduler.step()).unwrap();
        steps += 1;
        if steps == 9 {
            cancelled.clear();
        }
    }
    for (number, tokens) in running.iter_mut().enumerate() {
        let alone = alone(&prompts[number], sampling(number));
        assert_eq!(answer(tokens), alone, "prompt {number}");
    }
    assert_eq!(scheduler.load().cancelled, 1);
}

/// Three turns of a conversation, with and without kept prefixes. The second turn drops the first
/// half of the answer, as templates drop thoughts. Returns the answers and the tokens that ran.
fn conversation(keep_prefixes: bool) -> (Vec<Vec<u32>>, u64) {
    let backend = common::cpu(&Checkpoint::demo().unwrap(), &options(2)).unwrap();
    let limits = SchedulerOptions { keep_prefixes, ..SchedulerOptions::default() };
    let mut scheduler = Scheduler::new(backend, &[], limits).unwrap();
    let mut history = prompts()[2].clone();
    let mut answers = Vec::new();
    for turn in 0..3 {
        let mut tokens = submit(&mut scheduler, &history, sampling(turn));
        while !scheduler.is_idle() {
            pollster::block_on(scheduler.step()).unwrap();
        }
        let said = answer(&mut tokens);
        history.extend(&said[if turn == 1 { ANSWER / 2 } else { 0 }..]);
        history.extend(&prompts()[0]);
        answers.push(said);
    }
    (answers, scheduler.load().prompt_tokens)
}

#[test]
fn kept_prefixes_do_not_change_answers() {
    let (fresh, all) = conversation(false);
    let (kept, new) = conversation(true);
    assert_eq!(kept, fresh);
    // Of the second prompt the answer's last token and the new message ran. Of the third, half of
    // the answer and the new message ran.
    let message = prompts()[0].len() as u64;
    let first = prompts()[2].len() as u64;
    assert_eq!(new, first + (1 + message) + (ANSWER as u64 / 2 + message));
    assert!(all > 2 * new);
}
