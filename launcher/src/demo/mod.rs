//! `nvr-launch demo`: built-in cameras, the shipped processor and wall, a built-in broker, and a picture as proof.
//!
//! The cameras are an RTSP server of this process; the graphs, the events and the broker are those of real use, over
//! real sockets. The wall knows nothing of the processor but its events: the picture is what any wall would show.

mod listener;
mod picture;
mod report;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use nvr_core::scene::SceneKind;

use self::{listener::Listener, report::Report};
use crate::{
    broker::Broker,
    cli::{CommandResult, Failure, init_gstreamer, port},
    graph::Graph,
    logging::{self, Format},
    output::outln,
    process,
    rtsp_server::{Camera, RtspServer, TestSrc},
    runtime::{Handle, Instance, Outcome},
    values::{CommandLine, Plan},
};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
/// Frames per second of a built-in camera.
const CAMERA_FPS: u32 = 15;
const TOPIC_PREFIX: &str = "nvr";
/// Size of the wall.
const WALL: (u32, u32) = (1280, 720);
/// How long the wall's pictures wait for their boxes: a small machine does everything at once here.
const WALL_WAIT_MS: u32 = 500;

pub(crate) fn command() -> Command {
    let number = |name: &'static str, range: std::ops::RangeInclusive<i64>, default: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(clap::value_parser!(u32).range(range))
            .default_value(default)
    };
    Command::new("demo")
        .about("Show it all at work on this machine, without cameras, network or downloads")
        .after_help(format!(
            "The demo ends with code 0 only if events with detections came from every camera.\n\n{}",
            process::EXIT_CODES
        ))
        .arg(number("cameras", 1..=16, "4").help("Built-in cameras"))
        .arg(number("seconds", 1..=3600, "10").help("How long to watch, from the first event on"))
        .arg(
            Arg::new("picture")
                .long("picture")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .default_value("demo.png")
                .help("Where to write a picture of the wall"),
        )
        .arg(
            Arg::new("keep-running")
                .long("keep-running")
                .action(ArgAction::SetTrue)
                .help("Go on after the picture until SIGINT"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .value_parser(port)
                .default_value("0")
                .help("Port of the built-in broker on 127.0.0.1; 0 takes a free one"),
        )
        .arg(
            Arg::new("model")
                .long("model")
                .value_name("MODEL")
                .default_value("demo")
                .help("Model name or path"),
        )
        .arg(
            Arg::new("max-fps")
                .long("max-fps")
                .value_name("N")
                .default_value("5")
                .help("Analysed frames per second and camera"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("Only the summary, not every event"),
        )
        .arg(
            Arg::new("log-level")
                .long("log-level")
                .value_name("LEVEL")
                .default_value("warn")
                .help("error, warn, info, debug, trace, or a filter"),
        )
}

/// What the command line asks for.
struct Options {
    cameras: u32,
    seconds: u32,
    picture: PathBuf,
    keep_running: bool,
    port: u16,
    model: String,
    max_fps: String,
    quiet: bool,
}

/// Whether a picture can be written there, before cameras have run for it.
fn check_picture(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        Err(format!("--picture {shown}: it is a directory; name a file"))
    } else if !folder.is_dir() {
        Err(format!(
            "--picture {shown}: there is no folder {}; make it, or name a file elsewhere",
            folder.display()
        ))
    } else {
        let attempt = process::readable_temporary(folder);
        attempt.map(drop).map_err(|error| {
            format!("--picture {shown}: nothing can be written into {}: {}", folder.display(), error.kind())
        })
    }
}

impl Options {
    fn new(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
        Self {
            cameras: matches.get_one("cameras").copied().unwrap_or(4),
            seconds: matches.get_one("seconds").copied().unwrap_or(10),
            picture: matches.get_one::<PathBuf>("picture").cloned().unwrap_or_default(),
            keep_running: matches.get_flag("keep-running"),
            port: matches.get_one("port").copied().unwrap_or(0),
            model: text("model"),
            max_fps: text("max-fps"),
            quiet: matches.get_flag("quiet"),
        }
    }
}

/// How long the first event may take: a cold file cache, a slow machine.
const FIRST_EVENT: Duration = Duration::from_secs(30);

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    let options = Options::new(matches);
    check_picture(&options.picture).map_err(Failure::usage)?;
    let level = matches.get_one::<String>("log-level").map_or("warn", String::as_str);
    init_gstreamer()?;
    logging::init(Format::Text, level, None).map_err(Failure::usage)?;
    let cannot_start = |message: String| Failure { code: process::START, message };

    let broker = Broker::start(options.port).map_err(|error| cannot_start(error.to_string()))?;
    let (cameras, uris) =
        built_in_cameras(options.cameras).map_err(|error| cannot_start(format!("{error:#}")))?;
    outln!("broker    {}", broker.uri());
    for (id, uri) in uris.iter().enumerate() {
        outln!("camera {id}  {uri}");
    }
    let plan = processor(&options, &broker, &uris)?;
    let wall = wall(&broker, &uris)?;
    let listener = Listener::start(broker.address(), TOPIC_PREFIX).map_err(cannot_start)?;

    let started = Instant::now();
    let (analysed, handle, _) = launch(plan)?;
    process::stop_on_signals(handle.clone()).map_err(Failure::failed)?;
    let (result, wall) = match launch(wall) {
        Ok(wall) => (watch(&options, &listener, &wall.2, &handle, started), Some(wall)),
        Err(failure) => (Err(failure), None),
    };
    handle.stop();
    let mut outcome = ended(analysed);
    if let Some((runner, handle, _)) = wall {
        handle.stop();
        let shown = ended(runner);
        if matches!(outcome, Outcome::Finished) {
            outcome = shown;
        }
    }
    drop(cameras);
    match (result, outcome) {
        (Err(failure), _) => Err(failure),
        (Ok(()), Outcome::Failed(message)) => Err(Failure::failed(message)),
        (Ok(()), Outcome::Finished) => Ok(()),
    }
}

type Launched = (thread::JoinHandle<Outcome>, Handle, gst::Pipeline);

/// An instance in a thread of its own.
fn launch(plan: Plan) -> Result<Launched, Failure> {
    let mut instance = Instance::new(plan)?;
    let (handle, pipeline) = (instance.handle(), instance.pipeline().clone());
    let control = crate::control::Control::attach(&instance);
    instance.start()?;
    control.ready();
    let runner = thread::Builder::new()
        .name("instance".into())
        .spawn(move || instance.run())
        .map_err(|error| Failure { code: process::START, message: error.to_string() })?;
    Ok((runner, handle, pipeline))
}

fn ended(runner: thread::JoinHandle<Outcome>) -> Outcome {
    runner.join().unwrap_or_else(|_| Outcome::Failed("the instance panicked".into()))
}

/// Cameras that show different scenes, and their addresses.
fn built_in_cameras(count: u32) -> anyhow::Result<(RtspServer, Vec<String>)> {
    let server = RtspServer::start()?;
    let uris = (0..count)
        .map(|id| {
            let source = TestSrc {
                seed: u64::from(id) + 1,
                scene: SceneKind::ALL[id as usize % SceneKind::ALL.len()],
                width: WIDTH,
                height: HEIGHT,
                fps: CAMERA_FPS,
                bitrate: 1500,
                ..TestSrc::default()
            };
            server.add_camera(&format!("/{id}"), &Camera::TestSrc(source))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok((server, uris))
}

/// The shipped processor graph with the demo's values.
fn processor(options: &Options, broker: &Broker, uris: &[String]) -> Result<Plan, Failure> {
    let values = [("model", options.model.clone()), ("max_fps", options.max_fps.clone())];
    plan("processor", "demo", &values, broker, uris)
}

/// The shipped wall graph; its pictures end in a sink that keeps the last one.
fn wall(broker: &Broker, uris: &[String]) -> Result<Plan, Failure> {
    let values = [
        ("output", "none".into()),
        ("width", WALL.0.to_string()),
        ("height", WALL.1.to_string()),
        ("fps", CAMERA_FPS.to_string()),
        ("sync", "timestamp".into()),
        ("max_wait", WALL_WAIT_MS.to_string()),
    ];
    plan("wall", "demo-wall", &values, broker, uris)
}

fn plan(
    graph: &str,
    instance_id: &str,
    values: &[(&str, String)],
    broker: &Broker,
    uris: &[String],
) -> Result<Plan, Failure> {
    let graph = Graph::load(graph).map_err(Failure::failed)?;
    let shared = [("broker", broker.uri()), ("topic_prefix", TOPIC_PREFIX.into())];
    let values = values.iter().cloned().chain(shared);
    let command_line = CommandLine {
        values: values.map(|(name, value)| (name.to_owned(), value)).collect(),
        camera_values: (0..).zip(uris).map(|(id, uri)| ((id, "uri".to_owned()), uri.clone())).collect(),
        streams: Some((0..).zip(uris).map(|(id, _)| id).collect()),
        instance_id: Some(instance_id.into()),
    };
    // The demo is the same everywhere: the environment does not count.
    Plan::resolve(graph, None, &|_| None, &command_line).map_err(Failure::usage)
}

/// Prints events until the time is up, then writes the picture and the summary.
fn watch(
    options: &Options,
    listener: &Listener,
    wall: &gst::Pipeline,
    handle: &Handle,
    started: Instant,
) -> CommandResult {
    let mut report = Report::new(options.cameras);
    let mut deadline = started + FIRST_EVENT;
    let mut result = None;
    // The moment at which most is to be seen, on as many cameras as possible.
    let mut best: Option<((usize, usize), gst::Sample)> = None;
    let mut complete = picture::Complete::default();
    loop {
        if let Some(event) = listener.next(Duration::from_millis(200)) {
            if report.events() == 0 {
                deadline = Instant::now() + Duration::from_secs(options.seconds.into());
                outln!("first event {:.2} s after the start", started.elapsed().as_secs_f64());
            }
            if !options.quiet {
                outln!("{}", report::line(&event));
            }
            report.add(&event);
        }
        let busy = report.busy();
        if result.is_none()
            && best.as_ref().is_none_or(|(before, _)| busy >= *before)
            && let Some(picture) = complete.picture(wall)
        {
            best = Some((busy, picture));
        }
        // No answer: the instance has ended, by a signal or by an error of its own.
        let ended = handle.snapshot().is_none();
        // A slow machine is waited for, within bounds: the proof is a picture, and something seen on every camera.
        let proven = best.is_some() && report.without_detections().is_empty();
        let late = Instant::now() >= if proven { deadline } else { deadline + FIRST_EVENT };
        if result.is_none() && (late || ended) {
            let picture = best.take().map(|(_, picture)| picture).or_else(|| picture::last(wall));
            result = Some(finish(options, &report, picture));
        }
        if ended || (result.is_some() && !options.keep_running) {
            return result.unwrap_or(Ok(()));
        }
    }
}

fn finish(options: &Options, report: &Report, picture: Option<gst::Sample>) -> CommandResult {
    outln!("\n{}", report.summary());
    if let Some(picture) = picture {
        picture::write(&options.picture, &picture)
            .map_err(|message| Failure::failed(format!("{}: {message}", options.picture.display())))?;
        outln!("picture   {}", options.picture.display());
    }
    let silent = report.without_detections();
    if silent.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = silent.iter().map(|id| format!("camera {id}")).collect();
    Err(Failure::failed(format!("no detections came from {}; --log-level info says more", names.join(", "))))
}
