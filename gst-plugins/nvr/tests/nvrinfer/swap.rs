//! Changing the model while frames flow.

use gst::prelude::*;

use crate::util::*;

#[test]
fn the_model_changes_between_two_frames_and_a_bad_one_changes_nothing() {
    if !runtime() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.onnx");
    let whole = std::fs::read(model("grey_a")).unwrap();
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    let broken = broken.display().to_string();

    for mode in ["sync", "async"] {
        let mut camera = Camera::new("grey_a", &[("mode", mode), ("model-instance-id", mode)]);
        camera.message("nvr-model-loaded");
        let requests: Vec<_> =
            (0..24).map(|i| [model("grey_b"), broken.clone(), model("grey_a")][i % 3].clone()).collect();
        let mut active = model("grey_a");
        let mut models_seen = std::collections::BTreeSet::new();
        for request in requests {
            camera.element.set_property("model", &request);
            // Frames flow until the request is answered, and some more.
            let mut after = 10;
            let (mut answers, mut warnings) = (Vec::new(), Vec::new());
            while after > 0 {
                let frame = camera.frames;
                let class = frame as usize % 11;
                let seen = camera.look(value_of(class));
                assert!(mode == "async" || seen.is_some());
                if let Some(seen) = seen {
                    let prefix = seen.model_id.trim_start_matches("grey_");
                    let expected = format!("{prefix}{}", seen.frame_id % 11);
                    assert_eq!(seen.class, Some(expected), "labels and model id are of one model");
                    models_seen.insert(seen.model_id);
                }
                let news = camera.news();
                answers.extend(news.0);
                warnings.extend(news.1);
                if answers.is_empty() {
                    std::thread::yield_now();
                } else {
                    after -= 1;
                }
            }
            let [answer] = &answers[..] else { panic!("one answer a request: {answers:?}") };
            assert_eq!(answer.get::<&str>("model"), Ok(request.as_str()));
            if request == broken {
                assert_eq!(answer.name(), "nvr-model-error");
                assert_eq!(answer.get::<&str>("active"), Ok(active.as_str()));
                assert!(
                    matches!(&warnings[..], [one] if one.contains(&broken) && one.contains(&active)),
                    "{warnings:?}"
                );
            } else {
                assert_eq!(answer.name(), "nvr-model-loaded");
                assert!(warnings.is_empty(), "{warnings:?}");
                active = request;
            }
            assert_eq!(camera.element.property::<String>("model"), active, "reads back what is in use");
            let seen = camera.feed_until_seen(|frame| value_of(frame as usize % 11));
            assert!(active.contains(&seen.model_id), "{} after {active}", seen.model_id);
        }
        assert_eq!(models_seen.len(), 2);
        assert_eq!(camera.stat("frames"), camera.frames, "no frame was lost");
        assert_eq!(camera.stat("errors"), 0);
    }
}

#[test]
fn of_many_requests_the_last_counts_and_each_is_answered() {
    if !runtime() {
        return;
    }
    let mut camera = Camera::new("grey_a", &[("model-instance-id", "many")]);
    camera.message("nvr-model-loaded");
    let requests = 30;
    for i in 0..requests {
        camera.element.set_property("model", model(if i % 2 == 0 { "grey_slow" } else { "grey_b" }));
    }
    let mut answers = 0;
    while answers < requests {
        let message =
            camera.bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Element]).expect("an answer");
        assert!(
            ["nvr-model-loaded", "nvr-model-error"].contains(&message.structure().unwrap().name().as_str())
        );
        answers += 1;
    }
    assert_eq!(camera.look(value_of(4)).map(|seen| seen.class), Some(Some("b4".into())));
    assert_eq!(camera.element.property::<String>("model"), model("grey_b"));
    assert!(camera.bus.pop_filtered(&[gst::MessageType::Element]).is_none(), "one answer each");
}

#[test]
fn a_stop_while_a_model_loads_is_orderly() {
    if !runtime() {
        return;
    }
    for _ in 0..5 {
        let mut camera = Camera::new("grey_a", &[("model-instance-id", "stopped")]);
        camera.look(0);
        camera.element.set_property("model", model("grey_slow"));
        camera.element.set_state(gst::State::Null).unwrap();
        // Stopped, the property is simply what the next start loads.
        assert_eq!(camera.element.property::<String>("model"), model("grey_slow"));
    }
}

#[test]
fn a_model_that_is_set_while_the_element_starts_is_not_lost() {
    if !runtime() {
        return;
    }
    for i in 0..16u32 {
        // An engine of its own each time, so that there is something to load.
        let element = Camera::element("grey_slow", &[("model-instance-id", &format!("starting-{i}"))]);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let starting = {
            let element = element.clone();
            std::thread::spawn(move || element.set_state(gst::State::Paused).unwrap())
        };
        while element.pending_state() < gst::State::Paused && element.current_state() < gst::State::Paused {
            std::hint::spin_loop();
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_micros(150) * i {
            std::hint::spin_loop();
        }
        element.set_property("model", model("grey_b"));
        starting.join().unwrap();
        let loaded = loop {
            let message = bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Element]).expect("an answer");
            let structure = message.structure().unwrap();
            assert_eq!(structure.name(), "nvr-model-loaded", "{structure}");
            if structure.get::<&str>("model") == Ok(model("grey_b").as_str()) {
                break true;
            }
        };
        assert!(loaded && element.property::<String>("model") == model("grey_b"));
        bus.set_flushing(true);
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_model_does_not_wait_for_the_frames_of_a_camera_that_is_away() {
    if !runtime() {
        return;
    }
    let camera = Camera::new("grey_a", &[("model-instance-id", "away")]);
    camera.message("nvr-model-loaded");
    camera.element.set_property("model", model("grey_b"));
    camera.message("nvr-model-loaded");
    let stats = camera.element.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<&str>("model"), Ok(model("grey_b").as_str()));
}
