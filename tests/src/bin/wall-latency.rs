//! From the moment a built-in camera draws a frame until that frame leaves the wall, read from the timecode in the
//! picture: through encoder, RTSP, decoder, overlay and compositor of the shipped wall graph. What a window adds for
//! its own display is not in it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use gst::prelude::*;
use nvr_core::{
    frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane},
    layout::{Area, Fit, Layout, Position, Wall, arrange, place},
    scene::read_timecode,
};
use nvr_launch::{
    graph::Graph,
    rtsp_server::{Camera, RtspServer, TestSrc},
    runtime::Instance,
    values::{CommandLine, Plan},
};

#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value_t = 12)]
    cameras: u32,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Broker for the boxes; without one the overlay has nothing to draw.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    broker: String,
}

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // The elements are registered by the first command.
    let _ = nvr_launch::cli::main(["nvr-launch", "check", "wall"].map(std::ffi::OsString::from));
    let server = RtspServer::start()?;
    let mut uris = Vec::new();
    for id in 0..options.cameras {
        let source = TestSrc {
            seed: u64::from(id),
            width: 640,
            height: 360,
            fps: 25,
            bitrate: 1000,
            ..TestSrc::default()
        };
        uris.push(server.add_camera(&format!("/{id}"), &Camera::TestSrc(source))?);
    }
    let values = [
        ("output", "none".to_owned()),
        ("width", WIDTH.to_string()),
        ("height", HEIGHT.to_string()),
        ("broker", options.broker),
    ];
    let command_line = CommandLine {
        values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        camera_values: (0..).zip(&uris).map(|(id, uri)| ((id, "uri".to_owned()), uri.clone())).collect(),
        streams: Some((0..options.cameras).collect()),
        instance_id: Some("latency".into()),
    };
    let plan = Plan::resolve(Graph::load("wall")?, None, &|_| None, &command_line)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut instance = Instance::new(plan)?;
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let frames = Arc::new(Mutex::new(0_u64));
    watch(&instance, options.cameras as usize, &latencies, &frames);
    let handle = instance.handle();
    instance.start()?;
    let runner = std::thread::spawn(move || instance.run());
    // What connects is not what is measured.
    std::thread::sleep(Duration::from_secs(4));
    latencies.lock().expect("no panic").clear();
    *frames.lock().expect("no panic") = 0;
    std::thread::sleep(Duration::from_secs(options.seconds));
    let mut found = std::mem::take(&mut *latencies.lock().expect("no panic"));
    let frames = *frames.lock().expect("no panic");
    handle.stop();
    let _ = runner.join();
    found.sort_unstable();
    let at =
        |percent: usize| found.get((found.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(-1);
    println!(
        "{} cameras, {:.1} pictures per second of the wall, {} timecodes read: p50 {} ms, p95 {} ms, p99 {} ms, largest {} ms",
        options.cameras,
        frames as f64 / options.seconds as f64,
        found.len(),
        at(50),
        at(95),
        at(99),
        at(100)
    );
    Ok(())
}

/// Reads every tile of every picture that leaves the wall, the first time that a tile shows a frame.
fn watch(instance: &Instance, cameras: usize, latencies: &Arc<Mutex<Vec<i64>>>, frames: &Arc<Mutex<u64>>) {
    let wall = Wall {
        width: WIDTH,
        height: HEIGHT,
        layout: Layout::Grid,
        columns: 0,
        focus: 0,
        shape: (16, 9),
        spacing: 4,
    };
    let tiles = arrange(&wall, &vec![Position::default(); cameras]);
    let shown: Vec<Area> = tiles
        .iter()
        .filter_map(|tile| place(Fit::Letterbox, *tile, 640, 360, (1, 1)))
        .map(|p| p.target)
        .collect();
    let last = Mutex::new(vec![0_u64; shown.len()]);
    let (latencies, frames) = (latencies.clone(), frames.clone());
    let pad = instance.pipeline().by_name("wall").and_then(|wall| wall.static_pad("src")).expect("the wall");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        *frames.lock().expect("no panic") += 1;
        let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
            return gst::PadProbeReturn::Ok;
        };
        for (area, last) in shown.iter().zip(last.lock().expect("no panic").iter_mut()) {
            let start = area.y as usize * WIDTH as usize + area.x as usize;
            let frame = Frame {
                format: PixelFormat::Gray8,
                width: area.width as usize,
                height: area.height as usize,
                planes: [
                    Plane { data: &map[start..], stride: WIDTH as usize },
                    Plane::default(),
                    Plane::default(),
                ],
                matrix: ColorMatrix::Bt601,
                range: ColorRange::Limited,
            };
            if let Some(time) = read_timecode(&frame)
                && time != *last
            {
                *last = time;
                latencies.lock().expect("no panic").push(now - time as i64);
            }
        }
        gst::PadProbeReturn::Ok
    });
}
