//! How fast segments are moved, so that recording is not disturbed.

use std::time::Duration;

/// Spreads bytes evenly over time. No clock of its own: `now` is the time since any fixed moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    /// When all that was taken so far would have been done at the wanted rate.
    done: Duration,
}

impl Pace {
    /// Takes `bytes` at `rate` bytes per second, 0 for as fast as it goes, and says how long to wait for them. What
    /// was not used in the past is not made up for.
    pub fn take(&mut self, bytes: u64, rate: u64, now: Duration) -> Duration {
        if rate == 0 {
            self.done = now;
            return Duration::ZERO;
        }
        let lasts = Duration::try_from_secs_f64(bytes as f64 / rate as f64).unwrap_or(Duration::MAX);
        self.done = self.done.max(now).saturating_add(lasts);
        self.done.saturating_sub(now)
    }
}
