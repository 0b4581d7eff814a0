use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn message(text: &str) -> Message {
    match read(text.as_bytes(), "proc-a") {
        Incoming::Message(message) => message,
        other => panic!("{text}: {other:?}"),
    }
}

fn error(text: &str) -> String {
    message(text).command.expect_err(text)
}

#[test]
fn every_command_of_the_protocol_is_read() {
    let text = |text: &str| Scalar::Text(text.into());
    let cases = [
        (json!({"command": "status"}), Command::Status),
        (json!({"command": "metrics", "params": {}}), Command::Metrics),
        (json!({"command": "pause"}), Command::Pause { source_id: None }),
        (json!({"command": "resume", "params": {"source_id": 2}}), Command::Resume { source_id: Some(2) }),
        (json!({"command": "stop", "params": null}), Command::Stop),
        (json!({"command": "restart", "params": {"source_id": null}}), Command::Restart { source_id: None }),
        (
            json!({"command": "add_stream", "params": {"source_id": 7, "uri": "rtsp://c/7", "max_fps": 2, "hwaccel": "none"}}),
            Command::AddStream {
                source_id: 7,
                name: None,
                uri: Some("rtsp://c/7".into()),
                params: Params::from([("max_fps".into(), Scalar::Int(2)), ("hwaccel".into(), text("none"))]),
            },
        ),
        (
            json!({"command": "remove_stream", "params": {"source_id": 7}}),
            Command::RemoveStream { source_id: 7 },
        ),
        (
            json!({"command": "change_stream_uri", "params": {"source_id": 1, "uri": "rtsp://d/1"}}),
            Command::ChangeStreamUri { source_id: 1, uri: "rtsp://d/1".into() },
        ),
        (
            json!({"command": "change_model", "params": {"model_id": "yolox-nano"}}),
            Command::ChangeModel { model_id: "yolox-nano".into() },
        ),
        (
            json!({"command": "set_fps", "params": {"max_fps": 0.05, "source_id": 0}}),
            Command::SetFps { max_fps: 0.05, source_id: Some(0) },
        ),
        (
            json!({"command": "set_confidence", "params": {"confidence": 1}}),
            Command::SetConfidence { confidence: 1.0, source_id: None },
        ),
        (
            json!({"command": "enable_tracking", "params": {"enabled": false}}),
            Command::EnableTracking { enabled: false },
        ),
        (
            json!({"command": "set", "params": {"classes": "person", "source_id": 3}}),
            Command::Set { source_id: Some(3), params: Params::from([("classes".into(), text("person"))]) },
        ),
        (
            json!({"command": "reconfigure", "params": {"max_fps": 0.5, "flag": true}}),
            Command::Reconfigure {
                source_id: None,
                params: Params::from([
                    ("max_fps".into(), Scalar::Float(0.5)),
                    ("flag".into(), Scalar::Bool(true)),
                ]),
            },
        ),
        (
            json!({"command": "batch", "params": {"commands": [
                {"command": "pause"}, {"command": "set_fps", "params": {"max_fps": 1}}]}}),
            Command::Batch {
                commands: vec![
                    Command::Pause { source_id: None },
                    Command::SetFps { max_fps: 1.0, source_id: None },
                ],
            },
        ),
        (
            json!({"command": "rename_instance", "params": {"new_instance_id": "proc-b"}}),
            Command::RenameInstance { new_instance_id: "proc-b".into() },
        ),
        (
            json!({"command": "start_recording", "params": {"source_id": 2, "label": "gate open", "max_duration": 90}}),
            Command::StartRecording {
                source_id: Some(2),
                label: Some("gate open".into()),
                max_duration: Some(90.0),
            },
        ),
        (json!({"command": "stop_recording"}), Command::StopRecording { source_id: None }),
        (
            json!({"command": "save_clip", "params": {"source_id": 2, "name": "gate-1", "after": 20}}),
            Command::SaveClip { source_id: 2, name: Some("gate-1".into()), before: 10.0, after: 20.0 },
        ),
    ];
    assert_eq!(cases.len(), COMMANDS.len());
    for (value, expected) in cases {
        let read = message(&value.to_string());
        assert_eq!(read.name, expected.name());
        assert_eq!(read.command.as_ref(), Ok(&expected), "{value}");
        // What is written is read again as the same.
        let again = json!({"command": expected.name(), "params": expected.params()});
        assert_eq!(message(&again.to_string()).command, Ok(expected));
    }
}

#[test]
fn mistakes_are_explained() {
    for (text, part) in [
        (
            r#"{"command":"set_fps","params":{"max_fps":"fast"}}"#,
            "max_fps must be a number from 0 to 1000, got \"fast\"",
        ),
        (r#"{"command":"set_fps","params":{"max_fps":-1}}"#, "from 0 to 1000, got -1"),
        (r#"{"command":"set_fps","params":{}}"#, "set_fps needs max_fps"),
        (
            r#"{"command":"set_fps","params":{"max_fps":1,"souce_id":2}}"#,
            "set_fps takes max_fps, [source_id]; \"souce_id\" is not known",
        ),
        (r#"{"command":"set_fps","params":[1]}"#, "params must be an object"),
        (r#"{"command":"set_confidence","params":{"confidence":1.01}}"#, "from 0 to 1, got 1.01"),
        (r#"{"command":"pause","params":{"source_id":-1}}"#, "source_id must be a camera's number, got -1"),
        (r#"{"command":"pause","params":{"source_id":4294967296}}"#, "must be a camera's number"),
        (r#"{"command":"status","params":{"x":1}}"#, "status takes no parameters"),
        (r#"{"command":"explode"}"#, "there is no command \"explode\"; there are status, metrics"),
        (r#"{"command":7,"request_id":"r"}"#, "command must be text"),
        (r#"{"request_id":"r"}"#, "names no command"),
        (r#"{"command":"status","request_id":7}"#, "request_id must be text"),
        (r#"{"command":"status","target_instances":"proc-a"}"#, "must be a list of instance ids"),
        (r#"{"command":"status","target_instances":[7]}"#, "must be a list of instance ids"),
        (r#"{"command":"change_model","params":{"model_id":"../../etc/passwd"}}"#, "a model is named by"),
        // Would be looked for in the working directory.
        (r#"{"command":"change_model","params":{"model_id":"x.onnx"}}"#, "without .onnx"),
        (r#"{"command":"change_model","params":{"model_id":"x.OnnX"}}"#, "without .onnx"),
        (r#"{"command":"change_model","params":{"model_id":""}}"#, "a model is named by"),
        (r#"{"command":"set","params":{}}"#, "at least one parameter"),
        (r#"{"command":"set","params":{"a b":1}}"#, "no parameter's name"),
        (r#"{"command":"set","params":{"classes":["person"]}}"#, "classes must be text, a number"),
        (r#"{"command":"set","params":{"classes":"a\nb"}}"#, "must not hold control characters"),
        (r#"{"command":"set","params":{"x":1e999}}"#, "number out of range"),
        (r#"{"command":"rename_instance","params":{"new_instance_id":"ack"}}"#, "instance id \"ack\""),
        (r#"{"command":"start_recording","params":{"max_duration":0}}"#, "from 1 to 86400, got 0"),
        (r#"{"command":"start_recording","params":{"label":""}}"#, "label must have 1 to 64 characters"),
        (r#"{"command":"start_recording","params":{"lable":"x"}}"#, "\"lable\" is not known"),
        (r#"{"command":"save_clip","params":{"name":"x"}}"#, "save_clip needs source_id"),
        (r#"{"command":"save_clip","params":{"source_id":1,"name":"../../etc/x"}}"#, "no path"),
        (r#"{"command":"save_clip","params":{"source_id":1,"name":"a/b"}}"#, "no path"),
        (r#"{"command":"save_clip","params":{"source_id":1,"before":601}}"#, "from 0 to 600, got 601"),
        (r#"{"command":"save_clip","params":{"source_id":1,"before":0}}"#, "at least a second"),
        (
            r#"{"command":"batch","params":{"commands":[{"command":"start_recording"}]}}"#,
            "start_recording cannot be undone and cannot be part of a batch",
        ),
        (r#"{"command":"batch","params":{"commands":[]}}"#, "a batch has 1 to 64 commands, got 0"),
        (
            r#"{"command":"batch","params":{"commands":[{"command":"stop"}]}}"#,
            "command 1 of the batch (stop): stop cannot be undone",
        ),
        (
            r#"{"command":"batch","params":{"commands":[{"command":"batch","params":{}}]}}"#,
            "cannot hold a batch",
        ),
        (
            r#"{"command":"batch","params":{"commands":[{"command":"pause"},7]}}"#,
            "command 2 of the batch must be an object",
        ),
        (r#"{"command":"status","command":"stop"}"#, "command is given twice"),
        (r#"{"command":"status","#, "no JSON object"),
        (r#"{"command":"status"} x"#, "no JSON object"),
        (
            r#"{"command":"add_stream","params":{"source_id":1,"uri":["rtsp://a:geheim@c"]}}"#,
            "uri must be text",
        ),
    ] {
        let said = error(text);
        assert!(said.contains(part), "{text}: {said}");
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[test]
fn who_is_meant_is_found_out_first() {
    for (targets, ours) in [
        (json!([]), true),
        (Value::Null, true),
        (json!(["*"]), true),
        (json!(["proc-b", "proc-a"]), true),
        (json!(["proc-b"]), false),
        (json!(["proc-aa", ""]), false),
    ] {
        let text = json!({"command": "status", "target_instances": targets}).to_string();
        assert_eq!(read(text.as_bytes(), "proc-a") != Incoming::NotForUs, ours, "{text}");
    }
    // Damaged, and addressed to another one: none of our business.
    let text = r#"{"target_instances":["proc-b"],"command":"status","params":"#;
    assert_eq!(read(text.as_bytes(), "proc-a"), Incoming::NotForUs);
}

#[test]
fn whoever_can_be_answered_is_answered() {
    let cut = message(r#"{"request_id":"r-1","command":"add_stream","params":{"sour"#);
    assert_eq!((cut.name.as_str(), cut.request_id.as_deref()), ("add_stream", Some("r-1")));
    assert!(cut.command.is_err());
    let only_id = message(r#"{"request_id":"r-2","command":"sta"#);
    assert_eq!((only_id.name.as_str(), only_id.request_id.as_deref()), ("", Some("r-2")));
    let mut invalid = br#"{"request_id":"r-3","command":"status","x":""#.to_vec();
    invalid.extend([0xff, 0xfe, b'"', b'}']);
    assert!(
        matches!(read(&invalid, "a"), Incoming::Message(m) if m.command.is_err() && m.request_id.is_some())
    );
    let deep = format!(r#"{{"request_id":"r-4","command":"set","params":{}"#, "[".repeat(20_000));
    assert_eq!(message(&deep).request_id.as_deref(), Some("r-4"));
    let large =
        format!(r#"{{"command":"set","request_id":"r-5","params":{{"classes":"{}"}}}}"#, "x".repeat(1 << 20));
    let large = message(&large);
    assert_eq!(large.request_id.as_deref(), Some("r-5"));
    assert!(large.command.unwrap_err().contains("65536 are allowed"));
    for noise in ["", "{", "[]", "7", "null", "\u{0}", "{\"command\":", "{\"x\":1}"] {
        assert!(matches!(read(noise.as_bytes(), "a"), Incoming::Noise(_)), "{noise}");
    }
}

#[test]
fn addresses_and_commands_are_allow_listed() {
    let policy = Policy::default();
    for (text, allowed) in [
        (r#"{"command":"add_stream","params":{"source_id":1,"uri":"rtsp://a:geheim@c/1"}}"#, true),
        (r#"{"command":"add_stream","params":{"source_id":1}}"#, true),
        (r#"{"command":"add_stream","params":{"source_id":1,"uri":"file:///etc/geheim"}}"#, false),
        (r#"{"command":"add_stream","params":{"source_id":1,"uri":"geheim"}}"#, false),
        (r#"{"command":"add_stream","params":{"source_id":1,"stream_uri":"geheim"}}"#, false),
        (r#"{"command":"change_stream_uri","params":{"source_id":1,"uri":"FILE:/geheim"}}"#, false),
        (r#"{"command":"change_stream_uri","params":{"source_id":1,"uri":"HTTPS://x"}}"#, true),
        (r#"{"command":"set","params":{"uri":"testsrc://geheim"}}"#, false),
        (r#"{"command":"set","params":{"anything":"data:geheim"}}"#, false),
        (r#"{"command":"set","params":{"model":"/geheim.onnx"}}"#, false),
        (r#"{"command":"reconfigure","params":{"model":"x.ONNX"}}"#, false),
        (r#"{"command":"set","params":{"model":"demo","classes":"person, car"}}"#, true),
        (
            r#"{"command":"batch","params":{"commands":[{"command":"change_stream_uri","params":{"source_id":1,"uri":"file:///geheim"}}]}}"#,
            false,
        ),
    ] {
        let verdict = policy.check(&message(text).command.unwrap());
        assert_eq!(verdict.is_ok(), allowed, "{text}: {verdict:?}");
        let what = if text.contains("\"model\"") { "" } else { "geheim" };
        assert!(verdict.err().is_none_or(|error| what.is_empty() || !error.contains(what)));
    }
    let policy = Policy::new("status, set_fps", "file").unwrap();
    let check = |text: &str| policy.check(&message(text).command.unwrap());
    assert!(check(r#"{"command":"set_fps","params":{"max_fps":1}}"#).is_ok());
    let pause = check(r#"{"command":"pause"}"#).unwrap_err();
    assert_eq!(pause, "pause is not enabled here; enabled are status, set_fps");
    assert!(Policy::new("status,explode", "").unwrap_err().contains("\"explode\""));
}

#[test]
fn answers_have_the_form_of_the_protocol() {
    let ack = Ack::new("proc-a", "set_fps", Some("any"), Err("too fast".into()), 1_761_388_200_123_000_000);
    assert_eq!(
        serde_json::from_slice::<Value>(&ack.to_json()).unwrap(),
        json!({"instance_id": "proc-a", "command": "set_fps", "request_id": "any", "ack_status": "error",
            "error": "too fast", "timestamp": "2025-10-25T10:30:00.123Z"})
    );
    let ack = Ack::new("proc-a", "status", None, Ok(AckStatus::Completed), 0);
    assert!(!String::from_utf8(ack.to_json()).unwrap().contains("request_id"));
    let will = Status::parse(br#"{"instance_id":"a","status":"offline"}"#).unwrap();
    assert!(!will.status.is_alive() && will.streams.is_empty());
}

#[test]
fn a_bucket_gives_what_its_rate_allows() {
    let mut bucket = Bucket::new(10.0, 5.0, 0);
    assert_eq!((0..20).filter(|_| bucket.take(0)).count(), 5);
    assert!(!bucket.take(90_000_000) && bucket.take(150_000_000));
    // A clock that steps back gives nothing and takes nothing.
    assert!(!bucket.take(0));
    assert_eq!((0..20).filter(|_| bucket.take(u64::MAX)).count(), 5);
    let mut open = Bucket::new(0.0, 1.0, 0);
    assert!((0..100).all(|_| open.take(0)));
}

fn status(client: &str, started: &str, claiming: bool) -> Status {
    Status {
        client_id: client.into(),
        started: started.into(),
        claiming,
        ..Status::new("proc-a", State::Running)
    }
}

#[test]
fn a_free_id_is_claimed_as_soon_as_the_question_comes_back() {
    let mut claim = Claim::new("me", "2026");
    assert_eq!(claim.heard(&status("me", "2026", true), false, 0), Answer::Nothing);
    assert_eq!(claim.subscribed(0), Answer::Ask);
    let gone = Status { status: State::Offline, ..status("old", "2025", false) };
    assert_eq!(claim.heard(&gone, true, 0), Answer::Nothing);
    assert_eq!(claim.heard(&status("me", "2026", true), false, 0), Answer::Claimed);
    assert!(claim.is_owner());
    // The last will of a broken connection arrives late; a new connection announces itself.
    assert_eq!(
        claim.heard(&Status { status: State::Offline, ..status("me", "2026", false) }, false, 1),
        Answer::Assert
    );
    assert_eq!(claim.subscribed(0), Answer::Assert);
    assert_eq!(claim.heard(&status("me", "2026", false), true, 1), Answer::Nothing);
}

#[test]
fn an_owner_defends_its_id_and_a_ghost_does_not() {
    let mut owner = Claim::new("owner", "2027");
    let mut second = Claim::new("second", "2026");
    owner.subscribed(0);
    owner.heard(&status("owner", "2027", true), false, 0);
    second.subscribed(0);
    assert_eq!(second.heard(&status("owner", "2027", false), true, 0), Answer::Nothing);
    assert_eq!(
        owner.heard(&status("second", "2026", true), false, 0),
        Answer::Assert,
        "whatever its clock says"
    );
    assert_eq!(second.heard(&status("second", "2026", true), false, 0), Answer::Nothing);
    assert_eq!(second.heard(&status("owner", "2027", false), false, 0), Answer::Taken("owner".into()));
    assert_eq!(second.tick(u64::MAX), Answer::Nothing);

    let mut heir = Claim::new("heir", "2026");
    heir.subscribed(0);
    heir.heard(&status("ghost", "2025", false), true, 0);
    heir.heard(&status("heir", "2026", true), false, 5);
    let deadline = heir.deadline_ns().unwrap();
    assert_eq!(heir.tick(deadline - 1), Answer::Nothing);
    assert_eq!(heir.tick(deadline), Answer::Claimed);
}

#[test]
fn a_broker_that_swallows_the_question_is_noticed_and_asked_again() {
    let mut claim = Claim::new("me", "2026");
    assert_eq!(claim.deadline_ns(), None);
    claim.subscribed(1_000);
    let deadline = claim.deadline_ns().unwrap();
    assert_eq!(claim.tick(deadline - 1), Answer::Nothing);
    assert_eq!(claim.tick(deadline), Answer::Unheard);
    assert!(claim.deadline_ns() > Some(deadline) && !claim.is_owner());
    // Its access list has been corrected.
    assert_eq!(claim.heard(&status("me", "2026", true), false, deadline), Answer::Claimed);
    assert_eq!(claim.deadline_ns(), None);
}

#[test]
fn an_owner_that_is_remembered_before_the_subscription_is_known_to_stand_counts() {
    let mut newcomer = Claim::new("newcomer", "2025");
    assert_eq!(newcomer.heard(&status("owner", "2026", false), true, 0), Answer::Nothing);
    assert_eq!(newcomer.subscribed(0), Answer::Ask);
    assert_eq!(newcomer.heard(&status("newcomer", "2025", true), false, 0), Answer::Nothing);
    assert_eq!(newcomer.heard(&status("owner", "2026", false), false, 1), Answer::Taken("owner".into()));
}

#[test]
fn of_two_newcomers_one_wins() {
    let (mut a, mut b) = (Claim::new("a", "2025"), Claim::new("b", "2026"));
    a.subscribed(0);
    b.subscribed(0);
    assert_eq!(b.heard(&status("a", "2025", true), false, 0), Answer::Taken("a".into()));
    assert_eq!(a.heard(&status("b", "2026", true), false, 0), Answer::Ask);
    assert_eq!(a.heard(&status("a", "2025", true), false, 0), Answer::Claimed);
    // Both started without a broker and own the id when it comes: the older one keeps it.
    let (mut a, mut b) = (Claim::new("a", "2025"), Claim::new("b", "2026"));
    for (claim, client, started) in [(&mut a, "a", "2025"), (&mut b, "b", "2026")] {
        claim.subscribed(0);
        claim.heard(&status(client, started, true), false, 0);
        assert!(claim.is_owner());
    }
    assert_eq!(a.heard(&status("b", "2026", false), false, 0), Answer::Assert);
    assert_eq!(b.heard(&status("a", "2025", false), false, 0), Answer::Taken("a".into()));
}

/// A command with one part cut out, doubled or replaced.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let seeds = prop::sample::select(vec![
        r#"{"command":"set_fps","params":{"max_fps":0.05},"target_instances":["proc-a"],"request_id":"r"}"#,
        r#"{"command":"batch","params":{"commands":[{"command":"pause"},{"command":"set","params":{"classes":"person"}}]},"request_id":"r"}"#,
        r#"{"request_id":"r","command":"add_stream","params":{"source_id":3,"uri":"rtsp://u:p@h/3","max_fps":1.5}}"#,
    ]);
    (
        seeds,
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..6),
    )
        .prop_map(|(seed, from, to, new)| {
            let mut bytes = seed.as_bytes().to_vec();
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            bytes.splice(from.min(to)..from.max(to), new);
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), mutated()]) {
        let whole: Option<Value> = serde_json::from_slice(&bytes).ok();
        match read(&bytes, "proc-a") {
            Incoming::Message(message) => {
                prop_assert!(message.name.len() <= 300);
                if let Ok(command) = &message.command {
                    prop_assert!(whole.is_some());
                    prop_assert_eq!(command.name(), &message.name);
                    let _ = Policy::default().check(command);
                }
            }
            // A whole object that holds a request id and is not for others is never passed over.
            Incoming::Noise(_) => prop_assert!(
                !whole.as_ref().is_some_and(|v| v.get("request_id").is_some_and(Value::is_string))
            ),
            Incoming::NotForUs => {}
        }
    }

    #[test]
    fn claims_never_panic_and_end(events in prop::collection::vec((0u8..5, any::<bool>(), any::<bool>()), 0..40)) {
        let mut claim = Claim::new("me", "2026");
        let mut lost = false;
        for (kind, retained, claiming) in events {
            let answer = match kind {
                0 => claim.subscribed(0),
                1 => claim.heard(&status("me", "2026", claiming), retained, 0),
                2 => claim.heard(&status("you", "2025", claiming), retained, 0),
                3 => claim.heard(&Status { status: State::Offline, ..status("you", "2027", claiming) }, retained, 0),
                _ => claim.tick(u64::MAX),
            };
            prop_assert!(!lost || answer == Answer::Nothing);
            lost |= matches!(answer, Answer::Taken(_));
        }
    }
}
