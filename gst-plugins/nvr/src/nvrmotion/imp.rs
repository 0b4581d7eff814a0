//! # nvrmotion
//!
//! Says of every frame whether anything moves in it, and where. It looks at a copy of the brightness, about a hundred
//! pixels high, and compares it with a background that it learns: `nvrinfer gate=motion` then leaves still frames
//! out, which are most of them.
//!
//! Every frame is marked (`motion` of `NvrFrameFacts`), and every region that moves is attached as a
//! `GstVideoRegionOfInterestMeta` of type `motion`. A mark stays for `hold` seconds, so that a pause in a step is no
//! end. What stands still becomes background after `absorb` seconds. Changes of the light are taken out; when most
//! of the picture changes (a lamp, the infrared filter, another view) the background is learned anew, and the frame
//! counts as moving. What flickers by itself, leaves or a clock in the picture, is ignored after about half a
//! minute, and what `masks` covers at once.
//!
//! The pixels pass untouched and uncopied.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 nvrtestsrc ground-truth=false ! nvrmotion masks="0,0 1,0 1,0.09 0,0.09"
//!     ! nvrinfer model=demo gate=motion ! nvrmqttsink source-id=0
//! ```
//!
//! Property `stats` (structure `nvrmotion-stats`): `frames` that came, `moving` ones among them, `recalibrations`,
//! `errors` (frames that could not be read) (guint64); `moved` (gboolean: whether the last frame did), `area` (gdouble:
//! share of it that differs; 0 where it was not looked at), `update-time` (guint64: mean nanoseconds for a frame that
//! is).
//!
//! Lock order: `settings` and `state` are never held together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess};
use gst_base::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo, VideoRegionOfInterestMeta};
use nvr_core::motion::{Detector, Params};
use nvr_core::zones::{Polygon, parse_polygons};
use parking_lot::Mutex;

use crate::{frames, in_place, meta, properties};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrmotion", gst::DebugColorFlags::empty(), Some("NVR motion detection"))
});

const DEFAULT_HOLD: f64 = 1.0;

/// What the user asked for.
#[derive(Clone, Debug)]
struct Settings {
    params: Params,
    hold: f64,
    masks: Arc<Masks>,
    /// Why the text that was set last is not used.
    masks_error: Option<String>,
    enabled: bool,
}

#[derive(Debug, Default)]
struct Masks {
    text: String,
    polygons: Vec<Polygon>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            params: Params::default(),
            hold: DEFAULT_HOLD,
            masks: Arc::default(),
            masks_error: None,
            enabled: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    frames: u64,
    moving: u64,
    recalibrations: u64,
    errors: u64,
    moved: bool,
    area: f64,
    /// Frames that were looked at.
    looks: u64,
    update_ns: u64,
}

/// What the stream is doing.
#[derive(Debug, Default)]
struct State {
    info: Option<VideoInfo>,
    detector: Detector,
    /// The masks that the detector has.
    masks: Arc<Masks>,
    /// Until when the mark stays, nanoseconds of running time.
    held_until: u64,
    warned: bool,
    stats: Stats,
}

#[derive(Debug, Default)]
pub struct NvrMotion {
    settings: Mutex<Settings>,
    /// The counters stay readable when stopped.
    state: Mutex<State>,
    /// Apart from the state, which is locked while a frame is looked at: no setter waits for that.
    started: AtomicBool,
}

#[glib::object_subclass]
impl ObjectSubclass for NvrMotion {
    const NAME: &'static str = "GstNvrMotion";
    type Type = super::NvrMotion;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NvrMotion {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let Settings { params, hold, enabled, .. } = Settings::default();
            vec![
                glib::ParamSpecFloat::builder("threshold")
                    .nick("Threshold")
                    .blurb("Difference from the background that counts, in steps of 8-bit brightness")
                    .minimum(1.0)
                    .maximum(255.0)
                    .default_value(params.threshold)
                    .mutable_playing()
                    .build(),
                properties::share("min-area", "Least area", "Smallest region, as a share of the frame", params.min_area),
                properties::share(
                    "recalibrate",
                    "Recalibrate",
                    "Share of the frame that may change before the background is learned anew",
                    params.recalibrate,
                ),
                properties::seconds(
                    "absorb",
                    "Absorb",
                    "Seconds after which what stands still becomes background",
                    params.absorb,
                ),
                properties::seconds("hold", "Hold", "Seconds for which frames count as moving after the last motion", hold),
                glib::ParamSpecString::builder("masks")
                    .nick("Masks")
                    .blurb(
                        "Areas that are not looked at: polygons \"x,y x,y x,y\" apart by semicolons, coordinates from \
                         0 to 1 of the frame",
                    )
                    .default_value(Some(""))
                    .mutable_playing()
                    .build(),
                properties::switch(
                    "enabled",
                    "Enabled",
                    "Whether frames are looked at; off marks all as moving, so that a gate behind it stands open",
                    enabled,
                ),
                properties::stats("Counters since the start; see the element's documentation"),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "the type is checked by GObject";
        let mut refused = None;
        // Reading it takes a while, for which no frame should wait.
        let masks = (pspec.name() == "masks").then(|| {
            let text = value.get::<Option<String>>().expect(CHECKED).unwrap_or_default();
            parse_polygons(&text)
                .map(|polygons| Arc::new(Masks { text, polygons }))
                .map_err(|error| error.to_string())
        });
        let started = self.started.load(Ordering::Relaxed);
        {
            let mut settings = self.settings.lock();
            match pspec.name() {
                "threshold" => settings.params.threshold = value.get().expect(CHECKED),
                "min-area" => settings.params.min_area = value.get().expect(CHECKED),
                "recalibrate" => settings.params.recalibrate = value.get().expect(CHECKED),
                "absorb" => settings.params.absorb = value.get().expect(CHECKED),
                "hold" => settings.hold = value.get().expect(CHECKED),
                "enabled" => settings.enabled = value.get().expect(CHECKED),
                "masks" => match masks {
                    Some(Ok(masks)) => (settings.masks, settings.masks_error) = (masks, None),
                    Some(Err(error)) => {
                        // What changes nothing must not keep the next start from working.
                        settings.masks_error = Some(error.clone()).filter(|_| !started);
                        refused = Some(error);
                    }
                    None => {}
                },
                name => gst::error!(CAT, imp = self, "property {name} cannot be set"),
            }
        }
        if let Some(error) = refused {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                ("Property masks stays as it was: {error}")
            );
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let settings = self.settings.lock();
        match pspec.name() {
            "threshold" => settings.params.threshold.to_value(),
            "min-area" => settings.params.min_area.to_value(),
            "recalibrate" => settings.params.recalibrate.to_value(),
            "absorb" => settings.params.absorb.to_value(),
            "hold" => settings.hold.to_value(),
            "enabled" => settings.enabled.to_value(),
            "masks" => settings.masks.text.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for NvrMotion {}

impl ElementImpl for NvrMotion {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR motion detection",
                "Filter/Analyzer/Video",
                "Says whether and where anything moves",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        in_place::video_pad_templates()
    }
}

impl BaseTransformImpl for NvrMotion {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(error) = self.settings.lock().masks_error.clone() {
            return Err(gst::error_msg!(gst::LibraryError::Settings, ["property masks: {error}"]));
        }
        *self.state.lock() = State::default();
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.started.store(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.info = None;
        state.detector = Detector::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(incaps)
            .map_err(|error| gst::loggable_error!(CAT, "caps {incaps} are no video caps: {error}"))?;
        self.state.lock().info = Some(info);
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
            {
                let mut state = self.state.lock();
                state.stats.frames += 1;
                state.stats.moving += 1;
                (state.stats.moved, state.stats.area) = (true, 0.0);
                // What it knows would be old when it is switched on again.
                state.detector.reset();
            }
            meta::mark_motion(buffer, true);
            return Ok(gst::FlowSuccess::Ok);
        }
        let now = in_place::running_time(&*self.obj(), buffer).map_or(0, gst::ClockTime::nseconds);
        let (seen, warn) = {
            let mut state = self.state.lock();
            state.stats.frames += 1;
            let seen = state.look(now, buffer, &settings);
            let warn = seen.is_err() && !std::mem::replace(&mut state.warned, true);
            (seen, warn)
        };
        match seen {
            Ok((moved, regions)) => {
                gst::trace!(CAT, imp = self, "moved: {moved}, {} regions", regions.len());
                meta::mark_motion(buffer, moved);
                for (x, y, width, height) in regions {
                    VideoRegionOfInterestMeta::add(buffer, meta::MOTION, (x, y, width, height));
                }
            }
            Err(error) if warn => gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                ("A frame passes unmarked: {error}. Further ones are counted as errors in stats")
            ),
            Err(_) => {}
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
            self.state.lock().detector.reset();
        }
        self.parent_sink_event(event)
    }
}

type Region = (u32, u32, u32, u32);

impl State {
    /// Whether the frame counts as moving, and where.
    fn look(
        &mut self,
        now: u64,
        buffer: &gst::BufferRef,
        settings: &Settings,
    ) -> Result<(bool, Vec<Region>), String> {
        let begin = Instant::now();
        if !Arc::ptr_eq(&self.masks, &settings.masks) {
            self.masks = settings.masks.clone();
            self.detector.set_masks(settings.masks.polygons.clone());
        }
        let verdict = self.info.as_ref().ok_or_else(|| "its size is not known".to_owned()).and_then(|info| {
            let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).map_err(|_| {
                format!("the buffer is too small for a {}x{} frame", info.width(), info.height())
            })?;
            let view = frames::view(&frame).ok_or("the frame's memory is laid out backwards")?;
            self.detector.update(now, &view, &settings.params).map_err(|error| error.to_string())
        });
        let verdict = verdict.inspect_err(|_| {
            self.stats.errors += 1;
            (self.stats.moved, self.stats.area) = (false, 0.0);
        })?;
        if verdict.moved {
            self.held_until = now.saturating_add((settings.hold * 1e9) as u64);
        }
        let moved = verdict.moved || (now < self.held_until && !verdict.recalibrated);
        let regions = verdict
            .regions
            .iter()
            .map(|r| (r.x as u32, r.y as u32, r.width as u32, r.height as u32))
            .collect();
        let stats = &mut self.stats;
        stats.moved = moved;
        stats.moving += u64::from(moved);
        stats.recalibrations += u64::from(verdict.recalibrated);
        stats.area = verdict.area.into();
        stats.looks += 1;
        stats.update_ns += begin.elapsed().as_nanos() as u64;
        Ok((moved, regions))
    }
}

impl NvrMotion {
    fn stats(&self) -> gst::Structure {
        let stats = self.state.lock().stats;
        gst::Structure::builder("nvrmotion-stats")
            .field("frames", stats.frames)
            .field("moving", stats.moving)
            .field("recalibrations", stats.recalibrations)
            .field("errors", stats.errors)
            .field("moved", stats.moved)
            .field("area", stats.area)
            .field("update-time", stats.update_ns / stats.looks.max(1))
            .build()
    }
}
