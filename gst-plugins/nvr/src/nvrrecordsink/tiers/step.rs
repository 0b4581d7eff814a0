//! What is done to the files and entries of one camera: ending moves, and removing.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use nvr_core::retention::Policy;

use super::super::catalog::{CatalogError, Move, Oldest, Recording, Side, Store, candidates, chosen};
use super::super::imp::CAT;
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
    for recording in copied {
        to.place.kept(&recording.path)?;
    }
    let arrived = store.arrive(copied, to.place.volume(), to.tier)?;
    let mut done = Vec::new();
    for recording in copied {
        // One that was removed meanwhile has no entry any more, and its copy goes.
        let here = if arrived.contains(&recording.id) { from } else { to };
        match here.place.remove(&recording.path) {
            Ok(()) => done.push(recording.id),
            // The note stays, and has it tried again.
            Err(error) => gst::warning!(CAT, "a recording was moved, but its old file stays: {error}"),
        }
    }
    // A volume that vanished meanwhile has lost no file.
    from.place.mounted()?;
    store.moved(&done)?;
    Ok(arrived.len())
}

/// Recordings that are left alone for a while, and until when.
pub type Refused = HashMap<i64, Instant>;

/// For how long.
pub const LATER: Duration = Duration::from_mins(10);

/// Brings a camera's moves to an end that a stop or a failure has interrupted. Those that still wait for one; they
/// are moved nowhere else before. `volumes`: identities of all volumes that are a tier's, whether they are there or not.
pub fn settle_all(
    store: &mut Store,
    steps: &[Step],
    source_id: u32,
    volumes: Option<&HashSet<String>>,
    refused: &mut Refused,
) -> Result<HashSet<i64>, Trouble> {
    let mut waiting = HashSet::new();
    for one in store.moves(source_id)? {
        let find = |id: &str| steps.iter().find(|step| step.place.volume().id == id);
        let result = match (find(&one.from), find(&one.to)) {
            _ if refused.contains_key(&one.recording_id) => Ok(false),
            (Some(from), Some(to)) => settle(store, &one, from, to).map(|()| true),
            (Some(from), None) if volumes.is_some_and(|volumes| !volumes.contains(&one.to)) => {
                give_up(store, &one, from)
            }
            // A volume that is not there keeps its leftovers until it is.
            _ => Ok(false),
        };
        match result {
            Ok(true) => continue,
            Ok(false) => {}
            Err(Trouble::Place(error)) => {
                gst::info!(CAT, "{}: an interrupted move stays as it is: {error}", one.path.display());
                refused.insert(one.recording_id, Instant::now() + LATER);
            }
            Err(error) => return Err(error),
        }
        waiting.insert(one.recording_id);
    }
    Ok(waiting)
}

/// The entry says which file counts. Where that one is missing, the other one does. Without an entry the copy does not,
/// and the old file, if there is one, is nobody's to remove.
fn settle(store: &mut Store, one: &Move, from: &Step, to: &Step) -> Result<(), Trouble> {
    let (old, new) = (from.place.size(&one.path)?.is_some(), to.place.size(&one.path)?.is_some());
    // A volume that vanished meanwhile has lost no file.
    from.place.mounted()?;
    to.place.mounted()?;
    match (one.entry, old, new) {
        (Some(Side::To), _, true) => from.place.remove(&one.path)?,
        (Some(Side::To), true, false) => {
            store.point(&one.path, to.place.volume(), from.place.volume(), from.tier)?;
        }
        (Some(Side::From), false, true) => {
            store.point(&one.path, from.place.volume(), to.place.volume(), to.tier)?;
        }
        (_, _, _) => to.place.discard(&one.path, one.upload.as_deref())?,
    }
    gst::info!(CAT, "{}: an interrupted move was brought to an end", one.path.display());
    store.moved(&[one.recording_id])?;
    Ok(())
}

/// Ends a move to a volume that is no tier any more, if the recording is still whole where it was. Whether it is.
fn give_up(store: &mut Store, one: &Move, from: &Step) -> Result<bool, Trouble> {
    if one.entry != Some(Side::From) || from.place.size(&one.path)?.is_none() {
        return Ok(false);
    }
    gst::warning!(
        CAT,
        "{}: the volume {} that it was being moved to is no tier any more; a copy may be left there",
        one.path.display(),
        one.to
    );
    store.moved(&[one.recording_id])?;
    Ok(true)
}

/// Removes what a camera may not keep any longer, in every tier but the first, which the keeper of the catalogue
/// looks after; and what is too much in all of them together.
pub fn remove_old(store: &mut Store, steps: &[Step], source_id: u32, policy: &Policy) -> Result<(), Trouble> {
    let longer = policy.events_max_age_us.is_some();
    let mut failure = None;
    for step in steps.iter().filter(|step| step.tier != HOT) {
        let volume = &step.place.volume().id;
        let wanted = Oldest { volume: Some(volume), source_id: Some(source_id), plain: false };
        let found = candidates(store, &wanted, longer)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let old = Policy { max_bytes: None, ..*policy }.plan(&list, 0, store.age_now_us());
        // One tier that lets nothing go is no reason for the others to keep it.
        failure = failure.or(remove(store, step, &chosen(&found, &old)).1.err());
    }
    if policy.max_bytes.is_some() {
        let found = candidates(store, &Oldest { source_id: Some(source_id), ..Oldest::default() }, longer)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let used = store.used(None, source_id)?;
        let over = Policy { max_age_us: None, ..*policy }.plan(&list, used, store.age_now_us());
        let over = chosen(&found, &over);
        for step in steps {
            let here = over.iter().copied().filter(|recording| recording.volume == step.place.volume().id);
            failure = failure.or(remove(store, step, &here.collect::<Vec<_>>()).1.err());
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Removes recordings from a tier, and forgets those that went. How many bytes that were.
pub fn remove(store: &mut Store, step: &Step, recordings: &[&Recording]) -> (u64, Result<(), Trouble>) {
    if recordings.is_empty() {
        return (0, Ok(()));
    }
    let mut gone = Vec::new();
    let mut failure = None;
    for recording in recordings {
        match step.place.remove(&recording.path) {
            Ok(()) => gone.push(*recording),
            Err(error) => {
                let ends = !error.concerns_a_file();
                failure = failure.or(Some(error));
                if ends {
                    break;
                }
            }
        }
    }
    let bytes = gone.iter().map(|recording| recording.bytes).sum();
    let forget = || -> Result<(), Trouble> {
        // A volume that vanished meanwhile has lost no file.
        step.place.check()?;
        store.remove(&gone)?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    };
    (bytes, forget())
}
