//! A broker for tests that does as it is told: it speaks as much MQTT 3.1.1 as publishers and
//! subscriptions need.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Longest wait for anything that should take milliseconds.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// What the broker does with a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// Takes and confirms everything.
    Polite,
    /// Takes everything and confirms nothing.
    Silent,
    /// Answers the greeting with this code.
    Refuse(u8),
    /// Greets, and hangs up.
    HangUp,
    /// Answers the greeting with these bytes.
    Garble(&'static [u8]),
    /// As polite, but lets nobody listen.
    Secretive,
    /// As polite, but begins a message of 18 MiB to whoever asks for this filter.
    Heavy(&'static str),
    /// As polite, but cuts the connection over messages for this topic.
    Touchy(&'static str),
    /// Cuts the connection when this many messages have come, and confirms nothing.
    CutAfter(usize),
}

#[derive(Debug, Default)]
pub struct Seen {
    pub connections: usize,
    pub client_ids: Vec<String>,
    /// Topic, payload and QoS.
    pub messages: Vec<(String, Vec<u8>, u8)>,
    pub farewells: usize,
    /// Connections that have ended in whatever way.
    pub gone: usize,
    /// Filters asked for and given up (`-` before it), over all connections, in order.
    pub filters: Vec<String>,
    pub will: Option<(String, Vec<u8>)>,
}

#[derive(Debug)]
pub struct FakeBroker {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manner: Mutex<Manner>,
    seen: Mutex<Seen>,
    changed: Condvar,
    /// The connections that have asked for a filter.
    listeners: Mutex<Vec<TcpStream>>,
}

impl FakeBroker {
    pub fn start(manner: Manner) -> Self {
        Self::start_at(0, manner)
    }

    /// On a port that is known already.
    pub fn start_at(port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            seen: Mutex::default(),
            changed: Condvar::new(),
            listeners: Mutex::default(),
        });
        let server = shared.clone();
        // Ends with the process: a test has no use for an orderly end of it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = server.clone();
                std::thread::spawn(move || {
                    shared.serve(stream);
                    shared.note(|seen| seen.gone += 1);
                });
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock() = manner;
    }

    /// Sends a message of QoS 0 to everyone who has asked for anything.
    pub fn send(&self, topic: &str, payload: &[u8]) {
        let mut packet = vec![0x30];
        let mut len = 2 + topic.len() + payload.len();
        loop {
            packet.push((len & 0x7f) as u8 | if len > 0x7f { 0x80 } else { 0 });
            len >>= 7;
            if len == 0 {
                break;
            }
        }
        packet.extend((topic.len() as u16).to_be_bytes());
        packet.extend(topic.as_bytes());
        packet.extend(payload);
        self.shared.listeners.lock().retain_mut(|stream| stream.write_all(&packet).is_ok());
    }

    /// Ends every connection that has asked for anything.
    pub fn cut(&self) {
        for stream in self.shared.listeners.lock().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Waits until `done` says so and gives what `look` makes of it.
    pub fn until<T>(&self, done: impl Fn(&Seen) -> bool, look: impl Fn(&Seen) -> T) -> T {
        let deadline = Instant::now() + TIMEOUT;
        let mut seen = self.shared.seen.lock();
        while !done(&seen) {
            let late = self.shared.changed.wait_until(&mut seen, deadline).timed_out();
            assert!(!late, "gave up waiting: {seen:?}");
        }
        look(&seen)
    }

    pub fn look<T>(&self, look: impl Fn(&Seen) -> T) -> T {
        look(&self.shared.seen.lock())
    }

    /// Waits for so many messages and gives their payloads.
    pub fn payloads(&self, count: usize) -> Vec<String> {
        self.until(
            |seen| seen.messages.len() >= count,
            |seen| seen.messages.iter().map(|m| String::from_utf8(m.1.clone()).unwrap()).collect(),
        )
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        self.note(|seen| seen.connections += 1);
        let mut here = 0;
        loop {
            let (kind, body) = packet(&mut stream)?;
            let manner = *self.manner.lock();
            match kind >> 4 {
                1 => {
                    // Protocol name and level, flags, keep-alive, then the strings.
                    let flags = *body.get(7)?;
                    let (client_id, rest) = string(body.get(10..)?)?;
                    let will = (flags & 4 != 0).then(|| {
                        let (topic, rest) = string(rest)?;
                        Some((text(topic), string(rest)?.0.to_vec()))
                    });
                    self.note(|seen| {
                        seen.client_ids.push(text(client_id));
                        seen.will = will.flatten();
                    });
                    match manner {
                        Manner::Refuse(code) => stream.write_all(&[0x20, 2, 0, code]).ok()?,
                        Manner::Garble(bytes) => stream.write_all(bytes).ok()?,
                        _ => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
                    }
                    if manner == Manner::HangUp {
                        return None;
                    }
                }
                3 => {
                    let qos = kind >> 1 & 3;
                    let (topic, mut payload) = string(&body)?;
                    let mut id = [0; 2];
                    if qos > 0 {
                        let (first, rest) = payload.split_first_chunk::<2>()?;
                        (id, payload) = (*first, rest);
                    }
                    self.note(|seen| seen.messages.push((text(topic), payload.to_vec(), qos)));
                    here += 1;
                    match manner {
                        Manner::CutAfter(count) if here >= count => return None,
                        Manner::Touchy(bad) if topic == bad.as_bytes() => return None,
                        Manner::Polite | Manner::Secretive | Manner::Heavy(_) | Manner::Touchy(_)
                            if qos > 0 =>
                        {
                            stream.write_all(&[0x40, 2, id[0], id[1]]).ok()?;
                        }
                        _ => {}
                    }
                }
                8 | 10 => {
                    let subscribe = kind >> 4 == 8;
                    let (id, mut rest) = body.split_first_chunk::<2>()?;
                    let mut names = Vec::new();
                    while !rest.is_empty() {
                        let (name, after) = string(rest)?;
                        names.push(if subscribe { text(name) } else { format!("-{}", text(name)) });
                        rest = if subscribe { after.get(1..)? } else { after };
                    }
                    if subscribe {
                        let code = if manner == Manner::Secretive { 0x80 } else { 0 };
                        let mut answer = vec![0x90, 2 + names.len() as u8, id[0], id[1]];
                        answer.extend(names.iter().map(|_| code));
                        // Registered first: whoever knows of the answer may send.
                        if code == 0 {
                            let mut listeners = self.listeners.lock();
                            let here = stream.local_addr().ok().zip(stream.peer_addr().ok());
                            let known = |s: &TcpStream| s.local_addr().ok().zip(s.peer_addr().ok()) == here;
                            if !listeners.iter().any(known) {
                                listeners.push(stream.try_clone().ok()?);
                            }
                        }
                        stream.write_all(&answer).ok()?;
                        if let Manner::Heavy(filter) = manner
                            && names.iter().any(|name| name == filter)
                        {
                            stream.write_all(&[0x31, 0x80, 0x80, 0x80, 9]).ok()?;
                        }
                    } else {
                        stream.write_all(&[0xb0, 2, id[0], id[1]]).ok()?;
                    }
                    self.note(|seen| seen.filters.extend(names));
                }
                12 => stream.write_all(&[0xd0, 0]).ok()?,
                14 => {
                    self.note(|seen| seen.farewells += 1);
                    return None;
                }
                _ => return None,
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
        self.changed.notify_all();
    }
}

fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let kind = byte[0];
    let mut len = 0;
    for shift in [0, 7, 14, 21] {
        stream.read_exact(&mut byte).ok()?;
        len |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
