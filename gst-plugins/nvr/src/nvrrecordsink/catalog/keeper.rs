//! The thread that writes the catalogue and removes what has to go, one for each catalogue of the process. It may
//! wait for the disk; nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, LazyLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::backoff::Backoff;
use nvr_core::retention::{self, Candidate, Policy};
use parking_lot::Mutex;

use super::super::ear::Sightings;
use super::super::imp::CAT;
use super::super::tiers::{Claims, Mover, Tally, TierSettings};
use super::super::volume::Volume;
use super::super::worker::now_us;
use super::reconcile::oldest_file;
use super::{CatalogError, Cause, Oldest, Recording, Store};

/// Orders that wait. A recorder gives two for a segment.
const ORDERS: usize = 4096;
/// Entries that are kept while the catalogue cannot be written. Files that are older are found at the next start.
const BACKLOG: usize = 20_000;
/// How long entries are gathered before they are written together.
const BATCH: Duration = Duration::from_millis(200);
const RETENTION: Duration = Duration::from_secs(5);
/// Segments that are looked at in one pass.
pub const PASS: u32 = 256;

/// A recording that began (`end_us` is `None`) or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub volume: Volume,
    pub source_id: u32,
    pub path: PathBuf,
    pub start_us: i64,
    pub end_us: Option<i64>,
    pub clock: &'static str,
    pub bytes: u64,
    pub frames: u64,
    pub codec: String,
    pub audio: Option<String>,
    pub width: u32,
    pub height: u32,
    pub event_count: u64,
    /// Of the first `bytes` bytes, once they are known.
    pub checksum: Option<String>,
    pub tier: &'static str,
    pub sightings: Sightings,
    pub cause: Cause,
}

/// What a camera may keep, what a volume has to have free, and where recordings go from there.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub policy: Policy,
    pub min_free: u64,
    pub tiers: TierSettings,
    pub tally: Arc<Tally>,
}

impl Limits {
    /// Below this much free space, recordings are removed. Where they may move on, that begins earlier.
    pub(in super::super) fn floor(&self) -> u64 {
        if self.tiers.any() { self.min_free / 2 } else { self.min_free }
    }
}

#[derive(Debug)]
pub enum Order {
    /// A recorder began: its leftovers are to be taken care of and its limits kept.
    Attach(Volume, u32, Arc<Mutex<Limits>>),
    Detach(Volume, u32),
    Note(Box<Entry>),
    /// The volume is full: room is needed now.
    Room(Volume),
}

/// A share in the thread of one catalogue.
#[derive(Debug)]
pub struct Keeper {
    orders: Option<SyncSender<Order>>,
    worker: Mutex<Option<thread::JoinHandle<()>>>,
}

/// Ends what [`Order::Attach`] began.
#[derive(Debug)]
pub struct Guard {
    pub keeper: Arc<Keeper>,
    volume: Volume,
    source_id: u32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.keeper.send(Order::Detach(self.volume.clone(), self.source_id));
    }
}

impl Keeper {
    /// The keeper of a catalogue; there is one for each file.
    pub fn of(path: &Path) -> Arc<Self> {
        /// A keeper, and what its thread holds while it runs.
        type Known = (Weak<Keeper>, Arc<Mutex<()>>);
        static KEEPERS: LazyLock<Mutex<HashMap<PathBuf, Known>>> = LazyLock::new(Mutex::default);
        let mut keepers = KEEPERS.lock();
        keepers.retain(|_, (keeper, turn)| keeper.strong_count() > 0 || Arc::strong_count(turn) > 1);
        let known = keepers.get(path);
        if let Some(keeper) = known.and_then(|(keeper, _)| keeper.upgrade()) {
            return keeper;
        }
        // Where the thread of the one before has not finished yet, the new one lets it.
        let turn = known.map(|(_, turn)| turn.clone()).unwrap_or_default();
        let (orders, inbox) = mpsc::sync_channel(ORDERS);
        let (file, own_turn) = (path.to_owned(), turn.clone());
        let work = move || {
            let _turn = own_turn.lock();
            run(&file, &inbox);
        };
        let worker = thread::Builder::new().name("nvr-catalog".into()).spawn(work);
        let worker = worker.map_err(|error| gst::error!(CAT, "no thread for the catalogue: {error}")).ok();
        let keeper = Arc::new(Self { orders: Some(orders), worker: Mutex::new(worker) });
        keepers.insert(path.to_owned(), (Arc::downgrade(&keeper), turn));
        keeper
    }

    pub fn attach(self: &Arc<Self>, volume: &Volume, source_id: u32, limits: &Arc<Mutex<Limits>>) -> Guard {
        self.send(Order::Attach(volume.clone(), source_id, limits.clone()));
        Guard { keeper: self.clone(), volume: volume.clone(), source_id }
    }

    /// Never waits. What does not fit is found at the next start.
    pub fn send(&self, order: Order) {
        if let Some(Err(TrySendError::Full(order))) =
            self.orders.as_ref().map(|orders| orders.try_send(order))
        {
            gst::warning!(CAT, "the catalogue does not keep up; left out: {order:?}");
        }
    }
}

impl Drop for Keeper {
    /// Waits until all is written: the last recorder of a catalogue has gone.
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(worker) = self.worker.lock().take() {
            // The thread itself never holds a share.
            let _ = worker.join();
        }
    }
}

/// A recorder that is at work.
#[derive(Clone, Debug)]
pub struct Attached {
    pub volume: Volume,
    pub source_id: u32,
    pub limits: Arc<Mutex<Limits>>,
    /// Whether its leftovers have been taken care of.
    pub settled: bool,
}

struct Desk {
    path: PathBuf,
    store: Option<Store>,
    backoff: Backoff,
    retry: Instant,
    backlog: VecDeque<Entry>,
    attached: Vec<Attached>,
    /// Begins with the first recorder that has tiers.
    mover: Option<Mover>,
    /// Of the cameras at work, so that no other process moves their recordings.
    claims: Claims,
    complained: bool,
}

fn run(path: &Path, inbox: &Receiver<Order>) {
    let mut desk = Desk {
        path: path.to_owned(),
        store: None,
        backoff: Backoff::limited(Duration::from_secs(5)),
        retry: Instant::now(),
        backlog: VecDeque::new(),
        attached: Vec::new(),
        mover: None,
        claims: Claims::beside(path),
        complained: false,
    };
    let mut next_retention = Instant::now();
    loop {
        let wait = if desk.backlog.is_empty() { RETENTION } else { BATCH };
        let mut room = None;
        let ended = match inbox.recv_timeout(wait) {
            Ok(order) => {
                thread::sleep(if matches!(order, Order::Room(_)) { Duration::ZERO } else { BATCH });
                for order in std::iter::once(order).chain(inbox.try_iter()) {
                    if let Order::Room(volume) = order {
                        room = Some(volume);
                    } else {
                        desk.accept(order);
                    }
                }
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        // Room first: there may be none for the catalogue itself.
        if let Some(volume) = &room {
            desk.room_now(volume);
        }
        desk.settle();
        if ended {
            return;
        }
        if Instant::now() >= next_retention {
            desk.tend_mover();
            desk.keep_limits();
            next_retention = Instant::now() + RETENTION;
        }
    }
}

impl Desk {
    fn accept(&mut self, order: Order) {
        match order {
            Order::Attach(volume, source_id, limits) => {
                self.attached.retain(|a| a.source_id != source_id || a.volume != volume);
                self.attached.push(Attached { volume, source_id, limits, settled: false });
            }
            Order::Detach(volume, source_id) => {
                self.attached.retain(|a| a.source_id != source_id || a.volume != volume);
            }
            Order::Note(entry) => {
                if self.backlog.len() >= BACKLOG {
                    self.backlog.pop_front();
                }
                self.backlog.push_back(*entry);
            }
            Order::Room(_) => {}
        }
    }

    fn store(&mut self) -> Option<&mut Store> {
        if self.store.is_none() && Instant::now() >= self.retry {
            match Store::open(&self.path) {
                Ok(store) => self.store = Some(store),
                Err(error) => self.failed(&error),
            }
        }
        self.store.as_mut()
    }

    /// One warning for an outage; the file is opened anew, since it may be another by then.
    fn failed(&mut self, error: &CatalogError) {
        if self.complained {
            gst::info!(CAT, "the catalogue still cannot be written: {error}");
        } else {
            gst::warning!(CAT, "the catalogue cannot be written, recording goes on without: {error}");
        }
        self.complained = true;
        // Where the disk is full, the file stays open: it could not be opened again, and says what may go.
        if !error.full() {
            self.store = None;
        }
        self.retry = Instant::now() + self.backoff.next_delay(0.0);
    }

    /// Writes what waits, and takes care of the leftovers of those who came.
    fn settle(&mut self) {
        if self.store().is_none() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let result = (|| {
            for attached in self.attached.iter_mut().filter(|a| !a.settled) {
                if attached.volume.check().is_err() {
                    continue;
                }
                let done = store.reconcile(&attached.volume, attached.source_id)?;
                gst::info!(CAT, "camera {}: leftovers: {done:?}", attached.source_id);
                attached.settled = true;
            }
            if !self.backlog.is_empty() {
                store.write(self.backlog.make_contiguous())?;
                self.backlog.clear();
            }
            Ok(())
        })();
        match result {
            Ok(()) => {
                self.store = Some(store);
                self.complained = false;
                self.backoff = Backoff::limited(Duration::from_secs(5));
            }
            Err(error) => {
                self.store = Some(store);
                self.failed(&error);
            }
        }
    }

    /// Tells the thread that moves recordings who is at work, and whose recordings may be moved.
    fn tend_mover(&mut self) {
        // Where the catalogue cannot be written, its disk may be gone.
        let at_work = self.attached.iter().filter(|_| self.store.is_some());
        self.claims.hold(&at_work.map(|a| a.source_id).collect());
        if self.mover.is_none() && self.attached.iter().any(|a| a.limits.lock().tiers.any()) {
            self.mover = Mover::start(&self.path);
        }
        if let Some(mover) = &self.mover {
            let ready = |a: &Attached| a.settled && self.claims.may_move(a.source_id);
            mover.attend(self.attached.iter().map(|a| Attached { settled: ready(a), ..a.clone() }).collect());
        }
    }

    /// Keeps the limits of every recorder.
    fn keep_limits(&mut self) {
        let Some(mut store) = self.store.take() else { return };
        let result = (|| {
            for attached in &self.attached {
                let limits = attached.limits.lock().clone();
                // Where there are tiers, a limit of bytes counts for all of them, and the oldest lie elsewhere.
                let max_bytes = limits.policy.max_bytes.filter(|_| !limits.tiers.any());
                clean(&mut store, attached, &Policy { max_bytes, ..limits.policy })?;
            }
            for (at, attached) in self.attached.iter().enumerate() {
                let volume = &attached.volume;
                // Once for each volume.
                if self.attached[..at].iter().any(|a| a.volume == *volume) {
                    continue;
                }
                let sharing = self.attached.iter().filter(|a| a.volume == *volume);
                let floor = sharing.map(|a| a.limits.lock().floor()).max().unwrap_or(0);
                let free = volume.free().unwrap_or(u64::MAX);
                make_room(&mut store, volume, &self.attached, floor.saturating_sub(free))?;
            }
            Ok(())
        })();
        self.store = Some(store);
        if let Err(error) = result {
            self.failed(&error);
        }
    }

    /// Takes the oldest recordings of the volume, whosever of ours they are, until a little is free.
    fn room_now(&mut self, volume: &Volume) {
        if self.store().is_none() {
            self.make_room_unasked(volume);
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let sharing = self.attached.iter().filter(|a| a.volume == *volume);
        let floor = sharing.map(|a| a.limits.lock().floor()).max().unwrap_or(0);
        // At least the largest fragment, so that recording does not stop again at once.
        let free = volume.free().unwrap_or(0);
        let missing = floor.max(4 << 20).saturating_sub(free).max(1);
        let result = make_room(&mut store, volume, &self.attached, missing);
        self.store = Some(store);
        if let Err(error) = result {
            self.failed(&error);
        }
    }
}

impl Desk {
    /// A full disk may keep the catalogue from being opened: then the names of the files have to do. The entry goes
    /// when it is the oldest one and its file is found missing.
    fn make_room_unasked(&self, volume: &Volume) {
        let sources: Vec<_> =
            self.attached.iter().filter(|a| a.volume == *volume).map(|a| a.source_id).collect();
        if volume.check().is_err() {
            return;
        }
        if let Some((path, _held)) = oldest_file(&volume.root, &sources) {
            match std::fs::remove_file(&path) {
                Ok(()) => gst::info!(CAT, "the disk is full; removed {}", path.display()),
                Err(error) => gst::warning!(CAT, "{} cannot be removed: {error}", path.display()),
            }
        }
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
    let gone = policy.plan(&list, used, now_us());
    remove(store, volume, &chosen(&found, &gone))
}

/// Removes the oldest recordings of a volume, whichever camera's they are.
fn make_room(
    store: &mut Store,
    volume: &Volume,
    attached: &[Attached],
    missing: u64,
) -> Result<(), CatalogError> {
    if missing == 0 || volume.check().is_err() {
        return Ok(());
    }
    let policies: HashMap<_, _> = attached.iter().map(|a| (a.source_id, a.limits.lock().policy)).collect();
    let wanted = Oldest { volume: Some(&volume.id), ..Oldest::default() };
    let longer = policies.values().any(|policy| policy.events_max_age_us.is_some());
    let found = candidates(store, &wanted, longer)?;
    let list: Vec<_> = found.iter().map(Recording::candidate).collect();
    let longer = |c: &Candidate| policies.get(&c.source_id).is_some_and(|policy| policy.keeps_longer(c));
    let gone = retention::make_room(&list, missing, longer);
    remove(store, volume, &chosen(&found, &gone))
}

/// Removes the files of recordings from a volume that was just seen to be there, then their entries.
fn remove(store: &mut Store, volume: &Volume, recordings: &[&Recording]) -> Result<(), CatalogError> {
    let mut gone = Vec::new();
    for recording in recordings {
        match volume.remove(&recording.path) {
            Ok(()) => gone.push(*recording),
            Err(error) => gst::warning!(CAT, "{} cannot be removed: {error}", recording.file().display()),
        }
    }
    // A volume that vanished meanwhile has lost no file.
    if volume.check().is_ok() { store.remove(&gone) } else { Ok(()) }
}
