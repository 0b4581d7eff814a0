//! # nvrmqttsink
//!
//! Publishes one event per analysed frame to `{topic-prefix}/detections/{source-id}` of an MQTT broker. It reads the
//! metadata of the buffers only and never their memory, so it takes any caps, from any decoder.
//!
//! A frame becomes an event where `nvrinfer` has looked at it (`publish=all` also where nothing was found) and
//! where any other element has attached detections, as `GstVideoRegionOfInterestMeta` or, with feature
//! `analytics`, `GstAnalyticsRelationMeta`; the `model_id` of those is `external`. Frames that only pass are not
//! events. `timestamp` is the capture time that the source found, else that of the frame's arrival, computed from
//! its running time.
//!
//! The broker never holds up the video: it may be absent at the start, vanish and come back. Events wait in
//! a queue that drops its oldest when it is full; with `spool` and `qos=1` those that the broker has not confirmed
//! wait on disk instead, in `{spool}/source-{source-id}`, over a restart too, and are sent in order when it is
//! back. One warning message per outage says what is wrong. At EOS and at the end the sink waits for the queue, for
//! 2 seconds at most.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 nvrtestsrc num-buffers=100 ! nvrmqttsink broker=mqtt://localhost:1883 source-id=0
//! ```
//!
//! Property `stats` (structure `nvr-mqtt-sink-stats`): `frames` that came, `events` made of them, `published`,
//! `acknowledged` (QoS 1), `dropped`, `retransmitted`, `bytes`, `queued`, `reconnects`, `connected`, after the first
//! event `latency-ms` (capture to publication of the last one) and, with a spool,
//! `spooled`, `replayed`, `spool-messages`, `spool-bytes`, `spool-dropped`.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use nvr_core::detection::{CaptureTime, Clock};
use nvr_core::event::{Encoding, Frame};
use nvr_core::rate::RateMeter;
use nvr_core::topic;
use parking_lot::Mutex;

use super::outlet::Outlet;
use super::spooler::{Spooler, Totals};
use super::{Payload, Publish};
use crate::mqtt::{self, BrokerSettings, Message, Publisher, QoS, Stats};
use crate::{in_place, meta, properties};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrmqttsink", gst::DebugColorFlags::empty(), Some("NVR MQTT event sink"))
});

/// How long EOS and the end wait for the broker.
const DRAIN: Duration = Duration::from_secs(2);
/// The model of detections that other elements attached.
const EXTERNAL: &str = "external";

const DEFAULT_QUEUE_SIZE: u32 = 1000;
const DEFAULT_SPOOL_MAX_BYTES: u64 = 64 << 20;

/// What the user asked for.
#[derive(Clone)]
struct Settings {
    broker: BrokerSettings,
    source_id: u32,
    instance_id: Arc<str>,
    qos: u32,
    payload: Payload,
    publish: Publish,
    enabled: bool,
    queue_size: u32,
    spool: Option<PathBuf>,
    spool_max_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: BrokerSettings::default(),
            source_id: 0,
            instance_id: mqtt::default_instance_id().into(),
            qos: 0,
            payload: Payload::default(),
            publish: Publish::default(),
            enabled: true,
            queue_size: DEFAULT_QUEUE_SIZE,
            spool: None,
            spool_max_bytes: DEFAULT_SPOOL_MAX_BYTES,
        }
    }
}

/// What the stream is doing.
struct State {
    outlet: Arc<Outlet>,
    topic: Arc<str>,
    source_id: u32,
    qos: QoS,
    /// Of the frame in pixels, from the caps; 0 where they do not say.
    width: u32,
    height: u32,
    frames: u64,
    events: u64,
    rate: RateMeter,
    started: Instant,
    /// Size of the last event: the next is about as large.
    size: usize,
    /// Capture to publication of the last event.
    latency_ms: Option<f64>,
}

/// What is left of a run once it has ended.
#[derive(Clone, Copy, Default)]
struct Counters {
    frames: u64,
    events: u64,
    stats: Stats,
    spool: Option<Totals>,
}

/// Lock order: none is taken while another is held.
#[derive(Default)]
pub struct NvrMqttSink {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    last: Mutex<Counters>,
}

#[glib::object_subclass]
impl ObjectSubclass for NvrMqttSink {
    const NAME: &'static str = "NvrMqttSink";
    type Type = super::NvrMqttSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for NvrMqttSink {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_sync(false);
        obj.set_async(false);
        // The last frame would keep a decoder's buffer for nothing.
        obj.set_enable_last_sample(false);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut list = BrokerSettings::properties();
            list.extend([
                properties::source_id("Number of the camera: the last part of the topic"),
                properties::instance_id(),
                glib::ParamSpecUInt::builder("qos")
                    .nick("QoS")
                    .blurb("MQTT quality of service: 0 at most once, 1 at least once")
                    .maximum(1)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<Payload>("payload")
                    .nick("Payload")
                    .blurb("How events are written")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder::<Publish>("publish")
                    .nick("Publish")
                    .blurb("Which analysed frames become events")
                    .mutable_playing()
                    .build(),
                properties::switch(
                    "enabled",
                    "Enabled",
                    "Publish events; while this is off, frames are counted and nothing else",
                    true,
                ),
                glib::ParamSpecUInt::builder("queue-size")
                    .nick("Queue size")
                    .blurb("Events that wait for the broker; a full queue drops its oldest")
                    .minimum(1)
                    .maximum(1_000_000)
                    .default_value(DEFAULT_QUEUE_SIZE)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("spool")
                    .nick("Spool")
                    .blurb("Directory that keeps QoS 1 events while the broker is away (default: none)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("spool-max-bytes")
                    .nick("Spool size")
                    .blurb("Bytes that the spool may take; a full spool drops its oldest events")
                    .minimum(64 << 10)
                    .default_value(DEFAULT_SPOOL_MAX_BYTES)
                    .mutable_ready()
                    .build(),
                properties::stats("Counters since the start"),
            ]);
            list
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock();
        if settings.broker.set(value, pspec) {
            return;
        }
        let text = || value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty());
        match pspec.name() {
            "source-id" => settings.source_id = value.get().unwrap_or_default(),
            "instance-id" => {
                let id = text().unwrap_or_else(|| mqtt::default_instance_id().into());
                match topic::check_instance_id(&id) {
                    Ok(()) => settings.instance_id = id.into(),
                    Err(error) => gst::error!(CAT, imp = self, "{error}; keeping {:?}", settings.instance_id),
                }
            }
            "qos" => settings.qos = value.get().unwrap_or_default(),
            "payload" => settings.payload = value.get().unwrap_or_default(),
            "publish" => settings.publish = value.get().unwrap_or_default(),
            "enabled" => settings.enabled = value.get().unwrap_or(true),
            "queue-size" => settings.queue_size = value.get().unwrap_or(DEFAULT_QUEUE_SIZE),
            "spool" => settings.spool = text().map(PathBuf::from),
            "spool-max-bytes" => settings.spool_max_bytes = value.get().unwrap_or(DEFAULT_SPOOL_MAX_BYTES),
            name => gst::error!(CAT, imp = self, "no property {name} to set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let settings = self.settings.lock();
        if let Some(value) = settings.broker.get(pspec) {
            return value;
        }
        match pspec.name() {
            "source-id" => settings.source_id.to_value(),
            "instance-id" => (*settings.instance_id).to_value(),
            "qos" => settings.qos.to_value(),
            "payload" => settings.payload.to_value(),
            "publish" => settings.publish.to_value(),
            "enabled" => settings.enabled.to_value(),
            "queue-size" => settings.queue_size.to_value(),
            "spool" => settings.spool.as_ref().map(|path| path.display().to_string()).to_value(),
            "spool-max-bytes" => settings.spool_max_bytes.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl std::fmt::Debug for NvrMqttSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvrMqttSink").finish_non_exhaustive()
    }
}

impl GstObjectImpl for NvrMqttSink {}

impl ElementImpl for NvrMqttSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR MQTT event sink",
                "Sink/Network/Metadata",
                "Publishes detections as MQTT events",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &gst::Caps::new_any(),
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for NvrMqttSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let outlet = self.open(&settings)?;
        if settings.spool.is_some() && settings.qos == 0 {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                ("Property spool does nothing with qos=0: set qos=1 for events that outlast an outage")
            );
        }
        *self.last.lock() = Counters::default();
        *self.state.lock() = Some(State {
            outlet: Arc::new(outlet),
            topic: topic::detections(settings.broker.topic_prefix(), settings.source_id).into(),
            source_id: settings.source_id,
            qos: qos(settings.qos),
            width: 0,
            height: 0,
            frames: 0,
            events: 0,
            rate: RateMeter::default(),
            started: Instant::now(),
            size: 512,
            latency_ms: None,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let Some(state) = self.state.lock().take() else { return Ok(()) };
        state.outlet.interrupt(false);
        if !state.outlet.drain(DRAIN) {
            gst::warning!(CAT, imp = self, "the broker did not get every event");
        }
        state.outlet.close();
        let (stats, spool) = state.outlet.stats();
        let stats = Stats { connected: false, ..stats };
        *self.last.lock() = Counters { frames: state.frames, events: state.events, stats, spool };
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.interrupt(true);
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.interrupt(false);
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        if let Some(state) = &mut *self.state.lock() {
            (state.width, state.height) = in_place::frame_size(caps);
        }
        self.parent_set_caps(caps)
    }

    /// Says that padded strides are welcome, which saves decoders a copy: no frame is ever looked at.
    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        self.parent_propose_allocation(query)
    }

    fn event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Eos {
            let outlet = self.state.lock().as_ref().map(|state| state.outlet.clone());
            if outlet.is_some_and(|outlet| !outlet.drain(DRAIN)) {
                gst::warning!(CAT, imp = self, "the broker did not get every event before EOS");
            }
        }
        self.parent_event(event)
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (instance_id, payload, publish, enabled) = {
            let settings = self.settings.lock();
            (settings.instance_id.clone(), settings.payload, settings.publish, settings.enabled)
        };
        if !enabled {
            self.state.lock().as_mut().ok_or(gst::FlowError::Flushing)?.frames += 1;
            return Ok(gst::FlowSuccess::Ok);
        }
        let found = meta::read(buffer);
        let analysis = found.facts.analysis.as_ref();
        let wanted = (analysis.is_some() || !found.detections.is_empty())
            .then(|| publish == Publish::All || !found.detections.is_empty());
        let Some(plan) = self.plan(wanted)? else { return Ok(gst::FlowSuccess::Ok) };
        let zones = meta::zones(buffer);
        let times = self.times(buffer);
        let capture = analysis
            .and_then(|a| a.capture)
            .or(found.facts.capture)
            .unwrap_or(CaptureTime { unix_ns: times.arrival, clock: Clock::Arrival });
        let frame_id = analysis.and_then(|a| a.frame_id).or(found.facts.frame_id);
        let latency_ms = (i128::from(times.now) - i128::from(capture.unix_ns)) as f64 / 1e6;
        let frame = Frame {
            instance_id: &instance_id,
            source_id: plan.source_id,
            frame_id: frame_id.unwrap_or(plan.number),
            capture,
            model_id: analysis.map_or(EXTERNAL, |a| &a.model_id),
            inference_time_ms: analysis.map_or(0.0, |a| a.inference_time_ms),
            width: plan.width,
            height: plan.height,
            detections: &found.detections,
            zones: zones.as_ref(),
            fps: plan.fps,
            latency_ms: Some(latency_ms),
            stream_time_ns: times.stream,
        };
        let mut bytes = Vec::with_capacity(plan.size + plan.size / 4);
        if let Err(error) = frame.encode(encoding(payload), &mut bytes) {
            gst::error!(CAT, imp = self, "frame {}: {error}", plan.number);
            return Ok(gst::FlowSuccess::Ok);
        }
        if let Some(state) = &mut *self.state.lock() {
            state.size = bytes.len();
            state.latency_ms = Some(latency_ms);
            state.events += 1;
        }
        gst::trace!(CAT, imp = self, "{} bytes to {}", bytes.len(), plan.topic);
        plan.outlet.publish(Message::new(&plan.topic, bytes, plan.qos, false, 0));
        Ok(gst::FlowSuccess::Ok)
    }
}

/// What an event is made with, taken from the state so that it is written without a lock.
struct Plan {
    outlet: Arc<Outlet>,
    topic: Arc<str>,
    source_id: u32,
    qos: QoS,
    width: u32,
    height: u32,
    /// Of the frame here.
    number: u64,
    fps: Option<f64>,
    /// Bytes that the last event had.
    size: usize,
}

/// Nanoseconds; `now` and `arrival` since the Unix epoch.
struct Times {
    now: u64,
    arrival: u64,
    stream: Option<u64>,
}

/// Whether an element is part of a pipeline, and not of a branch that was taken out of one and hangs.
fn is_in_pipeline(object: &gst::Object) -> bool {
    let mut top = object.clone();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    top.is::<gst::Pipeline>()
}

impl NvrMqttSink {
    fn open(&self, settings: &Settings) -> Result<Outlet, gst::ErrorMessage> {
        let invalid =
            |error: &dyn std::fmt::Display| gst::error_msg!(gst::ResourceError::Settings, ("{error}"));
        let options = settings.broker.resolve().map_err(|error| invalid(&error))?;
        let weak = self.obj().downgrade();
        let report = move |text: &str| {
            if let Some(element) = weak.upgrade() {
                gst::element_imp_warning!(element.imp(), gst::ResourceError::Write, ("{text}"));
            }
        };
        let capacity = settings.queue_size as usize;
        if let Some(spool) = settings.spool.as_ref().filter(|_| settings.qos == 1) {
            let directory = spool.join(format!("source-{}", settings.source_id));
            let weak = self.obj().downgrade();
            let is_abandoned =
                move || weak.upgrade().is_none_or(|element| !is_in_pipeline(element.upcast_ref()));
            let max_bytes = settings.spool_max_bytes;
            let spooler = Spooler::open(&options, capacity, &directory, max_bytes, report, is_abandoned);
            return Ok(Outlet::Spooled(spooler.map_err(|error| invalid(&error))?));
        }
        let publisher = Publisher::open(&options, capacity, move |notice| {
            if let Some(why) = notice.trouble() {
                report(why);
            }
        });
        Ok(Outlet::Direct(publisher.map_err(|error| invalid(&error))?))
    }

    /// Counts a frame. `wanted`: whether an analysed one becomes an event; `None` for one that only passes.
    fn plan(&self, wanted: Option<bool>) -> Result<Option<Plan>, gst::FlowError> {
        let mut state = self.state.lock();
        let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
        let number = state.frames;
        state.frames += 1;
        let Some(wanted) = wanted else { return Ok(None) };
        let elapsed = state.started.elapsed().as_nanos() as u64;
        state.rate.add(elapsed);
        Ok(wanted.then(|| Plan {
            outlet: state.outlet.clone(),
            topic: state.topic.clone(),
            source_id: state.source_id,
            qos: state.qos,
            width: state.width,
            height: state.height,
            number,
            fps: state.rate.rate(elapsed),
            size: state.size,
        }))
    }

    fn interrupt(&self, interrupted: bool) {
        let outlet = self.state.lock().as_ref().map(|state| state.outlet.clone());
        if let Some(outlet) = outlet {
            outlet.interrupt(interrupted);
        }
    }

    fn times(&self, buffer: &gst::Buffer) -> Times {
        let obj = self.obj();
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let segment = obj.segment();
        let segment = segment.downcast_ref::<gst::ClockTime>();
        let (running, stream) = match (segment, buffer.pts()) {
            (Some(segment), Some(pts)) => (segment.to_running_time(pts), segment.to_stream_time(pts)),
            _ => (None, None),
        };
        // A file that is read faster than it plays has frames of the future: those have just arrived.
        let age = obj
            .current_running_time()
            .zip(running)
            .map_or(gst::ClockTime::ZERO, |(now, then)| now.saturating_sub(then));
        Times {
            now,
            arrival: now.saturating_sub(age.nseconds()),
            stream: stream.map(gst::ClockTime::nseconds),
        }
    }

    fn stats(&self) -> gst::Structure {
        let live = self.state.lock().as_ref().map(|state| {
            (
                Counters { frames: state.frames, events: state.events, ..Counters::default() },
                state.latency_ms,
                state.outlet.clone(),
            )
        });
        let (counters, latency_ms) = match live {
            Some((counters, latency_ms, outlet)) => {
                let (stats, spool) = outlet.stats();
                (Counters { stats, spool, ..counters }, latency_ms)
            }
            None => (*self.last.lock(), None),
        };
        let Counters { frames, events, stats, spool } = counters;
        let mut s = gst::Structure::builder("nvr-mqtt-sink-stats")
            .field("frames", frames)
            .field("events", events)
            .field("published", stats.published)
            .field("acknowledged", stats.acknowledged)
            .field("dropped", stats.dropped)
            .field("retransmitted", stats.retransmitted)
            .field("bytes", stats.bytes)
            .field("queued", stats.queued)
            .field("reconnects", stats.reconnects)
            .field("connected", stats.connected)
            .build();
        if let Some(latency_ms) = latency_ms {
            s.set("latency-ms", latency_ms);
        }
        if let Some(spool) = spool {
            s.set("spooled", spool.spooled);
            s.set("replayed", spool.replayed);
            s.set("spool-messages", spool.spool_messages);
            s.set("spool-bytes", spool.spool_bytes);
            s.set("spool-dropped", spool.spool_dropped);
        }
        s
    }
}

fn qos(level: u32) -> QoS {
    if level == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

fn encoding(payload: Payload) -> Encoding {
    match payload {
        Payload::Json => Encoding::Json,
        Payload::Msgpack => Encoding::Msgpack,
        Payload::DlStreamer => Encoding::DlStreamer,
    }
}
