//! The pipelines that README.md shows, run by the real `gst-launch-1.0` with the built plugin, against a real
//! mosquitto: what is between the first word and the last is taken from the page.

use std::{
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nvr_core::event::DetectionEvent;
use nvr_launch::rtsp_server::{Camera, RtspServer, TestSrc};
use nvr_tests::{
    data, markdown,
    mosquitto::{Access, Mosquitto, Received},
    plugin::PluginFolder,
};

/// More than the slowest machine needs; reached only where something is broken.
const PATIENCE: Duration = Duration::from_mins(1);

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the end, and for what it printed to standard error.
fn finish(mut running: Running) -> (ExitStatus, String) {
    let mut stderr = running.0.stderr.take().expect("stderr is piped");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    // A child has no wait with a time limit: somebody else ends it when the time is up.
    let pid = running.0.id().to_string();
    let (done, over) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    let complaints = reader.join().expect("the reader does not panic");
    let status = running.0.wait().expect("the child can be waited for");
    drop(done);
    guard.join().expect("the guard does not panic");
    (status, complaints)
}

/// What has come so far from one camera.
fn events(received: &[Received]) -> Vec<DetectionEvent> {
    received
        .iter()
        .map(|message| {
            assert_eq!(message.topic, "nvr/detections/0");
            DetectionEvent::from_json(&message.payload).expect("an event of the protocol")
        })
        .collect()
}

/// The pipeline of README.md whose source is `source`, with the places in capitals filled in.
fn readme(source: &str, replace: &[(&str, &str)], broker: &Mosquitto) -> Vec<String> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(page).expect("README.md");
    let mut words = markdown::commands(&text)
        .iter()
        .map(|command| markdown::words(command))
        .find(|words| {
            words.first().is_some_and(|w| w == "gst-launch-1.0") && words.get(1).is_some_and(|w| w == source)
        })
        .unwrap_or_else(|| panic!("README.md shows no pipeline that starts with {source}"));
    for (from, to) in replace {
        assert!(words.iter().any(|word| word.contains(from)), "no {from} in {words:?}");
        for word in &mut words {
            *word = word.replace(from, to);
        }
    }
    assert!(words.iter().any(|word| word == "nvrmqttsink"), "{words:?}");
    words.push(format!("broker={}", broker.url()));
    words.split_off(1)
}

fn launch(plugin: &PluginFolder, arguments: &[String]) -> Running {
    let child = plugin
        .tool("gst-launch-1.0")
        .arg("-q")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gst-launch-1.0 is installed with GStreamer's tools");
    Running(child)
}

fn run(plugin: &PluginFolder, arguments: &[String]) {
    let (status, complaints) = finish(launch(plugin, arguments));
    assert!(status.success(), "gst-launch-1.0 {}: {status}\n{complaints}", arguments.join(" "));
    assert!(!complaints.contains("CRITICAL"), "{complaints}");
}

fn share(events: &[DetectionEvent], class: &str) -> f64 {
    let with = events.iter().filter(|event| event.detections.iter().any(|d| d.class_name == class)).count();
    with as f64 / events.len().max(1) as f64
}

#[test]
fn from_a_file() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let (plugin, subscriber) = (PluginFolder::new(), broker.subscribe("nvr/#"));
    let video = plugin.path().join("street.mp4");
    let record = format!(
        "nvrtestsrc seed=11 num-buffers=50 ! video/x-raw,width=640,height=360,framerate=25/1 \
         ! x264enc speed-preset=veryfast threads=1 ! mp4mux ! filesink location={}",
        video.display()
    );
    run(&plugin, &markdown::words(&record));

    let video = video.display().to_string();
    run(&plugin, &readme("filesrc", &[("street.mp4", &video), ("yolox-nano", "demo")], &broker));
    let events = events(&subscriber.wait(50).expect("an event for every frame"));
    assert_eq!(events.len(), 50, "every frame of the file is one event");
    for pair in events.windows(2) {
        assert!(pair[0].frame_id < pair[1].frame_id, "events come in the order of the frames");
    }
    for event in &events {
        assert_eq!((event.model_id.as_str(), event.source_id), ("demo", 0));
        assert_eq!((event.frame_width, event.frame_height), (640, 360));
        assert!(event.detections.iter().all(|d| ["person", "car", "dog"].contains(&d.class_name.as_str())));
    }
    let seen = events.iter().filter(|event| !event.detections.is_empty()).count();
    assert!(seen >= 40, "something is on nearly every frame, but was seen on {seen} of 50 only");
}

#[test]
fn from_a_file_with_a_real_model() {
    let (Some(model), Some(video)) =
        (data::shared("models/yolox_nano_416.onnx"), data::shared("videos/x_tud-campus_h264base.mp4"))
    else {
        return;
    };
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let (plugin, subscriber) = (PluginFolder::new(), broker.subscribe("nvr/#"));
    let (model, video) = (model.display().to_string(), video.display().to_string());
    run(&plugin, &readme("filesrc", &[("street.mp4", &video), ("yolox-nano", &model)], &broker));
    let events = events(&subscriber.wait(71).expect("an event for every frame"));
    assert_eq!(events.len(), 71, "every frame of the file is one event");
    assert!(events.iter().all(|event| event.model_id == "yolox_nano_416"));
    assert!(
        share(&events, "person") > 0.95,
        "people walk through all of it, seen on {}",
        share(&events, "person")
    );
}

#[test]
fn from_a_camera() {
    gst::init().expect("GStreamer starts");
    gstnvr::plugin_register_static().expect("the plugin registers");
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let plugin = PluginFolder::new();
    let server = RtspServer::start().expect("RTSP server");
    let scene = TestSrc { seed: 5, width: 640, height: 360, fps: 10, ..TestSrc::default() };
    let uri = server.add_camera("camera", &Camera::TestSrc(scene)).expect("camera");

    // The filter is part of the subscriber's name: the second must not get what was kept for the first.
    for (source, filter) in [("rtspsrc", "nvr/#"), ("nvrsrc", "nvr/detections/#")] {
        let subscriber = broker.subscribe(filter);
        let arguments = readme(source, &[("rtsp://CAMERA/PATH", &uri), ("yolox-nano", "demo")], &broker);
        let mut running = launch(&plugin, &arguments);
        let received = subscriber.wait(10).unwrap_or_else(|error| {
            let _ = running.0.kill();
            panic!("{source}: {error}. {:?}", running.0.stderr.take().map(std::io::read_to_string));
        });
        let events = events(&received);
        assert!(events.iter().any(|event| !event.detections.is_empty()), "{source}: nothing was seen");
        assert!(events.iter().all(|event| event.latency_ms.is_some_and(|ms| ms < 5000.0)), "{source}");

        let pid = running.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        let (_, complaints) = finish(running);
        assert!(
            !complaints.contains("CRITICAL") && !complaints.contains("panicked"),
            "{source}: {complaints}"
        );
    }
}
