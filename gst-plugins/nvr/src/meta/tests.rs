use gst_video::VideoRegionOfInterestMeta;
use nvr_core::geometry::Rect;
use proptest::prelude::*;

use super::*;

fn detection(name: &str, rect: Rect, tracker_id: Option<u64>) -> Detection {
    Detection { class_name: name.into(), class_id: Some(2), confidence: 0.875, rect, tracker_id }
}

fn full_facts() -> FrameFacts {
    FrameFacts {
        frame_id: Some(u64::MAX),
        capture: Some(CaptureTime { unix_ns: 1_761_388_200_123_456_789, clock: Clock::Ntp }),
        analysis: Some(Analysis {
            model_id: "yolox-nano".into(),
            inference_time_ms: 14.25,
            capture: Some(CaptureTime { unix_ns: 7, clock: Clock::Arrival }),
            frame_id: Some(12),
        }),
    }
}

#[test]
fn facts_are_merged_and_survive_a_copy() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    assert_eq!(facts(&buffer), FrameFacts::default());

    let all = full_facts();
    let (ids, analysis) = (
        FrameFacts { analysis: None, ..all.clone() },
        FrameFacts { analysis: all.analysis.clone(), ..FrameFacts::default() },
    );
    set_facts(buffer.make_mut(), &ids);
    assert_eq!(facts(&buffer), ids);
    set_facts(buffer.make_mut(), &analysis);
    assert_eq!(facts(&buffer), all);
    assert_eq!(facts(&buffer.copy()), all);
    assert_eq!(facts(&buffer.copy_deep().unwrap()), all);
    assert_eq!(buffer.iter_meta::<gst::Meta>().count(), 1, "one meta carries everything");
}

#[test]
fn a_newer_analysis_replaces_the_older_one_whole() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    set_facts(buffer.make_mut(), &full_facts());
    let newer = Analysis { model_id: "b".into(), inference_time_ms: 1.0, capture: None, frame_id: None };
    set_facts(buffer.make_mut(), &FrameFacts { analysis: Some(newer.clone()), ..FrameFacts::default() });
    let read = facts(&buffer);
    assert_eq!(read.analysis, Some(newer));
    assert_eq!(read.frame_id, Some(u64::MAX));
}

#[test]
fn capture_time_comes_from_a_reference_timestamp_where_nobody_set_it() {
    gst::init().unwrap();
    let seconds = gst::ClockTime::from_seconds;
    for (caps, timestamp, expected) in [
        ("timestamp/x-ntp", seconds(NTP_TO_UNIX_S + 5), Some(5_000_000_000)),
        ("timestamp/x-unix", seconds(9), Some(9_000_000_000)),
        ("timestamp/x-ntp", seconds(5), None),
        ("timestamp/x-ptp", seconds(9), None),
    ] {
        let mut buffer = gst::Buffer::new();
        let reference = gst::Caps::new_empty_simple(caps);
        gst::ReferenceTimestampMeta::add(buffer.make_mut(), &reference, timestamp, None);
        let time = facts(&buffer).capture;
        assert_eq!(time, expected.map(|unix_ns| CaptureTime { unix_ns, clock: Clock::Ntp }), "{caps}");
        let own = full_facts();
        set_facts(buffer.make_mut(), &own);
        assert_eq!(facts(&buffer).capture, own.capture);
    }
}

#[test]
fn motion_is_a_fact_and_not_a_detection() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    assert_eq!(has_motion(&buffer), None);
    mark_motion(buffer.make_mut(), true);
    assert_eq!(has_motion(&buffer), Some(true));
    mark_motion(buffer.make_mut(), false);
    assert_eq!(has_motion(&buffer), Some(false));
    VideoRegionOfInterestMeta::add(buffer.make_mut(), MOTION, (1, 2, 3, 4));
    assert!(read(&buffer).detections.is_empty());
    assert_eq!(facts(&buffer), FrameFacts::default());
}

#[test]
fn zones_come_back_as_they_went() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    assert_eq!(zones(&buffer), None);
    let list =
        InZones::from([((1 << 53) - 1, vec!["yard \"2\"\0".into()]), (3, vec!["a".into(), "b".into()])]);
    set_zones(buffer.make_mut(), &list);
    assert_eq!(zones(&buffer.copy()), Some(list));
    set_zones(buffer.make_mut(), &InZones::new());
    assert_eq!(zones(&buffer), Some(InZones::new()));
}

#[test]
fn detections_keep_fractions_ids_and_order() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    let first = [
        detection("person", Rect::new(100.25, 50.5, 80.125, 200.75), Some(42)),
        detection("a name with\nodd \"characters\"", Rect::new(0.0, 0.0, 0.25, 0.25), Some((1 << 53) - 1)),
    ];
    let second = [detection("car", Rect::new(1279.5, 719.5, 0.5, 0.5), None)];
    add_detections(buffer.make_mut(), 1280, 720, &first);
    add_detections(buffer.make_mut(), 1280, 720, &second);
    let expected: Vec<_> = first.into_iter().chain(second).collect();
    assert_eq!(read(&buffer).detections, expected);
    assert_eq!(read(&buffer.copy()).detections, expected);
}

#[test]
fn a_class_name_with_a_nul_is_no_panic() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    add_detections(buffer.make_mut(), 64, 64, &[detection("per\0son", Rect::new(0.0, 0.0, 9.0, 9.0), None)]);
    assert_eq!(&*read(&buffer).detections[0].class_name, "person");
}

/// Structures as DL Streamer's gvadetect and gvatrack write them.
#[test]
fn regions_of_other_elements_are_detections() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    {
        let buffer = buffer.make_mut();
        let mut meta = VideoRegionOfInterestMeta::add(buffer, "car", (10, 20, 30, 40));
        meta.add_param(
            gst::Structure::builder("detection")
                .field("confidence", 0.75f64)
                .field("label_id", 7i32)
                .field("x_min", 0.1f64)
                .field("x_max", 0.4f64)
                .field("y_min", 0.2f64)
                .field("y_max", 0.6f64)
                .build(),
        );
        meta.add_param(gst::Structure::builder("object_id").field("id", 5i32).build());
        VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4));
        let mut meta = VideoRegionOfInterestMeta::add(buffer, "", (5, 6, 7, 8));
        meta.add_param(
            gst::Structure::builder("detection")
                .field("label", "dog")
                .field("confidence", f32::NAN)
                .field("label_id", -1i32)
                .build(),
        );
        VideoRegionOfInterestMeta::add(buffer, "nothing", (5, 6, 0, 8));
    }
    let expect = |name: &str, class_id, confidence, rect: [f32; 4], tracker_id| Detection {
        class_name: name.into(),
        class_id,
        confidence,
        rect: Rect::new(rect[0], rect[1], rect[2], rect[3]),
        tracker_id,
    };
    assert_eq!(
        read(&buffer).detections,
        [
            expect("car", Some(7), 0.75, [10.0, 20.0, 30.0, 40.0], Some(5)),
            expect("face", None, 1.0, [1.0, 2.0, 3.0, 4.0], None),
            expect("dog", None, 1.0, [5.0, 6.0, 7.0, 8.0], None),
        ]
    );
}

/// What a DL Streamer consumer reads from ours.
#[test]
fn regions_carry_the_structures_of_dl_streamer() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    let d = detection("person", Rect::new(320.5, 180.0, 639.5, 360.0), Some(3));
    roi::add(buffer.make_mut(), 1280, 720, &[d]);
    let meta = buffer.meta::<VideoRegionOfInterestMeta>().unwrap();
    assert_eq!(meta.roi_type(), "person");
    let s = meta.param("detection").unwrap();
    for (name, expected) in
        [("x_min", 320.5 / 1280.0), ("x_max", 0.75), ("y_min", 0.25), ("y_max", 0.75), ("confidence", 0.875)]
    {
        assert_eq!(s.get::<f64>(name).unwrap(), expected, "{name}");
    }
    assert_eq!(s.get::<i32>("label_id").unwrap(), 2);
    assert_eq!(meta.param("object_id").unwrap().get::<i32>("id").unwrap(), 3);
}

#[test]
fn facts_and_boxes_follow_a_scaled_frame() {
    gst::init().unwrap();
    let mut harness =
        gst_check::Harness::new_parse("videoscale ! capsfilter caps=video/x-raw,width=320,height=180");
    harness.set_src_caps(
        gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 640, 360)
            .fps(gst::Fraction::new(25, 1))
            .build()
            .and_then(|info| info.to_caps())
            .unwrap(),
    );
    let mut buffer = gst::Buffer::with_size(640 * 360 * 3 / 2).unwrap();
    {
        let buffer = buffer.make_mut();
        buffer.set_pts(gst::ClockTime::ZERO);
        set_facts(buffer, &full_facts());
        mark_motion(buffer, true);
        add_detections(
            buffer,
            640,
            360,
            &[detection("person", Rect::new(100.25, 50.0, 80.0, 200.0), Some(1))],
        );
    }
    let scaled = harness.push_and_pull(buffer).unwrap();
    assert_eq!(facts(&scaled), full_facts());
    assert_eq!(has_motion(&scaled), Some(true));
    let found = read(&scaled).detections;
    assert_eq!(found.len(), 1);
    assert_eq!(&*found[0].class_name, "person");
    assert_eq!((found[0].tracker_id, found[0].class_id, found[0].confidence), (Some(1), Some(2), 0.875));
    // Whether the analytics meta is scaled along depends on the release of GStreamer.
    let expected = Rect::new(50.0, 25.0, 40.0, 100.0);
    let moved = found[0].rect.iou(&expected) > 0.95;
    assert!(moved || cfg!(feature = "analytics"), "{:?}", found[0].rect);
}

#[cfg(feature = "analytics")]
#[test]
fn an_object_described_by_both_kinds_of_meta_is_one_detection() {
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    let d = detection("person", Rect::new(10.0, 20.0, 30.0, 40.0), Some(1));
    add_detections(buffer.make_mut(), 640, 360, std::slice::from_ref(&d));
    VideoRegionOfInterestMeta::add(buffer.make_mut(), "person", (10, 20, 30, 40));
    VideoRegionOfInterestMeta::add(buffer.make_mut(), "car", (10, 20, 30, 40));
    let names: Vec<_> = read(&buffer).detections.into_iter().map(|d| d.class_name).collect();
    assert_eq!(names, ["person".into(), "car".into()]);
}

#[cfg(feature = "analytics")]
#[test]
fn what_others_have_said_of_an_object_stays() {
    use gst_analytics::*;
    gst::init().unwrap();
    let mut buffer = gst::Buffer::new();
    {
        let mut meta = AnalyticsRelationMeta::add(buffer.make_mut());
        let quark = |name| gst::glib::Quark::from_str(name);
        let car = meta.add_od_mtd(quark("car"), 10, 20, 30, 40, 0.75).unwrap().id();
        meta.add_od_mtd(quark("dog"), 100, 20, 30, 40, 0.5).unwrap();
        let red = meta.add_one_cls_mtd(0.9, quark("red")).unwrap().id();
        meta.set_relation(RelTypes::RELATE_TO, car, red).unwrap();
    }
    let before = read(&buffer).detections;
    let after = [Some(Detection { tracker_id: Some(7), ..before[0].clone() }), None];
    replace_detections(buffer.make_mut(), 640, 360, &before, &after);
    let found = read(&buffer).detections;
    assert_eq!(found, [after[0].clone().unwrap()]);
    let classes = |buffer: &gst::BufferRef| {
        buffer.meta::<AnalyticsRelationMeta>().unwrap().iter::<AnalyticsClassificationMtd>().count()
    };
    assert_eq!(classes(&buffer), 1);
    // Once more: the tracker has lost it, and gives it another id.
    for id in [None, Some(8)] {
        let before = read(&buffer).detections;
        let after = [Some(Detection { tracker_id: id, ..before[0].clone() })];
        replace_detections(buffer.make_mut(), 640, 360, &before, &after);
        assert_eq!(read(&buffer).detections, [after[0].clone().unwrap()]);
    }
    assert_eq!(classes(&buffer), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn detections_come_back_as_they_went(
        list in proptest::collection::vec(
            ("[a-z ]{1,12}", 0f32..1900.0, 0f32..1000.0, 0.01f32..300.0, 0.01f32..300.0, 0f32..=1.0,
             proptest::option::of(0u32..2_000_000), proptest::option::of(0u64..1 << 53)),
            0..20),
    ) {
        gst::init().unwrap();
        let list: Vec<_> = list.into_iter().filter(|d| d.0 != MOTION).map(|(name, x, y, w, h, confidence, class_id, tracker_id)| Detection {
            class_name: name.as_str().into(),
            class_id,
            confidence,
            rect: Rect::new(x, y, w, h),
            tracker_id,
        }).collect();
        let mut buffer = gst::Buffer::new();
        add_detections(buffer.make_mut(), 1920, 1080, &list);
        prop_assert_eq!(read(&buffer).detections, list);
    }
}
