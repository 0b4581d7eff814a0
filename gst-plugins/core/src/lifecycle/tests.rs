use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

fn at(tenths: u64) -> Moment {
    Moment { now_ns: tenths * S / 10, unix_ns: 1_700_000_000 * S + tenths * S / 10 }
}

fn seen(track: u64, class: &str, confidence: f32, x: f32) -> Sighting {
    let rect = Rect::new(x, 100.0, 50.0, 100.0);
    let foot = [f64::from(x + 25.0) / 640.0, 200.0 / 360.0];
    Sighting { track, class: class.into(), confidence, rect, foot, cut: false }
}

fn phases(changes: &[Change]) -> Vec<(u64, Phase)> {
    changes.iter().map(|c| (c.track, c.phase)).collect()
}

#[test]
fn an_object_is_new_once_then_updated_then_gone() {
    let (mut lives, params) = (Lifecycles::default(), Params::default());
    let mut told = Vec::new();
    for t in 0..120 {
        lives.see(at(t), &seen(1, "person", 0.8, 10.0 + t as f32));
        told.extend(lives.due(t * S / 10, &params).into_iter().map(|c| (t, c.phase)));
    }
    assert_eq!(told, [(2, Phase::New), (52, Phase::Update), (102, Phase::Update)]);
    assert_eq!(lives.present(), 1);
    assert_eq!(lives.gone(149 * S / 10, &params, false), [0u64; 0]);
    assert_eq!(lives.gone(150 * S / 10, &params, false), [1]);
    let event = lives.end(1, (640, 360)).unwrap();
    assert_eq!((event.phase, event.class_name.as_str()), (Phase::End, "person"));
    assert_eq!(
        (event.start.as_str(), event.timestamp.as_str()),
        ("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:31.900Z")
    );
    assert_eq!(event.duration_s, 11.9);
    assert_eq!(event.bbox.x, 129.0);
    assert!(event.path.len() <= MAX_PATH && event.path.len() >= MAX_PATH / 2);
    assert!(event.path.is_sorted_by(|a, b| a[0] < b[0]), "{:?}", event.path);
    assert_eq!(lives.end(1, (640, 360)), None);
    let json = serde_json::to_string(&event).unwrap();
    assert!(json.contains(r#""type":"end""#), "{json}");
    assert_eq!(serde_json::from_str::<LifecycleEvent>(&json).unwrap(), event);
}

#[test]
fn a_flicker_and_a_doubtful_thing_make_no_event() {
    let (mut lives, params) = (Lifecycles::default(), Params::default());
    lives.see(at(0), &seen(1, "person", 0.9, 0.0));
    lives.see(at(1), &seen(1, "person", 0.9, 0.0));
    for t in 0..20 {
        // Sure for once, doubtful in the middle.
        let confidence = if t % 3 == 0 { 0.9 } else { 0.4 };
        lives.see(at(t), &seen(2, "dog", confidence, 200.0));
        assert_eq!(lives.due(t * S / 10, &params), []);
    }
    assert_eq!(lives.present(), 0);
    assert_eq!(lives.end(1, (640, 360)), None);
    assert_eq!(lives.end(2, (640, 360)), None);
}

#[test]
fn who_becomes_an_object_is_one_before_that_is_told() {
    let (mut lives, params) = (Lifecycles::default(), Params::default());
    for t in 0..3 {
        assert!(!lives.is_object(1, &params));
        lives.see(at(t), &seen(1, "person", 0.8, 0.0));
    }
    assert!(lives.is_object(1, &params) && lives.present() == 0);
    assert_eq!(phases(&lives.due(S / 5, &params)), [(1, Phase::New)]);
    // Doubt comes too late then.
    for t in 3..20 {
        lives.see(at(t), &seen(1, "person", 0.1, 0.0));
    }
    assert!(lives.is_object(1, &params));
}

#[test]
fn the_best_view_is_large_sure_and_whole() {
    let mut lives = Lifecycles::default();
    assert!(lives.see(at(0), &seen(1, "person", 0.6, 10.0)));
    assert!(!lives.see(at(1), &seen(1, "person", 0.62, 10.0)), "hardly better");
    assert!(!lives.see(at(2), &Sighting { cut: true, ..seen(1, "person", 0.9, 0.0) }));
    let large = Rect::new(5.0, 5.0, 200.0, 300.0);
    assert!(lives.see(at(3), &Sighting { rect: large, ..seen(1, "person", 0.7, 0.0) }));
    let event = lives.event(1, Phase::Update, (640, 360)).unwrap();
    assert_eq!((event.best.confidence, event.best.bbox.width), (0.7, 200.0));
    assert_eq!(event.best.timestamp, "2023-11-14T22:13:20.300Z");
}

#[test]
fn zones_and_dwell_are_told_at_once() {
    let (mut lives, params) = (Lifecycles::default(), Params::default());
    let yard: Arc<str> = "yard".into();
    for t in 0..3 {
        lives.see(at(t), &seen(1, "person", 0.8, 0.0));
    }
    assert_eq!(phases(&lives.due(S / 5, &params)), [(1, Phase::New)]);
    lives.enter(1, &yard, S / 10);
    lives.see(at(11), &seen(1, "person", 0.8, 0.0));
    assert_eq!(phases(&lives.due(11 * S / 10, &params)), [(1, Phase::Update)]);
    let zones = lives.event(1, Phase::Update, (640, 360)).unwrap().zones;
    assert_eq!(zones, [ZoneStay { name: "yard".into(), inside: true, dwell_s: 1.0 }]);
    assert_eq!(lives.facts(1).unwrap().inside, [(yard.clone(), S / 10)]);
    lives.leave(1, &yard, 2 * S);
    lives.enter(1, &yard, 4 * S);
    lives.leave(1, &yard, S);
    lives.leave(9, &yard, S);
    assert_eq!(phases(&lives.due(5 * S, &params)), [(1, Phase::Update)]);
    let zones = lives.end(1, (640, 360)).unwrap().zones;
    assert_eq!(zones, [ZoneStay { name: "yard".into(), inside: false, dwell_s: 3.0 }]);
}

#[test]
fn who_stands_still_unwatched_is_not_gone() {
    let (mut lives, params) = (Lifecycles::default(), Params::default());
    for t in 0..3 {
        lives.see(at(t), &seen(1, "person", 0.8, 0.0));
        lives.see(at(t), &seen(2, "person", 0.8, 200.0));
    }
    lives.see(at(3), &seen(1, "person", 0.8, 0.0));
    for t in 3..100 {
        assert_eq!(lives.hold(at(t), at(t + 1)), [1]);
    }
    assert_eq!(lives.gone(10 * S, &params, false), [2]);
}

#[test]
fn a_flood_of_tracks_is_bounded() {
    let mut lives = Lifecycles::default();
    for track in 0..3000 {
        lives.see(at(0), &seen(track, "person", 0.8, 0.0));
    }
    assert!(lives.knows(0) && !lives.knows(2999));
    assert_eq!(lives.gone(0, &Params::default(), true).len(), MAX_OBJECTS);
}

#[test]
fn the_class_is_the_one_that_most_speaks_for() {
    let mut lives = Lifecycles::default();
    for (t, class) in ["truck", "car", "car", "truck", "car"].iter().enumerate() {
        lives.see(at(t as u64), &seen(1, class, 0.8, 0.0));
    }
    assert_eq!(lives.event(1, Phase::New, (0, 0)).unwrap().class_name, "car");
}

proptest! {
    /// Whatever is seen: every object has at most one new and one end, new first, and an end only with a new.
    #[test]
    fn lives_are_complete(frames in prop::collection::vec(prop::collection::vec((0u64..6, 0f32..1.0), 0..6), 1..80)) {
        let (mut lives, params) = (Lifecycles::default(), Params { gone: 0.45, ..Params::default() });
        let mut told: BTreeMap<u64, Vec<Phase>> = BTreeMap::new();
        let last = frames.len() as u64;
        for (t, frame) in frames.iter().enumerate() {
            let t = t as u64;
            // An id is never used again once it has ended.
            let alive: Vec<_> = frame.iter().filter(|(track, _)| {
                told.get(track).is_none_or(|phases| phases.last() != Some(&Phase::End))
            }).collect();
            for (track, confidence) in alive {
                lives.see(at(t), &seen(*track, "person", *confidence, 0.0));
            }
            for change in lives.due(t * S / 10, &params) {
                told.entry(change.track).or_default().push(change.phase);
            }
            for track in lives.gone(t * S / 10, &params, t + 1 == last) {
                if lives.end(track, (640, 360)).is_some() {
                    told.entry(track).or_default().push(Phase::End);
                }
            }
        }
        prop_assert_eq!(lives.present(), 0);
        for phases in told.values() {
            prop_assert_eq!(phases.first(), Some(&Phase::New));
            prop_assert_eq!(phases.last(), Some(&Phase::End));
            prop_assert!(phases[1..phases.len() - 1].iter().all(|p| *p == Phase::Update));
        }
    }
}
