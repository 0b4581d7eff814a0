//! From the moment a built-in camera draws a frame until that frame leaves the wall, read from the timecode in the
//! picture: through encoder, RTSP, decoder, overlay and compositor of the shipped wall graph. What a window adds for
//! its own display is not in it.
//!
//! Cameras, wall and, with `--processor`, the processor are a process each. The clock starts when every tile has shown
//! a timecode and, with `--processor`, boxes have come for every camera.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail, ensure};
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
use nvr_tests::mosquitto::{Access, Mosquitto};
use parking_lot::{Condvar, Mutex};

#[derive(Clone, Debug, Parser)]
#[command(about = "Capture-to-wall latency, read from the timecodes in the wall's pictures")]
struct Options {
    #[arg(long, default_value_t = 12)]
    cameras: u32,
    /// How long to measure, once everything is shown
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long cameras may take until each has been shown
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Broker for the boxes; without one, a mosquitto is started for --processor
    #[arg(long)]
    broker: Option<String>,
    /// Runs a processor for the same cameras beside the wall
    #[arg(long)]
    processor: bool,
    /// What the processor is told besides the cameras and the broker
    #[arg(long, default_value = "--model demo", allow_hyphen_values = true)]
    processor_with: String,
    /// What the wall is told besides
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    wall_with: String,
    /// The launcher; where it is not given, the one beside this program
    #[arg(long)]
    launch: Option<PathBuf>,
    /// Is the wall, whose cameras are at this server
    #[arg(long, hide = true)]
    wall: Option<String>,
}

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
/// First words of the line with the result.
const RESULT: &str = "measured: ";

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // The elements are registered by the first command.
    let _ = nvr_launch::cli::main(["nvr-launch", "check", "wall"].map(std::ffi::OsString::from));
    match &options.wall {
        Some(server) => show(&options, server),
        None => direct(&options),
    }
}

/// Is ended with us, however we end.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the cameras, and starts the others.
fn direct(options: &Options) -> anyhow::Result<()> {
    let mosquitto = if options.processor && options.broker.is_none() {
        Some(Mosquitto::start(Access::Open).context("mosquitto is missing; --broker names another broker")?)
    } else {
        None
    };
    let broker = match (&options.broker, &mosquitto) {
        (Some(broker), _) => broker.clone(),
        (None, Some(mosquitto)) => mosquitto.url(),
        (None, None) => "mqtt://127.0.0.1:1883".into(),
    };
    let server = RtspServer::start()?;
    let mut root = String::new();
    for id in 0..options.cameras {
        let source = TestSrc {
            seed: u64::from(id),
            width: 640,
            height: 360,
            fps: 25,
            bitrate: 1000,
            ..TestSrc::default()
        };
        let path = format!("/{id}");
        let uri = server.add_camera(&path, &Camera::TestSrc(source))?;
        uri.strip_suffix(&path).unwrap_or(&uri).clone_into(&mut root);
    }
    let this = std::env::current_exe()?;
    let _processor = if options.processor {
        let beside = || this.with_file_name(format!("nvr-launch{}", std::env::consts::EXE_SUFFIX));
        let launch = options.launch.clone().unwrap_or_else(beside);
        let streams = format!("0-{}", options.cameras.saturating_sub(1));
        let child = Command::new(&launch)
            .args(["processor", "--stream-server", &root, "--streams", &streams, "--broker", &broker])
            .args(["--log-level", "warn"])
            .args(options.processor_with.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{}; build nvr-launch, or name one with --launch", launch.display()))?;
        Some(Ended(child))
    } else {
        None
    };
    let mut wall = Command::new(&this);
    wall.args(["--wall", &root, "--broker", &broker, "--wall-with", &options.wall_with])
        .args(["--cameras", &options.cameras.to_string(), "--seconds", &options.seconds.to_string()])
        .args(["--patience", &options.patience.to_string()])
        .args(options.processor.then_some("--processor"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut wall = Ended(wall.spawn()?);
    let output = wall.0.stdout.take().context("what the wall says")?;
    for line in BufReader::new(output).lines() {
        if let Some(result) = line?.strip_prefix(RESULT) {
            let beside = if options.processor { "processor and wall" } else { "wall" };
            println!("{} cameras, {beside}: {result}", options.cameras);
        }
    }
    let ended = wall.0.wait()?;
    ensure!(ended.success(), "the wall ended with {ended}");
    Ok(())
}

/// What has left the wall.
#[derive(Debug, Default)]
struct Seen {
    frames: u64,
    /// Milliseconds from capture, each frame of each camera once.
    latencies: Vec<i64>,
    /// Timecode that each tile has shown last; 0 for none.
    last: Vec<u64>,
}

#[derive(Debug, Default)]
struct Watch {
    seen: Mutex<Seen>,
    changed: Condvar,
}

/// Runs the wall, and measures.
fn show(options: &Options, server: &str) -> anyhow::Result<()> {
    let (width, height) = (WIDTH.to_string(), HEIGHT.to_string());
    let streams = format!("0-{}", options.cameras.saturating_sub(1));
    let broker = options.broker.as_deref().context("--broker")?;
    let mut arguments: Vec<&str> = vec![
        "--stream-server",
        server,
        "--streams",
        &streams,
        "--broker",
        broker,
        "--output",
        "none",
        "--width",
        &width,
        "--height",
        &height,
    ];
    arguments.extend(options.wall_with.split_whitespace());
    let mut instance = Instance::new(plan(&arguments)?)?;
    let watch = Arc::new(Watch::default());
    observe(&instance, options.cameras as usize, &watch)?;
    let (handle, pipeline) = (instance.handle(), instance.pipeline().clone());
    instance.start()?;
    let runner = std::thread::spawn(move || instance.run());

    // What connects is not what is measured.
    let deadline = Instant::now() + Duration::from_secs(options.patience);
    {
        let mut seen = watch.seen.lock();
        while seen.last.contains(&0) {
            if watch.changed.wait_until(&mut seen, deadline).timed_out() {
                let missing: Vec<usize> = (0..seen.last.len()).filter(|n| seen.last[*n] == 0).collect();
                bail!("cameras {missing:?} have not been shown within {} s", options.patience);
            }
        }
    }
    while options.processor && events(&pipeline).len() < options.cameras as usize {
        let missing = || {
            let known = events(&pipeline);
            (0..options.cameras).filter(|id| !known.iter().any(|(other, _)| other == id)).collect::<Vec<_>>()
        };
        ensure!(
            Instant::now() < deadline,
            "no boxes for cameras {:?} within {} s",
            missing(),
            options.patience
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let boxes_before: u64 = events(&pipeline).iter().map(|(_, count)| count).sum();
    {
        let mut seen = watch.seen.lock();
        seen.frames = 0;
        seen.latencies.clear();
    }
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let (frames, mut found) = {
        let mut seen = watch.seen.lock();
        (seen.frames, std::mem::take(&mut seen.latencies))
    };
    let seconds = begun.elapsed().as_secs_f64();
    let boxes = events(&pipeline).iter().map(|(_, count)| count).sum::<u64>().saturating_sub(boxes_before);
    handle.stop();
    let _ = runner.join();
    found.sort_unstable();
    ensure!(!found.is_empty(), "no timecode was read in {seconds:.0} s");
    let at = |percent: usize| found[(found.len() - 1) * percent / 100];
    println!(
        "{RESULT}{:.1} pictures per second, {:.1} per second and camera, {:.1} events with boxes per second and camera; \
         capture to wall p50 {} ms, p95 {} ms, p99 {} ms, largest {} ms",
        frames as f64 / seconds,
        found.len() as f64 / seconds / f64::from(options.cameras.max(1)),
        boxes as f64 / seconds / f64::from(options.cameras.max(1)),
        at(50),
        at(95),
        at(99),
        at(100)
    );
    Ok(())
}

/// The shipped graph with these options, as the command line would have them.
fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
    let mut command_line = CommandLine { instance_id: Some("latency".into()), ..CommandLine::default() };
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        let name = name.strip_prefix("--").with_context(|| format!("{name:?} is no option"))?;
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                (name, (*arguments.next().with_context(|| format!("--{name} needs a value"))?).to_owned())
            }
        };
        if name == "streams" {
            let last = value.rsplit('-').next().and_then(|last| last.parse().ok()).unwrap_or(0);
            command_line.streams = Some((0..=last).collect());
        } else {
            command_line.values.insert(name.replace('-', "_"), value);
        }
    }
    Plan::resolve(Graph::load("wall")?, None, &|_| None, &command_line)
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// Events that have come, for each camera that has got any.
fn events(pipeline: &gst::Pipeline) -> Vec<(u32, u64)> {
    let overlays = pipeline.iterate_all_by_element_factory_name("nvroverlay");
    overlays
        .into_iter()
        .flatten()
        .filter_map(|overlay| {
            let count = overlay.property::<gst::Structure>("stats").get::<u64>("events").ok()?;
            (count > 0).then(|| (overlay.property("source-id"), count))
        })
        .collect()
}

/// Reads every tile of every picture that leaves the wall, the first time that a tile shows a frame.
fn observe(instance: &Instance, cameras: usize, watch: &Arc<Watch>) -> anyhow::Result<()> {
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
    watch.seen.lock().last = vec![0; shown.len()];
    let watch = watch.clone();
    let pad = instance.pipeline().by_name("wall").and_then(|wall| wall.static_pad("src"));
    pad.context("the wall has no pad")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
            return gst::PadProbeReturn::Ok;
        };
        let mut seen = watch.seen.lock();
        seen.frames += 1;
        for (n, area) in shown.iter().enumerate() {
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
                && time != seen.last[n]
            {
                seen.last[n] = time;
                seen.latencies.push(now - time as i64);
            }
        }
        drop(seen);
        watch.changed.notify_all();
        gst::PadProbeReturn::Ok
    });
    Ok(())
}
