//! Small pictures in two colours, which is what labels and trails are: cheaper to make and to compile than a
//! [`Canvas`], because a colour is converted once and not for every pixel.

use std::ops::Range;

use super::canvas::{Canvas, MAX_SIDE, reach, rounded};
use super::colour::{Rgba, div255};
use super::text::Typeface;

/// A picture made of two colours, with the weight of each at every pixel.
#[derive(Clone, Debug, PartialEq)]
pub struct Print {
    width: u32,
    height: u32,
    ink: Rgba,
    ground: Rgba,
    /// 0 to 255, row by row; both together make the opacity, at most 255.
    inks: Vec<u8>,
    grounds: Vec<u8>,
    /// Columns of each row outside of which everything is transparent.
    spans: Vec<Range<u32>>,
}

/// A corner of a line: where, and how opaque from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vertex {
    pub x: f32,
    pub y: f32,
    pub alpha: f32,
}

impl Print {
    /// A line of text on a panel with rounded corners, as large as the text needs.
    pub fn label(typeface: &mut Typeface, text: &str, size: f32, ink: Rgba, ground: Rgba) -> Self {
        let line = Typeface::line(size);
        let padding = (size * 0.3).round().max(2.0);
        let height = (line.capitals + 2.0 * (size * 0.32).max(2.0)).ceil();
        let width = (Typeface::width(text, size) + 2.0 * padding).ceil();
        let mut print = Self::new(width as u32, height as u32, ink, ground);
        print.panel(size * 0.18);
        let baseline = f32::midpoint(height, line.capitals).round();
        typeface.each(size, text, (padding, baseline), |x, y, coverage| print.cover(x, y, coverage));
        print
    }

    /// A line through the points with an edge one pixel wide around it, smooth at both; where it crosses itself it is
    /// no darker. In pixels of a frame `within` which it is cut, together with the place of its top left corner there.
    /// `None` where nothing of it is inside.
    pub fn trail(
        points: &[Vertex],
        width: f32,
        ink: Rgba,
        edge: Rgba,
        within: (u32, u32),
    ) -> Option<(i32, i32, Self)> {
        let half = (width / 2.0).max(0.25);
        let margin = half + 2.0;
        let (mut left, mut top, mut right, mut bottom) = (f32::MAX, f32::MAX, f32::MIN, f32::MIN);
        for point in points.iter().filter(|point| point.x.is_finite() && point.y.is_finite()) {
            (left, right) = (left.min(point.x - margin), right.max(point.x + margin));
            (top, bottom) = (top.min(point.y - margin), bottom.max(point.y + margin));
        }
        let columns = reach(left, right.max(left), within.0);
        let rows = reach(top, bottom.max(top), within.1);
        if columns.is_empty() || rows.is_empty() {
            return None;
        }
        let (x, y) = (columns.start as f32, rows.start as f32);
        let mut print = Self::new(columns.len() as u32, rows.len() as u32, ink, edge);
        for pair in points.windows(2) {
            let [a, b] = [pair[0], pair[1]].map(|point| Vertex { x: point.x - x, y: point.y - y, ..point });
            if [a.x, a.y, b.x, b.y].iter().all(|v| v.is_finite()) {
                print.segment(a, b, half);
            }
        }
        // So far these are shares of line and edge, each on its own; the line lies on the edge.
        let (ink, edge) = (u32::from(ink.a), u32::from(edge.a));
        for (row, span) in print.spans.iter().enumerate() {
            let start = row * print.width as usize;
            let pixels = start + span.start as usize..start + span.end as usize;
            for (i, g) in print.inks[pixels.clone()].iter_mut().zip(&mut print.grounds[pixels]) {
                *i = div255(u32::from(*i) * ink);
                *g = div255(u32::from(div255(u32::from(*g) * edge)) * (255 - u32::from(*i)));
            }
        }
        Some((columns.start as i32, rows.start as i32, print))
    }

    /// Transparent. Sides are cut to what a frame can have.
    fn new(width: u32, height: u32, ink: Rgba, ground: Rgba) -> Self {
        let (width, height) = (width.min(MAX_SIDE), height.min(MAX_SIDE));
        let pixels = width as usize * height as usize;
        Self {
            width,
            height,
            ink,
            ground,
            inks: vec![0; pixels],
            grounds: vec![0; pixels],
            spans: vec![0..0; height as usize],
        }
    }

    /// Ground everywhere, round at the corners.
    fn panel(&mut self, radius: f32) {
        self.grounds.fill(self.ground.a);
        self.spans.fill(0..self.width);
        let (half_w, half_h) = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        let radius = radius.clamp(0.0, half_w.min(half_h));
        let corner = radius.ceil() as u32;
        for row in 0..corner.min(self.height) {
            for column in 0..corner.min(self.width) {
                let (x, y) = (half_w - column as f32 - 0.5, half_h - row as f32 - 0.5);
                let covered = (rounded((x, y), (half_w, half_h), radius) * 255.0).round() as u32;
                let weight = div255(covered * u32::from(self.ground.a));
                for row in [row, self.height - 1 - row] {
                    let start = row * self.width;
                    for column in [column, self.width - 1 - column] {
                        self.grounds[(start + column) as usize] = weight;
                    }
                }
            }
        }
    }

    /// Ink over what is there, by one row of coverage.
    fn cover(&mut self, x: i32, y: i32, coverage: &[u8]) {
        if y < 0 || y >= self.height as i32 {
            return;
        }
        let clamp = |v: i64| v.clamp(0, i64::from(self.width)) as usize;
        let columns = clamp(i64::from(x))..clamp(i64::from(x) + coverage.len() as i64);
        if columns.is_empty() {
            return;
        }
        let coverage = &coverage[(columns.start as i64 - i64::from(x)) as usize..][..columns.len()];
        let start = y as usize * self.width as usize;
        let pixels = start + columns.start..start + columns.end;
        let alpha = u32::from(self.ink.a);
        for ((i, g), covered) in
            self.inks[pixels.clone()].iter_mut().zip(&mut self.grounds[pixels]).zip(coverage)
        {
            let covered = div255(u32::from(*covered) * alpha);
            let keep = 255 - u32::from(covered);
            *i = covered.saturating_add(div255(u32::from(*i) * keep));
            *g = div255(u32::from(*g) * keep).min(255 - *i);
        }
    }

    /// Shares of line and edge along a segment, where they are more than before.
    fn segment(&mut self, a: Vertex, b: Vertex, half: f32) {
        let (dx, dy) = (b.x - a.x, b.y - a.y);
        let per_square = 1.0 / (dx * dx + dy * dy).max(1e-6);
        // As far as anything of the edge can be seen.
        let radius = half + 1.5;
        for row in reach(a.y.min(b.y) - radius, a.y.max(b.y) + radius, self.height) {
            let Some((from, to)) = chord(a, b, radius, row as f32 + 0.5) else { continue };
            let columns = reach(from - 0.5, to + 0.5, self.width);
            if columns.is_empty() {
                continue;
            }
            let span = &mut self.spans[row];
            let (first, last) = (columns.start as u32, columns.end as u32);
            *span =
                if span.start >= span.end { first..last } else { span.start.min(first)..span.end.max(last) };
            let start = row * self.width as usize;
            let pixels = start + columns.start..start + columns.end;
            let py = row as f32 + 0.5 - a.y;
            let weights = self.inks[pixels.clone()].iter_mut().zip(&mut self.grounds[pixels]);
            for (column, (i, g)) in columns.zip(weights) {
                let px = column as f32 + 0.5 - a.x;
                let t = ((px * dx + py * dy) * per_square).clamp(0.0, 1.0);
                let (x, y) = (px - t * dx, py - t * dy);
                let distance = (x * x + y * y).sqrt();
                let alpha = (a.alpha + (b.alpha - a.alpha) * t).clamp(0.0, 1.0) * 255.0;
                *i = (*i).max(((half + 0.5 - distance).clamp(0.0, 1.0) * alpha) as u8);
                *g = (*g).max(((half + 1.5 - distance).clamp(0.0, 1.0) * alpha) as u8);
            }
        }
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// Ink and ground, whose opacity is in the weights.
    pub(super) fn colours(&self) -> [Rgba; 2] {
        [self.ink, self.ground].map(|colour| Rgba { a: 255, ..colour })
    }

    /// The columns of a row that may show something, within `columns`.
    pub(super) fn span(&self, row: usize, columns: &Range<usize>) -> Range<usize> {
        let span = &self.spans[row];
        let start = columns.start.max(span.start as usize);
        start..columns.end.min(span.end as usize).max(start)
    }

    /// Weights of ink and ground for some columns of a row.
    pub(super) fn weights(&self, row: usize, columns: Range<usize>) -> (&[u8], &[u8]) {
        let start = row * self.width as usize;
        let pixels = start + columns.start..start + columns.end;
        (&self.inks[pixels.clone()], &self.grounds[pixels])
    }

    /// The same picture in premultiplied RGBA.
    pub fn canvas(&self) -> Canvas {
        let [ink, ground] = self.colours();
        let mix = |ink: u8, ground: u8, i: u8, g: u8| {
            div255(u32::from(ink) * u32::from(i) + u32::from(ground) * u32::from(g))
        };
        let pixels = self.inks.iter().zip(&self.grounds).map(|(i, g)| {
            [mix(ink.r, ground.r, *i, *g), mix(ink.g, ground.g, *i, *g), mix(ink.b, ground.b, *i, *g), i + g]
        });
        Canvas::from_pixels(self.width, self.height, pixels.collect())
    }
}

/// Where the line at height `y` enters and leaves everything that is at most `radius` from the segment. That shape is
/// convex, so it is from the first to the last of the crossings with its outline: two circles and two sides.
fn chord(a: Vertex, b: Vertex, radius: f32, y: f32) -> Option<(f32, f32)> {
    let (mut from, mut to) = (f32::MAX, f32::MIN);
    let mut crossing = |x: f32| (from, to) = (from.min(x), to.max(x));
    for end in [a, b] {
        let dy = y - end.y;
        if dy.abs() <= radius {
            let reach = (radius * radius - dy * dy).sqrt();
            crossing(end.x - reach);
            crossing(end.x + reach);
        }
    }
    let (dx, dy) = (b.x - a.x, b.y - a.y);
    let length = dx.hypot(dy);
    if length > 1e-3 && dy != 0.0 {
        let (nx, ny) = (-dy / length * radius, dx / length * radius);
        for side in [1.0, -1.0] {
            let t = (y - a.y - side * ny) / dy;
            if (0.0..=1.0).contains(&t) {
                crossing(a.x + side * nx + t * dx);
            }
        }
    }
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EDGE: Rgba = Rgba { r: 0, g: 0, b: 0, a: 70 };

    fn vertex(x: f32, y: f32, alpha: f32) -> Vertex {
        Vertex { x, y, alpha }
    }

    /// A trail as it lies on a frame of 40 × 40.
    fn drawn(points: &[Vertex], width: f32, edge: Rgba) -> Canvas {
        let mut frame = Canvas::new(40, 40);
        if let Some((x, y, print)) = Print::trail(points, width, Rgba::WHITE, edge, (40, 40)) {
            frame.picture(&print.canvas(), x, y);
        }
        frame
    }

    #[test]
    fn trails_fade_and_do_not_darken_where_they_cross() {
        let points = [vertex(5.0, 20.0, 0.5), vertex(35.0, 20.0, 0.5), vertex(20.0, 5.0, 0.5)];
        let frame = drawn(&points, 4.0, Rgba { a: 0, ..EDGE });
        assert!(frame.pixels().iter().all(|p| p[3] <= 128));
        assert_eq!(frame.pixel(20, 19)[3], 127);
        assert_eq!(frame.pixel(20, 30), [0; 4]);
        let fading = drawn(&[vertex(2.0, 5.0, 0.0), vertex(38.0, 5.0, 1.0)], 4.0, EDGE);
        assert!(fading.pixel(8, 5)[3] < fading.pixel(30, 5)[3]);
    }

    #[test]
    fn trails_have_an_edge() {
        let frame = drawn(&[vertex(5.0, 20.0, 1.0), vertex(35.0, 20.0, 1.0)], 4.0, EDGE);
        assert_eq!(frame.pixel(20, 20), [255; 4]);
        assert_eq!(frame.pixel(20, 17), [0, 0, 0, 70]);
        assert_eq!(frame.pixel(20, 15), [0; 4]);
    }

    #[test]
    fn trails_are_cut_to_their_frame() {
        let far = [vertex(-500.0, -300.0, 1.0), vertex(900.0, 700.0, 1.0)];
        let (x, y, print) = Print::trail(&far, 4.0, Rgba::WHITE, EDGE, (40, 30)).unwrap();
        assert_eq!((x, y, print.width(), print.height()), (0, 0, 40, 30));
        for points in [
            [vertex(-50.0, 5.0, 1.0), vertex(-20.0, 9.0, 1.0)],
            [vertex(f32::NAN, 5.0, 1.0), vertex(9.0, f32::INFINITY, 1.0)],
        ] {
            assert_eq!(Print::trail(&points, 4.0, Rgba::WHITE, EDGE, (40, 30)), None);
        }
        assert_eq!(Print::trail(&[], 4.0, Rgba::WHITE, EDGE, (40, 30)), None);
        let one_bad = [vertex(5.0, 5.0, 1.0), vertex(f32::NAN, 0.0, 1.0), vertex(9.0, 5.0, 1.0)];
        let (.., print) = Print::trail(&one_bad, 4.0, Rgba::WHITE, EDGE, (40, 30)).unwrap();
        assert!(print.inks.iter().all(|i| *i == 0), "no segment has two ends");
    }

    #[test]
    fn labels_are_as_large_as_their_text() {
        let mut typeface = Typeface::new();
        let short = Print::label(&mut typeface, "car", 16.0, Rgba::BLACK, Rgba::WHITE);
        let long = Print::label(&mut typeface, "caravan 0.93", 16.0, Rgba::BLACK, Rgba::WHITE);
        assert!(long.width() > 2 * short.width() && long.height() == short.height());
        assert!((18..28).contains(&short.height()), "{}", short.height());
        // The first and last column are ground, not letters.
        let canvas = short.canvas();
        for y in 6..short.height() - 6 {
            assert_eq!((canvas.pixel(0, y), canvas.pixel(short.width() - 1, y)), ([255; 4], [255; 4]));
        }
        assert_eq!(canvas.pixel(0, 0)[3], canvas.pixel(short.width() - 1, short.height() - 1)[3]);
        assert!(canvas.pixel(0, 0)[3] < 255, "corners are round");
    }

    #[test]
    fn letters_cover_their_ground() {
        let ground = Rgba::rgb(0, 0, 200).with_alpha(0.5);
        let mut typeface = Typeface::new();
        let canvas = Print::label(&mut typeface, "MMM", 30.0, Rgba::WHITE, ground).canvas();
        assert!(canvas.pixels().contains(&[255; 4]), "the middle of a letter is ink");
        assert_eq!(canvas.pixel(canvas.width() / 2, 1), [0, 0, 100, 128]);
    }

    proptest! {
        /// What is left out of a row's span is farther away than anything can be seen.
        #[test]
        fn nothing_that_is_seen_is_left_out(
            ends in prop::array::uniform4(-10.0_f32..50.0),
            width in 0.0_f32..9.0,
        ) {
            let [ax, ay, bx, by] = ends;
            let (a, b) = (vertex(ax, ay, 1.0), vertex(bx, by, 1.0));
            let frame = drawn(&[a, b], width, Rgba { a: 255, ..EDGE });
            let half = (width / 2.0).max(0.25);
            for y in 0..40 {
                for x in 0..40 {
                    let (px, py) = (x as f32 + 0.5 - ax, y as f32 + 0.5 - ay);
                    let (dx, dy) = (bx - ax, by - ay);
                    let t = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-6)).clamp(0.0, 1.0);
                    let distance = (px - t * dx).hypot(py - t * dy);
                    let expected = ((half + 1.5 - distance).clamp(0.0, 1.0) * 255.0) as u8;
                    let found = frame.pixel(x, y)[3];
                    prop_assert!(found.abs_diff(expected) <= 3, "{x},{y}: {found} for {expected}");
                }
            }
        }

        #[test]
        fn weights_make_no_more_than_one(
            text in "\\PC{0,12}",
            size in 4.0_f32..40.0,
            alphas in any::<[u8; 2]>(),
        ) {
            let (ink, ground) = (Rgba { a: alphas[0], ..Rgba::WHITE }, Rgba { a: alphas[1], ..Rgba::BLACK });
            let print = Print::label(&mut Typeface::new(), &text, size, ink, ground);
            prop_assert!(print.inks.iter().zip(&print.grounds).all(|(i, g)| i.checked_add(*g).is_some()));
        }
    }
}
