use proptest::prelude::*;

use super::*;
use crate::draw::{Rgba, Typeface};
use crate::event::DetectionEvent;
use crate::geometry::Rect;

const MS: u64 = 1_000_000;

fn seen(class: &str, rect: Rect, track: Option<u64>) -> Seen {
    Seen { class: class.into(), confidence: 0.9, rect, track }
}

fn sighting(capture_ms: u64, seen: Vec<Seen>) -> Sighting {
    Sighting { capture_ns: capture_ms * MS, width: 640.0, height: 360.0, seen, latency_ms: None, fps: None }
}

fn captures(picks: &[Pick<'_>]) -> Vec<u64> {
    picks.iter().map(|pick| pick.sighting().capture_ns / MS).collect()
}

#[test]
fn class_colours_read_and_print() {
    let colours: ClassColours = " person=#010203 , a=b=#ffffff,".parse().unwrap();
    assert_eq!(colours.of("person"), Rgba::rgb(1, 2, 3));
    assert_eq!(colours.of("a=b"), Rgba::WHITE);
    assert_eq!(colours.to_string(), "a=b=#ffffff,person=#010203");
    assert_eq!(colours.to_string().parse(), Ok(colours.clone()));
    assert_eq!(colours.of("car"), ClassColours::default().of("car"));
    for (text, words) in [("person", "class=#rrggbb"), ("person=red", "person"), ("a=#fff", "#fff")] {
        let error = text.parse::<ClassColours>().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// As seen with each of the three colour blindnesses (matrices of Machado, Oliveira and Fernandes, 2009, for full
/// severity, on linear light), no two colours of the palette come close.
#[test]
fn palette_can_be_told_apart_without_any_one_cone() {
    const BLIND: [[[f32; 3]; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ];
    const XYZ: [[f32; 3]; 3] = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]];
    let lab = |colour: Rgba, blind: &[[f32; 3]; 3]| {
        let linear = [colour.r, colour.g, colour.b].map(|c| {
            let c = f32::from(c) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        let times =
            |m: &[[f32; 3]; 3], v: [f32; 3]| m.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
        let seen = times(blind, linear).map(|c| c.clamp(0.0, 1.0));
        let [x, y, z] = times(&XYZ, seen);
        let f = |t: f32| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let (x, y, z) = (f(x / 0.9505), f(y), f(z / 1.089));
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    };
    for blind in &BLIND {
        for (n, a) in PALETTE.iter().enumerate() {
            for b in &PALETTE[..n] {
                let (p, q) = (lab(*a, blind), lab(*b, blind));
                let distance = p.iter().zip(q).map(|(p, q)| (p - q).powi(2)).sum::<f32>().sqrt();
                assert!(distance > 11.0, "{a} and {b}: {distance} with {blind:?}");
            }
        }
    }
}

#[test]
fn the_event_of_a_frame_is_the_one_made_from_it() {
    let mut timeline = Timeline::default();
    for capture in [1000, 1040, 1080, 1200] {
        timeline.add("a", "m", sighting(capture, vec![]), capture * MS);
    }
    let all = Filter::default();
    let at = |capture: u64| captures(&timeline.at(&all, capture * MS, 20 * MS, 1000 * MS));
    for (capture, expected) in [
        (970, vec![]),
        (985, vec![1000]),
        (1000, vec![1000]),
        (1040, vec![1040]),
        (1055, vec![1040]),
        (1061, vec![1080]),
        // Frames between are not analysed: the last event holds.
        (1120, vec![1080]),
        (1160, vec![1080]),
        (1199, vec![1200]),
        (2199, vec![1200]),
        (2200, vec![]),
    ] {
        assert_eq!(at(capture), expected, "{capture}");
    }
}

#[test]
fn the_latest_event_lives_for_its_time() {
    let mut timeline = Timeline::default();
    let all = Filter::default();
    timeline.add("a", "m", sighting(5000, vec![]), 100 * MS);
    // Arrived later, taken earlier: still the latest news.
    timeline.add("a", "m", sighting(4000, vec![]), 200 * MS);
    timeline.add("b", "m", sighting(1, vec![]), 900 * MS);
    let at = |now: u64| captures(&timeline.latest(&all, now * MS, 1000 * MS));
    assert_eq!(at(1000), [4000, 1]);
    assert_eq!(at(1199), [4000, 1]);
    assert_eq!(at(1200), [1]);
    assert_eq!(at(1900), [0; 0]);
}

#[test]
fn waiting_ends_when_everyone_has_spoken() {
    let mut timeline = Timeline::default();
    let all = Filter::default();
    assert!(timeline.complete(&all, 1000 * MS, 20 * MS, 0), "nobody is expected");
    for n in 0..10 {
        timeline.add("a", "m", sighting(1000 + n * 40, vec![]), n * 40 * MS);
        timeline.add("b", "m", sighting(1000 + n * 40, vec![]), n * 40 * MS);
    }
    timeline.add("a", "m", sighting(1400, vec![]), 400 * MS);
    assert!(!timeline.complete(&all, 1400 * MS, 20 * MS, 420 * MS), "b has not spoken of it");
    assert!(timeline.complete(&Filter::new("a", ""), 1400 * MS, 20 * MS, 420 * MS));
    assert!(timeline.complete(&all, 1375 * MS, 20 * MS, 420 * MS));
    // b is gone.
    assert!(timeline.complete(&Filter::new("b", ""), 1400 * MS, 20 * MS, 2000 * MS));
}

#[test]
fn filters_are_lists_with_wildcards() {
    for (instances, models, expected) in [
        ("", "", true),
        ("proc-a", "", true),
        ("proc-b", "", false),
        ("x, proc-*", "yolo*nano", true),
        ("*", "*x*", true),
        ("*-a", "yolox", false),
        ("proc-a", "other", false),
        ("proc-a*a", "", false),
        (" , ", "", true),
    ] {
        assert_eq!(
            Filter::new(instances, models).admits("proc-a", "yolox-nano"),
            expected,
            "{instances} {models}"
        );
    }
}

#[test]
fn publishers_and_events_are_bounded() {
    let mut timeline = Timeline::default();
    let all = Filter::default();
    for n in 0..1000_u64 {
        timeline.add(&format!("i{n}"), "m", sighting(n, vec![]), n * MS);
    }
    assert_eq!(timeline.latest(&all, 1000 * MS, u64::MAX).len(), 16);
    for n in 0..1000_u64 {
        timeline.add("i999", "m", sighting(1000 + n, vec![]), (1000 + n) * MS);
    }
    let only = Filter::new("i999", "");
    assert_eq!(timeline.latest(&only, 2000 * MS, u64::MAX)[0].history().count(), 63);
    // A clock that was set back does not keep old events on top.
    timeline.add("i999", "m", sighting(5, vec![]), 2001 * MS);
    timeline.add("i999", "m", sighting(30_000, vec![]), 2002 * MS);
    timeline.add("i999", "m", sighting(7, vec![]), 2003 * MS);
    assert_eq!(captures(&timeline.at(&only, 7 * MS, MS, 1000 * MS)), [7]);
    timeline.forget("i999", "m");
    assert!(timeline.latest(&only, 2003 * MS, u64::MAX).is_empty());
}

#[test]
fn events_become_what_can_be_drawn() {
    let json = r#"{"version":"1.0","instance_id":"a","source_id":2,"frame_id":1,"timestamp":"2025-10-25T10:30:00.123Z",
        "clock":"ntp","model_id":"m","inference_time_ms":1,"frame_width":1280,"frame_height":720,"new_key":[{}],
        "detections":[
            {"class_name":"low\u0007","confidence":0.2,"bbox":{"x":1,"y":2,"width":3,"height":4}},
            {"class_name":"high","confidence":7,"bbox":{"x":1,"y":2,"width":3,"height":4},"tracker_id":42},
            {"class_name":"flat","confidence":0.9,"bbox":{"x":1,"y":2,"width":0,"height":4}},
            {"class_name":"huge","confidence":0.9,"bbox":{"x":1e300,"y":2,"width":1,"height":4}}]}"#;
    let event = DetectionEvent::from_bytes(json.as_bytes()).unwrap();
    let sighting = Sighting::from_event(&event).unwrap();
    assert_eq!(sighting.capture_ns, 1_761_388_200_123 * MS);
    let names: Vec<_> = sighting.seen.iter().map(|s| (&*s.class, s.confidence, s.track)).collect();
    assert_eq!(names, [("high", 1.0, Some(42)), ("low", 0.2, None)]);
    let late = DetectionEvent { timestamp: "yesterday".into(), ..event.clone() };
    assert!(Sighting::from_event(&late).is_err());
    let many = DetectionEvent { detections: vec![event.detections[0].clone(); 5000], ..event };
    assert_eq!(Sighting::from_event(&many).unwrap().seen.len(), 300);
}

/// Everything that a timeline with one event shows on a frame.
fn drawn(seen: Vec<Seen>, style: &Style, size: (usize, usize)) -> Vec<Piece> {
    let mut timeline = Timeline::default();
    timeline.add("a", "m", sighting(1000, seen), 0);
    plan(&timeline.latest(&Filter::default(), 0, 1), style, size, &mut Typeface::new())
}

fn pictures(pieces: &[Piece]) -> Vec<Rect> {
    let rect = |piece: &Piece| match piece {
        Piece::Print { x, y, print } => {
            Some(Rect::new(*x as f32, *y as f32, print.width() as f32, print.height() as f32))
        }
        Piece::Bars { .. } => None,
    };
    pieces.iter().filter_map(rect).collect()
}

#[test]
fn boxes_are_scaled_to_the_stream() {
    let pieces =
        drawn(vec![seen("car", Rect::new(64.0, 36.0, 320.0, 180.0), None)], &Style::default(), (1280, 720));
    let colour = ClassColours::default().of("car");
    let mut bounds = (i32::MAX, i32::MAX, 0, 0);
    for piece in &pieces {
        let Piece::Bars { x, y, height, row } = piece else { continue };
        let Some(first) = row.iter().position(|c| *c == colour) else { continue };
        let last = row.iter().rposition(|c| *c == colour).unwrap_or(first);
        let (right, bottom) = (x + last as i32 + 1, y + *height as i32);
        bounds =
            (bounds.0.min(x + first as i32), bounds.1.min(*y), bounds.2.max(right), bounds.3.max(bottom));
    }
    assert_eq!(bounds, (128, 72, 768, 432), "the coloured line's outer edge is the box");
    let labels = pictures(&pieces);
    assert_eq!(labels.len(), 1);
    assert_eq!((labels[0].x, labels[0].bottom()), (128.0, 72.0), "the label stands on the box");
}

#[test]
fn switches_leave_things_out() {
    let object = || vec![seen("car", Rect::new(64.0, 36.0, 320.0, 180.0), Some(7))];
    let none = Style { labels: false, confidence: false, tracks: false, ..Style::default() };
    assert!(pictures(&drawn(object(), &none, (640, 360))).is_empty());
    let width = |style: &Style| pictures(&drawn(object(), style, (640, 360)))[0].width;
    let name = width(&Style { labels: true, ..none.clone() });
    let track = width(&Style { tracks: true, ..none.clone() });
    assert!(track < name);
    assert!(width(&Style::default()) > name + track);
    let lines = Style { fps: true, latency: true, ..none };
    assert!(pictures(&drawn(vec![], &lines, (640, 360))).is_empty(), "nothing is known of rate and latency");
    let mut timeline = Timeline::default();
    timeline.add("a", "m", Sighting { fps: Some(5.0), ..sighting(1000, vec![]) }, 0);
    let picks = timeline.latest(&Filter::default(), 0, 1);
    let pieces = plan(&picks, &lines, (640, 360), &mut Typeface::new());
    assert_eq!(pictures(&pieces).len(), 1);
}

#[test]
fn trails_follow_the_track_and_end_with_their_time() {
    let mut timeline = Timeline::default();
    for n in 0..50 {
        let x = 10.0 + 10.0 * n as f32;
        let others = seen("car", Rect::new(600.0 - x, 300.0, 10.0, 10.0), None);
        timeline.add(
            "a",
            "m",
            sighting(n * 40, vec![seen("dog", Rect::new(x, 50.0, 20.0, 50.0), Some(1)), others]),
            0,
        );
    }
    let style = Style { labels: false, confidence: false, trail_ns: 400 * MS, ..Style::default() };
    let picks = timeline.latest(&Filter::default(), 0, 1);
    let pieces = plan(&picks, &style, (640, 360), &mut Typeface::new());
    let trail = pictures(&pieces)[0];
    // Ten steps of ten pixels, at the height of the feet.
    assert!((95.0..115.0).contains(&trail.width), "{trail:?}");
    assert!(trail.y < 100.0 && trail.bottom() > 100.0 && trail.height < 14.0, "{trail:?}");
    assert!((trail.right() - 510.0).abs() < 8.0, "{trail:?}");
}

#[test]
fn labels_of_neighbours_do_not_cover_one_another() {
    let objects: Vec<_> =
        (0..6).map(|n| seen("person", Rect::new(200.0 + 14.0 * n as f32, 150.0, 40.0, 90.0), None)).collect();
    let labels = pictures(&drawn(objects, &Style::default(), (640, 360)));
    assert_eq!(labels.len(), 6);
    for (n, a) in labels.iter().enumerate() {
        for b in &labels[..n] {
            assert!(a.intersection(b) < 0.2 * a.area(), "{a:?} {b:?}");
        }
    }
}

#[test]
fn sizes_grow_with_the_frame() {
    assert_eq!(font_size(320, 180), 10.0);
    assert_eq!(font_size(640, 360), 12.0);
    assert_eq!(font_size(1920, 1080), 27.0);
    assert_eq!(
        [(320, 180), (640, 360), (1280, 720), (1920, 1080)].map(|(w, h)| thickness(w, h)),
        [1, 2, 3, 4]
    );
}

proptest! {
    #[test]
    fn no_label_is_cut_off(
        rects in prop::collection::vec((-900_f32..900.0, -900_f32..900.0, 0_f32..900.0, 0_f32..900.0), 0..20),
        name in "\\PC{0,60}",
        size in prop::sample::select(vec![(320, 180), (640, 360), (360, 640), (1920, 1080)]),
    ) {
        let objects = rects.iter().map(|r| seen(&name, Rect::new(r.0, r.1, r.2, r.3), Some(3))).collect();
        for label in pictures(&drawn(objects, &Style::default(), size)) {
            prop_assert!(label.x >= 0.0 && label.y >= 0.0, "{label:?}");
            prop_assert!(label.right() <= size.0 as f32 && label.bottom() <= size.1 as f32, "{label:?}");
        }
    }

    #[test]
    fn no_frame_and_no_number_is_a_panic(
        (x, y, w, h) in (any::<f32>(), any::<f32>(), any::<f32>(), any::<f32>()),
        (fw, fh) in (any::<f32>(), any::<f32>()),
        size in (1_usize..64, 1_usize..64),
        font in prop::option::of(4_f32..40.0),
    ) {
        let mut timeline = Timeline::default();
        let style = Style { font_size: font, latency: true, fps: true, ..Style::default() };
        for capture in 0..3 {
            let object = seen("x", Rect::new(x, y, w, h), Some(1));
            let odd = Sighting { width: fw, height: fh, ..sighting(capture, vec![object]) };
            timeline.add("a", "m", odd, 0);
        }
        plan(&timeline.latest(&Filter::default(), 0, 1), &style, size, &mut Typeface::new());
    }

    #[test]
    fn what_is_shown_is_neither_from_the_future_nor_too_old(
        events in prop::collection::vec((0_u64..3000, 0_u64..2), 0..120),
        capture in 0_u64..3000,
        tolerance in 0_u64..100,
        ttl in 1_u64..1000,
    ) {
        let mut timeline = Timeline::default();
        for (at, who) in events {
            timeline.add(&who.to_string(), "m", sighting(at, vec![]), at);
        }
        let picks = timeline.at(&Filter::default(), capture * MS, tolerance * MS, ttl * MS);
        prop_assert!(picks.len() <= 2);
        for at in captures(&picks) {
            prop_assert!(at <= capture + tolerance && at + ttl > capture);
        }
    }
}
