//! From a raw frame to a model's input tensor in one fused pass: crop, scale, letterbox, colour conversion,
//! channel order, normalisation and element type.

use half::f16;

use crate::frame::{Frame, FrameError};

/// How a frame is fitted into the model's input.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fit {
    /// Both sides scaled on their own; the aspect ratio is lost.
    Stretch,
    /// Aspect ratio kept, padding on both sides (YOLOv5 and later, NanoDet).
    #[default]
    LetterboxCentre,
    /// Aspect ratio kept, picture at the top left, padding right and below (YOLOX).
    LetterboxTopLeft,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ChannelOrder {
    #[default]
    Rgb,
    Bgr,
    /// One channel.
    Gray,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TensorLayout {
    #[default]
    Nchw,
    Nhwc,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ElementType {
    #[default]
    F32,
    F16,
    U8,
    I8,
}

/// What a model expects as input. `value = (pixel - mean[c]) / std[c]`, pixel in 0 to 255, `c` in tensor order.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    pub width: usize,
    pub height: usize,
    pub order: ChannelOrder,
    pub layout: TensorLayout,
    pub element: ElementType,
    pub fit: Fit,
    /// Pixel value of the letterbox's padding, 0 to 255.
    pub pad: u8,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl InputSpec {
    pub fn channels(&self) -> usize {
        if self.order == ChannelOrder::Gray { 1 } else { 3 }
    }

    /// Elements of one picture's tensor.
    pub fn len(&self) -> usize {
        self.width * self.height * self.channels()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Maps model input pixels to frame pixels: `frame = (model - offset) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    pub scale_x: f32,
    pub scale_y: f32,
    pub offset_x: f32,
    pub offset_y: f32,
}

/// Room for one picture's tensor, of the type that the model takes.
#[derive(Debug)]
pub enum TensorMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    U8(&'a mut [u8]),
    I8(&'a mut [i8]),
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("tensor has {got} elements of another type or size, the model takes {expected}")]
    Tensor { expected: usize, got: usize },
}

/// Keeps the sampling plan of the last frame geometry; make one per source and model.
#[derive(Debug)]
pub struct Preprocessor {
    spec: InputSpec,
}

impl Preprocessor {
    pub fn new(spec: InputSpec) -> Self {
        Self { spec }
    }

    pub fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Samples `frame` bilinearly (pixel centres aligned, as OpenCV's `INTER_LINEAR`) into `out`.
    pub fn run(&mut self, frame: &Frame<'_>, out: TensorMut<'_>) -> Result<Transform, PreprocessError> {
        let _ = (frame, out);
        unimplemented!("written on its own branch")
    }
}
