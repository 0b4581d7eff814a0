//! Times of a camera's units, kept sane: cameras jump, wrap, go back and begin anew, what follows must not.
//! All times are nanoseconds of running time.

/// How far a unit's time may be from its arrival before it is taken for a jump of the camera's timestamps.
pub const JUMP: u64 = 10_000_000_000;

/// A delay of decoding times beyond this is no reordering but a fault.
const MAX_DELAY: u64 = 1_000_000_000;

/// The smallest step between two units.
const STEP: u64 = 1_000;

/// Two units that are less than this apart, the later one first, have the same time: no camera is that fast.
const SAME: u64 = 1_000_000;

/// As settings have them, seconds; what is negative or no number is none.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Keeps the times of one stream of one connection near their arrival, and behind what an earlier connection gave.
#[derive(Clone, Debug, Default)]
pub struct Anchor {
    /// Any two times of 64 bits may be this far apart.
    shift: i128,
    last: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placed {
    pub time: u64,
    /// The camera's timestamps jumped: what follows is not continuous with what was.
    pub jumped: bool,
}

impl Anchor {
    /// When the unit that says `said` and arrived at `now` is. A jump moves all that follows as well, so that
    /// distances stay.
    pub fn place(&mut self, said: u64, now: u64) -> Placed {
        let shifted = |shift: i128| (i128::from(said) + shift).clamp(0, u64::MAX.into()) as u64;
        let placed = shifted(self.shift);
        let jumped = placed.abs_diff(now) > JUMP;
        let mut time = placed;
        if jumped {
            self.shift = i128::from(now) - i128::from(said);
            time = now;
        }
        // Cameras send pictures with one time in the first moments of a stream.
        if let Some(last) = self.last.filter(|last| time <= *last && last - time < SAME) {
            time = last.saturating_add(STEP);
        }
        self.last = Some(time);
        Placed { time, jumped }
    }
}

/// Media time that goes back by more than this is another line of time; reordering is less.
const BACK: i64 = 500_000_000;
/// Media time that runs ahead of the arrivals by more than this is another line of time.
const AHEAD: i64 = 1_000_000_000;
/// For so long the earliest arrival counts.
const WINDOW: u64 = 5_000_000_000;

/// Lays the times of a camera's clock, which drifts, onto the line of arrivals, which jitter: each unit is as late as
/// the promptest of the last seconds was.
#[derive(Clone, Debug, Default)]
pub struct Skew {
    /// The least distance from media time to arrival, in this window and the one before, and when this one began.
    least: Option<(i64, i64, u64)>,
    /// Media time and arrival of the last unit.
    last: (i64, u64),
}

impl Skew {
    /// When the unit was there whose media time is `media` and that arrived at `arrival`.
    pub fn place(&mut self, media: i64, arrival: u64) -> Placed {
        let distance = (arrival.min(1 << 62) as i64).saturating_sub(media);
        let (last_media, last_arrival) = self.last;
        let went = media.saturating_sub(last_media);
        let passed = arrival.saturating_sub(last_arrival).min(1 << 62) as i64;
        let jumped = self.least.is_some() && (went < -BACK || went > passed.saturating_add(AHEAD));
        self.last = (media, arrival);
        let (before, now, since) = match self.least {
            Some(least) if !jumped => least,
            _ => (distance, distance, arrival),
        };
        let least = if arrival.saturating_sub(since) > WINDOW {
            (now, distance, arrival)
        } else {
            (before, now.min(distance), since)
        };
        self.least = Some(least);
        let time = media.saturating_add(least.0.min(least.1)).max(0) as u64;
        Placed { time, jumped }
    }
}

/// Gives each unit of a stream in decoding order a decoding time: strictly growing, not after its presentation time.
///
/// Where the stream has reordered pictures, how long decoding has to be ahead is learned from the first of them,
/// whose presentation time is moved by that much, once; nothing is held back to find out beforehand. How evenly units
/// arrive counts for little: between two pictures that no later one is shown before, they are decoded at even distances.
#[derive(Clone, Debug, Default)]
pub struct DecodeTimes {
    last: Option<u64>,
    delay: u64,
    run: Option<Run>,
}

/// Units since the one that is shown last so far.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// When that is.
    shown: u64,
    units: u64,
    /// From one unit to the next in the run before.
    step: u64,
}

impl DecodeTimes {
    /// Presentation and decoding time of the next unit. `arrival` is when it was to be decoded, as far as is known.
    pub fn next(&mut self, pts: u64, arrival: u64) -> (u64, u64) {
        let wanted = self.even(pts).min(arrival).saturating_sub(self.delay).min(pts);
        let dts = match self.last {
            Some(last) if wanted <= last => last + STEP,
            _ => wanted,
        };
        if pts < dts {
            self.delay = (self.delay + (dts - pts)).min(MAX_DELAY);
        }
        self.last = Some(dts);
        (pts.max(dts), dts)
    }

    /// When a unit would arrive if all came evenly.
    fn even(&mut self, pts: u64) -> u64 {
        match &mut self.run {
            Some(run) if pts <= run.shown && run.shown - pts <= MAX_DELAY => {
                run.units += 1;
                run.shown.saturating_add(run.units.saturating_mul(run.step))
            }
            run => {
                let step = run.map_or(u64::MAX, |run| pts.saturating_sub(run.shown) / (run.units + 1));
                *run = Some(Run { shown: pts, units: 0, step });
                pts
            }
        }
    }

    /// Time up to which something else, such as a gap, has been said: what follows comes after it.
    pub fn pass(&mut self, time: u64) {
        self.last = self.last.max(Some(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;
    const FRAME: u64 = 40_000_000;

    #[test]
    fn jitter_is_taken_out_and_drift_is_followed() {
        const MS: u64 = 1_000_000;
        let mut skew = Skew::default();
        let mut before = 0;
        for n in 0..10_000_u64 {
            // The camera's clock is a thousandth slow; every third picture is late, one by far, which makes a window
            // of 5 s one of 9 s.
            let late = if n == 500 { 4000 } else { n % 3 * 30 };
            let arrival = 1000 * MS + n * 40_040_000 + late * MS;
            let placed = skew.place((n * 40 * MS) as i64 - 7_000_000_000, arrival);
            assert!(!placed.jumped, "{n}");
            assert!(placed.time <= arrival && arrival - placed.time <= (late + 15) * MS, "{n}: {placed:?}");
            let step = placed.time.saturating_sub(before);
            assert!(n == 0 || (28 * MS..=52 * MS).contains(&step), "{n}: {step}");
            before = placed.time;
        }
    }

    #[test]
    fn another_line_of_time_is_a_jump_to_its_arrival() {
        const SECOND: i64 = 1_000_000_000;
        let mut skew = Skew::default();
        for (media, arrival, jumped) in [
            (5 * SECOND, 100, false),
            (6 * SECOND, 101, false),
            (90 * SECOND, 102, true),
            (91 * SECOND, 103, false),
            (2 * SECOND, 104, true),
            // Nothing came for a while: no jump.
            (12 * SECOND, 114, false),
        ] {
            let arrival = arrival * SECOND as u64;
            assert_eq!(skew.place(media, arrival), Placed { time: arrival, jumped }, "{media}");
        }
    }

    #[test]
    fn a_jump_is_no_hour_long_frame_and_no_backward_time() {
        let mut anchor = Anchor::default();
        // 25 fps; after 50 units the camera's clock jumps an hour ahead, after 100 to the beginning of its counter.
        let mut last = None;
        for n in 0..150 {
            let now = 7200 * S + n * FRAME;
            let said = match n {
                0..50 => now,
                50..100 => now + 3600 * S,
                _ => n * FRAME,
            };
            let placed = anchor.place(said, now);
            assert_eq!(placed.jumped, n == 50 || n == 100, "{n}");
            assert!(last.is_none_or(|last| placed.time - last == FRAME), "{n}");
            last = Some(placed.time);
        }
    }

    #[test]
    fn late_and_reordered_units_keep_their_times() {
        let mut anchor = Anchor::default();
        for (said, now) in [(100 * S, 100 * S), (100 * S + 3 * FRAME, 100 * S), (95 * S, 104 * S)] {
            assert_eq!(anchor.place(said, now), Placed { time: said, jumped: false });
        }
    }

    #[test]
    fn a_time_that_comes_twice_is_two_times() {
        let mut anchor = Anchor::default();
        let times: Vec<_> = (0..4).map(|_| anchor.place(S, S).time).collect();
        assert_eq!(times, [S, S + STEP, S + 2 * STEP, S + 3 * STEP]);
        assert_eq!(anchor.place(S - FRAME, S).time, S - FRAME, "B-frames are further apart");
    }

    #[test]
    fn decoding_times_without_reordering_are_the_presentation_times() {
        let mut times = DecodeTimes::default();
        for n in 0..100 {
            // Arrival jitters by up to 30 ms.
            let arrival = n * FRAME + 100_000_000 + n * 7 % 4 * 10_000_000;
            assert_eq!(times.next(n * FRAME, arrival), (n * FRAME, n * FRAME));
        }
    }

    #[test]
    fn b_frames_move_one_picture_and_are_right_from_then_on() {
        let mut times = DecodeTimes::default();
        let (mut moved, mut last) = (0, None);
        for n in 0..60u64 {
            // Decoding order I0 P3 B1 B2 P6 B4 B5 …
            let shown = match n {
                0 => 0,
                n if n % 3 == 1 => n + 2,
                n => n - 1,
            };
            let (pts, dts) = times.next(S + shown * FRAME, S + n * FRAME);
            assert!(dts <= pts && last < Some(dts), "{n}");
            moved += u32::from(pts != S + shown * FRAME);
            last = Some(dts);
        }
        assert!(moved <= 1, "{moved} were moved");
    }

    #[test]
    fn b_frames_that_come_in_bursts_are_right_as_well() {
        let mut times = DecodeTimes::default();
        let (mut moved, mut last) = (0, None);
        for n in 0..300u64 {
            let shown = match n {
                0 => 0,
                n if n % 3 == 1 => n + 2,
                n => n - 1,
            };
            // Three at once, and now and then the line stands still.
            let arrival = S + (n / 3 * 3 + 5) * FRAME + if n % 50 == 40 { 700_000_000 } else { 0 };
            let (pts, dts) = times.next(S + shown * FRAME, arrival);
            assert!(dts <= pts && last < Some(dts), "{n}");
            let even = last.is_none_or(|last| (FRAME - 1000..=FRAME + 1000).contains(&(dts - last)));
            assert!(n < 6 || even, "{n}: {dts} after {last:?}");
            moved += u32::from(pts != S + shown * FRAME);
            last = Some(dts);
        }
        assert!(moved <= 2, "{moved} were moved");
    }

    proptest! {
        #[test]
        fn whatever_comes_time_grows(units in proptest::collection::vec((any::<u64>(), 0..100 * S), 1..60)) {
            let (mut anchor, mut times, mut last, mut now) = (Anchor::default(), DecodeTimes::default(), None, 0);
            for (said, later) in units {
                now += later;
                let placed = anchor.place(said, now).time;
                prop_assert!(placed.abs_diff(now) <= JUMP + 60 * STEP);
                let (pts, dts) = times.next(placed, now);
                prop_assert!(dts <= pts && last < Some(dts));
                prop_assert!(dts <= now + JUMP + 120 * STEP, "time stays near arrival");
                last = Some(dts);
            }
        }
    }
}
