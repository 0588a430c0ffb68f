//! Sampling: the tokens that each filter keeps, the distribution, seeds and invalid values.

use std::collections::BTreeSet;

use gemma4_wgpu::sampling::{Draw, Sampler, SamplingParams, argmax};
use proptest::{collection::vec, prelude::*};

/// No filter, with a fixed seed.
const PLAIN: SamplingParams = SamplingParams {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: Some(7),
};

fn draws(params: SamplingParams, logits: &[f32], recent: &[u32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(params).unwrap();
    (0..count).map(|_| sampler.sample(logits, recent).unwrap()).collect()
}

fn support(params: SamplingParams, logits: &[f32]) -> Vec<u32> {
    draws(params, logits, &[], 2000).into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The probabilities of all tokens by the definitions of Hugging Face's logits processors.
/// Filtered tokens have 0.
fn probabilities(params: SamplingParams, logits: &[f32], recent: &[u32]) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| logit as f64).collect();
    for id in recent.iter().copied().collect::<BTreeSet<_>>() {
        let (score, penalty) = (&mut scores[id as usize], params.repetition_penalty as f64);
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
    scores.iter_mut().for_each(|score| *score /= params.temperature as f64);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    if params.top_k > 0 {
        order.truncate(params.top_k);
    }
    let softmax = |order: &[usize]| {
        let sum: f64 = order.iter().map(|&id| (scores[id] - scores[order[0]]).exp()).sum();
        order.iter().map(|&id| (scores[id] - scores[order[0]]).exp() / sum).collect::<Vec<f64>>()
    };
    // A token is kept while the tokens before it hold less than top_p.
    let sums = softmax(&order).into_iter().scan(0.0, |sum, probability| {
        *sum += probability;
        Some(*sum)
    });
    let full = sums.take_while(|&sum| sum < params.top_p as f64).count();
    order.truncate(full + 1);
    let left = softmax(&order);
    let kept = left
        .iter()
        .take_while(|&&probability| probability >= params.min_p as f64 * left[0])
        .count();
    order.truncate(kept);
    let mut probabilities = vec![0.0; scores.len()];
    for (&id, probability) in order.iter().zip(softmax(&order)) {
        probabilities[id] = probability;
    }
    probabilities
}

/// χ² of the draws against their probabilities, and the degrees of freedom.
fn chi_square(drawn: &[u32], probabilities: &[f64]) -> (f64, usize) {
    let mut counts = vec![0.0; probabilities.len()];
    drawn.iter().for_each(|&id| counts[id as usize] += 1.0);
    let expected = probabilities.iter().map(|probability| probability * drawn.len() as f64);
    let possible = counts.iter().zip(expected).filter(|(_, expected)| *expected > 0.0);
    let terms: Vec<f64> =
        possible.map(|(count, expected)| (count - expected).powi(2) / expected).collect();
    (terms.iter().sum(), terms.len() - 1)
}

#[test]
fn default_is_gemmas() {
    let expected = SamplingParams { top_k: 64, top_p: 0.95, seed: None, ..PLAIN };
    assert_eq!(SamplingParams::default(), expected);
}

#[test]
fn zero_temperature_takes_the_largest_logit() {
    let greedy = SamplingParams { temperature: 0.0, ..PLAIN };
    assert_eq!(draws(greedy, &[1.0, 3.0, -2.0, 3.0], &[], 3), [1, 1, 1]);
    assert_eq!(draws(greedy, &[f32::NEG_INFINITY, -5.0], &[], 1), [1]);
    assert_eq!(draws(greedy, &[-0.0, 0.0], &[], 1), [0]);
    assert_eq!(argmax(&[2.0, 7.0, 7.0]), 1);
}

#[test]
fn draws_follow_the_softmax() {
    let logits = [1.0, 2.0, 0.5, -1.0, 2.2, f32::NEG_INFINITY];
    // The 99.9% quantiles of χ² with 1 to 4 degrees of freedom.
    let limits = [10.83, 13.82, 16.27, 18.47];
    let cases = [
        (PLAIN, 4),
        (SamplingParams { temperature: 0.6, ..PLAIN }, 4),
        (SamplingParams { temperature: 2.5, ..PLAIN }, 4),
        (SamplingParams { top_k: 3, ..PLAIN }, 2),
        (SamplingParams { top_p: 0.93, ..PLAIN }, 3),
        (SamplingParams { min_p: 0.5, ..PLAIN }, 1),
        (SamplingParams { top_k: 4, top_p: 0.85, min_p: 0.1, temperature: 0.8, ..PLAIN }, 2),
        (SamplingParams { repetition_penalty: 1.8, ..PLAIN }, 4),
    ];
    for (params, freedom) in cases {
        let recent = [4, 3, 3];
        let drawn = draws(params, &logits, &recent, 20_000);
        let (chi_square, degrees) = chi_square(&drawn, &probabilities(params, &logits, &recent));
        assert_eq!(degrees, freedom, "{params:?}");
        assert!(chi_square < limits[freedom - 1], "{params:?}: χ² = {chi_square}");
    }
}

#[test]
fn each_filter_keeps_its_tokens() {
    // Probabilities 0.5, 0.25, 0.15, 0.1 of ids 2, 0, 3, 1.
    let logits = [0.25f32.ln(), 0.1f32.ln(), 0.5f32.ln(), 0.15f32.ln()];
    assert_eq!(support(PLAIN, &logits), [0, 1, 2, 3]);
    assert_eq!(support(SamplingParams { top_k: 1, ..PLAIN }, &logits), [2]);
    assert_eq!(support(SamplingParams { top_k: 3, ..PLAIN }, &logits), [0, 2, 3]);
    assert_eq!(support(SamplingParams { top_k: usize::MAX, ..PLAIN }, &logits), [0, 1, 2, 3]);
    assert_eq!(support(SamplingParams { top_p: 0.0, ..PLAIN }, &logits), [2]);
    assert_eq!(support(SamplingParams { top_p: 0.49, ..PLAIN }, &logits), [2]);
    assert_eq!(support(SamplingParams { top_p: 0.51, ..PLAIN }, &logits), [0, 2]);
    assert_eq!(support(SamplingParams { top_p: 0.76, ..PLAIN }, &logits), [0, 2, 3]);
    assert_eq!(support(SamplingParams { min_p: 0.29, ..PLAIN }, &logits), [0, 2, 3]);
    assert_eq!(support(SamplingParams { min_p: 0.31, ..PLAIN }, &logits), [0, 2]);
    assert_eq!(support(SamplingParams { min_p: 1.0, ..PLAIN }, &logits), [2]);
    // Limits that are met exactly. Half of the mass is enough for top-p.
    // A token exactly as likely as the limit is kept.
    assert_eq!(support(SamplingParams { top_p: 0.5, ..PLAIN }, &[1.0, 1.0]), [0]);
    assert_eq!(support(SamplingParams { min_p: 1.0, ..PLAIN }, &[1.0, 1.0]), [0, 1]);
    // Top-p applies to the rest after top-k: 0.5 is 2/3 of it.
    assert_eq!(support(SamplingParams { top_k: 2, top_p: 0.6, ..PLAIN }, &logits), [2]);
    // It applies after the temperature. At 10 all four are nearly equal, and three make 0.79.
    assert_eq!(support(SamplingParams { top_p: 0.8, ..PLAIN }, &logits), [0, 2, 3]);
    assert_eq!(
        support(SamplingParams { temperature: 10.0, top_p: 0.8, ..PLAIN }, &logits),
        [0, 1, 2, 3]
    );
}

#[test]
fn equal_logits_go_by_id() {
    // More tokens than the sorted start of the list, which is enough for most top-p cuts.
    let logits = vec![1.0; 5000];
    let drawn = draws(SamplingParams { top_p: 0.5, ..PLAIN }, &logits, &[], 1000);
    let last = *drawn.iter().max().unwrap();
    assert!((2450..2500).contains(&last), "{last}");
    let drawn = draws(SamplingParams { top_k: 3, ..PLAIN }, &logits, &[], 100);
    assert_eq!(drawn.iter().max(), Some(&2));
}

#[test]
fn repetition_penalty_counts_a_token_once() {
    let params = SamplingParams { temperature: 0.0, repetition_penalty: 2.0, ..PLAIN };
    assert_eq!(draws(params, &[2.0, 1.5], &[], 1), [0]);
    assert_eq!(draws(params, &[2.0, 1.5], &[0], 1), [1]);
    assert_eq!(draws(params, &[-1.0, -1.5], &[0], 1), [1]);
    assert_eq!(draws(params, &[4.0, 1.5], &[0, 0, 0], 1), [0]);
}

#[test]
fn same_seed_same_tokens() {
    let logits: Vec<f32> = (0..500).map(|id| (id as f32 * 0.37).sin()).collect();
    let params = SamplingParams { seed: Some(42), ..SamplingParams::default() };
    let drawn = draws(params, &logits, &[], 50);
    assert_eq!(drawn, draws(params, &logits, &[], 50));
    assert_ne!(drawn, draws(SamplingParams { seed: Some(43), ..params }, &logits, &[], 50));
    // The tokens of a seed are part of the interface, as scripts rely on them.
    assert_eq!(drawn[..5], [394, 209, 446, 39, 378]);
}

/// Draws that are made elsewhere give the same tokens as the sampler with the same seed.
#[test]
fn draws_are_the_samplers() {
    let logits: Vec<f32> = (0..500).map(|id| 3.0 * (id as f32 * 0.37).sin()).collect();
    for count in [500, 90, 1] {
        for params in [
            SamplingParams { seed: Some(42), ..SamplingParams::default() },
            SamplingParams { top_k: 128, top_p: 1.0, min_p: 0.2, temperature: 0.4, ..PLAIN },
        ] {
            assert!(params.fit_device());
            let mut sampler = Sampler::new(params).unwrap();
            let elsewhere: Vec<u32> =
                (0..50).map(|_| sampler.draw().choose(&logits[..count]).unwrap()).collect();
            assert_eq!(elsewhere, draws(params, &logits[..count], &[], 50));
        }
    }
    let draw = Sampler::new(SamplingParams::default()).unwrap().draw();
    assert!(draw.validate().is_ok() && (0.0..1.0).contains(&draw.point));
    assert!(draw.choose(&[1.0, f32::NAN]).is_err() && draw.choose(&[f32::NEG_INFINITY]).is_err());
    let last = Draw { point: 1.0 - f64::EPSILON, top_p: 1.0, ..draw };
    assert_eq!(
        (
            last.choose(&[1.0, 0.5]).unwrap(),
            Draw { point: 0.0, ..last }.choose(&[1.0, 0.5]).unwrap()
        ),
        (1, 0)
    );
}

#[test]
fn fresh_seeds_differ_and_can_be_had() {
    let unseeded = SamplingParams::default();
    let seeds: BTreeSet<u64> = (0..20).map(|_| Sampler::new(unseeded).unwrap().seed()).collect();
    assert_eq!(seeds.len(), 20);
    let logits = [0.0; 64];
    let mut sampler = Sampler::new(unseeded).unwrap();
    let again = SamplingParams { seed: Some(sampler.seed()), ..unseeded };
    let drawn: Vec<u32> = (0..20).map(|_| sampler.sample(&logits, &[]).unwrap()).collect();
    assert_eq!(drawn, draws(again, &logits, &[], 20));
}

#[test]
fn a_vocabulary_of_full_size() {
    let size = 262_144;
    let rising: Vec<f32> = (0..size).map(|id| id as f32 / size as f32).collect();
    let falling: Vec<f32> = rising.iter().rev().copied().collect();
    let top_64 = SamplingParams { top_k: 64, ..PLAIN };
    assert!(draws(top_64, &rising, &[], 200).iter().all(|&id| id >= size - 64));
    assert!(draws(top_64, &falling, &[], 200).iter().all(|&id| id < 64));
    assert!(draws(PLAIN, &rising, &[], 20).iter().any(|&id| id < size / 2));
}

#[test]
fn extreme_numbers_stay_numbers() {
    let logits = [f32::MAX, f32::MIN, 0.0, f32::NEG_INFINITY];
    for temperature in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
        for repetition_penalty in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
            let params =
                SamplingParams { temperature, repetition_penalty, ..SamplingParams::default() };
            assert!(draws(params, &logits, &[0, 1, 2, 3], 20).iter().all(|&id| id < 3));
        }
    }
    let params = SamplingParams { repetition_penalty: f32::MIN_POSITIVE, ..PLAIN };
    assert!(draws(params, &[f32::MAX; 2], &[0, 1], 50).contains(&1));
}

#[test]
fn refuses_bad_values_by_flag() {
    let message = |params: SamplingParams| Sampler::new(params).unwrap_err().to_string();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.5] {
        let checks = [
            (SamplingParams { temperature: value, ..PLAIN }, "temperature", "0 or more"),
            (SamplingParams { top_p: value, ..PLAIN }, "top-p", "between 0 and 1"),
            (SamplingParams { min_p: value, ..PLAIN }, "min-p", "between 0 and 1"),
            (
                SamplingParams { repetition_penalty: value, ..PLAIN },
                "repetition-penalty",
                "more than 0",
            ),
        ];
        for (params, flag, range) in checks {
            assert_eq!(message(params), format!("--{flag} {value}: must be {range}"));
        }
    }
    assert_eq!(
        message(SamplingParams { top_p: 1.5, ..PLAIN }),
        "--top-p 1.5: must be between 0 and 1"
    );
    assert_eq!(
        message(SamplingParams { repetition_penalty: 0.0, ..PLAIN }),
        "--repetition-penalty 0: must be more than 0"
    );
}

#[test]
fn refuses_logits_that_are_no_numbers() {
    let infinite = f32::INFINITY;
    for temperature in [0.0, 1.0] {
        let mut sampler =
            Sampler::new(SamplingParams { temperature, repetition_penalty: 1.1, ..PLAIN }).unwrap();
        let mut message = |logits: &[f32], recent: &[u32]| {
            sampler.sample(logits, recent).unwrap_err().to_string()
        };
        assert_eq!(
            message(&[0.0, f32::NAN], &[]),
            "device: the model computed NaN as the logit of token 1"
        );
        assert_eq!(
            message(&[infinite, 0.0], &[]),
            "device: the model computed inf as the logit of token 0"
        );
        assert_eq!(message(&[-infinite; 3], &[]), "device: none of the model's 3 logits is finite");
        assert_eq!(message(&[], &[]), "device: none of the model's 0 logits is finite");
        assert_eq!(message(&[1.0, 2.0], &[2]), "token id 2 is outside the vocabulary of 2");
    }
}

proptest! {
    #[test]
    fn only_kept_tokens_are_drawn(
        logits in vec(-8f32..8.0, 1..700),
        (temperature, repetition_penalty) in (0.05f32..4.0, 0.5f32..2.0),
        (top_k, top_p, min_p) in (0usize..80, 0f32..1.0, 0f32..0.5),
        seed in any::<u64>(),
        recent in vec(0u32..700, 0..5),
    ) {
        let known = |id: &u32| (*id as usize) < logits.len();
        let recent: Vec<u32> = recent.into_iter().filter(known).collect();
        let seed = Some(seed);
        let params =
            SamplingParams { temperature, top_k, top_p, min_p, repetition_penalty, seed };
        let kept = probabilities(params, &logits, &recent);
        for id in draws(params, &logits, &recent, 8) {
            prop_assert!(kept[id as usize] > 0.0, "token {} was filtered out", id);
        }
    }

    #[test]
    fn any_logits_give_a_token_or_an_error(
        bits in vec(any::<u32>(), 0..50),
        params in any_params(),
    ) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        if let Ok(mut sampler) = Sampler::new(params) {
            let sound = !logits.iter().any(|&logit| logit.is_nan() || logit == f32::INFINITY)
                && logits.iter().any(|logit| logit.is_finite());
            match sampler.sample(&logits, &[]) {
                Ok(id) => prop_assert!(sound && logits[id as usize].is_finite()),
                Err(_) => prop_assert!(!sound),
            }
        }
    }
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let fraction = prop_oneof![0f32..=1.0, any::<f32>()];
    (any::<f32>(), 0usize..60, fraction.clone(), fraction, any::<f32>(), any::<u64>()).prop_map(
        |(temperature, top_k, top_p, min_p, repetition_penalty, seed)| SamplingParams {
            temperature: temperature.abs(),
            top_k,
            top_p,
            min_p,
            repetition_penalty: repetition_penalty.abs(),
            seed: Some(seed),
        },
    )
}
