//! When a camera is recorded, and why. Two kinds of time are told apart: `at_ns` is running time of the media;
//! `now_ns` is any clock that does not go backwards, for what has to end although no media come.

/// Seconds of media without a word on motion after which everything is recorded: who cannot look must not miss.
const UNWATCHED_NS: i64 = 30_000_000_000;
/// What was noticed is recorded for at least this long, so that it is in the file itself.
const LEAST_NS: i64 = 1_000_000_000;
/// Media that go back by more than this are another stream.
const BACK_NS: i64 = 10_000_000_000;

/// When a camera is recorded without anybody asking for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum When {
    #[default]
    Always,
    Motion,
    Events,
    Never,
}

/// Why something was recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    Continuous,
    Motion,
    Events,
    OnDemand,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::Continuous, Self::Motion, Self::Events, Self::OnDemand];

    /// The reason that a name says.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// As catalogue and protocol spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continuous => "continuous",
            Self::Motion => "motion",
            Self::Events => "events",
            Self::OnDemand => "on_demand",
        }
    }
}

/// A recording that somebody asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Demand {
    pub label: Option<String>,
    /// When it was asked for and when it ends by itself, microseconds since 1970: for people.
    pub since_us: i64,
    pub until_us: Option<i64>,
    /// When it ends by itself, on the clock that does not go backwards.
    pub end_ns: Option<u64>,
}

impl Demand {
    /// Asked for now, for at most `seconds`.
    pub fn new(label: Option<String>, seconds: Option<f64>, now_us: i64, now_ns: u64) -> Self {
        let seconds = seconds.map(|seconds| seconds.clamp(0.0, 1e9));
        Self {
            label,
            since_us: now_us,
            until_us: seconds.map(|seconds| now_us.saturating_add((seconds * 1e6) as i64)),
            end_ns: seconds.map(|seconds| now_ns.saturating_add((seconds * 1e9) as u64)),
        }
    }

    pub fn is_over(&self, now_ns: u64) -> bool {
        self.end_ns.is_some_and(|end| now_ns >= end)
    }
}

/// From the first notice to a while after the last.
#[derive(Clone, Copy, Debug)]
struct Window {
    from_ns: i64,
    until_ns: i64,
}

impl Window {
    const CLOSED: Self = Self { from_ns: i64::MAX, until_ns: i64::MIN };

    fn notice(&mut self, at_ns: i64, last_ns: i64, post_ns: i64) {
        if self.until_ns <= last_ns {
            self.from_ns = at_ns;
        }
        // A late notice must not end before it came: what it is about would never be recorded.
        let until_ns = at_ns.max(last_ns).saturating_add(post_ns.max(LEAST_NS));
        self.until_ns = self.until_ns.max(until_ns);
    }
}

/// What has been noticed of a camera.
#[derive(Clone, Debug)]
pub struct Trigger {
    events: Window,
    motion: Window,
    /// The newest media.
    last_ns: i64,
    /// When motion was last looked for: never, since the first media.
    looked_ns: Option<i64>,
}

impl Default for Trigger {
    fn default() -> Self {
        Self { events: Window::CLOSED, motion: Window::CLOSED, last_ns: i64::MIN, looked_ns: None }
    }
}

impl Trigger {
    /// Media of this time have come.
    pub fn media(&mut self, at_ns: i64) {
        if at_ns < self.last_ns.saturating_sub(BACK_NS) {
            *self = Self::default();
        }
        self.last_ns = self.last_ns.max(at_ns);
        self.looked_ns.get_or_insert(at_ns);
    }

    /// Something was detected in a picture of this time.
    pub fn seen(&mut self, at_ns: i64, post_ns: i64) {
        self.events.notice(at_ns, self.last_ns, post_ns);
    }

    /// Whether something moved in a picture of this time; `None` where nobody has looked, which counts as motion.
    pub fn looked(&mut self, at_ns: i64, moved: Option<bool>, post_ns: i64) {
        if moved.is_some() {
            self.looked_ns = self.looked_ns.max(Some(at_ns));
        }
        if moved != Some(false) {
            self.motion.notice(at_ns, self.last_ns, post_ns);
        }
    }

    /// Whether nobody has looked for motion for so long that everything counts as motion.
    pub fn is_unwatched(&self) -> bool {
        self.looked_ns.is_some_and(|looked| self.last_ns.saturating_sub(looked) > UNWATCHED_NS)
    }

    /// Why media of this time are recorded; `None` where they are not.
    pub fn reason(&self, when: When, demanded: bool, at_ns: i64) -> Option<Reason> {
        let (wanted, reason) = match when {
            _ if demanded => (true, Reason::OnDemand),
            When::Always => (true, Reason::Continuous),
            When::Motion => (at_ns < self.motion.until_ns || self.is_unwatched(), Reason::Motion),
            When::Events => (at_ns < self.events.until_ns, Reason::Events),
            When::Never => (false, Reason::Continuous),
        };
        wanted.then_some(reason)
    }

    /// Where a recording for this reason begins that had to be noticed first; without what is recorded before it.
    pub fn from_ns(&self, reason: Reason) -> Option<i64> {
        let window = match reason {
            Reason::Motion => self.motion,
            Reason::Events => self.events,
            Reason::Continuous | Reason::OnDemand => return None,
        };
        (window.from_ns != i64::MAX).then_some(window.from_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: i64 = 1_000_000_000;

    fn at(seconds: i64) -> Trigger {
        let mut trigger = Trigger::default();
        trigger.media(0);
        trigger.media(seconds * S);
        trigger
    }

    #[test]
    fn each_mode_has_its_reason() {
        let mut trigger = at(10);
        trigger.looked(10 * S, Some(false), 5 * S);
        let reason = |trigger: &Trigger, when| trigger.reason(when, false, 11 * S);
        assert_eq!(reason(&trigger, When::Always), Some(Reason::Continuous));
        for when in [When::Motion, When::Events, When::Never] {
            assert_eq!(reason(&trigger, when), None, "{when:?}");
            assert_eq!(trigger.reason(when, true, 11 * S), Some(Reason::OnDemand), "{when:?}");
        }
        trigger.seen(10 * S, 5 * S);
        assert_eq!(reason(&trigger, When::Events), Some(Reason::Events));
        assert_eq!(reason(&trigger, When::Motion), None);
        trigger.looked(10 * S, Some(true), 5 * S);
        assert_eq!(reason(&trigger, When::Motion), Some(Reason::Motion));
        assert_eq!(reason(&trigger, When::Never), None);
    }

    #[test]
    fn what_is_noticed_is_recorded_for_a_while_after_the_last() {
        for (noticed, last, post, from, until) in [
            (10, 10, 5, 10, 15),
            // Late by two seconds: it begins then, and ends after what is there.
            (8, 10, 5, 8, 15),
            // Nothing after it was wanted, and it is recorded all the same.
            (10, 10, 0, 10, 11),
            // By eight seconds, with less than that wanted after it.
            (2, 10, 3, 2, 13),
        ] {
            let mut trigger = at(last);
            trigger.seen(noticed * S, post * S);
            assert_eq!(trigger.from_ns(Reason::Events), Some(from * S));
            assert!(trigger.reason(When::Events, false, until * S - 1).is_some(), "{noticed} {last} {post}");
            assert!(trigger.reason(When::Events, false, until * S).is_none(), "{noticed} {last} {post}");
        }
        // The second notice goes on with the first; the third begins anew.
        let mut trigger = at(10);
        trigger.seen(10 * S, 5 * S);
        trigger.media(13 * S);
        trigger.seen(13 * S, 5 * S);
        assert_eq!(trigger.from_ns(Reason::Events), Some(10 * S));
        trigger.media(30 * S);
        trigger.seen(30 * S, 5 * S);
        assert_eq!(trigger.from_ns(Reason::Events), Some(30 * S));
        assert_eq!(trigger.from_ns(Reason::Motion), None);
    }

    #[test]
    fn who_cannot_look_does_not_miss() {
        let mut trigger = at(29);
        assert_eq!(trigger.reason(When::Motion, false, 29 * S), None);
        trigger.media(31 * S);
        assert!(trigger.is_unwatched());
        assert_eq!(trigger.reason(When::Motion, false, 31 * S), Some(Reason::Motion));
        trigger.looked(31 * S, Some(false), S);
        assert_eq!(trigger.reason(When::Motion, false, 31 * S), None);
        // A picture that nobody looked at.
        trigger.looked(31 * S, None, S);
        assert_eq!(trigger.reason(When::Motion, false, 31 * S), Some(Reason::Motion));
    }

    #[test]
    fn a_stream_that_begins_anew_forgets() {
        let mut trigger = at(1000);
        trigger.seen(1000 * S, 5 * S);
        trigger.media(3 * S);
        assert_eq!(trigger.reason(When::Events, false, 3 * S), None);
    }

    #[test]
    fn a_demand_ends_by_the_clock_that_does_not_go_back() {
        let demand = Demand::new(None, Some(2.5), 7, 100);
        assert_eq!((demand.until_us, demand.end_ns), (Some(2_500_007), Some(2_500_000_100)));
        assert!(!demand.is_over(2_500_000_099) && demand.is_over(2_500_000_100));
        assert!(!Demand::new(None, None, 7, 100).is_over(u64::MAX));
    }

    proptest! {
        /// However late notices come, what they are about and what follows is recorded.
        #[test]
        fn a_notice_is_never_lost(notices in prop::collection::vec((0_i64..100, 0_i64..8, 0_i64..6), 1..30)) {
            let mut notices = notices;
            notices.sort_unstable();
            let mut trigger = Trigger::default();
            for (last, late, post) in notices {
                trigger.media(last * S);
                trigger.seen((last - late) * S, post * S);
                prop_assert_eq!(trigger.reason(When::Events, false, last * S), Some(Reason::Events));
                prop_assert!(trigger.from_ns(Reason::Events).is_some_and(|from| from <= last * S));
            }
        }
    }
}
