//! The thread that writes the catalogue and removes what has to go, one for each catalogue of the process. It may
//! wait for the disk; nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, LazyLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::backoff::Backoff;
use nvr_core::retention::Policy;
use parking_lot::Mutex;

use super::super::ear::Sightings;
use super::super::imp::CAT;
use super::super::volume::Volume;
use super::reconcile::oldest_file;
use super::{CatalogError, Cause, Store};

/// Orders that wait. A recorder gives two for a segment.
const ORDERS: usize = 4096;
/// Entries that are kept while the catalogue cannot be written. Files that are older are found at the next start.
const BACKLOG: usize = 20_000;
/// How long entries are gathered before they are written together.
const BATCH: Duration = Duration::from_millis(200);
const RETENTION: Duration = Duration::from_secs(5);
/// Segments that are looked at in one pass.
const PASS: u32 = 256;

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
    pub sightings: Sightings,
    pub cause: Cause,
}

/// What a camera may keep, and what a volume has to have free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub policy: Policy,
    pub min_free: u64,
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
        static KEEPERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Keeper>>>> = LazyLock::new(Mutex::default);
        let mut keepers = KEEPERS.lock();
        keepers.retain(|_, keeper| keeper.strong_count() > 0);
        if let Some(keeper) = keepers.get(path).and_then(Weak::upgrade) {
            return keeper;
        }
        let (orders, inbox) = mpsc::sync_channel(ORDERS);
        let file = path.to_owned();
        let worker = thread::Builder::new().name("nvr-catalog".into()).spawn(move || run(&file, &inbox));
        let worker = worker.map_err(|error| gst::error!(CAT, "no thread for the catalogue: {error}")).ok();
        let keeper = Arc::new(Self { orders: Some(orders), worker: Mutex::new(worker) });
        keepers.insert(path.to_owned(), Arc::downgrade(&keeper));
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

struct Attached {
    volume: Volume,
    source_id: u32,
    limits: Arc<Mutex<Limits>>,
    /// Whether its leftovers have been taken care of.
    settled: bool,
}

struct Desk {
    path: PathBuf,
    store: Option<Store>,
    backoff: Backoff,
    retry: Instant,
    backlog: VecDeque<Entry>,
    attached: Vec<Attached>,
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
            desk.make_room(volume);
        }
        desk.settle();
        if ended {
            return;
        }
        if Instant::now() >= next_retention {
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

    /// Keeps the limits of every recorder.
    fn keep_limits(&mut self) {
        let Some(mut store) = self.store.take() else { return };
        let result = self.attached.iter().try_for_each(|attached| {
            let limits = *attached.limits.lock();
            let free = attached.volume.free().unwrap_or(u64::MAX);
            clean(&mut store, attached, &limits.policy, limits.min_free.saturating_sub(free))
        });
        self.store = Some(store);
        if let Err(error) = result {
            self.failed(&error);
        }
    }

    /// Takes the oldest recordings of the volume, whosever of ours they are, until a little is free.
    fn make_room(&mut self, volume: &Volume) {
        if self.store().is_none() {
            self.make_room_unasked(volume);
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let result = (|| {
            let mut oldest: Option<(i64, &Attached)> = None;
            for attached in self.attached.iter().filter(|a| a.volume == *volume) {
                let first = store.oldest(&volume.id, attached.source_id, false, 1)?;
                let start = first.first().map(|(candidate, _)| candidate.start_us);
                if let Some(start) = start.filter(|start| oldest.is_none_or(|(least, _)| *start < least)) {
                    oldest = Some((start, attached));
                }
            }
            let Some((_, attached)) = oldest else { return Ok(()) };
            let limits = *attached.limits.lock();
            // At least the largest fragment, so that recording does not stop again at once.
            let free = volume.free().unwrap_or(0);
            clean(
                &mut store,
                attached,
                &limits.policy,
                limits.min_free.max(4 << 20).saturating_sub(free).max(1),
            )
        })();
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
        if let Some(path) = oldest_file(&volume.root, &sources) {
            match fs::remove_file(&path) {
                Ok(()) => gst::info!(CAT, "the disk is full; removed {}", path.display()),
                Err(error) => gst::warning!(CAT, "{} cannot be removed: {error}", path.display()),
            }
        }
    }
}

/// Removes what a camera's limits do not allow and what the volume lacks. Only files that the catalogue names go,
/// and only on the volume that it means.
fn clean(store: &mut Store, attached: &Attached, policy: &Policy, missing: u64) -> Result<(), CatalogError> {
    let Attached { volume, source_id, .. } = attached;
    if volume.check().is_err() {
        return Ok(());
    }
    let mut candidates = store.oldest(&volume.id, *source_id, false, PASS)?;
    if policy.events_max_age_us.is_some() {
        // Those with a longer life may hide the others.
        let plain = store.oldest(&volume.id, *source_id, true, PASS)?;
        candidates.extend(plain);
        candidates.sort_by_key(|(candidate, _)| (candidate.start_us, candidate.id));
        candidates.dedup_by_key(|(candidate, _)| candidate.id);
    }
    let used = if policy.max_bytes.is_some() { store.used(&volume.id, *source_id)? } else { 0 };
    let now_us = super::super::worker::now_us();
    let list: Vec<_> = candidates.iter().map(|(candidate, _)| *candidate).collect();
    let mut gone = Vec::new();
    for id in policy.plan(&list, used, missing, now_us) {
        let Some((_, path)) = candidates.iter().find(|(candidate, _)| candidate.id == id) else { continue };
        let file = volume.root.join(path);
        match fs::remove_file(&file) {
            Ok(()) => {
                gst::debug!(CAT, "removed {}", file.display());
                gone.push(id);
                // An empty hour or day goes with its last file; others stay.
                for folder in file.ancestors().skip(1).take(2) {
                    if fs::remove_dir(folder).is_err() {
                        break;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(id),
            Err(error) => gst::warning!(CAT, "{} cannot be removed: {error}", file.display()),
        }
    }
    store.remove(&gone)
}
