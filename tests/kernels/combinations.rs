//! Chooses which cases run on which variants, so that every pair of aspects occurs in some case.
//! Long runs have all combinations.

use std::collections::HashSet;

use gemma4_wgpu::gpu::Gpu;
use proptest::prelude::ProptestConfig;

use crate::{harness::devices, long::is_long};

/// The aspects of a device that change its kernels.
fn aspects_of(gpu: &Gpu) -> [usize; 4] {
    let variant = gpu.variant();
    let kind = usize::from(variant.subgroups_contiguous) + 2 * usize::from(variant.coop.is_some());
    let [subgroups, f16, checks] =
        [variant.subgroups.is_some(), variant.f16, variant.checks].map(usize::from);
    [subgroups, f16, checks, kind]
}

/// Choices from lists of these lengths, each with the device for its test.
/// Each pair of choices occurs together. Each choice occurs with each aspect of a device.
pub fn on_devices<const N: usize>(lens: [usize; N]) -> Vec<(&'static Gpu, [usize; N])> {
    on_devices_where(lens, |_, _| true)
}

/// The same for choices that only some devices can run.
pub fn on_devices_where<const N: usize>(
    lens: [usize; N],
    is_possible: impl Fn(&Gpu, [usize; N]) -> bool,
) -> Vec<(&'static Gpu, [usize; N])> {
    let choices = choices(lens);
    let of = |gpu| choices.iter().map(move |&choice| (gpu, choice));
    let all = devices().iter().flat_map(of).filter(|&(gpu, choice)| is_possible(gpu, choice));
    covering(all.collect(), |(gpu, choice)| [&aspects_of(gpu)[..], choice].concat())
}

/// All choices from lists of these lengths.
fn choices<const N: usize>(lens: [usize; N]) -> Vec<[usize; N]> {
    (0..lens.iter().product())
        .map(|mut number: usize| {
            lens.map(|len| {
                let index = number % len;
                number /= len;
                index
            })
        })
        .collect()
}

/// Finds a small subset of `all` that has every pair of aspects of `all`. The search is greedy.
fn covering<T>(all: Vec<T>, aspects: impl Fn(&T) -> Vec<usize>) -> Vec<T> {
    if is_long() {
        return all;
    }
    let pairs_of: Vec<Vec<[usize; 4]>> = all.iter().map(|item| pairs(&aspects(item))).collect();
    let mut missing: HashSet<[usize; 4]> = pairs_of.iter().flatten().copied().collect();
    let mut chosen = vec![false; all.len()];
    while !missing.is_empty() {
        let gain =
            |pairs: &[[usize; 4]]| pairs.iter().filter(|pair| missing.contains(*pair)).count();
        let best = (0..all.len()).rev().max_by_key(|&index| gain(&pairs_of[index]));
        let best = best.expect("missing pairs come from an item");
        chosen[best] = true;
        pairs_of[best].iter().for_each(|pair| {
            missing.remove(pair);
        });
    }
    all.into_iter().zip(chosen).filter_map(|(item, chosen)| chosen.then_some(item)).collect()
}

/// Tests of random cases: this number in long runs, otherwise a third of it.
pub fn random_cases(cases: u32) -> ProptestConfig {
    let cases = if is_long() { cases } else { cases.div_ceil(3) };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn pairs(aspects: &[usize]) -> Vec<[usize; 4]> {
    let numbered = || aspects.iter().copied().enumerate();
    let of = |(i, a): (usize, usize)| numbered().skip(i + 1).map(move |(j, b)| [i, a, j, b]);
    numbered().flat_map(of).collect()
}

#[test]
fn few_combinations_hold_every_pair() {
    let all = choices([2, 3, 4, 16]);
    let chosen = covering(all.clone(), |item| item.to_vec());
    let pairs_in = |items: &[[usize; 4]]| -> HashSet<[usize; 4]> {
        items.iter().flat_map(|item| pairs(item)).collect()
    };
    assert_eq!(pairs_in(&chosen), pairs_in(&all));
    // The two longest aspects have 64 pairs.
    assert!(is_long() || (64..80).contains(&chosen.len()), "{}", chosen.len());
}
