//! The care home as it ships, from end to end: real processes, a real broker, drawn cameras.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use nvr_core::command::{State, Status};
use nvr_tests::{
    control::{Operator, Process, data_folder, launcher, second_model},
    mosquitto::{Access, Mosquitto},
};
use serde_json::{Value, json};

const NORMAL: &str = "care-home-normal";
const ROOM: &str = "care-home-room-2";

/// Ends what an orchestrator has started, however the test ends.
struct Processes<'a>(&'a Path);

impl Processes<'_> {
    fn pid(&self, id: &str) -> Option<u64> {
        let state: Value = serde_json::from_str(&fs::read_to_string(self.0).ok()?).ok()?;
        state["instances"][id]["pid"].as_u64()
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        for id in [NORMAL, ROOM] {
            if let Some(pid) = self.pid(id) {
                let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
            }
        }
    }
}

fn ids(status: &Status) -> Vec<u32> {
    status.streams.iter().map(|stream| stream.source_id).collect()
}

#[test]
fn a_fall_in_room_2_gets_an_instance_of_its_own_and_the_other_rooms_lose_no_frame() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    second_model(folder.path());
    let site = folder.path().join("site.toml");
    let rooms: Vec<String> = (1..=3)
        .map(|id| {
            format!(
                "[[cameras]]\nid = {id}\nname = \"Room {id}\"\n\
                 uri = \"testsrc://?width=320&height=240&framerate=4&seed={id}\"\n"
            )
        })
        .collect();
    fs::write(&site, rooms.concat()).unwrap();
    let state = folder.path().join("care-home.state");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/orchestrate/care-home.toml");
    let start = || {
        let url = broker.url();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (rules, site, state) = (path(&rules), path(&site), path(&state));
        let mut command = launcher(
            env!("CARGO_BIN_EXE_launch"),
            &["orchestrate", &rules, "--config", &site, "--broker", &url, "--state", &state],
        );
        // Every frame is analysed: a missing one is seen.
        for value in ["normal_model=demo", "normal_fps=0", "room_model=other", "room_fps=0"] {
            command.args(["--set", value]);
        }
        data_folder(&mut command, folder.path());
        Process::start(command)
    };
    let processes = Processes(&state);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    let mut orchestrator = start();
    let normal = operator.playing(NORMAL, 3);
    let seen = |operator: &Operator, room: u32, by: &str| -> Vec<Value> {
        let mut events = operator.on(&format!("nvr/detections/{room}"));
        events.retain(|event| event["instance_id"] == by);
        events
    };
    operator.until("events of every room", |operator| {
        (1..=3).all(|room| seen(operator, room, NORMAL).len() >= 4)
    });

    // A fall that is none, and one that is.
    let publish = |operator: &Operator, event: &str, payload: Value| {
        operator.client.publish(&format!("nvr/events/{event}"), payload.to_string().into_bytes(), false);
    };
    publish(&operator, "fall_detected", json!({"source_id": 1, "confidence": 0.2}));
    publish(&operator, "fall_detected", json!({"source_id": 2, "confidence": 0.9}));
    let room = operator.playing(ROOM, 1);
    assert_eq!((ids(&room), &room.parameters["model"]), (vec![2], &json!("other")));
    operator.until("the handover", |operator| ids(&operator.client.statuses[NORMAL]) == [1, 3]);
    operator.until("events of the larger model", |operator| seen(operator, 2, ROOM).len() >= 4);
    assert!(seen(&operator, 2, ROOM).iter().all(|event| event["model_id"] == "other"));
    // At no time did nobody watch: the new instance saw the room before the old one let it go.
    let frames = operator.on("nvr/detections/2");
    let first = frames.iter().position(|event| event["instance_id"] == ROOM).unwrap();
    assert!(frames[first..].iter().any(|event| event["instance_id"] == NORMAL), "{frames:#?}");

    // The orchestrator dies; what it has started goes on, and the next one knows of it.
    orchestrator.kill();
    orchestrator = start();
    operator
        .until("the processes to be found again", |_| orchestrator.log().matches("found again").count() == 2);
    assert_eq!(operator.client.statuses[NORMAL].client_id, normal.client_id);
    assert_eq!(operator.client.statuses[ROOM].client_id, room.client_id);
    // An instance dies and is started again.
    let pid = processes.pid(ROOM).unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "KILL", &pid]).status().unwrap().success());
    operator.state(ROOM, State::Offline);
    let again = operator.playing(ROOM, 1);
    assert_ne!(again.client_id, room.client_id);

    // The end: everything is as before.
    publish(&operator, "fall_cleared", json!({"source_id": 3}));
    publish(&operator, "fall_cleared", json!({"source_id": 2}));
    operator.state(ROOM, State::Stopped);
    let back = operator.playing(NORMAL, 3);
    assert_eq!(back.client_id, normal.client_id, "the same process all the time");
    assert_eq!(
        back.streams.iter().find(|s| s.source_id == 2).and_then(|s| s.name.as_deref()),
        Some("Room 2")
    );
    let count = seen(&operator, 2, NORMAL).len();
    operator.until("events of room 2 as before", |operator| seen(operator, 2, NORMAL).len() >= count + 4);
    for room in [1, 3] {
        let frames: Vec<u64> =
            seen(&operator, room, NORMAL).iter().filter_map(|event| event["frame_id"].as_u64()).collect();
        assert!(frames.windows(2).all(|pair| pair[1] == pair[0] + 1), "room {room}: {frames:?}");
    }

    orchestrator.signal("TERM");
    assert_eq!(orchestrator.wait(), Some(0), "{}", orchestrator.log());
    operator.state(NORMAL, State::Stopped);
}

#[test]
fn an_interrupt_from_the_terminal_ends_every_instance_in_order() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("small.toml");
    fs::write(
        &graph,
        "summary = \"s\"\nkind = \"k\"\n[params.broker]\ntype = \"uri\"\nhelp = \"h\"\n\
         [graph]\nlaunch = \"nvrcontrol instance-id=${instance_id} broker=${broker}\"\n\
         [camera]\nlaunch = \"videotestsrc is-live=true ! fakesink\"\n",
    )
    .unwrap();
    let rules = folder.path().join("rules.toml");
    let text =
        format!("[instances.one]\nid = \"one\"\ngraph = {:?}\nalways = true\n", graph.to_str().unwrap());
    fs::write(&rules, text).unwrap();
    let state = folder.path().join("state");
    let args = [
        "orchestrate",
        rules.to_str().unwrap(),
        "--broker",
        &broker.url(),
        "--state",
        state.to_str().unwrap(),
    ];
    let mut command = launcher(env!("CARGO_BIN_EXE_launch"), &args);
    // As a shell starts it: the leader of the group that Ctrl-C goes to.
    command.process_group(0);
    let mut operator = Operator::new(&broker.url(), &[]);
    let mut orchestrator = Process::start(command);
    operator.state("one", State::Running);
    let group = format!("-{}", orchestrator.id());
    assert!(Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap().success());
    // The last status of an instance that was cut off would be its last will.
    operator.state("one", State::Stopped);
    assert_eq!(orchestrator.wait(), Some(0), "{}", orchestrator.log());
}
