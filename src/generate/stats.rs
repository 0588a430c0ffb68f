//! Token counts and times of one answer.

use std::time::Duration;

use web_time::Instant;

/// Token counts and times of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    pub prompt_tokens: usize,
    /// Prompt tokens that the KV cache already held.
    pub cached_tokens: usize,
    /// Tokens that the model chose, the end token included.
    pub generated_tokens: usize,
    /// From the request to the first chosen token, `None` if there was none.
    pub time_to_first_token: Option<Duration>,
    /// From the first chosen token to the last.
    pub decode_time: Duration,
}

impl Stats {
    /// Prompt tokens per second until the first chosen token, without cached ones.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.prompt_tokens - self.cached_tokens, self.time_to_first_token?)
    }

    /// Tokens per second after the first one.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.generated_tokens.checked_sub(1)?, self.decode_time)
    }
}

/// Events per second; `None` without events or time.
fn rate(count: usize, time: Duration) -> Option<f64> {
    (count > 0 && !time.is_zero()).then(|| count as f64 / time.as_secs_f64())
}

/// Records the times of tokens.
pub(super) struct Clock {
    start: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    ticks: usize,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { start: Instant::now(), first: None, last: None, ticks: 0 }
    }

    /// A token was chosen.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.ticks += 1;
    }

    pub fn stats(&self, prompt_tokens: usize, cached_tokens: usize) -> Stats {
        let decode_time = self.last.zip(self.first).map(|(last, first)| last - first);
        Stats {
            prompt_tokens,
            cached_tokens,
            generated_tokens: self.ticks,
            time_to_first_token: self.first.map(|first| first - self.start),
            decode_time: decode_time.unwrap_or_default(),
        }
    }
}
