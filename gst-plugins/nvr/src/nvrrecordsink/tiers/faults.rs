//! What goes wrong with one tier, one camera or one file is no reason for the others to wait.

use std::fs;

use nvr_core::retention::Policy;

use super::mover::{Breath, Shared};
use super::round::{Round, confirm};
use super::step::finish;
use super::tests::{SECOND, Tiers};
use super::*;
use crate::nvrrecordsink::catalog::{Attached, Store};
use crate::nvrrecordsink::checksum::Checksum;
use crate::nvrrecordsink::volume::Volume;
use crate::nvrrecordsink::worker::now_us;

/// The cold tier went while it was copied to.
#[test]
fn a_tier_that_is_away_does_not_hold_up_the_others() {
    let tiers = Tiers::new(&[("hot-max-age", "100"), ("warm-max-age", "1000")]);
    tiers.record(500, "on its way to the cold tier");
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM]);
    let cold = tiers.step(2).place;
    tiers.store().know_volume(cold.volume()).unwrap();
    tiers.store().intend(&tiers.rows(), cold.volume()).unwrap();
    let (there, away) = (tiers.folder.path().join("cold"), tiers.folder.path().join("away"));
    fs::rename(&there, &away).unwrap();
    tiers.record(200, "goes to the warm tier");
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM, WARM]);
    // What is on its way waits until it is known what became of it.
    assert_eq!(tiers.store().moves(3).unwrap().len(), 1);
    fs::rename(&away, &there).unwrap();
    tiers.look();
    tiers.agrees();
}

/// The warm disk died while it was copied to, and there is another one in its place.
#[test]
fn a_volume_that_never_returns_does_not_keep_recordings_where_they_are() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    tiers.record(200, "was on its way");
    let lost = tiers.step(1).place.volume().clone();
    tiers.store().intend(&tiers.rows(), &lost).unwrap();
    fs::remove_dir_all(&lost.root).unwrap();
    let new = Volume::open(&lost.root, None).unwrap();
    assert_ne!(new.id, lost.id);
    tiers.store().know_volume(&new).unwrap();
    tiers.look();
    assert_eq!(tiers.rows()[0].volume, new.id);
    tiers.agrees();
}

/// One file of the warm tier cannot be removed.
#[test]
fn what_cannot_be_removed_holds_up_neither_moves_nor_other_removals() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    let stuck = tiers.record(900, "stays");
    tiers.record(800, "goes");
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM, WARM]);
    let stuck = tiers.folder.path().join("warm").join(stuck);
    fs::remove_file(&stuck).unwrap();
    fs::create_dir(&stuck).unwrap();
    fs::write(stuck.join("something"), "").unwrap();
    tiers.record(200, "goes on");
    tiers.policy(Policy { max_age_us: Some(700 * SECOND), ..Policy::default() });
    tiers.look();
    let rows = tiers.rows();
    assert!(rows.iter().any(|row| row.start_us > now_us() - 300 * SECOND && row.tier == WARM), "{rows:?}");
    assert_eq!(rows.len(), 2, "{rows:?}");
}

/// An hour of recordings was removed by hand.
#[test]
fn many_recordings_without_files_do_not_hold_up_the_others() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    for age in 1000..1070 {
        let gone = tiers.record(age, "gone");
        fs::remove_file(tiers.attached.volume.root.join(gone)).unwrap();
    }
    tiers.record(200, "there");
    let shared = Shared::default();
    let mut round = Round::new(&tiers.catalogue(), &shared);
    for _ in 0..20 {
        round.look(std::slice::from_ref(&tiers.attached));
    }
    assert_eq!(tiers.tiers_of().iter().filter(|tier| *tier == WARM).count(), 1);
    assert_eq!(tiers.rows().len(), 71, "`recordings verify` has to find them");
}

/// A recording that is on its way, and whose file and entry the keeper of the catalogue then removes; and a power cut.
fn removed_on_its_way(tiers: &Tiers) -> Store {
    let path = tiers.record(60, "removed");
    let (hot, warm) = (tiers.step(0).place, tiers.step(1).place);
    let rows = tiers.rows();
    let mut store = tiers.store();
    store.intend(&rows, warm.volume()).unwrap();
    let copy = warm.volume().root.join(&path);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(copy, "removed").unwrap();
    hot.remove(&path).unwrap();
    store.remove(&[&rows[0]]).unwrap();
    store
}

#[test]
fn a_copy_of_what_was_removed_meanwhile_is_removed() {
    let tiers = Tiers::new(&[]);
    removed_on_its_way(&tiers);
    tiers.look();
    assert_eq!(tiers.rows(), []);
    tiers.agrees();
}

#[test]
fn a_new_recording_is_not_taken_for_one_that_was_removed() {
    let tiers = Tiers::new(&[]);
    let old = tiers.record(60, "removed");
    let rows = tiers.rows();
    tiers.store().remove(&[&rows[0]]).unwrap();
    fs::remove_file(tiers.attached.volume.root.join(old)).unwrap();
    tiers.record(50, "another");
    assert_eq!(tiers.rows()[0].id, rows[0].id, "this test is about ids that are used again");
    // The mover and the keeper of the catalogue still have the old one in mind.
    let warm = tiers.step(1).place;
    tiers.store().know_volume(warm.volume()).unwrap();
    assert_eq!(tiers.store().arrive(&rows, warm.volume(), WARM).unwrap(), [0_i64; 0]);
    tiers.store().remove(&[&rows[0]]).unwrap();
    assert_eq!(tiers.tiers_of(), [HOT]);
    tiers.agrees();
    // After a power cut too.
    let tiers = Tiers::new(&[]);
    drop(removed_on_its_way(&tiers));
    tiers.record(50, "another");
    tiers.look();
    assert_eq!(tiers.tiers_of(), [HOT]);
    tiers.agrees();
}

/// The disk is unmounted between two files of a batch; the empty directory below the mount point is there.
#[test]
fn nothing_is_copied_below_a_mount_point_and_no_copy_there_counts() {
    let tiers = Tiers::new(&[]);
    let path = tiers.record(60, "stays in the hot tier");
    let (hot, warm) = (tiers.step(0), tiers.step(1));
    let rows = tiers.rows();
    tiers.store().intend(&rows, warm.place.volume()).unwrap();
    let (there, away) = (tiers.folder.path().join("warm"), tiers.folder.path().join("away"));
    fs::rename(&there, &away).unwrap();
    fs::create_dir(&there).unwrap();
    let shared = Shared::default();
    let (mut pace, began) = (nvr_core::retention::Pace::default(), std::time::Instant::now());
    let mut breath = Breath { shared: &shared, pace: &mut pace, began, rate: 0 };
    let mut source = hot.place.read(&path).unwrap();
    let error = warm.place.put(&rows[0], &mut source, &mut breath, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("is it mounted?"), "{error}");
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
    // One that got there in spite of that does not count, neither now nor when the disk is back.
    let copy = there.join(&path);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, "stays in the hot tier").unwrap();
    let does_not_count = || {
        finish(&mut tiers.store(), &hot, &warm, &rows).unwrap_err();
        assert_eq!(tiers.tiers_of(), [HOT]);
        assert!(rows[0].file().exists());
    };
    does_not_count();
    fs::remove_dir_all(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    does_not_count();
    tiers.look();
    tiers.agrees();
}

/// A camera was taken out of the site: nobody else makes room among its recordings, and they go on like those of others.
#[test]
fn recordings_of_cameras_that_do_not_run_go_on_when_room_is_short() {
    let tiers = Tiers::new(&[]);
    let stray = tiers.record_of(4, 900, "of a camera that does not run");
    tiers.record_of(5, 800, "of a camera that another process runs");
    tiers.record(200, "of one that runs");
    let mut other = Claims::beside(&tiers.catalogue());
    assert!(other.take(5).unwrap());
    // One of them was on its way when it was stopped.
    let warm = tiers.step(1).place;
    for row in tiers.rows().iter().take(2) {
        tiers.store().intend(std::slice::from_ref(row), warm.volume()).unwrap();
        let copy = warm.volume().root.join(&row.path);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(row.file(), copy).unwrap();
    }
    let free = tiers.attached.volume.free().unwrap();
    tiers.look();
    assert_eq!(tiers.tiers_of(), [HOT, HOT, HOT]);
    assert!(!warm.volume().root.join(stray).exists());
    assert_eq!(tiers.store().moves(4).unwrap(), []);
    assert_eq!(tiers.store().moves(5).unwrap().len(), 1, "the other process may be at it");
    tiers.attached.limits.lock().min_free = free * 2;
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM, HOT, WARM]);
    drop(other);
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM; 3]);
    assert_eq!(tiers.store().moves(5).unwrap(), []);
    tiers.agrees();
}

#[test]
fn recordings_of_cameras_that_do_not_run_are_removed_where_there_is_no_room_for_others() {
    let tiers = Tiers::new(&[]);
    tiers.record_of(4, 900, "of a camera that does not run");
    tiers.record_of(5, 900, "of a camera that is not ready");
    let free = tiers.attached.volume.free().unwrap();
    tiers.attached.limits.lock().min_free = free * 2;
    let waits = Attached { source_id: 5, settled: false, ..tiers.attached.clone() };
    let shared = Shared::default();
    let mut round = Round::new(&tiers.catalogue(), &shared);
    let attached = [tiers.attached.clone(), waits];
    while round.look(&attached) {}
    assert_eq!(tiers.tiers_of(), [WARM, HOT]);
    tiers.set("warm-min-free", &(free * 4).to_string());
    while round.look(&attached) {}
    assert_eq!(tiers.tiers_of(), [HOT]);
    tiers.agrees();
}

/// Memory or a cable had a bad moment.
#[test]
fn a_bad_copy_of_a_good_file_is_not_what_stays_of_it() {
    let tiers = Tiers::new(&[]);
    tiers.record(60, "as it was recorded");
    let row = &tiers.rows()[0];
    let (hot, warm) = (tiers.step(0).place, tiers.step(1).place);
    let copy = warm.volume().root.join(&row.path);
    let copied = |text: &str| {
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(&copy, text).unwrap();
        let (bytes, sum) = Checksum::of(&mut text.as_bytes(), u64::MAX).unwrap();
        confirm(&hot, &warm, row, (bytes, &sum))
    };
    for bad in ["as it Was recorded", "as it was"] {
        let error = copied(bad).unwrap_err();
        assert!(matches!(error, PlaceError::Source { .. }), "{error}");
        assert!(!copy.exists() && row.file().exists());
    }
    // What is bad on the disk is no better tomorrow.
    for damaged in ["as it Was recorded", "as it was"] {
        fs::write(row.file(), damaged).unwrap();
        copied(damaged).unwrap();
        assert!(copy.exists());
    }
}

/// The whole way: damaged on the disk, and cut off there.
#[test]
fn what_is_damaged_on_the_disk_moves_as_it_is() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    let rows = [300, 200].map(|age| tiers.record(age, "as it was recorded"));
    for (path, text) in rows.iter().zip(["as it Was recorded", "as it was"]) {
        fs::write(tiers.attached.volume.root.join(path), text).unwrap();
    }
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM, WARM]);
    assert_eq!(fs::read_to_string(tiers.folder.path().join("warm").join(&rows[1])).unwrap(), "as it was");
}

/// `recordings repair --location /mnt/warm/`, then a start without the disk.
#[test]
fn a_volume_is_known_however_its_location_was_written() {
    for older in [false, true] {
        let tiers = Tiers::new(&[("hot-max-age", "100")]);
        let (there, away) = (tiers.folder.path().join("warm"), tiers.folder.path().join("away"));
        let written = format!("{}//", there.display());
        let volume = Volume::open(written.as_ref(), None).unwrap();
        tiers.store().know_volume(&volume).unwrap();
        if older {
            // As it was noted before there was one way to write it.
            let db = rusqlite::Connection::open(tiers.catalogue()).unwrap();
            assert_eq!(db.execute("UPDATE volumes SET path = ?1", [&written]).unwrap(), 1);
        }
        fs::rename(&there, &away).unwrap();
        fs::create_dir(&there).unwrap();
        tiers.record(200, "waits for the disk");
        tiers.look();
        assert_eq!(tiers.tiers_of(), [HOT]);
        assert_eq!(fs::read_dir(&there).unwrap().count(), 0, "the mount point became a volume");
        fs::remove_dir(&there).unwrap();
        fs::rename(&away, &there).unwrap();
        tiers.look();
        assert_eq!(tiers.rows()[0].volume, volume.id);
        tiers.agrees();
    }
    assert_eq!(
        Place::canonical("warm/"),
        std::env::current_dir().unwrap().join("warm").display().to_string()
    );
}

/// What a snapshot holds is not free when it was removed.
#[test]
fn what_is_not_free_yet_is_not_removed_again() {
    let tiers = Tiers::new(&[("hot-max-age", "100"), ("cold-location", "")]);
    for age in [500, 400, 300] {
        tiers.record(age, "small");
    }
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM; 3]);
    let free = tiers.attached.volume.free().unwrap();
    // Each is thought to be what is missing, and frees nothing like it.
    let db = rusqlite::Connection::open(tiers.catalogue()).unwrap();
    db.execute("UPDATE recordings SET bytes = ?1", [i64::try_from(free * 4).unwrap()]).unwrap();
    tiers.set("warm-min-free", &(free * 2).to_string());
    let shared = Shared::default();
    let mut round = Round::new(&tiers.catalogue(), &shared);
    for _ in 0..3 {
        round.look(std::slice::from_ref(&tiers.attached));
        assert_eq!(tiers.tiers_of(), [WARM; 2]);
    }
}

/// The catalogue is what somebody wrote.
#[test]
fn a_note_that_leads_elsewhere_removes_nothing() {
    let tiers = Tiers::new(&[]);
    tiers.record(60, "recorded");
    let theirs = tiers.folder.path().join("2026-11-21T07-12-18.123Z.mp4");
    fs::write(&theirs, "theirs").unwrap();
    let mut row = tiers.rows().remove(0);
    let warm = tiers.step(1).place;
    for path in [theirs.clone(), format!("../{}", theirs.file_name().unwrap().display()).into()] {
        row.id += 1;
        row.path = path;
        tiers.store().intend(std::slice::from_ref(&row), warm.volume()).unwrap();
    }
    tiers.look();
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}

/// It was damaged, and the keeper of the catalogue, perhaps another process's, has put it aside.
#[test]
fn a_catalogue_that_was_replaced_is_not_written_any_more() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    let shared = Shared::default();
    let mut round = Round::new(&tiers.catalogue(), &shared);
    let mut look = || while round.look(std::slice::from_ref(&tiers.attached)) {};
    tiers.record(300, "in the old one");
    look();
    assert_eq!(tiers.tiers_of(), [WARM]);
    for ending in ["", "-wal", "-shm"] {
        let path = format!("{}{ending}", tiers.catalogue().display());
        fs::rename(&path, format!("{path}.aside")).unwrap();
    }
    tiers.record(200, "in the new one");
    tiers.store().know_volume(tiers.step(1).place.volume()).unwrap();
    look();
    assert_eq!(tiers.tiers_of(), [WARM]);
}

/// The entry could not be read any more; that is no removal.
#[test]
fn a_note_whose_entry_is_lost_with_the_catalogue_is_forgotten() {
    let tiers = Tiers::new(&[]);
    for age in [60, 50] {
        tiers.record(age, "recorded");
    }
    let rows = tiers.rows();
    tiers.store().intend(&rows, tiers.step(1).place.volume()).unwrap();
    tiers.store().remove(&[&rows[0]]).unwrap();
    let mut new = Store::open(&tiers.folder.path().join("new.db")).unwrap();
    assert_eq!(new.take_over(&tiers.catalogue()).unwrap(), 1);
    let notes: Vec<_> = new.moves(3).unwrap().into_iter().map(|one| one.path).collect();
    assert_eq!(notes, [rows[1].path.clone()]);
}
