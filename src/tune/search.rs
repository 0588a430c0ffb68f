//! The search for the fastest kernel options: it switches and measures one option after another.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gpu::{AdapterFacts, KernelOption, KernelOptions, KernelTarget};

/// An option must make the model faster by this factor to be kept, because smaller differences may
/// be noise.
const LEAST_GAIN: f64 = 1.03;
/// Two candidates alternate for this number of runs, after a warm-up each. The fastest run counts.
const RUNS: usize = 3;

/// Tokens a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub prompt: f64,
    pub generation: f64,
    /// Generation in several sequences, for each number of them.
    pub batches: Vec<f64>,
}

impl Rates {
    /// The ratios to another candidate's rates.
    fn over(&self, other: &Rates) -> Rates {
        self.zip(other, |rate, other| rate / other)
    }

    /// The geometric mean of ratios.
    fn gain(&self) -> f64 {
        let product = self.prompt * self.generation * self.batches.iter().product::<f64>();
        product.powf(1.0 / (2 + self.batches.len()) as f64)
    }

    fn faster(&self, other: &Rates) -> Rates {
        self.zip(other, f64::max)
    }

    fn zip(&self, other: &Rates, of: impl Fn(f64, f64) -> f64) -> Rates {
        Rates {
            prompt: of(self.prompt, other.prompt),
            generation: of(self.generation, other.generation),
            batches: self.batches.iter().zip(&other.batches).map(|(&a, &b)| of(a, b)).collect(),
        }
    }
}

impl Display for Rates {
    /// As ratios.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "prompts {:.2}x, generation {:.2}x", self.prompt, self.generation)?;
        if !self.batches.is_empty() {
            f.write_str(", several sequences")?;
        }
        self.batches.iter().try_for_each(|ratio| write!(f, " {ratio:.2}x"))
    }
}

/// A model with certain kernels, which can be measured.
pub trait Candidate {
    /// Runs all tests once.
    fn run_once(&mut self) -> Result<Rates>;
}

/// The result of a trial of kernel options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredTrial {
    kernels: String,
    /// The ratios to the rates of the best options so far, or why they are unknown.
    ratios: Result<Rates, String>,
    kept: bool,
}

/// The start of a search.
pub struct Start<'a> {
    pub facts: &'a AdapterFacts,
    /// The choices without a measurement.
    pub target: KernelTarget,
    /// The options that the user set.
    pub kernels: KernelOptions,
}

/// Switches one option after another, and keeps it if the model is faster. `open` may reject
/// kernels. `report` gets a line for each trial.
pub fn search<C: Candidate>(
    start: &Start<'_>,
    open: &mut dyn FnMut(&KernelOptions) -> Result<C>,
    report: &mut dyn FnMut(&str),
) -> Result<(KernelOptions, Vec<MeasuredTrial>)> {
    let (mut kernels, mut target, mut best) = (start.kernels, start.target, open(&start.kernels)?);
    best.run_once()?;
    let mut trials = Vec::new();
    for option in KernelOption::search_order() {
        let Some((switched, switched_target)) = switch(option, &kernels, &target, start.facts)
        else {
            continue;
        };
        // A driver that cannot run the kernels returns an error, which is then the verdict.
        let outcome = open(&switched)
            .and_then(|mut candidate| Ok((compare(&mut best, &mut candidate)?, candidate)));
        let kept = matches!(&outcome, Ok((ratios, _)) if ratios.gain() > LEAST_GAIN);
        let verdict = match &outcome {
            Ok((ratios, _)) => format!("{ratios}{}", if kept { ", kept" } else { "" }),
            Err(reason) => reason.to_string(),
        };
        report(&format!("{}: {verdict}", shown(&switched)));
        let ratios =
            outcome.as_ref().map(|(ratios, _)| ratios.clone()).map_err(|error| error.to_string());
        trials.push(MeasuredTrial { kernels: switched.to_string(), ratios, kept });
        if let (Ok((_, candidate)), true) = (outcome, kept) {
            (kernels, target, best) = (switched, switched_target, candidate);
        }
    }
    Ok((kernels, trials))
}

/// The kernels with an option switched, and their target. `None` if the user set the option, or if
/// it makes no difference here.
fn switch(
    option: &KernelOption,
    kernels: &KernelOptions,
    target: &KernelTarget,
    facts: &AdapterFacts,
) -> Option<(KernelOptions, KernelTarget)> {
    // This was measured when the device was opened, so the facts lack it.
    let known = |kernels: &KernelOptions| KernelOptions {
        prefetch: kernels.prefetch.or(Some(target.tuning.prefetch)),
        ..*kernels
    };
    let is_on = option.get(&known(kernels).resolve(facts).ok()?)?;
    let mut switched = *kernels;
    option.get(kernels).is_none().then(|| option.set(&mut switched, Some(!is_on)))?;
    let target_there = KernelTarget::choose(facts, &known(&switched)).ok()?;
    (target_there != *target).then_some((switched, target_there))
}

/// The ratios of `candidate` to `best`. Their runs alternate, so that other load of the machine
/// affects both.
fn compare<C: Candidate>(best: &mut C, candidate: &mut C) -> Result<Rates> {
    candidate.run_once()?;
    let mut rates = (best.run_once()?, candidate.run_once()?);
    for _ in 1..RUNS {
        rates = (rates.0.faster(&best.run_once()?), rates.1.faster(&candidate.run_once()?));
    }
    Ok(rates.1.over(&rates.0))
}

/// Kernel options, for a message.
pub fn shown(kernels: &KernelOptions) -> String {
    let text = kernels.to_string();
    if text.is_empty() { "the device's usual kernels".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// A card with all features, on which only these rates matter.
    struct Fake(Rates);

    impl Candidate for Fake {
        fn run_once(&mut self) -> Result<Rates> {
            Ok(self.0.clone())
        }
    }

    /// The kernels that the search finds if `rates` gives their rates, and the trials.
    fn found(
        asked: &str,
        rates: impl Fn(&KernelOptions) -> Result<Rates>,
    ) -> (String, Vec<MeasuredTrial>) {
        let (facts, kernels) = (AdapterFacts::example_card(), asked.parse().unwrap());
        let target = KernelTarget::choose(&facts, &kernels).unwrap();
        let start = Start { facts: &facts, target, kernels };
        let (kernels, trials) =
            search(&start, &mut |kernels| rates(kernels).map(Fake), &mut |_| ()).unwrap();
        (kernels.to_string(), trials)
    }

    fn rates(prompt: f64, generation: f64) -> Result<Rates> {
        Ok(Rates { prompt, generation, batches: Vec::new() })
    }

    #[test]
    fn what_is_faster_is_kept() {
        let (kernels, trials) =
            found("", |kernels| match (kernels.dp4a, kernels.large_workgroups) {
                (Some(true), Some(false)) => rates(100.0, 200.0),
                (Some(true), None) => rates(100.0, 150.0),
                _ => rates(100.0, 100.0),
            });
        assert_eq!(kernels, "dp4a=on,large_workgroups=off");
        // A card with all features can switch all options.
        assert_eq!(trials.len(), KernelOption::search_order().len());
        assert_eq!(trials.iter().filter(|trial| trial.kept).count(), 2);
    }

    #[test]
    fn noise_changes_nothing() {
        let (kernels, trials) = found("", |kernels| {
            if kernels.dp4a.is_some() { rates(101.0, 103.0) } else { rates(100.0, 100.0) }
        });
        assert_eq!(kernels, "");
        assert!(trials.iter().all(|trial| !trial.kept));
    }

    /// What makes several sequences faster is kept, if it does not make one slower by as much.
    #[test]
    fn several_sequences_count_as_much() {
        let batch = |generation, batch| {
            rates(100.0, generation).map(|rates| Rates { batches: vec![batch], ..rates })
        };
        let (kernels, _) = found("", |kernels| match (kernels.dp4a, kernels.f16) {
            (Some(true), _) => batch(95.0, 150.0),
            (_, Some(false)) => batch(50.0, 150.0),
            _ => batch(100.0, 100.0),
        });
        assert_eq!(kernels, "dp4a=on");
        let ratios = batch(50.0, 150.0).unwrap().to_string();
        assert_eq!(ratios, "prompts 100.00x, generation 50.00x, several sequences 150.00x");
    }

    #[test]
    fn what_was_asked_for_stays() {
        let (kernels, trials) = found("dp4a=off,coop=off", |kernels| match kernels.dp4a {
            Some(false) => rates(1.0, 1.0),
            _ => rates(9.0, 9.0),
        });
        assert_eq!(kernels, "dp4a=off,coop=off");
        assert!(trials.iter().all(|trial| trial.kernels.contains("dp4a=off,coop=off")));
    }

    #[test]
    fn kernels_that_fail_are_left_alone() {
        let (kernels, trials) = found("", |kernels| match kernels.f16 {
            Some(false) => {
                Err(Error::Device("its predictions are 3.000 nats from the processor's".into()))
            }
            _ => rates(1.0, 1.0),
        });
        assert_eq!(kernels, "");
        let failed: Vec<&MeasuredTrial> =
            trials.iter().filter(|trial| trial.ratios.is_err()).collect();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].kernels == "f16=off" && !failed[0].kept);
    }
}
