//! Log probabilities of tokens.

/// Log probabilities of a chosen token and of the likeliest ones. They are natural logarithms of
/// the softmax of the model's logits. No penalty, filter or temperature changes them.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The chosen token's.
    pub logprob: f32,
    /// The likeliest tokens, the likeliest first.
    pub likeliest: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// The log probabilities of `token` and of the `count` likeliest tokens, from logits `[vocab]`.
    pub fn new(logits: &[f32], token: u32, count: usize) -> TokenLogprobs {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = logits.iter().map(|&logit| (logit as f64 - max).exp()).sum();
        let log_sum = max + sum.ln();
        let logprob = |logit: f32| (logit as f64 - log_sum) as f32;
        let mut likeliest = Vec::new();
        if count > 0 {
            super::largest(logits, count.min(logits.len()), &mut likeliest);
            likeliest.sort_unstable_by(super::order);
            likeliest.truncate(count);
        }
        let chosen = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        TokenLogprobs {
            logprob: logprob(chosen),
            likeliest: likeliest.iter().map(|it| (it.id, logprob(it.logit))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0];
        let sum: f64 = [1.0f64, 3.0, 2.0].iter().map(|logit| logit.exp()).sum();
        let expected = |logit: f64| (logit - sum.ln()) as f32;
        let found = TokenLogprobs::new(&logits, 3, 2);
        assert_eq!(found.logprob, expected(2.0));
        assert_eq!(found.likeliest, [(1, expected(3.0)), (3, expected(2.0))]);
        let all = TokenLogprobs::new(&logits, 1, 20);
        assert_eq!(all.likeliest.len(), 3, "a token at −∞ is impossible");
        assert_eq!(TokenLogprobs::new(&logits, 0, 0).likeliest, []);
    }
}
