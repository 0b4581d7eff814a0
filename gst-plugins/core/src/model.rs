//! What is known about a detection model: its layout, its input, its labels, and where each fact came from.

use std::{collections::BTreeMap, sync::Arc};

use crate::preprocess::{ElementType, InputSpec};

/// How a detector's outputs are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelType {
    Yolox,
    Yolov5,
    Yolov8,
    /// End to end, 1×N×6: x1 y1 x2 y2 score class (YOLOv10, YOLO26).
    Yolov10,
    /// End to end with a batch column, N×7 (YOLOv7 export with NMS).
    Nms7,
    /// Labels, boxes, scores (RT-DETR, D-FINE, DEIM), and raw logits of the DETR family.
    Detr,
    /// TensorFlow detection API: boxes y1 x1 y2 x2 in 0 to 1, classes, scores, count.
    Ssd,
    Nanodet,
    Fastestdet,
    /// YuNet faces.
    Yunet,
}

/// Shape and type of one input or output as the file declares it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorInfo {
    pub name: String,
    /// ONNX element type: `float32`, `float16`, `uint8`, `int8`, `int32`, `int64`, or another's name.
    pub element: String,
    /// `None` where the size is dynamic.
    pub shape: Vec<Option<usize>>,
}

/// Everything that the model file itself says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelIo {
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    /// ONNX metadata (`names`, `stride`, `imgsz`, `task`, …).
    pub metadata: BTreeMap<String, String>,
}

/// What a person or a file beside the model says; everything optional. Strongest first when layered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelHints {
    pub model_type: Option<ModelType>,
    pub labels: Option<Vec<String>>,
    pub width: Option<usize>,
    pub height: Option<usize>,
    pub fit: Option<crate::preprocess::Fit>,
    pub order: Option<crate::preprocess::ChannelOrder>,
    pub pad: Option<u8>,
    pub mean: Option<[f32; 3]>,
    pub std: Option<[f32; 3]>,
}

/// A resolved model: how to feed it, how to read it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    pub model_type: ModelType,
    pub input: InputSpec,
    /// Name of the picture input.
    pub input_name: String,
    pub input_element: ElementType,
    /// Fixed batch size of the file, `None` where dynamic.
    pub batch: Option<usize>,
    /// Further inputs that the model needs and how to fill them.
    pub extra_inputs: Vec<ExtraInput>,
    pub labels: Vec<Arc<str>>,
    /// One line per fact: what was concluded, from what.
    pub conclusions: Vec<String>,
}

/// An input besides the picture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExtraInput {
    /// int64 N×2 with the frame's original width and height (`orig_target_sizes` of DETR exports).
    OriginalSize { name: String, width_first: bool },
}
