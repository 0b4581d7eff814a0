//! The JSON of Intel DL Streamer's `gvametaconvert format=json`: keys in its order (alphabetical), `timestamp` in
//! nanoseconds of stream time, no `objects` where there are none, `id` where a tracker gave one. What that format
//! has no place for is in `tags`, its place for anything.

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::{BBox, Frame, round, time::Rfc3339, write::Displayed};
use crate::detection::Detection;

pub(super) struct Message<'a>(pub &'a Frame<'a>);

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frame = self.0;
        let mut s = serializer.serialize_map(None)?;
        if frame.boxes().next().is_some() {
            s.serialize_entry("objects", &Objects(frame))?;
        }
        s.serialize_entry("resolution", &Resolution { height: frame.height, width: frame.width })?;
        s.serialize_entry("source", &Displayed(frame.source_id))?;
        s.serialize_entry(
            "tags",
            &Tags {
                clock: frame.capture.clock.as_str(),
                frame_id: frame.frame_id,
                inference_time_ms: round(frame.inference_time_ms, 1),
                instance_id: frame.instance_id,
                model_id: frame.model_id,
                source_id: frame.source_id,
                timestamp: Displayed(Rfc3339(frame.capture.unix_ns)),
            },
        )?;
        if let Some(ns) = frame.stream_time_ns {
            s.serialize_entry("timestamp", &ns)?;
        }
        s.end()
    }
}

#[derive(Serialize)]
struct Resolution {
    height: u32,
    width: u32,
}

#[derive(Serialize)]
struct Tags<'a> {
    clock: &'a str,
    frame_id: u64,
    inference_time_ms: f64,
    instance_id: &'a str,
    model_id: &'a str,
    source_id: u32,
    timestamp: Displayed<Rfc3339>,
}

struct Objects<'a>(&'a Frame<'a>);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_seq(None)?;
        for (d, bbox) in self.0.boxes() {
            s.serialize_element(&object(self.0, d, bbox))?;
        }
        s.end()
    }
}

#[derive(Serialize)]
struct Object<'a> {
    detection: Detected<'a>,
    h: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    roi_type: &'a str,
    w: u32,
    x: u32,
    y: u32,
}

#[derive(Serialize)]
struct Detected<'a> {
    bounding_box: Corners,
    confidence: f64,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_id: Option<u32>,
}

/// 0 to 1 of the frame.
#[derive(Serialize)]
struct Corners {
    x_max: f64,
    x_min: f64,
    y_max: f64,
    y_min: f64,
}

fn object<'a>(frame: &Frame<'_>, d: &'a Detection, bbox: BBox) -> Object<'a> {
    let (width, height) = (f64::from(frame.width.max(1)), f64::from(frame.height.max(1)));
    let (x, y) = (bbox.x.round() as u32, bbox.y.round() as u32);
    Object {
        detection: Detected {
            bounding_box: Corners {
                x_max: round((bbox.x + bbox.width) / width, 6),
                x_min: round(bbox.x / width, 6),
                y_max: round((bbox.y + bbox.height) / height, 6),
                y_min: round(bbox.y / height, 6),
            },
            confidence: round(f64::from(d.confidence).clamp(0.0, 1.0), 4),
            label: &d.class_name,
            label_id: d.class_id,
        },
        h: ((bbox.y + bbox.height).round() as u32).saturating_sub(y),
        id: d.tracker_id,
        roi_type: &d.class_name,
        w: ((bbox.x + bbox.width).round() as u32).saturating_sub(x),
        x,
        y,
    }
}
