//! What is done to the files and entries of one camera: ending moves, and removing.

use nvr_core::retention::Policy;

use super::super::catalog::{CatalogError, Move, Oldest, Recording, Store, candidates, chosen};
use super::super::imp::CAT;
use super::super::worker::now_us;
use super::{HOT, Place, PlaceError};

/// A tier of one camera that is there now.
#[derive(Clone, Debug)]
pub struct Step {
    /// 0 for the hot one, and so on.
    pub index: usize,
    pub tier: &'static str,
    pub place: Place,
    /// What is to leave it for the next.
    pub leaves: Policy,
    /// Below this much free space, the oldest leave it for the next.
    pub min_free: u64,
    /// Below this much, they are removed.
    pub floor: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// The copies count from here on, and the old files go. How many arrived.
pub fn finish(store: &mut Store, from: &Step, to: &Step, copied: &[Recording]) -> Result<usize, Trouble> {
    let arrived = store.arrive(copied, to.place.volume(), to.tier)?;
    let mut done = Vec::new();
    for recording in copied {
        // One that was removed meanwhile has no entry any more, and its copy goes.
        let here = if arrived.contains(&recording.id) { from } else { to };
        match here.place.remove(&recording.path) {
            Ok(()) => done.push(recording.id),
            // The note stays, and has it tried again at the next start.
            Err(error) => gst::warning!(CAT, "a recording was moved, but its old file stays: {error}"),
        }
    }
    store.moved(&done)?;
    Ok(arrived.len())
}

/// Brings moves to an end that a stop without an orderly end has interrupted. Whether all were.
pub fn settle_all(store: &mut Store, steps: &[Step], source_id: u32) -> Result<bool, Trouble> {
    let mut all = true;
    for one in store.moves(source_id)? {
        let find = |id: &str| steps.iter().find(|step| step.place.volume().id == id);
        // A volume that is not there keeps its leftovers until it is.
        let (Some(from), Some(to)) = (find(&one.from), find(&one.to)) else {
            all = false;
            continue;
        };
        match settle(store, &one, from, to) {
            Ok(()) => {}
            Err(Trouble::Place(error)) => {
                gst::info!(CAT, "{}: an interrupted move stays as it is: {error}", one.path.display());
                all = false;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The entry says which file counts. Where that one is missing, the other one does.
fn settle(store: &mut Store, one: &Move, from: &Step, to: &Step) -> Result<(), Trouble> {
    let (old, new) = (from.place.size(&one.path)?.is_some(), to.place.size(&one.path)?.is_some());
    match (one.arrived, old, new) {
        (true, _, true) => from.place.remove(&one.path)?,
        (true, true, false) => store.point(one.recording_id, from.place.volume(), from.tier)?,
        (false, false, true) => store.point(one.recording_id, to.place.volume(), to.tier)?,
        (_, _, _) => to.place.discard(&one.path, one.upload.as_deref())?,
    }
    gst::info!(CAT, "{}: an interrupted move was brought to an end", one.path.display());
    store.moved(&[one.recording_id])?;
    Ok(())
}

/// Removes what a camera may not keep any longer, in every tier but the first, which the keeper of the catalogue
/// looks after; and what is too much in all of them together.
pub fn remove_old(store: &mut Store, steps: &[Step], source_id: u32, policy: &Policy) -> Result<(), Trouble> {
    let longer = policy.events_max_age_us.is_some();
    for step in steps.iter().filter(|step| step.tier != HOT) {
        let volume = &step.place.volume().id;
        let wanted = Oldest { volume: Some(volume), source_id: Some(source_id), plain: false };
        let found = candidates(store, &wanted, longer)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let old = Policy { max_bytes: None, ..*policy }.plan(&list, 0, now_us());
        remove(store, step, &chosen(&found, &old))?;
    }
    if policy.max_bytes.is_some() {
        let found = candidates(store, &Oldest { source_id: Some(source_id), ..Oldest::default() }, longer)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let used = store.used(None, source_id)?;
        let over = Policy { max_age_us: None, ..*policy }.plan(&list, used, now_us());
        let over = chosen(&found, &over);
        for step in steps {
            let here = over.iter().copied().filter(|recording| recording.volume == step.place.volume().id);
            remove(store, step, &here.collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// Removes recordings from a tier, and forgets those that went.
pub fn remove(store: &mut Store, step: &Step, recordings: &[&Recording]) -> Result<(), Trouble> {
    if recordings.is_empty() {
        return Ok(());
    }
    let mut gone = Vec::new();
    let mut failure = None;
    for recording in recordings {
        match step.place.remove(&recording.path) {
            Ok(()) => gone.push(*recording),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    // A volume that vanished meanwhile has lost no file.
    step.place.check()?;
    store.remove(&gone)?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}
