use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::ObjectSubclassIsExt;
use gst_check::Harness;
use gst_video::VideoOverlayCompositionMeta;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::event;
use nvr_core::geometry::Rect;

use crate::mqtt::fake::{FakeBroker, Manner, TIMEOUT};
use crate::{init, meta};

const CAPS: &str = "video/x-raw,format=NV12,width=320,height=180,framerate=25/1";
/// 2025-10-25T10:30:00Z
const EPOCH_NS: u64 = 1_761_388_200_000_000_000;
const FRAME_NS: u64 = 40_000_000;

fn element(properties: &[(&str, &str)]) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("nvroverlay").build().unwrap();
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    element
}

fn harness(properties: &[(&str, &str)]) -> Harness {
    let mut harness = Harness::with_element(&element(properties), Some("sink"), Some("src"));
    harness.set_src_caps_str(CAPS);
    harness
}

/// Frame number `n`, grey, taken 40 ms after the one before.
fn frame(n: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(vec![0x80_u8; 320 * 180 * 3 / 2]);
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(gst::ClockTime::from_nseconds(n * FRAME_NS));
    let capture = CaptureTime { unix_ns: EPOCH_NS + n * FRAME_NS, clock: Clock::Ntp };
    meta::set_facts(writable, &FrameFacts { frame_id: Some(n), capture: Some(capture), analysis: None });
    buffer
}

fn person(x: f32) -> Detection {
    Detection {
        class_name: "person".into(),
        class_id: Some(0),
        confidence: 0.9,
        rect: Rect::new(x, 60.0, 40.0, 80.0),
        tracker_id: Some(1),
    }
}

fn carrying(n: u64, detections: &[Detection], analysed: bool) -> gst::Buffer {
    let mut buffer = frame(n);
    let writable = buffer.get_mut().unwrap();
    if analysed {
        let analysis =
            Analysis { model_id: "m".into(), inference_time_ms: 1.0, capture: None, frame_id: None };
        meta::set_facts(writable, &FrameFacts { analysis: Some(analysis), ..FrameFacts::default() });
    }
    meta::add_detections(writable, 320, 180, detections);
    buffer
}

/// The event of frame number `n`.
fn event_of(n: u64, encoding: event::Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = event::Frame {
        instance_id: "proc",
        source_id: 3,
        frame_id: n,
        capture: CaptureTime { unix_ns: EPOCH_NS + n * FRAME_NS, clock: Clock::Ntp },
        model_id: "m",
        inference_time_ms: 1.0,
        width: 640,
        height: 360,
        detections: &[person(20.0)],
        zones: None,
        fps: None,
        latency_ms: None,
        stream_time_ns: None,
    };
    frame.encode(encoding, &mut bytes).unwrap();
    bytes
}

/// Whether anything was drawn on a grey frame.
fn drawn(buffer: &gst::Buffer) -> bool {
    buffer.map_readable().unwrap().iter().any(|byte| *byte != 0x80)
}

fn stat(harness: &Harness, field: &str) -> u64 {
    let stats: gst::Structure = harness.element().unwrap().property("stats");
    stats.get(field).unwrap()
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An overlay that listens to a broker of its own, with what it is to listen to confirmed.
fn listening(properties: &[(&str, &str)]) -> (FakeBroker, Harness) {
    let broker = FakeBroker::start(Manner::Polite);
    let url = broker.url();
    let all = [&[("broker", &*url), ("source-id", "3")], properties].concat();
    let harness = harness(&all);
    broker.until(|seen| seen.filters.contains(&"nvr/detections/3".to_string()), |_| ());
    (broker, harness)
}

/// Sends an event, and waits until it has come.
fn send(broker: &FakeBroker, harness: &Harness, payload: &[u8]) {
    let element = harness.element().unwrap();
    let heard = || {
        let overlay = element.downcast_ref::<super::NvrOverlay>().unwrap();
        overlay.imp().received()
    };
    let before = heard();
    broker.send("nvr/detections/3", payload);
    wait("an event on its way", || heard() > before);
}

#[test]
fn what_frames_carry_is_drawn_for_as_long_as_it_is_true() {
    let mut h = harness(&[("source", "meta"), ("ttl", "60000")]);
    let untouched = frame(0);
    let memory = untouched.peek_memory(0).as_ptr();
    h.push(untouched).unwrap();
    let out = h.pull().unwrap();
    assert_eq!(out.peek_memory(0).as_ptr(), memory, "a frame with nothing on it is not touched");
    assert!(!drawn(&out));

    h.push(carrying(1, &[person(100.0)], false)).unwrap();
    assert!(drawn(&h.pull().unwrap()));
    h.push(frame(2)).unwrap();
    assert!(!drawn(&h.pull().unwrap()), "what another element attached is gone with its frame");

    h.push(carrying(3, &[person(100.0)], true)).unwrap();
    assert!(drawn(&h.pull().unwrap()));
    h.push(frame(4)).unwrap();
    assert!(drawn(&h.pull().unwrap()), "a model that looks at some frames only is believed in between");
    h.push(carrying(5, &[], true)).unwrap();
    assert!(!drawn(&h.pull().unwrap()), "the model saw that it was gone");
    assert_eq!((stat(&h, "frames"), stat(&h, "drawn"), stat(&h, "plans")), (6, 3, 3));
}

#[test]
fn properties_take_effect_on_the_next_frame() {
    let mut h = harness(&[("source", "meta")]);
    let mut look = |name: &str, value: &str| {
        h.element().unwrap().set_property_from_str(name, value);
        h.push(carrying(1, &[person(100.0)], false)).unwrap();
        let out = h.pull().unwrap();
        out.map_readable().unwrap().to_vec()
    };
    let first = look("ttl", "1000");
    let mut seen = vec![first.clone()];
    for (name, value) in [
        ("show-labels", "false"),
        ("show-confidence", "false"),
        ("show-tracks", "false"),
        ("class-colors", "person=#ff00ff"),
        ("box-thickness", "5"),
        ("show-labels", "true"),
        ("font-size", "20"),
        ("model-filter", "other"),
    ] {
        let picture = look(name, value);
        assert!(!seen.contains(&picture), "{name}={value} changed nothing");
        seen.push(picture);
    }
    assert!(look("model-filter", "other").iter().all(|byte| *byte == 0x80), "nothing is left");
    assert_ne!(look("model-filter", "ext*"), seen[8]);
    assert_eq!(look("instance-filter", "someone"), seen[8]);
    let before = look("instance-filter", "");
    assert_eq!(look("class-colors", "person=mauve"), before, "what is wrong changes nothing");
    assert_eq!(h.element().unwrap().property::<String>("class-colors"), "person=#ff00ff");
}

#[test]
fn latency_is_answered_with_the_wait() {
    let mut h = harness(&[("source", "meta")]);
    h.set_upstream_latency(gst::ClockTime::from_mseconds(70));
    h.play();
    h.push(frame(0)).unwrap();
    let ms = |h: &Harness| h.query_latency().unwrap().mseconds();
    assert_eq!(ms(&h), 70);
    let element = h.element().unwrap();
    element.set_property_from_str("sync", "timestamp");
    assert_eq!(ms(&h), 70, "what a frame carries needs no waiting");
    drop((element, h));

    let (_broker, mut h) = listening(&[("sync", "timestamp"), ("max-wait", "250")]);
    h.set_upstream_latency(gst::ClockTime::from_mseconds(70));
    h.play();
    h.push(frame(0)).unwrap();
    assert_eq!(ms(&h), 320);
    h.element().unwrap().set_property("max-wait", 100u32);
    assert_eq!(ms(&h), 170);
    h.element().unwrap().set_property_from_str("sync", "latest");
    assert_eq!(ms(&h), 70);
}

#[test]
fn the_latest_event_is_shown_in_either_encoding() {
    let (broker, mut h) = listening(&[]);
    h.push(frame(0)).unwrap();
    assert!(!drawn(&h.pull().unwrap()));
    send(&broker, &h, &event_of(0, event::Encoding::Json));
    h.push(frame(1)).unwrap();
    assert!(drawn(&h.pull().unwrap()));
    send(&broker, &h, &event_of(1, event::Encoding::Msgpack));
    h.push(frame(2)).unwrap();
    let out = h.pull().unwrap();
    assert!(drawn(&out));
    // The box is at 20, 60 of 640 × 360, and this is half as large.
    let map = out.map_readable().unwrap();
    let column = |x: usize| map[40 * 320 + x];
    assert_ne!(column(10), 0x80);
    assert_eq!(column(20), 0x80);
    assert_ne!(column(29), 0x80);
    assert_eq!((stat(&h, "events"), stat(&h, "malformed")), (2, 0));

    h.element().unwrap().set_property("ttl", 0u32);
    h.push(frame(3)).unwrap();
    assert!(!drawn(&h.pull().unwrap()), "too old");
}

#[test]
fn a_frame_waits_for_its_event_and_no_longer_than_it_may() {
    let (broker, mut h) = listening(&[("sync", "timestamp"), ("max-wait", "10000")]);
    h.push(frame(0)).unwrap();
    assert!(!drawn(&h.pull().unwrap()), "nobody has spoken yet, so nobody is waited for");
    send(&broker, &h, &event_of(1, event::Encoding::Json));
    h.push(frame(1)).unwrap();
    assert!(drawn(&h.pull().unwrap()), "its event was there before it");

    h.push(frame(2)).unwrap();
    wait("a frame that waits", || stat(&h, "waiting") == 1);
    assert!(h.try_pull().is_none());
    send(&broker, &h, &event_of(2, event::Encoding::Json));
    let out = h.pull().unwrap();
    assert_eq!(meta::facts(&out).frame_id, Some(2));
    assert!(drawn(&out));
    assert_eq!(stat(&h, "late"), 0);

    // Frames that nobody analysed go with the next one's event, and in order.
    h.push(frame(3)).unwrap();
    h.push(frame(4)).unwrap();
    assert!(h.push_event(gst::event::Eos::new()));
    send(&broker, &h, &event_of(4, event::Encoding::Json));
    let order: Vec<_> = (0..2).map(|_| meta::facts(&h.pull().unwrap()).frame_id.unwrap()).collect();
    assert_eq!(order, [3, 4]);
    wait("EOS behind the frames", || h.events_in_queue() > 0 && stat(&h, "waiting") == 0);

    drop(h);
    let (broker, mut h) = listening(&[("sync", "timestamp"), ("max-wait", "30")]);
    send(&broker, &h, &event_of(0, event::Encoding::Json));
    h.push(frame(0)).unwrap();
    h.pull().unwrap();
    h.push(frame(1)).unwrap();
    assert!(drawn(&h.pull().unwrap()), "its time is up: it shows the last event");
    assert_eq!(stat(&h, "late"), 1);
}

#[test]
fn frames_that_wait_are_asked_of_upstreams_pool_whatever_downstream_says() {
    for (max_wait, expected) in [("400", Some(12)), ("0", None)] {
        let (_broker, h) = listening(&[("sync", "timestamp"), ("max-wait", max_wait)]);
        let pad = h.element().unwrap().static_pad("sink").unwrap();
        let mut query = gst::query::Allocation::new(Some(&pad.current_caps().unwrap()), true);
        pad.query(&mut query);
        // At 25 frames a second, and two more.
        let min = query.allocation_pools().next().map(|(_, size, min, max)| {
            assert!(size > 0 && max == 0);
            min
        });
        assert_eq!(min, expected, "max-wait={max_wait}");
    }
}

#[test]
fn a_flush_and_a_stop_end_the_waiting() {
    let (broker, mut h) = listening(&[("sync", "timestamp"), ("max-wait", "10000")]);
    send(&broker, &h, &event_of(0, event::Encoding::Json));
    h.push(frame(0)).unwrap();
    h.pull().unwrap();
    let begun = Instant::now();
    h.push(frame(1)).unwrap();
    wait("a frame that waits", || stat(&h, "waiting") == 1);
    assert!(h.push_event(gst::event::FlushStart::new()));
    assert!(h.push_event(gst::event::FlushStop::new(true)));
    assert_eq!(stat(&h, "waiting"), 0);
    assert!(h.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
    send(&broker, &h, &event_of(2, event::Encoding::Json));
    h.push(frame(2)).unwrap();
    assert_eq!(meta::facts(&h.pull().unwrap()).frame_id, Some(2));
    h.push(frame(3)).unwrap();
    wait("a frame that waits", || stat(&h, "waiting") == 1);
    drop(h);
    assert!(begun.elapsed() < Duration::from_secs(9), "nobody waited for the time to pass");
}

#[test]
fn what_is_no_event_is_counted() {
    let (broker, mut h) = listening(&[]);
    let deep = [b"{\"version\":".to_vec(), b"[".repeat(100_000)].concat();
    let good = event_of(0, event::Encoding::Json);
    let text = String::from_utf8(good.clone()).unwrap();
    let wrong_time = text.replace("2025-", "20x5-");
    let wrong_type = text.replace("\"detections\":[", "\"detections\":[7,");
    assert_ne!(wrong_type, text);
    let packed = event_of(0, event::Encoding::Msgpack);
    let payloads: [&[u8]; 12] = [
        b"",
        b"hello",
        b"{}",
        b"[]",
        b"\xff\xfe\x81\xc1",
        &deep,
        &vec![b' '; 2 << 20],
        // Not even read.
        &vec![b' '; 10 << 20],
        wrong_time.as_bytes(),
        wrong_type.as_bytes(),
        &good[..good.len() / 2],
        &packed[..packed.len() / 2],
    ];
    for payload in payloads {
        send(&broker, &h, payload);
    }
    send(&broker, &h, &event_of(0, event::Encoding::Json));
    h.push(frame(0)).unwrap();
    assert!(drawn(&h.pull().unwrap()));
    assert_eq!((stat(&h, "events"), stat(&h, "malformed"), stat(&h, "dropped")), (1, 11, 1));
}

#[test]
fn the_source_can_change_while_it_plays() {
    let (broker, mut h) = listening(&[]);
    h.element().unwrap().set_property("source-id", 4u32);
    broker.until(|seen| seen.filters.contains(&"nvr/detections/4".to_string()), |_| ());
    h.element().unwrap().set_property_from_str("source", "meta");
    broker.until(|seen| seen.filters.contains(&"-nvr/detections/4".to_string()), |_| ());
    h.push(carrying(0, &[person(10.0)], false)).unwrap();
    assert!(drawn(&h.pull().unwrap()));
}

#[test]
fn compositions_are_attached_where_they_are_taken() {
    let mut h = Harness::with_element(&element(&[("source", "meta")]), Some("sink"), Some("src"));
    h.add_propose_allocation_meta(VideoOverlayCompositionMeta::meta_api(), None);
    h.set_src_caps_str(CAPS);
    h.push(carrying(0, &[person(100.0)], false)).unwrap();
    let out = h.pull().unwrap();
    assert!(!drawn(&out), "no pixel is touched");
    let count = |buffer: &gst::Buffer| {
        buffer.meta::<VideoOverlayCompositionMeta>().map_or(0, |meta| meta.overlay().n_rectangles())
    };
    let ours = count(&out);
    assert!((2..=8).contains(&ours), "{ours} rectangles for one box and its label");
    let caps = h.sinkpad().unwrap().current_caps().unwrap();
    assert!(caps.to_string().contains("meta:GstVideoOverlayComposition"), "downstream is told of it: {caps}");

    // What upstream wants composed stays.
    let mut theirs = carrying(1, &[person(100.0)], false);
    let writable = theirs.get_mut().unwrap();
    let composition = out.meta::<VideoOverlayCompositionMeta>().unwrap().overlay().to_owned();
    VideoOverlayCompositionMeta::add(writable, &composition);
    h.push(theirs).unwrap();
    assert_eq!(count(&h.pull().unwrap()), 2 * ours);
    h.push(frame(2)).unwrap();
    assert_eq!(count(&h.pull().unwrap()), 0);
}

#[test]
fn start_stop_start() {
    let broker = FakeBroker::start(Manner::Polite);
    let element = element(&[("broker", &broker.url()), ("sync", "timestamp")]);
    for round in 1..=3 {
        let mut h = Harness::with_element(&element, Some("sink"), Some("src"));
        h.set_src_caps_str(CAPS);
        // A filter may also be given up again before the farewell.
        let asked =
            |filters: &[String]| filters.iter().filter(|filter| *filter == "nvr/detections/0").count();
        broker.until(|seen| asked(&seen.filters) == round, |_| ());
        h.push(frame(0)).unwrap();
        assert!(h.pull().is_ok());
        drop(h);
        assert_eq!(element.current_state(), gst::State::Null);
        broker.until(|seen| seen.farewells == round, |_| ());
        let stats: gst::Structure = element.property("stats");
        assert_eq!(stats.get::<u64>("frames"), Ok(1), "counters stay readable");
    }
}

#[test]
fn wrong_settings_fail_at_the_start() {
    let element = element(&[("broker", "http://nowhere")]);
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Paused).is_err());
    let message =
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(5), &[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { panic!("{message:?}") };
    assert!(error.error().to_string().contains("broker"), "{}", error.error());
    element.set_state(gst::State::Null).unwrap();
}
