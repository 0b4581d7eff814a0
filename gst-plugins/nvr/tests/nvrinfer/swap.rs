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
            let mut answer = None;
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
                if let Some(message) = camera.bus.pop_filtered(&[gst::MessageType::Element]) {
                    let structure = message.structure().unwrap();
                    assert_eq!(structure.get::<&str>("model"), Ok(request.as_str()));
                    assert!(answer.is_none(), "one answer a request");
                    answer = Some(structure.name().to_string());
                }
                if answer.is_some() {
                    after -= 1;
                } else {
                    std::thread::yield_now();
                }
            }
            if request == broken {
                assert_eq!(answer.as_deref(), Some("nvr-model-error"));
                let warnings = camera.warnings();
                assert!(
                    matches!(&warnings[..], [one] if one.contains(&broken) && one.contains(&active)),
                    "{warnings:?}"
                );
            } else {
                assert_eq!(answer.as_deref(), Some("nvr-model-loaded"));
                active = request;
            }
            assert_eq!(camera.element.property::<String>("model"), active, "reads back what is in use");
            let seen = camera.feed_until_seen(0);
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
