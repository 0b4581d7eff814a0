//! What the tests of `nvrsrc` share: clips, and a pipeline that plays a camera and keeps what it says.

use std::{
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_app::AppSink;

/// Generous: the machine may be busy with other tests.
pub const SOON: gst::ClockTime = gst::ClockTime::from_seconds(30);

pub fn init() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// 320×180 at 25 fps; `None`, and said so, where no encoder is installed.
pub fn clip(folder: &Path, frames: u32, gop: u32, b_frames: u32) -> Option<PathBuf> {
    init();
    if gst::ElementFactory::find("x264enc").is_none() {
        eprintln!("skipped: x264enc (gstreamer1.0-plugins-ugly) is not installed");
        return None;
    }
    let file = folder.join("clip.mp4");
    let tune = if b_frames == 0 { "tune=zerolatency" } else { "" };
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers={frames} ! video/x-raw,width=320,height=180,framerate=25/1 \
         ! x264enc {tune} key-int-max={gop} bframes={b_frames} b-adapt=false option-string=scenecut=0 \
         ! mp4mux ! filesink name=sink"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    pipeline.by_name("sink").unwrap().set_property("location", &file);
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(SOON, &kinds).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    Some(file)
}

/// `nvrsrc ! appsink`, and everything that the bus said.
pub struct Player {
    pub pipeline: gst::Pipeline,
    pub source: gst::Element,
    pub sink: AppSink,
    pub said: Vec<String>,
}

impl Player {
    pub fn new(uri: &str, set_up: impl FnOnce(&gst::Element)) -> Self {
        init();
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("nvrsrc").property("uri", uri).build().unwrap();
        set_up(&source);
        // A sink that waits for its first buffer keeps all others waiting, also for one that will not come.
        let sink = AppSink::builder().sync(false).async_(false).build();
        pipeline.add_many([&source, sink.upcast_ref()]).unwrap();
        source.link(&sink).unwrap();
        Self { pipeline, source, sink, said: Vec::new() }
    }

    pub fn play(uri: &str, set_up: impl FnOnce(&gst::Element)) -> Self {
        let player = Self::new(uri, set_up);
        player.pipeline.set_state(gst::State::Playing).unwrap();
        player
    }

    pub fn picture(&self) -> gst::Sample {
        self.sink.try_pull_sample(SOON).expect("a picture")
    }

    /// Waits for a state of the camera; gives its reason.
    pub fn state(&mut self, wanted: &str) -> String {
        let bus = self.pipeline.bus().unwrap();
        let deadline = Instant::now() + Duration::from(SOON);
        while let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(
            deadline.saturating_duration_since(Instant::now()).as_millis() as u64,
        )) {
            self.said.push(format!("{message:?}"));
            match message.view() {
                gst::MessageView::Error(error) => panic!("{error:?}"),
                gst::MessageView::Eos(_) => panic!("the stream ended"),
                _ => {}
            }
            let Some(structure) = message.structure().filter(|s| s.name() == "nvr-source-state") else {
                continue;
            };
            if structure.get::<&str>("state") == Ok(wanted) {
                return structure.get::<&str>("reason").unwrap().to_owned();
            }
        }
        panic!("{wanted} did not come: {:?}", self.said)
    }

    /// Whether everything that was said so far holds `text` somewhere.
    pub fn heard(&mut self, text: &str) -> bool {
        while let Some(message) = self.pipeline.bus().unwrap().pop() {
            self.said.push(format!("{message:?}"));
        }
        self.said.iter().any(|said| said.contains(text))
    }

    /// Requests a pad, with an appsink behind it. `caps` is what that takes.
    pub fn request(&self, name: &str, caps: Option<&str>) -> AppSink {
        let sink = AppSink::builder().sync(false).async_(false).build();
        sink.set_caps(caps.map(|caps| caps.parse().unwrap()).as_ref());
        self.pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        let pad = self.source.request_pad_simple(name).expect("a pad");
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        sink
    }

    /// Takes a requested pad away again, with what is behind it.
    pub fn release(&self, sink: &AppSink) {
        let peer = sink.static_pad("sink").unwrap().peer().unwrap();
        self.source.release_request_pad(&peer);
        sink.set_state(gst::State::Null).unwrap();
        self.pipeline.remove(sink).unwrap();
    }

    pub fn text(&self, name: &str) -> String {
        self.source.property::<gst::Structure>("stats").get(name).unwrap()
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.source.property::<gst::Structure>("stats").get(name).unwrap()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let before = Instant::now();
        self.pipeline.set_state(gst::State::Null).unwrap();
        assert!(before.elapsed() < Duration::from_secs(10), "stopping took {:?}", before.elapsed());
    }
}

pub fn pts(sample: &gst::Sample) -> gst::ClockTime {
    sample.buffer().unwrap().pts().unwrap()
}
