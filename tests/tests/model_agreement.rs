//! Every public test model gives what ONNX Runtime's own Python gives on the same pixels, from every pixel
//! format, with odd sizes and padded rows. The expected numbers are in `tests/data/reference`, written by
//! `tests/bench/reference.py golden`.

use std::collections::BTreeMap;

use anyhow::Context;
use nvr_core::{
    decode::{DecodeParams, RawDetection},
    frame::PixelFormat,
    geometry::Rect,
    model::{ModelHints, ModelType},
};
use nvr_tests::{
    data,
    detector::{Detector, runtime},
    picture::Picture,
};
use serde_json::Value;

/// What the numbers of a model may differ by.
struct Bound {
    confidence: f32,
    iou: f32,
    /// Detections in a thousand that may differ by more.
    outliers: usize,
}

const FLOAT: Bound = Bound { confidence: 0.02, iou: 0.95, outliers: 0 };
/// Which 300 of its 2100 queries the model keeps hangs on the order of nearly equal scores, so that a rounded
/// pixel now and then adds or removes a duplicate.
const QUERIES: Bound = Bound { outliers: 20, ..FLOAT };
/// The square roots and the coarse grid of FastestDet make much of little differences.
const NOISY: Bound = Bound { outliers: 10, ..FLOAT };
/// Activations are quantised by each picture's own range, so that one pixel's difference of 1 moves all of them.
const INT8: Bound = Bound { confidence: 0.1, iou: 0.95, outliers: 0 };

struct Reference {
    threshold: f32,
    iou_threshold: f32,
    /// Picture, variant, detections.
    images: BTreeMap<String, BTreeMap<String, Vec<RawDetection>>>,
}

fn reference(model: &str) -> anyhow::Result<Reference> {
    let path = data::own(&format!("reference/{model}.json"));
    let json: Value =
        serde_json::from_slice(&std::fs::read(&path).with_context(|| path.display().to_string())?)?;
    let number = |value: &Value| value.as_f64().context("a number");
    let detection = |row: &Value| -> anyhow::Result<RawDetection> {
        let v = row.as_array().context("a list")?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(v.len() == 6, "six numbers");
        let rect = Rect::from_corners(v[2] as f32, v[3] as f32, v[4] as f32, v[5] as f32);
        Ok(RawDetection { class_id: v[0] as u32, confidence: v[1] as f32, rect })
    };
    let mut images = BTreeMap::new();
    for (image, variants) in json["images"].as_object().context("images")? {
        let mut by_variant = BTreeMap::new();
        for (variant, rows) in variants.as_object().context("variants")? {
            let rows =
                rows.as_array().context("a list")?.iter().map(detection).collect::<Result<Vec<_>, _>>()?;
            by_variant.insert(variant.clone(), rows);
        }
        images.insert(image.clone(), by_variant);
    }
    Ok(Reference {
        threshold: number(&json["threshold"])? as f32,
        iou_threshold: number(&json["iou_threshold"])? as f32,
        images,
    })
}

/// Formats, padding of each row, and the variant of the reference that has the same pixels.
const FRAMES: [(PixelFormat, usize, bool, &str); 9] = [
    (PixelFormat::Rgb, 0, false, "rgb"),
    (PixelFormat::Bgr, 13, false, "rgb"),
    (PixelFormat::Rgbx, 64, false, "rgb"),
    (PixelFormat::Rgb, 7, true, "rgb-odd"),
    (PixelFormat::Bgrx, 4, true, "rgb-odd"),
    (PixelFormat::Nv12, 0, false, "420"),
    (PixelFormat::I420, 24, false, "420"),
    (PixelFormat::Nv12, 35, true, "420-odd"),
    (PixelFormat::I420, 0, true, "420-odd"),
];

/// Detections below this are searched for counterparts, but need none themselves.
const CLEAR: f32 = 0.4;

#[derive(Default)]
struct Tally {
    compared: usize,
    /// Where the other side kept another of two equally confident boxes of one object.
    ties: usize,
    errors: Vec<String>,
}

impl Tally {
    /// Every clear detection of `a` has one in `b`: same class, same box, same confidence within `bound`. A
    /// suppression that has to choose between overlapping boxes whose confidences differ by less than the bound may
    /// choose either; such ties are counted.
    fn compare(&mut self, a: &[RawDetection], b: &[RawDetection], overlap: f32, bound: &Bound, what: &str) {
        for one in a.iter().filter(|one| one.confidence >= CLEAR) {
            self.compared += 1;
            let alike = |iou: f32| {
                b.iter().any(|other| {
                    other.class_id == one.class_id
                        && other.rect.iou(&one.rect) >= iou
                        && (other.confidence - one.confidence).abs() <= bound.confidence
                })
            };
            if alike(bound.iou) {
                continue;
            }
            if alike(overlap) {
                self.ties += 1;
                continue;
            }
            let near = b.iter().filter(|other| other.rect.iou(&one.rect) >= overlap);
            let near: Vec<_> =
                near.map(|o| format!("{} {:.3} {:?}", o.class_id, o.confidence, o.rect)).collect();
            self.errors.push(format!(
                "{what}: class {} {:.3} {:?}, near it {near:?}",
                one.class_id, one.confidence, one.rect
            ));
        }
    }
}

fn agrees(model: &str, expected_type: ModelType, hints: ModelHints, bound: &Bound) {
    let Some(path) = data::shared(&format!("models/{model}.onnx")) else { return };
    let Some(images) = data::shared("images") else { return };
    let Some(runtime) = runtime() else { return };
    let reference = reference(model).unwrap();
    let mut detector = Detector::open(runtime, &path, hints).unwrap();
    assert_eq!(detector.spec.model_type, expected_type);
    let params = DecodeParams {
        threshold: reference.threshold,
        iou_threshold: reference.iou_threshold,
        max_detections: 300,
        classes: None,
    };
    let mut tally = Tally::default();
    for (image, variants) in &reference.images {
        let even = Picture::load(&images.join(image)).unwrap();
        let odd = even.odd();
        for (format, padding, is_odd, variant) in FRAMES {
            let expected = &variants[variant];
            let raw = if is_odd { &odd } else { &even }.to(format, padding);
            let got = detector.detect(&raw.frame(), &params).unwrap();
            let what = format!("{image} {format:?} {}×{}", raw.width, raw.height);
            tally.compare(expected, &got, params.iou_threshold, bound, &format!("{what}, reference"));
            tally.compare(&got, expected, params.iou_threshold, bound, &format!("{what}, ours"));
        }
    }
    let Tally { compared, ties, errors } = tally;
    println!("{model}: {compared} compared, {ties} ties, {} differ", errors.len());
    assert!(compared >= 80, "only {compared} detections compared");
    let few = errors.len() * 1000 <= compared * bound.outliers;
    assert!(few, "{model}: {} of {compared} differ:\n{}", errors.len(), errors.join("\n"));
    assert!(ties * 12 <= compared, "{model}: {ties} of {compared} are ties");
}

#[test]
fn yolox() {
    agrees("yolox_nano_416", ModelType::Yolox, ModelHints::default(), &FLOAT);
}

#[test]
fn yolox_decoded_by_its_exporter() {
    agrees("yolox_nano_v5layout", ModelType::Yolox, ModelHints::default(), &FLOAT);
}

#[test]
fn yolox_in_the_layout_of_yolov5() {
    let hints = ModelHints { model_type: Some(ModelType::Yolov5), ..ModelHints::default() };
    agrees("yolox_nano_v5layout", ModelType::Yolov5, hints, &FLOAT);
}

#[test]
fn yolox_with_suppression_inside() {
    agrees("yolox_nano_e2e_nms7", ModelType::Nms7, ModelHints::default(), &FLOAT);
}

#[test]
fn yolov8_int8() {
    agrees("yolov8n_int8", ModelType::Yolov8, ModelHints::default(), &INT8);
}

#[test]
fn deim() {
    agrees("deimv2_atto_320", ModelType::Detr, ModelHints::default(), &QUERIES);
}

#[test]
fn nanodet() {
    agrees("nanodet_m_320", ModelType::Nanodet, ModelHints::default(), &FLOAT);
}

#[test]
fn fastestdet() {
    agrees("fastestdet_352", ModelType::Fastestdet, ModelHints::default(), &NOISY);
}

#[test]
fn yunet() {
    agrees("yunet_2026may", ModelType::Yunet, ModelHints::default(), &FLOAT);
}

/// What `nvrinfer` runs on a CPU is not quite what the file says, and gives the same.
#[test]
fn a_folded_stem_gives_the_same_detections() {
    let Some(images) = data::shared("images") else { return };
    let Some(runtime) = runtime() else { return };
    let params = DecodeParams { threshold: 0.05, iou_threshold: 0.5, max_detections: 300, classes: None };
    for model in ["yolox_nano_416", "yolox_nano_v5layout", "yolox_nano_e2e_nms7"] {
        let Some(path) = data::shared(&format!("models/{model}.onnx")) else { return };
        let mut plain = Detector::open(runtime, &path, ModelHints::default()).unwrap();
        let mut folded = Detector::open_folded(runtime, &path, ModelHints::default()).unwrap();
        let mut compared = 0;
        for image in reference("yolox_nano_416").unwrap().images.keys() {
            let picture = Picture::load(&images.join(image)).unwrap().to(PixelFormat::Nv12, 0);
            let expected = plain.detect(&picture.frame(), &params).unwrap();
            let found = folded.detect(&picture.frame(), &params).unwrap();
            for one in &expected {
                let alike = |other: &RawDetection| {
                    other.class_id == one.class_id
                        && (other.confidence - one.confidence).abs() < 1e-3
                        && other.rect.iou(&one.rect) > 0.99
                };
                // At the threshold one of the two may be a hair below it.
                let is_border = one.confidence - params.threshold < 1e-3;
                assert!(is_border || found.iter().any(alike), "{model} {image}: {one:?} is not in {found:?}");
                compared += 1;
            }
            assert!(found.len().abs_diff(expected.len()) <= 1, "{model} {image}");
        }
        assert!(compared > 30, "{model}: only {compared} detections compared");
    }
}
