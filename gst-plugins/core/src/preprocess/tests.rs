use proptest::prelude::*;

use super::*;
use crate::frame::{ColorMatrix, ColorRange, Plane};

const FORMATS: [PixelFormat; 7] = [
    PixelFormat::Nv12,
    PixelFormat::I420,
    PixelFormat::Rgb,
    PixelFormat::Bgr,
    PixelFormat::Rgbx,
    PixelFormat::Bgrx,
    PixelFormat::Gray8,
];

/// A frame that owns its planes, each exactly as long as it must be.
#[derive(Clone, Debug)]
struct Picture {
    format: PixelFormat,
    width: usize,
    height: usize,
    planes: [(Vec<u8>, usize); 3],
    matrix: ColorMatrix,
    range: ColorRange,
}

impl Picture {
    /// `byte(plane, x, y)` gives the bytes, `padding` lengthens the rows.
    fn new(
        format: PixelFormat,
        (width, height): (usize, usize),
        padding: usize,
        byte: impl Fn(usize, usize, usize) -> u8,
    ) -> Self {
        let mut picture = Self {
            format,
            width,
            height,
            planes: Default::default(),
            matrix: ColorMatrix::Bt601,
            range: ColorRange::Limited,
        };
        for plane in 0..format.planes() {
            let (row, rows) = picture.frame().plane_size(plane);
            let stride = row + padding;
            // Bytes between the rows hold what must never be sampled.
            let mut data = vec![255; stride * (rows - 1) + row];
            for y in 0..rows {
                for x in 0..row {
                    data[y * stride + x] = byte(plane, x, y);
                }
            }
            picture.planes[plane] = (data, stride);
        }
        picture
    }

    fn frame(&self) -> Frame<'_> {
        let planes = self.planes.each_ref().map(|(data, stride)| Plane { data, stride: *stride });
        let Self { format, width, height, matrix, range, .. } = *self;
        Frame { format, width, height, planes, matrix, range }
    }

    fn at(&self, plane: usize, x: usize, y: usize) -> f64 {
        let (data, stride) = &self.planes[plane];
        f64::from(data[y * stride + x])
    }

    /// The three source values of a pixel: Y U V, R G B, or grey three times.
    fn pixel(&self, x: usize, y: usize) -> [f64; 3] {
        match self.format {
            PixelFormat::Nv12 => {
                [self.at(0, x, y), self.at(1, x / 2 * 2, y / 2), self.at(1, x / 2 * 2 + 1, y / 2)]
            }
            PixelFormat::I420 => [self.at(0, x, y), self.at(1, x / 2, y / 2), self.at(2, x / 2, y / 2)],
            PixelFormat::Rgb => [0, 1, 2].map(|c| self.at(0, x * 3 + c, y)),
            PixelFormat::Bgr => [2, 1, 0].map(|c| self.at(0, x * 3 + c, y)),
            PixelFormat::Rgbx => [0, 1, 2].map(|c| self.at(0, x * 4 + c, y)),
            PixelFormat::Bgrx => [2, 1, 0].map(|c| self.at(0, x * 4 + c, y)),
            PixelFormat::Gray8 => [self.at(0, x, y); 3],
        }
    }
}

/// The slow way for one pixel of the fitted picture: blend four source pixels, then convert.
fn sample(
    picture: &Picture,
    region: Region,
    fitted: (usize, usize),
    at: (usize, usize),
    grey: bool,
) -> [f64; 3] {
    let axis = |position: usize, count: usize, length: usize| {
        let centre = (position as f64 + 0.5) * (length as f64 / count as f64) - 0.5;
        let centre = centre.clamp(0.0, (length - 1) as f64);
        let first = centre.floor() as usize;
        (first, (first + 1).min(length - 1), centre - centre.floor())
    };
    let (x0, x1, wx) = axis(at.0, fitted.0, region.width);
    let (y0, y1, wy) = axis(at.1, fitted.1, region.height);
    let mut values = [0.0; 3];
    for (x, y, weight) in [
        (x0, y0, (1. - wx) * (1. - wy)),
        (x1, y0, wx * (1. - wy)),
        (x0, y1, (1. - wx) * wy),
        (x1, y1, wx * wy),
    ] {
        let pixel = picture.pixel(region.x + x, region.y + y);
        for (value, sample) in values.iter_mut().zip(pixel) {
            *value += sample * weight;
        }
    }
    let yuv = picture.format.planes() > 1;
    let mut rgb = values;
    if yuv {
        let (kr, kb) = match picture.matrix {
            ColorMatrix::Bt601 => (0.299, 0.114),
            ColorMatrix::Bt709 => (0.2126, 0.0722),
            ColorMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let (y, chroma) = match picture.range {
            ColorRange::Limited => ((values[0] - 16.0) * 255.0 / 219.0, 255.0 / 224.0),
            ColorRange::Full => (values[0], 1.0),
        };
        let (cb, cr) = ((values[1] - 128.0) * chroma, (values[2] - 128.0) * chroma);
        let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        rgb = [r, (y - kr * r - kb * b) / (1.0 - kr - kb), b];
        if grey {
            rgb = [y; 3];
        }
    }
    if grey && !yuv && picture.format != PixelFormat::Gray8 {
        rgb = [rgb[0] * 0.299 + rgb[1] * 0.587 + rgb[2] * 0.114; 3];
    }
    rgb.map(|v| v.clamp(0.0, 255.0))
}

/// The whole tensor the slow way, before rounding to the element type.
fn reference(spec: &InputSpec, picture: &Picture, region: Region) -> Vec<f64> {
    let place = plan::place(spec, region);
    let channels = spec.channels();
    let mut out = vec![0.0; spec.len()];
    for y in 0..spec.height {
        for x in 0..spec.width {
            let inside = (place.left..place.left + place.width).contains(&x)
                && (place.top..place.top + place.height).contains(&y);
            let mut rgb = [f64::from(spec.pad); 3];
            if inside {
                let at = (x - place.left, y - place.top);
                let grey = spec.order == ChannelOrder::Gray;
                rgb = sample(picture, region, (place.width, place.height), at, grey);
            }
            if spec.order == ChannelOrder::Bgr {
                rgb.reverse();
            }
            for (c, value) in rgb.into_iter().enumerate().take(channels) {
                let index = match spec.layout {
                    TensorLayout::Nchw => (c * spec.height + y) * spec.width + x,
                    TensorLayout::Nhwc => (y * spec.width + x) * channels + c,
                };
                out[index] = (value - f64::from(spec.mean[c])) / f64::from(spec.std[c]);
            }
        }
    }
    out
}

/// Runs into a tensor of the spec's type and widens it.
fn run(spec: &InputSpec, picture: &Picture, region: Region) -> (Vec<f64>, Transform) {
    let length = spec.len();
    let mut preprocessor = Preprocessor::new(spec.clone());
    let frame = picture.frame();
    // Old contents must not shine through; the second run goes by the kept plan.
    macro_rules! both {
        ($variant:ident, $fill:expr, $widen:expr) => {{
            let mut out = vec![$fill; length];
            let first = preprocessor.run_region(&frame, region, TensorMut::$variant(&mut out)).unwrap();
            let kept = out.clone();
            let second = preprocessor.run_region(&frame, region, TensorMut::$variant(&mut out)).unwrap();
            assert_eq!((first, &kept), (second, &out), "two runs of the same frame differ");
            (out.into_iter().map($widen).collect(), first)
        }};
    }
    match spec.element {
        ElementType::F32 => both!(F32, f32::INFINITY, f64::from),
        ElementType::F16 => both!(F16, f16::INFINITY, f16::to_f64),
        ElementType::U8 => both!(U8, 77, f64::from),
        ElementType::I8 => both!(I8, 77, f64::from),
    }
}

fn spec(width: usize, height: usize, fit: Fit) -> InputSpec {
    InputSpec {
        width,
        height,
        order: ChannelOrder::Rgb,
        layout: TensorLayout::Nchw,
        element: ElementType::F32,
        fit,
        pad: 114,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

fn whole(picture: &Picture) -> Region {
    Region { x: 0, y: 0, width: picture.width, height: picture.height }
}

fn wave(n: usize) -> usize {
    (n % 510).abs_diff(255)
}

/// The pictures of testdata/preprocess.py.
fn golden_picture(format: PixelFormat, size: (usize, usize)) -> Picture {
    Picture::new(format, size, 5, |plane, x, y| {
        (match (format, plane) {
            (PixelFormat::Nv12, 0) => 60 + wave(5 * x + 3 * y) * 130 / 255,
            (PixelFormat::Nv12, _) if x % 2 == 0 => 112 + wave(20 * (x / 2) + 6 * y) * 32 / 255,
            (PixelFormat::Nv12, _) => 112 + wave(8 * (x / 2) + 30 * y) * 32 / 255,
            _ => [wave(5 * (x / 3) + 3 * y), wave(2 * (x / 3) + 7 * y + 85), wave(9 * (x / 3) + y + 170)]
                [x % 3],
        }) as u8
    })
}

#[test]
fn agrees_with_opencv() {
    use Fit::{LetterboxCentre, LetterboxTopLeft, Stretch};
    use PixelFormat::{Nv12, Rgb};
    let mut expected = &include_bytes!("../../testdata/preprocess.bin")[..];
    for (format, size, fit, (width, height)) in [
        (Rgb, (67, 45), Stretch, (40, 36)),
        (Rgb, (67, 45), LetterboxTopLeft, (48, 48)),
        (Rgb, (67, 45), LetterboxCentre, (40, 48)),
        (Rgb, (33, 21), LetterboxCentre, (48, 40)),
        (Rgb, (160, 90), Stretch, (20, 20)),
        (Rgb, (45, 67), LetterboxTopLeft, (32, 32)),
        (Nv12, (66, 46), Stretch, (40, 36)),
        (Nv12, (64, 36), LetterboxTopLeft, (40, 40)),
        (Nv12, (30, 20), LetterboxCentre, (48, 48)),
    ] {
        let picture = golden_picture(format, size);
        let mut spec = spec(width, height, fit);
        spec.layout = TensorLayout::Nhwc;
        let (got, _) = run(&spec, &picture, whole(&picture));
        let (codes, rest) = expected.split_at(spec.len());
        expected = rest;
        // OpenCV rounds twice on the way from Y'CbCr.
        let tolerance = if format == Rgb { 1.0 } else { 2.0 };
        let worst = got.iter().zip(codes).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
        assert!(worst <= tolerance, "{format:?} {size:?} {fit:?} to {width}x{height}: off by {worst} codes");
    }
    assert!(expected.is_empty(), "the file holds more cases than this test");
}

#[test]
fn letterboxes_are_those_of_the_reference_implementations() {
    use Fit::{LetterboxCentre, LetterboxTopLeft, Stretch};
    // Frame, model, fit, then left, top, width, height from the Python of YOLOX and Ultralytics.
    for (frame, model, fit, expected) in [
        ((1280, 720), (416, 416), LetterboxTopLeft, (0, 0, 416, 234)),
        ((1279, 719), (416, 416), LetterboxTopLeft, (0, 0, 416, 233)),
        ((720, 1280), (416, 416), LetterboxTopLeft, (0, 0, 234, 416)),
        ((1280, 720), (640, 640), LetterboxCentre, (0, 140, 640, 360)),
        ((810, 1080), (640, 640), LetterboxCentre, (80, 0, 480, 640)),
        ((1279, 719), (640, 640), LetterboxCentre, (0, 140, 640, 360)),
        ((500, 375), (416, 416), LetterboxCentre, (0, 52, 416, 312)),
        ((640, 427), (320, 320), LetterboxCentre, (0, 53, 320, 214)),
        ((100, 50), (333, 256), LetterboxCentre, (0, 45, 333, 166)),
        ((768, 576), (320, 320), Stretch, (0, 0, 320, 320)),
        ((20000, 2), (416, 416), LetterboxTopLeft, (0, 0, 416, 1)),
        ((2, 20000), (416, 416), LetterboxCentre, (207, 0, 1, 416)),
    ] {
        let region = Region { x: 0, y: 0, width: frame.0, height: frame.1 };
        let place = plan::place(&spec(model.0, model.1, fit), region);
        assert_eq!(
            (place.left, place.top, place.width, place.height),
            expected,
            "{frame:?} {model:?} {fit:?}"
        );
    }
}

#[test]
fn the_transform_leads_back_to_frame_pixels() {
    let picture = golden_picture(PixelFormat::Rgb, (320, 200));
    let (_, t) = run(&spec(160, 160, Fit::LetterboxCentre), &picture, whole(&picture));
    assert_eq!(t, Transform { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 30.0 });
    let region = Region { x: 100, y: 40, width: 80, height: 40 };
    let (_, t) = run(&spec(160, 160, Fit::LetterboxTopLeft), &picture, region);
    let at = |x: f32, y: f32| ((x - t.offset_x) * t.scale_x, (y - t.offset_y) * t.scale_y);
    assert_eq!((at(0.0, 0.0), at(160.0, 80.0)), ((100.0, 40.0), (180.0, 80.0)));
    let (_, t) = run(&spec(80, 100, Fit::Stretch), &picture, whole(&picture));
    assert_eq!(t, Transform { scale_x: 4.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 });
}

#[test]
fn same_size_is_a_copy() {
    let picture = golden_picture(PixelFormat::Rgb, (31, 17));
    let (got, _) = run(&spec(31, 17, Fit::Stretch), &picture, whole(&picture));
    for y in 0..17 {
        for x in 0..31 {
            let pixel = picture.pixel(x, y);
            assert_eq!([0, 1, 2].map(|c| got[(c * 17 + y) * 31 + x]), pixel);
        }
    }
}

#[test]
fn integers_are_rounded_and_saturate() {
    let picture = Picture::new(PixelFormat::Gray8, (3, 1), 0, |_, x, _| [0, 128, 255][x]);
    let mut s = spec(3, 1, Fit::Stretch);
    s.order = ChannelOrder::Gray;
    for (element, mean, std, expected) in [
        (ElementType::I8, 128.0, 1.0, [-128.0, 0.0, 127.0]),
        (ElementType::I8, 0.0, 0.5, [0.0, 127.0, 127.0]),
        (ElementType::I8, 255.0, 1.0, [-128.0, -127.0, 0.0]),
        (ElementType::U8, 0.0, 3.0, [0.0, 43.0, 85.0]),
        (ElementType::U8, 100.0, 0.1, [0.0, 255.0, 255.0]),
    ] {
        (s.element, s.mean, s.std) = (element, [mean; 3], [std; 3]);
        assert_eq!(run(&s, &picture, whole(&picture)).0, expected, "{element:?} {mean} {std}");
    }
}

#[test]
fn what_cannot_be_done_is_an_error_and_leaves_the_tensor_alone() {
    let picture = golden_picture(PixelFormat::Rgb, (8, 8));
    let frame = picture.frame();
    let good = spec(4, 4, Fit::Stretch);
    let attempt = |spec: &InputSpec, frame: &Frame<'_>, region: Region, length: usize| {
        let mut out = vec![7.0; length];
        let result = Preprocessor::new(spec.clone()).run_region(frame, region, TensorMut::F32(&mut out));
        assert!(result.is_ok() || out.iter().all(|&v| v == 7.0));
        result
    };
    let all = whole(&picture);
    assert!(attempt(&good, &frame, all, 48).is_ok());
    assert_eq!(attempt(&good, &frame, all, 47), Err(PreprocessError::Tensor { expected: 48, got: 47 }));
    let mut half = good.clone();
    half.element = ElementType::F16;
    assert_eq!(attempt(&half, &frame, all, 48), Err(PreprocessError::Tensor { expected: 48, got: 48 }));
    for (width, height, mean, std) in [
        (0, 4, 0.0, 1.0),
        (4, usize::MAX, 0.0, 1.0),
        (4, 4, f32::NAN, 1.0),
        (4, 4, 0.0, 0.0),
        (4, 4, 0.0, f32::INFINITY),
    ] {
        let bad = InputSpec { width, height, mean: [mean; 3], std: [std; 3], ..good.clone() };
        assert!(matches!(attempt(&bad, &frame, all, 48), Err(PreprocessError::Spec { .. })), "{bad:?}");
    }
    for region in [
        Region { width: 0, ..all },
        Region { x: 1, ..all },
        Region { y: usize::MAX, ..all },
        Region { height: 9, ..all },
    ] {
        let result = attempt(&good, &frame, region, 48);
        assert!(matches!(result, Err(PreprocessError::Region { .. })), "{region:?}");
    }
    let mut short = frame;
    short.planes[0].data = &short.planes[0].data[1..];
    assert!(matches!(attempt(&good, &short, all, 48), Err(PreprocessError::Frame(_))));
}

#[test]
fn a_new_geometry_replaces_the_kept_plan() {
    let s = spec(24, 24, Fit::LetterboxCentre);
    let mut preprocessor = Preprocessor::new(s.clone());
    let mut out = vec![0.0; s.len()];
    let sizes = [(40, 20), (20, 40), (64, 64), (3, 3), (40, 20)];
    for (format, size) in FORMATS.into_iter().flat_map(|f| sizes.map(|s| (f, s))) {
        let picture = Picture::new(format, size, 1, |p, x, y| (p * 40 + x * 3 + y * 5) as u8);
        let transform = preprocessor.run(&picture.frame(), TensorMut::F32(&mut out)).unwrap();
        let widened: Vec<f64> = out.iter().copied().map(f64::from).collect();
        assert_eq!((widened, transform), run(&s, &picture, whole(&picture)), "{format:?} {size:?}");
    }
}

fn any_spec() -> impl Strategy<Value = InputSpec> {
    use ElementType::{F16, F32, I8, U8};
    (
        (1usize..50, 1usize..50),
        prop::sample::select(vec![ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray]),
        prop::sample::select(vec![TensorLayout::Nchw, TensorLayout::Nhwc]),
        prop::sample::select(vec![F32, F16, U8, I8]),
        prop::sample::select(vec![Fit::Stretch, Fit::LetterboxCentre, Fit::LetterboxTopLeft]),
        any::<u8>(),
        prop::array::uniform3(0f32..130.0),
        prop::array::uniform3(0.8f32..260.0),
    )
        .prop_map(|((width, height), order, layout, element, fit, pad, mean, std)| InputSpec {
            width,
            height,
            order,
            layout,
            element,
            fit,
            pad,
            mean,
            std,
        })
}

fn any_picture() -> impl Strategy<Value = Picture> {
    (
        prop::sample::select(FORMATS.to_vec()),
        (1usize..70, 1usize..70),
        0usize..20,
        prop::sample::select(vec![ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020]),
        prop::sample::select(vec![ColorRange::Limited, ColorRange::Full]),
        any::<u32>(),
    )
        .prop_map(|(format, size, padding, matrix, range, seed)| {
            let noise = |plane: usize, x: usize, y: usize| {
                let n = (plane as u32) << 30 ^ (y as u32) << 15 ^ x as u32 ^ seed;
                (n.wrapping_mul(2_654_435_761).rotate_left(11).wrapping_mul(2_246_822_519) >> 19) as u8
            };
            let mut picture = Picture::new(format, size, padding, noise);
            (picture.matrix, picture.range) = (matrix, range);
            picture
        })
}

/// A region of the picture from four fractions of 256.
fn region(picture: &Picture, cut: [usize; 4]) -> Region {
    let axis = |length: usize, start: usize, size: usize| {
        let start = start * length / 256;
        (start, 1 + size * (length - start) / 256)
    };
    let ((x, width), (y, height)) =
        (axis(picture.width, cut[0], cut[1]), axis(picture.height, cut[2], cut[3]));
    let clip = |start: usize, size: usize, limit: usize| size.min(limit - start);
    Region { x, y, width: clip(x, width, picture.width), height: clip(y, height, picture.height) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Every format, geometry, layout and element type against the slow way. Planes are exactly as long as
    /// promised, so that a read outside would panic.
    #[test]
    fn agrees_with_the_slow_way(
        spec in any_spec(),
        picture in any_picture(),
        cut in prop_oneof![Just([0usize, 255, 0, 255]), prop::array::uniform4(0usize..256)],
    ) {
        let region = if cut == [0, 255, 0, 255] { whole(&picture) } else { region(&picture, cut) };
        let (got, _) = run(&spec, &picture, region);
        let expected = reference(&spec, &picture, region);
        let channels = spec.channels();
        for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
            let c = match spec.layout {
                TensorLayout::Nchw => i / (spec.width * spec.height),
                TensorLayout::Nhwc => i % channels,
            };
            // One code, plus what the element type itself rounds away.
            let code = 1.0 / f64::from(spec.std[c]);
            let (expected, element) = match spec.element {
                ElementType::F32 => (expected, 1e-3),
                ElementType::F16 => (expected, 1e-3 + expected.abs() / 1024.0),
                ElementType::U8 => (expected.clamp(0.0, 255.0), 0.51),
                ElementType::I8 => (expected.clamp(-128.0, 127.0), 0.51),
            };
            prop_assert!(
                (got - expected).abs() <= code + element,
                "element {} is {}, expected {}: {:?} {:?}", i, got, expected, spec, region
            );
        }
    }

    /// Sizes, strides and lengths that do not belong together end as errors.
    #[test]
    fn hostile_frames_never_panic(
        format in prop::sample::select(FORMATS.to_vec()),
        width in prop_oneof![0usize..300, Just(usize::MAX), Just(1 << 31)],
        height in prop_oneof![0usize..300, Just(usize::MAX), Just(1 << 31)],
        strides in prop::array::uniform3(prop_oneof![0usize..700, Just(usize::MAX), Just(1 << 62)]),
        lengths in prop::array::uniform3(0usize..30_000),
        region in prop::option::of(prop::array::uniform4(prop_oneof![0usize..300, Just(usize::MAX)])),
    ) {
        let bytes = vec![9u8; 30_000];
        let planes = [0, 1, 2].map(|i| Plane { data: &bytes[..lengths[i]], stride: strides[i] });
        let (matrix, range) = (ColorMatrix::Bt709, ColorRange::Full);
        let frame = Frame { format, width, height, planes, matrix, range };
        let mut out = vec![0.0; 3 * 16 * 16];
        let mut preprocessor = Preprocessor::new(spec(16, 16, Fit::LetterboxCentre));
        let region = region.map(|[x, y, width, height]| Region { x, y, width, height });
        let result = match region {
            Some(region) => preprocessor.run_region(&frame, region, TensorMut::F32(&mut out)),
            None => preprocessor.run(&frame, TensorMut::F32(&mut out)),
        };
        prop_assert_eq!(frame.validate().is_err(), matches!(result, Err(PreprocessError::Frame(_))));
    }
}
