//! # nvroverlay
//!
//! Draws boxes onto video: those that `nvrmqttsink` publishes for a camera, wherever that runs, those that frames
//! carry as metadata, or both. No model is needed here, and video does not depend on the broker.
//!
//! ## Which event goes with a frame
//!
//! `sync=latest` shows of every model the newest event, for as long as it is younger than `ttl`. Video is not
//! delayed; boxes trail behind what moves by the time that the analysis takes.
//!
//! `sync=timestamp` shows an event on the frame that it was made from: the one with the same capture time
//! (`NvrFrameFacts`; to within half the distance of two frames, so that clocks of two machines need not agree to the
//! millisecond). A frame waits until every model that is at work has spoken of it or of a later one, for
//! `max-wait` at most, and LATENCY is answered with that. Frames that were not analysed show the last event before
//! them that is younger than `ttl`. Frames without a capture time count as taken when they arrive.
//!
//! Metadata on a frame (`source=meta`) is of that frame; where `nvrinfer` has looked at some frames only, its
//! result is shown on those between as well, for `ttl`.
//!
//! Several models and instances on one camera are shown together; `instance-filter` and `model-filter` choose.
//!
//! ## Drawing
//!
//! Boxes are scaled from the frame size in the event to the stream's. Text and lines are as large as suits the frame,
//! labels are moved so that they stay whole. Boxes and text are rasterised once per event, into the format of the
//! frames, and blended into NV12, I420, YV12, RGB, BGR, RGBx, BGRx, RGBA, BGRA and GRAY8. Where downstream takes
//! `GstVideoOverlayCompositionMeta`, they are attached as that and no pixel is touched; then any memory and
//! format will do.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 nvrsrc uri=rtsp://camera.example/stream source-id=2
//!     ! nvroverlay source-id=2 broker=mqtt://localhost:1883 sync=timestamp ! videoconvert ! autovideosink
//! ```
//!
//! Property `stats` (structure `nvr-overlay-stats`): `frames` that went through, `drawn` of them, `plans` (sets of
//! events that were rasterised), `late` (frames that did not get their event in time), `waiting` (frames in the
//! delay), `events` that came, `malformed` ones, `dropped` ones (the queue was full), `reconnects` (guint64),
//! `connected` (gboolean).
//!
//! Lock order: `line`'s own lock and `output` are never held together; neither is `settings` with another.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::{VideoInfo, VideoOverlayCompositionMeta};
use nvr_core::overlay::{Sighting, Timeline};
use parking_lot::Mutex;

use super::Sync;
use super::caps::{accepted, drawable, in_system_memory, narrowed, with_composition};
use super::ear::Ear;
use super::line::{Entry, Frame, Item, Line};
use super::painter::{Canvases, Painter};
use super::settings::{PROPERTIES, Settings};
use crate::meta;
use crate::mqtt::{OptionsError, Signal};

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvroverlay", gst::DebugColorFlags::empty(), Some("NVR overlay"))
});

/// Who saw what frames carry.
const META: &str = "meta";
/// The model of detections that other elements attached, as in events.
const EXTERNAL: &str = "external";
/// Distance of two frames until two have come.
const DEFAULT_SPACING_NS: u64 = 40_000_000;

/// What the stream is doing; used by whichever thread pushes.
struct Output {
    started: Instant,
    ear: Ear,
    timeline: Timeline,
    /// `None` until caps are known.
    painter: Option<Painter>,
    /// Caps of the sink pad, to be negotiated again when downstream changes.
    caps: Option<gst::Caps>,
    counters: Counters,
    /// Said once.
    warned: bool,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    frames: u64,
    drawn: u64,
    plans: u64,
    late: u64,
    events: u64,
    malformed: u64,
    dropped: u64,
    reconnects: u64,
}

pub struct NvrOverlay {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    settings: Mutex<Settings>,
    /// `None` when stopped.
    output: Mutex<Option<Output>>,
    line: Line,
    /// Smoothed distance of the capture times of two frames, nanoseconds.
    spacing_ns: AtomicU64,
    /// Requests for [`Self::tune`] that nobody has done yet.
    tuning: AtomicU32,
    last_capture_ns: AtomicU64,
    last: Mutex<Counters>,
}

#[glib::object_subclass]
impl ObjectSubclass for NvrOverlay {
    const NAME: &'static str = "NvrOverlay";
    type Type = super::NvrOverlay;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let templates = ["sink", "src"].map(|name| class.pad_template(name));
        let [Some(sink), Some(src)] = templates else { unreachable!("both templates are the class's own") };
        let sinkpad = gst::Pad::builder_from_template(&sink)
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |this| this.chain(pad, buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.sink_query(pad, query))
            })
            .flags(gst::PadFlags::PROXY_SCHEDULING)
            .build();
        let srcpad = gst::Pad::builder_from_template(&src)
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |this| this.src_query(pad, query))
            })
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            output: Mutex::default(),
            line: Line::default(),
            spacing_ns: AtomicU64::new(DEFAULT_SPACING_NS),
            tuning: AtomicU32::new(0),
            last_capture_ns: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for NvrOverlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvrOverlay").finish_non_exhaustive()
    }
}

impl ObjectImpl for NvrOverlay {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        for pad in [&self.sinkpad, &self.srcpad] {
            if let Err(error) = obj.add_pad(pad) {
                gst::error!(CAT, imp = self, "{error}");
            }
        }
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let (before, after) = {
            let mut settings = self.settings.lock();
            let before = settings.delay();
            // What others use keeps its value where the new one is wrong.
            let mut changed = settings.clone();
            if let Err(error) = changed.set(value, pspec) {
                gst::error!(CAT, imp = self, "{error}; keeping the value of before");
                return;
            }
            *settings = changed;
            (before, settings.delay())
        };
        if matches!(pspec.name(), "source" | "source-id")
            && let Err(error) = self.tune()
        {
            gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{error}"));
        }
        if before != after {
            self.line.news();
            let obj = self.obj();
            if self.output.lock().is_some() {
                let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" { self.stats().to_value() } else { self.settings.lock().get(pspec) }
    }
}

impl GstObjectImpl for NvrOverlay {}

impl ElementImpl for NvrOverlay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR overlay",
                "Filter/Editor/Video",
                "Draws the detections that arrive by MQTT, or that frames carry, onto video",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let mut caps = drawable();
            caps.merge(gst_video::VideoCapsBuilder::new().any_features().build());
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start()?,
            // Before the pads are deactivated, which waits for whoever is inside.
            gst::StateChange::PausedToReady => self.line.flush(true),
            _ => {}
        }
        let result = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToPaused if result.is_err() => self.stop(),
            _ => {}
        }
        result
    }
}

impl NvrOverlay {
    fn start(&self) -> Result<(), gst::StateChangeError> {
        *self.output.lock() = Some(Output {
            started: Instant::now(),
            ear: Ear::default(),
            timeline: Timeline::default(),
            painter: None,
            caps: None,
            counters: Counters::default(),
            warned: false,
        });
        self.spacing_ns.store(DEFAULT_SPACING_NS, Ordering::Relaxed);
        self.last_capture_ns.store(0, Ordering::Relaxed);
        *self.last.lock() = Counters::default();
        if let Err(error) = self.tune() {
            gst::element_imp_error!(self, gst::ResourceError::Settings, ("{error}"));
            *self.output.lock() = None;
            return Err(gst::StateChangeError);
        }
        self.line.flush(false);
        Ok(())
    }

    fn stop(&self) {
        self.line.flush(true);
        let _ = self.srcpad.stop_task();
        let Some(mut output) = self.output.lock().take() else { return };
        *self.last.lock() = output.counters();
        // The last one to leave a connection takes its time.
        drop(output.ear.close());
    }

    /// Listens to what the settings say. Where another thread is at it, that one does it once more.
    fn tune(&self) -> Result<(), OptionsError> {
        if self.tuning.fetch_add(1, Ordering::AcqRel) > 0 {
            return Ok(());
        }
        loop {
            let asked = self.tuning.load(Ordering::Acquire);
            let tuned = self.tune_once();
            if self.tuning.compare_exchange(asked, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return tuned;
            }
        }
    }

    fn tune_once(&self) -> Result<(), OptionsError> {
        let settings = self.settings.lock().clone();
        // Taken out, because opening a connection may call the observer.
        let Some(mut ear) = self.output.lock().as_mut().map(|output| std::mem::take(&mut output.ear)) else {
            return Ok(());
        };
        let weak = self.obj().downgrade();
        let tuned = ear.tune(&settings, move |signal| {
            if let Some(element) = weak.upgrade() {
                element.imp().signalled(&signal);
            }
        });
        let left = match &mut *self.output.lock() {
            Some(output) => {
                output.ear = ear;
                output.timeline.clear();
                None
            }
            None => Some(ear),
        };
        drop(left);
        tuned
    }

    fn signalled(&self, signal: &Signal) {
        match signal {
            Signal::Received => self.line.news(),
            Signal::Disconnected(why) | Signal::Refused(why) => {
                gst::element_imp_warning!(self, gst::ResourceError::Read, ("{why}"));
            }
            Signal::Connected | Signal::Subscribed => {}
        }
    }

    fn chain(&self, _pad: &gst::Pad, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let delay = self.settings.lock().delay();
        let capture_ns = meta::facts(&buffer).capture.map_or_else(unix_now, |time| time.unix_ns);
        let spacing = self.spacing(capture_ns);
        let capacity = 8 + (delay.as_nanos() as u64 / spacing.max(1_000_000)) as usize * 5 / 4;
        let frame = Frame { buffer, capture_ns, deadline: Instant::now() + delay };
        match self.line.enter(Item::Frame(frame), delay, capacity)? {
            Entry::Direct(item) => self.push(item, false),
            Entry::Waits { start } => self.run(start).map(|()| gst::FlowSuccess::Ok),
        }
    }

    /// The distance of two frames, from their capture times.
    fn spacing(&self, capture_ns: u64) -> u64 {
        let before = self.last_capture_ns.swap(capture_ns, Ordering::Relaxed);
        let known = self.spacing_ns.load(Ordering::Relaxed);
        let now = capture_ns.saturating_sub(before);
        // A gap says nothing about the rate.
        if before == 0 || now == 0 || now > 2_000_000_000 {
            return known;
        }
        let smoothed = known - known / 8 + now / 8;
        self.spacing_ns.store(smoothed, Ordering::Relaxed);
        smoothed
    }

    /// How far the capture times of a frame and of its event may be apart.
    fn tolerance_ns(&self) -> u64 {
        (self.spacing_ns.load(Ordering::Relaxed) / 2).clamp(1_000_000, 100_000_000)
    }

    /// Starts the thread that takes what waits.
    fn run(&self, start: bool) -> Result<(), gst::FlowError> {
        if !start {
            return Ok(());
        }
        let weak = self.obj().downgrade();
        let started = self.srcpad.start_task(move || {
            if let Some(element) = weak.upgrade() {
                element.imp().step();
            }
        });
        started.map_err(|error| {
            gst::element_imp_error!(self, gst::CoreError::Thread, ("cannot start a thread: {error}"));
            gst::FlowError::Error
        })
    }

    /// Pushes the next item that may go.
    fn step(&self) {
        let Some((item, late)) = self.line.next(|capture_ns| self.ready(capture_ns)) else {
            let _ = self.srcpad.pause_task();
            return;
        };
        let flow = self.push(item, late);
        self.line.done(flow);
        // Upstream hears of an error with its next frame.
        if flow.is_err() {
            let _ = self.srcpad.pause_task();
        }
    }

    /// Whether nothing more is to come for the frame taken at `capture_ns`.
    fn ready(&self, capture_ns: u64) -> bool {
        let (look, delay) = {
            let settings = self.settings.lock();
            (settings.look.clone(), settings.delay())
        };
        if delay.is_zero() {
            return true;
        }
        let tolerance = self.tolerance_ns();
        let mut output = self.output.lock();
        let Some(output) = &mut *output else { return true };
        let now = output.hear();
        output.timeline.complete(&look.filter, capture_ns, tolerance, now)
    }

    fn push(&self, item: Item, late: bool) -> Result<gst::FlowSuccess, gst::FlowError> {
        match item {
            Item::Frame(frame) => {
                if self.srcpad.check_reconfigure() {
                    let caps = self.output.lock().as_ref().and_then(|output| output.caps.clone());
                    if let Some(caps) = caps
                        && !self.negotiate(&caps)
                    {
                        self.srcpad.mark_reconfigure();
                        return Err(if self.srcpad.pad_flags().contains(gst::PadFlags::FLUSHING) {
                            gst::FlowError::Flushing
                        } else {
                            gst::FlowError::NotNegotiated
                        });
                    }
                }
                let buffer = self.show(frame, late)?;
                self.srcpad.push(buffer)
            }
            Item::Event(event) => {
                let pushed = self.pass(event);
                if !pushed {
                    gst::debug!(CAT, imp = self, "downstream did not take an event");
                }
                Ok(gst::FlowSuccess::Ok)
            }
        }
    }

    /// Passes on an event that was in line.
    fn pass(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) => self.negotiate(&caps.caps_owned()),
            _ => self.srcpad.push_event(event),
        }
    }

    /// Draws onto a frame what belongs there.
    fn show(&self, frame: Frame, late: bool) -> Result<gst::Buffer, gst::FlowError> {
        let Frame { mut buffer, capture_ns, .. } = frame;
        let (source, sync, ttl_ns, look) = {
            let settings = self.settings.lock();
            (settings.source, settings.sync, settings.ttl_ns(), settings.look.clone())
        };
        let carried = source.meta().then(|| meta::read(&buffer));
        let tolerance = self.tolerance_ns();
        let (result, warn) = {
            let mut guard = self.output.lock();
            let Some(output) = &mut *guard else { return Err(gst::FlowError::Flushing) };
            let now = output.hear();
            if let Some(carried) = &carried {
                output.see(carried, capture_ns, now);
            }
            let picks = match sync {
                Sync::Latest => output.timeline.latest(&look.filter, now, ttl_ns),
                Sync::Timestamp => output.timeline.at(&look.filter, capture_ns, tolerance, ttl_ns),
            };
            let Some(painter) = &mut output.painter else { return Err(gst::FlowError::NotNegotiated) };
            output.counters.plans += u64::from(painter.show(&picks, &look));
            let result = painter.draw(&mut buffer);
            output.counters.frames += 1;
            output.counters.late += u64::from(late);
            output.counters.drawn += u64::from(matches!(result, Ok(true)));
            let warn = result.is_err() && !std::mem::replace(&mut output.warned, true);
            (result, warn)
        };
        if let Err(error) = result {
            // The picture without boxes is worth more than none.
            gst::debug!(CAT, imp = self, "{error}");
            if warn {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Failed,
                    ("cannot draw: {error}; video goes on without boxes")
                );
            }
        }
        Ok(buffer)
    }

    /// Decides how to draw on what these caps describe, and tells downstream. Whether that worked.
    fn negotiate(&self, caps: &gst::Caps) -> bool {
        let size = |name| {
            let value = caps.structure(0).and_then(|s| s.get::<i32>(name).ok());
            value.and_then(|value| usize::try_from(value).ok()).unwrap_or(0)
        };
        let composed = with_composition(caps);
        let attach = self.srcpad.peer_query_accept_caps(&composed) && {
            let mut query = gst::query::Allocation::new(Some(&composed), false);
            self.srcpad.peer_query(&mut query)
                && query.find_allocation_meta::<VideoOverlayCompositionMeta>().is_some()
        };
        let (out, canvases) = if attach {
            (composed, Canvases::Attach { width: size("width"), height: size("height") })
        } else {
            let info = VideoInfo::from_caps(caps).ok().filter(|_| in_system_memory(caps));
            let Some(canvases) = info.as_ref().and_then(Canvases::blend) else {
                if let Some(output) = &mut *self.output.lock() {
                    output.painter = None;
                }
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    ("cannot draw into {caps}, and downstream takes no overlay composition; put a videoconvert \
                         before nvroverlay, for example to NV12")
                );
                return false;
            };
            (caps.clone(), canvases)
        };
        gst::debug!(CAT, imp = self, "{}: {out}", if attach { "attaching" } else { "blending" });
        {
            let mut guard = self.output.lock();
            let Some(output) = &mut *guard else { return false };
            output.painter = Some(Painter::new(canvases));
            output.caps = Some(caps.clone());
        }
        self.srcpad.push_event(gst::event::Caps::new(&out))
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::FlushStart => {
                self.line.flush(true);
                let pushed = self.srcpad.push_event(event);
                // Waits for the thread, which nothing holds any more.
                let _ = self.srcpad.pause_task();
                pushed
            }
            gst::EventType::FlushStop => {
                let pushed = self.srcpad.push_event(event);
                if let Some(output) = &mut *self.output.lock() {
                    // Of another place in the stream.
                    output.timeline.forget(META, EXTERNAL);
                }
                self.line.flush(false);
                pushed
            }
            _ if event.is_serialized() => {
                match self.line.enter(Item::Event(event), Duration::ZERO, usize::MAX) {
                    Ok(Entry::Direct(Item::Event(event))) => self.pass(event),
                    Ok(Entry::Direct(Item::Frame(_))) | Err(_) => false,
                    Ok(Entry::Waits { start }) => self.run(start).is_ok(),
                }
            }
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if query.is_serialized() && !self.line.empty() {
            return false;
        }
        match query.view_mut() {
            gst::QueryViewMut::Caps(query) => {
                let filter = query.filter_owned();
                let downstream = self.srcpad.peer_query_caps(None);
                let caps = accepted(&downstream);
                query.set_result(&narrowed(caps, filter.as_ref()));
                true
            }
            gst::QueryViewMut::AcceptCaps(query) => {
                let accepted = accepted(&self.srcpad.peer_query_caps(None));
                let caps = query.caps_owned();
                query.set_result(accepted.can_intersect(&caps));
                true
            }
            gst::QueryViewMut::Allocation(query) => {
                let delay = self.settings.lock().delay().as_nanos() as u64;
                let answered = self.srcpad.peer_query(query);
                // Frames that wait here must not empty upstream's pool.
                let held = (delay / self.spacing_ns.load(Ordering::Relaxed).max(1_000_000)) as u32;
                if delay == 0 {
                    return answered;
                }
                let more = held + 2;
                let pools: Vec<_> =
                    query.allocation_pools().map(|(p, s, n, m)| (p.clone(), s, n, m)).collect();
                if pools.is_empty() {
                    // Downstream keeps next to nothing, but these still have to come from somewhere.
                    let info = query.get().0.and_then(|caps| VideoInfo::from_caps(caps).ok());
                    let Some(size) = info.and_then(|info| u32::try_from(info.size()).ok()) else {
                        return answered;
                    };
                    query.add_allocation_pool(None::<&gst::BufferPool>, size, more, 0);
                    return true;
                }
                for (n, (pool, size, min, max)) in pools.into_iter().enumerate() {
                    let max = if max == 0 { 0 } else { max.saturating_add(more) };
                    query.set_nth_allocation_pool(
                        n as u32,
                        pool.as_ref(),
                        size,
                        min.saturating_add(more),
                        max,
                    );
                }
                answered
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(query) => {
                if !self.sinkpad.peer_query(query) {
                    return false;
                }
                let (live, min, max) = query.result();
                let delay = gst::ClockTime::try_from(self.settings.lock().delay()).unwrap_or_default();
                if live && delay > gst::ClockTime::ZERO {
                    gst::debug!(CAT, imp = self, "latency {min} and {delay} of our own");
                    query.set(live, min + delay, max.map(|max| max + delay));
                }
                true
            }
            gst::QueryViewMut::Caps(query) => {
                let filter = query.filter_owned();
                let mut caps = self.sinkpad.peer_query_caps(None);
                caps.merge(with_composition(&caps));
                query.set_result(&narrowed(caps, filter.as_ref()));
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// Messages that have come from the broker, read or not.
    #[cfg(test)]
    pub fn received(&self) -> u64 {
        self.output.lock().as_ref().map_or(0, |output| output.ear.stats().received)
    }

    fn stats(&self) -> gst::Structure {
        let (counters, connected) = match &*self.output.lock() {
            Some(output) => (output.counters(), output.ear.stats().connected),
            None => (*self.last.lock(), false),
        };
        gst::Structure::builder("nvr-overlay-stats")
            .field("frames", counters.frames)
            .field("drawn", counters.drawn)
            .field("plans", counters.plans)
            .field("late", counters.late)
            .field("waiting", self.line.waiting() as u64)
            .field("events", counters.events)
            .field("malformed", counters.malformed)
            .field("dropped", counters.dropped)
            .field("reconnects", counters.reconnects)
            .field("connected", connected)
            .build()
    }
}

impl Output {
    fn hear(&mut self) -> u64 {
        let now = self.started.elapsed().as_nanos() as u64;
        self.ear.hear(&mut self.timeline, now);
        now
    }

    /// Takes in what a frame carries.
    fn see(&mut self, carried: &meta::FrameDetections, capture_ns: u64, now_ns: u64) {
        let analysis = carried.facts.analysis.as_ref();
        if analysis.is_none() && carried.detections.is_empty() {
            // Others attach to every frame; what is not there is gone.
            self.timeline.forget(META, EXTERNAL);
            return;
        }
        let capture_ns =
            analysis.and_then(|analysis| analysis.capture).map_or(capture_ns, |time| time.unix_ns);
        let model = analysis.map_or(EXTERNAL, |analysis| &*analysis.model_id);
        let sighting = Sighting::from_detections(&carried.detections, capture_ns);
        self.timeline.add(META, model, sighting, now_ns);
    }

    fn counters(&self) -> Counters {
        let heard = self.ear.stats();
        Counters {
            events: self.ear.events,
            malformed: self.ear.malformed,
            dropped: heard.dropped,
            reconnects: heard.reconnects,
            ..self.counters
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
