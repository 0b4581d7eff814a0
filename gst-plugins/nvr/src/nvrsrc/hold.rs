//! Which access units wait in front of the decoder, because no picture that is wanted needs them yet. Pure: times are
//! nanoseconds of running time.
//!
//! Where five pictures a second are wanted of a camera that sends twenty-five, four of five are decoded only because the
//! fifth is made from them. They can wait for it: decoded in one go they find their references in the processor's caches,
//! and those behind the last wanted picture of a group are not decoded at all, since the next group begins anew.

use nvr_core::rate::RateLimiter;

/// Most units that wait for the next picture that is wanted: more would make it late.
const BURST: usize = 8;
/// Most units that wait for a group that will begin anew.
const MOST: usize = 50;

/// Most bytes that wait.
const BYTES: usize = 4 << 20;

/// What the time of a unit and that of its picture may differ by.
const ROUNDING: u64 = 1_000_000;

/// One access unit, in decoding order.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// When its picture is shown.
    pub time_ns: u64,
    /// Nothing from here on is decoded from what came before.
    pub anew: bool,
    pub bytes: usize,
}

/// What becomes of those that wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The unit waits with them.
    Wait,
    /// They are decoded, and then the unit.
    Go,
}

/// Units that wait, oldest first.
#[derive(Debug)]
pub struct Hold<T> {
    waiting: Vec<T>,
    /// What those that wait take together.
    bytes: usize,
    /// The schedule by which pictures will be let through.
    plan: RateLimiter,
    last: Option<u64>,
    /// The last unit whose picture is wanted.
    wanted: Option<u64>,
    /// When the group began.
    began: Option<u64>,
    /// The last two lengths of groups.
    lengths: [Option<u64>; 2],
    /// Units come in another order than their pictures, in this group and in the one before: a picture comes out only
    /// after units behind its own.
    reordered: [bool; 2],
}

impl<T> Hold<T> {
    /// With the same `plan` that pictures will be chosen by.
    pub fn new(plan: RateLimiter) -> Self {
        Self {
            waiting: Vec::new(),
            bytes: 0,
            plan,
            last: None,
            wanted: None,
            began: None,
            lengths: [None; 2],
            reordered: [false; 2],
        }
    }

    /// Takes those that wait.
    pub fn take(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// One more that waits.
    pub fn push(&mut self, unit: T) {
        self.waiting.push(unit);
    }

    /// Decides on the next unit; where it begins anew, those that wait are of no use any more. `out` is the time of the
    /// last picture that came out and was handed on: a decoder that still has the one that is wanted may want more
    /// units before it gives it.
    pub fn step(&mut self, unit: Unit, max_fps: f64, out: Option<u64>) -> Step {
        let now = unit.time_ns;
        let gap = match self.last.replace(now) {
            Some(last) if now <= last => {
                self.reordered[0] = true;
                0
            }
            Some(last) => now - last,
            None => 0,
        };
        if unit.anew {
            let length = self.began.replace(now).and_then(|began| now.checked_sub(began));
            self.lengths = [length, self.lengths[0]];
            self.reordered = [false, self.reordered[0]];
        }
        if self.plan.accept(now, max_fps) {
            self.wanted = Some(now);
            return Step::Go;
        }
        let in_order = self.reordered == [false; 2] && gap > 0;
        let is_out = out.map(|out| out.saturating_add(ROUNDING)) >= self.wanted;
        let bytes = self.bytes.saturating_add(unit.bytes);
        let Some(opens) = self.plan.opens_at(max_fps).filter(|_| in_order && is_out && bytes <= BYTES) else {
            return Step::Go;
        };
        let wait = if self.ends_before(opens, now, gap) {
            self.waiting.len() < MOST
        } else {
            // The last one before the picture that is wanted takes the others along.
            now + gap + gap / 4 < opens && self.waiting.len() + 1 < BURST
        };
        if !wait {
            return Step::Go;
        }
        self.bytes = bytes;
        Step::Wait
    }

    /// Whether the next group begins, as far as can be told, before a picture of this one is wanted again.
    fn ends_before(&self, opens: u64, now: u64, gap: u64) -> bool {
        let (Some(began), [Some(length), Some(before)]) = (self.began, self.lengths) else { return false };
        let next = began + length;
        // It is late already: groups have another length now.
        let late = now >= next + gap;
        length.abs_diff(before) <= gap && next < opens + gap && !late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const MS: u64 = 1_000_000;

    /// What a decoder was given of a stream.
    #[derive(Debug, Default)]
    struct Seen {
        decoded: Vec<usize>,
        /// Units whose pictures were wanted.
        wanted: usize,
        /// Most units that waited at a time.
        most: usize,
        /// Most units that came after a wanted one before its picture was out.
        latest: usize,
    }

    /// Runs units through a hold as the tap does. Checks that a wanted picture's unit goes when it comes, that what
    /// goes is in order, and that everything of its group has gone before it.
    fn run(units: &[Unit], max_fps: f64, source: u32) -> Seen {
        run_with(units, max_fps, source, 0)
    }

    /// With a decoder that gives a picture only once it has seen `delay` more units.
    fn run_with(units: &[Unit], max_fps: f64, source: u32, delay: usize) -> Seen {
        let mut plan = RateLimiter::for_source(source);
        let mut hold = Hold::new(plan.clone());
        let mut seen = Seen::default();
        // Pictures that are wanted and have not come out, and the last one that has.
        let (mut asked, mut out) = (VecDeque::new(), None);
        let mut group = 0;
        for (index, unit) in units.iter().enumerate() {
            if unit.anew {
                hold.take();
                group = index;
            }
            let wanted = plan.accept(unit.time_ns, max_fps);
            match hold.step(*unit, max_fps, out) {
                Step::Wait => {
                    assert!(!wanted, "the picture of unit {index} is wanted");
                    hold.push(index);
                    seen.most = seen.most.max(hold.waiting.len());
                }
                Step::Go => {
                    seen.decoded.extend(hold.take());
                    seen.decoded.push(index);
                    let of_group: Vec<_> = seen.decoded.iter().copied().filter(|i| *i >= group).collect();
                    assert_eq!(of_group, (group..=index).collect::<Vec<_>>());
                }
            }
            seen.wanted += usize::from(wanted);
            asked.extend(wanted.then_some(index));
            let given = seen.decoded.len().checked_sub(delay + 1).map(|at| seen.decoded[at]);
            if let Some(next) = asked.front().filter(|next| given >= Some(**next)) {
                seen.latest = seen.latest.max(index - next);
                out = asked.pop_front().map(|index| units[index].time_ns);
            }
        }
        assert!(seen.decoded.is_sorted());
        seen
    }

    fn stream(seconds: u64, gop: u64) -> Vec<Unit> {
        (0..seconds * 25).map(|i| Unit { time_ns: i * 40 * MS, anew: i % gop == 0, bytes: 1 }).collect()
    }

    #[test]
    fn what_follows_the_last_wanted_picture_of_a_group_is_not_decoded() {
        // Percent of the units that are decoded, over cameras of all phases. Half of the pictures between two wanted
        // ones lie behind the last of a group, on average.
        for (max_fps, gop, least, most) in [
            (5.0, 50, 95, 97),
            (2.0, 50, 86, 90),
            (1.0, 50, 74, 80),
            (5.0, 25, 90, 94),
            (12.0, 50, 98, 100),
            (25.0, 50, 100, 100),
            (0.0, 50, 100, 100),
        ] {
            let decoded: usize =
                (0..20).map(|source| run(&stream(40, gop), max_fps, source).decoded.len()).sum();
            let percent = decoded.div_ceil(20 * 10);
            assert!((least..=most).contains(&percent), "{max_fps} {gop}: {percent}");
        }
    }

    #[test]
    fn units_come_in_bursts_that_end_before_the_next_wanted_picture() {
        let units = stream(4, 1000);
        let mut hold = Hold::<()>::new(RateLimiter::default());
        let steps: Vec<_> =
            units[..12].iter().map(|unit| hold.step(*unit, 5.0, Some(unit.time_ns))).collect();
        let expected = "go wait wait wait go go wait wait wait go go wait";
        let steps: Vec<_> = steps.iter().map(|step| if *step == Step::Go { "go" } else { "wait" }).collect();
        assert_eq!(steps.join(" "), expected);
        let seen = run(&units, 0.5, 0);
        assert!(seen.most < BURST, "{seen:?}");
    }

    #[test]
    fn a_group_that_does_not_end_in_time_is_decoded() {
        // Groups of two seconds, then one of twenty: the pictures that are wanted have all been there, see run().
        let units: Vec<_> = (0..750)
            .map(|i| Unit {
                time_ns: i * 40 * MS,
                anew: if i < 200 { i % 50 == 0 } else { i == 200 },
                bytes: 1,
            })
            .collect();
        let seen = run(&units, 1.0, 0);
        let late = seen.decoded.iter().filter(|i| **i >= 255).count();
        assert!(late > 480 && seen.most <= MOST, "{late} {}", seen.most);
        assert!(seen.wanted >= 30, "{}", seen.wanted);
    }

    #[test]
    fn large_units_do_not_wait() {
        let mut hold = Hold::<()>::new(RateLimiter::default());
        let mut waited = 0;
        for unit in stream(40, 50) {
            if unit.anew {
                hold.take();
            }
            let unit = Unit { bytes: BYTES / 2, ..unit };
            match hold.step(unit, 1.0, Some(unit.time_ns)) {
                Step::Wait => {
                    hold.push(());
                    waited += 1;
                    assert!(hold.waiting.len() <= 2);
                }
                Step::Go => drop(hold.take()),
            }
        }
        assert!(waited > 100, "{waited}");
    }

    #[test]
    fn a_decoder_that_holds_pictures_back_gets_what_it_waits_for() {
        for (delay, max_fps, decoded) in [(0, 1.0, 350), (1, 1.0, 360), (3, 1.0, 380), (3, 5.0, 500)] {
            let seen = run_with(&stream(20, 50), max_fps, 2, delay);
            assert_eq!(seen.latest, delay, "{max_fps}");
            assert!(seen.decoded.len() <= decoded, "{delay} {max_fps}: {}", seen.decoded.len());
        }
    }

    #[test]
    fn units_in_another_order_than_their_pictures_do_not_wait() {
        // I P B B P B B: shown 0 3 1 2 6 4 5.
        let shown = |i: u64| match i % 3 {
            _ if i == 0 => 0,
            1 => i + 2,
            _ => i - 1,
        };
        let mut hold = Hold::<u64>::new(RateLimiter::default());
        let steps: Vec<_> = (0..150)
            .map(|i| {
                let unit = Unit { time_ns: (100 + shown(i)) * 40 * MS, anew: i % 30 == 0, bytes: 1 };
                (i, hold.step(unit, 2.0, Some(unit.time_ns)))
            })
            .collect();
        assert!(steps[2..].iter().all(|(_, step)| *step == Step::Go), "{steps:?}");
    }

    proptest! {
        #[test]
        fn every_wanted_picture_can_be_decoded_when_it_comes(
            gaps in proptest::collection::vec((1u64..120, 0u8..40), 1..400),
            max_fps in 0.05f64..40.0,
        ) {
            let mut time_ns = 0;
            let units: Vec<_> = gaps
                .into_iter()
                .map(|(gap, anew)| {
                    time_ns += gap * MS;
                    Unit { time_ns, anew: anew == 0, bytes: 1 }
                })
                .collect();
            let seen = run(&units, max_fps, 3);
            prop_assert!(seen.most <= MOST);
        }
    }
}
