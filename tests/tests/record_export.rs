//! What is taken out of recordings, and how they are shown: exports that begin and end where they were asked to, with
//! chapters, and timelines as JSON and as a picture.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Once;

use gst::prelude::*;
use gstnvr::meta;
use gstnvr::nvrrecordsink::catalog::{FILE, Store};
use nvr_core::detection::{CaptureTime, Clock, FrameFacts};
use nvr_tests::golden;
use nvr_tests::plugin::PluginFolder;
use nvr_tests::recordings::{ffprobe, folder_in_memory, played, played_by_gstreamer};
use rusqlite::{Connection, params};

const FPS: i64 = 25;
const SECOND: i64 = 1_000_000;
/// 2026-11-21 10:00:00 UTC.
const TEN: i64 = 1_795_255_200 * SECOND;

fn init() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

fn recordings(folder: &Path, arguments: &[&str]) -> ExitCode {
    let all = ["nvr-launch", "recordings", "--location"].map(OsString::from).into_iter();
    nvr_launch::cli::main(all.chain([folder.into()]).chain(arguments.iter().map(Into::into)))
}

/// The same in a process of its own, for what it prints.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let mut command = PluginFolder::new().tool(env!("CARGO_BIN_EXE_launch"));
    let output = command.args(["recordings", "--location"]).arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn time(us: i64) -> String {
    nvr_core::event::timestamp(us as u64 * 1000).to_string()
}

/// Twelve seconds of a camera from ten o'clock on, a keyframe every two seconds, in segments of four.
fn twelve_seconds(folder: &Path, encoder: &str, parser: &str) {
    init();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers=300 pattern=ball ! video/x-raw,width=160,height=120,framerate={FPS}/1 ! {encoder} \
         ! {parser} ! identity name=camera ! nvrrecordsink segment-duration=4 location={}",
        folder.display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let pad = pipeline.by_name("camera").and_then(|e| e.static_pad("src")).unwrap();
    let begin = std::sync::OnceLock::new();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let pts = buffer.pts().unwrap().nseconds();
            let unix_ns = TEN as u64 * 1000 + (pts - begin.get_or_init(|| pts));
            let capture = Some(CaptureTime { unix_ns, clock: Clock::Ntp });
            meta::set_facts(buffer.make_mut(), &FrameFacts { capture, ..FrameFacts::default() });
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert!(matches!(end.as_ref().map(|m| m.view()), Some(gst::MessageView::Eos(_))), "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let store = Store::existing(&folder.join(FILE)).unwrap();
    let starts: Vec<_> = store.recordings(0, 0, i64::MAX).unwrap().iter().map(|r| r.start_us - TEN).collect();
    assert_eq!(starts, [0, 4 * SECOND, 8 * SECOND]);
}

/// Notes that something was seen in the recording of a time.
fn see(folder: &Path, class: &str, first_us: i64, last_us: i64) {
    let db = Connection::open(folder.join(FILE)).unwrap();
    let id: i64 = db
        .query_row("SELECT max(id) FROM recordings WHERE start_us <= ?1", [first_us], |row| row.get(0))
        .unwrap();
    db.execute(
        "INSERT INTO events (recording_id, class_name, first_us, last_us, count, confidence) \
         VALUES (?1, ?2, ?3, ?4, 5, 0.9)",
        params![id, class, first_us, last_us],
    )
    .unwrap();
    db.execute("UPDATE recordings SET event_count = event_count + 5 WHERE id = ?1", [id]).unwrap();
}

/// Times of the pictures in a file as they are decoded, edit lists aside: seconds after the first.
fn times(file: &Path) -> Vec<f64> {
    let text = ffprobe(
        file,
        &["-ignore_editlist", "1", "-select_streams", "v:0", "-show_entries", "frame=pts_time"],
    );
    let text = text.unwrap();
    let mut times: Vec<f64> = text
        .lines()
        .map(|line| line.trim_end_matches(','))
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().unwrap())
        .collect();
    let first = times[0];
    for time in &mut times {
        *time -= first;
    }
    times
}

struct Export {
    file: PathBuf,
    seconds: f64,
    pictures: u64,
}

fn export(folder: &Path, from_us: i64, to_us: i64, more: &[&str]) -> Export {
    let file = folder.join(format!("export{}-{from_us}.mp4", more.len()));
    let (from, to) = (time(TEN + from_us), time(TEN + to_us));
    let output = file.display().to_string();
    let mut arguments = vec!["export", "--source", "0", "--from", &from, "--to", &to, "--output", &output];
    arguments.extend(more);
    assert_eq!(recordings(folder, &arguments), ExitCode::SUCCESS, "{arguments:?}");
    let seconds = ffprobe(&file, &["-show_entries", "format=duration"]).unwrap();
    let pictures = played(&file).unwrap();
    Export { seconds: seconds.trim().parse().unwrap(), pictures, file }
}

fn exact(encoder: &str, parser: &str) {
    let folder = folder_in_memory().unwrap();
    twelve_seconds(folder.path(), encoder, parser);
    // From within a group of pictures over two borders of segments; at a keyframe; within one group.
    for (from_us, to_us) in
        [(3_160_000, 8_600_000), (4 * SECOND, 6 * SECOND), (5_200_000, 5_600_000), (160_000, 11_960_000)]
    {
        let wanted = (to_us - from_us) as f64 / SECOND as f64;
        let plain = export(folder.path(), from_us, to_us, &[]);
        let exact = export(folder.path(), from_us, to_us, &["--exact"]);
        for export in [&plain, &exact] {
            assert!((export.seconds - wanted).abs() < 0.002, "{}: {}", export.file.display(), export.seconds);
            assert_eq!(export.pictures, (wanted * FPS as f64).round() as u64, "{}", export.file.display());
        }
        // Without an edit list the exact one has no picture more, and the pictures keep their distance. Behind the
        // end there may be one that those before it refer to.
        let mut times = times(&exact.file);
        times.retain(|time| *time < wanted - 0.001);
        assert_eq!(times.len() as u64, exact.pictures, "{times:?}");
        for (at, time) in times.iter().enumerate() {
            assert!((time - at as f64 / FPS as f64).abs() < 0.001, "{at}: {times:?}");
        }
        if parser == "h264parse" {
            assert!(played_by_gstreamer(&exact.file).unwrap() >= exact.pictures);
        }
    }
}

#[test]
fn an_export_can_hold_nothing_from_before_its_beginning() {
    exact("x264enc tune=zerolatency key-int-max=50 speed-preset=ultrafast", "h264parse");
}

#[test]
fn an_export_of_reordered_pictures_can_hold_nothing_from_before_its_beginning() {
    exact("x264enc bframes=2 b-adapt=false key-int-max=50 speed-preset=ultrafast", "h264parse");
}

#[test]
fn an_export_has_chapters_where_something_was_seen() {
    let folder = folder_in_memory().unwrap();
    twelve_seconds(
        folder.path(),
        "x264enc tune=zerolatency key-int-max=50 speed-preset=ultrafast",
        "h264parse",
    );
    see(folder.path(), "person", TEN + 3 * SECOND, TEN + 4 * SECOND);
    see(folder.path(), "Lkw „ü“", TEN + 9 * SECOND, TEN + 9 * SECOND);
    for more in [&[][..], &["--exact"]] {
        let file = export(folder.path(), 2_600_000, 10 * SECOND, more).file;
        let text = ffprobe(&file, &["-show_entries", "chapter=start_time:chapter_tags=title"]).unwrap();
        let chapters: Vec<_> = text.lines().collect();
        let name = |class: &str, us: i64| format!("{class} {}", time(TEN + us));
        assert_eq!(
            chapters,
            [
                format!("0.400000,{}", name("person", 3 * SECOND)),
                format!("6.400000,{}", name("Lkw „ü“", 9 * SECOND))
            ],
            "{more:?}"
        );
    }
}

#[test]
fn a_timeline_as_json_has_gaps_and_coverage() {
    let folder = folder_in_memory().unwrap();
    twelve_seconds(
        folder.path(),
        "x264enc tune=zerolatency key-int-max=50 speed-preset=ultrafast",
        "h264parse",
    );
    see(folder.path(), "person", TEN + 9 * SECOND, TEN + 10 * SECOND);
    Connection::open(folder.path().join(FILE))
        .unwrap()
        .execute("DELETE FROM recordings WHERE start_us = ?1", [TEN + 4 * SECOND])
        .unwrap();
    let (from, to) = (time(TEN - 4 * SECOND), time(TEN + 12 * SECOND));
    let text = printed(folder.path(), &["timeline", "--json", "--from", &from, "--to", &to]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pair = |name: &str| {
        let list = found[name].as_array().unwrap();
        list.iter().map(|each| (each["start"].clone(), each["end"].clone())).collect::<Vec<_>>()
    };
    let times = |seconds: [(i64, i64); 2]| {
        seconds.map(|(from, to)| (time(TEN + from * SECOND).into(), time(TEN + to * SECOND).into()))
    };
    assert_eq!(pair("spans"), times([(0, 4), (8, 12)]));
    assert_eq!(pair("gaps"), times([(-4, 0), (4, 8)]));
    assert_eq!((found["from"].as_str(), found["to"].as_str()), (Some(&*from), Some(&*to)));
    assert!((found["coverage"].as_f64().unwrap() - 0.5).abs() < 1e-6, "{text}");
    assert_eq!(found["events"][0]["class_name"], "person");
}

/// A day of four cameras as they may be: with a pause, around the clock, by day, and around events.
fn a_day(folder: &Path) {
    drop(Store::open(&folder.join(FILE)).unwrap());
    let mut db = Connection::open(folder.join(FILE)).unwrap();
    let db = db.transaction().unwrap();
    db.execute("INSERT INTO volumes (identity, path) VALUES ('guide', '/srv/recordings')", []).unwrap();
    let begin = TEN - 10 * 3600 * SECOND;
    let minute = 60 * SECOND;
    let put = |source: i64, from: i64, minutes: i64, reason: &str| {
        db.execute("INSERT OR IGNORE INTO cameras (source_id, first_us) VALUES (?1, 0)", [source]).unwrap();
        db.execute(
            "INSERT INTO recordings (source_id, volume_id, path, start_us, end_us, clock, bytes, frames, codec, \
             width, height, event_count, reason) VALUES (?1, 1, ?2, ?3, ?4, 'ntp', ?5, 1500, 'h264', 1280, 720, 1, ?6)",
            params![
                source,
                format!("{source}/{from}.mp4"),
                begin + from * minute,
                begin + (from + minutes) * minute,
                minutes * 15_000_000,
                reason
            ],
        )
        .unwrap();
        db.last_insert_rowid()
    };
    let mut events = Vec::new();
    for hour in 0..24 {
        for part in 0..6 {
            let from = hour * 60 + part * 10;
            if !(14..16).contains(&hour) {
                events.push((put(0, from, 10, "continuous"), from, 0));
            }
            events.push((put(1, from, 10, "continuous"), from, 1));
            if (6..20).contains(&hour) && (hour * 7 + part * 5) % 3 == 0 {
                events.push((put(2, from, 6, "motion"), from, 2));
            }
            if (hour * 11 + part * 7) % 9 == 0 {
                events.push((put(3, from, 2, "events"), from, 3));
            }
        }
    }
    put(3, 9 * 60 + 15, 25, "on_demand");
    for (id, from, source) in events {
        for (number, class) in ["person", "car", "dog"].into_iter().enumerate() {
            let number = number as i64;
            let hour = from / 60;
            let often = if (7..19).contains(&hour) { 3 } else { 11 };
            if (from / 10 * 5 + source * 3 + number * 7) % (often + number * 4) == 0 {
                let at = begin + (from + number) * minute;
                db.execute(
                    "INSERT INTO events (recording_id, class_name, first_us, last_us, count, confidence) \
                     VALUES (?1, ?2, ?3, ?4, 9, 0.8)",
                    params![id, class, at, at + (1 + number) * minute],
                )
                .unwrap();
            }
        }
    }
    db.commit().unwrap();
}

/// The picture in the guide. `NVR_GOLDEN=write` draws it anew; look at it before committing it.
#[test]
fn the_picture_of_the_guide_is_what_is_drawn() {
    let folder = folder_in_memory().unwrap();
    a_day(folder.path());
    let drawn = folder.path().join("timeline.png");
    let output = drawn.display().to_string();
    let arguments = ["timeline", "--from", "2026-11-21T00:00:00Z", "--to", "2026-11-22T00:00:00Z"];
    let more = ["--time-zone", "Europe/Berlin", "--width", "1200", "--picture", &output];
    assert_eq!(recordings(folder.path(), &[&arguments[..], &more[..]].concat()), ExitCode::SUCCESS);
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images/timeline.png");
    let drawn = golden::read(&drawn).unwrap();
    if std::env::var_os("NVR_GOLDEN").is_some_and(|value| value == "write") {
        golden::write(&guide, &drawn).unwrap();
        return;
    }
    let found = golden::similarity(&golden::read(&guide).unwrap(), &drawn).unwrap();
    assert!(found.mean > 0.99 && found.worst > 0.9, "{found:?}");
}
