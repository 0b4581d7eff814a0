//! From a detector's output tensors to boxes.

use half::f16;

use crate::{geometry::Rect, model::ModelSpec, preprocess::Transform};

/// Borrowed output data.
#[derive(Clone, Copy, Debug)]
pub enum OutputData<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    U8(&'a [u8]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

/// One output tensor, whole batch.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub data: OutputData<'a>,
}

/// One box as decoded, in frame pixels, clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawDetection {
    pub class_id: u32,
    pub confidence: f32,
    pub rect: Rect,
}

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeParams {
    /// Lowest confidence that is kept, 0 to 1.
    pub threshold: f32,
    /// Boxes of one class that overlap more than this are one object, 0 to 1.
    pub iou_threshold: f32,
    pub max_detections: usize,
    /// Which classes to keep, by id; `None` keeps all.
    pub classes: Option<Vec<bool>>,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("output {name} has shape {got:?}, a {expected} was expected")]
    Shape { name: String, got: Vec<usize>, expected: String },
    #[error("the model's output {name} holds NaN or infinity")]
    NotFinite { name: String },
    #[error("the model returned no output that {expected}")]
    Missing { expected: String },
}

/// Reads one picture of a batch. `scratch` is reused between calls.
#[derive(Debug, Default)]
pub struct Decoder {}

/// The picture within the batch and how it was made.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// Index in the batch, and how many pictures the batch has.
    pub index: usize,
    pub batch: usize,
    pub transform: Transform,
    pub frame_width: usize,
    pub frame_height: usize,
}

impl Decoder {
    /// Boxes above the threshold, after non-maximum suppression where the layout needs it, best first.
    pub fn decode(
        &mut self,
        spec: &ModelSpec,
        outputs: &[Output<'_>],
        picture: Picture,
        params: &DecodeParams,
    ) -> Result<Vec<RawDetection>, DecodeError> {
        let _ = (spec, outputs, picture, params);
        unimplemented!("written on its own branch")
    }
}
