//! What is drawn, compiled into the format of the frames that it is blended into.
//!
//! Chroma at half size gets the mean of the pixels that share it, opacity
//! included, so lines of one pixel keep half of their colour and no colour runs out of a shape.

use std::ops::Range;

use super::canvas::Canvas;
use super::colour::Rgba;
use super::layer::Layer;
use super::print::Print;
use crate::frame::{ColorMatrix, ColorRange, Frame, FrameError, FrameMut, PixelFormat, Plane};

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

impl Stamp {
    pub fn new(target: Target) -> Self {
        let Target { format, width, height, matrix, range } = target;
        let frame = Frame { format, width, height, planes: [Plane::default(); 3], matrix, range };
        let plane =
            |n: usize| if n < format.planes() { Layer::new(frame.plane_size(n).0) } else { Layer::default() };
        Self { target, codes: Codes::new(&target), planes: std::array::from_fn(plane) }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether blending would change nothing.
    pub fn is_empty(&self) -> bool {
        self.planes.iter().all(Layer::is_empty)
    }

    /// Forgets what was added; memory is kept for what comes next.
    pub fn clear(&mut self) {
        self.planes.iter_mut().for_each(Layer::clear);
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
            self.first_row(&(row..row + 1), columns.start, source(row));
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
                self.chroma_row(&(chroma_row..chroma_row + 1), first, &means);
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
        self.first_row(&rows, columns.start, &line);
        if !self.subsampled() {
            return;
        }
        // Of two rows that share chroma, one or both are covered; so are columns.
        let height = self.target.height;
        let share = |row: usize| {
            let pair = row * 2..(row * 2 + 2).min(height);
            (pair.end.min(rows.end) - pair.start.max(rows.start), pair.len())
        };
        let chroma_first = columns.start / 2;
        let mut chroma = vec![[0_u8; 4]; columns.end.div_ceil(2) - chroma_first];
        let (mut row, end) = (rows.start / 2, rows.end.div_ceil(2));
        while row < end {
            let share_of_row @ (covered, within) = share(row);
            let alike = (row..end).take_while(|row| share(*row) == share_of_row).count();
            for (n, mean) in chroma.iter_mut().enumerate() {
                let column = (chroma_first + n) * 2;
                let pair = column..(column + 2).min(self.target.width);
                let inside = pair.start.max(columns.start)..pair.end.min(columns.end);
                let pixels = (pair.len() * within) as u32;
                let mut sum = [0_u32; 4];
                for pixel in &line[inside.start - columns.start..inside.end - columns.start] {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(*value);
                    }
                }
                // One, two or four: division is a shift.
                *mean = sum.map(|sum| ((sum * covered as u32 + pixels / 2) >> pixels.ilog2()) as u8);
            }
            self.chroma_row(&(row..row + alike), chroma_first, &chroma);
            row += alike;
        }
    }

    /// Adds a print with its top left corner at `x`, `y`. What is outside of the frame is left out.
    pub fn print(&mut self, print: &Print, x: i32, y: i32) {
        let columns = clip(x, print.width(), self.target.width);
        let rows = clip(y, print.height(), self.target.height);
        if columns.is_empty() || rows.is_empty() {
            return;
        }
        // From columns and rows of the frame to those of the print, and back.
        let row_of = |row: usize| (row as i64 - i64::from(y)) as usize;
        let column_of = |column: usize| (column as i64 - i64::from(x)) as usize;
        let back = |column: usize| (column as i64 + i64::from(x)) as usize;
        let inside = column_of(columns.start)..column_of(columns.end);
        let colours = print.colours();
        for row in rows.clone() {
            let span = print.span(row_of(row), &inside);
            let weights = print.weights(row_of(row), span.clone());
            self.first_tones(row, back(span.start), weights, colours);
        }
        if !self.subsampled() {
            return;
        }
        let (mut sums, mut means) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for chroma_row in rows.start / 2..rows.end.div_ceil(2) {
            let pair = chroma_row * 2..(chroma_row * 2 + 2).min(self.target.height);
            let within = pair.start.max(rows.start)..pair.end.min(rows.end);
            let spans =
                within.clone().map(|row| print.span(row_of(row), &inside)).filter(|span| !span.is_empty());
            let Some(span) = spans.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else { continue };
            // Whole pairs of columns, of which the outer ones may be half covered.
            let first = back(span.start) / 2;
            let count = back(span.end).div_ceil(2) - first;
            for sums in &mut sums {
                sums.clear();
                sums.resize(count * 2, 0_u16);
            }
            for row in within {
                let (inks, grounds) = print.weights(row_of(row), span.clone());
                for (sums, weights) in sums.iter_mut().zip([inks, grounds]) {
                    for (sum, weight) in sums[back(span.start) - first * 2..].iter_mut().zip(weights) {
                        *sum += u16::from(*weight);
                    }
                }
            }
            // One, two or four pixels share a sample; of an odd frame the last column has none beside it.
            let shift = pair.len() as u32;
            let odd = self.target.width % 2 == 1 && first + count == self.target.width.div_ceil(2);
            for (means, sums) in means.iter_mut().zip(&sums) {
                means.clear();
                let (pairs, _) = sums.as_chunks::<2>();
                means.extend(pairs.iter().map(|[a, b]| ((a + b + (1 << shift) / 2) >> shift) as u8));
                if let (true, Some(last), Some(sum)) = (odd, means.last_mut(), sums.get(count * 2 - 2)) {
                    *last = ((sum + pair.len() as u16 / 2) >> (shift - 1)) as u8;
                }
            }
            // Each mean is rounded by itself.
            let [inks, grounds] = &mut means;
            for (ground, ink) in grounds.iter_mut().zip(inks.iter()) {
                *ground = (*ground).min(255 - ink);
            }
            self.chroma_tones(chroma_row, first, (inks, grounds), colours);
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
            layer.blend(plane.data, plane.stride);
        }
        Ok(())
    }

    fn subsampled(&self) -> bool {
        matches!(self.target.format, PixelFormat::Nv12 | PixelFormat::I420)
    }

    /// Adds pixels to the first plane.
    fn first_row(&mut self, rows: &Range<usize>, first: usize, pixels: &[[u8; 4]]) {
        let codes = self.codes;
        let layer = &mut self.planes[0];
        match self.target.format {
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8 => {
                layer.pixels(rows, first, pixels, |p| [codes.code(0, p)]);
            }
            PixelFormat::Rgb => layer.pixels(rows, first, pixels, rgb),
            PixelFormat::Bgr => layer.pixels(rows, first, pixels, bgr),
            PixelFormat::Rgbx => layer.pixels(rows, first, pixels, rgbx),
            PixelFormat::Bgrx => layer.pixels(rows, first, pixels, bgrx),
        }
    }

    /// Adds pixels of half size to the other planes.
    fn chroma_row(&mut self, rows: &Range<usize>, first: usize, pixels: &[[u8; 4]]) {
        let codes = self.codes;
        let [_, second, third] = &mut self.planes;
        if self.target.format == PixelFormat::Nv12 {
            second.pixels(rows, first, pixels, |p| [codes.code(1, p), codes.code(2, p)]);
        } else {
            second.pixels(rows, first, pixels, |p| [codes.code(1, p)]);
            third.pixels(rows, first, pixels, |p| [codes.code(2, p)]);
        }
    }

    /// Adds a row of a print to the first plane.
    fn first_tones(&mut self, row: usize, first: usize, weights: (&[u8], &[u8]), colours: [Rgba; 2]) {
        let codes = self.codes;
        let colours = colours.map(Rgba::premultiplied);
        let layer = &mut self.planes[0];
        match self.target.format {
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8 => {
                layer.tones(row, first, weights, colours.map(|p| [codes.code(0, p)]));
            }
            PixelFormat::Rgb => layer.tones(row, first, weights, colours.map(rgb)),
            PixelFormat::Bgr => layer.tones(row, first, weights, colours.map(bgr)),
            PixelFormat::Rgbx => layer.tones(row, first, weights, colours.map(rgbx)),
            PixelFormat::Bgrx => layer.tones(row, first, weights, colours.map(bgrx)),
        }
    }

    /// Adds a row of a print, at half size, to the other planes.
    fn chroma_tones(&mut self, row: usize, first: usize, weights: (&[u8], &[u8]), colours: [Rgba; 2]) {
        let codes = self.codes;
        let colours = colours.map(Rgba::premultiplied);
        let [_, second, third] = &mut self.planes;
        if self.target.format == PixelFormat::Nv12 {
            second.tones(row, first, weights, colours.map(|p| [codes.code(1, p), codes.code(2, p)]));
        } else {
            second.tones(row, first, weights, colours.map(|p| [codes.code(1, p)]));
            third.tones(row, first, weights, colours.map(|p| [codes.code(2, p)]));
        }
    }
}

fn rgb([r, g, b, _]: [u8; 4]) -> [u8; 3] {
    [r, g, b]
}

fn bgr([r, g, b, _]: [u8; 4]) -> [u8; 3] {
    [b, g, r]
}

fn rgbx([r, g, b, _]: [u8; 4]) -> [u8; 4] {
    [r, g, b, 0]
}

fn bgrx([r, g, b, _]: [u8; 4]) -> [u8; 4] {
    [b, g, r, 0]
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

/// The part of `start..start + length` that lies within `0..end`.
fn clip(start: i32, length: u32, end: usize) -> Range<usize> {
    let clamp = |v: i64| v.clamp(0, end as i64) as usize;
    let from = clamp(i64::from(start));
    from..clamp(i64::from(start) + i64::from(length)).max(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Vertex;
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

        /// A print is what its canvas would be, in every format, at any place, and touches nothing else.
        #[test]
        fn prints_and_their_canvases_agree(
            format in prop::sample::select(FORMATS.to_vec()),
            (width, height) in (1_usize..40, 1_usize..40),
            (x, y) in (-20_i32..44, -20_i32..44),
            [ink, ground] in any::<[[u8; 4]; 2]>(),
            trail in any::<bool>(),
            old in any::<u8>(),
        ) {
            let [ink, ground] = [ink, ground].map(|[r, g, b, a]| Rgba { r, g, b, a });
            let print = if trail {
                let ends = [(1.0, 3.0, 1.0), (20.0, 17.0, 0.4), (28.0, 4.0, 0.0)];
                let points = ends.map(|(x, y, alpha)| Vertex { x, y, alpha });
                Print::trail(&points, 3.5, ink, ground, (40, 40)).expect("it is inside").2
            } else {
                Print::label(&mut crate::draw::Typeface::new(), "Ag", 13.0, ink, ground)
            };
            let mut printed = Picture::new(format, width, height, old);
            let mut drawn = Picture::new(format, width, height, old);
            let mut stamp = Stamp::new(printed.target);
            stamp.print(&print, x, y);
            stamp.blend(&mut printed.frame()).unwrap();
            stamp.clear();
            stamp.picture(&print.canvas(), x, y);
            stamp.blend(&mut drawn.frame()).unwrap();
            for plane in 0..format.planes() {
                for (n, (a, b)) in printed.planes[plane].iter().zip(&drawn.planes[plane]).enumerate() {
                    prop_assert!(a.abs_diff(*b) <= 4, "{format:?} plane {plane} byte {n}: {a} {b}");
                }
                let (row, rows) = printed.frame().as_frame().plane_size(plane);
                for n in 0..rows {
                    for m in row..printed.strides[plane] {
                        prop_assert_eq!(printed.byte(plane, m, n), 0xa5);
                    }
                }
            }
        }

        #[test]
        fn no_place_is_a_panic(x: i32, y: i32, w: u32, h: u32) {
            let mut picture = Picture::new(Nv12, 17, 9, 0);
            let mut stamp = Stamp::new(picture.target);
            stamp.fill((x, y), (w, h), Rgba::WHITE);
            let label = Print::label(&mut crate::draw::Typeface::new(), "a", 12.0, Rgba::WHITE, Rgba::BLACK);
            stamp.print(&label, x, y);
            stamp.picture(&label.canvas(), x, y);
            stamp.blend(&mut picture.frame()).unwrap();
        }
    }
}
