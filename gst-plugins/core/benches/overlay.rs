//! Time of one core that an overlay of 20 boxes with labels, confidence and track numbers takes:
//! `cargo bench -p nvr-core --bench overlay`; words after `--` choose the lines that have them all.
//!
//! `blend` is what every frame costs; `layout` is what every event costs besides: layout, text and compilation into
//! the frame's format. Frames come from a set larger than the second-level cache, as those of a decoder do.

use std::time::{Duration, Instant};

use nvr_core::{
    draw::{Stamp, Target, Typeface},
    frame::{ColorMatrix, ColorRange, FrameMut, PixelFormat, PlaneMut},
    geometry::Rect,
    overlay::{Filter, Seen, Sighting, Style, Timeline, plan},
};

const FRAMES: usize = 8;
const RUNS: usize = 400;
const BOXES: usize = 20;

/// Twenty people in two rows, a step further on each frame.
fn sighting(n: u64, width: f32, height: f32) -> Sighting {
    let seen = (0..BOXES)
        .map(|i| Seen {
            class: ["person", "car", "dog"][i % 3].into(),
            confidence: 0.5 + 0.02 * ((i as u64 + n) % 25) as f32,
            rect: Rect::new(
                ((i % 10) as f32 * 0.095 + 0.001 * n as f32 % 0.05) * width,
                (0.1 + 0.45 * (i / 10) as f32) * height,
                0.08 * width,
                0.35 * height,
            ),
            track: Some(i as u64),
        })
        .collect();
    Sighting { capture_ns: n * 40_000_000, width, height, seen, latency_ms: Some(61.5), fps: Some(25.0) }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn measure(format: PixelFormat, width: usize, height: usize, style: &Style, name: &str) {
    let line = format!("{format:?} {width}x{height} {name}").to_lowercase();
    // Cargo adds an option of its own.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    if !words.all(|word| line.contains(&word.to_lowercase())) {
        return;
    }
    let target = Target { format, width, height, matrix: ColorMatrix::Bt709, range: ColorRange::Limited };
    let chroma = width.div_ceil(2) * height.div_ceil(2);
    let (sizes, strides) = match format {
        PixelFormat::Nv12 => ([width * height, 2 * chroma, 0], [width, width.div_ceil(2) * 2, 0]),
        PixelFormat::I420 => {
            ([width * height, chroma, chroma], [width, width.div_ceil(2), width.div_ceil(2)])
        }
        PixelFormat::Rgb | PixelFormat::Bgr => ([width * height * 3, 0, 0], [width * 3, 0, 0]),
        PixelFormat::Rgbx | PixelFormat::Bgrx => ([width * height * 4, 0, 0], [width * 4, 0, 0]),
        PixelFormat::Gray8 => ([width * height, 0, 0], [width, 0, 0]),
    };
    let mut frames: Vec<[Vec<u8>; 3]> = (0..FRAMES).map(|_| sizes.map(|size| vec![0x55; size])).collect();
    let mut timeline = Timeline::default();
    let mut typeface = Typeface::new();
    let mut stamp = Stamp::new(target);
    let (mut layouts, mut blends) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        timeline.add("bench", "yolox-nano", sighting(run as u64, width as f32, height as f32), 0);
        let begun = Instant::now();
        let picks = timeline.latest(&Filter::default(), 0, 1);
        stamp.clear();
        for piece in plan(&picks, style, (width, height), &mut typeface) {
            piece.stamp(&mut stamp);
        }
        layouts.push(begun.elapsed());
        let mut n = 0;
        let planes = frames[run % FRAMES].each_mut().map(|data| {
            n += 1;
            PlaneMut { data, stride: strides[n - 1] }
        });
        let mut frame =
            FrameMut { format, width, height, planes, matrix: target.matrix, range: target.range };
        let begun = Instant::now();
        stamp.blend(&mut frame).expect("the stamp is made for these frames");
        blends.push(begun.elapsed());
    }
    println!(
        "{:<28} {name:<22} blend {:6.3} ms  layout {:6.3} ms",
        format!("{format:?} {width}x{height}, {BOXES} boxes"),
        median(blends),
        median(layouts)
    );
}

fn main() {
    use PixelFormat::{Bgrx, I420, Nv12, Rgb};
    let all = Style { latency: true, fps: true, ..Style::default() };
    let plain = Style { tracks: false, ..Style::default() };
    for (width, height) in [(640, 360), (1280, 720), (1920, 1080)] {
        for format in [Nv12, I420, Rgb, Bgrx] {
            measure(format, width, height, &plain, "labels");
        }
        measure(Nv12, width, height, &all, "labels, trails, lines");
    }
}
