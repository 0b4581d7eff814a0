//! One look after another at what has to leave which tier, and moving it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use nvr_core::backoff::Backoff;
use nvr_core::retention::{self, Candidate, Pace, Policy};

use super::super::catalog::{Attached, CatalogError, Limits, Oldest, Recording, Store, candidates, chosen};
use super::super::imp::CAT;
use super::super::worker::now_us;
use super::mover::{Breath, Shared};
use super::outage::{TierReport, explain};
use super::step::{Step, Trouble, finish, remove, remove_old, settle_all};
use super::{HOT, Place, PlaceError, TierSettings};

/// What is noted, copied and committed together: a few files, so that the catalogue is not synced for each.
const BATCH: usize = 16;
const BATCH_BYTES: u64 = 64 << 20;
/// Recordings of a camera that are looked at for what has to leave a tier.
const LOOK: u32 = 64;

/// A tier's volume, or why it is not there.
#[derive(Debug)]
struct Known {
    place: Option<Place>,
    retry: Instant,
    backoff: Backoff,
    outage: Option<Outage>,
}

/// Why nothing goes to a tier.
#[derive(Debug)]
struct Outage {
    text: String,
    /// It is there, and copying to it fails: only a copy that succeeds shows that this is over.
    copying: bool,
}

#[derive(Debug)]
pub struct Round<'a> {
    catalogue: PathBuf,
    shared: &'a Shared,
    store: Option<Store>,
    places: HashMap<String, Known>,
    /// Cameras whose leftovers have been taken care of.
    settled: HashSet<u32>,
    /// Recordings that cannot be moved, and why that was said once.
    refused: HashSet<i64>,
    pace: Pace,
    began: Instant,
}

impl<'a> Round<'a> {
    pub fn new(catalogue: &Path, shared: &'a Shared) -> Self {
        Self {
            catalogue: catalogue.to_owned(),
            shared,
            store: None,
            places: HashMap::new(),
            settled: HashSet::new(),
            refused: HashSet::new(),
            pace: Pace::default(),
            began: Instant::now(),
        }
    }

    /// One look at all cameras. Whether there is more to do at once.
    pub fn look(&mut self, attached: &[Attached]) -> bool {
        let store = self.store.take().map_or_else(
            || Store::open(&self.catalogue).and_then(|store| store.durable().map(|()| store)),
            Ok,
        );
        let mut store = match store {
            Ok(store) => store,
            Err(error) => {
                // The keeper of the catalogue has said so already.
                gst::info!(CAT, "recordings are not moved, since the catalogue cannot be opened: {error}");
                return false;
            }
        };
        let mut more = false;
        for one in attached {
            let limits = one.limits.lock().clone();
            if !limits.tiers.any() {
                continue;
            }
            match self.camera(&mut store, one, &limits) {
                Ok(full) => more |= full,
                Err(Trouble::Place(PlaceError::Stopped)) => break,
                Err(error) => {
                    limits.tally.failed.fetch_add(1, Ordering::Relaxed);
                    gst::info!(CAT, "camera {}: moving recordings: {error}", one.source_id);
                }
            }
        }
        self.store = Some(store);
        more
    }

    fn camera(&mut self, store: &mut Store, one: &Attached, limits: &Limits) -> Result<bool, Trouble> {
        let steps = self.steps(store, one, limits)?;
        if !self.settled.contains(&one.source_id) && settle_all(store, &steps, one.source_id)? {
            self.settled.insert(one.source_id);
        }
        remove_old(store, &steps, one.source_id, &limits.policy)?;
        // From the last on, so that there is room for what comes.
        for step in steps.iter().filter(|step| step.tier != HOT).rev() {
            let found = self.in_the_way(store, step, step.floor, one, &limits.policy)?;
            remove(store, step, &found.iter().collect::<Vec<_>>())?;
        }
        let mut more = false;
        for pair in steps.windows(2).rev() {
            let [from, to] = pair else { continue };
            // What was interrupted comes to its end first, and no tier is passed over because it is not there.
            if self.settled.contains(&one.source_id) && to.index == from.index + 1 {
                more |= self.shift(store, from, to, one, limits)?;
            }
        }
        Ok(more)
    }

    /// The tiers of a camera that are there, in order.
    fn steps(&mut self, store: &Store, one: &Attached, limits: &Limits) -> Result<Vec<Step>, Trouble> {
        let stages = limits.tiers.stages();
        let mut steps = Vec::new();
        let mut reports = Vec::new();
        let leaves = |index: usize| stages.get(index).map(|stage| stage.takes).unwrap_or_default();
        let hot = one.volume.check().map_err(|error| explain(&error.into(), "nothing is moved from it"));
        if hot.is_ok() {
            steps.push(Step {
                index: 0,
                tier: HOT,
                place: Place::Folder(one.volume.clone()),
                leaves: leaves(0),
                min_free: limits.min_free,
                floor: limits.floor(),
            });
        }
        let location = one.volume.root.display().to_string();
        reports.push(TierReport { tier: HOT, location, error: hot.err() });
        for (index, stage) in (1..).zip(&stages) {
            if let Some(place) = self.place(store, stage.location, limits)? {
                let min_free = stage.min_free;
                let floor = if index < stages.len() { min_free / 2 } else { min_free };
                steps.push(Step { index, tier: stage.tier, place, leaves: leaves(index), min_free, floor });
            }
            let location = Place::canonical(stage.location);
            let outage = self.places.get(&location).and_then(|known| known.outage.as_ref());
            let error = outage.map(|outage| outage.text.clone());
            reports.push(TierReport { tier: stage.tier, location, error });
        }
        limits.tally.outages.note(reports, one.source_id);
        Ok(steps)
    }

    /// The place of a tier, if it is there. Its absence is one warning.
    fn place(
        &mut self,
        store: &Store,
        location: &str,
        limits: &Limits,
    ) -> Result<Option<Place>, Trouble> {
        let location = &Place::canonical(location);
        let known = self.places.entry(location.clone()).or_insert_with(|| Known {
            place: None,
            retry: Instant::now(),
            backoff: Backoff::default(),
            outage: None,
        });
        if Instant::now() < known.retry {
            return Ok(None);
        }
        let opened = if let Some(place) = &known.place {
            place.check().map(|()| place.clone())
        } else {
            // What was there before has to be what is there now: an empty mount point is no empty disk.
            let wanted = store.volume_at(location)?;
            Place::open(location, wanted.as_deref(), limits.tiers.s3_credentials.as_deref())
        };
        match opened {
            Ok(place) => {
                if known.place.is_none() {
                    store.know_volume(place.volume())?;
                }
                if known.outage.as_ref().is_none_or(|outage| !outage.copying) {
                    known.recovered(location);
                }
                known.place = Some(place.clone());
                Ok(Some(place))
            }
            Err(error) => {
                limits.tally.failed.fetch_add(1, Ordering::Relaxed);
                known.failed(location, &error, false);
                Ok(None)
            }
        }
    }

    /// Those of this camera among the oldest recordings that keep a volume from having `wanted` bytes free.
    fn in_the_way(
        &self,
        store: &Store,
        step: &Step,
        wanted: u64,
        one: &Attached,
        policy: &Policy,
    ) -> Result<Vec<Recording>, CatalogError> {
        let Some(free) = step.place.free() else { return Ok(Vec::new()) };
        let missing = wanted.saturating_sub(free);
        if missing == 0 {
            return Ok(Vec::new());
        }
        let longer = policy.events_max_age_us.is_some();
        // Of all cameras, so that none pays for the others.
        let wanted = Oldest { volume: Some(&step.place.volume().id), ..Oldest::default() };
        let found = self.movable(candidates(store, &wanted, longer)?);
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let keeps = |c: &Candidate| c.source_id == one.source_id && policy.keeps_longer(c);
        let gone = retention::make_room(&list, missing, keeps);
        Ok(chosen(&found, &gone).into_iter().filter(|r| r.source_id == one.source_id).cloned().collect())
    }

    fn movable(&self, mut found: Vec<Recording>) -> Vec<Recording> {
        found.retain(|recording| !self.refused.contains(&recording.id));
        found
    }

    /// Moves what has to leave a tier. Whether anything was: then there may be more, and room for it.
    fn shift(
        &mut self,
        store: &mut Store,
        from: &Step,
        to: &Step,
        one: &Attached,
        limits: &Limits,
    ) -> Result<bool, Trouble> {
        let volume = &from.place.volume().id;
        let wanted = Oldest { volume: Some(volume), source_id: Some(one.source_id), plain: false };
        let found = self.movable(store.oldest(&wanted, LOOK)?);
        let used = store.used(Some(volume), one.source_id)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let leaving = from.leaves.plan(&list, used, now_us());
        let mut leaving: Vec<_> = chosen(&found, &leaving).into_iter().cloned().collect();
        for recording in self.in_the_way(store, from, from.min_free, one, &limits.policy)? {
            if !leaving.iter().any(|other| other.id == recording.id) {
                leaving.push(recording);
            }
        }
        let mut bytes = 0;
        leaving.truncate(BATCH);
        leaving.retain(|recording| {
            let fits = bytes == 0 || bytes + recording.bytes <= BATCH_BYTES;
            bytes += recording.bytes;
            fits
        });
        // What lies in the way there is not ours, and is not written over.
        let mut free = Vec::new();
        for recording in leaving {
            if to.place.size(&recording.path)?.is_none() {
                free.push(recording);
                continue;
            }
            let there = to.place.volume().root.join(&recording.path);
            gst::warning!(CAT, "{}", PlaceError::Occupied(there));
            self.refused.insert(recording.id);
        }
        if free.is_empty() {
            return Ok(false);
        }
        let moved = self.carry(store, from, to, &free, limits)?;
        limits.tally.moved.fetch_add(moved as u64, Ordering::Relaxed);
        Ok(moved > 0)
    }

    /// Copies recordings, says so, and removes what they were copied from. How many arrived.
    fn carry(
        &mut self,
        store: &mut Store,
        from: &Step,
        to: &Step,
        recordings: &[Recording],
        limits: &Limits,
    ) -> Result<usize, Trouble> {
        store.intend(recordings, to.place.volume())?;
        let (mut copied, mut refused) = (Vec::new(), Vec::new());
        let mut failure = None;
        for recording in recordings {
            match self.copy(store, recording, from, to, &limits.tiers) {
                Ok(()) => copied.push(recording.clone()),
                // A file that is not there, or not readable, concerns only itself.
                Err(PlaceError::Source { path, error }) => {
                    gst::warning!(CAT, "{} is not moved: {error}", path.display());
                    refused.push(recording.id);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let arrived = finish(store, from, to, &copied)?;
        store.moved(&refused)?;
        self.refused.extend(refused);
        let location = Place::canonical(&to.place.volume().root.display().to_string());
        let known = self.places.get_mut(&location);
        if let Some(error) = failure {
            // Whether something was left there is seen when it is there again.
            if let Some(recording) = recordings.first() {
                self.settled.remove(&recording.source_id);
            }
            // Neither is the tier's fault.
            if !matches!(error, PlaceError::Stopped | PlaceError::Catalog(_))
                && let Some(known) = known
            {
                known.failed(&location, &error, true);
            }
            return Err(error.into());
        }
        if let Some(known) = known
            && !copied.is_empty()
        {
            known.recovered(&location);
        }
        Ok(arrived)
    }

    fn copy(
        &mut self,
        store: &Store,
        recording: &Recording,
        from: &Step,
        to: &Step,
        tiers: &TierSettings,
    ) -> Result<(), PlaceError> {
        let mut source = from.place.read(&recording.path)?;
        let (shared, began, rate) = (self.shared, self.began, tiers.move_rate);
        let mut breath = Breath { shared, pace: &mut self.pace, began, rate };
        let mut begun = |upload: &str| Ok(store.uploading(recording.id, upload)?);
        let read = to.place.put(recording, &mut source, &mut breath, &mut begun)?;
        if recording.checksum.as_ref().is_some_and(|known| *known != read.text()) {
            // It is moved as it is: `recordings verify` tells of it there as it would have here.
            gst::warning!(CAT, "{} is damaged: it is not what was recorded", recording.file().display());
        }
        gst::debug!(CAT, "{} is copied to {}", recording.file().display(), to.place.volume().root.display());
        Ok(())
    }
}

impl Known {
    fn failed(&mut self, location: &str, error: &PlaceError, copying: bool) {
        if self.outage.is_some() {
            gst::info!(CAT, "recordings still cannot be moved to {location}: {error}");
        } else {
            gst::warning!(CAT, "recordings cannot be moved to {location}, and stay where they are: {error}");
        }
        let text = explain(error, "recordings wait in the tier before, and nothing is removed from this one");
        self.outage = Some(Outage { text, copying });
        self.place = None;
        self.retry = Instant::now() + self.backoff.next_delay(0.0);
    }

    fn recovered(&mut self, location: &str) {
        if self.outage.take().is_some() {
            gst::warning!(CAT, "{location} is there again; recordings are moved to it");
        }
        self.backoff.reset();
    }
}
