//! From a detector's output tensors to boxes.
//!
//! One file per family. All of them read one picture's part of the outputs as `f32`, put every box above the
//! threshold into a list of candidates in frame pixels, and leave suppression, order and clipping to this file.

mod detr;
mod fastestdet;
mod nanodet;
mod nms;
mod outputs;
mod simd;
mod ssd;
mod table;
mod yolov8;
mod yolox;
mod yunet;

use half::f16;

use crate::{
    geometry::Rect,
    model::{BoxUnit, ModelSpec, ModelType},
    preprocess::Transform,
};
use nms::Candidate;
use outputs::Reader;

/// Borrowed output data.
#[derive(Clone, Copy, Debug)]
pub enum OutputData<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    /// Class ids or counts as they are; scores and boxes as they are too, in the unit that the spec names.
    U8(&'a [u8]),
    I32(&'a [i32]),
    I64(&'a [i64]),
}

impl OutputData<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::F16(data) => data.len(),
            Self::U8(data) => data.len(),
            Self::I32(data) => data.len(),
            Self::I64(data) => data.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
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
    #[error("the model's output {name} names class {got}, a whole number from 0 was expected")]
    Class { name: String, got: String },
}

/// Reads one picture of a batch. Its memory is reused between calls.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Outputs of other types, converted.
    converted: Vec<Vec<f32>>,
    candidates: Vec<Candidate>,
    kept: Vec<usize>,
}

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
        let Self { converted, candidates, kept } = self;
        candidates.clear();
        let mut reader = Reader::new(spec, outputs, picture, converted);
        let mut boxes = Boxes { spec, picture, params, candidates, unit: spec.head.boxes };
        match spec.model_type {
            ModelType::Yolox => yolox::decode(&mut reader, &mut boxes),
            ModelType::Yolov5 => yolox::decode_yolov5(&mut reader, &mut boxes),
            ModelType::Yolov8 => yolov8::decode(&mut reader, &mut boxes),
            ModelType::Yolov10 => table::decode_yolov10(&mut reader, &mut boxes),
            ModelType::Nms7 => table::decode_nms7(&mut reader, &mut boxes),
            ModelType::Detr => detr::decode(&mut reader, &mut boxes),
            ModelType::Ssd => ssd::decode(&mut reader, &mut boxes),
            ModelType::Nanodet => nanodet::decode(&mut reader, &mut boxes),
            ModelType::Fastestdet => fastestdet::decode(&mut reader, &mut boxes),
            ModelType::Yunet => yunet::decode(&mut reader, &mut boxes),
        }?;
        let overlap = needs_suppression(spec.model_type).then_some(params.iou_threshold);
        nms::select(candidates, kept, overlap, params.max_detections);
        let (width, height) = (picture.frame_width as f32, picture.frame_height as f32);
        let clipped = kept.iter().map(|&index| {
            let Candidate { score, class_id, rect } = candidates[index];
            RawDetection { class_id, confidence: score.clamp(0.0, 1.0), rect: rect.clipped(width, height) }
        });
        Ok(clipped.filter(|detection| detection.rect.is_valid()).collect())
    }
}

/// Whether the layout leaves several boxes of one object.
fn needs_suppression(model_type: ModelType) -> bool {
    !matches!(model_type, ModelType::Yolov10 | ModelType::Nms7 | ModelType::Detr | ModelType::Ssd)
}

/// Takes in boxes as the model gives them.
struct Boxes<'a> {
    spec: &'a ModelSpec,
    picture: Picture,
    params: &'a DecodeParams,
    candidates: &'a mut Vec<Candidate>,
    /// Never [`BoxUnit::ByValue`] once boxes are added; see [`Self::settle_unit`].
    unit: BoxUnit,
}

impl Boxes<'_> {
    fn threshold(&self) -> f32 {
        self.params.threshold
    }

    fn wants(&self, class_id: usize) -> bool {
        self.params.classes.as_ref().is_none_or(|mask| mask.get(class_id).copied().unwrap_or(false))
    }

    /// Decides between pixels and 0 to 1 from the largest coordinate of the confident boxes: a box of two
    /// pixels is no detection.
    fn settle_unit(&mut self, largest: f32) {
        if self.unit == BoxUnit::ByValue {
            self.unit = if largest <= 2.0 { BoxUnit::Normalised } else { BoxUnit::InputPixels };
        }
    }

    /// Adds a box by its corners, in the model's unit, if it is above the threshold and of a wanted class.
    fn add(
        &mut self,
        output: &str,
        score: f32,
        class_id: usize,
        corners: [f32; 4],
    ) -> Result<(), DecodeError> {
        let [x1, y1, x2, y2] = corners;
        // One test for five numbers: 0 times anything finite is 0.
        if (score + x1 + y1 + x2 + y2) * 0.0 != 0.0 && ![score, x1, y1, x2, y2].iter().all(|v| v.is_finite())
        {
            return Err(DecodeError::NotFinite { name: output.into() });
        }
        if score < self.params.threshold || !self.wants(class_id) {
            return Ok(());
        }
        let input = &self.spec.input;
        let (width, height) = (input.width as f32, input.height as f32);
        let (to_x, to_y) = match self.unit {
            BoxUnit::InputPixels | BoxUnit::ByValue => (1.0, 1.0),
            BoxUnit::Normalised => (width, height),
            BoxUnit::FramePixels => {
                (width / self.picture.frame_width as f32, height / self.picture.frame_height as f32)
            }
        };
        let t = &self.picture.transform;
        let rect = Rect::from_corners(
            (x1 * to_x - t.offset_x) * t.scale_x,
            (y1 * to_y - t.offset_y) * t.scale_y,
            (x2 * to_x - t.offset_x) * t.scale_x,
            (y2 * to_y - t.offset_y) * t.scale_y,
        );
        if rect.is_valid() {
            self.candidates.push(Candidate { score, class_id: class_id as u32, rect });
        }
        Ok(())
    }

    /// Adds a box by its centre and size.
    fn add_centre(
        &mut self,
        output: &str,
        score: f32,
        class_id: usize,
        centre: [f32; 4],
    ) -> Result<(), DecodeError> {
        let [cx, cy, w, h] = centre;
        self.add(output, score, class_id, [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0])
    }

    /// A class id as the model wrote it, as an index into the labels. Ids below the first label (background)
    /// are `None`.
    fn class_of(&self, output: &str, value: f32) -> Result<Option<usize>, DecodeError> {
        if !value.is_finite() {
            return Err(DecodeError::NotFinite { name: output.into() });
        }
        let id = value.round();
        if (value - id).abs() > 0.01 || !(-1.0..1e6).contains(&id) {
            return Err(DecodeError::Class { name: output.into(), got: value.to_string() });
        }
        Ok(usize::try_from(id as i64 - i64::from(self.spec.head.label_offset)).ok())
    }
}

#[cfg(test)]
mod tests;
