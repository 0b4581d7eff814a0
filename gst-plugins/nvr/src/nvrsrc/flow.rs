//! What the streaming threads, the worker and the element share while the element runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use gst::{glib, prelude::*};
use nvr_core::{
    detection::{CaptureTime, Clock},
    rate::{RateLimiter, RateMeter},
};
use parking_lot::Mutex;

use super::{Decode, NvrSrc, gate::Gate, lane::Lanes};

/// A camera clock that is further off than this says nothing about when a picture was taken.
const CLOCK_LIMIT_NS: u64 = 10_000_000_000;
/// A picture cannot have been on its way through this process for longer.
const TRANSIT_LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// From start to stop of the element, across connections.
#[derive(Debug)]
pub struct Flow {
    pub element: glib::WeakRef<NvrSrc>,
    pub pad: gst::Pad,
    /// The element is on its way down: nothing may be pushed any more.
    pub stopped: AtomicBool,
    /// Pictures are dropped while the element is paused, as a live source does.
    pub playing: AtomicBool,
    /// A push is under way; silence then is downstream's and not the camera's.
    pub pushing: AtomicBool,
    /// Pictures come so seldom that the camera need not be read at once.
    pub seldom: Arc<AtomicBool>,
    /// The connection whose pictures are handed on.
    pub session: AtomicU64,
    /// What follows the pad `video` failed while other pads are in use: they go on without pictures.
    pub refused: AtomicBool,
    /// The requested pads.
    pub lanes: Arc<Lanes>,
    /// All pads of this run are one group.
    pub group: gst::GroupId,
    /// Milliseconds from `started` to the last sign of life of the media.
    last_media: AtomicU64,
    /// Milliseconds from `started` to the first unit that went to the decoder after its last picture, 0 for none:
    /// from a keyframe on, and without one.
    fed: AtomicU64,
    fed_unkeyed: AtomicU64,
    /// Number of the next access unit.
    number: AtomicU64,
    started: Instant,
    max_fps: AtomicU64,
    decode: AtomicI32,
    /// What downstream is told; nanoseconds.
    pub latency: AtomicU64,
    /// Lock order: `gate`, then `stream`. Neither is held while anything is pushed or posted.
    pub gate: Mutex<Gate>,
    pub stream: Mutex<Stream>,
    pub counters: Counters,
}

/// What continues across connections.
#[derive(Debug, Default)]
pub struct Stream {
    pub limiter: RateLimiter,
    pub meter: RateMeter,
    /// Running time of the last picture.
    pub last_time: Option<gst::ClockTime>,
    /// Number of the last picture.
    pub last_id: Option<u64>,
    /// Whether the events that open the stream are out.
    pub opened: bool,
    pub caps: Option<gst::Caps>,
    /// Where lines and planes have to lie; `None` where what follows reads them anywhere.
    pub layout: Option<gst_video::VideoInfo>,
    /// The next picture is the first of a connection.
    pub discont: bool,
}

#[derive(Debug, Default)]
pub struct Counters {
    /// Access units that came from the camera.
    pub units: AtomicU64,
    pub bytes: AtomicU64,
    /// Access units that did not have to be decoded.
    pub skipped: AtomicU64,
    /// Decoded pictures.
    pub decoded: AtomicU64,
    /// Decoded pictures that `max-fps` left out.
    pub dropped: AtomicU64,
    /// Pictures handed on.
    pub delivered: AtomicU64,
    /// Pictures whose camera clock was too far off to be believed.
    pub clock_refused: AtomicU64,
    /// Access units that the decoder could do nothing with.
    pub undecodable: AtomicU64,
    /// Access units that did not go to the decoder because it was too far behind.
    pub late: AtomicU64,
    /// Jumps of the camera's timestamps.
    pub jumps: AtomicU64,
    pub connections: AtomicU64,
    pub failures: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) -> u64 {
        counter.fetch_add(n, Ordering::Relaxed) + n
    }
}

impl Flow {
    pub fn new(element: &NvrSrc, pad: gst::Pad, lanes: Arc<Lanes>, source_id: u32) -> Self {
        Self {
            refused: AtomicBool::new(false),
            group: lanes.begin(),
            lanes,
            fed: AtomicU64::new(0),
            fed_unkeyed: AtomicU64::new(0),
            number: AtomicU64::new(0),
            element: element.downgrade(),
            pad,
            stopped: AtomicBool::new(false),
            playing: AtomicBool::new(false),
            pushing: AtomicBool::new(false),
            seldom: Arc::default(),
            session: AtomicU64::new(0),
            last_media: AtomicU64::new(0),
            started: Instant::now(),
            max_fps: AtomicU64::new(0),
            decode: AtomicI32::new(Decode::Auto as i32),
            latency: AtomicU64::new(0),
            gate: Mutex::default(),
            stream: Mutex::new(Stream { limiter: RateLimiter::for_source(source_id), ..Stream::default() }),
            counters: Counters::default(),
        }
    }

    /// What opens the stream of pictures.
    pub fn stream_start(&self) -> gst::Event {
        let element = self.element.upgrade();
        let id = element.map(|element| self.pad.create_stream_id(&element, Some("video")));
        let id = id.unwrap_or_else(|| "video".into());
        gst::event::StreamStart::builder(&id).group_id(self.group).build()
    }

    pub fn set_rates(&self, max_fps: f64, decode: Decode) {
        self.max_fps.store(max_fps.to_bits(), Ordering::Relaxed);
        self.decode.store(decode as i32, Ordering::Relaxed);
    }

    pub fn max_fps(&self) -> f64 {
        f64::from_bits(self.max_fps.load(Ordering::Relaxed))
    }

    pub fn decode(&self) -> Decode {
        match self.decode.load(Ordering::Relaxed) {
            value if value == Decode::All as i32 => Decode::All,
            value if value == Decode::Keyframes as i32 => Decode::Keyframes,
            value if value == Decode::None as i32 => Decode::None,
            _ => Decode::Auto,
        }
    }

    /// Whether pictures are of use to anybody.
    pub fn wants_pictures(&self) -> bool {
        self.decode() != Decode::None && !self.refused.load(Ordering::Relaxed) && self.pad.is_linked()
    }

    /// The number of an access unit: every one has its own, whether it is decoded or not.
    pub fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Notes that the camera is alive.
    pub fn touch(&self) {
        self.last_media.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since the camera was last heard.
    pub fn silence_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.last_media.load(Ordering::Relaxed))
    }

    /// Notes that the decoder was given a unit that it can make a picture of; `keyed`: after a keyframe.
    pub fn fed(&self, keyed: bool) {
        let since = if keyed { &self.fed } else { &self.fed_unkeyed };
        if since.load(Ordering::Relaxed) == 0 {
            since.store(self.now_ms().max(1), Ordering::Relaxed);
        }
    }

    /// Notes that the decoder gave a picture, or that there is another one.
    pub fn pictured(&self) {
        self.fed.store(0, Ordering::Relaxed);
        self.fed_unkeyed.store(0, Ordering::Relaxed);
    }

    /// Milliseconds for which the decoder has been given units without giving a picture: after a keyframe, and
    /// without one.
    pub fn hunger_ms(&self) -> (u64, u64) {
        let now = self.now_ms();
        let age = |since: &AtomicU64| match since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        (age(&self.fed), age(&self.fed_unkeyed))
    }

    /// Running time outside up to which any pad has said something, nanoseconds.
    pub fn floor(&self) -> Option<u64> {
        let video = self.stream.lock().last_time.map(gst::ClockTime::nseconds);
        self.lanes.all().iter().map(|lane| lane.last_time()).fold(video, Option::max)
    }

    /// Whether `max-fps` would let a picture of this running time through now.
    pub fn is_due(&self, time: gst::ClockTime) -> bool {
        let max_fps = self.max_fps();
        max_fps <= 0.0 || self.stream.lock().limiter.clone().accept(time.nseconds(), max_fps)
    }
}

/// When a unit was taken. What a source wrote is believed, also a camera's clock if it is not absurd; else it was
/// taken when it arrived, which its running time tells.
pub fn capture_time(
    flow: &Flow,
    known: Option<CaptureTime>,
    time: gst::ClockTime,
    now: gst::ClockTime,
) -> CaptureTime {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let transit = now.saturating_sub(time).min(TRANSIT_LIMIT);
    let (capture, refused) = believe(known, wall.saturating_sub(transit.nseconds()));
    if refused {
        Counters::add(&flow.counters.clock_refused, 1);
    }
    capture
}

/// When a unit was taken that arrived at `arrival` by this host's clock, and whether the camera's was not believed.
fn believe(known: Option<CaptureTime>, arrival: u64) -> (CaptureTime, bool) {
    match known {
        Some(known) if known.clock != Clock::Ntp || known.unix_ns.abs_diff(arrival) <= CLOCK_LIMIT_NS => {
            (known, false)
        }
        known => (CaptureTime { unix_ns: arrival, clock: Clock::Arrival }, known.is_some()),
    }
}

/// Translates times of one connection's pipeline to running time of the element.
#[derive(Debug)]
pub struct Timeline {
    pub pipeline: glib::WeakRef<gst::Pipeline>,
    pub element: glib::WeakRef<NvrSrc>,
    flow: Arc<Flow>,
    /// How much later everything of this connection is than it says, once that is known.
    shift: Mutex<Option<i64>>,
}

impl Timeline {
    pub fn new(pipeline: &gst::Pipeline, flow: &Arc<Flow>) -> Self {
        Self {
            pipeline: pipeline.downgrade(),
            element: flow.element.clone(),
            flow: flow.clone(),
            shift: Mutex::default(),
        }
    }

    /// A new connection may begin with a unit that was taken before the last one of the old connection. Then all of
    /// it is moved, audio and video alike, by nanoseconds that the first unit tells.
    pub fn settle(&self, first: gst::ClockTime) -> i64 {
        if let Some(shift) = *self.shift.lock() {
            return shift;
        }
        let floor = self.flow.floor().filter(|floor| first.nseconds() <= *floor);
        let shift = floor.map_or(0, |floor| (floor - first.nseconds() + 1_000_000) as i64);
        *self.shift.lock().get_or_insert(shift)
    }

    /// Whether any unit of this connection has passed.
    pub fn settled(&self) -> bool {
        self.shift.lock().is_some()
    }

    /// Running time outside of `time`, which is running time inside. `None` while either side has no clock.
    pub fn outside(&self, time: gst::ClockTime) -> Option<gst::ClockTime> {
        // A pipeline that has not played yet has a base time of 0, and so long there is nothing to compare with.
        let inside = self.pipeline.upgrade()?.base_time().filter(|time| !time.is_zero())?;
        let outside = self.element.upgrade()?.base_time()?;
        // Before the element's own start there is no running time: such a picture is of its first moment.
        Some(inside.checked_add(time)?.checked_sub(outside).unwrap_or(gst::ClockTime::ZERO))
    }

    /// Running time outside, now.
    pub fn now(&self) -> Option<gst::ClockTime> {
        self.element.upgrade()?.current_running_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Running time comes from a clock that nobody can set; the host's time of day only says when a picture was taken.
    #[test]
    fn host_clock_step() {
        const SECOND: u64 = 1_000_000_000;
        const HOUR: u64 = 3600 * SECOND;
        let began = 1_790_000_000 * SECOND;
        // By how much this host's clock is wrong, and whether the camera's is believed then.
        for (second, (off, believed)) in
            [(0_i64, true), (-5, true), (9, true), (3600, false), (-3600, false), (0, true)]
                .into_iter()
                .enumerate()
        {
            let taken = began + HOUR * second as u64;
            let arrival = (taken + SECOND / 5).saturating_add_signed(off * SECOND as i64);
            let camera = CaptureTime { unix_ns: taken, clock: Clock::Ntp };
            let (capture, refused) = believe(Some(camera), arrival);
            assert_eq!(refused, !believed, "{off} s");
            let expected =
                if believed { camera } else { CaptureTime { unix_ns: arrival, clock: Clock::Arrival } };
            assert_eq!(capture, expected, "{off} s");
            // Without a camera's clock there is this host's, whatever it says.
            let (capture, refused) = believe(None, arrival);
            assert_eq!((capture.unix_ns, capture.clock, refused), (arrival, Clock::Arrival, false));
        }
    }
}
