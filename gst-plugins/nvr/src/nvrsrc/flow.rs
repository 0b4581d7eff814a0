//! What the streaming threads, the worker and the element share while the element runs.

use std::{
    sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    time::Instant,
};

use gst::{glib, prelude::*};
use nvr_core::rate::{RateLimiter, RateMeter};
use parking_lot::Mutex;

use super::{Decode, NvrSrc, gate::Gate};

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
    /// Milliseconds from `started` to the last sign of life of the media.
    last_media: AtomicU64,
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
    /// Whether the events that open the stream are out.
    pub opened: bool,
    pub caps: Option<gst::Caps>,
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
    pub connections: AtomicU64,
    pub failures: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) -> u64 {
        counter.fetch_add(n, Ordering::Relaxed) + n
    }
}

impl Flow {
    pub fn new(element: &NvrSrc, pad: gst::Pad, source_id: u32) -> Self {
        Self {
            element: element.downgrade(),
            pad,
            stopped: AtomicBool::new(false),
            playing: AtomicBool::new(false),
            pushing: AtomicBool::new(false),
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
            _ => Decode::Auto,
        }
    }

    /// Notes that the camera is alive.
    pub fn touch(&self) {
        self.last_media.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Milliseconds since the camera was last heard.
    pub fn silence_ms(&self) -> u64 {
        let now = self.started.elapsed().as_millis() as u64;
        now.saturating_sub(self.last_media.load(Ordering::Relaxed))
    }

    /// Whether `max-fps` would let a picture of this running time through now.
    pub fn is_due(&self, time: gst::ClockTime) -> bool {
        let max_fps = self.max_fps();
        max_fps <= 0.0 || self.stream.lock().limiter.clone().accept(time.nseconds(), max_fps)
    }
}

/// Translates times of one connection's pipeline to running time of the element.
#[derive(Debug)]
pub struct Timeline {
    pub pipeline: glib::WeakRef<gst::Pipeline>,
    pub element: glib::WeakRef<NvrSrc>,
}

impl Timeline {
    /// Running time outside of `time`, which is running time inside. `None` while either side has no clock.
    pub fn outside(&self, time: gst::ClockTime) -> Option<gst::ClockTime> {
        // A pipeline that has not played yet has a base time of 0, and so long there is nothing to compare with.
        let inside = self.pipeline.upgrade()?.base_time().filter(|time| !time.is_zero())?;
        let outside = self.element.upgrade()?.base_time()?;
        // Before the element's own start there is no running time: such a picture is of its first moment.
        Some((inside + time).checked_sub(outside).unwrap_or(gst::ClockTime::ZERO))
    }

    /// Running time outside, now.
    pub fn now(&self) -> Option<gst::ClockTime> {
        self.element.upgrade()?.current_running_time()
    }
}
