//! The keeper when things go wrong: recorders that end late, catalogues that are lost or damaged, disks that are full,
//! and clocks that jump.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::retention::Policy;
use nvr_core::segment::name;
use parking_lot::Mutex;

use super::keeper::{Desk, Table, keep_on};
use super::tests::{MINUTE, entry, segment, volume};
use super::*;
use crate::nvrrecordsink::ear::Seen;
use crate::nvrrecordsink::worker::now_us;

const TIMEOUT: Duration = Duration::from_mins(1);
const DAY: i64 = 1440 * MINUTE;

/// A file of a recording that began at `start_us`, in or out of the catalogue.
fn record(volume: &Volume, source_id: u32, start_us: i64) -> PathBuf {
    let file = volume.root.join(name::path(source_id, start_us, 0));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, segment(1).0).unwrap();
    file
}

/// A desk with one recorder before it.
fn desk(catalogue: &Path, volume: &Volume, limits: &Limits) -> (Desk, Arc<Table>) {
    let table = Arc::new(Table::default());
    table.sit(volume, 1, &Arc::new(Mutex::new(limits.clone())));
    let mut desk = Desk::new(catalogue, &table);
    desk.attend();
    (desk, table)
}

/// As the thread does, until leftovers are taken care of.
fn settle(desk: &mut Desk) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        desk.attend();
        desk.settle();
        if desk.attached.iter().all(|a| a.settled) {
            return;
        }
        assert!(Instant::now() < deadline, "leftovers are not taken care of");
        thread::sleep(Duration::from_millis(5));
    }
}

fn starts(catalogue: &Path) -> Vec<i64> {
    let rows = Store::open(catalogue).unwrap().recordings(1, i64::MIN, i64::MAX).unwrap();
    rows.iter().map(|row| row.start_us / MINUTE).collect()
}

/// A disk hung, the recorder was given up and another began; then the disk came back, and the first one ended.
#[test]
fn a_recorder_that_ends_late_takes_nothing_from_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let keeper = Keeper::of(&folder.path().join(FILE));
    let limits = Arc::new(Mutex::new(Limits::default()));
    let first = keeper.attach(&volume, 1, &limits);
    let second = keeper.attach(&volume, 1, &limits);
    drop(first);
    assert_eq!(keeper.sitting(), 1);
    drop(second);
    assert_eq!(keeper.sitting(), 0);
}

#[test]
fn a_thread_that_panics_begins_anew() {
    let runs = AtomicU32::new(0);
    keep_on(|| assert!(runs.fetch_add(1, Ordering::Relaxed) > 0, "on purpose"));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

/// The catalogue is lost, and the archive large: what is recorded now is entered, and room is made, before all of it
/// was read again.
#[test]
fn a_lost_catalogue_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let catalogue = folder.path().join(FILE);
    let files: Vec<_> = (0..300).map(|at| record(&volume, 1, at * MINUTE)).collect();
    let (mut desk, _table) = desk(&catalogue, &volume, &Limits::default());
    desk.note(entry(&volume, 1, 400 * MINUTE, Some(401 * MINUTE)));
    desk.settle();
    assert!(!desk.attached[0].settled, "all of it was read at once");
    assert!(starts(&catalogue).contains(&400));
    settle(&mut desk);
    assert_eq!(starts(&catalogue), (0..300).chain([400]).collect::<Vec<_>>());
    desk.room_now(&volume);
    assert!(!files[0].exists() && files[1].exists());
    // It was stopped while it read: the next start goes on where that was.
    drop(desk);
    drop(Store::open(&catalogue).unwrap());
    let db = Connection::open(&catalogue).unwrap();
    db.execute("DELETE FROM recordings WHERE start_us >= ?1 AND start_us < ?2", [250 * MINUTE, 300 * MINUTE])
        .unwrap();
    let (mut desk, _table) = self::desk(&catalogue, &volume, &Limits::default());
    settle(&mut desk);
    assert_eq!(starts(&catalogue), (1..300).chain([400]).collect::<Vec<_>>());
}

/// Entries were left out while the catalogue could not be written; later ones are in it.
#[test]
fn what_was_left_out_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let catalogue = folder.path().join(FILE);
    let (mut desk, table) = desk(&catalogue, &volume, &Limits::default());
    settle(&mut desk);
    for at in 0..2 {
        record(&volume, 1, at * MINUTE);
        table.leave_out(&entry(&volume, 1, at * MINUTE, Some((at + 1) * MINUTE)));
    }
    let many = (0..300).map(|at| entry(&volume, 1, (1000 + at) * MINUTE, Some((1001 + at) * MINUTE)));
    many.for_each(|entry| desk.note(entry));
    desk.settle();
    desk.attend();
    assert!(!desk.attached[0].settled && starts(&catalogue).contains(&1299));
    settle(&mut desk);
    assert_eq!(starts(&catalogue)[..3], [0, 1, 1000]);
}

/// A catalogue that is no database any more, and one with pages that are damaged.
#[test]
fn a_damaged_catalogue_is_replaced() {
    for whole in [0, 3 * 4096] {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path());
        let catalogue = folder.path().join(FILE);
        let files: Vec<_> = (0..50).map(|at| record(&volume, 1, at * MINUTE)).collect();
        let mut store = Store::open(&catalogue).unwrap();
        let known: Vec<_> =
            (0..50).map(|at| entry(&volume, 1, at * MINUTE, Some((at + 1) * MINUTE))).collect();
        store.write(&known).unwrap();
        drop(store);
        let mut bytes = fs::read(&catalogue).unwrap();
        bytes[whole..].fill(0x5A);
        fs::write(&catalogue, bytes).unwrap();
        let (mut desk, _table) = desk(&catalogue, &volume, &Limits::default());
        let deadline = Instant::now() + TIMEOUT;
        while !desk.attached[0].settled {
            assert!(Instant::now() < deadline, "the catalogue is not replaced");
            thread::sleep(Duration::from_millis(20));
            desk.attend();
            desk.settle();
            desk.keep_limits();
        }
        assert_eq!(starts(&catalogue), (0..50).collect::<Vec<_>>());
        assert!(files.iter().all(|file| file.exists()));
        let names = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
        let aside = names.filter(|name| name.to_string_lossy().starts_with("catalog.db.corrupt-"));
        assert!(aside.count() >= 1);
    }
}

/// What can be read is taken over with what only the catalogue knows.
#[test]
fn a_new_catalogue_takes_over_what_the_old_one_knew() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
    let mut store = Store::open(&old).unwrap();
    let mut entries: Vec<_> =
        (0..500).map(|at| entry(&volume, 1, at * MINUTE, Some(at * MINUTE + 1))).collect();
    let seen = Seen { first_us: 0, last_us: 1, count: 2, confidence: 0.5 };
    entries[0].event_count = 1;
    entries[0].sightings.insert("person".into(), seen);
    entries[1].tier = "warm";
    store.write(&entries).unwrap();
    let rows = store.page(0, 1000).unwrap();
    let events = store.events(1, 0, MINUTE).unwrap();
    drop(store);
    let mut store = Store::open(&new).unwrap();
    assert_eq!(store.take_over(&old).unwrap(), 500);
    assert_eq!(store.page(0, 1000).unwrap(), rows);
    assert_eq!(store.events(1, 0, MINUTE).unwrap(), events);
    assert_eq!(store.used(None, 1).unwrap(), 500 * 1000);
}

/// Without a catalogue that can be asked, what is asked for goes, and no more.
#[test]
fn room_is_made_without_a_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let catalogue = folder.path().join(FILE);
    fs::create_dir(&catalogue).unwrap();
    let files: Vec<_> = (0..5).map(|at| record(&volume, 1, at * MINUTE)).collect();
    let size = fs::metadata(&files[0]).unwrap().len();
    let (mut desk, _table) = desk(&catalogue, &volume, &Limits::default());
    desk.make_room_unasked(&volume, 2 * size + 1);
    let left: Vec<_> = files.iter().map(|file| file.exists()).collect();
    assert_eq!(left, [false, false, false, true, true]);
    desk.room_now(&volume);
    assert!(!files[3].exists() && files[4].exists());
}

/// The machine's clock was wrong when it started: nothing goes for its age until it has been what it is for a while.
#[test]
fn a_clock_that_is_ahead_removes_nothing() {
    let limits =
        Limits { policy: Policy { max_age_us: Some(7 * DAY), ..Policy::default() }, ..Limits::default() };
    for (last, goes) in [(400 * DAY, false), (DAY / 48, true)] {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(folder.path());
        let catalogue = folder.path().join(FILE);
        let file = record(&volume, 1, now_us() - 409 * DAY);
        let mut store = Store::open(&catalogue).unwrap();
        let ages = [405 * DAY, last].map(|age| now_us() - age);
        store.write(&ages.map(|start| entry(&volume, 1, start, Some(start + MINUTE)))).unwrap();
        let old = record(&volume, 1, ages[0]);
        drop(store);
        let (mut desk, _table) = desk(&catalogue, &volume, &limits);
        settle(&mut desk);
        desk.keep_limits();
        assert_eq!(old.exists(), !goes, "{last}");
        assert!(file.exists(), "not in the catalogue");
    }
}
