//! nvroverlay: what it draws looks as it was approved, and stands on the frame that it was made from.
//!
//! The approved pictures are `tests/data/golden/overlay-*.png`; `NVR_GOLDEN=write cargo test -p nvr-tests --test
//! overlay` makes them anew.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gst::prelude::*;
use gst_video::VideoFrameExt;
use gstnvr::meta;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::geometry::Rect;
use nvr_tests::golden;
use nvr_tests::mosquitto::{Access, Mosquitto, TIMEOUT};
use nvr_tests::picture::Picture;

fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// What one frame of the approved pictures shows, in shares of the frame: near the edges, crowded, with all palette
/// colours, a name too long, one from another alphabet.
fn objects(step: f32, width: f32, height: f32) -> Vec<Detection> {
    let object = |class: &str, confidence, (x, y, w, h): (f32, f32, f32, f32), tracker_id| Detection {
        class_name: class.into(),
        class_id: None,
        confidence,
        rect: Rect::new(x * width, y * height, w * width, h * height),
        tracker_id,
    };
    vec![
        object("person", 0.92, (0.10 + step, 0.25, 0.10, 0.40), Some(42)),
        object("car", 0.81, (0.55 - step, 0.45, 0.30, 0.30), Some(7)),
        object("dog", 0.66, (0.62, 0.58, 0.12, 0.14), None),
        object("bicycle", 0.55, (0.0, 0.0, 0.12, 0.16), None),
        object("truck", 0.97, (0.80, 0.0, 0.20, 0.20), Some(123_456)),
        object("bus", 0.48, (0.30, 0.70, 0.14, 0.30), None),
        object("motorcycle", 0.35, (0.93, 0.60, 0.07, 0.40), Some(3)),
        object("велосипед с очень длинным названием", 0.30, (0.40, 0.20, 0.04, 0.06), None),
    ]
}

/// Runs frames of an even gradient through nvroverlay and gives the last one as RGB.
fn picture(format: &str, width: usize, height: usize, properties: &str) -> Picture {
    init();
    let description = format!(
        "appsrc name=in format=time caps=video/x-raw,format=RGB,width={width},height={height},framerate=25/1 \
         ! videoconvert ! video/x-raw,format={format},colorimetry={} ! nvroverlay name=overlay source=meta {properties} \
         ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false",
        if format.starts_with("RGB") || format.starts_with("BGR") { "sRGB" } else { "bt709" }
    );
    let description =
        if format == "GRAY8" { description.replace(",colorimetry=bt709", "") } else { description };
    let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let overlay = pipeline.by_name("overlay").unwrap();
    overlay.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer_mut().unwrap().make_mut();
        let n = buffer.pts().unwrap().mseconds() / 40;
        let capture = CaptureTime { unix_ns: 1_000_000_000_000 + n * 40_000_000, clock: Clock::Ntp };
        let analysis = Analysis {
            model_id: "yolox-nano".into(),
            inference_time_ms: 14.2,
            capture: None,
            frame_id: None,
        };
        let facts = FrameFacts { frame_id: Some(n), capture: Some(capture), analysis: Some(analysis) };
        meta::set_facts(buffer, &facts);
        let found = objects(n as f32 * 0.012, width as f32, height as f32);
        meta::add_detections(buffer, width as u32, height as u32, &found);
        gst::PadProbeReturn::Ok
    });
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let stride = (width * 3).next_multiple_of(4);
    let mut pixels = vec![0; stride * height];
    for (y, row) in pixels.chunks_exact_mut(stride).enumerate() {
        for (x, pixel) in row[..width * 3].chunks_exact_mut(3).enumerate() {
            // From dark to light: what is drawn has to be seen on both.
            let light = (20 + (x * 190 / width + y * 40 / height)) as u8;
            pixel.copy_from_slice(&[light, light, light.saturating_sub(10)]);
        }
    }
    let mut last = None;
    for n in 0..10 {
        let mut buffer = gst::Buffer::from_slice(pixels.clone());
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(n * 40));
        source.push_buffer(buffer).unwrap();
        last = sink.try_pull_sample(gst::ClockTime::from_mseconds(TIMEOUT.as_millis() as u64));
    }
    let sample = last.expect("a frame");
    let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let data = frame.plane_data(0).unwrap();
    let rows = data.chunks(frame.plane_stride()[0] as usize).take(height);
    let rgb = rows.flat_map(|row| &row[..width * 3]).copied().collect();
    pipeline.set_state(gst::State::Null).unwrap();
    Picture { width, height, rgb }
}

#[test]
fn looks_as_approved_at_every_size_and_in_every_format() {
    for (width, height) in [(320, 180), (640, 360), (1280, 720)] {
        let name = format!("overlay-{width}x{height}");
        golden::check(&name, &picture("RGB", width, height, "")).unwrap();
        if std::env::var_os("NVR_GOLDEN").is_some() {
            continue;
        }
        for format in ["NV12", "I420", "YV12", "BGR", "RGBx", "BGRx", "RGBA", "BGRA", "GRAY8"] {
            golden::check(&name, &picture(format, width, height, ""))
                .unwrap_or_else(|error| panic!("{format}: {error:#}"));
        }
    }
}

#[test]
fn colours_survive_every_format() {
    let wanted =
        picture("RGB", 640, 360, "show-labels=false show-confidence=false show-tracks=false box-thickness=4");
    for format in ["NV12", "I420", "YV12", "BGR", "RGBx", "BGRx", "RGBA", "BGRA"] {
        let properties = "show-labels=false show-confidence=false show-tracks=false box-thickness=4";
        let got = picture(format, 640, 360, properties);
        // The middle of the car's left line, of the truck's lower one.
        for (x, y) in [((0.55 - 0.108) * 640.0 + 1.5, 0.6 * 360.0), (0.9 * 640.0, 0.2 * 360.0 - 2.5)] {
            let at = (y as usize * 640 + x as usize) * 3;
            let (a, b) = (&wanted.rgb[at..at + 3], &got.rgb[at..at + 3]);
            let apart = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(apart < 40, "{format} at {x},{y}: {a:?} became {b:?}");
        }
    }
}

/// How long the analysis takes: three frames.
const ANALYSIS: Duration = Duration::from_millis(120);
/// Drawn by nothing else.
const MAGENTA: [u8; 3] = [255, 0, 255];

/// One process looks at a camera and publishes `ANALYSIS` later, another shows the camera with what comes by MQTT.
/// Gives the overlap of the drawn box and the object on that very frame, for frames with one object.
fn overlaps(broker: &Mosquitto, sync: &str, frames: usize) -> Vec<f32> {
    init();
    let url = broker.url();
    let pipeline = gst::parse::launch(&format!(
        "nvrtestsrc seed=3 objects=2 scene=street noise=0 ! video/x-raw,format=RGB,width=640,height=360,framerate=25/1 \
         ! tee name=t \
         t. ! queue name=analysis max-size-buffers=0 max-size-bytes=0 max-size-time=2000000000 \
            ! nvrmqttsink name=publisher broker={url} source-id=3 \
         t. ! queue ! nvroverlay broker={url} source-id=3 sync={sync} max-wait=5000 show-labels=false \
              show-confidence=false show-tracks=false class-colors=person=#ff00ff,car=#ff00ff,dog=#ff00ff \
            ! appsink name=out sync=false"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let publisher = pipeline.by_name("publisher").unwrap();
    publisher.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let capture = meta::facts(info.buffer().unwrap()).capture.unwrap().unix_ns;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // Plays the analysis, which takes its time.
        std::thread::sleep((Duration::from_nanos(capture) + ANALYSIS).saturating_sub(now));
        gst::PadProbeReturn::Ok
    });
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut overlaps, mut drawn) = (Vec::new(), 0);
    let deadline = Instant::now() + 4 * TIMEOUT;
    while overlaps.len() < frames {
        assert!(Instant::now() < deadline, "{sync}: {} of {frames} frames, {drawn} drawn", overlaps.len());
        let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(TIMEOUT.as_secs())).expect("a frame");
        let buffer = sample.buffer().unwrap();
        let map = buffer.map_readable().unwrap();
        let mut bounds: Option<(usize, usize, usize, usize)> = None;
        for (n, pixel) in map.chunks_exact(3).enumerate().filter(|(_, pixel)| *pixel == MAGENTA) {
            let (x, y) = (n % 640, n / 640);
            debug_assert_eq!(pixel.len(), 3);
            let (left, top, right, bottom) = bounds.unwrap_or((x, y, x, y));
            bounds = Some((left.min(x), top.min(y), right.max(x), bottom.max(y)));
        }
        drawn += usize::from(bounds.is_some());
        let truth = meta::read(buffer).detections;
        // Until the first events have come, and where boxes cannot be told apart, nothing can be said.
        if drawn <= 10 || truth.len() != 1 {
            continue;
        }
        overlaps.push(bounds.map_or(0.0, |(left, top, right, bottom)| {
            let found = Rect::from_corners(left as f32, top as f32, right as f32 + 1.0, bottom as f32 + 1.0);
            found.iou(&truth[0].rect)
        }));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    overlaps
}

#[test]
fn with_timestamps_the_box_is_on_the_right_frame() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let mean = |list: &[f32]| list.iter().sum::<f32>() / list.len() as f32;
    let right = mean(&overlaps(&broker, "timestamp", 100));
    let latest = mean(&overlaps(&broker, "latest", 100));
    println!("mean overlap of box and object: timestamp {right:.3}, latest {latest:.3}");
    assert!(right > 0.85, "timestamp: {right}");
    assert!(latest < right - 0.05, "latest {latest} is to be worse than timestamp {right}");
}
