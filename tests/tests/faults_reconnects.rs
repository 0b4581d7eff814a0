//! A thousand connections one after the other leave nothing behind. A process of its own, for everything in it is
//! counted: GStreamer's objects by its leaks tracer, threads, descriptors and memory by the kernel.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};

const PATIENCE: Duration = Duration::from_mins(1);
/// Cameras that reconnect at the same time: a connection is mostly waiting.
const SOURCES: u32 = 8;
/// Connections of each camera before the first count: buffers, caches and pools have their size then.
const WARM_UP: u32 = 15;
/// What the allocator may keep back: one frame of 320×180 left behind by each connection would be ten times as much.
/// The process grows by 1 to 4 kB per connection, of which one run under heaptrack with `G_SLICE=always-malloc` found
/// next to nothing still allocated; where exactly it stays is not known.
const SLACK_KB: u64 = 8192;
/// Connections that GStreamer's objects are counted over, of each camera. The tracer needs memory of its own.
const TRACKED: u32 = 15;

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

/// GStreamer's leaks tracer: what has been created and not destroyed since it was started, by type.
struct Tracker {
    tracer: gst::Tracer,
    balance: BTreeMap<String, i64>,
}

impl Tracker {
    fn start() -> Option<Self> {
        let factory =
            gst::TracerFactory::factories().into_iter().find(|factory| factory.name() == "leaks")?;
        let tracer = glib::Object::with_type(
            factory.load().unwrap().downcast::<gst::TracerFactory>().unwrap().tracer_type(),
        );
        let tracer = tracer.downcast::<gst::Tracer>().unwrap();
        Some(Self { tracer, balance: BTreeMap::new() })
    }

    fn begin(&self) {
        self.tracer.emit_by_name::<()>("activity-start-tracking", &[]);
    }

    /// Takes what was noted since the last time; it is kept by the tracer until then.
    fn take(&mut self) {
        let info: gst::Structure = self.tracer.emit_by_name("activity-get-checkpoint", &[]);
        for (list, by) in [("objects-created-list", 1), ("objects-removed-list", -1)] {
            for object in info.get::<gst::List>(list).unwrap().as_slice() {
                let object: gst::Structure = object.get().unwrap();
                *self.balance.entry(object.get("type-name").unwrap()).or_default() += by;
            }
        }
    }

    /// What there is more of. Buffers, events and messages come and go at any moment: of each kind `slack` may be
    /// under way; of elements, pads and the like not one.
    fn gain(&self, slack: i64) -> Vec<String> {
        let more = self.balance.iter().filter(|(kind, count)| {
            let object = glib::Type::from_name(kind.as_str())
                .is_some_and(|kind| kind.is_a(gst::Object::static_type()));
            **count > if object { 0 } else { slack }
        });
        more.map(|(kind, count)| format!("{count} {kind}")).collect()
    }
}

struct Counted {
    threads: usize,
    descriptors: usize,
    resident: u64,
}

impl Counted {
    fn now() -> Self {
        Self {
            threads: entries("/proc/self/task"),
            descriptors: entries("/proc/self/fd"),
            resident: resident(),
        }
    }

    /// What there is more of than in `before`, memory aside.
    fn gain(&self, before: &Self) -> Vec<String> {
        let counts = [
            ("threads", self.threads, before.threads),
            ("descriptors", self.descriptors, before.descriptors),
        ];
        let more = counts.into_iter().filter(|(_, now, then)| now > then);
        more.map(|(what, now, then)| format!("{} {what}", now - then)).collect()
    }
}

struct Watched {
    pipeline: gst::Pipeline,
    source: gst::Element,
}

impl Watched {
    fn play(uri: &str) -> Self {
        let source = gst::ElementFactory::make("nvrsrc").property("uri", uri).property("latency", 0_u32);
        let source = source.build().unwrap();
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&source, &sink]).unwrap();
        source.link(&sink).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let watched = Self { pipeline, source };
        watched.state("playing");
        watched
    }

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

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Has every camera connect `rounds` times, and in one of five find nobody there besides.
fn reconnect(cameras: &[Watched], uri: &str, refused: &str, rounds: u32) {
    std::thread::scope(|scope| {
        for watched in cameras {
            scope.spawn(move || {
                for round in 0..rounds {
                    if round % 5 == 4 {
                        watched.reconnect(refused, "lost");
                    }
                    watched.reconnect(uri, "playing");
                }
            });
        }
    });
}

/// How many connections in all; `NVR_RECONNECTS` says it otherwise.
fn connections() -> u32 {
    let text = std::env::var("NVR_RECONNECTS").ok();
    text.map_or(1000, |text| text.parse().expect("NVR_RECONNECTS is a number"))
}

#[test]
fn a_thousand_reconnects_leave_nothing_behind() {
    nvr_launch::process::tune_allocator();
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    let Some(camera) = Camera::start() else { return };
    let cameras: Vec<_> = (0..SOURCES).map(|_| Watched::play(&camera.uri)).collect();
    // Nobody listens there: the attempts of hours, without the hours.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("rtsp://{nobody}/0");
    let run = |rounds| reconnect(&cameras, &camera.uri, &refused, rounds);

    run(WARM_UP);
    let before = Counted::now();
    let (connections, began) = (connections(), Instant::now());
    run(connections.div_ceil(SOURCES));
    let took = began.elapsed();
    let after = settle(|now| now.gain(&before), || run(1));
    eprintln!(
        "{connections} connections in {took:.1?}: {} threads, {} descriptors, {} kB; before {}, {}, {} kB",
        after.threads, after.descriptors, after.resident, before.threads, before.descriptors, before.resident
    );
    let grown = after.resident.saturating_sub(before.resident);
    assert!(grown <= SLACK_KB, "{grown} kB more after {connections} connections");

    let Some(mut tracker) = Tracker::start() else {
        eprintln!("skipped in part: GStreamer's leaks tracer is not installed");
        return;
    };
    // The connections that the tracer has not seen begin go before it counts.
    run(1);
    tracker.begin();
    for _ in 0..TRACKED {
        run(1);
        tracker.take();
    }
    settle(
        |_| {
            tracker.take();
            tracker.gain(i64::from(TRACKED * SOURCES / 3))
        },
        || run(1),
    );
}

/// What the last connections have started or not yet ended settles; what leaks does not.
fn settle(mut gain: impl FnMut(&Counted) -> Vec<String>, connect: impl Fn()) -> Counted {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = Counted::now();
        let gain = gain(&now);
        if gain.is_empty() {
            return now;
        }
        assert!(Instant::now() < deadline, "after all connections there are more: {gain:?}");
        connect();
    }
}
