//! The place where coded media pass: counts access units, notes when they were taken, hands them to the requested pad,
//! and keeps from the decoder what need not be decoded.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use gst::{glib, prelude::*, subclass::prelude::*};
use nvr_core::{detection::FrameFacts, nal, times::Anchor};
use parking_lot::Mutex;

use super::{
    Decode,
    branch::Branch,
    flow::{Counters, capture_time},
    gate::{self, Verdict},
    hold::{self, Hold, Step},
    imp::CAT,
    lane::Kind,
    parts::Parts,
    session::Shared,
    worker::Report,
};
use crate::{in_place, meta};

/// How much of an access unit is searched for its first slice.
const SEARCH: usize = 4096;
/// What may wait for a decoder that stands in a thread of its own.
const DECODER_BYTES: u32 = 8 << 20;
const DECODER_UNITS: u32 = 100;

glib::wrapper! {
    pub struct Tap(ObjectSubclass<TapImp>) @extends gst::Element, gst::Object;
}

impl Tap {
    /// `unmarked`: nobody says which units are keyframes.
    pub fn new(shared: &Arc<Shared>, kind: Kind, unmarked: bool) -> Self {
        let tap: Self = glib::Object::builder().property("name", format!("tap-{}", kind.name())).build();
        // A fresh object: nobody has set this before.
        let _ = tap.imp().shared.set((shared.clone(), kind));
        tap.imp().input.lock().unmarked = unmarked;
        tap
    }

    /// A queue to stand behind this, in front of the decoder.
    pub fn queue(&self) -> Result<gst::Element, glib::BoolError> {
        // Its limits are the gate's, which knows what may be left out.
        let queue = gst::ElementFactory::make("queue")
            .name("decoder-queue")
            .property("max-size-buffers", 0_u32)
            .property("max-size-bytes", 0_u32)
            .property("max-size-time", 0_u64)
            .build()?;
        let weak = self.downgrade();
        queue.static_pad("src").and_then(|pad| {
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                let Some(gst::PadProbeData::Buffer(buffer)) = info.data.take() else {
                    return gst::PadProbeReturn::Ok;
                };
                let result = pad.peer().map_or(Err(gst::FlowError::NotLinked), |peer| peer.chain(buffer));
                // A queue gives up on the first error.
                let shared =
                    weak.upgrade().and_then(|tap| tap.imp().shared.get().map(|(shared, _)| shared.clone()));
                info.flow_res = shared.map_or(result, |shared| get_over(&shared, result));
                gst::PadProbeReturn::Handled
            })
        });
        *self.imp().queue.lock() = Some(queue.clone());
        Ok(queue)
    }
}

#[derive(Debug, Default)]
struct Input {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Decoders may hold pictures back to put them in order; none of this codec does.
    intra: bool,
    /// Nobody says which units are keyframes.
    unmarked: bool,
    /// With start codes, the only form that is looked into.
    codec: Option<nal::Codec>,
    /// Highest temporal layer so far.
    layer: u8,
    anchor: Anchor,
    /// A unit has passed.
    begun: bool,
    /// A keyframe has reached the decoder.
    keyed: bool,
    /// What the stream last said of its parameters, for whoever joins later.
    sets: Option<Vec<u8>>,
    parts: Parts,
}

/// What is attached beside the way to the decoder. Only the stream's own thread looks at it.
#[derive(Debug, Default)]
struct Side {
    generation: u64,
    branch: Option<Arc<Branch>>,
    /// Has not seen a unit yet.
    fresh: bool,
}

#[derive(Debug)]
pub struct TapImp {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    shared: OnceLock<(Arc<Shared>, Kind)>,
    input: Mutex<Input>,
    side: Mutex<Side>,
    /// In front of the decoder where a slow one must not hold up the other pads.
    queue: Mutex<Option<gst::Element>>,
    /// Units that no picture needs yet.
    hold: Mutex<Option<Hold<gst::Buffer>>>,
}

impl TapImp {
    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let whole = {
            let mut input = self.input.lock();
            // The light receiver takes no picture apart.
            let light = self.shared.get().is_some_and(|(shared, _)| shared.light);
            if light || input.codec.is_none() { [Some(buffer), None] } else { input.parts.add(buffer) }
        };
        whole.into_iter().flatten().try_fold(gst::FlowSuccess::Ok, |_, unit| self.unit(unit))
    }

    /// One whole access unit, or what there is of one.
    fn unit(&self, mut buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some((shared, kind)) = self.shared.get() else { return Err(gst::FlowError::Error) };
        let flow = &shared.flow;
        if flow.stopped.load(Ordering::Relaxed) {
            return Err(gst::FlowError::Flushing);
        }
        flow.touch();
        if *kind == Kind::Encoded {
            Counters::add(&flow.counters.units, 1);
            Counters::add(&flow.counters.bytes, buffer.size() as u64);
            if !std::mem::replace(&mut self.input.lock().begun, true) {
                shared.mailbox.report(shared.id, Report::Media);
            }
        }
        let time = self.place(shared, &mut buffer);
        let delta = *kind == Kind::Encoded && buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let branch = self.branch(shared, *kind, !delta);
        if *kind == Kind::Audio {
            if let Some(branch) = branch {
                self.feed(&branch, buffer, time);
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let (verdict, unit) = self.decide(shared, &buffer, time);
        if branch.is_some() || verdict != Verdict::Skip {
            Self::stamp(shared, &mut buffer, time);
        } else if time.is_some() {
            flow.next_number();
        }
        if let Some(branch) = branch {
            self.feed(&branch, buffer.clone(), time);
        }
        match verdict {
            Verdict::Skip => {
                Counters::add(&flow.counters.skipped, 1);
                Ok(gst::FlowSuccess::Ok)
            }
            Verdict::Decode => self.decode(shared, buffer, unit),
            // Nothing is held back, so nothing has to be brought out.
            Verdict::DecodeAlone if self.input.lock().intra => self.push(shared, buffer),
            Verdict::DecodeAlone => {
                let time = buffer.pts();
                let success = self.push(shared, buffer)?;
                // A decoder gives out what it holds back for reordering when a segment is done.
                self.srcpad.push_event(gst::event::SegmentDone::new(time));
                Ok(success)
            }
        }
    }

    /// Has a unit decoded, at once or, where it is one that may `wait`, when a picture needs it.
    fn decode(
        &self,
        shared: &Shared,
        buffer: gst::Buffer,
        wait: Option<hold::Unit>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(unit) = wait else {
            self.release(shared)?;
            return self.push(shared, buffer);
        };
        if unit.anew {
            self.forget(shared);
        }
        let flow = &shared.flow;
        let (out, plan) = {
            let stream = flow.stream.lock();
            (stream.last_time.map(gst::ClockTime::nseconds), stream.limiter.clone())
        };
        let before = {
            let mut hold = self.hold.lock();
            let hold = hold.get_or_insert_with(|| Hold::new(plan));
            match hold.step(unit, flow.max_fps(), out) {
                Step::Wait => {
                    hold.push(buffer);
                    return Ok(gst::FlowSuccess::Ok);
                }
                Step::Go => hold.take(),
            }
        };
        for buffer in before {
            self.push(shared, buffer)?;
        }
        self.push(shared, buffer)
    }

    fn waiting(&self) -> Vec<gst::Buffer> {
        self.hold.lock().as_mut().map(Hold::take).unwrap_or_default()
    }

    /// Has everything decoded that waits.
    fn release(&self, shared: &Shared) -> Result<(), gst::FlowError> {
        self.waiting().into_iter().try_for_each(|buffer| self.push(shared, buffer).map(|_| ()))
    }

    /// Nothing will be made from what waits.
    fn forget(&self, shared: &Shared) {
        Counters::add(&shared.flow.counters.skipped, self.waiting().len() as u64);
    }

    fn push(&self, shared: &Shared, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        if buffer.pts().is_some() && !is_header(&buffer) {
            let mut input = self.input.lock();
            input.keyed |= !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            shared.flow.fed(input.keyed);
        }
        get_over(shared, self.srcpad.push(buffer))
    }

    /// Running time outside of a unit. Where the camera's timestamps jumped, or lie before what an earlier connection
    /// gave, the buffer's are moved.
    fn place(&self, shared: &Shared, buffer: &mut gst::Buffer) -> Option<gst::ClockTime> {
        let pts = buffer.pts()?;
        let timeline = &shared.timeline;
        let inside = self.input.lock().segment.as_ref().and_then(|s| s.to_running_time(pts))?;
        let outside = timeline.outside(inside)?;
        let mut placed = outside.nseconds().saturating_add_signed(timeline.settle(outside));
        let mut jumped = false;
        if let Some(now) = timeline.now() {
            let place = self.input.lock().anchor.place(placed, now.nseconds());
            (placed, jumped) = (place.time, place.jumped);
        }
        let shift = (placed as i64).wrapping_sub(outside.nseconds() as i64);
        if shift != 0 || jumped {
            let moved = |time: Option<gst::ClockTime>| {
                time.map(|time| clock_time(time.nseconds().saturating_add_signed(shift)))
            };
            let buffer = buffer.make_mut();
            let (pts, dts) = (moved(buffer.pts()), moved(buffer.dts()));
            buffer.set_pts(pts);
            buffer.set_dts(dts);
            if jumped {
                Counters::add(&shared.flow.counters.jumps, 1);
                gst::info!(CAT, imp = self, "the camera's timestamps jumped by {} s", -shift / 1_000_000_000);
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
        }
        Some(clock_time(placed))
    }

    /// Whether the unit has to be decoded, and as what it may wait for that.
    fn decide(
        &self,
        shared: &Shared,
        buffer: &gst::BufferRef,
        time: Option<gst::ClockTime>,
    ) -> (Verdict, Option<hold::Unit>) {
        let flow = &shared.flow;
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let wanted = flow.wants_pictures() && !self.backlog(shared);
        let max_fps = flow.max_fps();
        let (codec, unmarked) = {
            let input = self.input.lock();
            (input.codec, input.unmarked)
        };
        let decode = match flow.decode() {
            Decode::Auto | Decode::Keyframes if unmarked => Decode::All,
            decode => decode,
        };
        // Whether others need it matters where more than keyframes are decoded.
        let choice = || {
            let alone = |time: gst::ClockTime| flow.gate.lock().alone(time.nseconds(), decode, max_fps);
            max_fps > 0.0 && wanted && !time.is_some_and(alone)
        };
        let (mut disposable, mut anew) = (false, false);
        if let Some(codec) = codec.filter(|_| keyframe || choice()) {
            let mut start = [0; SEARCH];
            let start = &mut start[..buffer.size().min(SEARCH)];
            if buffer.copy_to_slice(0, start).is_ok() {
                let slice = nal::first_slice(codec, start);
                let mut input = self.input.lock();
                if keyframe {
                    input.sets = nal::parameter_sets(codec, start).or_else(|| input.sets.take());
                    anew = slice.is_some_and(|slice| slice.idr);
                } else if let Some(slice) = slice {
                    input.layer = input.layer.max(slice.layer);
                    disposable = slice.disposable && slice.layer == input.layer;
                }
            }
        }
        // Without a time there is nothing to decide on, and headers have none.
        let Some(time) = time.filter(|_| !is_header(buffer)) else {
            return (if wanted { Verdict::Decode } else { Verdict::Skip }, None);
        };
        let time_ns = time.nseconds();
        let unit = gate::Unit { time_ns, keyframe, disposable };
        let (verdict, broken, seldom) = {
            let mut gate = flow.gate.lock();
            let verdict = gate.admit(unit, wanted, decode, max_fps, || flow.is_due(time));
            (verdict, gate.is_broken(), gate.seldom(time_ns, decode, max_fps))
        };
        flow.seldom.store(seldom, Ordering::Relaxed);
        if broken || verdict == Verdict::DecodeAlone {
            self.forget(shared);
        }
        let may_wait = decode == Decode::Auto && max_fps > 0.0;
        (verdict, may_wait.then_some(hold::Unit { time_ns, anew, bytes: buffer.size() }))
    }

    /// Whether the decoder is so far behind that it is to begin anew with a later keyframe.
    fn backlog(&self, shared: &Shared) -> bool {
        let Some(queue) = self.queue.lock().clone() else { return false };
        let behind = queue.property::<u32>("current-level-bytes") > DECODER_BYTES
            || queue.property::<u32>("current-level-buffers") > DECODER_UNITS;
        if behind {
            Counters::add(&shared.flow.counters.late, 1);
        }
        behind
    }

    /// Writes number and capture time of the unit onto it; decoders and parsers hand them on.
    fn stamp(shared: &Shared, buffer: &mut gst::Buffer, time: Option<gst::ClockTime>) {
        let Some((time, now)) = time.zip(shared.timeline.now()) else { return };
        let known = meta::facts(buffer).capture;
        let facts = FrameFacts {
            frame_id: Some(shared.flow.next_number()),
            capture: Some(capture_time(&shared.flow, known, time, now)),
            analysis: None,
        };
        meta::set_facts(buffer.make_mut(), &facts);
    }

    /// The branch to the requested pad, built or taken down where that was asked for since the last unit. One that
    /// begins does so with a keyframe.
    fn branch(&self, shared: &Arc<Shared>, kind: Kind, key: bool) -> Option<Arc<Branch>> {
        let generation = shared.flow.lanes.generation(kind);
        let (known, old) = {
            let side = self.side.lock();
            (side.generation, side.branch.clone())
        };
        if known == generation {
            return old;
        }
        let lane = shared.flow.lanes.get(kind);
        let kept = old.as_ref().zip(lane.as_ref()).is_some_and(|(old, lane)| Arc::ptr_eq(&old.lane, lane));
        if lane.is_some() && !key {
            return old.filter(|_| kept);
        }
        if let Some(old) = old {
            self.side.lock().branch = None;
            self.dismantle(shared, &old);
        }
        let branch = lane.and_then(|lane| {
            let caps = self.sinkpad.current_caps()?;
            let pad = gst::Pad::builder(gst::PadDirection::Src).name("lane").build();
            if pad.set_active(true).is_err() || self.obj().add_pad(&pad).is_err() {
                return None;
            }
            self.sinkpad.sticky_events_foreach(|event| {
                if event.type_() != gst::EventType::Eos {
                    let _ = pad.store_sticky_event(event);
                }
                std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
            });
            match Branch::build(shared, &lane, &caps, pad.clone()) {
                Ok(Some(branch)) => Some(Arc::new(branch)),
                Ok(None) => {
                    let _ = self.obj().remove_pad(&pad);
                    None
                }
                Err(error) => {
                    gst::warning!(CAT, imp = self, "no branch for the pad {}: {error}", kind.name());
                    let _ = self.obj().remove_pad(&pad);
                    lane.refuse(gst::FlowError::Error);
                    None
                }
            }
        });
        if branch.is_some() && kind == Kind::Encoded {
            self.decouple(shared);
        }
        let mut side = self.side.lock();
        *side = Side { generation, branch: branch.clone(), fresh: true };
        branch
    }

    fn dismantle(&self, shared: &Shared, branch: &Branch) {
        branch.dismantle(shared);
        let _ = branch.pad.set_active(false);
        let _ = self.obj().remove_pad(&branch.pad);
    }

    fn feed(&self, branch: &Branch, buffer: gst::Buffer, time: Option<gst::ClockTime>) {
        branch.expect(time);
        let fresh = std::mem::take(&mut self.side.lock().fresh);
        let sets = if fresh { self.input.lock().sets.clone() } else { None };
        let buffer = match sets {
            // Cameras that say their parameters only once would leave a branch that begins now without them. Said twice
            // they do no harm.
            Some(sets) => {
                let mut whole = gst::Buffer::from_mut_slice(sets);
                {
                    let whole = whole.make_mut();
                    // Fails only for an offset beyond the buffer.
                    let _ = buffer.copy_into(whole, gst::BUFFER_COPY_METADATA, ..);
                }
                whole.append(buffer);
                whole
            }
            None => buffer,
        };
        if let Err(error @ (gst::FlowError::NotNegotiated | gst::FlowError::NotSupported)) =
            branch.pad.push(buffer)
        {
            branch.lane.refuse(error);
        }
    }

    /// Gives the decoder a thread of its own, so that what follows the pad `video` cannot hold up the others.
    fn decouple(&self, shared: &Shared) {
        if self.queue.lock().is_some() {
            return;
        }
        let Some(peer) = self.srcpad.peer() else { return };
        let Ok(queue) = self.obj().queue() else { return };
        let (Some(sink), Some(src)) = (queue.static_pad("sink"), queue.static_pad("src")) else { return };
        let stopping = shared.stopping.lock();
        let Some(pipeline) = shared.pipeline.upgrade().filter(|_| !*stopping) else { return };
        if pipeline.add(&queue).is_err() {
            return;
        }
        let linked = self.srcpad.unlink(&peer).is_ok()
            && src.link(&peer).is_ok()
            && queue.sync_state_with_parent().is_ok()
            && self.srcpad.link(&sink).is_ok();
        drop(stopping);
        if !linked {
            shared
                .mailbox
                .report(shared.id, Report::Unusable("the decoder could not be given a thread".into()));
        }
    }

    fn event(&self, event: gst::Event) -> bool {
        if let Some((shared, _)) = self.shared.get() {
            let ends = [gst::EventType::Caps, gst::EventType::Segment, gst::EventType::Eos];
            // In the format, and at the times, that they came in.
            if ends.contains(&event.type_()) {
                let part = self.input.lock().parts.take();
                part.map(|part| self.unit(part));
            }
            match event.type_() {
                gst::EventType::Caps | gst::EventType::Segment => drop(self.release(shared)),
                gst::EventType::Eos => self.forget(shared),
                gst::EventType::FlushStop => {
                    self.input.lock().parts.take();
                    self.forget(shared);
                }
                _ => {}
            }
        }
        match event.view() {
            gst::EventView::Segment(segment) => {
                self.input.lock().segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
            }
            gst::EventView::Caps(caps) => {
                let codec = caps.caps().structure(0).and_then(|s| {
                    let codec = match s.name().as_str() {
                        "video/x-h264" => nal::Codec::H264,
                        "video/x-h265" => nal::Codec::H265,
                        _ => return None,
                    };
                    (s.get::<&str>("stream-format") == Ok("byte-stream")).then_some(codec)
                });
                let mut input = self.input.lock();
                if input.codec != codec {
                    input.sets = None;
                }
                input.codec = codec;
                input.intra = caps.caps().structure(0).is_some_and(|s| s.name() == "image/jpeg");
            }
            // Without a decoder nobody else tells of the end.
            gst::EventView::Eos(_) => {
                if let Some((shared, _)) = self.shared.get().filter(|(_, kind)| *kind == Kind::Encoded)
                    && self.srcpad.peer().is_none()
                {
                    shared.mailbox.report(shared.id, Report::End);
                }
            }
            _ => {}
        }
        let branch = self.side.lock().branch.clone();
        if let Some(branch) = branch {
            branch.pad.push_event(event.clone());
        }
        // Whether there is a decoder at all, and whether it likes the event, is nothing to refuse it for.
        self.srcpad.push_event(event);
        true
    }

    fn query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            // The decoder decides on the form; the branch has a parser for its own.
            gst::QueryViewMut::Caps(_) | gst::QueryViewMut::AcceptCaps(_) if self.srcpad.is_linked() => {
                self.srcpad.peer_query(query)
            }
            // Through a queue, this would wait for the decoder.
            gst::QueryViewMut::Allocation(_) if self.srcpad.is_linked() && self.queue.lock().is_none() => {
                self.srcpad.peer_query(query)
            }
            gst::QueryViewMut::Caps(query) => {
                let caps = query.filter_owned().unwrap_or_else(gst::Caps::new_any);
                query.set_result(&caps);
                true
            }
            gst::QueryViewMut::AcceptCaps(query) => {
                query.set_result(true);
                true
            }
            gst::QueryViewMut::Allocation(_) => false,
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }
}

/// Whether it is parameters without a picture.
fn is_header(buffer: &gst::BufferRef) -> bool {
    buffer.flags().contains(gst::BufferFlags::HEADER) && buffer.size() <= 1024
}

/// What a decoder answered. That it can do nothing with a unit is not the end of the stream: jpegdec answers a picture
/// with damaged colour components with an error that is in no message and after which it works on. What the decoder
/// cannot get over it says on the bus, and one that gives nothing any more is noticed by its silence.
fn get_over(
    shared: &Shared,
    result: Result<gst::FlowSuccess, gst::FlowError>,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    match result {
        Err(gst::FlowError::NotLinked) => Ok(gst::FlowSuccess::Ok),
        Err(gst::FlowError::Error) if !shared.flow.stopped.load(Ordering::Relaxed) => {
            Counters::add(&shared.flow.counters.undecodable, 1);
            Ok(gst::FlowSuccess::Ok)
        }
        result => result,
    }
}

/// The largest number is no time.
fn clock_time(nanoseconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanoseconds.min(u64::MAX - 1))
}

#[glib::object_subclass]
impl ObjectSubclass for TapImp {
    const NAME: &'static str = "NvrSrcTap";
    type Type = Tap;
    type ParentType = gst::Element;

    fn with_class(klass: &Self::Class) -> Self {
        let sinkpad = gst::Pad::builder_from_template(&klass.pad_template("sink").expect("declared below"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |tap| tap.chain(buffer))
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |tap| tap.event(event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |tap| tap.query(pad, query))
            })
            .build();
        let srcpad = gst::Pad::builder_from_template(&klass.pad_template("src").expect("declared below"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self {
            sinkpad,
            srcpad,
            shared: OnceLock::new(),
            input: Mutex::default(),
            side: Mutex::default(),
            queue: Mutex::default(),
            hold: Mutex::default(),
        }
    }
}

impl ObjectImpl for TapImp {
    fn constructed(&self) {
        self.parent_constructed();
        // A fresh element has no pads that these could clash with.
        let _ = self.obj().add_pad(&self.sinkpad);
        let _ = self.obj().add_pad(&self.srcpad);
    }
}

impl GstObjectImpl for TapImp {}

impl ElementImpl for TapImp {
    fn pad_templates() -> &'static [gst::PadTemplate] {
        in_place::pad_templates()
    }
}
