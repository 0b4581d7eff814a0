//! # nvrsrc
//!
//! A camera as one element: it connects, decodes, and connects again for as long as it runs. Downstream sees one
//! live stream of pictures that pauses when the camera does; it never ends, fails or goes back in time because of
//! the camera.
//!
//! Every picture carries its number and its capture time (`NvrFrameFacts`): the camera's own clock where RTCP
//! sender reports or the source tell it and it is within 10 s of this machine's, else the time of arrival. The
//! number counts every picture that the camera sent in this run of the element, also those that were never decoded
//! and those that `max-fps` left out, so gaps in it are pictures that were not wanted or were lost.
//!
//! With `decode=auto`, a camera whose keyframes come at least `max-fps` times a second is decoded from keyframes
//! alone, and pictures to which no other refers are not decoded unless they are due.
//!
//! The pads `encoded` and `audio` exist once they are asked for, also while the element plays, and come from the same
//! connection: access units of the video as the camera sent them, in the form that what follows asks for, and its audio.
//! Both have the running time of `video`; a unit and the picture made of it carry the same number and capture time.
//! `encoded` begins with a keyframe after each connection and after each loss. Each has a queue and a thread of its
//! own: one that is slow loses its oldest units up to a keyframe (`encoded-dropped`), one that fails posts a warning
//! and is silent until it is linked anew, and neither holds up another. A camera is asked for audio only where the
//! pad is there when the connection is made; requesting it later therefore makes a new connection to an RTSP camera.
//!
//! Some cameras have no audio, and with `decode=none` there are no pictures: a sink behind a pad that may stay silent
//! needs `async=false`, since sinks of one pipeline wait for each other's first buffer.
//!
//! While a camera is away, a GAP event a second goes out of every pad that had something before, so that muxers and
//! mixers do not wait for it. The first buffer of a new connection is marked DISCONT, and its running time lies behind
//! all that was said before. Where the camera's timestamps jump by more than 10 s from the time of arrival, they are
//! moved back to it.
//!
//! With `receiver=auto`, cameras that send over TCP without TLS are received by one thread of the process, named
//! `nvr-receive`, with a tenth of the system calls of `rtspsrc` and none of its threads. There is no jitter buffer
//! then: `latency` is what downstream is told, so that a sink that keeps time waits for late pictures. With
//! `decode=none`, that thread looks at the socket 25 times a second and hands units straight on to a sink that never
//! waits, such as `nvrrecordsink`; else it does as soon as something comes, and the decoder has a thread of its own.
//! All other cameras, and those that answer this receiver with an error, are received by `rtspsrc`, until `uri`,
//! credentials or `receiver` change.
//!
//! Files are played at their own pace, as a camera would send them.
//!
//! Each connection is a pipeline of its own inside the element, made and taken down by one thread, which is why
//! neither its elements nor their errors appear in the pipeline around it.
//!
//! ## Messages
//!
//! Element message `nvr-source-state` at every change: `source-id` (guint), `state` (string: `connecting`,
//! `playing`, `stalled`, `unauthorised` or `lost`), `uri` (string, without user, password and other secrets),
//! `reason` (string, empty where there is none), and with `playing` the factory name of the `decoder` (string, absent
//! without one), `codec` (string, media type of the video), `audio` (string, media type, absent without audio) and
//! `receiver` (string, `light` or `rtspsrc`, absent for what is not RTSP).
//! One warning message marks the beginning of each outage.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 nvrsrc uri=rtsp://user:password@192.0.2.7/stream1 max-fps=5 ! videoconvert ! autovideosink
//! gst-launch-1.0 nvrsrc uri=file:///video/street.mp4 loop=true ! videoconvert ! autovideosink
//! gst-launch-1.0 -e nvrsrc uri=rtsp://192.0.2.7/stream1 decode=none name=cam cam.encoded ! mp4mux ! filesink location=cam.mp4
//! gst-launch-1.0 nvrsrc uri="testsrc://?seed=7&width=640&height=360" ! videoconvert ! autovideosink
//! ```

use std::{
    sync::{Arc, LazyLock, atomic::Ordering},
    thread,
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_rtsp::RTSPLowerTrans;
use parking_lot::Mutex;

use super::{
    Decode, Hwaccel, Receiver, TlsValidation,
    address::{self, Address},
    codec,
    flow::Flow,
    lane::{Kind, Lanes},
    pads,
    worker::{Mailbox, Status, Worker},
};

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrsrc", gst::DebugColorFlags::empty(), Some("NVR camera source"))
});

const DEFAULT_LATENCY: u32 = 100;
const DEFAULT_TIMEOUT: u32 = 10;
/// How long stopping waits for the connection to be closed; it is closed in the background after that.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What the user asked for.
#[derive(Clone)]
pub struct Settings {
    pub uri: String,
    pub source_id: u32,
    pub latency: u32,
    pub protocols: RTSPLowerTrans,
    pub hwaccel: Hwaccel,
    pub decode: Decode,
    pub max_fps: f64,
    pub timeout: u32,
    pub reconnect: bool,
    pub user_id: Option<String>,
    pub user_pw: Option<String>,
    pub r#loop: bool,
    pub tls_validation: TlsValidation,
    pub receiver: Receiver,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri: String::new(),
            source_id: 0,
            latency: DEFAULT_LATENCY,
            protocols: RTSPLowerTrans::TCP,
            hwaccel: Hwaccel::Auto,
            decode: Decode::Auto,
            max_fps: 0.0,
            timeout: DEFAULT_TIMEOUT,
            reconnect: true,
            user_id: None,
            user_pw: None,
            r#loop: false,
            tls_validation: TlsValidation::Full,
            receiver: Receiver::Auto,
        }
    }
}

/// What runs from PLAYING to READY. Taken down without waiting for ever: a thread that is left behind holds its own
/// `Flow`, which lets nothing through any more.
#[derive(Debug)]
pub struct Running {
    pub flow: Arc<Flow>,
    pub mailbox: Arc<Mailbox>,
    status: Arc<Mutex<Status>>,
}

/// Lock order: `running`, then the locks of `Flow`. `settings` is never held together with another, and none is held
/// over a call into other elements.
pub struct NvrSrc {
    srcpad: gst::Pad,
    settings: Arc<Mutex<Settings>>,
    pub running: Mutex<Option<Running>>,
    pub lanes: Arc<Lanes>,
}

impl NvrSrc {
    pub fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                let wanted = self.settings.lock().latency;
                let known = self.running.lock().as_ref().map(|r| r.flow.latency.load(Ordering::Relaxed));
                let min = known.filter(|known| *known > 0).map_or_else(
                    || gst::ClockTime::from_mseconds(wanted.into()),
                    gst::ClockTime::from_nseconds,
                );
                latency.set(true, min, gst::ClockTime::NONE);
                true
            }
            gst::QueryViewMut::Scheduling(scheduling) => {
                scheduling.set(gst::SchedulingFlags::SEQUENTIAL, 1, -1, 0);
                scheduling.add_scheduling_modes([gst::PadMode::Push]);
                true
            }
            gst::QueryViewMut::Seeking(seeking) => {
                let format = seeking.format();
                seeking.set(
                    false,
                    gst::GenericFormattedValue::none_for_format(format),
                    gst::GenericFormattedValue::none_for_format(format),
                );
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// Upstream events: there is one stream that can neither be sought nor paced from outside.
    fn src_event(&self, event: &gst::Event) -> bool {
        match event.view() {
            gst::EventView::Latency(_) => true,
            gst::EventView::Reconfigure(_) => {
                // What follows may be another now.
                if let Some(running) = self.running.lock().as_ref() {
                    running.flow.refused.store(false, Ordering::Relaxed);
                }
                true
            }
            _ => false,
        }
    }

    fn check(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        Address::parse(&settings.uri, settings.user_id.as_deref(), settings.user_pw.as_deref()).map_err(
            |error| gst::error_msg!(gst::ResourceError::NotFound, ["source {}: {error}", settings.source_id]),
        )?;
        if settings.decode == Decode::None {
            return Ok(());
        }
        codec::check(settings.hwaccel).map_err(|error| {
            gst::error_msg!(gst::CoreError::MissingPlugin, ["source {}: {error}", settings.source_id])
        })
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let mut running = self.running.lock();
        if let Some(running) = running.as_ref() {
            running.flow.touch();
            running.flow.playing.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let source_id = self.settings.lock().source_id;
        let flow = Arc::new(Flow::new(&self.obj(), self.srcpad.clone(), self.lanes.clone(), source_id));
        flow.playing.store(true, Ordering::Relaxed);
        let (mailbox, status) = (Arc::<Mailbox>::default(), Arc::<Mutex<Status>>::default());
        let worker = Worker::new(flow.clone(), mailbox.clone(), status.clone(), self.settings.clone());
        thread::Builder::new().name("nvrsrc".into()).spawn(move || worker.run()).map_err(|error| {
            gst::error_msg!(gst::ResourceError::NoSpaceLeft, ["no thread for the connection: {error}"])
        })?;
        *running = Some(Running { flow, mailbox, status });
        drop(running);
        self.apply_rates();
        Ok(())
    }

    fn pause(&self) {
        if let Some(running) = self.running.lock().as_ref() {
            running.flow.playing.store(false, Ordering::Relaxed);
        }
    }

    fn stop(&self) {
        let Some(running) = self.running.lock().take() else { return };
        running.flow.stopped.store(true, Ordering::Relaxed);
        running.mailbox.stop();
        if !running.mailbox.join(PATIENCE) {
            gst::info!(CAT, imp = self, "the connection takes long to close; that goes on in the background");
        }
    }

    fn apply_rates(&self) {
        let (max_fps, decode) = {
            let settings = self.settings.lock();
            (settings.max_fps, settings.decode)
        };
        if let Some(running) = self.running.lock().as_ref() {
            running.flow.set_rates(max_fps, decode);
        }
    }

    fn reconnect(&self) {
        if let Some(running) = self.running.lock().as_ref() {
            running.mailbox.reconnect();
        }
    }

    fn stats(&self) -> gst::Structure {
        let source_id = self.settings.lock().source_id;
        let now = self.obj().current_running_time();
        let running = self.running.lock();
        let builder = gst::Structure::builder("nvrsrc-stats").field("source-id", source_id);
        let Some(running) = running.as_ref() else { return builder.field("state", "stopped").build() };
        let (flow, status) = (&running.flow, running.status.lock().clone());
        let interval = flow.gate.lock().keyframe_interval();
        let rate = {
            let mut stream = flow.stream.lock();
            let now = stream.last_time.max(now).map_or(0, gst::ClockTime::nseconds);
            stream.meter.rate(now)
        };
        let counters = &flow.counters;
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut builder = builder;
        for lane in self.lanes.all() {
            let name = lane.kind.name();
            builder = builder
                .field(format!("{name}-delivered"), get(&lane.counters.delivered))
                .field(format!("{name}-dropped"), get(&lane.counters.dropped))
                .field(format!("{name}-queued"), lane.queued());
        }
        builder
            .field("state", status.state.as_str())
            .field("reason", status.reason)
            .field("decoder", status.decoder.unwrap_or_default())
            .field("codec", status.codec.unwrap_or_default())
            .field("audio", status.audio.unwrap_or_default())
            .field("receiver", status.receiver.unwrap_or_default())
            .field("units", get(&counters.units))
            .field("bytes", get(&counters.bytes))
            .field("skipped", get(&counters.skipped))
            .field("decoded", get(&counters.decoded))
            .field("dropped", get(&counters.dropped))
            .field("delivered", get(&counters.delivered))
            .field("clock-refused", get(&counters.clock_refused))
            .field("undecodable", get(&counters.undecodable))
            .field("late", get(&counters.late))
            .field("jumps", get(&counters.jumps))
            .field("connections", get(&counters.connections))
            .field("failures", get(&counters.failures))
            .field("decoded-fps", rate.unwrap_or_default())
            .field("keyframe-interval", interval.map_or(0.0, |ns| ns as f64 / 1e9))
            .build()
    }
}

impl std::fmt::Debug for NvrSrc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The settings hold a password.
        f.debug_struct("NvrSrc").finish_non_exhaustive()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for NvrSrc {
    const NAME: &'static str = "GstNvrSrc";
    type Type = super::NvrSrc;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let template = klass.pad_template("video").expect("declared below");
        let srcpad = gst::Pad::builder_from_template(&template)
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |src| src.src_query(pad, query))
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |src| src.src_event(&event))
            })
            .build();
        Self { srcpad, settings: Arc::default(), running: Mutex::default(), lanes: Arc::default() }
    }
}

impl ObjectImpl for NvrSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("uri")
                    .nick("URI")
                    .blurb(
                        "Where the camera is: rtsp, rtsps, http, https, file or testsrc. User and password may stand \
                         in it and are left out when it is read. A change while playing reconnects",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("source-id")
                    .nick("Source id")
                    .blurb("Number of the camera, for messages")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("latency")
                    .nick("Latency")
                    .blurb("Milliseconds that the network may delay packets; a change applies from the next connection on")
                    .default_value(DEFAULT_LATENCY)
                    .maximum(60_000)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecFlags::builder::<RTSPLowerTrans>("protocols")
                    .nick("Protocols")
                    .blurb("Transports to try for RTSP; a change applies from the next connection on")
                    .default_value(RTSPLowerTrans::TCP)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder::<Hwaccel>("hwaccel")
                    .nick("Hardware acceleration")
                    .blurb("Which decoders may be used; one that is asked for and absent is an error")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<Decode>("decode")
                    .nick("Decode")
                    .blurb("Which pictures reach the decoder; a change from or to none while playing reconnects")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecDouble::builder("max-fps")
                    .nick("Maximum rate")
                    .blurb("Pictures per second that are handed on, evenly spaced; 0 hands on every one")
                    .minimum(0.0)
                    .maximum(1000.0)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("timeout")
                    .nick("Timeout")
                    .blurb(
                        "Seconds without media, or with media of which no picture comes out of the decoder, after \
                         which the camera counts as dead; 0 for never",
                    )
                    .default_value(DEFAULT_TIMEOUT)
                    .maximum(3600)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("reconnect")
                    .nick("Reconnect")
                    .blurb("Connect again for ever; else a lost camera is an error and an ended stream is its end")
                    .default_value(true)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("user-id")
                    .nick("User")
                    .blurb("User name; wins over the one in uri. A change while playing reconnects")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("user-pw")
                    .nick("Password")
                    .blurb("Password; wins over the one in uri. Cannot be read. A change while playing reconnects")
                    .write_only()
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("loop")
                    .nick("Loop")
                    .blurb("Play a file again when it is over")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder::<TlsValidation>("tls-validation")
                    .nick("TLS validation")
                    .blurb(
                        "How the certificate of an rtsps or https camera is checked. A change while playing reconnects",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder::<Receiver>("receiver")
                    .nick("Receiver")
                    .blurb("What receives RTSP. A change while playing reconnects")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("State of the connection and counters since the element was started")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let decoded;
        {
            let mut settings = self.settings.lock();
            decoded = settings.decode != Decode::None;
            // GObject has checked type and range.
            match pspec.name() {
                "uri" => settings.uri = value.get::<Option<String>>().unwrap_or_default().unwrap_or_default(),
                "source-id" => settings.source_id = value.get().unwrap_or_default(),
                "latency" => settings.latency = value.get().unwrap_or(DEFAULT_LATENCY),
                "protocols" => settings.protocols = value.get().unwrap_or(RTSPLowerTrans::TCP),
                "hwaccel" => settings.hwaccel = value.get().unwrap_or_default(),
                "decode" => settings.decode = value.get().unwrap_or_default(),
                "max-fps" => settings.max_fps = value.get().unwrap_or_default(),
                "timeout" => settings.timeout = value.get().unwrap_or(DEFAULT_TIMEOUT),
                "reconnect" => settings.reconnect = value.get().unwrap_or(true),
                "user-id" => settings.user_id = value.get().unwrap_or_default(),
                "user-pw" => settings.user_pw = value.get().unwrap_or_default(),
                "loop" => settings.r#loop = value.get().unwrap_or_default(),
                "tls-validation" => settings.tls_validation = value.get().unwrap_or_default(),
                "receiver" => settings.receiver = value.get().unwrap_or_default(),
                _ => {}
            }
        }
        match pspec.name() {
            "uri" | "user-id" | "user-pw" | "tls-validation" | "receiver" => self.reconnect(),
            "max-fps" => self.apply_rates(),
            "decode" => {
                self.apply_rates();
                if decoded != (self.settings.lock().decode != Decode::None) {
                    self.reconnect();
                }
            }
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let settings = self.settings.lock();
        match pspec.name() {
            "uri" => address::redact(&settings.uri).to_value(),
            "source-id" => settings.source_id.to_value(),
            "latency" => settings.latency.to_value(),
            "protocols" => settings.protocols.to_value(),
            "hwaccel" => settings.hwaccel.to_value(),
            "decode" => settings.decode.to_value(),
            "max-fps" => settings.max_fps.to_value(),
            "timeout" => settings.timeout.to_value(),
            "reconnect" => settings.reconnect.to_value(),
            "user-id" => settings.user_id.to_value(),
            "loop" => settings.r#loop.to_value(),
            "tls-validation" => settings.tls_validation.to_value(),
            "receiver" => settings.receiver.to_value(),
            // GObject asks for nothing that is not declared readable.
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_element_flags(gst::ElementFlags::SOURCE);

        // A fresh element has no pad that this could clash with.
        let _ = obj.add_pad(&self.srcpad);
    }
}

impl GstObjectImpl for NvrSrc {}

impl ElementImpl for NvrSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR camera source",
                "Source/Network/Video",
                "Pictures, coded video and audio of an IP camera, a file or the test source; connects again for ever",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(pads::templates);
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let kind = Kind::of(template.name_template())?;
        let pad = pads::request(&self.obj(), template, kind, &self.lanes)?;
        if kind == Kind::Audio
            && let Some(running) = self.running.lock().as_ref()
        {
            running.mailbox.want_audio();
        }
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        pads::release(&self.obj(), pad, &self.lanes);
    }

    fn send_event(&self, event: gst::Event) -> bool {
        // Else it would end one pad of several, whichever comes first.
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        let running = self.running.lock();
        running.as_ref().inspect(|running| running.mailbox.end()).is_some()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let posted = |result: Result<(), gst::ErrorMessage>| {
            result.map_err(|error| {
                self.post_error_message(error);
                gst::StateChangeError
            })
        };
        match transition {
            gst::StateChange::ReadyToPaused => posted(self.check())?,
            gst::StateChange::PausedToPlaying => posted(self.start())?,
            gst::StateChange::PlayingToPaused => self.pause(),
            gst::StateChange::PausedToReady => {
                if let Some(running) = self.running.lock().as_ref() {
                    running.flow.stopped.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused => {
                return Ok(gst::StateChangeSuccess::NoPreroll);
            }
            _ => {}
        }
        Ok(success)
    }
}
