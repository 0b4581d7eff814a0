//! What one element has counted and measured since it started.

use std::time::Instant;

use nvr_core::rate::{Percentiles, RateMeter};

use super::{engine::Engine, printable};

/// How often the latency is compared with the one that was reported, in frames.
const LATENCY_CHECK: u64 = 32;
/// Measurements before a latency is reported.
const LATENCY_SAMPLES: usize = 16;

/// Why a frame was not analysed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Skip {
    /// `enabled` is off.
    Disabled,
    /// `gate=motion`, and nothing moved.
    Still,
    /// `inference-interval`.
    Interval,
    /// `max-fps`.
    Rate,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Frames that came.
    pub frames: u64,
    analysed: u64,
    errors: u64,
    disabled: u64,
    still: u64,
    interval: u64,
    rate: u64,
    busy: u64,
    detections: u64,
    /// Milliseconds.
    inference: Percentiles,
    preprocess: Percentiles,
    /// Milliseconds from a frame's arrival to its leaving with its result, in mode `sync`.
    latency: Percentiles,
    fps: RateMeter,
    /// The running time of the last result, and when that came.
    last: Option<(u64, Instant)>,
    /// Milliseconds, as last answered to LATENCY.
    reported: f64,
}

impl Stats {
    pub fn skipped(&mut self, skip: Skip) {
        *match skip {
            Skip::Disabled => &mut self.disabled,
            Skip::Still => &mut self.still,
            Skip::Interval => &mut self.interval,
            Skip::Rate => &mut self.rate,
        } += 1;
    }

    /// A waiting frame gave way to a newer one.
    pub fn busy(&mut self) {
        self.busy += 1;
    }

    pub fn error(&mut self) {
        self.errors += 1;
    }

    pub fn preprocessed(&mut self, ms: f64) {
        self.preprocess.add(ms);
    }

    /// A result came at `now_ns`.
    pub fn analysed(&mut self, detections: usize, inference_ms: f64, now_ns: u64) {
        self.analysed += 1;
        self.detections += detections as u64;
        self.inference.add(inference_ms);
        self.fps.add(now_ns);
        self.last = Some((now_ns, Instant::now()));
    }

    /// Results a second. A stream that is not live has another time than its clock: only the silence after its last
    /// result is told by that.
    fn fps(&mut self) -> f64 {
        let Some((running_time, at)) = self.last else { return 0.0 };
        let silence = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.fps.rate(running_time.saturating_add(silence)).unwrap_or(0.0)
    }

    pub fn waited(&mut self, ms: f64) {
        self.latency.add(ms);
    }

    /// Another model: what was measured of the last one says nothing about it.
    pub fn model_changed(&mut self) {
        self.inference.clear();
        self.preprocess.clear();
        self.latency.clear();
    }

    /// The latency to answer, in milliseconds.
    pub fn reported_latency(&self) -> f64 {
        self.reported
    }

    /// Whether the latency has changed so much that it must be told anew. `waits`: frames wait for results.
    pub fn latency_changed(&mut self, waits: bool) -> bool {
        let measured = match (waits, self.latency.get(99.0)) {
            (false, _) => 0.0,
            (true, Some(ms))
                if self.latency.len() >= LATENCY_SAMPLES && self.frames.is_multiple_of(LATENCY_CHECK) =>
            {
                ms
            }
            _ => return false,
        };
        let changed = measured > self.reported * 1.2 + 2.0 || measured < self.reported * 0.5;
        if changed {
            self.reported = measured;
        }
        changed
    }

    /// The property `stats`.
    pub fn structure(mut self, model: &str, engine: &Engine) -> gst::Structure {
        let fps = self.fps();
        let info = engine.info();
        let labels = gst::Array::new(info.spec.labels.iter().map(|label| printable(label).into_owned()));
        let conclusions = gst::Array::new(info.conclusions.iter().map(|line| printable(line).into_owned()));
        gst::Structure::builder("nvrinfer-stats")
            .field("frames", self.frames)
            .field("analysed", self.analysed)
            .field("detections", self.detections)
            .field("skipped-disabled", self.disabled)
            .field("skipped-still", self.still)
            .field("skipped-interval", self.interval)
            .field("skipped-rate", self.rate)
            .field("skipped-busy", self.busy)
            .field("errors", self.errors)
            .field("fps", fps)
            .field("inference-p50-ms", self.inference.get(50.0).unwrap_or(0.0))
            .field("inference-p99-ms", self.inference.get(99.0).unwrap_or(0.0))
            .field("preprocess-p50-ms", self.preprocess.get(50.0).unwrap_or(0.0))
            .field("preprocess-p99-ms", self.preprocess.get(99.0).unwrap_or(0.0))
            .field("latency-p99-ms", self.latency.get(99.0).unwrap_or(0.0))
            .field("model", model)
            .field("model-id", &*printable(&info.id))
            .field("model-type", info.spec.model_type.name())
            .field("width", info.spec.input.width as u32)
            .field("height", info.spec.input.height as u32)
            .field("labels", labels)
            .field("device", info.device.name())
            .field("batch", info.batch as u32)
            .field("workers", info.workers as u32)
            .field("users", engine.users() as u32)
            .field("load-time-ms", info.load_time.as_secs_f64() * 1e3)
            .field("conclusions", conclusions)
            .build()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_camera_that_is_gone_is_not_analysed_any_more() {
        let mut stats = Stats::default();
        assert!(stats.fps().abs() < 0.01);
        (0..50).for_each(|i| stats.analysed(0, 1.0, i * 200_000_000));
        assert!((stats.fps() - 5.0).abs() < 0.1);
        stats.last = stats.last.and_then(|(time, at)| Some((time, at.checked_sub(Duration::from_mins(1))?)));
        assert!(stats.fps().abs() < 0.01);
    }

    #[test]
    fn latency_is_told_when_it_changes_and_not_before() {
        let mut stats = Stats::default();
        let mut told = Vec::new();
        for (count, ms, waits) in
            [(64, 10.0, true), (64, 11.0, true), (1024, 30.0, true), (600, 5.0, true), (3, 5.0, false)]
        {
            for _ in 0..count {
                stats.frames += 1;
                stats.waited(ms);
                if stats.latency_changed(waits) {
                    told.push(stats.reported_latency());
                }
            }
        }
        assert_eq!(told, [10.0, 30.0, 5.0, 0.0]);
    }
}
