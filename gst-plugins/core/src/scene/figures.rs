//! What people, cars and dogs look like. Everything is in metres, seen from the side.

use std::f32::consts::{PI, TAU};

use super::{
    raster::Point,
    sketch::Pen,
    target::Colour,
    world::{Class, Pose, pick, unit},
};

const SKIN: [Colour; 4] = [
    Colour::rgb(241, 201, 172),
    Colour::rgb(222, 172, 136),
    Colour::rgb(164, 112, 78),
    Colour::rgb(104, 70, 50),
];
const HAIR: [Colour; 4] =
    [Colour::rgb(38, 28, 24), Colour::rgb(92, 62, 38), Colour::rgb(188, 150, 88), Colour::rgb(150, 148, 146)];
const SHIRT: [Colour; 8] = [
    Colour::rgb(196, 48, 44),
    Colour::rgb(44, 92, 176),
    Colour::rgb(236, 232, 222),
    Colour::rgb(238, 178, 40),
    Colour::rgb(48, 132, 84),
    Colour::rgb(112, 60, 130),
    Colour::rgb(64, 68, 78),
    Colour::rgb(232, 118, 52),
];
const TROUSERS: [Colour; 5] = [
    Colour::rgb(44, 58, 96),
    Colour::rgb(46, 44, 46),
    Colour::rgb(140, 120, 92),
    Colour::rgb(96, 102, 112),
    Colour::rgb(76, 54, 42),
];
const CAR: [Colour; 7] = [
    Colour::rgb(178, 32, 36),
    Colour::rgb(34, 82, 160),
    Colour::rgb(226, 228, 230),
    Colour::rgb(52, 56, 62),
    Colour::rgb(160, 166, 172),
    Colour::rgb(22, 104, 92),
    Colour::rgb(214, 142, 32),
];
const COAT: [Colour; 5] = [
    Colour::rgb(134, 84, 44),
    Colour::rgb(46, 40, 38),
    Colour::rgb(206, 164, 104),
    Colour::rgb(226, 216, 200),
    Colour::rgb(108, 100, 96),
];
const BLACK: Colour = Colour::rgb(22, 22, 24);

/// Half of the length that an object of this class takes up on the ground, shadow included, in metres.
pub(super) fn half_length(class: Class) -> f32 {
    match class {
        Class::Person => 0.75,
        Class::Car => 2.6,
        Class::Dog => 1.0,
    }
}

pub(super) fn draw(pen: &mut Pen<'_>, pose: &Pose) {
    match pose.class {
        Class::Person => person(pen, pose),
        Class::Car => car(pen, pose),
        Class::Dog => dog(pen, pose),
    }
}

/// Joint and end of a limb of two equal parts that hangs from `root`.
fn two_part(root: Point, length: f32, swing: f32, bend: f32) -> (Point, Point) {
    let half = length / 2.0;
    let joint = [root[0] + half * swing.sin(), root[1] - half * swing.cos()];
    let lower = swing - bend;
    (joint, [joint[0] + half * lower.sin(), joint[1] - half * lower.cos()])
}

fn person(pen: &mut Pen<'_>, pose: &Pose) {
    let look = pose.look;
    let h = 1.6 + 0.28 * unit(look, 1);
    let build = 0.9 + 0.25 * unit(look, 2);
    let skin = pick(look, 3, &SKIN);
    let hair = pick(look, 4, &HAIR);
    let shirt = pick(look, 5, &SHIRT);
    let trousers = pick(look, 6, &TROUSERS);
    let shoes = BLACK.mix(trousers, 0.25);

    let phase = pose.walked / (0.82 * h) * TAU;
    let reach = 0.5 * pose.gait;
    let leg = 0.47 * h;
    let mut legs = [0.0, PI].map(|shift| {
        let swing = reach * (phase + shift).sin();
        let bend = pose.gait * 0.85 * (phase + shift + 0.9).sin().max(0.0) + 0.04;
        two_part([0.0, 0.0], leg, swing, bend)
    });
    // The lower foot stands on the ground.
    let lowest = legs[0].1[1].min(legs[1].1[1]);
    let hip = 0.045 - lowest;
    for (knee, ankle) in &mut legs {
        knee[1] += hip;
        ankle[1] += hip;
    }
    let up = hip - leg;
    let shoulder = [0.015 * h, 0.80 * h + up];
    let arms = [(PI, -0.1), (0.0, 0.18)].map(|(shift, rest): (f32, f32)| {
        two_part(shoulder, 0.33 * h, rest + 0.9 * reach * (phase + shift).sin(), -0.3)
    });

    pen.shadow(0.05, 0.42, 0.42);
    let limb = |pen: &mut Pen<'_>, (joint, end): (Point, Point), root: Point, size: f32, colour: Colour| {
        pen.limb(root, joint, size, size * 0.82, colour);
        pen.limb(joint, end, size * 0.8, size * 0.62, colour);
    };
    let foot = |pen: &mut Pen<'_>, ankle: Point| {
        pen.limb(
            [ankle[0] - 0.03, ankle[1] - 0.005],
            [ankle[0] + 0.15, ankle[1] - 0.015],
            0.045,
            0.032,
            shoes,
        );
    };
    // Far side first.
    limb(pen, arms[1], shoulder, 0.05 * build, shirt.scaled(0.66));
    pen.ellipse(arms[1].1, [0.045, 0.05], skin.scaled(0.75), skin.scaled(0.7));
    limb(pen, legs[1], [0.0, hip], 0.085 * build, trousers.scaled(0.68));
    foot(pen, legs[1].1);
    limb(pen, legs[0], [0.0, hip], 0.09 * build, trousers);
    foot(pen, legs[0].1);

    if unit(look, 7) < 0.3 {
        let pack = pick(look, 8, &SHIRT).scaled(0.8);
        pen.ellipse([-0.17 * build, 0.67 * h + up], [0.12, 0.22], pack, pack.scaled(0.7));
    }
    let hem = if unit(look, 9) < 0.3 { 0.33 * h } else { 0.46 * h };
    let (chest, waist) = (0.19 * build, 0.155 * build);
    let torso = [
        [-chest * 0.7, 0.835 * h + up],
        [chest * 0.6, 0.835 * h + up],
        [chest, 0.76 * h + up],
        [waist, hem + up],
        [-waist * 1.15, hem + up],
        [-chest, 0.74 * h + up],
    ];
    pen.polygon(&torso, shirt.scaled(1.08), shirt.scaled(0.86));
    pen.limb([0.01, 0.82 * h + up], [0.025, 0.87 * h + up], 0.05, 0.045, skin.scaled(0.85));
    let head = [0.03, 0.925 * h + up];
    let hair_long = unit(look, 10) < 0.4;
    if hair_long {
        pen.limb(
            [head[0] - 0.05, head[1]],
            [head[0] - 0.085, head[1] - 0.15],
            0.075,
            0.05,
            hair.scaled(0.85),
        );
    }
    pen.ellipse(head, [0.088, 0.115], skin, skin.scaled(0.9));
    pen.arc([head[0] - 0.018, head[1] + 0.015], [0.1, 0.118], 0.18 * PI, 1.2 * PI, hair, hair.scaled(0.85));
    if unit(look, 11) < 0.2 {
        let cap = pick(look, 12, &SHIRT);
        pen.arc([head[0] - 0.005, head[1] + 0.035], [0.105, 0.1], 0.0, PI, cap, cap.scaled(0.85));
        pen.limb([head[0] + 0.05, head[1] + 0.045], [head[0] + 0.17, head[1] + 0.035], 0.016, 0.012, cap);
    }
    limb(pen, arms[0], shoulder, 0.055 * build, shirt.scaled(0.9));
    pen.ellipse(arms[0].1, [0.05, 0.055], skin, skin.scaled(0.9));
}

fn car(pen: &mut Pen<'_>, pose: &Pose) {
    let look = pose.look;
    let paint = pick(look, 1, &CAR);
    let glass = (Colour::rgb(150, 178, 198), Colour::rgb(44, 58, 70));
    pen.shadow(0.0, 2.25, 0.6);
    // Roof line from the back to the front, and the post between the windows.
    let kind = (unit(look, 2) * 3.0) as u32;
    let (roof, post): ([Point; 4], f32) = match kind {
        // Saloon, hatchback, van.
        0 => ([[-1.5, 0.88], [-0.95, 1.4], [0.35, 1.42], [1.08, 0.9]], -0.2),
        1 => ([[-2.0, 0.9], [-1.72, 1.46], [0.3, 1.48], [1.1, 0.9]], -0.45),
        _ => ([[-2.02, 0.9], [-1.98, 1.86], [0.95, 1.84], [1.62, 0.98]], 0.1),
    };
    let nose = if kind == 2 { 0.98 } else { 0.84 };
    // Underbody between the wheels.
    pen.polygon(&[[-1.85, 0.2], [1.85, 0.2], [1.85, 0.5], [-1.85, 0.5]], BLACK, BLACK);
    pen.polygon(&roof, paint.scaled(1.15), paint);
    let body = [
        [-2.1, 0.32],
        [2.06, 0.3],
        [2.12, 0.46],
        [2.08, 0.7],
        [1.75, nose - 0.02],
        [1.0, 0.95],
        [-1.9, 0.95],
        [-2.1, 0.82],
    ];
    pen.polygon(&body, paint.scaled(1.1), paint.scaled(0.72));
    // Windows, drawn inside the roof line.
    let inset = |p: Point, x: f32, y: f32| [p[0] + x, p[1] + y];
    let sill = 0.95;
    let slope = |a: Point, b: Point, y: f32| a[0] + (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]);
    let (back, front) = (slope(roof[0], roof[1], sill) + 0.12, slope(roof[3], roof[2], sill) - 0.12);
    let rear_top = inset(roof[1], 0.1, -0.08);
    let front_top = inset(roof[2], -0.04, -0.08);
    let rear = [[back, sill], rear_top, [post - 0.05, rear_top[1]], [post - 0.05, sill]];
    let windscreen = [[post + 0.05, sill], [post + 0.05, front_top[1]], front_top, [front, sill]];
    if kind == 2 && unit(look, 3) < 0.5 {
        // A panel van has no rear window.
        pen.glaze(&rear, Colour::rgb(255, 255, 255), 0.12);
    } else {
        pen.polygon(&rear, glass.0, glass.1);
    }
    pen.polygon(&windscreen, glass.0, glass.1);
    pen.glaze(
        &[[post + 0.12, sill], [post + 0.3, front_top[1]], [post + 0.42, front_top[1]], [post + 0.24, sill]],
        Colour::rgb(255, 255, 255),
        0.35,
    );
    // Highlight along the shoulder, sill, door gap, handle.
    pen.glaze(&[[-2.0, 0.83], [1.7, 0.83], [1.7, 0.79], [-2.0, 0.79]], Colour::rgb(255, 255, 255), 0.3);
    pen.polygon(&[[-1.2, 0.26], [1.1, 0.26], [1.1, 0.36], [-1.2, 0.36]], BLACK, BLACK);
    for x in [post, front - 0.15, -1.0] {
        pen.glaze(&[[x - 0.012, 0.38], [x + 0.012, 0.38], [x + 0.012, 0.92], [x - 0.012, 0.92]], BLACK, 0.6);
    }
    pen.polygon(
        &[[post - 0.28, 0.8], [post - 0.1, 0.8], [post - 0.1, 0.76], [post - 0.28, 0.76]],
        paint.scaled(0.5),
        paint.scaled(0.5),
    );
    pen.limb([1.98, 0.66], [2.06, 0.62], 0.075, 0.06, Colour::rgb(255, 246, 196));
    pen.limb([-2.06, 0.68], [-2.06, 0.8], 0.045, 0.045, Colour::rgb(214, 26, 26));
    for x in [-1.3, 1.3] {
        pen.ellipse([x, 0.36], [0.42, 0.42], BLACK, BLACK);
        pen.ellipse([x, 0.33], [0.33, 0.33], Colour::rgb(34, 34, 36), Colour::rgb(24, 24, 26));
        pen.ellipse([x, 0.33], [0.2, 0.2], Colour::rgb(206, 208, 212), Colour::rgb(150, 152, 158));
        let turn = -pose.walked / 0.33;
        for n in 0..3 {
            let (sin, cos) = (turn + TAU * n as f32 / 3.0).sin_cos();
            pen.limb([x, 0.33], [x + 0.17 * cos, 0.33 + 0.17 * sin], 0.025, 0.03, Colour::rgb(88, 90, 96));
        }
    }
}

fn dog(pen: &mut Pen<'_>, pose: &Pose) {
    let look = pose.look;
    let size = 0.95 + 0.22 * unit(look, 1);
    let coat = pick(look, 2, &COAT);
    let patch = coat.mix(pick(look, 3, &COAT), 0.8);
    let far = coat.scaled(0.66);
    pen.scale *= size;
    let phase = pose.walked / (0.8 * size) * TAU;
    let leg = |shift: f32, x: f32| {
        let swing = 0.55 * pose.gait * (phase + shift).sin();
        let bend = pose.gait * 0.6 * (phase + shift + 0.9).sin().max(0.0) + 0.08;
        let (joint, end) = two_part([x, 0.5], 0.46, swing, bend);
        (joint, [end[0], end[1].max(0.04)])
    };
    let draw_leg = |pen: &mut Pen<'_>, x: f32, (joint, end): (Point, Point), colour: Colour| {
        pen.limb([x, 0.5], joint, 0.1, 0.065, colour);
        pen.limb(joint, end, 0.06, 0.042, colour);
        pen.limb(end, [end[0] + 0.07, end[1] - 0.01], 0.04, 0.032, colour.scaled(0.9));
    };
    pen.shadow(0.05, 0.62, 0.45);
    draw_leg(pen, -0.34, leg(PI, -0.34), far);
    draw_leg(pen, 0.3, leg(0.0, 0.3), far);
    // Tail, up and wagging.
    let wag = 0.12 * (phase * 0.5 + pose.clock * 9.0).sin();
    pen.limb([-0.46, 0.66], [-0.68, 0.84], 0.06, 0.045, coat);
    pen.limb([-0.68, 0.84], [-0.72 + wag, 1.0], 0.045, 0.02, coat.scaled(1.1));
    pen.ellipse([-0.3, 0.57], [0.24, 0.18], coat, coat.scaled(0.8));
    pen.limb([-0.32, 0.58], [0.3, 0.58], 0.165, 0.185, coat);
    if unit(look, 4) < 0.5 {
        pen.ellipse([-0.1, 0.63], [0.2, 0.11], patch, patch.scaled(0.9));
    }
    draw_leg(pen, -0.3, leg(0.0, -0.3), coat);
    draw_leg(pen, 0.36, leg(PI, 0.36), coat);
    // Neck, head, muzzle, ear.
    pen.limb([0.36, 0.64], [0.55, 0.86], 0.15, 0.105, coat);
    if unit(look, 5) < 0.6 {
        let collar = pick(look, 6, &SHIRT);
        pen.limb([0.38, 0.82], [0.56, 0.74], 0.028, 0.028, collar);
    }
    pen.ellipse([0.62, 0.9], [0.15, 0.13], coat.scaled(1.06), coat.scaled(0.92));
    pen.limb([0.7, 0.87], [0.88, 0.83], 0.075, 0.055, patch.mix(coat, 0.5));
    pen.ellipse([0.93, 0.85], [0.03, 0.028], BLACK, BLACK);
    pen.ellipse([0.69, 0.94], [0.02, 0.022], BLACK, BLACK);
    let ear = coat.scaled(0.7);
    if unit(look, 7) < 0.5 {
        pen.polygon(&[[0.5, 0.96], [0.53, 1.14], [0.63, 1.0]], ear, ear);
    } else {
        pen.limb([0.55, 0.97], [0.48, 0.8], 0.055, 0.05, ear);
    }
}
