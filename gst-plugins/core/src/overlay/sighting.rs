//! What one model saw in one frame, as an overlay needs it.

use crate::detection::Detection;
use crate::event::{self, DetectionEvent};
use crate::geometry::Rect;

/// Detections of one event that are kept, the most confident ones.
const MAX_DETECTIONS: usize = 300;
/// Characters of a class name that are kept.
const MAX_NAME: usize = 48;

/// What one model saw in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// Capture time of the frame, nanoseconds since the Unix epoch.
    pub capture_ns: u64,
    /// Size of the frame that the rectangles are in, in pixels; 0 for that of the stream.
    pub width: f32,
    pub height: f32,
    /// The most confident first.
    pub seen: Vec<Seen>,
    pub latency_ms: Option<f64>,
    pub fps: Option<f64>,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub class: String,
    /// 0 to 1.
    pub confidence: f32,
    pub rect: Rect,
    pub track: Option<u64>,
}

/// Why an event cannot be shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SightingError {
    #[error("timestamp {0:?} is not RFC 3339")]
    Timestamp(String),
}

impl Sighting {
    /// From an event, whose numbers may be anything.
    pub fn from_event(event: &DetectionEvent) -> Result<Self, SightingError> {
        let capture_ns = event::parse_timestamp(&event.timestamp)
            .ok_or_else(|| SightingError::Timestamp(event.timestamp.chars().take(40).collect()))?;
        let seen = event.detections.iter().map(|d| Seen {
            class: name(&d.class_name),
            confidence: d.confidence as f32,
            rect: Rect::new(d.bbox.x as f32, d.bbox.y as f32, d.bbox.width as f32, d.bbox.height as f32),
            track: d.tracker_id,
        });
        Ok(Self {
            capture_ns,
            width: event.frame_width as f32,
            height: event.frame_height as f32,
            seen: checked(seen),
            latency_ms: event.latency_ms.filter(|v| v.is_finite()),
            fps: event.fps.filter(|v| v.is_finite()),
        })
    }

    /// From what a frame carries, in pixels of that frame.
    pub fn from_detections(detections: &[Detection], capture_ns: u64) -> Self {
        let seen = detections.iter().map(|d| Seen {
            class: name(&d.class_name),
            confidence: d.confidence,
            rect: d.rect,
            track: d.tracker_id,
        });
        Self { capture_ns, width: 0.0, height: 0.0, seen: checked(seen), latency_ms: None, fps: None }
    }
}

fn name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// What can be drawn, the most confident first.
fn checked(seen: impl Iterator<Item = Seen>) -> Vec<Seen> {
    let mut seen: Vec<_> = seen
        .filter(|seen| seen.rect.is_valid())
        .map(|seen| Seen {
            confidence: if seen.confidence.is_finite() { seen.confidence.clamp(0.0, 1.0) } else { 0.0 },
            ..seen
        })
        .collect();
    seen.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    seen.truncate(MAX_DETECTIONS);
    seen
}
