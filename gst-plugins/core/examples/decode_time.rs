//! How long the decoders take: `cargo run --release -p nvr-core --example decode_time`.
//!
//! Outputs of real sizes with a dozen objects of five overlapping boxes each, everything else far below the
//! threshold. Prints the median of a thousand runs.

use std::{hint::black_box, time::Instant};

use nvr_core::{
    decode::{DecodeParams, Decoder, Output, OutputData, Picture},
    model::{ModelHints, ModelIo, ModelSpec, TensorInfo},
    preprocess::Transform,
};

fn main() {
    for (name, side, shape) in [
        ("yolox 416", 416, [1, 3549, 85]),
        ("yolox 640", 640, [1, 8400, 85]),
        ("yolov5 640", 640, [1, 25200, 85]),
        ("yolov8 640", 640, [1, 84, 8400]),
        ("yolov10", 640, [1, 300, 6]),
    ] {
        let tensor = |name: &str, shape: &[usize]| TensorInfo {
            name: name.into(),
            element: "float32".into(),
            shape: shape.iter().map(|size| Some(*size)).collect(),
        };
        let io = ModelIo {
            inputs: vec![tensor("images", &[1, 3, side, side])],
            outputs: vec![tensor("output", &shape)],
            ..ModelIo::default()
        };
        let spec =
            ModelSpec::resolve(&io, &[("example", ModelHints::default())], name).expect("a known layout");
        let data = outputs(name, &shape);
        let picture = Picture {
            index: 0,
            batch: 1,
            transform: Transform { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 },
            frame_width: 2 * side,
            frame_height: 2 * side,
        };
        let params = DecodeParams { threshold: 0.5, iou_threshold: 0.45, max_detections: 300, classes: None };
        let mut decoder = Decoder::default();
        let mut times: Vec<_> = (0..1000)
            .map(|_| {
                let output = Output { name: "output", shape: &shape, data: OutputData::F32(&data) };
                let start = Instant::now();
                let found =
                    decoder.decode(&spec, black_box(&[output]), picture, &params).expect("finite outputs");
                (start.elapsed(), black_box(found).len())
            })
            .collect();
        times.sort_unstable();
        let (time, boxes) = times[times.len() / 2];
        println!("{name:<12} {:>8.1} µs, {boxes} boxes", time.as_secs_f64() * 1e6);
    }
}

fn outputs(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut data = vec![0.001; shape.iter().product()];
    let by_rows = name.starts_with("yolov8");
    let (cells, columns) = if by_rows { (shape[2], shape[1]) } else { (shape[1], shape[2]) };
    for object in 0..12 {
        for copy in 0..5 {
            let cell = object * cells / 13 + copy;
            let place = 20.0 + 40.0 * object as f32;
            let values = match name {
                "yolov10" => vec![place, place, place + 30.0, place + 30.0, 0.9, 1.0],
                name if name.starts_with("yolox") => vec![0.5, 0.5, 1.5, 1.5, 0.9],
                _ => vec![place, place, 30.0, 30.0, 0.9],
            };
            for (column, value) in values.into_iter().chain([0.9]).take(columns).enumerate() {
                data[if by_rows { column * cells + cell } else { cell * columns + column }] = value;
            }
        }
    }
    data
}
