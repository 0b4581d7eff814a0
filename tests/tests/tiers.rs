//! Tiers from hot to a bucket, with a store that checks signatures and misbehaves: what is moved is whole, what cannot
//! be moved stays, and secrets stay secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use gst::prelude::*;
use gstnvr::nvrrecordsink::catalog::{
    Cause, Entry, FILE, Guard, Keeper, Limits, Order, Recording, Store as Catalogue,
};
use gstnvr::nvrrecordsink::checksum::Checksum;
use gstnvr::nvrrecordsink::tiers::{Archive, COLD, HOT, Place, TierSettings, WARM};
use gstnvr::nvrrecordsink::volume::{IDENTITY, Volume};
use nvr_core::command::Tier;
use nvr_tests::control::{Operator, instance};
use nvr_tests::mosquitto::{Access, Mosquitto};
use nvr_tests::plugin::PluginFolder;
use nvr_tests::recorder::{Recorder, catalogue, contents, init, played, segments};
use nvr_tests::store::{SECRET, Store};
use parking_lot::Mutex;

const TIMEOUT: Duration = Duration::from_mins(2);
const CAMERA: u32 = 5;

/// A recorder's place without the recorder: files and entries are put there by hand.
struct Site {
    folder: tempfile::TempDir,
    volume: Volume,
    limits: Arc<Mutex<Limits>>,
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Bytes that are not all alike, and other ones for each `seed`.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    })
    .take(count)
    .collect()
}

impl Site {
    fn new(cold: &str, secret: &str) -> Self {
        init();
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::open(&folder.path().join("hot"), None).unwrap();
        let credentials = Store::credentials(folder.path(), secret);
        let mut tiers = TierSettings::default();
        for (name, value) in [
            ("hot-max-age", 100_u64.to_value()),
            ("cold-location", cold.to_value()),
            ("move-rate", 0_u64.to_value()),
            ("s3-credentials", credentials.to_str().to_value()),
        ] {
            let specs = TierSettings::properties();
            let spec: &glib::ParamSpec = specs.iter().find(|spec| spec.name() == name).unwrap();
            assert!(tiers.set(&value, spec), "{name}");
        }
        let limits = Arc::new(Mutex::new(Limits { tiers, ..Limits::default() }));
        Self { folder, volume, limits }
    }

    fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    fn file(&self) -> PathBuf {
        self.volume.root.join(FILE)
    }

    fn start(&self) -> Guard {
        Keeper::of(&self.file()).attach(&self.volume, CAMERA, &self.limits)
    }

    fn record(&self, guard: &Guard, age: i64, bytes: &[u8]) -> PathBuf {
        let entry = self.write(age, bytes);
        let path = entry.path.clone();
        guard.keeper.send(Order::Note(Box::new(entry)));
        path
    }

    fn write(&self, age: i64, bytes: &[u8]) -> Entry {
        let start_us = now_us() - age * 1_000_000;
        let path = nvr_core::segment::name::path(CAMERA, start_us, 0);
        let file = self.volume.root.join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        Entry {
            volume: self.volume.clone(),
            source_id: CAMERA,
            path,
            start_us,
            end_us: Some(start_us + 10_000_000),
            clock: "arrival",
            bytes: bytes.len() as u64,
            frames: 250,
            codec: "h264".into(),
            audio: None,
            width: 1280,
            height: 720,
            event_count: 0,
            checksum: Some(sum(bytes)),
            tier: HOT,
            sightings: std::collections::BTreeMap::default(),
            cause: Cause::default(),
        }
    }

    fn rows(&self) -> Vec<Recording> {
        Catalogue::existing(&self.file()).map(|store| store.page(0, 1000).unwrap()).unwrap_or_default()
    }

    fn until(&self, what: &str, done: impl Fn(&[Recording]) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !done(&self.rows()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.rows());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn cold(&self, count: usize) {
        self.until("moved", |rows| rows.iter().filter(|row| row.tier == COLD).count() == count);
    }

    fn archive(&self) -> Archive {
        Archive::new(Some(self.credentials()))
    }

    fn verify(&self) -> ExitCode {
        let root = self.volume.root.to_str().unwrap().to_owned();
        let key = self.credentials().to_str().unwrap().to_owned();
        let words = ["nvr-launch", "recordings", "verify", "--location", &root, "--s3-credentials", &key];
        nvr_launch::cli::main(words.map(Into::into))
    }

    fn failed(&self) -> u64 {
        self.limits.lock().tally.failed.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn until_failed(&self) {
        let (before, deadline) = (self.failed(), Instant::now() + TIMEOUT);
        while self.failed() == before {
            assert!(Instant::now() < deadline, "nothing fails");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a whole look that fails. The first failure may be of one that began before what it is to see.
    fn until_looked(&self) {
        self.until_failed();
        self.until_failed();
    }

    fn failing(&self) -> Vec<&'static str> {
        let tiers = self.limits.lock().tally.tiers();
        tiers.iter().filter(|tier| tier.error.is_some()).map(|tier| tier.tier).collect()
    }
}

fn sum(bytes: &[u8]) -> String {
    let mut checksum = Checksum::default();
    checksum.update(bytes);
    checksum.text()
}

fn read(archive: &mut Archive, recording: &Recording) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut file = archive.read(recording)?;
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[test]
fn recordings_go_to_a_bucket_in_parts_and_come_back_whole() {
    let store = Store::start();
    let site = Site::new(&store.location("site one/cams"), SECRET);
    let guard = site.start();
    let (small, large) = (noise(100_000, 1), noise(20_000_000, 2));
    let small_path = site.record(&guard, 200, &small);
    let large_path = site.record(&guard, 300, &large);
    site.cold(2);
    drop(guard);
    let key = |path: &Path| format!("site%20one/cams/{}", path.display());
    {
        let contents = store.contents.lock();
        assert!(contents.objects[&key(&small_path)] == small && contents.objects[&key(&large_path)] == large);
        assert!(contents.uploads.is_empty());
        // The identity too, and nothing else.
        assert_eq!(contents.objects.len(), 3);
        let parts = contents.requests.iter().filter(|line| line.starts_with("PUT ")).count();
        assert_eq!(parts, 1 + 1 + 3, "identity, one at once, one in three parts: {:?}", contents.requests);
    }
    assert!(segments(&site.volume.root).is_empty());
    let rows = site.rows();
    let mut archive = site.archive();
    for (row, bytes) in rows.iter().zip([&small, &large]) {
        assert!(&read(&mut archive, row).unwrap() == bytes);
    }
    assert_eq!(site.verify(), ExitCode::SUCCESS);
    // Answers that break off in the middle are asked for again, from the part on that broke.
    store.contents.lock().cuts = 2;
    assert!(read(&mut archive, &rows[1]).unwrap() == large);
    store.contents.lock().cuts = 100;
    let error = read(&mut archive, &rows[1]).unwrap_err();
    assert!(error.contains("broke off") || error.contains("too early"), "{error}");
    store.contents.lock().cuts = 0;
    // One byte is another; and one object is gone.
    store.contents.lock().objects.get_mut(&key(&large_path)).unwrap()[10_000_000] ^= 1;
    assert_ne!(site.verify(), ExitCode::SUCCESS);
    store.contents.lock().objects.get_mut(&key(&large_path)).unwrap()[10_000_000] ^= 1;
    assert_eq!(site.verify(), ExitCode::SUCCESS);
    let taken = store.contents.lock().objects.remove(&key(&small_path));
    assert_ne!(site.verify(), ExitCode::SUCCESS);
    store.contents.lock().objects.insert(key(&small_path), taken.unwrap());
    // What outlives its time leaves the bucket too.
    site.limits.lock().policy.max_age_us = Some(250_000_000);
    let guard = site.start();
    site.until("removed", |rows| rows.len() == 1);
    drop(guard);
    assert_eq!(store.contents.lock().objects.len(), 2);
    assert_eq!(site.verify(), ExitCode::SUCCESS);
}

#[test]
fn a_store_that_fails_in_any_way_loses_nothing() {
    let store = Store::start();
    store.contents.lock().down = true;
    let site = Site::new(&store.location(""), SECRET);
    let guard = site.start();
    let bytes = noise(9_000_000, 3);
    site.record(&guard, 200, &bytes);
    site.until("noted", |rows| rows.len() == 1);
    // It is asked, and not there: nothing moves, and nothing is removed.
    site.until_looked();
    assert_eq!(site.failing(), [COLD]);
    assert_eq!(site.rows()[0].tier, HOT);
    assert_eq!(segments(&site.volume.root).len(), 1);
    {
        let mut contents = store.contents.lock();
        contents.down = false;
        // Busy for a while, and uploads that break off: all within the attempts of one request.
        contents.busy = 2;
        contents.cuts = 2;
    }
    site.cold(1);
    assert_eq!(site.failing(), [""; 0]);
    assert!(read(&mut site.archive(), &site.rows()[0]).unwrap() == bytes);
    // A store that says yes, and keeps something else.
    store.contents.lock().forgetful = true;
    let kept = site.record(&guard, 150, &noise(50_000, 4));
    site.until_failed();
    assert_eq!(site.rows().iter().map(|row| row.tier.as_str()).collect::<Vec<_>>(), [COLD, HOT]);
    assert!(site.volume.root.join(kept).exists());
    store.contents.lock().forgetful = false;
    site.cold(2);
    drop(guard);
    assert_eq!(site.verify(), ExitCode::SUCCESS);
    assert!(store.contents.lock().uploads.is_empty());
}

#[test]
fn a_wrong_key_is_said_once_without_saying_it() {
    const WRONG: &str = "Geheim+Geheim+Geheim+Geheim+Geheim+Geheim";
    let store = Store::start();
    let site = Site::new(&store.location("x"), WRONG);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = lines.clone();
    gst::log::remove_default_log_function();
    gst::log::set_threshold_for_name("nvrrecordsink", gst::DebugLevel::Trace);
    let function = gst::log::add_log_function(move |category, level, _, _, _, _, message| {
        if category.name() == "nvrrecordsink" {
            heard.lock().push((level, message.get().map(|text| text.to_string()).unwrap_or_default()));
        }
    });
    let guard = site.start();
    site.record(&guard, 200, &noise(1000, 5));
    let deadline = Instant::now() + TIMEOUT;
    let refused = |lines: &[(gst::DebugLevel, String)]| {
        lines.iter().filter(|(_, text)| text.contains("403 SignatureDoesNotMatch")).count()
    };
    while refused(&lines.lock()) < 2 {
        assert!(Instant::now() < deadline, "{:?}", lines.lock());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(site.rows()[0].tier, HOT);
    // The right one is read from the file without a restart.
    Store::credentials(site.folder.path(), SECRET);
    site.cold(1);
    drop(guard);
    gst::log::remove_log_function(function);
    let lines = lines.lock();
    let warnings = lines
        .iter()
        .filter(|(level, text)| *level == gst::DebugLevel::Warning && text.contains("SignatureDoesNotMatch"));
    assert_eq!(warnings.count(), 1, "one warning for one outage");
    for (_, line) in lines.iter() {
        for secret in [WRONG, SECRET, "X-Amz-Signature", "Geheim"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[test]
fn an_upload_that_a_power_cut_left_is_ended_at_the_next_start() {
    let store = Store::start();
    let site = Site::new(&store.location("x"), SECRET);
    // A first start makes the bucket's identity known.
    let guard = site.start();
    site.record(&guard, 200, b"goes first");
    site.cold(1);
    let path = site.record(&guard, 10, &noise(1000, 6));
    site.until("noted", |rows| rows.len() == 2);
    drop(guard);
    let rows = site.rows();
    let bucket = Volume { root: rows[0].root.clone(), id: rows[0].volume.clone() };
    {
        let mut catalogue = Catalogue::open(&site.file()).unwrap();
        catalogue.intend(&rows[1..], &bucket).unwrap();
        catalogue.uploading(rows[1].id, "upload-77").unwrap();
    }
    store.contents.lock().uploads.insert("upload-77".into(), [(1, vec![1; 100])].into());
    let guard = site.start();
    let deadline = Instant::now() + TIMEOUT;
    while !store.contents.lock().uploads.is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(guard);
    assert_eq!(Catalogue::open(&site.file()).unwrap().moves(CAMERA).unwrap(), []);
    assert!(site.volume.root.join(path).exists());
    assert_eq!(site.rows()[1].tier, HOT);
}

/// A server whose certificate nobody vouches for gets no request.
#[test]
fn a_store_has_to_prove_who_it_is() {
    init();
    let folder = tempfile::tempdir().unwrap();
    nvr_tests::mosquitto::certificates(folder.path()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &port.to_string()])
        .arg("-cert")
        .arg(folder.path().join("server.crt"))
        .arg("-key")
        .arg(folder.path().join("server.key"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let key = Store::credentials(folder.path(), SECRET);
    let location = format!("s3:https://localhost:{port}/bucket");
    let deadline = Instant::now() + TIMEOUT;
    let error = loop {
        let error = Place::open(&location, None, Some(&key)).unwrap_err().to_string();
        // Until the server listens.
        if error.contains("certificate") || Instant::now() > deadline {
            break error;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(error.contains("certificate"), "{error}");
}

/// Another recorder's prefix, or a bucket that was emptied, is not what was recorded to.
#[test]
fn a_bucket_without_its_identity_is_left_alone() {
    let store = Store::start();
    let site = Site::new(&store.location("x"), SECRET);
    let guard = site.start();
    site.record(&guard, 200, b"goes first");
    site.cold(1);
    let identity = store.contents.lock().objects.insert(format!("x/{IDENTITY}"), b"another".to_vec());
    site.limits.lock().policy.max_age_us = Some(100_000_000);
    site.record(&guard, 150, b"is too old for the hot tier, which is there");
    site.until("removed", |rows| rows.len() == 1);
    site.until_looked();
    assert_eq!(site.rows()[0].tier, COLD, "forgotten, although it could not be removed");
    assert_eq!(store.contents.lock().objects.len(), 2);
    store.contents.lock().objects.insert(format!("x/{IDENTITY}"), identity.unwrap());
    site.until("removed", <[Recording]>::is_empty);
    drop(guard);
    assert_eq!(store.contents.lock().objects.len(), 1);
}

const CAMERA_PIPELINE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=25/1 \
                               ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! h264parse";

/// The whole way: recorded, moved to a warm directory and a bucket, listed, and exported from there.
#[test]
fn an_export_takes_recordings_from_every_tier() {
    let store = Store::start();
    let folder = tempfile::tempdir().unwrap();
    let key = Store::credentials(folder.path(), SECRET);
    let (hot, warm) = (folder.path().join("hot"), folder.path().join("warm"));
    let recorder = Recorder::start(&format!(
        "{CAMERA_PIPELINE} ! nvrrecordsink name=rec segment-duration=1 location={} hot-max-age=4 warm-location={} \
         warm-max-age=8 cold-location={} s3-credentials={} warm-min-free=0 min-free=0",
        hot.display(),
        warm.display(),
        store.location("x"),
        key.display(),
    ));
    let deadline = Instant::now() + TIMEOUT;
    while recorder.stat("moved") < 2 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let has = |tier: &str| catalogue(&hot).iter().any(|row| row.tier == tier);
    while !(has(HOT) && has(WARM) && has(COLD)) {
        assert!(Instant::now() < deadline, "{:?}", catalogue(&hot));
        std::thread::sleep(Duration::from_millis(50));
    }
    recorder.end();
    let rows = catalogue(&hot);
    assert!([HOT, WARM, COLD].iter().all(|tier| rows.iter().any(|row| row.tier == *tier)), "{rows:?}");
    let frames: u64 = rows.iter().map(|row| row.frames).sum();
    let output = folder.path().join("export.mp4");
    let time = |us: i64| nvr_core::event::timestamp(us as u64 * 1000).to_string();
    let run = |words: &[&str]| {
        let start = ["nvr-launch", "recordings", "--location", hot.to_str().unwrap(), "--s3-credentials"];
        let words = start.iter().copied().chain([key.to_str().unwrap()]).chain(words.iter().copied());
        nvr_launch::cli::main(words.map(Into::into))
    };
    let to = rows.iter().filter_map(|row| row.end_us).max().unwrap();
    let words =
        ["export", "--source", "0", "--from", &time(rows[0].start_us), "--to", &time(to + 1), "--output"];
    let words: Vec<_> = words.into_iter().chain([output.to_str().unwrap()]).collect();
    assert_eq!(run(&words), ExitCode::SUCCESS);
    let exported = played(&output);
    assert!(exported.abs_diff(frames) <= 1, "{exported} of {frames}");
    assert_eq!(run(&["verify"]), ExitCode::SUCCESS);
    // What comes back from the store is another picture than what was recorded: that is found.
    let cold = rows.iter().find(|row| row.tier == COLD).unwrap();
    {
        let mut contents = store.contents.lock();
        let object = contents.objects.get_mut(&format!("x/{}", cold.path.display())).unwrap();
        let middle = object.len() / 2;
        object[middle] ^= 0xff;
    }
    assert_ne!(run(&["verify"]), ExitCode::SUCCESS);
    fs::remove_file(&output).unwrap();
    assert_ne!(run(&words), ExitCode::SUCCESS);
    assert!(!output.exists());
}

const WATCHED: &str = r#"
summary = "recorders that have nothing to record"
kind = "test"
[params.broker]
type = "uri"
default = "mqtt://localhost"
help = "h"
[params.location]
type = "string"
default = "."
help = "h"
[graph]
launch = "nvrcontrol instance-id=${instance_id} broker=${broker}"
[camera]
launch = """
  videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=5/1
  ! x264enc tune=zerolatency speed-preset=ultrafast ! h264parse
  ! nvrrecordsink source-id=${source_id} mode=off location=${location}/hot hot-max-age=60
    warm-location=${location}/warm min-free=0 warm-min-free=0
"""
"#;

/// Two cameras record to it: each says so in the status, and the log says it once.
#[test]
fn a_tier_that_is_missing_is_told_once_with_what_to_do() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (warm, away) = (folder.path().join("warm"), folder.path().join("away"));
    let graph = folder.path().join("watched.toml");
    fs::write(&graph, WATCHED).unwrap();
    let (graph, location) = (graph.to_str().unwrap(), folder.path().to_str().unwrap());
    let program = env!("CARGO_BIN_EXE_launch");
    let process = instance(program, graph, "rec", "0,1", &broker, &["--location", location]);
    let mut operator = Operator::new(&broker.url(), &[]);
    // What the status says of the warm tier of each camera.
    let warm_of = |operator: &Operator| -> Vec<Tier> {
        let streams =
            operator.client.statuses.get("rec").map(|status| &status.streams[..]).unwrap_or_default();
        let recordings = streams.iter().filter_map(|stream| stream.recording.as_ref());
        recordings.flat_map(|recording| &recording.tiers).filter(|tier| tier.tier == WARM).cloned().collect()
    };
    let both = |operator: &Operator, state: &str| {
        let tiers = warm_of(operator);
        tiers.len() == 2 && tiers.iter().all(|tier| tier.state == state)
    };
    let started = Instant::now();
    while !warm.join(IDENTITY).exists() {
        assert!(started.elapsed() < TIMEOUT, "{}", process.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Unmounted: the empty directory below is there.
    fs::rename(&warm, &away).unwrap();
    fs::create_dir(&warm).unwrap();
    operator.until("a tier is missing", |operator| both(operator, "failing"));
    for tier in warm_of(&operator) {
        let error = tier.error.unwrap();
        assert!(error.contains(warm.to_str().unwrap()) && error.contains("mount its disk"), "{error}");
    }
    fs::remove_dir(&warm).unwrap();
    fs::rename(&away, &warm).unwrap();
    operator.until("the tier is back", |operator| both(operator, "ready"));
    operator.until("the line in the log", |_| process.log().contains("tier.ready"));
    let log = process.log();
    for event in ["tier.failing", "tier.ready"] {
        assert_eq!(log.matches(event).count(), 1, "{log}");
    }
}

/// Killed again and again while recordings move: in the end each has one file and one entry.
#[test]
fn after_sigkill_while_moving_nothing_is_lost_or_there_twice() {
    let plugin = PluginFolder::new();
    let folder = tempfile::tempdir().unwrap();
    let (hot, warm) = (folder.path().join("hot"), folder.path().join("warm"));
    let options = format!(
        "segment-duration=1 hot-max-age=1 warm-min-free=0 min-free=0 move-rate=400000 location={} warm-location={}",
        hot.display(),
        warm.display()
    );
    let mut moved = 0;
    for round in 0..5_u64 {
        let mut child = plugin
            .tool("gst-launch-1.0")
            .args(CAMERA_PIPELINE.split_whitespace())
            .args(["!", "nvrrecordsink"])
            .args(options.split(' '))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + TIMEOUT;
        // Somewhere in the middle of a batch, each time elsewhere.
        while segments(&warm).len() <= moved {
            assert!(Instant::now() < deadline, "nothing is moved");
            std::thread::sleep(Duration::from_millis(20));
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(171 * round) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        moved = segments(&warm).len();
    }
    let recorder = Recorder::start(&format!(
        "{CAMERA_PIPELINE} ! nvrrecordsink name=rec {}",
        options.replace("move-rate=400000", "move-rate=0")
    ));
    let deadline = Instant::now() + TIMEOUT;
    while recorder.stat("moved") < 2 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    recorder.end();
    let rows = catalogue(&hot);
    let mut named: Vec<_> = rows.iter().map(Recording::file).collect();
    named.sort();
    let mut files: Vec<_> = [segments(&hot), segments(&warm)].concat();
    // A file in which no picture had been written yet is no recording.
    files.retain(|file| contents(file).frames() > 0);
    files.sort();
    assert_eq!(named, files);
    for row in &rows {
        let bytes = fs::read(row.file()).unwrap();
        assert_eq!(row.checksum.as_deref(), Some(sum(&bytes).as_str()), "{row:?}");
        played(&row.file());
    }
    let parts = fs::read_dir(&warm).unwrap().count();
    assert!(parts > 0);
    assert_eq!(Catalogue::open(&hot.join(FILE)).unwrap().moves(0).unwrap(), []);
}
