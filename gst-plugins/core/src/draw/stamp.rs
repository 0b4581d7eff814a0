//! What is drawn, compiled into the format of the frames that it is blended into.
//!
//! Every byte of a plane, luma, chroma or colour, becomes `old * keep / 255 + new`; a stamp holds `new` and `keep` for
//! runs of bytes that are worth the work. Chroma at half size gets the mean of the pixels that share it, opacity
//! included, so lines of one pixel keep half of their colour and no colour runs out of a shape.

use super::canvas::Canvas;
use super::colour::Rgba;
use crate::frame::{ColorMatrix, ColorRange, Frame, FrameError, FrameMut, PixelFormat};

/// Transparent pixels between two opaque ones that are cheaper blended than skipped.
const GAP: usize = 8;
/// One in fixed point.
const ONE: f32 = 65536.0;

/// The frames that a stamp is made for. The fourth byte of four-byte formats is left as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    pub matrix: ColorMatrix,
    pub range: ColorRange,
}

impl Target {
    pub fn of(frame: &Frame<'_>) -> Self {
        let Frame { format, width, height, matrix, range, .. } = *frame;
        Self { format, width, height, matrix, range }
    }
}

/// Why a stamp cannot be blended into a frame.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StampError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a stamp for {wanted:?} does not fit a frame of {got:?}")]
    Target { wanted: Box<Target>, got: Box<Target> },
}

/// Pictures and filled rectangles, in the order in which they were added, ready to be blended into frames.
#[derive(Clone, Debug)]
pub struct Stamp {
    target: Target,
    codes: Codes,
    planes: [Layer; 3],
}

#[derive(Clone, Debug, Default)]
struct Layer {
    runs: Vec<Run>,
    /// Premultiplied bytes, and how much of the old ones is kept; runs may share them.
    new: Vec<u8>,
    keep: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    row: u32,
    /// Of the first byte within the row.
    start: u32,
    len: u32,
    /// Index into `new` and `keep`.
    data: u32,
    /// Nothing of the old bytes is kept.
    opaque: bool,
}

impl Stamp {
    pub fn new(target: Target) -> Self {
        Self { target, codes: Codes::new(&target), planes: Default::default() }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether blending would change nothing.
    pub fn is_empty(&self) -> bool {
        self.planes.iter().all(|layer| layer.runs.is_empty())
    }

    /// Forgets what was added; memory is kept for what comes next.
    pub fn clear(&mut self) {
        for layer in &mut self.planes {
            layer.runs.clear();
            layer.new.clear();
            layer.keep.clear();
        }
    }

    /// Adds a picture with its top left corner at `x`, `y`. What is outside of the frame is left out.
    pub fn picture(&mut self, canvas: &Canvas, x: i32, y: i32) {
        let columns = clip(x, canvas.width(), self.target.width);
        let rows = clip(y, canvas.height(), self.target.height);
        if columns.is_empty() || rows.is_empty() {
            return;
        }
        let source = |row: usize| {
            let from = (row as i64 - i64::from(y)) as usize * canvas.width() as usize;
            let first = (columns.start as i64 - i64::from(x)) as usize;
            &canvas.pixels()[from + first..][..columns.len()]
        };
        for row in rows.clone() {
            self.first_row(row, columns.start, source(row));
        }
        if self.subsampled() {
            let (mut line, mut means, width) = (Vec::new(), Vec::new(), self.target.width);
            for chroma_row in rows.start / 2..rows.end.div_ceil(2) {
                let first = columns.start / 2;
                line.clear();
                line.resize(columns.end.div_ceil(2) - first, [0_u32; 4]);
                let within = (chroma_row * 2..chroma_row * 2 + 2).filter(|row| *row < self.target.height);
                let lines = within.clone().count() as u32;
                for row in within.filter(|row| rows.contains(row)) {
                    for (column, pixel) in columns.clone().zip(source(row)) {
                        let sum = &mut line[column / 2 - first];
                        for (sum, value) in sum.iter_mut().zip(pixel) {
                            *sum += u32::from(*value);
                        }
                    }
                }
                means.clear();
                means.extend(line.iter().enumerate().map(|(n, sum): (usize, &[u32; 4])| {
                    // One, two or four: division is a shift.
                    let shift = (lines - 1) + u32::from((first + n) * 2 + 1 < width);
                    sum.map(|value| ((value + (1 << shift) / 2) >> shift) as u8)
                }));
                self.chroma_row(chroma_row, first, &means);
            }
        }
    }

    /// Adds a rectangle of one colour: x, y of its top left corner, width, height.
    pub fn fill(&mut self, at: (i32, i32), (width, height): (u32, u32), colour: Rgba) {
        // No frame is wider, and a hostile width must not cost memory.
        let left = i64::from(at.0).max(-1);
        let width = (i64::from(at.0) + i64::from(width) - left).clamp(0, self.target.width as i64 + 1);
        self.bars((left.min(i64::from(i32::MAX)) as i32, at.1), height, &vec![colour; width as usize]);
    }

    /// Adds the same row of pixels `height` times: vertical stripes, with their top left corner at `x`, `y`.
    pub fn bars(&mut self, (x, y): (i32, i32), height: u32, row: &[Rgba]) {
        let columns = clip(x, row.len().min(u32::MAX as usize) as u32, self.target.width);
        let rows = clip(y, height, self.target.height);
        if columns.is_empty() || rows.is_empty() {
            return;
        }
        let first = (columns.start as i64 - i64::from(x)) as usize;
        let line: Vec<_> =
            row[first..][..columns.len()].iter().map(|colour| colour.premultiplied()).collect();
        let count = self.first_row(rows.start, columns.start, &line);
        self.planes[0].repeat(rows.start + 1..rows.end, count);
        if !self.subsampled() {
            return;
        }
        // Of two rows that share chroma, one or both are covered; so are columns.
        let chroma_first = columns.start / 2;
        let mut chroma = vec![[0_u8; 4]; columns.end.div_ceil(2) - chroma_first];
        let mut previous = None;
        for row in rows.start / 2..rows.end.div_ceil(2) {
            let pair = row * 2..(row * 2 + 2).min(self.target.height);
            let covered = pair.end.min(rows.end) - pair.start.max(rows.start);
            let share = (covered, pair.len());
            if let Some((before, counts)) = previous
                && before == share
            {
                let [one, two]: [usize; 2] = counts;
                self.planes[1].repeat(row..row + 1, one);
                self.planes[2].repeat(row..row + 1, two);
                continue;
            }
            for (n, mean) in chroma.iter_mut().enumerate() {
                let column = (chroma_first + n) * 2;
                let pair = column..(column + 2).min(self.target.width);
                let inside = pair.start.max(columns.start)..pair.end.min(columns.end);
                let pixels = (pair.len() * share.1) as u32;
                let mut sum = [0_u32; 4];
                for pixel in &line[inside.start - columns.start..inside.end - columns.start] {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(*value);
                    }
                }
                *mean = sum.map(|sum| ((sum * share.0 as u32 + pixels / 2) / pixels) as u8);
            }
            previous = Some((share, self.chroma_row(row, chroma_first, &chroma)));
        }
    }

    /// Draws everything into a frame.
    pub fn blend(&self, frame: &mut FrameMut<'_>) -> Result<(), StampError> {
        let got = Target::of(&frame.as_frame());
        if got != self.target {
            return Err(StampError::Target { wanted: Box::new(self.target), got: Box::new(got) });
        }
        frame.validate()?;
        for (layer, plane) in self.planes.iter().zip(&mut frame.planes) {
            for run in &layer.runs {
                let start = run.row as usize * plane.stride + run.start as usize;
                let data = run.data as usize..run.data as usize + run.len as usize;
                let Some(bytes) = plane.data.get_mut(start..start + run.len as usize) else { continue };
                let new = &layer.new[data.clone()];
                if run.opaque {
                    bytes.copy_from_slice(new);
                } else {
                    mix(bytes, new, &layer.keep[data]);
                }
            }
        }
        Ok(())
    }

    fn subsampled(&self) -> bool {
        matches!(self.target.format, PixelFormat::Nv12 | PixelFormat::I420)
    }

    /// Adds pixels to the first plane. How many runs that took.
    fn first_row(&mut self, row: usize, first: usize, pixels: &[[u8; 4]]) -> usize {
        let codes = self.codes;
        let layer = &mut self.planes[0];
        match self.target.format {
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8 => {
                layer.row(row, first, pixels, |p| [codes.code(0, p)])
            }
            PixelFormat::Rgb => layer.row(row, first, pixels, |[r, g, b, _]| [r, g, b]),
            PixelFormat::Bgr => layer.row(row, first, pixels, |[r, g, b, _]| [b, g, r]),
            PixelFormat::Rgbx => layer.row(row, first, pixels, |[r, g, b, _]| [r, g, b, 0]),
            PixelFormat::Bgrx => layer.row(row, first, pixels, |[r, g, b, _]| [b, g, r, 0]),
        }
    }

    /// Adds pixels of half size to the other planes. How many runs that took in each.
    fn chroma_row(&mut self, row: usize, first: usize, pixels: &[[u8; 4]]) -> [usize; 2] {
        let codes = self.codes;
        let [_, second, third] = &mut self.planes;
        if self.target.format == PixelFormat::Nv12 {
            [second.row(row, first, pixels, |p| [codes.code(1, p), codes.code(2, p)]), 0]
        } else {
            [
                second.row(row, first, pixels, |p| [codes.code(1, p)]),
                third.row(row, first, pixels, |p| [codes.code(2, p)]),
            ]
        }
    }
}

impl Layer {
    /// Adds the pixels of one row that are not transparent, the first of which is at column `first`, `N` bytes each.
    /// Of four bytes the last is not ours. How many runs that took.
    fn row<const N: usize>(
        &mut self,
        row: usize,
        first: usize,
        pixels: &[[u8; 4]],
        bytes: impl Fn([u8; 4]) -> [u8; N],
    ) -> usize {
        let before = self.runs.len();
        let mut at = 0;
        while let Some(start) = pixels[at..].iter().position(|p| p[3] > 0).map(|n| at + n) {
            let mut end = start;
            while let Some(next) = pixels[end..].iter().take(GAP).position(|p| p[3] > 0) {
                end += next + 1;
            }
            let run = &pixels[start..end];
            let data = self.new.len();
            self.new.resize(data + run.len() * N, 0);
            self.keep.resize(data + run.len() * N, 0);
            for (new, pixel) in self.new[data..].chunks_exact_mut(N).zip(run) {
                new.copy_from_slice(&bytes(*pixel));
            }
            for (keep, pixel) in self.keep[data..].chunks_exact_mut(N).zip(run) {
                keep.fill(255 - pixel[3]);
                if N == 4 {
                    keep[3] = 255;
                }
            }
            self.runs.push(Run {
                row: row as u32,
                start: ((first + start) * N) as u32,
                len: (run.len() * N) as u32,
                data: data as u32,
                opaque: N < 4 && run.iter().all(|pixel| pixel[3] == 255),
            });
            at = end;
        }
        self.runs.len() - before
    }

    /// Adds the last `count` runs again on other rows, with the same bytes.
    fn repeat(&mut self, rows: std::ops::Range<usize>, count: usize) {
        let from = self.runs.len().saturating_sub(count);
        let to = self.runs.len();
        for row in rows {
            for n in from..to {
                self.runs.push(Run { row: row as u32, ..self.runs[n] });
            }
        }
    }
}

/// From premultiplied RGBA to premultiplied codes of a format, in fixed point.
#[derive(Clone, Copy, Debug)]
struct Codes {
    /// For luma, blue and red difference: weights of red, green, blue and opacity.
    weights: [[i32; 4]; 3],
}

impl Codes {
    fn new(target: &Target) -> Self {
        // Grey has no colour description of its own; as everywhere in this crate it is luma of full range.
        let (matrix, range) = match target.format {
            PixelFormat::Gray8 => (ColorMatrix::Bt601, ColorRange::Full),
            _ => (target.matrix, target.range),
        };
        let (kr, kb) = matrix.weights();
        let kg = 1.0 - kr - kb;
        let (luma, chroma, black) = match range {
            ColorRange::Full => (1.0, 1.0, 0.0),
            ColorRange::Limited => (219.0 / 255.0, 224.0 / 255.0, 16.0 / 255.0),
        };
        let (cb, cr) = (chroma * 0.5 / (1.0 - kb), chroma * 0.5 / (1.0 - kr));
        let rows = [
            [kr * luma, kg * luma, kb * luma, black],
            [-kr * cb, -kg * cb, (1.0 - kb) * cb, 128.0 / 255.0],
            [(1.0 - kr) * cr, -kg * cr, -kb * cr, 128.0 / 255.0],
        ];
        Self { weights: rows.map(|row| row.map(|w| (w * ONE).round() as i32)) }
    }

    #[inline]
    fn code(&self, which: usize, pixel: [u8; 4]) -> u8 {
        let [r, g, b, a] = self.weights[which];
        let [pr, pg, pb, pa] = pixel.map(i32::from);
        let sum = r * pr + g * pg + b * pb + a * pa;
        ((sum + (1 << 15)) >> 16).clamp(0, i32::from(pixel[3])) as u8
    }
}

/// `old * keep / 255 + new` for each byte.
fn mix(bytes: &mut [u8], new: &[u8], keep: &[u8]) {
    for ((old, new), keep) in bytes.iter_mut().zip(new).zip(keep) {
        // 16 bits are enough, and what compilers make vector instructions of.
        let scaled = u16::from(*old) * u16::from(*keep) + 128;
        *old = (((scaled + (scaled >> 8)) >> 8) as u8).saturating_add(*new);
    }
}

/// The part of `start..start + length` that lies within `0..end`.
fn clip(start: i32, length: u32, end: usize) -> std::ops::Range<usize> {
    let clamp = |v: i64| v.clamp(0, end as i64) as usize;
    let from = clamp(i64::from(start));
    from..clamp(i64::from(start) + i64::from(length)).max(from)
}

#[cfg(test)]
mod tests {
    use super::super::colour::div255;
    use super::*;
    use crate::frame::PlaneMut;
    use proptest::prelude::*;

    use PixelFormat::{Bgr, Bgrx, Gray8, I420, Nv12, Rgb, Rgbx};
    const FORMATS: [PixelFormat; 7] = [Nv12, I420, Rgb, Bgr, Rgbx, Bgrx, Gray8];

    /// A frame with memory of its own: every plane byte is `value`, rows are padded by 5 bytes of 0xa5.
    struct Picture {
        target: Target,
        planes: [Vec<u8>; 3],
        strides: [usize; 3],
    }

    impl Picture {
        fn new(format: PixelFormat, width: usize, height: usize, value: u8) -> Self {
            let target =
                Target { format, width, height, matrix: ColorMatrix::Bt709, range: ColorRange::Limited };
            let mut this = Self { target, planes: Default::default(), strides: [0; 3] };
            for plane in 0..format.planes() {
                let (row, rows) = this.frame().as_frame().plane_size(plane);
                let line = [vec![value; row], vec![0xa5; 5]].concat();
                this.planes[plane] = line.repeat(rows);
                this.strides[plane] = row + 5;
            }
            this
        }

        fn frame(&mut self) -> FrameMut<'_> {
            let Target { format, width, height, matrix, range } = self.target;
            let strides = self.strides;
            let mut n = 0;
            let planes = self.planes.each_mut().map(|data| {
                n += 1;
                PlaneMut { data, stride: strides[n - 1] }
            });
            FrameMut { format, width, height, planes, matrix, range }
        }

        fn byte(&self, plane: usize, x: usize, y: usize) -> u8 {
            self.planes[plane][y * self.strides[plane] + x]
        }
    }

    #[test]
    fn colours_are_what_the_standard_says() {
        let red = Rgba::rgb(255, 0, 0);
        for (format, expected) in [
            (Nv12, [63, 102, 240, 0]),
            (I420, [63, 102, 240, 0]),
            (Rgb, [255, 0, 0, 9]),
            (Bgr, [0, 0, 255, 9]),
            (Rgbx, [255, 0, 0, 9]),
            (Bgrx, [0, 0, 255, 9]),
            (Gray8, [76, 0, 0, 0]),
        ] {
            let mut picture = Picture::new(format, 8, 8, 9);
            let mut stamp = Stamp::new(picture.target);
            stamp.fill((2, 2), (4, 4), red);
            stamp.blend(&mut picture.frame()).unwrap();
            let got = match format {
                Nv12 => [picture.byte(0, 3, 3), picture.byte(1, 2, 1), picture.byte(1, 3, 1), 0],
                I420 => [picture.byte(0, 3, 3), picture.byte(1, 1, 1), picture.byte(2, 1, 1), 0],
                Gray8 => [picture.byte(0, 3, 3), 0, 0, 0],
                Rgb | Bgr => [0, 1, 2, 3].map(|c| if c < 3 { picture.byte(0, 9 + c, 3) } else { 9 }),
                Rgbx | Bgrx => [0, 1, 2, 3].map(|c| picture.byte(0, 12 + c, 3)),
            };
            assert_eq!(got, expected, "{format:?}");
            assert_eq!(picture.byte(0, 0, 0), 9, "{format:?}: outside");
        }
    }

    #[test]
    fn half_covered_chroma_keeps_half() {
        for format in [Nv12, I420] {
            let mut picture = Picture::new(format, 8, 8, 128);
            let mut stamp = Stamp::new(picture.target);
            // One column of luma, the right one of its chroma sample.
            stamp.fill((3, 0), (1, 8), Rgba::rgb(255, 0, 0));
            stamp.blend(&mut picture.frame()).unwrap();
            let red = if format == Nv12 { picture.byte(1, 3, 1) } else { picture.byte(2, 1, 1) };
            assert!((182..=186).contains(&red), "{format:?}: {red} is between 128 and 240");
            let left = if format == Nv12 { picture.byte(1, 1, 1) } else { picture.byte(2, 0, 1) };
            assert_eq!(left, 128);
        }
    }

    #[test]
    fn a_stamp_fits_only_the_frames_it_was_made_for() {
        let mut picture = Picture::new(Nv12, 16, 16, 0);
        let stamp = Stamp::new(Target { width: 15, ..picture.target });
        let error = stamp.blend(&mut picture.frame()).unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error}");
        let stamp = Stamp::new(picture.target);
        let mut frame = picture.frame();
        frame.planes[1].stride = 3;
        assert!(matches!(stamp.blend(&mut frame), Err(StampError::Frame(_))));
        assert!(stamp.is_empty());
    }

    #[test]
    fn a_cleared_stamp_is_as_new() {
        let mut picture = Picture::new(I420, 16, 16, 7);
        let before = picture.planes.clone();
        let mut stamp = Stamp::new(picture.target);
        stamp.fill((0, 0), (16, 16), Rgba::WHITE);
        stamp.clear();
        assert!(stamp.is_empty());
        stamp.blend(&mut picture.frame()).unwrap();
        assert_eq!(picture.planes, before);
    }

    proptest! {
        /// A rectangle is the same however it is added, clipped to any frame, and touches nothing else.
        #[test]
        fn fills_and_pictures_agree(
            format in prop::sample::select(FORMATS.to_vec()),
            (width, height) in (1_usize..20, 1_usize..20),
            (x, y) in (-8_i32..24, -8_i32..24),
            (w, h) in (0_u32..24, 0_u32..24),
            [r, g, b, a] in any::<[u8; 4]>(),
            old in any::<u8>(),
        ) {
            let colour = Rgba { r, g, b, a };
            let mut filled = Picture::new(format, width, height, old);
            let mut drawn = Picture::new(format, width, height, old);
            let mut stamp = Stamp::new(filled.target);
            stamp.fill((x, y), (w, h), colour);
            stamp.blend(&mut filled.frame()).unwrap();
            let mut canvas = Canvas::new(w, h);
            canvas.fill((0, 0), (w, h), colour);
            stamp.clear();
            stamp.picture(&canvas, x, y);
            stamp.blend(&mut drawn.frame()).unwrap();
            let inside = |at: i32, size: u32, n: usize| (n as i32) >= at && (n as i64) < i64::from(at) + i64::from(size);
            for plane in 0..format.planes() {
                let (row, rows) = filled.frame().as_frame().plane_size(plane);
                for n in 0..rows {
                    for m in 0..row {
                        let (a, b) = (filled.byte(plane, m, n), drawn.byte(plane, m, n));
                        prop_assert!(a.abs_diff(b) <= 2, "{format:?} plane {plane} {m},{n}: {a} {b}");
                    }
                    for m in row..filled.strides[plane] {
                        prop_assert_eq!(filled.byte(plane, m, n), 0xa5);
                        prop_assert_eq!(drawn.byte(plane, m, n), 0xa5);
                    }
                }
            }
            let pixel = filled.frame().as_frame().plane_size(0).0 / width;
            for n in 0..height {
                for m in 0..width {
                    if !(inside(x, w, m) && inside(y, h, n)) {
                        prop_assert_eq!(filled.byte(0, m * pixel, n), old);
                    }
                }
            }
        }

        #[test]
        fn no_place_is_a_panic(x: i32, y: i32, w: u32, h: u32) {
            let mut picture = Picture::new(Nv12, 17, 9, 0);
            let mut stamp = Stamp::new(picture.target);
            stamp.fill((x, y), (w, h), Rgba::WHITE);
            stamp.picture(&Canvas::label(&mut crate::draw::Typeface::new(), "a", 12.0, Rgba::WHITE, Rgba::BLACK), x, y);
            stamp.blend(&mut picture.frame()).unwrap();
        }
    }

    #[test]
    fn mixing_is_rounded() {
        for old in 0..=255_u16 {
            for alpha in 0..=255_u16 {
                let new = div255(u32::from(200 * alpha));
                let mut byte = [old as u8];
                mix(&mut byte, &[new], &[255 - alpha as u8]);
                let exact =
                    f64::from(old) * f64::from(255 - alpha) / 255.0 + 200.0 * f64::from(alpha) / 255.0;
                assert!((f64::from(byte[0]) - exact).abs() <= 1.0, "{old} {alpha}: {} {exact}", byte[0]);
            }
        }
    }
}
