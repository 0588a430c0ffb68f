//! What a checkpoint says about text: vocabulary, chat template, special ids, sampling.
//! Knows no files, so that other loaders than `Checkpoint` can use it.

pub mod gguf;
pub mod hf;

use crate::{Error, Result, text::SamplingDefaults};

/// Checks recommended sampling values. Errors name the value.
fn sampling(temperature: Option<f64>, top_k: Option<usize>, top_p: Option<f64>) -> Result<SamplingDefaults> {
    if let Some(temperature) = temperature.filter(|value| !(value.is_finite() && *value >= 0.0)) {
        return Err(Error::Config(format!("the checkpoint's temperature = {temperature} cannot be used")));
    }
    if let Some(top_p) = top_p.filter(|value| !(0.0..=1.0).contains(value)) {
        return Err(Error::Config(format!("the checkpoint's top_p = {top_p} is not between 0 and 1")));
    }
    Ok(SamplingDefaults {
        temperature: temperature.map(|value| value as f32),
        top_k,
        top_p: top_p.map(|value| value as f32),
    })
}

/// Adds an id that is not there yet.
fn add_id(ids: &mut Vec<u32>, id: u32) {
    if !ids.contains(&id) {
        ids.push(id);
    }
}
