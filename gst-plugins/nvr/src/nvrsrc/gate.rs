//! Which access units a decoder has to see, so that the frames that are wanted come out and as little as possible is
//! decoded. Pure: times are nanoseconds of running time.

use super::Decode;

const SECOND: u64 = 1_000_000_000;

/// One access unit, in decoding order.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// When its picture is shown.
    pub time_ns: u64,
    /// Nothing before it is needed to decode what follows.
    pub keyframe: bool,
    /// No other picture is decoded from this one (`nal_ref_idc` 0).
    pub disposable: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Decode,
    /// Decode and have the picture out at once: what the decoder waits for will not come.
    DecodeAlone,
    Skip,
}

/// Remembers how often keyframes come and whether the decoder has what the next unit needs.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    last_keyframe: Option<u64>,
    /// The last two distances of keyframes.
    intervals: [Option<u64>; 2],
    /// A unit that others need was skipped; only a keyframe helps.
    broken: bool,
}

impl Gate {
    /// Decides on the next unit. `wanted`: anybody wants pictures at all; `due` says whether `max_fps` would let its
    /// picture through.
    pub fn admit(
        &mut self,
        unit: Unit,
        wanted: bool,
        decode: Decode,
        max_fps: f64,
        due: impl FnOnce() -> bool,
    ) -> Verdict {
        if unit.keyframe {
            if let Some(last) = self.last_keyframe.filter(|last| unit.time_ns > *last) {
                self.intervals = [Some(unit.time_ns - last), self.intervals[0]];
            }
            self.last_keyframe = Some(unit.time_ns);
        }
        if !wanted {
            self.broken = true;
            return Verdict::Skip;
        }
        if self.alone(unit.time_ns, decode, max_fps) {
            if unit.keyframe && due() {
                self.broken = false;
                return Verdict::DecodeAlone;
            }
            self.broken = true;
            return Verdict::Skip;
        }
        if unit.keyframe {
            self.broken = false;
        }
        if self.broken || (unit.disposable && !due()) { Verdict::Skip } else { Verdict::Decode }
    }

    /// Whether nothing can be decoded before the next keyframe.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether nothing but keyframes is decoded.
    pub fn alone(&self, now: u64, decode: Decode, max_fps: f64) -> bool {
        match decode {
            Decode::All | Decode::None => false,
            Decode::Keyframes => true,
            Decode::Auto => self.keyframes_suffice(now, max_fps),
        }
    }

    /// Whether at most one picture a second is decoded, so that some milliseconds more or less do not matter.
    pub fn seldom(&self, now: u64, decode: Decode, max_fps: f64) -> bool {
        let rare = self.keyframe_interval().is_some_and(|interval| interval >= SECOND);
        self.alone(now, decode, max_fps) && (rare || max_fps > 0.0 && max_fps <= 1.0)
    }

    /// The longer of the last two keyframe distances, nanoseconds.
    pub fn keyframe_interval(&self) -> Option<u64> {
        self.intervals.iter().copied().flatten().max()
    }

    /// Whether keyframes come at least `max_fps` times a second, a tenth of jitter allowed. Cameras with adaptive
    /// keyframes stretch the distance at will, so the time since the last one counts as well.
    fn keyframes_suffice(&self, now: u64, max_fps: f64) -> bool {
        let (Some(interval), Some(last)) = (self.keyframe_interval(), self.last_keyframe) else {
            return false;
        };
        let interval = interval.max(now.saturating_sub(last));
        max_fps > 0.0 && interval as f64 * max_fps <= 1.1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvr_core::rate::RateLimiter;

    const MS: u64 = 1_000_000;

    #[test]
    fn pictures_are_seldom_where_keyframes_alone_are_decoded_and_come_once_a_second_at_most() {
        for (decode, max_fps, gop, seldom) in [
            (Decode::Auto, 0.5, 50, true),
            (Decode::Auto, 0.5, 10, true),
            (Decode::Auto, 2.0, 10, false),
            (Decode::Auto, 5.0, 50, false),
            (Decode::Keyframes, 0.0, 50, true),
            (Decode::Keyframes, 0.0, 10, false),
            (Decode::All, 0.1, 50, false),
        ] {
            let mut gate = Gate::default();
            assert!(!gate.seldom(0, Decode::Auto, max_fps), "nothing is known yet");
            for i in 0..=3 * gop {
                let unit = Unit { time_ns: i * 40 * MS, keyframe: i % gop == 0, disposable: false };
                gate.admit(unit, true, decode, max_fps, || true);
            }
            assert_eq!(gate.seldom(3 * gop * 40 * MS, decode, max_fps), seldom, "{decode:?} {max_fps} {gop}");
        }
    }

    /// Runs `seconds` of 25 fps with a keyframe every `gop` frames; of the rest, those that `disposable` names
    /// are. Returns how many units reached the decoder and how many pictures `max_fps` let through.
    fn run(
        decode: Decode,
        max_fps: f64,
        gop: u64,
        disposable: fn(u64) -> bool,
        seconds: u64,
    ) -> (usize, usize) {
        let (mut gate, mut limiter) = (Gate::default(), RateLimiter::default());
        let (mut decoded, mut shown) = (0, 0);
        let mut fed_since_keyframe = true;
        for i in 0..seconds * 25 {
            let time_ns = i * 40 * MS;
            let unit = Unit { time_ns, keyframe: i % gop == 0, disposable: i % gop != 0 && disposable(i) };
            let verdict =
                gate.admit(unit, true, decode, max_fps, || limiter.clone().accept(time_ns, max_fps));
            if verdict == Verdict::Skip {
                fed_since_keyframe &= unit.disposable;
                continue;
            }
            if unit.keyframe {
                fed_since_keyframe = true;
            }
            assert!(fed_since_keyframe, "unit {i} needs one that was skipped");
            decoded += 1;
            shown += usize::from(limiter.accept(time_ns, max_fps));
        }
        (decoded, shown)
    }

    #[test]
    fn everything_is_decoded_where_everything_is_needed() {
        assert_eq!(run(Decode::Auto, 0.0, 25, |_| false, 10), (250, 250));
        assert_eq!(run(Decode::All, 0.1, 25, |_| false, 20).0, 500);
        let (decoded, shown) = run(Decode::Auto, 5.0, 25, |_| false, 20);
        assert_eq!((decoded, shown), (500, 100), "keyframes come once a second, five are wanted");
    }

    #[test]
    fn keyframes_alone_where_they_suffice() {
        let (decoded, shown) = run(Decode::Auto, 0.1, 25, |_| false, 100);
        assert!(decoded <= 26 + 11 && (10..=11).contains(&shown), "{decoded} {shown}");
        let (decoded, shown) = run(Decode::Auto, 1.0, 25, |_| false, 60);
        assert!(decoded <= 26 + 60 && (59..=60).contains(&shown), "{decoded} {shown}");
        assert_eq!(run(Decode::Keyframes, 0.0, 50, |_| false, 20), (10, 10));
    }

    #[test]
    fn pictures_that_nobody_needs_are_not_decoded() {
        // Every second picture refers to nothing: of 25, 12 or 13 are references, and 5 are wanted.
        let (decoded, shown) = run(Decode::Auto, 5.0, 250, |i| i % 2 == 1, 20);
        assert!(decoded < 320 && shown.abs_diff(100) <= 1, "{decoded} {shown}");
        let (_, all) = run(Decode::Auto, 5.0, 250, |_| false, 20);
        assert_eq!(shown, all, "the same pictures come out");
    }

    #[test]
    fn keyframes_that_become_rare_bring_full_decoding_back() {
        let mut gate = Gate::default();
        let unit = |i: u64, keyframe| Unit { time_ns: i * 40 * MS, keyframe, disposable: false };
        let mut decoded = Vec::new();
        // A keyframe a second, then one in ten seconds.
        for i in 0..600 {
            let keyframe = if i < 100 { i % 25 == 0 } else { i % 250 == 0 };
            if gate.admit(unit(i, keyframe), true, Decode::Auto, 0.5, || true) != Verdict::Skip {
                decoded.push(i);
            }
        }
        assert!(decoded.iter().filter(|i| (30..250).contains(*i)).count() <= 3, "{decoded:?}");
        assert_eq!(decoded.iter().filter(|i| (250..600).contains(*i)).count(), 350);
    }

    #[test]
    fn a_stream_without_keyframes_is_decoded() {
        let mut gate = Gate::default();
        for i in 0..100 {
            let unit = Unit { time_ns: i * 40 * MS, keyframe: false, disposable: false };
            assert_eq!(gate.admit(unit, true, Decode::Auto, 0.1, || true), Verdict::Decode);
        }
    }

    #[test]
    fn after_a_time_without_need_decoding_begins_with_a_keyframe() {
        let mut gate = Gate::default();
        let mut decoded = Vec::new();
        for i in 0..100u64 {
            let unit = Unit { time_ns: i * 40 * MS, keyframe: i % 25 == 0, disposable: false };
            let wanted = !(10..60).contains(&i);
            if gate.admit(unit, wanted, Decode::Auto, 0.0, || true) != Verdict::Skip {
                decoded.push(i);
            }
        }
        assert_eq!(decoded, (0..10).chain(75..100).collect::<Vec<_>>());
        assert_eq!(gate.keyframe_interval(), Some(1000 * MS), "distances are known all the same");
    }
}
