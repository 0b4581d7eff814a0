//! Rates: which frames to take so that a source is looked at `max-fps` times a second, and how often it was.

/// However seldom frames are wanted, one a day is taken, nanoseconds.
const LONGEST_INTERVAL: f64 = 86_400e9;

/// Lets at most `max_fps` frames a second through, evenly spaced, without drift: each frame is compared with
/// a schedule and not with the frame before. Times are nanoseconds of running time.
#[derive(Clone, Debug, Default)]
pub struct RateLimiter {
    due: Option<u64>,
    phase: Option<f64>,
}

impl RateLimiter {
    /// A limiter whose schedule lies at `phase` (0 to 1) of the interval instead of where the first frame happened
    /// to come. Sources that start together would otherwise be due together for good, and queue for the engine.
    pub fn with_phase(phase: f64) -> Self {
        Self { due: None, phase: Some(phase.rem_euclid(1.0)) }
    }

    /// The limiter of one source of many: phases of successive ids are far apart however many there are
    /// (multiples of the golden ratio, a low-discrepancy sequence).
    pub fn for_source(source_id: u32) -> Self {
        Self::with_phase(f64::from(source_id) * 0.618_033_988_749_895)
    }

    /// When the frame after the one at `now_ns` is due.
    fn next_due(&self, now_ns: u64, interval: u64) -> u64 {
        let Some(phase) = self.phase else { return now_ns + interval };
        let offset = (phase * interval as f64) as u64;
        let earliest = now_ns + interval / 2;
        offset + earliest.saturating_sub(offset).div_ceil(interval.max(1)) * interval
    }

    /// Whether the frame at `now_ns` is due. `max_fps` ≤ 0 lets everything through. A jump of more than two
    /// intervals in either direction starts a new schedule, so a burst is never owed.
    pub fn accept(&mut self, now_ns: u64, max_fps: f64) -> bool {
        if max_fps.is_nan() || max_fps <= 0.0 {
            self.due = None;
            return true;
        }
        let interval = interval(max_fps);
        // Half a frame of jitter must not cost a frame: up to a tenth of the interval early counts as on time.
        let early = interval / 10;
        match self.due {
            Some(due) if now_ns + early < due && due - now_ns <= 2 * interval => false,
            Some(due) if now_ns + early >= due && now_ns < due.saturating_add(2 * interval) => {
                self.due = Some(due + interval);
                true
            }
            _ => {
                self.due = Some(self.next_due(now_ns, interval));
                true
            }
        }
    }

    /// From when on a frame is let through, `None` where the next one is.
    pub fn opens_at(&self, max_fps: f64) -> Option<u64> {
        self.due.map(|due| due.saturating_sub(interval(max_fps) / 10))
    }

    pub fn reset(&mut self) {
        self.due = None;
    }
}

/// Nanoseconds from one frame to the next.
fn interval(max_fps: f64) -> u64 {
    (1e9 / max_fps).min(LONGEST_INTERVAL) as u64
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

    /// Events per second, `None` until there were two. Slow sources are measured over their last two events; where
    /// nothing has come for much longer than that, the rate is 0.
    pub fn rate(&mut self, now_ns: u64) -> Option<f64> {
        while self.times.len() > 2 && self.times[0].saturating_add(self.window_ns) < now_ns {
            self.times.pop_front();
        }
        let (first, last) = (*self.times.front()?, *self.times.back()?);
        if last <= first {
            return None;
        }
        if now_ns.saturating_sub(last) > self.window_ns.max(2 * (last - first)) {
            return Some(0.0);
        }
        Some((self.times.len() - 1) as f64 * 1e9 / (last - first) as f64)
    }
}

/// The spread of the last measurements, for latencies and durations.
#[derive(Clone, Debug, Default)]
pub struct Percentiles {
    values: std::collections::VecDeque<f64>,
}

impl Percentiles {
    /// How many measurements are remembered: enough for a 99th percentile that one outlier does not make.
    pub const CAPACITY: usize = 512;

    /// One more measurement; anything that is not a number is ignored.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        if self.values.len() == Self::CAPACITY {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// The smallest measurement that at least `percent` (0 to 100) of them do not exceed (nearest rank); `None`
    /// until there is one.
    pub fn get(&self, percent: f64) -> Option<f64> {
        let rank = (percent.clamp(0.0, 100.0) / 100.0 * self.values.len() as f64).ceil() as usize;
        let mut sorted: Vec<_> = self.values.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(rank.saturating_sub(1)).copied()
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn clear(&mut self) {
        self.values.clear();
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

    #[test]
    fn sources_that_start_together_are_not_due_together() {
        const MS: u64 = 1_000_000;
        let mut due: Vec<u64> = (0..12)
            .map(|id| {
                let mut limiter = RateLimiter::for_source(id);
                assert!(limiter.accept(0, 5.0), "the first frame is taken at once");
                let taken: Vec<_> = (1..2000).filter(|ms| limiter.accept(ms * MS, 5.0)).collect();
                assert!(taken.windows(2).all(|pair| pair[1] - pair[0] == 200), "{taken:?}");
                taken[1] % 200
            })
            .collect();
        due.sort_unstable();
        let gaps = due.iter().zip(due.iter().skip(1)).map(|(a, b)| b - a).chain([due[0] + 200 - due[11]]);
        assert!(gaps.clone().min() >= Some(5) && gaps.max() <= Some(30), "{due:?}");
    }

    proptest! {
        #[test]
        fn a_phase_takes_what_was_asked(fps_in in 1.0f64..60.0, max_fps in 0.1f64..60.0, phase in -2.0f64..2.0) {
            let (mut phased, mut plain) = (RateLimiter::with_phase(phase), RateLimiter::default());
            let (mut with, mut without) = (0u64, 0u64);
            for i in 0..(fps_in * 30.0) as u64 {
                let now = (i as f64 * 1e9 / fps_in) as u64;
                with += u64::from(phased.accept(now, max_fps));
                without += u64::from(plain.accept(now, max_fps));
            }
            prop_assert!(with.abs_diff(without) <= 2 + without / 20, "{with} and {without}");
        }

        #[test]
        fn never_more_than_asked(fps_in in 1.0f64..60.0, max_fps in 0.1f64..60.0) {
            let got = accepted(fps_in, max_fps, 30);
            prop_assert!(got as f64 <= 30.0 * max_fps * 1.02 + 2.0);
        }
    }

    #[test]
    fn the_smallest_rate_takes_one_frame_a_day() {
        const HOUR: u64 = 3_600_000_000_000;
        for max_fps in [1e-5, 1e-12, f64::MIN_POSITIVE] {
            for mut limiter in [RateLimiter::default(), RateLimiter::for_source(1)] {
                let taken = (0..24 * 30).filter(|hour| limiter.accept(hour * HOUR, max_fps)).count();
                assert!((25..=31).contains(&taken), "{max_fps}: {taken}");
            }
        }
    }

    #[test]
    fn a_source_that_has_gone_silent_has_no_rate() {
        const S: u64 = 1_000_000_000;
        let mut meter = RateMeter::default();
        (0..50).for_each(|i| meter.add(i * S / 5));
        let last = 49 * S / 5;
        for (silence, rate) in [(0, 5.0), (2 * S, 5.0), (4 * S, 5.0), (3600 * S, 0.0)] {
            assert!((meter.rate(last + silence).unwrap() - rate).abs() < 0.01, "after {silence} ns");
        }
        // One frame in twenty seconds is no silence.
        let mut slow = RateMeter::default();
        (0..4).for_each(|i| slow.add(i * 20 * S));
        assert!((slow.rate(85 * S).unwrap() - 0.05).abs() < 0.001);
        assert_eq!(slow.rate(200 * S), Some(0.0));
        assert!(slow.rate(0).is_some(), "a clock that was set back");
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

    #[test]
    fn percentiles_are_nearest_rank_over_the_last_measurements() {
        let mut percentiles = Percentiles::default();
        assert_eq!(percentiles.get(50.0), None);
        percentiles.add(7.0);
        percentiles.add(f64::NAN);
        for percent in [0.0, 50.0, 99.0, 100.0] {
            assert_eq!(percentiles.get(percent), Some(7.0));
        }
        percentiles.clear();
        (1..=100).rev().for_each(|v| percentiles.add(f64::from(v)));
        assert_eq!((percentiles.get(50.0), percentiles.get(99.0)), (Some(50.0), Some(99.0)));
        (0..Percentiles::CAPACITY).for_each(|_| percentiles.add(3.0));
        assert_eq!((percentiles.get(0.0), percentiles.get(100.0)), (Some(3.0), Some(3.0)));
        assert_eq!(percentiles.len(), Percentiles::CAPACITY);
        assert!(!percentiles.is_empty());
    }
}
