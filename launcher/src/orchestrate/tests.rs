use std::collections::{BTreeMap, BTreeSet};

use nvr_core::command::{Ack, AckStatus, Command, State, Status, Stream};
use serde_json::{Value, json};

use super::{
    engine::{Engine, Saved, World},
    rules::Rules,
};

const CARE_HOME: &str = include_str!("../../../config/orchestrate/care-home.toml");

fn rules(text: &str) -> Result<Rules, String> {
    Rules::parse("rules.toml", text, "nvr", &BTreeMap::new())
}

/// A world in which everything happens when the test says so.
#[derive(Default)]
struct Fake {
    running: BTreeSet<String>,
    statuses: BTreeMap<String, Status>,
    sent: Vec<(Command, Vec<String>)>,
    log: Vec<String>,
}

impl World for Fake {
    fn spawn(&mut self, id: &str, _args: &[String]) -> Result<(), String> {
        self.log.push(format!("spawn {id}"));
        self.running.insert(id.into());
        Ok(())
    }

    fn stop(&mut self, id: &str) {
        self.log.push(format!("stop {id}"));
        self.running.remove(id);
        self.statuses.remove(id);
    }

    fn is_running(&self, id: &str) -> bool {
        self.running.contains(id)
    }

    fn count(&self) -> usize {
        self.running.len()
    }

    fn send(&mut self, command: &Command, to: &[String]) -> String {
        self.log.push(format!("{} {}", command.name(), to.join(",")));
        self.sent.push((command.clone(), to.to_vec()));
        format!("r{}", self.sent.len())
    }

    fn status(&self, id: &str) -> Option<&Status> {
        self.statuses.get(id)
    }
}

impl Fake {
    fn plays(&mut self, id: &str) {
        let mut status = Status::new(id, State::Running);
        status.streams.push(Stream { state: "playing".into(), ..Stream::default() });
        self.statuses.insert(id.into(), status);
    }

    fn normal() -> Self {
        let mut fake = Self::default();
        fake.running.insert("care-home-normal".into());
        fake.plays("care-home-normal");
        fake
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn ack(engine: &mut Engine, id: &str, request: &str, error: Option<&str>) {
    let outcome = error.map_or(Ok(AckStatus::Completed), |error| Err(error.to_owned()));
    engine.answer(&Ack::new(id, "x", Some(request), outcome, 0));
}

const FALL: &str = "nvr/events/fall_detected";
const CLEARED: &str = "nvr/events/fall_cleared";

fn fall(room: i64) -> Value {
    json!({"source_id": room, "confidence": 0.9})
}

#[test]
fn a_fall_moves_the_room_and_the_end_moves_it_back() {
    let mut engine = Engine::new(rules(CARE_HOME).unwrap(), Saved::default(), 0);
    let mut world = Fake::normal();
    engine.event(FALL, &json!({"source_id": 2, "confidence": 0.1}), 0);
    engine.event(FALL, &json!({"source_id": "2; rm"}), 0);
    engine.event(FALL, &json!({"source_id": 2000, "confidence": 1}), 0);
    engine.tick(&mut world, 0);
    assert_eq!(world.take_log(), Vec::<String>::new(), "no fall");
    engine.event(FALL, &fall(2), 0);
    engine.event(FALL, &fall(2), 1);
    engine.tick(&mut world, 1);
    assert_eq!(world.take_log(), ["spawn care-home-room-2"]);
    // The room is handed over only when the other instance sees it.
    engine.tick(&mut world, 2);
    assert!(world.take_log().is_empty());
    world.plays("care-home-room-2");
    engine.tick(&mut world, 3);
    assert_eq!(world.take_log(), ["remove_stream care-home-normal"]);
    assert_eq!(world.sent[0].0, Command::RemoveStream { source_id: 2 });
    ack(&mut engine, "care-home-normal", "r1", None);
    engine.tick(&mut world, 4);
    // Another room is none of its business.
    engine.event(CLEARED, &json!({"source_id": 3}), 5);
    engine.tick(&mut world, 5);
    assert!(world.take_log().is_empty());
    engine.event(CLEARED, &json!({"source_id": 2}), 6);
    engine.tick(&mut world, 6);
    assert_eq!(world.take_log(), ["add_stream care-home-normal"]);
    ack(&mut engine, "care-home-normal", "r2", None);
    engine.tick(&mut world, 7);
    engine.tick(&mut world, 8);
    assert_eq!(world.take_log(), ["stop care-home-room-2"]);
    // It cools down, and then begins anew.
    engine.event(FALL, &fall(2), 1000);
    engine.tick(&mut world, 1000);
    assert!(world.take_log().is_empty());
    engine.event(FALL, &fall(2), 60_000);
    engine.tick(&mut world, 60_000);
    assert_eq!(world.take_log(), ["spawn care-home-room-2"]);
}

#[test]
fn what_fails_is_undone() {
    let mut engine = Engine::new(rules(CARE_HOME).unwrap(), Saved::default(), 0);
    let mut world = Fake::normal();
    engine.event(FALL, &fall(2), 0);
    engine.tick(&mut world, 0);
    world.plays("care-home-room-2");
    engine.tick(&mut world, 1);
    ack(&mut engine, "care-home-normal", "r1", Some("no"));
    engine.tick(&mut world, 2);
    ack(&mut engine, "care-home-normal", "r2", Some("camera 2 exists already"));
    engine.tick(&mut world, 3);
    engine.tick(&mut world, 4);
    let expected = [
        "spawn care-home-room-2",
        "remove_stream care-home-normal",
        "add_stream care-home-normal",
        "stop care-home-room-2",
    ];
    assert_eq!(world.take_log(), expected);
    // An instance that never plays is given up.
    engine.event(FALL, &fall(5), 100_000);
    engine.tick(&mut world, 100_000);
    engine.tick(&mut world, 1_000_000);
    ack(&mut engine, "care-home-normal", "r3", Some("camera 5 exists already"));
    engine.tick(&mut world, 1_000_001);
    engine.tick(&mut world, 1_000_002);
    let expected = ["spawn care-home-room-5", "add_stream care-home-normal", "stop care-home-room-5"];
    assert_eq!(world.take_log(), expected);
}

#[test]
fn there_is_a_limit_and_a_memory() {
    let mut engine = Engine::new(rules(CARE_HOME).unwrap(), Saved::default(), 0);
    let limit = engine.rules().max_instances;
    let mut world = Fake::normal();
    for room in 0..10 {
        engine.event(FALL, &fall(room), 0);
    }
    engine.tick(&mut world, 0);
    assert_eq!(world.count(), limit);
    let rooms: Vec<String> = world.running.iter().filter(|id| id.contains("room")).cloned().collect();
    for id in &rooms {
        world.plays(id);
    }
    engine.tick(&mut world, 1);
    for number in 1..=world.sent.len() {
        ack(&mut engine, "care-home-normal", &format!("r{number}"), None);
    }
    engine.tick(&mut world, 2);
    // Its own restart: what runs is known, and the end is still understood.
    let saved = serde_json::to_string(engine.saved()).unwrap();
    let mut engine = Engine::new(rules(CARE_HOME).unwrap(), serde_json::from_str(&saved).unwrap(), 2);
    let wanted: Vec<String> = engine.wanted().into_iter().map(|(id, _)| id).collect();
    assert!(rooms.iter().all(|id| wanted.contains(id)), "{rooms:?} {wanted:?}");
    world.take_log();
    engine.event(CLEARED, &json!({"source_id": 1}), 3);
    engine.tick(&mut world, 3);
    assert!(world.take_log().contains(&"add_stream care-home-normal".into()));
    // An instance that was started anew is told again.
    let count = world.sent.len();
    engine.restarted("care-home-normal");
    engine.tick(&mut world, 4);
    assert!(
        world.sent[count..]
            .contains(&(Command::RemoveStream { source_id: 0 }, vec!["care-home-normal".into()]))
    );
}

const MOTION: &str = r#"
    [instances.a]
    id = "a"
    graph = "processor"
    [[rules]]
    name = "r"
    topic = "nvr/motion"
    vars = { room = { from = "room", type = "int" } }
    key = "${room}"
    timeout = 30
    steps = [{ wait = "a" }]
"#;

#[test]
fn an_event_that_changes_nothing_writes_nothing() {
    let mut engine = Engine::new(rules(MOTION).unwrap(), Saved::default(), 0);
    let motion = json!({"room": 1});
    assert!(engine.take_changes(0), "what was loaded");
    engine.event("nvr/motion", &motion, 10);
    assert!(engine.take_changes(10) && !engine.take_changes(11));
    // Every further event moves the end: kept once a second.
    let writes = (20..5020).step_by(10).filter(|now_ms| {
        engine.event("nvr/motion", &motion, *now_ms);
        engine.take_changes(*now_ms)
    });
    assert_eq!(writes.count(), 5);
    // The same rule without an end of its own: nothing moves.
    let mut engine = Engine::new(rules(&MOTION.replace("timeout = 30", "")).unwrap(), Saved::default(), 0);
    engine.event("nvr/motion", &motion, 10);
    assert!(engine.take_changes(10));
    engine.event("nvr/motion", &motion, 9000);
    assert!(!engine.take_changes(9000));
}

#[test]
fn made_up_keys_do_not_fill_the_memory() {
    let mut engine = Engine::new(rules(MOTION).unwrap(), Saved::default(), 0);
    for room in 0..5000 {
        engine.event("nvr/motion", &json!({ "room": room }), 0);
    }
    let saved = serde_json::to_value(engine.saved()).unwrap();
    assert_eq!(saved["activations"].as_array().map(Vec::len), Some(1024));
}

#[test]
fn mistakes_in_a_file_are_explained() {
    let good = r#"
        [instances.a]
        id = "a"
        graph = "processor"
        [[rules]]
        name = "r"
        topic = "nvr/events/x"
        vars = { room = { from = "room", type = "int" } }
        key = "${room}"
        end = { topic = "nvr/events/y", vars = { room = { from = "room", type = "int" } } }
        steps = [{ spawn = "a" }, { command = "set_fps", params = { max_fps = 1 }, to = ["a"] }]
    "#;
    rules(good).unwrap();
    for (from, to, part) in [
        ("spawn = \"a\"", "spawn = \"b\"", "no instance description \"b\""),
        ("set_fps", "set_fsp", "there is no command \"set_fsp\""),
        ("max_fps = 1", "max_fps = \"fast\"", "max_fps must be a number"),
        ("to = [\"a\"]", "to = []", "needs the instances that it is for"),
        ("${room}", "${rom}", "\"rom\" in \"${rom}\" has no value"),
        ("nvr/events/x", "nvr/#/x", "rule \"r\""),
        ("type = \"int\"", "type = \"text\"", "unknown variant `text`"),
        ("graph =", "grahp =", "grahp"),
        // A condition that is misspelt would be none.
        ("key = \"${room}\"", "key = \"${room}\"\nwhne = { confidence = 1 }", "whne"),
        ("{ topic = \"nvr/events/y\"", "{ whne = { confidence = 1 }, topic = \"nvr/events/y\"", "whne"),
        ("{ spawn = \"a\" }", "{ spawn = \"a\", stop = \"a\" }", "one of spawn, stop, command and wait"),
        ("id = \"a\"", "id = \"ack\"", "instance id \"ack\""),
    ] {
        assert!(good.contains(from), "{from}");
        let error = rules(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(part) && error.starts_with("rules.toml: "), "{to}: {error}");
    }
    let set = BTreeMap::from([("nothing".to_owned(), "x".to_owned())]);
    assert!(Rules::parse("f", good, "nvr", &set).unwrap_err().contains("no such value"));
}

#[test]
fn nothing_of_an_event_becomes_free_text() {
    let text = r#"
        [instances.a]
        id = "a-${name}"
        graph = "processor"
        args = ["--streams", "${name}"]
        [[rules]]
        name = "r"
        topic = "+/events"
        when = { "a.0.b" = 7, c = { in = ["x", "y"] }, d = { exists = false } }
        vars = { name = { from = "name", type = "name" } }
        key = "${name}"
        steps = [{ spawn = "a" }]
    "#;
    let rules = rules(text).unwrap();
    let rule = &rules.rules[0];
    let event = |name: &str| json!({"a": [{"b": 7.0}], "c": "y", "name": name});
    for (name, good) in
        [("room-2", true), ("--set", false), ("a b", false), ("", false), ("a/b", false), ("${x}", false)]
    {
        assert_eq!(rule.start.read("nvr/events", &event(name)).is_some(), good, "{name}");
    }
    assert!(rule.start.read("other", &event("x")).is_none());
    for (key, value) in [("c", json!("z")), ("d", json!(1)), ("a", json!([]))] {
        let mut event = event("x");
        event[key] = value;
        assert!(rule.start.read("nvr/events", &event).is_none(), "{key}");
    }
}

#[test]
fn nothing_lasts_longer_than_its_rule_says_when_the_clock_was_set_back() {
    let text = MOTION.replace("timeout = 30", "timeout = 30\n    cool_down = 60");
    let motion = json!({"room": 1});
    let day = 86_400_000;
    let mut engine = Engine::new(rules(&text).unwrap(), Saved::default(), day);
    engine.event("nvr/motion", &motion, day);
    let running = engine.saved().clone();
    let mut world = Fake::normal();
    world.plays("a");
    engine.tick(&mut world, day);
    engine.tick(&mut world, day + 30_000);
    let cooling = engine.saved().clone();
    // A day earlier, by a clock that was wrong, it ends when it would have ended.
    let mut engine = Engine::new(rules(&text).unwrap(), running.clone(), 0);
    engine.tick(&mut world, 0);
    engine.tick(&mut world, 29_999);
    assert_eq!(activations(&engine), 1);
    engine.tick(&mut world, 30_000);
    assert_eq!(activations(&engine), 0);
    let mut engine = Engine::new(rules(&text).unwrap(), cooling, 0);
    engine.event("nvr/motion", &motion, 59_999);
    assert_eq!(activations(&engine), 0);
    engine.tick(&mut world, 60_000);
    engine.event("nvr/motion", &motion, 60_000);
    assert_eq!(activations(&engine), 1);
    // In the file it is by the time of day.
    let saved = serde_json::to_value(running.by_clock(-1000)).unwrap();
    assert_eq!(saved["activations"][0]["ends_at_ms"], day + 29_000);
}

fn activations(engine: &Engine) -> usize {
    let saved = serde_json::to_value(engine.saved()).unwrap();
    saved["activations"].as_array().map_or(0, Vec::len)
}

#[test]
fn what_an_earlier_run_left_goes_on_as_far_as_the_file_still_asks_for_it() {
    let mut engine = Engine::new(rules(CARE_HOME).unwrap(), Saved::default(), 0);
    engine.event(FALL, &fall(2), 0);
    let due: BTreeMap<_, _> = engine.rules().always().into_iter().collect();
    let args = due["care-home-normal"].clone();
    let found = |id: &str, args: &[String]| super::found(id, args, &due, &engine);
    assert_eq!(found("care-home-normal", &args), super::Found::Kept);
    assert_eq!(found("care-home-normal", &[]), super::Found::Changed);
    // A step under way has started it, or is ending it.
    assert_eq!(found("care-home-room-2", &[]), super::Found::Kept);
    assert_eq!(found("care-home-room-3", &[]), super::Found::Unknown);
}

#[test]
fn a_state_file_is_of_one_orchestrator() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("rules.state");
    let lock = super::lock(&state).unwrap();
    assert!(lock.is_some());
    let error = super::lock(&state).unwrap_err();
    assert!(error.contains("rules.state") && error.contains("--state"), "{error}");
    drop(lock);
    assert!(super::lock(&state).unwrap().is_some());
    // Where nothing can be written, there is no state either.
    assert!(super::lock(&folder.path().join("missing/rules.state")).unwrap().is_none());
}

#[test]
fn instances_reach_the_same_broker_as_the_orchestrator() {
    let mut broker =
        super::Broker { uri: "mqtts://h".into(), topic_prefix: "nvr".into(), ..Default::default() };
    let names = |broker: &super::Broker| -> Vec<String> {
        super::environment(broker, None).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&broker), ["NVR_BROKER", "NVR_TOPIC_PREFIX"]);
    (broker.ca_file, broker.cert_file) = (Some("ca.pem".into()), Some("c.pem".into()));
    broker.key_file = Some("k.pem".into());
    assert_eq!(
        names(&broker),
        ["NVR_BROKER", "NVR_TOPIC_PREFIX", "NVR_CA_FILE", "NVR_CERT_FILE", "NVR_KEY_FILE"]
    );
    // Every shipped graph takes them.
    for shipped in crate::graph::SHIPPED {
        let graph = crate::graph::Graph::parse(shipped.name, shipped.text).unwrap();
        for name in ["broker", "topic_prefix", "ca_file", "cert_file", "key_file"] {
            assert!(graph.param(name).is_some_and(|param| !param.remote), "{}: {name}", shipped.name);
        }
    }
}
