use proptest::prelude::*;

use super::*;
use crate::geometry::Rect;

/// The example of the protocol document.
const EXAMPLE: &str = concat!(
    r#"{"version":"1.0","instance_id":"processor-hab-0-3","source_id":2,"frame_id":12345,"#,
    r#""timestamp":"2025-10-25T10:30:00.123Z","clock":"ntp","model_id":"yolox-nano","#,
    r#""inference_time_ms":14.2,"frame_width":1280,"frame_height":720,"#,
    r#""detections":[{"class_name":"person","class_id":0,"confidence":0.92,"#,
    r#""bbox":{"x":100.0,"y":150.0,"width":80.0,"height":200.0},"tracker_id":42}],"#,
    r#""fps":5.0,"latency_ms":61.5}"#
);

fn person() -> Detection {
    Detection {
        class_name: "person".into(),
        class_id: Some(0),
        confidence: 0.92,
        rect: Rect::new(100.0, 150.0, 80.0, 200.0),
        tracker_id: Some(42),
    }
}

fn frame(detections: &[Detection]) -> Frame<'_> {
    Frame {
        instance_id: "processor-hab-0-3",
        source_id: 2,
        frame_id: 12345,
        capture: CaptureTime { unix_ns: 1_761_388_200_123_999_999, clock: Clock::Ntp },
        model_id: "yolox-nano",
        inference_time_ms: 14.2345,
        width: 1280,
        height: 720,
        detections,
        zones: None,
        fps: Some(5.0004),
        latency_ms: Some(61.49),
        stream_time_ns: Some(40_000_000),
    }
}

fn encode(frame: &Frame<'_>, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(encoding, &mut out).unwrap();
    out
}

fn json(frame: &Frame<'_>) -> String {
    String::from_utf8(encode(frame, Encoding::Json)).unwrap()
}

#[test]
fn json_is_the_example_of_the_protocol() {
    assert_eq!(json(&frame(&[person()])), EXAMPLE);
    let read = DetectionEvent::from_json(EXAMPLE.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), EXAMPLE);
}

#[test]
fn optional_keys_are_left_out() {
    let anonymous = Detection { class_id: None, tracker_id: None, ..person() };
    let text = json(&Frame { fps: None, latency_ms: None, ..frame(std::slice::from_ref(&anonymous)) });
    for key in ["class_id", "tracker_id", "fps", "latency_ms", "null"] {
        assert!(!text.contains(key), "{key} in {text}");
    }
    let event = DetectionEvent::from_json(text.as_bytes()).unwrap();
    assert_eq!((event.fps, event.detections[0].class_id), (None, None));
}

#[test]
fn who_is_in_a_zone_says_so_in_every_encoding_that_has_a_place_for_it() {
    let people = [
        person(),
        Detection { tracker_id: None, ..person() },
        Detection { tracker_id: Some(43), ..person() },
    ];
    let zones = InZones::from([(42, vec!["yard".into(), "gate \"2\"".into()]), (44, vec!["street".into()])]);
    let frame = Frame { zones: Some(&zones), ..frame(&people) };
    let event = DetectionEvent::from_json(json(&frame).as_bytes()).unwrap();
    let expected: [&[&str]; 3] = [&["yard", "gate \"2\""], &[], &[]];
    assert_eq!(event.detections.iter().map(|d| d.zones.as_slice()).collect::<Vec<_>>(), expected);
    assert_eq!(json(&frame).matches("zones").count(), 1, "left out where there are none");
    let packed = DetectionEvent::from_msgpack(&encode(&frame, Encoding::Msgpack)).unwrap();
    assert_eq!(packed, event);
}

#[test]
fn boxes_are_clipped_and_empty_ones_left_out() {
    let at = |x, y, w, h| Detection { rect: Rect::new(x, y, w, h), ..person() };
    let list = [
        at(-10.0, -5.0, 30.0, 25.0),
        at(1270.04, 700.0, 100.0, 100.0),
        at(1300.0, 10.0, 20.0, 20.0),
        at(5.0, 5.0, 0.01, 20.0),
        at(f32::NAN, 5.0, 10.0, 20.0),
        at(5.0, 5.0, f32::INFINITY, 20.0),
    ];
    let event = DetectionEvent::from_json(json(&frame(&list)).as_bytes()).unwrap();
    let boxes: Vec<_> =
        event.detections.iter().map(|d| (d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height)).collect();
    assert_eq!(boxes, [(0.0, 0.0, 20.0, 20.0), (1270.0, 700.0, 10.0, 20.0)]);

    let unknown = Frame { width: 0, height: 0, ..frame(&list[..1]) };
    let event = DetectionEvent::from_json(json(&unknown).as_bytes()).unwrap();
    assert_eq!(event.detections[0].bbox.x, -10.0);
}

#[test]
fn numbers_that_are_not_finite_stay_numbers() {
    let odd = [Detection { confidence: f32::NAN, ..person() }];
    let text = json(&Frame { inference_time_ms: f64::NAN, fps: Some(f64::INFINITY), ..frame(&odd) });
    let event = DetectionEvent::from_json(text.as_bytes()).unwrap();
    assert_eq!((event.inference_time_ms, event.fps, event.detections[0].confidence), (0.0, Some(0.0), 0.0));
}

#[test]
fn msgpack_holds_the_same_event() {
    for list in [vec![], vec![person()], vec![Detection { class_id: None, tracker_id: None, ..person() }; 20]]
    {
        for optional in [None, Some(1.0)] {
            let frame = Frame { fps: optional, latency_ms: optional, ..frame(&list) };
            let packed = DetectionEvent::from_msgpack(&encode(&frame, Encoding::Msgpack)).unwrap();
            assert_eq!(packed, DetectionEvent::from_json(json(&frame).as_bytes()).unwrap());
        }
    }
}

#[test]
fn dl_streamer_gets_its_own_json() {
    let list = [person(), Detection { tracker_id: None, class_id: None, ..person() }];
    let text = String::from_utf8(encode(&frame(&list), Encoding::DlStreamer)).unwrap();
    let corners = r#""bounding_box":{"x_max":0.140625,"x_min":0.078125,"y_max":0.486111,"y_min":0.208333}"#;
    let expected = format!(
        concat!(
            r#"{{"objects":[{{"detection":{{{0},"confidence":0.92,"label":"person","label_id":0}},"#,
            r#""h":200,"id":42,"roi_type":"person","w":80,"x":100,"y":150}},"#,
            r#"{{"detection":{{{0},"confidence":0.92,"label":"person"}},"#,
            r#""h":200,"roi_type":"person","w":80,"x":100,"y":150}}],"#,
            r#""resolution":{{"height":720,"width":1280}},"source":"2","#,
            r#""tags":{{"clock":"ntp","frame_id":12345,"inference_time_ms":14.2,"#,
            r#""instance_id":"processor-hab-0-3","model_id":"yolox-nano","source_id":2,"#,
            r#""timestamp":"2025-10-25T10:30:00.123Z"}},"timestamp":40000000}}"#
        ),
        corners
    );
    assert_eq!(text, expected);

    let empty = String::from_utf8(encode(&frame(&[]), Encoding::DlStreamer)).unwrap();
    assert!(empty.starts_with(r#"{"resolution""#), "{empty}");
}

#[test]
fn encoding_appends_to_what_is_there() {
    let mut out = b"before".to_vec();
    frame(&[]).encode(Encoding::Json, &mut out).unwrap();
    assert!(out.starts_with(b"before{\"version\""));
}

#[test]
fn unknown_fields_are_ignored() {
    let text = EXAMPLE
        .replace(r#""fps":5.0"#, r#""fps":5.0,"novel":{"deep":[1,{"er":null}]}"#)
        .replace(r#""tracker_id":42"#, r#""tracker_id":42,"moods":["calm"],"attributes":{"colour":"red"}"#);
    assert_eq!(
        DetectionEvent::from_json(text.as_bytes()).unwrap(),
        DetectionEvent::from_json(EXAMPLE.as_bytes()).unwrap()
    );
}

#[test]
fn what_is_no_event_is_an_error() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        &EXAMPLE[..EXAMPLE.len() - 1],
        &EXAMPLE.replace(r#""source_id":2"#, r#""source_id":-2"#),
        &EXAMPLE.replace(r#""source_id":2"#, r#""source_id":"2""#),
        &EXAMPLE.replace("\"ntp\"", "\"sundial\""),
        &EXAMPLE.replace(r#""detections":["#, &format!(r#""detections":[{deep},"#)),
    ] {
        assert!(DetectionEvent::from_json(bad.as_bytes()).is_err(), "{}", &bad[..bad.len().min(80)]);
    }
    let ignored = EXAMPLE.replace(r#""detections":["#, &format!(r#""x":{deep},"detections":["#));
    assert!(DetectionEvent::from_json(ignored.as_bytes()).is_ok());
    assert!(DetectionEvent::from_json(b"\xff\xfe{}").is_err());
    assert!(DetectionEvent::from_json(&vec![b' '; MAX_BYTES + 1]).is_err());
    // Arrays nested without end, and an array that claims four thousand million entries.
    for bad in [&vec![0x91; 100_000][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[]] {
        assert!(DetectionEvent::from_msgpack(bad).is_err());
    }
}

#[test]
fn timestamps_are_rfc_3339_in_milliseconds() {
    for (ns, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (999_999, "1970-01-01T00:00:00.000Z"),
        (1_761_388_200_123_999_999, "2025-10-25T10:30:00.123Z"),
        (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000Z"),
        (u64::MAX, "2554-07-21T23:34:33.709Z"),
    ] {
        assert_eq!(timestamp(ns).to_string(), text);
        assert_eq!(parse_timestamp(text), Some(ns / 1_000_000 * 1_000_000));
    }
    assert_eq!(parse_timestamp("2025-10-25T12:30:00.123+02:00"), Some(1_761_388_200_123_000_000));
    for bad in ["", "now", "1969-12-31T23:59:59Z", "2025-10-25T10:30:00", "9999999999999"] {
        assert_eq!(parse_timestamp(bad), None, "{bad}");
    }
}

fn arbitrary() -> impl Strategy<Value = Vec<Detection>> {
    let one = (
        ".{0,20}",
        any::<Option<u32>>(),
        any::<f32>(),
        (any::<f32>(), any::<f32>(), any::<f32>(), any::<f32>()),
        any::<Option<u64>>(),
    );
    let one = one.prop_map(|(name, class_id, confidence, r, tracker_id)| Detection {
        class_name: name.as_str().into(),
        class_id,
        confidence,
        rect: Rect::new(r.0, r.1, r.2, r.3),
        tracker_id,
    });
    proptest::collection::vec(one, 0..5)
}

proptest! {
    #[test]
    fn whatever_is_written_can_be_read(
        list in arbitrary(), instance_id in ".{0,40}", unix_ns in any::<u64>(), ms in -1e6f64..1e6,
        width in 0u32..5000, height in 0u32..5000,
    ) {
        let capture = CaptureTime { unix_ns, clock: Clock::Arrival };
        let frame = Frame { instance_id: &instance_id, capture, inference_time_ms: ms, width, height, ..frame(&list) };
        let event = DetectionEvent::from_json(json(&frame).as_bytes()).unwrap();
        prop_assert_eq!(&event, &DetectionEvent::from_msgpack(&encode(&frame, Encoding::Msgpack)).unwrap());
        prop_assert_eq!(&event.instance_id, &instance_id);
        for d in &event.detections {
            prop_assert!(d.bbox.width > 0.0 && d.bbox.height > 0.0);
            if width > 0 && height > 0 {
                prop_assert!(d.bbox.x >= 0.0 && d.bbox.x + d.bbox.width <= f64::from(width) + 0.001);
                prop_assert!(d.bbox.y >= 0.0 && d.bbox.y + d.bbox.height <= f64::from(height) + 0.001);
            }
        }
        let text = encode(&frame, Encoding::DlStreamer);
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn mutated_payloads_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        for mut bytes in [EXAMPLE.as_bytes().to_vec(), encode(&frame(&[person()]), Encoding::Msgpack)] {
            for (index, value) in &edits {
                let i = index.index(bytes.len());
                bytes[i] = *value;
            }
            let _ = DetectionEvent::from_json(&bytes);
            let _ = DetectionEvent::from_msgpack(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            let _ = DetectionEvent::from_json(&bytes);
            let _ = DetectionEvent::from_msgpack(&bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = DetectionEvent::from_json(&bytes);
        let _ = DetectionEvent::from_msgpack(&bytes);
    }
}
