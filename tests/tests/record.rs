//! nvrrecordsink: what is recorded is whole, plays, and is in the catalogue; also after SIGKILL.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstnvr::nvrrecordsink::catalog::{FILE, Recording, Store};
use nvr_tests::mosquitto::{Access, Mosquitto};
use nvr_tests::plugin::PluginFolder;
use nvr_tests::recorder::{
    LIVE, Recorder, TIMEOUT, agrees_with_files, catalogue, contents, init, played, segments,
};

fn counted(encoder: &str, parser: &str, codec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new");
    Recorder::start(&format!(
        "videotestsrc num-buffers=300 ! video/x-raw,width=320,height=240,framerate=25/1 ! {encoder} ! {parser} \
         ! nvrrecordsink name=rec location={} segment-duration=2 source-id=7",
        root.display()
    ))
    .finished();
    let rows = agrees_with_files(&root);
    assert!(rows.len() >= 4, "{rows:?}");
    assert!(rows.iter().all(|row| row.codec == codec && (row.width, row.height) == (320, 240)), "{rows:?}");
    assert_eq!(rows.iter().map(|row| row.frames).sum::<u64>(), 300);
    let files = segments(&root.join("7"));
    assert_eq!(files.iter().map(|file| played(file)).sum::<u64>(), 300);
    for file in files {
        assert!(contents(&file).samples[0].key, "{} begins with no keyframe", file.display());
    }
}

#[test]
fn every_picture_is_in_one_segment() {
    init();
    counted("x264enc tune=zerolatency key-int-max=25 speed-preset=ultrafast", "h264parse", "h264");
}

#[test]
fn pictures_that_are_reordered_are_in_one_segment() {
    init();
    counted("x264enc bframes=3 b-adapt=false key-int-max=30 speed-preset=veryfast", "h264parse", "h264");
}

#[test]
fn h265_is_recorded() {
    init();
    if gst::ElementFactory::find("x265enc").is_none() {
        println!("skipped: x265enc is not installed");
        return;
    }
    counted("x265enc key-int-max=30 speed-preset=ultrafast option-string=open-gop=0", "h265parse", "h265");
}

#[test]
fn another_resolution_begins_another_segment() {
    let folder = tempfile::tempdir().unwrap();
    let camera = |width: u32, height: u32| {
        format!(
            "videotestsrc num-buffers=50 ! video/x-raw,width={width},height={height},framerate=25/1 \
             ! x264enc tune=zerolatency key-int-max=25 ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! c."
        )
    };
    Recorder::start(&format!(
        "concat name=c ! nvrrecordsink name=rec segment-duration=60 location={} {} {}",
        folder.path().display(),
        camera(320, 240),
        camera(640, 360)
    ))
    .finished();
    let rows = agrees_with_files(folder.path());
    let mut sizes: Vec<_> = rows.iter().map(|row| (row.width, row.height, row.frames)).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [(320, 240, 50), (640, 360, 50)]);
    assert!(segments(folder.path()).iter().all(|file| played(file) == 50));
}

#[test]
fn sound_that_mp4_does_not_hold_costs_no_picture() {
    for (sound, expected) in
        [("avenc_aac ! aacparse", Some("aac")), ("opusenc ! opusparse", Some("opus")), ("alawenc", None)]
    {
        let folder = tempfile::tempdir().unwrap();
        Recorder::start(&format!(
            "audiotestsrc num-buffers=80 samplesperbuffer=800 ! audio/x-raw,rate=8000 ! audioresample ! {} {sound} \
             ! rec.audio videotestsrc num-buffers=100 ! video/x-raw,width=320,height=240,framerate=25/1 \
             ! x264enc tune=zerolatency key-int-max=25 ! h264parse \
             ! nvrrecordsink name=rec location={} segment-duration=1",
            if expected.is_some() { "audio/x-raw,rate=48000 !" } else { "" },
            folder.path().display()
        ))
        .finished();
        let rows = agrees_with_files(folder.path());
        assert_eq!(rows.iter().map(|row| row.frames).sum::<u64>(), 100, "{sound}");
        let found: Vec<_> = rows.iter().filter_map(|row| row.audio.as_deref()).collect();
        assert!(expected.map_or(found.is_empty(), |codec| found.contains(&codec)), "{sound}: {found:?}");
        assert_eq!(segments(folder.path()).iter().map(|file| played(file)).sum::<u64>(), 100, "{sound}");
    }
}

/// What is left plays, and the next start closes it in the catalogue.
#[test]
fn after_sigkill_everything_plays_and_the_catalogue_is_repaired() {
    let plugin = PluginFolder::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("recordings");
    let mut ends = 0;
    for round in 0..5_u64 {
        let mut child = plugin
            .tool("gst-launch-1.0")
            .args(LIVE.split(' '))
            .args(
                "! x264enc tune=zerolatency key-int-max=25 ! h264parse ! nvrrecordsink segment-duration=1"
                    .split(' '),
            )
            .arg(format!("location={}", root.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = segments(&root).len();
        let deadline = Instant::now() + TIMEOUT;
        // Kill it in the middle of a file, each time elsewhere.
        while segments(&root).len() < before + 2 {
            assert!(Instant::now() < deadline, "nothing is recorded");
            std::thread::sleep(Duration::from_millis(20));
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(137 * round) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for file in segments(&root) {
            if contents(&file).frames() > 0 {
                played(&file);
            } else {
                ends += 1;
            }
        }
    }
    // Not more than the one that had just been begun, each time.
    assert!(ends <= 15, "{ends}");
    let open = |rows: &[Recording]| rows.iter().filter(|row| row.end_us.is_none()).count();
    let before = catalogue(&root);
    let recorder = Recorder::start(&format!(
        "{LIVE} ! x264enc tune=zerolatency key-int-max=25 ! h264parse \
         ! nvrrecordsink name=rec segment-duration=1 location={}",
        root.display()
    ));
    recorder.segment();
    recorder.segment();
    recorder.end();
    let rows = catalogue(&root);
    assert_eq!(open(&rows), 0, "before: {before:?}\nafter: {rows:?}");
    let known: Vec<_> = rows.iter().map(Recording::file).collect();
    for file in segments(&root) {
        assert!(known.contains(&file) || contents(&file).frames() == 0, "{} is not known", file.display());
    }
}

#[test]
fn limits_remove_the_oldest_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("0/holiday.mp4");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "not ours").unwrap();
    let recorder = Recorder::start(&format!(
        "{LIVE} ! x264enc tune=zerolatency key-int-max=12 ! h264parse \
         ! nvrrecordsink name=rec segment-duration=1 max-bytes=1 location={}",
        folder.path().display()
    ));
    let first = folder.path().join(recorder.segment().get::<&str>("path").unwrap());
    let deadline = Instant::now() + TIMEOUT;
    while first.exists() {
        assert!(Instant::now() < deadline, "{} is still there", first.display());
        recorder.segment();
    }
    recorder.end();
    assert!(foreign.exists());
    assert!(catalogue(folder.path()).iter().all(|row| row.file().exists() && row.file() != first));
}

#[test]
fn events_of_the_broker_are_recorded_with_what_came_before() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&format!(
        "{LIVE} ! x264enc tune=zerolatency key-int-max=12 ! h264parse ! nvrrecordsink name=rec mode=events source-id=3 \
         pre-buffer=2 post-buffer=1 segment-duration=60 broker={} location={}",
        broker.url(),
        folder.path().display()
    ));
    let deadline = Instant::now() + TIMEOUT;
    while recorder.stat("received") < 100 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(recorder.stat("segments"), 0);
    assert!(recorder.stat("buffered") > 0);
    let begun = now_us();
    let events = gst::parse::launch(&format!(
        "nvrtestsrc num-buffers=20 framerate=20/1 width=320 height=240 objects=16 \
         ! nvrmqttsink source-id=3 broker={}",
        broker.url()
    ))
    .unwrap();
    events.set_state(gst::State::Playing).unwrap();
    let segment = recorder.segment();
    events.set_state(gst::State::Null).unwrap();
    recorder.end();
    let start = segment.get::<u64>("start").unwrap() as i64;
    assert!(start < begun - 1_500_000, "begins {} us before the events", begun - start);
    assert!(segment.get::<u64>("events").unwrap() > 0, "{segment}");
    let store = Store::existing(&folder.path().join(FILE)).unwrap();
    let seen = store.events(3, 0, i64::MAX).unwrap();
    assert!(seen.iter().any(|event| event.class_name == "person" && event.count > 0), "{seen:?}");
}

/// The file plays exactly what was asked for, although it has to begin with a keyframe before that.
#[test]
fn an_export_begins_and_ends_where_it_was_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&format!(
        "{LIVE} ! x264enc tune=zerolatency key-int-max=25 ! h264parse \
         ! nvrrecordsink name=rec segment-duration=2 location={} \
         audiotestsrc is-live=true ! avenc_aac ! aacparse ! rec.audio",
        folder.path().display()
    ));
    for _ in 0..4 {
        recorder.segment();
    }
    recorder.end();
    let rows = agrees_with_files(folder.path());
    let origin = rows[0].start_us / 1000 * 1000;
    let output = folder.path().join("export.mp4");
    let time = |us: i64| nvr_core::event::timestamp((origin + us) as u64 * 1000).to_string();
    let arguments = [
        "nvr-launch",
        "recordings",
        "export",
        "--location",
        folder.path().to_str().unwrap(),
        "--source",
        "0",
        "--from",
        &time(1_500_000),
        "--to",
        &time(5_300_000),
        "--output",
        output.to_str().unwrap(),
    ];
    let code = nvr_launch::cli::main(arguments.map(Into::into));
    assert_eq!(code, std::process::ExitCode::SUCCESS);
    // 3.8 s at 25 pictures a second; one more or less where the cut falls between two.
    let pictures = played(&output);
    assert!((94..=96).contains(&pictures), "{pictures}");
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "format=duration:stream=codec_name", "-of", "csv=p=0"])
        .arg(&output)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&probe.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["h264", "aac"], "{text}");
    let seconds: f64 = lines[2].parse().unwrap();
    assert!((seconds - 3.8).abs() < 0.1, "{text}");
    // What exists is not written over.
    assert_ne!(nvr_launch::cli::main(arguments.map(Into::into)), code);
}

fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_micros() as i64
}
