//! The contract of [`Backend`] for every implementation.
//! `tolerance` bounds the difference of logits from two computations.
//! `contract_tests!` makes a test of every function.

use gemma4_wgpu::sampling::argmax;
use gemma4_wgpu::{
    Error, Result,
    backend::{Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult, Ticket},
    model::{kv::CacheType, source::TensorSource, weights::LoadOptions},
    quant::Quantize,
    sampling::{Draw, Sampler, SamplingParams},
};

use super::{
    Make, all_logits, assert_close,
    random_model::{RandomModel, WINDOW, random_tokens},
    step,
};

mod choices;
mod refusals;
mod suppressed;

#[allow(unused_imports)] // some test programs use another part
pub use self::{choices::*, refusals::*, suppressed::*};

const F32: LoadOptions = LoadOptions {
    quantize: Quantize::None,
    context_length: 64,
    max_sequences: 2,
    cache_type: CacheType::F32,
};

const DRAW: Draw = Draw { temperature: 1.0, top_k: 64, top_p: 0.95, min_p: 0.0, point: 0.5 };

/// `make` for [`RandomModel::small_effective`], whatever the requested model is.
pub fn effective(
    make: impl Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>>,
) -> impl Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>> {
    move |_, options| make(&RandomModel::small_effective(), options)
}

/// `make` for [`RandomModel::small_experts`], whatever the requested model is.
pub fn experts(
    make: impl Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>>,
) -> impl Fn(&dyn TensorSource, &LoadOptions) -> Result<Box<dyn Backend>> {
    move |_, options| make(&RandomModel::small_experts(), options)
}

fn vocab(backend: &dyn Backend) -> usize {
    backend.config().vocab_size
}

/// The logits of a step with that output.
#[track_caller]
fn logits(result: StepResult) -> Vec<f32> {
    match result {
        StepResult::Logits(logits) => logits,
        other => panic!("asked for logits, got {other:?}"),
    }
}

/// All logits of `tokens` in a sequence of their own.
fn fresh_logits(backend: &mut dyn Backend, tokens: &[u32], chunks: &[usize]) -> Vec<f32> {
    let sequence = backend.open_sequence().unwrap();
    let logits = all_logits(backend, sequence, tokens, chunks);
    backend.close_sequence(sequence);
    logits
}

/// The division of a prompt into steps does not change its logits.
/// That holds for every quantization and for every cache type, which do not meet in a kernel.
pub fn chunks_equal_single_tokens(make: Make, tolerance: f32) {
    for (quantize, cache_type) in [
        (Quantize::None, CacheType::F32),
        (Quantize::Int8, CacheType::F16),
        (Quantize::Int4, CacheType::F16),
    ] {
        let mut backend =
            make(&RandomModel::small(), &LoadOptions { quantize, cache_type, ..F32 }).unwrap();
        let tokens = random_tokens(vocab(&*backend), 40, 1);
        let expected = fresh_logits(&mut *backend, &tokens, &[1]);
        for chunks in [&[usize::MAX][..], &[WINDOW], &[1, 9, 4], &[WINDOW - 1, WINDOW + 1]] {
            let logits = fresh_logits(&mut *backend, &tokens, chunks);
            let what = format!("{quantize}, {cache_type:?}, {chunks:?}");
            assert_close(&logits, &expected, tolerance, &what);
        }
    }
}

/// The rings of sliding layers wrap several times, with steps of the largest size.
pub fn rings_wrap_around(make: Make, tolerance: f32) {
    let options = LoadOptions { context_length: 4096, ..F32 };
    let mut backend = make(&RandomModel::small(), &options).unwrap();
    let most = backend.info().max_step_tokens;
    let tokens = random_tokens(vocab(&*backend), (3 * most + 17).min(4096), 2);
    let expected = fresh_logits(&mut *backend, &tokens, &[1]);
    for chunks in [&[usize::MAX][..], &[most - 1, 2]] {
        let logits = fresh_logits(&mut *backend, &tokens, chunks);
        assert_close(&logits, &expected, tolerance, &format!("{chunks:?}"));
    }
}

/// An f16 cache rounds only keys and values, so logits change little.
pub fn f16_cache_is_close_to_f32(make: Make) {
    let [f32_logits, f16_logits] = [CacheType::F32, CacheType::F16].map(|cache_type| {
        let mut backend = make(&RandomModel::small(), &LoadOptions { cache_type, ..F32 }).unwrap();
        let tokens = random_tokens(vocab(&*backend), 30, 3);
        (fresh_logits(&mut *backend, &tokens, &[usize::MAX]), backend.info().kv_bytes)
    });
    assert_close(&f16_logits.0, &f32_logits.0, 0.05, "f16 cache");
    assert_ne!(f16_logits.0, f32_logits.0);
    assert_eq!(2 * f16_logits.1, f32_logits.1);
}

/// All kinds of output agree about the last position.
pub fn outputs_agree(make: Make, tolerance: f32) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let tokens = random_tokens(vocab(&*backend), 12, 4);
    let all = fresh_logits(&mut *backend, &tokens, &[usize::MAX]);
    let last = &all[11 * vocab(&*backend)..];
    for output in [StepOutput::None, StepOutput::LastLogits, StepOutput::Greedy] {
        let sequence = backend.open_sequence().unwrap();
        let result = step(&mut *backend, sequence, StepInput::Tokens(&tokens), output).unwrap();
        match output {
            StepOutput::None => assert_eq!(result, StepResult::None),
            StepOutput::Greedy => assert_eq!(result, StepResult::Token(argmax(last))),
            _ => assert_close(&logits(result), last, tolerance, "LastLogits"),
        }
        assert_eq!(backend.sequence_len(sequence), 12);
        backend.close_sequence(sequence);
    }
}

/// Steps without output store all that later steps need.
pub fn steps_without_output_count(make: Make, tolerance: f32) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let vocab = vocab(&*backend);
    let tokens = random_tokens(vocab, 21, 12);
    let expected = fresh_logits(&mut *backend, &tokens, &[usize::MAX]);
    for chunks in [[9, 8, 4], [1, 1, 19], [18, 2, 1]] {
        let sequence = backend.open_sequence().unwrap();
        let (mut rest, mut last) = (&tokens[..], StepResult::None);
        for (index, &chunk) in chunks.iter().enumerate() {
            let (now, later) = rest.split_at(chunk);
            let output = if index == 2 { StepOutput::LastLogits } else { StepOutput::None };
            last = step(&mut *backend, sequence, StepInput::Tokens(now), output).unwrap();
            rest = later;
        }
        backend.close_sequence(sequence);
        assert_close(&logits(last), &expected[20 * vocab..], tolerance, &format!("{chunks:?}"));
    }
}

/// The results of one step of two new sequences.
fn run_both(
    backend: &mut dyn Backend,
    prompts: &[Vec<u32>; 2],
    outputs: [StepOutput; 2],
) -> Vec<StepResult> {
    let sequences = [backend.open_sequence().unwrap(), backend.open_sequence().unwrap()];
    let part = |s: usize| {
        let tokens = StepInput::Tokens(&prompts[s]);
        SequenceStep { sequence: sequences[s], input: tokens, output: outputs[s] }
    };
    let ticket = backend.submit(&[part(0), part(1)]).unwrap();
    let results = pollster::block_on(backend.read(ticket)).unwrap();
    sequences.iter().for_each(|&sequence| backend.close_sequence(sequence));
    results
}

/// Two sequences in one step give the same as each alone.
pub fn sequences_do_not_touch(make: Make, tolerance: f32) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let vocab = vocab(&*backend);
    let prompts = [random_tokens(vocab, 30, 6), random_tokens(vocab, 21, 7)];
    let alone = prompts.clone().map(|prompt| fresh_logits(&mut *backend, &prompt, &[usize::MAX]));

    let sequences = [backend.open_sequence().unwrap(), backend.open_sequence().unwrap()];
    let mut together = [Vec::new(), Vec::new()];
    // Uneven parts in varying order, and one sequence ends before the other.
    for (round, chunk) in [(0, [4, 9]), (1, [1, 1]), (2, [10, 11]), (3, [15, 0])] {
        let mut order = vec![0, 1];
        if round % 2 == 1 {
            order.reverse();
        }
        order.retain(|&i| chunk[i] > 0);
        let step: Vec<SequenceStep> = order
            .iter()
            .map(|&i| {
                let start = together[i].len() / vocab;
                let tokens = StepInput::Tokens(&prompts[i][start..start + chunk[i]]);
                SequenceStep {
                    sequence: sequences[i],
                    input: tokens,
                    output: StepOutput::AllLogits,
                }
            })
            .collect();
        let ticket = backend.submit(&step).unwrap();
        let results = pollster::block_on(backend.read(ticket)).unwrap();
        assert_eq!(results.len(), order.len());
        for (i, result) in order.into_iter().zip(results) {
            together[i].extend(logits(result));
        }
    }
    for i in 0..2 {
        assert_close(&together[i], &alone[i], tolerance, &format!("sequence {i}"));
    }
}

/// After `truncate`, a sequence continues as if it had never been longer, or returns an error.
pub fn truncate_forgets(make: Make, tolerance: f32) {
    let options = LoadOptions { context_length: 4096, ..F32 };
    let mut backend = make(&RandomModel::small(), &options).unwrap();
    let vocab = vocab(&*backend);
    let tokens = random_tokens(vocab, 20, 8);
    let expected = fresh_logits(&mut *backend, &tokens, &[usize::MAX]);

    let sequence = backend.open_sequence().unwrap();
    all_logits(&mut *backend, sequence, &tokens[..12], &[5]);
    all_logits(&mut *backend, sequence, &random_tokens(vocab, 9, 9), &[4]);
    backend.truncate(sequence, 12).unwrap();
    assert_eq!(backend.sequence_len(sequence), 12);
    let rest = all_logits(&mut *backend, sequence, &tokens[12..], &[3]);
    assert_close(&rest, &expected[12 * vocab..], tolerance, "after truncate");

    // Truncation to nothing is always possible.
    let long = random_tokens(vocab, 3 * backend.info().max_step_tokens, 10);
    all_logits(&mut *backend, sequence, &long[..(4096 - 20).min(long.len())], &[usize::MAX]);
    let len = backend.sequence_len(sequence);
    assert!(matches!(backend.truncate(sequence, len + 1), Err(Error::Input(_))));
    // The rings no longer have the window at this position.
    assert!(matches!(backend.truncate(sequence, WINDOW + 2), Err(Error::Input(_))));
    assert_eq!(backend.sequence_len(sequence), len);
    backend.truncate(sequence, 0).unwrap();
    let again = all_logits(&mut *backend, sequence, &tokens, &[7]);
    assert_close(&again, &expected, tolerance, "after truncate to nothing");
}

/// A new sequence can use the slot of a closed one and starts empty.
pub fn closed_sequences_make_room(make: Make, tolerance: f32) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let tokens = random_tokens(vocab(&*backend), 10, 11);
    let (a, b) = (backend.open_sequence().unwrap(), backend.open_sequence().unwrap());
    assert_ne!(a, b);
    assert!(matches!(backend.open_sequence(), Err(Error::Input(_))));
    let expected = all_logits(&mut *backend, a, &tokens, &[usize::MAX]);
    backend.close_sequence(a);
    let c = backend.open_sequence().unwrap();
    assert_eq!(backend.sequence_len(c), 0);
    assert_close(
        &all_logits(&mut *backend, c, &tokens, &[usize::MAX]),
        &expected,
        tolerance,
        "reopened",
    );
}

/// Fails unless the backend's info is plausible.
pub fn info_is_plausible(make: Make, backend_name: &str) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let before = backend.info();
    assert_eq!(
        (before.backend, before.context_length, before.max_sequences),
        (backend_name, 64, 2)
    );
    assert!(!before.device.is_empty() && before.max_step_tokens > 0);
    // Two sequences of 64 positions. A full layer has 2·20 values for each position.
    // Sliding layers have at least a window.
    assert!(before.kv_bytes >= 2 * 4 * (64 * 2 * 20 + 2 * WINDOW as u64 * 2 * 20));
    assert!(before.weight_bytes > 0);
    assert!(before.peak_bytes >= before.weight_bytes + before.kv_bytes);
    fresh_logits(&mut *backend, &[1, 2, 3], &[usize::MAX]);
    assert!(backend.info().peak_bytes >= before.peak_bytes);
}

/// A step can be read once. A ticket that was never issued cannot be read.
pub fn tickets_are_read_once(make: Make) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let sequence = backend.open_sequence().unwrap();
    let ticket = backend
        .submit(&[SequenceStep {
            sequence,
            input: StepInput::Tokens(&[1]),
            output: StepOutput::None,
        }])
        .unwrap();
    let number = ticket.0;
    pollster::block_on(backend.read(ticket)).unwrap();
    for number in [number, number + 1] {
        assert!(matches!(pollster::block_on(backend.read(Ticket(number))), Err(Error::Input(_))));
    }
}

/// A test for every promise of the contract: `contract_tests!(tolerance, make, "backend's name")`.
#[macro_export]
macro_rules! contract_tests {
    ($tolerance:expr, $make:expr, $name:expr) => {
        $crate::contract_tests! {
            @ $make;
            chunks_equal_single_tokens($tolerance), rings_wrap_around($tolerance),
            f16_cache_is_close_to_f32(),
            outputs_agree($tolerance), steps_without_output_count($tolerance),
            previous_continues_greedily($tolerance),
            draws_like_the_host(), draws_beside_logits(), suppressed_tokens_are_not_chosen(),
            previous_needs_a_choice(), sequences_do_not_touch($tolerance),
            truncate_forgets($tolerance), closed_sequences_make_room($tolerance),
            bad_steps_are_refused(),
            large_steps_are_refused(), impossible_options_are_refused(), info_is_plausible($name),
            tickets_are_read_once()
        }
    };
    (@ $make:expr; $($promise:ident($($argument:expr)?)),*) => {
        $(
            #[test]
            fn $promise() {
                $crate::common::contract::$promise(&$make $(, $argument)?);
            }
        )*
    };
}
