use std::collections::HashMap;

use proptest::prelude::*;

use super::{tests_support::Picture, *};

const FORMATS: [PixelFormat; 7] = [
    PixelFormat::Nv12,
    PixelFormat::I420,
    PixelFormat::Rgb,
    PixelFormat::Bgr,
    PixelFormat::Rgbx,
    PixelFormat::Bgrx,
    PixelFormat::Gray8,
];

fn config(kind: SceneKind, seed: u64) -> SceneConfig {
    SceneConfig { width: 320, height: 180, kind, seed, noise: 0.0, ..SceneConfig::default() }
}

fn at(seconds: f64) -> Moment {
    Moment { scene_ns: (seconds * 1e9) as u64, unix_ms: None }
}

fn render(scene: &mut Scene, format: PixelFormat, moment: Moment) -> (Picture, Vec<Truth>) {
    let mut picture = Picture::new(format, scene.config().width, scene.config().height, 0);
    let truth = scene.render(moment, &mut picture.frame_mut()).unwrap().to_vec();
    (picture, truth)
}

#[test]
fn the_same_moment_gives_the_same_picture_in_any_order() {
    for kind in SceneKind::ALL {
        let config = SceneConfig { noise: 3.0, ..config(kind, 11) };
        let mut one = Scene::new(&config);
        let mut other = Scene::new(&config);
        let moments = [at(0.0), at(3.2), at(71.5), at(7_200.04)];
        let forwards: Vec<_> = moments.iter().map(|&m| render(&mut one, PixelFormat::I420, m)).collect();
        let backwards: Vec<_> =
            moments.iter().rev().map(|&m| render(&mut other, PixelFormat::I420, m)).collect();
        for (a, b) in forwards.iter().zip(backwards.iter().rev()) {
            assert!(a == b, "{kind:?}");
        }
        let seeded = render(&mut Scene::new(&SceneConfig { seed: 12, ..config }), PixelFormat::I420, at(0.0));
        assert!(seeded != forwards[0], "another seed, the same {kind:?}");
    }
}

#[test]
fn formats_agree() {
    let mut scene = Scene::new(&config(SceneKind::Street, 3));
    let moment = Moment { unix_ms: Some(1_795_229_276_123), ..at(2.0) };
    let pictures: HashMap<_, _> = FORMATS.map(|f| (f, render(&mut scene, f, moment))).into();
    let planes = |format: PixelFormat| &pictures[&format].0.planes;
    let swapped =
        |bytes: &[u8], n: usize| -> Vec<u8> { bytes.chunks(n).flat_map(|p| [p[2], p[1], p[0]]).collect() };
    assert_eq!(planes(PixelFormat::Nv12)[0], planes(PixelFormat::I420)[0]);
    let u: Vec<u8> = planes(PixelFormat::Nv12)[1].iter().step_by(2).copied().collect();
    assert_eq!(u, planes(PixelFormat::I420)[1]);
    assert_eq!(planes(PixelFormat::Rgb)[0], swapped(&planes(PixelFormat::Bgr)[0], 3));
    assert_eq!(planes(PixelFormat::Rgb)[0], swapped(&planes(PixelFormat::Bgrx)[0], 4));
    assert!(planes(PixelFormat::Rgbx)[0].iter().skip(3).step_by(4).all(|&a| a == 255));
    for format in FORMATS {
        assert_eq!(pictures[&format].1, pictures[&PixelFormat::Rgb].1, "{format:?}");
    }
}

#[test]
fn padding_stays_untouched() {
    let config = SceneConfig { width: 321, height: 181, noise: 2.0, ..config(SceneKind::Yard, 1) };
    for format in FORMATS {
        let mut picture = Picture::new(format, 321, 181, 13);
        Scene::new(&config).render(at(1.0), &mut picture.frame_mut()).unwrap();
        for plane in 0..format.planes() {
            let (row, _) = picture.frame().plane_size(plane);
            for line in picture.planes[plane].chunks(picture.strides[plane]) {
                assert!(line[row..].iter().all(|&b| b == Picture::PADDING), "{format:?} plane {plane}");
            }
        }
    }
}

#[test]
fn boxes_are_tight() {
    for (kind, seed) in
        [(SceneKind::Yard, 1), (SceneKind::Street, 4), (SceneKind::Room, 8), (SceneKind::Room, 2)]
    {
        let config = SceneConfig { objects: 1, width: 640, height: 360, ..config(kind, seed) };
        let (picture, truth) = render(&mut Scene::new(&config), PixelFormat::Gray8, at(1.5));
        let empty = SceneConfig { objects: 0, ..config };
        let (backdrop, none) = render(&mut Scene::new(&empty), PixelFormat::Gray8, at(1.5));
        assert!(none.is_empty());
        let [object] = &truth[..] else { panic!("one object expected, got {truth:?}") };
        assert!(object.reported && object.visible == 1.0);
        let (mut touched_left, mut touched_top, mut touched_right) = (false, false, false);
        for (n, (new, old)) in picture.planes[0].iter().zip(&backdrop.planes[0]).enumerate() {
            let (x, y) = ((n % 640) as f32, (n / 640) as f32);
            let near = |edge: f32, value: f32| (value - edge).abs() <= 1.5;
            let r = object.rect;
            let outside = x < r.x - 1.0 || y < r.y - 1.0 || x > r.right() || y > r.bottom();
            // Out of the box there is shadow only.
            assert!(!outside || new <= old, "{kind:?} at {x},{y}: {old} became {new}, box {r:?}");
            let changed = new.abs_diff(*old) > 2 && !outside;
            touched_left |= changed && near(r.x, x);
            touched_top |= changed && near(r.y, y);
            touched_right |= changed && near(r.right() - 1.0, x);
        }
        assert!(touched_left && touched_top && touched_right, "{kind:?} {object:?}");
    }
}

#[test]
fn everyone_is_in_view_at_the_beginning() {
    for kind in SceneKind::ALL {
        for seed in 0..20 {
            let (_, truth) = render(&mut Scene::new(&config(kind, seed)), PixelFormat::Gray8, at(0.0));
            assert!(truth.len() >= 3, "{kind:?} {seed}: {truth:?}");
            assert!(truth.iter().filter(|t| t.reported).count() >= 2, "{kind:?} {seed}: {truth:?}");
        }
    }
}

#[test]
fn classes_belong_to_their_scenes() {
    for (kind, expected) in [
        (SceneKind::Yard, &[Class::Person, Class::Car, Class::Dog][..]),
        (SceneKind::Street, &[Class::Person, Class::Car, Class::Dog]),
        (SceneKind::Room, &[Class::Person, Class::Dog]),
    ] {
        let mut scene = Scene::new(&config(kind, 5));
        let mut seen: Vec<Class> = Vec::new();
        for second in 0..40 {
            seen.extend(
                render(&mut scene, PixelFormat::Gray8, at(f64::from(second))).1.iter().map(|t| t.class),
            );
        }
        for class in Class::ALL {
            assert_eq!(seen.contains(&class), expected.contains(&class), "{kind:?} {class:?}");
        }
    }
}

#[test]
fn tracks_move_smoothly_and_keep_their_class() {
    let mut scene = Scene::new(&SceneConfig { objects: 5, ..config(SceneKind::Street, 21) });
    let mut last: HashMap<u64, (usize, Truth)> = HashMap::new();
    for frame in 0..1500_usize {
        for truth in render(&mut scene, PixelFormat::Gray8, at(frame as f64 / 25.0)).1 {
            if let Some((when, old)) = last.get(&truth.track_id) {
                assert_eq!(old.class, truth.class);
                let whole = old.visible == 1.0 && truth.visible == 1.0;
                if *when + 1 == frame && whole {
                    let (a, b) = (old.rect, truth.rect);
                    let moved = (a.x + a.width / 2.0 - b.x - b.width / 2.0).abs();
                    assert!(moved < 12.0, "{old:?} then {truth:?}");
                }
                // An id never comes back after it is gone.
                assert!(frame - when < 250, "{truth:?}");
            }
            last.insert(truth.track_id, (frame, truth));
        }
    }
    assert!(last.len() > 10, "{} tracks in a minute", last.len());
}

#[test]
fn covered_objects_are_less_visible_and_hidden_ones_not_reported() {
    let mut scene = Scene::new(&SceneConfig { objects: 12, ..config(SceneKind::Room, 9) });
    let (mut covered, mut hidden) = (0, 0);
    for step in 0..200 {
        let truth = render(&mut scene, PixelFormat::Gray8, at(f64::from(step) * 0.5)).1;
        for (n, object) in truth.iter().enumerate() {
            let inside = object.rect.x > 0.0 && object.rect.right() < 320.0;
            // A covered object's box ends where the nearer one begins, so boxes that touch prove nothing.
            let grown = |r: Rect| Rect::new(r.x - 3.0, r.y - 3.0, r.width + 6.0, r.height + 6.0);
            let apart =
                truth[n + 1..].iter().all(|nearer| grown(nearer.rect).intersection(&object.rect) == 0.0);
            if inside && apart {
                assert_eq!(object.visible, 1.0, "{object:?} in {truth:?}");
            }
            covered += usize::from(inside && object.visible < 0.9);
            hidden += usize::from(object.visible < MIN_VISIBLE);
            assert!(!object.reported || object.visible >= MIN_VISIBLE);
        }
        assert_eq!(detections(&truth).len(), truth.iter().filter(|t| t.reported).count());
    }
    assert!(covered > 20 && hidden > 5, "{covered} covered, {hidden} hidden");
}

#[test]
fn noise_has_the_deviation_that_was_asked_for() {
    for deviation in [1.0_f32, 4.0, 12.0] {
        let quiet = SceneConfig { objects: 0, ..config(SceneKind::Room, 2) };
        let noisy = SceneConfig { noise: deviation, ..quiet.clone() };
        let (a, _) = render(&mut Scene::new(&quiet), PixelFormat::Gray8, at(0.0));
        let (b, _) = render(&mut Scene::new(&noisy), PixelFormat::Gray8, at(0.0));
        let squares: f64 =
            a.planes[0].iter().zip(&b.planes[0]).map(|(x, y)| f64::from(x.abs_diff(*y)).powi(2)).sum();
        let measured = (squares / a.planes[0].len() as f64).sqrt();
        assert!((measured / f64::from(deviation) - 1.0).abs() < 0.1, "{deviation}: {measured}");
    }
}

#[test]
fn night_is_dark_and_grey() {
    for kind in SceneKind::ALL {
        let day = config(kind, 6);
        let night = SceneConfig { night: true, ..day.clone() };
        let mean = |config: &SceneConfig| {
            let (picture, _) = render(&mut Scene::new(config), PixelFormat::I420, at(0.5));
            let luma =
                picture.planes[0].iter().map(|&b| u64::from(b)).sum::<u64>() / picture.planes[0].len() as u64;
            let tint = picture.planes[1].iter().chain(&picture.planes[2]).map(|&b| b.abs_diff(128)).max();
            (luma, tint.unwrap_or(0))
        };
        let (bright, colourful) = mean(&day);
        let (dark, grey) = mean(&night);
        assert!(dark + 30 < bright, "{kind:?}: {bright} by day, {dark} by night");
        assert!(grey <= 4 && colourful > 20, "{kind:?}: {colourful} by day, {grey} by night");
    }
}

#[test]
fn a_changed_configuration_takes_effect() {
    let day = config(SceneKind::Yard, 6);
    let mut scene = Scene::new(&day);
    render(&mut scene, PixelFormat::I420, at(1.0));
    for changed in [
        SceneConfig { objects: 7, ..day.clone() },
        SceneConfig { kind: SceneKind::Room, ..day.clone() },
        SceneConfig { night: true, ..day.clone() },
        SceneConfig { noise: 5.0, ..day.clone() },
        SceneConfig { width: 400, ..day.clone() },
    ] {
        scene.set_config(&changed);
        let switched = render(&mut scene, PixelFormat::I420, at(1.0));
        assert!(switched == render(&mut Scene::new(&changed), PixelFormat::I420, at(1.0)), "{changed:?}");
    }
}

#[test]
fn the_wrong_frame_is_refused() {
    let mut scene = Scene::new(&config(SceneKind::Yard, 0));
    let mut small = Picture::new(PixelFormat::I420, 160, 90, 0);
    let error = scene.render(at(0.0), &mut small.frame_mut()).unwrap_err();
    assert_eq!(error, SceneError::Size { expected: (320, 180), got: (160, 90) });
    let mut cut = Picture::new(PixelFormat::I420, 320, 180, 0);
    cut.planes[2].truncate(100);
    assert!(matches!(scene.render(at(0.0), &mut cut.frame_mut()), Err(SceneError::Frame(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_configuration_draws_and_reports_within_the_frame(
        size in (1_usize..400, 1_usize..300),
        objects in 0_usize..40,
        kind in prop::sample::select(SceneKind::ALL.to_vec()),
        format in prop::sample::select(FORMATS.to_vec()),
        seed: u64,
        night: bool,
        noise in prop::sample::select(vec![0.0, 2.0, 1e9, -1.0, f32::NAN]),
        scene_ns: u64,
        unix_ms: Option<u64>,
    ) {
        let config = SceneConfig { width: size.0, height: size.1, objects, kind, seed, night, noise };
        let mut scene = Scene::new(&config);
        let (width, height) = (scene.config().width as f32, scene.config().height as f32);
        let (_, truth) = render(&mut scene, format, Moment { scene_ns, unix_ms });
        let mut ids: Vec<_> = truth.iter().map(|t| t.track_id).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), truth.len());
        for t in &truth {
            prop_assert!(t.rect.is_valid() && t.rect == t.rect.clipped(width, height), "{:?}", t);
            prop_assert!(t.visible > 0.0 && t.visible <= 1.0, "{:?}", t);
            prop_assert!(t.track_id > 0 && t.track_id < 1 << 53, "{:?}", t);
        }
    }
}
