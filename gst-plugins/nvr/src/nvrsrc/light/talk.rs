//! The talk with a camera over one connection: requests, answers, and log-ins. Nothing that a camera sends is kept
//! beyond a limit.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::glib::{
    self,
    translate::{ToGlibPtr, from_glib_full},
};
use gst_rtsp::ffi;
use nvr_core::{
    interleaved::{self, Item},
    rtsp::{Challenge, quoted},
};

use super::Trouble;

/// The longest description of a camera's streams.
const DESCRIPTION: usize = 256 << 10;
/// Media that come before the answer to PLAY.
const EARLY: usize = 4 << 20;
/// How often a wait looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(100);
/// How long the system may take over one request, which is a few hundred bytes.
const WRITE: Duration = Duration::from_secs(2);
const CHUNK: usize = 16 << 10;
/// So much of what a camera calls its refusal is shown.
const SHOWN: usize = 80;

/// An answer that is no refusal.
#[derive(Debug, Default)]
pub struct Answer {
    pub base: Option<String>,
    pub session: Option<String>,
    pub transport: Option<String>,
    pub public: Option<String>,
    pub body: Vec<u8>,
}

pub struct Talk {
    pub stream: Arc<TcpStream>,
    number: u32,
    pub session: Option<String>,
    user: Option<(String, String)>,
    challenge: Option<Challenge>,
    /// What has come and was not looked at yet.
    input: Vec<u8>,
    /// Media that have come already.
    early: Vec<u8>,
    deadline: Instant,
}

/// Whoever wants the talk to end sets this.
pub type Stop = AtomicBool;

impl Talk {
    pub fn connect(
        host: &str,
        port: u16,
        user: Option<(String, String)>,
        patience: Duration,
        stop: &Stop,
    ) -> Result<Self, Trouble> {
        let deadline = Instant::now() + patience;
        let mut last = None;
        for address in (host, port).to_socket_addrs().map_err(|error| Trouble::of(&error))? {
            let left = deadline.saturating_duration_since(Instant::now());
            if stop.load(Ordering::Relaxed) || left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|error| Trouble::of(&error))?;
                    stream.set_read_timeout(Some(GLANCE)).map_err(|error| Trouble::of(&error))?;
                    stream.set_write_timeout(Some(WRITE)).map_err(|error| Trouble::of(&error))?;
                    return Ok(Self {
                        stream: Arc::new(stream),
                        number: 0,
                        session: None,
                        user,
                        challenge: None,
                        input: Vec::new(),
                        early: Vec::new(),
                        deadline,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Trouble::Stopped);
        }
        Err(last
            .map_or_else(|| Trouble::Lost("the camera does not answer".into()), |error| Trouble::of(&error)))
    }

    /// Sends a request and waits for its answer. A refusal is answered with the password once; a nonce that was too
    /// old is no refusal.
    pub fn ask(
        &mut self,
        method: &'static str,
        uri: &str,
        headers: &[(&str, &str)],
        stop: &Stop,
    ) -> Result<Answer, Trouble> {
        let mut shown = false;
        for _ in 0..3 {
            let with_password = self.challenge.is_some();
            let text = self.request(method, uri, headers);
            self.write(&text).map_err(|error| Trouble::of(&error))?;
            let (status, answer) = self.answer(method, stop)?;
            match status {
                Status::Fine => return Ok(answer),
                Status::Refused(None) => {
                    return Err(Trouble::Unauthorised(format!("{method}: 401 Unauthorized")));
                }
                Status::Refused(Some(challenge)) => {
                    let stale = matches!(challenge, Challenge::Digest { stale: true, .. });
                    if self.user.is_none() || ((with_password || shown) && !stale) {
                        return Err(Trouble::Unauthorised(format!("{method}: 401 Unauthorized")));
                    }
                    self.challenge = Some(challenge);
                    shown = true;
                }
                Status::Other(status, text) => {
                    return Err(Trouble::Status(status, format!("{method}: {status} {text}")));
                }
            }
        }
        Err(Trouble::Unauthorised(format!("{method}: the camera goes on asking for the password")))
    }

    /// The text of a request, with the next number.
    fn request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        use std::fmt::Write as _;
        self.number += 1;
        let mut text = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n", self.number);
        let agent = concat!("nvrsrc/", env!("CARGO_PKG_VERSION"));
        let session = self.session.as_deref().map(|session| ("Session", session));
        for (name, value) in headers.iter().copied().chain(session).chain([("User-Agent", agent)]) {
            // Writing to a string does not fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if let Some(authorization) = self.authorization(method, uri) {
            let _ = write!(text, "Authorization: {authorization}\r\n");
        }
        text.push_str("\r\n");
        text
    }

    fn authorization(&self, method: &str, uri: &str) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        match self.challenge.as_ref()? {
            Challenge::Basic => {
                Some(format!("Basic {}", glib::base64_encode(format!("{user}:{password}").as_bytes())))
            }
            Challenge::Digest { realm, nonce, opaque, .. } => {
                // SAFETY: all texts live through the call, which copies what it needs and gives a new one.
                let response: glib::GString = unsafe {
                    from_glib_full(ffi::gst_rtsp_generate_digest_auth_response(
                        std::ptr::null(),
                        method.to_glib_none().0,
                        realm.to_glib_none().0,
                        user.to_glib_none().0,
                        password.to_glib_none().0,
                        uri.to_glib_none().0,
                        nonce.to_glib_none().0,
                    ))
                };
                let opaque = opaque.as_ref().map(|opaque| format!(", opaque={}", quoted(opaque)));
                Some(format!(
                    "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"{}",
                    quoted(user),
                    quoted(realm),
                    quoted(nonce),
                    quoted(uri),
                    opaque.unwrap_or_default()
                ))
            }
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        (&*self.stream).write_all(text.as_bytes())
    }

    /// Waits for the answer to the last request; media and what the camera asks meanwhile are put aside.
    fn answer(&mut self, method: &str, stop: &Stop) -> Result<(Status, Answer), Trouble> {
        let number = self.number.to_string();
        loop {
            while let Some((item, taken)) = interleaved::next(&self.input, DESCRIPTION)
                .map_err(|error| Trouble::Lost(error.to_string()))?
            {
                let found = match item {
                    Item::Packet { .. } => {
                        if method == "PLAY" && self.early.len() + taken <= EARLY {
                            self.early.extend_from_slice(&self.input[..taken]);
                        }
                        None
                    }
                    Item::Message(message) if message.header("CSeq").is_some_and(|at| at != number) => None,
                    Item::Message(message) => message.status().map(|(status, text)| {
                        let get = |name| message.header(name).map(str::to_owned);
                        let answer = Answer {
                            base: get("Content-Base").or_else(|| get("Content-Location")),
                            session: get("Session"),
                            transport: get("Transport"),
                            public: get("Public"),
                            body: message.body.to_vec(),
                        };
                        (
                            Status::of(status, text, Challenge::best(message.headers("WWW-Authenticate"))),
                            answer,
                        )
                    }),
                };
                self.input.drain(..taken);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            self.more(stop)?;
        }
    }

    fn more(&mut self, stop: &Stop) -> Result<(), Trouble> {
        let before = self.input.len();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Trouble::Stopped);
            }
            if Instant::now() >= self.deadline {
                return Err(Trouble::Lost("the camera does not answer in time".into()));
            }
            self.input.resize(before + CHUNK, 0);
            let result = (&*self.stream).read(&mut self.input[before..]);
            self.input.truncate(before + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return Err(Trouble::Lost("the camera closed the connection".into())),
                Ok(_) => return Ok(()),
                Err(error) if is_nothing(&error) => {}
                Err(error) => return Err(Trouble::of(&error)),
            }
        }
    }

    /// What has come already of what the camera sends now.
    pub fn take_input(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.early);
        all.append(&mut self.input);
        all
    }

    /// Sends what needs no answer, in between. Nothing waits: a camera that takes nothing now is asked later.
    pub fn tell(&mut self, method: &str, uri: &str) -> io::Result<()> {
        let text = self.request(method, uri, &[]);
        self.put(&text)
    }

    /// Answers what the camera asked under `number`: whatever it was, it is fine.
    pub fn nod(&self, number: &str) -> io::Result<()> {
        self.put(&format!("RTSP/1.0 200 OK\r\nCSeq: {number}\r\n\r\n"))
    }

    fn put(&self, text: &str) -> io::Result<()> {
        match (&*self.stream).write(text.as_bytes()) {
            Ok(length) if length == text.len() => Ok(()),
            Ok(_) => Err(io::Error::new(ErrorKind::WriteZero, "the camera takes no requests")),
            Err(error) if is_nothing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Another nonce, for the next request. False where the password was refused.
    pub fn challenged(&mut self, challenge: Challenge) -> bool {
        let right = matches!(challenge, Challenge::Digest { stale: true, .. })
            || self.challenge != Some(challenge.clone());
        self.challenge = Some(challenge);
        right && self.user.is_some()
    }

    /// Says good-bye and waits until the camera has heard it, but not for long.
    pub fn end(mut self, uri: &str, patience: Duration) {
        if self.session.is_none() {
            return;
        }
        let deadline = Instant::now() + patience;
        let text = self.request("TEARDOWN", uri, &[]);
        let ready =
            self.stream.set_nonblocking(false).and_then(|()| self.stream.set_write_timeout(Some(patience)));
        if ready.and_then(|()| self.write(&text)).is_err() {
            return;
        }
        let mut chunk = [0; CHUNK];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match (&*self.stream).read(&mut chunk) {
                // The answer. One that is cut in two is as good as the end of the connection, which follows.
                Ok(length) if !chunk[..length].windows(5).any(|five| five == b"RTSP/") && length > 0 => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

enum Status {
    Fine,
    Refused(Option<Challenge>),
    Other(u16, String),
}

impl Status {
    fn of(status: u16, text: &str, challenge: Option<Challenge>) -> Self {
        match status {
            200..=299 => Self::Fine,
            401 => Self::Refused(challenge),
            _ => {
                let text = text.chars().filter(|letter| !letter.is_control()).take(SHOWN).collect();
                Self::Other(status, text)
            }
        }
    }
}

/// Whether a read or a write had nothing to do.
pub fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It holds a password.
        f.debug_struct("Talk").field("number", &self.number).finish_non_exhaustive()
    }
}
