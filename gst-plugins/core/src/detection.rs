//! What a detector saw: one object in one frame.

use std::sync::Arc;

use crate::geometry::Rect;

/// One object in one frame, in pixels of that frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Name of the class, shared with the label list it came from.
    pub class_name: Arc<str>,
    /// Index into the model's label list; `None` where another element named the class only.
    pub class_id: Option<u32>,
    /// 0 to 1.
    pub confidence: f32,
    /// Clipped to the frame.
    pub rect: Rect,
    /// Id of the track this object belongs to, below 2^53.
    pub tracker_id: Option<u64>,
}

/// Where a capture time comes from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The camera's own clock: an RTCP sender report or a reference timestamp.
    Ntp,
    /// This host's clock when the frame arrived.
    #[default]
    Arrival,
}

impl Clock {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ntp => "ntp",
            Self::Arrival => "arrival",
        }
    }
}

/// When a frame was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CaptureTime {
    /// Nanoseconds since the Unix epoch, UTC.
    pub unix_ns: u64,
    pub clock: Clock,
}

/// What is known of a frame besides its pixels. Every field is optional: an element fills in what it knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameFacts {
    /// Running number of the frame within its source, analysed or not.
    pub frame_id: Option<u64>,
    pub capture: Option<CaptureTime>,
    /// Set once a model has looked at the frame.
    pub analysis: Option<Analysis>,
}

/// That a model has looked at a frame, and how long it took. Present also where it saw nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    pub model_id: Arc<str>,
    /// Wall time of the inference alone, milliseconds.
    pub inference_time_ms: f64,
    /// The frame that was looked at, where it is not the one that carries this (`mode=async`).
    pub capture: Option<CaptureTime>,
    pub frame_id: Option<u64>,
}
