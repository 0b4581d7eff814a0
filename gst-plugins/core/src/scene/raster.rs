//! Antialiased filling of convex polygons into raw frames, and the mask that says which object owns a pixel.
//!
//! A polygon becomes one span per quarter row (four sub-scanlines); pixels that all four cover are filled, the
//! pixels at both ends are blended by coverage. The work grows with the outline, not with the area.

use super::target::{Colour, FrameMut};
use crate::frame::{ColorMatrix, ColorRange, PixelFormat};

pub(super) type Point = [f32; 2];

/// Sub-scanlines per row.
const SUB: usize = 4;

/// A colour that runs from the top of a shape to its bottom, and its opacity, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Paint {
    pub top: Colour,
    pub bottom: Colour,
    pub alpha: f32,
}

/// The spans of one polygon at one scale.
#[derive(Debug, Default)]
struct Spans {
    first: usize,
    rows: Vec<[[f32; 2]; SUB]>,
}

impl Spans {
    /// `scale` maps the polygon's coordinates to pixels of the plane, which has `height` rows.
    fn build(&mut self, points: &[Point], scale: f32, height: usize) {
        let (mut low, mut high) = (f32::MAX, f32::MIN);
        for p in points {
            low = low.min(p[1] * scale);
            high = high.max(p[1] * scale);
        }
        self.rows.clear();
        let first = low.floor().clamp(0.0, height as f32) as usize;
        let end = high.ceil().clamp(0.0, height as f32) as usize;
        self.first = first;
        if first >= end {
            return;
        }
        self.rows.resize(end - first, [[f32::MAX, f32::MIN]; SUB]);
        let sub_first = (first * SUB) as f32;
        let sub_count = ((end - first) * SUB) as f32;
        let sub_scale = scale * SUB as f32;
        let mut previous = points[points.len() - 1];
        for &point in points {
            let (a, b) = if previous[1] <= point[1] { (previous, point) } else { (point, previous) };
            previous = point;
            // Sub-scanline s lies at (s + 0.5) / SUB.
            let (ya, yb) = (a[1] * sub_scale - 0.5 - sub_first, b[1] * sub_scale - 0.5 - sub_first);
            let from = ya.ceil().clamp(0.0, sub_count) as usize;
            let to = yb.ceil().clamp(0.0, sub_count) as usize;
            if from >= to {
                continue;
            }
            let slope = (b[0] - a[0]) * scale / (yb - ya);
            let start = a[0] * scale + (from as f32 - ya) * slope;
            for (n, s) in (from..to).enumerate() {
                let x = start + n as f32 * slope;
                let span = &mut self.rows[s / SUB][s % SUB];
                span[0] = span[0].min(x);
                span[1] = span[1].max(x);
            }
        }
    }

    /// Calls `paint` with each row's byte values and writes them into a plane of `B` bytes per pixel.
    fn fill<const B: usize>(
        &self,
        data: &mut [u8],
        stride: usize,
        width: usize,
        alpha: f32,
        paint: impl Fn(f32) -> [u8; B],
    ) {
        let step = 1.0 / self.rows.len().max(1) as f32;
        for (n, spans) in self.rows.iter().enumerate() {
            let Some(extent) = Extent::of(spans, width) else { continue };
            let bytes = paint((n as f32 + 0.5) * step);
            let start = (self.first + n) * stride;
            let Some(row) = data.get_mut(start..start + width * B) else { return };
            let mut edge = |from: usize, to: usize| {
                for x in from..to {
                    let left = x as f32;
                    let covered: f32 =
                        spans.iter().map(|s| (s[1].min(left + 1.0) - s[0].max(left)).clamp(0.0, 1.0)).sum();
                    blend(&mut row[x * B..(x + 1) * B], &bytes, covered * alpha / SUB as f32);
                }
            };
            edge(extent.outer.0, extent.inner.0);
            edge(extent.inner.1, extent.outer.1);
            let inner = &mut row[extent.inner.0 * B..extent.inner.1 * B];
            if alpha < 1.0 {
                inner.chunks_exact_mut(B).for_each(|pixel| blend(pixel, &bytes, alpha));
            } else if B == 1 {
                inner.fill(bytes[0]);
            } else {
                inner.chunks_exact_mut(B).for_each(|pixel| pixel.copy_from_slice(&bytes));
            }
        }
    }
}

/// The pixels of a row that a polygon touches, and those that it covers completely.
struct Extent {
    outer: (usize, usize),
    inner: (usize, usize),
}

impl Extent {
    fn of(spans: &[[f32; 2]; SUB], width: usize) -> Option<Self> {
        let mut outer = [f32::MAX, f32::MIN];
        let mut inner = [f32::MIN, f32::MAX];
        for s in spans {
            outer = [outer[0].min(s[0]), outer[1].max(s[1])];
            inner = [inner[0].max(s[0]), inner[1].min(s[1])];
        }
        let limit = width as f32;
        let from = outer[0].floor().clamp(0.0, limit) as usize;
        let to = outer[1].ceil().clamp(0.0, limit) as usize;
        if from >= to {
            return None;
        }
        let full_from = (inner[0].ceil().clamp(0.0, limit) as usize).clamp(from, to);
        let full_to = (inner[1].floor().clamp(0.0, limit) as usize).clamp(full_from, to);
        Some(Self { outer: (from, to), inner: (full_from, full_to) })
    }
}

fn blend(pixel: &mut [u8], bytes: &[u8], alpha: f32) {
    let weight = (alpha * 256.0) as i32;
    for (old, &new) in pixel.iter_mut().zip(bytes) {
        *old = (i32::from(*old) + (((i32::from(new) - i32::from(*old)) * weight) >> 8)) as u8;
    }
}

/// Which object is the nearest at each pixel: its number plus one, 0 for none. Wider than the frame by `margin` on
/// both sides, so that an object's size is known while it enters.
#[derive(Debug, Default)]
pub(super) struct OwnerMask {
    data: Vec<u8>,
    width: usize,
    height: usize,
    margin: usize,
    /// Rows that hold something.
    dirty: (usize, usize),
}

/// A rectangle of pixels, right and bottom exclusive; in the mask's own columns.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Area {
    pub left: usize,
    pub top: usize,
    pub right: usize,
    pub bottom: usize,
}

/// How much of an object was found, and where: in frame pixels.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Owned {
    pub inside: usize,
    pub total: usize,
    pub area: Area,
}

impl OwnerMask {
    pub fn new(width: usize, height: usize, margin: usize) -> Self {
        let stride = width + 2 * margin;
        Self { data: vec![0; stride * height], width, height, margin, dirty: (height, 0) }
    }

    pub fn clear(&mut self) {
        let stride = self.stride();
        let (from, to) = self.dirty;
        if from < to {
            self.data[from * stride..to * stride].fill(0);
        }
        self.dirty = (self.height, 0);
    }

    fn stride(&self) -> usize {
        self.width + 2 * self.margin
    }

    fn mark(&mut self, spans: &Spans, owner: u8, area: &mut Area) {
        let (stride, margin) = (self.stride(), self.margin as f32);
        for (n, row) in spans.rows.iter().enumerate() {
            let (mut left, mut right, mut count) = (0.0, 0.0, 0);
            for s in row.iter().filter(|s| s[0] < s[1]) {
                left += s[0];
                right += s[1];
                count += 1;
            }
            if count * 2 < SUB {
                continue;
            }
            // A pixel counts where the mean span covers its centre.
            let column = |x: f32| (x / count as f32 + margin).round().clamp(0.0, stride as f32) as usize;
            let (from, to) = (column(left), column(right));
            if from >= to {
                continue;
            }
            let y = spans.first + n;
            self.data[y * stride + from..y * stride + to].fill(owner);
            *area = if area.right == 0 {
                Area { left: from, top: y, right: to, bottom: y + 1 }
            } else {
                Area {
                    left: area.left.min(from),
                    top: area.top.min(y),
                    right: area.right.max(to),
                    bottom: area.bottom.max(y + 1),
                }
            };
            self.dirty = (self.dirty.0.min(y), self.dirty.1.max(y + 1));
        }
    }

    /// Counts the pixels of `owner` within `area`.
    pub fn count(&self, owner: u8, area: Area) -> Owned {
        let stride = self.stride();
        let mut owned = Owned::default();
        let (inside_from, inside_to) = (self.margin, self.margin + self.width);
        let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, usize::MAX, 0);
        for y in area.top..area.bottom {
            let row = &self.data[y * stride..(y + 1) * stride];
            let count = |from: usize, to: usize| {
                row.get(from..to).map_or(0, |part| part.iter().map(|&o| usize::from(o == owner)).sum())
            };
            owned.total += count(area.left, area.right);
            let (from, to) = (area.left.max(inside_from), area.right.min(inside_to));
            let Some(part) = row.get(from..to) else { continue };
            let Some(first) = part.iter().position(|&o| o == owner) else { continue };
            let last = part.iter().rposition(|&o| o == owner).unwrap_or(first);
            owned.inside += count(from + first, from + last + 1);
            left = left.min(from + first - inside_from);
            right = right.max(from + last + 1 - inside_from);
            top = top.min(y);
            bottom = y + 1;
        }
        if owned.inside > 0 {
            owned.area = Area { left, top, right, bottom };
        }
        owned
    }
}

/// Draws polygons into a frame of any of the supported formats. Keeps its scratch memory between frames.
#[derive(Debug, Default)]
pub(super) struct Rasteriser {
    full: Spans,
    half: Spans,
}

impl Rasteriser {
    /// Fills `points`, in pixels of the frame.
    pub fn polygon(&mut self, frame: &mut FrameMut<'_>, points: &[Point], paint: Paint) {
        self.draw(frame, points, paint);
    }

    /// As [`Self::polygon`], and marks the pixels as belonging to `owner`.
    pub fn owned_polygon(
        &mut self,
        frame: &mut FrameMut<'_>,
        points: &[Point],
        paint: Paint,
        (mask, owner): (&mut OwnerMask, u8),
        area: &mut Area,
    ) {
        self.draw(frame, points, paint);
        mask.mark(&self.full, owner, area);
    }

    fn draw(&mut self, frame: &mut FrameMut<'_>, points: &[Point], paint: Paint) {
        if points.len() < 3 {
            return;
        }
        let (width, height, format) = (frame.width, frame.height, frame.format);
        self.full.build(points, 1.0, height);
        if self.full.rows.is_empty() {
            return;
        }
        let (matrix, range) = (frame.matrix, frame.range);
        let code = |t: f32| paint.top.mix(paint.bottom, t).codes(matrix, range);
        let rgb = |t: f32| paint.top.mix(paint.bottom, t).bytes();
        let [first, second, third] = &mut frame.planes;
        let (alpha, full) = (paint.alpha, &self.full);
        match format {
            PixelFormat::Nv12 | PixelFormat::I420 => {
                full.fill(first.data, first.stride, width, alpha, |t| [code(t)[0]]);
                let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
                self.half.build(points, 0.5, half_height);
                if format == PixelFormat::Nv12 {
                    self.half.fill(second.data, second.stride, half_width, alpha, |t| {
                        let [_, u, v] = code(t);
                        [u, v]
                    });
                } else {
                    self.half.fill(second.data, second.stride, half_width, alpha, |t| [code(t)[1]]);
                    self.half.fill(third.data, third.stride, half_width, alpha, |t| [code(t)[2]]);
                }
            }
            PixelFormat::Gray8 => {
                let grey =
                    |t| [paint.top.mix(paint.bottom, t).codes(ColorMatrix::Bt601, ColorRange::Full)[0]];
                full.fill(first.data, first.stride, width, alpha, grey);
            }
            PixelFormat::Rgb => full.fill(first.data, first.stride, width, alpha, rgb),
            PixelFormat::Bgr => full.fill(first.data, first.stride, width, alpha, |t| {
                let [r, g, b] = rgb(t);
                [b, g, r]
            }),
            PixelFormat::Rgbx => full.fill(first.data, first.stride, width, alpha, |t| {
                let [r, g, b] = rgb(t);
                [r, g, b, 255]
            }),
            PixelFormat::Bgrx => full.fill(first.data, first.stride, width, alpha, |t| {
                let [r, g, b] = rgb(t);
                [b, g, r, 255]
            }),
        }
    }
}
