//! Rates: which frames to take so that a source is looked at `max-fps` times a second, and how often it was.

/// Lets at most `max_fps` frames a second through, evenly spaced, without drift: each frame is compared with
/// a schedule and not with the frame before. Times are nanoseconds of running time.
#[derive(Clone, Debug, Default)]
pub struct RateLimiter {
    due: Option<u64>,
}

impl RateLimiter {
    /// Whether the frame at `now_ns` is due. `max_fps` ≤ 0 lets everything through. A jump of more than two
    /// intervals in either direction starts a new schedule, so a burst is never owed.
    pub fn accept(&mut self, now_ns: u64, max_fps: f64) -> bool {
        if max_fps.is_nan() || max_fps <= 0.0 {
            self.due = None;
            return true;
        }
        let interval = (1e9 / max_fps) as u64;
        // Half a frame of jitter must not cost a frame: up to a tenth of the interval early counts as on time.
        let early = interval / 10;
        match self.due {
            Some(due) if now_ns + early < due && due - now_ns <= 2 * interval => false,
            Some(due) if now_ns + early >= due && now_ns < due.saturating_add(2 * interval) => {
                self.due = Some(due + interval);
                true
            }
            _ => {
                self.due = Some(now_ns + interval);
                true
            }
        }
    }

    pub fn reset(&mut self) {
        self.due = None;
    }
}

/// Measured rate over the last few seconds of events.
#[derive(Clone, Debug)]
pub struct RateMeter {
    window_ns: u64,
    times: std::collections::VecDeque<u64>,
}

impl Default for RateMeter {
    fn default() -> Self {
        Self { window_ns: 5_000_000_000, times: std::collections::VecDeque::new() }
    }
}

impl RateMeter {
    /// Most events that are remembered; enough for five seconds at 200 a second.
    const CAPACITY: usize = 1000;

    pub fn add(&mut self, now_ns: u64) {
        if self.times.back().is_some_and(|&last| now_ns < last) {
            self.times.clear();
        }
        if self.times.len() == Self::CAPACITY {
            self.times.pop_front();
        }
        self.times.push_back(now_ns);
    }

    /// Events per second, `None` until there were two. Slow sources are measured over their last two events.
    pub fn rate(&mut self, now_ns: u64) -> Option<f64> {
        while self.times.len() > 2 && self.times[0] + self.window_ns < now_ns {
            self.times.pop_front();
        }
        let (first, last) = (*self.times.front()?, *self.times.back()?);
        (last > first).then(|| (self.times.len() - 1) as f64 * 1e9 / (last - first) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepted(fps_in: f64, max_fps: f64, seconds: u64) -> usize {
        let mut limiter = RateLimiter::default();
        let n = (seconds as f64 * fps_in) as u64;
        (0..n).filter(|i| limiter.accept((*i as f64 * 1e9 / fps_in) as u64, max_fps)).count()
    }

    #[test]
    fn takes_what_was_asked() {
        for (fps_in, max_fps, seconds, expected) in [
            (25.0, 5.0, 60, 300),
            (30.0, 7.0, 60, 420),
            (25.0, 0.1, 100, 10),
            (10.0, 25.0, 10, 100),
            (25.0, 0.0, 4, 100),
        ] {
            let got = accepted(fps_in, max_fps, seconds);
            assert!(
                got.abs_diff(expected) <= 1 + expected / 50,
                "{fps_in}->{max_fps}: {got}, not {expected}"
            );
        }
    }

    #[test]
    fn a_gap_or_a_jump_back_owes_nothing() {
        let mut limiter = RateLimiter::default();
        assert!(limiter.accept(0, 5.0));
        assert!(limiter.accept(60_000_000_000, 5.0));
        assert!(!limiter.accept(60_040_000_000, 5.0));
        assert!(limiter.accept(1_000_000_000, 5.0), "time went back: start over");
    }

    proptest! {
        #[test]
        fn never_more_than_asked(fps_in in 1.0f64..60.0, max_fps in 0.1f64..60.0) {
            let got = accepted(fps_in, max_fps, 30);
            prop_assert!(got as f64 <= 30.0 * max_fps * 1.02 + 2.0);
        }
    }

    #[test]
    fn meter_measures() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.rate(0), None);
        for i in 0..100u64 {
            meter.add(i * 200_000_000);
        }
        assert!((meter.rate(100 * 200_000_000).unwrap() - 5.0).abs() < 0.01);
    }
}
