//! The place before the decoder: counts access units and keeps away what need not be decoded.

use std::sync::{Arc, LazyLock, OnceLock};

use gst::{glib, prelude::*, subclass::prelude::*};
use parking_lot::Mutex;

use super::{
    flow::{Counters, Flow, Timeline},
    gate::{Unit, Verdict, h264_disposable},
};

/// How much of an access unit is searched for its first slice.
const SEARCH: usize = 4096;

glib::wrapper! {
    pub struct Tap(ObjectSubclass<TapImp>) @extends gst::Element, gst::Object;
}

impl Tap {
    pub fn new(flow: Arc<Flow>, timeline: Arc<Timeline>) -> Self {
        let tap: Self = glib::Object::builder().property("name", "tap").build();
        // A fresh object: nobody has set this before.
        let _ = tap.imp().shared.set((flow, timeline));
        tap
    }
}

#[derive(Debug, Default)]
struct Input {
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// H.264 with start codes, the only form whose slices are looked at.
    h264: bool,
}

#[derive(Debug)]
pub struct TapImp {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    shared: OnceLock<(Arc<Flow>, Arc<Timeline>)>,
    input: Mutex<Input>,
}

impl TapImp {
    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some((flow, timeline)) = self.shared.get() else { return Err(gst::FlowError::Error) };
        flow.touch();
        Counters::add(&flow.counters.units, 1);
        Counters::add(&flow.counters.bytes, buffer.size() as u64);
        match self.decide(flow, timeline, &buffer) {
            Verdict::Skip => {
                Counters::add(&flow.counters.skipped, 1);
                Ok(gst::FlowSuccess::Ok)
            }
            Verdict::Decode => self.srcpad.push(buffer),
            Verdict::DecodeAlone => {
                let time = buffer.pts();
                let flow = self.srcpad.push(buffer)?;
                // A decoder gives out what it holds back for reordering when a segment is done.
                self.srcpad.push_event(gst::event::SegmentDone::new(time));
                Ok(flow)
            }
        }
    }

    fn decide(&self, flow: &Flow, timeline: &Timeline, buffer: &gst::BufferRef) -> Verdict {
        let (time, h264) = {
            let input = self.input.lock();
            let time = buffer.pts().zip(input.segment.as_ref()).and_then(|(pts, s)| s.to_running_time(pts));
            (time.and_then(|time| timeline.outside(time)), input.h264)
        };
        // Without a time there is nothing to decide on, and headers have none.
        let Some(time) =
            time.filter(|_| !buffer.flags().contains(gst::BufferFlags::HEADER) || buffer.size() > 1024)
        else {
            return Verdict::Decode;
        };
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let max_fps = flow.max_fps();
        let disposable = h264 && !keyframe && max_fps > 0.0 && {
            let mut start = [0; SEARCH];
            let start = &mut start[..buffer.size().min(SEARCH)];
            buffer.copy_to_slice(0, start).is_ok() && h264_disposable(start)
        };
        let unit = Unit { time_ns: time.nseconds(), keyframe, disposable };
        flow.gate.lock().admit(unit, flow.decode(), max_fps, || flow.is_due(time))
    }

    fn event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                self.input.lock().segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
            }
            gst::EventView::Caps(caps) => {
                let byte_stream = caps.caps().structure(0).is_some_and(|s| {
                    s.name() == "video/x-h264" && s.get::<&str>("stream-format") == Ok("byte-stream")
                });
                self.input.lock().h264 = byte_stream;
            }
            _ => {}
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }
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
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |tap| tap.event(pad, event))
            })
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION)
            .build();
        let srcpad = gst::Pad::builder_from_template(&klass.pad_template("src").expect("declared below"))
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION)
            .build();
        Self { sinkpad, srcpad, shared: OnceLock::new(), input: Mutex::default() }
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
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &gst::Caps::new_any())
                        .ok()
                })
                .collect()
        });
        &TEMPLATES
    }
}
