//! The event of the protocol, written from borrowed data; keys in the order of the protocol.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{BBox, Frame, VERSION, round, time::Rfc3339};
use crate::detection::Detection;

pub(super) struct Event<'a>(pub &'a Frame<'a>);

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frame = self.0;
        let len = 11 + usize::from(frame.fps.is_some()) + usize::from(frame.latency_ms.is_some());
        let mut s = serializer.serialize_struct("DetectionEvent", len)?;
        s.serialize_field("version", VERSION)?;
        s.serialize_field("instance_id", frame.instance_id)?;
        s.serialize_field("source_id", &frame.source_id)?;
        s.serialize_field("frame_id", &frame.frame_id)?;
        s.serialize_field("timestamp", &Displayed(Rfc3339(frame.capture.unix_ns)))?;
        s.serialize_field("clock", frame.capture.clock.as_str())?;
        s.serialize_field("model_id", frame.model_id)?;
        s.serialize_field("inference_time_ms", &round(frame.inference_time_ms, 1))?;
        s.serialize_field("frame_width", &frame.width)?;
        s.serialize_field("frame_height", &frame.height)?;
        s.serialize_field("detections", &Detections(frame))?;
        if let Some(fps) = frame.fps {
            s.serialize_field("fps", &round(fps, 2))?;
        }
        if let Some(latency) = frame.latency_ms {
            s.serialize_field("latency_ms", &round(latency, 1))?;
        }
        s.end()
    }
}

struct Detections<'a>(&'a Frame<'a>);

impl Serialize for Detections<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // MessagePack writes the length first; counting is cheaper than collecting.
        let len = self.0.boxes().count();
        let mut s = serializer.serialize_seq(Some(len))?;
        for (detection, bbox) in self.0.boxes() {
            serde::ser::SerializeSeq::serialize_element(
                &mut s,
                &Object(detection, bbox, self.0.zones_of(detection)),
            )?;
        }
        serde::ser::SerializeSeq::end(s)
    }
}

struct Object<'a>(&'a Detection, BBox, &'a [String]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(d, bbox, zones) = self;
        let optional = [d.class_id.is_some(), d.tracker_id.is_some(), !zones.is_empty()];
        let len = 3 + optional.into_iter().map(usize::from).sum::<usize>();
        let mut s = serializer.serialize_struct("EventDetection", len)?;
        s.serialize_field("class_name", &*d.class_name)?;
        if let Some(id) = d.class_id {
            s.serialize_field("class_id", &id)?;
        }
        s.serialize_field("confidence", &round(f64::from(d.confidence).clamp(0.0, 1.0), 4))?;
        s.serialize_field("bbox", bbox)?;
        if let Some(id) = d.tracker_id {
            s.serialize_field("tracker_id", &id)?;
        }
        if !zones.is_empty() {
            s.serialize_field("zones", zones)?;
        }
        s.end()
    }
}

/// Writes what prints without an intermediate string.
pub(super) struct Displayed<T>(pub T);

impl<T: std::fmt::Display> Serialize for Displayed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
