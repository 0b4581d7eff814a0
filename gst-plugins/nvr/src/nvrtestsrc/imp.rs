//! SECTION:element-nvrtestsrc
//!
//! A camera without a camera: people, cars and dogs that move over textured ground, drawn from a seed. The same
//! `seed`, `scene` and time give the same picture, so a test knows beforehand what a detector has to find.
//!
//! Each frame carries what can be seen in it as detection metas of confidence 1 with a track id (objects that are
//! covered or cut by more than half or are very small are left out), and its number and capture time as frame facts.
//! A detector downstream adds its own detections to these; `ground-truth=false` leaves only the detector's.
//!
//! The capture time is also drawn into the picture at the top: to the right as text in UTC, to the left as a strip
//! that `nvr_core::scene::read_timecode` reads, also after encoding and scaling. The difference to the time of
//! reading is the latency of everything in between.
//!
//! The source is live. A frame's capture time is the moment at which the clock reaches its timestamp; where the
//! machine is too slow, frames are left out and counted, as a camera does. With `is-live=false` frames come as fast
//! as they are taken, and the capture time counts from 2026-01-01T00:00:00Z, so that files are reproducible.
//!
//! Size and rate are negotiated; `width`, `height` and `framerate` decide where downstream leaves them open.
//!
//! ## Example pipeline
//!
//! ```bash
//! gst-launch-1.0 nvrtestsrc seed=7 scene=street num-buffers=250 ! video/x-raw,width=640,height=360,framerate=25/1 \
//!     ! x264enc tune=zerolatency bitrate=1000 ! mp4mux ! filesink location=street.mp4
//! ```
//!
//! Lock order: `settings` and `state` are never held together.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::prelude::*;
use nvr_core::{
    detection::{CaptureTime, Clock, FrameFacts},
    scene::{self, FrameMut, Moment, PlaneMut, Scene, SceneConfig, SceneKind},
};
use parking_lot::Mutex;

use super::NvrTestSrcScene;
use crate::{frames, meta};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrtestsrc", gst::DebugColorFlags::empty(), Some("NVR test camera"))
});

const MIN_SIDE: i32 = 16;
const MAX_SIDE: i32 = 8192;
const MAX_FPS: i32 = 1000;

/// 2026-01-01T00:00:00Z in nanoseconds since the Unix epoch: where time begins without a clock.
pub(super) const EPOCH_NS: u64 = 1_767_225_600_000_000_000;

/// What the user asked for.
#[derive(Clone, Debug)]
struct Settings {
    width: i32,
    height: i32,
    framerate: gst::Fraction,
    objects: u32,
    scene: NvrTestSrcScene,
    seed: u64,
    night: bool,
    noise: f64,
    ground_truth: bool,
    is_live: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 720,
            framerate: gst::Fraction::new(25, 1),
            objects: 4,
            scene: NvrTestSrcScene::default(),
            seed: 0,
            night: false,
            noise: 1.0,
            ground_truth: true,
            is_live: true,
        }
    }
}

impl Settings {
    fn scene_config(&self, info: &gst_video::VideoInfo) -> SceneConfig {
        SceneConfig {
            width: info.width() as usize,
            height: info.height() as usize,
            objects: self.objects as usize,
            kind: match self.scene {
                NvrTestSrcScene::Yard => SceneKind::Yard,
                NvrTestSrcScene::Street => SceneKind::Street,
                NvrTestSrcScene::Room => SceneKind::Room,
            },
            seed: self.seed,
            night: self.night,
            noise: self.noise as f32,
        }
    }
}

/// What the stream is doing.
#[derive(Debug)]
struct Stream {
    info: gst_video::VideoInfo,
    scene: Scene,
    /// Timestamp of the frame with number `base_frame`; both change when the rate does.
    base_pts: gst::ClockTime,
    base_frame: u64,
    /// Number of the next frame since `start`, left out ones included.
    next: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    frames: u64,
    skipped: u64,
    objects: u64,
    render_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until caps are known.
    stream: Option<Stream>,
    stats: Stats,
}

#[derive(Debug, Default)]
pub struct NvrTestSrc {
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

#[glib::object_subclass]
impl ObjectSubclass for NvrTestSrc {
    const NAME: &'static str = "GstNvrTestSrc";
    type Type = super::NvrTestSrc;
    type ParentType = gst_base::BaseSrc;
}

impl ObjectImpl for NvrTestSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let default = Settings::default();
            vec![
                glib::ParamSpecInt::builder("width")
                    .nick("Width")
                    .blurb("Width in pixels where downstream leaves it open")
                    .minimum(MIN_SIDE)
                    .maximum(MAX_SIDE)
                    .default_value(default.width)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecInt::builder("height")
                    .nick("Height")
                    .blurb("Height in pixels where downstream leaves it open")
                    .minimum(MIN_SIDE)
                    .maximum(MAX_SIDE)
                    .default_value(default.height)
                    .mutable_ready()
                    .build(),
                gst::ParamSpecFraction::builder("framerate")
                    .nick("Frame rate")
                    .blurb("Frames per second where downstream leaves it open")
                    .minimum(gst::Fraction::new(1, MAX_FPS))
                    .maximum(gst::Fraction::new(MAX_FPS, 1))
                    .default_value(default.framerate)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("objects")
                    .nick("Objects")
                    .blurb("How many objects move at a time, about; from 8 on they cover one another a good deal")
                    .maximum(SceneConfig::MAX_OBJECTS as u32)
                    .default_value(default.objects)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("scene", default.scene)
                    .nick("Scene")
                    .blurb("Where the scene plays")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("seed")
                    .nick("Seed")
                    .blurb("Decides who passes when, and what everything looks like")
                    .default_value(default.seed)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("night")
                    .nick("Night")
                    .blurb("The picture of an infrared camera at night")
                    .default_value(default.night)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecDouble::builder("noise")
                    .nick("Noise")
                    .blurb("Standard deviation of the sensor's noise, in steps of 8 bits")
                    .minimum(0.0)
                    .maximum(64.0)
                    .default_value(default.noise)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("ground-truth")
                    .nick("Ground truth")
                    .blurb("Whether frames carry what is on them as detections; a detector's results come beside these")
                    .default_value(default.ground_truth)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("is-live")
                    .nick("Is live")
                    .blurb("Whether frames come by the clock; otherwise as fast as they are taken, in made-up time")
                    .default_value(default.is_live)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("frames (guint64), skipped (guint64: left out because the machine was late), objects (guint64: seen in all frames together), render-time (guint64: mean nanoseconds to draw a frame)")
                    .read_only()
                    .build(),
            ]
        });
        PROPERTIES.as_ref()
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_live(Settings::default().is_live);
        obj.set_format(gst::Format::Time);
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "the type is checked by GObject";
        let mut settings = self.settings.lock();
        match pspec.name() {
            "width" => settings.width = value.get().expect(CHECKED),
            "height" => settings.height = value.get().expect(CHECKED),
            "framerate" => settings.framerate = value.get().expect(CHECKED),
            "objects" => settings.objects = value.get().expect(CHECKED),
            "scene" => settings.scene = value.get().expect(CHECKED),
            "seed" => settings.seed = value.get().expect(CHECKED),
            "night" => settings.night = value.get().expect(CHECKED),
            "noise" => settings.noise = value.get().expect(CHECKED),
            "ground-truth" => settings.ground_truth = value.get().expect(CHECKED),
            "is-live" => {
                let live = value.get().expect(CHECKED);
                settings.is_live = live;
                drop(settings);
                self.obj().set_live(live);
            }
            name => gst::error!(CAT, imp = self, "property {name} cannot be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings.lock();
        match pspec.name() {
            "width" => settings.width.to_value(),
            "height" => settings.height.to_value(),
            "framerate" => settings.framerate.to_value(),
            "objects" => settings.objects.to_value(),
            "scene" => settings.scene.to_value(),
            "seed" => settings.seed.to_value(),
            "night" => settings.night.to_value(),
            "noise" => settings.noise.to_value(),
            "ground-truth" => settings.ground_truth.to_value(),
            "is-live" => settings.is_live.to_value(),
            "stats" => {
                drop(settings);
                self.stats().to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for NvrTestSrc {}

impl ElementImpl for NvrTestSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR test camera",
                "Source/Video",
                "Draws people, cars and dogs from a seed, with exact ground truth and the capture time in the picture",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            use gst_video::VideoFormat::{Bgr, Bgra, Bgrx, Gray8, I420, Nv12, Rgb, Rgba, Rgbx};
            let caps = gst_video::VideoCapsBuilder::new()
                .format_list([I420, Nv12, Rgb, Bgr, Rgbx, Bgrx, Rgba, Bgra, Gray8])
                .width_range(MIN_SIDE..=MAX_SIDE)
                .height_range(MIN_SIDE..=MAX_SIDE)
                .framerate_range(gst::Fraction::new(1, MAX_FPS)..=gst::Fraction::new(MAX_FPS, 1))
                .build();
            gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &caps)
                .map(|template| vec![template])
                .unwrap_or_default()
        });
        TEMPLATES.as_ref()
    }
}

impl BaseSrcImpl for NvrTestSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock() = State::default();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        // The counters stay readable.
        self.state.lock().stream = None;
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn fixate(&self, mut caps: gst::Caps) -> gst::Caps {
        let settings = self.settings.lock().clone();
        caps.truncate();
        if let Some(s) = caps.make_mut().structure_mut(0) {
            s.fixate_field_nearest_int("width", settings.width);
            s.fixate_field_nearest_int("height", settings.height);
            s.fixate_field_nearest_fraction("framerate", settings.framerate);
            if s.has_field("pixel-aspect-ratio") {
                s.fixate_field_nearest_fraction("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            }
        }
        self.parent_fixate(caps)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "caps {caps} do not describe raw video"))?;
        let (format, _) = frames::layout(info.format())
            .ok_or_else(|| gst::loggable_error!(CAT, "format {:?} cannot be drawn", info.format()))?;
        let settings = self.settings.lock().clone();
        let mut scene = Scene::new(&settings.scene_config(&info));
        // What stands still is drawn here, so that the first frame is as quick as the others.
        let (matrix, range) = frames::color(&info);
        scene.prepare(format, matrix, range);
        self.obj().set_blocksize(info.size() as u32);
        let mut state = self.state.lock();
        // Time and numbers go on where only the caps change.
        let (base_pts, next) =
            state.stream.as_ref().map_or((gst::ClockTime::ZERO, 0), |s| (s.pts(s.next), s.next));
        gst::debug!(CAT, imp = self, "drawing {caps}");
        state.stream = Some(Stream { info, scene, base_pts, base_frame: next, next });
        Ok(())
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let (caps, _) = query.get_owned();
        let caps = caps.ok_or_else(|| gst::loggable_error!(CAT, "allocation query without caps"))?;
        let info = gst_video::VideoInfo::from_caps(&caps)
            .map_err(|_| gst::loggable_error!(CAT, "caps {caps} do not describe raw video"))?;
        let least = info.size() as u32;
        let has_meta = query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
        let offered =
            query.allocation_pools().next().map(|(pool, size, min, max)| (pool.clone(), size, min, max));
        let (offered_pool, size, min, max) = offered.unwrap_or((None, least, 0, 0));
        let size = size.max(least);
        let pool = offered_pool.unwrap_or_else(|| gst_video::VideoBufferPool::new().upcast());
        let mut config = pool.config();
        config.set_params(Some(&caps), size, min, max);
        if has_meta {
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        }
        pool.set_config(config)
            .map_err(|e| gst::loggable_error!(CAT, "the buffer pool refused {caps}: {e}"))?;
        if query.allocation_pools().next().is_some() {
            query.set_nth_allocation_pool(0, Some(&pool), size, min, max);
        } else {
            query.add_allocation_pool(Some(&pool), size, min, max);
        }
        self.parent_decide_allocation(query)
    }

    fn times(&self, buffer: &gst::BufferRef) -> (Option<gst::ClockTime>, Option<gst::ClockTime>) {
        // The base class waits for the clock in a live source only where it is given a time.
        if !self.obj().is_live() {
            return (None, None);
        }
        let start = buffer.pts();
        (start, start.zip(buffer.duration()).map(|(pts, duration)| pts + duration))
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(q) = query.view_mut() {
            // A frame is drawn before its time comes; one frame's duration is what a busy machine is granted.
            let state = self.state.lock();
            let Some(stream) = &state.stream else { return false };
            let latency = stream.pts(stream.base_frame + 1).saturating_sub(stream.base_pts);
            let live = self.obj().is_live();
            q.set(live, if live { latency } else { gst::ClockTime::ZERO }, gst::ClockTime::NONE);
            return true;
        }
        BaseSrcImplExt::parent_query(self, query)
    }

    fn fill(
        &self,
        _offset: u64,
        _length: u32,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = self.settings.lock().clone();
        let now = if settings.is_live { self.now() } else { None };
        let begin = Instant::now();
        let mut state = self.state.lock();
        let State { stream, stats } = &mut *state;
        let Some(stream) = stream else { return Err(gst::FlowError::NotNegotiated) };
        if let Some(now) = &now {
            let due = stream.frame_due(now.running);
            // A frame that is late by less than its duration is drawn all the same.
            if due > stream.next {
                // A camera that is switched on late has left nothing out before.
                if stats.frames > 0 {
                    stats.skipped += due - stream.next;
                }
                stream.next = due;
            }
        }
        let number = stream.next;
        stream.next += 1;
        let (pts, end) = (stream.pts(number), stream.pts(number + 1));
        let unix_ns = now.map_or_else(|| EPOCH_NS + pts.nseconds(), |now| now.unix_at(pts));

        let config = settings.scene_config(&stream.info);
        if config != *stream.scene.config() {
            stream.scene.set_config(&config);
        }
        let moment = Moment { scene_ns: pts.nseconds(), unix_ms: Some(unix_ns / 1_000_000) };
        let detections = match draw(&stream.info, &mut stream.scene, moment, buffer) {
            Ok(detections) => detections,
            Err(error) => {
                drop(state);
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Write,
                    ["Cannot draw into the buffer: {error}"]
                );
                return Err(gst::FlowError::Error);
            }
        };
        let (width, height) = (stream.info.width(), stream.info.height());
        stats.frames += 1;
        stats.objects += detections.len() as u64;
        stats.render_ns += begin.elapsed().as_nanos() as u64;
        drop(state);

        buffer.set_pts(pts);
        buffer.set_duration(end - pts);
        buffer.set_offset(number);
        buffer.set_offset_end(number + 1);
        let capture = CaptureTime { unix_ns, clock: Clock::Arrival };
        meta::set_facts(
            buffer,
            &FrameFacts { frame_id: Some(number), capture: Some(capture), analysis: None },
        );
        if settings.ground_truth {
            meta::add_detections(buffer, width, height, &detections);
        }
        gst::trace!(CAT, imp = self, "frame {number} at {pts} with {} objects", detections.len());
        Ok(gst::FlowSuccess::Ok)
    }
}

/// One moment by the pipeline's clock and by the calendar.
#[derive(Clone, Copy, Debug)]
struct Now {
    running: gst::ClockTime,
    unix_ns: u64,
}

impl Now {
    /// When, by the calendar, the pipeline's clock shows `running`.
    fn unix_at(&self, running: gst::ClockTime) -> u64 {
        let ahead = running.nseconds() as i64 - self.running.nseconds() as i64;
        self.unix_ns.saturating_add_signed(ahead)
    }
}

impl Stream {
    fn pts(&self, number: u64) -> gst::ClockTime {
        let fps = self.info.fps();
        let frames = number.saturating_sub(self.base_frame);
        let (n, d) = (fps.numer().max(1) as u64, fps.denom().max(1) as u64);
        let since = frames.mul_div_floor(d * gst::ClockTime::SECOND.nseconds(), n).unwrap_or(u64::MAX / 2);
        self.base_pts + gst::ClockTime::from_nseconds(since)
    }

    /// The newest frame whose time is not after `running`.
    fn frame_due(&self, running: gst::ClockTime) -> u64 {
        let fps = self.info.fps();
        let since = running.saturating_sub(self.base_pts).nseconds();
        let (n, d) = (fps.numer().max(1) as u64, fps.denom().max(1) as u64);
        self.base_frame + since.mul_div_floor(n, d * gst::ClockTime::SECOND.nseconds()).unwrap_or(0)
    }
}

impl NvrTestSrc {
    /// `None` without a clock.
    fn now(&self) -> Option<Now> {
        let obj = self.obj();
        let running = obj.current_running_time()?;
        let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos() as u64;
        Some(Now { running, unix_ns })
    }

    fn stats(&self) -> gst::Structure {
        let Stats { frames, skipped, objects, render_ns } = self.state.lock().stats;
        gst::Structure::builder("nvr-test-src-stats")
            .field("frames", frames)
            .field("skipped", skipped)
            .field("objects", objects)
            .field("render-time", render_ns / frames.max(1))
            .build()
    }
}

/// Draws one frame into `buffer`, by the strides that the buffer has.
pub(super) fn draw(
    info: &gst_video::VideoInfo,
    scene: &mut Scene,
    moment: Moment,
    buffer: &mut gst::BufferRef,
) -> Result<Vec<nvr_core::detection::Detection>, String> {
    let (format, _) = frames::layout(info.format()).ok_or("unknown format")?;
    let (matrix, range) = frames::color(info);
    let mut frame =
        gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).map_err(|e| e.to_string())?;
    let strides: [usize; 3] =
        std::array::from_fn(|n| frame.plane_stride().get(n).map_or(0, |&s| usize::try_from(s).unwrap_or(0)));
    let [first, second, third, _] = frame.planes_data_mut();
    let mut target = FrameMut {
        format,
        width: info.width() as usize,
        height: info.height() as usize,
        planes: [
            PlaneMut { data: first, stride: strides[0] },
            PlaneMut { data: second, stride: strides[1] },
            PlaneMut { data: third, stride: strides[2] },
        ],
        matrix,
        range,
    };
    let truth = scene.render(moment, &mut target).map_err(|e| e.to_string())?;
    Ok(scene::detections(truth))
}
