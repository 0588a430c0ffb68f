//! What a checkpoint says about text: vocabulary, chat template, special ids, sampling. It does not
//! depend on files, so that loaders other than `Checkpoint` can use it.

pub mod gguf;
pub mod hf;

use crate::{Error, Result, text::SamplingDefaults};

/// Sampling values as a file gives them.
#[derive(Default)]
struct Recommended {
    temperature: Option<f64>,
    /// Less than 1 for all tokens.
    top_k: Option<f64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

impl Recommended {
    /// Checks the values. Errors name one that cannot be used.
    fn check(self) -> Result<SamplingDefaults> {
        let Recommended { temperature, top_k, top_p, min_p, repetition_penalty } = self;
        let fraction = |value: f64| (0.0..=1.0).contains(&value);
        let sound =
            |value: Option<f64>, name: &str, legal: &dyn Fn(f64) -> bool, wanted: &str| match value
            {
                Some(value) if !legal(value) => {
                    Err(Error::Config(format!("the checkpoint's {name} = {value} {wanted}")))
                }
                value => Ok(value.map(|value| value as f32)),
            };
        let unusable = "cannot be used";
        let not_fraction = "is not between 0 and 1";
        sound(top_k, "top_k", &|value| !value.is_nan(), unusable)?;
        Ok(SamplingDefaults {
            temperature: sound(
                temperature,
                "temperature",
                &|value| (value as f32).is_finite() && value >= 0.0,
                unusable,
            )?,
            // Negative means off, as 0 does.
            top_k: top_k.map(|k| k as usize),
            top_p: sound(top_p, "top_p", &fraction, not_fraction)?,
            min_p: sound(min_p, "min_p", &fraction, not_fraction)?,
            repetition_penalty: sound(
                repetition_penalty,
                "repetition_penalty",
                &|value| (value as f32).is_finite() && value as f32 > 0.0,
                unusable,
            )?,
        })
    }
}

/// Adds an id unless it is there already.
fn add_id(ids: &mut Vec<u32>, id: u32) {
    if !ids.contains(&id) {
        ids.push(id);
    }
}
