//! One camera's trouble is no other camera's: the others are counted picture by picture.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Once},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::prelude::*;
use nvr_launch::{
    fault_lab::{Lab, Options},
    graph::Graph,
    rtsp_server::{Camera, SendHook},
    runtime::{Handle, Instance, Outcome, SourceStatus},
    values::{CommandLine, Plan},
};
use parking_lot::Mutex;

use super::watch::{PATIENCE, Pictures, init};

const GRAPH: &str = r#"
summary = "s"
kind = "k"
[params.server]
type = "string"
help = "h"
[params.uri]
type = "uri"
default = "${server}/${source_id}"
scope = "camera"
live = true
help = "h"
[camera]
launch = "nvrsrc name=src uri=${uri} source-id=${source_id} timeout=2 ! troubletest name=trouble ! fakesink name=out sync=false"
"#;

/// An element that errs, panics, swallows or hangs when it is told to.
mod trouble {
    use std::sync::LazyLock;

    use gst::{glib, prelude::*, subclass::prelude::*};
    use parking_lot::{Condvar, Mutex};

    glib::wrapper! {
        pub struct Trouble(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
    }

    #[derive(Debug)]
    pub struct Imp {
        sink: gst::Pad,
        src: gst::Pad,
        what: Mutex<String>,
        changed: Condvar,
    }

    impl Imp {
        fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let what = self.what.lock().clone();
            match what.as_str() {
                "error" => {
                    gst::element_imp_error!(self, gst::StreamError::Failed, ["told to fail"]);
                    Err(gst::FlowError::Error)
                }
                "panic" => panic!("told to panic"),
                "swallow" => Ok(gst::FlowSuccess::Ok),
                "hang" => {
                    let mut what = self.what.lock();
                    while *what == "hang" {
                        self.changed.wait(&mut what);
                    }
                    Err(gst::FlowError::Flushing)
                }
                _ => self.src.push(buffer),
            }
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "NvrTroubleTest";
        type Type = Trouble;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let sink = gst::Pad::builder_from_template(&class.pad_template("sink").unwrap())
                .chain_function(|_, parent, buffer| {
                    Self::catch_panic_pad_function(
                        parent,
                        || Err(gst::FlowError::Error),
                        |imp| imp.chain(buffer),
                    )
                })
                .flags(gst::PadFlags::PROXY_CAPS)
                .build();
            let src = gst::Pad::from_template(&class.pad_template("src").unwrap());
            Self { sink, src, what: Mutex::default(), changed: Condvar::new() }
        }
    }

    impl ObjectImpl for Imp {
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> =
                LazyLock::new(|| vec![glib::ParamSpecString::builder("what").build()]);
            &PROPERTIES
        }

        fn set_property(&self, _id: usize, value: &glib::Value, _pspec: &glib::ParamSpec) {
            *self.what.lock() = value.get().unwrap();
            self.changed.notify_all();
        }

        fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
            self.what.lock().to_value()
        }

        fn constructed(&self) {
            self.parent_constructed();
            self.obj().add_pad(&self.sink).unwrap();
            self.obj().add_pad(&self.src).unwrap();
        }
    }

    impl GstObjectImpl for Imp {}

    impl ElementImpl for Imp {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new("Trouble", "Test", "Fails as it is told to", "the tests")
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                    .map(|(name, direction)| {
                        let any = gst::Caps::new_any();
                        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &any).unwrap()
                    })
                    .into()
            });
            &TEMPLATES
        }
    }
}

fn register() {
    static REGISTERED: Once = Once::new();
    init();
    REGISTERED.call_once(|| {
        let kind = trouble::Trouble::static_type();
        gst::Element::register(None, "troubletest", gst::Rank::NONE, kind).unwrap();
    });
}

/// Two seconds of 160×120 at 25 fps; `None`, and said so, where no encoder is installed.
fn clip(folder: &Path) -> Option<PathBuf> {
    if gst::ElementFactory::find("x264enc").is_none() {
        eprintln!("skipped: x264enc (gstreamer1.0-plugins-ugly) is not installed");
        return None;
    }
    let file = folder.join("clip.mp4");
    let pipeline = gst::parse::launch(
        "videotestsrc num-buffers=50 ! video/x-raw,width=160,height=120,framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=10 option-string=scenecut=0 ! mp4mux ! filesink name=sink",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    pipeline.by_name("sink").unwrap().set_property("location", &file);
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    Some(file)
}

/// A running instance with its cameras.
struct Site {
    lab: Lab,
    handle: Handle,
    pipeline: gst::Pipeline,
    thread: Option<JoinHandle<Outcome>>,
    sent: Arc<Mutex<BTreeMap<String, u64>>>,
    /// What reaches the end of each branch, and how many frames were under way that never came, at the start.
    out: BTreeMap<u32, (Arc<Pictures>, u64)>,
    _folder: tempfile::TempDir,
}

impl Site {
    fn start(cameras: u32, patience: Duration) -> Option<Self> {
        register();
        let folder = tempfile::tempdir().unwrap();
        let file = clip(folder.path())?;
        let sent = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let hook = SendHook::new({
            let sent = sent.clone();
            move |path, _| *sent.lock().entry(path.trim_matches('/').to_owned()).or_default() += 1
        });
        let lab = Lab::with_options(Options { on_send: Some(hook), ..Options::default() }).unwrap();
        for id in 0..cameras {
            lab.add(id, &Camera::File(file.clone())).unwrap();
        }
        let line = CommandLine {
            streams: Some((0..cameras).collect()),
            values: [("server".into(), format!("rtsp://{}", lab.address()))].into(),
            ..CommandLine::default()
        };
        let plan = Plan::resolve(Graph::parse("t.toml", GRAPH).unwrap(), None, &|_| None, &line).unwrap();
        let mut instance = Instance::new(plan).unwrap();
        instance.set_patience(patience);
        let (handle, pipeline) = (instance.handle(), instance.pipeline().clone());
        instance.start().unwrap();
        let thread = Some(thread::spawn(move || instance.run()));
        let mut site = Self { lab, handle, pipeline, thread, sent, out: BTreeMap::new(), _folder: folder };
        for id in 0..cameras {
            let out = site.element(id, "out").static_pad("sink").unwrap();
            site.out.insert(id, (Pictures::of(&out), 0));
        }
        for id in 0..cameras {
            let under_way = site.under_way(id, 20, |_| false);
            site.out.get_mut(&id).unwrap().1 = under_way;
        }
        Some(site)
    }

    fn element(&self, id: u32, name: &str) -> gst::Element {
        let bin = self.pipeline.by_name(&format!("camera-{id}")).expect("the branch").downcast::<gst::Bin>();
        bin.unwrap().by_name(name).unwrap()
    }

    /// The fewest frames that a camera has sent and the end of its branch does not have, looked at as each of the
    /// next `count` pictures comes, or until it is `enough`.
    fn under_way(&self, id: u32, count: usize, enough: impl Fn(u64) -> bool) -> u64 {
        let pictures = &self.out[&id].0;
        let from = pictures.count();
        let mut fewest = u64::MAX;
        for next in 1..=count {
            pictures.wait("a picture", from, |new| new.len() >= next);
            let received = pictures.count() as u64;
            let sent = self.sent.lock().get(&id.to_string()).copied().unwrap_or_default();
            fewest = fewest.min(sent.saturating_sub(received));
            if enough(fewest) {
                break;
            }
        }
        fewest
    }

    fn source(&self, id: u32) -> SourceStatus {
        let snapshot = self.handle.snapshot().expect("the instance runs");
        snapshot.sources.into_iter().find(|source| source.source_id == id).unwrap()
    }

    #[track_caller]
    fn wait(&self, what: &str, id: u32, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let source = self.source(id);
            if wanted(&source) {
                return source;
            }
            assert!(Instant::now() < deadline, "{what} did not happen: {source:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The branch of `id` is a new one, and pictures come out of it.
    #[track_caller]
    fn is_back(&self, id: u32, old: &gst::Element) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let bin = self.pipeline.by_name(&format!("camera-{id}"));
            if bin.is_some_and(|bin| bin != *old) {
                break;
            }
            assert!(Instant::now() < deadline, "camera {id} was not built anew: {:?}", self.source(id));
            thread::sleep(Duration::from_millis(10));
        }
        let out = self.element(id, "out").static_pad("sink").unwrap();
        Pictures::of(&out).more(5);
    }

    /// Not one picture of the others was lost.
    #[track_caller]
    fn others_lost_nothing(&self, troubled: u32) {
        for (id, (pictures, under_way)) in self.out.iter().filter(|(id, _)| **id != troubled) {
            let now = self.under_way(*id, 50, |now| now <= *under_way);
            assert!(now <= *under_way, "camera {id} lost {} frames", now - under_way);
            let pictures = pictures.all();
            for pair in pictures.windows(2) {
                assert_eq!(pair[0].frame_id + 1, pair[1].frame_id, "camera {id}: {pair:?}");
            }
            let source = self.source(*id);
            assert_eq!((source.reconnects, source.state.as_str()), (0, "playing"), "camera {id}");
        }
    }

    fn stop(mut self) {
        self.handle.stop();
        assert_eq!(self.thread.take().unwrap().join().unwrap(), Outcome::Finished);
    }
}

fn trouble(what: &str, reason: &str) {
    let Some(site) = Site::start(4, Duration::from_secs(3)) else { return };
    let element = site.element(1, "trouble");
    let branch = site.pipeline.by_name("camera-1").unwrap();
    element.set_property("what", what);
    let failed = site.wait("the failure", 1, |source| source.reconnects >= 1);
    let error = failed.error.unwrap_or_default();
    assert!(error.contains(reason), "{error}");
    site.is_back(1, &branch);
    site.others_lost_nothing(1);
    // Lets go of the one that hangs, so that it can be stopped.
    element.set_property("what", "");
    site.stop();
}

#[test]
fn branch_error() {
    trouble("error", "told to fail");
}

#[test]
fn branch_panic() {
    trouble("panic", "anic");
}

#[test]
fn branch_stall() {
    trouble("swallow", "nothing has reached out for 3 s");
}

#[test]
fn branch_hang() {
    trouble("hang", "nothing has reached out for 3 s");
}

#[test]
fn camera_off_for_hours_one_of_twelve() {
    let Some(site) = Site::start(12, Duration::from_secs(3)) else { return };
    site.lab.tell(5, "off").unwrap();
    site.wait("the loss", 5, |source| source.state == "lost");
    // Hours of waiting are attempts: twenty of them, each as the backoff would make it.
    let source = site.element(5, "src");
    let uri: String = source.property("uri");
    for attempt in 1..=20 {
        let before = site.lab.counts(5).connections;
        source.set_property("uri", &uri);
        let made = site.lab.wait(5, PATIENCE, |counts| counts.connections > before);
        assert!(made.is_some(), "attempt {attempt}");
    }
    site.wait("the last failure", 5, |source| source.state == "lost");
    let before = Instant::now();
    site.lab.tell(5, "clear").unwrap();
    site.wait("the return", 5, |source| source.state == "playing");
    assert!(before.elapsed() < Duration::from_secs(6), "one step of the backoff: {:?}", before.elapsed());
    let (pictures, _) = &site.out[&5];
    pictures.more(5);
    site.others_lost_nothing(5);
    site.stop();
}

#[test]
fn hostile_camera_is_trouble_for_its_branch_only() {
    let Some(site) = Site::start(4, Duration::from_secs(3)) else { return };
    for fault in ["sdp garbage", "headers", "corrupt 60 1s", "sdp parameters", "answer 503"] {
        site.lab.tell(2, fault).unwrap();
        let before = site.lab.counts(2).connections;
        site.lab.tell(2, "reset").unwrap();
        site.lab.wait(2, PATIENCE, |counts| counts.connections > before).expect(fault);
    }
    site.lab.tell(2, "clear").unwrap();
    let (pictures, _) = &site.out[&2];
    pictures.more(5);
    site.others_lost_nothing(2);
    site.stop();
}
