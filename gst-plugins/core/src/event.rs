//! The events of the protocol and their encodings.

use serde::{Deserialize, Serialize};

use crate::detection::Clock;

/// Major.minor of the event schema; fields are never removed or retyped within a major version.
pub const VERSION: &str = "1.0";

/// What one model saw in one frame of one source. Published on `{prefix}/detections/{source_id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionEvent {
    pub version: String,
    pub instance_id: String,
    pub source_id: u32,
    pub frame_id: u64,
    /// Capture time, RFC 3339 UTC with milliseconds.
    pub timestamp: String,
    pub clock: Clock,
    pub model_id: String,
    pub inference_time_ms: f64,
    pub frame_width: u32,
    pub frame_height: u32,
    pub detections: Vec<EventDetection>,
    /// Measured rate of analysed frames of this source.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fps: Option<f64>,
    /// Publish time minus capture time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventDetection {
    pub class_name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class_id: Option<u32>,
    /// 0 to 1.
    pub confidence: f64,
    pub bbox: BBox,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tracker_id: Option<u64>,
}

/// Top-left corner and size in pixels of the source frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BBox {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}
