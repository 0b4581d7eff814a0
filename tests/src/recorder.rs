//! A pipeline with a recorder, and what its recordings are.

use std::path::Path;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstnvr::nvrrecordsink::catalog::{FILE, Recording, Store};
use nvr_core::segment::read::Contents;

use crate::recordings;
pub use crate::recordings::segments;

/// How long anything may take; CI is slow.
pub const TIMEOUT: Duration = Duration::from_mins(1);
/// A camera's picture.
pub const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1";

pub fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// A pipeline with a recorder named `rec`, taken down at the end.
#[derive(Debug)]
pub struct Recorder {
    pub pipeline: gst::Pipeline,
    pub sink: gst::Element,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Recorder {
    pub fn start(description: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("rec").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, sink }
    }

    /// The next message that `wanted` takes. An error of any element is a failure.
    pub fn wait(&self, what: &str, wanted: impl Fn(&gst::Message) -> bool) -> gst::Message {
        let bus = self.pipeline.bus().unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(200)) else { continue };
            if let gst::MessageView::Error(error) = message.view() {
                panic!("{what}: {error:?}");
            }
            if wanted(&message) {
                return message;
            }
        }
        panic!("{what}: not within {TIMEOUT:?}; {:?}", self.sink.property::<gst::Structure>("stats"));
    }

    pub fn state(&self, state: &str) {
        self.wait(state, |message| {
            message.structure().is_some_and(|s| s.name() == "nvr-record-state" && s.get("state") == Ok(state))
        });
    }

    /// Waits until a storage tier is said to be in a state.
    pub fn tier(&self, tier: &str, state: &str) {
        self.wait(&format!("{tier} tier {state}"), |message| {
            message.structure().is_some_and(|s| {
                s.name() == "nvr-tier-state" && s.get("tier") == Ok(tier) && s.get("state") == Ok(state)
            })
        });
    }

    pub fn segment(&self) -> gst::Structure {
        let message = self.wait("a finished segment", |message| {
            message.structure().is_some_and(|s| s.name() == "nvr-segment")
        });
        message.structure().unwrap().to_owned()
    }

    pub fn end(self) {
        self.pipeline.send_event(gst::event::Eos::new());
        self.finished();
    }

    pub fn finished(self) {
        self.wait("the end", |message| message.type_() == gst::MessageType::Eos);
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.sink.property::<gst::Structure>("stats").get(name).unwrap()
    }
}

pub fn contents(path: &Path) -> Contents {
    recordings::contents(path).unwrap()
}

/// Pictures that ffmpeg decodes from a file, which it must do without a complaint.
pub fn played(path: &Path) -> u64 {
    recordings::played(path).unwrap()
}

pub fn catalogue(root: &Path) -> Vec<Recording> {
    Store::existing(&root.join(FILE)).unwrap().page(0, 1000).unwrap()
}

pub fn agrees_with_files(root: &Path) -> Vec<Recording> {
    let rows = catalogue(root);
    let mut named: Vec<_> = rows.iter().map(Recording::file).collect();
    named.sort();
    assert_eq!(named, segments(root));
    for row in &rows {
        let found = contents(&row.file());
        assert_eq!((found.whole, found.size), (row.bytes, row.bytes), "{row:?}");
        assert_eq!(found.frames(), row.frames, "{row:?}");
        assert!(row.end_us.is_some_and(|end| end > row.start_us), "{row:?}");
    }
    rows
}
