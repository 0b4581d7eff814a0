//! One camera in the hands of the receiving thread: its bytes become packets, those become units, and units leave with
//! their times.

use std::{
    io::Read,
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use gst::prelude::*;
use nvr_core::{
    access_unit::{self, Assembler, Refusal},
    detection::{CaptureTime, Clock, FrameFacts},
    interleaved::{self, Item, Message},
    rtp::{self, Order, Packet, Sequence, Unroll},
    rtsp::Challenge,
    times::Skew,
};

use super::{
    Link, Trouble,
    receiver::{Guest, Left},
    talk::is_nothing,
};
use crate::{
    meta,
    nvrsrc::{imp::CAT, session::Shared},
};

/// What one camera may send before it is the turn of the next.
const TURN: usize = 256 << 10;
/// A buffer of the receiving thread: what was left of the last turn, and this one's.
pub const BUFFER: usize = interleaved::LIMIT + TURN;
/// Questions of a camera that wait for an answer.
const QUESTIONS: usize = 4;

/// What becomes of the packets of a stream.
pub enum Form {
    /// They are put together here.
    Units(Assembler),
    /// A depayloader takes them as they are. Of those with one timestamp it keeps all.
    Packets,
}

/// One stream of a camera.
pub struct Track {
    pub channel: u8,
    pub reports: u8,
    pub caps: gst::Caps,
    kind: u8,
    rate: u32,
    video: bool,
    form: Form,
    pad: Option<gst::Pad>,
    unroll: Unroll,
    sequence: Sequence,
    skew: Skew,
    /// Nanoseconds since 1970, and the ticks for it.
    report: Option<(u64, i64)>,
    discont: bool,
    /// The last packet was not the end of a picture.
    open: bool,
    /// The timestamp of the last packet for a depayloader, and bytes with that.
    pile: (u32, usize),
}

impl Track {
    pub fn new((channel, reports): (u8, u8), kind: u8, rate: u32, caps: gst::Caps, form: Form) -> Self {
        let video = caps
            .structure(0)
            .is_some_and(|s| s.name().starts_with("video/") || s.get::<&str>("media") == Ok("video"));
        Self {
            channel,
            reports,
            caps,
            kind,
            video,
            rate,
            form,
            pad: None,
            unroll: Unroll::default(),
            sequence: Sequence::default(),
            skew: Skew::default(),
            report: None,
            discont: true,
            open: false,
            pile: (0, 0),
        }
    }

    /// Makes the pad that units leave through, with the events that open its stream.
    pub fn open(&mut self, latency: gst::ClockTime) -> Result<gst::Pad, gst::glib::BoolError> {
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(move |pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(answer) => {
                    answer.set(true, latency, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        pad.set_active(true)?;
        pad.push_event(gst::event::StreamStart::new(&format!("nvrsrc/{}", self.channel)));
        pad.push_event(gst::event::Caps::new(&self.caps));
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        self.pad = Some(pad.clone());
        Ok(pad)
    }

    fn packet(&mut self, data: &[u8], now: gst::ClockTime) -> Result<(), Trouble> {
        // A camera may send on a channel what it has not announced.
        let Some(packet) = Packet::parse(data).filter(|packet| packet.kind == self.kind) else {
            return Ok(());
        };
        let gap = match self.sequence.place(&packet) {
            Order::Again => return Ok(()),
            Order::Next => false,
            Order::Gap => true,
        };
        // Of sound, the mark says something else.
        self.open = self.video && !packet.marker;
        match &mut self.form {
            Form::Packets => {
                self.discont |= gap;
                let before = if self.pile.0 == packet.timestamp { self.pile.1 } else { 0 };
                self.pile = (packet.timestamp, before + data.len());
                if self.pile.1 > access_unit::LIMIT {
                    return Err(Trouble::Lost(Refusal::TooLarge.to_string()));
                }
                let mut buffer = gst::Buffer::from_slice(data.to_vec());
                self.stamp(&mut buffer, packet.timestamp, now);
                self.push(buffer)
            }
            Form::Units(assembler) => {
                if gap {
                    assembler.lost();
                }
                assembler.push(&packet).map_err(|refusal| Trouble::Lost(refusal.to_string()))?;
                self.units(now)
            }
        }
    }

    fn units(&mut self, now: gst::ClockTime) -> Result<(), Trouble> {
        while let Form::Units(assembler) = &mut self.form
            && let Some(unit) = assembler.unit()
        {
            self.discont |= unit.damaged;
            let (timestamp, keyframe) = (unit.timestamp, unit.keyframe);
            let mut buffer = gst::Buffer::from_mut_slice(unit.data);
            if !keyframe {
                buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            self.stamp(&mut buffer, timestamp, now);
            self.push(buffer)?;
        }
        Ok(())
    }

    /// Running time, and when it was taken where the camera says so.
    fn stamp(&mut self, buffer: &mut gst::Buffer, timestamp: u32, now: gst::ClockTime) {
        let ticks = self.unroll.ticks(timestamp);
        let placed = self.skew.place(rtp::nanoseconds(ticks, self.rate), now.nseconds());
        gst::trace!(CAT, "channel {}: {timestamp} at {now} is {placed:?}", self.channel);
        let buffer = buffer.make_mut();
        // Parsers make up a decoding time where there is none, and move pictures that would be shown before it.
        let time = gst::ClockTime::from_nseconds(placed.time.min(u64::MAX - 1));
        buffer.set_pts(time);
        buffer.set_dts(time);
        if std::mem::take(&mut self.discont) || placed.jumped {
            buffer.set_flags(gst::BufferFlags::DISCONT);
        }
        if placed.jumped {
            // What the last report said is of another line of time.
            self.report = None;
        }
        if let Some((unix_ns, at)) = self.report {
            let since = rtp::nanoseconds(ticks.saturating_sub(at), self.rate);
            let capture = CaptureTime { unix_ns: unix_ns.saturating_add_signed(since), clock: Clock::Ntp };
            meta::set_facts(buffer, &FrameFacts { capture: Some(capture), ..FrameFacts::default() });
        }
    }

    fn push(&self, buffer: gst::Buffer) -> Result<(), Trouble> {
        match self.pad.as_ref().map(|pad| pad.push(buffer)) {
            None | Some(Err(gst::FlowError::Flushing)) => Err(Trouble::Stopped),
            // What follows says on the bus what is wrong.
            _ => Ok(()),
        }
    }

    fn heard(&mut self, data: &[u8]) {
        if let Some(report) = rtp::sender_report(data)
            && let Some(ticks) = self.unroll.near(report.timestamp)
        {
            self.report = Some((report.unix_ns, ticks));
        }
    }
}

pub struct Camera {
    stream: Arc<TcpStream>,
    /// Nothing is decoded.
    patient: bool,
    /// What is decoded comes seldom.
    seldom: Arc<AtomicBool>,
    link: Weak<Link>,
    shared: Weak<Shared>,
    tracks: Vec<Track>,
    /// The beginning of an item whose rest has not come yet.
    kept: Vec<u8>,
}

impl Camera {
    pub fn new(
        stream: Arc<TcpStream>,
        patient: bool,
        link: &Arc<Link>,
        shared: &Arc<Shared>,
        tracks: Vec<Track>,
        kept: Vec<u8>,
    ) -> Self {
        let seldom = shared.flow.seldom.clone();
        Self {
            stream,
            patient,
            seldom,
            link: Arc::downgrade(link),
            shared: Arc::downgrade(shared),
            tracks,
            kept,
        }
    }

    /// Takes all whole items of `input`; gives how many bytes these were.
    fn eat(&mut self, input: &[u8], now: gst::ClockTime) -> Result<usize, Trouble> {
        let mut at = 0;
        while let Some((item, taken)) = interleaved::next(&input[at..], interleaved::MESSAGE)
            .map_err(|error| Trouble::Lost(error.to_string()))?
        {
            at += taken;
            match item {
                Item::Message(message) => self.message(&message)?,
                Item::Packet { channel, data } => {
                    for track in &mut self.tracks {
                        if track.channel == channel {
                            track.packet(data, now)?;
                        } else if track.reports == channel {
                            track.heard(data);
                        }
                    }
                }
            }
        }
        Ok(at)
    }

    /// Answers to keep-alives, and what the camera asks; the worker deals with what needs an answer.
    fn message(&self, message: &Message<'_>) -> Result<(), Trouble> {
        let Some(link) = self.link.upgrade() else { return Err(Trouble::Stopped) };
        match message.status() {
            Some((454, _)) => return Err(Trouble::Lost("the camera has forgotten the session".into())),
            Some((401, _)) => {
                link.mail.lock().challenge = Challenge::best(message.headers("WWW-Authenticate"));
            }
            Some(_) => {}
            None => {
                let mut mail = link.mail.lock();
                if let Some(number) = message.header("CSeq").filter(|_| mail.questions.len() < QUESTIONS) {
                    mail.questions.push(number.chars().filter(char::is_ascii_digit).take(20).collect());
                }
            }
        }
        Ok(())
    }

    pub fn is_of(&self, link: &Arc<Link>) -> bool {
        std::ptr::eq(self.link.as_ptr(), Arc::as_ptr(link))
    }
}

impl Guest for Camera {
    fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    fn is_patient(&self) -> bool {
        self.patient || self.seldom.load(Ordering::Relaxed)
    }

    fn turn(&mut self, buffer: &mut [u8]) -> Result<Left, Trouble> {
        let Some(shared) = self.shared.upgrade() else { return Err(Trouble::Stopped) };
        let Some(pipeline) = shared.pipeline.upgrade() else { return Err(Trouble::Stopped) };
        let now = pipeline.current_running_time();
        let now = now.ok_or_else(|| Trouble::Lost("the connection has no time".into()))?;
        let mut kept = std::mem::take(&mut self.kept);
        if kept.len() > interleaved::LIMIT {
            // Media that came before the camera said that it plays.
            let taken = self.eat(&kept, now)?;
            kept.drain(..taken);
        }
        buffer[..kept.len()].copy_from_slice(&kept);
        let mut filled = kept.len();
        let mut came = 0;
        let more = loop {
            let room = buffer.len() - filled;
            let length = match (&*self.stream).read(&mut buffer[filled..]) {
                Ok(0) => break Err(Trouble::Over),
                Ok(length) => length,
                Err(error) if is_nothing(&error) => break Ok(false),
                Err(error) => break Err(Trouble::of(&error)),
            };
            filled += length;
            came += length;
            let taken = self.eat(&buffer[..filled], now)?;
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
            if length < room {
                break Ok(false);
            }
            if came >= TURN {
                break Ok(true);
            }
        };
        if came == 0 {
            let taken = self.eat(&buffer[..filled], now)?;
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
        kept.clear();
        kept.extend_from_slice(&buffer[..filled]);
        self.kept = kept;
        Ok(match more? {
            true => Left::More,
            false if !self.kept.is_empty() || self.tracks.iter().any(|track| track.open) => Left::Rest,
            false => Left::Nothing,
        })
    }

    fn leave(self, trouble: Trouble) {
        gst::debug!(CAT, "received no longer: {trouble:?}");
        if let Some(shared) = self.shared.upgrade()
            && let Some(report) = trouble.report()
        {
            shared.mailbox.report(shared.id, report);
        }
    }
}
