//! Answers that begin with the tokens of earlier ones.

use std::cell::RefCell;
use std::rc::Rc;

use super::many::{Many, Seen};
use super::scheduler::{OPTIONS, finish, prompt, request, taken};
use super::script::expected;
use crate::generate::{FinishReason, Scheduler, SchedulerOptions, TokenEvent};

fn scheduler(slots: usize, context: usize) -> (Scheduler, Rc<RefCell<Seen>>) {
    let backend = Many::new(slots, context, 16);
    let seen = backend.seen();
    let options = SchedulerOptions { keep_prefixes: true, ..OPTIONS };
    (Scheduler::new(Box::new(backend), &[], options).unwrap(), seen)
}

/// The answer of `most` tokens, checked, and the prompt tokens that ran.
fn answer(scheduler: &mut Scheduler, prompt: &[u32], most: usize) -> (Vec<u32>, u64) {
    let before = scheduler.load();
    let mut tokens = scheduler.submit(request(prompt, most)).unwrap();
    finish(scheduler);
    let found = taken(&mut tokens);
    assert_eq!(found, (expected(prompt, most), Some(FinishReason::Length)));
    let after = scheduler.load();
    let cached = after.cached_tokens - before.cached_tokens;
    let run = after.prompt_tokens - before.prompt_tokens;
    assert_eq!(run + cached, prompt.len() as u64);
    (found.0, run)
}

#[test]
fn the_next_prompt_of_a_conversation_runs_its_new_tokens() {
    let (mut scheduler, seen) = scheduler(2, 64);
    let first = prompt(1, 9);
    let (said, run) = answer(&mut scheduler, &first, 5);
    assert_eq!(run, 9);
    // The answer's last token was chosen and never run.
    let second = [&first[..], &said, &[3, 1, 4]].concat();
    assert_eq!(answer(&mut scheduler, &second, 4).1, 4);
    // Without the answer, as templates drop thoughts.
    let third = [&first[..], &[7, 7]].concat();
    assert_eq!(answer(&mut scheduler, &third, 4).1, 2);
    // The same prompt again runs its last token.
    assert_eq!(answer(&mut scheduler, &third, 4).1, 1);
    assert_eq!(seen.borrow().open, 1);
}

#[test]
fn the_tokens_that_were_kept_are_reported() {
    let (mut scheduler, _) = scheduler(1, 64);
    let first = prompt(1, 9);
    answer(&mut scheduler, &first, 5);
    let mut tokens = scheduler.submit(request(&first, 2)).unwrap();
    finish(&mut scheduler);
    let events: Vec<TokenEvent> = std::iter::from_fn(|| tokens.try_next()).collect();
    let Some(TokenEvent::Finished { stats, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((stats.prompt_tokens, stats.cached_tokens), (9, 8));
}

#[test]
fn conversations_keep_slots_of_their_own_while_some_are_free() {
    let (mut scheduler, seen) = scheduler(3, 64);
    // They begin alike, as with one system prompt.
    let conversation = |number: u32| [&prompt(0, 6)[..], &prompt(number, 14)].concat();
    for number in 1..4 {
        answer(&mut scheduler, &conversation(number), 3);
    }
    assert_eq!(seen.borrow().open, 3);
    for number in 1..4 {
        assert_eq!(answer(&mut scheduler, &conversation(number), 3).1, 1, "{number}");
    }
    // A fourth takes the place of one, from the common beginning on.
    assert_eq!(answer(&mut scheduler, &conversation(4), 3).1, 14);
    // One without a common beginning takes the place of the least recently used.
    assert_eq!(answer(&mut scheduler, &prompt(9, 5), 3).1, 5);
    assert_eq!(seen.borrow().open, 3);
}

#[test]
fn a_lost_window_runs_the_prompt_again() {
    let (mut scheduler, seen) = scheduler(1, 64);
    seen.borrow_mut().cannot_truncate = true;
    for _ in 0..3 {
        assert_eq!(answer(&mut scheduler, &prompt(1, 9), 5).1, 9);
    }
    assert_eq!(seen.borrow().open, 0);
}

/// Two conversations of 200 turns whose thoughts are dropped. The slots do not grow. Of each prompt
/// only the last answer and the new message run.
#[test]
fn memory_is_flat_over_many_turns() {
    let (mut scheduler, seen) = scheduler(2, 4096);
    let mut histories = [prompt(1, 9), prompt(2, 12)];
    for turn in 0..200u32 {
        let number = turn as usize % 2;
        let (said, run) = answer(&mut scheduler, &histories[number], 8);
        let new = if turn < 2 { histories[number].len() as u64 } else { 7 };
        // The script may repeat the tokens that were dropped.
        assert!(run <= new, "turn {turn}: {run}");
        // The first four tokens are thoughts.
        histories[number].extend(&said[4..]);
        histories[number].extend([turn % 7, 5, 6]);
        assert!(seen.borrow().open <= 2);
    }
}

#[test]
fn neighbours_and_cancelled_requests_leave_whole_prefixes() {
    let (mut scheduler, seen) = scheduler(3, 64);
    let prompts: Vec<Vec<u32>> = (0..3).map(|number| prompt(number, 20)).collect();
    for round in 0..6 {
        let mut all: Vec<_> =
            prompts.iter().map(|prompt| scheduler.submit(request(prompt, 12)).unwrap()).collect();
        for _ in 0..round {
            pollster::block_on(scheduler.step()).unwrap();
        }
        // In its prompt, later in its answer.
        drop(all.remove(round % 3));
        finish(&mut scheduler);
        let mut rest = prompts.clone();
        rest.remove(round % 3);
        for (prompt, tokens) in rest.iter().zip(&mut all) {
            assert_eq!(taken(tokens).0, expected(prompt, 12), "round {round}");
        }
        assert!(seen.borrow().open <= 3);
    }
    assert!(scheduler.load().cached_tokens > 0);
}
