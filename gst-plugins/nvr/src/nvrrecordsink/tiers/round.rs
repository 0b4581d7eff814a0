//! One look after another at what has to leave which tier, and moving it.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use nvr_core::backoff::Backoff;
use nvr_core::retention::{self, Candidate, Late, Pace, Policy};

use super::super::catalog::{Attached, CatalogError, Limits, Oldest, PASS, Recording, Store, chosen, oldest};
use super::super::checksum::Checksum;
use super::super::imp::CAT;
use super::mover::{Breath, Shared};
use super::outage::{TierReport, explain};
use super::step::{LATER, Refused, Step, Trouble, finish, remove, remove_old, settle_all};
use super::{Claims, HOT, Place, PlaceError, TierSettings};

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
    /// Of the catalogue's file.
    inode: Option<u64>,
    places: HashMap<String, Known>,
    /// Recordings that could not be moved.
    refused: Refused,
    /// Those of which that was said.
    named: HashSet<i64>,
    pace: Pace,
    began: Instant,
    /// Of cameras that do not run.
    claims: Claims,
    /// What was removed to make room, by volume.
    late: HashMap<String, Late>,
}

impl<'a> Round<'a> {
    pub fn new(catalogue: &Path, shared: &'a Shared) -> Self {
        Self {
            catalogue: catalogue.to_owned(),
            shared,
            store: None,
            inode: None,
            places: HashMap::new(),
            refused: Refused::new(),
            named: HashSet::new(),
            pace: Pace::default(),
            began: Instant::now(),
            claims: Claims::beside(catalogue),
            late: HashMap::new(),
        }
    }

    /// One look at all cameras. Whether there is more to do at once.
    pub fn look(&mut self, attached: &[Attached]) -> bool {
        // It may have been replaced by another one.
        let inode = std::fs::metadata(&self.catalogue).ok().map(|found| found.ino());
        if inode != self.inode {
            self.store = None;
            self.inode = inode;
        }
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
        let now = Instant::now();
        self.refused.retain(|_, until| *until > now);
        let mut more = false;
        let strays = self.strays(&store, attached);
        for one in attached.iter().filter(|one| one.settled) {
            let limits = one.limits.lock().clone();
            if !limits.tiers.any() {
                continue;
            }
            match self.camera(&mut store, one, &limits, &strays, &mut more) {
                Ok(()) => {}
                Err(Trouble::Place(PlaceError::Stopped)) => break,
                Err(error) => {
                    limits.tally.failed.fetch_add(1, Ordering::Relaxed);
                    gst::info!(CAT, "camera {}: moving recordings: {error}", one.source_id);
                }
            }
        }
        self.claims.hold(&HashSet::new());
        self.store = Some(store);
        more
    }

    /// Cameras whose recordings nobody else moves: they do not run, here or in another process. Each recorder here
    /// makes room among them as among its own.
    fn strays(&mut self, store: &Store, attached: &[Attached]) -> Vec<u32> {
        if !attached.iter().any(|one| one.settled && one.limits.lock().tiers.any()) {
            return Vec::new();
        }
        let mut cameras = store.cameras().unwrap_or_default();
        cameras.retain(|camera| !attached.iter().any(|one| one.source_id == *camera));
        cameras.retain(|camera| matches!(self.claims.take(*camera), Ok(true)));
        cameras
    }

    /// One look at a camera. `more`: whether there is more to do at once. What fails in one tier is said at the end,
    /// and is no reason for the others to wait: what cannot leave the first one is lost when that is full.
    fn camera(
        &mut self,
        store: &mut Store,
        one: &Attached,
        limits: &Limits,
        strays: &[u32],
        more: &mut bool,
    ) -> Result<(), Trouble> {
        let steps = self.steps(store, one, limits)?;
        let volumes = volumes(store, one, limits)?;
        let mut waiting = settle_all(store, &steps, one.source_id, Some(&volumes), &mut self.refused)?;
        for camera in strays {
            // Their tiers may be others.
            waiting.extend(settle_all(store, &steps, *camera, None, &mut self.refused)?);
        }
        let mut failure = remove_old(store, &steps, one.source_id, &limits.policy).err();
        // From the last on, so that there is room for what comes.
        for step in steps.iter().filter(|step| step.tier != HOT).rev() {
            let ours = Ours { one, strays, policy: &limits.policy };
            let missing = self.missing(step);
            let found = in_the_way(store, step, missing, &ours, &HashSet::new())?;
            let (bytes, result) = remove(store, step, &found.iter().collect::<Vec<_>>());
            failure = failure.or(result.err());
            self.removed(step, bytes);
        }
        let left: HashSet<_> = self.refused.keys().copied().chain(waiting).collect();
        for pair in steps.windows(2).rev() {
            let [from, to] = pair else { continue };
            // No tier is passed over because it is not there.
            if to.index != from.index + 1 {
                continue;
            }
            match self.shift(store, from, to, &Ours { one, strays, policy: &limits.policy }, limits, &left) {
                Ok(moved) => *more |= moved,
                Err(Trouble::Place(PlaceError::Stopped)) => return Err(PlaceError::Stopped.into()),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Bytes that have to be removed from a tier. Some disks free late what was removed, and some never.
    fn missing(&mut self, step: &Step) -> u64 {
        let Some(free) = step.place.free() else { return 0 };
        let now = self.began.elapsed();
        let late = self.late.entry(step.place.volume().id.clone()).or_default();
        let before = late.is_vain();
        let missing = late.missing(step.floor, free, now);
        if late.is_vain() && !before {
            gst::warning!(
                CAT,
                "removing recordings makes no room on {}; is there a snapshot that holds them? Little more is removed \
                 until that changes",
                step.place.volume().root.display()
            );
        }
        missing
    }

    fn removed(&mut self, step: &Step, bytes: u64) {
        let now = self.began.elapsed();
        if let (Some(free), true) = (step.place.free(), bytes > 0) {
            self.late.entry(step.place.volume().id.clone()).or_default().removed(bytes, free, now);
        }
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
        limits.tally.outages.note(&reports, one.source_id);
        Ok(steps)
    }

    /// The place of a tier, if it is there. Its absence is one warning.
    fn place(&mut self, store: &Store, location: &str, limits: &Limits) -> Result<Option<Place>, Trouble> {
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

    /// Moves what has to leave a tier. Whether anything was: then there may be more, and room for it.
    fn shift(
        &mut self,
        store: &mut Store,
        from: &Step,
        to: &Step,
        ours: &Ours<'_>,
        limits: &Limits,
        left: &HashSet<i64>,
    ) -> Result<bool, Trouble> {
        let volume = &from.place.volume().id;
        let camera = ours.one.source_id;
        let wanted = Oldest { volume: Some(volume), source_id: Some(camera), plain: false };
        let mut found = store.oldest(&wanted, beyond(LOOK, left))?;
        found.retain(|recording| !left.contains(&recording.id));
        let used = store.used(Some(volume), camera)?;
        let list: Vec<_> = found.iter().map(Recording::candidate).collect();
        let leaving = from.leaves.plan(&list, used, store.age_now_us());
        let mut leaving: Vec<_> = chosen(&found, &leaving).into_iter().cloned().collect();
        let missing = from.place.free().map_or(0, |free| from.min_free.saturating_sub(free));
        for recording in in_the_way(store, from, missing, ours, left)? {
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
        let (mut free, mut occupied) = (Vec::new(), false);
        for recording in leaving {
            if to.place.size(&recording.path)?.is_none() {
                free.push(recording);
                continue;
            }
            let there = to.place.volume().root.join(&recording.path);
            self.refuse(&recording, &PlaceError::Occupied(there));
            occupied = true;
        }
        if free.is_empty() {
            return Ok(occupied);
        }
        self.carry(store, from, to, &free, limits)?;
        Ok(true)
    }

    /// Leaves a recording alone for a while.
    fn refuse(&mut self, recording: &Recording, error: &PlaceError) {
        let path = recording.file();
        if self.named.insert(recording.id) {
            gst::warning!(CAT, "{} is not moved, and stays in its tier: {error}", path.display());
        } else {
            gst::info!(CAT, "{} is still not moved: {error}", path.display());
        }
        self.refused.insert(recording.id, Instant::now() + LATER);
    }

    /// Copies recordings, says so, and removes what they were copied from.
    fn carry(
        &mut self,
        store: &mut Store,
        from: &Step,
        to: &Step,
        recordings: &[Recording],
        limits: &Limits,
    ) -> Result<(), Trouble> {
        store.intend(recordings, to.place.volume())?;
        let (mut copied, mut refused) = (Vec::new(), Vec::new());
        let mut failure = None;
        for recording in recordings {
            match self.copy(store, recording, from, to, &limits.tiers) {
                Ok(()) => copied.push(recording.clone()),
                // A file that is not there, or not readable, concerns only itself.
                Err(error @ PlaceError::Source { .. }) => {
                    self.refuse(recording, &error);
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
        limits.tally.moved.fetch_add(arrived as u64, Ordering::Relaxed);
        let location = Place::canonical(&to.place.volume().root.display().to_string());
        let known = self.places.get_mut(&location);
        if let Some(error) = failure {
            // Whether something was left there is seen when it is there again. Neither of these is the tier's fault.
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
        Ok(())
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
        let known = |sum: &str| recording.checksum.as_ref().is_none_or(|known| *known == sum);
        if read.0 < recording.bytes || !known(&read.1.text()) {
            confirm(&from.place, &to.place, recording, (read.0, &read.1))?;
        }
        gst::debug!(CAT, "{} is copied to {}", recording.file().display(), to.place.volume().root.display());
        Ok(())
    }
}

/// Identities of all volumes that are a tier's, whether they are there or not.
fn volumes(store: &Store, one: &Attached, limits: &Limits) -> Result<HashSet<String>, CatalogError> {
    let mut found = HashSet::from([one.volume.id.clone()]);
    for stage in limits.tiers.stages() {
        found.extend(store.volume_at(stage.location)?);
    }
    Ok(found)
}

/// How many of the oldest are looked at, so that there are `count` besides those that are left alone.
fn beyond(count: u32, left: &HashSet<i64>) -> u32 {
    count.saturating_add(u32::try_from(left.len()).unwrap_or(u32::MAX))
}

/// Whose recordings a recorder makes room among.
struct Ours<'a> {
    one: &'a Attached,
    strays: &'a [u32],
    policy: &'a Policy,
}

/// Ours among the oldest recordings of a volume that together have the `missing` bytes, without those that are `left`
/// alone.
fn in_the_way(
    store: &Store,
    step: &Step,
    missing: u64,
    ours: &Ours<'_>,
    left: &HashSet<i64>,
) -> Result<Vec<Recording>, CatalogError> {
    if missing == 0 {
        return Ok(Vec::new());
    }
    let Ours { one, strays, policy } = ours;
    let longer = policy.events_max_age_us.is_some();
    // Of all cameras, so that none pays for the others.
    let wanted = Oldest { volume: Some(&step.place.volume().id), ..Oldest::default() };
    let mut found = oldest(store, &wanted, longer, beyond(PASS, left))?;
    found.retain(|recording| !left.contains(&recording.id));
    let list: Vec<_> = found.iter().map(Recording::candidate).collect();
    let ours = |source_id: u32| source_id == one.source_id || strays.contains(&source_id);
    let keeps = |c: &Candidate| ours(c.source_id) && policy.keeps_longer(c);
    let gone = retention::make_room(&list, missing, keeps);
    Ok(chosen(&found, &gone).into_iter().filter(|recording| ours(recording.source_id)).cloned().collect())
}

/// What was copied is not what was recorded. If the file is not, it is moved as it is: `recordings verify` tells of it
/// there as it would have here. If it was only read otherwise, the copy goes and the file stays.
pub fn confirm(
    from: &Place,
    to: &Place,
    recording: &Recording,
    (bytes, checksum): (u64, &Checksum),
) -> Result<(), PlaceError> {
    let again = from.reads(&recording.path, recording.bytes);
    if again.as_ref().is_ok_and(|(count, sum)| (*count, sum.text()) == (bytes, checksum.text())) {
        gst::warning!(CAT, "{} is damaged: it is not what was recorded", recording.file().display());
        return Ok(());
    }
    to.remove(&recording.path)?;
    let error =
        std::io::Error::other("it reads differently each time; check the disk, its cable and the memory");
    again.and(Err(PlaceError::Source { path: recording.file(), error }))
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
