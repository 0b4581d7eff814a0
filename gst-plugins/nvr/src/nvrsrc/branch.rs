//! What stands between the tap of one connection and a requested pad: a parser, where the codec has one, that turns
//! the stream into the form that what follows the pad asks for.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use gst::{glib, prelude::*};
use parking_lot::Mutex;

use super::{
    flow::capture_time,
    lane::{Kind, Lane, Offer},
    session::Shared,
};
use crate::meta;
use nvr_core::{detection::FrameFacts, times::JUMP};

/// Names of elements in branches begin with this: their errors are not the connection's.
pub const PREFIX: &str = "lane-";

const NO_TIME: u64 = u64::MAX;

/// One branch of one connection.
#[derive(Debug)]
pub struct Branch {
    pub lane: Arc<Lane>,
    /// Where the tap pushes.
    pub pad: gst::Pad,
    elements: Vec<gst::Element>,
    inlet: gst::Pad,
    hint: Arc<AtomicU64>,
}

impl Branch {
    /// Builds the branch for a stream of `caps` and links `pad`, a source pad of the tap, to it. Runs in the stream's
    /// own thread, so nothing is on its way meanwhile.
    pub fn build(
        shared: &Arc<Shared>,
        lane: &Arc<Lane>,
        caps: &gst::CapsRef,
        pad: gst::Pad,
    ) -> Result<Option<Self>, glib::BoolError> {
        let structure = caps.structure(0).ok_or_else(|| glib::bool_error!("a stream without caps"))?;
        let name = structure.name().as_str();
        // Further on, caps that no form of the pad fits would be refused with words that nobody understands.
        if !lane
            .pad
            .pad_template_caps()
            .can_intersect(&gst::Caps::builder_full().structure(structure.to_owned()).build())
        {
            lane.unfit(name);
            return Ok(None);
        }
        let mpeg1 = structure.get::<i32>("mpegversion") == Ok(1);
        let parser = match (lane.kind, name) {
            (Kind::Encoded, "video/x-h264") => Some("h264parse"),
            (Kind::Encoded, "video/x-h265") => Some("h265parse"),
            (Kind::Audio, "audio/mpeg") if mpeg1 => Some("mpegaudioparse"),
            (Kind::Audio, "audio/mpeg") => Some("aacparse"),
            (Kind::Audio, "audio/x-opus") => Some("opusparse"),
            _ => None,
        };
        let mut elements = Vec::new();
        if let Some(factory) = parser {
            let parser = gst::ElementFactory::make(factory)
                .name(format!("{PREFIX}{}-{factory}", lane.kind.name()))
                .build()
                .map_err(|error| glib::bool_error!("{error}; is its plugin installed?"))?;
            if parser.find_property("config-interval").is_some() {
                // Whoever begins at a keyframe finds the parameter sets there.
                parser.set_property("config-interval", -1);
            }
            elements.push(parser);
            if lane.kind == Kind::Encoded {
                let whole = gst::Caps::builder(name).field("alignment", "au").build();
                elements.push(
                    gst::ElementFactory::make("capsfilter")
                        .name(format!("{PREFIX}{}-filter", lane.kind.name()))
                        .property("caps", whole)
                        .build()?,
                );
            }
        }
        let hint = Arc::<AtomicU64>::default();
        let inlet = inlet(shared, lane, &hint);
        let branch = Self { lane: lane.clone(), pad, elements, inlet, hint };

        let stopping = shared.stopping.lock();
        let Some(pipeline) = shared.pipeline.upgrade().filter(|_| !*stopping) else { return Ok(None) };
        let result = branch.link(&pipeline);
        drop(stopping);
        if let Err(error) = result {
            branch.dismantle(shared);
            return Err(error);
        }
        Ok(Some(branch))
    }

    fn link(&self, pipeline: &gst::Pipeline) -> Result<(), glib::BoolError> {
        self.inlet.set_active(true)?;
        pipeline.add_many(&self.elements)?;
        gst::Element::link_many(&self.elements)?;
        let wrong = |error| glib::bool_error!("a branch could not be linked: {error:?}");
        if let (Some(first), Some(last)) = (self.elements.first(), self.elements.last()) {
            let pads = first.static_pad("sink").zip(last.static_pad("src"));
            let (sink, src) = pads.ok_or_else(|| glib::bool_error!("{} has other pads", first.name()))?;
            src.link(&self.inlet).map_err(wrong)?;
            for element in self.elements.iter().rev() {
                element.sync_state_with_parent()?;
            }
            self.pad.link(&sink).map_err(wrong)?;
        } else {
            self.pad.link(&self.inlet).map_err(wrong)?;
        }
        Ok(())
    }

    /// Notes the time of the unit that is pushed next.
    pub fn expect(&self, time: Option<gst::ClockTime>) {
        self.hint.store(time.map_or(NO_TIME, gst::ClockTime::nseconds), Ordering::Relaxed);
    }

    /// Takes the branch out of the running connection; in the stream's own thread as well.
    pub fn dismantle(&self, shared: &Shared) {
        // A connection that is being stopped takes everything down itself.
        let stopping = shared.stopping.lock();
        let Some(pipeline) = shared.pipeline.upgrade().filter(|_| !*stopping) else { return };
        // Parsers go to NULL at once: they have no thread, and theirs is here.
        for element in &self.elements {
            let _ = element.set_state(gst::State::Null);
            let _ = pipeline.remove(element);
        }
        let _ = self.inlet.set_active(false);
    }
}

#[derive(Debug, Default)]
struct Input {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    caps: Option<gst::Caps>,
    /// Whether anything came through here.
    begun: bool,
}

/// The end of a branch inside the connection's pipeline: what arrives is put into the lane's queue.
struct Inlet {
    shared: Weak<Shared>,
    lane: Arc<Lane>,
    /// Running time outside of the unit that is on its way.
    hint: Arc<AtomicU64>,
    input: Mutex<Input>,
}

fn inlet(shared: &Arc<Shared>, lane: &Arc<Lane>, hint: &Arc<AtomicU64>) -> gst::Pad {
    let inlet = Arc::new(Inlet {
        shared: Arc::downgrade(shared),
        lane: lane.clone(),
        hint: hint.clone(),
        input: Mutex::default(),
    });
    gst::Pad::builder(gst::PadDirection::Sink)
        .name(lane.kind.name())
        .chain_function({
            let inlet = inlet.clone();
            move |_, _, buffer| {
                inlet.chain(buffer);
                Ok(gst::FlowSuccess::Ok)
            }
        })
        .event_function({
            let inlet = inlet.clone();
            move |_, _, event| {
                inlet.event(&event);
                true
            }
        })
        .query_function(move |pad, parent, query| inlet.query(pad, parent, query))
        .build()
}

impl Inlet {
    fn chain(&self, mut buffer: gst::Buffer) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Some(now) = shared.timeline.now() else { return };
        let (pts, dts, caps, fresh) = {
            let mut input = self.input.lock();
            let running = |time: Option<gst::ClockTime>| {
                time.zip(input.segment.as_ref()).and_then(|(time, segment)| segment.to_running_time(time))
            };
            let times = (running(buffer.pts()), running(buffer.dts()));
            let Some(caps) = input.caps.clone() else { return };
            (times.0, times.1, caps, !std::mem::replace(&mut input.begun, true))
        };
        // The tap has kept the times near their arrival; what a parser made of them is not believed blindly.
        let near = |time: &gst::ClockTime| time.nseconds().abs_diff(now.nseconds()) <= 2 * JUMP;
        let outside =
            |time: Option<gst::ClockTime>| time.and_then(|time| shared.timeline.outside(time)).filter(near);
        // Parsers leave out a time that comes twice.
        let hint = Some(self.hint.load(Ordering::Relaxed)).filter(|hint| *hint != NO_TIME);
        let known = outside(pts).or_else(|| hint.map(gst::ClockTime::from_nseconds));
        let pts = known.unwrap_or(now);
        // Jitter buffers write the time of arrival as decoding time, demuxers the decoding time, and the light receiver
        // nothing of use.
        let arrival = outside(dts).filter(|_| !shared.light).unwrap_or(now);
        if meta::facts(&buffer).capture.is_none() {
            let facts = FrameFacts {
                capture: Some(capture_time(&shared.flow, None, pts, now)),
                ..FrameFacts::default()
            };
            meta::set_facts(buffer.make_mut(), &facts);
        }
        let offer = Offer { caps: &caps, pts: pts.nseconds(), arrival: arrival.nseconds(), fresh };
        self.lane.offer(buffer, &offer);
    }

    fn event(&self, event: &gst::Event) {
        match event.view() {
            gst::EventView::Segment(segment) => {
                self.input.lock().segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
            }
            gst::EventView::Caps(caps) => self.input.lock().caps = Some(caps.caps_owned()),
            // The stream of the pad goes on across connections.
            _ => {}
        }
    }

    fn query(&self, pad: &gst::Pad, parent: Option<&gst::Object>, query: &mut gst::QueryRef) -> bool {
        let wanted = || self.lane.pad.peer_query_caps(Some(&self.lane.pad.pad_template_caps()));
        match query.view_mut() {
            gst::QueryViewMut::Caps(query) => {
                let mut caps = wanted();
                if let Some(filter) = query.filter() {
                    caps = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
                }
                query.set_result(&caps);
                true
            }
            gst::QueryViewMut::AcceptCaps(query) => {
                let accepted = wanted().can_intersect(query.caps());
                query.set_result(accepted);
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        }
    }
}
