//! Where each model pixel comes from: letterbox geometry and bilinear taps, once per frame geometry.

use super::{Fit, InputSpec, Region, Transform};
use crate::frame::{ColorMatrix, ColorRange, Frame, PixelFormat};

/// The picture's rectangle inside the model input, and the way back to frame pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placement {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
    pub transform: Transform,
}

/// Fits a region into the model input as the models' own Python does, in the same order of operations.
///
/// Top left: YOLOX `preproc` (`int(w * r)`). Centre: Ultralytics `LetterBox` (`round(w * r)`, offset
/// `round(d / 2 - 0.1)`). Both map boxes back by the one ratio `r`, not by the rounded sizes.
pub(super) fn place(spec: &InputSpec, region: Region) -> Placement {
    let (w, h) = (region.width as f64, region.height as f64);
    let (model_w, model_h) = (spec.width as f64, spec.height as f64);
    let ratio = (model_h / h).min(model_w / w);
    let side = |length: f64, limit: usize| (length as usize).clamp(1, limit);
    let (width, height) = match spec.fit {
        Fit::Stretch => (spec.width, spec.height),
        Fit::LetterboxTopLeft => (side(w * ratio, spec.width), side(h * ratio, spec.height)),
        Fit::LetterboxCentre => (
            side((w * ratio).round_ties_even(), spec.width),
            side((h * ratio).round_ties_even(), spec.height),
        ),
    };
    let margin = |free: usize| (free as f64 / 2.0 - 0.1).round_ties_even() as usize;
    let (left, top, scale_x, scale_y) = match spec.fit {
        Fit::Stretch => (0, 0, w / model_w, h / model_h),
        Fit::LetterboxTopLeft => (0, 0, 1.0 / ratio, 1.0 / ratio),
        Fit::LetterboxCentre => {
            (margin(spec.width - width), margin(spec.height - height), 1.0 / ratio, 1.0 / ratio)
        }
    };
    let transform = Transform {
        scale_x: scale_x as f32,
        scale_y: scale_y as f32,
        offset_x: (left as f64 - region.x as f64 / scale_x) as f32,
        offset_y: (top as f64 - region.y as f64 / scale_y) as f32,
    };
    Placement { left, top, width, height, transform }
}

/// The two source samples of one output position: `first` and the next one, which weighs `weight` (0 to 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    pub first: usize,
    pub weight: f64,
}

/// The taps of `count` output positions over `length` samples, pixel centres aligned, edges replicated.
pub(super) fn taps(length: usize, count: usize) -> impl Iterator<Item = Tap> {
    let scale = length as f64 / count as f64;
    (0..count).map(move |position| {
        let centre = ((position as f64 + 0.5) * scale - 0.5).max(0.0);
        let first = (centre as usize).min(length - 1);
        let weight = if first + 1 < length { centre - first as f64 } else { 0.0 };
        Tap { first, weight }
    })
}

/// The tap over half-size chroma that equals sampling chroma enlarged by repetition, which is what OpenCV's
/// conversion does: both luma samples may share one chroma sample.
fn chroma_tap(tap: Tap, start: usize) -> Tap {
    let first = start + tap.first;
    let crosses = first % 2 == 1;
    Tap { first: first / 2 - start / 2, weight: if crosses { tap.weight } else { 0.0 } }
}

/// Horizontal taps: positions relative to the region's first sample, weights 0 to 1.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub first: Vec<u32>,
    pub weight: Vec<f32>,
    /// Samples in a row, without the repeated last one.
    pub length: usize,
    /// Every output takes the sample of its own position.
    pub identity: bool,
}

impl Columns {
    fn new(taps: impl Iterator<Item = Tap>, length: usize) -> Self {
        let (first, weight): (Vec<_>, Vec<_>) = taps.map(|t| (t.first as u32, t.weight as f32)).unzip();
        let identity = first.iter().zip(0u32..).all(|(&a, b)| a == b) && weight.iter().all(|&w| w == 0.0);
        Self { first, weight, length, identity }
    }
}

/// A vertical tap: two source rows, and the weight of the second in 1/32768.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RowTap {
    pub first: usize,
    pub second: usize,
    pub weight: i16,
}

impl RowTap {
    fn new(tap: Tap, start: usize) -> Self {
        let weight = (tap.weight * 32768.0).round().min(32767.0) as i16;
        let first = start + tap.first;
        // A row that weighs nothing is not read: it may not exist.
        Self { first, second: if weight == 0 { first } else { first + 1 }, weight }
    }
}

/// Y'CbCr to R'G'B' for samples in 0 to 255: `c = luma * y + u * c[0] + v * c[1] + c[2]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct YuvMatrix {
    pub luma: f32,
    pub luma_offset: f32,
    pub red: [f32; 3],
    pub green: [f32; 3],
    pub blue: [f32; 3],
}

impl YuvMatrix {
    /// Coefficients from ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance), 8-bit codes.
    pub fn new(matrix: ColorMatrix, range: ColorRange) -> Self {
        let (kr, kb) = match matrix {
            ColorMatrix::Bt601 => (0.299, 0.114),
            ColorMatrix::Bt709 => (0.2126, 0.0722),
            ColorMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let kg = 1.0 - kr - kb;
        let (luma, black, chroma) = match range {
            ColorRange::Limited => (255.0 / 219.0, 16.0, 255.0 / 224.0),
            ColorRange::Full => (1.0, 0.0, 1.0),
        };
        let red_v = 2.0 * (1.0 - kr) * chroma;
        let blue_u = 2.0 * (1.0 - kb) * chroma;
        let (green_u, green_v) = (-blue_u * kb / kg, -red_v * kr / kg);
        let row = |u: f64, v: f64| {
            let offset = -luma * black - 128.0 * (u + v);
            [u as f32, v as f32, offset as f32]
        };
        Self {
            luma: luma as f32,
            luma_offset: (-luma * black) as f32,
            red: row(0.0, red_v),
            green: row(green_u, green_v),
            blue: row(blue_u, 0.0),
        }
    }
}

/// What a plan depends on besides the model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Key {
    format: PixelFormat,
    width: usize,
    height: usize,
    matrix: ColorMatrix,
    range: ColorRange,
    region: Region,
}

impl Key {
    pub fn new(frame: &Frame<'_>, region: Region) -> Self {
        let Frame { format, width, height, matrix, range, .. } = *frame;
        Self { format, width, height, matrix, range, region }
    }
}

#[derive(Debug)]
pub(super) struct Plan {
    pub key: Key,
    pub region: Region,
    pub place: Placement,
    pub columns: Columns,
    pub rows: Vec<RowTap>,
    /// Empty unless the format has chroma planes.
    pub chroma_columns: Columns,
    pub chroma_rows: Vec<RowTap>,
    pub matrix: YuvMatrix,
}

impl Plan {
    /// `region` must lie inside the validated frame.
    pub fn new(spec: &InputSpec, frame: &Frame<'_>, region: Region) -> Self {
        let place = place(spec, region);
        let columns = Columns::new(taps(region.width, place.width), region.width);
        let rows = taps(region.height, place.height).map(|t| RowTap::new(t, region.y)).collect();
        let (mut chroma_columns, mut chroma_rows) = (Columns::default(), Vec::new());
        if frame.format.planes() > 1 {
            let length = (region.x + region.width - 1) / 2 + 1 - region.x / 2;
            let x = taps(region.width, place.width).map(|t| chroma_tap(t, region.x));
            chroma_columns = Columns::new(x, length);
            let y = taps(region.height, place.height).map(|t| chroma_tap(t, region.y));
            chroma_rows = y.map(|t| RowTap::new(t, region.y / 2)).collect();
        }
        Self {
            key: Key::new(frame, region),
            region,
            place,
            columns,
            rows,
            chroma_columns,
            chroma_rows,
            matrix: YuvMatrix::new(frame.matrix, frame.range),
        }
    }
}
