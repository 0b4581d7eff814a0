//! What a faulty camera makes of one connection's requests, answers and packets. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    auth::Given,
    fault::Sdp,
    orders::{Faults, Orders},
    rtp::{Clock, Packet, edit_reports},
    rtsp::{Message, Payload, payloads},
};

/// What becomes of a request.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The camera gets it.
    Forward(Vec<u8>),
    /// It is answered here, for the reason given.
    Answer(Vec<u8>, String),
    /// It is answered with the beginning of something endless.
    Endless(Vec<u8>),
    /// Nobody sees it.
    Swallow,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Tamper {
    payloads: Vec<Payload>,
    /// By the number of the RTP channel.
    streams: BTreeMap<u8, Stream>,
    /// `CSeq` of requests whose answers are to be changed.
    describes: BTreeSet<String>,
    session: Option<String>,
    /// The camera knows nothing of the session any more.
    forgotten: bool,
    forgets: u64,
    wraps: u64,
    /// What a password is to be mixed with.
    nonce: String,
    random: u64,
}

#[derive(Debug, Default)]
struct Stream {
    payload: Option<Payload>,
    clock: Clock,
    wraps: u64,
}

impl Tamper {
    /// `seed` decides which packets are lost and damaged.
    pub fn new(seed: u64, orders: &Orders) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            forgets: orders.forgets,
            wraps: orders.wraps,
            nonce: format!("{random:016x}"),
            random,
            ..Self::default()
        }
    }

    /// Takes note of momentary faults.
    pub fn heed(&mut self, orders: &Orders) {
        if orders.forgets > self.forgets {
            self.forgets = orders.forgets;
            self.forgotten = true;
        }
        self.wraps = orders.wraps;
    }

    /// A request of the client.
    pub fn request(&mut self, bytes: Vec<u8>, faults: &Faults) -> Verdict {
        if faults.stall {
            return Verdict::Swallow;
        }
        let Some(mut request) = Message::parse(&bytes) else { return Verdict::Forward(bytes) };
        let method = request.method().unwrap_or_default().to_owned();
        let answer = |status: u16, why: &str| {
            let mut answer = Message::answer(&request, status);
            if status == 401 {
                let challenge = faults.lock.as_ref().map(|lock| lock.challenge(&self.nonce));
                let challenge = challenge.unwrap_or_else(|| "Basic realm=\"fault lab\"".into());
                answer.set("WWW-Authenticate", &challenge);
            }
            Verdict::Answer(answer.into_bytes(), format!("{method} answered {status}{why}"))
        };
        if request.session().is_some() {
            if self.forgotten {
                return answer(454, ": the session is forgotten");
            }
        } else if method == "SETUP" {
            self.forgotten = false;
        }
        if let Some(lock) = faults.lock.as_ref().filter(|_| method != "OPTIONS") {
            match lock.check(&request, &self.nonce) {
                Given::Right => {}
                Given::Nothing => return answer(401, ""),
                Given::Wrong => return answer(401, ": another password"),
            }
        }
        if let Some(status) =
            faults.answer.filter(|_| ["DESCRIBE", "SETUP", "PLAY"].contains(&method.as_str()))
        {
            return answer(status, "");
        }
        if method == "DESCRIBE" {
            if faults.headers {
                let mut answer = Message::answer(&request, 200).into_bytes();
                // Without the empty line that would end it.
                answer.truncate(answer.len() - 2);
                return Verdict::Endless(answer);
            }
            self.describes.extend(request.header("CSeq").map(str::to_owned));
        }
        // Packets beside the connection would not pass through here.
        let beside = request.header("Transport").is_some_and(|transport| !transport.contains("TCP"));
        if method == "SETUP" && beside {
            return answer(461, ": only TCP passes the fault lab");
        }
        if faults.lock.is_some() {
            // The server behind has no password.
            request.remove("Authorization");
            return Verdict::Forward(request.into_bytes());
        }
        Verdict::Forward(bytes)
    }

    /// An answer of the camera; `None` where the client does not get it.
    pub fn answer(&mut self, bytes: Vec<u8>, faults: &Faults) -> Option<Vec<u8>> {
        if faults.stall {
            return None;
        }
        let Some(mut answer) = Message::parse(&bytes) else { return Some(bytes) };
        if let Some(session) = answer.session() {
            self.session = Some(session.to_owned());
        }
        let described = answer.header("CSeq").is_some_and(|cseq| self.describes.remove(cseq));
        if described && answer.status() == Some(200) {
            self.payloads = payloads(&answer.body);
            if let Some(kind) = faults.sdp {
                answer.body = spoil(&answer.body, kind);
                if answer.body.is_empty() {
                    answer.set("Content-Length", "0");
                }
                return Some(answer.into_bytes());
            }
        }
        Some(bytes)
    }

    /// A packet of the camera; `None` where the client does not get it.
    pub fn packet(&mut self, mut bytes: Vec<u8>, faults: &Faults) -> Option<Vec<u8>> {
        if faults.stall || self.forgotten {
            return None;
        }
        let channel = bytes.get(1).copied()?;
        let stream = self
            .streams
            .entry(channel & !1)
            .or_insert_with(|| Stream { wraps: self.wraps, ..Stream::default() });
        if channel % 2 == 1 {
            if self.is_mute(channel & !1, faults) {
                return None;
            }
            if let Some(Stream { payload: Some(payload), clock, .. }) = self.streams.get(&(channel & !1)) {
                edit_reports(&mut bytes, |ntp, rtp| clock.report(ntp, rtp, payload.rate, faults.step));
            }
            return Some(bytes);
        }
        let Some(mut packet) = Packet::new(&mut bytes) else { return Some(bytes) };
        if stream.payload.is_none_or(|payload| payload.kind != packet.payload_kind()) {
            stream.payload =
                self.payloads.iter().find(|payload| payload.kind == packet.payload_kind()).copied();
        }
        if let Some(payload) = stream.payload {
            let original = packet.timestamp();
            if stream.wraps < self.wraps {
                stream.wraps = self.wraps;
                stream.clock.wrap_soon(original, payload.rate);
            }
            packet.set_timestamp(stream.clock.timestamp(original, payload.rate, faults.jump, faults.drift));
        }
        if self.is_mute(channel, faults) || (faults.drop > 0.0 && self.chance() < faults.drop) {
            return None;
        }
        if faults.corrupt > 0.0 && self.chance() < faults.corrupt {
            let at = self.chance();
            if let Some(mut packet) = Packet::new(&mut bytes) {
                packet.damage(at);
            }
        }
        Some(bytes)
    }

    fn is_mute(&self, channel: u8, faults: &Faults) -> bool {
        let payload = self.streams.get(&channel).and_then(|stream| stream.payload);
        if payload.is_some_and(|payload| payload.audio) { faults.mute_audio } else { faults.mute_video }
    }

    /// The next of a row of numbers from 0 to 1 (xorshift64*).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A description that is wrong in the way of `kind`.
fn spoil(sdp: &[u8], kind: Sdp) -> Vec<u8> {
    match kind {
        Sdp::Empty => Vec::new(),
        Sdp::Garbage => (0..sdp.len().max(64)).map(|i| (i * 97 + 13) as u8).collect(),
        Sdp::Truncated => sdp[..sdp.len() / 2].to_vec(),
        Sdp::Huge => {
            let mut huge = sdp.to_vec();
            while huge.len() < 1 << 20 {
                huge.extend_from_slice(
                    b"a=x-padding:all work and no play makes a session description long\r\n",
                );
            }
            huge
        }
        Sdp::Parameters => {
            let text = String::from_utf8_lossy(sdp);
            let lines = text.lines().map(|line| match line.split_once(' ') {
                Some((format, _)) if format.starts_with("a=fmtp:") => {
                    format!(
                        "{format} packetization-mode=99999999999;profile-level-id=zz;sprop-parameter-sets=Z////w==,%%%,,\
                         AAAAAAAAAAAAAAAAAAAAAAAA;sprop-vps=/;sprop-sps=////;sprop-pps=AA=A\r\n"
                    )
                }
                _ if line.starts_with("a=framerate:") => "a=framerate:-1e99\r\n".to_owned(),
                _ if line.starts_with("a=range:") => "a=range:npt=-99999999999-banana\r\n".to_owned(),
                _ => format!("{line}\r\n"),
            });
            lines.collect::<String>().into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use gst::glib;
    use proptest::prelude::*;

    use super::*;

    const SDP: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 sprop-parameter-sets=Z0I=\r\n\
                       m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n";

    fn faults(orders: &[&str]) -> (Orders, Faults) {
        let (mut all, now) = (Orders::default(), Instant::now());
        for order in orders {
            all.apply(&order.parse().unwrap(), now);
        }
        let faults = all.at(now);
        (all, faults)
    }

    fn request(method: &str, rest: &str) -> Vec<u8> {
        format!("{method} rtsp://h/0 RTSP/1.0\r\nCSeq: 2\r\n{rest}\r\n").into_bytes()
    }

    fn described(tamper: &mut Tamper, faults: &Faults) -> Vec<u8> {
        assert!(matches!(tamper.request(request("DESCRIBE", ""), faults), Verdict::Forward(_)));
        let answer = format!("RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
        tamper.answer(answer.into_bytes(), faults).unwrap()
    }

    fn packet(channel: u8, kind: u8, timestamp: u32) -> Vec<u8> {
        let mut bytes = vec![b'$', channel, 0, 16, 0x80, kind, 0, 1];
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend([0, 0, 0, 9, 1, 2, 3, 4]);
        bytes
    }

    fn status(verdict: Verdict) -> u16 {
        match verdict {
            Verdict::Answer(bytes, _) => Message::parse(&bytes).unwrap().status().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_faults_nothing_is_touched() {
        let (orders, faults) = faults(&[]);
        let mut tamper = Tamper::new(1, &orders);
        assert!(described(&mut tamper, &faults).ends_with(SDP.as_bytes()));
        for (channel, kind) in [(0, 96), (1, 200), (2, 8), (4, 77)] {
            assert_eq!(tamper.packet(packet(channel, kind, 5), &faults), Some(packet(channel, kind, 5)));
        }
        let setup = request("SETUP", "Transport: RTP/AVP/TCP;interleaved=0-1\r\n");
        assert_eq!(tamper.request(setup.clone(), &faults), Verdict::Forward(setup));
        assert_eq!(status(tamper.request(request("SETUP", "Transport: RTP/AVP;unicast\r\n"), &faults)), 461);
    }

    #[test]
    fn answers_are_given_in_the_cameras_place() {
        let (orders, faulty) = faults(&["answer 453"]);
        let mut tamper = Tamper::new(1, &orders);
        assert_eq!(status(tamper.request(request("DESCRIBE", ""), &faulty)), 453);
        assert!(matches!(tamper.request(request("TEARDOWN", ""), &faulty), Verdict::Forward(_)));

        let (_, faulty) = faults(&["password sesame"]);
        assert_eq!(status(tamper.request(request("DESCRIBE", ""), &faulty)), 401);
        assert!(matches!(tamper.request(request("OPTIONS", ""), &faulty), Verdict::Forward(_)));
        let wrong = format!("Authorization: Basic {}\r\n", glib::base64_encode(b"viewer:wrong"));
        assert_eq!(status(tamper.request(request("DESCRIBE", &wrong), &faulty)), 401);
        let right = format!("Authorization: Basic {}\r\n", glib::base64_encode(b"viewer:sesame"));
        let Verdict::Forward(bytes) = tamper.request(request("DESCRIBE", &right), &faulty) else { panic!() };
        assert_eq!(Message::parse(&bytes).unwrap().header("Authorization"), None);

        let (_, faulty) = faults(&["digest sesame"]);
        let Verdict::Answer(bytes, _) = tamper.request(request("DESCRIBE", &right), &faulty) else {
            panic!()
        };
        let answer = Message::parse(&bytes).unwrap();
        assert_eq!(answer.status(), Some(401));
        assert!(answer.header("WWW-Authenticate").unwrap().starts_with("Digest "));

        let (_, faulty) = faults(&["headers"]);
        let Verdict::Endless(bytes) = tamper.request(request("DESCRIBE", ""), &faulty) else { panic!() };
        assert_eq!(bytes, b"RTSP/1.0 200 OK\r\nCSeq: 2\r\n");
    }

    #[test]
    fn forgotten_sessions_are_gone_until_a_new_one() {
        let (mut orders, healthy) = faults(&[]);
        let mut tamper = Tamper::new(1, &orders);
        described(&mut tamper, &healthy);
        orders.apply(&"forget".parse().unwrap(), Instant::now());
        tamper.heed(&orders);
        assert_eq!(tamper.packet(packet(0, 96, 1), &healthy), None);
        assert_eq!(status(tamper.request(request("GET_PARAMETER", "Session: a\r\n"), &healthy)), 454);
        assert!(matches!(tamper.request(request("OPTIONS", ""), &healthy), Verdict::Forward(_)));
        let setup = request("SETUP", "Transport: RTP/AVP/TCP;interleaved=0-1\r\n");
        assert!(matches!(tamper.request(setup, &healthy), Verdict::Forward(_)));
        assert!(tamper.packet(packet(0, 96, 1), &healthy).is_some());
    }

    #[test]
    fn packets_are_kept_away_by_kind_and_share() {
        let (orders, healthy) = faults(&[]);
        let mut tamper = Tamper::new(1, &orders);
        described(&mut tamper, &healthy);
        let (_, mute) = faults(&["mute audio"]);
        assert!(tamper.packet(packet(0, 96, 1), &mute).is_some());
        assert!(tamper.packet(packet(2, 8, 1), &mute).is_none());
        let (_, mute) = faults(&["mute video"]);
        assert!(
            tamper.packet(packet(0, 96, 1), &mute).is_none()
                && tamper.packet(packet(2, 8, 1), &mute).is_some()
        );
        let (_, lossy) = faults(&["drop 20", "corrupt 50"]);
        let passed: Vec<_> = (0..2000).filter_map(|i| tamper.packet(packet(0, 96, i), &lossy)).collect();
        assert!((1500..1700).contains(&passed.len()), "{}", passed.len());
        let damaged = passed.iter().filter(|packet| packet[16..] != [1, 2, 3, 4]).count();
        assert!((700..900).contains(&damaged), "{damaged}");
    }

    #[test]
    fn descriptions_are_spoilt() {
        for (kind, check) in [
            ("empty", (|body| body.is_empty()) as fn(&[u8]) -> bool),
            ("garbage", |body| std::str::from_utf8(body).is_err()),
            ("truncated", |body| SDP.as_bytes().starts_with(body) && body.len() < SDP.len()),
            ("huge", |body| body.len() > 1 << 20),
            ("parameters", |body| {
                String::from_utf8_lossy(body).contains("a=fmtp:96 packetization-mode=99999999999")
            }),
        ] {
            let (orders, faulty) = faults(&[&format!("sdp {kind}")]);
            let answer = described(&mut Tamper::new(1, &orders), &faulty);
            let answer = Message::parse(&answer).unwrap();
            assert!(check(&answer.body), "{kind}");
            assert_eq!(answer.header("Content-Length").unwrap(), answer.body.len().to_string());
        }
    }

    #[test]
    fn a_stalled_camera_says_nothing() {
        let (orders, stalled) = faults(&["stall"]);
        let mut tamper = Tamper::new(1, &orders);
        assert_eq!(tamper.request(request("OPTIONS", ""), &stalled), Verdict::Swallow);
        assert_eq!(tamper.answer(request("x", ""), &stalled), None);
        assert_eq!(tamper.packet(packet(0, 96, 1), &stalled), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..100), channel in 0_u8..4) {
            let (orders, faulty) = faults(&["jump 5s", "drift 100", "corrupt 50", "sdp parameters", "step -1h"]);
            let mut tamper = Tamper::new(7, &orders);
            described(&mut tamper, &faulty);
            tamper.packet(packet(0, 96, 1), &faulty);
            let framed = [&[b'$', channel, 0, 0], &bytes[..]].concat();
            prop_assert!(tamper.packet(framed, &faulty).is_some());
            let _ = tamper.request(bytes.clone(), &faulty);
            let _ = tamper.answer(bytes, &faulty);
        }
    }
}
