//! What moves: a background model of a small brightness picture.
//!
//! Every cell of the grid has a running mean and a running mean deviation. A cell that is further from its mean than
//! the threshold and three deviations differs; neighbouring ones make a region. What flickers on its own (leaves, a
//! clock in the picture) raises its own deviation and falls silent after a while. What differs and stands still
//! becomes background after [`Params::absorb`]; what differs and goes on moving does not.
//!
//! A change of the light moves all cells alike and is taken out first. When most of the picture differs all the same
//! (a lamp is switched, the camera turns to infrared or is moved), the model begins anew.

mod grid;
mod regions;
#[cfg(test)]
mod tests;

pub use grid::Layout;

use crate::{
    frame::{Frame, FrameError},
    geometry::Rect,
    zones::Polygon,
};

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Difference from the background that counts, in steps of 8-bit brightness.
    pub threshold: f32,
    /// Smallest region, as a share of the frame's area.
    pub min_area: f32,
    /// Seconds after which what stands still is background.
    pub absorb: f64,
    /// Share of the frame that may differ before the model begins anew.
    pub recalibrate: f32,
}

impl Default for Params {
    fn default() -> Self {
        Self { threshold: 8.0, min_area: 0.0003, absorb: 10.0, recalibrate: 0.6 }
    }
}

/// Seconds within which the mean of a quiet cell follows.
const FOLLOW_S: f32 = 5.0;
/// Seconds within which the deviation of a cell follows.
const NOISE_S: f32 = 30.0;
/// A cell that differs and changes by less than this between two frames stands still.
const STILL: f32 = 2.5;
/// Share of the threshold that a neighbour of a cell that differs needs to belong to the region.
const EDGE: f32 = 0.5;
/// A model needs this long to know its noise; until then everything counts as moving.
const LEARN_NS: u64 = 1_000_000_000;
/// Frames further apart than this tell nothing about one another.
const GAP_NS: u64 = 60_000_000_000;
/// Regions beyond this many are one.
const MAX_REGIONS: usize = 32;

/// What was seen in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict<'a> {
    /// Whether anything moves, or whether that cannot be said yet.
    pub moved: bool,
    /// Whether the model has begun anew with this frame.
    pub recalibrated: bool,
    /// Share of the frame that differs.
    pub area: f32,
    /// Where, in pixels of the frame; largest first.
    pub regions: &'a [Rect],
}

/// Watches one camera.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    size: (usize, usize),
    layout: Layout,
    mean: Vec<f32>,
    deviation: Vec<f32>,
    /// The frame before this one.
    last: Vec<f32>,
    now: Vec<f32>,
    /// Cells that are not looked at.
    masked: Vec<bool>,
    /// For each cell how far it is beyond its own threshold; 1 is just at it.
    excess: Vec<f32>,
    sums: Vec<u16>,
    finder: regions::Finder,
    regions: Vec<Rect>,
    last_ns: Option<u64>,
    since_ns: u64,
    masks: Vec<Polygon>,
}

impl Detector {
    /// Forgets the background.
    pub fn reset(&mut self) {
        self.last_ns = None;
    }

    /// Leaves these areas out from now on.
    pub fn set_masks(&mut self, masks: Vec<Polygon>) {
        self.masks = masks;
        self.apply_masks();
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Looks at a frame that was taken at `now_ns`. A frame of another size, and time that goes backwards or jumps,
    /// begin anew.
    pub fn update(
        &mut self,
        now_ns: u64,
        frame: &Frame<'_>,
        params: &Params,
    ) -> Result<Verdict<'_>, FrameError> {
        if self.size != (frame.width, frame.height) {
            frame.validate()?;
            self.size = (frame.width, frame.height);
            self.layout = Layout::of(frame.width, frame.height);
            self.last_ns = None;
            self.apply_masks();
        }
        std::mem::swap(&mut self.last, &mut self.now);
        grid::sample(frame, self.layout, &mut self.sums, &mut self.now)?;
        self.regions.clear();
        let before = self.last_ns.replace(now_ns).filter(|&last| now_ns >= last && now_ns - last < GAP_NS);
        let Some(before) = before else {
            self.learn(now_ns);
            return Ok(Verdict { moved: true, recalibrated: true, area: 1.0, regions: &self.regions });
        };
        let dt = (now_ns - before) as f32 / 1e9;
        let light = self.light(params.threshold);
        let differ = self.compare(light, params.threshold);
        let open = self.masked.iter().filter(|masked| !**masked).count();
        let share = differ as f32 / open.max(1) as f32;
        if share > params.recalibrate {
            self.learn(now_ns);
            return Ok(Verdict { moved: true, recalibrated: true, area: share, regions: &self.regions });
        }
        let total = self.excess.len().max(1) as f32;
        // One cell is not enough, however small the area: a speck of dust is.
        let least = (params.min_area * total).ceil().max(2.0) as usize;
        if differ >= least {
            let Layout { columns, cell, .. } = self.layout;
            self.finder.find(&self.excess, columns, EDGE, least, MAX_REGIONS);
            let pixels = |v: usize| (v * cell) as f32;
            self.regions.extend(self.finder.boxes().map(|(left, top, right, bottom)| {
                Rect::from_corners(pixels(left), pixels(top), pixels(right), pixels(bottom))
            }));
        }
        self.adapt(dt, light, params);
        let learning = now_ns - self.since_ns < LEARN_NS;
        let moved = learning || !self.regions.is_empty();
        Ok(Verdict { moved, recalibrated: false, area: differ as f32 / total, regions: &self.regions })
    }

    fn learn(&mut self, now_ns: u64) {
        self.since_ns = now_ns;
        self.mean.clone_from(&self.now);
        self.last.clone_from(&self.now);
        self.deviation.clear();
        self.deviation.resize(self.now.len(), 1.0);
        self.excess.clear();
        self.excess.resize(self.now.len(), 0.0);
    }

    fn apply_masks(&mut self) {
        let Layout { columns, rows, cell } = self.layout;
        let (width, height) = (self.size.0.max(1) as f64, self.size.1.max(1) as f64);
        self.masked.clear();
        self.masked.extend((0..columns * rows).map(|n| {
            let middle = |k: usize| (k as f64 + 0.5) * cell as f64;
            let point = [middle(n % columns.max(1)) / width, middle(n / columns.max(1)) / height];
            self.masks.iter().any(|mask| mask.contains(point))
        }));
    }

    /// By how much the whole picture has become lighter or darker. Single cells have little say, so that a large object
    /// does not count as light.
    fn light(&self, threshold: f32) -> f32 {
        let limit = threshold.max(1.0);
        let (mut sum, mut count) = (0.0, 0.0);
        for ((now, mean), masked) in self.now.iter().zip(&self.mean).zip(&self.masked) {
            let weight = f32::from(u8::from(!masked));
            sum += weight * (now - mean).clamp(-limit, limit);
            count += weight;
        }
        sum / f32::max(count, 1.0)
    }

    /// Fills `excess` and counts the cells that differ.
    fn compare(&mut self, light: f32, threshold: f32) -> usize {
        let cells = self.now.iter().zip(&self.mean).zip(&self.deviation).zip(&self.masked);
        let mut differ = 0;
        for (excess, (((now, mean), deviation), masked)) in self.excess.iter_mut().zip(cells) {
            let open = f32::from(u8::from(!masked));
            *excess = open * (now - mean - light).abs() / (threshold + 3.0 * deviation);
            differ += usize::from(*excess >= 1.0);
        }
        differ
    }

    fn adapt(&mut self, dt: f32, light: f32, params: &Params) {
        let rate = |seconds: f32| (dt / seconds.max(dt).max(1e-3)).min(1.0);
        let (follow, noise) = (rate(FOLLOW_S), rate(NOISE_S));
        // Three time constants bring what differs to a twentieth.
        let absorb = rate(params.absorb as f32 / 3.0);
        let cells = self.now.iter().zip(&self.last).zip(&self.excess);
        for ((mean, deviation), ((now, last), excess)) in
            self.mean.iter_mut().zip(&mut self.deviation).zip(cells)
        {
            let quiet = *excess < 1.0;
            let still = (now - last).abs() < STILL;
            let rate = if quiet {
                follow
            } else if still {
                absorb
            } else {
                0.0
            };
            let off = now - *mean - light;
            // What stands still is not noise.
            let unsteady = if quiet || !still { noise } else { 0.0 };
            *deviation += unsteady * (off.abs() - *deviation);
            *mean += rate * (now - *mean);
        }
    }
}
