//! Lives and zones against the ground truth of `nvrtestsrc`: every object that is there has one life, and every visit to
//! a zone one beginning and one end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstnvr::meta;
use nvr_core::lifecycle::{LifecycleEvent, Phase};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;

fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// Ground truth: for each object, where it stands in each frame that shows it.
type Truth = BTreeMap<u64, Vec<[f64; 2]>>;

/// Runs the test camera through `elements` and gives the truth and the messages: name, type, track, JSON.
fn run(seed: u64, frames: u32, elements: &str, zones: &str) -> (Truth, Vec<(String, String, u64, String)>) {
    init();
    let pipeline = gst::parse::launch(&format!(
        "nvrtestsrc name=src is-live=false seed={seed} objects=3 num-buffers={frames} ! \
         video/x-raw,format=GRAY8,width=640,height=360,framerate=5/1 ! {elements} ! fakesink"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    pipeline.by_name("zones").unwrap().set_property("zones", zones);
    let truth = Arc::new(Mutex::new(Truth::new()));
    let note = truth.clone();
    let pad = pipeline.by_name("src").unwrap().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            for d in meta::read(buffer).detections {
                let foot = [
                    (f64::from(d.rect.x) + f64::from(d.rect.width) / 2.0) / WIDTH,
                    f64::from(d.rect.bottom()) / HEIGHT,
                ];
                note.lock().unwrap().entry(d.tracker_id.unwrap()).or_default().push(foot);
            }
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let mut told = Vec::new();
    loop {
        let message = bus.timed_pop(gst::ClockTime::from_seconds(120)).expect("the end of the stream");
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => panic!("{error:?}"),
            gst::MessageView::Element(element) => {
                let s = element.structure().unwrap();
                let text = |name: &str| s.get::<String>(name).unwrap();
                told.push((s.name().to_string(), text("type"), s.get("tracker-id").unwrap(), text("json")));
            }
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let truth = std::mem::take(&mut *truth.lock().unwrap());
    (truth, told)
}

/// The kinds of messages of one name about one track, in order.
fn kinds<'a>(told: &'a [(String, String, u64, String)], name: &str, track: u64) -> Vec<&'a str> {
    told.iter().filter(|t| t.0 == name && t.2 == track).map(|t| t.1.as_str()).collect()
}

#[test]
fn every_object_and_every_visit_is_told_once() {
    let zone = r#"[{"name":"middle","polygon":[[0.3,0],[0.7,0],[0.7,1],[0.3,1]],"inertia":0},
                   {"name":"line","line":[[0.5,1],[0.5,0]],"inertia":0}]"#;
    let mut visits = 0;
    for seed in 0..4 {
        // Longer than anybody is hidden behind another.
        let elements = "nvrzones name=zones publish=false gone-after=30 min-seen=3 update-interval=0";
        let (truth, told) = run(seed, 400, elements, zone);
        assert!(truth.len() >= 5, "seed {seed}: {} objects", truth.len());
        for (track, feet) in &truth {
            let lives = kinds(&told, "nvr-object", *track);
            if feet.len() < 3 {
                assert_eq!(lives, [""; 0], "seed {seed}, object {track}");
            } else {
                let ends = (lives.first(), lives.last());
                assert_eq!(ends, (Some(&"new"), Some(&"end")), "seed {seed}, object {track}: {lives:?}");
                assert!(lives[1..lives.len() - 1].iter().all(|kind| *kind == "update"), "{lives:?}");
            }
            // By hand: inside is between 0.3 and 0.7, and the line is in the middle.
            let inside: Vec<bool> = feet.iter().map(|foot| (0.3..0.7).contains(&foot[0])).collect();
            let entered = (0..feet.len()).filter(|&n| inside[n] && (n == 0 || !inside[n - 1])).count();
            let crossed = feet.windows(2).filter(|w| (w[0][0] < 0.5) != (w[1][0] < 0.5)).count();
            let reports = kinds(&told, "nvr-zone", *track);
            let count = |kind: &str| reports.iter().filter(|k| **k == kind).count();
            assert_eq!(
                (count("entered"), count("left"), count("crossed")),
                (entered, entered, crossed),
                "seed {seed}, object {track}: {feet:?}"
            );
            visits += entered;
        }
        let tracks: Vec<u64> = told.iter().map(|t| t.2).collect();
        assert!(tracks.iter().all(|track| truth.contains_key(track)), "nobody is made up");
    }
    assert!(visits > 10, "{visits} visits");
}

/// The same behind the tracker, whose ids are others: as many lives as objects, and the best view is one of them.
#[test]
fn tracked_objects_have_as_many_lives_as_there_are_objects() {
    let (truth, told) =
        run(1, 400, "nvrtrack max-lost=5 ! nvrzones name=zones publish=false gone-after=6", "");
    let objects = truth.values().filter(|feet| feet.len() >= 4).count();
    let events: Vec<LifecycleEvent> = told
        .iter()
        .filter(|t| t.0 == "nvr-object")
        .map(|t| serde_json::from_str(&t.3).expect("an event of the protocol"))
        .collect();
    let count = |phase| events.iter().filter(|event| event.phase == phase).count();
    assert_eq!((count(Phase::New), count(Phase::End)), (objects, objects));
    for event in &events {
        assert!(event.best.confidence == 1.0 && event.best.bbox.width > 5.0, "{event:?}");
        assert!(event.start <= event.best.timestamp && event.best.timestamp <= event.timestamp, "{event:?}");
    }
}
