//! The time of day of this host is set while a camera plays and is recorded. It is set for one process alone, by
//! libfaketime: that process is this test once more.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gst::prelude::*;
use gstnvr::meta;
use nvr_core::{detection::Clock, segment::read};
use nvr_launch::fault_lab::{Lab, Spec};

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where the process under the faked clock finds its camera, and where it records.
const CAMERA: &str = "NVR_TEST_CAMERA";
const RECORDINGS: &str = "NVR_TEST_RECORDINGS";
const SECOND: i128 = 1_000_000_000;

/// The library; its other variant, for single threads, does not do.
fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let files = folders.iter().map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"));
    let found = files.into_iter().find(|file| file.exists());
    if found.is_none() {
        eprintln!("skipped: libfaketime (package faketime) is not installed");
    }
    found
}

fn host_now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128
}

/// The process under the faked clock: plays and records until its standard input ends, and tells of every picture.
fn play(camera: &str) {
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    let pipeline = gst::parse::launch(
        "nvrsrc name=source ! fakesink sync=false source.encoded ! nvrrecordsink name=sink segment-duration=2",
    );
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("source").unwrap();
    source.set_property("uri", camera);
    let sink = pipeline.by_name("sink").unwrap();
    sink.set_property("location", std::env::var(RECORDINGS).unwrap());
    source.static_pad("video").unwrap().add_probe(gst::PadProbeType::BUFFER, |pad, info| {
        if let (Some(buffer), Some(element)) = (info.buffer(), pad.parent_element()) {
            let facts = meta::facts(buffer);
            let capture = facts.capture.unwrap();
            let now = element.current_running_time().unwrap_or_default().nseconds();
            println!(
                "picture {} {now} {} {} {}",
                buffer.pts().unwrap_or_default().nseconds(),
                facts.frame_id.unwrap(),
                capture.unix_ns,
                u8::from(capture.clock == Clock::Ntp)
            );
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    pipeline.send_event(gst::event::Eos::new());
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(5), &kinds);
    assert!(message.is_none_or(|message| message.type_() == gst::MessageType::Eos));
    let stats: gst::Structure = source.property("stats");
    let get = |name| stats.get::<u64>(name).unwrap();
    println!("end {} {} {}", get("connections"), get("clock-refused"), get("encoded-delivered"));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[derive(Clone, Copy, Debug)]
struct Picture {
    pts: i128,
    now: i128,
    id: i128,
    unix: i128,
    ntp: bool,
}

/// The process, as the test sees it.
struct Faked {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    offset: PathBuf,
    pictures: Vec<Picture>,
}

impl Faked {
    fn start(library: &Path, folder: &Path, camera: &str) -> Self {
        let offset = folder.join("offset");
        std::fs::write(&offset, "+0").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "host_clock_step", "--nocapture"])
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            // Nobody can set that one on a real host.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env(CAMERA, camera)
            .env(RECORDINGS, folder.join("recordings"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, offset, pictures: Vec::new() }
    }

    fn set(&self, offset: &str) {
        let file = self.offset.with_extension("new");
        std::fs::File::create(&file).unwrap().write_all(offset.as_bytes()).unwrap();
        std::fs::rename(file, &self.offset).unwrap();
    }

    /// Waits for `count` pictures that are as `wanted`, one after the other.
    #[track_caller]
    fn wait(&mut self, what: &str, count: usize, wanted: impl Fn(&Picture) -> bool) {
        let mut row = 0;
        while row < count {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("{what}: {row} pictures in a row, the last is {:?}", self.pictures.last())
            });
            let Some(numbers) = line.strip_prefix("picture ") else { continue };
            let numbers: Vec<i128> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
            let [pts, now, id, unix, ntp] = numbers[..] else { panic!("{line}") };
            let picture = Picture { pts, now, id, unix, ntp: ntp == 1 };
            row = if wanted(&picture) { row + 1 } else { 0 };
            self.pictures.push(picture);
        }
    }

    /// Ends it; gives connections, capture times that were refused, and units that were recorded.
    fn end(&mut self) -> [u64; 3] {
        drop(self.stdin.take());
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("the process says its end");
            if let Some(numbers) = line.strip_prefix("end ") {
                let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
                assert!(self.child.wait().unwrap().success());
                return numbers.try_into().unwrap();
            }
        }
    }
}

impl Drop for Faked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn segments(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            segments(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "mp4") {
            found.push(path);
        }
    }
}

#[test]
fn host_clock_step() {
    if let Ok(camera) = std::env::var(CAMERA) {
        return play(&camera);
    }
    let Some(library) = library() else { return };
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    let lab = Lab::start().unwrap();
    let spec: Spec = "h264,320x180,fps=25,gop=10,bitrate=300".parse().unwrap();
    let camera = match lab.add_spec(0, &spec) {
        Ok(camera) => camera,
        Err(error) => {
            eprintln!("skipped: {error:#}");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let mut faked = Faked::start(&library, folder.path(), &camera);
    faked.wait("the camera's own time", 25, |picture| picture.ntp);
    // The camera's clock is right and the host's is not, which nobody can know: the host's is believed, and said.
    for (offset, seconds) in [("+3600", 3600), ("-7200", -7200)] {
        faked.set(offset);
        faked.wait(offset, 75, |picture| {
            let off = picture.unix - (host_now() + seconds * SECOND);
            !picture.ntp && off.abs() < 10 * SECOND
        });
    }
    faked.set("+0");
    faked.wait("the camera's own time again", 25, |picture| picture.ntp);

    let [connections, refused, recorded] = faked.end();
    assert_eq!(connections, 1);
    assert!(refused >= 150, "{refused} times of the camera were refused");
    for pair in faked.pictures.windows(2) {
        let apart = pair[1].pts - pair[0].pts;
        assert!(apart > 0 && apart < SECOND, "running time took a step: {pair:?}");
        assert_eq!(pair[0].id + 1, pair[1].id, "a picture was lost: {pair:?}");
    }
    for picture in &faked.pictures {
        assert!((picture.now - picture.pts).abs() < 5 * SECOND, "{picture:?}");
    }

    let mut files = Vec::new();
    segments(&folder.path().join("recordings"), &mut files);
    let mut frames = 0;
    for file in &files {
        let contents = read::contents(&mut std::fs::File::open(file).unwrap()).unwrap();
        assert_eq!(contents.whole, contents.size, "{}", file.display());
        let (count, lasts) = (contents.frames(), contents.duration_us());
        assert!((1..=12_000_000).contains(&lasts), "{}: {lasts} µs", file.display());
        assert!((lasts / 40_000).abs_diff(count as i64) <= 2, "{}: {count} in {lasts} µs", file.display());
        frames += count;
    }
    assert_eq!(frames, recorded, "every unit is in one of {} files", files.len());
}
