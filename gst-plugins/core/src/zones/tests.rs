use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

fn watcher(json: &str) -> Watcher {
    Watcher::new(parse(json).unwrap().into())
}

fn seen(track: u64, x: f64, y: f64) -> Seen<'static> {
    Seen { track, class: "person", confidence: 0.9, foot: [x, y], area: 0.05, confirmed: true }
}

/// Time in tenths of a second.
fn step(watcher: &mut Watcher, tenths: u64, list: &[Seen<'_>]) -> Vec<(u64, u64, ZoneEventKind)> {
    let mut events = Vec::new();
    watcher.update(tenths * S / 10, list, &mut events);
    events.into_iter().map(|e| (e.track, e.at_ns * 10 / S, e.kind)).collect()
}

const LEFT_HALF: &str =
    r#"[{"name":"left","polygon":[[0,0],[0.5,0],[0.5,1],[0,1]],"inertia":0.3,"loitering":2}]"#;

#[test]
fn entering_and_leaving_take_inertia_and_are_dated_back() {
    let mut w = watcher(LEFT_HALF);
    assert_eq!(step(&mut w, 0, &[seen(7, 0.8, 0.5)]), []);
    assert_eq!(step(&mut w, 1, &[seen(7, 0.4, 0.5)]), []);
    // A tremble on the edge.
    assert_eq!(step(&mut w, 2, &[seen(7, 0.6, 0.5)]), []);
    assert_eq!(step(&mut w, 3, &[seen(7, 0.4, 0.5)]), []);
    assert_eq!(step(&mut w, 5, &[seen(7, 0.4, 0.5)]), []);
    assert_eq!(step(&mut w, 6, &[seen(7, 0.4, 0.5)]), [(7, 3, ZoneEventKind::Entered)]);
    assert_eq!(w.inside(7).collect::<Vec<_>>(), [(0, 3 * S / 10)]);
    assert_eq!(w.counts()[0], Counts { present: 1, entered: 1, ..Counts::default() });
    let loitering = ZoneEventKind::Loitering { dwell_ns: 2 * S };
    assert_eq!(step(&mut w, 23, &[seen(7, 0.4, 0.5)]), [(7, 23, loitering)]);
    assert_eq!(step(&mut w, 24, &[seen(7, 0.4, 0.5)]), [], "once");
    assert_eq!(step(&mut w, 25, &[seen(7, 0.6, 0.5)]), []);
    let left = ZoneEventKind::Left { dwell_ns: 22 * S / 10 };
    assert_eq!(step(&mut w, 28, &[seen(7, 0.7, 0.5)]), [(7, 25, left)]);
    assert_eq!(w.counts()[0], Counts { present: 0, entered: 1, ..Counts::default() });
}

#[test]
fn who_vanishes_leaves_when_he_was_last_seen() {
    let mut w = watcher(LEFT_HALF);
    for t in 0..5 {
        step(&mut w, t, &[seen(1, 0.2, 0.2), seen(2, 0.7, 0.2)]);
    }
    let mut events = Vec::new();
    w.end(1, &mut events);
    w.end(2, &mut events);
    w.end(3, &mut events);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].at_ns, events[0].kind), (4 * S / 10, ZoneEventKind::Left { dwell_ns: 4 * S / 10 }));
    assert_eq!(w.counts()[0].present, 0);
}

#[test]
fn filters_leave_sightings_out() {
    let mut w = watcher(
        r#"[{"name":"z","polygon":[[0,0],[1,0],[1,1],[0,1]],"inertia":0,"objects":["Person"],"min_confidence":0.5,
             "min_area":0.01,"max_area":0.2}]"#,
    );
    let base = seen(1, 0.5, 0.5);
    for (n, other) in [
        Seen { class: "car", ..base },
        Seen { confidence: 0.4, ..base },
        Seen { area: 0.001, ..base },
        Seen { area: 0.3, ..base },
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(step(&mut w, n as u64, &[other]), [], "{other:?}");
    }
    assert_eq!(step(&mut w, 9, &[base]), [(1, 9, ZoneEventKind::Entered)]);
    // A doubtful sighting is not a departure.
    assert_eq!(step(&mut w, 10, &[Seen { confidence: 0.1, foot: [2.0, 2.0], ..base }]), []);
}

#[test]
fn who_was_never_confirmed_was_nowhere() {
    let mut w = watcher(LEFT_HALF);
    let doubtful = |x| Seen { confirmed: false, ..seen(1, x, 0.5) };
    for t in 0..5 {
        assert_eq!(step(&mut w, t, &[doubtful(0.2)]), []);
    }
    assert_eq!(w.counts()[0], Counts::default());
    let mut events = Vec::new();
    w.end(1, &mut events);
    assert_eq!((events.len(), w.counts()[0]), (0, Counts::default()));
}

#[test]
fn what_happened_before_the_confirmation_is_told_with_it() {
    let mut w = watcher(
        r#"[{"name":"left","polygon":[[0,0],[0.5,0],[0.5,1],[0,1]],"inertia":0},
            {"name":"gate","line":[[0.3,0.9],[0.3,0.1]],"inertia":0}]"#,
    );
    let at = |x| Seen { confirmed: false, ..seen(1, x, 0.5) };
    step(&mut w, 0, &[at(0.2)]);
    step(&mut w, 1, &[at(0.4)]);
    let expected = [
        (1, 0, ZoneEventKind::Entered),
        (1, 1, ZoneEventKind::Crossed(Direction::LeftToRight)),
        (1, 2, ZoneEventKind::Left { dwell_ns: S / 5 }),
    ];
    assert_eq!(step(&mut w, 2, &[seen(1, 0.6, 0.5)]), expected);
    assert_eq!(w.counts()[0], Counts { entered: 1, ..Counts::default() });
    assert_eq!(w.counts()[1].left_to_right, 1);
    // However long one doubts, what waits is bounded, and where it is now is not forgotten.
    for t in 0..1000u32 {
        step(&mut w, u64::from(t), &[Seen { track: 2, ..at(f64::from(t % 2) * 0.9) }]);
    }
    step(&mut w, 1000, &[Seen { track: 2, ..at(0.1) }]);
    let told = step(&mut w, 1001, &[Seen { track: 2, ..seen(2, 0.1, 0.5) }]);
    assert!((1..=65).contains(&told.len()), "{}", told.len());
    assert_eq!(w.counts()[0].present, 1);
}

#[test]
fn time_passes_for_who_stands_still_unseen() {
    let mut w = watcher(
        r#"[{"name":"left","polygon":[[0,0],[0.5,0],[0.5,1],[0,1]],"inertia":0.3,"loitering":2},
            {"name":"gate","line":[[0.3,0.9],[0.3,0.1]],"inertia":0.5}]"#,
    );
    step(&mut w, 0, &[seen(1, 0.2, 0.5), seen(2, 0.8, 0.5)]);
    // Seen once where it stays, just across the line; the other one is not seen any more.
    step(&mut w, 1, &[seen(1, 0.4, 0.5)]);
    let mut events = Vec::new();
    for t in 1..30 {
        w.hold(t * S / 10, (t + 1) * S / 10, &mut events);
    }
    let told: Vec<_> = events.iter().map(|e| (e.track, e.at_ns * 10 / S, e.kind)).collect();
    let expected = [
        (1, 0, ZoneEventKind::Entered),
        (1, 1, ZoneEventKind::Crossed(Direction::LeftToRight)),
        (1, 20, ZoneEventKind::Loitering { dwell_ns: 2 * S }),
    ];
    assert_eq!(told, expected);
    events.clear();
    w.end(2, &mut events);
    assert_eq!(events, []);
    w.end(1, &mut events);
    assert_eq!(events[0].at_ns, 3 * S, "seen until then");
}

const GATE: &str = r#"[{"name":"gate","line":[[0.5,0.9],[0.5,0.1]],"inertia":0.2}]"#;

#[test]
fn lines_count_by_direction_and_not_what_turns_back() {
    let mut w = watcher(GATE);
    for (t, x, expected) in [
        (0, 0.4, None),
        (1, 0.6, None),
        (2, 0.45, None),
        (3, 0.6, None),
        (5, 0.7, Some((3, Direction::LeftToRight))),
        (6, 0.3, None),
        (8, 0.3, Some((6, Direction::RightToLeft))),
    ] {
        let events = step(&mut w, t, &[seen(1, x, 0.5)]);
        let expected: Vec<_> =
            expected.into_iter().map(|(at, way)| (1, at, ZoneEventKind::Crossed(way))).collect();
        assert_eq!(events, expected, "{t}");
    }
    assert_eq!((w.counts()[0].left_to_right, w.counts()[0].right_to_left), (1, 1));
    // Around its end, and back through it.
    step(&mut w, 10, &[seen(1, 0.3, 0.95)]);
    assert_eq!(step(&mut w, 11, &[seen(1, 0.7, 0.95)]), []);
    assert_eq!(step(&mut w, 20, &[seen(1, 0.7, 0.5)]), []);
    assert_eq!(step(&mut w, 21, &[seen(1, 0.3, 0.5)]), []);
    let mut events = Vec::new();
    w.end(1, &mut events);
    assert_eq!(
        events[0].kind,
        ZoneEventKind::Crossed(Direction::RightToLeft),
        "who crosses and vanishes crosses"
    );
}

#[test]
fn a_crossing_that_the_filter_does_not_see_counts_with_the_next_sighting() {
    let mut w =
        watcher(r#"[{"name":"gate","line":[[0.5,0.9],[0.5,0.1]],"inertia":0.2,"min_confidence":0.5}]"#);
    step(&mut w, 0, &[seen(1, 0.4, 0.5)]);
    step(&mut w, 1, &[Seen { confidence: 0.3, ..seen(1, 0.6, 0.5) }]);
    step(&mut w, 2, &[seen(1, 0.65, 0.5)]);
    let crossed = ZoneEventKind::Crossed(Direction::LeftToRight);
    assert_eq!(step(&mut w, 4, &[seen(1, 0.7, 0.5)]), [(1, 2, crossed)]);
}

#[test]
fn one_way_lines_count_one_way() {
    let mut w =
        watcher(r#"[{"name":"in","line":[[0.5,0.9],[0.5,0.1]],"inertia":0,"direction":"right_to_left"}]"#);
    step(&mut w, 0, &[seen(1, 0.2, 0.5)]);
    assert_eq!(step(&mut w, 1, &[seen(1, 0.8, 0.5)]), []);
    assert_eq!(step(&mut w, 2, &[seen(1, 0.2, 0.5)]).len(), 1);
}

proptest! {
    /// Without inertia, state and counts are those of looking at every frame by itself.
    #[test]
    fn zones_agree_with_brute_force(
        paths in prop::collection::vec(prop::collection::vec([0.0f64..1.0, 0.0f64..1.0], 1..30), 1..5),
        line in [[0.0f64..1.0, 0.0f64..1.0], [0.0f64..1.0, 0.0f64..1.0]],
        corners in prop::collection::vec([0.0f64..1.0, 0.0f64..1.0], 3..8),
    ) {
        prop_assume!(line[0] != line[1]);
        let Ok(polygon) = Polygon::new(corners.clone()) else { return Ok(()) };
        let json = serde_json::json!([
            {"name": "area", "polygon": corners, "inertia": 0},
            {"name": "line", "line": line, "inertia": 0},
        ]);
        let mut w = Watcher::new(Arc::from(parse(&json.to_string()).unwrap()));
        let line = Line::new(line[0], line[1]).unwrap();
        let longest = paths.iter().map(Vec::len).max().unwrap_or(0);
        let (mut entered, mut crossings) = (0, [0, 0]);
        for t in 0..longest {
            let list: Vec<_> = paths
                .iter()
                .enumerate()
                .filter_map(|(n, path)| Some(seen(n as u64, path.get(t)?[0], path.get(t)?[1])))
                .collect();
            let mut events = Vec::new();
            w.update(t as u64 * S, &list, &mut events);
            for (n, path) in paths.iter().enumerate().filter(|(_, path)| t < path.len()) {
                let inside = polygon.contains(path[t]);
                let before = t > 0 && polygon.contains(path[t - 1]);
                let own = |kind: fn(&ZoneEventKind) -> bool| {
                    events.iter().filter(|e| e.track == n as u64 && kind(&e.kind)).count()
                };
                prop_assert_eq!(own(|k| matches!(k, ZoneEventKind::Entered)), usize::from(inside && !before));
                prop_assert_eq!(own(|k| matches!(k, ZoneEventKind::Left { .. })), usize::from(!inside && before));
                prop_assert_eq!(w.inside(n as u64).any(|(zone, _)| zone == 0), inside);
                entered += u64::from(inside && !before);
                let crossed = (t > 0).then(|| line.crossed(path[t - 1], path[t])).flatten();
                prop_assert_eq!(own(|k| matches!(k, ZoneEventKind::Crossed(_))), usize::from(crossed.is_some()));
                match crossed {
                    Some(Direction::LeftToRight) => crossings[0] += 1,
                    Some(Direction::RightToLeft) => crossings[1] += 1,
                    None => {}
                }
            }
        }
        prop_assert_eq!(w.counts()[0].entered, entered);
        prop_assert_eq!([w.counts()[1].left_to_right, w.counts()[1].right_to_left], crossings);
        // Who has left has been there, and the dwell adds up.
        let mut events = Vec::new();
        for n in 0..paths.len() {
            w.end(n as u64, &mut events);
        }
        prop_assert_eq!(w.counts()[0].present, 0);
    }

    /// With inertia, an object enters and leaves in turns and never twice.
    #[test]
    fn entering_and_leaving_alternate(
        xs in prop::collection::vec(0.0f64..1.0, 1..80),
        inertia in 0.0f64..1.0,
    ) {
        let json = serde_json::json!([
            {"name": "left", "polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "inertia": inertia},
        ]);
        let mut w = Watcher::new(Arc::from(parse(&json.to_string()).unwrap()));
        let mut events = Vec::new();
        for (t, x) in xs.iter().enumerate() {
            w.update(t as u64 * S / 10, &[seen(1, *x, 0.5)], &mut events);
        }
        w.end(1, &mut events);
        let (mut inside, mut last) = (false, 0);
        for event in events {
            match event.kind {
                ZoneEventKind::Entered => prop_assert!(!std::mem::replace(&mut inside, true)),
                ZoneEventKind::Left { dwell_ns } => {
                    prop_assert!(std::mem::replace(&mut inside, false));
                    prop_assert_eq!(dwell_ns, event.at_ns - last);
                }
                _ => prop_assert!(false, "{:?}", event),
            }
            prop_assert!(event.at_ns >= last);
            last = event.at_ns;
        }
        prop_assert!(!inside);
    }
}
