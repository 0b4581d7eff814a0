//! When what frames carry was true: results come late, and frames that nobody looked at may count all the same.

/// How far the time of frames may step back without being taken for another stream: that of cameras trembles.
const TREMBLE_NS: u64 = 500_000_000;

/// The time that passes for those who are followed. It never goes back within a stream: where frames pass while a
/// detector is at work, a frame without motion may have passed before the result for an earlier one comes.
///
/// All times are nanoseconds of running time.
#[derive(Clone, Debug, Default)]
pub struct LookClock {
    /// Of the newest frame.
    frame_ns: u64,
    now_ns: u64,
    /// Something may have moved while nobody was to look.
    missed: bool,
}

/// When a result was true.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    pub now_ns: u64,
    /// Another stream has begun: who was followed is gone.
    pub anew: bool,
}

impl LookClock {
    /// The frame at `frame_ns` carries a result that was true `age_ns` earlier.
    pub fn look(&mut self, frame_ns: u64, age_ns: u64) -> Look {
        let anew = self.is_back(frame_ns);
        if anew {
            *self = Self::default();
        }
        self.frame_ns = self.frame_ns.max(frame_ns);
        self.now_ns = self.now_ns.max(frame_ns.saturating_sub(age_ns));
        self.missed = false;
        Look { now_ns: self.now_ns, anew }
    }

    /// The frame at `frame_ns` was left out because nothing moves in it: until when who was there is still there.
    /// `None` where that cannot be said.
    pub fn hold(&mut self, frame_ns: u64) -> Option<u64> {
        if self.missed || self.is_back(frame_ns) {
            return None;
        }
        self.frame_ns = self.frame_ns.max(frame_ns);
        self.now_ns = self.now_ns.max(frame_ns);
        Some(self.now_ns)
    }

    /// Something may have moved in a frame that nobody was to look at: nobody is known to be there any more, until
    /// somebody looks again.
    pub fn miss(&mut self) {
        self.missed = true;
    }

    fn is_back(&self, frame_ns: u64) -> bool {
        frame_ns.saturating_add(TREMBLE_NS) < self.frame_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(now_ns: u64) -> Look {
        Look { now_ns, anew: false }
    }

    #[test]
    fn a_late_result_does_not_turn_time_back() {
        let mut clock = LookClock::default();
        assert_eq!(clock.look(10 * S, S), at(9 * S));
        assert_eq!(clock.hold(12 * S), Some(12 * S));
        // However late it is.
        assert_eq!(clock.look(14 * S, 3 * S), at(12 * S));
        assert_eq!(clock.look(15 * S, S / 2), at(14 * S + S / 2));
        // The arrival of frames trembles, and with it the age.
        assert_eq!(clock.look(15 * S + S / 10, S), at(14 * S + S / 2));
        assert_eq!(clock.look(15 * S, 0), at(15 * S));
    }

    #[test]
    fn another_stream_begins_anew() {
        let mut clock = LookClock::default();
        clock.look(10 * S, 0);
        assert_eq!(clock.hold(2 * S), None);
        assert_eq!(clock.look(2 * S, 0), Look { now_ns: 2 * S, anew: true });
        assert_eq!(clock.hold(3 * S), Some(3 * S));
        assert_eq!(clock.look(u64::MAX, u64::MAX), at(3 * S));
    }

    #[test]
    fn what_was_missed_ends_the_hold_until_somebody_looks() {
        let mut clock = LookClock::default();
        clock.look(S, 0);
        clock.miss();
        assert_eq!(clock.hold(2 * S), None);
        clock.look(3 * S, 0);
        assert_eq!(clock.hold(4 * S), Some(4 * S));
    }
}
