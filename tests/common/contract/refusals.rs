//! Input and options that a backend refuses.

use super::*;

/// Every invalid step is refused with an error and does not change the sequence.
pub fn bad_steps_are_refused(make: Make) {
    let options = LoadOptions { context_length: 8, ..F32 };
    let mut backend = make(&RandomModel::small(), &options).unwrap();
    let unknown = [1, vocab(&*backend) as u32];
    let sequence = backend.open_sequence().unwrap();
    let part =
        |sequence, tokens| SequenceStep { sequence, input: tokens, output: StepOutput::None };
    let good = part(sequence, StepInput::Tokens(&[1, 2, 3]));
    backend.submit(&[good]).unwrap();
    let bad: [(&str, &[SequenceStep]); 7] = [
        ("no sequence", &[]),
        ("no token", &[part(sequence, StepInput::Tokens(&[]))]),
        ("unknown token", &[part(sequence, StepInput::Tokens(&unknown))]),
        ("sequence twice", &[good, good]),
        ("sequence not open", &[good, part(SequenceId(usize::MAX), StepInput::Tokens(&[1]))]),
        ("past the context", &[part(sequence, StepInput::Tokens(&[1; 6]))]),
        ("no previous token", &[part(sequence, StepInput::Previous)]),
    ];
    for (what, step) in bad {
        let error = backend.submit(step).expect_err(what);
        assert!(matches!(error, Error::Input(_)), "{what}: {error}");
        assert!(!error.to_string().contains('\n'), "{what}: {error}");
        assert_eq!(backend.sequence_len(sequence), 3, "{what}");
    }
    let bad_draws = [
        (Draw { temperature: 0.0, ..DRAW }, "temperature"),
        (Draw { temperature: f32::NAN, ..DRAW }, "temperature"),
        (Draw { top_k: 0, ..DRAW }, "top-k"),
        (Draw { top_k: Draw::MOST_TOP_K + 1, ..DRAW }, "between 1 and 128"),
        (Draw { top_p: 1.5, ..DRAW }, "top-p"),
        (Draw { min_p: -1.0, ..DRAW }, "min-p"),
        (Draw { point: 1.0, ..DRAW }, "point"),
        (Draw { point: f64::NAN, ..DRAW }, "point"),
    ];
    for (draw, named) in bad_draws {
        let step = SequenceStep { output: StepOutput::Sample(draw), ..good };
        let error = backend.submit(&[step]).expect_err(named);
        assert!(
            matches!(error, Error::Input(_)) && error.to_string().contains(named),
            "{named}: {error}"
        );
        assert_eq!(backend.sequence_len(sequence), 3, "{named}");
    }
    backend.close_sequence(sequence);
    assert!(backend.submit(&[good]).is_err());
}

/// A step with more tokens than fit is refused.
pub fn large_steps_are_refused(make: Make) {
    let mut backend =
        make(&RandomModel::small(), &LoadOptions { context_length: 100_000, ..F32 }).unwrap();
    let tokens = vec![1; backend.info().max_step_tokens + 1];
    let sequence = backend.open_sequence().unwrap();
    let result = step(&mut *backend, sequence, StepInput::Tokens(&tokens), StepOutput::None);
    assert!(matches!(result, Err(Error::Input(_))));
    step(&mut *backend, sequence, StepInput::Tokens(&tokens[1..]), StepOutput::None).unwrap();
}

/// Options that nothing can satisfy are errors.
pub fn impossible_options_are_refused(make: Make) {
    for context_length in [0, 1 << 50, usize::MAX] {
        let result = make(&RandomModel::small(), &LoadOptions { context_length, ..F32 });
        let error =
            result.err().unwrap_or_else(|| panic!("a context of {context_length} was accepted"));
        assert!(matches!(error, Error::Input(_) | Error::Device(_)), "{error}");
    }
    for max_sequences in [0, 65536, usize::MAX] {
        let result = make(&RandomModel::small(), &LoadOptions { max_sequences, ..F32 });
        assert!(matches!(result.err(), Some(Error::Input(_))), "{max_sequences} sequences");
    }
}
