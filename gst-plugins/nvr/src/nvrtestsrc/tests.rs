use gst::prelude::*;
use gst_video::prelude::*;
use nvr_core::{
    frame::{Frame, Plane},
    scene::{self, Moment, Scene, SceneConfig, SceneKind},
};

use super::imp::{EPOCH_NS, draw};
use crate::{frames, init, meta};

/// A source that runs as fast as its frames are taken, with `caps` downstream.
fn source(properties: &str, caps: &str) -> gst_check::Harness {
    init();
    let mut harness = gst_check::Harness::new_parse(&format!("nvrtestsrc is-live=false {properties}"));
    if !caps.is_empty() {
        harness.set_sink_caps_str(caps);
    }
    harness.play();
    harness
}

fn element(harness: &mut gst_check::Harness) -> gst::Element {
    harness.find_element("nvrtestsrc").expect("the harness holds the source")
}

fn info(harness: &gst_check::Harness) -> gst_video::VideoInfo {
    let caps = harness.sinkpad().and_then(|pad| pad.current_caps()).expect("caps before the first buffer");
    gst_video::VideoInfo::from_caps(&caps).expect("raw video")
}

fn timecode(info: &gst_video::VideoInfo, buffer: &gst::BufferRef) -> Option<u64> {
    let video = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).expect("mapped");
    let planes = video.planes_data();
    let (matrix, range) = frames::color(info);
    scene::read_timecode(&Frame {
        format: frames::layout(info.format()).expect("known format").0,
        width: info.width() as usize,
        height: info.height() as usize,
        planes: std::array::from_fn(|n| Plane {
            data: planes[n],
            stride: video.plane_stride().get(n).map_or(0, |&s| s as usize),
        }),
        matrix,
        range,
    })
}

#[test]
fn without_wishes_from_downstream_the_properties_decide() {
    let mut harness = source("width=640 height=360 framerate=10/1", "");
    let buffer = harness.pull().expect("a frame");
    let info = info(&harness);
    assert_eq!((info.width(), info.height(), info.fps()), (640, 360, gst::Fraction::new(10, 1)));
    assert_eq!(info.format(), gst_video::VideoFormat::I420);
    assert_eq!(buffer.duration(), Some(gst::ClockTime::from_mseconds(100)));
}

#[test]
fn every_format_carries_truth_and_time() {
    for format in ["I420", "NV12", "RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA", "GRAY8"] {
        // Odd sizes: rows are padded.
        let caps = format!("video/x-raw,format={format},width=643,height=361,framerate=5/1");
        let mut harness = source("scene=street seed=9 objects=5 noise=0 night=true", &caps);
        let mut scene = Scene::new(&SceneConfig {
            width: 643,
            height: 361,
            objects: 5,
            kind: SceneKind::Street,
            seed: 9,
            night: true,
            noise: 0.0,
        });
        for number in 0..3_u64 {
            let buffer = harness.pull().expect("a frame");
            let info = info(&harness);
            let scene_ns = number * 200_000_000;
            assert_eq!(buffer.pts(), Some(gst::ClockTime::from_nseconds(scene_ns)), "{format}");
            let read = meta::read(&buffer);
            let capture = read.facts.capture.expect("a capture time");
            assert_eq!(read.facts.frame_id, Some(number));
            assert_eq!(capture.unix_ns, EPOCH_NS + scene_ns);
            assert_eq!(timecode(&info, &buffer), Some(capture.unix_ns / 1_000_000), "{format}");

            let moment = Moment { scene_ns, unix_ms: Some(capture.unix_ns / 1_000_000) };
            let mut expected_buffer = gst::Buffer::with_size(info.size()).expect("memory");
            let expected = draw(&info, &mut scene, moment, expected_buffer.make_mut()).expect("drawn");
            assert!(expected.len() >= 3, "{expected:?}");
            let key = |d: &nvr_core::detection::Detection| (d.tracker_id, d.class_name.to_string());
            let mut got: Vec<_> = read.detections.iter().map(|d| (key(d), d.rect)).collect();
            let mut wanted: Vec<_> = expected.iter().map(|d| (key(d), d.rect)).collect();
            got.sort_by(|a, b| a.0.cmp(&b.0));
            wanted.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(got, wanted, "{format}");
        }
    }
}

#[test]
fn strides_of_the_buffer_are_honoured() {
    init();
    let caps =
        "video/x-raw,format=NV12,width=320,height=240,framerate=5/1".parse::<gst::Caps>().expect("caps");
    let info = gst_video::VideoInfo::from_caps(&caps).expect("raw video");
    let (stride, luma) = (448_usize, 448 * 240);
    let mut buffer = gst::Buffer::from_mut_slice(vec![0_u8; luma + 448 * 120]);
    let format = gst_video::VideoFormat::Nv12;
    let flags = gst_video::VideoFrameFlags::empty();
    gst_video::VideoMeta::add_full(buffer.make_mut(), flags, format, 320, 240, &[0, luma], &[448, 448])
        .expect("video meta");
    let mut scene = Scene::new(&SceneConfig { width: 320, height: 240, ..SceneConfig::default() });
    let moment = Moment { scene_ns: 0, unix_ms: Some(77) };
    draw(&info, &mut scene, moment, buffer.make_mut()).expect("drawn");
    assert_eq!(timecode(&info, &buffer), Some(77));
    let map = buffer.map_readable().expect("mapped");
    assert!(map.chunks(stride).all(|row| row[320..].iter().all(|&b| b == 0)), "padding was written");
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    let frames = |seed: u64| -> Vec<Vec<u8>> {
        let caps = "video/x-raw,format=I420,width=320,height=180,framerate=25/1";
        let mut harness = source(&format!("seed={seed} noise=3"), caps);
        (0..4).map(|_| harness.pull().expect("a frame").map_readable().expect("mapped").to_vec()).collect()
    };
    assert_eq!(frames(5), frames(5));
    assert_ne!(frames(5), frames(6));
}

#[test]
fn live_properties_take_effect_on_the_next_frame() {
    let mut harness = source("objects=4", "video/x-raw,format=GRAY8,width=320,height=180,framerate=25/1");
    assert!(!meta::read(&harness.pull().expect("a frame")).detections.is_empty());
    let element = element(&mut harness);
    element.set_property("ground-truth", false);
    let bare = (0..200).any(|_| meta::read(&harness.pull().expect("a frame")).detections.is_empty());
    assert!(bare, "ground-truth=false never took effect");
    element.set_property("ground-truth", true);
    let full = (0..200).any(|_| !meta::read(&harness.pull().expect("a frame")).detections.is_empty());
    assert!(full, "ground-truth=true never took effect");
    element.set_property("objects", 0_u32);
    // Frames that were made before are still on their way.
    let empty = (0..200).any(|_| meta::read(&harness.pull().expect("a frame")).detections.is_empty());
    assert!(empty, "objects=0 never took effect");
    let mean = |buffer: gst::Buffer| {
        let map = buffer.map_readable().expect("mapped");
        map.iter().map(|&b| u64::from(b)).sum::<u64>() / map.len() as u64
    };
    let day = mean(harness.pull().expect("a frame"));
    element.set_property("night", true);
    let dark = (0..200).any(|_| mean(harness.pull().expect("a frame")) + 30 < day);
    assert!(dark, "night=true never took effect");
    for (name, value) in [("seed", 3_u64.to_value()), ("noise", 9.0_f64.to_value())] {
        element.set_property_from_value(name, &value);
        harness.pull().expect("a frame");
    }
    element.set_property_from_str("scene", "room");
    harness.pull().expect("a frame");
}

#[test]
fn ends_after_num_buffers_and_starts_again() {
    init();
    let pipeline = gst::parse::launch(
        "nvrtestsrc name=source num-buffers=5 framerate=100/1 width=160 height=90 ! fakesink name=sink sync=true",
    )
    .expect("pipeline")
    .downcast::<gst::Pipeline>()
    .expect("a pipeline");
    let bus = pipeline.bus().expect("bus");
    for round in 0..3 {
        pipeline.set_state(gst::State::Playing).expect("playing");
        let end = bus.timed_pop_filtered(
            gst::ClockTime::from_seconds(30),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        );
        assert_eq!(end.map(|m| m.type_()), Some(gst::MessageType::Eos), "round {round}");
        let stats: gst::Structure = pipeline.by_name("source").expect("source").property("stats");
        assert_eq!(stats.get::<u64>("frames"), Ok(5), "round {round}: {stats}");
        pipeline.set_state(gst::State::Null).expect("stopped");
        let stopped: gst::Structure = pipeline.by_name("source").expect("source").property("stats");
        assert_eq!(stopped.get::<u64>("frames"), Ok(5), "counters stay readable after the stop");
    }
}

#[test]
fn a_live_source_keeps_to_the_clock_and_leaves_out_what_is_late() {
    init();
    let mut harness = gst_check::Harness::new_parse("nvrtestsrc");
    harness.set_sink_caps_str("video/x-raw,format=I420,width=640,height=360,framerate=10/1");
    harness.use_testclock();
    let clock = harness.testclock().expect("test clock");
    harness.play();
    let before = std::time::SystemTime::now();
    harness.crank_single_clock_wait().expect("the source waits for the clock");
    let first = harness.pull().expect("a frame");
    assert_eq!(first.pts(), Some(gst::ClockTime::ZERO));
    let capture = meta::facts(&first).capture.expect("a capture time");
    let now = before.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    assert!(capture.unix_ns.abs_diff(now) < 60_000_000_000, "{capture:?} now {now}");
    assert_eq!(timecode(&info(&harness), &first), Some(capture.unix_ns / 1_000_000));

    // The second frame is drawn and waits for its time.
    harness.wait_for_clock_id_waits(1, 30).expect("the source waits for the clock");
    assert!(harness.try_pull().is_none());
    // By the time that it is let go, three more are overdue.
    clock.set_time(gst::ClockTime::from_mseconds(530));
    harness.crank_single_clock_wait().expect("the source waits for the clock");
    let second = harness.pull().expect("a frame");
    assert_eq!(second.pts(), Some(gst::ClockTime::from_mseconds(100)));
    harness.crank_single_clock_wait().expect("the source waits for the clock");
    let third = harness.pull().expect("a frame");
    assert_eq!(third.pts(), Some(gst::ClockTime::from_mseconds(500)));
    assert_eq!(meta::facts(&third).frame_id, Some(5));
    let stats: gst::Structure = element(&mut harness).property("stats");
    assert_eq!(stats.get::<u64>("skipped"), Ok(3), "{stats}");

    let mut query = gst::query::Latency::new();
    assert!(element(&mut harness).query(&mut query));
    assert_eq!(query.result(), (true, gst::ClockTime::from_mseconds(100), gst::ClockTime::NONE));
}

#[test]
fn numbers_and_time_go_on_when_the_size_changes() {
    let mut harness = source("", "video/x-raw,format=I420,width=320,height=180,framerate=10/1");
    let mut last = harness.pull().expect("a frame");
    harness.set_sink_caps_str("video/x-raw,format=I420,width=160,height=90,framerate=20/1");
    for _ in 0..200 {
        let next = harness.pull().expect("a frame");
        let step = next.pts().expect("a time") - last.pts().expect("a time");
        assert_eq!(Some(step), last.duration());
        assert_eq!(meta::facts(&next).frame_id, meta::facts(&last).frame_id.map(|id| id + 1));
        last = next;
        if last.duration() == Some(gst::ClockTime::from_mseconds(50)) {
            assert_eq!(info(&harness).width(), 160);
            return;
        }
    }
    panic!("the new size never came");
}

#[test]
fn a_camera_that_is_switched_on_late_has_left_nothing_out() {
    init();
    let mut harness = gst_check::Harness::new_parse("nvrtestsrc framerate=25/1 width=64 height=64");
    harness.use_testclock();
    harness.testclock().expect("test clock").set_time(gst::ClockTime::from_seconds(100));
    harness.play();
    harness.crank_single_clock_wait().expect("the source waits for the clock");
    harness.pull().expect("a frame");
    let stats: gst::Structure = element(&mut harness).property("stats");
    assert_eq!(stats.get::<u64>("skipped"), Ok(0));
}

#[test]
fn properties_say_what_they_are() {
    init();
    let element = gst::ElementFactory::make("nvrtestsrc").build().expect("element");
    for name in [
        "width",
        "height",
        "framerate",
        "objects",
        "scene",
        "seed",
        "night",
        "noise",
        "ground-truth",
        "is-live",
        "stats",
    ] {
        let spec = element.find_property(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(spec.blurb().is_some_and(|b| b.len() > 10), "{name}");
        if name != "stats" {
            let default = element.property_value(name);
            element.set_property_from_value(name, &default);
        }
    }
    let factory = element.factory().expect("factory");
    assert_eq!(factory.metadata("klass"), Some("Source/Video"));
    assert!(factory.metadata("long-name").is_some_and(|n| n.starts_with("NVR ")));
}
