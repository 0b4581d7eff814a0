//! Model files that are missing, broken, wrong or hostile.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gst::prelude::*;

use crate::util::*;

fn start_error(path: &Path, properties: &[(&str, &str)]) -> Option<String> {
    let element = Camera::element("grey_a", properties);
    element.set_property("model", path.to_str().unwrap());
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    let started = element.set_state(gst::State::Paused);
    let _ = element.set_state(gst::State::Null);
    let error = started.is_err().then(|| error_on(&bus));
    // Messages that nobody took hold the element, which holds the bus.
    bus.set_flushing(true);
    error
}

#[test]
fn a_bad_model_is_one_clear_error_that_names_the_file() {
    if !runtime() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(model("grey_a")).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (path, expected) in [
        (dir.path().join("missing.onnx"), "no such file"),
        (write("empty.onnx", b""), "empty"),
        (write("truncated.onnx", &whole[..whole.len() - 100]), "cannot be loaded"),
        (write("text.onnx", b"<html>404 not found</html>"), "cannot be loaded"),
        (model("grey_nan").into(), "NaN"),
    ] {
        let error = start_error(&path, &[]).unwrap_or_else(|| panic!("{} starts", path.display()));
        assert!(error.contains(path.to_str().unwrap()) && error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    let good = write("good.onnx", &whole);
    assert_eq!(start_error(&good, &[]), None);
    write("good.toml", b"fit = \"sideways\"");
    let error = start_error(&good, &[]).unwrap();
    assert!(error.contains("good.toml") && error.contains("fit"), "{error}");
    std::fs::remove_file(dir.path().join("good.toml")).unwrap();
    let error = start_error(&good, &[("labels-file", "/nowhere/labels.txt")]).unwrap();
    assert!(error.contains("/nowhere/labels.txt"), "{error}");
    let error = start_error(&good, &[("device", "cuda")]).unwrap();
    assert!(error.contains("device cuda is not available") && error.contains("cpu"), "{error}");
    let error = start_error(Path::new("no-such-model"), &[]).unwrap();
    assert!(
        error.contains("no-such-model.onnx") && error.contains("nvr-launch models get no-such-model"),
        "{error}"
    );
}

#[test]
fn the_built_in_model_needs_no_file() {
    if !runtime() {
        return;
    }
    let element = Camera::element("grey_a", &[("model", "demo")]);
    let mut camera = Camera::around(element, info(gst_video::VideoFormat::Nv12, 640, 360));
    let loaded = camera.message("nvr-model-loaded");
    let classes = loaded.get::<gst::ArrayRef<'_>>("classes").unwrap();
    let classes: Vec<_> = classes.iter().map(|class| class.get::<String>().unwrap()).collect();
    assert_eq!(classes, ["person", "car", "dog"]);
    let seen = camera.look(128).expect("looked at");
    assert_eq!((seen.model_id.as_str(), seen.class), ("demo", None), "an even grey shows nothing");
}

/// The answer would be the same without, so the element has to say it.
#[test]
fn a_focus_stem_runs_as_one_convolution() {
    if !runtime() {
        return;
    }
    let said = Arc::new(AtomicBool::new(false));
    gst::log::set_threshold_for_name("nvrinfer", gst::DebugLevel::Info);
    let listener = gst::log::add_log_function({
        let said = said.clone();
        move |_, _, _, _, _, _, message| {
            let text = message.get().map(|text| text.to_string()).unwrap_or_default();
            if text.contains("grey_stem.onnx") && text.contains("one convolution") {
                said.store(true, Ordering::Relaxed);
            }
        }
    });
    let mut camera = Camera::new("grey_stem", &[]);
    for class in [0, 3, 10] {
        assert_eq!(camera.class(value_of(class)), Some(format!("e{class}")));
    }
    gst::log::remove_log_function(listener);
    assert!(said.load(Ordering::Relaxed), "the model was run as it stands in the file");
}

#[test]
fn a_class_without_a_label_is_an_error_and_not_a_wrong_name() {
    if !runtime() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.txt");
    std::fs::write(&labels, "zero\none\ntwo\n").unwrap();
    let mut camera = Camera::new("grey_a", &[("labels-file", labels.to_str().unwrap())]);
    assert_eq!(camera.class(value_of(2)), Some("two".into()));
    assert_eq!(camera.look(value_of(9)), None);
    let warnings = camera.warnings();
    assert!(
        matches!(&warnings[..], [one] if one.contains("class 9") && one.contains("3 labels")),
        "{warnings:?}"
    );
}

/// Deterministic noise (xorshift), so that a failure can be repeated.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn damage(bytes: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=noise.below(8) {
        let at = noise.below(bytes.len());
        match noise.below(10) {
            0..=5 => bytes[at] = noise.below(256) as u8,
            6 => bytes[at] ^= 1 << noise.below(8),
            7 => drop(bytes.drain(at..(at + noise.below(16)).min(bytes.len()))),
            8 => drop(bytes.splice(at..at, (0..noise.below(8)).map(|i| i as u8))),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// `NVR_HOSTILE_MODELS` sets how many; 10,000 take a few minutes.
#[test]
fn hostile_models_are_errors_and_never_a_crash() {
    if !runtime() {
        return;
    }
    let count = std::env::var("NVR_HOSTILE_MODELS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.onnx");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut started = 0;
    for i in 0..count {
        let name = ["grey_a", "grey_batch", "grey_moody", "grey_stem"][i % 4];
        std::fs::write(&path, damage(&std::fs::read(model(name)).unwrap(), &mut noise)).unwrap();
        match start_error(&path, &[("threads", "1")]) {
            Some(error) => assert!(error.contains("hostile.onnx"), "{error}"),
            None => started += 1,
        }
    }
    println!("{started} of {count} damaged models still work");
    assert_eq!(start_error(Path::new(&model("grey_a")), &[]), None, "and nothing is left behind");
}
