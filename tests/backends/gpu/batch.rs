//! Steps of many sequences of the embedded model.

use crate::common::{self, demo};
use gemma4_wgpu::{
    backend::{Backend, SequenceId, SequenceStep, StepInput, StepOutput, StepResult},
    checkpoint::Checkpoint,
    generate::Divergence,
    gpu::KernelOptions,
    model::weights::LoadOptions,
};

/// Sequence `index`'s tokens: a part of the held-out text. Lengths differ.
fn prompt(index: usize) -> Vec<u32> {
    let first = 7 * index;
    demo::tokens()[first..first + 2 + 3 * index % 5].to_vec()
}

fn options(max_sequences: usize) -> LoadOptions {
    LoadOptions { context_length: 64, max_sequences, ..LoadOptions::default() }
}

/// Runs a step of several sequences. Returns the logits of those that want some.
fn run(
    backend: &mut dyn Backend,
    parts: &[(SequenceId, &[u32])],
    output: StepOutput,
) -> Vec<Vec<f32>> {
    let part =
        |&(sequence, tokens)| SequenceStep { sequence, input: StepInput::Tokens(tokens), output };
    let parts: Vec<SequenceStep<'_>> = parts.iter().map(part).collect();
    let ticket = backend.submit(&parts).unwrap();
    let results = pollster::block_on(backend.read(ticket)).unwrap();
    let logits = |result| match result {
        StepResult::Logits(logits) => Some(logits),
        _ => None,
    };
    results.into_iter().filter_map(logits).collect()
}

/// Logits of prompts and of two tokens after each, with `together` sequences in a step.
/// Steps of prompts have up to four sequences.
fn predictions(backend: &mut dyn Backend, count: usize, together: usize) -> Vec<Vec<f32>> {
    let prompts: Vec<Vec<u32>> = (0..count).map(prompt).collect();
    let sequences: Vec<SequenceId> = (0..count).map(|_| backend.open_sequence().unwrap()).collect();
    let mut all = vec![Vec::new(); count];
    let inputs: Vec<Vec<&[u32]>> = vec![
        prompts.iter().map(|prompt| &prompt[..]).collect(),
        vec![&[5]; count],
        vec![&[9]; count],
    ];
    for (step, tokens) in inputs.iter().enumerate() {
        let parts: Vec<(SequenceId, &[u32])> =
            sequences.iter().copied().zip(tokens.iter().copied()).collect();
        let size = if step == 0 { together.min(4) } else { together };
        let logits =
            parts.chunks(size).flat_map(|parts| run(backend, parts, StepOutput::LastLogits));
        all.iter_mut().zip(logits).for_each(|(all, logits)| all.extend(logits));
    }
    sequences.into_iter().for_each(|sequence| backend.close_sequence(sequence));
    all
}

/// Steps of 3 to 64 tokens, of one sequence or of many.
#[test]
fn many_sequences_agree_with_the_cpu() {
    let checkpoint = Checkpoint::demo().unwrap();
    let mut cpu = common::cpu(&checkpoint, &options(40)).unwrap();
    let expected = predictions(&mut *cpu, 40, 1);
    let int8 = KernelOptions { dp4a: Some(true), ..KernelOptions::default() };
    for (kernels, sizes) in [(KernelOptions::default(), &[16, 32, 40][..]), (int8, &[3, 8])] {
        let mut gpu = common::load_gpu(&checkpoint, &options(40), kernels).unwrap();
        for &together in sizes {
            let count = together.max(12);
            let found = predictions(&mut gpu, count, together);
            let mut divergence = Divergence::default();
            for (expected, found) in expected.iter().zip(&found) {
                divergence.add(expected, found, expected.len() / 3).unwrap();
            }
            let mean = divergence.mean().unwrap();
            assert!(mean < 0.005, "{mean} nats with {together} sequences in a step");
        }
    }
}

/// The bits of the next logits of the first sequence, which stands at `place` between others.
/// Afterwards all sequences are as before.
fn beside(
    backend: &mut dyn Backend,
    first: SequenceId,
    neighbours: &[SequenceId],
    place: usize,
) -> Vec<u32> {
    let mut parts: Vec<(SequenceId, &[u32])> =
        neighbours.iter().map(|&sequence| (sequence, &[5u32][..])).collect();
    parts.insert(place, (first, &[3]));
    let logits = run(backend, &parts, StepOutput::LastLogits);
    for (sequence, _) in parts {
        backend.truncate(sequence, backend.sequence_len(sequence) - 1).unwrap();
    }
    logits[place].iter().map(|logit| logit.to_bits()).collect()
}

/// In steps of one shape, a sequence's logits do not depend on the other sequences.
/// Their number, their tokens and lengths, and the order of the sequences change nothing.
#[test]
fn neighbours_change_nothing() {
    let checkpoint = Checkpoint::demo().unwrap();
    let int8 = KernelOptions { dp4a: Some(true), ..KernelOptions::default() };
    for (kernels, rooms) in
        [(int8, &[[3, 4], [5, 8]][..]), (KernelOptions::default(), &[[9, 16], [17, 32]])]
    {
        let mut gpu = common::load_gpu(&checkpoint, &options(32), kernels).unwrap();
        let mut fill = |index| {
            let sequence = gpu.open_sequence().unwrap();
            run(&mut gpu, &[(sequence, &prompt(index))], StepOutput::None);
            sequence
        };
        let most = rooms[rooms.len() - 1][1];
        let first = fill(0);
        let others: Vec<SequenceId> = (1..most).map(fill).collect();
        for &[few, many] in rooms {
            let expected = beside(&mut gpu, first, &others[most - few..], 0);
            for (place, of) in [(0, "first"), (1, "second"), (many - 1, "last")] {
                let found = beside(&mut gpu, first, &others[..many - 1], place);
                assert!(found == expected, "{of} of {many} sequences, not of {few}");
            }
        }
    }
}
