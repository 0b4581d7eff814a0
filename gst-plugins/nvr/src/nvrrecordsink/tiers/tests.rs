use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nvr_core::retention::Policy;
use parking_lot::Mutex;

use super::mover::Shared;
use super::round::Round;
use super::step::{self, Step};
use super::*;
use crate::nvrrecordsink::catalog::{Attached, Cause, Entry, FILE, Limits, Oldest, Recording, Store};
use crate::nvrrecordsink::checksum::Checksum;
use crate::nvrrecordsink::ear::Sightings;
use crate::nvrrecordsink::volume::{IDENTITY, Volume};
use crate::nvrrecordsink::worker::now_us;

pub(super) const SECOND: i64 = 1_000_000;

/// A hot, a warm and a cold directory, and a catalogue beside them.
pub(super) struct Tiers {
    pub folder: tempfile::TempDir,
    pub attached: Attached,
}

impl Tiers {
    pub fn new(settings: &[(&str, &str)]) -> Self {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::open(&folder.path().join("hot"), None).unwrap();
        let limits = Arc::new(Mutex::new(Limits::default()));
        let attached = Attached { volume, source_id: 3, limits, settled: true };
        let this = Self { folder, attached };
        let path = |name: &str| this.folder.path().join(name).display().to_string();
        let own =
            [("warm-location", path("warm")), ("cold-location", path("cold")), ("move-rate", "0".into())];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in own.chain(settings.iter().copied()) {
            this.set(name, value);
        }
        this
    }

    pub fn set(&self, name: &str, value: &str) {
        let specs = TierSettings::properties();
        let spec = specs.iter().find(|spec| spec.name() == name).unwrap();
        let value = match value.parse::<u64>() {
            Ok(number) => gst::glib::Value::from(number),
            Err(_) => gst::glib::Value::from(value),
        };
        assert!(self.attached.limits.lock().tiers.set(&value, spec));
    }

    pub fn catalogue(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.catalogue()).unwrap()
    }

    pub fn policy(&self, policy: Policy) {
        self.attached.limits.lock().policy = policy;
    }

    /// Records a segment that began `age` seconds ago.
    pub fn record(&self, age: i64, text: &str) -> PathBuf {
        self.record_of(3, age, text)
    }

    pub fn record_of(&self, source_id: u32, age: i64, text: &str) -> PathBuf {
        let start_us = now_us() - age * SECOND;
        let path = nvr_core::segment::name::path(source_id, start_us, 0);
        let file = self.attached.volume.root.join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        let mut checksum = Checksum::default();
        checksum.update(text.as_bytes());
        let entry = Entry {
            volume: self.attached.volume.clone(),
            source_id,
            path: path.clone(),
            start_us,
            end_us: Some(start_us + SECOND),
            clock: "arrival",
            bytes: text.len() as u64,
            frames: 25,
            codec: "h264".into(),
            audio: None,
            width: 640,
            height: 360,
            event_count: 0,
            checksum: Some(checksum.text()),
            tier: HOT,
            sightings: Sightings::new(),
            cause: Cause::default(),
        };
        self.store().write(&[entry]).unwrap();
        path
    }

    /// As the thread does until there is nothing to do.
    pub fn look(&self) {
        let shared = Shared::default();
        let mut round = Round::new(&self.catalogue(), &shared);
        let attached = [self.attached.clone()];
        while round.look(&attached) {}
    }

    pub fn rows(&self) -> Vec<Recording> {
        self.store().page(0, 1000).unwrap()
    }

    pub fn tiers_of(&self) -> Vec<String> {
        let rows = self.store().oldest(&Oldest::default(), 1000).unwrap();
        rows.into_iter().map(|row| row.tier).collect()
    }

    pub fn step(&self, index: usize) -> Step {
        let name = ["hot", "warm", "cold"][index];
        let location = self.folder.path().join(name).display().to_string();
        let place = Place::open(&location, None, None).unwrap();
        Step {
            index,
            tier: [HOT, WARM, COLD][index],
            place,
            leaves: Policy::default(),
            min_free: 0,
            floor: 0,
        }
    }

    /// Every entry has its one file, and every file its entry.
    pub fn agrees(&self) {
        let rows = self.rows();
        let mut named: Vec<_> = rows.iter().map(Recording::file).collect();
        named.sort();
        assert_eq!(named, files(self.folder.path()));
        for row in rows {
            let text = fs::read(row.file()).unwrap();
            let (_, checksum) = Checksum::of(&mut &text[..], u64::MAX).unwrap();
            assert_eq!(Some(checksum.text()), row.checksum);
        }
        assert_eq!(self.store().moves(3).unwrap(), []);
    }
}

/// Recordings, and what is half copied, in any tier.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e.to_string_lossy().starts_with("mp4")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn recordings_go_on_by_age_and_out_of_the_last_tier() {
    let tiers = Tiers::new(&[("hot-max-age", "100"), ("warm-max-age", "200")]);
    tiers.policy(Policy { max_age_us: Some(300 * SECOND), ..Policy::default() });
    for age in [10, 110, 210, 310] {
        tiers.record(age, &format!("recorded {age} s ago"));
    }
    tiers.look();
    // The oldest has gone, once it had left the first tier: that one the keeper of the catalogue looks after.
    assert_eq!(tiers.tiers_of(), [COLD, WARM, HOT]);
    assert_eq!(tiers.attached.limits.lock().tally.moved.load(Ordering::Relaxed), 4);
    tiers.agrees();
    let store = tiers.store();
    assert_eq!(store.recordings(3, 0, i64::MAX).unwrap().len(), 3, "the timeline shows every tier");
}

#[test]
fn recordings_go_on_by_bytes_and_all_tiers_count_for_the_limit() {
    let tiers = Tiers::new(&[("hot-max-bytes", "20"), ("warm-max-bytes", "30")]);
    for age in 1..=8 {
        tiers.record(age * 60, "ten bytes!");
    }
    tiers.look();
    assert_eq!(tiers.tiers_of(), [COLD, COLD, COLD, WARM, WARM, WARM, HOT, HOT]);
    tiers.policy(Policy { max_bytes: Some(60), ..Policy::default() });
    tiers.look();
    assert_eq!(tiers.tiers_of(), [COLD, WARM, WARM, WARM, HOT, HOT]);
    tiers.agrees();
    let volume = &tiers.attached.volume;
    assert_eq!(tiers.store().used(Some(&volume.id), 3).unwrap(), 20);
}

#[test]
fn a_volume_that_has_too_little_free_passes_its_oldest_on() {
    let tiers = Tiers::new(&[("cold-min-free", "0")]);
    let free = tiers.attached.volume.free().unwrap();
    for age in 1..=4 {
        tiers.record(age * 60, "ten bytes!");
    }
    // More than there is: everything goes, out of the warm tier too, where half of it is not there either.
    tiers.attached.limits.lock().min_free = free * 2;
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM; 4]);
    tiers.agrees();
    let tiers = Tiers::new(&[("cold-min-free", &(free * 2).to_string())]);
    tiers.record(60, "kept");
    tiers.look();
    assert_eq!(tiers.tiers_of(), [HOT], "what is full is the cold tier");
}

#[test]
fn a_tier_that_is_missing_loses_nothing_and_is_not_taken_for_an_empty_one() {
    let tiers = Tiers::new(&[("hot-max-age", "100"), ("warm-max-age", "1000")]);
    tiers.policy(Policy { max_age_us: Some(5000 * SECOND), ..Policy::default() });
    tiers.record(200, "goes on");
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM]);
    // The disk is unmounted; the empty directory below is there.
    let (warm, away) = (tiers.folder.path().join("warm"), tiers.folder.path().join("away"));
    fs::rename(&warm, &away).unwrap();
    fs::create_dir(&warm).unwrap();
    tiers.record(190, "stays for now");
    // Even what is too old is not forgotten: its file could not be removed.
    tiers.policy(Policy { max_age_us: Some(195 * SECOND), ..Policy::default() });
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM, HOT]);
    assert_eq!(fs::read_dir(&warm).unwrap().count(), 0, "something was put under the mount point");
    // Another disk in its place is not it either.
    fs::write(warm.join(IDENTITY), "another\n").unwrap();
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM, HOT]);
    fs::remove_dir_all(&warm).unwrap();
    fs::rename(&away, &warm).unwrap();
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM]);
    tiers.agrees();
}

#[test]
fn no_tier_is_passed_over_because_it_is_missing() {
    let tiers = Tiers::new(&[("hot-max-age", "100"), ("warm-max-age", "1")]);
    tiers.record(200, "waits");
    fs::write(tiers.folder.path().join("warm"), "no directory").unwrap();
    tiers.look();
    assert_eq!(tiers.tiers_of(), [HOT]);
    tiers.agrees();
}

/// A stop at any moment of a move: after each of its steps in turn, everything is as if it had come to an end, or as
/// if it had not begun.
#[test]
fn a_power_cut_at_any_moment_of_a_move_loses_and_doubles_nothing() {
    for steps in 0..6 {
        let tiers = Tiers::new(&[]);
        let path = tiers.record(60, "one recording");
        let rows = tiers.rows();
        let (hot, warm) = (tiers.step(0), tiers.step(1));
        let new = warm.place.volume().root.join(&path);
        let mut store = tiers.store();
        if steps > 0 {
            store.intend(&rows, warm.place.volume()).unwrap();
        }
        if steps > 1 {
            fs::create_dir_all(new.parent().unwrap()).unwrap();
            fs::write(new.with_extension("mp4-part"), "one rec").unwrap();
        }
        if steps > 2 {
            fs::rename(new.with_extension("mp4-part"), &new).unwrap();
            fs::write(&new, "one recording").unwrap();
        }
        if steps > 3 {
            store.arrive(&rows, warm.place.volume(), WARM).unwrap();
        }
        if steps > 4 {
            hot.place.remove(&path).unwrap();
        }
        drop(store);
        let all = [hot, warm, tiers.step(2)];
        assert!(
            step::settle_all(&mut tiers.store(), &all, 3, None, &mut step::Refused::new())
                .unwrap()
                .is_empty()
        );
        tiers.agrees();
        assert_eq!(tiers.tiers_of(), [if steps > 3 { WARM } else { HOT }], "after {steps} steps");
    }
}

/// A catalogue from a backup may say less than there is; the last file of a recording is never taken for a leftover.
#[test]
fn the_only_file_of_a_recording_counts_whatever_the_entry_says() {
    for arrived in [false, true] {
        let tiers = Tiers::new(&[]);
        let path = tiers.record(60, "one recording");
        let rows = tiers.rows();
        let (hot, warm) = (tiers.step(0), tiers.step(1));
        let mut store = tiers.store();
        store.intend(&rows, warm.place.volume()).unwrap();
        if arrived {
            // The copy is lost.
            store.arrive(&rows, warm.place.volume(), WARM).unwrap();
        } else {
            let new = warm.place.volume().root.join(&path);
            fs::create_dir_all(new.parent().unwrap()).unwrap();
            fs::rename(hot.place.volume().root.join(&path), new).unwrap();
        }
        assert!(
            step::settle_all(&mut store, &[hot, warm], 3, None, &mut step::Refused::new())
                .unwrap()
                .is_empty()
        );
        assert_eq!(tiers.tiers_of(), [if arrived { HOT } else { WARM }]);
        tiers.agrees();
    }
}

#[test]
fn what_is_not_ours_is_neither_written_over_nor_removed() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    let path = tiers.record(200, "ours");
    let theirs = tiers.folder.path().join("warm").join(&path);
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "theirs").unwrap();
    tiers.look();
    assert_eq!(tiers.tiers_of(), [HOT]);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
}

#[test]
fn a_recording_whose_file_is_gone_does_not_hold_up_the_others() {
    let tiers = Tiers::new(&[("hot-max-age", "100")]);
    let gone = tiers.record(300, "gone");
    tiers.record(200, "there");
    fs::remove_file(tiers.attached.volume.root.join(gone)).unwrap();
    tiers.look();
    assert_eq!(tiers.tiers_of(), [HOT, WARM]);
    assert_eq!(tiers.store().moves(3).unwrap(), []);
}

#[test]
fn a_stopped_mover_leaves_nothing_half_done() {
    // A byte a second, so that it is still copying when it is stopped.
    let tiers = Tiers::new(&[("hot-max-age", "100"), ("move-rate", "1")]);
    tiers.record(200, "more than a second's worth");
    let mover = Mover::start(&tiers.catalogue()).unwrap();
    mover.attend(vec![tiers.attached.clone()]);
    let part = || files(&tiers.folder.path().join("warm")).len();
    let began = std::time::Instant::now();
    while part() == 0 {
        assert!(began.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(mover);
    assert_eq!(part(), 0);
    assert_eq!(tiers.tiers_of(), [HOT]);
    tiers.attached.limits.lock().tiers.move_rate = 0;
    tiers.look();
    assert_eq!(tiers.tiers_of(), [WARM]);
    tiers.agrees();
}
