//! Every family on made-up outputs, and hostile ones.

use super::*;
use crate::{
    model::{ModelHints, ModelIo, TensorInfo},
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
