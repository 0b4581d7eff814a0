//! Receives RTSP over TCP with little work: one thread for all cameras of the process, no jitter buffer, no session of
//! RTP, and for H.264 and H.265 no depayloader. What this cannot do (UDP, TLS, tunnels) is left to `rtspsrc`.
//!
//! A camera is hostile: `interleaved` and `access_unit` of the core bound what it makes grow, the thread that receives
//! bounds its turn, and a panic is the end of one connection.

mod camera;
mod dialog;
mod receiver;
mod talk;

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use nvr_core::rtsp::Challenge;
use parking_lot::Mutex;

use self::{
    camera::Camera,
    receiver::receiver,
    talk::{Stop, Talk},
};
use super::{
    address::Remote,
    imp::CAT,
    session::{Plan, Shared},
    worker::Report,
};

/// How long closing a connection waits until the camera was told.
const TEARDOWN: Duration = Duration::from_millis(500);
/// How long a camera has to answer where the user sets no limit.
const PATIENCE: Duration = Duration::from_secs(20);
/// The least and the most between two signs of life for a camera.
const SIGN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Statuses that say something of the camera's day and nothing of how it was asked.
const PASSING: [u16; 6] = [403, 404, 408, 453, 454, 503];

/// Why a connection ended.
#[derive(Debug)]
pub enum Trouble {
    /// Only `rtspsrc` can do this.
    Beyond(String),
    /// The camera answers with an error.
    Status(u16, String),
    Unauthorised(String),
    Lost(String),
    /// A fault of ours.
    Fault(String),
    /// The camera ended the stream.
    Over,
    Stopped,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        Self::Lost(match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                "the camera does not answer in time".into()
            }
            _ => error.to_string(),
        })
    }

    fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Self::Fault(format!("a fault in the light receiver: {}", text.unwrap_or("no more is known")))
    }

    /// What the worker is told of it.
    fn report(self) -> Option<Report> {
        let error = |code: gst::ResourceError, text: &str| Report::Error {
            error: glib::Error::new(code, text),
            detail: None,
            decoder: false,
            certificate: false,
        };
        Some(match self {
            Self::Beyond(reason) => Report::Beyond { reason, fault: false },
            Self::Fault(reason) => Report::Beyond { reason, fault: true },
            Self::Unauthorised(text) => error(gst::ResourceError::NotAuthorized, &text),
            Self::Status(404, text) => error(gst::ResourceError::NotFound, &text),
            Self::Status(status, text) if PASSING.contains(&status) => {
                error(gst::ResourceError::OpenRead, &text)
            }
            // The other receiver asks in another way, and follows where a camera sends it elsewhere.
            Self::Status(_, text) => Report::Beyond { reason: text, fault: false },
            Self::Lost(text) => error(gst::ResourceError::OpenRead, &text),
            Self::Over => Report::End,
            Self::Stopped => return None,
        })
    }
}

/// What a camera said in between and somebody has to answer.
#[derive(Debug, Default)]
pub struct Mail {
    challenge: Option<Challenge>,
    questions: Vec<String>,
}

/// What the threads of a connection share.
#[derive(Debug, Default)]
pub struct Link {
    stop: Stop,
    /// Once the camera plays.
    live: Mutex<Option<Live>>,
    mail: Mutex<Mail>,
    pads: Mutex<Vec<gst::Pad>>,
}

/// A session that a camera remembers.
#[derive(Debug)]
struct Live {
    talk: Talk,
    uri: String,
    sign: &'static str,
    interval: Duration,
    due: Instant,
}

/// A connection; ends when it is stopped.
#[derive(Debug)]
pub struct Connection {
    link: Arc<Link>,
    /// The thread that connects has ended.
    connected: Mutex<mpsc::Receiver<()>>,
}

impl Connection {
    /// Begins to connect to `remote`; everything that becomes of it is reported to the worker.
    pub fn start(shared: &Arc<Shared>, remote: &Remote, plan: &Plan, outlet: &gst::Pad) -> io::Result<Self> {
        let link = Arc::<Link>::default();
        let (end, connected) = mpsc::channel();
        let opening = Opening {
            link: link.clone(),
            shared: Arc::downgrade(shared),
            outlet: outlet.downgrade(),
            remote: remote.clone(),
            audio: plan.audio,
            patient: !plan.decode,
            latency: gst::ClockTime::from_mseconds(plan.latency.into()),
            patience: if plan.timeout > 0 { Duration::from_secs(plan.timeout.into()) } else { PATIENCE },
        };
        thread::Builder::new().name("nvr-connect".into()).spawn(move || {
            opening.run();
            drop(end);
        })?;
        Ok(Self { link, connected: Mutex::new(connected) })
    }

    /// Gives a sign of life to the camera where it is time for it, and answers what it asked.
    pub fn tend(&self) -> Result<(), Report> {
        let mail = std::mem::take(&mut *self.link.mail.lock());
        let mut live = self.link.live.lock();
        let Some(live) = live.as_mut() else { return Ok(()) };
        let mut now = Instant::now() >= live.due;
        if let Some(challenge) = mail.challenge {
            if !live.talk.challenged(challenge) {
                let text = format!("{}: 401 Unauthorized", live.sign);
                return Trouble::Unauthorised(text).report().map_or(Ok(()), Err);
            }
            now = true;
        }
        let told = mail.questions.iter().try_for_each(|number| live.talk.nod(number)).and_then(|()| {
            if now {
                live.due = Instant::now() + live.interval;
                live.talk.tell(live.sign, &live.uri)
            } else {
                Ok(())
            }
        });
        told.map_err(|error| Trouble::of(&error).report().unwrap_or(Report::End))
    }

    /// Ends the connection, in order where the camera answers soon.
    pub fn stop(&self) {
        self.link.stop.store(true, Ordering::Relaxed);
        for pad in self.link.pads.lock().drain(..) {
            // From here on what is pushed is refused.
            let _ = pad.set_active(false);
        }
        let live = self.link.live.lock().take();
        // After that lock: whoever held it has handed the camera over.
        if let Some(receiver) = receiver() {
            receiver.remove(&self.link, TEARDOWN);
        }
        match live {
            Some(live) => live.talk.end(&live.uri, TEARDOWN),
            // Nothing is ever sent: the other end is dropped.
            None => drop(self.connected.lock().recv_timeout(TEARDOWN)),
        }
    }
}

/// What the thread that connects has.
struct Opening {
    link: Arc<Link>,
    shared: Weak<Shared>,
    outlet: glib::WeakRef<gst::Pad>,
    remote: Remote,
    audio: bool,
    patient: bool,
    latency: gst::ClockTime,
    patience: Duration,
}

impl Opening {
    fn run(self) {
        let result = catch_unwind(AssertUnwindSafe(|| self.open()));
        let trouble = match result {
            Ok(Ok(())) => return,
            Ok(Err(trouble)) => trouble,
            Err(panic) => Trouble::panicked(&*panic),
        };
        gst::debug!(CAT, "not connected: {trouble:?}");
        if let Some(shared) = self.shared.upgrade()
            && let Some(report) = trouble.report()
        {
            shared.mailbox.report(shared.id, report);
        }
    }

    fn open(&self) -> Result<(), Trouble> {
        let receiver =
            receiver().ok_or_else(|| Trouble::Beyond("there is no thread to receive with".into()))?;
        let mut talk = dialog::connect(&self.remote, self.patience, &self.link.stop)?;
        let mut uri = self.remote.uri.clone();
        let agreed = dialog::begin(&mut talk, &mut uri, self.audio, &self.link.stop)
            .and_then(|mut agreed| self.build(&mut agreed.tracks).map(|()| agreed))
            .and_then(|agreed| {
                talk.stream.set_nonblocking(true).map_err(|error| Trouble::of(&error)).map(|()| agreed)
            });
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(trouble) => {
                talk.end(&uri, TEARDOWN);
                return Err(trouble);
            }
        };
        let (stream, input) = (talk.stream.clone(), talk.take_input());
        let interval = (Duration::from_secs(agreed.timeout.into()) / 2).clamp(SIGN.0, SIGN.1);
        let live = Live {
            talk,
            uri,
            sign: if agreed.parameters { "GET_PARAMETER" } else { "OPTIONS" },
            interval,
            due: Instant::now() + interval,
        };
        let Some(shared) = self.shared.upgrade() else {
            live.talk.end(&live.uri, TEARDOWN);
            return Err(Trouble::Stopped);
        };
        // With this lock held, so that who stops the connection finds it either here or not begun.
        let mut held = self.link.live.lock();
        if self.link.stop.load(Ordering::Relaxed) {
            drop(held);
            live.talk.end(&live.uri, TEARDOWN);
            return Err(Trouble::Stopped);
        }
        *held = Some(live);
        receiver.add(Camera::new(stream, self.patient, &self.link, &shared, agreed.tracks, input));
        Ok(())
    }

    /// Makes the pads of the streams and has what follows built.
    fn build(&self, tracks: &mut [camera::Track]) -> Result<(), Trouble> {
        let (Some(shared), Some(outlet)) = (self.shared.upgrade(), self.outlet.upgrade()) else {
            return Err(Trouble::Stopped);
        };
        for track in tracks {
            let pad = track.open(self.latency).map_err(|error| Trouble::Lost(error.to_string()))?;
            self.link.pads.lock().push(pad.clone());
            if self.link.stop.load(Ordering::Relaxed) {
                return Err(Trouble::Stopped);
            }
            shared.added(&outlet, &pad, false);
        }
        shared.no_more_pads();
        Ok(())
    }
}
