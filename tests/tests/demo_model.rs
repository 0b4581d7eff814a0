//! The built-in model finds what `nvrtestsrc` draws, with seeds that it was not trained on: by day and at night, in
//! every scene, small and large, straight from the source and after H.264 at a modest bit rate.

use std::sync::Once;

use gst::prelude::*;
use gstnvr::meta;
use nvr_core::{
    detection::Detection,
    frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane},
    scene::{Moment, Scene, SceneConfig, SceneKind, Truth, read_timecode},
};

/// Far from the seeds that the model was trained with (from 0) and measured with by its script (from a million).
const FIRST_SEED: u64 = 5_000_000;

/// What `nvrtestsrc is-live=false` calls the beginning: 2026-01-01T00:00:00Z in milliseconds.
const EPOCH_MS: u64 = 1_767_225_600_000;

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer starts");
        gstnvr::plugin_register_static().expect("plugin registers");
    });
}

#[derive(Clone, Copy, Debug, Default)]
struct Score {
    hits: usize,
    missed: usize,
    wrong: usize,
    frames: usize,
}

impl Score {
    fn recall(&self) -> f64 {
        self.hits as f64 / (self.hits + self.missed).max(1) as f64
    }

    fn precision(&self) -> f64 {
        self.hits as f64 / (self.hits + self.wrong).max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.missed += other.missed;
        self.wrong += other.wrong;
        self.frames += other.frames;
    }

    /// One frame, at IoU 0.5. Objects in view that the source does not report count neither way.
    fn frame(&mut self, truth: &[Truth], found: &[Detection]) {
        self.frames += 1;
        let mut free = vec![true; truth.len()];
        let mut found: Vec<_> = found.iter().collect();
        found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        for detection in found {
            let best = truth
                .iter()
                .enumerate()
                .filter(|(n, t)| free[*n] && Some(t.class.id()) == detection.class_id)
                .map(|(n, t)| (n, t.rect.iou(&detection.rect)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            match best {
                Some((n, iou)) if iou >= 0.5 => {
                    free[n] = false;
                    self.hits += usize::from(truth[n].reported);
                }
                _ => {
                    let hidden = truth.iter().filter(|t| !t.reported);
                    let excused = hidden.into_iter().any(|t| t.rect.iou(&detection.rect) > 0.2);
                    self.wrong += usize::from(!excused);
                }
            }
        }
        self.missed += truth.iter().zip(free).filter(|(t, free)| *free && t.reported).count();
    }
}

/// What one run shows.
#[derive(Clone, Debug)]
struct Case {
    scene: SceneConfig,
    framerate: &'static str,
    frames: u32,
    /// Elements between the source and the detector.
    between: &'static str,
    inference_interval: u32,
}

/// Runs a pipeline to its end and compares. `None` where there is no ONNX Runtime.
fn run(case: &Case) -> Option<Score> {
    init();
    let SceneConfig { width, height, objects, kind, seed, night, noise } = case.scene;
    let kind = format!("{kind:?}").to_lowercase();
    let pipeline = gst::parse::launch(&format!(
        "nvrtestsrc is-live=false ground-truth=false num-buffers={} seed={seed} scene={kind} night={night} \
         objects={objects} noise={noise} ! video/x-raw,format=I420,width={width},height={height},framerate={} \
         {} ! nvrinfer model=demo inference-interval={} ! appsink name=sink sync=false max-buffers=4",
        case.frames, case.framerate, case.between, case.inference_interval,
    ))
    .expect("pipeline")
    .downcast::<gst::Pipeline>()
    .expect("a pipeline");
    let sink = pipeline.by_name("sink").and_downcast::<gst_app::AppSink>().expect("appsink");
    let bus = pipeline.bus().expect("bus");
    let mut score = Score::default();
    let mut reference = Scene::new(&case.scene);
    if pipeline.set_state(gst::State::Playing).is_ok() {
        while let Ok(sample) = sink.pull_sample() {
            count(&sample, &mut reference, &mut score);
        }
    }
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).expect("stopped");
    if let Some(message) = error
        && let gst::MessageView::Error(error) = message.view()
    {
        let text = error.error().to_string();
        assert!(text.contains("ONNX Runtime was not found"), "{case:?}: {text} {:?}", error.debug());
        nvr_tests::skipped("ONNX Runtime; `make setup` installs it");
        return None;
    }
    assert!(score.frames > 0, "{case:?}: no frame was analysed");
    Some(score)
}

fn count(sample: &gst::Sample, reference: &mut Scene, score: &mut Score) {
    let buffer = sample.buffer().expect("a buffer");
    let info = gst_video::VideoInfo::from_caps(sample.caps().expect("caps")).expect("raw video");
    let read = meta::read(buffer);
    if read.facts.analysis.is_none() {
        return;
    }
    let (width, height) = (info.width() as usize, info.height() as usize);
    let unix_ms = {
        let video = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("mapped");
        let planes = video.planes_data();
        let strides = gst_video::VideoFrameExt::plane_stride(&video);
        let plane = |n: usize| Plane { data: planes[n], stride: strides[n] as usize };
        read_timecode(&Frame {
            format: PixelFormat::I420,
            width,
            height,
            planes: [plane(0), plane(1), plane(2)],
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
        })
        .expect("the time can be read from the picture")
    };
    let moment = Moment { scene_ns: (unix_ms - EPOCH_MS) * 1_000_000, unix_ms: None };
    let mut scratch = vec![0_u8; width * height];
    let mut frame = nvr_core::scene::FrameMut {
        format: PixelFormat::Gray8,
        width,
        height,
        planes: [
            nvr_core::scene::PlaneMut { data: &mut scratch, stride: width },
            nvr_core::scene::PlaneMut::default(),
            nvr_core::scene::PlaneMut::default(),
        ],
        matrix: ColorMatrix::default(),
        range: ColorRange::default(),
    };
    let truth = reference.render(moment, &mut frame).expect("drawn");
    score.frame(truth, &read.detections);
}

fn check(what: &str, score: Score) {
    let (recall, precision) = (score.recall(), score.precision());
    println!(
        "{what}: recall {recall:.3}, precision {precision:.3}, {} objects in {} frames",
        score.hits + score.missed,
        score.frames
    );
    assert!(score.hits + score.missed > 100, "{what}: too few objects in {score:?}");
    assert!(recall >= 0.95 && precision >= 0.95, "{what}: recall {recall:.3}, precision {precision:.3}");
}

#[test]
fn finds_what_is_drawn_with_seeds_it_was_not_trained_on() {
    for kind in SceneKind::ALL {
        for night in [false, true] {
            let mut total = Score::default();
            for (n, (width, height)) in
                [(640, 360), (1280, 720), (704, 576), (640, 360)].into_iter().enumerate()
            {
                let seed = FIRST_SEED + n as u64;
                let scene = SceneConfig { width, height, kind, night, seed, objects: 4, noise: 2.0 };
                let case = Case { scene, framerate: "1/2", frames: 20, between: "", inference_interval: 1 };
                let Some(score) = run(&case) else { return };
                total.add(score);
            }
            check(&format!("{kind:?} {}", if night { "night" } else { "day" }), total);
        }
    }
}

#[test]
fn finds_what_is_drawn_after_h264() {
    init();
    for name in ["x264enc", "h264parse", "avdec_h264"] {
        if gst::ElementFactory::find(name).is_none() {
            nvr_tests::skipped(name);
            return;
        }
    }
    let mut total = Score::default();
    for (n, kind) in SceneKind::ALL.into_iter().enumerate() {
        for night in [false, true] {
            let seed = FIRST_SEED + 100 + n as u64;
            let scene = SceneConfig { width: 640, height: 360, kind, night, seed, objects: 4, noise: 1.0 };
            let case = Case {
                scene,
                framerate: "25/1",
                frames: 300,
                between: "! x264enc tune=zerolatency speed-preset=veryfast bitrate=1000 key-int-max=50 ! h264parse \
                          ! avdec_h264",
                inference_interval: 15,
            };
            let Some(score) = run(&case) else { return };
            assert_eq!(score.frames, 20, "{kind:?}");
            total.add(score);
        }
    }
    check("640x360 at 1 Mb/s", total);
}
