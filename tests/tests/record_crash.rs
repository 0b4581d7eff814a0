//! Ends that nobody ordered: a recorder of two cameras is killed, or loses power, at random moments. At most the last
//! second of each camera is lost, every file plays, and the next start puts the catalogue right.
//!
//! `NVR_RECORD_KILLS=200` says how often; a few times otherwise. SIGKILL leaves what the system has in memory, so the
//! power is cut on a disk of its own, as [`Disk::cut_power`] describes, and the process is killed with it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gstnvr::nvrrecordsink::catalog::{FILE, Recording, Store};
use nvr_tests::disk::Disk;
use nvr_tests::plugin::PluginFolder;
use nvr_tests::recordings::{contents, folder_in_memory, played, played_by_gstreamer, segments};

const TIMEOUT: Duration = Duration::from_mins(1);
const CAMERAS: usize = 2;
const FPS: u64 = 25;

/// How often, and how many pictures may be lost each time. What is promised, a second, is of a machine that keeps up:
/// where nobody asked for a figure, it may be a busy one.
fn rounds() -> (u64, u64) {
    match std::env::var("NVR_RECORD_KILLS").ok().and_then(|text| text.parse().ok()) {
        Some(rounds) => (rounds, FPS),
        None => (4, 2 * FPS),
    }
}

/// A recorder in a process of its own, and how many pictures each camera has given it.
struct Recorder {
    child: Child,
    given: Arc<[AtomicU64; CAMERAS]>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    fn start(plugin: &PluginFolder, root: &Path) -> Self {
        let mut command = plugin.tool("gst-launch-1.0");
        command.args(["-v", "-e"]);
        for camera in 0..CAMERAS {
            // The witness says on the standard output what passes, picture by picture.
            let line = format!(
                "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate={FPS}/1 \
                 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={} bitrate=200 ! h264parse \
                 ! identity name=given{camera} silent=false \
                 ! nvrrecordsink source-id={camera} segment-duration=1 min-free=0",
                // Not both at once.
                FPS - 7 * camera as u64
            );
            command.args(line.split_whitespace()).arg(format!("location={}", root.display()));
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let given: Arc<[AtomicU64; CAMERAS]> = Arc::default();
        let out = BufReader::new(child.stdout.take().unwrap());
        let counted = given.clone();
        let reader = thread::spawn(move || {
            let mut first = [None; CAMERAS];
            for line in out.lines().map_while(Result::ok) {
                if let Some((camera, pts_ms)) = witnessed(&line) {
                    // With several cameras, gst-launch says some lines twice and others never: times tell how many.
                    let since_ms = pts_ms - *first[camera].get_or_insert(pts_ms);
                    counted[camera].fetch_max(since_ms * FPS / 1000 + 1, Ordering::Relaxed);
                }
            }
        });
        Self { child, given, reader: Some(reader) }
    }

    fn given(&self) -> [u64; CAMERAS] {
        std::array::from_fn(|camera| self.given[camera].load(Ordering::Relaxed))
    }

    /// Lets it record `pictures` of each camera.
    fn record(&mut self, pictures: u64) {
        let deadline = Instant::now() + TIMEOUT;
        while self.given().iter().any(|given| *given < pictures) {
            assert!(Instant::now() < deadline, "the cameras gave {:?}", self.given());
            assert!(self.child.try_wait().unwrap().is_none(), "the recorder has ended");
            thread::sleep(Duration::from_millis(3));
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended();
    }

    /// Ends it in order.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.ended();
    }

    fn ended(&mut self) {
        self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Camera and presentation time of a picture, from what a witness says:
/// `… chain   ******* (given1:sink) (305 bytes, dts: …, pts: 1000:00:00.040000000, …`.
fn witnessed(line: &str) -> Option<(usize, u64)> {
    let (_, said) = line.split_once("chain ")?.1.split_once("(given")?;
    let (camera, rest) = said.split_once(':')?;
    let (time, _) = rest.split_once(" pts: ")?.1.split_once(',')?;
    let mut parts = time.split([':', '.']).map(|part| part.parse::<u64>().ok());
    let [hours, minutes, seconds, ns] = std::array::from_fn(|_| parts.next().flatten());
    let ms = ((hours? * 60 + minutes?) * 60 + seconds?) * 1000 + ns? / 1_000_000;
    Some((camera.parse().ok().filter(|camera| *camera < CAMERAS)?, ms))
}

/// Not the same moments each time, and printed: a failure can be looked at again.
fn moments() -> impl Iterator<Item = u64> {
    let mut state = std::process::id().into();
    println!("seed {state}");
    std::iter::from_fn(move || {
        let (next, random) = split_mix(state);
        state = next;
        // From the first picture to some segments later, longer than what may be lost.
        Some(1 + random % (6 * FPS))
    })
}

/// SplitMix64.
fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

/// Pictures that are in the files of a camera; each file plays, in full, here and there.
fn recorded(files: &[PathBuf], known: &BTreeSet<PathBuf>, camera: usize) -> u64 {
    let folder = camera.to_string();
    let new = files.iter().filter(|file| !known.contains(*file));
    new.filter(|file| file.components().any(|part| part.as_os_str() == folder.as_str()))
        .map(|file| {
            let pictures = contents(file).unwrap().frames();
            if pictures > 0 {
                assert_eq!(played(file).unwrap(), pictures, "{}", file.display());
                assert_eq!(played_by_gstreamer(file).unwrap(), pictures, "{}", file.display());
            }
            pictures
        })
        .sum()
}

/// Everything that is there is known, as it is, and closed.
fn agrees(root: &Path) -> Vec<Recording> {
    let rows = Store::existing(&root.join(FILE)).unwrap().page(0, 100_000).unwrap();
    let known: BTreeSet<_> = rows.iter().map(Recording::file).collect();
    let files: BTreeSet<_> = segments(root).into_iter().collect();
    assert_eq!(known, files, "the catalogue and the files differ");
    for row in &rows {
        let found = contents(&row.file()).unwrap();
        assert!(row.end_us.is_some_and(|end| end > row.start_us), "{row:?}");
        assert_eq!((found.frames(), found.whole, found.size), (row.frames, row.bytes, row.bytes), "{row:?}");
    }
    rows
}

/// Rounds of recording that end in `end`, on one directory.
fn rounds_of(root: &Path, end: impl Fn(Recorder)) {
    gst::init().unwrap();
    let plugin = PluginFolder::new();
    let (count, allowed) = rounds();
    let mut known = BTreeSet::new();
    let mut losses = Vec::new();
    for (round, pictures) in moments().take(count as usize).enumerate() {
        let mut recorder = Recorder::start(&plugin, root);
        recorder.record(pictures);
        let given = recorder.given();
        end(recorder);
        let files = segments(root);
        for (camera, given) in given.into_iter().enumerate() {
            let found = recorded(&files, &known, camera);
            losses.push(given.saturating_sub(found));
            assert!(found + allowed >= given, "round {round}, camera {camera}: {found} of {given} pictures");
        }
        known.extend(files);
    }
    losses.sort_unstable();
    let at = |part: usize| losses[(losses.len() - 1) * part / 100] as f64 / FPS as f64;
    println!("{count} times: lost {:.2} s in the middle, {:.2} s at most", at(50), at(100));
    // One more start repairs all that is left.
    let mut recorder = Recorder::start(&plugin, root);
    recorder.record(2 * FPS);
    recorder.stop();
    let rows = agrees(root);
    let files: Vec<_> = rows.iter().map(Recording::file).collect();
    for file in files.iter().filter(|file| known.contains(*file)) {
        assert_eq!(played(file).unwrap(), contents(file).unwrap().frames(), "{}", file.display());
    }
}

#[test]
fn sigkill_at_random_moments() {
    let folder = folder_in_memory().unwrap();
    rounds_of(&folder.path().join("recordings"), Recorder::kill);
}

#[test]
fn loss_of_power_at_random_moments() {
    let Some(disk) = Disk::new(512, &[]) else { return };
    rounds_of(&disk.root().join("recordings"), |recorder| {
        disk.cut_power().unwrap();
        recorder.kill();
        disk.unmount().unwrap();
        disk.mount("rw").unwrap();
    });
}
