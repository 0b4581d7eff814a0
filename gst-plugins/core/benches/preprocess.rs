//! Time of one preprocessing run for common geometries: `cargo bench -p nvr-core --bench preprocess`.
//!
//! Prints minimum and median over many runs on one thread. A frame is touched fresh each time from a set larger
//! than the second-level cache, as frames from a decoder are.

use std::time::{Duration, Instant};

use half::f16;
use nvr_core::{
    frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane},
    preprocess::{ChannelOrder, ElementType, Fit, InputSpec, Preprocessor, TensorLayout, TensorMut},
};

const FRAMES: usize = 8;
const RUNS: usize = 400;

fn frame(format: PixelFormat, width: usize, height: usize, data: &[u8]) -> Frame<'_> {
    let chroma = width.div_ceil(2) * height.div_ceil(2);
    let plane = |start: usize, stride: usize| Plane { data: &data[start..], stride };
    let luma = width * height;
    let planes = match format {
        PixelFormat::Nv12 => [plane(0, width), plane(luma, width.div_ceil(2) * 2), Plane::default()],
        PixelFormat::I420 => {
            let half = width.div_ceil(2);
            [plane(0, width), plane(luma, half), plane(luma + chroma, half)]
        }
        PixelFormat::Rgb | PixelFormat::Bgr => [plane(0, width * 3), Plane::default(), Plane::default()],
        PixelFormat::Rgbx | PixelFormat::Bgrx => [plane(0, width * 4), Plane::default(), Plane::default()],
        PixelFormat::Gray8 => [plane(0, width), Plane::default(), Plane::default()],
    };
    Frame { format, width, height, planes, matrix: ColorMatrix::Bt709, range: ColorRange::Limited }
}

fn spec(side: usize, element: ElementType, layout: TensorLayout) -> InputSpec {
    InputSpec {
        width: side,
        height: side,
        order: ChannelOrder::Bgr,
        layout,
        element,
        fit: Fit::LetterboxTopLeft,
        pad: 114,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

fn measure(name: &str, format: PixelFormat, size: (usize, usize), spec: InputSpec) {
    let (width, height) = size;
    let bytes = width * height * 4;
    let data: Vec<Vec<u8>> = (0..FRAMES)
        .map(|f| (0..bytes).map(|i| ((i * 2_654_435_761) >> 13) as u8 ^ f as u8).collect())
        .collect();
    let length = spec.len();
    let (mut f32s, mut f16s, mut u8s, mut i8s) =
        (vec![0f32; length], vec![f16::ZERO; length], vec![0u8; length], vec![0i8; length]);
    let element = spec.element;
    let mut preprocessor = Preprocessor::new(spec);
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|run| {
            let frame = frame(format, width, height, &data[run % FRAMES]);
            let out = match element {
                ElementType::F32 => TensorMut::F32(&mut f32s),
                ElementType::F16 => TensorMut::F16(&mut f16s),
                ElementType::U8 => TensorMut::U8(&mut u8s),
                ElementType::I8 => TensorMut::I8(&mut i8s),
            };
            let start = Instant::now();
            preprocessor.run(&frame, out).expect("the frame above is well formed");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!("{name:<40} min {:6.3} ms  median {:6.3} ms", ms(times[0]), ms(times[RUNS / 2]));
}

fn main() {
    use ElementType::{F16, F32, I8, U8};
    use TensorLayout::{Nchw, Nhwc};
    let hd = (1280, 720);
    measure("NV12 1280x720 -> 416 f32 NCHW", PixelFormat::Nv12, hd, spec(416, F32, Nchw));
    measure("I420 1280x720 -> 416 f32 NCHW", PixelFormat::I420, hd, spec(416, F32, Nchw));
    measure("RGB  1280x720 -> 416 f32 NCHW", PixelFormat::Rgb, hd, spec(416, F32, Nchw));
    measure("BGRx 1280x720 -> 416 f32 NCHW", PixelFormat::Bgrx, hd, spec(416, F32, Nchw));
    measure("GRAY 1280x720 -> 416 f32 NCHW", PixelFormat::Gray8, hd, spec(416, F32, Nchw));
    measure("NV12 1280x720 -> 416 f16 NCHW", PixelFormat::Nv12, hd, spec(416, F16, Nchw));
    measure("NV12 1280x720 -> 416 u8 NHWC", PixelFormat::Nv12, hd, spec(416, U8, Nhwc));
    measure("NV12 1280x720 -> 416 i8 NCHW", PixelFormat::Nv12, hd, spec(416, I8, Nchw));
    measure("NV12 1920x1080 -> 640 f32 NCHW", PixelFormat::Nv12, (1920, 1080), spec(640, F32, Nchw));
    measure("NV12 3840x2160 -> 640 f32 NCHW", PixelFormat::Nv12, (3840, 2160), spec(640, F32, Nchw));
    measure("NV12 640x640 -> 640 f32 NCHW (same size)", PixelFormat::Nv12, (640, 640), spec(640, F32, Nchw));
    measure("NV12 320x240 -> 640 f32 NCHW (enlarged)", PixelFormat::Nv12, (320, 240), spec(640, F32, Nchw));
}
