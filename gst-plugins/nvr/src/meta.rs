//! How detections and frame facts travel on buffers. The only file that knows which metas are used.

use nvr_core::detection::{Detection, FrameFacts};

/// Registers the custom meta; once per process, before the first buffer.
pub fn init() {}

/// What a buffer carries.
#[derive(Clone, Debug, Default)]
pub struct FrameDetections {
    pub facts: FrameFacts,
    pub detections: Vec<Detection>,
}

/// Replaces the facts on `buffer`. Fields that `facts` leaves open keep what another element wrote.
pub fn set_facts(_buffer: &mut gst::BufferRef, _facts: &FrameFacts) {}

/// The facts on `buffer`, empty where there are none. Falls back to a `GstReferenceTimestampMeta` of the NTP or
/// Unix clock for the capture time.
pub fn facts(_buffer: &gst::BufferRef) -> FrameFacts {
    FrameFacts::default()
}

/// Adds detections, in pixels of the frame, to `buffer`.
pub fn add_detections(_buffer: &mut gst::BufferRef, _width: u32, _height: u32, _detections: &[Detection]) {}

/// Every detection on `buffer`, whoever attached it.
pub fn read(_buffer: &gst::BufferRef) -> FrameDetections {
    FrameDetections::default()
}
