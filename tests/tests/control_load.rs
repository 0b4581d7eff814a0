//! The control plane under load: nothing grows, nothing is slow, nothing is passed over in silence. How much load is
//! said by environment variables; the defaults suit every run.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nvr_core::command::{AckStatus, Command, Incoming, State, read};
use nvr_launch::ctl::client::Event;
use nvr_tests::{
    control::{DRAWN, Operator, PATIENCE, Process, data_folder, instance, instance_command, second_model},
    mosquitto::{Access, Mosquitto},
};
use serde_json::{Value, json};

const CAMERA: &str = "testsrc://?width=160&height=120&framerate=5";

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn processor(broker: &Mosquitto, data: &std::path::Path, more: &[&str]) -> Process {
    let more = [&DRAWN[..], &["--uri", CAMERA], more].concat();
    let program = env!("CARGO_BIN_EXE_launch");
    let mut command = instance_command(program, "processor", "proc-a", "0", broker, &more);
    data_folder(&mut command, data);
    Process::start(command)
}

/// `NVR_CONTROL_ROUNDS` times a camera comes and goes, `NVR_CONTROL_MODELS` times the model changes.
#[test]
fn coming_and_going_leaves_nothing_behind() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let data = tempfile::tempdir().unwrap();
    second_model(data.path());
    let mut process = processor(&broker, data.path(), &[]);
    let mut operator = Operator::new(&broker.url(), &[]);
    operator.playing("proc-a", 1);
    let add = json!({"command": "add_stream", "params": {"source_id": 7, "uri": CAMERA}}).to_string();
    let remove = json!({"command": "remove_stream", "params": {"source_id": 7}}).to_string();
    let rounds = |count: usize, operator: &mut Operator| {
        for round in 0..count {
            operator.tell("proc-a", &add).unwrap_or_else(|error| panic!("round {round}: {error}"));
            operator.tell("proc-a", &remove).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    };
    let count = number("NVR_CONTROL_ROUNDS", 60);
    rounds((count / 5).clamp(20, 200), &mut operator);
    let before = process.resources();
    rounds(count, &mut operator);
    compare("cameras", count, before, &process);

    let mut turn = 0;
    let mut models = |count: usize, operator: &mut Operator| {
        for _ in 0..count {
            turn += 1;
            let model = if turn % 2 == 1 { "other" } else { "demo" };
            let change = json!({"command": "change_model", "params": {"model_id": model}});
            operator.tell("proc-a", &change.to_string()).unwrap();
        }
    };
    let count = number("NVR_CONTROL_MODELS", 20);
    models((count / 4).clamp(10, 50), &mut operator);
    let before = process.resources();
    models(count, &mut operator);
    compare("models", count, before, &process);
    assert!(process.is_running());
    operator.playing("proc-a", 1);
}

/// Says what there is more of after `count` rounds, once what is on its way out is gone.
fn compare(what: &str, count: usize, before: (u64, usize, usize), process: &Process) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let after = process.resources();
        let growth = after.0 as i64 - before.0 as i64;
        // Threads of a pool that were idle before; memory that the allocator keeps.
        let bounded = growth < (24 << 20) && after.1 <= before.1 + 4 && after.2 <= before.2 + 6;
        if !bounded && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        let counts = format!(
            "{what}: {count} rounds, memory {:+} KiB of {} MiB, threads {} to {}, files {} to {}",
            growth / 1024,
            before.0 >> 20,
            before.1,
            after.1,
            before.2,
            after.2
        );
        println!("{counts}");
        assert!(bounded, "{counts}");
        return;
    }
}

/// Limits are milliseconds; `NVR_CONTROL_SLOW` multiplies them for machines that do other things meanwhile.
#[test]
fn commands_take_effect_at_once() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let data = tempfile::tempdir().unwrap();
    let _process = processor(&broker, data.path(), &["--max-fps", "0"]);
    let mut operator = Operator::new(&broker.url(), &["nvr/detections/+"]);
    operator.playing("proc-a", 1);
    let slow = number("NVR_CONTROL_SLOW", 5) as f64;
    let mut measure =
        |what: &str, limit: f64, rounds: usize, run: &mut dyn FnMut(&mut Operator, usize) -> Duration| {
            let mut times: Vec<f64> =
                (0..rounds).map(|round| run(&mut operator, round).as_secs_f64() * 1e3).collect();
            times.sort_by(f64::total_cmp);
            let p95 = times[(times.len() * 95).div_ceil(100) - 1];
            println!("{what}: median {:.1} ms, p95 {p95:.1} ms of {rounds}", times[times.len() / 2]);
            assert!(p95 < limit * slow, "{what} took {p95:.1} ms");
        };
    let timed = |operator: &mut Operator, command: Value| {
        let begun = Instant::now();
        operator.tell("proc-a", &command.to_string()).unwrap();
        begun.elapsed()
    };
    measure("pause", 100.0, 40, &mut |operator, _| {
        let time = timed(operator, json!({"command": "pause"}));
        timed(operator, json!({"command": "resume"}));
        time
    });
    measure("resume to the next event", 300.0, 10, &mut |operator, _| {
        timed(operator, json!({"command": "pause"}));
        let begun = Instant::now();
        operator.heard.clear();
        timed(operator, json!({"command": "resume"}));
        operator.until("an event", |operator| !operator.on("nvr/detections/0").is_empty());
        begun.elapsed()
    });
    measure("set_fps", 100.0, 40, &mut |operator, round| {
        timed(operator, json!({"command": "set_fps", "params": {"max_fps": round % 5}}))
    });
    measure("set_confidence", 100.0, 40, &mut |operator, round| {
        timed(operator, json!({"command": "set_confidence", "params": {"confidence": round as f64 / 100.0}}))
    });
    timed(&mut operator, json!({"command": "set_fps", "params": {"max_fps": 0}}));
    let mut removals = Vec::new();
    let measure = |what: &str, limit: f64, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        println!("{what}: slowest {:.0} ms of {}", times[times.len() - 1], times.len());
        assert!(times[times.len() - 1] < limit * slow, "{what}: {times:?}");
    };
    let mut additions = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        operator.heard.clear();
        timed(&mut operator, json!({"command": "add_stream", "params": {"source_id": 7, "uri": CAMERA}}));
        operator.until("an event", |operator| !operator.on("nvr/detections/7").is_empty());
        additions.push(begun.elapsed().as_secs_f64() * 1e3);
        let time = timed(&mut operator, json!({"command": "remove_stream", "params": {"source_id": 7}}));
        removals.push(time.as_secs_f64() * 1e3);
    }
    measure("add_stream to the first event", 2000.0, additions);
    measure("remove_stream", 500.0, removals);
}

const GRAPH: &str = r#"
summary = "test pictures"
kind = "test"
[params.broker]
type = "uri"
default = "mqtt://localhost"
help = "h"
[params.volume]
type = "float"
default = 1.0
min = 0.0
max = 10.0
scope = "camera"
live = true
help = "h"
[graph]
launch = """
  nvrcontrol instance-id=${instance_id} broker=${broker} max-rate=0
    enabled-commands=status,metrics,pause,resume,restart,add_stream,remove_stream,change_stream_uri,change_model,set_fps,set_confidence,enable_tracking,set,reconfigure,batch
"""
[camera]
launch = "audiotestsrc is-live=true ! volume volume=${volume} ! fakesink"
"#;

/// A generator whose numbers are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

const SEEDS: [&str; 15] = [
    r#"{"request_id":"ID","command":"status"}"#,
    r#"{"request_id":"ID","command":"metrics","target_instances":["proc-a","proc-b"]}"#,
    r#"{"command":"pause","params":{"source_id":0},"request_id":"ID"}"#,
    r#"{"request_id":"ID","command":"resume","params":{}}"#,
    r#"{"request_id":"ID","command":"restart","params":{"source_id":0}}"#,
    r#"{"request_id":"ID","command":"add_stream","params":{"source_id":3,"uri":"rtsp://user:pass@host/3","volume":0.5}}"#,
    r#"{"request_id":"ID","command":"add_stream","params":{"source_id":4,"name":"Yard","volume":1}}"#,
    r#"{"request_id":"ID","command":"remove_stream","params":{"source_id":3}}"#,
    r#"{"request_id":"ID","command":"change_stream_uri","params":{"source_id":0,"uri":"rtsp://host/9"}}"#,
    r#"{"request_id":"ID","command":"change_model","params":{"model_id":"yolox-nano"}}"#,
    r#"{"request_id":"ID","command":"set_fps","params":{"max_fps":0.05},"target_instances":["*"]}"#,
    r#"{"request_id":"ID","command":"set","params":{"volume":2.5,"source_id":0}}"#,
    r#"{"request_id":"ID","command":"reconfigure","params":{"volume":1,"text":"hello"}}"#,
    r#"{"request_id":"ID","command":"batch","params":{"commands":[{"command":"pause"},{"command":"set","params":{"volume":3}},{"command":"resume"}]}}"#,
    r#"{"request_id":"ID","command":"enable_tracking","params":{"enabled":true}}"#,
];

const SCRAPS: [&str; 16] = [
    "null",
    "true",
    "-1",
    "1e999",
    "[]",
    "{}",
    "\"",
    "\\u0000",
    "[[[[[[[[",
    "\u{202e}",
    "! fakesink",
    "../..",
    "4294967296",
    "9223372036854775808",
    "file:///etc/passwd",
    ",",
];

fn mutated(dice: &mut Dice, number: usize) -> Vec<u8> {
    let seed = SEEDS[dice.below(SEEDS.len())].replace("ID", &format!("q-{number}"));
    let mut bytes = seed.into_bytes();
    for _ in 0..dice.below(4) {
        let (a, b) = (dice.below(bytes.len()), dice.below(bytes.len()));
        let (from, to) = (a.min(b), a.max(b));
        match dice.below(7) {
            0 => bytes.truncate(from),
            1 => drop(bytes.drain(from..to.min(from + 8))),
            2 => bytes[from] ^= 1 << dice.below(8),
            3 => {
                let copy = bytes[from..to].to_vec();
                bytes.splice(to..to, copy);
            }
            4 => {
                let scrap = SCRAPS[dice.below(SCRAPS.len())];
                bytes.splice(from..to.min(from + 6), scrap.bytes());
            }
            5 => bytes.splice(from..from, std::iter::repeat_n(b'[', dice.below(300))).for_each(drop),
            _ => bytes.swap(from, to),
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    bytes
}

/// `NVR_CONTROL_MUTATIONS` messages, most of them damaged. Whoever can be answered is answered.
#[test]
fn damaged_commands_are_answered_and_do_no_harm() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.toml");
    std::fs::write(&graph, GRAPH).unwrap();
    let graph = graph.to_str().unwrap();
    let mut process = instance(env!("CARGO_BIN_EXE_launch"), graph, "proc-a", "0", &broker, &[]);
    let mut operator = Operator::new(&broker.url(), &[]);
    operator.state("proc-a", State::Running);
    let count = number("NVR_CONTROL_MUTATIONS", 3000);
    let mut dice = Dice(0x2026_1121);
    let (mut answered, mut completed, mut before) = (0, 0, (0, 0, 0));
    for batch in 0..count.div_ceil(50) {
        let mut open = BTreeSet::new();
        for number in batch * 50..count.min(batch * 50 + 50) {
            let payload = mutated(&mut dice, number);
            if let Incoming::Message(message) = read(&payload, "proc-a")
                && let Some(id) = message.request_id
            {
                open.insert(id);
            }
            operator.client.publish("nvr/control/commands", payload, false);
        }
        let last = format!("last-{batch}");
        operator.client.send(&Command::Status, &[], &last);
        open.insert(last);
        let deadline = Instant::now() + PATIENCE;
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match operator.client.next(left) {
                Some(Event::Ack(ack)) if ack.ack_status != AckStatus::Received => {
                    if ack.request_id.is_some_and(|id| open.remove(&id)) {
                        answered += 1;
                        completed += usize::from(ack.ack_status == AckStatus::Completed);
                    }
                }
                Some(_) => {}
                None => panic!("no answer to {open:?}\n{}", process.log()),
            }
        }
        // Cameras that damaged numbers have made go again, or there would be thousands.
        let added: Vec<u32> = operator.client.statuses["proc-a"]
            .streams
            .iter()
            .map(|s| s.source_id)
            .filter(|id| *id != 0)
            .collect();
        if added.len() > 8 {
            for id in added {
                let remove = json!({"command": "remove_stream", "params": {"source_id": id}}).to_string();
                operator.tell("proc-a", &remove).unwrap();
            }
        }
        if batch == count / 50 / 5 {
            before = process.resources();
        }
    }
    assert!(process.is_running(), "{}", process.log());
    println!("{count} messages, {answered} answered, {completed} of them completed");
    assert!(answered > count / 4 && completed > count / 50);
    let begun = Instant::now();
    operator.tell("proc-a", r#"{"command":"status"}"#).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let after = process.resources();
    println!(
        "memory {} to {} MiB, threads {} to {}, files {} to {}",
        before.0 >> 20,
        after.0 >> 20,
        before.1,
        after.1,
        before.2,
        after.2
    );
    assert!(after.0 < before.0 + (48 << 20) && after.1 < before.1 + 60 && after.2 < before.2 + 60);
    assert!(!process.log().contains("panicked"), "{}", process.log());
}
