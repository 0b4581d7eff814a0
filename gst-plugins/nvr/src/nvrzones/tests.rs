mod outside;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::event::InZones;
use nvr_core::geometry::Rect;

use super::*;
use crate::meta;

const LEFT: &str = r#"[{"name":"left","polygon":[[0,0],[0.5,0],[0.5,1],[0,1]],"inertia":0.2,"loitering":1}]"#;
const EPOCH_MS: u64 = 1_761_388_200_000;

struct Camera {
    element: gst::Element,
    harness: gst_check::Harness,
    bus: gst::Bus,
    /// Texts of the warnings that came between other messages.
    warnings: RefCell<Vec<String>>,
    ms: u64,
    /// What the last frame says of zones.
    zones: Option<InZones>,
    confidence: f32,
    /// How much older than their frame results are.
    late_ms: u64,
    /// Whether analysis is off.
    off: bool,
}

impl Camera {
    fn new(properties: &[(&str, &str)]) -> Self {
        gst::init().unwrap();
        let element: gst::Element = glib::Object::new::<NvrZones>().upcast();
        element.set_property("publish", false);
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 640, 360);
        let caps = info.fps(gst::Fraction::new(5, 1)).build().and_then(|info| info.to_caps()).unwrap();
        harness.set_src_caps(caps);
        Self {
            element,
            harness,
            bus,
            warnings: RefCell::default(),
            ms: 0,
            zones: None,
            confidence: 0.8,
            late_ms: 0,
            off: false,
        }
    }

    /// One frame, a fifth of a second later, with these objects: track, x of its middle.
    fn show(&mut self, objects: &[(u64, f32)]) {
        self.give(Some(objects), None, gst::Buffer::new());
    }

    /// A frame that was left out because nothing moves in it.
    fn still(&mut self) {
        self.give(None, Some(false), gst::Buffer::new());
    }

    fn give(&mut self, objects: Option<&[(u64, f32)]>, motion: Option<bool>, buffer: gst::Buffer) {
        let confidence = self.confidence;
        let object = |&(track, x): &(u64, f32)| Detection {
            class_name: "person".into(),
            class_id: Some(0),
            confidence,
            rect: Rect::new(x - 20.0, 100.0, 40.0, 100.0),
            tracker_id: Some(track),
        };
        let detections = objects.map(|objects| objects.iter().map(object).collect::<Vec<_>>());
        self.give_detections(detections.as_deref(), motion, buffer);
    }

    fn give_detections(
        &mut self,
        detections: Option<&[Detection]>,
        motion: Option<bool>,
        mut buffer: gst::Buffer,
    ) {
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_mseconds(self.ms));
            let capture = CaptureTime { unix_ns: (EPOCH_MS + self.ms) * 1_000_000, clock: Clock::Ntp };
            let late_ns = self.late_ms * 1_000_000;
            let earlier = CaptureTime { unix_ns: capture.unix_ns - late_ns, ..capture };
            let analysis = detections.map(|_| Analysis {
                model_id: "m".into(),
                inference_time_ms: 1.0,
                capture: (late_ns > 0).then_some(earlier),
                frame_id: None,
            });
            meta::set_facts(buffer, &FrameFacts { frame_id: None, capture: Some(capture), analysis });
            if let Some(motion) = motion {
                meta::mark_motion(buffer, motion);
            }
            if self.off {
                meta::mark_off(buffer);
            }
            meta::add_detections(buffer, 640, 360, detections.unwrap_or_default());
        }
        let before = buffer.as_ptr();
        let after = self.harness.push_and_pull(buffer).unwrap();
        assert_eq!(after.as_ptr(), before, "the buffer itself goes on");
        self.ms += 200;
        self.zones = meta::zones(&after);
    }

    /// What was posted since the last call: name, type or rule, track.
    fn told(&self) -> Vec<(String, String, u64)> {
        self.messages()
            .iter()
            .map(|s| {
                let kind = s.get::<String>("type").or_else(|_| s.get("rule")).unwrap();
                (s.name().to_string(), kind, s.get("tracker-id").unwrap())
            })
            .collect()
    }

    fn messages(&self) -> Vec<gst::Structure> {
        let mut found = Vec::new();
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Element(element) => {
                    found.extend(element.structure().map(ToOwned::to_owned));
                }
                gst::MessageView::Warning(warning) => {
                    self.warnings.borrow_mut().push(warning.error().to_string());
                }
                _ => {}
            }
        }
        found
    }

    fn warnings(&self) -> Vec<String> {
        self.messages();
        self.warnings.borrow().clone()
    }

    /// Until it is so; generous, machines are slow.
    fn wait(&self, so: &dyn Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !so(self) {
            let stats = self.element.property::<gst::Structure>("stats");
            assert!(Instant::now() < deadline, "{stats:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Numbers of the first zone.
    fn counts(&self) -> (u32, u64) {
        let stats: gst::Structure = self.element.property("stats");
        let zones = stats.get::<gst::Array>("zones").unwrap();
        let zone = zones.first().unwrap().get::<gst::Structure>().unwrap();
        (zone.get("present").unwrap(), zone.get("entered").unwrap())
    }

    fn stat(&self, name: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap()
    }
}

fn row(name: &str, kind: &str, track: u64) -> (String, String, u64) {
    (name.into(), kind.into(), track)
}

#[test]
fn an_object_has_one_life_and_one_visit() {
    let mut camera = Camera::new(&[("zones", LEFT)]);
    camera.show(&[]);
    // From right to left and back: in the left half from 1.0 s to 3.0 s.
    for n in 0..20u8 {
        let x = if n < 10 { 420.0 - 20.0 * f32::from(n) } else { 240.0 + 20.0 * f32::from(n - 10) };
        camera.show(&[(7, x)]);
    }
    let mut told = camera.told();
    assert_eq!(
        told,
        [
            row("nvr-object", "new", 7),
            row("nvr-zone", "entered", 7),
            row("nvr-object", "update", 7),
            row("nvr-zone", "loitering", 7),
            row("nvr-zone", "left", 7),
            row("nvr-object", "update", 7),
        ]
    );
    for _ in 0..20 {
        camera.show(&[]);
    }
    told = camera.told();
    assert_eq!(told, [row("nvr-object", "end", 7)]);
    let names = ["frames", "objects", "ended", "zone-events", "alerts", "published"];
    assert_eq!(names.map(|name| camera.stat(name)), [41, 1, 1, 3, 0, 0]);
    let stats: gst::Structure = camera.element.property("stats");
    assert_eq!(stats.get::<u32>("present"), Ok(0));
    let zones = stats.get::<gst::Array>("zones").unwrap();
    let zone = zones.first().unwrap().get::<gst::Structure>().unwrap();
    assert_eq!((zone.get::<u64>("entered"), zone.get::<u32>("present")), (Ok(1), Ok(0)));
}

#[test]
fn a_frame_says_who_is_in_which_zone() {
    let mut camera = Camera::new(&[("zones", LEFT)]);
    for _ in 0..4 {
        camera.show(&[(7, 100.0), (8, 500.0)]);
    }
    assert_eq!(camera.zones, Some(InZones::from([(7, vec!["left".into()])])));
    for _ in 0..4 {
        camera.show(&[(7, 500.0), (8, 500.0)]);
    }
    assert_eq!(camera.zones, None);
    // A frame that others hold too is not written to.
    camera.show(&[(7, 100.0)]);
    camera.show(&[(7, 100.0)]);
    let mut buffer = gst::Buffer::new();
    let held = {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::from_mseconds(camera.ms));
        let d = Detection {
            class_name: "person".into(),
            class_id: None,
            confidence: 0.8,
            rect: Rect::new(80.0, 100.0, 40.0, 100.0),
            tracker_id: Some(7),
        };
        meta::add_detections(buffer, 640, 360, &[d]);
        buffer.to_owned()
    };
    drop(buffer);
    let after = camera.harness.push_and_pull(held.clone()).unwrap();
    assert_eq!((meta::zones(&held), meta::zones(&after).map(|zones| zones.len())), (None, Some(1)));
}

#[test]
fn who_stands_still_behind_a_gate_has_one_life() {
    let mut camera = Camera::new(&[("zones", LEFT), ("update-interval", "0")]);
    for _ in 0..5 {
        camera.show(&[(1, 100.0)]);
    }
    for n in 1..100 {
        // A forced look every tenth frame.
        if n % 10 == 0 {
            camera.show(&[(1, 100.0)]);
        } else {
            camera.give(None, Some(false), gst::Buffer::new());
        }
    }
    assert_eq!(camera.stat("objects") - camera.stat("ended"), 1);
    assert_eq!(
        camera.told().iter().filter(|t| t.0 == "nvr-object").count(),
        1,
        "new, when it was in the zone already"
    );
    // He goes while nobody looks; the next look ends it.
    camera.show(&[]);
    for _ in 0..20 {
        camera.give(None, Some(false), gst::Buffer::new());
    }
    assert_eq!(camera.stat("ended"), 1);
}

#[test]
fn an_object_cut_by_the_lower_edge_is_in_the_zone() {
    let mut camera = Camera::new(&[("zones", LEFT)]);
    let person = Detection {
        class_name: "person".into(),
        class_id: None,
        confidence: 0.8,
        rect: Rect::new(80.0, 260.0, 40.0, 100.0),
        tracker_id: Some(1),
    };
    for _ in 0..4 {
        camera.give_detections(Some(std::slice::from_ref(&person)), None, gst::Buffer::new());
    }
    assert_eq!(camera.zones, Some(InZones::from([(1, vec!["left".into()])])));
}

#[test]
fn a_track_that_is_no_object_was_in_no_zone() {
    let mut camera = Camera::new(&[("zones", LEFT)]);
    camera.confidence = 0.3;
    for _ in 0..10 {
        camera.show(&[(1, 100.0)]);
    }
    for _ in 0..20 {
        camera.show(&[]);
    }
    assert_eq!(camera.told(), []);
    assert_eq!((camera.counts(), camera.stat("zone-events")), ((0, 0), 0));
}

#[test]
fn who_becomes_an_object_is_new_before_he_enters() {
    let mut camera = Camera::new(&[("zones", LEFT), ("min-seen", "5"), ("update-interval", "0")]);
    for _ in 0..5 {
        camera.show(&[(1, 100.0)]);
    }
    assert_eq!(camera.told(), [row("nvr-object", "new", 1), row("nvr-zone", "entered", 1)]);
    assert_eq!(camera.counts(), (1, 1));
}

/// With `nvrinfer mode=async gate=motion`, frames pass as still while an earlier one is looked at.
#[test]
fn a_result_that_comes_after_still_frames_ends_nobody() {
    let mut camera = Camera::new(&[("zones", LEFT), ("update-interval", "0")]);
    camera.late_ms = 200;
    for _ in 0..5 {
        camera.show(&[(1, 100.0)]);
    }
    for late in [300, 1000, 2200] {
        for _ in 0..10 {
            camera.still();
        }
        camera.late_ms = late;
        camera.show(&[(1, 100.0)]);
    }
    assert_eq!((camera.stat("objects"), camera.stat("ended")), (1, 0));
    assert_eq!(camera.told().iter().filter(|told| told.1 == "left" || told.1 == "end").count(), 0);
    // Another stream is another matter.
    camera.ms = 0;
    camera.show(&[]);
    assert_eq!(camera.stat("ended"), 1);
}

#[test]
fn nobody_is_held_who_may_have_left_while_analysis_was_off() {
    for moves in [false, true] {
        let mut camera = Camera::new(&[("update-interval", "1")]);
        for _ in 0..5 {
            camera.show(&[(1, 100.0)]);
        }
        camera.told();
        camera.off = true;
        for n in 0..50 {
            camera.give(None, Some(moves && n == 20), gst::Buffer::new());
        }
        assert_eq!(camera.told(), [], "nothing is said while analysis is off");
        camera.off = false;
        camera.still();
        let told = camera.told();
        assert_eq!(told.is_empty(), moves, "{told:?}");
        camera.show(&[]);
        for _ in 0..20 {
            camera.still();
        }
        assert_eq!(camera.stat("ended"), 1);
    }
}

#[test]
fn who_stands_still_behind_a_gate_loiters_and_fulfils_rules() {
    let rules = r#"[{"id":"long","zones":["left"],"dwell":3,"cooldown":0}]"#;
    let mut camera = Camera::new(&[("zones", LEFT), ("rules", rules), ("update-interval", "0")]);
    for _ in 0..3 {
        camera.show(&[(1, 100.0)]);
    }
    camera.told();
    for _ in 0..20 {
        camera.still();
    }
    assert_eq!(camera.told(), [row("nvr-zone", "loitering", 1), row("nvr-alert", "long", 1)]);
}

#[test]
fn what_is_refused_while_playing_does_not_keep_it_from_starting_again() {
    let mut camera = Camera::new(&[("zones", LEFT)]);
    camera.show(&[]);
    camera.element.set_property("zones", "[{}]");
    camera.element.set_property("rules", "{");
    camera.element.set_state(gst::State::Ready).unwrap();
    camera.element.set_state(gst::State::Paused).unwrap();
    assert_eq!(camera.element.property::<String>("zones"), LEFT);
}

#[test]
fn an_instance_id_that_is_no_part_of_a_topic_is_refused() {
    let camera = Camera::new(&[("instance-id", "hall")]);
    for bad in ["a/b", "ack", "x y"] {
        camera.element.set_property("instance-id", bad);
        assert_eq!(camera.element.property::<String>("instance-id"), "hall");
    }
    assert_eq!(camera.warnings().len(), 3);
}

#[test]
fn a_rule_that_names_a_zone_that_is_not_there_is_warned_about() {
    let rules = r#"[{"id":"a","cameras":[0],"zones":["left","lfet"]},{"id":"b","zones":["elsewhere"]}]"#;
    let camera = Camera::new(&[("zones", LEFT), ("rules", rules)]);
    let about = |camera: &Camera| camera.warnings().iter().filter(|w| w.contains("lfet")).count();
    camera.element.set_state(gst::State::Ready).unwrap();
    camera.element.set_state(gst::State::Paused).unwrap();
    let told = about(&camera);
    assert!(told >= 1);
    camera.element.set_property("zones", LEFT.replace("left", "lfet"));
    assert!(camera.warnings().iter().any(|w| w.contains("\"left\"")), "{:?}", camera.warnings());
}

#[test]
fn cameras_that_stop_together_wait_once() {
    gst::init().unwrap();
    let [one, two, alone] = std::array::from_fn(|_| glib::Object::new::<NvrZones>());
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&one, &two]).unwrap();
    let until = one.imp().farewell();
    assert_eq!(two.imp().farewell(), until);
    assert!(alone.imp().farewell() >= until);
}

#[test]
fn zones_change_while_playing_and_mistakes_change_nothing() {
    let mut camera = Camera::new(&[("zones", LEFT)]);
    for _ in 0..4 {
        camera.show(&[(1, 100.0)]);
    }
    camera.told();
    let right = LEFT
        .replace("\"left\"", "\"right\"")
        .replace("[[0,0],[0.5,0],[0.5,1],[0,1]]", "[[0.5,0],[1,0],[1,1],[0.5,1]]");
    camera.element.set_property("zones", &right);
    camera.show(&[(1, 100.0)]);
    assert_eq!(camera.told()[0], row("nvr-zone", "left", 1));
    camera.element.set_property("zones", "[{}]");
    assert_eq!(camera.element.property::<String>("zones"), right);
    for _ in 0..4 {
        camera.show(&[(1, 500.0)]);
    }
    assert!(camera.told().contains(&row("nvr-zone", "entered", 1)));
    camera.element.set_property("enabled", false);
    camera.show(&[(1, 500.0)]);
    assert_eq!(camera.told(), [row("nvr-zone", "left", 1), row("nvr-object", "end", 1)]);
    camera.element.set_property("enabled", true);
    camera.element.set_property("min-seen", 1u32);
    camera.element.set_property("min-score", 0.9f32);
    camera.show(&[(2, 100.0)]);
    assert_eq!(camera.told(), [], "not sure enough");
    camera.element.set_property("min-score", 0.7f32);
    camera.element.set_property("update-interval", 0.2f64);
    camera.element.set_property("gone-after", 0.3f64);
    camera.show(&[(2, 100.0)]);
    camera.show(&[(2, 100.0)]);
    camera.show(&[]);
    camera.show(&[]);
    let kinds: Vec<_> = camera.told().into_iter().map(|t| t.1).collect();
    assert_eq!(kinds, ["new", "update", "end"]);
}

#[test]
fn settings_that_make_no_sense_are_an_error_at_the_start_and_rules_are_not_read_back() {
    gst::init().unwrap();
    for (name, text) in [("zones", "[{}]"), ("rules", r#"[{"id":"a","webhook":"x"}]"#), ("rules", "{")] {
        let element: gst::Element = glib::Object::new::<NvrZones>().upcast();
        element.set_property("publish", false);
        element.set_property(name, text);
        assert!(element.set_state(gst::State::Paused).is_err(), "{name}={text}");
        element.set_property(name, "");
        element.set_state(gst::State::Paused).unwrap();
        element.set_state(gst::State::Null).unwrap();
        let spec = element.find_property("rules").unwrap();
        assert!(!spec.flags().contains(glib::ParamFlags::READABLE));
    }
}

#[test]
fn detections_without_ids_are_warned_about_once() {
    let mut camera = Camera::new(&[]);
    for _ in 0..120 {
        let mut buffer = gst::Buffer::new();
        let car = Detection {
            class_name: "car".into(),
            class_id: None,
            confidence: 0.9,
            rect: Rect::new(10.0, 10.0, 50.0, 50.0),
            tracker_id: None,
        };
        meta::add_detections(buffer.get_mut().unwrap(), 640, 360, &[car]);
        camera.give(Some(&[]), None, buffer);
    }
    let warnings = camera.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(camera.stat("objects"), 0);
}
