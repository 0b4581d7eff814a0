//! Cameras for the benchmarks: one RTSP server on the loopback interface with N paths, `/0` to `/N-1`.
//!
//! Every path repeats a clip that was encoded once (H.264, as a camera does: no B-frames, fixed GOP) and kept in a
//! cache folder. The number of each frame within its clip is painted into its top left corner, and the time at
//! which each frame was sent is written to a log: whoever sees a frame later can tell when it left.
//!
//! Prints one line of JSON when it is ready and ends when its standard input is closed.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use clap::Parser;
use gst::prelude::*;
use gst_video::prelude::*;
use nvr_launch::rtsp_server::{Camera, Options, RtspServer, SendHook};
use sha2::{Digest, Sha256};

/// Side of one painted square in pixels; there are two for recognition (white, black) and one per bit.
const SQUARE: usize = 16;
const BITS: usize = 10;

#[derive(Debug, Parser)]
#[command(about = "RTSP cameras made of encoded clips with numbered frames")]
struct Args {
    /// Number of cameras
    #[arg(long, default_value_t = 12)]
    count: usize,
    /// A video to make a clip of; several are dealt out in turn. Without one, a test picture is shown
    #[arg(long)]
    video: Vec<PathBuf>,
    /// Length of a clip, at most 40
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=40))]
    seconds: u32,
    /// Where encoded clips are kept
    #[arg(long, default_value = "target/bench")]
    cache: PathBuf,
    /// RTSP port, 0 for any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File for the times of sending: path, number since the stream began, UNIX time in nanoseconds
    #[arg(long)]
    log: Option<PathBuf>,
    #[arg(long, default_value_t = 1280)]
    width: u32,
    #[arg(long, default_value_t = 720)]
    height: u32,
    #[arg(long, default_value_t = 25)]
    fps: u32,
    /// kbit/s
    #[arg(long, default_value_t = 2000)]
    bitrate: u32,
    /// Frames from one keyframe to the next
    #[arg(long, default_value_t = 50)]
    gop: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    gst::init()?;
    fs::create_dir_all(&args.cache).with_context(|| format!("{}: cannot be made", args.cache.display()))?;
    let sources: Vec<_> = args.video.iter().map(|v| Some(v.as_path())).collect();
    let sources = if sources.is_empty() { vec![None] } else { sources };
    let clips = sources.into_iter().map(|video| clip(&args, video)).collect::<anyhow::Result<Vec<_>>>()?;

    let (lines, logger) = start_log(args.log.as_deref())?;
    let server = RtspServer::with_options(Options {
        port: args.port,
        on_send: lines.map(|lines| {
            SendHook::new(move |path, number| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // Fails only once the logger has reported its own error.
                let _ = lines.send((path.to_owned(), number, now.as_nanos()));
            })
        }),
        ..Options::default()
    })?;
    let mut cameras = Vec::new();
    for (id, (file, frames)) in clips.iter().cycle().take(args.count).enumerate() {
        let uri = server.add_camera(&id.to_string(), &Camera::File(file.clone()))?;
        cameras.push(serde_json::json!({"uri": uri, "clip": file, "frames": frames}));
    }
    println!("{}", serde_json::json!({"port": server.port(), "fps": args.fps, "cameras": cameras}));

    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    drop(server);
    match logger {
        Some(logger) => logger.join().map_err(|_| anyhow::anyhow!("the log's thread panicked"))?,
        None => Ok(()),
    }
}

type Line = (String, u64, u128);

/// Lines are written by a thread of their own, so that a slow disk never delays a frame.
#[allow(clippy::type_complexity, reason = "used once")]
fn start_log(
    file: Option<&Path>,
) -> anyhow::Result<(Option<mpsc::Sender<Line>>, Option<thread::JoinHandle<anyhow::Result<()>>>)> {
    let Some(file) = file else { return Ok((None, None)) };
    let mut out = fs::File::create(file).with_context(|| format!("{}: cannot be written", file.display()))?;
    let (sender, lines) = mpsc::channel::<Line>();
    let thread = thread::spawn(move || {
        for (path, number, time) in lines {
            writeln!(out, "{path} {number} {time}")?;
        }
        Ok(())
    });
    Ok((Some(sender), Some(thread)))
}

/// The encoded clip of a video and its number of frames; encodes it where the cache does not have it.
fn clip(args: &Args, video: Option<&Path>) -> anyhow::Result<(PathBuf, u64)> {
    let Args { seconds, width, height, fps, bitrate, gop, cache, .. } = args;
    let origin = match video {
        None => String::new(),
        Some(video) => {
            let facts =
                fs::metadata(video).with_context(|| format!("{}: cannot be read", video.display()))?;
            format!("{} {}", video.display(), facts.len())
        }
    };
    let settings = format!("1 {origin} {seconds} {width}x{height}@{fps} {bitrate} {gop}");
    let digest = Sha256::digest(settings);
    let name = digest.iter().take(8).fold(0u64, |name, byte| name << 8 | u64::from(*byte));
    let name = format!("{name:016x}");
    let (file, count) = (cache.join(format!("{name}.mp4")), cache.join(format!("{name}.frames")));
    if file.is_file()
        && let Ok(text) = fs::read_to_string(&count)
        && let Ok(frames) = text.trim().parse()
    {
        return Ok((file, frames));
    }
    eprintln!("encoding {} …", video.map_or_else(|| "a test picture".into(), |v| v.display().to_string()));
    let part = cache.join(format!("{name}.part"));
    let frames = encode(args, video, &part)?;
    if frames == 0 {
        bail!("{origin}: no frames in it");
    }
    fs::rename(&part, &file)?;
    fs::write(&count, frames.to_string())?;
    Ok((file, frames))
}

fn encode(args: &Args, video: Option<&Path>, to: &Path) -> anyhow::Result<u64> {
    let Args { seconds, width, height, fps, bitrate, gop, .. } = args;
    let source = match video {
        Some(_) => "filesrc name=source ! decodebin",
        None => "videotestsrc pattern=ball animation-mode=frames",
    };
    let count = seconds * fps;
    let pipeline = gst::parse::launch(&format!(
        "{source} ! videoconvert ! videoscale ! videorate \
         ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1,pixel-aspect-ratio=1/1 \
         ! identity name=number eos-after={count} \
         ! x264enc bitrate={bitrate} key-int-max={gop} bframes=0 speed-preset=veryfast sliced-threads=false \
           option-string=scenecut=0 \
         ! video/x-h264,profile=main ! h264parse ! mp4mux ! filesink name=sink"
    ))
    .context("a benchmark camera needs x264enc (gstreamer1.0-plugins-ugly)")?
    .downcast::<gst::Pipeline>()
    .map_err(|_| anyhow::anyhow!("no pipeline"))?;
    let element = |name: &str| pipeline.by_name(name).with_context(|| format!("no element {name}"));
    if let Some(video) = video {
        element("source")?.set_property("location", video);
    }
    element("sink")?.set_property("location", to);
    let pad = element("number")?.static_pad("src").context("no pad")?;
    let painted = Arc::new(AtomicU64::new(0));
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let painted = painted.clone();
        move |pad, info| {
            let number = painted.load(Ordering::Relaxed);
            if let (Some(buffer), Some(caps)) = (info.buffer_mut(), pad.current_caps())
                && paint(buffer.make_mut(), &caps, number).is_some()
            {
                painted.store(number + 1, Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        }
    });
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().context("no bus")?;
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(300),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null)?;
    match end.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(painted.load(Ordering::Relaxed)),
        Some(gst::MessageView::Error(error)) => bail!("encoding failed: {}", error.error()),
        _ => bail!("encoding took more than five minutes"),
    }
}

/// Paints the frame's number: a white square, a black one, then its bits from the highest, white for 1.
fn paint(buffer: &mut gst::BufferRef, caps: &gst::Caps, number: u64) -> Option<()> {
    let info = gst_video::VideoInfo::from_caps(caps).ok()?;
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &info).ok()?;
    let stride = frame.plane_stride()[0] as usize;
    let luma = frame.plane_data_mut(0).ok()?;
    for square in 0..BITS + 2 {
        let white = match square {
            0 => true,
            1 => false,
            bit => number >> (BITS + 1 - bit) & 1 == 1,
        };
        for row in luma.chunks_mut(stride).take(SQUARE) {
            row.get_mut(square * SQUARE..(square + 1) * SQUARE)?.fill(if white { 235 } else { 16 });
        }
    }
    Some(())
}
