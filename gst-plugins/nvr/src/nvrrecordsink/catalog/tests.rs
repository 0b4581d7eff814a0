use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::nvrrecordsink::checksum::Checksum;
use crate::nvrrecordsink::ear::{Seen, Sightings};
use crate::nvrrecordsink::file;
use crate::nvrrecordsink::volume::Volume;

pub(super) const MINUTE: i64 = 60_000_000;

pub(super) fn volume(root: &Path) -> Volume {
    Volume::open(root, None).unwrap()
}

pub(super) fn entry(volume: &Volume, source_id: u32, start_us: i64, end_us: Option<i64>) -> Entry {
    Entry {
        volume: volume.clone(),
        source_id,
        path: nvr_core::segment::name::path(source_id, start_us, 0),
        start_us,
        end_us,
        clock: "arrival",
        bytes: 1000,
        frames: 25,
        codec: "h264".into(),
        audio: None,
        width: 640,
        height: 360,
        event_count: 0,
        checksum: None,
        tier: crate::nvrrecordsink::tiers::HOT,
        sightings: Sightings::new(),
        cause: Cause::default(),
    }
}

#[test]
fn recordings_are_found_by_the_time_they_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let minutes = [0, 1, 2, 5].map(|at| entry(&volume, 1, at * MINUTE, Some((at + 1) * MINUTE)));
    store.write(&minutes).unwrap();
    store.write(&[entry(&volume, 2, 0, None)]).unwrap();
    for (from, to, expected) in [
        (0, MINUTE, vec![0]),
        (MINUTE / 2, MINUTE + 1, vec![0, 1]),
        (MINUTE, 2 * MINUTE, vec![1]),
        (3 * MINUTE, 5 * MINUTE, vec![]),
        (4 * MINUTE, 9 * MINUTE, vec![5]),
        (i64::MIN, i64::MAX, vec![0, 1, 2, 5]),
    ] {
        let found = store.recordings(1, from, to).unwrap();
        let found: Vec<_> = found.iter().map(|r| r.start_us / MINUTE).collect();
        assert_eq!(found, expected, "{from} to {to}");
    }
    let spans = store.timeline(1, 0, 10 * MINUTE, 1000).unwrap();
    let spans: Vec<_> = spans.iter().map(|s| (s.start_us / MINUTE, s.end_us / MINUTE, s.segments)).collect();
    assert_eq!(spans, [(0, 3, 3), (5, 6, 1)]);
    assert_eq!(store.cameras().unwrap(), [1, 2]);
    assert_eq!(store.used(Some(&volume.id), 1).unwrap(), 4000);
    assert_eq!(store.used(None, 2).unwrap(), 1000);
    // The end of a recording is noted where its beginning was.
    store.write(&[entry(&volume, 2, 0, Some(MINUTE))]).unwrap();
    assert_eq!(store.recordings(2, 0, 1).unwrap()[0].end_us, Some(MINUTE));
    assert!(store.unfinished(&volume.id, None).unwrap().is_empty());
}

#[test]
fn events_come_and_go_with_their_recording() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let seen = Seen { first_us: 10, last_us: 20, count: 3, confidence: 0.5 };
    let mut with = entry(&volume, 1, 0, Some(MINUTE));
    with.event_count = 2;
    with.sightings.insert("person".into(), seen);
    store.write(&[with, entry(&volume, 1, MINUTE, Some(2 * MINUTE))]).unwrap();
    let events = store.events(1, 0, MINUTE).unwrap();
    assert_eq!((events.len(), events[0].class_name.as_str(), events[0].count), (1, "person", 3));
    let all = Oldest { volume: Some(&volume.id), source_id: Some(1), plain: false };
    assert_eq!(store.oldest(&all, 9).unwrap().len(), 2);
    for volume in [Some(volume.id.as_str()), None] {
        let plain = store.oldest(&Oldest { volume, plain: true, ..all }, 9).unwrap();
        assert_eq!((plain.len(), plain[0].start_us), (1, MINUTE));
    }
    let other = Oldest { source_id: Some(2), ..all };
    assert!(store.oldest(&other, 9).unwrap().is_empty());
    let recording = &store.recordings(1, 0, 1).unwrap()[0];
    // One that is elsewhere by now is not what was to be removed.
    store.remove(&[&Recording { volume: "other".into(), ..recording.clone() }]).unwrap();
    assert_eq!(store.used(None, 1).unwrap(), 2000);
    store.remove(&[recording]).unwrap();
    assert_eq!(store.used(None, 1).unwrap(), 1000);
    assert!(store.events(1, 0, i64::MAX).unwrap().is_empty());
}

/// A file with fragments of one picture that lasts a second, and where the header and each fragment end.
pub(super) fn segment(fragments: u32) -> (Vec<u8>, Vec<usize>) {
    use nvr_core::segment::mp4::{self, Medium, Run, Sample, Track};
    let entry = mp4::video_entry(b"avc1", b"avcC", &[1], 640, 360);
    let track = Track { id: 1, medium: Medium::Video, timescale: 90_000, width: 640, height: 360, entry };
    let mut bytes = mp4::header(&[track], 0);
    let mut ends = vec![bytes.len()];
    for number in 0..fragments {
        let samples = [Sample { size: 4, duration: 90_000, offset: 0, key: true }];
        let start = u64::from(number) * 90_000;
        mp4::fragment(&mut bytes, number + 1, &[Run { track: 1, start, samples: &samples }]);
        bytes.extend([0; 4]);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

#[test]
fn what_a_crash_left_is_closed_entered_or_removed() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let (whole, ends) = segment(1);
    let empty = ends[0];
    let put = |start_us: i64, bytes: &[u8]| {
        let path = folder.path().join(nvr_core::segment::name::path(1, start_us, 0));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    };
    let torn: Vec<u8> = whole.iter().copied().chain([0, 0, 9, 9, b'm', b'o', b'o', b'f', 1]).collect();
    let cut = put(0, &torn);
    let bare = put(MINUTE, &whole[..empty]);
    let unknown = put(3 * MINUTE, &torn);
    let foreign = folder.path().join("1/1970-01-01/00/notes.mp4");
    fs::write(&foreign, "not ours").unwrap();
    // Begun and not noted: ours go, and nothing else of that name.
    let begun = [&whole[..0], &whole[..20], &whole[..empty], &[0; 100]];
    let begun: Vec<_> = (4..).zip(begun).map(|(at, bytes)| put(at * MINUTE, bytes)).collect();
    let strange = put(9 * MINUTE, b"not ours either");
    // Open: cut off, without a picture, and without a file.
    store.write(&[0, 1, 2].map(|at| entry(&volume, 1, at * MINUTE, None))).unwrap();
    let done = store.reconcile(&volume, 1).unwrap();
    assert_eq!(done, Repairs { closed: 1, entered: 1, removed: 6, ..Repairs::default() });
    for path in [&cut, &unknown] {
        assert_eq!(fs::read(path).unwrap(), whole);
    }
    assert!(!bare.exists() && begun.iter().all(|file| !file.exists()));
    assert!(foreign.exists() && strange.exists());
    let rows = store.recordings(1, i64::MIN, i64::MAX).unwrap();
    let rows: Vec<_> =
        rows.iter().map(|r| (r.start_us / MINUTE, r.end_us.map(|us| us / 1_000_000))).collect();
    assert_eq!(rows, [(0, Some(1)), (3, Some(181))]);
    // What was found whole has a checksum from now on.
    let mut checksum = Checksum::default();
    checksum.update(&whole);
    for row in store.recordings(1, i64::MIN, i64::MAX).unwrap() {
        assert_eq!(row.checksum, Some(checksum.text()));
    }
    assert_eq!(store.reconcile(&volume, 1).unwrap(), Repairs::default());
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mp4");
    let file = fs::File::create(&path).unwrap();
    file.lock().unwrap();
    assert!(repair_file(&path).unwrap().is_none());
    drop(file);
    assert!(repair_file(&path).unwrap().is_some());
}

/// Leftovers are taken care of while cameras begin to record.
#[test]
fn a_file_that_has_just_been_made_is_no_leftover() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let (looks, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut store = Store::open(&folder.path().join(FILE)).unwrap();
            while !done.load(Ordering::SeqCst) {
                store.reconcile(&volume, 1).unwrap();
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let _done = Done(&done);
        for at in 0..200 {
            let (file, path) = file::create(&volume.root, 1, at).unwrap();
            // One that has begun since, and ended.
            let wanted = looks.load(Ordering::SeqCst) + 2;
            while looks.load(Ordering::SeqCst) < wanted {
                thread::yield_now();
            }
            assert!(volume.root.join(&path).exists(), "{at}: {}", path.display());
            drop(file);
        }
    });
}

/// Ends a thread of a test, also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_newer_catalogue_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    drop(Store::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("newer version") && error.contains("99"), "{error}");
}

/// An archive of the first version is taken over with what it holds.
#[test]
fn a_catalogue_of_the_first_version_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(MIGRATIONS[0]).unwrap();
    let [first, second] =
        [0, 1].map(|again| nvr_core::segment::name::path(4, 0, again).display().to_string());
    db.execute_batch(&format!(
        "INSERT INTO volumes VALUES (1, 'disk', '/disk'); INSERT INTO cameras VALUES (4, 0);
         INSERT INTO recordings (source_id, volume_id, path, start_us, end_us, clock, bytes, codec, width, height)
         VALUES (4, 1, '{first}', 0, 9, 'ntp', 70, 'h264', 1, 1),
         (4, 1, '{second}', 9, NULL, 'ntp', 7, 'h264', 1, 1);
         PRAGMA user_version = 1;"
    ))
    .unwrap();
    drop(db);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.used(Some("disk"), 4).unwrap(), 77);
    let rows = store.recordings(4, 0, 99).unwrap();
    assert!(rows.iter().all(|row| row.tier == "hot" && row.checksum.is_none()), "{rows:?}");
    assert_eq!(store.volume_at("/disk").unwrap().as_deref(), Some("disk"));
}
