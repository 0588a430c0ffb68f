//! Perplexity and divergence of known logits.

use super::script::{Script, VOCAB};
use crate::generate::{Divergence, Perplexity, each_logits};

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
