//! Tokens that a backend must not choose.

use super::*;

/// Suppressed tokens are not chosen, as if their logits were −∞. Returned logits do not change.
pub fn suppressed_tokens_are_not_chosen(make: Make) {
    let mut backend = make(&RandomModel::small(), &F32).unwrap();
    let prompts = [random_tokens(vocab(&*backend), 9, 5), random_tokens(vocab(&*backend), 9, 6)];
    let draw = Draw { top_k: 2, top_p: 1.0, point: 0.4, ..DRAW };
    let run = |backend: &mut dyn Backend, outputs| run_both(backend, &prompts, outputs);
    let read = [StepOutput::LastLogits, StepOutput::LastLogits];
    let before = run(&mut *backend, read);
    let [first, second] = [0, 1].map(|s| logits(before[s].clone()));
    let likeliest = [argmax(&first), argmax(&second)];
    for ids in [vec![likeliest[0], likeliest[1], u32::MAX], vec![likeliest[0]], Vec::new()] {
        backend.suppress(&ids).unwrap();
        assert_eq!(run(&mut *backend, read), before);
        let left = |row: &[f32]| {
            let mut row = row.to_vec();
            ids.iter()
                .filter(|&&id| id != u32::MAX)
                .for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
            row
        };
        let greedy = run(&mut *backend, [StepOutput::Greedy; 2]);
        assert_eq!(
            greedy,
            [&first, &second].map(|row| StepResult::Token(argmax(&left(row)))),
            "{ids:?}"
        );
        let drawn = run(&mut *backend, [StepOutput::Sample(draw), StepOutput::LastLogits]);
        assert_eq!(
            drawn,
            [StepResult::Token(draw.choose(&left(&first)).unwrap()), before[1].clone()],
            "{ids:?}"
        );
    }
    let all: Vec<u32> = (0..first.len() as u32).collect();
    assert!(matches!(backend.suppress(&all), Err(Error::Input(_))));
}
