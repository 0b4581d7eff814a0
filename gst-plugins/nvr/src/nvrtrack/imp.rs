//! # nvrtrack
//!
//! Follows detected objects from frame to frame and gives each an id. It reads and writes the metadata of buffers
//! only and never their memory, so it takes any caps.
//!
//! Only frames that a detector has looked at count; frames between them pass untouched, and every span is time and
//! not a number of frames, so 25 frames a second and one in two seconds both work. A detection whose track has been
//! confirmed leaves with the track's id, which is unique in the process and below 2^53. Ids that came from elsewhere
//! are replaced.
//!
//! Confirmed is what has been seen `min-hits` times; at the start once is enough. What the detector is unsure of
//! takes up to three and a half times as many sightings, but no longer than half a second, unless `min-hits` is 1.
//!
//! `algorithm=bytetrack` predicts where each object goes with a Kalman filter and matches in two stages, so that a
//! half hidden object with a doubtful box keeps its id: for that, let the detector give more than is wanted, and
//! remove what belongs to no object: `nvrinfer threshold=0.2 ! nvrtrack high-threshold=0.5 keep-untracked=false`. With
//! `enabled=false` it then lets through, without ids, what is at least as sure as `high-threshold`.
//! Who is not seen for `max-lost` seconds gets another id when he comes back.
//!
//! A frame that `nvrmotion` has marked as still and that was left out for that reason counts as seen: who stands there
//! keeps his id. While `nvrinfer` is switched off no frame does; nor, if something moved meanwhile, afterwards until the
//! next one that is looked at.
//!
//! A flush, another size of the frame, and time that goes backwards by more than half a second forget all tracks;
//! other changes of the caps do not. A result of `nvrinfer mode=async` that is older than what has passed
//! already counts as of then. A `DISCONT` flag alone does not: a queue that
//! leaks sets it on every frame after a dropped one, and gaps are measured in time anyway.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 nvrtestsrc ground-truth=false ! nvrinfer model=demo max-fps=5 ! nvrtrack ! nvrmqttsink source-id=0
//! ```
//!
//! Property `stats` (structure `nvrtrack-stats`): `frames` that came, `updates` with detections that were tracked,
//! `ids` given (guint64); `tracks` followed now (guint); `update-time` (guint64: mean nanoseconds of an update).
//!
//! Lock order: `settings` and `state` are never held together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess};
use gst_base::subclass::prelude::*;
use nvr_core::detection::Detection;
use nvr_core::track::{self, Look, LookClock, Params, Tracker};
use parking_lot::Mutex;

use super::Algorithm;
use crate::meta::Unseen;
use crate::{in_place, meta, properties};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrtrack", gst::DebugColorFlags::empty(), Some("NVR object tracking"))
});

/// The next id of the process: no two cameras share one.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What the user asked for.
#[derive(Clone, Debug)]
struct Settings {
    params: Params,
    classes: Arc<str>,
    keep_untracked: bool,
    smooth: bool,
    enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            params: Params::default(),
            classes: Arc::from(""),
            keep_untracked: true,
            smooth: true,
            enabled: true,
        }
    }
}

impl Settings {
    /// Whether objects of this class are followed; `classes` is a list with commas, empty for all.
    fn follows(&self, class: &str) -> bool {
        self.classes.trim().is_empty()
            || self.classes.split(',').any(|name| name.trim().eq_ignore_ascii_case(class))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    frames: u64,
    updates: u64,
    ids: u64,
    tracks: u32,
    update_ns: u64,
}

/// What the stream is doing.
#[derive(Debug, Default)]
struct State {
    tracker: Tracker,
    /// Of the frame in pixels, from the caps; 0 where they do not say.
    width: u32,
    height: u32,
    clock: LookClock,
    /// Whether it was switched off when the last frame came.
    off: bool,
    stats: Stats,
}

impl State {
    fn forget(&mut self) {
        self.tracker.reset();
        self.clock = LookClock::default();
        self.stats.tracks = 0;
    }
}

#[derive(Debug, Default)]
pub struct NvrTrack {
    settings: Mutex<Settings>,
    /// The counters stay readable when stopped.
    state: Mutex<State>,
}

#[glib::object_subclass]
impl ObjectSubclass for NvrTrack {
    const NAME: &'static str = "GstNvrTrack";
    type Type = super::NvrTrack;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NvrTrack {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let Settings { params, keep_untracked, smooth, enabled, .. } = Settings::default();
            vec![
                glib::ParamSpecEnum::builder::<Algorithm>("algorithm")
                    .nick("Algorithm")
                    .blurb("How boxes and tracks find each other")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecDouble::builder("max-lost")
                    .nick("Longest loss")
                    .blurb("Seconds for which an object that is not seen is looked for")
                    .minimum(0.0)
                    .maximum(3600.0)
                    .default_value(params.max_lost)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("min-hits")
                    .nick("Least sightings")
                    .blurb("Sightings after which an object gets its id; more of a doubtful one, for at most half a second")
                    .minimum(1)
                    .maximum(1000)
                    .default_value(params.min_hits)
                    .mutable_playing()
                    .build(),
                properties::share(
                    "new-threshold",
                    "Threshold of new objects",
                    "Confidence from which a detection may begin a track; never below high-threshold",
                    params.new,
                ),
                properties::share(
                    "high-threshold",
                    "High threshold",
                    "Confidence from which detections are matched first; with less they can only continue a track",
                    params.high,
                ),
                properties::share(
                    "low-threshold",
                    "Low threshold",
                    "Detections with less confidence are not tracked",
                    params.low,
                ),
                glib::ParamSpecString::builder("classes")
                    .nick("Classes")
                    .blurb("Names of the classes to follow, separated by commas; empty follows all")
                    .default_value(Some(""))
                    .mutable_playing()
                    .build(),
                properties::switch(
                    "keep-untracked",
                    "Keep untracked",
                    "Whether detections of followed classes that belong to no track pass on",
                    keep_untracked,
                ),
                properties::switch(
                    "smooth",
                    "Smooth",
                    "Whether tracked objects get the box of the filter, which trembles less, for the detector's",
                    smooth,
                ),
                properties::switch("enabled", "Enabled", "Whether objects are followed; off forgets all tracks", enabled),
                properties::stats("Counters since the start; see the element's documentation"),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "the type is checked by GObject";
        let mut settings = self.settings.lock();
        let Settings { params, classes, keep_untracked, smooth, enabled } = &mut *settings;
        match pspec.name() {
            "algorithm" => {
                params.algorithm = match value.get().expect(CHECKED) {
                    Algorithm::ByteTrack => track::Algorithm::ByteTrack,
                    Algorithm::Iou => track::Algorithm::Iou,
                }
            }
            "max-lost" => params.max_lost = value.get().expect(CHECKED),
            "min-hits" => params.min_hits = value.get().expect(CHECKED),
            "new-threshold" => params.new = value.get().expect(CHECKED),
            "high-threshold" => params.high = value.get().expect(CHECKED),
            "low-threshold" => params.low = value.get().expect(CHECKED),
            "classes" => *classes = value.get::<Option<&str>>().expect(CHECKED).unwrap_or("").into(),
            "keep-untracked" => *keep_untracked = value.get().expect(CHECKED),
            "smooth" => *smooth = value.get().expect(CHECKED),
            "enabled" => *enabled = value.get().expect(CHECKED),
            name => gst::error!(CAT, imp = self, "property {name} cannot be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let settings = self.settings.lock();
        match pspec.name() {
            "algorithm" => match settings.params.algorithm {
                track::Algorithm::ByteTrack => Algorithm::ByteTrack,
                track::Algorithm::Iou => Algorithm::Iou,
            }
            .to_value(),
            "max-lost" => settings.params.max_lost.to_value(),
            "min-hits" => settings.params.min_hits.to_value(),
            "new-threshold" => settings.params.new.to_value(),
            "high-threshold" => settings.params.high.to_value(),
            "low-threshold" => settings.params.low.to_value(),
            "classes" => (*settings.classes).to_value(),
            "keep-untracked" => settings.keep_untracked.to_value(),
            "smooth" => settings.smooth.to_value(),
            "enabled" => settings.enabled.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for NvrTrack {}

impl ElementImpl for NvrTrack {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR object tracking",
                "Filter/Analyzer/Video",
                "Follows detected objects from frame to frame and gives each an id",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        in_place::pad_templates()
    }
}

impl BaseTransformImpl for NvrTrack {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock() = State::default();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.state.lock().forget();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let mut state = self.state.lock();
        let before = (state.width, state.height);
        (state.width, state.height) = in_place::frame_size(incaps);
        if before != (state.width, state.height) {
            state.forget();
        }
        Ok(())
    }

    fn prepare_output_buffer(
        &self,
        inbuf: InputBuffer<'_>,
    ) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
        Ok(in_place::output(&inbuf))
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = self.settings.lock().clone();
        if !settings.enabled {
            self.pass(buffer, &settings);
            return Ok(gst::FlowSuccess::Ok);
        }
        let found = meta::read(buffer);
        let frame_ns = in_place::running_time(&*self.obj(), buffer).map_or(0, gst::ClockTime::nseconds);
        if found.facts.analysis.is_none() && found.detections.is_empty() {
            // Nobody has looked at this frame: that nothing was found says nothing.
            let unseen = meta::unseen(buffer);
            let mut state = self.state.lock();
            state.begin();
            match unseen {
                Unseen::Still => state.hold(frame_ns),
                Unseen::Missed => state.clock.miss(),
                Unseen::Nothing => {}
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let age_ns = in_place::age_ns(&found.facts);
        let (width, height, after) = {
            let mut state = self.state.lock();
            state.begin();
            let look = state.clock.look(frame_ns, age_ns);
            (state.width, state.height, state.track(look, &found.detections, &settings))
        };
        if !found.detections.is_empty() {
            meta::replace_detections(buffer, width, height, &found.detections, &after);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn propose_allocation(
        &self,
        _decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        in_place::ask_downstream(&*self.obj(), *CAT, query)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::FlushStop {
            self.state.lock().forget();
        }
        self.parent_sink_event(event)
    }
}

impl State {
    /// Another frame has come.
    fn begin(&mut self) {
        self.stats.frames += 1;
        self.off = false;
    }

    /// A frame was left out because nothing has moved.
    fn hold(&mut self, frame_ns: u64) {
        if let Some(now) = self.clock.hold(frame_ns) {
            self.tracker.hold(now);
        }
    }

    /// The detections as they go on: with ids, without those that go.
    fn track(&mut self, look: Look, detections: &[Detection], settings: &Settings) -> Vec<Option<Detection>> {
        let begin = Instant::now();
        let now = look.now_ns;
        if look.anew {
            self.tracker.reset();
        }
        let followed: Vec<usize> =
            (0..detections.len()).filter(|&n| settings.follows(&detections[n].class_name)).collect();
        let Self { tracker, stats, width, height, .. } = self;
        let new_id = || {
            stats.ids += 1;
            NEXT_ID.fetch_add(1, Ordering::Relaxed)
        };
        let ids = if followed.len() == detections.len() {
            tracker.update(now, detections, &settings.params, new_id).to_vec()
        } else {
            let only: Vec<_> = followed.iter().map(|&n| detections[n].clone()).collect();
            tracker.update(now, &only, &settings.params, new_id).to_vec()
        };
        let mut after: Vec<Option<Detection>> =
            detections.iter().map(|d| Some(Detection { tracker_id: None, ..d.clone() })).collect();
        for (&n, id) in followed.iter().zip(&ids) {
            match id {
                None if !settings.keep_untracked => after[n] = None,
                id => after[n].iter_mut().for_each(|d| d.tracker_id = *id),
            }
        }
        if settings.smooth && settings.params.algorithm == track::Algorithm::ByteTrack {
            for (id, rect) in tracker.boxes() {
                let owner = after.iter_mut().flatten().find(|d| d.tracker_id == Some(id));
                let clipped = match (*width, *height) {
                    (0, _) | (_, 0) => rect,
                    (width, height) => rect.clipped(width as f32, height as f32),
                };
                if let Some(d) = owner
                    && clipped.is_valid()
                {
                    d.rect = clipped;
                }
            }
        }
        stats.tracks = tracker.confirmed() as u32;
        stats.updates += 1;
        stats.update_ns += begin.elapsed().as_nanos() as u64;
        after
    }
}

impl NvrTrack {
    /// Lets a frame pass while objects are not followed.
    fn pass(&self, buffer: &mut gst::BufferRef, settings: &Settings) {
        let (width, height) = {
            let mut state = self.state.lock();
            state.stats.frames += 1;
            if !std::mem::replace(&mut state.off, true) {
                state.forget();
            }
            (state.width, state.height)
        };
        if settings.keep_untracked {
            return;
        }
        // What only a track would have spoken for is nothing without one.
        let found = meta::read(buffer).detections;
        let stays = |d: &&Detection| !settings.follows(&d.class_name) || d.confidence >= settings.params.high;
        if !found.iter().all(|d| stays(&d)) {
            let after: Vec<_> = found.iter().map(|d| Some(d).filter(stays).cloned()).collect();
            meta::replace_detections(buffer, width, height, &found, &after);
        }
    }

    fn stats(&self) -> gst::Structure {
        let stats = self.state.lock().stats;
        gst::Structure::builder("nvrtrack-stats")
            .field("frames", stats.frames)
            .field("updates", stats.updates)
            .field("ids", stats.ids)
            .field("tracks", stats.tracks)
            .field("update-time", stats.update_ns / stats.updates.max(1))
            .build()
    }
}
