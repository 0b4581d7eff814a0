//! Small pictures in premultiplied RGBA, drawn once and then compiled into a [`super::Stamp`].

use super::colour::{Rgba, div255};

/// The longest side of a canvas, in pixels.
pub(super) const MAX_SIDE: u32 = 16384;

/// A picture in premultiplied RGBA without padding, transparent at first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<[u8; 4]>,
}

impl Canvas {
    /// Sides are cut to what a frame can have.
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width.min(MAX_SIDE), height.min(MAX_SIDE));
        Self { width, height, pixels: vec![[0; 4]; width as usize * height as usize] }
    }

    /// From premultiplied pixels, row by row.
    pub(super) fn from_pixels(width: u32, height: u32, pixels: Vec<[u8; 4]>) -> Self {
        debug_assert_eq!(pixels.len(), width as usize * height as usize);
        Self { width, height, pixels }
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// Premultiplied red, green, blue and opacity, row by row.
    pub fn pixels(&self) -> &[[u8; 4]] {
        &self.pixels
    }

    /// A pixel of the picture; transparent outside of it.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 4] {
        if x < self.width && y < self.height { self.pixels[(y * self.width + x) as usize] } else { [0; 4] }
    }

    /// Fills whole pixels.
    pub fn fill(&mut self, (x, y): (i32, i32), (width, height): (u32, u32), colour: Rgba) {
        let source = colour.premultiplied();
        let columns = range(x, width, self.width);
        for row in range(y, height, self.height) {
            let start = row * self.width as usize;
            for pixel in &mut self.pixels[start + columns.start..start + columns.end] {
                over(pixel, source);
            }
        }
    }

    /// Fills a rectangle (x, y, width, height) with round corners, smooth at its edges.
    pub fn panel(&mut self, (x, y, width, height): (f32, f32, f32, f32), radius: f32, colour: Rgba) {
        let (half_w, half_h) = (width / 2.0, height / 2.0);
        let radius = radius.clamp(0.0, half_w.min(half_h).max(0.0));
        let (cx, cy) = (x + half_w, y + half_h);
        let rows = reach(y, y + height, self.height);
        let columns = reach(x, x + width, self.width);
        // Whole pixels between the corners need no arithmetic.
        let whole = [x, y, width, height].iter().all(|v| v.fract() == 0.0);
        let source = colour.premultiplied();
        for row in rows {
            let start = row * self.width as usize;
            let from_edge = (row as f32 - y).min(y + height - 1.0 - row as f32);
            let inset = if from_edge >= radius { 0.0 } else { radius };
            let (from, to) = ((x + inset).ceil(), (x + width - inset).floor());
            let full = if whole && from < to {
                let clamp = |v: f32| (v.max(0.0) as usize).clamp(columns.start, columns.end);
                clamp(from)..clamp(to)
            } else {
                columns.start..columns.start
            };
            for pixel in &mut self.pixels[start + full.start..start + full.end] {
                over(pixel, source);
            }
            for column in columns.clone().filter(|column| !full.contains(column)) {
                let from_middle = (column as f32 + 0.5 - cx, row as f32 + 0.5 - cy);
                let coverage = rounded(from_middle, (half_w, half_h), radius);
                self.blend(start + column, coverage, colour);
            }
        }
    }

    /// Draws another picture with its top left corner at `x`, `y`.
    pub fn picture(&mut self, other: &Self, x: i32, y: i32) {
        let columns = range(x, other.width, self.width);
        for row in range(y, other.height, self.height) {
            let source = (row as i64 - i64::from(y)) as usize * other.width as usize;
            for column in columns.clone() {
                let from = other.pixels[source + (column as i64 - i64::from(x)) as usize];
                over(&mut self.pixels[row * self.width as usize + column], from);
            }
        }
    }

    /// Draws one row of coverage, 0 to 255, in one colour.
    pub(super) fn cover(&mut self, x: i32, y: i32, coverage: &[u8], colour: Rgba) {
        if y < 0 || y >= self.height as i32 {
            return;
        }
        let columns = range(x, coverage.len() as u32, self.width);
        let start = y as usize * self.width as usize;
        let source = colour.premultiplied();
        for column in columns {
            let covered = coverage[(column as i64 - i64::from(x)) as usize];
            if covered > 0 {
                let scaled = source.map(|c| div255(u32::from(c) * u32::from(covered)));
                over(&mut self.pixels[start + column], scaled);
            }
        }
    }

    fn blend(&mut self, at: usize, coverage: f32, colour: Rgba) {
        if coverage > 0.0 {
            let covered = (coverage * 255.0).round() as u32;
            over(&mut self.pixels[at], colour.premultiplied().map(|c| div255(u32::from(c) * covered)));
        }
    }
}

/// `source` over `pixel`, both premultiplied.
fn over(pixel: &mut [u8; 4], source: [u8; 4]) {
    let keep = 255 - u32::from(source[3]);
    if keep == 0 {
        *pixel = source;
        return;
    }
    for (old, new) in pixel.iter_mut().zip(source) {
        *old = new.saturating_add(div255(u32::from(*old) * keep));
    }
}

/// The part of `start..start + length` that lies within `0..end`.
fn range(start: i32, length: u32, end: u32) -> std::ops::Range<usize> {
    let clamp = |v: i64| v.clamp(0, i64::from(end)) as usize;
    let from = clamp(i64::from(start));
    from..clamp(i64::from(start) + i64::from(length)).max(from)
}

/// How much of a pixel a rectangle with round corners covers, 0 to 1: by the distance of the two middles.
pub(super) fn rounded((x, y): (f32, f32), (half_w, half_h): (f32, f32), radius: f32) -> f32 {
    let (dx, dy) = (x.abs() - (half_w - radius), y.abs() - (half_h - radius));
    let outside = dx.max(0.0).hypot(dy.max(0.0));
    // Distance to the outline, negative inside.
    let distance = outside + dx.max(dy).min(0.0) - radius;
    (0.5 - distance).clamp(0.0, 1.0)
}

/// The pixels that `from..to` touches, within `0..end`.
pub(super) fn reach(from: f32, to: f32, end: u32) -> std::ops::Range<usize> {
    let start = from.floor().clamp(0.0, end as f32) as usize;
    start..(to.ceil().clamp(0.0, end as f32) as usize).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_is_clipped() {
        let mut canvas = Canvas::new(20, 10);
        canvas.fill((-5, -5), (10, 10), Rgba::WHITE);
        assert_eq!(canvas.pixels().iter().filter(|p| p[3] == 255).count(), 25);
        canvas.fill((i32::MAX, i32::MIN), (u32::MAX, u32::MAX), Rgba::WHITE);
        canvas.panel((-1e9, -1e9, 2e9, 2e9), 3.0, Rgba::BLACK);
        assert!(canvas.pixels().iter().all(|p| *p == [0, 0, 0, 255]));
        canvas.panel((f32::NAN, 0.0, 5.0, f32::INFINITY), 3.0, Rgba::BLACK);
        canvas.picture(&Canvas::new(5, 5), i32::MAX, i32::MIN);
        assert_eq!(Canvas::new(0, 7).pixels().len(), 0);
    }

    #[test]
    fn panels_have_round_corners_and_full_middles() {
        let mut canvas = Canvas::new(20, 20);
        canvas.panel((0.0, 0.0, 20.0, 20.0), 6.0, Rgba::WHITE);
        assert_eq!(canvas.pixel(0, 0), [0; 4]);
        assert_eq!(canvas.pixel(10, 0), [255; 4]);
        assert_eq!(canvas.pixel(10, 10), [255; 4]);
        let soft = canvas.pixels().iter().filter(|p| !matches!(p[3], 0 | 255)).count();
        assert!((12..60).contains(&soft), "{soft}");
    }

    proptest! {
        #[test]
        fn colours_stay_premultiplied(
            fills in prop::collection::vec((-5_i32..15, -5_i32..15, 0_u32..12, 0_u32..12, any::<[u8; 4]>()), 0..12),
        ) {
            let mut canvas = Canvas::new(12, 12);
            for (x, y, width, height, [r, g, b, a]) in fills {
                canvas.fill((x, y), (width, height), Rgba { r, g, b, a });
                canvas.panel((x as f32 * 0.7, y as f32 * 0.7, width as f32, height as f32), 2.0, Rgba { r, g, b, a });
            }
            for p in canvas.pixels() {
                // Rounding may exceed by one.
                prop_assert!(p[..3].iter().all(|c| u16::from(*c) <= u16::from(p[3]) + 1), "{p:?}");
            }
        }
    }
}
