//! RTSP messages, as far as a proxy has to read and write them. Pure.

use std::fmt::Write;

/// A request or an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    first: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let first = lines.next()?.to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Some(Self { first, headers, body: bytes[end + 4..].to_vec() })
    }

    /// The answer with `status` to `request`.
    pub fn answer(request: &Self, status: u16) -> Self {
        let mut answer = Self {
            first: format!("RTSP/1.0 {status} {}", reason(status)),
            headers: Vec::new(),
            body: Vec::new(),
        };
        if let Some(cseq) = request.header("CSeq") {
            answer.set("CSeq", cseq);
        }
        answer
    }

    /// Method of a request; `None` for an answer.
    pub fn method(&self) -> Option<&str> {
        let method = self.first.split(' ').next()?;
        (!method.starts_with("RTSP/")).then_some(method)
    }

    /// Status of an answer; `None` for a request.
    pub fn status(&self) -> Option<u16> {
        self.first.strip_prefix("RTSP/")?.split(' ').nth(1)?.parse().ok()
    }

    /// First segment of the path that a request is about.
    pub fn segment(&self) -> Option<&str> {
        let uri = self.first.split(' ').nth(1)?;
        let path =
            uri.split_once("://").map_or(uri, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        let path = path.trim_start_matches('/');
        path.split(['/', '?']).next()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The id of the session that a message names, without its timeout.
    pub fn session(&self) -> Option<&str> {
        self.header("Session").and_then(|value| value.split(';').next()).map(str::trim)
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// As it is sent, with the length that the body has.
    pub fn into_bytes(mut self) -> Vec<u8> {
        if !self.body.is_empty() || self.header("Content-Length").is_some() {
            let length = self.body.len().to_string();
            self.set("Content-Length", &length);
        }
        let mut head = self.first;
        for (name, value) in &self.headers {
            // Writing to a String does not fail.
            let _ = write!(head, "\r\n{name}: {value}");
        }
        head.push_str("\r\n\r\n");
        let mut bytes = head.into_bytes();
        bytes.append(&mut self.body);
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        461 => "Unsupported Transport",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Fault",
    }
}

/// What a session description says of one kind of RTP payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Payload {
    pub kind: u8,
    pub audio: bool,
    /// Ticks of its timestamps per second.
    pub rate: u32,
}

/// The payloads of a session description.
pub fn payloads(sdp: &[u8]) -> Vec<Payload> {
    let text = String::from_utf8_lossy(sdp);
    let mut found: Vec<Payload> = Vec::new();
    let mut audio = false;
    for line in text.lines().map(str::trim) {
        if let Some(media) = line.strip_prefix("m=") {
            audio = media.starts_with("audio");
            let kinds = media.split_whitespace().skip(3).filter_map(|kind| kind.parse().ok());
            // The payloads that need no rtpmap: G.711 has 8 kHz, video 90 kHz.
            let rate = if audio { 8000 } else { 90_000 };
            found.extend(kinds.map(|kind| Payload { kind, audio, rate }));
        } else if let Some(map) = line.strip_prefix("a=rtpmap:") {
            let mut parts = map.splitn(2, ' ');
            let kind = parts.next().and_then(|kind| kind.parse().ok());
            let rate = parts.next().and_then(|format| format.split('/').nth(1)?.trim().parse().ok());
            let of_kind = |payload: &&mut Payload| Some(payload.kind) == kind && payload.audio == audio;
            if let (Some(payload), Some(rate)) = (found.iter_mut().find(of_kind), rate) {
                payload.rate = rate;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_and_answers() {
        let text = b"SETUP rtsp://127.0.0.1:8554/12/stream=0?x=1 RTSP/1.0\r\nCSeq: 4\r\nsession: abc;timeout=60\r\n\r\n";
        let setup = Message::parse(text).unwrap();
        assert_eq!((setup.method(), setup.status(), setup.segment()), (Some("SETUP"), None, Some("12")));
        assert_eq!((setup.header("cseq"), setup.session()), (Some("4"), Some("abc")));
        let answer = Message::answer(&setup, 454).into_bytes();
        assert_eq!(answer, b"RTSP/1.0 454 Session Not Found\r\nCSeq: 4\r\n\r\n");
        let mut answer = Message::parse(&answer).unwrap();
        assert_eq!((answer.method(), answer.status()), (None, Some(454)));
        answer.body = b"v=0".to_vec();
        assert!(answer.into_bytes().ends_with(b"\r\nContent-Length: 3\r\n\r\nv=0"));
        for (uri, segment) in
            [("*", "*"), ("rtsp://h", ""), ("rtsp://h/", ""), ("/3/x", "3"), ("rtsp://h/3", "3")]
        {
            let text = format!("OPTIONS {uri} RTSP/1.0\r\n\r\n");
            assert_eq!(Message::parse(text.as_bytes()).unwrap().segment(), Some(segment), "{uri}");
        }
    }

    #[test]
    fn payloads_of_a_description() {
        let sdp = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio 0 RTP/AVP 97 8\r\na=rtpmap:97 OPUS/48000/2\r\n";
        assert_eq!(
            payloads(sdp),
            [
                Payload { kind: 96, audio: false, rate: 90_000 },
                Payload { kind: 97, audio: true, rate: 48_000 },
                Payload { kind: 8, audio: true, rate: 8000 },
            ]
        );
        assert!(payloads(b"\xff\xfe m=").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::parse(&bytes);
            let _ = payloads(&bytes);
        }

        #[test]
        fn a_message_reads_back(method in "[A-Z_]{3,12}", names in prop::collection::btree_set("[A-Za-z]{1,9}", 0..6), body in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut message = Message { first: format!("{method} rtsp://h/1 RTSP/1.0"), headers: Vec::new(), body };
            for name in names {
                message.set(&name, "value: of it");
            }
            let bytes = message.clone().into_bytes();
            let again = Message::parse(&bytes).unwrap();
            prop_assert_eq!(&again.body, &message.body);
            prop_assert_eq!(again.into_bytes(), bytes);
        }
    }
}
