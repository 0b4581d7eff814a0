use super::*;
use crate::{
    frame::{ColorMatrix, ColorRange, PixelFormat, Plane},
    scene::{FrameMut, Moment, PlaneMut, Scene, SceneConfig, SceneKind},
};

const WIDTH: usize = 640;
const HEIGHT: usize = 360;

/// A grey picture with a little noise and what is drawn into it.
struct Camera {
    detector: Detector,
    params: Params,
    picture: Vec<u8>,
    frame: u64,
}

impl Camera {
    fn new() -> Self {
        Self {
            detector: Detector::default(),
            params: Params::default(),
            picture: vec![0; WIDTH * HEIGHT],
            frame: 0,
        }
    }

    /// One frame, a fifth of a second later; what was seen.
    fn show(&mut self, light: i32, boxes: &[(usize, usize, usize, usize, i32)]) -> (bool, bool, Vec<Rect>) {
        self.frame += 1;
        for (n, pixel) in self.picture.iter_mut().enumerate() {
            let (x, y) = (n % WIDTH, n / WIDTH);
            let mut noise = (n as u64 ^ self.frame << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            noise ^= noise >> 29;
            let texture = ((x / 16 * 7 + y / 16 * 13) % 40) as i32 + (noise % 5) as i32 - 2;
            let object =
                boxes.iter().find(|b| (b.0..b.0 + b.2).contains(&x) && (b.1..b.1 + b.3).contains(&y));
            *pixel = (90 + light + object.map_or(texture, |b| b.4)).clamp(0, 255) as u8;
        }
        let plane = Plane { data: &self.picture, stride: WIDTH };
        let frame = Frame {
            format: PixelFormat::Gray8,
            width: WIDTH,
            height: HEIGHT,
            planes: [plane, Plane::default(), Plane::default()],
            matrix: ColorMatrix::Bt601,
            range: ColorRange::Full,
        };
        let verdict = self.detector.update(self.frame * 200_000_000, &frame, &self.params).unwrap();
        (verdict.moved, verdict.recalibrated, verdict.regions.to_vec())
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.show(0, &[]);
        }
    }
}

#[test]
fn a_still_picture_is_still_after_the_first_second() {
    let mut camera = Camera::new();
    assert_eq!(camera.show(0, &[]), (true, true, vec![]));
    camera.settle();
    for _ in 0..50 {
        assert_eq!(camera.show(0, &[]), (false, false, vec![]));
    }
}

#[test]
fn who_walks_is_found_where_he_is() {
    let mut camera = Camera::new();
    camera.settle();
    for n in 0..30 {
        let x = 50 + 10 * n;
        let (moved, _, regions) = camera.show(0, &[(x, 120, 30, 80, 80)]);
        assert!(moved && regions.len() == 1, "{n}: {regions:?}");
        let truth = Rect::new(x as f32, 120.0, 30.0, 80.0);
        assert!(regions[0].intersection(&truth) > 0.9 * truth.area(), "{:?} {truth:?}", regions[0]);
        assert!(regions[0].area() < 2.0 * truth.area(), "{:?} {truth:?}", regions[0]);
    }
}

#[test]
fn what_stands_still_becomes_background_and_its_ghost_too() {
    let mut camera = Camera::new();
    camera.settle();
    let parked = [(200, 100, 100, 60, 70)];
    let until_still = |camera: &mut Camera, boxes: &[(usize, usize, usize, usize, i32)]| {
        (1..200).find(|_| !camera.show(0, boxes).0).expect("it becomes background")
    };
    let frames = until_still(&mut camera, &parked);
    // `absorb` is ten seconds, fifty frames.
    assert!((15..=75).contains(&frames), "{frames} frames");
    let frames = until_still(&mut camera, &[]);
    assert!((15..=75).contains(&frames), "{frames} frames");
}

#[test]
fn a_cloud_is_no_motion_and_a_lamp_is_a_new_beginning() {
    let mut camera = Camera::new();
    camera.settle();
    for n in 0..30 {
        assert!(!camera.show(n, &[]).0, "{n} steps lighter");
    }
    for n in (0..10).rev() {
        assert!(!camera.show(3 * n, &[]).0, "{n} darker");
    }
    let lit = [(0, 0, WIDTH, HEIGHT * 3 / 4, 120)];
    let (moved, recalibrated, _) = camera.show(0, &lit);
    assert!(moved && recalibrated);
    for _ in 0..10 {
        camera.show(0, &lit);
    }
    assert_eq!(camera.show(0, &lit), (false, false, vec![]));
}

#[test]
fn a_clock_in_the_picture_falls_silent_and_a_mask_is_silent_at_once() {
    let mut camera = Camera::new();
    camera.settle();
    let digits = |n: usize| [(20, 10, 8, 12, if n.is_multiple_of(2) { 100 } else { -60 })];
    let mut quiet = 0;
    let frames = (0..400).find(|&n| {
        quiet = if camera.show(0, &digits(n)).0 { 0 } else { quiet + 1 };
        quiet == 20
    });
    assert!(frames.is_some(), "it never falls silent");

    let mut camera = Camera::new();
    camera.detector.set_masks(crate::zones::parse_polygons("0,0 0.2,0 0.2,0.1 0,0.1").unwrap());
    camera.settle();
    for n in 0..20 {
        assert!(!camera.show(0, &digits(n)).0);
    }
    assert!(camera.show(0, &[(20, 200, 20, 40, 100)]).0, "the rest is watched");
}

#[test]
fn another_size_and_a_gap_begin_anew() {
    let mut camera = Camera::new();
    camera.settle();
    camera.frame += 1000;
    assert!(camera.show(0, &[]).1);
    let data = vec![0; 100 * 100];
    let plane = Plane { data: &data, stride: 100 };
    let frame = Frame {
        format: PixelFormat::Gray8,
        width: 100,
        height: 100,
        planes: [plane, Plane::default(), Plane::default()],
        matrix: ColorMatrix::Bt601,
        range: ColorRange::Full,
    };
    let params = Params::default();
    assert!(camera.detector.update(u64::MAX / 2, &frame, &params).unwrap().recalibrated);
    assert!(camera.detector.update(5, &frame, &params).unwrap().recalibrated, "time that runs backwards");
    let short = Frame { height: 101, ..frame };
    assert!(camera.detector.update(6, &short, &params).is_err());
}

/// The test camera's objects are there, and an empty yard is still, by day and by night, with a noisy sensor.
#[test]
fn objects_of_the_test_camera_are_seen() {
    for (kind, night, noise) in
        [(SceneKind::Yard, false, 1.0), (SceneKind::Street, false, 4.0), (SceneKind::Room, true, 3.0)]
    {
        let config = SceneConfig { width: WIDTH, height: HEIGHT, objects: 3, kind, seed: 3, night, noise };
        let mut scene = Scene::new(&config);
        let mut detector = Detector::default();
        let mut picture = vec![0; WIDTH * HEIGHT];
        let (mut seen, mut missed, mut false_alarms, mut empty) = (0, 0, 0, 0);
        for n in 0..150u64 {
            // Empty for ten seconds first, so that the background is known.
            scene.set_config(&SceneConfig { objects: if n < 50 { 0 } else { 3 }, ..config.clone() });
            let mut target = FrameMut {
                format: PixelFormat::Gray8,
                width: WIDTH,
                height: HEIGHT,
                planes: [
                    PlaneMut { data: &mut picture, stride: WIDTH },
                    PlaneMut::default(),
                    PlaneMut::default(),
                ],
                matrix: ColorMatrix::Bt601,
                range: ColorRange::Full,
            };
            let now = n * 200_000_000;
            let truth = scene.render(Moment { scene_ns: now, unix_ms: None }, &mut target).unwrap();
            let truth: Vec<_> = truth.iter().filter(|t| t.reported).map(|t| t.rect).collect();
            let verdict = detector.update(now, &target.as_frame(), &Params::default()).unwrap();
            if n < 10 {
                continue;
            }
            if truth.is_empty() {
                empty += 1;
                false_alarms += u32::from(verdict.moved);
            }
            for rect in truth {
                let covered: f32 = verdict.regions.iter().map(|r| r.intersection(&rect)).sum();
                if covered > 0.3 * rect.area() { seen += 1 } else { missed += 1 }
            }
        }
        println!("{kind:?}: {seen} seen, {missed} missed; {false_alarms} of {empty} empty frames moved");
        assert!(seen > 100 && missed * 20 <= seen, "{kind:?}: {missed} of {} missed", seen + missed);
        assert!(empty >= 30 && false_alarms == 0, "{kind:?}: {false_alarms} of {empty}");
    }
}
