//! Where the tiles of a video wall lie, and which part of a camera's picture fills a tile.
//!
//! Everything is in whole pixels of the wall, and every corner and size is even: with chroma at half size, a tile
//! with an odd corner would share its edge's colour with its neighbour.

mod arrange;
mod backend;
mod place;
#[cfg(test)]
mod tests;

pub use arrange::{Layout, Position, Wall, arrange};
pub use backend::{Backend, choose};
pub use place::{Fit, Placement, place};

use crate::geometry::Rect;

/// A part of a frame, in pixels.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub struct Area {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Area {
    pub const fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Self { x, y, width, height }
    }

    pub const fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    pub const fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }

    pub const fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Whether a point lies in it; points may be anywhere, also outside of the wall.
    pub fn contains(&self, x: f64, y: f64) -> bool {
        x >= f64::from(self.x)
            && y >= f64::from(self.y)
            && x < f64::from(self.right())
            && y < f64::from(self.bottom())
    }

    pub fn intersects(&self, other: &Self) -> bool {
        self.x < other.right()
            && other.x < self.right()
            && self.y < other.bottom()
            && other.y < self.bottom()
            && !self.is_empty()
            && !other.is_empty()
    }
}

impl Placement {
    /// A box in pixels of the camera's picture, in pixels of the wall. `None` where it lies outside of what is shown.
    pub fn to_wall(&self, rect: &Rect) -> Option<Rect> {
        if !rect.is_valid() {
            return None;
        }
        let (source, target) = (&self.source, &self.target);
        let (sx, sy) = (
            target.width as f32 / source.width.max(1) as f32,
            target.height as f32 / source.height.max(1) as f32,
        );
        let (left, top) = (target.x as f32, target.y as f32);
        let moved = Rect::new(
            left + (rect.x - source.x as f32) * sx,
            top + (rect.y - source.y as f32) * sy,
            rect.width * sx,
            rect.height * sy,
        );
        let clipped = Rect::from_corners(
            moved.x.max(left),
            moved.y.max(top),
            moved.right().min(target.right() as f32),
            moved.bottom().min(target.bottom() as f32),
        );
        clipped.is_valid().then_some(clipped)
    }
}
