//! `nvrsrc` under observation: every picture that leaves it, everything that it says.

use std::{
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstnvr::meta;
use nvr_core::detection::Clock;
use nvr_launch::fault_lab::{Lab, Spec};
use parking_lot::{Condvar, Mutex};

/// Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn init() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// A lab with one small camera; `None`, and said so, where its encoder is not installed.
pub fn lab(spec: &str) -> Option<(Lab, String)> {
    init();
    let spec: Spec = format!("320x180,fps=25,gop=10,bitrate=300,{spec}").parse().unwrap();
    let lab = Lab::start().unwrap();
    match lab.add_spec(0, &spec) {
        Ok(uri) => Some((lab, uri)),
        Err(error) => {
            eprintln!("skipped: {error:#}");
            None
        }
    }
}

/// Does the same with each of several variants, side by side: nearly all of it is waiting.
pub fn each<'a>(variants: &[&'a str], test: impl Fn(&'a str) + Sync) {
    init();
    std::thread::scope(|scope| {
        for variant in variants {
            let test = &test;
            // Named, so that a failure says which it was.
            std::thread::Builder::new()
                .name((*variant).into())
                .spawn_scoped(scope, move || test(variant))
                .unwrap();
        }
    });
}

/// One picture as it left the source.
#[derive(Clone, Debug)]
pub struct Picture {
    pub pts: gst::ClockTime,
    /// Running time of the pipeline when it came.
    pub now: gst::ClockTime,
    pub frame_id: u64,
    pub clock: Option<Clock>,
    pub width: i32,
    pub discont: bool,
}

/// The pictures of one pad.
#[derive(Default)]
pub struct Pictures {
    list: Mutex<Vec<Picture>>,
    more: Condvar,
}

impl Pictures {
    pub fn of(pad: &gst::Pad) -> Arc<Self> {
        let pictures = Arc::new(Self::default());
        let kept = pictures.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let (Some(buffer), Some(element)) = (info.buffer(), pad.parent_element()) {
                let facts = meta::facts(buffer);
                let width = pad.current_caps().and_then(|caps| caps.structure(0)?.get("width").ok());
                kept.list.lock().push(Picture {
                    pts: buffer.pts().unwrap_or_default(),
                    now: element.current_running_time().unwrap_or_default(),
                    frame_id: facts.frame_id.unwrap_or(u64::MAX),
                    clock: facts.capture.map(|capture| capture.clock),
                    width: width.unwrap_or_default(),
                    discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
                });
                kept.more.notify_all();
            }
            gst::PadProbeReturn::Ok
        });
        pictures
    }

    pub fn count(&self) -> usize {
        self.list.lock().len()
    }

    pub fn all(&self) -> Vec<Picture> {
        self.list.lock().clone()
    }

    /// Waits until the pictures from number `from` on are as wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, from: usize, wanted: impl Fn(&[Picture]) -> bool) -> Vec<Picture> {
        let deadline = Instant::now() + PATIENCE;
        let mut list = self.list.lock();
        while !wanted(&list[from..]) {
            let in_time = !self.more.wait_until(&mut list, deadline).timed_out();
            assert!(
                in_time,
                "{what} did not come; {} pictures, the last {:?}",
                list.len() - from,
                list.last()
            );
        }
        list[from..].to_vec()
    }

    /// Waits for `count` pictures more than there are now.
    #[track_caller]
    pub fn more(&self, count: usize) -> Vec<Picture> {
        self.wait(&format!("{count} pictures"), self.count(), |new| new.len() >= count)
    }
}

/// `nvrsrc ! fakesink`, and everything that the bus said.
pub struct Watch {
    pub pipeline: gst::Pipeline,
    pub source: gst::Element,
    pub pictures: Arc<Pictures>,
    pub said: Vec<String>,
}

impl Watch {
    pub fn play(uri: &str, set_up: impl FnOnce(&gst::Element)) -> Self {
        let watch = Self::new(uri, set_up);
        watch.pipeline.set_state(gst::State::Playing).unwrap();
        watch
    }

    pub fn new(uri: &str, set_up: impl FnOnce(&gst::Element)) -> Self {
        init();
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("nvrsrc").property("uri", uri).build().unwrap();
        source.set_property_from_str("receiver", crate::RECEIVER);
        set_up(&source);
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        pipeline.add_many([&source, &sink]).unwrap();
        source.link(&sink).unwrap();
        let pictures = Pictures::of(&source.static_pad("video").unwrap());
        Self { pipeline, source, pictures, said: Vec::new() }
    }

    /// Requests another pad; gives what comes out of it.
    pub fn request(&self, name: &str) -> Arc<Pictures> {
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false);
        let sink = sink.build().unwrap();
        self.pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        let pad = self.source.request_pad_simple(name).expect("a pad");
        let units = Pictures::of(&pad);
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        units
    }

    /// Waits for a state of the camera; gives its reason.
    #[track_caller]
    pub fn state(&mut self, wanted: &str) -> String {
        self.any_state(&[wanted]).1
    }

    /// Waits for one of several states; gives it and its reason.
    #[track_caller]
    pub fn any_state(&mut self, wanted: &[&str]) -> (String, String) {
        let bus = self.pipeline.bus().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = bus.timed_pop(gst::ClockTime::try_from(left).unwrap());
            let message = message.unwrap_or_else(|| panic!("{wanted:?} did not come: {:#?}", self.said));
            if let Some((state, reason)) = self.hear(&message)
                && wanted.contains(&state.as_str())
            {
                return (state, reason);
            }
        }
    }

    /// Keeps what a message says; the source never fails or ends because of its camera.
    fn hear(&mut self, message: &gst::Message) -> Option<(String, String)> {
        match message.view() {
            gst::MessageView::Error(error) => panic!("{error:?}"),
            gst::MessageView::Eos(_) => panic!("the stream ended"),
            _ => {}
        }
        let structure = message.structure().filter(|s| s.name() == "nvr-source-state")?;
        let state = structure.get::<String>("state").unwrap();
        let reason = structure.get::<String>("reason").unwrap();
        self.said.push(format!("{state}: {reason}"));
        Some((state, reason))
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.source.property::<gst::Structure>("stats").get(name).unwrap()
    }

    /// What holds of every live stream, whatever the camera does. `lag` is how far a picture's time may be from the
    /// time at which it came.
    #[track_caller]
    pub fn check(&self, lag: Duration) {
        let pictures = self.pictures.all();
        for pair in pictures.windows(2) {
            assert!(pair[0].pts < pair[1].pts, "time went back or stood still: {pair:?}");
            assert!(pair[0].frame_id < pair[1].frame_id, "numbers do not grow: {pair:?}");
        }
        for picture in &pictures {
            let off = Duration::from(picture.now.absdiff(picture.pts));
            assert!(off <= lag, "{off:?} between a picture's time and its coming: {picture:?}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let before = Instant::now();
        let _ = self.pipeline.set_state(gst::State::Null);
        let took = before.elapsed();
        assert!(std::thread::panicking() || took < Duration::from_secs(10), "stopping took {took:?}");
    }
}
