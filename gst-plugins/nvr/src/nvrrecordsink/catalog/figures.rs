//! That nothing which is asked of the catalogue grows with the archive: by the plans that SQLite makes, and, when asked
//! for, by the clock, with a million recordings.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::tests::{MINUTE, entry, volume};
use super::*;
use crate::nvrrecordsink::ear::Seen;
use crate::nvrrecordsink::volume::Volume;

thread_local! {
    static SAID: RefCell<BTreeSet<String>> = RefCell::default();
}

/// What SQLite means to do for each statement that was run since `listen`.
fn plans(path: &Path) -> Vec<(String, Vec<String>)> {
    let db = Connection::open(path).unwrap();
    let said = SAID.with_borrow(|said| said.iter().cloned().collect::<Vec<_>>());
    let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    said.into_iter()
        .filter(|text| verbs.iter().any(|verb| text.starts_with(verb)))
        .map(|text| {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            let (mut rows, mut steps) = (statement.raw_query(), Vec::new());
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get("detail").unwrap());
            }
            drop(rows);
            (text, steps)
        })
        .collect()
}

#[test]
fn no_statement_reads_all_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let path = folder.path().join(FILE);
    let mut store = Store::open(&path).unwrap();
    store.db.trace_v2(
        TraceEventCodes::SQLITE_TRACE_STMT,
        Some(|event| {
            if let TraceEvent::Stmt(statement, _) = event {
                SAID.with_borrow_mut(|said| said.insert(statement.sql().into_owned()));
            }
        }),
    );
    let mut entries: Vec<_> =
        (0..9).map(|at| entry(&volume, 1, at * MINUTE, Some((at + 1) * MINUTE))).collect();
    entries[3].event_count = 1;
    entries[3].sightings.insert(
        "person".into(),
        Seen { first_us: 3 * MINUTE, last_us: 3 * MINUTE, count: 1, confidence: 0.5 },
    );
    entries.push(entry(&volume, 1, 9 * MINUTE, None));
    store.write(&entries).unwrap();
    store.cameras().unwrap();
    store.recordings(1, MINUTE, 2 * MINUTE).unwrap();
    store.timeline(1, MINUTE, 2 * MINUTE, 1000).unwrap();
    store.events(1, MINUTE, 5 * MINUTE).unwrap();
    store.page(0, 10).unwrap();
    store.unfinished(&volume.id, Some(1)).unwrap();
    store.newest(&volume.id, 1).unwrap();
    store.recent(&volume.id, 1).unwrap();
    for id in [Some(volume.id.as_str()), None] {
        store.used(id, 1).unwrap();
        for (source_id, plain) in [(Some(1), false), (Some(1), true), (None, false), (None, true)] {
            // All cameras on all volumes are nobody's business.
            if source_id.is_some() || id.is_some() {
                store.oldest(&Oldest { volume: id, source_id, plain }, 10).unwrap();
            }
        }
    }
    store.reconcile(&volume, 1).unwrap();
    let first = store.page(0, 1).unwrap();
    let other = Volume { root: "/other".into(), id: "other".into() };
    store.volume_at("/other").unwrap();
    store.intend(&first, &other).unwrap();
    store.uploading(first[0].id, "upload").unwrap();
    store.moves(1).unwrap();
    store.arrive(&first, &other, "warm").unwrap();
    store.point(&first[0].path, &other, &volume, "hot").unwrap();
    store.moved(&[first[0].id]).unwrap();
    assert!(!store.elsewhere(&volume, &first[0].path).unwrap());
    store.remove(&[&first[0]]).unwrap();
    let plans = plans(&path);
    assert!(plans.len() >= 12, "{plans:#?}");
    for (statement, steps) in &plans {
        for step in steps {
            // There are few volumes and cameras.
            let few = [" v", " volumes", " cameras", " moves", " m", " usage", " CONSTANT ROW"];
            let scan =
                step.strip_prefix("SCAN").is_some_and(|what| !few.iter().any(|few| what.starts_with(few)));
            assert!(!scan, "{step}: {statement}");
            // What is sorted was read as a whole; the events of a time are few.
            let sorts = step.contains("TEMP B-TREE") && !statement.contains("JOIN events");
            assert!(!sorts, "{step}: {statement}");
        }
    }
}

/// Twelve cameras, 83,333 recordings of ten seconds each: almost ten days.
const CAMERAS: u32 = 12;
const EACH: i64 = 1_000_000 / CAMERAS as i64;
const LASTS: i64 = 10_000_000;

fn fill(store: &mut Store, volume: &Volume) {
    for camera in 0..CAMERAS {
        let mut entries: Vec<_> =
            (0..EACH).map(|at| entry(volume, camera, at * LASTS, Some((at + 1) * LASTS))).collect();
        for with in entries.iter_mut().skip(7).step_by(20) {
            let seen =
                Seen { first_us: with.start_us, last_us: with.start_us + 1, count: 3, confidence: 0.5 };
            with.event_count = 3;
            with.sightings.insert("person".into(), seen);
        }
        // What a recorder that was killed leaves.
        entries.push(entry(volume, camera, EACH * LASTS, None));
        store.write(&entries).unwrap();
    }
}

/// Prints what it took, and, in a release build, holds it against the limit.
fn timed<T>(what: &str, limit: Option<u64>, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    let took = began.elapsed();
    let allowed = limit.map_or_else(String::new, |limit| format!("{limit} ms"));
    println!("| {what} | {:.1} ms | {allowed} |", took.as_secs_f64() * 1e3);
    if let Some(limit) = limit.filter(|_| !cfg!(debug_assertions)) {
        assert!(took < Duration::from_millis(limit), "{what} took {took:?}");
    }
    result
}

#[test]
#[ignore = "writes a catalogue of a million rows: cargo test --release -p gst-plugin-nvr million -- --ignored --nocapture"]
fn a_million_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let path = folder.path().join(FILE);
    fill(&mut Store::open(&path).unwrap(), &volume);
    println!("\n| {CAMERAS} cameras, a million recordings | took | allowed |\n| --- | --- | --- |");
    let mut store = timed("start: open, repair what 12 cameras left", Some(1000), || {
        let mut store = Store::open(&path).unwrap();
        for camera in 0..CAMERAS {
            assert_eq!(store.reconcile(&volume, camera).unwrap().removed, 1);
        }
        store
    });
    let (from, to) = (3 * 1440 * MINUTE, 4 * 1440 * MINUTE);
    timed("timeline of 24 hours of 12 cameras", Some(100), || {
        for camera in 0..CAMERAS {
            let spans = store.timeline(camera, from, to, 1_000_000).unwrap();
            assert_eq!(spans.iter().map(|span| span.segments).sum::<u64>(), 8640);
        }
    });
    timed("the same with events, catalogue just opened", Some(100), || {
        let store = Store::existing(&path).unwrap();
        for camera in 0..CAMERAS {
            store.timeline(camera, from, to, 1_000_000).unwrap();
            assert_eq!(store.events(camera, from, to).unwrap().len(), 432);
        }
    });
    timed("recordings of an hour", Some(10), || {
        assert_eq!(store.recordings(5, from, from + 60 * MINUTE).unwrap().len(), 360);
    });
    timed("a new recording noted", Some(100), || {
        store.write(&[entry(&volume, 3, EACH * LASTS, None)]).unwrap();
    });
    timed("the 256 oldest of a camera", Some(20), || {
        let wanted = Oldest { volume: Some(&volume.id), source_id: Some(3), plain: false };
        assert_eq!(store.oldest(&wanted, 256).unwrap().len(), 256);
    });
    timed("the 256 oldest of a volume, without events", Some(20), || {
        let wanted = Oldest { volume: Some(&volume.id), source_id: None, plain: true };
        assert_eq!(store.oldest(&wanted, 256).unwrap().len(), 256);
    });
    timed("bytes of a camera", Some(5), || store.used(Some(&volume.id), 3).unwrap());
}
