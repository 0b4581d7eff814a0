//! The pipelines that README.md shows, run by the real `gst-launch-1.0` with the built plugin, against a real
//! mosquitto: what is between the first word and the last is taken from the page.

use std::{
    io::Read as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nvr_core::event::DetectionEvent;
use nvr_launch::rtsp_server::{Camera, RtspServer, TestSrc};
use nvr_tests::{data, markdown, plugin::PluginFolder};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

/// More than the slowest machine needs; reached only where something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// mosquitto on a free port of this machine, and a subscriber to everything.
struct Broker {
    port: u16,
    events: mpsc::Receiver<(String, Vec<u8>)>,
    _server: Running,
    _folder: tempfile::TempDir,
}

impl Broker {
    fn start() -> Self {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mosquitto");
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("mosquitto.conf");
        // The port is free when it is asked for; somebody else may take it before mosquitto does.
        for _ in 0..5 {
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n");
            std::fs::write(&file, text).expect("configuration file");
            let server = Command::new(program)
                .arg("-c")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("mosquitto is installed");
            let server = Running(server);
            if let Some(events) = subscribe(port) {
                return Self { port, events, _server: server, _folder: folder };
            }
        }
        panic!("mosquitto did not start");
    }

    /// `count` events of one source, or those until nothing more comes within the patience.
    fn events(&self, source: u32, count: usize) -> Vec<DetectionEvent> {
        let deadline = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        while events.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((topic, payload)) = self.events.recv_timeout(left) else { break };
            assert_eq!(topic, format!("nvr/detections/{source}"));
            events.push(DetectionEvent::from_json(&payload).expect("an event of the protocol"));
        }
        events
    }
}

fn subscribe(port: u16) -> Option<mpsc::Receiver<(String, Vec<u8>)>> {
    let mut options = MqttOptions::new("test", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, 16);
    let (sender, events) = mpsc::channel();
    let (ready_sender, ready) = mpsc::channel();
    thread::spawn(move || {
        let started = Instant::now();
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let _ = client.subscribe("nvr/#", QoS::AtMostOnce);
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    let _ = ready_sender.send(());
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = publish.topic.clone();
                    if sender.send((topic, publish.payload.to_vec())).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                // Not up yet.
                Err(_) if started.elapsed() < Duration::from_secs(5) => {
                    thread::sleep(Duration::from_millis(20))
                }
                Err(_) => return,
            }
        }
    });
    ready.recv_timeout(Duration::from_secs(10)).ok().map(|()| events)
}

/// The pipeline of README.md whose source is `source`, with the places in capitals filled in.
fn readme(source: &str, replace: &[(&str, &str)], broker: &Broker) -> Vec<String> {
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
        words.iter_mut().for_each(|word| *word = word.replace(from, to));
    }
    assert!(words.iter().any(|word| word == "nvrmqttsink"), "{words:?}");
    words.push(format!("broker=mqtt://127.0.0.1:{}", broker.port));
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
    let (plugin, broker) = (PluginFolder::new(), Broker::start());
    let video = plugin.path().join("street.mp4");
    let record = format!(
        "nvrtestsrc seed=11 num-buffers=50 ! video/x-raw,width=640,height=360,framerate=25/1 \
         ! x264enc speed-preset=veryfast threads=1 ! mp4mux ! filesink location={}",
        video.display()
    );
    run(&plugin, &markdown::words(&record));

    let video = video.display().to_string();
    run(&plugin, &readme("filesrc", &[("street.mp4", &video), ("yolox-nano", "demo")], &broker));
    let events = broker.events(0, 50);
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
    let (plugin, broker) = (PluginFolder::new(), Broker::start());
    let (model, video) = (model.display().to_string(), video.display().to_string());
    run(&plugin, &readme("filesrc", &[("street.mp4", &video), ("yolox-nano", &model)], &broker));
    let events = broker.events(0, 71);
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
    let (plugin, broker) = (PluginFolder::new(), Broker::start());
    let server = RtspServer::start().expect("RTSP server");
    let scene = TestSrc { seed: 5, width: 640, height: 360, fps: 10, ..TestSrc::default() };
    let uri = server.add_camera("camera", &Camera::TestSrc(scene)).expect("camera");

    for source in ["rtspsrc", "nvrsrc"] {
        let arguments = readme(source, &[("rtsp://CAMERA/PATH", &uri), ("yolox-nano", "demo")], &broker);
        let running = launch(&plugin, &arguments);
        let events = broker.events(0, 10);
        if events.len() < 10 {
            let mut running = running;
            let _ = running.0.kill();
            panic!("{source}: {} events. {}", events.len(), finish(running).1);
        }
        assert!(events.iter().any(|event| !event.detections.is_empty()), "{source}: nothing was seen");
        assert!(events.iter().all(|event| event.latency_ms.is_some_and(|ms| ms < 5000.0)), "{source}");

        let pid = running.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
        let (_, complaints) = finish(running);
        assert!(
            !complaints.contains("CRITICAL") && !complaints.contains("panicked"),
            "{source}: {complaints}"
        );
        // What was still on its way belongs to this run.
        while broker.events.try_recv().is_ok() {}
    }
}
