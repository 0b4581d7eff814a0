//! Where a box will be: a Kalman filter of constant velocity for centre and size.
//!
//! The noise of SORT and ByteTrack is diagonal and the model couples a coordinate with nothing but its own velocity,
//! so their filter of eight numbers is exactly four filters of two, which take a few nanoseconds each.

use crate::geometry::Rect;

/// The interval that the noise figures are given for.
const FRAME_S: f32 = 1.0 / 30.0;
/// Standard deviations in box heights: of a measured centre; of a step's unknown part; of the change of velocity.
const CENTRE: f32 = 0.07;
const CENTRE_STEP: f32 = 0.07;
const CENTRE_VELOCITY: f32 = 0.004;
/// The same of width and height, which change slowly and are measured badly: an arm that is stretched out, a box that
/// is cut by a shadow.
const SIZE: f32 = 0.12;
const SIZE_STEP: f32 = 0.01;
const SIZE_VELOCITY: f32 = 0.004;

/// Noise of one coordinate, in box heights: measured, per step, of velocity.
#[derive(Clone, Copy, Debug)]
struct Noise {
    measured: f32,
    step: f32,
    velocity: f32,
}

/// Centre x, centre y, width, height.
fn noise() -> [Noise; 4] {
    let centre = Noise { measured: CENTRE, step: CENTRE_STEP, velocity: CENTRE_VELOCITY };
    let size = Noise { measured: SIZE, step: SIZE_STEP, velocity: SIZE_VELOCITY };
    [centre, centre, size, size]
}

/// One coordinate: position and velocity with their covariance.
#[derive(Clone, Copy, Debug, Default)]
struct Axis {
    x: f32,
    /// Per second.
    v: f32,
    /// Variances of x and v, and their covariance.
    p: [f32; 3],
}

impl Axis {
    fn new(x: f32, height: f32, noise: Noise) -> Self {
        let x_std = 2.0 * noise.measured * height;
        let v_std = 10.0 * noise.velocity / FRAME_S * height;
        Self { x, v: 0.0, p: [x_std * x_std, v_std * v_std, 0.0] }
    }

    fn predict(&mut self, dt: f32, height: f32, noise: Noise) {
        let steps = dt / FRAME_S;
        let (x_std, v_std) = (noise.step * height, noise.velocity / FRAME_S * height);
        let [xx, vv, xv] = self.p;
        self.x += self.v * dt;
        self.p = [
            xx + dt * (2.0 * xv + dt * vv) + x_std * x_std * steps,
            vv + v_std * v_std * steps,
            xv + dt * vv,
        ];
    }

    fn update(&mut self, x: f32, height: f32, noise: Noise) {
        let [xx, vv, xv] = self.p;
        let std = noise.measured * height;
        let total = xx + std * std;
        if total <= 0.0 {
            return;
        }
        let (kx, kv) = (xx / total, xv / total);
        let off = x - self.x;
        self.x += kx * off;
        self.v += kv * off;
        self.p = [xx * (1.0 - kx), vv - kv * xv, xv * (1.0 - kx)];
    }
}

/// A box in motion.
#[derive(Clone, Copy, Debug)]
pub struct Motion {
    /// Centre x, centre y, width, height.
    axes: [Axis; 4],
}

impl Motion {
    pub fn new(rect: &Rect) -> Self {
        let height = rect.height.max(1.0);
        let (measured, noise) = (measured(rect), noise());
        Self { axes: std::array::from_fn(|n| Axis::new(measured[n], height, noise[n])) }
    }

    /// Lets `dt` seconds pass.
    pub fn predict(&mut self, dt: f32) {
        let height = self.height();
        for (axis, noise) in self.axes.iter_mut().zip(noise()) {
            axis.predict(dt, height, noise);
        }
    }

    /// Takes in where the object was seen.
    pub fn update(&mut self, rect: &Rect) {
        let height = rect.height.max(1.0);
        for ((axis, x), noise) in self.axes.iter_mut().zip(measured(rect)).zip(noise()) {
            axis.update(x, height, noise);
        }
    }

    /// Stops growth: what cannot be seen is assumed to keep its size.
    pub fn hold_size(&mut self) {
        self.axes[2].v = 0.0;
        self.axes[3].v = 0.0;
    }

    pub fn rect(&self) -> Rect {
        let [cx, cy, width, height] = self.axes;
        Rect::from_centre(cx.x, cy.x, width.x.max(1.0), height.x.max(1.0))
    }

    fn height(&self) -> f32 {
        self.axes[3].x.max(1.0)
    }
}

fn measured(rect: &Rect) -> [f32; 4] {
    [rect.x + rect.width / 2.0, rect.y + rect.height / 2.0, rect.width, rect.height]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_mover_is_foreseen_at_any_rate() {
        for fps in [0.5f32, 5.0, 25.0] {
            let at = |t: f32| Rect::new(100.0 + 40.0 * t, 50.0 + 10.0 * t, 60.0, 120.0);
            let mut motion = Motion::new(&at(0.0));
            let frames = 20.max((4.0 * fps) as usize);
            for frame in 1..=frames {
                motion.predict(1.0 / fps);
                motion.update(&at(frame as f32 / fps));
            }
            let (vx, vy) = (motion.axes[0].v, motion.axes[1].v);
            assert!((vx - 40.0).abs() < 3.0 && (vy - 10.0).abs() < 3.0, "{fps} fps: {vx} {vy}");
            motion.predict(1.0);
            let expected = at(frames as f32 / fps + 1.0);
            assert!(motion.rect().iou(&expected) > 0.85, "{fps} fps: {:?} {expected:?}", motion.rect());
        }
    }

    #[test]
    fn hostile_boxes_do_not_break_it() {
        let mut motion = Motion::new(&Rect::new(0.0, 0.0, 0.0, 0.0));
        for rect in [Rect::new(1e9, -1e9, 1e9, 0.0), Rect::new(0.0, 0.0, 1.0, 1e9), Rect::default()] {
            motion.predict(1e4);
            motion.update(&rect);
            assert!(motion.rect().is_valid(), "{:?}", motion.rect());
        }
    }
}
