//! Tokens that a backend chooses: the largest logit, and draws.

use super::*;

/// Steps on `Previous` give the same as the same tokens from the host.
/// That holds even if they are submitted before the token is read.
pub fn previous_continues_greedily(make: Make, tolerance: f32) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let prompt = random_tokens(vocab(&*backend), 9, 5);
    let sequence = backend.open_sequence().unwrap();
    let submit = |backend: &mut dyn Backend, tokens, output| {
        backend.submit(&[SequenceStep { sequence, input: tokens, output }]).unwrap()
    };
    let mut tickets = vec![submit(&mut *backend, StepInput::Tokens(&prompt), StepOutput::Greedy)];
    tickets.extend((0..5).map(|_| submit(&mut *backend, StepInput::Previous, StepOutput::Greedy)));
    tickets.push(submit(&mut *backend, StepInput::Previous, StepOutput::LastLogits));
    assert_eq!(backend.sequence_len(sequence), 9 + 6);

    // The results are read from the last to the first.
    let mut results: Vec<StepResult> = tickets
        .into_iter()
        .rev()
        .map(|ticket| pollster::block_on(backend.read(ticket)).unwrap().remove(0))
        .collect();
    let last = logits(results.remove(0));
    let mut tokens = prompt;
    for result in results.into_iter().rev() {
        let StepResult::Token(token) = result else { panic!("asked for a token, got {result:?}") };
        tokens.push(token);
    }
    backend.close_sequence(sequence);

    let vocab = vocab(&*backend);
    let all = fresh_logits(&mut *backend, &tokens, &[usize::MAX]);
    for (row, &token) in all[8 * vocab..].chunks_exact(vocab).zip(&tokens[9..]) {
        assert_eq!(argmax(row), token);
    }
    assert_close(&last, &all[14 * vocab..], tolerance, "last step");
}

/// Tokens drawn on the device are those that the host would draw from the same logits.
/// Each sequence has its own sampling parameters. Steps are submitted before tokens are read.
pub fn draws_like_the_host(make: Make) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let vocab = vocab(&*backend);
    let prompts = [random_tokens(vocab, 9, 5), random_tokens(vocab, 6, 6)];
    let values = [
        SamplingParams { temperature: 0.9, top_k: 20, seed: Some(1), ..SamplingParams::default() },
        SamplingParams {
            temperature: 2.0,
            top_k: 128,
            top_p: 1.0,
            min_p: 0.01,
            seed: Some(2),
            ..Default::default()
        },
    ];
    const STEPS: usize = 12;
    // In every fourth step the first sequence takes the likeliest token.
    let mut samplers = values.map(|values| Sampler::new(values).unwrap());
    let draws: Vec<[Option<Draw>; 2]> = (0..STEPS)
        .map(|i| [(i % 4 != 3).then(|| samplers[0].draw()), Some(samplers[1].draw())])
        .collect();

    let sequences = [backend.open_sequence().unwrap(), backend.open_sequence().unwrap()];
    let mut tickets = Vec::new();
    for (i, draws) in draws.iter().enumerate() {
        let part = |s: usize| SequenceStep {
            sequence: sequences[s],
            input: if i == 0 { StepInput::Tokens(&prompts[s]) } else { StepInput::Previous },
            output: draws[s].map_or(StepOutput::Greedy, StepOutput::Sample),
        };
        tickets.push(backend.submit(&[part(0), part(1)]).unwrap());
    }
    let results: Vec<_> = tickets
        .into_iter()
        .map(|ticket| pollster::block_on(backend.read(ticket)).unwrap())
        .collect();
    sequences.iter().for_each(|&sequence| backend.close_sequence(sequence));

    let sequences = [backend.open_sequence().unwrap(), backend.open_sequence().unwrap()];
    let mut tokens = prompts;
    for (i, (draws, results)) in draws.iter().zip(results).enumerate() {
        let part = |s: usize| SequenceStep {
            sequence: sequences[s],
            input: StepInput::Tokens(&tokens[s]),
            output: StepOutput::LastLogits,
        };
        let ticket = backend.submit(&[part(0), part(1)]).unwrap();
        let rows = pollster::block_on(backend.read(ticket)).unwrap().into_iter().map(logits);
        let chosen: Vec<u32> = rows
            .zip(draws)
            .map(|(row, draw)| draw.map_or_else(|| argmax(&row), |draw| draw.choose(&row).unwrap()))
            .collect();
        assert_eq!(
            results,
            [StepResult::Token(chosen[0]), StepResult::Token(chosen[1])],
            "step {i}"
        );
        tokens = [vec![chosen[0]], vec![chosen[1]]];
    }
}

/// One step draws a token for one sequence and returns logits for another.
pub fn draws_beside_logits(make: Make) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let prompts = [random_tokens(vocab(&*backend), 9, 5), random_tokens(vocab(&*backend), 9, 6)];
    let draw =
        Sampler::new(SamplingParams { seed: Some(5), ..SamplingParams::default() }).unwrap().draw();
    let mut run = |outputs| run_both(&mut *backend, &prompts, outputs);
    let logits_of_both = run([StepOutput::LastLogits, StepOutput::LastLogits]);
    let [first, second] = [0, 1].map(|s| logits(logits_of_both[s].clone()));
    let token = |row: &[f32]| StepResult::Token(draw.choose(row).unwrap());
    let drawn_second = run([StepOutput::LastLogits, StepOutput::Sample(draw)]);
    assert_eq!(drawn_second, [StepResult::Logits(first.clone()), token(&second)]);
    let drawn_first = run([StepOutput::Sample(draw), StepOutput::AllLogits]);
    assert_eq!(drawn_first[0], token(&first));
    assert_eq!(logits(drawn_first[1].clone()).len(), 9 * second.len());
}

/// Only the last step's token counts as previous, and `truncate` removes it.
pub fn previous_needs_a_choice(make: Make) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let sequence = backend.open_sequence().unwrap();
    let mut previous_after = |output, truncate: Option<usize>| {
        step(&mut *backend, sequence, StepInput::Tokens(&[1, 2]), output).unwrap();
        if let Some(len) = truncate {
            backend.truncate(sequence, len).unwrap();
        }
        step(&mut *backend, sequence, StepInput::Previous, StepOutput::None)
    };
    assert!(previous_after(StepOutput::Greedy, None).is_ok()); // 3 positions
    assert!(matches!(previous_after(StepOutput::LastLogits, None), Err(Error::Input(_)))); // 5
    assert!(previous_after(StepOutput::Greedy, Some(7)).is_ok()); // 8
    assert!(matches!(previous_after(StepOutput::Greedy, Some(9)), Err(Error::Input(_)))); // 9
    assert!(previous_after(StepOutput::Sample(DRAW), None).is_ok());
}
