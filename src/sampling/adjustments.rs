//! Changes of logits before a choice.

use std::collections::HashMap;

use crate::{Error, Result};

/// Changes of logits before the sampler's own. Single tokens have a bias, and tokens that the
/// answer already has are penalized. The default changes nothing.
///
/// Source: <https://platform.openai.com/docs/api-reference/chat/create>. As there, the penalties
/// do not count the prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adjustments {
    /// Subtracted from the logit of every token that occurred.
    pub presence_penalty: f32,
    /// Subtracted for each occurrence of a token.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens. Ids outside the vocabulary are ignored.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Adjustments {
    /// Errors name the command line's flag and its legal range.
    pub fn validate(&self) -> Result<()> {
        let penalties = [
            ("presence-penalty", self.presence_penalty),
            ("frequency-penalty", self.frequency_penalty),
        ];
        for (flag, value) in penalties {
            if !value.is_finite() {
                return Err(Error::Input(format!("--{flag} {value}: must be a finite number")));
            }
        }
        match self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            Some((id, bias)) => {
                Err(Error::Input(format!("the bias {bias} of token {id} must be finite")))
            }
            None => Ok(()),
        }
    }

    /// Changes logits `[vocab]`. `counts` are the occurrences of tokens in the answer.
    pub fn apply(&self, logits: &mut [f32], counts: &HashMap<u32, u32>) {
        let mut add = |id: u32, change: f32| {
            if let Some(logit) = logits.get_mut(id as usize).filter(|logit| logit.is_finite()) {
                *logit = (*logit + change).clamp(f32::MIN, f32::MAX);
            }
        };
        for &(id, bias) in &self.logit_bias {
            add(id, bias);
        }
        if self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 {
            for (&id, &count) in counts {
                add(id, -self.presence_penalty - self.frequency_penalty * count as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_and_penalties_by_count_add_up() {
        let adjustments = Adjustments {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: vec![(0, 3.0), (2, -100.0), (9, 1.0)],
        };
        let mut logits = [1.0, 2.0, 3.0, f32::NEG_INFINITY];
        adjustments.apply(&mut logits, &HashMap::from([(1, 4), (2, 1), (3, 2), (77, 1)]));
        assert_eq!(logits, [4.0, 0.5, -97.75, f32::NEG_INFINITY]);
        adjustments.validate().unwrap();
    }

    #[test]
    fn the_largest_values_keep_logits_finite() {
        let adjustments = Adjustments {
            presence_penalty: f32::MIN,
            frequency_penalty: f32::MAX,
            logit_bias: vec![(0, f32::MAX), (1, f32::MIN)],
        };
        let mut logits = [f32::MAX, f32::MIN, 0.0];
        adjustments.apply(&mut logits, &HashMap::from([(2, u32::MAX)]));
        assert_eq!(logits[..2], [f32::MAX, f32::MIN]);
        assert!(logits.iter().all(|logit| logit.is_finite()), "{logits:?}");
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let error = |adjustments: Adjustments| adjustments.validate().unwrap_err().to_string();
        let presence = Adjustments { presence_penalty: f32::NAN, ..Adjustments::default() };
        assert_eq!(error(presence), "--presence-penalty NaN: must be a finite number");
        let frequency = Adjustments { frequency_penalty: f32::INFINITY, ..Adjustments::default() };
        assert_eq!(error(frequency), "--frequency-penalty inf: must be a finite number");
        let bias = Adjustments { logit_bias: vec![(7, f32::NAN)], ..Adjustments::default() };
        assert_eq!(error(bias), "the bias NaN of token 7 must be finite");
    }
}
