//! What ages are reckoned by: a host's clock that is suddenly ahead would make everything too old at once.

use std::time::Duration;

/// How far the clock may jump ahead and is believed at once, and how long it has to stay there to be believed after
/// all.
pub const DOUBTED: Duration = Duration::from_hours(1);

/// Follows the clock of the host, but not at once where it is far ahead of what it should be. `steady` is the time since
/// any fixed moment, by a clock that nobody sets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ages {
    /// A time that was believed, and when.
    believed: Option<(i64, Duration)>,
    /// A time that is not, and when it was first said.
    doubted: Option<(i64, Duration)>,
}

impl Ages {
    /// The time is not before this: something was recorded then. To be called before the first look at the clock.
    pub fn begin(&mut self, recorded_us: i64, steady: Duration) {
        self.believed.get_or_insert((recorded_us, steady));
    }

    /// The time that ages are reckoned by, while the clock says `wall_us`.
    pub fn now(&mut self, wall_us: i64, steady: Duration) -> i64 {
        let limit = micros(DOUBTED);
        let after = |(us, at): (i64, Duration)| us.saturating_add(micros(steady.saturating_sub(at)));
        let expected = self.believed.map_or(wall_us, after);
        let ahead = wall_us.saturating_sub(expected) > limit;
        let held = self.doubted.filter(|doubted| wall_us.saturating_sub(after(*doubted)).abs() <= limit);
        if !ahead || held.is_some_and(|(_, since)| steady.saturating_sub(since) >= DOUBTED) {
            self.believed = Some((wall_us, steady));
            self.doubted = None;
            return wall_us;
        }
        self.doubted = held.or(Some((wall_us, steady)));
        expected
    }

    /// Whether the clock is ahead of what is believed.
    pub fn doubts(&self) -> bool {
        self.doubted.is_some()
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
