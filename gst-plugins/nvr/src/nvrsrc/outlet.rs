//! The end of a connection's pipeline: every picture leaves through here, with its time, its facts and at the rate
//! that was asked for.

use std::sync::{Arc, atomic::Ordering};

use gst::prelude::*;
use gst_video::{VideoInfo, VideoMeta};
use nvr_core::detection::FrameFacts;
use parking_lot::Mutex;

use super::{
    flow::{Counters, Flow, Stream, Timeline, capture_time},
    imp::CAT,
    worker::{Mailbox, Report},
};
use crate::{frames, meta};

/// The sink pad that a connection's last element is linked to. It belongs to no element; what arrives is pushed
/// from the element's own pad in the same thread.
pub fn sink_pad(
    flow: &Arc<Flow>,
    timeline: &Arc<Timeline>,
    mailbox: &Arc<Mailbox>,
    session: u64,
) -> gst::Pad {
    let outlet = Arc::new(Outlet {
        flow: flow.clone(),
        timeline: timeline.clone(),
        mailbox: mailbox.clone(),
        session,
        input: Mutex::default(),
    });
    gst::Pad::builder(gst::PadDirection::Sink)
        .name("outlet")
        .chain_function({
            let outlet = outlet.clone();
            move |_, _, buffer| outlet.chain(buffer)
        })
        .event_function({
            let outlet = outlet.clone();
            move |_, _, event| outlet.event(&event)
        })
        .query_function(move |pad, parent, query| outlet.query(pad, parent, query))
        .build()
}

#[derive(Default)]
struct Input {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    caps: Option<gst::Caps>,
    /// Whether this connection has shown a picture.
    shown: bool,
}

struct Outlet {
    flow: Arc<Flow>,
    timeline: Arc<Timeline>,
    mailbox: Arc<Mailbox>,
    session: u64,
    input: Mutex<Input>,
}

impl Outlet {
    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let flow = &*self.flow;
        // What hung and was left behind may wake up again.
        let over = flow.session.load(Ordering::Relaxed) != self.session;
        if over || flow.stopped.load(Ordering::Relaxed) {
            return Err(gst::FlowError::Flushing);
        }
        flow.touch();
        // Software decoders keep damaged pictures back themselves. One that gives nothing else has failed.
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            Counters::add(&flow.counters.undecodable, 1);
            return Ok(gst::FlowSuccess::Ok);
        }
        flow.pictured();
        let decoded = Counters::add(&flow.counters.decoded, 1);
        let (time, caps, first) = {
            let mut input = self.input.lock();
            let inside = buffer.pts().zip(input.segment.as_ref()).and_then(|(pts, s)| s.to_running_time(pts));
            let first = !std::mem::replace(&mut input.shown, true);
            (inside.and_then(|time| self.timeline.outside(time)), input.caps.clone(), first)
        };
        if first {
            self.mailbox.report(self.session, Report::Picture);
        }
        if !flow.playing.load(Ordering::Relaxed) || flow.refused.load(Ordering::Relaxed) {
            return Ok(gst::FlowSuccess::Ok);
        }
        let (Some(now), Some(caps)) = (self.timeline.now(), caps) else { return Ok(gst::FlowSuccess::Ok) };
        let time = time.unwrap_or(now);

        // Numbers grow with pictures that were skipped before the decoder as well as with those dropped after it.
        let counted = decoded - 1 + flow.counters.skipped.load(Ordering::Relaxed);
        let number = meta::facts(&buffer).frame_id.unwrap_or(counted);
        let mut events = Vec::new();
        let (time, frame_id, discont) = {
            let mut stream = flow.stream.lock();
            stream.discont |= first;
            stream.meter.add(time.nseconds());
            if !stream.limiter.accept(time.nseconds(), flow.max_fps()) {
                drop(stream);
                Counters::add(&flow.counters.dropped, 1);
                return Ok(gst::FlowSuccess::Ok);
            }
            // A new connection may begin with a picture that was taken before the last one of the old connection.
            let time = match stream.last_time {
                Some(last) if time <= last => last + gst::ClockTime::from_useconds(1),
                _ => time,
            };
            stream.last_time = Some(time);
            // Units are numbered as they come, and B-frames come after what is shown after them.
            let frame_id = stream.last_id.map_or(number, |last| number.max(last + 1));
            stream.last_id = Some(frame_id);
            self.open(&mut stream, &caps, &mut events);
            (time, frame_id, std::mem::take(&mut stream.discont))
        };
        let told = !events.is_empty();
        for event in events {
            flow.pad.push_event(event);
        }

        let mut buffer = self.laid_out(buffer, &caps, told);
        {
            let buffer = buffer.make_mut();
            let facts = self.facts(buffer, frame_id, time, now);
            meta::set_facts(buffer, &facts);
            buffer.set_pts(time);
            buffer.set_dts(gst::ClockTime::NONE);
            if discont {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            } else {
                buffer.unset_flags(gst::BufferFlags::DISCONT);
            }
        }
        gst::trace!(CAT, obj = flow.pad, "picture {frame_id} at {time}");
        Counters::add(&flow.counters.delivered, 1);
        flow.pushing.store(true, Ordering::Relaxed);
        let result = flow.pad.push(buffer);
        flow.pushing.store(false, Ordering::Relaxed);
        flow.touch();
        match result {
            // Whoever leaves the pad unlinked does not want pictures; the camera is none the worse for it.
            Err(gst::FlowError::NotLinked) => Ok(gst::FlowSuccess::Ok),
            // What follows is being rebuilt; the camera is none the worse for that either.
            Err(gst::FlowError::Flushing) if !flow.stopped.load(Ordering::Relaxed) => {
                Ok(gst::FlowSuccess::Ok)
            }
            // What follows this pad is not the business of the others.
            Err(error) if flow.lanes.in_use() => {
                if !flow.refused.swap(true, Ordering::Relaxed) {
                    self.mailbox.report(self.session, Report::Refused(error));
                }
                Ok(gst::FlowSuccess::Ok)
            }
            Err(error) => {
                self.mailbox.report(self.session, Report::Downstream(error));
                Err(error)
            }
            ok => ok,
        }
    }

    /// The events that have to be out before the next picture.
    fn open(&self, stream: &mut Stream, caps: &gst::Caps, events: &mut Vec<gst::Event>) {
        if !stream.opened {
            events.push(self.flow.stream_start());
        }
        if stream.caps.as_ref() != Some(caps) {
            events.push(gst::event::Caps::new(caps));
            stream.caps = Some(caps.clone());
        }
        if !stream.opened {
            events.push(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
            stream.opened = true;
        }
    }

    /// The number of the picture and when it was taken, also where a decoder lost what was noted as it came.
    fn facts(
        &self,
        buffer: &gst::BufferRef,
        frame_id: u64,
        time: gst::ClockTime,
        now: gst::ClockTime,
    ) -> FrameFacts {
        let known = meta::facts(buffer);
        FrameFacts {
            frame_id: Some(frame_id),
            capture: Some(capture_time(&self.flow, known.capture, time, now)),
            analysis: None,
        }
    }

    fn event(&self, event: &gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                self.input.lock().segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
            }
            gst::EventView::Caps(caps) => self.input.lock().caps = Some(caps.caps_owned()),
            gst::EventView::Eos(_) => self.mailbox.report(self.session, Report::End),
            // Downstream sees one stream of one segment, whatever the connections do.
            _ => {}
        }
        true
    }

    fn offer_pool(query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Allocation(query) => frames::offer_pool(query),
            _ => false,
        }
    }

    /// The picture with its lines where what follows looks for them. That is asked when it may have changed: it was
    /// `told` of a format, or is another element.
    fn laid_out(&self, buffer: gst::Buffer, caps: &gst::Caps, told: bool) -> gst::Buffer {
        let pad = &self.flow.pad;
        if pad.check_reconfigure() || told {
            let mut query = gst::query::Allocation::new(Some(caps), false);
            // Through a queue it comes after what waits there, so it is downstream's time as a push is.
            self.flow.pushing.store(true, Ordering::Relaxed);
            let anywhere = !pad.is_linked()
                || pad.peer_query(&mut query) && query.find_allocation_meta::<VideoMeta>().is_some();
            self.flow.pushing.store(false, Ordering::Relaxed);
            self.flow.stream.lock().layout = VideoInfo::from_caps(caps).ok().filter(|_| !anywhere);
        }
        let layout = self.flow.stream.lock().layout.clone();
        let packed = layout
            .filter(|info| !frames::is_packed(&buffer, info))
            .and_then(|info| frames::packed(&buffer, &info));
        packed.unwrap_or(buffer)
    }

    fn query(&self, pad: &gst::Pad, parent: Option<&gst::Object>, query: &mut gst::QueryRef) -> bool {
        match query.type_() {
            // What downstream can take decides on memory and format of the pictures.
            gst::QueryType::Allocation if Self::offer_pool(query) => true,
            gst::QueryType::Allocation | gst::QueryType::Caps | gst::QueryType::AcceptCaps => {
                self.flow.pad.peer_query(query) || gst::Pad::query_default(pad, parent, query)
            }
            gst::QueryType::Drain => self.flow.pad.peer_query(query),
            _ => gst::Pad::query_default(pad, parent, query),
        }
    }
}
