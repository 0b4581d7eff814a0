//! The shared reconnection backoff: 1 s five times, then 5 s, 10 s, and 60 s for good, each with jitter. Whoever is
//! to be back sooner after a short outage sets a limit.

use std::time::Duration;

const STEPS: [u64; 8] = [1, 1, 1, 1, 1, 5, 10, 60];

/// How long to wait before the next attempt. No clock, no randomness of its own: the caller gives a number
/// from 0 to 1 for the jitter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Backoff {
    failures: usize,
    limit: Option<Duration>,
}

impl Backoff {
    /// A backoff that never waits for longer than `limit`.
    pub fn limited(limit: Duration) -> Self {
        Self { failures: 0, limit: Some(limit) }
    }

    /// The wait after one more failure: the step, minus up to a fifth of it (`jitter` 0 to 1).
    pub fn next_delay(&mut self, jitter: f64) -> Duration {
        let step = STEPS[self.failures.min(STEPS.len() - 1)];
        self.failures = self.failures.saturating_add(1);
        let step = Duration::from_secs(step);
        self.limit.map_or(step, |limit| step.min(limit)).mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0))
    }

    /// To be called once the connection has proven itself.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> usize {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_then_stays_at_a_minute_and_starts_over() {
        let mut backoff = Backoff::default();
        let seconds: Vec<_> = (0..10).map(|_| backoff.next_delay(0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 1, 1, 1, 5, 10, 60, 60, 60]);
        assert_eq!(backoff.failures(), 10);
        backoff.reset();
        assert_eq!(backoff.next_delay(1.0), Duration::from_millis(800));
    }

    #[test]
    fn a_limit_ends_the_steps() {
        let mut backoff = Backoff::limited(Duration::from_secs(10));
        let seconds: Vec<_> = (0..10).map(|_| backoff.next_delay(0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 1, 1, 1, 5, 10, 10, 10, 10]);
        assert_eq!(backoff.next_delay(1.0), Duration::from_secs(8));
        backoff.reset();
        assert_eq!(
            backoff.next_delay(0.0),
            Duration::from_secs(1),
            "the limit does not touch the first steps"
        );
    }
}
