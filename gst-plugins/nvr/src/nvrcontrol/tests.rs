use gst::{prelude::*, subclass::prelude::ObjectSubclassIsExt};

use super::*;
use crate::{
    init,
    mqtt::fake::{FakeBroker, Manner, TIMEOUT},
};

fn pipeline(properties: &[(&str, &str)]) -> (gst::Pipeline, gst::Element) {
    init();
    let pipeline = gst::Pipeline::new();
    let control = gst::ElementFactory::make("nvrcontrol").build().unwrap();
    for (name, value) in properties {
        control.set_property(name, *value);
    }
    pipeline.add(&control).unwrap();
    (pipeline, control)
}

#[test]
fn it_starts_and_stops_whatever_the_broker_does() {
    for (manner, trouble) in [
        (Manner::Polite, None),
        (Manner::Silent, None),
        (Manner::Secretive, Some("nvr/control/commands; check its access list")),
        (Manner::Refuse(5), Some("refuses user name or password")),
        (Manner::HangUp, Some("trying again")),
        (Manner::Garble(&[0xff; 9]), Some("trying again")),
    ] {
        let broker = FakeBroker::start(manner);
        let (pipeline, control) = pipeline(&[("broker", &broker.url()), ("instance-id", "a")]);
        for round in 1..=2 {
            pipeline.set_state(gst::State::Playing).unwrap();
            // What is wrong is said, with the broker's address, and nothing else happens.
            if let Some(part) = trouble {
                let text = warning(&pipeline, part);
                assert!(text.starts_with("no commands: "), "{manner:?}: {text}");
            } else {
                let asked = |f: &&String| *f == "nvr/control/commands";
                broker.until(|seen| seen.filters.iter().filter(asked).count() >= round, |_| ());
                let stats = control.property::<Option<gst::Structure>>("stats").unwrap();
                assert_eq!(stats.get::<bool>("connected"), Ok(true), "{manner:?}");
            }
            let (result, state, _) = pipeline.state(gst::ClockTime::ZERO);
            assert!(result.is_ok() && state == gst::State::Playing, "{manner:?}");
            let error = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
            assert!(error.is_none(), "{manner:?}: {error:?}");
            let before = std::time::Instant::now();
            pipeline.set_state(gst::State::Null).unwrap();
            assert!(before.elapsed() < TIMEOUT / 2, "{manner:?}: {:?}", before.elapsed());
        }
    }
}

#[test]
fn a_flood_keeps_nobody_from_the_end() {
    let broker = FakeBroker::start(Manner::Polite);
    let (pipeline, control) =
        pipeline(&[("broker", &broker.url()), ("instance-id", "a"), ("enabled-commands", "status")]);
    control.set_property("max-rate", 5.0);
    pipeline.set_state(gst::State::Playing).unwrap();
    let claim = broker.payloads(1).remove(0);
    broker.send("nvr/control/status/a", claim.as_bytes());
    broker.until(|seen| seen.messages.iter().any(|m| !text(&m.1).contains("claiming")), |_| ());
    // Refused ones: each would be answered.
    for _ in 0..20_000 {
        broker.send("nvr/control/commands", br#"{"command":"stop","request_id":"r"}"#);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let stats = control.property::<Option<gst::Structure>>("stats").unwrap();
    let get = |name: &str| stats.get::<u64>(name).unwrap();
    assert!(get("limited") > 0, "{stats}");
    // Ten at once and five per second are refused, as many are told that there were too many, and then it is quiet.
    let answers =
        broker.look(|seen| seen.messages.iter().filter(|m| m.0 == "nvr/control/status/ack").count());
    assert!((1..1000).contains(&answers), "{answers} answers, {stats}");
}

#[test]
fn wrong_settings_are_errors_that_name_them() {
    for (name, value, part) in [
        ("instance-id", "ack", "reserved word"),
        ("enabled-commands", "status,explode", "explode"),
        ("topic-prefix", "a/#", "topic prefix"),
        ("broker", "mqtt://user:geheim@/", "broker"),
    ] {
        let (pipeline, _) = pipeline(&[(name, value)]);
        assert!(pipeline.set_state(gst::State::Playing).is_err(), "{name}");
        let message = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else { unreachable!() };
        let text = error.error().message().to_owned();
        assert!(text.contains(part) && !text.contains("geheim"), "{name}: {text}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn the_name_is_asked_for_before_anything_else() {
    let broker = FakeBroker::start(Manner::Polite);
    let (pipeline, _) = pipeline(&[("broker", &broker.url()), ("instance-id", "a"), ("kind", "test")]);
    pipeline.set_state(gst::State::Playing).unwrap();
    let first = &broker.payloads(1)[0];
    assert!(first.contains("\"claiming\":true") && first.contains("\"kind\":\"test\""), "{first}");
    // Nobody sends it back: the name is not known to be free, and nothing is announced.
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(
        broker.look(|seen| seen.messages.iter().all(|m| String::from_utf8_lossy(&m.1).contains("claiming")))
    );
}

#[test]
fn the_first_answer_of_an_application_counts() {
    let (_, control) = pipeline(&[]);
    control.connect(SIGNAL_COMMAND, false, |_| Some(None::<String>.to_value()));
    control.connect(SIGNAL_COMMAND, false, |values| {
        let command: String = values[1].get().unwrap();
        Some(Some(format!("{{\"result\":\"{command}\"}}")).to_value())
    });
    control.connect(SIGNAL_COMMAND, false, |_| Some(Some("{}".to_owned()).to_value()));
    let answer = control.emit_by_name::<Option<String>>(SIGNAL_COMMAND, &[&"stop", &"{}"]);
    assert_eq!(answer.as_deref(), Some("{\"result\":\"stop\"}"));
    assert_eq!(control.emit_by_name::<Option<String>>(SIGNAL_DESCRIBE, &[]), None);
}

/// The text of the next warning that holds `part`.
fn warning(pipeline: &gst::Pipeline, part: &str) -> String {
    let bus = pipeline.bus().unwrap();
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let wait = gst::ClockTime::from_nseconds(left.as_nanos() as u64);
        let Some(message) = bus.timed_pop_filtered(wait, &[gst::MessageType::Warning]) else {
            panic!("no warning with {part:?}");
        };
        let gst::MessageView::Warning(warning) = message.view() else { unreachable!() };
        let text = warning.error().message().to_owned();
        if text.contains(part) {
            return text;
        }
    }
}

#[test]
fn a_broker_that_swallows_the_claim_is_named_with_the_topic() {
    // This one confirms what is published and gives nothing back, as one does whose access list forbids the topic.
    let broker = FakeBroker::start(Manner::Polite);
    let (pipeline, _) = pipeline(&[("broker", &broker.url()), ("instance-id", "deaf")]);
    pipeline.set_state(gst::State::Playing).unwrap();
    let text = warning(&pipeline, "access list");
    assert!(text.contains("nvr/control/status/deaf"), "{text}");
    // And asked again, for as long as it takes.
    let asked = broker.payloads(2);
    assert!(asked.iter().all(|payload| payload.contains("\"claiming\":true")), "{asked:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn who_has_lost_its_name_says_nothing_more_about_it() {
    let broker = FakeBroker::start(Manner::Polite);
    let (pipeline, control) = pipeline(&[("broker", &broker.url()), ("instance-id", "a")]);
    pipeline.set_state(gst::State::Playing).unwrap();
    let topic = "nvr/control/status/a";
    let claim = broker.payloads(1).remove(0);
    broker.send(topic, claim.as_bytes());
    // It owns the name, and says so.
    broker.until(|seen| seen.messages.iter().any(|m| !text(&m.1).contains("claiming")), |_| ());
    // Another process that has been there for longer.
    let mut other: serde_json::Value = serde_json::from_str(&claim).unwrap();
    for (key, value) in
        [("client_id", "other"), ("started", "2000-01-01T00:00:00.000Z"), ("status", "running")]
    {
        other[key] = value.into();
    }
    other.as_object_mut().unwrap().remove("claiming");
    broker.send(topic, other.to_string().as_bytes());
    let wait = gst::ClockTime::from_seconds(TIMEOUT.as_secs());
    let error = pipeline.bus().unwrap().timed_pop_filtered(wait, &[gst::MessageType::Error]);
    assert!(error.is_some());
    let before = broker.look(|seen| seen.messages.len());
    pipeline.set_state(gst::State::Null).unwrap();
    let after = broker.look(|seen| seen.messages[before..].iter().map(|m| text(&m.1)).collect::<Vec<_>>());
    assert!(after.iter().all(|payload| !payload.contains("stopped")), "{after:?}");
    drop(control);
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// Starts an element, and claims its name when `before` has been called.
fn claimed(broker: &FakeBroker, before: impl Fn()) -> gst::Pipeline {
    let (pipeline, _) = pipeline(&[("broker", &broker.url()), ("instance-id", "a")]);
    pipeline.set_state(gst::State::Playing).unwrap();
    let claim = broker.payloads(1).remove(0);
    before();
    broker.send("nvr/control/status/a", claim.as_bytes());
    pipeline
}

#[test]
fn a_last_will_that_cannot_be_left_is_a_warning() {
    let broker = FakeBroker::start(Manner::Polite);
    let pipeline = claimed(&broker, || broker.behave(Manner::Refuse(3)));
    let text = warning(&pipeline, "last will");
    assert!(text.contains("refuses the connection"), "{text}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_broker_that_does_not_take_the_last_words_gets_the_last_will() {
    for manner in [Manner::Polite, Manner::Silent] {
        let broker = FakeBroker::start(manner);
        let pipeline = claimed(&broker, || ());
        broker.until(|seen| seen.will.is_some(), |_| ());
        pipeline.set_state(gst::State::Null).unwrap();
        // The one with the will is ended first, and the other with a farewell.
        let orderly = if manner == Manner::Polite { 2 } else { 1 };
        broker.until(|seen| seen.gone == 2, |seen| assert_eq!(seen.farewells, orderly, "{manner:?}"));
    }
}

#[test]
fn status_of_an_outage_is_not_told_after_it() {
    let broker = FakeBroker::start(Manner::Polite);
    let pipeline = claimed(&broker, || ());
    let retained = |seen: &crate::mqtt::fake::Seen| {
        seen.messages
            .iter()
            .filter(|m| m.0 == "nvr/control/status/a" && !text(&m.1).contains("claiming"))
            .count()
    };
    broker.until(|seen| retained(seen) > 0, |_| ());
    broker.behave(Manner::Refuse(3));
    broker.cut();
    warning(&pipeline, "no commands: ");
    let before = broker.look(retained);
    let control = pipeline.iterate_elements().into_iter().flatten().next().unwrap();
    let shared = control.downcast::<NvrControl>().unwrap().imp().shared().unwrap();
    for _ in 0..50 {
        shared.publish_status();
        shared.publish_metrics();
    }
    broker.behave(Manner::Polite);
    broker.until(|seen| retained(seen) > before, |_| ());
    pipeline.set_state(gst::State::Null).unwrap();
    // What is true then, what the name's owner says when it is asked for it, and the end.
    let told = broker.look(retained) - before;
    assert!((2..10).contains(&told), "{told}");
}
