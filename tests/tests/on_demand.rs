//! Recording by mode and on demand, from end to end: cameras over RTSP, a real mosquitto, the shipped graphs, commands
//! and their answers, and the files and the catalogue that come of it.

use std::process::Command;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstnvr::nvrrecordsink::catalog::{FILE, Recording as Row, Store};
use nvr_core::{
    command::{AckStatus, Recording, State},
    event::parse_timestamp,
};
use nvr_launch::{
    ctl::client::Event,
    rtsp_server::{Camera, RtspServer, TestSrc},
};
use nvr_tests::{
    control::{Operator, PATIENCE, instance, launcher},
    mosquitto::{Access, Mosquitto},
};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_launch");

fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

fn camera(server: &RtspServer) -> String {
    init();
    let scene = TestSrc { width: 320, height: 240, fps: 10, bitrate: 300, ..TestSrc::default() };
    server.add_camera("cam", &Camera::TestSrc(scene)).unwrap()
}

/// What the status says of one camera's recorder.
fn recording(operator: &Operator, id: &str, source_id: u32) -> Option<Recording> {
    let stream = operator.client.statuses.get(id)?.streams.iter().find(|s| s.source_id == source_id)?;
    stream.recording.clone()
}

fn until(operator: &mut Operator, what: &str, id: &str, source_id: u32, is: impl Fn(&Recording) -> bool) {
    operator.until(what, |operator| recording(operator, id, source_id).is_some_and(|r| is(&r)));
}

fn us(value: &Value) -> i64 {
    (parse_timestamp(value.as_str().expect("a time")).expect("a time") / 1000) as i64
}

fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_micros() as i64
}

/// Pictures that ffmpeg decodes from a file without a complaint.
fn played(path: &Path) -> u64 {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe is installed with ffmpeg");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", path.display());
    text.trim().trim_end_matches(',').parse().unwrap_or_else(|_| panic!("{}: {text:?}", path.display()))
}

/// Pictures that GStreamer decodes from a file, to its end.
fn decoded(path: &Path) -> u64 {
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! qtdemux ! h264parse ! avdec_h264 ! fakesink name=sink sync=false",
        path.display()
    ))
    .unwrap();
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let pad = bin.by_name("sink").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(30), &types);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(matches!(message.as_ref().map(|m| m.type_()), Some(gst::MessageType::Eos)), "{message:?}");
    count.load(Ordering::Relaxed)
}

fn catalogue(root: &Path) -> Vec<Row> {
    Store::existing(&root.join(FILE)).unwrap().page(0, 1000).unwrap()
}

/// A clip's answer: its file, and from when to when it plays.
fn clip(root: &Path, result: Option<&Value>) -> (PathBuf, i64, i64) {
    let clip = &result.expect("a result")["clip"];
    let path = clip["path"].as_str().expect("a path");
    assert!(path.starts_with("clips/"), "{path}");
    let file = root.join(path);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), clip["bytes"].as_u64().unwrap());
    (file, us(&clip["start"]), us(&clip["end"]))
}

#[test]
fn a_recorder_records_what_it_is_told_over_mqtt() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    init();
    let server = RtspServer::start().unwrap();
    let uri = camera(&server);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("recordings");
    let location = root.display().to_string();
    let url = broker.url();
    let more = ["--uri", &uri, "--location", &location, "--mode", "events", "--segment-duration", "2"];
    let mut process = instance(PROGRAM, "recorder", "rec-a", "1,2", &broker, &more);
    let mut operator = Operator::new(&url, &[]);
    operator.playing("rec-a", 2);
    until(&mut operator, "an idle recorder", "rec-a", 1, |r| r.state == "idle" && r.on_demand.is_none());

    // One camera is recorded, the other is not.
    let start =
        r#"{"command":"start_recording","params":{"source_id":1,"label":"gate open","max_duration":600}}"#;
    let ack = operator.tell("rec-a", start).unwrap();
    let entry = &ack.result.as_ref().unwrap()["recordings"][0];
    assert_eq!((&entry["source_id"], &entry["label"]), (&json!(1), &json!("gate open")));
    assert_eq!(us(&entry["until"]) - us(&entry["since"]), 600_000_000);
    until(&mut operator, "recording", "rec-a", 1, |r| {
        r.state == "recording" && r.reason.as_deref() == Some("on_demand") && r.since.is_some()
    });
    let asked = recording(&operator, "rec-a", 1).unwrap().on_demand.unwrap();
    assert_eq!(asked.label.as_deref(), Some("gate open"));
    assert_eq!(recording(&operator, "rec-a", 2).unwrap().state, "idle");

    // What was asked for outlives the branch.
    operator.tell("rec-a", r#"{"command":"restart","params":{"source_id":1}}"#).unwrap();
    until(&mut operator, "recording again", "rec-a", 1, |r| {
        r.state == "recording" && r.on_demand.as_ref() == Some(&asked)
    });

    // The clip below is to reach back to after the restart.
    let again = recording(&operator, "rec-a", 1).and_then(|recording| recording.since).unwrap();
    let again = us(&again.into());
    operator.until("three seconds", |_| now_us() - again > 3_000_000);

    let ack = operator.tell("rec-a", r#"{"command":"stop_recording"}"#).unwrap();
    let ended = ack.result.unwrap()["recordings"].clone();
    assert_eq!((ended.as_array().unwrap().len(), &ended[0]["source_id"]), (1, &json!(1)));
    until(&mut operator, "idle again", "rec-a", 1, |r| r.state == "idle" && r.on_demand.is_none());
    let ack = operator.tell("rec-a", r#"{"command":"stop_recording"}"#).unwrap();
    assert_eq!(ack.result.unwrap(), json!({"recordings": []}));

    // A clip from memory into the future; meanwhile other commands are carried out.
    let save =
        json!({"command": "save_clip", "params": {"source_id": 1, "name": "gate", "before": 2, "after": 3}});
    let nvr_core::command::Incoming::Message(save) = nvr_core::command::read(save.to_string().as_bytes(), "")
    else {
        panic!("no command")
    };
    let asked_at = Instant::now();
    operator.client.send(&save.command.unwrap(), &["rec-a".into()], "clip-1");
    operator.tell("rec-a", r#"{"command":"set","params":{"mode":"continuous","source_id":2}}"#).unwrap();
    assert!(asked_at.elapsed() < Duration::from_secs(3), "the clip held up other commands");
    let deadline = Instant::now() + PATIENCE;
    let ack = loop {
        assert!(Instant::now() < deadline, "no clip: {}", process.log());
        if let Some(Event::Ack(ack)) = operator.client.next(Duration::from_millis(100))
            && ack.request_id.as_deref() == Some("clip-1")
            && ack.ack_status != AckStatus::Received
        {
            break ack;
        }
    };
    assert_eq!(ack.error, None);
    let (file, from, to) = clip(&root, ack.result.as_ref());
    assert_eq!(file, root.join("clips/1/gate.mp4"));
    assert!((to - from - 5_000_000).abs() < 300_000, "{} s", (to - from) as f64 / 1e6);
    // Five seconds at ten pictures a second, and what a file has to begin with.
    let (pictures, all) = (played(&file), decoded(&file));
    assert!((48..=52).contains(&pictures) && (all as i64 - pictures as i64).abs() <= 10, "{pictures} {all}");
    until(&mut operator, "camera 2", "rec-a", 2, |r| r.reason.as_deref() == Some("continuous"));

    for (command, part) in [
        (
            r#"{"command":"save_clip","params":{"source_id":1,"name":"gate"}}"#,
            "clips/1/gate.mp4 exists already",
        ),
        (r#"{"command":"save_clip","params":{"source_id":9}}"#, "there is no camera 9"),
        (r#"{"command":"start_recording","params":{"source_id":9}}"#, "there is no camera 9"),
    ] {
        let error = operator.tell("rec-a", command).unwrap_err();
        assert!(error.contains(part), "{command}: {error}");
    }

    // From a shell.
    let output =
        launcher(PROGRAM, &["ctl", "save-clip", "2", "--before", "2", "--name", "shell", "--broker", &url])
            .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("clips/2/shell.mp4, 20"), "{output:?}");
    assert!(played(&root.join("clips/2/shell.mp4")) > 10);

    operator.tell("rec-a", r#"{"command":"stop"}"#).unwrap();
    operator.state("rec-a", State::Stopped);
    assert_eq!(process.wait(), Some(0), "{}", process.log());
    let rows = catalogue(&root);
    for row in &rows {
        assert!(row.end_us.is_some() && row.frames > 0, "{row:?}");
        assert_eq!(played(&row.file()), row.frames, "{row:?}");
    }
    let asked: Vec<_> = rows.iter().filter(|row| row.label.as_deref() == Some("gate open")).collect();
    assert!(asked.len() >= 2, "before and after the restart: {rows:?}");
    assert!(
        asked
            .iter()
            .all(|r| r.source_id == 1 && r.reason.as_deref() == Some("on_demand") && r.event_count > 0)
    );
    assert!(rows.iter().any(|row| row.source_id == 2 && row.reason.as_deref() == Some("continuous")));
}

#[test]
fn one_process_detects_and_records_what_it_sees() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    init();
    let server = RtspServer::start().unwrap();
    let uri = camera(&server);
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().display().to_string();
    let told = "--mode events --model demo --post-buffer 1 --gate";
    let more: Vec<_> = told.split(' ').chain(["--uri", &uri, "--location", &location]).collect();
    let mut process = instance(PROGRAM, "nvr", "nvr-a", "4", &broker, &more);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    operator.playing("nvr-a", 1);
    until(&mut operator, "events", "nvr-a", 4, |r| r.reason.as_deref() == Some("events"));
    // Nothing is seen any more.
    operator.tell("nvr-a", r#"{"command":"pause"}"#).unwrap();
    until(&mut operator, "no events", "nvr-a", 4, |r| r.state == "idle");
    // The scene moves whether it is looked into or not.
    operator.tell("nvr-a", r#"{"command":"set","params":{"mode":"motion"}}"#).unwrap();
    until(&mut operator, "motion", "nvr-a", 4, |r| r.reason.as_deref() == Some("motion"));
    operator.tell("nvr-a", r#"{"command":"set","params":{"mode":"off"}}"#).unwrap();
    until(&mut operator, "nothing", "nvr-a", 4, |r| r.state == "idle");
    operator.tell("nvr-a", r#"{"command":"stop"}"#).unwrap();
    assert_eq!(process.wait(), Some(0), "{}", process.log());
    let rows = catalogue(folder.path());
    let reasons: Vec<_> = rows.iter().filter_map(|row| row.reason.as_deref()).collect();
    assert!(reasons.contains(&"events") && reasons.contains(&"motion"), "{rows:?}");
    let store = Store::existing(&folder.path().join(FILE)).unwrap();
    assert!(!store.events(4, 0, i64::MAX).unwrap().is_empty());
}

#[test]
fn nvrcontrol_reaches_recorders_in_any_pipeline() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    init();
    let folder = tempfile::tempdir().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=10/1 \
         ! x264enc tune=zerolatency key-int-max=10 ! h264parse ! nvrrecordsink source-id=5 mode=off location={} \
         nvrcontrol instance-id=bare broker={}",
        folder.path().display(),
        broker.url()
    ))
    .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut operator = Operator::new(&broker.url(), &[]);
    operator.state("bare", State::Running);
    until(&mut operator, "idle", "bare", 5, |r| r.state == "idle");
    operator.tell("bare", r#"{"command":"start_recording"}"#).unwrap();
    until(&mut operator, "recording", "bare", 5, |r| r.reason.as_deref() == Some("on_demand"));
    let ack = operator.tell("bare", r#"{"command":"save_clip","params":{"source_id":5,"after":1}}"#).unwrap();
    let (file, from, to) = clip(folder.path(), ack.result.as_ref());
    assert!(to - from >= 1_000_000 && played(&file) >= 10, "{from} to {to}");
    operator.tell("bare", r#"{"command":"stop_recording","params":{"source_id":5}}"#).unwrap();
    until(&mut operator, "idle again", "bare", 5, |r| r.state == "idle");
    for (command, part) in [
        (r#"{"command":"start_recording","params":{"source_id":6}}"#, "there is no camera 6"),
        (
            r#"{"command":"set","params":{"pre_buffer":100000}}"#,
            "pre-buffer of nvrrecordsink must be from 0 to 86400",
        ),
        (r#"{"command":"set","params":{"mode":"sometimes"}}"#, "mode of nvrrecordsink cannot be set"),
    ] {
        let error = operator.tell("bare", command).unwrap_err();
        assert!(error.contains(part), "{command}: {error}");
    }
    operator.tell("bare", r#"{"command":"set","params":{"mode":"continuous"}}"#).unwrap();
    until(&mut operator, "the mode", "bare", 5, |r| r.reason.as_deref() == Some("continuous"));
    pipeline.set_state(gst::State::Null).unwrap();
}
