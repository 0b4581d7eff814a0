//! Who is where at a given moment. Positions are a function of seed and time alone: there is no state to step, so
//! any moment can be asked for in any order.

use super::{SceneConfig, SceneKind, figures::half_length};

/// What is drawn. The numbers are the class ids of the demo model.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Class {
    Person = 0,
    Car = 1,
    Dog = 2,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Person, Self::Car, Self::Dog];

    pub const fn id(self) -> u32 {
        self as u32
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Car => "car",
            Self::Dog => "dog",
        }
    }
}

/// One object at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pose {
    pub class: Class,
    pub track_id: u64,
    /// Selects colours and build.
    pub look: u64,
    /// Where it stands: pixels of the frame.
    pub x: f32,
    pub y: f32,
    /// Pixels per metre.
    pub scale: f32,
    pub leftwards: bool,
    /// Metres since it came into view.
    pub walked: f32,
    /// 0 standing to 1 walking.
    pub gait: f32,
    /// Seconds, for what moves without walking.
    pub clock: f32,
}

/// SplitMix64's finaliser: every bit of the result depends on every bit of the input.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The `n`-th number that belongs to `key`: 0 to 1, 1 excluded.
pub(super) fn unit(key: u64, n: u64) -> f32 {
    (mix(key ^ mix(n)) >> 40) as f32 / (1u64 << 24) as f32
}

pub(super) fn pick<T: Copy>(key: u64, n: u64, from: &[T]) -> T {
    from[(unit(key, n) * from.len() as f32) as usize % from.len()]
}

/// Maps the depth of the ground, 0 far to 1 near, to the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub width: f32,
    pub height: f32,
    zoom: f32,
}

impl View {
    pub fn new(config: &SceneConfig) -> Self {
        let zoom = if config.kind == SceneKind::Room { 1.22 } else { 1.0 };
        Self { width: config.width as f32, height: config.height as f32, zoom }
    }

    pub fn row(&self, depth: f32) -> f32 {
        self.height * (0.52 + 0.44 * depth)
    }

    /// Pixels per metre at a row. A frame narrower than 16:9 shows objects as large as its width allows.
    pub fn scale(&self, row: f32) -> f32 {
        let depth = (row / self.height - 0.52) / 0.44;
        self.height.min(self.width * 0.75) * self.zoom * (0.096 + 0.036 * depth)
    }
}

/// Parts of the ground, by depth, where a class goes.
fn bands(kind: SceneKind, class: Class) -> &'static [[f32; 2]] {
    match (kind, class) {
        (SceneKind::Yard, Class::Car) => &[[0.44, 0.62]],
        (SceneKind::Yard, _) => &[[0.0, 0.14], [0.74, 1.0]],
        (SceneKind::Street, Class::Car) => &[[0.18, 0.88]],
        (SceneKind::Street, _) => &[[0.0, 0.16], [0.88, 1.0]],
        (SceneKind::Room, _) => &[[0.0, 1.0]],
    }
}

fn classes(kind: SceneKind) -> &'static [Class] {
    use Class::{Car, Dog, Person};
    match kind {
        SceneKind::Yard => &[Person, Dog, Car, Person, Dog, Person],
        SceneKind::Street => &[Person, Car, Dog, Person, Car, Person],
        SceneKind::Room => &[Person, Dog],
    }
}

/// The `n`-th of `count` evenly spaced depths.
fn lane(bands: &[[f32; 2]], n: usize, count: usize) -> f32 {
    let total: f32 = bands.iter().map(|b| b[1] - b[0]).sum();
    let mut at = total * (n as f32 + 0.5) / count.max(1) as f32;
    for band in bands {
        let length = band[1] - band[0];
        if at <= length {
            return band[0] + at;
        }
        at -= length;
    }
    1.0
}

/// Fills `poses` with everyone in view at `seconds`, far to near.
pub(super) fn poses(config: &SceneConfig, seconds: f64, poses: &mut Vec<Pose>) {
    poses.clear();
    let classes = classes(config.kind);
    let class_of = |slot: usize| classes[slot % classes.len()];
    let cars = (0..config.objects).filter(|&s| class_of(s) == Class::Car).count();
    let (mut car, mut other) = (0, 0);
    for slot in 0..config.objects {
        let class = class_of(slot);
        let (n, count) = if class == Class::Car {
            car += 1;
            (car - 1, cars)
        } else {
            other += 1;
            (other - 1, config.objects - cars)
        };
        // Neighbours in the list are not neighbours on the ground, differently for every seed.
        let turn = mix(config.seed ^ class.id() as u64) as usize % count;
        poses.extend(pose(config, slot, class, ((n + turn) % count, count), seconds));
    }
    poses.sort_by(|a, b| a.y.total_cmp(&b.y));
}

fn pose(
    config: &SceneConfig,
    slot: usize,
    class: Class,
    (n, count): (usize, usize),
    seconds: f64,
) -> Option<Pose> {
    let view = View::new(config);
    let key = mix(config.seed ^ mix(0x5107 + slot as u64));
    let depth = lane(bands(config.kind, class), n, count);
    let y = view.row(depth);
    let scale = view.scale(y);
    let speed = (0.85 + 0.3 * unit(key, 1))
        * match (class, config.kind) {
            (Class::Person, _) => 1.35,
            (Class::Dog, _) => 1.9,
            (Class::Car, SceneKind::Street) => 5.5,
            (Class::Car, _) => 3.2,
        };
    let margin = half_length(class) * scale;
    let path = view.width + 2.0 * margin;
    let crossing = f64::from(path / (speed * scale));
    let period = crossing + 0.4 + 2.0 * f64::from(unit(key, 2));
    // Everyone is in view at time zero.
    let since = seconds + crossing * (0.2 + 0.5 * f64::from(unit(key, 3)));
    let cycle = (since / period).floor().max(0.0);
    let along = ((since - cycle * period) / crossing) as f32;
    if !(0.0..=1.0).contains(&along) {
        return None;
    }
    let cycle = cycle as u64;
    let look = mix(key ^ mix(cycle));
    let leftwards = if class == Class::Car && config.kind == SceneKind::Street {
        n * 2 < count
    } else {
        unit(look, 101) < 0.5
    };
    let (progress, gait) = walk(along, class == Class::Person && unit(look, 102) < 0.3, unit(look, 103));
    let travelled = progress * path;
    let x = if leftwards { view.width + margin - travelled } else { travelled - margin };
    Some(Pose {
        class,
        track_id: slot as u64 + 1 + cycle * config.objects as u64,
        look,
        x,
        y,
        scale,
        leftwards,
        walked: travelled / scale,
        gait,
        clock: (since % 3600.0) as f32,
    })
}

/// Share of the path covered and gait after the share `along` of the time; some stop on the way.
fn walk(along: f32, pauses: bool, when: f32) -> (f32, f32) {
    const PAUSE: f32 = 0.2;
    const EASE: f32 = 0.02;
    if !pauses {
        return (along, 1.0);
    }
    let from = 0.3 + 0.3 * when;
    let pace = 1.0 / (1.0 - PAUSE);
    if along < from {
        (along * pace, ((from - along) / EASE).clamp(0.12, 1.0))
    } else if along < from + PAUSE {
        (from * pace, 0.12)
    } else {
        ((along - PAUSE) * pace, ((along - from - PAUSE) / EASE).clamp(0.12, 1.0))
    }
}
