//! A thousand connections one after the other leave nothing behind. A process of its own, for everything in it is
//! counted: GStreamer's objects by its leaks tracer, threads, descriptors and memory by the kernel.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};

const PATIENCE: Duration = Duration::from_secs(60);
/// Before the first count: buffers, caches and pools have their size then.
const WARM_UP: u32 = 50;
/// What may be gained in all: pages of the allocator, not something for each connection.
const SLACK_KB: u64 = 3072;

/// `bench-cameras` with one small camera, in a process of its own.
struct Camera {
    child: Child,
    uri: String,
    _cache: tempfile::TempDir,
}

impl Camera {
    fn start() -> Option<Self> {
        if gst::ElementFactory::find("x264enc").is_none() {
            eprintln!("skipped: x264enc (gstreamer1.0-plugins-ugly) is not installed");
            return None;
        }
        let cache = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bench-cameras"))
            .args(["--count", "1", "--seconds", "1", "--width", "320", "--height", "180", "--fps", "50"])
            .args(["--gop", "1", "--bitrate", "1000", "--cache"])
            .arg(cache.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let facts: serde_json::Value = serde_json::from_str(&line).unwrap();
        let uri = facts["cameras"][0]["uri"].as_str().unwrap().to_owned();
        Some(Self { child, uri, _cache: cache })
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // Its standard input is its life line.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// KB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Live objects by type, as the leaks tracer knows them.
fn objects(tracer: &gst::Tracer) -> BTreeMap<String, usize> {
    let info: gst::Structure = tracer.emit_by_name("get-live-objects", &[]);
    let mut counts = BTreeMap::new();
    for object in info.get::<gst::List>("live-objects-list").unwrap().as_slice() {
        let object: gst::Structure = object.get().unwrap();
        let value = object.value("object").unwrap();
        let kind = value.get::<glib::Object>().map_or_else(|_| value.type_(), |object| object.type_());
        *counts.entry(kind.name().to_owned()).or_default() += 1;
    }
    counts
}

struct Counted {
    objects: BTreeMap<String, usize>,
    threads: usize,
    descriptors: usize,
    resident: u64,
}

impl Counted {
    fn now(tracer: &gst::Tracer) -> Self {
        Self {
            objects: objects(tracer),
            threads: entries("/proc/self/task"),
            descriptors: entries("/proc/self/fd"),
            resident: resident(),
        }
    }

    /// What there is more of than in `before`, memory aside.
    fn gain(&self, before: &Self) -> Vec<String> {
        let objects = self.objects.iter().filter_map(|(kind, count)| {
            let known = before.objects.get(kind).copied().unwrap_or_default();
            (*count > known).then(|| format!("{} {kind}", count - known))
        });
        let others = [
            ("threads", self.threads, before.threads),
            ("descriptors", self.descriptors, before.descriptors),
        ];
        let others = others
            .into_iter()
            .filter_map(|(what, now, then)| (now > then).then(|| format!("{} {what}", now - then)));
        objects.chain(others).collect()
    }
}

struct Watched {
    pipeline: gst::Pipeline,
    source: gst::Element,
}

impl Watched {
    fn state(&self, wanted: &str) {
        let bus = self.pipeline.bus().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = bus.timed_pop(gst::ClockTime::try_from(left).unwrap());
            let message = message.unwrap_or_else(|| panic!("{wanted} did not come"));
            assert_ne!(message.type_(), gst::MessageType::Error, "{message:?}");
            let state = message.structure().filter(|s| s.name() == "nvr-source-state");
            if state.is_some_and(|s| s.get::<&str>("state") == Ok(wanted)) {
                return;
            }
        }
    }

    /// One more connection, by asking for it.
    fn reconnect(&self, uri: &str, wanted: &str) {
        self.source.set_property("uri", uri);
        self.state("connecting");
        self.state(wanted);
    }
}

/// How often; `NVR_RECONNECTS` says it otherwise.
fn rounds() -> u32 {
    std::env::var("NVR_RECONNECTS")
        .ok()
        .map_or(1000, |text| text.parse().expect("NVR_RECONNECTS is a number"))
}

#[test]
fn a_thousand_reconnects_leave_nothing_behind() {
    nvr_launch::process::tune_allocator();
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    let factory = gst::TracerFactory::factories().into_iter().find(|factory| factory.name() == "leaks");
    let Some(factory) = factory else {
        eprintln!(
            "skipped: GStreamer's leaks tracer (gstreamer1.0-tools or libgstreamer1.0-0) is not installed"
        );
        return;
    };
    let Some(camera) = Camera::start() else { return };
    factory.load().unwrap();
    let tracer = glib::Object::with_type(factory.tracer_type()).downcast::<gst::Tracer>().unwrap();

    let source = gst::ElementFactory::make("nvrsrc").property("uri", &camera.uri).build().unwrap();
    let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, &sink]).unwrap();
    source.link(&sink).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let watched = Watched { pipeline, source };
    watched.state("playing");

    // Nobody listens there: the attempts of hours, without the hours.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("rtsp://{nobody}/0");
    let round = || {
        watched.reconnect(&camera.uri, "playing");
        watched.reconnect(&refused, "lost");
    };
    let rest = || watched.reconnect(&camera.uri, "playing");
    for _ in 0..WARM_UP {
        round();
    }
    rest();
    let before = Counted::now(&tracer);
    let (rounds, began) = (rounds(), Instant::now());
    for _ in 0..rounds {
        round();
    }
    rest();
    let took = began.elapsed();
    // What the last connection has started or not yet ended settles; what leaks does not.
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let now = Counted::now(&tracer);
        let gain = now.gain(&before);
        if gain.is_empty() {
            break now;
        }
        assert!(Instant::now() < deadline, "after {rounds} connections there are more: {gain:?}");
        rest();
    };
    eprintln!(
        "{rounds} connections and as many refused ones in {took:.1?}: {} objects, {} threads, {} descriptors, {} kB, before {} kB",
        after.objects.values().sum::<usize>(),
        after.threads,
        after.descriptors,
        after.resident,
        before.resident
    );
    let grown = after.resident.saturating_sub(before.resident);
    assert!(grown <= SLACK_KB, "{grown} kB more after {rounds} connections");
    watched.pipeline.set_state(gst::State::Null).unwrap();
}
