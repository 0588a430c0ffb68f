//! What only the host can do to choose tokens: penalties, biases, log probabilities, constraints.

use std::num::NonZeroUsize;

use super::GREEDY;
use super::many::Many;
use super::scheduler::{finish, prompt};
use super::script::{Script, VOCAB, expected, model};
use crate::error::{Error, Result};
use crate::generate::{
    Constraint, FinishReason, HostChoice, Refused, Scheduler, SchedulerOptions, SequenceRequest,
    TokenEvent,
};
use crate::sampling::{Adjustments, SamplingParams, TokenLogprobs};

/// Allows tokens of one remainder modulo `divisor`, which changes from token to token.
struct Remainders {
    divisor: u32,
    /// Tokens after which the answer ends.
    most: u32,
    accepted: u32,
    words: Vec<u32>,
}

impl Remainders {
    fn new(divisor: u32, most: u32) -> Box<Remainders> {
        Box::new(Remainders { divisor, most, accepted: 0, words: Vec::new() })
    }

    fn allows(&self, token: u32) -> bool {
        token % self.divisor == self.accepted % self.divisor
    }
}

impl Constraint for Remainders {
    fn prepare(&mut self) -> Result<()> {
        if self.divisor == 0 {
            return Err(Error::Input("no divisor".into()));
        }
        let word = |word: u32| {
            let ids = (0..32).filter(|at| self.allows(32 * word + at));
            ids.fold(0, |bits, at| bits | 1 << at)
        };
        self.words = (0..VOCAB.div_ceil(32)).map(word).collect();
        Ok(())
    }

    fn allowed(&self) -> Option<&[u32]> {
        Some(&self.words)
    }

    fn accept(&mut self, token: u32) -> Result<bool> {
        assert!(self.allows(token), "{token} after {}", self.accepted);
        self.accepted += 1;
        Ok(self.accepted == self.most)
    }
}

fn request(number: u32, most: usize, choice: HostChoice) -> SequenceRequest {
    SequenceRequest {
        prompt: prompt(number, 5),
        sampling: GREEDY,
        max_new_tokens: NonZeroUsize::new(most),
        choice,
        ..SequenceRequest::default()
    }
}

/// The events of all requests, which share steps.
fn run(requests: Vec<SequenceRequest>) -> Vec<Vec<TokenEvent>> {
    let backend = Many::new(requests.len(), 64, 16);
    let unread = backend.unread();
    let mut scheduler =
        Scheduler::new(Box::new(backend), &[], SchedulerOptions::default()).unwrap();
    let mut all: Vec<_> =
        requests.into_iter().map(|request| scheduler.submit(request).unwrap()).collect();
    finish(&mut scheduler);
    assert_eq!(unread.get(), 0);
    all.iter_mut().map(|tokens| std::iter::from_fn(|| tokens.try_next()).collect()).collect()
}

fn tokens(events: &[TokenEvent]) -> Vec<u32> {
    let token = |event: &TokenEvent| match event {
        TokenEvent::Token { id, .. } => Some(*id),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

fn reason(events: &[TokenEvent]) -> FinishReason {
    match events.last() {
        Some(TokenEvent::Finished { reason, .. }) => *reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_constraint_limits_its_own_answer() {
    let constrained =
        || HostChoice { constraint: Some(Remainders::new(5, 7)), ..HostChoice::default() };
    let all = run(vec![request(1, 20, constrained()), request(2, 12, HostChoice::default())]);
    let answer = tokens(&all[0]);
    assert_eq!((answer.len(), reason(&all[0])), (7, FinishReason::Stop));
    let remainders: Vec<u32> = answer.iter().map(|token| token % 5).collect();
    assert_eq!(remainders, [0, 1, 2, 3, 4, 0, 1]);
    // The neighbour's answer is that of the model.
    assert_eq!(tokens(&all[1]), expected(&prompt(2, 5), 12));
    // The most tokens of an answer still hold.
    let short = run(vec![request(1, 3, constrained())]);
    assert_eq!((tokens(&short[0]).len(), reason(&short[0])), (3, FinishReason::Length));
}

#[test]
fn a_constraint_that_fails_ends_its_own_answer() {
    let broken = HostChoice { constraint: Some(Remainders::new(0, 1)), ..HostChoice::default() };
    let all = run(vec![request(1, 20, broken), request(2, 12, HostChoice::default())]);
    assert!(
        matches!(&all[0][..], [TokenEvent::Failed(error)] if error.to_string() == "no divisor")
    );
    assert_eq!(tokens(&all[1]), expected(&prompt(2, 5), 12));
}

#[test]
fn log_probabilities_come_with_each_token() {
    let choice = HostChoice { logprobs: Some(3), ..HostChoice::default() };
    let all = run(vec![request(1, 6, choice), request(2, 6, HostChoice::default())]);
    let mut context = prompt(1, 5);
    for event in &all[0][..6] {
        let TokenEvent::Token { id, logprobs: Some(found) } = event else { panic!("{event:?}") };
        assert_eq!(*id, model(&context));
        assert_eq!(**found, TokenLogprobs::new(&Script::logits(&context), *id, 3));
        assert_eq!(found.likeliest[0], (*id, found.logprob));
        context.push(*id);
    }
    let none = |event: &TokenEvent| matches!(event, TokenEvent::Token { logprobs: None, .. });
    assert!(all[1][..6].iter().all(none));
}

#[test]
fn biases_and_penalties_change_the_choice() {
    let first = model(&prompt(1, 5));
    let banned = Adjustments { logit_bias: vec![(first, -100.0)], ..Adjustments::default() };
    let wanted = Adjustments { logit_bias: vec![(3, 200.0)], ..Adjustments::default() };
    // The script's logits fall by 1 from id to id, so that this forbids every repetition.
    let once = Adjustments { presence_penalty: 200.0, ..Adjustments::default() };
    let choice = |adjustments| HostChoice { adjustments, ..HostChoice::default() };
    let all = run([banned, wanted, once].map(|it| request(1, 40, choice(it))).into());
    assert_eq!(tokens(&all[0])[0].abs_diff(first), 1);
    assert_eq!(tokens(&all[1]), [3; 40]);
    let mut answer = tokens(&all[2]);
    answer.sort_unstable();
    answer.dedup();
    assert_eq!(answer.len(), 40, "no token twice");
    assert_ne!(expected(&prompt(1, 5), 40), tokens(&all[2]));
}

#[test]
fn unusable_adjustments_are_refused() {
    let backend = Box::new(Many::new(1, 64, 16));
    let mut scheduler = Scheduler::new(backend, &[], SchedulerOptions::default()).unwrap();
    let adjustments = Adjustments { frequency_penalty: f32::NAN, ..Adjustments::default() };
    let choice = HostChoice { adjustments, ..HostChoice::default() };
    let sampling = SamplingParams { temperature: 1.0, ..GREEDY };
    let refused = scheduler.submit(SequenceRequest { sampling, ..request(1, 1, choice) });
    assert!(matches!(refused, Err(Refused::Invalid(_))));
}
