//! Drawing tokens on the device against the host's sampler.

use std::sync::OnceLock;

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        Gpu,
        kernels::{DrawWords, Sample, Suppress, TopKParts},
    },
    sampling::{Draw, Sampler, SamplingParams},
};
use proptest::prelude::*;

use crate::{combinations::random_cases, harness::*};

/// Gemma's sampling parameters.
const GEMMA: Draw = Draw { temperature: 1.0, top_k: 64, top_p: 0.95, min_p: 0.0, point: 0.5 };
/// No top-p, and as many candidates as the kernels allow.
const ALL: Draw = Draw { top_k: 128, top_p: 1.0, ..GEMMA };
/// The largest relative error of sums of f32 weights.
const ROUNDING: f64 = 4e-6;

/// The kernels are the same in all variants but for checks.
fn two_devices() -> &'static [&'static Gpu] {
    static DEVICES: OnceLock<Vec<&'static Gpu>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let with = |checks| {
            devices().iter().find(|gpu| gpu.variant().checks == checks).expect("a variant of each")
        };
        vec![with(false), with(true)]
    })
}

/// The tokens that the device draws from one row of logits each. `u32::MAX` is no token.
fn drawn(gpu: &Gpu, logits: &[Vec<f32>], draws: &[Draw]) -> Vec<u32> {
    let (n, count) = (logits[0].len(), logits.len());
    // Output i is row i + 1 of the step. Slots are in descending order.
    let rows: Vec<[u32; 4]> =
        (0..=count as u32).map(|row| [0, 0, (count as u32).wrapping_sub(row), 0]).collect();
    let outputs: Vec<u32> = (1..=count as u32).collect();
    let words: Vec<DrawWords> = draws.iter().map(|&draw| draw.into()).collect();
    let (logits, words) = (upload(gpu, &logits.concat()), upload(gpu, &words));
    let (before, sampled) = (copy(gpu, &logits), zeros(gpu, count));
    let parts = upload(gpu, &vec![0xdead_beefu32; 2 * Sample::CANDIDATES * count]);
    let buffers = [("logits", &logits), ("draws", &words), ("parts", &parts)];
    run(gpu, &TopKParts { n }, &buffers, 0, count);
    let buffers = [
        ("parts", &parts),
        ("draws", &words),
        ("outputs", &upload(gpu, &outputs)),
        ("rows", &upload(gpu, &rows)),
        ("sampled", &sampled),
    ];
    run(gpu, &Sample { n }, &buffers, 0, count);
    assert_eq!(
        download::<u32>(gpu, &logits, usize::MAX),
        download::<u32>(gpu, &before, usize::MAX)
    );
    let mut tokens = download(gpu, &sampled, count);
    tokens.reverse();
    tokens
}

/// The tokens that the host may choose where sums have errors of up to [`ROUNDING`].
fn possible(logits: &[f32], draw: &Draw) -> Vec<u32> {
    let mut possible = vec![ops::sample(logits, draw).unwrap()];
    for (by_point, by_top_p) in
        [(-1.0, 0.0), (1.0, 0.0), (-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)]
    {
        let point = (draw.point + by_point * ROUNDING).clamp(0.0, 1.0 - f64::EPSILON);
        let top_p = match draw.top_p < 1.0 {
            true => (draw.top_p + (by_top_p * ROUNDING) as f32).clamp(0.0, 1.0),
            false => 1.0,
        };
        possible.push(ops::sample(logits, &Draw { point, top_p, ..*draw }).unwrap());
    }
    possible
}

/// Fails unless the device draws the host's tokens. Returns how often rounding changed a token.
#[track_caller]
fn check(gpu: &Gpu, logits: &[Vec<f32>], draws: &[Draw]) -> usize {
    let mut off = 0;
    for ((row, draw), token) in logits.iter().zip(draws).zip(drawn(gpu, logits, draws)) {
        let possible = possible(row, draw);
        assert!(possible.contains(&token), "{token} of {possible:?}, {draw:?}, {:?}", gpu.target());
        off += usize::from(token != possible[0]);
    }
    off
}

/// `count` random points, with a draw's other values.
fn points(draw: Draw, count: usize, seed: u64) -> Vec<Draw> {
    let params = SamplingParams { seed: Some(seed), ..SamplingParams::default() };
    let mut sampler = Sampler::new(params).unwrap();
    (0..count).map(|_| Draw { point: sampler.draw().point, ..draw }).collect()
}

#[test]
fn each_value_at_awkward_sizes() {
    let values = [
        GEMMA,
        ALL,
        Draw { top_k: 1, ..GEMMA },
        Draw { top_k: 2, top_p: 1.0, ..GEMMA },
        Draw { top_p: 0.0, ..GEMMA },
        Draw { top_p: 0.03, ..GEMMA },
        Draw { temperature: 0.05, ..ALL },
        Draw { temperature: 30.0, ..ALL },
        Draw { min_p: 0.4, ..ALL },
        Draw { min_p: 1.0, ..ALL },
        Draw { top_k: 100, top_p: 0.9, min_p: 0.05, temperature: 0.7, ..ALL },
        Draw { top_k: 7, top_p: 0.5, min_p: 0.1, temperature: 1.7, ..ALL },
    ];
    let (mut off, mut all) = (0, 0);
    for gpu in two_devices() {
        for n in [1, 2, 63, 64, 65, 127, 128, 129, 1000, 4097] {
            // All in one batch, with different values.
            let draws: Vec<Draw> = (0..3)
                .flat_map(|seed| points(GEMMA, values.len(), seed))
                .zip(values.iter().cycle())
                .map(|(at, values)| Draw { point: at.point, ..*values })
                .collect();
            let logits: Vec<Vec<f32>> = (0..draws.len())
                .map(|row| random(n, row as u64).iter().map(|x| 12.0 * x).collect())
                .collect();
            off += check(gpu, &logits, &draws);
            all += draws.len();
        }
    }
    assert!(off <= 1, "{off} of {all} differ by rounding");
}

/// Gemma's vocabulary, with its largest logits in one part of it or in many.
#[test]
fn a_vocabulary_of_full_size() {
    let n = 262_144;
    let rising: Vec<f32> = (0..n).map(|id| id as f32 / 8192.0).collect();
    let falling: Vec<f32> = rising.iter().rev().copied().collect();
    // Values as large as a model's logits, many of them equal.
    let scattered: Vec<f32> =
        random(n, 5).iter().map(|x| (30.0 * x * x * x * 64.0).round() / 64.0).collect();
    let draws = points(GEMMA, 2, 1);
    for gpu in two_devices() {
        for row in [&rising, &falling, &scattered] {
            check(gpu, &[row.clone(), row.clone()], &draws);
        }
    }
}

#[test]
fn equal_logits_go_by_id() {
    let equal = vec![1.5f32; 3000];
    let mut peaks = vec![-1.0; 3000];
    [2999, 17, 1500, 1501, 16].iter().for_each(|&id: &usize| peaks[id] = 3.0);
    let steps: Vec<f32> = random(3000, 9).iter().map(|x| (4.0 * x).floor()).collect();
    let zeros: Vec<f32> = (0..3000).map(|id| if id % 3 == 0 { -0.0 } else { 0.0 }).collect();
    for gpu in &two_devices()[..1] {
        for row in [&equal, &peaks, &steps, &zeros] {
            for top_k in [1, 3, 64, 100, 128] {
                let draws = points(Draw { top_k, ..ALL }, 20, top_k as u64);
                check(gpu, &vec![row.clone(); 20], &draws);
            }
        }
        // Each of the first 100 tokens can be drawn, and no other.
        let draws: Vec<Draw> =
            (0..100).map(|i| Draw { top_k: 100, point: (i as f64 + 0.5) / 100.0, ..ALL }).collect();
        assert_eq!(drawn(gpu, &vec![equal.clone(); 100], &draws), (0..100).collect::<Vec<u32>>());
    }
}

#[test]
fn infinities_and_extremes() {
    let infinite = f32::INFINITY;
    let mut few = vec![-infinite; 700];
    (few[3], few[400], few[699]) = (-2.0, -1.0, -1e30);
    let mut far = vec![f32::MIN; 700];
    (far[5], far[6], far[7]) = (f32::MAX, f32::MAX, 0.0);
    let tiny: Vec<f32> = (0..700).map(|id| f32::from_bits(id * 3)).collect();
    for gpu in &two_devices()[..1] {
        for temperature in [f32::from_bits(1), f32::MIN_POSITIVE, 1e-3, 1.0, f32::MAX] {
            for row in [&few, &far] {
                let draws = points(Draw { temperature, ..GEMMA }, 30, 2);
                check(gpu, &vec![row.clone(); 30], &draws);
                let draws = points(Draw { temperature, ..ALL }, 30, 3);
                check(gpu, &vec![row.clone(); 30], &draws);
            }
        }
        check(gpu, &vec![tiny.clone(); 30], &points(GEMMA, 30, 4));
    }
}

/// Values that the host refuses give no token.
#[test]
fn logits_that_are_no_numbers() {
    let sound: Vec<f32> = random(300, 1);
    let with = |id: usize, value: f32| {
        let mut row = sound.clone();
        row[id] = value;
        row
    };
    let bad = [
        with(0, f32::NAN),
        with(299, -f32::NAN),
        with(130, f32::from_bits(0x7f80_0001)),
        with(77, f32::INFINITY),
        vec![f32::NEG_INFINITY; 300],
        sound.clone(),
    ];
    for gpu in two_devices() {
        let tokens = drawn(gpu, &bad, &[GEMMA; 6]);
        assert_eq!(tokens[..5], [u32::MAX; 5]);
        assert!(tokens[5] < 300);
        for (row, token) in bad.iter().zip(tokens) {
            assert_eq!(ops::sample(row, &GEMMA).is_err(), token == u32::MAX);
        }
    }
}

/// Suppressed logits are exactly −∞, and the others do not change.
#[test]
fn suppresses_logits() {
    for gpu in two_devices() {
        for (n, ids) in [(3, vec![1u32]), (700, vec![0, 699, 64, 65]), (300, (10..210).collect())] {
            let rows: Vec<Vec<f32>> = (0..3).map(|row| random(n, row)).collect();
            let logits = upload(gpu, &rows.concat());
            // One row less than the buffer has. The last row must not change.
            let buffers = [("logits", &logits), ("ids", &upload(gpu, &ids))];
            run(gpu, &Suppress { n, count: ids.len() }, &buffers, 0, 2);
            let mut expected = rows;
            expected[..2].iter_mut().for_each(|row| ops::suppress(row, &ids));
            assert_eq!(download::<f32>(gpu, &logits, 3 * n), expected.concat());
        }
    }
}

/// χ² of 2000 tokens against the exact probabilities.
#[test]
fn draws_follow_the_distribution() {
    let logits = vec![1.0, 2.0, 0.5, -1.0, 2.2, f32::NEG_INFINITY, 1.9, 0.0];
    // The sixth token has a weight of 1. It is within top-k and outside top-p.
    let draw = Draw { temperature: 0.8, top_k: 6, top_p: 0.95, ..GEMMA };
    let kept = [4usize, 1, 6, 0, 2];
    let weights = kept.map(|id| (logits[id] as f64 / 0.8).exp());
    let all: f64 = weights.iter().sum();
    assert!(weights[..4].iter().sum::<f64>() < 0.95 * (all + 1.0) && all > 0.95 * (all + 1.0));
    for gpu in &two_devices()[..1] {
        let mut counts = vec![0.0; logits.len()];
        for batch in points(draw, 2000, 11).chunks(100) {
            drawn(gpu, &vec![logits.clone(); batch.len()], batch)
                .iter()
                .for_each(|&id| counts[id as usize] += 1.0);
        }
        let terms = kept.iter().zip(weights).map(|(&id, weight)| {
            let expected = 2000.0 * weight / all;
            (counts[id] - expected).powi(2) / expected
        });
        let chi_square: f64 = terms.sum();
        assert_eq!(kept.iter().map(|&id| counts[id]).sum::<f64>(), 2000.0, "{counts:?}");
        // The 99.9% quantile for four degrees of freedom.
        assert!(chi_square < 18.47, "χ² = {chi_square}: {counts:?}");
    }
}

proptest! {
    #![proptest_config(random_cases(10))]

    #[test]
    fn any_draw_of_any_logits(
        n in 1usize..3000,
        (temperature, top_k) in (0.05f32..4.0, 1usize..=128),
        (top_p, min_p) in (0f32..=1.0, 0f32..0.5),
        (coarse, seed) in (prop::bool::ANY, any::<u64>()),
        device: prop::sample::Index,
    ) {
        let gpu = device.get(two_devices());
        let draws = points(Draw { temperature, top_k, top_p, min_p, point: 0.0 }, 50, seed);
        let scaled = |x: &f32| if coarse { (9.0 * x).round() } else { 9.0 * x };
        let row = |row: u64| random(n, seed ^ row).iter().map(scaled).collect();
        let logits: Vec<Vec<f32>> = (0..50).map(row).collect();
        let off = check(gpu, &logits, &draws);
        prop_assert!(off <= 1, "{} of 50 differ by rounding", off);
    }
}
