//! Shapes in metres, drawn with a pen that knows where the object stands and how large a metre is there.

use std::{f32::consts::TAU, ops::Range};

use super::{
    raster::{Area, OwnerMask, Paint, Point, Rasteriser},
    target::{Colour, FrameMut},
};

/// How a place in the picture is lit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Light {
    pub night: bool,
    /// How well the camera's own lamp reaches what is drawn: 1 for walls and ground.
    pub reach: f32,
    pub width: f32,
    pub height: f32,
}

impl Light {
    /// The colour that the camera sees. At night it sees near infrared, brightest in the middle of its own lamp.
    pub fn apply(&self, colour: Colour, x: f32, y: f32) -> Colour {
        if !self.night {
            return colour;
        }
        let [r, g, b] = colour.0;
        let grey = 0.36 * r + 0.5 * g + 0.14 * b;
        let (dx, dy) = (x / self.width - 0.5, (y / self.height - 0.62) * 0.8);
        let lamp = 1.15 - 1.6 * (dx * dx + dy * dy);
        let lift = 10.0 + 50.0 * (self.reach - 1.0);
        let seen = (grey * 0.48 * self.reach + lift) * lamp.max(0.25);
        Colour([seen * 0.98, seen, seen * 1.01])
    }
}

#[derive(Clone, Debug)]
struct Primitive {
    points: Range<usize>,
    paint: Paint,
    /// Whether it belongs to the object; a shadow does not.
    solid: bool,
}

/// What an object looks like in one frame: polygons in pixels of the frame, back to front.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    points: Vec<Point>,
    primitives: Vec<Primitive>,
}

impl Sketch {
    pub fn clear(&mut self) {
        self.points.clear();
        self.primitives.clear();
    }

    /// Draws everything and marks the solid parts as `owner`'s. Returns the area of the mask that was touched.
    pub fn draw(
        &self,
        raster: &mut Rasteriser,
        frame: &mut FrameMut<'_>,
        mask: &mut OwnerMask,
        owner: u8,
    ) -> Area {
        let mut area = Area::default();
        for primitive in &self.primitives {
            let points = &self.points[primitive.points.clone()];
            if primitive.solid {
                raster.owned_polygon(frame, points, primitive.paint, (mask, owner), &mut area);
            } else {
                raster.polygon(frame, points, primitive.paint);
            }
        }
        area
    }

    /// Draws everything without marking.
    pub fn draw_unowned(&self, raster: &mut Rasteriser, frame: &mut FrameMut<'_>) {
        for primitive in &self.primitives {
            raster.polygon(frame, &self.points[primitive.points.clone()], primitive.paint);
        }
    }
}

/// Adds shapes to a sketch. Coordinates are metres from the point where the object touches the ground: x in its
/// direction of travel, y up.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    pub sketch: &'a mut Sketch,
    /// Pixels.
    pub origin: Point,
    /// Pixels per metre.
    pub scale: f32,
    /// Whether the object looks to the left.
    pub mirrored: bool,
    pub light: Light,
}

impl Pen<'_> {
    fn begin(&self) -> usize {
        self.sketch.points.len()
    }

    fn add(&mut self, x: f32, y: f32) {
        let x = if self.mirrored { -x } else { x };
        self.sketch.points.push([self.origin[0] + x * self.scale, self.origin[1] - y * self.scale]);
    }

    fn finish(&mut self, start: usize, top: Colour, bottom: Colour, alpha: f32, solid: bool) {
        let [x, y] = self.origin;
        let paint = Paint { top: self.light.apply(top, x, y), bottom: self.light.apply(bottom, x, y), alpha };
        self.sketch.primitives.push(Primitive { points: start..self.sketch.points.len(), paint, solid });
    }

    pub fn polygon(&mut self, points: &[Point], top: Colour, bottom: Colour) {
        let start = self.begin();
        for &[x, y] in points {
            self.add(x, y);
        }
        self.finish(start, top, bottom, 1.0, true);
    }

    /// A polygon that lets what is behind it show through; a highlight or a stain, part of the object.
    pub fn glaze(&mut self, points: &[Point], colour: Colour, alpha: f32) {
        let start = self.begin();
        for &[x, y] in points {
            self.add(x, y);
        }
        self.finish(start, colour, colour, alpha, true);
    }

    pub fn ellipse(&mut self, centre: Point, radius: Point, top: Colour, bottom: Colour) {
        self.arc(centre, radius, 0.0, TAU, top, bottom);
    }

    /// The part of an ellipse between two angles (radians, counter-clockwise from the front), closed by a chord.
    pub fn arc(&mut self, centre: Point, radius: Point, from: f32, to: f32, top: Colour, bottom: Colour) {
        let start = self.begin();
        self.outline(centre, radius, from, to);
        self.finish(start, top, bottom, 1.0, true);
    }

    fn outline(&mut self, centre: Point, radius: Point, from: f32, to: f32) {
        const STEPS: usize = 18;
        for n in 0..STEPS {
            let (sin, cos) = (from + (to - from) * n as f32 / (STEPS - 1) as f32).sin_cos();
            self.add(centre[0] + radius[0] * cos, centre[1] + radius[1] * sin);
        }
    }

    /// A limb: two discs and what lies between them.
    pub fn limb(&mut self, from: Point, to: Point, radius_from: f32, radius_to: f32, colour: Colour) {
        const STEPS: usize = 6;
        let start = self.begin();
        let along = (to[1] - from[1]).atan2(to[0] - from[0]);
        for (centre, radius, turn) in [(from, radius_from, TAU / 4.0), (to, radius_to, -TAU / 4.0)] {
            for n in 0..=STEPS {
                let (sin, cos) = (along + turn + TAU / 2.0 * n as f32 / STEPS as f32).sin_cos();
                self.add(centre[0] + radius * cos, centre[1] + radius * sin);
            }
        }
        self.finish(start, colour.scaled(1.06), colour.scaled(0.92), 1.0, true);
    }

    /// A soft shadow on the ground.
    pub fn shadow(&mut self, centre: f32, half_length: f32, strength: f32) {
        let strength = if self.light.night { strength * 0.6 } else { strength };
        for (size, share) in [(1.15, 0.3), (1.0, 0.4), (0.8, 0.5)] {
            let start = self.begin();
            self.outline([centre, 0.0], [half_length * size, half_length * 0.13 * size + 0.03], 0.0, TAU);
            self.finish(start, Colour::rgb(12, 14, 18), Colour::rgb(12, 14, 18), strength * share, false);
        }
    }
}
