use gst::prelude::*;
use gst_video::VideoRegionOfInterestMeta;

use super::*;
use crate::meta;

const WIDTH: usize = 320;
const HEIGHT: usize = 200;

fn harness() -> (gst::Element, gst_check::Harness) {
    gst::init().unwrap();
    let element: gst::Element = glib::Object::new::<NvrMotion>().upcast();
    let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_src_caps(caps(WIDTH));
    (element, harness)
}

fn caps(width: usize) -> gst::Caps {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, width as u32, HEIGHT as u32)
        .fps(gst::Fraction::new(5, 1))
        .build()
        .and_then(|info| info.to_caps())
        .unwrap()
}

/// A grey frame, with something white at `x` where given.
fn frame(ms: u64, x: Option<usize>) -> gst::Buffer {
    let mut data = vec![80; WIDTH * HEIGHT];
    if let Some(x) = x {
        for y in 80..140 {
            data[y * WIDTH + x..][..30].fill(220);
        }
    }
    let mut buffer = gst::Buffer::from_mut_slice(data);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms));
    buffer
}

/// Passes a frame on and says how it was marked and how many regions it has.
fn pass(harness: &mut gst_check::Harness, ms: u64, x: Option<usize>) -> (Option<bool>, usize) {
    let buffer = harness.push_and_pull(frame(ms, x)).unwrap();
    let regions = buffer.iter_meta::<VideoRegionOfInterestMeta>().filter(|r| r.roi_type() == meta::MOTION);
    (meta::has_motion(&buffer), regions.count())
}

fn stat(element: &gst::Element, name: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(name).unwrap()
}

#[test]
fn frames_are_marked_start_after_start() {
    let (element, mut harness) = harness();
    for _ in 0..2 {
        for n in 0..20 {
            let learning = n < 9;
            let (moved, regions) = pass(&mut harness, n * 200, None);
            assert_eq!((moved, regions), (Some(learning), 0), "frame {n}");
        }
        let buffer = harness.push_and_pull(frame(4000, Some(100))).unwrap();
        assert_eq!(meta::has_motion(&buffer), Some(true));
        let region = buffer.meta::<VideoRegionOfInterestMeta>().unwrap();
        let (x, y, w, h) = region.rect();
        assert!(
            x <= 100 && x + w >= 130 && y <= 80 && y + h >= 140 && w < 60 && h < 90,
            "{:?}",
            region.rect()
        );
        assert_eq!((stat(&element, "frames"), stat(&element, "moving")), (21, 10));
        assert_eq!((stat(&element, "recalibrations"), stat(&element, "errors")), (1, 0));
        element.set_state(gst::State::Ready).unwrap();
        harness.play();
        harness.set_src_caps(caps(WIDTH));
    }
}

#[test]
fn properties_change_from_the_next_buffer_on() {
    let (element, mut harness) = harness();
    for n in 0..20 {
        pass(&mut harness, n * 200, None);
    }
    element.set_property("hold", 0.5f64);
    assert_eq!(pass(&mut harness, 4000, Some(50)), (Some(true), 1));
    assert_eq!(pass(&mut harness, 4200, None).0, Some(true), "it is held");
    assert_eq!(pass(&mut harness, 4600, None), (Some(false), 0));

    element.set_property("masks", "0,0 0.5,0 0.5,1 0,1");
    element.set_property("hold", 0.0f64);
    assert_eq!(pass(&mut harness, 4800, Some(50)).0, Some(false), "masked");
    assert_eq!(pass(&mut harness, 5000, Some(250)).0, Some(true));
    element.set_property("masks", "no polygon");
    assert_eq!(
        element.property::<String>("masks"),
        "0,0 0.5,0 0.5,1 0,1",
        "what cannot be used changes nothing"
    );
    assert_eq!(pass(&mut harness, 5200, Some(50)).0, Some(false));
    element.set_property("masks", "");
    element.set_property("threshold", 200f32);
    assert_eq!(pass(&mut harness, 5400, Some(20)).0, Some(false));
    element.set_property("threshold", 8f32);
    element.set_property("min-area", 0.5f32);
    assert_eq!(pass(&mut harness, 5600, Some(200)).0, Some(false));
    element.set_property("min-area", 0.0003f32);
    element.set_property("recalibrate", 0.01f32);
    let before = stat(&element, "recalibrations");
    assert_eq!(pass(&mut harness, 5800, Some(150)).0, Some(true));
    assert_eq!(stat(&element, "recalibrations"), before + 1);
    element.set_property("enabled", false);
    assert_eq!(pass(&mut harness, 6000, None), (Some(true), 0), "the gate stands open");
}

#[test]
fn what_stands_still_is_absorbed_in_the_time_that_is_set() {
    for (absorb, longest) in [(2.0, 3.0), (8.0, 12.0)] {
        let (element, mut harness) = harness();
        element.set_property("absorb", absorb);
        element.set_property("hold", 0.0f64);
        for n in 0..20 {
            pass(&mut harness, n * 200, None);
        }
        let frames = (20..200).find(|n| pass(&mut harness, n * 200, Some(100)).0 == Some(false)).unwrap();
        let seconds = (frames - 20) as f64 / 5.0;
        assert!((absorb * 0.2..longest).contains(&seconds), "{seconds} s at absorb={absorb}");
    }
}

#[test]
fn masks_that_make_no_sense_are_an_error_at_the_start() {
    gst::init().unwrap();
    let element: gst::Element = glib::Object::new::<NvrMotion>().upcast();
    element.set_property("masks", "0,0 1,1");
    assert!(element.set_state(gst::State::Paused).is_err());
    element.set_property("masks", "0,0 1,0 1,1");
    element.set_state(gst::State::Paused).unwrap();
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn masks_that_were_refused_while_playing_do_not_keep_it_from_starting_again() {
    let (element, mut harness) = harness();
    pass(&mut harness, 0, None);
    element.set_property("masks", "0,0 1,1");
    element.set_state(gst::State::Ready).unwrap();
    element.set_state(gst::State::Paused).unwrap();
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn the_time_of_a_frame_is_that_of_frames_that_are_looked_at() {
    let (element, mut harness) = harness();
    for n in 0..5 {
        pass(&mut harness, n * 200, None);
    }
    let time = stat(&element, "update-time");
    element.set_property("enabled", false);
    for n in 5..50 {
        pass(&mut harness, n * 200, None);
    }
    assert_eq!(stat(&element, "update-time"), time);
    let stats: gst::Structure = element.property("stats");
    assert_eq!((stats.get("moved"), stats.get("area")), (Ok(true), Ok(0.0)));
}

#[test]
fn a_frame_that_is_too_short_passes_unmarked_and_is_counted() {
    let (element, mut harness) = harness();
    let buffer = harness.push_and_pull(gst::Buffer::with_size(100).unwrap()).unwrap();
    assert_eq!(meta::has_motion(&buffer), None);
    assert_eq!(stat(&element, "errors"), 1);
}

#[test]
fn a_flush_and_another_size_learn_anew() {
    let (element, mut harness) = harness();
    for n in 0..20 {
        pass(&mut harness, n * 200, None);
    }
    harness.push_event(gst::event::FlushStart::new());
    harness.push_event(gst::event::FlushStop::new(true));
    harness.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    assert_eq!(pass(&mut harness, 4000, Some(100)), (Some(true), 0));
    assert_eq!(stat(&element, "recalibrations"), 2);
    harness.push_event(gst::event::Caps::new(&caps(WIDTH / 2)));
    pass(&mut harness, 4200, None);
    assert_eq!(stat(&element, "recalibrations"), 3);
}
