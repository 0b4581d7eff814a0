//! The events of the protocol and their encodings.
//!
//! [`DetectionEvent`] is what readers get. Writers describe a frame with [`Frame`], which borrows everything, and
//! encode it straight into a byte vector.

mod dlstreamer;
mod time;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::detection::{CaptureTime, Clock, Detection};

pub use time::{parse_timestamp, timestamp};

/// Major.minor of the event schema; fields are never removed or retyped within a major version.
pub const VERSION: &str = "1.0";

/// Largest event that is decoded, in bytes. Hundreds of detections fit several times over.
pub const MAX_BYTES: usize = 1 << 20;

/// What one model saw in one frame of one source. Published on `{prefix}/detections/{source_id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionEvent {
    pub version: String,
    pub instance_id: String,
    pub source_id: u32,
    pub frame_id: u64,
    /// Capture time, RFC 3339 UTC with milliseconds; see [`parse_timestamp`].
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
    /// Names of the zones that it is in.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub zones: Vec<String>,
}

/// Who is in which zones: names by tracker id. Who is in none is left out.
pub type InZones = BTreeMap<u64, Vec<String>>;

/// Top-left corner and size in pixels of the source frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BBox {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Encoding {
    /// The JSON object of the protocol.
    #[default]
    Json,
    /// The same keys and values as MessagePack maps.
    Msgpack,
    /// The JSON that Intel DL Streamer's `gvametaconvert` writes.
    DlStreamer,
}

/// Why an event cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("an event of {0} bytes is larger than {MAX_BYTES}")]
    TooLarge(usize),
    #[error("not a detection event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not a detection event in MessagePack: {0}")]
    Msgpack(#[from] rmp_serde::decode::Error),
    #[error("cannot write the event: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl DetectionEvent {
    /// From JSON or MessagePack, whichever it is.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EventError> {
        // An event in MessagePack is a map, whose first byte no JSON text can begin with.
        match bytes.first() {
            Some(0x80..=0x8f | 0xde | 0xdf) => Self::from_msgpack(bytes),
            _ => Self::from_json(bytes),
        }
    }

    /// From the JSON of the protocol. Fields that are not known are ignored.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EventError> {
        check_size(bytes)?;
        Ok(serde_json::from_slice(bytes)?)
    }

    /// From MessagePack with the same keys. Fields that are not known are ignored.
    pub fn from_msgpack(bytes: &[u8]) -> Result<Self, EventError> {
        check_size(bytes)?;
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

fn check_size(bytes: &[u8]) -> Result<(), EventError> {
    if bytes.len() > MAX_BYTES { Err(EventError::TooLarge(bytes.len())) } else { Ok(()) }
}

/// One analysed frame, as its event is written from it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub instance_id: &'a str,
    pub source_id: u32,
    pub frame_id: u64,
    pub capture: CaptureTime,
    pub model_id: &'a str,
    pub inference_time_ms: f64,
    /// Pixels; 0 where not known, and then nothing is clipped.
    pub width: u32,
    pub height: u32,
    pub detections: &'a [Detection],
    /// Where somebody looked after zones.
    pub zones: Option<&'a InZones>,
    pub fps: Option<f64>,
    pub latency_ms: Option<f64>,
    /// Position in the stream, nanoseconds; DL Streamer's idea of a timestamp.
    pub stream_time_ns: Option<u64>,
}

impl Frame<'_> {
    /// Appends the event to `out`. Pixels and milliseconds have one decimal, confidence and the 0 to 1 coordinates
    /// of DL Streamer have four and six, rates two; numbers that are not finite become 0. Boxes are
    /// clipped to the frame, and those that are then empty are left out.
    pub fn encode(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EventError> {
        match encoding {
            Encoding::Json => serde_json::to_writer(out, &write::Event(self))?,
            Encoding::Msgpack => {
                use serde::Serialize;
                write::Event(self).serialize(&mut rmp_serde::Serializer::new(out).with_struct_map())?;
            }
            Encoding::DlStreamer => serde_json::to_writer(out, &dlstreamer::Message(self))?,
        }
        Ok(())
    }

    /// The zones that an object is in.
    fn zones_of(&self, d: &Detection) -> &[String] {
        let names = self.zones.zip(d.tracker_id).and_then(|(zones, id)| zones.get(&id));
        names.map_or(&[], Vec::as_slice)
    }

    /// The detections with their boxes as they are published.
    fn boxes(&self) -> impl Iterator<Item = (&Detection, BBox)> {
        self.detections.iter().filter_map(|d| {
            let clipped = match (self.width, self.height) {
                (0, _) | (_, 0) => d.rect,
                (width, height) => d.rect.clipped(width as f32, height as f32),
            };
            // Corners are rounded and not sizes, so that nothing reaches beyond the frame.
            let (x, y) = (round(clipped.x.into(), 1), round(clipped.y.into(), 1));
            let width = round(round(clipped.right().into(), 1) - x, 1);
            let height = round(round(clipped.bottom().into(), 1) - y, 1);
            let bbox = BBox { x, y, width, height };
            (d.rect.is_valid() && width > 0.0 && height > 0.0).then_some((d, bbox))
        })
    }
}

/// `value` with so many decimals; 0 where it is not finite.
pub(crate) fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { rounded } else { 0.0 }
}

#[cfg(test)]
mod tests;
