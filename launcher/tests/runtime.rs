//! The running instance, with GStreamer's own elements: isolation, live changes, rollback, injection.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::prelude::*;
use nvr_launch::{
    graph::{Graph, Value, Values},
    runtime::{Handle, Instance, Outcome, SourceStatus, StartError},
    values::{Camera, CommandLine, Plan},
};
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn plan(text: &str, cameras: u32, values: &[(Option<u32>, &str, &str)]) -> Plan {
    gst::init().unwrap();
    let graph = Graph::parse("test.toml", &format!("summary = \"s\"\nkind = \"k\"\n{text}")).unwrap();
    let mut line =
        CommandLine { streams: graph.camera.is_some().then(|| (0..cameras).collect()), ..Default::default() };
    for (camera, name, value) in values {
        match camera {
            Some(id) => drop(line.camera_values.insert((*id, (*name).into()), (*value).into())),
            None => drop(line.values.insert((*name).into(), (*value).into())),
        }
    }
    Plan::resolve(graph, None, &|_| None, &line).unwrap()
}

/// Waits for something that another thread brings about.
fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

struct Running {
    handle: Handle,
    pipeline: gst::Pipeline,
    thread: JoinHandle<Outcome>,
}

impl Running {
    fn start(plan: Plan) -> Result<Self, StartError> {
        let mut instance = Instance::new(plan)?;
        let (handle, pipeline) = (instance.handle(), instance.pipeline().clone());
        instance.start()?;
        Ok(Self { handle, pipeline, thread: thread::spawn(move || instance.run()) })
    }

    fn bin(&self, id: u32) -> Option<gst::Element> {
        self.pipeline.by_name(&format!("camera-{id}"))
    }

    fn element(&self, id: u32, name: &str) -> gst::Element {
        self.bin(id).and_then(|bin| bin.downcast::<gst::Bin>().ok()?.by_name(name)).unwrap()
    }

    fn source(&self, id: u32) -> Option<SourceStatus> {
        self.handle.snapshot()?.sources.into_iter().find(|source| source.source_id == id)
    }

    fn stop(self) -> Outcome {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

const FAULTY: &str = r#"
[params.error_after]
type = "int"
default = -1
scope = "camera"
help = "h"
[camera]
launch = "videotestsrc is-live=true ! identity name=fault error-after=${error_after} ! fakesink name=out"
"#;

#[test]
fn a_failing_camera_is_rebuilt_and_the_others_go_on_untouched() {
    let running = Running::start(plan(FAULTY, 3, &[(Some(1), "error_after", "3")])).unwrap();
    let others: Vec<_> = [0, 2].map(|id| running.bin(id).unwrap()).to_vec();
    let failed = wait_for("the failure", || running.source(1).filter(|source| source.reconnects >= 1));
    assert_eq!(failed.state, "failed");
    assert!(
        failed.error.as_deref().is_some_and(|error| error.contains("Failed after iterations")),
        "{failed:?}"
    );
    // One backoff step later it is there again, and fails again.
    wait_for("the second failure", || running.source(1).filter(|source| source.reconnects >= 2));
    for (id, bin) in [0, 2].into_iter().zip(others) {
        assert_eq!(running.bin(id).unwrap(), bin);
        assert_eq!(bin.current_state(), gst::State::Playing);
        assert_eq!(running.source(id).unwrap().reconnects, 0);
    }
    assert_eq!(running.stop(), Outcome::Finished);
}

const LIVE: &str = r#"
[params.volume]
type = "float"
default = 1.0
min = 0.0
max = 10.0
live = true
scope = "camera"
help = "h"
[params.sleep]
type = "int"
default = 0
live = true
help = "h"
[params.location]
type = "string"
default = "/dev/zero"
live = true
remote = true
scope = "camera"
help = "h"
[params.fixed]
type = "bool"
default = true
help = "h"
[camera]
launch = """
  audiotestsrc is-live=true ! volume name=volume volume=${volume} ! fakesink
  filesrc location=${location} blocksize=64 ! identity name=pace sleep-time=${sleep} silent=${fixed} ! fakesink
"""
"#;

fn changes(name: &str, value: Value) -> Vec<(String, Value)> {
    vec![(name.into(), value)]
}

#[test]
fn live_parameters_set_exactly_their_properties() {
    let running = Running::start(plan(LIVE, 2, &[(None, "sleep", "1000")])).unwrap();
    let bins: Vec<_> = [0, 1].map(|id| running.bin(id).unwrap()).to_vec();
    let volume = |id| running.element(id, "volume").property::<f64>("volume");
    running.handle.set(Some(1), changes("volume", Value::Float(3.0))).unwrap();
    assert_eq!((volume(0), volume(1)), (1.0, 3.0));
    running.handle.set(None, changes("volume", Value::Int(4))).unwrap();
    assert_eq!((volume(0), volume(1)), (4.0, 4.0));
    assert_eq!([0, 1].map(|id| running.bin(id).unwrap()).to_vec(), bins, "nothing was rebuilt");
    // A property that does not change while playing: the branch is built again with the new value.
    running.handle.set(None, changes("sleep", Value::Int(2000))).unwrap();
    assert_eq!(running.element(0, "pace").property::<u32>("sleep-time"), 2000);
    assert_ne!(running.bin(0).unwrap(), bins[0]);
    assert_eq!(volume(1), 4.0, "what was set before is kept");
    assert_eq!(running.stop(), Outcome::Finished);
}

#[test]
fn a_change_that_fails_leaves_everything_as_it_was() {
    let running = Running::start(plan(LIVE, 2, &[(None, "sleep", "1000")])).unwrap();
    let volume = |id| running.element(id, "volume").property::<f64>("volume");
    for (camera, list, part) in [
        (None, changes("volume", Value::Float(11.0)), "volume must be a number from 0 to 10, got 11"),
        (
            None,
            changes("volume", Value::Text("loud".into())),
            "volume must be a number from 0 to 10, got \"loud\"",
        ),
        (None, changes("volumme", Value::Float(1.0)), "did you mean \"volume\"?"),
        (None, changes("fixed", Value::Bool(false)), "cannot change while the graph runs"),
        (Some(7), changes("volume", Value::Float(1.0)), "there is no camera 7"),
        (Some(0), changes("sleep", Value::Int(1)), "one value for all cameras"),
        // The file is missing: the branch does not start with it.
        (
            Some(1),
            vec![
                ("volume".into(), Value::Float(9.0)),
                ("location".into(), Value::Text("/nonexistent/file".into())),
            ],
            "nonexistent",
        ),
    ] {
        let message = running.handle.set(camera, list).unwrap_err();
        assert!(message.contains(part), "{part}: {message}");
        assert_eq!((volume(0), volume(1)), (1.0, 1.0), "{part}");
    }
    let source = running.source(1).unwrap();
    assert_ne!(source.state, "failed", "{source:?}");
    // The first camera's branch does not start with it: the second one's was never touched.
    let other = running.bin(1).unwrap();
    let message = running.handle.set(None, changes("location", Value::Text("/nonexistent/file".into())));
    assert!(message.is_err_and(|message| message.contains("nonexistent")));
    assert_eq!(running.bin(1).unwrap(), other);
    assert!(running.handle.stop(), "nothing is too full for that");
    assert!(!running.handle.stop(), "it is ending already");
    assert_eq!(running.stop(), Outcome::Finished);
}

const SHARED: &str = r#"
[camera]
launch = "videotestsrc is-live=true num-buffers=-1 ! queue ! mix."
[graph]
launch = "funnel name=mix ! fakesink name=out async=false"
"#;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn branches_come_and_go_in_a_shared_graph() {
    let running = Running::start(plan(SHARED, 2, &[])).unwrap();
    let mix = running.pipeline.by_name("mix").unwrap();
    assert_eq!(mix.num_sink_pads(), 2);
    assert!(running.handle.add_stream(Camera::new(1), Values::new()).unwrap_err().contains("exists already"));
    assert!(running.handle.remove_stream(9).unwrap_err().contains("no camera 9"));
    let gone = |id| wait_for("the end of a branch", || running.source(id).is_none().then_some(()));
    let mut before = 0;
    for round in 0..30 {
        running.handle.add_stream(Camera::new(7), Values::new()).unwrap();
        assert_eq!(mix.num_sink_pads(), 3);
        running.handle.remove_stream(7).unwrap();
        gone(7);
        assert_eq!(mix.num_sink_pads(), 2);
        assert!(running.bin(7).is_none());
        if round == 5 {
            before = threads();
        }
    }
    // Other tests of this process come and go too; thirty leaked branches would be sixty threads.
    assert!(threads() < before + 40, "{before} threads became {}", threads());
    running.handle.restart(Some(0)).unwrap();
    wait_for("camera 0 to be back", || running.source(0).filter(|source| source.state == "starting"));
    assert_eq!(running.stop(), Outcome::Finished);
}

/// An element that takes a second to stop, as one does that finishes a file.
mod slow {
    use std::{
        collections::BTreeSet,
        sync::{LazyLock, Mutex},
        thread,
        time::Duration,
    };

    use gst::{glib, prelude::*, subclass::prelude::*};

    /// The branches whose element has stopped.
    pub static STOPPED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    /// Held for as long as an element called `held` is not to stop.
    pub static HOLD: Mutex<()> = Mutex::new(());

    #[derive(Debug, Default)]
    pub struct Slow;

    #[glib::object_subclass]
    impl ObjectSubclass for Slow {
        const NAME: &'static str = "TestSlow";
        type Type = Element;
        type ParentType = gst::Element;
    }

    impl ObjectImpl for Slow {}
    impl GstObjectImpl for Slow {}
    impl ElementImpl for Slow {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new("Slow", "Generic", "Stops slowly", "Test")
            });
            Some(&METADATA)
        }

        fn change_state(
            &self,
            transition: gst::StateChange,
        ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if transition == gst::StateChange::ReadyToNull {
                if self.obj().name() == "held" {
                    drop(HOLD.lock());
                } else {
                    thread::sleep(Duration::from_secs(1));
                    let branch = self.obj().parent().map(|parent| parent.name().to_string());
                    STOPPED.lock().unwrap().extend(branch);
                }
            }
            self.parent_change_state(transition)
        }
    }

    glib::wrapper! {
        pub struct Element(ObjectSubclass<Slow>) @extends gst::Element, gst::Object;
    }

    pub fn register() {
        gst::init().unwrap();
        gst::Element::register(None, "testslow", gst::Rank::NONE, Element::static_type()).unwrap();
    }
}

#[test]
fn the_end_waits_for_a_branch_that_is_being_stopped() {
    slow::register();
    let graph = "[camera]\nlaunch = \"videotestsrc is-live=true ! fakesink testslow name=slow\"\n";
    let running = Running::start(plan(graph, 1, &[])).unwrap();
    // Nothing else is there that the end would wait for.
    running.handle.remove_stream(0).unwrap();
    assert_eq!(running.stop(), Outcome::Finished);
    let stopped: Vec<String> = slow::STOPPED.lock().unwrap().iter().cloned().collect();
    assert_eq!(stopped, ["camera-0"], "its last file would have been cut off");
}

#[test]
fn a_branch_that_does_not_start_and_hangs_holds_up_nobody() {
    slow::register();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let graph = r#"
[params.location]
type = "string"
default = "/dev/zero"
scope = "camera"
help = "h"
[camera]
launch = "filesrc location=${location} ! identity sleep-time=20000 ! fakesink testslow name=held"
"#;
    let hold = slow::HOLD.lock().unwrap();
    let values = [(Some(1), "location", file.to_str().unwrap())];
    let running = Running::start(plan(graph, 2, &values)).unwrap();
    // It does not start, and its other element does not stop; the instance answers all the same.
    wait_for("the failure", || running.source(1).filter(|source| source.error.is_some()));
    assert!(running.bin(1).is_none());
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    drop(hold);
    wait_for("the rebuild", || running.bin(1).filter(|bin| bin.current_state() == gst::State::Playing));
    assert_eq!(running.stop(), Outcome::Finished);
}

#[test]
fn what_belongs_to_all_cameras_and_cannot_change_is_refused() {
    let graph = r#"
[params.sleep]
type = "int"
default = 0
live = true
help = "h"
[camera]
launch = "videotestsrc is-live=true ! queue ! mix."
[graph]
launch = "funnel name=mix ! identity name=pace sleep-time=${sleep} ! fakesink async=false"
"#;
    let running = Running::start(plan(graph, 1, &[])).unwrap();
    let message = running.handle.set(None, changes("sleep", Value::Int(5))).unwrap_err();
    assert!(message.contains("shared part"), "{message}");
    assert_eq!(running.pipeline.by_name("pace").unwrap().property::<u32>("sleep-time"), 0);
    assert_eq!(running.stop(), Outcome::Finished);
}

const CAMERA: &str = r#"
[params.uri]
type = "string"
scope = "camera"
remote = true
help = "h"
[camera]
launch = "nvrsrc name=camera source-id=${source_id} uri=${uri} ! fakesink name=out"
"#;

/// A control plane announces a change of state because of the very message that the instance has yet to read. What it
/// is told then must not be the state of before: nothing would correct it.
#[test]
fn a_status_asked_for_because_of_a_message_knows_what_the_message_says() {
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    let running = Running::start(plan(CAMERA, 1, &[(Some(0), "uri", "testsrc:")])).unwrap();
    let bus = running.pipeline.bus().unwrap();
    bus.enable_sync_message_emission();
    let (told, states) = std::sync::mpsc::channel();
    let handle = running.handle.clone();
    // Called before the message is on the bus.
    let watch = bus.connect_sync_message(None, move |_, message| {
        let Some(said) = message.structure().filter(|s| s.name() == "nvr-source-state") else { return };
        let (id, state) = (said.get::<u32>("source-id").unwrap(), said.get::<String>("state").unwrap());
        let snapshot = handle.snapshot().unwrap();
        let source = snapshot.sources.into_iter().find(|source| source.source_id == id);
        let _ = told.send((id, state, source));
    });
    let values = Values::from_iter([("uri".to_owned(), Value::Text("testsrc:".into()))]);
    running.handle.add_stream(Camera { id: 7, name: "Gate".into() }, values).unwrap();
    loop {
        let (id, said, source) = states.recv_timeout(PATIENCE).expect("camera 7 plays");
        let source = source.unwrap();
        assert_eq!((source.state, source.error), (said.clone(), None), "camera {id}");
        if id == 7 && said == "playing" {
            break;
        }
    }
    bus.disconnect(watch);
    bus.disable_sync_message_emission();
    assert_eq!(running.stop(), Outcome::Finished);
}

#[test]
fn what_cannot_start_says_why() {
    let missing = r#"
[camera]
launch = "filesrc location=/nonexistent/file ! fakesink"
"#;
    let error = Running::start(plan(missing, 2, &[])).err().unwrap();
    assert!(matches!(&error, StartError::Start(message) if message.contains("/nonexistent/file")), "{error}");
    let wrong = "[params.x]\ntype = \"int\"\ndefault = -5\nhelp = \"h\"\n[camera]\nlaunch = \"fakesrc ! queue max-size-buffers=${x} ! fakesink\"\n";
    let error = Running::start(plan(wrong, 1, &[])).err().unwrap();
    assert!(
        matches!(&error, StartError::Configuration(message) if message.contains("whole number from 0")),
        "{error}"
    );
    let unknown = "[camera]\nlaunch = \"fakesrc ! fakesnk\"\n";
    assert!(matches!(Running::start(plan(unknown, 1, &[])), Err(StartError::Configuration(_))));
}

#[test]
fn an_error_outside_the_branches_ends_the_instance() {
    let graph = "[graph]\nlaunch = \"videotestsrc ! identity error-after=3 ! fakesink\"\n";
    let running = Running::start(plan(graph, 0, &[])).unwrap();
    assert!(
        matches!(running.thread.join().unwrap(), Outcome::Failed(message) if message.contains("iterations"))
    );
}

#[test]
fn the_end_of_every_source_is_the_end() {
    let graph = "[camera]\nlaunch = \"videotestsrc num-buffers=5 ! fakesink\"\n";
    let running = Running::start(plan(graph, 3, &[])).unwrap();
    assert_eq!(running.thread.join().unwrap(), Outcome::Finished);
}

const TEXTS: &str = r#"
[params.name]
type = "string"
help = "h"
[params.uri]
type = "uri"
default = "rtsp://x/${source_id}"
scope = "camera"
live = true
help = "h"
[camera]
launch = """
  fakesrc num-buffers=0 ! filesink name=one location=${name} sync=false
  fakesrc num-buffers=0 ! filesink name=two location="dir with space/${name}-${source_id}.mp4" sync=false
  fakesrc num-buffers=0 ! filesink name=three location=${uri} sync=false
"""
"#;

/// Every element with its properties as text, but for the three that values go into.
fn shape(pipeline: &gst::Pipeline) -> Vec<String> {
    let mut elements: Vec<String> = pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .map(|element| {
            let sync = element.has_property("sync").then(|| element.property::<bool>("sync"));
            format!(
                "{} {} {sync:?}",
                element.factory().map_or_else(String::new, |f| f.name().to_string()),
                element.name()
            )
        })
        .collect();
    elements.sort();
    elements
}

fn locations(value: &str) -> (Vec<String>, [String; 3]) {
    let mut instance = Instance::new(plan(TEXTS, 1, &[(None, "name", value)])).unwrap();
    instance.build_all().unwrap();
    let location = |name: &str| {
        let element = instance.pipeline().by_name(name).unwrap();
        element.property::<Option<String>>("location").unwrap_or_default()
    };
    (shape(instance.pipeline()), ["one", "two", "three"].map(location))
}

#[test]
fn hostile_values_stay_values() {
    let (expected, _) = locations("plain");
    for value in [
        "! fakesink",
        "a ! filesink location=/etc/passwd",
        "\" ! fakesink name=\"x",
        "' ! fakesink '",
        "x sync=true",
        "${uri}",
        "${env:HOME}",
        "\n! fakesink\n",
        "a\\ b\\\"c",
        ") ! (",
        "x name=two",
        "#\u{202e}%s\t",
    ] {
        let (shape, locations) = locations(value);
        assert_eq!(shape, expected, "{value:?}");
        assert_eq!(locations[0], value);
        assert_eq!(locations[1], format!("dir with space/{value}-0.mp4"));
    }
    let graph = Graph::parse("t", &format!("summary = \"s\"\nkind = \"k\"\n{TEXTS}")).unwrap();
    let line = CommandLine { values: [("name".into(), "a\0b".into())].into(), ..Default::default() };
    let error = Plan::resolve(graph, None, &|_| None, &line).unwrap_err();
    assert!(error.to_string().contains("NUL"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_value_changes_the_shape_of_a_pipeline(value in "[^\0]{0,40}|([!\"'\\\\ ${}=.a-z]{0,30})") {
        let (expected, _) = locations("plain");
        let (shape, locations) = locations(&value);
        prop_assert_eq!(shape, expected);
        prop_assert_eq!(&locations[0], &value);
    }
}
