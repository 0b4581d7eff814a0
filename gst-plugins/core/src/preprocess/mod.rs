//! From a raw frame to a model's input tensor in one fused pass: crop, scale, letterbox, colour conversion,
//! channel order, normalisation and element type.
//!
//! Per output row: the two source rows are blended (16-bit integers), the columns that the model needs are
//! picked and blended (32-bit floats), converted to R'G'B', rounded to whole codes and written. Nothing larger
//! than a row is kept, and nothing is allocated while the geometry stays the same.
//!
//! The result is that of OpenCV's `cvtColor` followed by `resize` with `INTER_LINEAR` to ±1 code, where colours
//! lie inside the R'G'B' cube; there scaling and colour conversion may be exchanged. Chroma is repeated, not
//! interpolated, as `cvtColor` does.

mod kernels;
mod plan;
#[cfg(test)]
mod tests;

use half::f16;

use crate::frame::{Frame, FrameError, MAX_SIDE, PixelFormat};
use kernels::{Element, Normal};
use plan::{Key, Plan, RowTap};

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

    /// Elements of one picture's tensor; `usize::MAX` for sizes beyond any memory.
    pub fn len(&self) -> usize {
        self.width.saturating_mul(self.height).saturating_mul(self.channels())
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

/// A rectangle of whole pixels inside a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Region {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("tensor has {got} elements of another type or size, the model takes {expected}")]
    Tensor { expected: usize, got: usize },
    #[error(
        "a model input of {width}x{height}, mean {mean:?}, std {std:?} cannot be filled: sizes must be 1 to {MAX_SIDE}, numbers finite, std not 0"
    )]
    Spec { width: usize, height: usize, mean: [f32; 3], std: [f32; 3] },
    #[error("region {region:?} is empty or not inside the {width}x{height} frame")]
    Region { region: Region, width: usize, height: usize },
}

/// Row buffers, grown once.
#[derive(Debug, Default)]
struct Scratch {
    /// Blended source rows, one per channel.
    rows: [Vec<i16>; 3],
    /// Neighbouring samples of every output position.
    pairs: [Vec<u32>; 3],
    /// Pixel codes 0 to 255: red, green, blue, or one channel in the first.
    codes: [Vec<f32>; 3],
    /// Values in tensor order.
    line: Vec<f32>,
}

/// Keeps the sampling plan of the last frame geometry; make one per source and model.
#[derive(Debug)]
pub struct Preprocessor {
    spec: InputSpec,
    plan: Option<Plan>,
    scratch: Scratch,
    arch: pulp::Arch,
}

impl Preprocessor {
    pub fn new(spec: InputSpec) -> Self {
        Self { spec, plan: None, scratch: Scratch::default(), arch: pulp::Arch::new() }
    }

    pub fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Samples `frame` bilinearly (pixel centres aligned, as OpenCV's `INTER_LINEAR`) into `out`.
    ///
    /// Pixels are rounded to whole codes before mean and std, as the references do, so all element types see the
    /// same picture. Every element of `out` is written, padding included. `matrix` and `range` of the frame only
    /// matter for NV12 and I420.
    ///
    /// # Errors
    /// A frame whose planes are too short, a tensor of the wrong type or length, a model input without pixels or
    /// with a zero `std`. `out` is then untouched.
    pub fn run(&mut self, frame: &Frame<'_>, out: TensorMut<'_>) -> Result<Transform, PreprocessError> {
        self.run_region(frame, Region { x: 0, y: 0, width: frame.width, height: frame.height }, out)
    }

    /// As [`run`](Self::run), for one rectangle of the frame; nothing outside it is sampled. The transform still
    /// leads to pixels of the whole frame.
    ///
    /// # Errors
    /// As [`run`](Self::run), and a region that is empty or not inside the frame.
    pub fn run_region(
        &mut self,
        frame: &Frame<'_>,
        region: Region,
        out: TensorMut<'_>,
    ) -> Result<Transform, PreprocessError> {
        frame.validate()?;
        self.check(frame, region, &out)?;
        let plan = match self.plan.take() {
            Some(plan) if plan.key == Key::new(frame, region) => plan,
            _ => Plan::new(&self.spec, frame, region),
        };
        let transform = plan.place.transform;
        let job = Job { spec: &self.spec, plan: &plan, frame, scratch: &mut self.scratch };
        match out {
            TensorMut::F32(out) => self.arch.dispatch(Run { job, out }),
            TensorMut::F16(out) => self.arch.dispatch(Run { job, out }),
            TensorMut::U8(out) => self.arch.dispatch(Run { job, out }),
            TensorMut::I8(out) => self.arch.dispatch(Run { job, out }),
        }
        self.plan = Some(plan);
        Ok(transform)
    }

    fn check(&self, frame: &Frame<'_>, region: Region, out: &TensorMut<'_>) -> Result<(), PreprocessError> {
        let InputSpec { width, height, mean, std, .. } = self.spec;
        let sane = |side| (1..=MAX_SIDE).contains(&side);
        let finite = mean.iter().chain(&std).all(|v| v.is_finite()) && std.iter().all(|v| v.is_normal());
        if !sane(width) || !sane(height) || !finite {
            return Err(PreprocessError::Spec { width, height, mean, std });
        }
        let inside = |start: usize, length: usize, limit: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= limit)
        };
        if !inside(region.x, region.width, frame.width) || !inside(region.y, region.height, frame.height) {
            return Err(PreprocessError::Region { region, width: frame.width, height: frame.height });
        }
        let (got, element) = match out {
            TensorMut::F32(out) => (out.len(), ElementType::F32),
            TensorMut::F16(out) => (out.len(), ElementType::F16),
            TensorMut::U8(out) => (out.len(), ElementType::U8),
            TensorMut::I8(out) => (out.len(), ElementType::I8),
        };
        let expected = self.spec.len();
        if got != expected || element != self.spec.element {
            return Err(PreprocessError::Tensor { expected, got });
        }
        Ok(())
    }
}

/// What the codes of a row are after sampling.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Colour {
    One,
    Three,
}

/// One run, borrowed from its parts so that the dispatched function sees them all.
struct Job<'a> {
    spec: &'a InputSpec,
    plan: &'a Plan,
    frame: &'a Frame<'a>,
    scratch: &'a mut Scratch,
}

/// A job and its tensor. Not a closure: only a method can be forced into the dispatched function, and only
/// there is it compiled for the machine's vector instructions.
struct Run<'a, E> {
    job: Job<'a>,
    out: &'a mut [E],
}

#[allow(clippy::inline_always, reason = "everything must be compiled inside the dispatched function")]
impl<E: Element> pulp::NullaryFnOnce for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.job.run(self.out);
    }
}

#[allow(clippy::inline_always, reason = "everything must be compiled inside the dispatched function")]
impl Job<'_> {
    #[inline(always)]
    fn run<E: Element>(mut self, out: &mut [E]) {
        let width = self.plan.place.width;
        self.scratch.pairs.iter_mut().for_each(|row| row.resize(width, 0));
        self.scratch.codes.iter_mut().for_each(|row| row.resize(width, 0.0));
        let mut tensor = Tensor::new(self.spec, out);
        tensor.pad(self.spec, self.plan);
        for y in 0..self.plan.place.height {
            let colour = self.sample(y);
            tensor.write(self.plan, y, colour, &self.scratch.codes, &mut self.scratch.line);
        }
    }

    /// The picture's row `y` as codes.
    #[inline(always)]
    fn sample(&mut self, y: usize) -> Colour {
        match self.frame.format {
            PixelFormat::Gray8 => {
                self.luma(y);
                let Scratch { pairs, codes, .. } = &mut *self.scratch;
                kernels::single(&pairs[0], &self.plan.columns.weight, 1.0, 0.0, &mut codes[0]);
                Colour::One
            }
            PixelFormat::Nv12 | PixelFormat::I420 => self.yuv(y),
            PixelFormat::Rgb => self.packed::<3>(y, [0, 1, 2]),
            PixelFormat::Bgr => self.packed::<3>(y, [2, 1, 0]),
            PixelFormat::Rgbx => self.packed::<4>(y, [0, 1, 2]),
            PixelFormat::Bgrx => self.packed::<4>(y, [2, 1, 0]),
        }
    }

    #[inline(always)]
    fn luma(&mut self, y: usize) {
        let Self { plan, frame, scratch, .. } = self;
        let tap = plan.rows[y];
        let [upper, lower] = source(frame, 0, tap, plan.region.x, plan.region.width);
        kernels::vertical::<1, 1>(upper, lower, tap.weight, [&mut scratch.rows[0]]);
        kernels::gather(&scratch.rows[0], &plan.columns, &mut scratch.pairs[0]);
    }

    #[inline(always)]
    fn yuv(&mut self, y: usize) -> Colour {
        self.luma(y);
        let Self { spec, plan, frame, scratch } = self;
        let Scratch { rows, pairs, codes, .. } = &mut **scratch;
        let matrix = &plan.matrix;
        if spec.order == ChannelOrder::Gray {
            kernels::single(&pairs[0], &plan.columns.weight, matrix.luma, matrix.luma_offset, &mut codes[0]);
            return Colour::One;
        }
        let tap = plan.chroma_rows[y];
        // At and above the frame's own size, neighbouring rows share their chroma.
        if y == 0 || plan.chroma_rows[y - 1] != tap {
            let (start, length) = (plan.region.x / 2, plan.chroma_columns.length);
            let [_, u_row, v_row] = rows;
            if frame.format == PixelFormat::Nv12 {
                let [upper, lower] = source(frame, 1, tap, start * 2, length * 2);
                kernels::vertical::<2, 2>(upper, lower, tap.weight, [u_row, v_row]);
            } else {
                for (plane, row) in [(1, u_row), (2, v_row)] {
                    let [upper, lower] = source(frame, plane, tap, start, length);
                    kernels::vertical::<1, 1>(upper, lower, tap.weight, [row]);
                }
            }
            for channel in [1, 2] {
                kernels::gather(&rows[channel], &plan.chroma_columns, &mut pairs[channel]);
            }
        }
        kernels::yuv(pairs, &plan.columns.weight, &plan.chroma_columns.weight, matrix, codes);
        Colour::Three
    }

    /// Interleaved channels; `rgb` says where red, green and blue stand.
    #[inline(always)]
    fn packed<const N: usize>(&mut self, y: usize, rgb: [usize; 3]) -> Colour {
        let Self { spec, plan, frame, scratch } = self;
        let Scratch { rows, pairs, codes, .. } = &mut **scratch;
        let tap = plan.rows[y];
        let [upper, lower] = source(frame, 0, tap, plan.region.x * N, plan.region.width * N);
        kernels::vertical::<N, 3>(upper, lower, tap.weight, rows.each_mut());
        for (channel, codes) in rgb.into_iter().zip(&mut *codes) {
            kernels::gather(&rows[channel], &plan.columns, &mut pairs[channel]);
            kernels::single(&pairs[channel], &plan.columns.weight, 1.0, 0.0, codes);
        }
        if spec.order == ChannelOrder::Gray {
            kernels::grey(codes);
            return Colour::One;
        }
        Colour::Three
    }
}

/// Two source rows of a plane, from byte `start`, `length` bytes long.
fn source<'a>(frame: &Frame<'a>, plane: usize, tap: RowTap, start: usize, length: usize) -> [&'a [u8]; 2] {
    let plane = &frame.planes[plane];
    [tap.first, tap.second].map(|row| &plane.data[row * plane.stride + start..][..length])
}

/// The model's input as rows.
struct Tensor<'a, E> {
    out: &'a mut [E],
    width: usize,
    height: usize,
    channels: usize,
    interleaved: bool,
    /// Which of red, green, blue each tensor channel takes.
    source: [usize; 3],
    normal: [Normal; 3],
}

#[allow(clippy::inline_always, reason = "everything must be compiled inside the dispatched function")]
impl<'a, E: Element> Tensor<'a, E> {
    fn new(spec: &InputSpec, out: &'a mut [E]) -> Self {
        let normal =
            std::array::from_fn(|c| Normal { scale: 1.0 / spec.std[c], offset: -spec.mean[c] / spec.std[c] });
        let source = if spec.order == ChannelOrder::Bgr { [2, 1, 0] } else { [0, 1, 2] };
        let (width, height, channels) = (spec.width, spec.height, spec.channels());
        // One channel is the same in both layouts.
        let interleaved = spec.layout == TensorLayout::Nhwc && channels == 3;
        Self { out, width, height, channels, interleaved, source, normal }
    }

    /// Writes everything around the picture.
    fn pad(&mut self, spec: &InputSpec, plan: &Plan) {
        let place = &plan.place;
        let (right, bottom) = (place.left + place.width, place.top + place.height);
        let values = self.normal.map(|n| f32::from(spec.pad) * n.scale + n.offset);
        let mut pixel = [self.out[0]; 3];
        E::convert(&values, &mut pixel);
        let fill = |row: &mut [E], pixel: &[E]| match *pixel {
            [one] => row.fill(one),
            _ => row.chunks_exact_mut(pixel.len()).for_each(|out| out.copy_from_slice(pixel)),
        };
        let (planes, step) = if self.interleaved { (1, 3) } else { (self.channels, 1) };
        for plane in 0..planes {
            let pixel = if self.interleaved { &pixel[..] } else { &pixel[plane..=plane] };
            let size = self.width * self.height * step;
            let rows = self.out[plane * size..][..size].chunks_exact_mut(self.width * step);
            for (y, row) in rows.enumerate() {
                if (place.top..bottom).contains(&y) {
                    fill(&mut row[..place.left * step], pixel);
                    fill(&mut row[right * step..], pixel);
                } else {
                    fill(row, pixel);
                }
            }
        }
    }

    /// Writes the picture's row `y`.
    #[inline(always)]
    fn write(&mut self, plan: &Plan, y: usize, colour: Colour, codes: &[Vec<f32>; 3], line: &mut Vec<f32>) {
        let place = &plan.place;
        let start = (place.top + y) * self.width + place.left;
        let rows = match colour {
            Colour::One => [&codes[0][..]; 3],
            Colour::Three => self.source.map(|i| &codes[i][..]),
        };
        if self.interleaved {
            line.resize(place.width * 3, 0.0);
            kernels::normalise_interleaved(rows, self.normal, line);
            E::convert(line, &mut self.out[start * 3..][..place.width * 3]);
        } else {
            for (channel, (row, normal)) in rows.into_iter().zip(self.normal).enumerate().take(self.channels)
            {
                let start = channel * self.width * self.height + start;
                E::normalise(row, normal, line, &mut self.out[start..][..place.width]);
            }
        }
    }
}
