//! The thread that keeps the camera connected: it builds a connection, watches it, takes it down and waits before
//! the next attempt. Only this thread changes the state of what is inside the element.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use gst::prelude::*;
use nvr_core::backoff::Backoff;
use parking_lot::{Condvar, Mutex};

use super::{
    Decode, Hwaccel, NvrSrc, Receiver, TlsValidation,
    address::{self, Address},
    flow::{Counters, Flow},
    imp::{CAT, Settings},
    lane::Kind,
    session::{Plan, Session},
};

/// Refusals of the credentials before the camera is left alone: many cameras lock an account after five.
const REFUSALS: u32 = 2;
/// How long a camera that refused the credentials twice is left alone, unless they change. Some refuse everybody
/// while they start, and none locks an account for one attempt an hour.
const LEAVE_ALONE: Duration = Duration::from_hours(1);
/// A camera that never sends a keyframe may still be decodable, and takes longer until it is.
const UNKEYED: u32 = 6;
/// How often it is said that the camera is away, and how often the watchdogs look at what has no deadline.
const TICK: Duration = Duration::from_secs(1);
/// Reports that wait for the worker; more of them say nothing new.
const REPORTS: usize = 64;
/// A connection that lasted this long has proven itself.
const PROVEN: Duration = Duration::from_secs(10);

/// What a connection reports.
#[derive(Clone, Debug)]
pub enum Report {
    /// Another stream of the camera was found.
    Found,
    /// The first access unit is there.
    Media,
    /// The first picture is there.
    Picture,
    /// An element failed. `decoder`: it is one; `certificate`: because the camera's certificate is not trusted.
    Error { error: gst::glib::Error, detail: Option<String>, decoder: bool, certificate: bool },
    /// Nothing that could be decoded was found.
    Unusable(String),
    /// The camera ended the stream, or the file is over.
    End,
    /// Downstream refused a picture, and nobody else is served.
    Downstream(gst::FlowError),
    /// Downstream refused a picture; other pads go on.
    Refused(gst::FlowError),
    /// The light receiver cannot do this; or it should have, and the fault is ours.
    Beyond { reason: String, fault: bool },
}

/// How the element and the connections talk to the worker.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<Orders>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    stop: bool,
    /// The application wants the stream to end, as `gst-launch-1.0 -e` does.
    end: bool,
    /// Settings have changed that need a new connection.
    reconnect: bool,
    /// The pad for audio was requested.
    audio: bool,
    finished: bool,
    reports: VecDeque<(u64, Report)>,
}

enum Wake {
    Stop,
    End,
    Reconnect,
    Audio,
    Report(u64, Report),
    Time,
}

impl Mailbox {
    pub fn report(&self, session: u64, report: Report) {
        {
            let mut state = self.state.lock();
            if state.reports.len() >= REPORTS {
                return;
            }
            state.reports.push_back((session, report));
        }
        self.wake.notify_all();
    }

    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_all();
    }

    /// Ends the stream on all pads; new settings begin another.
    pub fn end(&self) {
        self.state.lock().end = true;
        self.wake.notify_all();
    }

    pub fn reconnect(&self) {
        self.state.lock().reconnect = true;
        self.wake.notify_all();
    }

    pub fn want_audio(&self) {
        self.state.lock().audio = true;
        self.wake.notify_all();
    }

    /// Waits until the worker has ended; false where it has not by then.
    pub fn join(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        while !state.finished {
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                return state.finished;
            }
        }
        true
    }

    fn wait(&self, deadline: Option<Instant>) -> Wake {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return Wake::Stop;
            }
            if std::mem::take(&mut state.end) {
                return Wake::End;
            }
            if std::mem::take(&mut state.reconnect) {
                return Wake::Reconnect;
            }
            if std::mem::take(&mut state.audio) {
                return Wake::Audio;
            }
            if let Some((session, report)) = state.reports.pop_front() {
                return Wake::Report(session, report);
            }
            match deadline {
                None => self.wake.wait(&mut state),
                Some(deadline) => {
                    if Instant::now() >= deadline {
                        return Wake::Time;
                    }
                    self.wake.wait_until(&mut state, deadline);
                }
            }
        }
    }
}

/// State of the connection, as `stats` and the messages name it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    #[default]
    Connecting,
    Playing,
    Stalled,
    Unauthorised,
    Lost,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Playing => "playing",
            Self::Stalled => "stalled",
            Self::Unauthorised => "unauthorised",
            Self::Lost => "lost",
        }
    }
}

/// What `stats` shows of the worker.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub state: State,
    pub reason: String,
    pub decoder: Option<String>,
    pub codec: Option<String>,
    pub audio: Option<String>,
    /// What receives, where it is RTSP.
    pub receiver: Option<&'static str>,
}

/// Why a connection came to its end.
enum End {
    Stop,
    /// Other settings, or the next round of a file: at once.
    Again,
    Finished,
    Stalled(String),
    Unauthorised(String),
    Lost {
        reason: String,
        error: Option<gst::glib::Error>,
    },
    /// The hardware decoder failed before its first picture.
    Hardware(String),
    Downstream(gst::FlowError),
}

pub struct Worker {
    pub flow: Arc<Flow>,
    pub mailbox: Arc<Mailbox>,
    pub status: Arc<Mutex<Status>>,
    pub settings: Arc<Mutex<Settings>>,
    backoff: Backoff,
    refusals: u32,
    avoid_hardware: bool,
    /// The light receiver could do nothing with this camera.
    avoid_light: bool,
    warned: bool,
    session: u64,
    /// Held by every connection that is being closed.
    left: Arc<()>,
}

impl Worker {
    pub fn new(
        flow: Arc<Flow>,
        mailbox: Arc<Mailbox>,
        status: Arc<Mutex<Status>>,
        settings: Arc<Mutex<Settings>>,
    ) -> Self {
        Self {
            flow,
            mailbox,
            status,
            settings,
            backoff: Backoff::default(),
            refusals: 0,
            avoid_hardware: false,
            avoid_light: false,
            warned: false,
            session: 0,
            left: Arc::default(),
        }
    }

    pub fn run(mut self) {
        self.work();
        let mut state = self.mailbox.state.lock();
        state.finished = true;
        drop(state);
        self.mailbox.wake.notify_all();
    }

    fn work(&mut self) {
        loop {
            let settings = self.settings.lock().clone();
            self.say(&settings, State::Connecting, "");
            let end = self.connection(&settings);
            let wait = match end {
                End::Stop => return,
                End::Again => continue,
                End::Finished => {
                    self.finish();
                    None
                }
                End::Downstream(error) => {
                    self.blame_downstream(error);
                    None
                }
                End::Hardware(reason) => {
                    self.avoid_hardware = true;
                    self.warn(
                        &settings,
                        &format!("the hardware decoder failed ({reason}); decoding in software"),
                    );
                    continue;
                }
                End::Unauthorised(reason) => {
                    self.refusals += 1;
                    Counters::add(&self.flow.counters.failures, 1);
                    if self.refusals < REFUSALS {
                        self.say(&settings, State::Lost, &reason);
                        Some(self.backoff.next_delay(jitter()))
                    } else {
                        self.say(&settings, State::Unauthorised, &reason);
                        self.warn_or_fail(&settings, &reason, None).then_some(LEAVE_ALONE)
                    }
                }
                End::Stalled(reason) => {
                    Counters::add(&self.flow.counters.failures, 1);
                    self.say(&settings, State::Stalled, &reason);
                    self.warn_or_fail(&settings, &reason, None).then(|| self.backoff.next_delay(jitter()))
                }
                End::Lost { reason, error } => {
                    Counters::add(&self.flow.counters.failures, 1);
                    self.say(&settings, State::Lost, &reason);
                    let again = self.warn_or_fail(&settings, &reason, error.as_ref());
                    again.then(|| self.backoff.next_delay(jitter()))
                }
            };
            if !self.pause(wait) {
                return;
            }
        }
    }

    /// Ends the stream of every pad.
    fn finish(&self) {
        for lane in self.flow.lanes.all() {
            lane.finish();
        }
        // Another address may follow; it opens a new stream.
        let opened = {
            let mut stream = self.flow.stream.lock();
            stream.caps = None;
            std::mem::take(&mut stream.opened)
        };
        if !opened {
            self.flow.pad.push_event(self.flow.stream_start());
        }
        self.flow.pad.push_event(gst::event::Eos::new());
    }

    /// One connection, from its making to its end.
    fn connection(&mut self, settings: &Settings) -> End {
        self.session += 1;
        let lost = |reason: String| End::Lost { reason, error: None };
        let user = settings.user_id.as_deref();
        let address = match Address::parse(&settings.uri, user, settings.user_pw.as_deref()) {
            Ok(address) => address,
            Err(error) => return lost(error.to_string()),
        };
        let light = match settings.receiver {
            Receiver::Auto => {
                !self.avoid_light
                    && settings.protocols == gst_rtsp::RTSPLowerTrans::TCP
                    && matches!(&address, Address::Rtsp(remote) if remote.is_plain())
            }
            Receiver::Light => matches!(&address, Address::Rtsp(_)),
            Receiver::Rtspsrc => false,
        };
        self.status.lock().receiver = match &address {
            Address::Rtsp(_) => Some(if light { "light" } else { "rtspsrc" }),
            _ => None,
        };
        let plan = Plan {
            light,
            address,
            latency: settings.latency,
            protocols: settings.protocols,
            timeout: settings.timeout,
            hwaccel: settings.hwaccel,
            avoid_hardware: self.avoid_hardware,
            decode: settings.decode != Decode::None,
            audio: self.flow.lanes.get(Kind::Audio).is_some(),
            tls_validation: settings.tls_validation,
        };
        Counters::add(&self.flow.counters.connections, 1);
        *self.flow.gate.lock() = super::gate::Gate::default();
        self.flow.seldom.store(false, Ordering::Relaxed);
        self.flow.session.store(self.session, Ordering::Relaxed);
        self.flow.touch();
        self.flow.pictured();
        self.flow.refused.store(false, Ordering::Relaxed);
        let session = match Session::start(&plan, &self.flow, &self.mailbox, self.session) {
            Ok(session) => session,
            Err(error) => return lost(clean(settings, &error.to_string())),
        };
        let end = self.watch(settings, &plan, &session);
        let hardware = session.found().decoder.filter(|(_, hardware)| *hardware);
        if !session.stop(&self.left) {
            // It hangs where nobody can call it back: the next connection does not wait for it.
            let reason = match hardware {
                Some((name, _)) => format!("{name} hangs"),
                None => "the old connection does not end".into(),
            };
            self.warn(settings, &format!("{reason}; it is left behind with its thread and memory"));
        }
        end
    }

    fn watch(&mut self, settings: &Settings, plan: &Plan, session: &Session) -> End {
        let timeout = Duration::from_secs(settings.timeout.into());
        let mut playing: Option<Instant> = None;
        loop {
            if let Err(report) = session.tend() {
                self.mailbox.report(self.session, report);
            }
            let silence = Duration::from_millis(self.flow.silence_ms());
            let deadline =
                if settings.timeout > 0 { timeout.saturating_sub(silence).min(TICK) } else { TICK };
            let report = match self.mailbox.wait(Some(Instant::now() + deadline)) {
                Wake::Stop => return End::Stop,
                Wake::End => return End::Finished,
                Wake::Reconnect => {
                    self.forget();
                    return End::Again;
                }
                Wake::Audio => {
                    // RTSP cannot add a stream to a connection; other sources show theirs in any case.
                    if matches!(plan.address, Address::Rtsp(_)) && !plan.audio {
                        return End::Again;
                    }
                    continue;
                }
                Wake::Time => match self.check(settings, session, playing) {
                    None => {
                        if playing.is_none() && !session.shared.timeline.settled() {
                            self.say_gap();
                        }
                        continue;
                    }
                    Some(end) => return end,
                },
                Wake::Report(id, _) if id != self.session => continue,
                Wake::Report(_, report) => report,
            };
            match report {
                Report::Found => self.note(session),
                Report::Media if self.flow.wants_pictures() || playing.is_some() => {}
                Report::Media | Report::Picture => {
                    playing.get_or_insert_with(Instant::now);
                    self.refusals = 0;
                    self.warned = false;
                    self.note(session);
                    self.say(settings, State::Playing, "");
                    self.update_latency(session);
                }
                Report::End => {
                    self.prove(playing);
                    return match &plan.address {
                        Address::File(_) if settings.r#loop && playing.is_some() => End::Again,
                        Address::File(_) if !settings.r#loop && playing.is_some() => End::Finished,
                        _ if !settings.reconnect && playing.is_some() => End::Finished,
                        _ => End::Lost { reason: "the stream ended".into(), error: None },
                    };
                }
                Report::Downstream(gst::FlowError::Flushing) => {}
                Report::Downstream(error) => return End::Downstream(error),
                Report::Refused(error) => self.warn(
                    settings,
                    &format!("what follows the pad video stopped ({error:?}); the other pads go on"),
                ),
                Report::Beyond { reason, fault } => {
                    let reason = clean(settings, &reason);
                    self.avoid_light = true;
                    if fault || settings.receiver == Receiver::Light {
                        return End::Lost { reason, error: None };
                    }
                    gst::info!(CAT, "{reason}: rtspsrc receives this camera");
                    return End::Again;
                }
                Report::Unusable(reason) => return End::Lost { reason, error: None },
                Report::Error { error, detail, decoder, certificate } => {
                    self.prove(playing);
                    let detail = detail.unwrap_or_default();
                    let mut reason = clean(settings, format!("{} {detail}", error.message()).trim());
                    // souphttpsrc refuses a certificate without a word, before anything has come.
                    let silent = matches!(&plan.address, Address::Http(remote) if remote.uri.starts_with("https"))
                        && plan.tls_validation == TlsValidation::Full
                        && error.matches(gst::StreamError::Failed)
                        && !session.shared.timeline.settled();
                    if certificate || silent {
                        reason.push_str(if certificate {
                            "; the camera's certificate is not trusted"
                        } else {
                            "; perhaps the camera's certificate is not trusted"
                        });
                        reason.push_str(
                            ": let this machine trust whoever signed it, or set tls-validation=none where nobody else \
                             can reach the network",
                        );
                    }
                    if error.matches(gst::ResourceError::NotAuthorized) {
                        return End::Unauthorised(reason);
                    }
                    if decoder && self.hardware_is_to_blame(settings, session, playing, Duration::ZERO) {
                        return End::Hardware(reason);
                    }
                    return End::Lost { reason, error: Some(error) };
                }
            }
        }
    }

    /// Keeps for `stats` what was found at the camera.
    fn note(&self, session: &Session) {
        let found = session.found();
        let mut status = self.status.lock();
        status.decoder = found.decoder.map(|(name, _)| name);
        (status.codec, status.audio) = (found.codec, found.audio);
    }

    /// The watchdogs: media that do not come, and media of which no picture comes.
    fn check(&self, settings: &Settings, session: &Session, playing: Option<Instant>) -> Option<End> {
        if settings.timeout == 0 {
            return None;
        }
        let timeout = u64::from(settings.timeout) * 1000;
        // A paused element or a full queue downstream keeps the media waiting, not the camera.
        let held = self.flow.pushing.load(Ordering::Relaxed) || !self.flow.playing.load(Ordering::Relaxed);
        if held {
            self.flow.pictured();
            if !self.flow.lanes.in_use() || !self.flow.playing.load(Ordering::Relaxed) {
                self.flow.touch();
            }
        }
        if self.flow.silence_ms() >= timeout {
            let reason = if playing.is_some() { "no media for" } else { "no media within" };
            return Some(End::Stalled(format!("{reason} {} s", settings.timeout)));
        }
        let (keyed, unkeyed) = self.flow.hunger_ms();
        if keyed < timeout && unkeyed < timeout * u64::from(UNKEYED) {
            return None;
        }
        let name = session.found().decoder.map_or_else(|| "the decoder".to_owned(), |(name, _)| name);
        let silent = keyed.max(unkeyed);
        let reason = format!("media arrive, but {name} gave no picture of them for {} s", silent / 1000);
        if self.hardware_is_to_blame(settings, session, playing, Duration::from_millis(silent)) {
            return Some(End::Hardware(reason));
        }
        Some(End::Stalled(reason))
    }

    /// Whether to go on without hardware: it was not asked for in particular, and it has not proven itself here. It has
    /// been of no use for `silent`.
    fn hardware_is_to_blame(
        &self,
        settings: &Settings,
        session: &Session,
        playing: Option<Instant>,
        silent: Duration,
    ) -> bool {
        settings.hwaccel == Hwaccel::Auto
            && !self.avoid_hardware
            && playing.is_none_or(|since| since.elapsed().saturating_sub(silent) < PROVEN)
            && session.found().decoder.is_some_and(|(_, hardware)| hardware)
    }

    /// Other settings: what was learned with the old ones says nothing.
    fn forget(&mut self) {
        self.refusals = 0;
        self.backoff.reset();
        (self.avoid_hardware, self.avoid_light) = (false, false);
    }

    /// Waits before the next attempt; `None`: until the settings change. False when the element stops.
    fn pause(&mut self, wait: Option<Duration>) -> bool {
        let mut end = wait.map(|wait| Instant::now() + wait);
        loop {
            let tick = Instant::now() + TICK;
            match self.mailbox.wait(Some(end.map_or(tick, |end| end.min(tick)))) {
                Wake::Stop => return false,
                Wake::End => {
                    self.finish();
                    end = None;
                }
                Wake::Reconnect => {
                    self.forget();
                    return true;
                }
                Wake::Time if end.is_some_and(|end| Instant::now() >= end) => return true,
                Wake::Time => self.say_gap(),
                Wake::Audio | Wake::Report(..) => {}
            }
        }
    }

    /// Tells what follows that nothing comes, while no connection pushes anything. Waits only where what follows does.
    fn say_gap(&self) {
        let flow = &*self.flow;
        if !flow.playing.load(Ordering::Relaxed) || flow.stopped.load(Ordering::Relaxed) {
            return;
        }
        let Some(now) = self.element().and_then(|element| element.current_running_time()) else { return };
        for lane in flow.lanes.all() {
            lane.gap(now.nseconds());
        }
        let from = {
            let mut stream = flow.stream.lock();
            let Some(from) = stream.last_time.filter(|from| *from < now && stream.caps.is_some()) else {
                return;
            };
            stream.last_time = Some(now);
            from
        };
        flow.pad.push_event(gst::event::Gap::new(from, now - from));
    }

    fn prove(&mut self, playing: Option<Instant>) {
        if playing.is_some_and(|since| since.elapsed() >= PROVEN) {
            self.backoff.reset();
        }
    }

    /// Asks the connection how late its pictures are, and tells the pipeline where that has changed.
    fn update_latency(&self, session: &Session) {
        let Some(latency) = session.latency() else { return };
        let before = self.flow.latency.swap(latency.nseconds(), Ordering::Relaxed);
        if before != latency.nseconds()
            && let Some(element) = self.flow.element.upgrade()
        {
            let _ = element.post_message(gst::message::Latency::builder().src(&element).build());
        }
    }

    fn element(&self) -> Option<NvrSrc> {
        self.flow.element.upgrade()
    }

    /// Posts a change of state and keeps it for `stats`.
    fn say(&self, settings: &Settings, state: State, reason: &str) {
        let status = {
            let mut status = self.status.lock();
            status.state = state;
            reason.clone_into(&mut status.reason);
            status.clone()
        };
        let Some(element) = self.element() else { return };
        let uri = address::redact(&settings.uri);
        gst::info!(CAT, obj = element, "{uri}: {} {reason}", state.as_str());
        let mut structure = gst::Structure::builder("nvr-source-state")
            .field("source-id", settings.source_id)
            .field("state", state.as_str())
            .field("uri", uri)
            .field("reason", reason);
        if state == State::Playing {
            structure = structure
                .field_if_some("decoder", status.decoder)
                .field_if_some("codec", status.codec)
                .field_if_some("audio", status.audio)
                .field_if_some("receiver", status.receiver);
        }
        let message = gst::message::Element::builder(structure.build()).src(&element).build();
        let _ = element.post_message(message);
    }

    fn warn(&self, settings: &Settings, text: &str) {
        let Some(element) = self.element() else { return };
        let uri = address::redact(&settings.uri);
        gst::element_warning!(
            element,
            gst::ResourceError::Read,
            ["source {}, {uri}: {text}", settings.source_id]
        );
    }

    /// One warning per outage where the element goes on trying, else an error. Returns whether it goes on.
    fn warn_or_fail(&mut self, settings: &Settings, reason: &str, error: Option<&gst::glib::Error>) -> bool {
        let Some(element) = self.element() else { return false };
        if settings.reconnect {
            if !std::mem::replace(&mut self.warned, true) {
                self.warn(settings, &format!("{reason}; trying again until it works"));
            }
            return true;
        }
        let uri = address::redact(&settings.uri);
        let code = match error {
            Some(error) if error.matches(gst::ResourceError::NotFound) => gst::ResourceError::NotFound,
            _ if self.refusals > 0 => gst::ResourceError::NotAuthorized,
            _ => gst::ResourceError::OpenRead,
        };
        gst::element_error!(element, code, ["source {}, {uri}: {reason}", settings.source_id]);
        false
    }

    /// Downstream posts its own error where it failed; that it could not take the format nobody else says.
    fn blame_downstream(&self, error: gst::FlowError) {
        let Some(element) = self.element() else { return };
        gst::info!(CAT, obj = element, "downstream returned {error:?}, stopping");
        if error == gst::FlowError::NotNegotiated {
            gst::element_error!(
                element,
                gst::CoreError::Negotiation,
                ["what follows cannot take these pictures; put videoconvert between nvrsrc and it"]
            );
        }
    }
}

/// `text` of others without the secrets of `settings`.
fn clean(settings: &Settings, text: &str) -> String {
    address::redact_text(text, &settings.uri, settings.user_pw.as_deref())
}

/// A number from 0 to 1 that differs between cameras and attempts.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}
