//! How the ONNX Runtime library is found, in a process of its own: a process loads one for good.

use gst::prelude::*;

fn start_error(properties: &[(&str, &str)]) -> Option<String> {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/grey_a.onnx");
    let element = gst::ElementFactory::make("nvrinfer").property("model", model).build().unwrap();
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    let started = element.set_state(gst::State::Paused);
    let _ = element.set_state(gst::State::Null);
    let _failed = started.err()?;
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    }
}

#[test]
fn a_library_that_is_missing_or_wrong_is_a_clear_error_and_the_right_one_still_loads() {
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    let dir = tempfile::tempdir().unwrap();

    let missing = dir.path().join("libonnxruntime.so");
    let error = start_error(&[("runtime-library", missing.to_str().unwrap())]).expect("no such library");
    assert!(error.contains(missing.to_str().unwrap()) && error.contains("no such file"), "{error}");

    let garbage = dir.path().join("garbage.so");
    std::fs::write(&garbage, b"not a library").unwrap();
    let error = start_error(&[("runtime-library", garbage.to_str().unwrap())]).expect("not a library");
    assert!(error.contains("garbage.so"), "{error}");

    // A library, but another one.
    let other = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let other = other
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("libgstreamer"));
    if let Some(other) = other {
        let error = start_error(&[("runtime-library", other)]).expect("another library");
        assert!(error.contains(other) && error.contains("OrtGetApiBase"), "{error}");
    }

    if let Some(error) = start_error(&[]) {
        assert!(error.contains("ONNX Runtime was not found") && error.contains("runtime-library"), "{error}");
        println!("SKIPPED the rest: {error}");
        return;
    }
    let error = start_error(&[("runtime-library", garbage.to_str().unwrap())]).expect("a second library");
    assert!(error.contains("already loaded from") && error.contains("garbage.so"), "{error}");
    assert_eq!(start_error(&[]), None);
}
