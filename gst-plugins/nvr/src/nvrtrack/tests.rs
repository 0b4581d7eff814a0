use gst::prelude::*;
use gst_video::VideoRegionOfInterestMeta;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::geometry::Rect;

use super::*;
use crate::meta;

const SECOND_MS: u64 = 1000;

fn harness() -> (gst::Element, gst_check::Harness) {
    gst::init().unwrap();
    let element: gst::Element = glib::Object::new::<NvrTrack>().upcast();
    let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_src_caps(caps(640));
    (element, harness)
}

fn caps(width: i32) -> gst::Caps {
    gst::Caps::builder("video/x-raw")
        .field("format", "NV12")
        .field("width", width)
        .field("height", 360)
        .field("framerate", gst::Fraction::new(25, 1))
        .build()
}

fn person(x: f32) -> Detection {
    Detection {
        class_name: "person".into(),
        class_id: Some(0),
        confidence: 0.75,
        rect: Rect::new(x, 100.0, 40.0, 100.0),
        tracker_id: None,
    }
}

fn analysed() -> FrameFacts {
    let analysis = Analysis { model_id: "m".into(), inference_time_ms: 1.0, capture: None, frame_id: None };
    FrameFacts { analysis: Some(analysis), ..FrameFacts::default() }
}

/// A frame without memory: mapping it would fail.
fn frame(ms: u64, facts: &FrameFacts, detections: &[Detection]) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::from_mseconds(ms));
        meta::set_facts(buffer, facts);
        meta::add_detections(buffer, 640, 360, detections);
    }
    buffer
}

fn pass(harness: &mut gst_check::Harness, ms: u64, detections: &[Detection]) -> Vec<Detection> {
    let buffer = harness.push_and_pull(frame(ms, &analysed(), detections)).unwrap();
    meta::read(&buffer).detections
}

fn ids(found: &[Detection]) -> Vec<Option<u64>> {
    found.iter().map(|d| d.tracker_id).collect()
}

#[test]
fn objects_keep_their_ids_start_after_start() {
    let (element, mut harness) = harness();
    let mut seen = Vec::new();
    for _ in 0..2 {
        for n in 0..5u8 {
            let x = 100.0 + 4.0 * f32::from(n);
            let found = pass(&mut harness, u64::from(n) * 200, &[person(x), person(x + 200.0)]);
            assert_eq!(&*found[0].class_name, "person");
            assert_eq!((found[0].class_id, found[0].confidence), (Some(0), 0.75));
            assert!(found[0].rect.iou(&person(x).rect) > 0.7, "{:?}", found[0].rect);
            seen.push((found[0].tracker_id.unwrap(), found[1].tracker_id.unwrap()));
        }
        let stats: gst::Structure = element.property("stats");
        assert_eq!((stats.get::<u64>("frames"), stats.get::<u64>("updates")), (Ok(5), Ok(5)));
        assert_eq!((stats.get::<u64>("ids"), stats.get::<u32>("tracks")), (Ok(2), Ok(2)));
        element.set_state(gst::State::Ready).unwrap();
        harness.play();
        harness.set_src_caps(caps(640));
    }
    assert!(seen[..5].iter().all(|pair| *pair == seen[0]), "{seen:?}");
    assert!(seen[5..].iter().all(|pair| *pair == seen[5]), "{seen:?}");
    assert!(seen[5].0 > seen[0].1, "an id is given once: {seen:?}");
    assert!(seen[5].1 < 1 << 53);
}

#[test]
fn ids_of_others_are_replaced_and_their_attributes_stay() {
    let (_element, mut harness) = harness();
    let mut buffer = frame(0, &analysed(), &[Detection { tracker_id: Some(1 << 40), ..person(100.0) }]);
    {
        let buffer = buffer.get_mut().unwrap();
        let mut region = VideoRegionOfInterestMeta::add(buffer, "car", (300, 100, 80, 40));
        region.add_param(gst::Structure::builder("detection").field("confidence", 0.9f64).build());
        region.add_param(gst::Structure::builder("object_id").field("id", 77i32).build());
        region.add_param(gst::Structure::builder("colour").field("label", "red").build());
        VideoRegionOfInterestMeta::add(buffer, meta::MOTION, (1, 2, 3, 4));
    }
    let buffer = harness.push_and_pull(buffer).unwrap();
    let found = meta::read(&buffer).detections;
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|d| d.tracker_id.is_some_and(|id| id != 77 && id != 1 << 40)), "{found:?}");
    let regions: Vec<_> = buffer.iter_meta::<VideoRegionOfInterestMeta>().collect();
    assert!(regions.iter().any(|r| r.roi_type() == meta::MOTION));
    let colour = regions.iter().find_map(|r| r.param("colour")).unwrap();
    assert_eq!(colour.get::<&str>("label"), Ok("red"));
}

#[test]
fn frames_that_nobody_looked_at_do_not_lose_anybody() {
    let (_element, mut harness) = harness();
    let first = ids(&pass(&mut harness, 0, &[person(100.0)]));
    for n in 1..100u64 {
        let buffer = harness.push_and_pull(frame(n * 40, &FrameFacts::default(), &[])).unwrap();
        assert!(meta::read(&buffer).detections.is_empty());
    }
    assert_eq!(ids(&pass(&mut harness, 4 * SECOND_MS, &[person(101.0)])), first);
}

#[test]
fn who_stands_still_keeps_his_id_behind_a_gate() {
    let (_element, mut harness) = harness();
    let first = ids(&pass(&mut harness, 0, &[person(100.0)]));
    for n in 1..100u64 {
        let mut buffer = frame(n * 200, &FrameFacts::default(), &[]);
        meta::mark_motion(buffer.get_mut().unwrap(), false);
        harness.push_and_pull(buffer).unwrap();
    }
    assert_eq!(ids(&pass(&mut harness, 20 * SECOND_MS, &[person(101.0)])), first);
}

#[test]
fn properties_change_from_the_next_buffer_on() {
    let (element, mut harness) = harness();
    let dog = |x| Detection { class_name: "dog".into(), ..person(x) };
    assert!(ids(&pass(&mut harness, 0, &[person(100.0), dog(300.0)])).iter().all(Option::is_some));
    element.set_property("classes", "Person, car");
    let found = pass(&mut harness, 40, &[dog(300.0), person(100.0)]);
    assert!(found[0].tracker_id.is_none() && found[1].tracker_id.is_some(), "{found:?}");
    element.set_property("keep-untracked", false);
    element.set_property("min-hits", 3u32);
    // The dog is not followed, so it passes; the second person has not been seen often enough.
    let found = pass(&mut harness, 80, &[dog(300.0), person(100.0), person(500.0)]);
    assert_eq!(found.iter().map(|d| &*d.class_name).collect::<Vec<_>>(), ["dog", "person"]);
    element.set_property("max-lost", 0.05f64);
    let before = found[1].tracker_id;
    pass(&mut harness, 120, &[]);
    pass(&mut harness, 160, &[]);
    pass(&mut harness, 240, &[]);
    element.set_property("keep-untracked", true);
    assert_eq!(ids(&pass(&mut harness, 280, &[person(100.0)])), [None], "was {before:?}");
    element.set_property("min-hits", 1u32);
    assert!(ids(&pass(&mut harness, 320, &[person(100.0)]))[0].is_some());
    element.set_property("enabled", false);
    assert_eq!(ids(&pass(&mut harness, 360, &[person(100.0)])), [None]);
    assert_eq!(element.property::<gst::Structure>("stats").get::<u32>("tracks"), Ok(0));
    element.set_property("enabled", true);
    for (algorithm, moved) in [("iou", true), ("bytetrack", true)] {
        element.set_property_from_str("algorithm", algorithm);
        assert!(ids(&pass(&mut harness, 400, &[person(100.0)]))[0].is_some() == moved, "{algorithm}");
    }
    element.set_property("smooth", false);
    pass(&mut harness, 440, &[person(100.0)]);
    let moved = person(108.25);
    assert_eq!(pass(&mut harness, 480, std::slice::from_ref(&moved))[0].rect, moved.rect);
    element.set_property("smooth", true);
    let found = pass(&mut harness, 520, &[person(117.0)]);
    assert!(found[0].rect.x < 117.0 && found[0].tracker_id.is_some(), "{found:?}");
    element.set_property("high-threshold", 0.9f32);
    element.set_property("new-threshold", 0.95f32);
    element.set_property("low-threshold", 0.8f32);
    assert_eq!(ids(&pass(&mut harness, 560, &[person(117.0)])), [None]);
}

#[test]
fn a_flush_and_another_size_forget_everybody_a_discont_does_not() {
    let (_element, mut harness) = harness();
    let first = ids(&pass(&mut harness, 0, &[person(100.0)]));
    let mut buffer = frame(40, &analysed(), &[person(100.0)]);
    buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
    let buffer = harness.push_and_pull(buffer).unwrap();
    assert_eq!(ids(&meta::read(&buffer).detections), first);

    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let second = ids(&pass(&mut harness, 80, &[person(100.0)]));
    assert_ne!(second, first);
    assert_eq!(ids(&pass(&mut harness, 120, &[person(100.0)])), second);
    harness.push_event(gst::event::Caps::new(&caps(320)));
    assert_ne!(ids(&pass(&mut harness, 160, &[person(100.0)])), second);
}

#[test]
fn switched_off_it_passes_what_is_sure() {
    let (element, mut harness) = harness();
    element.set_property("enabled", false);
    element.set_property("high-threshold", 0.5f32);
    let doubtful = |class: &str| Detection { class_name: class.into(), confidence: 0.2, ..person(300.0) };
    let list = [person(100.0), doubtful("person"), doubtful("dog")];
    assert_eq!(pass(&mut harness, 0, &list).len(), 3);
    element.set_property("keep-untracked", false);
    element.set_property("classes", "person");
    let found = pass(&mut harness, 40, &list);
    assert_eq!(
        found.iter().map(|d| (&*d.class_name, d.confidence)).collect::<Vec<_>>(),
        [("person", 0.75), ("dog", 0.2)]
    );
}

/// A frame whose result is that of an earlier one.
fn late(looked_at_ms: u64, frame_ms: u64) -> FrameFacts {
    let time = |ms: u64| CaptureTime { unix_ns: 1_000_000_000_000 + ms * 1_000_000, clock: Clock::Arrival };
    let mut facts = analysed();
    facts.capture = Some(time(frame_ms));
    facts.analysis.as_mut().unwrap().capture = Some(time(looked_at_ms));
    facts
}

/// With `nvrinfer mode=async gate=motion`, frames pass as still while an earlier one is looked at.
#[test]
fn a_result_that_comes_after_still_frames_keeps_the_ids() {
    let (_element, mut harness) = harness();
    let mut give = |facts: &FrameFacts, at, motion: bool, list: &[Detection]| {
        let mut buffer = frame(at, facts, list);
        meta::mark_motion(buffer.get_mut().unwrap(), motion);
        ids(&meta::read(&harness.push_and_pull(buffer).unwrap()).detections)
    };
    let first = give(&late(0, 200), 200, true, &[person(100.0)]);
    assert!(first[0].is_some());
    for at in [400, 600, 800, 1000, 1200] {
        give(&FrameFacts::default(), at, false, &[]);
    }
    // Of the frame at 0.2 s, one second late.
    assert_eq!(give(&late(200, 1400), 1400, false, &[person(101.0)]), first);
    give(&FrameFacts::default(), 1600, false, &[]);
    assert_eq!(give(&late(1400, 1800), 1800, true, &[person(101.0)]), first);
    // Another stream is another matter.
    assert_ne!(give(&late(0, 0), 0, true, &[person(101.0)]), first);
}

/// With `nvrinfer mode=async` a result is older than the frame that carries it; what counts is when it was true.
#[test]
fn a_late_result_is_dated_back() {
    let (element, mut harness) = harness();
    element.set_property("max-lost", 0.5f64);
    let mut give = |looked_at, at, list: &[Detection]| {
        let buffer = harness.push_and_pull(frame(at, &late(looked_at, at), list)).unwrap();
        ids(&meta::read(&buffer).detections)
    };
    let first = give(1000, 1100, &[person(100.0)]);
    assert!(first[0].is_some());
    give(1100, 1200, &[]);
    // 1.4 s later by the frame, 0.4 s by what was looked at.
    assert_eq!(give(1400, 2500, &[person(100.0)]), first);
}
