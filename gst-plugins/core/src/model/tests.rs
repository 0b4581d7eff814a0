//! Models as their files declare them, those of the shared test data among them, and what is concluded.

use super::*;

/// `name element 1x3x?x?`
fn info(text: &str) -> TensorInfo {
    let mut parts = text.split(' ');
    let (name, element, shape) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
    TensorInfo {
        name: name.into(),
        element: element.into(),
        shape: shape.split('x').filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect(),
    }
}

fn io(inputs: &[&str], outputs: &[&str]) -> ModelIo {
    let infos = |texts: &[&str]| texts.iter().map(|text| info(text)).collect();
    ModelIo { inputs: infos(inputs), outputs: infos(outputs), metadata: BTreeMap::new() }
}

fn with_metadata(mut io: ModelIo, pairs: &[(&str, &str)]) -> ModelIo {
    io.metadata = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    io
}

fn resolve(io: &ModelIo) -> ModelSpec {
    ModelSpec::resolve(io, &[], "some.onnx").unwrap()
}

fn deim() -> ModelIo {
    io(
        &["images float32 ?x3x320x320", "orig_target_sizes int64 ?x2"],
        &["labels int64 ?x?", "boxes float32 ?x?x4", "scores float32 ?x?"],
    )
}

fn nanodet() -> ModelIo {
    let outputs = [
        "cls_score0 float32 1600x80",
        "bbox_pred0 float32 400x80",
        "cls_score1 float32 100x80",
        "bbox_pred1 float32 1600x32",
        "cls_score2 float32 400x32",
        "bbox_pred2 float32 100x32",
    ];
    io(&["image float32 1x3x320x320"], &outputs)
}

fn yunet() -> ModelIo {
    let names = ["cls 1", "obj 1", "bbox 4", "kps 10"].map(|part| part.split_once(' ').unwrap());
    let outputs: Vec<String> = names
        .iter()
        .flat_map(|(name, columns)| {
            [8, 16, 32].map(|stride| format!("{name}_{stride} float32 1x?x{columns}"))
        })
        .collect();
    io(&["input float32 1x3x?x?"], &outputs.iter().map(String::as_str).collect::<Vec<_>>())
}

const SSD: [&str; 4] = [
    "num_detections:0 float32 ?",
    "detection_boxes:0 float32 ?x?x4",
    "detection_scores:0 float32 ?x?",
    "detection_classes:0 float32 ?x?",
];

#[test]
fn families_by_shape() {
    use ModelType as T;
    let f32_416 = &["images float32 1x3x416x416"][..];
    let f32_640 = &["images float32 1x3x640x640"][..];
    for (model, expected, classes) in [
        (io(f32_416, &["output float32 1x3549x85"]), T::Yolox, Some(80)),
        (io(f32_416, &["output float32 1x3549x6"]), T::Yolox, Some(1)),
        (io(f32_640, &["output0 float32 1x25200x85"]), T::Yolov5, Some(80)),
        (io(f32_640, &["output0 float32 1x25200x6"]), T::Yolov5, Some(1)),
        (io(&["images float32 ?x3x?x?"], &["output0 float32 ?x?x85"]), T::Yolov5, Some(80)),
        (io(&["images float32 1x3x1280x1280"], &["output0 float32 1x102000x85"]), T::Yolov5, Some(80)),
        (
            io(f32_640, &["a float32 1x3x80x80x85", "output float32 1x25200x85", "b float32 1x3x40x40x85"]),
            T::Yolov5,
            Some(80),
        ),
        (io(f32_640, &["output0 float32 1x84x8400"]), T::Yolov8, Some(80)),
        (io(f32_640, &["output0 float32 1x5x8400"]), T::Yolov8, Some(1)),
        (io(&["images float32 1x3x384x640"], &["output0 float32 1x84x5040"]), T::Yolov8, Some(80)),
        (io(&["images float32 ?x3x?x?"], &["output0 float32 ?x84x?"]), T::Yolov8, Some(80)),
        (io(f32_640, &["output0 float32 1x300x6"]), T::Yolov10, None),
        (io(&["images float32 ?x3x?x?"], &["output0 float32 ?x?x6"]), T::Yolov10, None),
        (io(f32_416, &["detections float32 ?x7"]), T::Nms7, None),
        (deim(), T::Detr, None),
        (io(f32_640, &["logits float32 1x300x80", "pred_boxes float32 1x300x4"]), T::Detr, Some(80)),
        (io(f32_640, &["pred_logits float32 1x100x92", "pred_boxes float32 1x100x4"]), T::Detr, Some(91)),
        (
            io(&["input float32 1x3x560x560"], &["dets float32 1x300x4", "labels float32 1x300x91"]),
            T::Detr,
            Some(91),
        ),
        (io(&["image_tensor:0 uint8 ?x?x?x3"], &SSD), T::Ssd, None),
        (nanodet(), T::Nanodet, Some(80)),
        (io(&["input.1 float32 1x3x352x352"], &["758 float32 1x85x22x22"]), T::Fastestdet, Some(80)),
        (yunet(), T::Yunet, Some(1)),
    ] {
        let spec = resolve(&model);
        assert_eq!((spec.model_type, spec.head.classes), (expected, classes), "{model:?}");
        if let Some(classes) = classes {
            assert_eq!(spec.labels.len(), classes, "{model:?}");
        }
        assert!(spec.conclusions.len() >= 6, "{:?}", spec.conclusions);
    }
}

#[test]
fn inputs_of_every_kind() {
    let out = &["output0 float32 1x300x6"][..];
    for (input, element, layout, size, batch) in [
        ("i float16 1x3x320x640", ElementType::F16, TensorLayout::Nchw, (640, 320), Some(1)),
        ("i uint8 1x480x640x3", ElementType::U8, TensorLayout::Nhwc, (640, 480), Some(1)),
        ("i int8 4x1x96x96", ElementType::I8, TensorLayout::Nchw, (96, 96), Some(4)),
        ("i float32 ?x3x?x?", ElementType::F32, TensorLayout::Nchw, (640, 640), None),
        ("i float32 ?x?x?x3", ElementType::F32, TensorLayout::Nhwc, (640, 640), None),
    ] {
        let outputs = if batch.is_none() { &["output0 float32 ?x300x6"][..] } else { out };
        let spec = resolve(&io(&[input], outputs));
        assert_eq!(spec.input.element, element, "{input}");
        assert_eq!(spec.input_element, element, "{input}");
        assert_eq!(spec.input.layout, layout, "{input}");
        assert_eq!((spec.input.width, spec.input.height), size, "{input}");
        assert_eq!(spec.batch, batch, "{input}");
        let gray = input.contains("x1x");
        assert_eq!(spec.input.order == ChannelOrder::Gray, gray, "{input}");
        let scaled = matches!(element, ElementType::F32 | ElementType::F16);
        assert_eq!(spec.input.std[0], if scaled { 255.0 } else { 1.0 }, "{input}");
    }
}

#[test]
fn preprocessing_of_the_families() {
    use ChannelOrder::{Bgr, Rgb};
    let yolox = io(&["images float32 1x3x416x416"], &["output float32 1x3549x85"]);
    for (model, fit, order, pad, std) in [
        (yolox, Fit::LetterboxTopLeft, Bgr, 114, 1.0),
        (io(&["i float32 1x3x640x640"], &["o float32 1x84x8400"]), Fit::LetterboxCentre, Rgb, 114, 255.0),
        (deim(), Fit::Stretch, Rgb, 0, 255.0),
        (nanodet(), Fit::LetterboxCentre, Bgr, 0, 57.375),
        (yunet(), Fit::LetterboxTopLeft, Bgr, 0, 1.0),
        (io(&["i uint8 1x300x300x3"], &SSD), Fit::Stretch, Rgb, 0, 1.0),
    ] {
        let input = resolve(&model).input;
        assert_eq!((input.fit, input.order, input.pad, input.std[0]), (fit, order, pad, std), "{model:?}");
    }
}

/// YOLOX is exported in layouts that others have too; its file name is then all that shows how it wants to be fed.
#[test]
fn a_table_from_yolox_is_fed_like_yolox() {
    let table = io(&["images float32 1x3x416x416"], &["detections float32 ?x7"]);
    let of = |file: &str| ModelSpec::resolve(&table, &[], file).unwrap().input;
    assert_eq!(of("models/YOLOX_s_nms.onnx").order, ChannelOrder::Bgr);
    assert_eq!(of("models/yolov7-tiny.onnx").order, ChannelOrder::Rgb);
    assert_eq!(of("yolox/yolov7-tiny.onnx").order, ChannelOrder::Rgb, "folders do not count");
}

#[test]
fn the_strongest_fact_wins_and_conclusions_say_whose() {
    let model = with_metadata(
        io(&["images float32 1x3x?x?"], &["output0 float32 1x84x?"]),
        &[("imgsz", "[320, 416]"), ("task", "detect")],
    );
    assert_eq!((resolve(&model).input.width, resolve(&model).input.height), (416, 320));
    let toml = ModelHints { width: Some(300), order: Some(ChannelOrder::Bgr), ..ModelHints::default() };
    let property = ModelHints { order: Some(ChannelOrder::Rgb), ..ModelHints::default() };
    let spec = ModelSpec::resolve(&model, &[("properties", property), ("m.toml", toml)], "m.onnx").unwrap();
    assert_eq!((spec.input.width, spec.input.height), (320, 320), "300 rounded up to a multiple of 32");
    assert_eq!(spec.input.order, ChannelOrder::Rgb);
    let text = spec.conclusions.join("\n");
    for line in [
        "type yolov8 (output0 1×84×?)",
        "m.toml, 300 rounded up",
        "channels rgb (properties)",
        "letterbox centred",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn label_lists() {
    let two = with_metadata(
        io(&["images float32 1x3x640x640"], &["output0 float32 1x6x8400"]),
        &[("names", "{0: 'cat', 1: 'dog'}")],
    );
    assert_eq!(resolve(&two).labels.iter().map(|l| &**l).collect::<Vec<_>>(), ["cat", "dog"]);
    let unnamed = io(&["images float32 1x3x640x640"], &["output0 float32 1x6x8400"]);
    assert_eq!(&*resolve(&unnamed).label(1), "class 1");
    assert_eq!(&*resolve(&unnamed).label(7), "class 7");
    let coco = resolve(&io(&["images float32 1x3x640x640"], &["output0 float32 1x84x8400"]));
    assert_eq!((&*coco.label(0), &*coco.label(79)), ("person", "toothbrush"));

    let three =
        ModelHints { labels: Some(["a", "b", "c"].map(str::to_owned).to_vec()), ..ModelHints::default() };
    let error =
        ModelSpec::resolve(&two, &[("labels-file pets.txt", three)], "pets.onnx").unwrap_err().to_string();
    for part in ["pets.onnx", "pets.txt", "3 labels", "2 classes"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_is_no_detector_is_named_for_what_it_looks_like() {
    let ultralytics = |task| {
        with_metadata(io(&["images float32 1x3x640x640"], &["output0 float32 1x84x8400"]), &[("task", task)])
    };
    for (model, expected) in [
        (
            io(&["input float32 1x3x224x224"], &["output float32 1x1000"]),
            "classification or embedding model with 1000",
        ),
        (
            io(&["images float32 ?x3x256x128"], &["output float32 ?x512"]),
            "classification or embedding model with 512",
        ),
        (
            io(&["input float32 1x3x224x224"], &["output float32 1x7"]),
            "classification or embedding model with 7",
        ),
        (
            io(&["input float32 ?x3x24x94"], &["logits float32 ?x68x18"]),
            "no known detector (outputs logits ?×68×18)",
        ),
        (io(&["waveform float32 15600"], &["scores float32 1x521", "embedding float32 1x1024"]), "audio"),
        (
            io(
                &["images float32 1x3x640x640"],
                &["output0 float32 1x116x8400", "output1 float32 1x32x160x160"],
            ),
            "instance segmentation",
        ),
        (io(&["i float32 1x3x64x64"], &["o float32 1x19x64x64"]), "a picture or a mask"),
        (io(&["i float32 1x3x640x640"], &["o float32 1x3x80x80x85"]), "raw YOLO heads"),
        (ultralytics("segment"), "task \"segment\""),
        (ultralytics("pose"), "task \"pose\""),
        (io(&[], &["o float32 1x300x6"]), "picture"),
        (io(&["i float32 1x3x64x64"], &[]), "without outputs"),
        (io(&["i float64 1x3x64x64"], &["o float32 1x300x6"]), "float64"),
        (io(&["i float32 1x4x64x64"], &["o float32 1x300x6"]), "neither 1 nor 3 channels"),
        (io(&["i float32 0x3x64x64"], &["o float32 1x300x6"]), "batch of 0"),
        (io(&["i float32 1x3x0x64"], &["o float32 1x300x6"]), "height of 0"),
        (io(&["i float32 1x3x64x999999999"], &["o float32 1x300x6"]), "width of 999999999"),
        (io(&["i float32 1x3x64x64", "scale float32 1x2"], &["o float32 1x300x6"]), "scale"),
    ] {
        let error = ModelSpec::resolve(&model, &[], "thing.onnx").unwrap_err().to_string();
        assert!(
            error.starts_with("thing.onnx: ") && error.contains(expected) && error.contains("expected"),
            "{error}"
        );
    }
}

#[test]
fn a_hint_that_the_file_contradicts_is_an_error() {
    let model = io(&["images float32 1x3x416x416"], &["output float32 1x3549x85"]);
    let wrong_type = ModelHints { model_type: Some(ModelType::Ssd), ..ModelHints::default() };
    let error = ModelSpec::resolve(&model, &[("model-type", wrong_type)], "a.onnx").unwrap_err().to_string();
    for part in ["a.onnx", "model-type", "ssd", "1×3549×85", "boxes, classes, scores"] {
        assert!(error.contains(part), "{error}");
    }
    let wrong_size = ModelHints { width: Some(640), ..ModelHints::default() };
    let error = ModelSpec::resolve(&model, &[("a.toml", wrong_size)], "a.onnx").unwrap_err().to_string();
    for part in ["a.onnx", "a.toml", "`width` is 640", "416"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_named_type_is_believed_where_the_shapes_allow_it() {
    let v5 = ModelHints { model_type: Some(ModelType::Yolov5), ..ModelHints::default() };
    let model = io(&["images float32 1x3x416x416"], &["output0 float32 1x3549x85"]);
    let spec = ModelSpec::resolve(&model, &[("model-type", v5)], "m.onnx").unwrap();
    assert_eq!((spec.model_type, spec.input.order), (ModelType::Yolov5, ChannelOrder::Rgb));
    let lite = io(
        &["i uint8 1x300x300x3"],
        &["a float32 1x10x4", "b float32 1x10", "c float32 1x10", "d float32 1"],
    );
    assert!(ModelSpec::resolve(&lite, &[], "m.onnx").is_err());
    let ssd = ModelHints { model_type: Some(ModelType::Ssd), ..ModelHints::default() };
    let spec = ModelSpec::resolve(&lite, &[("m.toml", ssd)], "m.onnx").unwrap();
    assert_eq!(spec.head.outputs, ["a", "b", "c", "d"]);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    fn tensor() -> impl Strategy<Value = TensorInfo> {
        let size = prop::option::of(prop::sample::select(vec![
            0,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            32,
            64,
            80,
            84,
            85,
            300,
            usize::MAX,
        ]));
        let name = prop::sample::select(vec![
            "images",
            "logits",
            "boxes",
            "labels",
            "scores",
            "detection_boxes",
            "orig_target_sizes",
        ]);
        let element = prop::sample::select(vec!["float32", "float16", "uint8", "int64", "string"]);
        (name, element, prop::collection::vec(size, 0..6)).prop_map(|(name, element, shape)| TensorInfo {
            name: name.into(),
            element: element.into(),
            shape,
        })
    }

    proptest! {
        #[test]
        fn any_file_is_answered(
            inputs in prop::collection::vec(tensor(), 0..3),
            outputs in prop::collection::vec(tensor(), 0..13),
            wanted in prop::option::of(0usize..10),
            width in prop::option::of(0usize..10000),
        ) {
            let io = ModelIo { inputs, outputs, metadata: BTreeMap::new() };
            let model_type = wanted.and_then(|i| ModelType::all().nth(i)).map(|(_, t)| t);
            let hints = ModelHints { model_type, width, ..ModelHints::default() };
            match ModelSpec::resolve(&io, &[("hint", hints)], "file.onnx") {
                Ok(spec) => prop_assert!(!spec.input.is_empty() && spec.input.width <= MAX_SIDE),
                Err(error) => prop_assert!(error.to_string().starts_with("file.onnx: ")),
            }
        }
    }
}
