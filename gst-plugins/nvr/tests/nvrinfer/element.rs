//! One element: what it attaches, what it leaves alone, and every property that is live.

use gst::prelude::*;
use gst_video::VideoFormat;
use gstnvr::meta;

use crate::util::*;

#[test]
fn properties_are_complete_and_their_flags_are_promises() {
    init();
    let element = gst::ElementFactory::make("nvrinfer").build().unwrap();
    let live = [
        "model",
        "threshold",
        "iou-threshold",
        "max-detections",
        "classes",
        "inference-interval",
        "max-fps",
        "mode",
        "gate",
        "gate-interval",
        "enabled",
    ];
    let fixed = [
        "model-type",
        "labels-file",
        "device",
        "threads",
        "model-instance-id",
        "batch-size",
        "batch-timeout",
        "runtime-library",
    ];
    for (names, flag) in
        [(&live[..], gst::PARAM_FLAG_MUTABLE_PLAYING), (&fixed[..], gst::PARAM_FLAG_MUTABLE_READY)]
    {
        for name in names {
            let spec = element.find_property(name).unwrap_or_else(|| panic!("{name}"));
            assert!(spec.flags().contains(flag), "{name}");
            assert!(!spec.blurb().unwrap_or_default().is_empty(), "{name}");
        }
    }
    assert!(element.find_property("stats").is_some());
    assert_eq!(element.property::<f32>("threshold"), 0.5);
    assert_eq!(element.property::<f32>("iou-threshold"), 0.45);
    assert!(element.property::<Option<gst::Structure>>("stats").is_none(), "not started");
}

#[test]
fn a_model_that_is_not_set_is_a_clear_error() {
    init();
    let element = gst::ElementFactory::make("nvrinfer").build().unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Paused).is_err());
    element.set_state(gst::State::Null).unwrap();
    assert!(error_on(&bus).contains("property model"));
}

#[test]
fn a_frame_carries_its_own_result() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    let loaded = camera.message("nvr-model-loaded");
    assert_eq!(loaded.get::<&str>("model-id"), Ok("grey_a"));
    assert_eq!(loaded.get::<&str>("type"), Ok("yolov10"));
    assert_eq!(loaded.get::<u32>("width"), Ok(32));
    assert_eq!(loaded.get::<&str>("device"), Ok("cpu"));
    assert_eq!(loaded.get::<gst::ArrayRef<'_>>("classes").unwrap().len(), 11);
    assert!(!loaded.get::<gst::ArrayRef<'_>>("conclusions").unwrap().is_empty());

    for class in [0, 3, 10, 7, 1, 1, 2] {
        let frame = camera.frames;
        let buffer = camera.push(value_of(class));
        let read = meta::read(&buffer);
        let analysis = read.facts.analysis.expect("analysed");
        assert_eq!(analysis.model_id.as_ref(), "grey_a");
        assert!(analysis.inference_time_ms > 0.0);
        assert_eq!((analysis.capture, analysis.frame_id), (None, None), "its own result");
        assert_eq!(read.facts.frame_id, Some(frame), "counted here, as nobody upstream did");
        assert!(read.facts.capture.is_some(), "the arrival, as nobody upstream knew better");
        let [detection] = &read.detections[..] else { panic!("{:?}", read.detections) };
        assert_eq!(
            (detection.class_name.as_ref(), detection.class_id),
            (format!("a{class}").as_str(), Some(class as u32))
        );
        assert!((detection.confidence - 0.9).abs() < 1e-5);
        // 8 to 24 of 32 pixels is 16 to 48 of 64.
        let rect = detection.rect;
        for (got, expected) in [(rect.x, 16.0), (rect.y, 16.0), (rect.width, 32.0), (rect.height, 32.0)] {
            assert!((got - expected).abs() < 0.01, "{rect:?}");
        }
    }
    assert_eq!((camera.stat("frames"), camera.stat("analysed"), camera.stat("detections")), (7, 7, 7));
    assert_eq!(camera.stat("errors"), 0);
}

#[test]
fn upstream_facts_are_kept() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    let capture = nvr_core::detection::CaptureTime { unix_ns: 1234, clock: nvr_core::detection::Clock::Ntp };
    let mut buffer = camera.frame(value_of(4));
    let facts =
        nvr_core::detection::FrameFacts { frame_id: Some(77), capture: Some(capture), analysis: None };
    meta::set_facts(buffer.make_mut(), &facts);
    let buffer = camera.harness.push_and_pull(buffer).unwrap();
    let read = meta::facts(&buffer);
    assert_eq!((read.frame_id, read.capture), (Some(77), Some(capture)));
    assert!(read.analysis.is_some());
}

#[test]
fn every_format_size_and_stride_is_read_where_it_lies() {
    if !runtime() {
        return;
    }
    // Stretched, so that the padding of a letterbox does not count into the brightness.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("grey_a.onnx");
    std::fs::copy(model("grey_a"), &path).unwrap();
    std::fs::write(dir.path().join("grey_a.toml"), "fit = \"stretch\"\n").unwrap();

    let template = Camera::element("grey_a", &[]).pad_template("sink").unwrap();
    let offered = template.caps().structure(0).unwrap().get::<gst::List>("format").unwrap();
    assert!(offered.len() >= 10, "{offered:?}");
    for format in offered.iter().map(|name| name.get::<&str>().unwrap().parse::<VideoFormat>().unwrap()) {
        for (width, height) in [(64, 64), (33, 47), (1, 1), (127, 3)] {
            let element = Camera::element("grey_a", &[("model", path.to_str().unwrap())]);
            let mut camera = Camera::around(element, info(format, width, height));
            for (class, padding) in [(2, 0), (7, 24), (4, 1)] {
                let mut buffer = if padding == 0 {
                    grey(&camera.info, value_of(class))
                } else {
                    padded_grey(&camera.info, value_of(class), padding)
                };
                camera.stamp(&mut buffer);
                let out = camera.harness.push_and_pull(buffer).unwrap();
                let class = format!("a{class}");
                assert_eq!(
                    seen(&out).and_then(|seen| seen.class),
                    Some(class),
                    "{format} {width}x{height} +{padding}"
                );
            }
        }
    }
}

#[test]
fn pixels_are_never_copied() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    for held in [false, true] {
        let buffer = camera.frame(value_of(5));
        let memory = buffer.peek_memory(0).as_ptr();
        // A decoder that keeps its reference frames holds on to the buffer, which is then not writable.
        let keep = held.then(|| buffer.clone());
        let out = camera.harness.push_and_pull(buffer).unwrap();
        assert_eq!(out.peek_memory(0).as_ptr(), memory, "held: {held}");
        assert!(seen(&out).is_some());
        assert!(keep.is_none_or(|keep| seen(&keep).is_none()), "the other owner's buffer is left alone");
    }
}

#[test]
fn the_allocation_query_is_downstreams() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    let caps = camera.info.to_caps().unwrap();
    let ask = |camera: &Camera| {
        let mut query = gst::query::Allocation::new(Some(&caps), true);
        let pad = camera.element.static_pad("sink").unwrap();
        pad.query(&mut query) && query.find_allocation_meta::<gst_video::VideoMeta>().is_some()
    };
    assert!(!ask(&camera), "downstream does not know padded frames");
    camera.harness.add_propose_allocation_meta(gst_video::VideoMeta::meta_api(), None);
    assert!(ask(&camera));
}

#[test]
fn live_properties_act_on_the_next_frame() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    let a3 = Some("a3".to_owned());
    let set = |camera: &Camera, name: &str, value: &str| camera.element.set_property_from_str(name, value);
    let grey = value_of(3);
    assert_eq!(camera.class(grey), a3);

    set(&camera, "threshold", "0.95");
    assert_eq!(camera.look(grey).map(|seen| seen.class), Some(None), "looked at, nothing seen");
    set(&camera, "threshold", "0.85");
    assert_eq!(camera.class(grey), a3);

    set(&camera, "classes", "a2, A3");
    assert_eq!(camera.class(grey), a3);
    assert_eq!(camera.look(value_of(4)).map(|seen| seen.class), Some(None));
    set(&camera, "classes", "zebra,a4");
    assert_eq!(camera.look(grey).map(|seen| seen.class), Some(None));
    assert_eq!(camera.class(value_of(4)), Some("a4".into()));
    set(&camera, "iou-threshold", "0.5");
    assert_eq!(camera.class(value_of(4)), Some("a4".into()));
    let warnings = camera.warnings();
    assert!(
        matches!(&warnings[..], [one] if one.contains("no class zebra") && one.contains("a10")),
        "{warnings:?}"
    );
    set(&camera, "classes", "");
    assert_eq!(camera.class(grey), a3);

    set(&camera, "enabled", "false");
    assert_eq!(camera.look(grey), None);
    assert_eq!(camera.stat("skipped-disabled"), 1);
    set(&camera, "enabled", "true");
    assert_eq!(camera.class(grey), a3);

    set(&camera, "inference-interval", "3");
    let looked: Vec<_> = (0..6).map(|_| camera.look(grey).is_some()).collect();
    assert_eq!(looked, [false, false, true, false, false, true]);
    assert_eq!(camera.stat("skipped-interval"), 4);
    set(&camera, "inference-interval", "1");

    set(&camera, "max-fps", "5");
    let looked = (0..25).filter(|_| camera.look(grey).is_some()).count();
    assert!((4..=6).contains(&looked), "{looked} in a second");
    assert_eq!(camera.stat("skipped-rate"), 25 - looked as u64);
    set(&camera, "max-fps", "0");
    assert_eq!(camera.class(grey), a3);

    set(&camera, "mode", "async");
    let before = camera.frames;
    let seen = camera.feed_until_seen(|_| grey);
    assert!(seen.frame_id >= before && seen.class == a3, "{seen:?}");
    set(&camera, "mode", "sync");
    let frame = camera.frames;
    let seen = camera.look(value_of(6)).unwrap();
    assert_eq!((seen.frame_id, seen.class.as_deref()), (frame, Some("a6")), "its own result again");
}

#[test]
fn max_detections_is_live() {
    if !runtime() {
        return;
    }
    let camera = Camera::new("grey_a", &[("max-detections", "1")]);
    camera.element.set_property("max-detections", 7u32);
    assert_eq!(camera.element.property::<u32>("max-detections"), 7);
}

#[test]
fn still_frames_are_passed_over_with_gate_motion() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[("gate", "motion")]);
    let mut push = |motion: Option<bool>| {
        let mut buffer = camera.frame(value_of(1));
        if let Some(motion) = motion {
            meta::mark_motion(buffer.make_mut(), motion);
        }
        seen(&camera.harness.push_and_pull(buffer).unwrap()).is_some()
    };
    let looked: Vec<_> =
        [Some(false), Some(true), Some(false), None, None].into_iter().map(&mut push).collect();
    assert_eq!(looked, [false, true, false, true, true], "a frame nobody marked is analysed");
    assert_eq!(camera.stat("skipped-still"), 2);
    let warnings = camera.warnings();
    assert!(matches!(&warnings[..], [one] if one.contains("nvrmotion")), "{warnings:?}");
    camera.element.set_property_from_str("gate", "none");
    let mut buffer = camera.frame(value_of(1));
    meta::mark_motion(buffer.make_mut(), false);
    assert!(seen(&camera.harness.push_and_pull(buffer).unwrap()).is_some());
}

#[test]
fn a_detector_that_is_off_does_not_let_its_frames_pass_for_still_ones() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[("gate", "motion")]);
    for (enabled, moved, expected) in [
        (true, false, meta::Unseen::Still),
        (false, false, meta::Unseen::Nothing),
        (false, true, meta::Unseen::Missed),
        (true, false, meta::Unseen::Still),
    ] {
        camera.element.set_property("enabled", enabled);
        let mut buffer = camera.frame(value_of(1));
        meta::mark_motion(buffer.make_mut(), moved);
        let buffer = camera.harness.push_and_pull(buffer).unwrap();
        assert_eq!(meta::unseen(&buffer), expected, "enabled: {enabled}, moved: {moved}");
    }
}

#[test]
fn a_scene_that_stays_still_is_looked_at_every_gate_interval() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[("gate", "motion")]);
    let mut look = |from: u64, interval: f64| {
        camera.element.set_property("gate-interval", interval);
        let looked = (from..from + 10).filter(|second| {
            let mut buffer = camera.frame(value_of(1));
            let frame = buffer.make_mut();
            frame.set_pts(gst::ClockTime::from_seconds(*second));
            meta::mark_motion(frame, false);
            seen(&camera.harness.push_and_pull(buffer).unwrap()).is_some()
        });
        looked.map(|second| second - from).collect::<Vec<_>>()
    };
    assert_eq!(look(0, 3.0), [3, 6, 9]);
    assert_eq!(look(10, 0.0), [0u64; 0], "never");
    assert_eq!(look(20, 5.0), [0, 5], "long overdue");
}

#[test]
fn a_busy_engine_costs_old_frames_and_never_waits() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_slow", &[("mode", "async"), ("threads", "1")]);
    let pushed = 200;
    let begun = std::time::Instant::now();
    let mut results: Vec<_> = (0..pushed).filter_map(|i| camera.look(value_of(i % 11))).collect();
    let passing = begun.elapsed();
    let p50 = camera.element.property::<gst::Structure>("stats").get::<f64>("inference-p50-ms").unwrap();
    if p50 > 0.0 {
        assert!(
            passing.as_secs_f64() * 1e3 < p50 * pushed as f64 / 2.0,
            "frames waited: {passing:?}, {p50} ms each"
        );
    }
    results.push(camera.feed_until_seen(|_| 0));
    for seen in &results {
        if seen.frame_id < pushed as u64 {
            assert_eq!(seen.class, Some(format!("s{}", seen.frame_id % 11)), "{seen:?}");
        }
    }
    assert!(results.windows(2).all(|pair| pair[0].frame_id < pair[1].frame_id), "in order, each once");
    assert!(camera.stat("skipped-busy") > 0);
    assert!(camera.stat("skipped-busy") + camera.stat("analysed") <= camera.stat("frames"));
}

#[test]
fn a_result_from_before_a_pause_or_an_outage_goes_with_no_frame_after_it() {
    if !runtime() {
        return;
    }
    let shared = [("threads", "1"), ("model-instance-id", "resume")];
    let mut other = Camera::new("grey_a", &shared);
    for outage in [false, true] {
        let mut camera = Camera::new("grey_a", &[&shared[..], &[("mode", "async")]].concat());
        assert_eq!(camera.look(0), None);
        // One worker: whoever asked later has been served later, so the result is there.
        other.look(0).unwrap();
        // What comes out from here on is of the first frame.
        camera.element.set_property("inference-interval", 1000u32);
        let mut frame = if outage {
            camera.frames += 200;
            let mut frame = camera.frame(0);
            frame.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
            frame
        } else {
            camera.element.set_property("enabled", false);
            assert_eq!(camera.look(0), None);
            camera.element.set_property("enabled", true);
            camera.frame(0)
        };
        frame = camera.harness.push_and_pull(frame).unwrap();
        assert_eq!(seen(&frame), None, "outage: {outage}");
        assert_eq!(camera.look(0), None, "outage: {outage}");
    }
    // With neither it goes with the next frame.
    let mut camera = Camera::new("grey_a", &[&shared[..], &[("mode", "async")]].concat());
    camera.look(0);
    other.look(0).unwrap();
    assert!(camera.look(0).is_some());
}

#[test]
fn numbers_that_are_none_are_counted_warned_of_once_and_recovered_from() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_moody", &[]);
    assert_eq!(camera.class(value_of(2)), Some("m2".into()));
    for _ in 0..5 {
        assert_eq!(camera.look(255), None, "passes without analysis");
    }
    assert_eq!(camera.class(value_of(2)), Some("m2".into()));
    assert_eq!((camera.stat("errors"), camera.stat("analysed"), camera.stat("frames")), (5, 2, 7));
    let warnings = camera.warnings();
    assert!(matches!(&warnings[..], [one] if one.contains("NaN")), "{warnings:?}");
}

#[test]
fn start_stop_start() {
    if !runtime() {
        return;
    }
    let element = Camera::element("grey_a", &[]);
    for _ in 0..3 {
        let mut camera = Camera::around(element.clone(), info(VideoFormat::Gray8, 64, 64));
        assert_eq!(camera.class(value_of(8)), Some("a8".into()));
        assert_eq!(camera.stat("frames"), 1, "counters begin with the start");
        drop(camera);
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_new_size_is_read_as_such_and_old_results_are_dropped() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    assert_eq!(camera.class(value_of(8)), Some("a8".into()));
    camera.info = info(VideoFormat::Rgb, 128, 128);
    camera.harness.set_src_caps(camera.info.to_caps().unwrap());
    let buffer = camera.push(value_of(9));
    let read = meta::read(&buffer);
    assert_eq!(read.detections[0].class_name.as_ref(), "a9");
    assert!((read.detections[0].rect.x - 32.0).abs() < 0.01, "{:?}", read.detections[0].rect);

    // A result that is on its way while the size changes belongs to no later frame.
    camera.element.set_property_from_str("mode", "async");
    let old = camera.frames;
    camera.look(value_of(1));
    camera.info = info(VideoFormat::Gray8, 64, 64);
    camera.harness.set_src_caps(camera.info.to_caps().unwrap());
    let seen = camera.feed_until_seen(|_| value_of(2));
    assert!(seen.frame_id > old && seen.class.as_deref() == Some("a2"), "{seen:?}");
}

#[test]
fn a_flush_lets_a_waiting_frame_go() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_slow", &[("threads", "1")]);
    let pad = camera.element.static_pad("sink").unwrap();
    for _ in 0..5 {
        let frame = camera.frame(value_of(1));
        let flow = std::thread::scope(|scope| {
            let pushed = scope.spawn(|| camera.harness.push(frame));
            assert!(pad.send_event(gst::event::FlushStart::new()));
            pushed.join().unwrap()
        });
        assert!(matches!(flow, Ok(_) | Err(gst::FlowError::Flushing)), "{flow:?}");
        assert!(pad.send_event(gst::event::FlushStop::new(true)));
        camera.harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        while camera.harness.try_pull().is_some() {}
        assert_eq!(camera.class(value_of(6)), Some("s6".into()));
    }
}

#[test]
fn stopping_lets_a_waiting_frame_go() {
    if !runtime() {
        return;
    }
    for _ in 0..3 {
        let mut camera = Camera::new("grey_slow", &[("threads", "1")]);
        let frame = camera.frame(value_of(1));
        let element = camera.element.clone();
        let flow = std::thread::scope(|scope| {
            let pushed = scope.spawn(|| camera.harness.push(frame));
            element.set_state(gst::State::Null).unwrap();
            pushed.join().unwrap()
        });
        assert!(matches!(flow, Ok(_) | Err(gst::FlowError::Flushing)), "{flow:?}");
    }
}

#[test]
fn latency_is_measured_and_answered() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_slow", &[("threads", "1")]);
    camera.harness.set_upstream_latency(gst::ClockTime::from_mseconds(100));
    camera.harness.set_live(true);
    for i in 0..64 {
        camera.look(value_of(i % 11));
    }
    assert!(camera.bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Latency]).is_some());
    let latency = camera.harness.query_latency().unwrap();
    let p50 = camera.element.property::<gst::Structure>("stats").get::<f64>("inference-p50-ms").unwrap();
    assert!(latency.useconds() as f64 > 100_000.0 + p50 * 900.0, "{latency} with {p50} ms");

    camera.element.set_property_from_str("mode", "async");
    camera.look(0);
    assert_eq!(camera.harness.query_latency(), Some(gst::ClockTime::from_mseconds(100)));
}

#[test]
fn quality_of_service_events_pass_upstream() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[]);
    camera.look(0);
    while camera.harness.try_pull_upstream_event().is_some() {}
    let event =
        gst::event::Qos::new(gst::QOSType::Underflow, 2.0, 40_000_000, gst::ClockTime::from_mseconds(40));
    camera.harness.push_upstream_event(event);
    let passed = std::iter::from_fn(|| camera.harness.try_pull_upstream_event())
        .any(|e| e.type_() == gst::EventType::Qos);
    assert!(passed);
    assert_eq!(camera.class(value_of(3)), Some("a3".into()), "and no frame is dropped for it");
}

/// A decoder's own frames have padded rows; they must reach the model as they are.
#[test]
fn a_decoders_padded_frames_are_read_without_a_copy() {
    if !runtime() {
        return;
    }
    let missing: Vec<_> = ["x264enc", "avdec_h264"]
        .into_iter()
        .filter(|name| gst::ElementFactory::find(name).is_none())
        .collect();
    if !missing.is_empty() {
        println!("SKIPPED: no {}", missing.join(", "));
        return;
    }
    // The picture is black, so that padding that is read for picture would show.
    let pipeline = gst::parse::launch(
        "videotestsrc pattern=black num-buffers=20 ! video/x-raw,format=I420,width=320,height=240 \
         ! x264enc speed-preset=ultrafast ! avdec_h264 ! nvrinfer name=infer ! fakesink name=sink",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let infer = pipeline.by_name("infer").unwrap();
    infer.set_property("model", model("grey_a"));
    let padded = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sink = pipeline.by_name("sink").unwrap();
    // Downstream of the element stands one that reads padded frames.
    sink.static_pad("sink").unwrap().add_probe(
        gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH,
        |_, info| {
            if let Some(query) = info.query_mut()
                && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
            {
                allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        },
    );
    let count = padded.clone();
    infer.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer().unwrap();
        if buffer.meta::<gst_video::VideoMeta>().is_some() && buffer.size() > 320 * 240 * 3 / 2 {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Eos, gst::MessageType::Error]).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    let stats = infer.property::<gst::Structure>("stats");
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!((stats.get::<u64>("analysed"), stats.get::<u64>("errors")), (Ok(20), Ok(0)));
    assert!(
        padded.load(std::sync::atomic::Ordering::Relaxed) > 0,
        "the decoder was not allowed its own strides"
    );
}
