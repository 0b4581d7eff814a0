//! Pictures counted from the camera to what is played back: none is missing and none is there twice where one segment
//! ends and the next begins. Every picture carries its number in a SEI message, which travels with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use gst::prelude::*;
use gstnvr::meta;
use gstnvr::nvrrecordsink::catalog::{FILE, Store};
use nvr_core::detection::{CaptureTime, Clock, FrameFacts};
use nvr_core::segment::mp4::Medium;
use nvr_launch::rtsp_server::{Camera, Options, RtspServer, SendHook};
use nvr_tests::recordings::{contents, ffprobe, folder_in_memory, played, segments};

const TIMEOUT: Duration = Duration::from_mins(2);
const FPS: u64 = 25;
const FRAME_NS: u64 = 1_000_000_000 / FPS;
/// Marks the SEI message of ours; the number follows in ten digits.
const MARK: &[u8; 16] = b"nvr-frame-number";
/// 2026-11-20 23:30:00 UTC: the hour goes over midnight.
const BEGIN_US: i64 = 1_795_217_400_000_000;

fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// A short encoded stream that can be repeated: it begins with a keyframe and refers to nothing outside.
struct Clip {
    caps: gst::Caps,
    units: Vec<gst::Buffer>,
    /// Presentation time of the first picture as it came from the encoder.
    origin_ns: u64,
}

impl Clip {
    fn encode(pictures: u64, reordered: u32) -> Self {
        init();
        let pipeline = gst::parse::launch(&format!(
            "videotestsrc num-buffers={pictures} pattern=ball ! video/x-raw,width=64,height=48,framerate={FPS}/1 \
             ! x264enc key-int-max={pictures} bframes={reordered} b-adapt=false bitrate=100 speed-preset=ultrafast \
             ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! appsink name=end sync=false"
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let sink = pipeline.by_name("end").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let (mut caps, mut units) = (None, Vec::new());
        while let Ok(sample) = sink.pull_sample() {
            caps = sample.caps_owned();
            units.push(sample.buffer_owned().unwrap());
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(units.len() as u64, pictures);
        let origin = units.iter().filter_map(|unit| unit.pts()).min().unwrap();
        Self { caps: caps.unwrap(), units, origin_ns: origin.nseconds() }
    }

    /// The unit that is sent as number `n`, with when it is shown, in nanoseconds after the first picture.
    fn unit(&self, n: u64) -> (gst::Buffer, u64) {
        // Decoding times begin before the first picture is shown.
        const LEAD_NS: u64 = 10_000_000_000;
        let length = self.units.len() as u64;
        let unit = &self.units[(n % length) as usize];
        let round_ns = n / length * length * FRAME_NS;
        let moved = |time: gst::ClockTime| time.nseconds() + LEAD_NS + round_ns - self.origin_ns;
        let (pts, dts) = (moved(unit.pts().unwrap()), moved(unit.dts().unwrap()));
        let map = unit.map_readable().unwrap();
        let mut buffer = gst::Buffer::from_mut_slice(numbered(&map, n));
        let new = buffer.make_mut();
        new.set_pts(gst::ClockTime::from_nseconds(pts));
        new.set_dts(gst::ClockTime::from_nseconds(dts));
        new.set_duration(gst::ClockTime::from_nseconds(FRAME_NS));
        new.set_flags(unit.flags() & gst::BufferFlags::DELTA_UNIT);
        (buffer, pts - LEAD_NS)
    }
}

/// An access unit with its number in it, after the delimiter where there is one.
fn numbered(unit: &[u8], n: u64) -> Vec<u8> {
    let mut message = vec![0x06, 5, 26];
    message.extend(MARK);
    message.extend(format!("{n:010}").as_bytes());
    message.push(0x80);
    let first = u32::from_be_bytes(*unit.first_chunk().unwrap()) as usize + 4;
    let at = if unit[4] & 0x1f == 9 { first } else { 0 };
    let mut out = unit[..at].to_vec();
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out.extend(&unit[at..]);
    out
}

/// The number that a recorded picture carries.
fn number(sample: &[u8]) -> u64 {
    let at = sample.windows(MARK.len()).position(|window| window == MARK).expect("a picture of the camera");
    let digits = &sample[at + MARK.len()..at + MARK.len() + 10];
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

/// Every picture of a file as it was written: its number, and when it is shown, in microseconds after the file's
/// first.
fn pictures(path: &Path) -> Vec<(u64, i64)> {
    let found = contents(path).unwrap();
    let bytes = fs::read(path).unwrap();
    let video = found.tracks.iter().find(|track| track.medium == Medium::Video).unwrap();
    let shown = |sample: &nvr_core::segment::read::Placed| sample.time as i64 + i64::from(sample.offset);
    let samples: Vec<_> = found.samples.iter().filter(|sample| sample.track == video.id).collect();
    let first = samples.iter().map(|sample| shown(sample)).min().unwrap();
    let scale = i64::from(video.timescale);
    let picture = |sample: &&nvr_core::segment::read::Placed| {
        let bytes = &bytes[sample.at as usize..][..sample.size as usize];
        (number(bytes), (shown(sample) - first) * 1_000_000 / scale)
    };
    samples.iter().map(picture).collect()
}

/// Gives `count` pictures to a recorder, as fast as it writes them.
fn record(clip: &Clip, count: u64, root: &Path, segment_duration: u32) {
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=camera format=time ! nvrrecordsink name=rec sync=false location={} \
         segment-duration={segment_duration}",
        root.display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let camera = pipeline.by_name("camera").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    camera.set_caps(Some(&clip.caps));
    camera.set_property("block", true);
    let sink = pipeline.by_name("rec").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    for n in 0..count {
        // The recorder never makes a camera wait: what its disk cannot keep up with is lost, and no matter here.
        while n % 500 == 0 && {
            let stats = sink.property::<gst::Structure>("stats");
            let get = |name: &str| stats.get::<u64>(name).unwrap();
            n.saturating_sub(get("written")) > 5000
        } {
            assert!(Instant::now() < deadline, "{:?}", sink.property::<gst::Structure>("stats"));
            thread::sleep(Duration::from_millis(1));
        }
        let (mut buffer, shown_ns) = clip.unit(n);
        let taken = BEGIN_US as u64 * 1000 + shown_ns;
        let capture = Some(CaptureTime { unix_ns: taken, clock: Clock::Ntp });
        meta::set_facts(buffer.make_mut(), &FrameFacts { capture, ..FrameFacts::default() });
        camera.push_buffer(buffer).unwrap();
    }
    camera.end_of_stream().unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(TIMEOUT.as_secs()),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert!(matches!(end.as_ref().map(|m| m.view()), Some(gst::MessageView::Eos(_))), "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

/// An hour of a camera, over midnight: every picture is there once, in its place, and says when it was taken.
fn an_hour(reordered: u32) {
    const PICTURES: u64 = 3600 * FPS;
    let folder = folder_in_memory().unwrap();
    let clip = Clip::encode(50, reordered);
    record(&clip, PICTURES, folder.path(), 10);
    let store = Store::existing(&folder.path().join(FILE)).unwrap();
    let rows = store.recordings(0, i64::MIN, i64::MAX).unwrap();
    assert_eq!(rows.len(), 360);
    let mut next = 0;
    for row in &rows {
        for (n, at_us) in pictures(&row.file()) {
            assert_eq!(n, next, "{}", row.file().display());
            let (_, shown_ns) = clip.unit(n);
            let taken = BEGIN_US + (shown_ns / 1000) as i64;
            let said = row.start_us + at_us;
            assert!(taken.abs_diff(said) <= 100, "{n}: taken at {taken}, said to be at {said}");
            next += 1;
        }
    }
    assert_eq!(next, PICTURES);
    let spans = store.timeline(0, 0, i64::MAX, 1).unwrap();
    assert_eq!((spans.len(), spans[0].segments), (1, 360), "there are pauses: {spans:?}");
    let lasts = spans[0].end_us - spans[0].start_us;
    assert!(lasts.abs_diff(3_600_000_000) < 1000, "{lasts}");
    // Played back, as one film.
    let film = folder.path().join("hour.mp4");
    let arguments = ["nvr-launch", "recordings", "export", "--source", "0", "--location"]
        .into_iter()
        .map(std::ffi::OsString::from)
        .chain([folder.path().into()])
        .chain(["--from", "2026-11-20T23:30:00Z", "--to", "2026-11-21T00:30:00Z", "--output"].map(Into::into))
        .chain([film.clone().into()]);
    assert_eq!(nvr_launch::cli::main(arguments), std::process::ExitCode::SUCCESS);
    assert_eq!(played(&film).unwrap(), PICTURES);
    let text = ffprobe(&film, &["-show_entries", "format=duration"]).unwrap();
    let seconds: f64 = text.trim().parse().unwrap();
    assert!((seconds - 3600.0).abs() < 0.01, "{seconds}");
}

#[test]
fn an_hour_of_a_camera_is_whole() {
    an_hour(0);
}

#[test]
fn an_hour_of_a_camera_that_reorders_pictures_is_whole() {
    an_hour(2);
}

/// The same over the network, in real time and for seconds: what the camera sends is in the files, once.
#[test]
fn pictures_of_a_camera_over_rtsp_are_there_once() {
    const PICTURES: u64 = 25;
    let folder = folder_in_memory().unwrap();
    record(&Clip::encode(PICTURES, 0), PICTURES, &folder.path().join("clip"), 60);
    let clip = segments(&folder.path().join("clip")).pop().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let server = RtspServer::with_options(Options {
        on_send: Some(SendHook::new({
            let sent = sent.clone();
            move |_, number| sent.store(number + 1, Ordering::Relaxed)
        })),
        ..Options::default()
    })
    .unwrap();
    let uri = server.add_camera("0", &Camera::File(clip)).unwrap();
    let root = folder.path().join("recordings");
    let pipeline = gst::parse::launch(&format!(
        "nvrsrc name=camera uri={uri} decode=none camera.encoded ! nvrrecordsink name=rec segment-duration=1 \
         location={}",
        root.display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let (bus, sink) = (pipeline.bus().unwrap(), pipeline.by_name("rec").unwrap());
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut finished, deadline) = (0, Instant::now() + TIMEOUT);
    while finished < 8 {
        assert!(Instant::now() < deadline, "{:?}", sink.property::<gst::Structure>("stats"));
        let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(200)) else { continue };
        assert_ne!(message.type_(), gst::MessageType::Error, "{message:?}");
        finished += u32::from(message.structure().is_some_and(|s| s.name() == "nvr-segment"));
    }
    sink.static_pad("video").unwrap().send_event(gst::event::Eos::new());
    let sent = sent.load(Ordering::Relaxed);
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos]);
    assert!(end.is_some());
    pipeline.set_state(gst::State::Null).unwrap();
    drop(server);

    let numbers: Vec<_> =
        segments(&root).iter().flat_map(|file| pictures(file)).map(|(number, _)| number).collect();
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], (pair[0] + 1) % PICTURES, "of {numbers:?}");
    }
    // The first ones of a camera that has just been connected may be the rest of a group of pictures.
    let missing = sent - numbers.len() as u64;
    assert!(missing <= 2 * PICTURES, "{} of {sent}", numbers.len());
}
