//! A camera that is written down: it answers as cameras do, but for what a test wants otherwise.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

const PATIENCE: Duration = Duration::from_secs(30);
pub const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\na=control:*\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n";

/// What came from the other side: a request, or an answer.
#[derive(Clone, Debug)]
pub struct Message {
    pub first: String,
    pub headers: Vec<(String, String)>,
    /// How many of this kind there were before, in all connections.
    pub before: usize,
}

impl Message {
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The text of an answer with these headers and this body.
pub fn answer(request: &Message, status: &str, headers: &[&str], body: &str) -> String {
    let number = request.header("CSeq").unwrap_or("0");
    let mut text = format!("RTSP/1.0 {status}\r\nCSeq: {number}\r\n");
    for header in headers {
        text.extend([header, "\r\n"]);
    }
    if !body.is_empty() {
        text.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    text + "\r\n" + body
}

type Answers = dyn Fn(&Message) -> Option<String> + Send + Sync;
type Act = dyn Fn(TcpStream) + Send + Sync;

#[derive(Default)]
struct Heard {
    messages: Mutex<Vec<Message>>,
    more: Condvar,
}

pub struct Scripted {
    address: SocketAddr,
    heard: Arc<Heard>,
}

impl Scripted {
    /// `answers` may answer a request in place of the camera; `act` is what it does once it plays.
    pub fn serve(
        answers: impl Fn(&Message) -> Option<String> + Send + Sync + 'static,
        act: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Heard>::default();
        let (answers, act): (Arc<Answers>, Arc<Act>) = (Arc::new(answers), Arc::new(act));
        thread::spawn({
            let heard = heard.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    let (heard, answers, act) = (heard.clone(), answers.clone(), act.clone());
                    thread::spawn(move || talk(&stream, &heard, &*answers, &act));
                }
            }
        });
        Self { address, heard }
    }

    pub fn uri(&self) -> String {
        format!("rtsp://{}/stream", self.address)
    }

    /// Waits until what was heard is as wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = self.heard.messages.lock();
        while !wanted(&messages) {
            let late = self.heard.more.wait_until(&mut messages, deadline).timed_out();
            assert!(!late, "{what} did not come: {messages:#?}");
        }
        messages.clone()
    }
}

fn talk(stream: &TcpStream, heard: &Heard, answers: &Answers, act: &Arc<Act>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((first, headers)) = read(&mut reader) {
        let message = {
            let mut messages = heard.messages.lock();
            let mut message = Message { first, headers, before: 0 };
            message.before = messages.iter().filter(|other| other.method() == message.method()).count();
            messages.push(message.clone());
            message
        };
        heard.more.notify_all();
        let usual = || match message.method() {
            "OPTIONS" => {
                answer(&message, "200 OK", &["Public: DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"], "")
            }
            "DESCRIBE" => answer(&message, "200 OK", &["Content-Type: application/sdp"], SDP),
            "SETUP" => {
                let transport = format!("Transport: {}", message.header("Transport").unwrap_or_default());
                answer(&message, "200 OK", &[&transport, "Session: 1234;timeout=4"], "")
            }
            "RTSP/1.0" => String::new(),
            _ => answer(&message, "200 OK", &["Session: 1234"], ""),
        };
        let text = answers(&message).unwrap_or_else(usual);
        if (&*stream).write_all(text.as_bytes()).is_err() {
            return;
        }
        if message.method() == "PLAY" && text.contains(" 200 ") {
            let (act, stream) = (act.clone(), stream.try_clone().unwrap());
            thread::spawn(move || act(stream));
        }
    }
}

/// The next message; packets are passed over.
fn read(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<(String, String)>)> {
    while *reader.fill_buf().ok()?.first()? == b'$' {
        let mut framing = [0; 4];
        reader.read_exact(&mut framing).ok()?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes([framing[2], framing[3]]))];
        reader.read_exact(&mut packet).ok()?;
    }
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim().to_owned())
    };
    let first = line()?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Some((first, headers))
}

/// An interleaved RTP packet.
pub fn packet(channel: u8, number: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![b'$', channel];
    packet.extend_from_slice(&((payload.len() + 12) as u16).to_be_bytes());
    packet.extend_from_slice(&[0x80, 0x60 | u8::from(marker) << 7]);
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 7]);
    packet.extend_from_slice(payload);
    packet
}

/// Sends small pictures at 25 a second until nobody listens any more.
pub fn pictures(stream: &TcpStream) {
    for number in 0_u16.. {
        let payload: &[u8] = if number % 25 == 0 { &[0x65, 0x88, 1, 2] } else { &[0x41, 0x9a, 1, 2] };
        let packet = packet(0, number, u32::from(number) * 3600, true, payload);
        if (&*stream).write_all(&packet).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(40));
    }
}

/// Sends `bytes` again and again, as fast as they are taken.
pub fn flood(stream: &TcpStream, bytes: &[u8]) {
    let many = bytes.repeat((64 << 10) / bytes.len() + 1);
    while (&*stream).write_all(&many).is_ok() {}
}
