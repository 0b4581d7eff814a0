//! Keeps the limits: removes what is too old or too much, and makes room on volumes that are full.

use std::collections::HashMap;

use nvr_core::retention::{self, Candidate, Policy};

use super::keeper::Desk;
use super::reconcile::oldest_file;
use super::{Attached, CatalogError, Oldest, Recording, Store};
use crate::nvrrecordsink::imp::CAT;
use crate::nvrrecordsink::volume::Volume;

/// Segments that are looked at in one pass.
pub const PASS: u32 = 256;
/// Room for the largest fragment, so that recording does not stop again at once.
const LEAST: u64 = 4 << 20;

impl Desk {
    /// Keeps the limits of every recorder. What goes wrong with one is no reason to leave out another.
    pub(super) fn keep_limits(&mut self) {
        let Some(mut store) = self.store.take() else { return };
        let mut result = Ok(());
        for attached in &self.attached {
            let limits = attached.limits.lock().clone();
            // Where there are tiers, a limit of bytes counts for all of them, and the oldest lie elsewhere.
            let max_bytes = limits.policy.max_bytes.filter(|_| !limits.tiers.any());
            let cleaned = clean(&mut store, attached, &Policy { max_bytes, ..limits.policy });
            result = result.and(cleaned);
        }
        let volumes: Vec<_> = self.attached.iter().map(|a| a.volume.clone()).collect();
        for (at, volume) in volumes.iter().enumerate() {
            // Once for each.
            if volumes[..at].contains(volume) {
                continue;
            }
            let missing = self.missing(volume, 0);
            result = result.and(self.make_room(&mut store, volume, missing));
        }
        self.store = Some(store);
        if let Err(error) = result {
            self.failed(&error);
        }
    }

    /// Takes the oldest recordings of the volume, whosever of ours they are, until a little is free.
    pub(super) fn room_now(&mut self, volume: &Volume) {
        let missing = self.missing(volume, LEAST).max(1);
        let Some(mut store) = self.store_now().is_some().then(|| self.store.take()).flatten() else {
            self.make_room_unasked(volume, missing);
            return;
        };
        let result = self.make_room(&mut store, volume, missing);
        self.store = Some(store);
        if let Err(error) = result {
            self.failed(&error);
        }
    }

    /// Bytes that have to go so that the volume has free what its recorders want, and `least`.
    fn missing(&mut self, volume: &Volume, least: u64) -> u64 {
        let sharing = self.attached.iter().filter(|a| a.volume == *volume);
        let floor = sharing.map(|a| a.limits.lock().floor()).max().unwrap_or(0).max(least);
        let Ok(free) = volume.free() else { return 0 };
        let now = self.elapsed();
        let late = self.late.entry(volume.id.clone()).or_default();
        let before = late.is_vain();
        let missing = late.missing(floor, free, now);
        if late.is_vain() && !before {
            gst::warning!(
                CAT,
                "removing recordings makes no room on {}; is there a snapshot that holds them? Little more is removed \
                 until that changes",
                volume.root.display()
            );
        }
        missing
    }

    /// Removes the oldest recordings of a volume, whichever camera's they are.
    fn make_room(&mut self, store: &mut Store, volume: &Volume, missing: u64) -> Result<(), CatalogError> {
        if missing == 0 || volume.check().is_err() {
            return Ok(());
        }
        let policies: HashMap<_, _> =
            self.attached.iter().map(|a| (a.source_id, a.limits.lock().policy)).collect();
        let wanted = Oldest { volume: Some(&volume.id), ..Oldest::default() };
        let longer = policies.values().any(|policy| policy.events_max_age_us.is_some());
        let found = candidates(store, &wanted, longer)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let longer = |c: &Candidate| policies.get(&c.source_id).is_some_and(|policy| policy.keeps_longer(c));
        let gone = retention::make_room(&list, missing, longer);
        let (bytes, result) = remove(store, volume, &chosen(&found, &gone));
        self.removed(volume, bytes);
        result
    }

    fn removed(&mut self, volume: &Volume, bytes: u64) {
        let now = self.elapsed();
        if let (Ok(free), true) = (volume.free(), bytes > 0) {
            self.late.entry(volume.id.clone()).or_default().removed(bytes, free, now);
        }
    }

    /// A full disk may keep the catalogue from being opened: then the names of the files have to do. The entries go
    /// when they are the oldest ones and their files are found missing.
    pub(super) fn make_room_unasked(&mut self, volume: &Volume, missing: u64) {
        let sources: Vec<_> =
            self.attached.iter().filter(|a| a.volume == *volume).map(|a| a.source_id).collect();
        let mut gone = 0;
        while gone < missing && volume.check().is_ok() {
            let Some((path, held)) = oldest_file(&volume.root, &sources) else { break };
            let bytes = held.metadata().map_or(1, |found| found.len().max(1));
            // Its hour and day go with the last one.
            let below = path.strip_prefix(&volume.root).unwrap_or(&path);
            match volume.remove(below) {
                Ok(()) => gst::info!(CAT, "the disk is full; removed {}", path.display()),
                Err(error) => {
                    gst::warning!(CAT, "{} cannot be removed: {error}", path.display());
                    break;
                }
            }
            gone += bytes;
        }
        self.removed(volume, gone);
    }
}

/// The oldest recordings that a look has in mind.
pub fn candidates(store: &Store, wanted: &Oldest<'_>, longer: bool) -> Result<Vec<Recording>, CatalogError> {
    oldest(store, wanted, longer, PASS)
}

/// The oldest recordings. Where some live longer, they may hide others, so both are looked at.
pub fn oldest(
    store: &Store,
    wanted: &Oldest<'_>,
    longer: bool,
    count: u32,
) -> Result<Vec<Recording>, CatalogError> {
    let mut found = store.oldest(wanted, count)?;
    if longer {
        found.extend(store.oldest(&Oldest { plain: true, ..*wanted }, count)?);
        found.sort_by_key(|recording| (recording.start_us, recording.id));
        found.dedup_by_key(|recording| recording.id);
    }
    Ok(found)
}

/// Of `found` those with these ids, in the order of the ids.
pub fn chosen<'a>(found: &'a [Recording], ids: &[i64]) -> Vec<&'a Recording> {
    ids.iter().filter_map(|id| found.iter().find(|recording| recording.id == *id)).collect()
}

/// Removes what a camera's limits do not allow. Only files that the catalogue names go, and only on the volume that
/// it means.
fn clean(store: &mut Store, attached: &Attached, policy: &Policy) -> Result<(), CatalogError> {
    let Attached { volume, source_id, .. } = attached;
    if *policy == Policy::default() || volume.check().is_err() {
        return Ok(());
    }
    let wanted = Oldest { volume: Some(&volume.id), source_id: Some(*source_id), plain: false };
    let found = candidates(store, &wanted, policy.events_max_age_us.is_some())?;
    let used = if policy.max_bytes.is_some() { store.used(Some(&volume.id), *source_id)? } else { 0 };
    let list: Vec<_> = found.iter().map(Recording::candidate).collect();
    let gone = policy.plan(&list, used, store.age_now_us());
    remove(store, volume, &chosen(&found, &gone)).1
}

/// Removes the files of recordings from a volume that was just seen to be there, then their entries. How many bytes
/// went.
fn remove(store: &mut Store, volume: &Volume, recordings: &[&Recording]) -> (u64, Result<(), CatalogError>) {
    let mut gone = Vec::new();
    for recording in recordings {
        match volume.remove(&recording.path) {
            Ok(()) => gone.push(*recording),
            Err(error) => gst::warning!(CAT, "{} cannot be removed: {error}", recording.file().display()),
        }
    }
    let bytes = gone.iter().map(|recording| recording.bytes).sum();
    // A volume that vanished meanwhile has lost no file.
    (bytes, if volume.check().is_ok() { store.remove(&gone) } else { Ok(()) })
}
