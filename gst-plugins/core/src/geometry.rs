//! Axis-aligned boxes in pixels.

/// A box: top-left corner and size, in pixels of the frame it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

impl Rect {
    pub const fn new(x: f32, y: f32, width: f32, height: f32) -> Self {
        Self { x, y, width, height }
    }

    /// From two corners, left-top and right-bottom.
    pub fn from_corners(x1: f32, y1: f32, x2: f32, y2: f32) -> Self {
        Self::new(x1, y1, x2 - x1, y2 - y1)
    }

    /// From centre and size.
    pub fn from_centre(cx: f32, cy: f32, width: f32, height: f32) -> Self {
        Self::new(cx - width / 2.0, cy - height / 2.0, width, height)
    }

    pub fn right(&self) -> f32 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f32 {
        self.y + self.height
    }

    /// Area in square pixels; 0 for an empty or inverted box.
    pub fn area(&self) -> f32 {
        self.width.max(0.0) * self.height.max(0.0)
    }

    /// Whether all four numbers are finite and the box covers something.
    pub fn is_valid(&self) -> bool {
        [self.x, self.y, self.width, self.height].iter().all(|v| v.is_finite())
            && self.width > 0.0
            && self.height > 0.0
    }

    pub fn intersection(&self, other: &Self) -> f32 {
        let width = self.right().min(other.right()) - self.x.max(other.x);
        let height = self.bottom().min(other.bottom()) - self.y.max(other.y);
        width.max(0.0) * height.max(0.0)
    }

    /// Intersection over union, 0 to 1; 0 where both are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let intersection = self.intersection(other);
        let union = self.area() + other.area() - intersection;
        if union > 0.0 { intersection / union } else { 0.0 }
    }

    /// The part inside a frame of `width` × `height`.
    #[must_use]
    pub fn clipped(&self, width: f32, height: f32) -> Self {
        Self::from_corners(
            self.x.clamp(0.0, width),
            self.y.clamp(0.0, height),
            self.right().clamp(0.0, width),
            self.bottom().clamp(0.0, height),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn iou_table() {
        let unit = Rect::new(0.0, 0.0, 10.0, 10.0);
        for (other, expected) in [
            (unit, 1.0),
            (Rect::new(5.0, 0.0, 10.0, 10.0), 50.0 / 150.0),
            (Rect::new(10.0, 0.0, 10.0, 10.0), 0.0),
            (Rect::new(2.0, 2.0, 5.0, 5.0), 0.25),
            (Rect::new(0.0, 0.0, 0.0, 0.0), 0.0),
        ] {
            assert!((unit.iou(&other) - expected).abs() < 1e-6, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_and_bounded(
            a in (-50f32..50., -50f32..50., 0f32..100., 0f32..100.),
            b in (-50f32..50., -50f32..50., 0f32..100., 0f32..100.),
        ) {
            let (a, b) = (Rect::new(a.0, a.1, a.2, a.3), Rect::new(b.0, b.1, b.2, b.3));
            let iou = a.iou(&b);
            prop_assert!((0.0..=1.0001).contains(&iou));
            prop_assert_eq!(iou, b.iou(&a));
        }

        #[test]
        fn clipped_stays_inside(x in -500f32..500., y in -500f32..500., w in 0f32..900., h in 0f32..900.) {
            let c = Rect::new(x, y, w, h).clipped(320.0, 240.0);
            prop_assert!(c.x >= 0.0 && c.y >= 0.0 && c.right() <= 320.001 && c.bottom() <= 240.001);
            prop_assert!(c.width >= 0.0 && c.height >= 0.0);
        }
    }
}
