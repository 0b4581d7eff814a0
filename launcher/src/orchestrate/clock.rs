//! A clock that nobody sets. A machine without a clock of its own begins in 1970 and is put right once it has a network:
//! by the time of day, every step and timeout under way would be over then.

use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since the epoch as they would be, had nobody set the clock since the start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    /// `wall_ms` is the time of day at `start`.
    pub fn new(start: Instant, wall_ms: u64) -> Self {
        Self { start, start_ms: wall_ms }
    }

    pub fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        self.start_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// By how many milliseconds the time of day is ahead of this clock.
    pub fn lag(&self, now: Instant, wall_ms: u64) -> i64 {
        i64::try_from(i128::from(wall_ms) - i128::from(self.at(now))).unwrap_or_default()
    }
}

/// The time of day, milliseconds since the epoch.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_whatever_the_time_of_day_does() {
        let start = Instant::now();
        let clock = Clock::new(start, 1000);
        let later = start + Duration::from_secs(2);
        assert_eq!((clock.at(start), clock.at(later)), (1000, 3000));
        assert_eq!(clock.lag(later, 3000), 0);
        assert_eq!(clock.lag(later, 1_795_000_000_000), 1_794_999_997_000);
        assert_eq!(clock.lag(later, 500), -2500);
    }
}
