//! What stands still: ground, walls and what leans against them. Drawn once per size, then copied into every frame.

use super::{
    SceneConfig, SceneKind,
    raster::{Point, Rasteriser},
    sketch::{Light, Pen, Sketch},
    target::{Colour, FrameMut, PlaneMut},
    world::{View, mix, pick, unit},
};
use crate::frame::{ColorMatrix, ColorRange, PixelFormat};

const BLACK: Colour = Colour::rgb(20, 20, 22);

/// Where the wall meets the ground, as a share of the height.
const WALL_FOOT: f32 = 0.43;

/// The picture without objects: three bytes per pixel, red first, without padding.
pub(super) fn render(config: &SceneConfig) -> Vec<u8> {
    let (width, height) = (config.width, config.height);
    let mut rgb = vec![0; width * height * 3];
    let place = Place::new(config);
    let unlit = Light { night: false, ..place.light };
    paint_pixels(&mut rgb, width, |y| {
        let row = GroundRow::new(&place.view, y);
        move |x| place.surface(&row, x, y)
    });
    let mut sketch = Sketch::default();
    place.furnish(&mut Pen {
        sketch: &mut sketch,
        origin: [0.0; 2],
        scale: 1.0,
        mirrored: false,
        light: unlit,
    });
    let mut frame = FrameMut {
        format: PixelFormat::Rgb,
        width,
        height,
        planes: [PlaneMut { data: &mut rgb, stride: width * 3 }, PlaneMut::default(), PlaneMut::default()],
        matrix: ColorMatrix::default(),
        range: ColorRange::default(),
    };
    sketch.draw_unowned(&mut Rasteriser::default(), &mut frame);
    if config.night {
        for (n, pixel) in rgb.chunks_exact_mut(3).enumerate() {
            let colour = Colour::rgb(pixel[0], pixel[1], pixel[2]);
            let seen = place.light.apply(colour, (n % width) as f32, (n / width) as f32);
            pixel.copy_from_slice(&seen.bytes());
        }
    }
    rgb
}

fn paint_pixels<F: Fn(f32) -> Colour>(rgb: &mut [u8], width: usize, row: impl Fn(f32) -> F) {
    for (y, line) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let pixel_at = row(y as f32 + 0.5);
        for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&pixel_at(x as f32 + 0.5).scaled(1.0).bytes());
        }
    }
}

fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77) ^ seed;
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    (h >> 8) as f32 / (1u32 << 24) as f32
}

/// Value noise, 0 to 1, one feature per unit.
fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (smooth(x - fx), smooth(y - fy));
    let (ix, iy) = (fx as i32, fy as i32);
    let upper = lattice(ix, iy, seed) * (1.0 - tx) + lattice(ix + 1, iy, seed) * tx;
    let lower = lattice(ix, iy + 1, seed) * (1.0 - tx) + lattice(ix + 1, iy + 1, seed) * tx;
    upper * (1.0 - ty) + lower * ty
}

/// Three octaves of [`noise`], 0 to 1.
fn rough(x: f32, y: f32, seed: u32) -> f32 {
    0.55 * noise(x, y, seed)
        + 0.3 * noise(x * 2.7, y * 2.7, seed ^ 0x51)
        + 0.15 * noise(x * 7.1, y * 7.1, seed ^ 0xa3)
}

/// How much a joint between tiles of `size` covers a pixel that is `pixel` wide, all in metres.
fn joint(position: f32, size: f32, joint: f32, pixel: f32) -> f32 {
    let off = (position / size - (position / size).round()).abs() * size;
    ((joint - off) / pixel.max(1e-3) + 0.5).clamp(0.0, 1.0)
}

/// A row of ground in metres: across, and away from the camera.
struct GroundRow {
    centre: f32,
    metres: f32,
    away: f32,
    depth: f32,
    /// Metres that one pixel covers, away from the camera.
    away_pixel: f32,
}

impl GroundRow {
    fn new(view: &View, y: f32) -> Self {
        let at = |y: f32| 3.0 * view.height / view.scale(y);
        let away = at(y);
        Self {
            centre: view.width / 2.0,
            metres: 1.0 / view.scale(y),
            away,
            depth: (y / view.height - 0.52) / 0.44,
            away_pixel: away - at(y + 1.0),
        }
    }

    fn across(&self, x: f32) -> f32 {
        (x - self.centre) * self.metres
    }
}

/// One scene's materials, chosen by its seed.
#[derive(Clone, Copy)]
struct Place {
    kind: SceneKind,
    view: View,
    light: Light,
    key: u64,
    seed: u32,
    warmth: f32,
    wall: Colour,
    ground: Colour,
}

impl Place {
    fn new(config: &SceneConfig) -> Self {
        let key = mix(config.seed ^ 0xbac0);
        let (walls, grounds): (&[Colour], &[Colour]) = match config.kind {
            SceneKind::Yard => (
                &[Colour::rgb(150, 112, 78), Colour::rgb(124, 104, 88), Colour::rgb(168, 146, 116)],
                &[Colour::rgb(86, 122, 54), Colour::rgb(104, 126, 62), Colour::rgb(76, 110, 58)],
            ),
            SceneKind::Street => (
                &[Colour::rgb(176, 112, 88), Colour::rgb(190, 172, 146), Colour::rgb(144, 140, 138)],
                &[Colour::rgb(92, 94, 98), Colour::rgb(104, 103, 102), Colour::rgb(84, 86, 92)],
            ),
            SceneKind::Room => (
                &[Colour::rgb(206, 200, 184), Colour::rgb(176, 190, 192), Colour::rgb(204, 184, 164)],
                &[Colour::rgb(166, 122, 80), Colour::rgb(140, 100, 66), Colour::rgb(186, 152, 110)],
            ),
        };
        let view = View::new(config);
        Self {
            kind: config.kind,
            view,
            light: Light { night: config.night, reach: 1.0, width: view.width, height: view.height },
            key,
            seed: key as u32,
            warmth: 0.94 + 0.12 * unit(key, 1),
            wall: pick(key, 2, walls),
            ground: pick(key, 3, grounds),
        }
    }

    fn surface(&self, row: &GroundRow, x: f32, y: f32) -> Colour {
        let (u, v) = (x / self.view.height, y / self.view.height);
        let colour = match (self.kind, v < WALL_FOOT) {
            (SceneKind::Yard, true) => self.yard_wall(u, v),
            (SceneKind::Yard, false) => self.yard_ground(row, x),
            (SceneKind::Street, true) => self.facade(u, v),
            (SceneKind::Street, false) => self.street_ground(row, x),
            (SceneKind::Room, true) => self.room_wall(u, v),
            (SceneKind::Room, false) => self.room_floor(row, x),
        };
        // Darker where wall and ground meet.
        let corner = ((v - WALL_FOOT).abs() / 0.05).min(1.0);
        colour.scaled(self.warmth * (0.8 + 0.2 * corner))
    }

    fn grain(&self, x: f32, y: f32, amount: f32) -> f32 {
        1.0 + amount * (rough(x, y, self.seed) - 0.5)
    }

    fn yard_wall(&self, u: f32, v: f32) -> Colour {
        let sky = Colour::rgb(148, 184, 218).mix(Colour::rgb(214, 226, 232), (v / 0.2).min(1.0));
        let treetops =
            0.13 + 0.09 * (noise(u * 5.0, 0.5, self.seed) - 0.4) + 0.025 * noise(u * 31.0, 7.0, self.seed);
        if v < treetops {
            return sky;
        }
        if v < 0.245 {
            let leaves = rough(u * 42.0, v * 42.0, self.seed ^ 9);
            return Colour::rgb(36, 62, 30).mix(Colour::rgb(104, 138, 66), leaves * 1.1 - 0.05);
        }
        // Fence of upright boards, each of its own tone.
        let board = u * 26.0;
        let tone = 0.82 + 0.3 * lattice(board.floor() as i32, 1, self.seed);
        let grain = 0.9 + 0.2 * noise(board * 9.0, v * 30.0, self.seed);
        let gap = 1.0 - 0.65 * joint(board, 1.0, 0.045, 0.03);
        let rail = if (0.275..0.29).contains(&v) || (0.385..0.4).contains(&v) { 0.78 } else { 1.0 };
        self.wall.scaled(tone * grain * gap * rail)
    }

    fn yard_ground(&self, row: &GroundRow, x: f32) -> Colour {
        let (across, away) = (row.across(x), row.away);
        let wobble = 0.035 * (noise(across * 1.5, 3.0, self.seed) - 0.5);
        let drive = (0.36 + wobble..0.74 - wobble).contains(&row.depth);
        if drive {
            let stagger = if (away / 0.45).round() as i64 % 2 == 0 { 0.0 } else { 0.45 };
            let gap =
                joint(away, 0.45, 0.02, row.away_pixel).max(joint(across + stagger, 0.9, 0.014, row.metres));
            let stone =
                lattice(((across + stagger) / 0.9).round() as i32, (away / 0.45).round() as i32, self.seed);
            let base = Colour::rgb(156, 148, 138).scaled(0.9 + 0.16 * stone);
            return base.scaled((1.0 - 0.32 * gap) * self.grain(across * 6.0, away * 6.0, 0.3));
        }
        let patches = rough(across * 0.5, away * 0.5, self.seed);
        let blades = rough(across * 11.0, away * 4.0, self.seed ^ 4);
        self.ground
            .mix(Colour::rgb(142, 146, 84), (patches - 0.35).max(0.0))
            .scaled(0.58 + 0.55 * blades + 0.35 * patches)
    }

    fn facade(&self, u: f32, v: f32) -> Colour {
        let house = (u / 0.62 + unit(self.key, 5)).floor();
        let inside = u / 0.62 + unit(self.key, 5) - house;
        let tint = lattice(house as i32, 3, self.seed);
        let wall = self.wall.mix(
            pick(
                mix(self.key ^ house as u64),
                4,
                &[Colour::rgb(206, 194, 172), Colour::rgb(156, 96, 78), Colour::rgb(128, 134, 140)],
            ),
            tint,
        );
        let bricks = joint(v, 0.012, 0.0009, 0.0015)
            .max(0.5 * joint(u + (v / 0.012).round() * 0.012, 0.03, 0.001, 0.0015));
        let plain = wall.scaled((1.0 - 0.16 * bricks) * (0.86 + 0.25 * rough(u * 20.0, v * 20.0, self.seed)));
        if inside < 0.012 {
            return plain.scaled(0.7);
        }
        // Plinth and cornice.
        if v > 0.4 {
            return Colour::rgb(112, 108, 104).scaled(0.85 + 0.25 * noise(u * 60.0, v * 60.0, self.seed));
        }
        if (0.212..0.226).contains(&v) {
            return wall.scaled(1.18);
        }
        plain
    }

    fn street_ground(&self, row: &GroundRow, x: f32) -> Colour {
        let (across, away, depth) = (row.across(x), row.away, row.depth);
        let (far_kerb, near_kerb) = (0.27, 0.82);
        let kerb = 0.022;
        if depth < far_kerb || depth > near_kerb + kerb {
            let gap = joint(across, 0.8, 0.016, row.metres).max(joint(away, 0.8, 0.016, row.away_pixel));
            let slab = lattice((across / 0.8).round() as i32, (away / 0.8).round() as i32, self.seed);
            return Colour::rgb(166, 162, 154).scaled(
                (0.9 + 0.15 * slab) * (1.0 - 0.35 * gap) * self.grain(across * 5.0, away * 5.0, 0.28),
            );
        }
        if depth < far_kerb + kerb || depth > near_kerb {
            let gap = joint(across, 1.2, 0.015, row.metres);
            return Colour::rgb(188, 186, 180)
                .scaled((1.0 - 0.4 * gap) * self.grain(across * 8.0, away * 8.0, 0.2));
        }
        let tar = rough(across * 0.6, away * 1.4, self.seed ^ 5);
        let asphalt = self.ground.scaled((0.86 + 0.26 * tar) * self.grain(across * 16.0, away * 16.0, 0.42));
        let worn = 0.75 + 0.25 * noise(across * 7.0, away * 7.0, self.seed);
        let dash = (0.552..0.57).contains(&depth) && (across / 3.0 + 100.0).fract() < 0.55;
        if dash || (0.3..0.309).contains(&depth) || (0.795..0.807).contains(&depth) {
            return asphalt.mix(Colour::rgb(226, 224, 214), worn);
        }
        asphalt
    }

    fn room_wall(&self, u: f32, v: f32) -> Colour {
        let stripe = if (u * 22.0).fract() < 0.5 { 1.0 } else { 0.965 };
        let plaster = self.wall.scaled(stripe * (0.95 + 0.1 * rough(u * 30.0, v * 30.0, self.seed)));
        let lamp = 1.0 - 0.35 * ((v - 0.2).abs() * 2.0).min(0.6);
        if v > 0.405 {
            return Colour::rgb(232, 228, 218).scaled(if v < 0.41 { 0.8 } else { 1.0 });
        }
        if v < 0.022 {
            return Colour::rgb(236, 234, 228);
        }
        plaster.scaled(lamp)
    }

    fn room_floor(&self, row: &GroundRow, x: f32) -> Colour {
        let (across, away) = (row.across(x), row.away);
        let board = (away / 0.32).round();
        let shift = 1.7 * lattice(board as i32, 2, self.seed);
        let plank = ((across + shift) / 1.7).round();
        let tone = 0.84 + 0.3 * lattice(plank as i32, board as i32, self.seed);
        let gap = joint(away + 0.16, 0.32, 0.009, row.away_pixel).max(joint(
            across + shift + 0.85,
            1.7,
            0.008,
            row.metres,
        ));
        let grain = 0.9 + 0.22 * rough(across * 1.3, away * 26.0, self.seed);
        let floor = self.ground.scaled(tone * grain * (1.0 - 0.5 * gap));
        let (rx, rz) = (across / 2.9, (row.depth - 0.5) / 0.33);
        let rug = rx.abs().max(rz.abs());
        if rug > 1.0 {
            return floor;
        }
        let red =
            pick(self.key, 8, &[Colour::rgb(134, 56, 50), Colour::rgb(54, 78, 104), Colour::rgb(92, 94, 74)]);
        let pile = 0.86 + 0.26 * noise(across * 40.0, away * 40.0, self.seed);
        let border = (0.84..0.91).contains(&rug) || (0.95..0.98).contains(&rug);
        let lozenge = ((across * 1.6).sin() * (away * 2.4).sin()).abs() > 0.82;
        let colour = if border || lozenge { red.mix(Colour::rgb(222, 204, 168), 0.7) } else { red };
        colour.scaled(pile)
    }

    /// What stands or hangs at the wall. The pen's unit is the frame's height, origin bottom of the wall.
    fn furnish(&self, pen: &mut Pen<'_>) {
        pen.origin = [0.0, self.view.height * WALL_FOOT];
        pen.scale = self.view.height;
        let right = self.view.width / self.view.height;
        match self.kind {
            SceneKind::Yard => self.furnish_yard(pen, right),
            SceneKind::Street => self.furnish_street(pen, right),
            SceneKind::Room => self.furnish_room(pen, right),
        }
    }

    fn furnish_yard(&self, pen: &mut Pen<'_>, right: f32) {
        // A shed at one side.
        let shed = if unit(self.key, 20) < 0.5 { 0.06 } else { right - 0.56 };
        let planks = Colour::rgb(176, 160, 138);
        pen.polygon(&quad(shed, 0.0, 0.5, 0.225), planks, planks.scaled(0.88));
        for n in 1..8 {
            pen.glaze(&quad(shed, n as f32 * 0.028, 0.5, 0.003), BLACK, 0.28);
        }
        let roof = Colour::rgb(118, 72, 62);
        let gable = [[shed - 0.035, 0.215], [shed + 0.05, 0.3], [shed + 0.45, 0.3], [shed + 0.535, 0.215]];
        pen.polygon(&gable, roof, roof.scaled(0.78));
        window(pen, shed + 0.055, 0.075, 0.13, 0.1);
        let door = Colour::rgb(74, 92, 82);
        pen.polygon(&quad(shed + 0.3, 0.0, 0.12, 0.18), door, door.scaled(0.85));
        pen.ellipse(
            [shed + 0.402, 0.085],
            [0.006, 0.006],
            Colour::rgb(214, 196, 130),
            Colour::rgb(150, 130, 80),
        );
        for n in 0..4 {
            let x = right * (0.08 + 0.84 * unit(self.key, 30 + n));
            bush(pen, x, 0.035 + 0.03 * unit(self.key, 40 + n), mix(self.key ^ n));
        }
    }

    fn furnish_street(&self, pen: &mut Pen<'_>, right: f32) {
        let step = 0.155;
        let mut x = 0.03 - 0.1 * unit(self.key, 21);
        let mut n = 0;
        while x < right {
            window(pen, x + 0.02, 0.235, 0.075, 0.115);
            let door_here = n % 4 == (self.key % 4);
            if door_here {
                let colour = pick(
                    mix(self.key ^ n),
                    1,
                    &[Colour::rgb(52, 70, 92), Colour::rgb(110, 44, 42), Colour::rgb(46, 78, 62)],
                );
                let frame = Colour::rgb(224, 220, 210);
                pen.polygon(&quad(x + 0.012, 0.0, 0.095, 0.19), frame, frame.scaled(0.9));
                pen.polygon(&quad(x + 0.022, 0.0, 0.075, 0.178), colour, colour.scaled(0.8));
                pen.glaze(&quad(x + 0.034, 0.1, 0.05, 0.06), Colour::rgb(170, 190, 200), 0.7);
            } else {
                window(pen, x + 0.008, 0.055, 0.1, 0.115);
            }
            if n % 5 == 2 {
                let awning =
                    pick(mix(self.key ^ n), 2, &[Colour::rgb(170, 52, 48), Colour::rgb(52, 102, 84)]);
                let shape = [[x - 0.01, 0.15], [x + 0.005, 0.195], [x + 0.115, 0.195], [x + 0.13, 0.15]];
                pen.polygon(&shape, awning.scaled(1.1), awning.scaled(0.8));
            }
            x += step;
            n += 1;
        }
        for n in 0..2 {
            let x = right * (0.2 + 0.5 * n as f32 + 0.15 * unit(self.key, 60 + n));
            let steel = Colour::rgb(58, 62, 66);
            pen.polygon(&quad(x, -0.03, 0.009, 0.4), steel, steel.scaled(0.8));
            pen.polygon(&quad(x - 0.05, 0.365, 0.06, 0.007), steel, steel);
            pen.ellipse(
                [x - 0.055, 0.362],
                [0.02, 0.009],
                Colour::rgb(240, 232, 198),
                Colour::rgb(190, 182, 150),
            );
        }
    }

    fn furnish_room(&self, pen: &mut Pen<'_>, right: f32) {
        let left_handed = unit(self.key, 22) < 0.5;
        let at = |x: f32, width: f32| if left_handed { x * right } else { right - x * right - width };
        window(pen, at(0.1, 0.32), 0.12, 0.32, 0.24);
        let curtain = pick(
            self.key,
            9,
            &[Colour::rgb(150, 64, 62), Colour::rgb(88, 110, 128), Colour::rgb(190, 168, 120)],
        );
        for x in [-0.045, 0.305] {
            let start = at(0.1, 0.32) + x;
            for fold in 0..3 {
                let tone = curtain.scaled(if fold % 2 == 0 { 1.0 } else { 0.84 });
                pen.polygon(&quad(start + 0.02 * fold as f32, 0.06, 0.02, 0.32), tone, tone.scaled(0.85));
            }
        }
        for (n, x) in [0.42, 0.52, 0.63].into_iter().enumerate() {
            let (w, h) = (0.085 + 0.03 * unit(self.key, 70 + n as u64), 0.085);
            let frame = Colour::rgb(70, 54, 42);
            pen.polygon(&quad(at(x, w), 0.24, w, h), frame, frame);
            let art = pick(
                self.key,
                80 + n as u64,
                &[Colour::rgb(188, 150, 92), Colour::rgb(104, 142, 152), Colour::rgb(170, 96, 80)],
            );
            pen.polygon(
                &quad(at(x, w) + 0.008, 0.248, w - 0.016, h - 0.016),
                art.scaled(1.15),
                art.scaled(0.7),
            );
        }
        let door = Colour::rgb(214, 208, 194);
        let start = at(0.8, 0.19);
        pen.polygon(&quad(start - 0.012, 0.0, 0.214, 0.372), door.scaled(0.85), door.scaled(0.8));
        pen.polygon(&quad(start, 0.0, 0.19, 0.36), door, door.scaled(0.94));
        for y in [0.03, 0.2] {
            pen.glaze(&quad(start + 0.03, y, 0.13, 0.13), BLACK, 0.12);
        }
        // Sofa.
        let cloth = pick(
            self.key,
            10,
            &[Colour::rgb(92, 104, 116), Colour::rgb(142, 112, 88), Colour::rgb(98, 116, 92)],
        );
        let (x, w) = (at(0.4, 0.46), 0.46);
        pen.glaze(&quad(x - 0.01, -0.05, w + 0.02, 0.02), BLACK, 0.35);
        pen.polygon(&quad(x, -0.035, w, 0.15), cloth, cloth.scaled(0.9));
        for n in 0..2 {
            let cushion = x + 0.04 + 0.19 * n as f32;
            pen.limb([cushion + 0.03, 0.082], [cushion + 0.16, 0.082], 0.028, 0.028, cloth.scaled(1.12));
            pen.polygon(&quad(cushion + 0.003, -0.005, 0.184, 0.05), cloth.scaled(1.18), cloth.scaled(0.95));
        }
        for arm in [x, x + w] {
            pen.limb([arm, -0.028], [arm, 0.06], 0.024, 0.03, cloth.scaled(0.82));
        }
        bush(pen, at(0.03, 0.05) + 0.025, 0.05, self.key);
        let pot = Colour::rgb(178, 104, 74);
        let px = at(0.03, 0.05) + 0.025;
        pen.polygon(
            &[[px - 0.035, 0.02], [px + 0.035, 0.02], [px + 0.025, -0.05], [px - 0.025, -0.05]],
            pot,
            pot.scaled(0.7),
        );
    }
}

fn quad(x: f32, y: f32, width: f32, height: f32) -> [Point; 4] {
    [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
}

fn window(pen: &mut Pen<'_>, x: f32, y: f32, width: f32, height: f32) {
    let frame = Colour::rgb(232, 230, 224);
    pen.polygon(&quad(x - 0.007, y - 0.007, width + 0.014, height + 0.014), frame, frame.scaled(0.92));
    pen.polygon(&quad(x, y, width, height), Colour::rgb(172, 198, 216), Colour::rgb(84, 106, 124));
    pen.glaze(
        &[[x, y], [x + width * 0.3, y], [x + width * 0.75, y + height], [x + width * 0.45, y + height]],
        Colour::rgb(255, 255, 255),
        0.14,
    );
    pen.polygon(&quad(x + width / 2.0 - 0.003, y, 0.006, height), frame, frame);
    pen.polygon(&quad(x, y + height * 0.6, width, 0.005), frame, frame);
    pen.polygon(&quad(x - 0.012, y - 0.016, width + 0.024, 0.01), frame.scaled(0.95), frame.scaled(0.8));
}

fn bush(pen: &mut Pen<'_>, x: f32, size: f32, key: u64) {
    for n in 0..14 {
        let (dx, dy) = (unit(key, 200 + n) - 0.5, unit(key, 220 + n));
        let tone = 0.62 + 0.3 * dy + 0.2 * unit(key, 240 + n);
        let green = Colour::rgb(82, 122, 60).scaled(tone);
        let radius = size * (0.3 + 0.25 * unit(key, 260 + n));
        pen.ellipse(
            [x + dx * size * 1.7, size * 0.25 + dy * size],
            [radius, radius * 0.85],
            green.scaled(1.1),
            green.scaled(0.75),
        );
    }
}
