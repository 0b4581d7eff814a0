//! Time of one frame in the motion detector: `cargo bench -p nvr-core --bench motion`.
//!
//! Textured ground with sensor noise, and five things that move over it. Frames come fresh each time from a set larger
//! than the second-level cache, as those of a decoder do. Prints minimum, median and 99th percentile on one thread.

use std::time::{Duration, Instant};

use nvr_core::{
    frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane},
    motion::{Detector, Params},
};

const FRAMES: usize = 8;
const RUNS: usize = 1000;

fn luma(width: usize, height: usize, number: usize) -> Vec<u8> {
    (0..width * height)
        .map(|n| {
            let (x, y) = (n % width, n / width);
            let noise = (n ^ number << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61;
            let moving = (0..5).any(|k| {
                let (left, top) = (width * k / 5 + number * 9, height * (k + 1) / 7);
                (left..left + width / 25).contains(&x) && (top..top + height / 7).contains(&y)
            });
            (if moving { 200 } else { 60 + (x / 32 * 7 + y / 32 * 13) % 50 } + noise) as u8
        })
        .collect()
}

fn measure(format: PixelFormat, width: usize, height: usize) {
    let bytes = if format == PixelFormat::Rgb { 3 } else { 1 };
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|number| {
            let luma = luma(width, height, number);
            let mut data: Vec<u8> = luma.iter().flat_map(|v| std::iter::repeat_n(*v, bytes)).collect();
            data.resize(data.len() + width * height, 128);
            data
        })
        .collect();
    let (mut detector, params) = (Detector::default(), Params::default());
    let mut regions = 0;
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|run| {
            let data = &frames[run % FRAMES];
            let plane = |start: usize, stride: usize| Plane { data: &data[start..], stride };
            let planes = match format {
                PixelFormat::Nv12 => [plane(0, width), plane(width * height, width), Plane::default()],
                _ => [plane(0, width * bytes), Plane::default(), Plane::default()],
            };
            let frame = Frame {
                format,
                width,
                height,
                planes,
                matrix: ColorMatrix::Bt709,
                range: ColorRange::Limited,
            };
            let start = Instant::now();
            let verdict =
                detector.update(run as u64 * 200_000_000, &frame, &params).expect("the frame is whole");
            regions += verdict.regions.len();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (min, median, p99) = (times[0], times[RUNS / 2], times[RUNS * 99 / 100]);
    println!(
        "{:<6} {width:>5}x{height:<5} {min:>10.1?} {median:>10.1?} {p99:>10.1?}   {:.1} regions",
        format!("{format:?}"),
        regions as f64 / RUNS as f64
    );
}

fn main() {
    println!("{:<6} {:>11} {:>10} {:>10} {:>10}", "format", "size", "min", "median", "p99");
    for (width, height) in [(640, 360), (1280, 720), (1920, 1080), (3840, 2160)] {
        measure(PixelFormat::Nv12, width, height);
    }
    measure(PixelFormat::Rgb, 1280, 720);
}
