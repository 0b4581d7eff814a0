//! What the pictures of the own graph say: whether something moved, and what was detected.

use nvr_core::detection::Detection;

use super::ear::{Seen, Sightings};
use crate::meta;

/// One picture that somebody has looked at.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Running time of the picture that was looked at.
    pub at_ns: i64,
    /// Its capture time, microseconds since 1970, where that is known.
    pub capture_us: Option<i64>,
    /// `None`: nobody looked for motion.
    pub moved: Option<bool>,
    pub detections: Vec<Detection>,
}

impl Notice {
    /// Reads the metadata of a picture of running time `at_ns`; the picture itself is not touched.
    pub fn read(buffer: &gst::BufferRef, at_ns: i64) -> Self {
        let found = meta::read(buffer);
        let us = |time: nvr_core::detection::CaptureTime| (time.unix_ns / 1000) as i64;
        let shown = found.facts.capture.map(us);
        let looked_at = found.facts.analysis.as_ref().and_then(|analysis| analysis.capture).map(us);
        // Results that came late are about an earlier picture.
        let late_us = shown.zip(looked_at).map_or(0, |(shown, looked_at)| (shown - looked_at).max(0));
        Self {
            at_ns: at_ns - late_us.saturating_mul(1000),
            capture_us: looked_at.or(shown),
            moved: meta::has_motion(buffer),
            detections: found.detections,
        }
    }

    /// Adds what was detected to `sightings`.
    pub fn add_to(&self, sightings: &mut Sightings, now_us: i64) {
        let at_us = self.capture_us.unwrap_or(now_us);
        for detection in &self.detections {
            Seen::add(sightings, &detection.class_name, at_us, f64::from(detection.confidence));
        }
    }
}
