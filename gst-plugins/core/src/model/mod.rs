//! What is known about a detection model: its layout, its input, its labels, and where each fact came from.
//!
//! Facts are taken, strongest first, from element properties, `<model>.toml`, GStreamer's `<model>.modelinfo`,
//! the ONNX file's metadata and the shapes of its inputs and outputs; what is still open gets the default of
//! the family. [`ModelSpec::conclusions`] says which fact came from where.

mod family;
mod hints;
mod labels;
mod resolve;

use std::{collections::BTreeMap, sync::Arc};

pub(crate) use family::{cells, strides_for};
pub use hints::{HintError, MAX_SIDE};
pub use labels::{COCO_80, MAX_LABELS, coco_90, parse_labels, parse_python_names};

use crate::preprocess::{ChannelOrder, ElementType, Fit, InputSpec, TensorLayout};

/// How a detector's outputs are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelType {
    /// 1×N×(5+C), one anchor per cell: offsets and logarithms, or decoded pixels (found out from the values).
    Yolox,
    /// 1×N×(5+C), decoded pixels, objectness (YOLOv5, YOLOv7).
    Yolov5,
    /// 1×(4+C)×N, decoded pixels, no objectness (YOLOv8, 9, 11, 12).
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

/// What a family's outputs consist of, where it has several forms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// The only one.
    Plain,
    /// DETR: class ids, corners, scores, ready.
    LabelsBoxesScores,
    /// DETR: N×C class logits, N×4 centre and size in 0 to 1.
    LogitsBoxes,
    /// DETR: N×(4+C), centre, size and class probabilities.
    Combined,
}

/// Unit of the boxes that a model gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BoxUnit {
    /// Pixels of the model's input.
    InputPixels,
    /// 0 to 1 of the model's input.
    Normalised,
    /// Pixels of the frame, whose size the model was told.
    FramePixels,
    /// 0 to 1 where no box of the picture reaches beyond 2, else input pixels.
    ByValue,
}

/// What has to be applied to class scores to make probabilities of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activation {
    None,
    Sigmoid,
    /// Over all classes, the last of which means "no object".
    Softmax,
}

/// Where and how the boxes stand in the outputs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// Names of the outputs that are read, in the family's own order.
    pub outputs: Vec<String>,
    pub form: Form,
    /// Number of classes, where the shapes show it.
    pub classes: Option<usize>,
    pub boxes: BoxUnit,
    pub scores: Activation,
    /// Subtracted from the model's class ids.
    pub label_offset: i32,
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

impl TensorInfo {
    /// `name 1×3×416×416`, with `?` for what is dynamic.
    pub fn describe(&self) -> String {
        let sizes: Vec<_> =
            self.shape.iter().map(|size| size.map_or_else(|| "?".into(), |size| size.to_string())).collect();
        format!("{} {}", self.name, if sizes.is_empty() { "(one number)".into() } else { sizes.join("×") })
    }
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
    pub fit: Option<Fit>,
    pub order: Option<ChannelOrder>,
    pub layout: Option<TensorLayout>,
    pub pad: Option<u8>,
    pub mean: Option<[f32; 3]>,
    pub std: Option<[f32; 3]>,
    pub boxes: Option<BoxUnit>,
    pub scores: Option<Activation>,
    pub label_offset: Option<i32>,
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
    pub head: Head,
    /// One line per fact: what was concluded, from what.
    pub conclusions: Vec<String>,
}

impl ModelSpec {
    /// Name of a class; `class 7` for an id beyond the label list.
    pub fn label(&self, class_id: u32) -> Arc<str> {
        self.labels.get(class_id as usize).cloned().unwrap_or_else(|| format!("class {class_id}").into())
    }
}

/// An input besides the picture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExtraInput {
    /// int64 N×2 with the frame's original width and height (`orig_target_sizes` of DETR exports).
    OriginalSize { name: String, width_first: bool },
}

/// Why a model cannot be used. Every text begins with the file's name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error(
        "{file}: this looks like {looks_like}, but an object detector was expected: boxes in one of the layouts {}; \
         if it is one, say which with `model-type` or a `type` in the .toml beside the file",
        ModelType::all().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    )]
    NotADetector { file: String, looks_like: String },
    #[error("{file}: {origin} says the model is of type {}, but its outputs ({outputs}) do not fit: {expected}", .model_type.name())]
    WrongType { file: String, origin: String, model_type: ModelType, outputs: String, expected: &'static str },
    #[error(
        "{file}: {origin} has {got} labels, but the model tells {expected} classes apart; give a list of {expected}"
    )]
    LabelCount { file: String, origin: String, got: usize, expected: usize },
    #[error("{file}: input {input} {problem}, expected {expected}")]
    Input { file: String, input: String, problem: String, expected: String },
    #[error("{file}: {error}")]
    Hint { file: String, error: HintError },
}

impl HintError {
    /// Names the file that holds the line.
    pub fn in_file(self, file: &str) -> ModelError {
        ModelError::Hint { file: file.into(), error: self }
    }
}

#[cfg(test)]
mod tests;
