use gst::prelude::*;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::event::DetectionEvent;
use nvr_core::geometry::Rect;

use super::*;
use crate::meta;
use crate::mqtt::fake::{FakeBroker, Manner};

fn sink(broker: &str) -> gst::Element {
    gst::init().unwrap();
    glib::Object::builder::<NvrMqttSink>().property("broker", broker).build().upcast()
}

fn harness(sink: &gst::Element) -> gst_check::Harness {
    let mut harness = gst_check::Harness::with_element(sink, Some("sink"), None);
    let caps =
        gst::Caps::builder("video/x-raw").field("format", "NV12").field("width", 640).field("height", 360);
    harness.set_src_caps(caps.field("framerate", gst::Fraction::new(25, 1)).build());
    harness
}

fn frame(frame_id: Option<u64>, detections: usize) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::from_mseconds(40));
        let detection = Detection {
            class_name: "car".into(),
            class_id: None,
            confidence: 0.5,
            rect: Rect::new(600.0, 300.0, 100.0, 100.0),
            tracker_id: None,
        };
        let analysis =
            Analysis { model_id: "m".into(), inference_time_ms: 1.0, capture: None, frame_id: None };
        let capture = CaptureTime { unix_ns: 0, clock: Clock::Ntp };
        if frame_id.is_some() {
            meta::set_facts(
                buffer,
                &FrameFacts { frame_id, capture: Some(capture), analysis: Some(analysis) },
            );
        }
        meta::add_detections(buffer, 640, 360, &vec![detection; detections]);
    }
    buffer
}

fn stat(sink: &gst::Element, name: &str) -> u64 {
    sink.property::<gst::Structure>("stats").get(name).unwrap()
}

#[test]
fn frames_become_events_start_after_start() {
    let broker = FakeBroker::start(Manner::Polite);
    let sink = sink(&broker.url());
    sink.set_property("qos", 1u32);
    for round in 1..=3 {
        let mut harness = harness(&sink);
        harness.play();
        assert_eq!(harness.push(frame(Some(9), 1)), Ok(gst::FlowSuccess::Ok));
        assert_eq!(harness.push(frame(None, 0)), Ok(gst::FlowSuccess::Ok));
        assert_eq!(harness.push(frame(None, 1)), Ok(gst::FlowSuccess::Ok));
        assert!(harness.push_event(gst::event::Eos::new()));
        assert_eq!(stat(&sink, "acknowledged"), 2);
        drop(harness);
        sink.set_state(gst::State::Null).unwrap();
        assert_eq!((stat(&sink, "frames"), stat(&sink, "events")), (3, 2));
        let payloads = broker.payloads(2 * round);
        let last: Vec<_> = payloads[2 * (round - 1)..]
            .iter()
            .map(|text| DetectionEvent::from_json(text.as_bytes()).unwrap())
            .collect();
        assert_eq!((last[0].frame_id, last[0].frame_width, last[0].frame_height), (9, 640, 360));
        assert_eq!(last[0].timestamp, "1970-01-01T00:00:00.000Z");
        let bbox = last[0].detections[0].bbox;
        assert_eq!((bbox.x, bbox.width, bbox.height), (600.0, 40.0, 60.0), "clipped to the frame");
        assert_eq!((last[1].frame_id, last[1].model_id.as_str()), (2, "external"));
    }
}

#[test]
fn any_caps_will_do_and_nothing_is_mapped() {
    let broker = FakeBroker::start(Manner::Polite);
    let sink = sink(&broker.url());
    let mut harness = gst_check::Harness::with_element(&sink, Some("sink"), None);
    harness.set_src_caps_str("application/x-whatever");
    harness.play();
    // No memory at all: mapping it would fail.
    harness.push(frame(Some(1), 1)).unwrap();
    let event = DetectionEvent::from_json(broker.payloads(1)[0].as_bytes()).unwrap();
    assert_eq!((event.frame_width, event.detections[0].bbox.width), (0, 100.0), "size unknown: not clipped");
}

#[test]
fn decoders_may_keep_their_strides() {
    let sink = sink("mqtt://127.0.0.1:1");
    let mut harness = harness(&sink);
    harness.play();
    let caps = harness.sinkpad().unwrap_or_else(|| sink.static_pad("sink").unwrap());
    let mut query = gst::query::Allocation::new(None, false);
    assert!(caps.query(&mut query));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    for (name, value, words) in [
        ("broker", "tcp://user:hunter2@host", "mqtt://"),
        ("topic-prefix", "a/#", "topic-prefix"),
        ("ca-file", "/does/not/exist", "ca-file"),
    ] {
        let sink = sink("mqtts://127.0.0.1:1");
        sink.set_property(name, value);
        let bus = gst::Bus::new();
        sink.set_bus(Some(&bus));
        assert!(sink.set_state(gst::State::Playing).is_err(), "{name}");
        let message = bus.pop_filtered(&[gst::MessageType::Error]).expect("an error message");
        let gst::MessageView::Error(error) = message.view() else { panic!("{message:?}") };
        let text = error.error().to_string();
        assert!(text.contains(words) && !text.contains("hunter2"), "{text}");
        sink.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_spool_that_is_not_used_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    for (qos, count) in [(0u32, 1), (1, 0)] {
        let sink = sink("mqtt://127.0.0.1:1");
        sink.set_property("spool", folder.path().display().to_string());
        sink.set_property("qos", qos);
        let bus = gst::Bus::new();
        sink.set_bus(Some(&bus));
        sink.set_state(gst::State::Paused).unwrap();
        sink.set_state(gst::State::Null).unwrap();
        let messages = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning]));
        let about = messages.filter(
            |m| matches!(m.view(), gst::MessageView::Warning(w) if w.error().to_string().contains("qos=1")),
        );
        assert_eq!(about.count(), count, "qos={qos}");
    }
}

#[test]
fn a_bad_instance_id_leaves_the_good_one() {
    let sink = sink("mqtt://127.0.0.1:1");
    let default: String = sink.property("instance-id");
    assert!(default.starts_with("nvr-"), "{default}");
    sink.set_property("instance-id", "proc-a");
    for bad in ["a/b", "ack", "x y", &"x".repeat(200)] {
        sink.set_property("instance-id", bad);
        assert_eq!(sink.property::<String>("instance-id"), "proc-a");
    }
    sink.set_property("instance-id", None::<String>);
    assert_eq!(sink.property::<String>("instance-id"), default);
}

#[test]
fn properties_read_back_and_promise_what_they_keep() {
    let sink = sink("mqtt://user:hunter2@host");
    for (name, value) in [
        ("source-id", "4294967295"),
        ("qos", "1"),
        ("payload", "dlstreamer"),
        ("publish", "detections-only"),
        ("queue-size", "7"),
        ("spool", "/tmp/spool"),
        ("spool-max-bytes", "70000"),
    ] {
        sink.set_property_from_str(name, value);
        let read = sink.property_value(name).serialize().unwrap();
        assert_eq!(read.trim_matches('"'), value, "{name}");
    }
    assert_eq!(sink.property::<String>("broker"), "mqtt://user:***@host");
    assert!(!sink.property::<bool>("sync") && !sink.property::<bool>("async"));
    assert!(!sink.property::<bool>("enable-last-sample"));
    for spec in sink.list_properties().iter().filter(|spec| spec.owner_type() == NvrMqttSink::static_type()) {
        assert!(
            !spec.nick().is_empty() && spec.blurb().is_some_and(|blurb| !blurb.is_empty()),
            "{}",
            spec.name()
        );
    }
}
