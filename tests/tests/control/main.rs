//! The control plane from end to end: processes of the launcher, a real mosquitto, commands and their effects.

mod rights;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use nvr_core::command::State;
use nvr_tests::{
    control::{DRAWN, Operator, PATIENCE, Process, data_folder, instance, launcher, second_model},
    mosquitto::{Access, Mosquitto},
    plugin::PluginFolder,
};
use serde_json::json;

const CAMERA: &str = "testsrc://?width=320&height=240&framerate=10";
const SLOW_CAMERA: &str = "testsrc://?width=320&height=240&framerate=5";

fn launch(args: &[&str]) -> Command {
    launcher(env!("CARGO_BIN_EXE_launch"), args)
}

/// A processor with drawn cameras and the built-in model; commands may name drawn cameras too.
fn processor(broker: &Mosquitto, id: &str, streams: &str, more: &[&str]) -> Process {
    let mut args = [&DRAWN[..], &["--max-fps", "5"], more].concat();
    if !more.contains(&"--uri") {
        args.extend(["--uri", CAMERA]);
    }
    instance(env!("CARGO_BIN_EXE_launch"), "processor", id, streams, broker, &args)
}

/// A graph without inference: twenty of them fit on a small machine.
const SMALL: &str = r#"
summary = "a test picture"
kind = "test"
[params.broker]
type = "uri"
default = "mqtt://localhost"
help = "h"
[graph]
launch = "nvrcontrol kind=test instance-id=${instance_id} broker=${broker}"
[camera]
launch = "videotestsrc is-live=true ! video/x-raw,width=16,height=16,framerate=5/1 ! fakesink"
"#;

#[test]
fn every_command_takes_effect_and_is_answered() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let mut process = processor(&broker, "proc-a", "0,1", &[]);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+", "nvr/status/metrics/+"]);
    let status = operator.playing("proc-a", 2);
    assert_eq!((status.kind.as_str(), status.parameters["max_fps"].as_f64()), ("processor", Some(5.0)));
    assert!(!status.client_id.is_empty() && status.uptime_s.is_some());

    let stream = |operator: &Operator, id: u32| {
        operator.client.statuses["proc-a"].streams.iter().find(|stream| stream.source_id == id).cloned()
    };
    for (command, parameter, value) in [
        (r#"{"command":"set_fps","params":{"max_fps":2}}"#, "max_fps", json!(2.0)),
        (r#"{"command":"set_confidence","params":{"confidence":0.3}}"#, "confidence", json!(0.3)),
        (r#"{"command":"set","params":{"classes":"person"}}"#, "classes", json!("person")),
        (r#"{"command":"reconfigure","params":{"max_fps":4,"latency":200}}"#, "latency", json!(200)),
        (r#"{"command":"set_fps","params":{"max_fps":8}}"#, "max_fps", json!(8.0)),
    ] {
        operator.tell("proc-a", command).unwrap();
        operator.until(command, |operator| operator.client.statuses["proc-a"].parameters[parameter] == value);
    }

    // One camera pauses: its events stop, the other's do not.
    operator.playing("proc-a", 2);
    operator.tell("proc-a", r#"{"command":"pause","params":{"source_id":1}}"#).unwrap();
    assert!(stream(&operator, 1).unwrap().paused && !stream(&operator, 0).unwrap().paused);
    operator.heard.clear();
    operator.until("ten events of camera 0", |operator| operator.on("nvr/detections/0").len() >= 10);
    assert_eq!(operator.on("nvr/detections/1").len(), 0);
    operator.tell("proc-a", r#"{"command":"pause"}"#).unwrap();
    operator.state("proc-a", State::Paused);
    operator.tell("proc-a", r#"{"command":"resume"}"#).unwrap();
    operator.state("proc-a", State::Running);
    operator.until("events of camera 1", |operator| !operator.on("nvr/detections/1").is_empty());

    // Cameras come, move, and go.
    let add = json!({"command": "add_stream", "params": {"source_id": 7, "uri": CAMERA, "name": "Gate", "max_fps": 3}});
    operator.tell("proc-a", &add.to_string()).unwrap();
    operator.until("events of camera 7", |operator| !operator.on("nvr/detections/7").is_empty());
    assert_eq!(stream(&operator, 7).unwrap().name.as_deref(), Some("Gate"));
    assert!(operator.tell("proc-a", &add.to_string()).unwrap_err().contains("camera 7 exists already"));
    let moved = format!("{CAMERA}&seed=9");
    let command = json!({"command": "change_stream_uri", "params": {"source_id": 7, "uri": moved}});
    operator.tell("proc-a", &command.to_string()).unwrap();
    operator.until("the new address", |operator| {
        stream(operator, 7).is_some_and(|s| s.uri.as_deref() == Some(&moved))
    });
    operator.tell("proc-a", r#"{"command":"restart","params":{"source_id":7}}"#).unwrap();
    operator.tell("proc-a", r#"{"command":"remove_stream","params":{"source_id":7}}"#).unwrap();
    operator.until("camera 7 gone", |operator| stream(operator, 7).is_none());
    operator.tell("proc-a", r#"{"command":"restart"}"#).unwrap();
    operator.playing("proc-a", 2);

    for enabled in [true, false] {
        let command = json!({"command": "enable_tracking", "params": {"enabled": enabled}});
        operator.tell("proc-a", &command.to_string()).unwrap();
        operator.until("tracking", |operator| {
            operator.client.statuses["proc-a"].parameters["tracking"] == enabled
        });
    }
    operator.heard.clear();
    operator.tell("proc-a", r#"{"command":"metrics"}"#).unwrap();
    operator.until("metrics", |operator| !operator.on("nvr/status/metrics/proc-a").is_empty());
    let metrics = &operator.on("nvr/status/metrics/proc-a")[0];
    assert!(
        metrics["memory_bytes"].as_u64() > Some(1 << 20) && metrics["streams"][0]["analysed"].is_u64(),
        "{metrics}"
    );

    operator.tell("proc-a", r#"{"command":"stop"}"#).unwrap();
    operator.state("proc-a", State::Stopped);
    assert_eq!(process.wait(), Some(0), "{}", process.log());
}

#[test]
fn what_fails_is_undone_and_the_answer_says_why() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let mut process = processor(&broker, "proc-a", "0,1", &[]);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    let before = operator.playing("proc-a", 2);
    for (command, part) in [
        (
            json!({"command": "change_model", "params": {"model_id": "no-such-model"}}),
            "no-such-model was not found",
        ),
        (
            json!({"command": "set", "params": {"max_fps": 9, "model": "no-such-model"}}),
            "no-such-model was not found",
        ),
        (
            json!({"command": "set", "params": {"max_fps": 1, "confidence": 7}}),
            "confidence must be a number from 0 to 1",
        ),
        (json!({"command": "set", "params": {"max_fsp": 1}}), "did you mean \"max_fps\"?"),
        (json!({"command": "set", "params": {"latency": 1}}), "cannot change while the graph runs"),
        (json!({"command": "set_fps", "params": {"max_fps": 1, "source_id": 9}}), "there is no camera 9"),
        (
            json!({"command": "reconfigure", "params": {"max_fps": 9, "broker": "rtsp://elsewhere"}}),
            "broker comes only from files and the command line",
        ),
        // The branch is built anew, does not start, and is built again as it was.
        (json!({"command": "reconfigure", "params": {"max_fps": 9, "hwaccel": "v4l2"}}), "v4l2"),
        (
            json!({"command": "add_stream", "params": {"source_id": 3, "uri": CAMERA, "hwaccel": "v4l2"}}),
            "v4l2",
        ),
        (
            json!({"command": "add_stream", "params": {"source_id": 3, "uri": "http://x/", "model": "demo"}}),
            "scheme",
        ),
        (json!({"command": "remove_stream", "params": {"source_id": 3}}), "there is no camera 3"),
        (
            json!({"command": "batch", "params": {"commands": [
                {"command": "set_fps", "params": {"max_fps": 9}},
                {"command": "pause"},
                {"command": "remove_stream", "params": {"source_id": 0}},
                {"command": "add_stream", "params": {"source_id": 4, "uri": CAMERA}},
                {"command": "add_stream", "params": {"source_id": 4, "uri": CAMERA}},
            ]}}),
            "camera 4 exists already",
        ),
        (
            json!({"command": "batch", "params": {"commands": [
                {"command": "remove_stream", "params": {"source_id": 0}},
                {"command": "change_model", "params": {"model_id": "no-such-model"}},
            ]}}),
            "no-such-model was not found",
        ),
        (
            json!({"command": "batch", "params": {"commands": [
                {"command": "remove_stream", "params": {"source_id": 0}},
                {"command": "add_stream", "params": {"source_id": 4, "uri": CAMERA}},
                {"command": "change_model", "params": {"model_id": "no-such-model"}},
            ]}}),
            "no-such-model was not found",
        ),
    ] {
        let error = operator.tell("proc-a", &command.to_string()).unwrap_err();
        assert!(error.contains(part), "{command}: {error}");
        let after = operator.playing("proc-a", 2);
        assert_eq!(after.parameters, before.parameters, "{command}");
        let names = |status: &nvr_core::command::Status| {
            status.streams.iter().map(|s| (s.source_id, s.uri.clone(), s.paused)).collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&before), "{command}");
    }
    operator.heard.clear();
    operator.until("events of both cameras", |operator| {
        [0, 1].iter().all(|id| !operator.on(&format!("nvr/detections/{id}")).is_empty())
    });
    // All of a batch, where nothing fails.
    let batch = json!({"command": "batch", "params": {"commands": [
        {"command": "remove_stream", "params": {"source_id": 0}},
        {"command": "add_stream", "params": {"source_id": 4, "uri": CAMERA}},
        {"command": "set_fps", "params": {"max_fps": 9}},
        {"command": "pause", "params": {"source_id": 1}},
    ]}});
    operator.tell("proc-a", &batch.to_string()).unwrap();
    let status = operator.playing("proc-a", 2);
    assert_eq!(
        status.streams.iter().map(|s| (s.source_id, s.paused)).collect::<Vec<_>>(),
        [(1, true), (4, false)]
    );
    assert!(process.is_running());
}

#[test]
fn a_model_changes_between_two_frames() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let data = tempfile::tempdir().unwrap();
    second_model(data.path());
    let mut command = launch(&[
        "processor",
        "--instance-id",
        "proc-a",
        "--streams",
        "0",
        "--uri",
        SLOW_CAMERA,
        "--model",
        "demo",
        "--max-fps",
        "0",
        "--broker",
        &broker.url(),
        "--uri-schemes",
        "testsrc",
    ]);
    data_folder(&mut command, data.path());
    let process = Process::start(command);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    operator.playing("proc-a", 1);
    operator.until("events", |operator| operator.on("nvr/detections/0").len() >= 5);
    operator.tell("proc-a", r#"{"command":"change_model","params":{"model_id":"other"}}"#).unwrap();
    let models = |operator: &Operator| -> Vec<String> {
        operator
            .on("nvr/detections/0")
            .iter()
            .filter_map(|e| e["model_id"].as_str().map(Into::into))
            .collect()
    };
    operator.until("events of the new model", |operator| {
        models(operator).iter().filter(|id| *id == "other").count() >= 5
    });
    let seen = models(&operator);
    let turn = seen.iter().position(|id| id == "other").unwrap();
    assert!(
        seen[..turn].iter().all(|id| id == "demo") && seen[turn..].iter().all(|id| id == "other"),
        "{seen:?}"
    );
    // The camera gives five frames per second: none was left out while the models changed.
    let frames: Vec<u64> =
        operator.on("nvr/detections/0").iter().filter_map(|event| event["frame_id"].as_u64()).collect();
    assert!(frames.windows(2).all(|pair| pair[1] == pair[0] + 1), "{frames:?}\n{}", process.log());
}

#[test]
fn a_name_belongs_to_one_process() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("small.toml");
    std::fs::write(&graph, SMALL).unwrap();
    let start = |id: &str| {
        Process::start(launch(&[graph.to_str().unwrap(), "--instance-id", id, "--broker", &broker.url()]))
    };
    let mut operator = Operator::new(&broker.url(), &[]);
    let mut first = start("a");
    let client = operator.state("a", State::Running).client_id;
    let mut second = start("a");
    assert_eq!(second.wait(), Some(3), "{}", second.log());
    assert!(second.log().contains("instance id \"a\" is in use by another process"), "{}", second.log());
    assert!(operator.tell("a", r#"{"command":"status"}"#).is_ok());
    assert_eq!(operator.state("a", State::Running).client_id, client);

    // Another name, on the same connection, and only where it is free.
    let mut other = start("b");
    operator.state("b", State::Running);
    let taken = operator.tell("a", r#"{"command":"rename_instance","params":{"new_instance_id":"b"}}"#);
    assert!(taken.unwrap_err().contains("instance id \"b\" is in use"));
    operator.tell("a", r#"{"command":"rename_instance","params":{"new_instance_id":"c"}}"#).unwrap();
    let renamed = operator.state("c", State::Running);
    assert_eq!((renamed.renamed_from.as_deref(), &renamed.client_id), (Some("a"), &client));
    operator.until("the old name cleared", |operator| !operator.client.statuses.contains_key("a"));
    assert!(operator.tell("c", r#"{"command":"status"}"#).is_ok());
    // Whoever comes later finds no trace of the old name.
    assert_eq!(Operator::new(&broker.url(), &[]).client.alive(), ["b", "c"]);

    // The last will goes by the new name; a clean end says that it was meant.
    first.kill();
    operator.state("c", State::Offline);
    assert!(!operator.client.statuses.contains_key("a"));
    other.signal("TERM");
    operator.state("b", State::Stopped);
    assert_eq!(other.wait(), Some(0));

    // What the broker remembers of a process that died with it does not keep a name for ever.
    let ghost = json!({"instance_id": "g", "status": "running", "client_id": "dead", "started": "2020"});
    operator.client.publish("nvr/control/status/g", ghost.to_string().into_bytes(), true);
    operator.state("g", State::Running);
    let _heir = start("g");
    operator.until("the heir", |operator| operator.client.statuses["g"].client_id != "dead");
}

#[test]
fn the_broker_may_come_late_and_go() {
    let Some(mut broker) = Mosquitto::stopped(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("small.toml");
    std::fs::write(&graph, SMALL).unwrap();
    let mut process =
        Process::start(launch(&[graph.to_str().unwrap(), "--instance-id", "a", "--broker", &broker.url()]));
    let deadline = Instant::now() + PATIENCE;
    while !process.log().contains("running") {
        assert!(Instant::now() < deadline && process.is_running(), "{}", process.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    broker.restart();
    let mut operator = Operator::new(&broker.url(), &[]);
    let before = operator.state("a", State::Running);
    broker.restart();
    // The broker remembers the old status and may be faster with it than the instance is with its new one.
    operator.until("a new status", |operator| {
        let status = operator.client.statuses.get("a");
        status.is_some_and(|now| now.status == State::Running && now.timestamp != before.timestamp)
    });
    assert!(operator.tell("a", r#"{"command":"status"}"#).is_ok());
}

#[test]
fn twenty_instances_answer_a_broadcast() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("small.toml");
    std::fs::write(&graph, SMALL).unwrap();
    let ids: Vec<String> = (0..20).map(|number| format!("proc-{number:02}")).collect();
    let _processes: Vec<Process> = ids
        .iter()
        .map(|id| {
            Process::start(launch(&[graph.to_str().unwrap(), "--instance-id", id, "--broker", &broker.url()]))
        })
        .collect();
    let mut operator = Operator::new(&broker.url(), &[]);
    operator.until("twenty instances", |operator| operator.client.alive().len() == 20);
    // To all of them, to some, and from a shell.
    let command = nvr_core::command::Command::Status;
    let answers = operator.client.call(&command, &[], &ids, PATIENCE, |_| {});
    assert!(answers.len() == 20 && answers.values().all(Result::is_ok), "{answers:?}");
    let some = ["proc-03", "proc-17"];
    let answers = operator.tell_all(&some, r#"{"command":"pause"}"#);
    assert!(answers.values().all(|answer| answer.as_ref().is_ok()), "{answers:?}");
    let output = launch(&["ctl", "--broker", &broker.url(), "status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(0), 21), "{text}");
    let output = launch(&[
        "ctl",
        "--broker",
        &broker.url(),
        "set-fps",
        "1",
        "--to",
        "proc-00,nobody",
        "--timeout",
        "2",
    ])
    .output()
    .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no parameter \"max_fps\"") && text.contains("no answer"), "{text}");
}

#[test]
fn a_bare_pipeline_is_steered_without_an_application() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = PluginFolder::new();
    let line = format!(
        "-q nvrtestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=10/1 ! nvrinfer name=i model=demo ! \
         nvrmqttsink source-id=4 broker={url} nvrcontrol instance-id=bare broker={url} enabled-commands=all",
        url = broker.url()
    );
    let mut command = folder.tool("gst-launch-1.0");
    command.args(line.split_whitespace());
    let mut process = Process::start(command);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    let status = operator.playing("bare", 1);
    assert_eq!((status.kind.as_str(), status.streams[0].source_id), ("pipeline", 4));
    operator.until("events", |operator| operator.on("nvr/detections/4").len() >= 3);

    operator.tell("bare", r#"{"command":"pause","params":{"source_id":4}}"#).unwrap();
    operator.state("bare", State::Paused);
    operator.tell("bare", r#"{"command":"resume"}"#).unwrap();
    operator.state("bare", State::Running);
    for (command, parameter, value) in [
        (r#"{"command":"set_fps","params":{"max_fps":2}}"#, "max_fps", json!(2.0)),
        (
            r#"{"command":"set_confidence","params":{"confidence":0.25,"source_id":4}}"#,
            "confidence",
            json!(0.25),
        ),
        (r#"{"command":"change_model","params":{"model_id":"demo"}}"#, "model", json!("demo")),
    ] {
        operator.tell("bare", command).unwrap();
        operator.until(command, |operator| operator.client.statuses["bare"].parameters[parameter] == value);
    }
    for (command, part) in [
        (r#"{"command":"stop"}"#, "needs an application"),
        (r#"{"command":"add_stream","params":{"source_id":1,"uri":"rtsp://x/1"}}"#, "needs an application"),
        (r#"{"command":"enable_tracking","params":{"enabled":true}}"#, "no nvrtrack is in this pipeline"),
        (r#"{"command":"change_model","params":{"model_id":"nope"}}"#, "model nope was not found"),
        (r#"{"command":"pause","params":{"source_id":9}}"#, "there is no camera 9"),
        (
            r#"{"command":"batch","params":{"commands":[{"command":"set_fps","params":{"max_fps":9}},{"command":"set","params":{"iou_threshold":2}}]}}"#,
            "must be from 0 to 1",
        ),
        // Properties are reached by the few names that are listed, and by no others.
        (r#"{"command":"reconfigure","params":{"location":"/tmp/x"}}"#, "there is no parameter \"location\""),
        (r#"{"command":"set","params":{"broker":"rtsp://x/"}}"#, "there is no parameter \"broker\""),
        (r#"{"command":"set","params":{"rules":"[]"}}"#, "there is no parameter \"rules\""),
        (r#"{"command":"set","params":{"model":"../x.onnx"}}"#, "paths are for the command line"),
    ] {
        let error = operator.tell("bare", command).unwrap_err();
        assert!(error.contains(part), "{command}: {error}");
    }
    assert_eq!(operator.client.statuses["bare"].parameters["max_fps"], json!(2.0));
    operator.tell("bare", r#"{"command":"rename_instance","params":{"new_instance_id":"other"}}"#).unwrap();
    operator.state("other", State::Running);
    operator.heard.clear();
    operator.until("events by the new name", |operator| {
        operator.on("nvr/detections/4").iter().any(|event| event["instance_id"] == "other")
    });
    process.signal("INT");
    operator.state("other", State::Stopped);
    process.wait();
}

#[test]
fn an_application_of_ones_own_stands_behind_the_element() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let mut process = Process::start(launcher(env!("CARGO_BIN_EXE_control-app"), &[&broker.url(), "own"]));
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    operator.state("own", State::Running);
    operator.tell("own", r#"{"command":"add_stream","params":{"source_id":3}}"#).unwrap();
    operator.until("events", |operator| !operator.on("nvr/detections/3").is_empty());
    assert_eq!(operator.playing("own", 1).streams[0].name.as_deref(), Some("Camera 3"));
    let again = operator.tell("own", r#"{"command":"add_stream","params":{"source_id":3}}"#).unwrap_err();
    assert_eq!(again, "camera 3 exists already");
    operator.tell("own", r#"{"command":"pause"}"#).unwrap();
    operator.state("own", State::Paused);
    operator.tell("own", r#"{"command":"remove_stream","params":{"source_id":3}}"#).unwrap();
    let unknown = operator.tell("own", r#"{"command":"restart"}"#).unwrap_err();
    assert!(unknown.contains("needs an application"), "{unknown}");
    operator.tell("own", r#"{"command":"stop"}"#).unwrap();
    operator.state("own", State::Stopped);
    assert_eq!(process.wait(), Some(0), "{}", process.log());
}

#[test]
fn a_wall_takes_commands_and_publishes_its_statistics() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    // The test asks for the numbers as fast as they come.
    let told = "--uri-schemes rtsp,testsrc --command-rate 0 --output none --width 320 --height 240 --fps 10";
    let args: Vec<_> = told.split(' ').chain(["--uri", CAMERA]).collect();
    let mut process = instance(env!("CARGO_BIN_EXE_launch"), "wall", "wall-1", "0,1", &broker, &args);
    let mut operator = Operator::new(&broker.url(), &["nvr/status/metrics/+"]);
    assert_eq!(operator.playing("wall-1", 2).kind, "wall");
    for (command, parameter, value) in [
        (r#"{"command":"set","params":{"columns":2,"show_labels":false}}"#, "columns", json!(2)),
        (r#"{"command":"set","params":{"layout":"focus","focus":1}}"#, "focus", json!(1)),
        (r#"{"command":"set","params":{"ttl":3000}}"#, "ttl", json!(3000)),
    ] {
        operator.tell("wall-1", command).unwrap();
        operator.until(command, |operator| operator.client.statuses["wall-1"].parameters[parameter] == value);
    }
    for (params, part) in [
        (json!({"columns": 65}), "64"),
        // What is pipeline text cannot be swapped while it plays, so nobody is told that it was.
        (json!({"output": "none"}), "output comes only from files and the command line"),
        (json!({"location": "/tmp/elsewhere.mp4"}), "location comes only from files"),
    ] {
        let command = json!({"command": "reconfigure", "params": params});
        let error = operator.tell("wall-1", &command.to_string()).unwrap_err();
        assert!(error.contains(part), "{command}: {error}");
    }
    let add = json!({"command": "add_stream", "params": {"source_id": 7, "uri": CAMERA, "name": "Gate"}});
    operator.tell("wall-1", &add.to_string()).unwrap();

    // Asks until what is waited for is in the numbers.
    let metrics = |operator: &mut Operator, what: &str, done: &dyn Fn(&serde_json::Value) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            operator.heard.clear();
            operator.tell("wall-1", r#"{"command":"metrics"}"#).unwrap();
            operator.until("metrics", |operator| !operator.on("nvr/status/metrics/wall-1").is_empty());
            let found = operator.on("nvr/status/metrics/wall-1").remove(0);
            if done(&found["wall"]) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: {found}");
        }
    };
    let tiles = |wall: &serde_json::Value| -> Vec<u64> {
        let tiles = wall["tiles"].as_array().into_iter().flatten();
        let shown = tiles.filter(|tile| tile["shown"].as_u64() > Some(0));
        shown.filter_map(|tile| tile["source_id"].as_u64()).collect()
    };
    let found = metrics(&mut operator, "three tiles", &|wall| tiles(wall) == [0, 1, 7]);
    assert!(found["wall"]["frames"].as_u64() > Some(0), "{found}");
    assert_eq!(found["streams"].as_array().map(Vec::len), Some(3), "{found}");

    operator.tell("wall-1", r#"{"command":"remove_stream","params":{"source_id":0}}"#).unwrap();
    metrics(&mut operator, "two tiles", &|wall| tiles(wall) == [1, 7]);
    operator.tell("wall-1", r#"{"command":"stop"}"#).unwrap();
    operator.state("wall-1", State::Stopped);
    assert_eq!(process.wait(), Some(0), "{}", process.log());
}
