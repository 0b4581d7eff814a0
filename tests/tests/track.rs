//! The tracker against labelled sequences and against the ground truth of `nvrtestsrc`.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstnvr::meta;
use nvr_tests::{
    data,
    mot::{self, Frames, MotScore},
};

fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// Figures that the authors of the file state.
#[test]
fn the_scorer_gives_known_figures() {
    let Some(folder) = data::shared("mot/TUD-Campus") else { return };
    let truth = mot::Sequence::load(&folder).unwrap().truth;
    let found = mot::load_frames(&folder.join("res_scorercheck.txt")).unwrap();
    let score = mot::score(&truth, &found);
    assert_eq!(
        (format!("{:.3}", score.mota), format!("{:.3}", score.idf1)),
        ("0.526".into(), "0.558".into())
    );
    assert_eq!(score.switches, 7);
    let perfect = mot::score(&truth, &truth);
    assert_eq!((perfect.mota, perfect.idf1, perfect.switches), (1.0, 1.0, 0));
}

#[test]
fn as_good_as_the_reference_on_every_sequence_and_the_page_says_so() {
    let Some(root) = data::shared("mot") else { return };
    let lines = mot::compare(&root, &data::own("reference/tracking.json")).unwrap();
    let table = mot::table(&lines);
    print!("{table}");
    let rounded = |v: f64| (v * 1000.0).round();
    for line in &lines {
        let published = &line.reference[0];
        assert!(rounded(line.ours.mota) >= rounded(published.mota), "{line:?}");
        assert!(rounded(line.ours.idf1) >= rounded(published.idf1), "{line:?}");
    }
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ref/tracking-accuracy.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&table), "docs/ref/tracking-accuracy.md is out of date; the table is\n{table}");
}

/// Follows the objects of the test camera and scores that against what it knows.
fn follow(fps: i32, frames: i32, tracker: &str) -> MotScore {
    init();
    let pipeline = gst::parse::launch(&format!(
        "nvrtestsrc name=src is-live=false seed=5 scene=street objects=6 num-buffers={frames} ! \
         video/x-raw,format=GRAY8,width=640,height=360,framerate={fps}/1 ! {tracker} ! fakesink name=sink"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let watch = |name: &str, pad: &str| {
        let seen = Arc::new(Mutex::new(Frames::new()));
        let frames = seen.clone();
        let pad = pipeline.by_name(name).unwrap().static_pad(pad).unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                let found = meta::read(buffer);
                let boxes = found.detections.iter().filter_map(|d| Some((d.tracker_id?, d.rect))).collect();
                frames.lock().unwrap().insert(found.facts.frame_id.unwrap() as u32, boxes);
            }
            gst::PadProbeReturn::Ok
        });
        seen
    };
    let (truth, found) = (watch("src", "src"), watch("sink", "sink"));
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(
            gst::ClockTime::from_seconds(120),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        )
        .expect("the end of the stream");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let (truth, found) = (truth.lock().unwrap(), found.lock().unwrap());
    assert_eq!(truth.len(), frames as usize);
    mot::score(&truth, &found)
}

/// People, dogs and cars that cross and cover one another, at the rate of a video and at that of a slow analysis.
#[test]
fn objects_of_the_test_camera_are_followed_at_any_rate() {
    for (fps, frames, least_mota, least_idf1) in
        [(25, 500, 0.98, 0.97), (5, 200, 0.95, 0.95), (1, 90, 0.75, 0.75)]
    {
        let score = follow(fps, frames, "nvrtrack");
        println!("{fps} fps: {score:?}");
        assert!(score.mota >= least_mota && score.idf1 >= least_idf1, "{fps} fps: {score:?}");
    }
    let plain = follow(25, 500, "nvrtrack algorithm=iou");
    println!("iou: {plain:?}");
    assert!(plain.idf1 > 0.9, "{plain:?}");
}
