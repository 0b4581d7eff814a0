//! # nvrrecordsink
//!
//! Records coded video, and audio beside it, without decoding: H.264 and H.265 as the camera sent them, AAC and Opus.
//! Other audio is left out with one warning; the video never waits for sound.
//!
//! Segments are fragmented MP4 files of about `segment-duration` that begin with a keyframe. They play while they are
//! being written, and after a power cut up to the last fragment (`fragment-duration`). They lie at
//! `{location}/{source-id}/{day}/{hour}/{start}.mp4`, all in UTC. New caps (another resolution, other parameter sets),
//! a jump of the timestamps and a gap each begin a new segment.
//!
//! With `mode=events`, only what happens around detections is kept, from `pre-buffer` seconds before the first to
//! `post-buffer` seconds after the last; with `mode=motion`, what happens around motion. The seconds before are kept in
//! memory as they came, coded, in at most `buffer-bytes`; the recording begins with the keyframe before them. Detections
//! are those on the pictures that come to the pad `frames`, whoever attached them, or, where that pad is not in use,
//! those that the broker tells of on `{topic-prefix}/detections/{source-id}`. Motion is what `nvrmotion` marks on the
//! pictures at `frames`; pictures without a mark, and half a minute without pictures, count as motion. With `listen`, a
//! recorder notes in the catalogue what the broker says was seen, whatever the mode; what comes to `frames` is noted
//! always.
//!
//! What is asked for, by the commands `start_recording` and `save_clip` of `nvrcontrol`, is recorded whatever the mode,
//! from `pre-buffer` seconds before on where they are in memory, which `off` does not keep. The catalogue has the
//! reason, and the limits treat such recordings as those with events. Clips are joined from the segments and lie at
//! `{location}/clips/{source-id}/{name}.mp4`; none is ever removed, and none is added beyond `clips-max-bytes`.
//!
//! One thread does all that touches the disk. A disk that is full, read-only, slow or gone is one warning; recording
//! resumes by itself, what fits into `buffer-bytes` is written then, and neither the pipeline nor any other branch
//! notices. On a full disk the oldest recordings of the same catalogue are removed first. `{location}/.nvr-volume`
//! tells the disk: recording stops while it is missing, so nothing goes under an empty mount point.
//!
//! The catalogue is an SQLite file (`catalog`). What a run without an orderly end left is put right at the next start.
//! `max-age`, `max-bytes` and `min-free` remove recordings that the catalogue names, and never another file.
//!
//! ## Messages
//!
//! Element message `nvr-record-state`: `source-id` (guint), `state` (`recording`, `idle` or `failing`), `reason` (string:
//! `continuous`, `motion`, `events` or `on_demand`; what is wrong where it fails), `on-demand` (gboolean), `since`
//! (guint64, microseconds since 1970). `nvr-segment` for each finished segment: `source-id` (guint), `path` (string,
//! below `location`), `start` and `end` (guint64, microseconds since 1970), `bytes`, `frames`, `keyframes` and `events`
//! (guint64), `reason` (string). `nvr-clip` for each clip: `source-id`, `name`, and `path`, `start`, `end`, `bytes` as of
//! a segment, or `error` (string). `nvr-tier-state` where a storage tier is missing or takes nothing, and when it is
//! back: `source-id`, `tier` (string: `hot`, `warm`, `cold`), `location` (string), `state` (string: `failing`, `ready`),
//! `reason` (string: what is wrong and what to do).
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 -e nvrsrc uri=rtsp://192.0.2.7/stream1 decode=none name=cam cam.encoded ! nvrrecordsink location=recordings
//! gst-launch-1.0 -e nvrsrc uri=rtsp://192.0.2.7/stream1 max-fps=5 name=cam ! nvrmotion ! rec.frames
//!     cam.encoded ! nvrrecordsink name=rec location=recordings mode=motion
//! ```
//!
//! Property `stats` (structure `nvr-record-sink-stats`): `received` and `written` pictures, `lost` pictures (nothing to
//! begin with, or writing failed for too long), `dropped` units (the disk was too slow), `bytes`, `segments`, `errors`,
//! `events` (pictures or messages that say something was detected), `looked-at` pictures at the pad `frames`,
//! `clips`, `buffered` bytes, `recording`, `moved` recordings, `move-errors`, `failing-tiers` (string: those of which
//! `nvr-tier-state` has told, separated by commas), and `state` and `reason` as in the message.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use nvr_core::detection::{CaptureTime, Clock};
use nvr_core::segment::mp4::Medium;
use nvr_core::segment::trigger::Reason;
use parking_lot::Mutex;

use super::Mode;
use super::inbox::{Item, Unit};
use super::notice::Notice;
use super::report::Voice;
use super::tiers::{Tally, TierSettings};
use super::worker::{Shared, Worker, now_us};
use crate::meta;
use crate::mqtt::BrokerSettings;
use crate::nvrsrc::NEVER_WAITS;
use crate::properties::{self, amount, text};

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrrecordsink", gst::DebugColorFlags::empty(), Some("NVR recorder"))
});

/// How long stopping waits for the disk; the files are closed in the background after that.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pad for pictures that others have looked at.
const FRAMES: &str = "frames";
/// What waits for a slow disk at most.
const QUEUE_BYTES: usize = 32 << 20;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    pub location: PathBuf,
    pub catalog: Option<PathBuf>,
    pub volume_id: Option<String>,
    pub source_id: u32,
    pub mode: Mode,
    pub listen: bool,
    /// Seconds.
    pub segment_duration: u32,
    /// Milliseconds.
    pub fragment_duration: u32,
    pub sync: bool,
    pub pre_buffer: u32,
    pub post_buffer: u32,
    pub buffer_bytes: u64,
    /// Seconds; 0 for ever.
    pub max_age: u64,
    pub events_max_age: u64,
    pub max_bytes: u64,
    pub clips_max_bytes: u64,
    pub min_free: u64,
    pub tiers: TierSettings,
    pub broker: BrokerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: PathBuf::from("recordings"),
            catalog: None,
            volume_id: None,
            source_id: 0,
            mode: Mode::default(),
            listen: false,
            segment_duration: 10,
            fragment_duration: 500,
            sync: true,
            pre_buffer: 5,
            post_buffer: 5,
            buffer_bytes: 16 << 20,
            max_age: 0,
            events_max_age: 0,
            max_bytes: 0,
            clips_max_bytes: 4 << 30,
            min_free: 256 << 20,
            tiers: TierSettings::default(),
            broker: BrokerSettings::default(),
        }
    }
}

/// What one pad has said so far.
#[derive(Default)]
struct Input {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    gap: bool,
}

#[derive(Default)]
struct State {
    video: Input,
    audio: Input,
    /// Of the pad `frames`.
    frames: Input,
    worker: Option<thread::JoinHandle<()>>,
    shared: Option<Arc<Shared>>,
}

/// Lock order: `state` before none; the settings in [`Shared`] are taken without it.
pub struct NvrRecordSink {
    video: gst::Pad,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// The last run, for its statistics.
    last: Mutex<Option<Arc<Shared>>>,
}

fn template(name: &str, presence: gst::PadPresence, caps: &gst::Caps) -> Option<gst::PadTemplate> {
    gst::PadTemplate::new(name, gst::PadDirection::Sink, presence, caps).ok()
}

fn video_caps() -> gst::Caps {
    let units = |name: &str, formats: &[&str]| {
        gst::Structure::builder(name)
            .field("stream-format", gst::List::new(formats))
            .field("alignment", "au")
            .build()
    };
    gst::Caps::builder_full()
        .structure(units("video/x-h264", &["avc", "avc3"]))
        .structure(units("video/x-h265", &["hvc1", "hev1"]))
        .build()
}

/// Everything else comes too, so that a camera's odd sound is no failure of its video.
fn audio_caps() -> gst::Caps {
    let aac =
        gst::Structure::builder("audio/mpeg").field("mpegversion", 4).field("stream-format", "raw").build();
    let others =
        ["audio/x-opus", "audio/x-alaw", "audio/x-mulaw", "audio/x-adpcm", "audio/AMR", "audio/x-raw"];
    let mp3 = gst::Structure::builder("audio/mpeg").field("mpegversion", gst::List::new([1, 2])).build();
    let caps = gst::Caps::builder_full().structure(aac).structure(mp3);
    others.into_iter().map(gst::Structure::new_empty).fold(caps, gst::caps::BuilderFull::structure).build()
}

/// Pictures that others have looked at.
fn frames_caps() -> gst::Caps {
    gst::Caps::builder("video/x-raw").any_features().build()
}

fn frames_pad(template: &gst::PadTemplate) -> gst::Pad {
    gst::Pad::builder_from_template(template)
        .chain_function(|_, parent, buffer| {
            NvrRecordSink::catch_panic_pad_function(
                parent,
                || Ok(gst::FlowSuccess::Ok),
                |sink| {
                    sink.look(&buffer);
                    Ok(gst::FlowSuccess::Ok)
                },
            )
        })
        .event_function(|_, parent, event| {
            NvrRecordSink::catch_panic_pad_function(
                parent,
                || false,
                |sink| {
                    if let gst::EventView::Segment(segment) = event.view() {
                        sink.state.lock().frames.segment =
                            segment.segment().downcast_ref::<gst::ClockTime>().cloned();
                    }
                    // Nothing is done with these pictures, so their end ends nothing.
                    true
                },
            )
        })
        .build()
}

fn sink_pad(template: &gst::PadTemplate, medium: Medium) -> gst::Pad {
    gst::Pad::builder_from_template(template)
        .chain_function(move |_, parent, buffer| {
            NvrRecordSink::catch_panic_pad_function(
                parent,
                || Err(gst::FlowError::Error),
                |sink| sink.chain(medium, buffer),
            )
        })
        .event_function(move |pad, parent, event| {
            NvrRecordSink::catch_panic_pad_function(
                parent,
                || false,
                |sink| sink.sink_event(pad, medium, event),
            )
        })
        .query_function(|pad, parent, query| {
            // Whoever asks need not have a thread of its own for this pad.
            query.structure().is_some_and(|s| s.name() == NEVER_WAITS)
                || gst::Pad::query_default(pad, parent, query)
        })
        .build()
}

#[glib::object_subclass]
impl ObjectSubclass for NvrRecordSink {
    const NAME: &'static str = "NvrRecordSink";
    type Type = super::NvrRecordSink;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = class.pad_template("video").expect("the class has just been given it");
        Self {
            video: sink_pad(&template, Medium::Video),
            settings: Mutex::default(),
            state: Mutex::default(),
            last: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for NvrRecordSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvrRecordSink").finish_non_exhaustive()
    }
}

impl ObjectImpl for NvrRecordSink {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_element_flags(gst::ElementFlags::SINK);
        if obj.add_pad(&self.video).is_err() {
            gst::error!(CAT, imp = self, "the pad video exists already");
        }
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(properties);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let shared = {
            let mut settings = self.settings.lock();
            settings.set(value, pspec);
            settings.clone()
        };
        let running = self.state.lock().shared.clone();
        if let Some(running) = running {
            *running.settings.lock() = shared;
            running.inbox.wake();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        self.settings.lock().get(pspec)
    }
}

fn properties() -> Vec<glib::ParamSpec> {
    let seconds = |name: &'static str, nick: &'static str, blurb: &'static str, least: u32, default: u32| {
        glib::ParamSpecUInt::builder(name)
            .nick(nick)
            .blurb(blurb)
            .minimum(least)
            .maximum(86_400)
            .default_value(default)
            .mutable_playing()
            .build()
    };
    let defaults = Settings::default();
    let mut list = BrokerSettings::properties();
    list.extend([
        text("location", "Location", "Directory of the recordings; made where it is missing", Some("recordings")),
        text("catalog", "Catalogue", "SQLite file that lists the recordings (default: catalog.db in location)", None),
        text(
            "volume-id",
            "Volume id",
            "Record only where the file .nvr-volume in location says this (default: whatever it says at the start)",
            None,
        ),
        properties::source_id("Number of the camera: the first directory below location, and the topic to listen to"),
        glib::ParamSpecEnum::builder::<Mode>("mode")
            .nick("Mode")
            .blurb("When to record by itself")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("listen")
            .nick("Listen")
            .blurb("Note what the broker says was seen also where recording does not depend on it")
            .mutable_ready()
            .build(),
        seconds("segment-duration", "Segment duration", "Seconds until the next keyframe begins a new file", 1, 10),
        glib::ParamSpecUInt::builder("fragment-duration")
            .nick("Fragment duration")
            .blurb("Milliseconds of video that are written at a time, and lost with a power cut")
            .minimum(100)
            .maximum(10_000)
            .default_value(defaults.fragment_duration)
            .mutable_playing()
            .build(),
        properties::switch(
            "sync",
            "Sync",
            "Have the disk keep each fragment before the next; off, a power cut costs what the system had cached",
            defaults.sync,
        ),
        seconds("pre-buffer", "Pre-buffer", "Seconds before the first detection or motion that are recorded too", 0, 5),
        seconds("post-buffer", "Post-buffer", "Seconds after the last detection or motion that are recorded too; 0 as 1", 0, 5),
        glib::ParamSpecUInt64::builder("buffer-bytes")
            .nick("Buffer size")
            .blurb("Memory for the pre-buffer and for what cannot be written yet")
            .minimum(64 << 10)
            .maximum(4 << 30)
            .default_value(defaults.buffer_bytes)
            .mutable_playing()
            .build(),
        amount("max-age", "Age limit", "Seconds after which recordings are removed, 0 for never", 0),
        amount(
            "events-max-age",
            "Age limit with events",
            "Seconds after which recordings with events are removed, 0 as max-age",
            0,
        ),
        amount(
            "clips-max-bytes",
            "Size limit of clips",
            "Bytes that this camera's clips may take, 0 for no limit; beyond, none is saved until some are removed",
            defaults.clips_max_bytes,
        ),
        amount("max-bytes", "Size limit", "Bytes that this camera's recordings may take in all tiers, 0 for no limit", 0),
        amount("min-free", "Free space", "Bytes of the volume that are kept free, at the cost of the oldest recordings", defaults.min_free),
        properties::stats("Counters since the start"),
    ]);
    list.extend(TierSettings::properties());
    list
}

impl Settings {
    fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) {
        if self.broker.set(value, pspec) || self.tiers.set(value, pspec) {
            return;
        }
        let text = || value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty());
        let number = || value.get::<u32>().unwrap_or_default();
        let large = || value.get::<u64>().unwrap_or_default();
        match pspec.name() {
            "location" => self.location = text().map_or_else(|| "recordings".into(), PathBuf::from),
            "catalog" => self.catalog = text().map(PathBuf::from),
            "volume-id" => self.volume_id = text(),
            "source-id" => self.source_id = number(),
            "mode" => self.mode = value.get().unwrap_or_default(),
            "listen" => self.listen = value.get().unwrap_or_default(),
            "segment-duration" => self.segment_duration = number(),
            "fragment-duration" => self.fragment_duration = number(),
            "sync" => self.sync = value.get().unwrap_or(true),
            "pre-buffer" => self.pre_buffer = number(),
            "post-buffer" => self.post_buffer = number(),
            "buffer-bytes" => self.buffer_bytes = large(),
            "max-age" => self.max_age = large(),
            "events-max-age" => self.events_max_age = large(),
            "max-bytes" => self.max_bytes = large(),
            "clips-max-bytes" => self.clips_max_bytes = large(),
            "min-free" => self.min_free = large(),
            name => gst::error!(CAT, "no property {name} to set"),
        }
    }

    fn get(&self, pspec: &glib::ParamSpec) -> glib::Value {
        if let Some(value) = self.broker.get(pspec).or_else(|| self.tiers.get(pspec)) {
            return value;
        }
        match pspec.name() {
            "location" => self.location.display().to_string().to_value(),
            "catalog" => self.catalog.as_ref().map(|path| path.display().to_string()).to_value(),
            "volume-id" => self.volume_id.to_value(),
            "source-id" => self.source_id.to_value(),
            "mode" => self.mode.to_value(),
            "listen" => self.listen.to_value(),
            "segment-duration" => self.segment_duration.to_value(),
            "fragment-duration" => self.fragment_duration.to_value(),
            "sync" => self.sync.to_value(),
            "pre-buffer" => self.pre_buffer.to_value(),
            "post-buffer" => self.post_buffer.to_value(),
            "buffer-bytes" => self.buffer_bytes.to_value(),
            "max-age" => self.max_age.to_value(),
            "events-max-age" => self.events_max_age.to_value(),
            "max-bytes" => self.max_bytes.to_value(),
            "clips-max-bytes" => self.clips_max_bytes.to_value(),
            "min-free" => self.min_free.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for NvrRecordSink {}

impl ElementImpl for NvrRecordSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR recorder",
                "Sink/File/Video",
                "Records coded video and audio into segments that play at any moment, and catalogues them",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let video = template("video", gst::PadPresence::Always, &video_caps());
            let audio = template("audio", gst::PadPresence::Request, &audio_caps());
            let frames = template(FRAMES, gst::PadPresence::Request, &frames_caps());
            [video, audio, frames].into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        templ: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let obj = self.obj();
        let name = templ.name_template();
        if obj.static_pad(name).is_some() {
            gst::warning!(CAT, imp = self, "there is a pad {name} already");
            return None;
        }
        let pad = if name == FRAMES { frames_pad(templ) } else { sink_pad(templ, Medium::Audio) };
        // Below PAUSED, pads are activated together with the element.
        if obj.current_state() >= gst::State::Paused && pad.set_active(true).is_err() {
            return None;
        }
        obj.add_pad(&pad).ok()?;
        self.count_pads();
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        // Going down does not fail for this pad, and nothing could be done about it.
        let _ = pad.set_active(false);
        let _ = self.obj().remove_pad(pad);
        self.count_pads();
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused
            && let Err(message) = self.start()
        {
            self.post_error_message(message);
            return Err(gst::StateChangeError);
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::PausedToReady {
            self.stop();
        }
        result
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        // Nothing here waits for a clock: what is before decides.
        self.video.peer_query(query)
    }
}

impl NvrRecordSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        settings.tiers.check().map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ["{error}"]))?;
        let shared = Arc::new(Shared {
            settings: Mutex::new(settings.clone()),
            tally: Arc::new(Tally::told_by(Voice(self.obj().downgrade()))),
            ..Shared::default()
        });
        shared.has_frames.store(self.obj().static_pad(FRAMES).is_some(), Ordering::Relaxed);
        if shared.listens(&settings) {
            // Wrong settings are an error now; what the broker does later is none.
            settings.broker.resolve().map_err(|error| {
                gst::error_msg!(gst::ResourceError::Settings, ["the recorder cannot listen: {error}"])
            })?;
        }
        let worker = Worker::new(shared.clone(), self.obj().downgrade());
        let thread = thread::Builder::new()
            .name(format!("nvr-record-{}", settings.source_id))
            .spawn(move || worker.run())
            .map_err(|error| {
                gst::error_msg!(gst::ResourceError::Failed, ["no thread to write with: {error}"])
            })?;
        *self.last.lock() = Some(shared.clone());
        *self.state.lock() = State { worker: Some(thread), shared: Some(shared), ..State::default() };
        Ok(())
    }

    fn stop(&self) {
        let State { worker, shared, .. } = std::mem::take(&mut *self.state.lock());
        let (Some(worker), Some(shared)) = (worker, shared) else { return };
        shared.inbox.close();
        let deadline = Instant::now() + PATIENCE;
        while !worker.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        if !worker.is_finished() {
            gst::warning!(
                CAT,
                imp = self,
                "the disk does not answer; the recording is closed in the background"
            );
        } else if worker.join().is_err() {
            gst::error!(
                CAT,
                imp = self,
                "the writing thread panicked; the last segment is repaired at the next start"
            );
        }
    }

    fn chain(&self, medium: Medium, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let flags = buffer.flags();
        let (shared, unit) = {
            let mut state = self.state.lock();
            let Some(shared) = state.shared.clone() else { return Err(gst::FlowError::Flushing) };
            let input = match medium {
                Medium::Video => &mut state.video,
                Medium::Audio => &mut state.audio,
            };
            let Some(pts) = buffer.pts().or(buffer.dts()) else { return Ok(gst::FlowSuccess::Ok) };
            let running = |time: gst::ClockTime| match &input.segment {
                Some(segment) => segment.to_running_time_full(time).map_or(0, signed),
                None => nanoseconds(time),
            };
            let pts_ns = running(pts);
            let dts_ns = buffer.dts().map_or(pts_ns, running);
            let gap = std::mem::take(&mut input.gap);
            (shared, (pts_ns, dts_ns, gap))
        };
        let (pts_ns, dts_ns, gap) = unit;
        if medium == Medium::Video {
            shared.counters.received.fetch_add(1, Ordering::Relaxed);
        }
        let unit = Unit {
            capture: self.capture(&buffer, pts_ns),
            medium,
            pts_ns,
            dts_ns,
            key: medium == Medium::Video && !flags.contains(gst::BufferFlags::DELTA_UNIT),
            gap,
            buffer,
        };
        shared.inbox.put(Item::Unit(unit), QUEUE_BYTES);
        Ok(gst::FlowSuccess::Ok)
    }

    /// Notes what others have found out about a picture. Nothing here may hurt those who look.
    fn look(&self, buffer: &gst::BufferRef) {
        let (shared, at_ns) = {
            let state = self.state.lock();
            let (Some(shared), Some(pts)) = (state.shared.clone(), buffer.pts()) else { return };
            let running = state.frames.segment.as_ref().and_then(|s| s.to_running_time_full(pts));
            (shared, running.map_or_else(|| nanoseconds(pts), signed))
        };
        shared.counters.looked_at.fetch_add(1, Ordering::Relaxed);
        shared.inbox.notice(Notice::read(buffer, at_ns));
    }

    /// What the element and its thread share while it runs.
    pub fn running(&self) -> Option<Arc<Shared>> {
        self.state.lock().shared.clone()
    }

    fn count_pads(&self) {
        let has_frames = self.obj().static_pad(FRAMES).is_some();
        if let Some(shared) = self.running() {
            shared.has_frames.store(has_frames, Ordering::Relaxed);
            shared.inbox.wake();
        }
    }

    /// When the picture was taken: as the source says, else when it came.
    fn capture(&self, buffer: &gst::BufferRef, pts_ns: i64) -> CaptureTime {
        meta::facts(buffer).capture.unwrap_or_else(|| {
            let now_ns = now_us().max(0) as u64 * 1000;
            let running = self.obj().current_running_time().map(|time| time.nseconds() as i64);
            // More than a minute apart is a file that is read at once, not a camera.
            let age = running.map_or(0, |running| running - pts_ns).clamp(0, 60_000_000_000);
            CaptureTime { unix_ns: now_ns - age as u64, clock: Clock::Arrival }
        })
    }

    fn sink_event(&self, pad: &gst::Pad, medium: Medium, event: gst::Event) -> bool {
        let mut state = self.state.lock();
        let shared = state.shared.clone();
        let input = match medium {
            Medium::Video => &mut state.video,
            Medium::Audio => &mut state.audio,
        };
        let item = match event.view() {
            gst::EventView::Segment(segment) => {
                input.segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
                None
            }
            gst::EventView::FlushStop(_) => {
                input.gap = true;
                None
            }
            gst::EventView::Caps(caps) => Some(Item::Caps(medium, caps.caps_owned())),
            // Sound may end when it likes.
            gst::EventView::Eos(_) if medium == Medium::Video => Some(Item::End(event.seqnum())),
            _ => None,
        };
        drop(state);
        if let (Some(shared), Some(item)) = (shared, item) {
            let ends = matches!(item, Item::End(_));
            shared.inbox.put(item, QUEUE_BYTES);
            if ends {
                shared.inbox.wake();
            }
            return true;
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn stats(&self) -> gst::Structure {
        let shared = self.last.lock().clone().unwrap_or_default();
        let counters = &shared.counters;
        let report = self.report();
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let tiers = shared.tally.tiers();
        let failing: Vec<_> =
            tiers.iter().filter(|tier| tier.error.is_some()).map(|tier| tier.tier).collect();
        gst::Structure::builder("nvr-record-sink-stats")
            .field("received", get(&counters.received))
            .field("written", get(&counters.written))
            .field("lost", get(&counters.lost))
            .field("dropped", shared.inbox.dropped())
            .field("bytes", get(&counters.bytes))
            .field("segments", get(&counters.segments))
            .field("errors", get(&counters.errors))
            .field("events", get(&counters.events))
            .field("looked-at", get(&counters.looked_at))
            .field("clips", get(&counters.clips))
            .field("state", report.doing.name())
            .field("reason", report.reason.map_or("", Reason::name))
            .field("buffered", get(&counters.buffered))
            .field("recording", counters.recording.load(Ordering::Relaxed))
            .field("moved", get(&shared.tally.moved))
            .field("move-errors", get(&shared.tally.failed))
            .field("failing-tiers", failing.join(","))
            .build()
    }
}

fn signed(time: gst::Signed<gst::ClockTime>) -> i64 {
    match time {
        gst::Signed::Positive(time) => nanoseconds(time),
        gst::Signed::Negative(time) => -nanoseconds(time),
    }
}

/// Far from where sums and differences overflow; no camera runs for seventy years.
fn nanoseconds(time: gst::ClockTime) -> i64 {
    time.nseconds().min(1 << 61) as i64
}
