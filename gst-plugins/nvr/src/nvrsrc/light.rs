//! Receives RTSP over TCP for those who only want the coded stream. One thread serves all cameras of the process and
//! looks at their sockets 25 times a second, so that neither a packet nor a picture costs a wake-up or a hand-over
//! between threads. Nothing that follows may wait: there must be no decoder.
//!
//! What this cannot do (UDP, TLS, other codecs) is left to `rtspsrc`.

use std::{
    pin::Pin,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use futures_core::Stream as _;
use gst::{glib, prelude::*};
use nvr_core::{
    detection::{CaptureTime, Clock, FrameFacts},
    times::Skew,
};
use parking_lot::Mutex;
use retina::{
    client::{
        Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
        SessionOptions, SetupOptions, Stream,
    },
    codec::{AudioFrame, CodecItem, FrameFormat, ParametersRef, VideoFrame, aac},
};
use tokio::sync::{Notify, watch};

use super::{address::Remote, imp::CAT, session::Shared, worker::Report};
use crate::meta;

/// How long data may wait in the system's memory.
const TICK: Duration = Duration::from_millis(40);
/// How long closing a connection waits until the camera was told.
const TEARDOWN: Duration = Duration::from_millis(500);
/// Seconds from 1900, where NTP begins to count, to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;
/// As depayloaders give it: start codes, and parameter sets in front of every keyframe.
const FORM: FrameFormat = FrameFormat { aac_framing: aac::Framing::Raw, ..FrameFormat::SIMPLE };

/// The thread of all cameras.
struct Receiver {
    handle: tokio::runtime::Handle,
    cameras: AtomicUsize,
    wanted: Notify,
}

static RECEIVER: LazyLock<Option<Arc<Receiver>>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.inspect_err(|error| gst::error!(CAT, "nothing to receive with: {error}")).ok()?;
    let receiver = Arc::new(Receiver {
        handle: runtime.handle().clone(),
        cameras: AtomicUsize::new(0),
        wanted: Notify::new(),
    });
    let served = receiver.clone();
    let thread = thread::Builder::new().name("nvr-receive".into());
    thread.spawn(move || runtime.block_on(served.serve())).ok()?;
    Some(receiver)
});

impl Receiver {
    /// Sleeps while data gather, then has everything looked at.
    async fn serve(&self) {
        loop {
            if self.cameras.load(Ordering::Acquire) == 0 {
                self.wanted.notified().await;
            }
            thread::sleep(TICK);
            // The first one asks for what has come, the second one lets those run whom it concerns.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
    }
}

/// One camera that is being received.
struct Presence(Arc<Receiver>);

impl Presence {
    fn new(receiver: &Arc<Receiver>) -> Self {
        if receiver.cameras.fetch_add(1, Ordering::AcqRel) == 0 {
            receiver.wanted.notify_one();
        }
        Self(receiver.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.cameras.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection; ends when it is stopped.
#[derive(Debug)]
pub struct Connection {
    stop: watch::Sender<bool>,
    ended: Mutex<mpsc::Receiver<()>>,
    pads: Arc<Mutex<Vec<gst::Pad>>>,
}

/// Why a connection ended.
enum Trouble {
    Rtsp(retina::Error),
    /// Only `rtspsrc` can do this.
    Beyond(String),
    /// The camera ended the stream.
    Over,
    Stopped,
}

impl From<retina::Error> for Trouble {
    fn from(error: retina::Error) -> Self {
        Self::Rtsp(error)
    }
}

impl Connection {
    /// Begins to connect to `remote`; everything that becomes of it is reported to the worker.
    pub fn start(shared: &Arc<Shared>, remote: &Remote, audio: bool, outlet: &gst::Pad) -> Option<Self> {
        let receiver = RECEIVER.clone()?;
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = mpsc::channel();
        let pads = Arc::<Mutex<Vec<gst::Pad>>>::default();
        let camera = Camera {
            shared: Arc::downgrade(shared),
            outlet: outlet.downgrade(),
            remote: remote.clone(),
            audio,
            pads: pads.clone(),
            lanes: Vec::new(),
        };
        receiver.handle.spawn({
            let receiver = receiver.clone();
            async move {
                let presence = Presence::new(&receiver);
                camera.run(stopped).await;
                drop((presence, end));
            }
        });
        Some(Self { stop, ended: Mutex::new(ended), pads })
    }

    /// Ends the connection, in order where the camera answers soon.
    pub fn stop(&self) {
        for pad in self.pads.lock().drain(..) {
            // From here on what is pushed is refused.
            let _ = pad.set_active(false);
        }
        let _ = self.stop.send(true);
        // Nothing is ever sent: the other end is dropped.
        let _ = self.ended.lock().recv_timeout(TEARDOWN);
    }
}

/// One stream of a camera.
struct Lane {
    id: usize,
    pad: gst::Pad,
    scale: u64,
    skew: Skew,
    /// What a sender report said: nanoseconds since 1970, and the RTP time for it.
    report: Option<(u64, i64)>,
    discont: bool,
}

struct Camera {
    shared: Weak<Shared>,
    outlet: glib::WeakRef<gst::Pad>,
    remote: Remote,
    audio: bool,
    pads: Arc<Mutex<Vec<gst::Pad>>>,
    lanes: Vec<Lane>,
}

impl Camera {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let group = Arc::new(SessionGroup::default());
        let trouble = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => Trouble::Stopped,
            trouble = self.receive(&group) => trouble,
        };
        if let Some(shared) = self.shared.upgrade() {
            match trouble {
                Trouble::Stopped => {}
                Trouble::Over => shared.mailbox.report(shared.id, Report::End),
                Trouble::Beyond(reason) => shared.mailbox.report(shared.id, Report::Beyond(reason)),
                Trouble::Rtsp(error) => shared.mailbox.report(shared.id, failure(&error)),
            }
        }
        // The session has been dropped, and a task of its own says good-bye to the camera.
        let _ = tokio::time::timeout(TEARDOWN, group.await_teardown()).await;
    }

    /// Runs until something ends it.
    async fn receive(&mut self, group: &Arc<SessionGroup>) -> Trouble {
        match self.connect(group).await {
            Ok(mut session) => loop {
                let item = std::future::poll_fn(|cx| Pin::new(&mut session).poll_next(cx)).await;
                match item {
                    None => return Trouble::Over,
                    Some(Err(error)) => return error.into(),
                    Some(Ok(item)) => {
                        if let Err(trouble) = self.take(item) {
                            return trouble;
                        }
                    }
                }
            },
            Err(trouble) => trouble,
        }
    }

    async fn connect(&mut self, group: &Arc<SessionGroup>) -> Result<Demuxed, Trouble> {
        let url = self.remote.uri.parse().map_err(|error| Trouble::Beyond(format!("{error}")))?;
        let credentials = self.remote.user.clone().map(|username| Credentials {
            username,
            password: self.remote.password.clone().unwrap_or_default(),
        });
        let options = SessionOptions::default()
            .creds(credentials)
            .session_group(group.clone())
            .user_agent(concat!("nvrsrc/", env!("CARGO_PKG_VERSION")).to_owned());
        let mut session = Session::<Described>::describe(url, options).await?;
        let mut chosen = Vec::new();
        for media in ["video", "audio"] {
            let stream = session.streams().iter().position(|stream| stream.media() == media);
            let Some(id) = stream.filter(|_| media == "video" || self.audio) else { continue };
            chosen.push((id, Form::of(&session.streams()[id])?));
        }
        if !chosen.iter().any(|(_, form)| form.video) {
            return Err(Trouble::Beyond("no video in it".into()));
        }
        for (id, _) in &chosen {
            session.setup(*id, SetupOptions::default().frame_format(FORM)).await?;
        }
        let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let session = session.play(options).await?.demuxed()?;
        for (id, form) in chosen {
            self.open(id, &form)?;
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.no_more_pads();
        }
        Ok(session)
    }

    /// Makes the pad of a stream and has what follows built.
    fn open(&mut self, id: usize, form: &Form) -> Result<(), Trouble> {
        let (Some(shared), Some(outlet)) = (self.shared.upgrade(), self.outlet.upgrade()) else {
            return Err(Trouble::Stopped);
        };
        let pad = gst::Pad::builder(gst::PadDirection::Src).build();
        pad.set_active(true).map_err(|_| Trouble::Stopped)?;
        pad.push_event(gst::event::StreamStart::new(&format!("nvrsrc/{id}")));
        pad.push_event(gst::event::Caps::new(&form.caps));
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        self.pads.lock().push(pad.clone());
        shared.added(&outlet, &pad, false);
        let lane = Lane { id, pad, scale: form.scale, skew: Skew::default(), report: None, discont: true };
        self.lanes.push(lane);
        Ok(())
    }

    fn take(&mut self, item: CodecItem) -> Result<(), Trouble> {
        let Some(shared) = self.shared.upgrade() else { return Err(Trouble::Stopped) };
        match item {
            CodecItem::VideoFrame(frame) => self.video(&shared, frame),
            CodecItem::AudioFrame(frame) => self.audio(&shared, &frame),
            CodecItem::Rtcp(packet) => {
                let lane = self.lanes.iter_mut().find(|lane| lane.id == packet.stream_id());
                if let Some((lane, time)) = lane.zip(packet.rtp_timestamp()) {
                    let reports = packet.pkts().filter_map(|p| p.as_sender_report().ok().flatten());
                    for report in reports {
                        lane.report = unix_ns(report.ntp_timestamp().0).map(|unix| (unix, time.elapsed()));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn video(&mut self, shared: &Shared, frame: VideoFrame) -> Result<(), Trouble> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == frame.stream_id()) else {
            return Ok(());
        };
        lane.discont |= frame.loss() > 0;
        let received = frame.end_ctx().received();
        let (time, key) = (frame.timestamp().elapsed(), frame.is_random_access_point());
        lane.push(shared, gst::Buffer::from_mut_slice(frame.into_data()), time, received, key)
    }

    fn audio(&mut self, shared: &Shared, frame: &AudioFrame) -> Result<(), Trouble> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == frame.stream_id()) else {
            return Ok(());
        };
        lane.discont |= frame.loss() > 0;
        let received = frame.ctx().received();
        let buffer = gst::Buffer::from_slice(frame.data().to_vec());
        lane.push(shared, buffer, frame.timestamp().elapsed(), received, true)
    }
}

impl Lane {
    /// Hands a unit on with its running time, and with when it was taken where the camera says so.
    fn push(
        &mut self,
        shared: &Shared,
        mut buffer: gst::Buffer,
        rtp: i64,
        received: Instant,
        key: bool,
    ) -> Result<(), Trouble> {
        let now = shared.pipeline.upgrade().and_then(|pipeline| pipeline.current_running_time());
        // The first units of a pipeline that is still starting.
        let Some(now) = now else { return Ok(()) };
        let arrival = now.nseconds().saturating_sub(received.elapsed().as_nanos() as u64);
        let media = i128::from(rtp) * 1_000_000_000 / i128::from(self.scale);
        let placed = self.skew.place(media as i64, arrival);
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::from_nseconds(placed.time));
            if std::mem::take(&mut self.discont) || placed.jumped {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
            if !key {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            if let Some((unix_ns, at)) = self.report {
                let since = i128::from(rtp - at) * 1_000_000_000 / i128::from(self.scale);
                let unix_ns = unix_ns.saturating_add_signed(since as i64);
                let capture = Some(CaptureTime { unix_ns, clock: Clock::Ntp });
                meta::set_facts(buffer, &FrameFacts { capture, ..FrameFacts::default() });
            }
        }
        match self.pad.push(buffer) {
            Err(gst::FlowError::Flushing) => Err(Trouble::Stopped),
            // What follows says on the bus what is wrong.
            _ => Ok(()),
        }
    }
}

/// What a stream is for those that follow.
struct Form {
    caps: gst::Caps,
    scale: u64,
    video: bool,
}

impl Form {
    fn of(stream: &Stream) -> Result<Self, Trouble> {
        let rate = stream.clock_rate_hz();
        let units = |name: &str| {
            gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build()
        };
        let channels = stream.channels().map_or(1, |channels| i32::from(channels.get()));
        let sound = |name: &str| {
            gst::Caps::builder(name).field("rate", rate as i32).field("channels", channels).build()
        };
        let name = stream.encoding_name();
        let caps = match (stream.media(), name) {
            ("video", "h264") => units("video/x-h264"),
            ("video", "h265") => units("video/x-h265"),
            ("audio", "pcma") => sound("audio/x-alaw"),
            ("audio", "pcmu") => sound("audio/x-mulaw"),
            ("audio", "mpeg4-generic") => {
                let Some(ParametersRef::Audio(parameters)) = stream.parameters() else {
                    return Err(Trouble::Beyond("AAC without its configuration".into()));
                };
                let config = gst::Buffer::from_slice(parameters.extra_data().to_vec());
                let mut caps = sound("audio/mpeg");
                if let Some(s) = caps.make_mut().structure_mut(0) {
                    s.set("mpegversion", 4);
                    s.set("stream-format", "raw");
                    s.set("framed", true);
                    s.set("codec_data", config);
                }
                caps
            }
            (media, name) => return Err(Trouble::Beyond(format!("{media} of the kind {name}"))),
        };
        Ok(Self { caps, scale: u64::from(rate.max(1)), video: stream.media() == "video" })
    }
}

/// NTP time as nanoseconds since 1970.
fn unix_ns(ntp: u64) -> Option<u64> {
    let seconds = (ntp >> 32).checked_sub(NTP_EPOCH)?;
    Some(seconds * 1_000_000_000 + (((ntp & 0xffff_ffff) * 1_000_000_000) >> 32))
}

/// What the worker is told of an error: what it does next depends on it.
fn failure(error: &retina::Error) -> Report {
    let text = error.to_string();
    // Addresses and positions follow, for people debugging.
    let text = text.lines().next().unwrap_or_default();
    gst::debug!(CAT, "{error}");
    let error = match error.status_code() {
        Some(401 | 403) => glib::Error::new(gst::ResourceError::NotAuthorized, text),
        Some(404) => glib::Error::new(gst::ResourceError::NotFound, text),
        Some(_) => glib::Error::new(gst::ResourceError::Settings, text),
        None if text.contains("framing") || text.contains("Unsupported") => {
            glib::Error::new(gst::ResourceError::Settings, text)
        }
        None => glib::Error::new(gst::ResourceError::OpenRead, text),
    };
    Report::Error { error, detail: None, decoder: false, certificate: false }
}
