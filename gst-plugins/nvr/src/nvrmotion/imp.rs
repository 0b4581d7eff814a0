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
//! share of it that differs), `update-time` (guint64: mean nanoseconds for a frame).
//!
//! Lock order: `settings` and `state` are never held together.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess};
use gst_base::subclass::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo, VideoRegionOfInterestMeta};
use nvr_core::motion::{Detector, Params};
use nvr_core::zones::{Polygon, parse_polygons};
use parking_lot::Mutex;

use crate::nvrinfer::frames;
use crate::{in_place, meta};

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
            let seconds = |name, nick, blurb, default| {
                glib::ParamSpecDouble::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .minimum(0.0)
                    .maximum(86_400.0)
                    .default_value(default)
                    .mutable_playing()
                    .build()
            };
            let share = |name, nick, blurb, default| {
                glib::ParamSpecFloat::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .minimum(0.0)
                    .maximum(1.0)
                    .default_value(default)
                    .mutable_playing()
                    .build()
            };
            vec![
                glib::ParamSpecFloat::builder("threshold")
                    .nick("Threshold")
                    .blurb("Difference from the background that counts, in steps of 8-bit brightness")
                    .minimum(1.0)
                    .maximum(255.0)
                    .default_value(params.threshold)
                    .mutable_playing()
                    .build(),
                share("min-area", "Least area", "Smallest region, as a share of the frame", params.min_area),
                share(
                    "recalibrate",
                    "Recalibrate",
                    "Share of the frame that may change before the background is learned anew",
                    params.recalibrate,
                ),
                seconds(
                    "absorb",
                    "Absorb",
                    "Seconds after which what stands still becomes background",
                    params.absorb,
                ),
                seconds("hold", "Hold", "Seconds for which frames count as moving after the last motion", hold),
                glib::ParamSpecString::builder("masks")
                    .nick("Masks")
                    .blurb(
                        "Areas that are not looked at: polygons \"x,y x,y x,y\" apart by semicolons, coordinates from \
                         0 to 1 of the frame",
                    )
                    .default_value(Some(""))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("enabled")
                    .nick("Enabled")
                    .blurb("Whether frames are looked at; off marks all as moving, so that a gate behind it stands open")
                    .default_value(enabled)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("Counters since the start; see the element's documentation")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "the type is checked by GObject";
        let mut refused = None;
        {
            let mut settings = self.settings.lock();
            match pspec.name() {
                "threshold" => settings.params.threshold = value.get().expect(CHECKED),
                "min-area" => settings.params.min_area = value.get().expect(CHECKED),
                "recalibrate" => settings.params.recalibrate = value.get().expect(CHECKED),
                "absorb" => settings.params.absorb = value.get().expect(CHECKED),
                "hold" => settings.hold = value.get().expect(CHECKED),
                "enabled" => settings.enabled = value.get().expect(CHECKED),
                "masks" => {
                    let text = value.get::<Option<String>>().expect(CHECKED).unwrap_or_default();
                    match parse_polygons(&text) {
                        Ok(polygons) => {
                            settings.masks = Arc::new(Masks { text, polygons });
                            settings.masks_error = None;
                        }
                        Err(error) => {
                            refused = Some(error.to_string());
                            settings.masks_error.clone_from(&refused);
                        }
                    }
                }
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
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new().format_list(frames::FORMATS).build();
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
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
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
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
        let now = self.running_time(buffer);
        if !settings.enabled {
            {
                let mut state = self.state.lock();
                state.stats.frames += 1;
                // What it knows would be old when it is switched on again.
                state.detector.reset();
            }
            meta::mark_motion(buffer, true);
            return Ok(gst::FlowSuccess::Ok);
        }
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
        let verdict = verdict.inspect_err(|_| self.stats.errors += 1)?;
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
        stats.update_ns += begin.elapsed().as_nanos() as u64;
        Ok((moved, regions))
    }
}

impl NvrMotion {
    fn running_time(&self, buffer: &gst::BufferRef) -> u64 {
        let obj = self.obj();
        let segment = obj.segment();
        segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(|segment| segment.to_running_time(buffer.pts().or(buffer.dts())))
            .or_else(|| obj.current_running_time())
            .map_or(0, gst::ClockTime::nseconds)
    }

    fn stats(&self) -> gst::Structure {
        let stats = self.state.lock().stats;
        gst::Structure::builder("nvrmotion-stats")
            .field("frames", stats.frames)
            .field("moving", stats.moving)
            .field("recalibrations", stats.recalibrations)
            .field("errors", stats.errors)
            .field("moved", stats.moved)
            .field("area", stats.area)
            .field("update-time", stats.update_ns / stats.frames.max(1))
            .build()
    }
}
