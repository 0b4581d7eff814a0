//! Synthetic scenes: people, cars and dogs that cross a yard, a street or a room, with exact ground truth.
//!
//! A picture is a function of configuration and time: the same seed and moment give the same pixels on every
//! machine of the same architecture, in any order of asking. What stands still is drawn once per size and format;
//! a frame costs one copy of that plus the outlines of what moves. The capture time is burnt in for people and for
//! [`read_timecode`].

mod backdrop;
mod figures;
mod raster;
mod sketch;
mod target;
mod timecode;
mod world;

pub use target::{FrameMut, PlaneMut};
pub use timecode::read_timecode;
pub use world::Class;

use std::sync::Arc;

use crate::{
    detection::Detection,
    frame::{ColorMatrix, ColorRange, FrameError, PixelFormat},
    geometry::Rect,
};
use raster::{Area, OwnerMask, Rasteriser};
use sketch::{Light, Pen, Sketch};
use target::Still;
use world::Pose;

/// Where the scene plays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum SceneKind {
    /// Grass, a paved drive, a fence; people, dogs and cars.
    #[default]
    Yard,
    /// Houses, two lanes, two pavements; people, dogs and more cars.
    Street,
    /// A living room; people and dogs.
    Room,
}

impl SceneKind {
    pub const ALL: [Self; 3] = [Self::Yard, Self::Street, Self::Room];
}

/// What is to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneConfig {
    /// Pixels.
    pub width: usize,
    pub height: usize,
    /// How many places there are for moving objects, at most [`Self::MAX_OBJECTS`]; each is empty for a moment
    /// between one object and the next. From about eight on, objects cover one another a good deal.
    pub objects: usize,
    pub kind: SceneKind,
    pub seed: u64,
    /// As an infrared camera sees it.
    pub night: bool,
    /// Standard deviation of the sensor's noise, in steps of 8 bits.
    pub noise: f32,
}

impl SceneConfig {
    pub const MAX_OBJECTS: usize = 16;

    /// The same with everything in range: sizes from 16 to 8192, at most 16 objects, noise from 0 to 64.
    #[must_use]
    fn bounded(&self) -> Self {
        Self {
            width: self.width.clamp(16, 8192),
            height: self.height.clamp(16, 8192),
            objects: self.objects.min(Self::MAX_OBJECTS),
            noise: if self.noise.is_finite() { self.noise.clamp(0.0, 64.0) } else { 0.0 },
            ..self.clone()
        }
    }
}

impl Default for SceneConfig {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 720,
            objects: 4,
            kind: SceneKind::default(),
            seed: 0,
            night: false,
            noise: 1.0,
        }
    }
}

/// One object in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    pub class: Class,
    /// The tight box around the pixels that can be seen, shadow not included, in pixels of the frame.
    pub rect: Rect,
    /// Stays with an object while it crosses the scene; the next one in its place gets another. Below 2^53.
    pub track_id: u64,
    /// Share of the object's pixels that can be seen, 0 to 1: not covered by nearer objects, not out of the frame.
    pub visible: f32,
    /// Whether a detector is expected to find it: at least half visible, and both sides of the box at least 1/36 of
    /// the frame's height.
    pub reported: bool,
}

/// Least visible share of a reported object.
const MIN_VISIBLE: f32 = 0.5;

/// Least side of a reported box, as a share of the frame's height.
const MIN_SIDE: f32 = 1.0 / 36.0;

/// The moment that a frame shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    /// Nanoseconds since the scene began; decides who is where.
    pub scene_ns: u64,
    /// Milliseconds since the Unix epoch; burnt in where given.
    pub unix_ms: Option<u64>,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SceneError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the scene is {expected:?} pixels, the frame {got:?}")]
    Size { expected: (usize, usize), got: (usize, usize) },
}

/// Draws one scene; keeps what stands still.
#[derive(Debug)]
pub struct Scene {
    config: SceneConfig,
    still: Option<Still>,
    mask: OwnerMask,
    raster: Rasteriser,
    sketch: Sketch,
    poses: Vec<Pose>,
    areas: Vec<Area>,
    truth: Vec<Truth>,
    noise: NoiseTile,
}

impl Scene {
    /// Values out of range are taken as the nearest in range.
    pub fn new(config: &SceneConfig) -> Self {
        let config = config.bounded();
        let view = world::View::new(&config);
        let widest = Class::ALL.into_iter().map(figures::half_length).fold(0.0, f32::max);
        let margin = (2.0 * widest * view.scale(view.height)).ceil() as usize;
        Self {
            mask: OwnerMask::new(config.width, config.height, margin),
            noise: NoiseTile::new(config.noise),
            config,
            still: None,
            raster: Rasteriser::default(),
            sketch: Sketch::default(),
            poses: Vec::new(),
            areas: Vec::new(),
            truth: Vec::new(),
        }
    }

    /// What is drawn, after bounding.
    pub fn config(&self) -> &SceneConfig {
        &self.config
    }

    /// Takes over another configuration; draws what stands still anew only where that changes.
    pub fn set_config(&mut self, config: &SceneConfig) {
        let config = config.bounded();
        let key = |c: &SceneConfig| (c.width, c.height, c.kind, c.seed, c.night);
        let still = if key(&config) == key(&self.config) { self.still.take() } else { None };
        *self = Self { still, ..Self::new(&config) };
    }

    /// Draws everything that stands still, so that the first frame of this format takes no longer than the others.
    pub fn prepare(&mut self, format: PixelFormat, matrix: ColorMatrix, range: ColorRange) {
        let Self { still, config, .. } = self;
        let fits = |s: &Still| (s.format, s.matrix, s.range) == (format, matrix, range);
        if !still.as_ref().is_some_and(fits) {
            let rgb = backdrop::render(config);
            *still = Some(Still::from_rgb(&rgb, (config.width, config.height), format, matrix, range));
        }
    }

    /// Draws `moment` into `frame` and says who can be seen in it, far to near, reported or not.
    ///
    /// The frame must have the configured size; alpha or padding bytes become 255.
    pub fn render(&mut self, moment: Moment, frame: &mut FrameMut<'_>) -> Result<&[Truth], SceneError> {
        frame.validate()?;
        let (expected, got) = ((self.config.width, self.config.height), (frame.width, frame.height));
        if expected != got {
            return Err(SceneError::Size { expected, got });
        }
        self.prepare(frame.format, frame.matrix, frame.range);
        let Self { config, still, mask, raster, sketch, poses, areas, truth, noise } = self;
        if let Some(still) = still {
            still.copy_to(frame);
        }
        mask.clear();
        areas.clear();
        truth.clear();
        world::poses(config, moment.scene_ns as f64 / 1e9, poses);
        let light = Light {
            night: config.night,
            reach: 1.7,
            width: config.width as f32,
            height: config.height as f32,
        };
        let mut totals = [0; SceneConfig::MAX_OBJECTS];
        for (n, pose) in poses.iter().enumerate() {
            sketch.clear();
            let mut pen =
                Pen { sketch, origin: [pose.x, pose.y], scale: pose.scale, mirrored: pose.leftwards, light };
            figures::draw(&mut pen, pose);
            let owner = n as u8 + 1;
            let area = sketch.draw(raster, frame, mask, owner);
            // Counted before nearer objects cover it.
            totals[n] = mask.count(owner, area).total;
            areas.push(area);
        }
        for (n, pose) in poses.iter().enumerate() {
            let owned = mask.count(n as u8 + 1, areas[n]);
            if owned.inside == 0 {
                continue;
            }
            let Area { left, top, right, bottom } = owned.area;
            let rect = Rect::from_corners(left as f32, top as f32, right as f32, bottom as f32);
            let visible = owned.inside as f32 / totals[n].max(1) as f32;
            let least = config.height as f32 * MIN_SIDE;
            let reported = visible >= MIN_VISIBLE && rect.width >= least && rect.height >= least;
            truth.push(Truth { class: pose.class, rect, track_id: pose.track_id, visible, reported });
        }
        noise.add_to(frame, config.seed ^ moment.scene_ns);
        if let Some(unix_ms) = moment.unix_ms {
            timecode::draw(raster, frame, unix_ms);
        }
        Ok(truth)
    }
}

/// The reported objects as detections of confidence 1.
pub fn detections(truth: &[Truth]) -> Vec<Detection> {
    truth
        .iter()
        .filter(|t| t.reported)
        .map(|t| Detection {
            class_name: Arc::from(t.class.name()),
            class_id: Some(t.class.id()),
            confidence: 1.0,
            rect: t.rect,
            tracker_id: Some(t.track_id),
        })
        .collect()
}

/// Normally distributed noise, made once; every row of every frame reads it from another place.
#[derive(Debug)]
struct NoiseTile {
    values: Vec<i16>,
}

impl NoiseTile {
    const LEN: usize = 1 << 15;

    fn new(deviation: f32) -> Self {
        if deviation <= 0.0 {
            return Self { values: Vec::new() };
        }
        // The sum of twelve uniform numbers has variance one and is close enough to a normal distribution.
        let normal = |n: u64| (0..12).map(|k| world::unit(n, k)).sum::<f32>() - 6.0;
        let values = (0..Self::LEN as u64).map(|n| (normal(n) * deviation).round() as i16).collect();
        Self { values }
    }

    fn add_to(&self, frame: &mut FrameMut<'_>, key: u64) {
        if self.values.is_empty() {
            return;
        }
        let (row, rows) = frame.as_frame().plane_size(0);
        let padded = matches!(frame.format, PixelFormat::Rgbx | PixelFormat::Bgrx);
        let plane = &mut frame.planes[0];
        for y in 0..rows {
            let mut start = world::mix(key ^ ((y as u64) << 40)) as usize % (Self::LEN / 2);
            for part in plane.data[y * plane.stride..][..row].chunks_mut(Self::LEN / 2) {
                let values = &self.values[start..][..part.len()];
                for (byte, noise) in part.iter_mut().zip(values) {
                    *byte = (i16::from(*byte) + noise).clamp(0, 255) as u8;
                }
                start = (start + Self::LEN / 4) % (Self::LEN / 2);
                if padded {
                    part.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;
