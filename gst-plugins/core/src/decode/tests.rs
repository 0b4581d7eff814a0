//! Every family on made-up outputs, and hostile ones.

use super::*;
use crate::{
    model::{Activation, BoxUnit, Form, ModelHints, ModelIo, TensorInfo},
    preprocess::Transform,
};

fn tensor(name: &str, shape: &[usize]) -> TensorInfo {
    TensorInfo {
        name: name.into(),
        element: "float32".into(),
        shape: shape.iter().map(|n| Some(*n)).collect(),
    }
}

fn spec(input: &[usize], outputs: &[(&str, &[usize])], hints: ModelHints) -> ModelSpec {
    let io = ModelIo {
        inputs: vec![tensor("images", input)],
        outputs: outputs.iter().map(|(name, shape)| tensor(name, shape)).collect(),
        ..ModelIo::default()
    };
    ModelSpec::resolve(&io, &[("test", hints)], "test.onnx").unwrap()
}

/// A frame twice the input's size, without letterbox.
fn twice(spec: &ModelSpec) -> Picture {
    Picture {
        index: 0,
        batch: 1,
        transform: Transform { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 },
        frame_width: spec.input.width * 2,
        frame_height: spec.input.height * 2,
    }
}

fn params(threshold: f32) -> DecodeParams {
    DecodeParams { threshold, iou_threshold: 0.45, max_detections: 300, classes: None }
}

fn f32s<'a>(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Output<'a> {
    Output { name, shape, data: OutputData::F32(data) }
}

fn assert_one(detections: &[RawDetection], class_id: u32, confidence: f32, rect: Rect) {
    assert_eq!(detections.len(), 1, "{detections:?}");
    let got = detections[0];
    assert_eq!(got.class_id, class_id);
    assert!((got.confidence - confidence).abs() < 1e-4, "{got:?}");
    assert!(got.rect.iou(&rect) > 0.999, "{got:?}, not {rect:?}");
}

/// 64×64 has 64 + 16 + 4 cells.
const CELLS: usize = 84;

#[test]
fn yolox_offsets_and_logarithms() {
    let shape = [1, CELLS, 7];
    let spec = spec(&[1, 3, 64, 64], &[("output", &shape)], ModelHints::default());
    assert_eq!(spec.model_type, ModelType::Yolox);
    let mut data = vec![0.0; CELLS * 7];
    // Row 64 + 5: stride 16, cell (1, 1).
    data[69 * 7..][..7].copy_from_slice(&[0.5, 0.25, 0.5f32.ln(), 1.0f32.ln(), 0.9, 0.1, 0.8]);
    let got = Decoder::default()
        .decode(&spec, &[f32s("output", &shape, &data)], twice(&spec), &params(0.5))
        .unwrap();
    assert_one(&got, 1, 0.72, Rect::from_centre(48.0, 40.0, 16.0, 32.0));
}

#[test]
fn yolox_that_decodes_itself_is_noticed() {
    let shape = [1, CELLS, 7];
    let spec = spec(&[1, 3, 64, 64], &[("output", &shape)], ModelHints::default());
    let mut data = vec![0.0; CELLS * 7];
    data[0..7].copy_from_slice(&[20.0, 30.0, 10.0, 12.0, 0.9, 0.1, 0.8]);
    data[83 * 7..][..4].copy_from_slice(&[47.0, 49.0, 30.0, 31.0]);
    let got = Decoder::default()
        .decode(&spec, &[f32s("output", &shape, &data)], twice(&spec), &params(0.5))
        .unwrap();
    assert_one(&got, 1, 0.72, Rect::from_centre(40.0, 60.0, 20.0, 24.0));
}

#[test]
fn yolov8_rows_are_attributes() {
    let shape = [1, 7, CELLS];
    let spec = spec(&[1, 3, 64, 64], &[("output0", &shape)], ModelHints::default());
    assert_eq!(spec.model_type, ModelType::Yolov8);
    let mut data = vec![0.0; CELLS * 7];
    for (row, value) in [20.0, 30.0, 10.0, 12.0, 0.1, 0.2, 0.7].into_iter().enumerate() {
        data[row * CELLS + 77] = value;
    }
    let got = Decoder::default()
        .decode(&spec, &[f32s("output0", &shape, &data)], twice(&spec), &params(0.5))
        .unwrap();
    assert_one(&got, 2, 0.7, Rect::from_centre(40.0, 60.0, 20.0, 24.0));
}

#[test]
fn yolov8_transposed() {
    let shape = [1, CELLS, 7];
    let hints = ModelHints { model_type: Some(ModelType::Yolov8), ..ModelHints::default() };
    let spec = spec(&[1, 3, 64, 64], &[("output0", &shape)], hints);
    let mut data = vec![0.0; CELLS * 7];
    data[77 * 7..][..7].copy_from_slice(&[20.0, 30.0, 10.0, 12.0, 0.1, 0.2, 0.7]);
    let got = Decoder::default()
        .decode(&spec, &[f32s("output0", &shape, &data)], twice(&spec), &params(0.5))
        .unwrap();
    assert_one(&got, 2, 0.7, Rect::from_centre(40.0, 60.0, 20.0, 24.0));
}

#[test]
fn yolov5_with_three_anchors_and_one_class() {
    let shape = [1, CELLS * 3, 6];
    let spec = spec(&[1, 3, 64, 64], &[("output", &shape)], ModelHints::default());
    assert_eq!((spec.model_type, spec.labels.len()), (ModelType::Yolov5, 1));
    let mut data = vec![0.0; CELLS * 3 * 6];
    data[200 * 6..][..6].copy_from_slice(&[20.0, 30.0, 10.0, 12.0, 0.9, 0.8]);
    let got = Decoder::default()
        .decode(&spec, &[f32s("output", &shape, &data)], twice(&spec), &params(0.5))
        .unwrap();
    assert_one(&got, 0, 0.72, Rect::from_centre(40.0, 60.0, 20.0, 24.0));
}

#[test]
fn end_to_end_in_pixels_and_in_parts() {
    let shape = [1, 300, 6];
    let spec = spec(&[1, 3, 64, 64], &[("output0", &shape)], ModelHints::default());
    assert_eq!(spec.model_type, ModelType::Yolov10);
    for (row, name) in
        [([8.0, 16.0, 24.0, 48.0, 0.9, 5.0], "pixels"), ([0.125, 0.25, 0.375, 0.75, 0.9, 5.0], "parts")]
    {
        let mut data = vec![0.0; 300 * 6];
        data[6..12].copy_from_slice(&row);
        let outputs = [f32s("output0", &shape, &data)];
        let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5)).unwrap();
        assert_eq!(got.len(), 1, "{name}");
        assert_one(&got, 5, 0.9, Rect::new(16.0, 32.0, 32.0, 64.0));
    }
}

#[test]
fn table_with_a_batch_column_gives_each_picture_its_own() {
    let io = ModelIo {
        inputs: vec![TensorInfo { shape: vec![None, Some(3), Some(64), Some(64)], ..tensor("images", &[]) }],
        outputs: vec![TensorInfo { shape: vec![None, Some(7)], ..tensor("detections", &[]) }],
        ..ModelIo::default()
    };
    let spec = ModelSpec::resolve(&io, &[], "m.onnx").unwrap();
    assert_eq!((spec.model_type, spec.batch), (ModelType::Nms7, None));
    let data = [0.0, 8.0, 8.0, 16.0, 16.0, 3.0, 0.9, 1.0, 0.0, 0.0, 32.0, 32.0, 7.0, 0.8];
    for (index, class_id) in [(0, 3), (1, 7)] {
        let picture = Picture { index, batch: 2, ..twice(&spec) };
        let outputs = [f32s("detections", &[2, 7], &data)];
        let got = Decoder::default().decode(&spec, &outputs, picture, &params(0.5)).unwrap();
        assert_eq!(got.iter().map(|d| d.class_id).collect::<Vec<_>>(), [class_id]);
    }
}

#[test]
fn detr_told_the_frame_size() {
    let io = ModelIo {
        inputs: vec![
            tensor("images", &[1, 3, 64, 64]),
            TensorInfo { element: "int64".into(), ..tensor("orig_target_sizes", &[1, 2]) },
        ],
        outputs: vec![
            TensorInfo { element: "int64".into(), ..tensor("labels", &[1, 2]) },
            tensor("boxes", &[1, 2, 4]),
            tensor("scores", &[1, 2]),
        ],
        ..ModelIo::default()
    };
    let spec = ModelSpec::resolve(&io, &[], "deim.onnx").unwrap();
    assert_eq!(spec.head.boxes, BoxUnit::FramePixels);
    let outputs = [
        Output { name: "labels", shape: &[1, 2], data: OutputData::I64(&[7, 2]) },
        f32s("boxes", &[1, 2, 4], &[1.0, 2.0, 30.0, 40.0, 10.0, 20.0, 100.0, 120.0]),
        f32s("scores", &[1, 2], &[0.1, 0.9]),
    ];
    let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5)).unwrap();
    assert_one(&got, 2, 0.9, Rect::new(10.0, 20.0, 90.0, 100.0));
}

#[test]
fn detr_logits_with_sigmoid_and_softmax() {
    let boxes = [0.5, 0.5, 0.25, 0.5, 0.25, 0.25, 0.5, 0.5];
    let logits = [0.0, 2.0, 0.25, -5.0, -5.0, 5.0];
    let of_three = 2f32.exp() / (1.0 + 2f32.exp() + 0.25f32.exp());
    // The last class of softmax is "no object", which the second query is sure of; so is class 2 of sigmoid.
    for (scores, labels, expected) in [
        (Activation::Sigmoid, 3, vec![(2, 0.99331), (1, 0.8808)]),
        (Activation::Softmax, 2, vec![(1, of_three)]),
    ] {
        let hints = ModelHints { scores: Some(scores), ..ModelHints::default() };
        let spec = spec(&[1, 3, 64, 64], &[("logits", &[1, 2, 3]), ("pred_boxes", &[1, 2, 4])], hints);
        assert_eq!((spec.head.form, spec.labels.len()), (Form::LogitsBoxes, labels));
        let outputs = [f32s("logits", &[1, 2, 3], &logits), f32s("pred_boxes", &[1, 2, 4], &boxes)];
        let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.6)).unwrap();
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (got, (class_id, confidence)) in got.iter().zip(expected) {
            assert_eq!(got.class_id, class_id);
            assert!((got.confidence - confidence).abs() < 1e-4, "{got:?}");
        }
        assert!(got.last().unwrap().rect.iou(&Rect::from_centre(64.0, 64.0, 32.0, 64.0)) > 0.999);
    }
}

#[test]
fn detr_of_ultralytics_has_boxes_and_classes_side_by_side() {
    let hints = ModelHints { labels: Some(vec!["a".into(), "b".into()]), ..ModelHints::default() };
    let spec = spec(&[1, 3, 64, 64], &[("output0", &[1, 3, 6])], hints);
    assert_eq!(spec.head.form, Form::Combined);
    let data = [0.5, 0.5, 0.25, 0.5, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let outputs = [f32s("output0", &[1, 3, 6], &data)];
    let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5)).unwrap();
    assert_one(&got, 1, 0.9, Rect::from_centre(64.0, 64.0, 32.0, 64.0));
}

const SSD: [(&str, &[usize]); 4] = [
    ("num_detections:0", &[1]),
    ("detection_boxes:0", &[1, 2, 4]),
    ("detection_scores:0", &[1, 2]),
    ("detection_classes:0", &[1, 2]),
];

#[test]
fn ssd_counts_classes_from_one_and_stops_at_the_count() {
    let spec = spec(&[1, 64, 64, 3], &SSD, ModelHints::default());
    assert_eq!((spec.model_type, &*spec.label(0), &*spec.label(17)), (ModelType::Ssd, "person", "dog"));
    let outputs = [
        f32s("num_detections:0", &[1], &[1.0]),
        f32s("detection_boxes:0", &[1, 2, 4], &[0.25, 0.125, 0.75, 0.375, 0.0, 0.0, 1.0, 1.0]),
        f32s("detection_scores:0", &[1, 2], &[0.9, 0.8]),
        f32s("detection_classes:0", &[1, 2], &[18.0, 1.0]),
    ];
    let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5)).unwrap();
    assert_one(&got, 17, 0.9, Rect::new(16.0, 32.0, 32.0, 64.0));
}

#[test]
fn ssd_labels_that_begin_with_the_background() {
    let labels = ["background", "cat"].map(str::to_owned).to_vec();
    let spec = spec(&[1, 64, 64, 3], &SSD, ModelHints { labels: Some(labels), ..ModelHints::default() });
    assert_eq!(spec.head.label_offset, 0);
}

const NANODET: [(&str, &[usize]); 6] =
    [("a", &[64, 3]), ("b", &[16, 3]), ("c", &[4, 3]), ("d", &[64, 32]), ("e", &[16, 32]), ("f", &[4, 32])];

#[test]
fn nanodet_distances_are_means_of_bins() {
    let spec = spec(&[1, 3, 64, 64], &NANODET, ModelHints::default());
    assert_eq!((spec.model_type, spec.batch), (ModelType::Nanodet, Some(1)));
    let zeros = vec![0.0; 64 * 32];
    let (mut scores, mut distances) = (vec![0.0; 16 * 3], vec![0.0; 16 * 32]);
    // Cell (1, 1) of stride 16: centre 16 + 7.5.
    scores[5 * 3 + 2] = 0.8;
    for side in 0..4 {
        distances[5 * 32 + side * 8 + 1] = 50.0;
    }
    let outputs = [
        f32s("a", &[64, 3], &zeros[..192]),
        f32s("b", &[16, 3], &scores),
        f32s("c", &[4, 3], &zeros[..12]),
        f32s("d", &[64, 32], &zeros),
        f32s("e", &[16, 32], &distances),
        f32s("f", &[4, 32], &zeros[..128]),
    ];
    let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5)).unwrap();
    assert_one(&got, 2, 0.8, Rect::from_centre(47.0, 47.0, 64.0, 64.0));
}

#[test]
fn fastestdet_weighs_objectness_and_class() {
    let shape = [1, 7, 4, 4];
    let spec = spec(&[1, 3, 64, 64], &[("758", &shape)], ModelHints::default());
    assert_eq!(spec.model_type, ModelType::Fastestdet);
    let mut data = vec![0.0; 7 * 16];
    for (channel, value) in [0.9, 0.0, 0.0, 0.0, 0.0, 0.2, 0.8].into_iter().enumerate() {
        data[channel * 16 + 5] = value;
    }
    let got =
        Decoder::default().decode(&spec, &[f32s("758", &shape, &data)], twice(&spec), &params(0.5)).unwrap();
    let score = 0.9f32.powf(0.6) * 0.8f32.powf(0.4);
    assert_one(&got, 1, score, Rect::from_centre(32.0, 32.0, 64.0, 64.0).clipped(128.0, 128.0));
}

const YUNET: [(&str, &[usize]); 12] = [
    ("cls_8", &[1, 64, 1]),
    ("cls_16", &[1, 16, 1]),
    ("cls_32", &[1, 4, 1]),
    ("obj_8", &[1, 64, 1]),
    ("obj_16", &[1, 16, 1]),
    ("obj_32", &[1, 4, 1]),
    ("bbox_8", &[1, 64, 4]),
    ("bbox_16", &[1, 16, 4]),
    ("bbox_32", &[1, 4, 4]),
    ("kps_8", &[1, 64, 10]),
    ("kps_16", &[1, 16, 10]),
    ("kps_32", &[1, 4, 10]),
];

#[test]
fn yunet_faces() {
    let spec = spec(&[1, 3, 64, 64], &YUNET, ModelHints::default());
    assert_eq!((spec.model_type, &*spec.label(0)), (ModelType::Yunet, "face"));
    let mut tensors: Vec<Vec<f32>> =
        YUNET.iter().map(|(_, shape)| vec![0.0; shape.iter().product()]).collect();
    (tensors[1][5], tensors[4][5]) = (0.9, 0.4);
    tensors[7][5 * 4..][..4].copy_from_slice(&[0.5, 0.25, 0.0, 2f32.ln()]);
    let outputs: Vec<_> =
        YUNET.iter().zip(&tensors).map(|((name, shape), data)| f32s(name, shape, data)).collect();
    let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5)).unwrap();
    assert_one(&got, 0, 0.6, Rect::from_centre(48.0, 40.0, 32.0, 64.0));
}

#[test]
fn half_floats_batches_masks_and_limits() {
    let shape = [2, 300, 6];
    let hints = ModelHints::default();
    let spec = spec(&[2, 3, 64, 64], &[("output0", &shape)], hints);
    assert_eq!(spec.batch, Some(2));
    let mut data = vec![f16::ZERO; 2 * 300 * 6];
    for (row, class) in [(0, 0.0), (1, 1.0), (300, 2.0)] {
        let values = [8.0, 16.0, 24.0, 48.0, 0.9 - class / 10.0, class];
        for (at, value) in values.into_iter().enumerate() {
            data[row * 6 + at] = f16::from_f32(value);
        }
    }
    let outputs = [Output { name: "output0", shape: &shape, data: OutputData::F16(&data) }];
    let mut decoder = Decoder::default();
    let mut classes = |index: usize, params: &DecodeParams| -> Vec<u32> {
        let picture = Picture { index, batch: 2, ..twice(&spec) };
        decoder.decode(&spec, &outputs, picture, params).unwrap().iter().map(|d| d.class_id).collect()
    };
    assert_eq!(classes(0, &params(0.5)), [0, 1]);
    assert_eq!(classes(1, &params(0.5)), [2]);
    assert_eq!(classes(0, &DecodeParams { classes: Some(vec![false, true]), ..params(0.5) }), [1]);
    assert_eq!(classes(0, &DecodeParams { max_detections: 1, ..params(0.5) }), [0]);
    assert!(classes(0, &DecodeParams { max_detections: 0, ..params(0.5) }).is_empty());
}

#[test]
fn boxes_are_clipped_and_those_in_the_padding_dropped() {
    let shape = [1, 300, 6];
    let spec = spec(&[1, 3, 64, 64], &[("output0", &shape)], ModelHints::default());
    let mut data = vec![0.0; 300 * 6];
    data[..6].copy_from_slice(&[-10.0, 8.0, 20.0, 40.0, 0.9, 0.0]);
    data[6..12].copy_from_slice(&[10.0, 0.0, 20.0, 8.0, 0.8, 0.0]);
    // A 128×64 frame letterboxed: 16 rows of padding above and below.
    let picture = Picture {
        frame_height: 64,
        transform: Transform { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 16.0 },
        ..twice(&spec)
    };
    let outputs = [f32s("output0", &shape, &data)];
    let got = Decoder::default().decode(&spec, &outputs, picture, &params(0.5)).unwrap();
    assert_one(&got, 0, 0.9, Rect::new(0.0, 0.0, 40.0, 48.0));
}

/// Name and shape of an output.
type Named<'a> = (&'a str, &'a [usize]);
/// A specification and the outputs it reads.
type Example = (ModelSpec, Vec<(&'static str, Vec<usize>)>);
/// Input, outputs, and the type where the shapes do not show it.
type Declared<'a> = (&'a [usize], &'a [Named<'a>], Option<ModelType>);

/// One of each form.
fn every_form() -> Vec<Example> {
    let forms: [Declared<'static>; 12] = [
        (&[1, 3, 64, 64], &[("o", &[1, CELLS, 8])], None),
        (&[1, 3, 64, 64], &[("o", &[1, CELLS * 3, 8])], None),
        (&[1, 3, 64, 64], &[("o", &[1, 7, CELLS])], None),
        (&[1, 3, 64, 64], &[("o", &[1, CELLS, 7])], Some(ModelType::Yolov8)),
        (&[1, 3, 64, 64], &[("o", &[1, 30, 6])], None),
        (&[1, 3, 64, 64], &[("o", &[20, 7])], None),
        (&[1, 3, 64, 64], &[("logits", &[1, 20, 5]), ("pred_boxes", &[1, 20, 4])], None),
        (&[1, 3, 64, 64], &[("o", &[1, 20, 9])], Some(ModelType::Detr)),
        (&[1, 64, 64, 3], &SSD, None),
        (&[1, 3, 64, 64], &NANODET, None),
        (&[1, 3, 64, 64], &[("o", &[1, 9, 4, 4])], None),
        (&[1, 3, 64, 64], &YUNET, None),
    ];
    let mut all: Vec<_> = forms
        .into_iter()
        .map(|(input, outputs, model_type)| {
            let spec = spec(input, outputs, ModelHints { model_type, ..ModelHints::default() });
            (spec, outputs.iter().map(|(name, shape)| (*name, shape.to_vec())).collect::<Vec<_>>())
        })
        .collect();
    let mut deim = all[0].0.clone();
    deim.model_type = ModelType::Detr;
    deim.head.form = Form::LabelsBoxesScores;
    deim.head.outputs = ["labels", "boxes", "scores"].map(Into::into).to_vec();
    deim.head.boxes = BoxUnit::FramePixels;
    all.push((deim, vec![("labels", vec![1, 9]), ("boxes", vec![1, 9, 4]), ("scores", vec![1, 9])]));
    all
}

#[test]
fn nan_and_infinity_are_errors_in_every_form() {
    for (spec, outputs) in every_form() {
        for bad in [f32::NAN, f32::INFINITY] {
            let tensors: Vec<Vec<f32>> =
                outputs.iter().map(|(_, shape)| vec![bad; shape.iter().product()]).collect();
            let outputs: Vec<_> =
                outputs.iter().zip(&tensors).map(|((name, shape), data)| f32s(name, shape, data)).collect();
            let got = Decoder::default().decode(&spec, &outputs, twice(&spec), &params(0.5));
            assert!(
                matches!(got, Err(DecodeError::NotFinite { .. })),
                "{:?} {bad}: {got:?}",
                spec.model_type
            );
        }
    }
}

#[test]
fn missing_and_misshapen_outputs_are_errors_in_every_form() {
    for (spec, outputs) in every_form() {
        let got = Decoder::default().decode(&spec, &[], twice(&spec), &params(0.5));
        assert!(matches!(got, Err(DecodeError::Missing { .. })), "{:?}: {got:?}", spec.model_type);
        let misshapen: Vec<_> =
            outputs.iter().map(|(name, _)| f32s(name, &[1, 3, 1], &[0.9, 0.9, 0.9])).collect();
        let got = Decoder::default().decode(&spec, &misshapen, twice(&spec), &params(0.5));
        assert!(got.is_err(), "{:?}: {got:?}", spec.model_type);
        let lying: Vec<_> = outputs.iter().map(|(name, shape)| f32s(name, shape, &[0.9])).collect();
        let got = Decoder::default().decode(&spec, &lying, twice(&spec), &params(0.5));
        assert!(matches!(got, Err(DecodeError::Shape { .. })), "{:?}: {got:?}", spec.model_type);
    }
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    /// Mostly plausible numbers, some absurd.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            8 => -1.0f32..2.0,
            4 => -50.0f32..700.0,
            1 => any::<f32>(),
            1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::MIN, f32::MAX, f32::MIN_POSITIVE, -0.0]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever numbers come, and whatever the shapes claim: an error, or boxes that keep the promises.
        #[test]
        fn outputs_never_panic_and_results_keep_their_promises(
            form in 0usize..13,
            pool in prop::collection::vec(number(), 1..200),
            other_shape in prop::option::weighted(0.3, prop::collection::vec(0usize..40, 0..4)),
            threshold in 0.0f32..1.0,
            iou_threshold in 0.0f32..1.0,
            max_detections in 0usize..50,
            index in 0usize..2,
            offset in -20f32..20.,
        ) {
            let (spec, outputs) = every_form().swap_remove(form);
            let tensors: Vec<(Vec<usize>, Vec<f32>)> = outputs.iter().map(|(_, shape)| {
                let shape = other_shape.clone().unwrap_or_else(|| shape.clone());
                let len = shape.iter().product();
                (shape, pool.iter().copied().cycle().take(len).collect())
            }).collect();
            let borrowed: Vec<_> = outputs.iter().zip(&tensors)
                .map(|((name, _), (shape, data))| f32s(name, shape, data)).collect();
            let picture = Picture {
                index,
                transform: Transform { scale_x: 1.5, scale_y: 2.5, offset_x: offset, offset_y: -offset },
                ..twice(&spec)
            };
            let params = DecodeParams { threshold, iou_threshold, max_detections, classes: None };
            if let Ok(found) = Decoder::default().decode(&spec, &borrowed, picture, &params) {
                prop_assert!(found.len() <= max_detections);
                for (at, one) in found.iter().enumerate() {
                    prop_assert!(one.rect.is_valid(), "{:?}", one);
                    prop_assert!(one.rect.x >= 0.0 && one.rect.y >= 0.0);
                    prop_assert!(one.rect.right() <= picture.frame_width as f32 + 0.01);
                    prop_assert!(one.rect.bottom() <= picture.frame_height as f32 + 0.01);
                    prop_assert!(one.confidence >= threshold.min(1.0) && one.confidence <= 1.0);
                    prop_assert!(at == 0 || found[at - 1].confidence >= one.confidence);
                }
            }
        }
    }
}
