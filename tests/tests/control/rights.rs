//! How far commands reach, who may give them, and what nobody gets to see.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nvr_core::command::State;
use nvr_launch::rtsp_server::{Camera, Options, RtspServer};
use nvr_tests::{
    control::{Operator, PATIENCE, Process},
    mosquitto::{Access, Mosquitto, PASSWORD},
};
use serde_json::json;

use super::{CAMERA, SMALL, launch, processor};

#[test]
fn commands_choose_no_programs_and_no_files() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let kept = path("kept");
    let url = broker.url();
    let args = [
        "nvr",
        "--instance-id",
        "nvr-a",
        "--streams",
        "0",
        "--uri",
        "rtsp://127.0.0.1:1/x",
        "--model",
        "demo",
        "--broker",
        &url,
        "--location",
        &kept,
    ];
    let mut process = Process::start(launch(&args));
    let mut operator = Operator::new(&url, &[]);
    let before = operator.state("nvr-a", State::Running).parameters;
    let rule = json!([{"id": "x", "command": ["/usr/bin/touch", path("touched")]}]).to_string();
    for (name, value) in [
        ("alerts", rule.clone()),
        ("heatmap", path("heatmap")),
        ("location", path("elsewhere")),
        ("catalog", path("other.db")),
        ("volume_id", "x".into()),
        ("stream_server", "rtsp://127.0.0.1:2".into()),
        ("commands", "all".into()),
        ("uri_schemes", "file".into()),
    ] {
        let params = json!({ (name): value });
        for command in [
            json!({"command": "reconfigure", "params": params}),
            json!({"command": "set", "params": params}),
            json!({"command": "batch", "params": {"commands": [{"command": "reconfigure", "params": params}]}}),
        ] {
            let error = operator.tell("nvr-a", &command.to_string()).unwrap_err();
            // Addresses are checked for their scheme before.
            let expected = format!("{name} comes only from files and the command line");
            assert!(error.contains(&expected), "{command}: {error}");
        }
    }
    let add = json!({"command": "add_stream", "params": {"source_id": 1, "alerts": rule}});
    assert!(operator.tell("nvr-a", &add.to_string()).unwrap_err().contains("comes only from files"));
    operator.tell("nvr-a", r#"{"command":"reconfigure","params":{"latency":200}}"#).unwrap();
    operator.until("a change that is allowed", |operator| {
        operator.client.statuses["nvr-a"].parameters["latency"] == json!(200)
    });
    let mut after = operator.state("nvr-a", State::Running).parameters;
    after.insert("latency".into(), before["latency"].clone());
    assert_eq!(after, before);
    for name in ["touched", "heatmap", "elsewhere", "other.db"] {
        assert!(!Path::new(&path(name)).exists(), "{name}");
    }
    operator.tell("nvr-a", r#"{"command":"stop"}"#).unwrap();
    assert_eq!(process.wait(), Some(0), "{}", process.log());
}

#[test]
fn a_camera_keeps_its_password_when_a_change_is_taken_back() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let credentials = Some(("viewer".into(), "open-sesame".into()));
    let server = RtspServer::with_options(Options { credentials, ..Options::default() }).unwrap();
    if gst::ElementFactory::find("x264enc").is_none() {
        return nvr_tests::skipped("x264enc (gstreamer1.0-plugins-ugly)");
    }
    let line = "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=10/1 \
                ! x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=-1 )";
    let uri = server.add_camera("0", &Camera::Launch(line.into())).unwrap();
    let uri = uri.replace("rtsp://", "rtsp://viewer:open-sesame@");
    let process = processor(&broker, "proc-a", "0", &["--uri", &uri]);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    operator.playing("proc-a", 1);
    let batch = json!({"command": "batch", "params": {"commands": [
        {"command": "change_stream_uri", "params": {"source_id": 0, "uri": "rtsp://127.0.0.1:1/x"}},
        {"command": "add_stream", "params": {"source_id": 3, "uri": CAMERA, "hwaccel": "v4l2"}},
    ]}});
    let error = operator.tell("proc-a", &batch.to_string()).unwrap_err();
    assert!(error.contains("v4l2"), "{error}");
    operator.heard.clear();
    operator.until("events of the camera", |operator| operator.on("nvr/detections/0").len() >= 10);
    let status = operator.playing("proc-a", 1);
    let shown = uri.replace("viewer:open-sesame", "***");
    assert_eq!(status.streams[0].uri.as_deref(), Some(shown.as_str()), "{}", process.log());
}

/// Publishes on a connection of its own, whether that is allowed or not.
fn publish_as(broker: &Mosquitto, user: &str, topic: &str, payload: &str, retain: bool) {
    let mut options = rumqttc::MqttOptions::new(format!("{user}-once"), "127.0.0.1", broker.port());
    options.set_credentials(user, PASSWORD);
    let (client, mut connection) = rumqttc::Client::new(options, 10);
    client.publish(topic, rumqttc::QoS::AtMostOnce, retain, payload).unwrap();
    client.disconnect().unwrap();
    let mut sent = false;
    for event in connection.iter() {
        match event.unwrap() {
            rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(_)) => sent = true,
            rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) => break,
            _ => {}
        }
    }
    assert!(sent, "{user} {topic}");
}

#[test]
fn the_sample_of_rights_lets_each_user_do_its_part() {
    let Some(broker) = Mosquitto::start(Access::Acl) else { return };
    let process = processor(&broker, "proc-a", "0", &[]);
    let mut control = Operator::new(&broker.url_for("control"), &[]);
    control.playing("proc-a", 1);
    control.tell("proc-a", r#"{"command":"set_fps","params":{"max_fps":3}}"#).unwrap();

    // Viewers see everything and move nothing; who publishes camera data cannot command either.
    let mut viewer = Operator::new(&broker.url_for("viewer"), &["nvr/detections/+"]);
    viewer.until("events", |viewer| !viewer.on("nvr/detections/0").is_empty());
    let command = json!({"command": "set_fps", "params": {"max_fps": 9}}).to_string();
    for (user, topic, payload, retain) in [
        ("viewer", "nvr/control/commands", command.as_str(), false),
        ("camera", "nvr/control/commands", command.as_str(), false),
        ("viewer", "nvr/control/commands", r#"{"command":"stop"}"#, false),
        ("camera", "nvr/control/commands", r#"{"command":"stop"}"#, false),
        ("viewer", "nvr/detections/0", r#"{"forged":true}"#, false),
        ("viewer", "nvr/control/status/proc-a", "", true),
        ("control", "nvr/detections/0", r#"{"forged":true}"#, false),
    ] {
        publish_as(&broker, user, topic, payload, retain);
    }
    // The broker has answered all of that by the time this is answered.
    control.tell("proc-a", r#"{"command":"status"}"#).unwrap();
    assert_eq!(control.client.statuses["proc-a"].parameters["max_fps"], json!(3.0));
    let before = viewer.on("nvr/detections/0").len();
    viewer.until("more events", |viewer| viewer.on("nvr/detections/0").len() >= before + 3);
    assert!(viewer.on("nvr/detections/0").iter().all(|event| event.get("forged").is_none()));
    assert_eq!(Operator::new(&broker.url_for("viewer"), &[]).client.alive(), ["proc-a"]);
    let log = process.log();
    assert!(!log.contains("ss%2Fword") && !log.contains("p@ss"), "{log}");
}

#[test]
fn the_sample_of_rights_knows_every_topic() {
    let Some(broker) = Mosquitto::start(Access::Acl) else { return };
    let inside = broker.subscribe("nvr/#");
    let topics = [
        "nvr/detections/0",
        "nvr/events/0",
        "nvr/zones/0",
        "nvr/snapshots/0/1",
        "nvr/alerts/a",
        "nvr/status/metrics/a",
        "nvr/control/status/a",
        "nvr/control/status/ack",
        "nvr/control/commands",
    ];
    let may = |user: &str, topic: &str| match user {
        "camera" => topic != "nvr/control/commands",
        "wall" => topic.starts_with("nvr/status/") || topic.starts_with("nvr/control/status/"),
        "control" => topic == "nvr/control/commands" || topic.starts_with("nvr/events/"),
        _ => false,
    };
    let users = ["viewer", "control", "wall", "camera"];
    let mut expected: Vec<String> = Vec::new();
    for (user, topic) in users.into_iter().flat_map(|user| topics.map(|topic| (user, topic))) {
        publish_as(&broker, user, topic, &format!("{user} {topic}"), false);
        if may(user, topic) {
            expected.push(format!("{user} {topic}"));
        }
    }
    let last = "the end";
    publish_as(&broker, "camera", "nvr/alerts/end", last, false);
    let heard = inside.until(|messages| messages.iter().any(|m| m.payload == last.as_bytes())).unwrap();
    let mut heard: Vec<_> = heard
        .iter()
        .map(|m| String::from_utf8_lossy(&m.payload).into_owned())
        .filter(|text| text != last)
        .collect();
    heard.sort();
    expected.sort();
    assert_eq!(heard, expected);
}

#[test]
fn a_wall_and_a_recorder_hear_what_they_need_under_the_sample_of_rights() {
    let Some(broker) = Mosquitto::start(Access::Acl) else { return };
    let _processor = processor(&broker, "proc-a", "0", &[]);
    let url = broker.url_for("wall");
    let mut args =
        vec!["wall", "--instance-id", "wall-1", "--streams", "0", "--uri", CAMERA, "--broker", &url];
    args.extend(["--output", "none", "--width", "320", "--height", "240", "--fps", "5"]);
    let wall = Process::start(launch(&args));
    let mut control = Operator::new(&broker.url_for("control"), &["nvr/status/metrics/+"]);
    control.playing("wall-1", 1);
    control.tell("wall-1", r#"{"command":"set","params":{"columns":2}}"#).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        control.heard.clear();
        control.tell("wall-1", r#"{"command":"metrics"}"#).unwrap();
        control.until("metrics", |control| !control.on("nvr/status/metrics/wall-1").is_empty());
        if control.on("nvr/status/metrics/wall-1")[0]["streams"][0]["overlay_events"].as_u64() > Some(0) {
            break;
        }
        assert!(Instant::now() < deadline, "no boxes reach the wall: {}", wall.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    // What a recorder listens to, as the user that it is.
    let mut recorder = Operator::new(&broker.url_for("camera"), &["nvr/detections/0"]);
    recorder.until("detections", |recorder| !recorder.on("nvr/detections/0").is_empty());
}

#[test]
fn an_instance_that_may_not_say_who_it_is_says_why_it_takes_no_commands() {
    let Some(broker) = Mosquitto::start(Access::Acl) else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("small.toml");
    std::fs::write(&graph, SMALL).unwrap();
    // Mosquitto confirms what a viewer publishes, and drops it.
    let url = broker.url_for("viewer");
    let process =
        Process::start(launch(&[graph.to_str().unwrap(), "--instance-id", "mute", "--broker", &url]));
    let deadline = Instant::now() + PATIENCE;
    while !process.log().contains("nvr/control/status/mute; its access list") {
        assert!(Instant::now() < deadline, "{}", process.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(process.log().contains("running"), "video goes on: {}", process.log());
}

#[test]
fn no_password_leaves_the_process() {
    let Some(broker) = Mosquitto::start(Access::Acl) else { return };
    let process = processor(&broker, "proc-a", "0", &[]);
    let mut operator = Operator::new(&broker.url_for("control"), &["nvr/#"]);
    operator.playing("proc-a", 1);
    let add = json!({"command": "add_stream", "params": {"source_id": 1, "uri": "rtsp://admin:geheim@127.0.0.1:1/x"}});
    operator.tell("proc-a", &add.to_string()).unwrap();
    let add = json!({"command": "add_stream", "params":
        {"source_id": 2, "uri": "rtsp://127.0.0.1:1/live?channel=1&token=geheim"}});
    operator.tell("proc-a", &add.to_string()).unwrap();
    for uri in ["file://admin:geheim@/x", "gopher://admin:geheim@x/", "admin:geheim@x"] {
        let change = json!({"command": "change_stream_uri", "params": {"source_id": 1, "uri": uri}});
        let answer = operator.tell("proc-a", &change.to_string());
        assert!(answer.is_err_and(|error| !error.contains("geheim")), "{uri}");
    }
    operator.tell("proc-a", r#"{"command":"metrics"}"#).unwrap();
    let status = serde_json::to_string(&operator.client.statuses["proc-a"]).unwrap();
    assert!(status.contains("rtsp://***@127.0.0.1:1/x"), "{status}");
    assert!(status.contains("rtsp://127.0.0.1:1/live?channel=1&token=***"), "{status}");
    let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("geheim");
    let leaks: Vec<_> = operator
        .heard
        .iter()
        .filter(|(topic, payload)| !topic.ends_with("commands") && word(payload))
        .collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    assert!(!status.contains("geheim") && !status.contains("p@ss") && !status.contains("p%40ss"), "{status}");
    assert!(!process.log().contains("geheim"), "{}", process.log());
}
