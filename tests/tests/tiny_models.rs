//! The little models of `tests/data/models` (`tests/tools/make_models.py`): every kind of input and output from
//! frame to box, where the right answer is known; and models that must be refused.

use nvr_core::{
    decode::DecodeParams,
    frame::PixelFormat,
    geometry::Rect,
    model::{BoxUnit, ModelHints, ModelType},
    preprocess::{ElementType, Fit, TensorLayout},
};
use nvr_tests::{
    data,
    detector::{Detector, describe_file, runtime},
    picture::Picture,
};

const COLOURS: [(&str, [u8; 3]); 3] = [("red", [230, 0, 0]), ("green", [0, 230, 0]), ("blue", [0, 0, 230])];
/// Even, for the sake of half-size chroma.
const BOX: Rect = Rect::new(60.0, 40.0, 80.0, 50.0);

fn params() -> DecodeParams {
    DecodeParams { threshold: 0.5, iou_threshold: 0.45, max_detections: 300, classes: None }
}

/// A dark picture, 251×167, with one coloured rectangle.
fn picture(colour: Option<[u8; 3]>) -> Picture {
    let (width, height) = (251, 167);
    let mut rgb = vec![10; width * height * 3];
    for (at, pixel) in rgb.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((at % width) as f32, (at / width) as f32);
        let inside = x >= BOX.x && x < BOX.right() && y >= BOX.y && y < BOX.bottom();
        if let Some(colour) = colour.filter(|_| inside) {
            pixel.copy_from_slice(&colour);
        }
    }
    Picture { width, height, rgb }
}

fn finds_the_rectangle(model: &str, check: impl Fn(&Detector)) {
    let Some(runtime) = runtime() else { return };
    let path = data::own(&format!("models/{model}.onnx"));
    let mut detector = Detector::open(runtime, &path, ModelHints::default()).unwrap();
    check(&detector);
    for (colour, rgb) in COLOURS {
        for (format, padding) in
            [(PixelFormat::Rgb, 0), (PixelFormat::Bgrx, 3), (PixelFormat::Nv12, 5), (PixelFormat::I420, 0)]
        {
            let raw = picture(Some(rgb)).to(format, padding);
            let found = detector.detect(&raw.frame(), &params()).unwrap();
            let what = format!("{model} {colour} {format:?}: {found:?}");
            assert_eq!(found.len(), 1, "{what}");
            let label = detector.spec.label(found[0].class_id);
            assert!(detector.spec.labels.len() == 1 || *label == *colour, "{what}: {label}");
            assert!((found[0].confidence - 0.9).abs() < 0.001, "{what}");
            // A pixel of the input is four of the frame.
            assert!(found[0].rect.iou(&BOX) > 0.85, "{what}");
        }
    }
    let dark = picture(None).to(PixelFormat::Nv12, 0);
    assert_eq!(detector.detect(&dark.frame(), &params()).unwrap(), [], "{model}");
}

#[test]
fn end_to_end() {
    finds_the_rectangle("end_to_end", |d| assert_eq!(d.spec.model_type, ModelType::Yolov10));
}

#[test]
fn half_floats_in_and_out() {
    finds_the_rectangle("end_to_end_fp16", |d| assert_eq!(d.spec.input_element, ElementType::F16));
}

#[test]
fn any_batch() {
    finds_the_rectangle("end_to_end_any_batch", |d| assert_eq!(d.spec.batch, None));
}

#[test]
fn a_fixed_batch_that_is_not_full() {
    finds_the_rectangle("end_to_end_batch_4", |d| assert_eq!(d.spec.batch, Some(4)));
}

#[test]
fn any_size_takes_that_of_the_metadata() {
    finds_the_rectangle("end_to_end_any_size", |d| {
        assert_eq!((d.spec.input.width, d.spec.input.height), (160, 96));
    });
}

#[test]
fn bytes_with_channels_last_and_classes_from_one() {
    let Some(runtime) = runtime() else { return };
    // The model names no classes.
    let labels = Some(COLOURS.map(|(name, _)| name.to_owned()).to_vec());
    let path = data::own("models/ssd_uint8_nhwc.onnx");
    let mut detector =
        Detector::open(runtime, &path, ModelHints { labels, ..ModelHints::default() }).unwrap();
    let spec = &detector.spec;
    assert_eq!(
        (spec.model_type, spec.head.boxes, spec.head.label_offset),
        (ModelType::Ssd, BoxUnit::Normalised, 1)
    );
    assert_eq!((spec.input.layout, spec.input.element), (TensorLayout::Nhwc, ElementType::U8));
    assert_eq!((spec.input.fit, spec.input.mean, spec.input.std), (Fit::Stretch, [0.0; 3], [1.0; 3]));
    for (class_id, (_, rgb)) in COLOURS.into_iter().enumerate() {
        let raw = picture(Some(rgb)).to(PixelFormat::I420, 1);
        let found = detector.detect(&raw.frame(), &params()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].class_id as usize, class_id);
        assert!(found[0].rect.iou(&BOX) > 0.85, "{found:?}");
    }
}

#[test]
fn one_class() {
    finds_the_rectangle("yolov8_one_class", |d| {
        assert_eq!((d.spec.model_type, &*d.spec.label(0)), (ModelType::Yolov8, "box"));
    });
}

#[test]
fn raw_logits() {
    finds_the_rectangle("detr_logits", |d| assert_eq!(d.spec.model_type, ModelType::Detr));
}

#[test]
fn int64_classes_and_the_frame_size_as_input() {
    finds_the_rectangle("detr_int64", |d| assert_eq!(d.spec.head.boxes, BoxUnit::FramePixels));
}

#[test]
fn nan_is_an_error_and_what_follows_is_not_harmed() {
    let Some(runtime) = runtime() else { return };
    let path = data::own("models/nan_output.onnx");
    let mut detector = Detector::open(runtime, &path, ModelHints::default()).unwrap();
    let lit = picture(Some([255; 3])).to(PixelFormat::Rgb, 0);
    let error = detector.detect(&lit.frame(), &params()).unwrap_err().to_string();
    assert!(error.contains("output0") && error.contains("NaN"), "{error}");
    let dark = picture(None).to(PixelFormat::Rgb, 0);
    assert_eq!(detector.detect(&dark.frame(), &params()).unwrap(), []);
}

#[test]
fn models_that_must_be_refused_say_why() {
    let Some(runtime) = runtime() else { return };
    for (model, expected) in [
        ("classifier", ["classifier.onnx", "classification", "1000", "expected"]),
        ("yolov8_three_classes_four_names", ["four_names.onnx", "ONNX metadata", "4 labels", "3 classes"]),
    ] {
        let path = data::own(&format!("models/{model}.onnx"));
        let error = Detector::open(runtime, &path, ModelHints::default()).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn models_of_other_tasks_in_the_shared_data_are_refused() {
    let Some(runtime) = runtime() else { return };
    for (model, expected) in [
        ("mobilenet_v2_int8_224", "classification or embedding model with 1000"),
        ("osnet_x0_25_msmt17", "classification or embedding model with 512"),
        ("lprnet_sirius", "no known detector"),
        ("yamnet_int8w", "audio"),
    ] {
        let Some(path) = data::shared(&format!("models/{model}.onnx")) else { return };
        describe_file(runtime, &path).unwrap();
        let error = Detector::open(runtime, &path, ModelHints::default()).unwrap_err().to_string();
        assert!(error.starts_with(model) && error.contains(expected), "{error}");
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    let Some(runtime) = runtime() else { return };
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(data::own("models/end_to_end.onnx")).unwrap();
    for (name, content) in
        [("cut.onnx", &whole[..whole.len() / 2]), ("text.onnx", b"no model"), ("empty.onnx", b"")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = format!("{:#}", Detector::open(runtime, &path, ModelHints::default()).unwrap_err());
        assert!(error.contains(name), "{error}");
    }
    let error =
        Detector::open(runtime, &folder.path().join("missing.onnx"), ModelHints::default()).unwrap_err();
    assert!(format!("{error:#}").contains("missing.onnx"), "{error:#}");
}
