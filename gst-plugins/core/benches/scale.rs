//! Time of one camera's picture into its tile of a wall.

use std::{hint::black_box, time::Instant};

use nvr_core::{
    frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane},
    layout::{Area, Fit, place},
    scale::Scaler,
    scene::{FrameMut, PlaneMut},
};

fn main() {
    let rounds = 400;
    let mut wall = vec![0_u8; 1920 * 1080 * 3 / 2];
    for (name, width, height, tile) in [
        ("640x360 into 480x270", 640, 360, (480, 270)),
        ("1280x720 into 480x270", 1280, 720, (480, 270)),
        ("1920x1080 into 480x270", 1920, 1080, (480, 270)),
        ("640x360 into 1440x810", 640, 360, (1440, 810)),
    ] {
        for (format, other) in [
            (PixelFormat::I420, PixelFormat::I420),
            (PixelFormat::Nv12, PixelFormat::Nv12),
            (PixelFormat::I420, PixelFormat::Nv12),
        ] {
            let data: Vec<u8> = (0..width * height * 3 / 2).map(|n| (n * 7 % 251) as u8).collect();
            let (luma, chroma) = data.split_at(width * height);
            let (u, v) = chroma.split_at(width * height / 4);
            let planes = if format == PixelFormat::Nv12 {
                [Plane { data: luma, stride: width }, Plane { data: chroma, stride: width }, Plane::default()]
            } else {
                [
                    Plane { data: luma, stride: width },
                    Plane { data: u, stride: width / 2 },
                    Plane { data: v, stride: width / 2 },
                ]
            };
            let (matrix, range) = (ColorMatrix::Bt601, ColorRange::Limited);
            let source = Frame { format, width, height, planes, matrix, range };
            let area = Area::new(20, 20, tile.0, tile.1);
            let placement =
                place(Fit::Letterbox, area, width as u32, height as u32, (1, 1)).expect("a picture");
            let mut scaler = Scaler::new(format, other, (width, height), placement).expect("both are planar");
            let mut best = f64::MAX;
            for _ in 0..rounds {
                let (y, uv) = wall.split_at_mut(1920 * 1080);
                let (u, v) = uv.split_at_mut(if other == PixelFormat::Nv12 { uv.len() } else { 960 * 540 });
                let stride = if other == PixelFormat::Nv12 { 1920 } else { 960 };
                let mut target = FrameMut {
                    format: other,
                    width: 1920,
                    height: 1080,
                    planes: [
                        PlaneMut { data: y, stride: 1920 },
                        PlaneMut { data: u, stride },
                        PlaneMut { data: v, stride },
                    ],
                    matrix,
                    range,
                };
                let begin = Instant::now();
                scaler.scale(black_box(&source), &mut target).expect("it fits");
                best = best.min(begin.elapsed().as_secs_f64());
            }
            println!("{name:<24} {format:?}→{other:?}: {:.3} ms", best * 1e3);
        }
    }
}
