//! The demo from end to end: cameras over RTSP, the model, events over MQTT, the picture.

use std::{fs, path::Path, process::Command};

use gst::prelude::*;
use nvr_core::{
    frame::{ColorMatrix, ColorRange, FrameMut, PixelFormat, PlaneMut},
    layout::{Area, Fit, Layout, Position, Wall, arrange, place},
    overlay::PALETTE,
    scene::{Moment, Scene, SceneConfig, SceneKind},
};

/// The size of the demo's wall.
const WALL: (u32, u32) = (1280, 720);
/// Pixels of one colour of the palette side by side, on two rows: the ground of a label, above its letters. Nothing in
/// the scenes is so even.
const EVEN: usize = 24;

/// An RGB picture without padding.
struct Rgb {
    width: usize,
    bytes: Vec<u8>,
}

impl Rgb {
    fn load(path: &Path) -> Self {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(&format!(
            "filesrc location={} ! pngdec ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false",
            path.display()
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let sample = sink.pull_sample().unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let (width, stride) = (info.width() as usize, info.stride()[0] as usize);
        let rows = map.chunks(stride).take(info.height() as usize);
        let bytes = rows.flat_map(|row| &row[..width * 3]).copied().collect();
        pipeline.set_state(gst::State::Null).unwrap();
        Self { width, bytes }
    }

    /// What a camera of the demo sees at a moment, without boxes.
    fn scene(camera: usize, seconds: u64) -> Self {
        let (width, height) = (640, 360);
        let config = SceneConfig {
            width,
            height,
            objects: 4,
            kind: SceneKind::ALL[camera % SceneKind::ALL.len()],
            seed: camera as u64 + 1,
            night: false,
            noise: 0.0,
        };
        let mut scene = Scene::new(&config);
        let (matrix, range) = (ColorMatrix::Bt601, ColorRange::Limited);
        scene.prepare(PixelFormat::Rgb, matrix, range);
        let mut bytes = vec![0; width * height * 3];
        let planes =
            [PlaneMut { data: &mut bytes, stride: width * 3 }, PlaneMut::default(), PlaneMut::default()];
        let mut frame = FrameMut { format: PixelFormat::Rgb, width, height, planes, matrix, range };
        let moment = Moment { scene_ns: seconds * 1_000_000_000, unix_ms: Some(1_795_229_276_123) };
        scene.render(moment, &mut frame).unwrap();
        Self { width, bytes }
    }

    /// Labels in an area: places where two rows have a colour of the palette for [`EVEN`] pixels.
    fn labels(&self, area: Area) -> usize {
        let is = |x: usize, y: usize, colour: [u8; 3]| {
            let at = (y * self.width + x) * 3;
            self.bytes[at..at + 3].iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 20)
        };
        let (left, right) = (area.x as usize, (area.x + area.width) as usize);
        let (top, bottom) = (area.y as usize, (area.y + area.height) as usize);
        let mut found = 0;
        for colour in PALETTE.map(|colour| [colour.r, colour.g, colour.b]) {
            for y in top..bottom - 1 {
                let mut even = 0;
                for x in left..right {
                    even = if is(x, y, colour) && is(x, y + 1, colour) { even + 1 } else { 0 };
                    found += usize::from(even == EVEN);
                }
            }
        }
        found
    }
}

/// Where the wall shows the cameras' pictures.
fn tiles(cameras: usize) -> Vec<Area> {
    let wall = Wall {
        width: WALL.0,
        height: WALL.1,
        layout: Layout::Grid,
        columns: 0,
        focus: 0,
        shape: (16, 9),
        spacing: 4,
    };
    let tiles = arrange(&wall, &vec![Position::default(); cameras]);
    tiles
        .into_iter()
        .filter_map(|tile| place(Fit::Letterbox, tile, 640, 360, (1, 1)))
        .map(|p| p.target)
        .collect()
}

#[test]
fn what_the_cameras_show_is_not_taken_for_labels() {
    for camera in 0..3 {
        for seconds in [0, 2, 5, 9, 14] {
            let labels = Rgb::scene(camera, seconds).labels(Area::new(0, 0, 640, 360));
            assert_eq!(labels, 0, "camera {camera} after {seconds} s");
        }
    }
}

#[test]
fn the_demo_sees_something_on_every_camera_and_proves_it() {
    // Stays there to be looked at.
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo.png");
    let _ = fs::remove_file(&picture);
    let output = Command::new(env!("CARGO_BIN_EXE_nvr-launch"))
        .args(["demo", "--cameras", "2", "--seconds", "3", "--picture"])
        .arg(&picture)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Code 3 names what this machine lacks.
    if std::env::var_os("NVR_NO_SKIP").is_none()
        && output.status.code() == Some(3)
        && ["ONNX Runtime", "H.264 encoder"].iter().any(|part| err.contains(part))
    {
        println!("SKIPPED: {err}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    for part in [
        "broker    mqtt://127.0.0.1:",
        "camera 1  rtsp://127.0.0.1:",
        "first event",
        "person",
        "latency p50/p95",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let png = fs::read(&picture).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    // The wall, with boxes on every camera.
    let size = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((size(16), size(20)), WALL);
    let wall = Rgb::load(&picture);
    for (camera, tile) in tiles(2).into_iter().enumerate() {
        assert!(wall.labels(tile) > 0, "no boxes on camera {camera} in {}\n{out}", picture.display());
    }
}
