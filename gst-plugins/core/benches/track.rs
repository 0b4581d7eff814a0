//! Time of one frame in the tracker: `cargo bench -p nvr-core --bench track`.
//!
//! Objects walk in all directions over a full HD picture; where they meet, they overlap. Boxes tremble as a
//! detector's do, and one in ten is doubtful. Prints minimum, median and 99th percentile on one thread.

use std::time::{Duration, Instant};

use nvr_core::{
    detection::Detection,
    geometry::Rect,
    track::{Algorithm, Params, Tracker},
};

const FRAMES: usize = 2000;

/// A number from 0 to 1 that looks random.
fn unit(a: usize, b: usize) -> f32 {
    let mut x = (a as u64) << 32 | b as u64;
    for _ in 0..2 {
        x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (x >> 40) as f32 / (1u64 << 24) as f32
}

fn frame(objects: usize, number: usize, fps: f32) -> Vec<Detection> {
    (0..objects)
        .map(|n| {
            let t = number as f32 / fps;
            let along = |axis: usize, size: f32| {
                let speed = 120.0 * (unit(n, axis) - 0.5);
                (unit(n, axis + 7) * size + speed * t).rem_euclid(size)
            };
            let height = 60.0 + 120.0 * unit(n, 20);
            let tremble = |k: usize| (unit(n * 31 + k, number) - 0.5) * 0.06 * height;
            Detection {
                class_name: "person".into(),
                class_id: Some(0),
                confidence: if unit(n + 999, number) < 0.1 { 0.3 } else { 0.9 },
                rect: Rect::new(
                    along(1, 1920.0) + tremble(0),
                    along(2, 1080.0) + tremble(1),
                    height * 0.4 + tremble(2),
                    height + tremble(3),
                ),
                tracker_id: None,
            }
        })
        .collect()
}

fn main() {
    println!(
        "{:<12} {:>8} {:>6} {:>10} {:>10} {:>10}",
        "algorithm", "objects", "fps", "min", "median", "p99"
    );
    for (name, algorithm) in [("bytetrack", Algorithm::ByteTrack), ("iou", Algorithm::Iou)] {
        for (objects, fps) in [(10, 5.0), (50, 5.0), (50, 25.0), (50, 0.5), (300, 5.0)] {
            let (mut tracker, mut ids) = (Tracker::default(), 0);
            let params = Params { algorithm, ..Params::default() };
            let mut times: Vec<Duration> = (0..FRAMES)
                .map(|number| {
                    let seen = frame(objects, number, fps);
                    let now = (number as f64 / f64::from(fps) * 1e9) as u64;
                    let start = Instant::now();
                    std::hint::black_box(tracker.update(now, &seen, &params, || {
                        ids += 1;
                        ids
                    }));
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            let (min, median, p99) = (times[0], times[FRAMES / 2], times[FRAMES * 99 / 100]);
            println!("{name:<12} {objects:>8} {fps:>6} {min:>10.1?} {median:>10.1?} {p99:>10.1?}");
        }
    }
}
