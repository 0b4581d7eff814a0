//! The way of encoded media out of the element: a bounded queue and the thread that pushes from it, one for each
//! requested pad. What feeds it never waits, so that nobody's slow disk stops a camera or its pictures.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use nvr_core::times::DecodeTimes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::imp::CAT;

/// What may wait for a slow branch: some ten seconds of a large camera. More drops the oldest, up to a keyframe.
const LIMIT_BYTES: usize = 16 << 20;
const LIMIT_ITEMS: usize = 2000;
/// The query that a sink answers whose pads never make anybody wait.
pub const NEVER_WAITS: &str = "nvr-never-waits";
/// How long releasing a pad waits for what follows it before that is flushed.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Access units of the video.
    Encoded,
    Audio,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Encoded, Self::Audio];

    pub fn name(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::Audio => "audio",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The requested pads of the element, across starts and stops.
#[derive(Debug)]
pub struct Lanes {
    slots: Mutex<[Option<Arc<Lane>>; 2]>,
    /// Grows whenever a connection has to look at the branch of that kind anew.
    generations: [AtomicU64; 2],
    /// All pads of one run of the element are one group.
    group: Mutex<gst::GroupId>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            generations: [AtomicU64::new(1), AtomicU64::new(1)],
            group: Mutex::new(gst::GroupId::next()),
        }
    }
}

impl Lanes {
    pub fn get(&self, kind: Kind) -> Option<Arc<Lane>> {
        self.slots.lock()[kind as usize].clone()
    }

    /// Puts `lane` into its place; false where that is taken.
    pub fn add(&self, lane: Arc<Lane>) -> bool {
        let mut slots = self.slots.lock();
        let slot = &mut slots[lane.kind as usize];
        if slot.is_some() {
            return false;
        }
        let kind = lane.kind;
        *slot = Some(lane);
        drop(slots);
        self.changed(kind);
        true
    }

    pub fn remove(&self, pad: &gst::Pad) -> Option<Arc<Lane>> {
        let mut slots = self.slots.lock();
        let lane =
            slots.iter_mut().find(|slot| slot.as_ref().is_some_and(|lane| lane.pad == *pad))?.take()?;
        drop(slots);
        self.changed(lane.kind);
        Some(lane)
    }

    pub fn all(&self) -> Vec<Arc<Lane>> {
        self.slots.lock().iter().flatten().cloned().collect()
    }

    /// Whether any pad besides `video` is in use.
    pub fn in_use(&self) -> bool {
        self.slots.lock().iter().flatten().any(|lane| lane.pad.is_linked())
    }

    pub fn generation(&self, kind: Kind) -> u64 {
        self.generations[kind as usize].load(Ordering::Acquire)
    }

    pub fn changed(&self, kind: Kind) {
        self.generations[kind as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// A new run of the element begins; gives its group.
    pub fn begin(&self) -> gst::GroupId {
        let group = gst::GroupId::next();
        *self.group.lock() = group;
        group
    }
}

#[derive(Debug)]
enum Item {
    Caps(gst::Caps),
    Buffer(gst::Buffer),
    Gap { from: u64, until: u64 },
    Eos,
}

/// What one unit is, apart from its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    pub caps: &'a gst::Caps,
    /// Running time outside, nanoseconds.
    pub pts: u64,
    /// When it was to be decoded as far as is known, the same way.
    pub arrival: u64,
    /// The first of a connection.
    pub fresh: bool,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    active: bool,
    /// The thread is in what follows.
    pushing: bool,
    /// What follows failed; nothing more until it is linked or configured anew.
    refused: bool,
    /// Dropping until the next keyframe.
    wait_key: bool,
    discont: bool,
    times: DecodeTimes,
    /// Where the last unit ends, nanoseconds.
    end: Option<u64>,
    /// The caps of the last unit in the queue.
    caps: Option<gst::Caps>,
    /// Stream start and segment are out.
    opened: bool,
    /// What follows never waits, so the thread is not needed.
    prompt: bool,
}

/// Counters since the element was started.
#[derive(Debug, Default)]
pub struct LaneCounters {
    pub delivered: AtomicU64,
    /// Dropped because what follows was too slow.
    pub dropped: AtomicU64,
}

/// One requested pad.
#[derive(Debug)]
pub struct Lane {
    pub kind: Kind,
    pub pad: gst::Pad,
    lanes: Weak<Lanes>,
    state: Mutex<State>,
    wake: Condvar,
    pub counters: LaneCounters,
}

impl Lane {
    pub fn new(kind: Kind, pad: gst::Pad, lanes: &Arc<Lanes>) -> Self {
        Self {
            kind,
            pad,
            lanes: Arc::downgrade(lanes),
            state: Mutex::default(),
            wake: Condvar::new(),
            counters: LaneCounters::default(),
        }
    }

    /// Starts or stops the thread, as the pad is activated or deactivated.
    pub fn activate(self: &Arc<Self>, active: bool) -> Result<(), gst::LoggableError> {
        if active {
            *self.state.lock() = State { active: true, wait_key: true, ..State::default() };
            self.counters.delivered.store(0, Ordering::Relaxed);
            self.counters.dropped.store(0, Ordering::Relaxed);
            let weak = Arc::downgrade(self);
            self.pad
                .start_task(move || {
                    if let Some(lane) = weak.upgrade() {
                        lane.turn();
                    }
                })
                .map_err(|error| gst::loggable_error!(CAT, "the thread of a pad was not started: {error}"))
        } else {
            *self.state.lock() = State::default();
            self.wake.notify_all();
            self.pad
                .stop_task()
                .map_err(|error| gst::loggable_error!(CAT, "the thread of a pad was not stopped: {error}"))
        }
    }

    /// Makes what follows give back the thread, before the pad is taken away while everything runs.
    pub fn let_go(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        state.active = false;
        self.wake.notify_all();
        while state.pushing {
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let stuck = state.pushing;
        drop(state);
        if stuck {
            self.pad.push_event(gst::event::FlushStart::new());
        }
    }

    /// Downstream was linked, or may take something else now.
    pub fn reconfigure(&self) {
        let caps = {
            let mut state = self.state.lock();
            // Another may follow.
            state.prompt = false;
            let refused = std::mem::take(&mut state.refused);
            state.caps.clone().filter(|_| !refused)
        };
        if caps.is_some_and(|caps| self.pad.peer_query_accept_caps(&caps)) {
            return;
        }
        let mut state = self.state.lock();
        Self::clear(&mut state);
        state.caps = None;
        drop(state);
        if let Some(lanes) = self.lanes.upgrade() {
            lanes.changed(self.kind);
        }
    }

    /// What follows takes nothing more.
    pub fn refuse(&self, error: gst::FlowError) {
        {
            let mut state = self.state.lock();
            Self::clear(&mut state);
            if !state.active || std::mem::replace(&mut state.refused, true) {
                return;
            }
        }
        let Some(element) = self.pad.parent_element() else { return };
        let name = self.kind.name();
        // A warning and no error: the other pads have nothing to do with it.
        gst::element_warning!(
            element,
            gst::StreamError::Failed,
            ["what follows the pad {name} stopped ({error:?}); the pad is silent until it is linked anew"]
        );
    }

    /// The camera sends what this pad has no form for.
    pub fn unfit(&self, media_type: &str) {
        let Some(element) = self.pad.parent_element() else { return };
        let name = self.kind.name();
        gst::element_warning!(
            element,
            gst::StreamError::WrongType,
            ["the camera sends {media_type}, which the pad {name} does not hand on; it stays silent"]
        );
    }

    fn clear(state: &mut State) {
        state.items.retain(|item| matches!(item, Item::Caps(_) | Item::Eos));
        state.bytes = 0;
        state.wait_key = true;
        state.discont = true;
    }

    /// Takes one unit. Never waits; what nobody wants or has room for is dropped.
    pub fn offer(&self, mut buffer: gst::Buffer, offer: &Offer<'_>) {
        let linked = self.pad.is_linked();
        let key = self.kind == Kind::Audio || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let mut state = self.state.lock();
        state.wait_key |= offer.fresh;
        state.discont |= offer.fresh || buffer.flags().contains(gst::BufferFlags::DISCONT);
        if !state.active || state.refused || !linked {
            state.wait_key = true;
            return;
        }
        if state.wait_key && !key {
            return;
        }
        state.wait_key = false;
        let (pts, dts) = state.times.next(offer.pts, offer.arrival);
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::from_nseconds(pts));
            let dts = (self.kind == Kind::Encoded).then(|| gst::ClockTime::from_nseconds(dts));
            buffer.set_dts(dts);
            if buffer.duration().is_some_and(|duration| duration > gst::ClockTime::from_seconds(60)) {
                buffer.set_duration(gst::ClockTime::NONE);
            }
            let duration = buffer.duration().map_or(0, gst::ClockTime::nseconds);
            state.end = state.end.max(Some(pts.saturating_add(duration)));
            if std::mem::take(&mut state.discont) {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            } else {
                buffer.unset_flags(gst::BufferFlags::DISCONT);
            }
        }
        if state.caps.as_ref() != Some(offer.caps) {
            state.caps = Some(offer.caps.clone());
            state.items.push_back(Item::Caps(offer.caps.clone()));
        }
        state.bytes += buffer.size();
        state.items.push_back(Item::Buffer(buffer));
        self.make_room(&mut state);
        if state.prompt {
            drop(state);
            while self.step() {}
        } else {
            drop(state);
            self.wake.notify_all();
        }
    }

    /// Drops the oldest units up to a keyframe while there are too many.
    fn make_room(&self, state: &mut State) {
        while state.bytes > LIMIT_BYTES || state.items.len() > LIMIT_ITEMS {
            let mut caps = None;
            let mut dropped = 0;
            while let Some(item) = state.items.front() {
                match item {
                    Item::Buffer(buffer) => {
                        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                        if key && dropped > 0 {
                            break;
                        }
                        state.bytes = state.bytes.saturating_sub(buffer.size());
                        dropped += 1;
                    }
                    Item::Caps(new) => caps = Some(new.clone()),
                    Item::Gap { .. } => {}
                    Item::Eos => break,
                }
                state.items.pop_front();
            }
            if let Some(Item::Buffer(buffer)) = state.items.front_mut() {
                buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
            } else {
                (state.wait_key, state.discont) = (true, true);
            }
            if let Some(caps) = caps {
                state.items.push_front(Item::Caps(caps));
            }
            self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
            if dropped == 0 {
                return;
            }
        }
    }

    /// Says that nothing comes until `until`, while the camera is away.
    pub fn gap(&self, until: u64) {
        let mut state = self.state.lock();
        let Some(from) = state.end.filter(|from| *from < until) else { return };
        if state.active && !state.refused && state.caps.is_some() && self.pad.is_linked() {
            state.times.pass(until);
            state.end = Some(until);
            if let Some(Item::Gap { until: end, .. }) = state.items.back_mut() {
                *end = until;
            } else {
                state.items.push_back(Item::Gap { from, until });
            }
            drop(state);
            self.wake.notify_all();
        }
    }

    /// The stream is over; another may follow.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        if state.active {
            state.items.push_back(Item::Eos);
            state.caps = None;
            drop(state);
            self.wake.notify_all();
        }
    }

    /// Running time up to which something was said.
    pub fn last_time(&self) -> Option<u64> {
        self.state.lock().end
    }

    pub fn queued(&self) -> u64 {
        self.state.lock().items.len() as u64
    }

    /// The caps of what goes out.
    pub fn caps(&self) -> Option<gst::Caps> {
        self.state.lock().caps.clone()
    }

    /// One turn of the thread: an item, or the end.
    fn turn(&self) {
        let mut state = self.state.lock();
        while state.active && (state.items.is_empty() || state.pushing) {
            self.wake.wait(&mut state);
        }
        let active = state.active;
        drop(state);
        if active {
            self.step();
        } else {
            // Fails only for a pad without a thread, and this is it.
            let _ = self.pad.pause_task();
        }
    }

    /// Pushes an item, where there is one and nobody else pushes. Returns whether it did.
    fn step(&self) -> bool {
        let (item, opened) = {
            let mut state = self.state.lock();
            if !state.active || state.pushing {
                return false;
            }
            let Some(item) = state.items.pop_front() else { return false };
            if let Item::Buffer(buffer) = &item {
                state.bytes = state.bytes.saturating_sub(buffer.size());
            }
            let opened = state.opened;
            match item {
                Item::Caps(_) => state.opened = true,
                Item::Eos => state.opened = false,
                _ => {}
            }
            state.pushing = true;
            (item, opened)
        };
        let result = self.push(item, opened);
        let mut state = self.state.lock();
        state.pushing = false;
        // Only who takes the pad away waits for this.
        let awaited = !state.active;
        self.after_push(state, result);
        if awaited {
            self.wake.notify_all();
        }
        true
    }

    fn push(&self, item: Item, opened: bool) -> Result<(), gst::FlowError> {
        match item {
            Item::Caps(caps) => {
                if !opened {
                    self.pad.push_event(self.stream_start());
                }
                self.pad.push_event(gst::event::Caps::new(&caps));
                if !opened {
                    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                    self.pad.push_event(gst::event::Segment::new(&segment));
                }
                let prompt = self.never_waits();
                self.state.lock().prompt = prompt;
                Ok(())
            }
            Item::Buffer(buffer) => {
                gst::trace!(CAT, obj = self.pad, "{buffer:?}");
                self.pad.push(buffer)?;
                self.counters.delivered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Item::Gap { from, until } => {
                let (from, duration) =
                    (gst::ClockTime::from_nseconds(from), gst::ClockTime::from_nseconds(until - from));
                self.pad.push_event(gst::event::Gap::new(from, duration));
                Ok(())
            }
            Item::Eos => {
                if !opened {
                    self.pad.push_event(self.stream_start());
                }
                self.pad.push_event(gst::event::Eos::new());
                Ok(())
            }
        }
    }

    /// Whether what follows is a sink that says so of itself.
    fn never_waits(&self) -> bool {
        let Some(sink) = self.pad.peer().and_then(|peer| peer.parent_element()) else { return false };
        let mut query = gst::query::Custom::new(gst::Structure::new_empty(NEVER_WAITS));
        sink.num_src_pads() == 0 && self.pad.peer_query(&mut query)
    }

    fn stream_start(&self) -> gst::Event {
        let name = self.kind.name();
        let id = self
            .pad
            .parent_element()
            .map_or_else(|| name.into(), |element| self.pad.create_stream_id(&element, Some(name)));
        let group = self.lanes.upgrade().map_or_else(gst::GroupId::next, |lanes| *lanes.group.lock());
        gst::event::StreamStart::builder(&id).group_id(group).build()
    }

    fn after_push(&self, mut state: MutexGuard<'_, State>, result: Result<(), gst::FlowError>) {
        match result {
            Ok(()) => {}
            // Unlinked or flushing: when it goes on, it does so with a keyframe.
            Err(gst::FlowError::NotLinked | gst::FlowError::Flushing) => Self::clear(&mut state),
            // What follows has enough: that is its end, as behind any source.
            Err(gst::FlowError::Eos) => {
                Self::clear(&mut state);
                state.refused = true;
                drop(state);
                self.pad.push_event(gst::event::Eos::new());
            }
            Err(error) => {
                drop(state);
                self.refuse(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(kind: Kind) -> (Arc<Lane>, gst::Pad) {
        gst::init().unwrap();
        let source = gst::Pad::builder(gst::PadDirection::Src).name("encoded").build();
        let sink = gst::Pad::builder(gst::PadDirection::Sink).name("sink").build();
        source.link(&sink).unwrap();
        let lane = Lane::new(kind, source, &Arc::default());
        // Without a thread: what is queued stays.
        *lane.state.lock() = State { active: true, wait_key: true, ..State::default() };
        (Arc::new(lane), sink)
    }

    fn unit(key: bool, size: usize) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(size).unwrap();
        if !key {
            buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        buffer
    }

    fn queued(lane: &Lane) -> Vec<(u64, bool, bool)> {
        let state = lane.state.lock();
        let units = state.items.iter().filter_map(|item| match item {
            Item::Buffer(buffer) => {
                let has = |flag| buffer.flags().contains(flag);
                let pts = buffer.pts().unwrap().mseconds();
                Some((pts, !has(gst::BufferFlags::DELTA_UNIT), has(gst::BufferFlags::DISCONT)))
            }
            _ => None,
        });
        units.collect()
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn begins_with_a_keyframe_after_each_connection() {
        let (lane, _sink) = lane(Kind::Encoded);
        let caps = gst::Caps::new_empty_simple("video/x-h264");
        for n in 0..9u64 {
            let offer =
                Offer { caps: &caps, pts: n * 40 * MS, arrival: n * 40 * MS, fresh: n == 0 || n == 5 };
            lane.offer(unit(n % 3 == 1, 10), &offer);
        }
        assert_eq!(
            queued(&lane),
            [
                (40, true, true),
                (80, false, false),
                (120, false, false),
                (160, true, false),
                (280, true, true),
                (320, false, false)
            ]
        );
    }

    #[test]
    fn a_slow_branch_loses_the_oldest_up_to_a_keyframe_and_memory_is_bounded() {
        let (lane, _sink) = lane(Kind::Encoded);
        let caps = gst::Caps::new_empty_simple("video/x-h264");
        for n in 0..400u64 {
            let offer = Offer { caps: &caps, pts: n * 40 * MS, arrival: n * 40 * MS, fresh: n == 0 };
            lane.offer(unit(n % 10 == 0, 100_000), &offer);
        }
        let units = queued(&lane);
        assert!(units.len() * 100_000 <= LIMIT_BYTES && units.len() > 150, "{}", units.len());
        assert!(units[0].1 && units[0].2, "begins with a keyframe that says that something is missing");
        assert_eq!(units.last().unwrap().0, 399 * 40);
        assert!(matches!(lane.state.lock().items.front(), Some(Item::Caps(_))));
        let dropped = lane.counters.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped as usize + units.len(), 400);
        // One that alone is too large leaves nothing behind.
        let offer = Offer { caps: &caps, pts: 17_000 * MS, arrival: 17_000 * MS, fresh: false };
        lane.offer(unit(true, LIMIT_BYTES + 1), &offer);
        assert_eq!((queued(&lane).len(), lane.state.lock().bytes), (0, 0));
        assert!(lane.state.lock().wait_key);
    }

    #[test]
    fn gaps_grow_together_and_nothing_comes_before_them() {
        let (lane, _sink) = lane(Kind::Audio);
        lane.gap(MS);
        assert_eq!(lane.queued(), 0, "nothing was opened");
        let caps = gst::Caps::new_empty_simple("audio/x-alaw");
        lane.offer(unit(true, 10), &Offer { caps: &caps, pts: 20 * MS, arrival: 20 * MS, fresh: true });
        lane.gap(1000 * MS);
        lane.gap(2000 * MS);
        assert_eq!(lane.queued(), 3);
        lane.offer(unit(true, 10), &Offer { caps: &caps, pts: 1990 * MS, arrival: 1990 * MS, fresh: true });
        let units = queued(&lane);
        assert_eq!(units[0].0, 20);
        assert!(units[1].0 >= 2000 && units[1].2, "{units:?}");
    }
}
