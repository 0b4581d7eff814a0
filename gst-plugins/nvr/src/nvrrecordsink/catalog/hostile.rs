//! Rows, files and clocks that are not what they should be.

use std::fs;
use std::os::unix::fs::symlink;

use nvr_core::segment::name;

use super::tests::{MINUTE, entry, segment, volume};
use super::*;
use crate::nvrrecordsink::ear::Seen;

/// A row can name any file of the machine; only recordings of the camera are believed to be such.
#[test]
fn rows_that_lead_elsewhere_are_passed_over_and_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(&folder.path().join("disk"));
    let path = folder.path().join(FILE);
    let mut store = Store::open(&path).unwrap();
    let theirs = folder.path().join("theirs.mp4");
    fs::write(&theirs, "keep").unwrap();
    let named = |path: PathBuf, at: i64| Entry { path, ..entry(&volume, 1, at, Some(at + 1)) };
    let file = name::path(1, 7, 0).file_name().unwrap().to_owned();
    let elsewhere = [
        theirs.clone(),
        "../theirs.mp4".into(),
        Path::new("1/../..").join(&file),
        "1/1970-01-01/00/notes.mp4".into(),
        name::path(2, 7, 0),
    ];
    let bad: Vec<_> = (0..).zip(elsewhere).map(|(at, path)| named(path, at)).collect();
    store.write(&bad).unwrap();
    store.write(&[entry(&volume, 1, MINUTE, Some(2 * MINUTE))]).unwrap();
    // Numbers that are none are as bad.
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "INSERT INTO cameras VALUES (99999999999, 0);
         INSERT INTO recordings (source_id, volume_id, path, start_us, end_us, clock, bytes, codec, width, height)
         VALUES (99999999999, 1, 'a', 0, 1, 'ntp', 1, 'h264', 1, 1), (1, 1, 'b', 0, 1, 'ntp', -9000, 'h264', 1, 1);",
    )
    .unwrap();
    let starts = |rows: Vec<Recording>| rows.iter().map(|row| row.start_us).collect::<Vec<_>>();
    assert_eq!(starts(store.recordings(1, 0, i64::MAX).unwrap()), [MINUTE]);
    // A page that holds no recording is not the last one.
    assert_eq!(starts(store.page(0, 2).unwrap()), [MINUTE]);
    assert_eq!(store.cameras().unwrap(), [1]);
    store.used(None, 1).unwrap();
    let all = Oldest { volume: Some(&volume.id), ..Oldest::default() };
    assert_eq!(starts(store.oldest(&all, 3).unwrap()), [MINUTE]);
    let rows: i64 = db.query_row("SELECT count(*) FROM recordings", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    assert_eq!(store.used(None, 1).unwrap(), 1000);
    assert_eq!(fs::read_to_string(theirs).unwrap(), "keep");
}

/// A note on a move has a file of either volume removed.
#[test]
fn moves_of_what_is_no_recording_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(&folder.path().join("disk"));
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    store.write(&[0, 1].map(|at| entry(&volume, 1, at * MINUTE, Some((at + 1) * MINUTE)))).unwrap();
    let mut rows = store.page(0, 9).unwrap();
    rows[0].path = "../theirs.mp4".into();
    store.intend(&rows, &Volume { root: folder.path().join("warm"), id: "warm".into() }).unwrap();
    let moves = store.moves(1).unwrap();
    assert_eq!(moves.iter().map(|one| &one.path).collect::<Vec<_>>(), [&rows[1].path]);
}

/// Neither removing nor repairing goes through a link.
#[test]
fn links_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(&folder.path().join("disk"));
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let (whole, ends) = segment(1);
    let torn = &whole[..ends[1] - 1];
    let path = name::path(1, 0, 0);
    let theirs = folder.path().join("theirs");
    fs::create_dir_all(&theirs).unwrap();
    let file = theirs.join(path.file_name().unwrap());
    fs::write(&file, torn).unwrap();
    // A day that is a link to a folder, and a recording that is a link to a file.
    fs::create_dir_all(volume.root.join("1/1970-01-01")).unwrap();
    symlink(&theirs, volume.root.join("1/1970-01-01/00")).unwrap();
    let link = volume.root.join(name::path(2, 0, 0));
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(&file, &link).unwrap();
    for source_id in [1, 2] {
        assert_eq!(store.reconcile(&volume, source_id).unwrap(), Repairs::default());
    }
    assert!(repair_file(&link).is_err());
    volume.remove(&path).unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), torn);
}

/// Bit rot, a hole: what is whole behind it stays, whether the catalogue knew the file or not.
#[test]
fn a_file_that_goes_on_behind_damage_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let (whole, ends) = segment(4);
    let damage = |from: usize| {
        let mut bytes = whole.clone();
        bytes[from..from + 12].fill(0xAA);
        bytes
    };
    let mut long = whole[..ends[1]].to_vec();
    long.resize(ends[1] + (20 << 20), 7);
    // In a fragment, in the first one, in the header, and without an end that could be a fragment's.
    let files = [damage(ends[1]), damage(ends[0]), damage(28), long];
    for camera in [1, 2] {
        for (at, bytes) in (0..).zip(&files) {
            let file = volume.root.join(name::path(camera, at * MINUTE, 0));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
    }
    store.write(&[0, 1, 2, 3].map(|at| entry(&volume, 1, at * MINUTE, None))).unwrap();
    for (camera, closed, entered) in [(1, 2, 0), (2, 0, 2)] {
        let done = store.reconcile(&volume, camera).unwrap();
        assert_eq!((done.closed, done.entered, done.removed), (closed, entered, 0), "{done:?}");
        assert!(done.failed >= 4, "{done:?}");
        for (at, bytes) in (0..).zip(&files) {
            let file = volume.root.join(name::path(camera, at * MINUTE, 0));
            assert!(fs::read(&file).unwrap() == *bytes, "{} was touched", file.display());
        }
        let rows = store.recordings(camera, 0, i64::MAX).unwrap();
        let ended: Vec<_> = rows.iter().filter(|row| row.end_us.is_some()).collect();
        // Of these, all goes when they go; and nobody says that they are what they were.
        let sizes: Vec<_> = ended.iter().map(|row| row.bytes).collect();
        assert_eq!(sizes, [files[0].len() as u64, files[3].len() as u64]);
        assert!(ended.iter().all(|row| row.checksum.is_none() && row.frames == 1));
    }
}

/// Blocks that a power cut left unwritten are no damage, however many there are.
#[test]
fn zeroes_at_the_end_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mp4");
    let (mut bytes, ends) = segment(1);
    bytes.resize(ends[1] + (20 << 20), 0);
    fs::write(&path, &bytes).unwrap();
    repair_file(&path).unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes[..ends[1]]);
}

#[test]
fn an_entry_that_cannot_be_held_does_not_keep_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let mut entries = [0, 1, 2, 3].map(|at| entry(&volume, 1, at * MINUTE, Some((at + 1) * MINUTE)));
    // Somebody else's analysis.
    let seen = Seen { first_us: 0, last_us: 1, count: 1, confidence: f64::NAN };
    entries[0].event_count = 1;
    entries[0].sightings.insert("person".into(), seen);
    entries[1].clock = "sundial";
    entries[2].bytes = u64::MAX;
    store.write(&entries).unwrap();
    let rows = store.page(0, 9).unwrap();
    assert_eq!(rows.iter().map(|row| row.start_us / MINUTE).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(store.events(1, 0, MINUTE).unwrap()[0].confidence.to_bits(), 0);
    store.write(&entries[1..2]).unwrap();
    assert_eq!(store.page(0, 9).unwrap().len(), 2);
}

/// Somebody repairs while it is recorded, and finds a file that has just been finished.
#[test]
fn a_checksum_that_is_known_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let known = Entry { checksum: Some("sum".into()), ..entry(&volume, 1, 0, Some(MINUTE)) };
    let found = Entry { checksum: None, clock: "file", ..known.clone() };
    store.write(&[known, found]).unwrap();
    assert_eq!(store.page(0, 9).unwrap()[0].checksum.as_deref(), Some("sum"));
}

/// A clock that was ahead for a while hides nothing that is recorded afterwards.
#[test]
fn what_a_power_cut_took_is_found_after_the_clock_was_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let (whole, _) = segment(1);
    let day = 1440 * MINUTE;
    for at in [0, 1, 2] {
        let file = volume.root.join(name::path(1, at * MINUTE, 0));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, &whole).unwrap();
    }
    let starts = [400 * day, 0, MINUTE];
    store.write(&starts.map(|at| entry(&volume, 1, at, Some(at + MINUTE)))).unwrap();
    let done = store.reconcile(&volume, 1).unwrap();
    assert_eq!(done, Repairs { entered: 1, ..Repairs::default() });
    // A camera that has not recorded since others did a lot is looked at from its last recording on.
    assert_eq!(store.recent(&volume.id, 1).unwrap(), Some(0));
    let many: Vec<_> = (0..20_100).map(|at| entry(&volume, 2, at * 1000, Some(at * 1000 + 1))).collect();
    store.write(&many).unwrap();
    assert_eq!(store.recent(&volume.id, 1).unwrap(), Some(400 * day));
    assert_eq!(store.recent(&volume.id, 2).unwrap(), Some((20_100 - 200) * 1000));
    assert_eq!(store.recent(&volume.id, 3).unwrap(), None);
}

/// A folder that cannot be read is not one without recordings.
#[test]
fn a_folder_that_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    symlink("1", folder.path().join("1")).unwrap();
    let error = store.reconcile(&volume, 1).unwrap_err();
    assert!(matches!(error, CatalogError::Io { .. }), "{error}");
}

/// The clock was set back while it was recorded, and one is being written.
#[test]
fn what_reaches_into_a_time_is_found_whatever_began_since() {
    let folder = tempfile::tempdir().unwrap();
    let volume = volume(folder.path());
    let mut store = Store::open(&folder.path().join(FILE)).unwrap();
    let mut long = entry(&volume, 1, 0, Some(10 * MINUTE));
    long.event_count = 1;
    let seen = Seen { first_us: 5 * MINUTE, last_us: 6 * MINUTE, count: 1, confidence: 0.5 };
    long.sightings.insert("person".into(), seen);
    store.write(&[long, entry(&volume, 1, MINUTE, Some(2 * MINUTE))]).unwrap();
    let found = store.recordings(1, 5 * MINUTE, 6 * MINUTE).unwrap();
    assert_eq!(found.iter().map(|row| row.start_us).collect::<Vec<_>>(), [0]);
    assert_eq!(store.events(1, 5 * MINUTE, 6 * MINUTE).unwrap().len(), 1);
    let spans = store.timeline(1, 5 * MINUTE, 6 * MINUTE, 0).unwrap();
    assert_eq!((spans.len(), spans[0].end_us), (1, 10 * MINUTE));

    let now = crate::nvrrecordsink::worker::now_us();
    store.write(&[entry(&volume, 2, now - MINUTE, None)]).unwrap();
    assert_eq!(store.recordings(2, now - MINUTE / 2, now).unwrap().len(), 1);
    let spans = store.timeline(2, now - MINUTE / 2, now, 0).unwrap();
    assert!(spans.len() == 1 && spans[0].end_us >= now, "{spans:?}");
    // One that a crash left open long ago does not last for ever.
    store.write(&[entry(&volume, 3, now - 600 * MINUTE, None)]).unwrap();
    assert!(store.recordings(3, now - MINUTE, now).unwrap().is_empty());
    assert!(store.timeline(3, now - MINUTE, now, 0).unwrap().is_empty());
}
