//! What leaves the process: messages to the broker, web addresses, programs, pictures.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use nvr_core::alert::Alert;
use nvr_core::lifecycle::{LifecycleEvent, Phase};

use super::*;
use crate::mqtt::fake::{FakeBroker, Manner};
use crate::nvrzones::{heat, notify};

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
fn publishing_can_be_switched_on_and_off_while_playing() {
    let broker = FakeBroker::start(Manner::Polite);
    let mut camera = Camera::new(&[]);
    camera.element.set_property("broker", broker.url());
    let show = |camera: &mut Camera, track| (0..3).for_each(|_| camera.show(&[(track, 100.0)]));
    show(&mut camera, 1);
    camera.element.set_property("publish", true);
    show(&mut camera, 2);
    broker.until(|seen| seen.messages.len() == 1, |_| ());
    camera.element.set_property("publish", false);
    show(&mut camera, 3);
    camera.element.set_property("publish", true);
    show(&mut camera, 4);
    let seen = broker.until(|seen| seen.messages.len() >= 2, |seen| seen.messages.clone());
    let tracks: Vec<u64> = seen
        .iter()
        .map(|(_, json, _)| serde_json::from_slice::<LifecycleEvent>(json).unwrap().tracker_id)
        .collect();
    assert_eq!(tracks, [2, 4]);
    camera.element.set_property("publish", false);
    camera.element.set_state(gst::State::Ready).unwrap();
    // What cannot be joined is said, and the stream goes on.
    camera.element.set_property("broker", "tcp://nowhere");
    camera.harness.play();
    camera.element.set_property("publish", true);
    assert!(camera.warnings().iter().any(|w| w.contains("Events are not published")));
}

#[test]
fn a_map_that_cannot_be_read_is_not_written_over() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut heat = heat::Heat::default();
    let part = |heat: &mut heat::Heat| {
        heat.add(0, EPOCH_MS * 1_000_000, None, &[]);
        heat.add(1_000_000_000, EPOCH_MS * 1_000_000, None, &[[0.5, 0.5]]);
        heat.take().unwrap()
    };
    let part = part(&mut heat);
    // Its name depends on the machine's time zone.
    let _ = part.write(folder.path());
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "heat"))
        .unwrap();
    std::fs::write(&file, b"half of it").unwrap();
    let _ = part.write(folder.path());
    let mut damaged = file.clone().into_os_string();
    damaged.push(".damaged");
    assert_eq!(std::fs::read(damaged).unwrap(), b"half of it");
    assert!(nvr_core::zones::HeatMap::from_bytes(&std::fs::read(&file).unwrap()).is_some());
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let error = part.write(folder.path()).unwrap_err();
    assert!(error.contains(".heat") && file.is_dir(), "{error}");
}

#[test]
fn a_map_is_written_though_time_begins_anew() {
    let mut heat = heat::Heat::default();
    heat.add(1_000_000_000_000, EPOCH_MS * 1_000_000, None, &[]);
    assert!(!heat.is_due(1_000_000_000_000) && heat.is_due(1_060_000_000_000));
    assert!(heat.is_due(0));
}

#[test]
fn a_rule_that_fails_is_warned_about_once_until_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("works");
    let test = format!("test -e {}", file.display());
    let rules = serde_json::json!([{"id": "r", "cooldown": 0, "command": ["sh", "-c", test]}]);
    let mut camera = Camera::new(&[("rules", &rules.to_string()), ("min-seen", "1")]);
    let mut failed = 0;
    for (works, count) in [(false, 3), (true, 1), (false, 2)] {
        if works {
            std::fs::write(&file, b"").unwrap();
        } else {
            let _ = std::fs::remove_file(&file);
        }
        for _ in 0..count {
            camera.show(&[(camera.ms + 1, 100.0)]);
        }
        camera.wait(&|camera| camera.stat("notify-waiting") == 0);
        failed += if works { 0 } else { count };
        assert_eq!(camera.stat("notify-failed"), failed);
    }
    assert_eq!(camera.warnings().iter().filter(|w| w.contains("alert r: sh failed")).count(), 2);
}

#[test]
fn a_command_that_does_not_read_its_alert_does_not_end_the_process() {
    let name = "nvrzones::tests::outside::a_command_that_does_not_read_its_alert_does_not_end_the_process";
    if !crate::sigpipe::tests::is_own_process(name) {
        return;
    }
    let rules = nvr_core::alert::parse(r#"[{"id":"a","command":["true"]}]"#).unwrap();
    let notifier = notify::Notifier::new(|text| panic!("{text}"));
    // More than a pipe holds.
    let json = vec![b' '; 1 << 20].into();
    notifier.give(notify::Job::Command { rule: rules[0].clone(), json });
    notifier.finish(Instant::now() + Duration::from_mins(1));
    assert_eq!(notifier.counts().sent, 1);
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
fn views_of_tracks_that_are_gone_make_room_and_events_name_only_what_there_is() {
    gst::init().unwrap();
    if gst::ElementFactory::find("jpegenc").is_none() || gst::ElementFactory::find("videocrop").is_none() {
        println!("SKIPPED: jpegenc and videocrop of gst-plugins-good are missing");
        return;
    }
    let broker = FakeBroker::start(Manner::Polite);
    let mut camera = publishing(&broker, &[("snapshots", "true"), ("gone-after", "0.3")]);
    let picture = || gst::Buffer::from_mut_slice(vec![100u8; 640 * 360 * 3 / 2]);
    // Flickers, which never become objects.
    for track in 1000..1070 {
        camera.give(Some(&[(track, 300.0)]), None, picture());
    }
    for _ in 0..3 {
        camera.give(Some(&[(5, 300.0)]), None, picture());
    }
    broker.until(|seen| seen.messages.iter().any(|m| m.0 == "nvr/snapshots/0/5"), |_| ());
    // What is not in a frame that can be read has no view.
    for _ in 0..5 {
        camera.give(Some(&[(6, 300.0)]), None, gst::Buffer::new());
    }
    camera.element.set_state(gst::State::Ready).unwrap();
    let events = broker.look(|seen| {
        let events = seen.messages.iter().filter(|m| m.0 == "nvr/events/0");
        events.map(|m| serde_json::from_slice::<LifecycleEvent>(&m.1).unwrap()).collect::<Vec<_>>()
    });
    assert!(events.len() >= 4, "{events:?}");
    for event in events {
        let expected = (event.tracker_id == 5).then_some("nvr/snapshots/0/5");
        assert_eq!(event.snapshot.as_deref(), expected, "{event:?}");
    }
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
