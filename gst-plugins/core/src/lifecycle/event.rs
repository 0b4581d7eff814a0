//! Lifecycle events as they are published.

use serde::{Deserialize, Serialize};

use super::{FrameSize, Object};
use crate::{
    event::{BBox, VERSION, round, timestamp},
    geometry::Rect,
};

/// Where in its life an object is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    New,
    Update,
    End,
}

/// Published on `{prefix}/events/{source_id}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LifecycleEvent {
    pub version: String,
    #[serde(rename = "type")]
    pub phase: Phase,
    pub instance_id: String,
    pub source_id: u32,
    pub tracker_id: u64,
    pub class_name: String,
    /// When the object was last seen, RFC 3339 UTC, as are the others.
    pub timestamp: String,
    /// When it was first seen.
    pub start: String,
    pub duration_s: f64,
    pub frame_width: u32,
    pub frame_height: u32,
    /// Where it was last seen.
    pub bbox: BBox,
    pub best: Best,
    /// Where it stood, from first to last: x, y, 0 to 1 of the frame.
    pub path: Vec<[f64; 2]>,
    /// Every zone that it has been in.
    pub zones: Vec<ZoneStay>,
    /// Topic of the best view as JPEG, where that is published.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snapshot: Option<String>,
}

/// The best view of an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Best {
    pub confidence: f64,
    pub timestamp: String,
    pub bbox: BBox,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ZoneStay {
    pub name: String,
    pub inside: bool,
    /// Seconds, all visits together.
    pub dwell_s: f64,
}

impl LifecycleEvent {
    pub(super) fn of(track: u64, phase: Phase, object: &Object, (width, height): FrameSize) -> Self {
        let (_, best_at, confidence, best_rect) = object.best;
        let seconds = |ns: u64| round(ns as f64 / 1e9, 3);
        Self {
            version: VERSION.into(),
            phase,
            instance_id: String::new(),
            source_id: 0,
            tracker_id: track,
            class_name: object.class().to_string(),
            timestamp: timestamp(object.last.unix_ns).to_string(),
            start: timestamp(object.first.unix_ns).to_string(),
            duration_s: seconds(object.last.now_ns.saturating_sub(object.first.now_ns)),
            frame_width: width,
            frame_height: height,
            bbox: bbox(&object.rect),
            best: Best {
                confidence: round(confidence.into(), 4),
                timestamp: timestamp(best_at.unix_ns).to_string(),
                bbox: bbox(&best_rect),
            },
            path: object.path.iter().map(|p| p.map(|v| round(v, 4))).collect(),
            zones: object
                .zones
                .iter()
                .map(|(name, stay)| {
                    let now = stay.inside_since.map_or(0, |since| object.last.now_ns.saturating_sub(since));
                    let inside = stay.inside_since.is_some();
                    ZoneStay { name: name.to_string(), inside, dwell_s: seconds(stay.dwell_ns + now) }
                })
                .collect(),
            snapshot: None,
        }
    }
}

/// As events have it: pixels with one decimal.
pub fn bbox(rect: &Rect) -> BBox {
    let side = |v: f32| round(v.into(), 1);
    BBox { x: side(rect.x), y: side(rect.y), width: side(rect.width), height: side(rect.height) }
}
