use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

fn person(x: f32, y: f32) -> Detection {
    seen("person", Rect::new(x, y, 40.0, 100.0), 0.9)
}

fn seen(class: &str, rect: Rect, confidence: f32) -> Detection {
    Detection { class_name: class.into(), class_id: None, confidence, rect, tracker_id: None }
}

/// A tracker with its own count of ids, on a clock of seconds.
#[derive(Default)]
struct Run {
    tracker: Tracker,
    params: Params,
    ids: u64,
}

impl Run {
    fn at(&mut self, seconds: f64, detections: &[Detection]) -> Vec<Option<u64>> {
        let ids = &mut self.ids;
        let now = (seconds * 1e9) as u64;
        let found = self.tracker.update(now, detections, &self.params, || {
            *ids += 1;
            *ids
        });
        found.to_vec()
    }
}

const BOTH: [Algorithm; 2] = [Algorithm::ByteTrack, Algorithm::Iou];

#[test]
fn one_walker_keeps_one_id_at_any_rate() {
    for fps in [0.5, 1.0, 5.0, 25.0] {
        let mut run = Run::default();
        let mut ids = BTreeSet::new();
        for frame in 0..(20.0 * fps) as u32 {
            let t = f64::from(frame) / fps;
            // 60 pixels a second: at half a frame a second, three times its width between two frames.
            ids.extend(run.at(t, &[person(50.0 + 60.0 * t as f32, 200.0)]).into_iter().flatten());
        }
        assert_eq!(ids.len(), 1, "{fps} fps");
    }
}

#[test]
fn two_who_walk_side_by_side_are_not_mixed_up_at_a_slow_rate() {
    let mut run = Run::default();
    for frame in 0..10u8 {
        let x = 50.0 + 60.0 * f32::from(frame);
        let ids = run.at(f64::from(frame), &[person(x, 100.0), person(x + 20.0, 300.0)]);
        if frame > 0 {
            assert_eq!(ids, [Some(1), Some(2)], "frame {frame}");
        }
    }
}

#[test]
fn who_is_hidden_for_a_moment_comes_back_with_the_same_id() {
    let mut run = Run::default();
    let walker = |t: f64| person(50.0 + 80.0 * t as f32, 200.0);
    for frame in 0..50 {
        let t = f64::from(frame) / 25.0;
        run.at(t, &[walker(t)]);
    }
    // One second behind a tree.
    for frame in 50..75 {
        run.at(f64::from(frame) / 25.0, &[]);
    }
    assert_eq!(run.at(3.0, &[walker(3.0)]), [Some(1)]);
    // And for longer than `max_lost`.
    run.at(3.5, &[]);
    run.at(5.9, &[]);
    run.at(6.0, &[walker(3.0)]);
    assert_eq!(run.at(6.04, &[walker(3.0)]), [Some(2)]);
}

#[test]
fn a_doubtful_box_continues_a_track_and_begins_none() {
    let doubtful = |x| seen("person", Rect::new(x, 200.0, 40.0, 100.0), 0.2);
    let mut run = Run::default();
    run.at(0.0, &[person(100.0, 200.0)]);
    let ids = run.at(0.04, &[doubtful(101.0), doubtful(400.0)]);
    assert_eq!(ids, [Some(1), None]);
    assert_eq!(run.at(0.08, &[doubtful(102.0), doubtful(400.0)]), [Some(1), None]);
    let noise = seen("person", Rect::new(103.0, 200.0, 40.0, 100.0), 0.05);
    assert_eq!(run.at(0.12, &[noise]), [None], "below `low`");
}

#[test]
fn a_flicker_gets_no_id() {
    for algorithm in BOTH {
        let mut run = Run::default();
        run.params.algorithm = algorithm;
        run.at(0.0, &[]);
        assert_eq!(run.at(0.2, &[person(100.0, 100.0)]), [None]);
        run.at(0.4, &[]);
        assert_eq!(run.at(0.6, &[person(100.0, 100.0)]), [None]);
        assert_eq!(run.at(0.8, &[person(100.0, 100.0)]), [Some(1)]);
        assert_eq!(run.tracker.confirmed(), 1);
    }
}

#[test]
fn what_is_there_from_the_start_has_its_id_at_once() {
    assert_eq!(Run::default().at(7.0, &[person(0.0, 0.0), person(200.0, 0.0)]), [Some(1), Some(2)]);
}

#[test]
fn min_hits_counts_sightings() {
    let mut run = Run { params: Params { min_hits: 4, ..Params::default() }, ..Run::default() };
    run.at(0.0, &[]);
    let ids: Vec<_> = (1..=5).map(|n| run.at(f64::from(n) * 0.1, &[person(100.0, 100.0)])[0]).collect();
    assert_eq!(ids, [None, None, None, Some(1), Some(1)]);
}

#[test]
fn classes_are_kept_apart_but_may_be_corrected() {
    let at = Rect::new(100.0, 100.0, 200.0, 100.0);
    let mut run = Run::default();
    assert_eq!(run.at(0.0, &[seen("car", at, 0.9)]), [Some(1)]);
    // A person in front of the car.
    let front = Rect::new(150.0, 90.0, 40.0, 110.0);
    assert_eq!(run.at(0.1, &[seen("person", front, 0.9)]), [None]);
    assert_eq!(run.at(0.2, &[seen("person", front, 0.9), seen("car", at, 0.9)]), [Some(2), Some(1)]);
    // The detector changes its mind about the car.
    assert_eq!(run.at(0.3, &[seen("truck", at, 0.9), seen("person", front, 0.9)]), [Some(1), Some(2)]);
}

#[test]
fn time_that_runs_backwards_and_a_reset_begin_anew() {
    let mut run = Run::default();
    assert_eq!(run.at(10.0, &[person(0.0, 0.0)]), [Some(1)]);
    assert_eq!(run.at(3.0, &[person(0.0, 0.0)]), [Some(2)]);
    run.tracker.reset();
    assert_eq!(run.at(3.1, &[person(0.0, 0.0)]), [Some(3)]);
}

#[test]
fn crossing_walkers_keep_their_ids() {
    let mut run = Run::default();
    let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
    for frame in 0..100u8 {
        let x = 3.0 * f32::from(frame);
        let ids = run.at(f64::from(frame) / 25.0, &[person(100.0 + x, 200.0), person(400.0 - x, 230.0)]);
        left.extend(ids[0]);
        right.extend(ids[1]);
    }
    assert_eq!((left.len(), right.len()), (1, 1), "{left:?} {right:?}");
}

#[test]
fn who_stands_still_unwatched_is_still_there() {
    let mut run = Run::default();
    run.at(0.0, &[person(100.0, 200.0), person(300.0, 200.0)]);
    run.at(0.2, &[person(100.0, 200.0)]);
    for second in 1..60u64 {
        run.tracker.hold(second * 1_000_000_000);
    }
    assert_eq!(
        run.at(60.0, &[person(101.0, 200.0), person(300.0, 200.0)]),
        [Some(1), None],
        "who was lost is gone"
    );
}

#[test]
fn a_flood_of_boxes_is_bounded() {
    let mut run = Run::default();
    let flood: Vec<_> = (0..3000u16)
        .map(|n| {
            seen("person", Rect::new(f32::from(n % 60) * 30.0, f32::from(n / 60) * 30.0, 20.0, 20.0), 0.9)
        })
        .collect();
    for frame in 0..3 {
        let ids = run.at(f64::from(frame) * 0.04, &flood);
        assert!(ids.iter().flatten().count() <= MAX_TRACKS);
    }
}

fn boxes() -> impl Strategy<Value = Vec<Detection>> {
    let one = (0f32..600.0, 0f32..300.0, 1f32..120.0, 1f32..200.0, 0f32..=1.0, prop::bool::ANY);
    prop::collection::vec(one, 0..12).prop_map(|list| {
        let class = |car| if car { "car" } else { "person" };
        list.into_iter().map(|(x, y, w, h, c, car)| seen(class(car), Rect::new(x, y, w, h), c)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is seen: no id twice in a frame, none taken up again by another object after its track has ended, and
    /// every answer belongs to its detection.
    #[test]
    fn ids_are_unique(
        frames in prop::collection::vec((0f64..3.0, boxes()), 1..20),
        iou in prop::bool::ANY,
    ) {
        let mut run = Run::default();
        run.params.algorithm = BOTH[usize::from(iou)];
        let (mut now, mut last_seen) = (0.0, std::collections::HashMap::<u64, f64>::new());
        for (dt, detections) in frames {
            now += dt;
            let ids = run.at(now, &detections);
            prop_assert_eq!(ids.len(), detections.len());
            let given: Vec<u64> = ids.into_iter().flatten().collect();
            prop_assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
            for id in given {
                if let Some(before) = last_seen.insert(id, now) {
                    let limit = run.params.max_lost.max(2.5 * dt);
                    prop_assert!(now - before <= limit + 1e-3, "id {} after {}", id, now - before);
                }
            }
            for (_, rect) in run.tracker.boxes() {
                prop_assert!(rect.is_valid());
            }
        }
    }

    /// Well separated objects are followed whatever order a detector lists them in.
    #[test]
    fn the_order_of_detections_does_not_matter(seeds in prop::collection::vec(0u32..1000, 20)) {
        let mut run = Run::default();
        let mut expected: Vec<Option<u64>> = Vec::new();
        for (frame, seed) in seeds.iter().enumerate() {
            let t = frame as f64 / 10.0;
            let mut order: Vec<usize> = (0..5).collect();
            order.sort_by_key(|n| (*n as u32 * 7919 + seed * 104_729) % 101);
            let list: Vec<_> =
                order.iter().map(|&n| person(20.0 * t as f32 + 150.0 * n as f32, 100.0)).collect();
            let ids = run.at(t, &list);
            let mut by_object = vec![None; 5];
            for (&n, id) in order.iter().zip(ids) {
                by_object[n] = id;
            }
            if frame == 0 {
                expected = by_object;
            } else {
                prop_assert_eq!(&by_object, &expected);
            }
        }
    }
}
