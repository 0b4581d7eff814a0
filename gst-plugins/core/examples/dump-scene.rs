//! Writes pictures of synthetic scenes and what is in them, for training and for looking at.
//!
//! Standard output becomes a sequence of records: one line of JSON, then `width` × `height` × 3 bytes of RGB.
//! The line holds `width`, `height`, `scene`, `seed`, `night`, `noise`, `scene_ns` and `objects`, each with
//! `class_id`, `box` (x, y, width, height in pixels), `visible` and `reported`.

use std::{
    error::Error,
    io::{self, Write},
};

use nvr_core::{
    frame::{ColorMatrix, ColorRange, PixelFormat},
    scene::{FrameMut, Moment, PlaneMut, Scene, SceneConfig, SceneKind},
};
use serde_json::json;

const USAGE: &str = "usage: dump-scene --scenes N [--frames N] [--first-seed N] [--width N] [--height N] \
                     [--objects N] [--scene yard|street|room] [--night true|false] [--noise X]
What is not given varies from scene to scene.";

/// Sizes that cameras and their substreams have.
const SIZES: [(usize, usize); 7] =
    [(640, 360), (1280, 720), (960, 540), (854, 480), (704, 576), (640, 480), (1920, 1080)];

/// 2026-01-01T00:00:00Z, in milliseconds.
const EPOCH_MS: u64 = 1_767_225_600_000;

#[derive(Debug, Default)]
struct Options {
    scenes: u64,
    frames: Option<u64>,
    first_seed: u64,
    size: (Option<usize>, Option<usize>),
    objects: Option<usize>,
    kind: Option<SceneKind>,
    night: Option<bool>,
    noise: Option<f32>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    while let Some(name) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match name.as_str() {
            "--scenes" => options.scenes = value.parse()?,
            "--frames" => options.frames = Some(value.parse()?),
            "--first-seed" => options.first_seed = value.parse()?,
            "--width" => options.size.0 = Some(value.parse()?),
            "--height" => options.size.1 = Some(value.parse()?),
            "--objects" => options.objects = Some(value.parse()?),
            "--night" => options.night = Some(value.parse()?),
            "--noise" => options.noise = Some(value.parse()?),
            "--scene" => {
                options.kind = Some(match value.as_str() {
                    "yard" => SceneKind::Yard,
                    "street" => SceneKind::Street,
                    "room" => SceneKind::Room,
                    _ => return Err(USAGE.into()),
                });
            }
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

/// A number below `limit` that depends on `seed` and `what` only.
fn draw(seed: u64, what: u64, limit: u64) -> u64 {
    let mut z = (seed << 8 | what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 32)) % limit
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = parse(std::env::args().skip(1))?;
    let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
    for n in 0..options.scenes {
        let seed = options.first_seed + n;
        let size = SIZES[draw(seed, 1, SIZES.len() as u64) as usize];
        let config = SceneConfig {
            width: options.size.0.unwrap_or(size.0),
            height: options.size.1.unwrap_or(size.1),
            objects: options.objects.unwrap_or(1 + draw(seed, 2, 8) as usize),
            kind: options.kind.unwrap_or(SceneKind::ALL[draw(seed, 3, 3) as usize]),
            seed,
            night: options.night.unwrap_or(draw(seed, 4, 2) == 0),
            noise: options.noise.unwrap_or(draw(seed, 5, 8) as f32),
        };
        let mut scene = Scene::new(&config);
        let config = scene.config().clone();
        let (width, height) = (config.width, config.height);
        let mut rgb = vec![0; width * height * 3];
        for frame in 0..options.frames.unwrap_or(4) {
            let scene_ns = draw(seed, 16 + frame, 600_000) * 1_000_000;
            let mut target = FrameMut {
                format: PixelFormat::Rgb,
                width,
                height,
                planes: [
                    PlaneMut { data: &mut rgb, stride: width * 3 },
                    PlaneMut::default(),
                    PlaneMut::default(),
                ],
                matrix: ColorMatrix::default(),
                range: ColorRange::default(),
            };
            let unix_ms = Some(EPOCH_MS + scene_ns / 1_000_000);
            let truth = scene.render(Moment { scene_ns, unix_ms }, &mut target)?;
            let objects: Vec<_> = truth
                .iter()
                .map(|t| {
                    let bounds = [t.rect.x, t.rect.y, t.rect.width, t.rect.height];
                    json!({"class_id": t.class.id(), "box": bounds, "visible": t.visible, "reported": t.reported})
                })
                .collect();
            let line = json!({
                "width": width, "height": height, "scene": format!("{:?}", config.kind).to_lowercase(),
                "seed": seed, "night": config.night, "noise": config.noise, "scene_ns": scene_ns, "objects": objects,
            });
            writeln!(out, "{line}")?;
            out.write_all(&rgb)?;
        }
    }
    out.flush()?;
    Ok(())
}
