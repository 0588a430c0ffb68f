//! The scheduler against a scripted backend of many sequences.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use super::GREEDY;
use super::many::{Many, Seen};
use super::script::{VOCAB, expected};
use crate::generate::{
    FinishReason, Refused, Scheduler, SchedulerOptions, SequenceRequest, TokenEvent, Tokens,
};
use crate::sampling::SamplingParams;

pub(super) const OPTIONS: SchedulerOptions = SchedulerOptions {
    max_queued: 3,
    prompt_chunk: 4,
    channel_capacity: 64,
    reader_timeout: Duration::from_secs(600),
    keep_prefixes: false,
};
/// Sampling on the host that always takes the likeliest token.
const HOST: SamplingParams = SamplingParams { temperature: 1.0, top_p: 0.0, ..GREEDY };

fn scheduler(slots: usize, options: SchedulerOptions) -> (Scheduler, Rc<RefCell<Seen>>) {
    let backend = Many::new(slots, 64, 16);
    let seen = backend.seen();
    (Scheduler::new(Box::new(backend), &[], options).unwrap(), seen)
}

pub(super) fn prompt(number: u32, tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|at| (at * 7 + number * 13) % VOCAB).collect()
}

pub(super) fn request(prompt: &[u32], most: usize) -> SequenceRequest {
    SequenceRequest {
        prompt: prompt.to_vec(),
        sampling: GREEDY,
        max_new_tokens: NonZeroUsize::new(most),
        ..SequenceRequest::default()
    }
}

fn step(scheduler: &mut Scheduler) -> bool {
    pollster::block_on(scheduler.step()).unwrap()
}

/// Steps until nothing is left to do.
pub(super) fn finish(scheduler: &mut Scheduler) {
    while !scheduler.is_idle() {
        step(scheduler);
    }
}

/// The tokens that have arrived, and the end of the answer.
pub(super) fn taken(tokens: &mut Tokens) -> (Vec<u32>, Option<FinishReason>) {
    let mut all = Vec::new();
    while let Some(event) = tokens.try_next() {
        match event {
            TokenEvent::Token { id, .. } => all.push(id),
            TokenEvent::Finished { reason, .. } => return (all, Some(reason)),
            TokenEvent::Failed(error) => panic!("{error}"),
        }
    }
    (all, None)
}

#[test]
fn interleaved_answers_are_those_of_each_alone() {
    let (mut scheduler, seen) = scheduler(4, SchedulerOptions { max_queued: 20, ..OPTIONS });
    let mut answers = Vec::new();
    for number in 0..10 {
        let prompt = prompt(number, 3 + 4 * number as usize % 17);
        let sampling = if number % 3 == 0 { HOST } else { GREEDY };
        let request = SequenceRequest { sampling, ..request(&prompt, 5 + number as usize) };
        answers.push((prompt, 5 + number as usize, scheduler.submit(request).unwrap()));
    }
    finish(&mut scheduler);
    for (prompt, most, mut tokens) in answers {
        assert_eq!(taken(&mut tokens), (expected(&prompt, most), Some(FinishReason::Length)));
    }
    assert_eq!(seen.borrow().open, 0);
    assert!(seen.borrow().steps.iter().any(|step| step.len() == 4), "all slots share steps");
}

#[test]
fn ends_of_answers() {
    let (mut scheduler, seen) = scheduler(2, OPTIONS);
    let prompt = prompt(1, 9);
    let answer = expected(&prompt, 60);
    for sampling in [GREEDY, HOST] {
        let stop = SequenceRequest { eos_ids: vec![answer[5]], sampling, ..request(&prompt, 40) };
        let full = SequenceRequest { sampling, max_new_tokens: None, ..request(&prompt, 1) };
        let mut stop = scheduler.submit(stop).unwrap();
        let mut full = scheduler.submit(full).unwrap();
        finish(&mut scheduler);
        let length = answer.iter().position(|&token| token == answer[5]).unwrap();
        assert_eq!(taken(&mut stop), (answer[..length].to_vec(), Some(FinishReason::Stop)));
        // The last token is chosen, but no position is left for it.
        let rest = 64 - prompt.len() + 1;
        assert_eq!(taken(&mut full), (answer[..rest].to_vec(), Some(FinishReason::ContextFull)));
    }
    assert_eq!(seen.borrow().open, 0);
}

#[test]
fn running_answers_keep_their_pace_beside_a_long_prompt() {
    let (mut scheduler, seen) = scheduler(3, OPTIONS);
    let mut first = scheduler.submit(request(&prompt(1, 3), 30)).unwrap();
    step(&mut scheduler);
    let mut long = scheduler.submit(request(&prompt(2, 40), 3)).unwrap();
    let mut short = scheduler.submit(request(&prompt(3, 2), 3)).unwrap();
    finish(&mut scheduler);
    for (tokens, number, length, most) in
        [(&mut first, 1, 3, 30), (&mut long, 2, 40, 3), (&mut short, 3, 2, 3)]
    {
        assert_eq!(taken(tokens).0, expected(&prompt(number, length), most));
    }
    let seen = seen.borrow();
    // Every step has a row of the first, and at most four rows of prompts until it has ended.
    for rows in &seen.steps[1..20] {
        assert!(rows.contains(&(0, 1)), "{rows:?}");
        assert!(rows.iter().map(|(_, rows)| rows).sum::<usize>() <= 1 + 4 + 1, "{rows:?}");
    }
    // The short prompt does not wait for the end of the long one.
    assert_eq!(seen.steps[1], [(0, 1), (1, 2), (2, 2)]);
}

#[test]
fn cancelled_neighbours_change_nothing() {
    let (mut scheduler, seen) = scheduler(3, OPTIONS);
    let mut kept = scheduler.submit(request(&prompt(1, 5), 30)).unwrap();
    let decoding = scheduler.submit(request(&prompt(2, 5), 30)).unwrap();
    let in_prompt = scheduler.submit(request(&prompt(3, 50), 30)).unwrap();
    let queued = scheduler.submit(request(&prompt(4, 5), 30)).unwrap();
    for _ in 0..4 {
        step(&mut scheduler);
    }
    assert_eq!((seen.borrow().open, scheduler.load().queued), (3, 1));
    drop((decoding, in_prompt, queued));
    let before = seen.borrow().steps.len();
    step(&mut scheduler);
    // The step that follows has only the rows of what is left.
    assert_eq!(seen.borrow().steps[before], [(0, 1)]);
    assert_eq!((seen.borrow().open, scheduler.load().queued), (1, 0));
    assert_eq!(scheduler.load().cancelled, 3);
    finish(&mut scheduler);
    assert_eq!(taken(&mut kept), (expected(&prompt(1, 5), 30), Some(FinishReason::Length)));
}

#[test]
fn requests_beyond_the_slots_wait_in_order() {
    let (mut scheduler, _) = scheduler(2, OPTIONS);
    let mut all: Vec<Tokens> =
        (0..5).map(|n| scheduler.submit(request(&prompt(n, 4), 6)).unwrap()).collect();
    assert_eq!((scheduler.load().queued, scheduler.load().running), (5, 0));
    let refused = scheduler.submit(request(&prompt(9, 4), 6));
    assert!(matches!(refused, Err(Refused::QueueFull { queued: 5 })), "{refused:?}");
    let mut order = Vec::new();
    while !scheduler.is_idle() {
        step(&mut scheduler);
        for (number, tokens) in all.iter_mut().enumerate() {
            if !order.contains(&number) && tokens.try_next().is_some() {
                order.push(number);
            }
        }
    }
    assert_eq!(order, [0, 1, 2, 3, 4]);
    scheduler.submit(request(&prompt(9, 4), 6)).unwrap();
}

#[test]
fn a_slow_reader_pauses_only_its_own_answer() {
    for sampling in [GREEDY, HOST] {
        let options = SchedulerOptions { channel_capacity: 4, ..OPTIONS };
        let (mut scheduler, seen) = scheduler(2, options);
        let slow = SequenceRequest { sampling, ..request(&prompt(1, 5), 30) };
        let mut slow = scheduler.submit(slow).unwrap();
        let mut fast = scheduler.submit(request(&prompt(2, 5), 30)).unwrap();
        let mut answer = Vec::new();
        for _ in 0..40 {
            step(&mut scheduler);
            answer.extend(taken(&mut fast).0);
        }
        assert_eq!(answer, expected(&prompt(2, 5), 30));
        let rows = seen.borrow().steps.iter().flatten().filter(|(id, _)| *id == 0).count();
        assert!(rows <= 8, "{rows} steps for a channel of 4");
        assert!(!step(&mut scheduler), "nothing is left to do but to wait");
        let mut answer = Vec::new();
        while !scheduler.is_idle() {
            answer.extend(taken(&mut slow).0);
            step(&mut scheduler);
        }
        answer.extend(taken(&mut slow).0);
        assert_eq!(answer, expected(&prompt(1, 5), 30));
        assert_eq!(seen.borrow().open, 0);
    }
}

#[test]
fn a_reader_that_stops_is_cancelled() {
    let options = SchedulerOptions {
        channel_capacity: 2,
        reader_timeout: Duration::from_millis(5),
        ..OPTIONS
    };
    let (mut scheduler, seen) = scheduler(1, options);
    let mut tokens = scheduler.submit(request(&prompt(1, 5), 30)).unwrap();
    while !scheduler.is_idle() {
        if !step(&mut scheduler) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let (answer, end) = taken(&mut tokens);
    assert_eq!((answer.len(), end), (2, None));
    assert_eq!((seen.borrow().open, scheduler.load().cancelled), (0, 1));
}

#[test]
fn unusable_requests_are_refused() {
    let (mut scheduler, _) = scheduler(1, OPTIONS);
    let mut refused = |request: SequenceRequest| scheduler.submit(request).unwrap_err();
    let long = refused(request(&prompt(1, 65), 1));
    assert!(matches!(long, Refused::PromptTooLong { tokens: 65, context_length: 64 }));
    assert!(matches!(refused(request(&[], 1)), Refused::Invalid(_)));
    assert!(matches!(refused(request(&[VOCAB], 1)), Refused::Invalid(_)));
    let sampling = SamplingParams { temperature: f32::NAN, ..GREEDY };
    let invalid = SequenceRequest { sampling, ..request(&prompt(1, 3), 1) };
    assert!(matches!(refused(invalid), Refused::Invalid(_)));
}

#[test]
fn a_step_that_fails_when_read_leaves_no_ticket() {
    let backend = Many::new(2, 64, 16);
    let (seen, unread) = (backend.seen(), backend.unread());
    let mut scheduler = Scheduler::new(Box::new(backend), &[], OPTIONS).unwrap();
    let mut tokens = scheduler.submit(request(&prompt(1, 4), 30)).unwrap();
    seen.borrow_mut().fail_read = Some(2);
    let failed = |scheduler: &mut Scheduler| pollster::block_on(scheduler.step()).is_err();
    while !failed(&mut scheduler) {}
    // The step after it was already submitted.
    assert_eq!((seen.borrow().open, unread.get()), (0, 0));
    assert!(!step(&mut scheduler) && scheduler.is_idle());
    let events: Vec<TokenEvent> = std::iter::from_fn(|| tokens.try_next()).collect();
    assert!(matches!(events.last(), Some(TokenEvent::Failed(_))));
}

#[test]
fn a_failed_step_fails_its_requests() {
    let backend = Many::new(2, 64, 16);
    let (seen, unread) = (backend.seen(), backend.unread());
    let mut scheduler = Scheduler::new(Box::new(backend), &[], OPTIONS).unwrap();
    seen.borrow_mut().fail_from = Some(3);
    let mut all: Vec<Tokens> =
        (0..2).map(|n| scheduler.submit(request(&prompt(n, 4), 30)).unwrap()).collect();
    let error = loop {
        match pollster::block_on(scheduler.step()) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "device: lost");
    for tokens in &mut all {
        let mut events = std::iter::from_fn(|| tokens.try_next());
        assert!(events.any(|event| matches!(event, TokenEvent::Failed(_))));
    }
    assert_eq!((seen.borrow().open, unread.get()), (0, 0));
    // The device is well again.
    seen.borrow_mut().fail_from = None;
    let mut next = scheduler.submit(request(&prompt(5, 4), 3)).unwrap();
    finish(&mut scheduler);
    assert_eq!(taken(&mut next).0, expected(&prompt(5, 4), 3));
}
