use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use nvr_core::alert::Alert;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::event::InZones;
use nvr_core::geometry::Rect;
use nvr_core::lifecycle::{LifecycleEvent, Phase};

use super::*;
use crate::meta;
use crate::mqtt::fake::{FakeBroker, Manner};

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
        Self { element, harness, bus, warnings: RefCell::default(), ms: 0, zones: None }
    }

    /// One frame, a fifth of a second later, with these objects: track, x of its middle.
    fn show(&mut self, objects: &[(u64, f32)]) {
        self.give(Some(objects), None, gst::Buffer::new());
    }

    fn give(&mut self, objects: Option<&[(u64, f32)]>, motion: Option<bool>, mut buffer: gst::Buffer) {
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(gst::ClockTime::from_mseconds(self.ms));
            let capture = CaptureTime { unix_ns: (EPOCH_MS + self.ms) * 1_000_000, clock: Clock::Ntp };
            let analysis = objects.map(|_| Analysis {
                model_id: "m".into(),
                inference_time_ms: 1.0,
                capture: None,
                frame_id: None,
            });
            meta::set_facts(buffer, &FrameFacts { frame_id: None, capture: Some(capture), analysis });
            if let Some(motion) = motion {
                meta::mark_motion(buffer, motion);
            }
            let detections: Vec<_> = objects
                .unwrap_or_default()
                .iter()
                .map(|&(track, x)| Detection {
                    class_name: "person".into(),
                    class_id: Some(0),
                    confidence: 0.8,
                    rect: Rect::new(x - 20.0, 100.0, 40.0, 100.0),
                    tracker_id: Some(track),
                })
                .collect();
            meta::add_detections(buffer, 640, 360, &detections);
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
fn events_reach_the_broker_and_the_end_of_the_stream_ends_lives_start_after_start() {
    let broker = FakeBroker::start(Manner::Polite);
    let mut camera = Camera::new(&[("zones", LEFT), ("source-id", "3"), ("broker", &broker.url())]);
    camera.element.set_property("instance-id", "test");
    camera.element.set_state(gst::State::Ready).unwrap();
    camera.element.set_property("publish", true);
    camera.harness.play();
    let caps = "video/x-raw,format=I420,width=640,height=360,framerate=5/1".parse::<gst::Caps>().unwrap();
    for round in 1..=2u64 {
        camera.harness.set_src_caps(caps.clone());
        for _ in 0..5 {
            camera.show(&[(round, 100.0)]);
        }
        // The first life ends with the element, the second one with the stream.
        if round == 1 {
            camera.element.set_state(gst::State::Ready).unwrap();
            camera.harness.play();
        } else {
            assert!(camera.harness.push_event(gst::event::Eos::new()));
        }
        let from = (round as usize - 1) * 4;
        let seen =
            broker.until(|seen| seen.messages.len() >= from + 4, |seen| seen.messages[from..].to_vec());
        let lives: Vec<LifecycleEvent> = seen
            .iter()
            .filter(|(topic, _, qos)| topic == "nvr/events/3" && *qos == 1)
            .map(|(_, payload, _)| serde_json::from_slice(payload).unwrap())
            .collect();
        assert_eq!(lives.iter().map(|e| e.phase).collect::<Vec<_>>(), [Phase::New, Phase::End]);
        let end = lives.last().unwrap();
        assert_eq!((end.instance_id.as_str(), end.source_id, end.tracker_id), ("test", 3, round));
        assert_eq!((end.frame_width, end.zones[0].name.as_str(), end.zones[0].dwell_s), (640, "left", 0.8));
        let zones = seen.iter().filter(|(topic, ..)| topic == "nvr/zones/3").count();
        assert_eq!(zones, 2, "entered and left");
        if round == 1 {
            assert_eq!(end.start, "2025-10-25T10:30:00.000Z");
            assert_eq!(end.timestamp, "2025-10-25T10:30:00.800Z");
        }
    }
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

/// A web server that gives these answers, one for each request, each once it is let; it gives the bodies.
fn receiver(
    answers: &[&'static str],
    let_go: Option<mpsc::Receiver<()>>,
) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://127.0.0.1:{}/hook?token=geheim", listener.local_addr().unwrap().port());
    let answers = answers.to_vec();
    let thread = std::thread::spawn(move || {
        let mut bodies = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            bodies.push(body_of(&mut stream));
            if let Some(let_go) = &let_go
                && let_go.recv().is_err()
            {
                return bodies;
            }
            stream
                .write_all(
                    format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes(),
                )
                .unwrap();
        }
        bodies
    });
    (address, thread)
}

fn body_of(stream: &mut TcpStream) -> String {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut part).unwrap();
        text.push_str(&String::from_utf8_lossy(&part[..n]));
        let length = text.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
        });
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        if let Some((body, length)) = body.zip(length)
            && body.len() >= length
        {
            return body;
        }
        assert!(n > 0, "the request ends early: {text}");
    }
}

/// A camera that publishes.
fn publishing(broker: &FakeBroker, properties: &[(&str, &str)]) -> Camera {
    let mut camera = Camera::new(properties);
    camera.element.set_state(gst::State::Ready).unwrap();
    camera.element.set_property("broker", broker.url());
    camera.element.set_property("publish", true);
    camera.harness.play();
    let caps = "video/x-raw,format=I420,width=640,height=360,framerate=5/1".parse::<gst::Caps>().unwrap();
    camera.harness.set_src_caps(caps);
    camera
}

#[test]
fn a_web_address_that_fails_gets_the_alert_again() {
    let (address, thread) = receiver(&["503 Busy", "204 No Content"], None);
    let (lost, refused) = receiver(&["404 Not Found"], None);
    let rules = serde_json::json!([{"id": "again", "webhook": address}, {"id": "never", "webhook": lost}]);
    let mut camera = Camera::new(&[("rules", &rules.to_string())]);
    for _ in 0..4 {
        camera.show(&[(5, 100.0)]);
    }
    // The end tries again at once what waits for its next attempt.
    refused.join().unwrap();
    camera.element.set_state(gst::State::Ready).unwrap();
    let bodies = thread.join().unwrap();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1]);
    let names = ["alerts", "notified", "notify-failed", "notify-dropped", "notify-retried", "notify-waiting"];
    assert_eq!(names.map(|name| camera.stat(name)), [2, 1, 1, 0, 1, 0]);
    let warnings = camera.warnings();
    assert!(
        warnings.iter().any(|w| w.contains("alert again: the web address answered 503; it is tried again"))
    );
    assert!(warnings.iter().any(|w| w.contains("alert never: the web address answered 404")));
    assert!(warnings.iter().all(|w| !w.contains("geheim")), "{warnings:?}");
}

#[test]
fn a_slow_web_address_holds_up_no_picture_and_what_it_costs_is_counted() {
    gst::init().unwrap();
    if gst::ElementFactory::find("jpegenc").is_none() || gst::ElementFactory::find("videocrop").is_none() {
        println!("SKIPPED: jpegenc and videocrop of gst-plugins-good are missing");
        return;
    }
    let broker = FakeBroker::start(Manner::Polite);
    let (answer, let_go) = mpsc::channel();
    let (address, thread) = receiver(&["204 No Content"; 65], Some(let_go));
    let rules = serde_json::json!([{"id": "slow", "cooldown": 0, "webhook": address}]);
    let mut camera = publishing(&broker, &[("rules", &rules.to_string()), ("min-seen", "1")]);
    camera.element.set_property("snapshots", true);
    let picture = || gst::Buffer::from_mut_slice(vec![100u8; 640 * 360 * 3 / 2]);
    camera.give(Some(&[(1, 300.0)]), None, picture());
    broker.until(|seen| seen.messages.iter().any(|m| m.0 == "nvr/snapshots/0/1"), |_| ());
    camera.wait(&|camera| camera.stat("notified") == 1);
    assert_eq!(
        (camera.stat("alerts"), camera.stat("notify-waiting")),
        (1, 1),
        "the address has not answered"
    );
    camera.element.set_property("snapshots", false);
    // One is with the address and 64 wait; which of the two the first one is, is up to its thread.
    for track in 2..=70 {
        camera.give(Some(&[(track, 300.0)]), None, picture());
    }
    let dropped = camera.stat("notify-dropped");
    assert!((5..=6).contains(&dropped), "{dropped}");
    assert_eq!(
        camera.warnings().iter().filter(|w| w.contains("alert slow to its web address was dropped")).count(),
        1
    );
    for _ in 0..65 {
        answer.send(()).unwrap();
    }
    // All that were not dropped arrive; the picture is among what was done.
    camera.wait(&|camera| camera.stat("notified") == 1 + 70 - dropped);
    assert_eq!((camera.stat("alerts"), camera.stat("notify-waiting")), (70, 0));
    drop(answer);
    drop(thread);
}

#[test]
fn alerts_reach_broker_webhook_and_command() {
    let broker = FakeBroker::start(Manner::Polite);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alert.json");
    let (address, thread) = receiver(&["204 No Content"], None);
    let rules = serde_json::json!([
        {"id": "yard", "objects": ["person"], "zones": ["left"], "dwell": 0.5, "webhook": address,
         "command": ["sh", "-c", format!("cat > {}", file.display())]},
        {"id": "broken", "command": ["/nonexistent/program"]},
        {"id": "other-camera", "cameras": [9]},
    ]);
    let mut camera =
        Camera::new(&[("zones", LEFT), ("rules", &rules.to_string()), ("broker", &broker.url())]);
    camera.element.set_state(gst::State::Ready).unwrap();
    camera.element.set_property("publish", true);
    camera.harness.play();
    let caps = "video/x-raw,format=I420,width=640,height=360,framerate=5/1".parse::<gst::Caps>().unwrap();
    camera.harness.set_src_caps(caps);
    for _ in 0..8 {
        camera.show(&[(5, 100.0)]);
    }
    let alerts: Vec<_> = camera.told().into_iter().filter(|t| t.0 == "nvr-alert").collect();
    assert_eq!(alerts, [row("nvr-alert", "broken", 5), row("nvr-alert", "yard", 5)]);
    let body: Alert = serde_json::from_str(&thread.join().unwrap()[0]).unwrap();
    assert_eq!((body.rule_id.as_str(), body.zone.as_deref(), body.tracker_id), ("yard", Some("left"), 5));
    assert!((0.5..=0.8).contains(&body.dwell_s), "{body:?}");
    camera.element.set_state(gst::State::Ready).unwrap();
    let written: Alert = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written, body);
    assert_eq!((camera.stat("notified"), camera.stat("notify-failed")), (2, 1));
    let warnings = camera.warnings();
    assert!(
        warnings.iter().any(|w| w.contains("alert broken: /nonexistent/program cannot be started")),
        "{warnings:?}"
    );
    broker.until(|seen| seen.messages.iter().any(|m| m.0 == "nvr/alerts/yard"), |_| ());
}

#[test]
fn the_heat_map_of_a_day_goes_on_after_a_restart() {
    gst::init().unwrap();
    if gst::ElementFactory::find("pngenc").is_none() {
        println!("SKIPPED: pngenc of gst-plugins-good is missing");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut heat = Vec::new();
    for _ in 0..2 {
        let mut camera = Camera::new(&[("source-id", "4")]);
        camera.element.set_state(gst::State::Ready).unwrap();
        camera.element.set_property("heatmap", folder.path().display().to_string());
        camera.harness.play();
        let caps = "video/x-raw,format=I420,width=640,height=360,framerate=5/1".parse::<gst::Caps>().unwrap();
        camera.harness.set_src_caps(caps);
        for _ in 0..11 {
            camera.show(&[(1, 320.0)]);
        }
        camera.element.set_state(gst::State::Ready).unwrap();
        let files = std::fs::read_dir(folder.path().join("4")).unwrap().map(|entry| entry.unwrap().path());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            match file.extension().and_then(|e| e.to_str()) {
                Some("png") => assert!(bytes.starts_with(b"\x89PNG")),
                Some("heat") => heat.push(nvr_core::zones::HeatMap::from_bytes(&bytes).unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
    // Ten fifths of a second, where the lower edge of the box is.
    let seconds: Vec<f32> = heat.iter().map(|map| map.seconds(80, 49).max(map.seconds(80, 50))).collect();
    assert!((seconds[0] - 2.0).abs() < 0.01 && (seconds[1] - 4.0).abs() < 0.01, "{seconds:?}");
}

#[test]
fn the_best_view_of_an_object_is_a_jpeg() {
    gst::init().unwrap();
    if gst::ElementFactory::find("jpegenc").is_none() || gst::ElementFactory::find("videocrop").is_none() {
        println!("SKIPPED: jpegenc and videocrop of gst-plugins-good are missing");
        return;
    }
    let broker = FakeBroker::start(Manner::Polite);
    let mut camera = Camera::new(&[("broker", &broker.url())]);
    camera.element.set_state(gst::State::Ready).unwrap();
    camera.element.set_property("publish", true);
    camera.element.set_property("snapshots", true);
    camera.harness.play();
    let caps = "video/x-raw,format=I420,width=640,height=360,framerate=5/1".parse::<gst::Caps>().unwrap();
    camera.harness.set_src_caps(caps);
    for _ in 0..4 {
        let buffer = gst::Buffer::from_mut_slice(vec![100u8; 640 * 360 * 3 / 2]);
        camera.give(Some(&[(5, 300.0)]), None, buffer);
    }
    let jpeg = broker.until(
        |seen| seen.messages.iter().any(|m| m.0 == "nvr/snapshots/0/5"),
        |seen| seen.messages.iter().find(|m| m.0 == "nvr/snapshots/0/5").unwrap().1.clone(),
    );
    assert!(jpeg.starts_with(&[0xff, 0xd8, 0xff]) && jpeg.len() > 300, "{} bytes", jpeg.len());
    // Start of frame: height and width of what surrounds the person.
    let at = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let number = |n: usize| usize::from(jpeg[at + n]) << 8 | usize::from(jpeg[at + n + 1]);
    assert_eq!((number(7), number(5)), (60, 150));
    let event = broker.look(|seen| seen.messages.iter().find(|m| m.0 == "nvr/events/0").unwrap().1.clone());
    let event: LifecycleEvent = serde_json::from_slice(&event).unwrap();
    assert_eq!(event.snapshot.as_deref(), Some("nvr/snapshots/0/5"));
}
