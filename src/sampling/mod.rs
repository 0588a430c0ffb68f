//! Choosing the next token from logits.

mod adjustments;
mod logprobs;

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher, RandomState};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::adjustments::Adjustments;
pub use self::logprobs::TokenLogprobs;
use crate::{Error, Result};

/// The parameters of the choice. The default is the recommendation of Gemma's authors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by it. 0 always takes the most likely token.
    pub temperature: f32,
    /// Only this number of the most likely tokens stays. 0 keeps all.
    pub top_k: usize,
    /// The most likely tokens stay until their probabilities sum to this. 1 keeps all, 0 keeps one.
    pub top_p: f32,
    /// Tokens less likely than this fraction of the most likely one are removed. 0 keeps all.
    pub min_p: f32,
    /// Recent tokens' logits are divided by it if positive, else multiplied. 1 has no effect.
    pub repetition_penalty: f32,
    /// The same seed gives the same choices. `None` takes a new one.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 1.0,
            top_k: 64,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: None,
        }
    }
}

impl SamplingParams {
    /// Whether a device can choose with these parameters: see [`Draw`]. Probabilities of all
    /// tokens, or a repetition penalty, need the logits on the host.
    pub fn fit_device(&self) -> bool {
        let drawn = self.temperature > 0.0 && self.repetition_penalty == 1.0;
        drawn && (1..=Draw::MOST_TOP_K).contains(&self.top_k)
    }

    /// Errors name the command line's flag and its legal range.
    pub fn validate(&self) -> Result<()> {
        let fraction = |value: f32| (0.0..=1.0).contains(&value);
        let finite = |value: f32| value.is_finite();
        let checks = [
            (
                "temperature",
                self.temperature,
                finite(self.temperature) && self.temperature >= 0.0,
                "0 or more",
            ),
            ("top-p", self.top_p, fraction(self.top_p), "between 0 and 1"),
            ("min-p", self.min_p, fraction(self.min_p), "between 0 and 1"),
            (
                "repetition-penalty",
                self.repetition_penalty,
                finite(self.repetition_penalty) && self.repetition_penalty > 0.0,
                "more than 0",
            ),
        ];
        match checks.into_iter().find(|(_, _, legal, _)| !legal) {
            Some((flag, value, _, range)) => {
                Err(Error::Input(format!("--{flag} {value}: must be {range}")))
            }
            None => Ok(()),
        }
    }
}

/// One random choice from logits, with everything that a device needs to make it
/// ([`StepOutput::Sample`](crate::backend::StepOutput::Sample)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// More than 0. The others are as in [`SamplingParams`].
    pub temperature: f32,
    /// From 1 to [`Draw::MOST_TOP_K`].
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    /// The choice as a point in the kept tokens' summed probabilities, most likely first: in [0,
    /// 1).
    pub point: f64,
}

impl Draw {
    /// The most tokens that a device keeps.
    pub const MOST_TOP_K: usize = 128;

    /// Errors name the value and its legal range.
    pub fn validate(&self) -> Result<()> {
        let Draw { temperature, top_k, top_p, min_p, point } = *self;
        SamplingParams { temperature, top_k, top_p, min_p, repetition_penalty: 1.0, seed: None }
            .validate()?;
        let most = Draw::MOST_TOP_K;
        match (temperature > 0.0, (1..=most).contains(&top_k), (0.0..1.0).contains(&point)) {
            (false, ..) => Err(Error::Input(format!(
                "temperature {temperature}: a draw's must be more than 0"
            ))),
            (_, false, _) => {
                Err(Error::Input(format!("top-k {top_k}: a draw's must be between 1 and {most}")))
            }
            (.., false) => {
                Err(Error::Input(format!("point {point}: must be at least 0 and less than 1")))
            }
            _ => Ok(()),
        }
    }

    /// The chosen token's id, from logits of shape `[vocab]`. It is the one that
    /// [`Sampler::sample`] would choose.
    ///
    /// Errors: a logit that is NaN or +∞, no logit above −∞.
    pub fn choose(&self, logits: &[f32]) -> Result<u32> {
        check(logits)?;
        Ok(self.choose_from(logits, &mut Vec::new()))
    }

    /// Chooses from checked logits. `top_k` may be any number here, 0 for all.
    fn choose_from(&self, logits: &[f32], candidates: &mut Vec<Candidate>) -> u32 {
        let best = argmax(logits);
        let keep = if self.top_k == 0 { logits.len() } else { self.top_k.min(logits.len()) };
        largest(logits, keep, candidates);
        let (max, temperature) = (logits[best as usize] as f64, self.temperature as f64);
        for candidate in candidates.iter_mut() {
            candidate.weight = ((candidate.logit as f64 - max) / temperature).exp();
        }
        if self.top_p < 1.0 {
            keep_nucleus(candidates, self.top_p as f64);
        }
        candidates.retain(|candidate| candidate.weight >= self.min_p as f64);
        draw(candidates, self.point).unwrap_or(best)
    }
}

/// Draws tokens from logits, with its own random generator.
///
/// The filters have the order of Hugging Face's `generate`: repetition penalty, temperature, top-k,
/// top-p, min-p. top-p applies to the tokens that top-k left. llama.cpp divides by the temperature
/// last, so that its top-p and min-p use the probabilities at temperature 1.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    random: ChaCha8Rng,
    /// Reused from token to token.
    penalized: Vec<f32>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Probability as a multiple of the most likely token's.
    weight: f64,
}

impl Sampler {
    /// Errors as [`SamplingParams::validate`] does.
    pub fn new(params: SamplingParams) -> Result<Self> {
        params.validate()?;
        let seed = params.seed.unwrap_or_else(fresh_seed);
        let random = ChaCha8Rng::seed_from_u64(seed);
        Ok(Sampler { params, seed, random, penalized: Vec::new(), candidates: Vec::new() })
    }

    /// The seed in use: what [`SamplingParams::seed`] must be to get the same choices again.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next token's id, from logits of shape `[vocab]` and the tokens for the repetition
    /// penalty. These may be in any order, and repeats count once.
    ///
    /// Errors: a logit that is NaN or +∞, no logit above −∞, a recent id outside the vocabulary.
    pub fn sample(&mut self, logits: &[f32], recent: &[u32]) -> Result<u32> {
        check(logits)?;
        let penalty = self.params.repetition_penalty;
        if penalty != 1.0 {
            penalize(logits, recent, penalty, &mut self.penalized)?;
        }
        let draw = (self.params.temperature != 0.0).then(|| self.draw());
        let logits = if penalty == 1.0 { logits } else { &self.penalized };
        Ok(match draw {
            Some(draw) => draw.choose_from(logits, &mut self.candidates),
            None => argmax(logits),
        })
    }

    /// The next choice, for a device. The tokens are those of [`Sampler::sample`] where the
    /// parameters [fit a device](SamplingParams::fit_device).
    pub fn draw(&mut self) -> Draw {
        let SamplingParams { temperature, top_k, top_p, min_p, .. } = self.params;
        Draw { temperature, top_k, top_p, min_p, point: self.random.random() }
    }
}

/// The id of the largest logit, the lowest among equals. NaN is smaller than all others. If nothing
/// is larger than −∞, the id is 0.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0 as u32
}

/// Sets logits `[vocab]` of `ids` to −∞, so that none of them is chosen. Ids outside the vocabulary
/// are ignored.
pub fn suppress(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Sets logits `[vocab]` to −∞ where the bit of their id is not set. A word of `bits` has 32 ids,
/// the lowest id in the lowest bit. Ids beyond the last word have no bit.
pub fn retain(logits: &mut [f32], bits: &[u32]) {
    let words = bits.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(32).zip(words) {
        for (at, logit) in logits.iter_mut().enumerate() {
            if word >> at & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Errors unless a softmax of the logits is defined.
fn check(logits: &[f32]) -> Result<()> {
    if let Some(id) = logits.iter().position(|&logit| logit.is_nan() || logit == f32::INFINITY) {
        return Err(Error::Device(format!(
            "the model computed {} as the logit of token {id}",
            logits[id]
        )));
    }
    match logits.iter().any(|&logit| logit > f32::NEG_INFINITY) {
        true => Ok(()),
        false => {
            Err(Error::Device(format!("none of the model's {} logits is finite", logits.len())))
        }
    }
}

/// Copies `logits` to `out` and makes those of `recent` less likely (CTRL, arXiv 1909.05858, §4.1).
/// Negative logits are multiplied, as in all current implementations.
fn penalize(logits: &[f32], recent: &[u32], penalty: f32, out: &mut Vec<f32>) -> Result<()> {
    out.clear();
    out.extend_from_slice(logits);
    for &id in recent {
        let (Some(&logit), Some(out)) = (logits.get(id as usize), out.get_mut(id as usize)) else {
            return Err(Error::Input(format!(
                "token id {id} is outside the vocabulary of {}",
                logits.len()
            )));
        };
        if logit.is_finite() {
            let penalized = if logit > 0.0 { logit / penalty } else { logit * penalty };
            *out = penalized.clamp(f32::MIN, f32::MAX);
        }
    }
    Ok(())
}

/// Most likely first; lowest id among equals.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// The `keep` ≥ 1 largest logits above −∞. They are in [`order`] if others are left out, or if a
/// device could keep all of them. Otherwise they are in the order of ids.
fn largest(logits: &[f32], keep: usize, out: &mut Vec<Candidate>) {
    out.clear();
    // `keep` candidates exceed or equal the floor. It rises each time that `keep` more candidates
    // arrive, so that most logits need only one comparison.
    let mut floor = f32::NEG_INFINITY;
    for (id, &logit) in (0..).zip(logits) {
        if logit > floor {
            out.push(Candidate { id, logit, weight: 0.0 });
            if out.len() == 2 * keep {
                out.select_nth_unstable_by(keep - 1, order);
                out.truncate(keep);
                floor = out[keep - 1].logit;
            }
        }
    }
    if keep < logits.len() || keep <= Draw::MOST_TOP_K {
        out.sort_unstable_by(order);
        out.truncate(keep);
    }
}

/// Keeps the fewest most likely candidates whose weights reach `top_p` of the sum, at least one.
fn keep_nucleus(candidates: &mut Vec<Candidate>, top_p: f64) {
    let wanted = top_p * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    // Usually few candidates suffice, so that a partial sort is faster.
    let mut head = 256;
    loop {
        if head < candidates.len() {
            candidates.select_nth_unstable_by(head, order);
        } else {
            head = candidates.len();
        }
        candidates[..head].sort_unstable_by(order);
        let mut sum = 0.0;
        let last = candidates[..head].iter().position(|candidate| {
            sum += candidate.weight;
            sum >= wanted
        });
        if let Some(last) = last {
            return candidates.truncate(last + 1);
        }
        if head == candidates.len() {
            return;
        }
        head *= 4;
    }
}

/// The candidate at `point` (in [0, 1)) of the cumulative weights.
fn draw(candidates: &[Candidate], point: f64) -> Option<u32> {
    let mut left = point * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    candidates.iter().find_map(|candidate| {
        left -= candidate.weight;
        (left < 0.0).then_some(candidate.id)
    })
}

/// A seed that differs between runs. std's hash keys come from the system's entropy. Without
/// entropy (wasm) the clock still differs.
fn fresh_seed() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    let since_1970 = web_time::SystemTime::now().duration_since(web_time::SystemTime::UNIX_EPOCH);
    hasher.write_u128(since_1970.unwrap_or_default().as_nanos());
    hasher.finish()
}
