//! What the demo saw, in lines and in numbers.

use std::{collections::BTreeMap, fmt::Write};

use nvr_core::event::DetectionEvent;

#[derive(Default)]
struct PerCamera {
    events: u64,
    detections: BTreeMap<String, u64>,
    latencies: Vec<f64>,
    /// Objects in the newest event.
    now: usize,
}

/// Counts for each camera.
pub(super) struct Report {
    cameras: BTreeMap<u32, PerCamera>,
}

/// Latencies kept for each camera.
const SAMPLES: usize = 10_000;

impl Report {
    pub fn new(cameras: u32) -> Self {
        Self { cameras: (0..cameras).map(|id| (id, PerCamera::default())).collect() }
    }

    pub fn events(&self) -> u64 {
        self.cameras.values().map(|camera| camera.events).sum()
    }

    pub fn add(&mut self, event: &DetectionEvent) {
        let Some(camera) = self.cameras.get_mut(&event.source_id) else { return };
        camera.events += 1;
        for detection in &event.detections {
            *camera.detections.entry(detection.class_name.clone()).or_default() += 1;
        }
        if camera.latencies.len() < SAMPLES {
            camera.latencies.extend(event.latency_ms);
        }
        camera.now = event.detections.len();
    }

    /// Cameras on which there is something at this moment, and how much there is on all of them.
    pub fn busy(&self) -> (usize, usize) {
        let now = self.cameras.values().map(|camera| camera.now);
        (now.clone().filter(|objects| *objects > 0).count(), now.sum())
    }

    pub fn without_detections(&self) -> Vec<u32> {
        self.cameras.iter().filter(|(_, camera)| camera.detections.is_empty()).map(|(id, _)| *id).collect()
    }

    pub fn summary(&self) -> String {
        let mut text = String::from("camera   events  latency p50/p95  detections");
        for (id, camera) in &self.cameras {
            let mut latencies = camera.latencies.clone();
            latencies.sort_by(f64::total_cmp);
            let percentile = |share: f64| {
                let index = (latencies.len().saturating_sub(1) as f64 * share).round() as usize;
                latencies.get(index).map_or_else(|| "–".into(), |ms| format!("{ms:.0}"))
            };
            let classes: Vec<_> =
                camera.detections.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let latency = format!("{}/{} ms", percentile(0.5), percentile(0.95));
            let _ = write!(text, "\n{id:>6}  {:>7}  {latency:>15}  {}", camera.events, classes.join(", "));
        }
        text
    }
}

/// An event in one line.
pub(super) fn line(event: &DetectionEvent) -> String {
    let time = event.timestamp.get(11..23).unwrap_or(&event.timestamp);
    let mut text = format!("{time}  camera {}  frame {:<6}", event.source_id, event.frame_id);
    if let Some(latency) = event.latency_ms {
        let _ = write!(text, " {latency:>5.1} ms ");
    }
    if event.detections.is_empty() {
        text.push_str("  –");
    }
    for detection in &event.detections {
        let bbox = &detection.bbox;
        let _ = write!(
            text,
            "  {} {:.2} [{:.0} {:.0} {:.0}×{:.0}]",
            detection.class_name, detection.confidence, bbox.x, bbox.y, bbox.width, bbox.height
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use nvr_core::{
        detection::Clock,
        event::{BBox, EventDetection},
    };

    use super::*;

    fn event(source_id: u32, classes: &[&str]) -> DetectionEvent {
        DetectionEvent {
            version: "1.0".into(),
            instance_id: "demo".into(),
            source_id,
            frame_id: 7,
            timestamp: "2025-10-25T10:30:00.123Z".into(),
            clock: Clock::Ntp,
            model_id: "demo".into(),
            inference_time_ms: 1.0,
            frame_width: 640,
            frame_height: 360,
            detections: classes
                .iter()
                .map(|class| EventDetection {
                    class_name: (*class).into(),
                    class_id: None,
                    confidence: 0.914,
                    bbox: BBox { x: 1.0, y: 2.0, width: 3.0, height: 4.0 },
                    tracker_id: None,
                    zones: Vec::new(),
                })
                .collect(),
            fps: None,
            latency_ms: Some(41.25),
        }
    }

    #[test]
    fn events_are_counted_for_their_camera() {
        let mut report = Report::new(2);
        for _ in 0..3 {
            report.add(&event(1, &["dog", "person"]));
        }
        report.add(&event(9, &["dog"]));
        assert_eq!(report.busy(), (1, 2));
        assert_eq!(report.events(), 3);
        assert_eq!(report.without_detections(), [0]);
        let summary = report.summary();
        assert!(summary.lines().nth(2).is_some_and(|line| line.ends_with("dog 3, person 3")), "{summary}");
        assert_eq!(
            line(&event(1, &["dog"])),
            "10:30:00.123  camera 1  frame 7       41.2 ms   dog 0.91 [1 2 3×4]"
        );
        assert!(line(&event(1, &[])).ends_with('–'));
    }
}
