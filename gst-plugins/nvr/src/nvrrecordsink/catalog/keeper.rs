//! The thread that writes the catalogue and removes what has to go, one for each catalogue of the process. It may
//! wait for the disk; nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, LazyLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::backoff::Backoff;
use nvr_core::retention::{Late, Policy};
use parking_lot::Mutex;

use super::super::ear::Sightings;
use super::super::imp::CAT;
use super::super::tiers::{Claims, Mover, Tally, TierSettings};
use super::super::volume::Volume;
use super::leftovers::{Job, Leftovers};
use super::{CatalogError, Cause, Store, salvage};

/// Orders that wait. A recorder gives two for a segment.
const ORDERS: usize = 4096;
/// Entries that are kept while the catalogue cannot be written. Files of older ones are looked for afterwards.
const BACKLOG: usize = 20_000;
/// How long entries are gathered before they are written together.
const BATCH: Duration = Duration::from_millis(200);
const RETENTION: Duration = Duration::from_secs(5);
/// When leftovers are looked for again where that failed.
const AGAIN: Duration = Duration::from_secs(30);

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
    News,
    Note(Box<Entry>),
    /// The volume is full: room is needed now.
    Room(Volume),
}

/// A recorder at the keeper's table. It may begin before the one before it, of the same camera, has ended.
#[derive(Clone, Debug)]
struct Seat {
    serial: u64,
    attached: Attached,
}

/// What recorders and the thread share, so that none of it waits for the thread or is lost with it.
/// Lock order: there are two, never held together, and nothing is called under them.
#[derive(Debug, Default)]
pub(super) struct Table {
    seats: Mutex<Vec<Seat>>,
    /// From when on entries were left out, by volume and camera.
    left_out: Mutex<HashMap<(String, u32), i64>>,
}

impl Table {
    /// Takes a seat, and says its number.
    pub(super) fn sit(&self, volume: &Volume, source_id: u32, limits: &Arc<Mutex<Limits>>) -> u64 {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let attached = Attached { volume: volume.clone(), source_id, limits: limits.clone(), settled: false };
        self.seats.lock().push(Seat { serial, attached });
        serial
    }

    /// Has the files of an entry looked for that does not get into the catalogue.
    pub(super) fn leave_out(&self, entry: &Entry) {
        let place = (entry.volume.id.clone(), entry.source_id);
        let mut left_out = self.left_out.lock();
        let since = left_out.entry(place).or_insert(entry.start_us);
        *since = entry.start_us.min(*since);
    }
}

/// A share in the thread of one catalogue.
#[derive(Debug)]
pub struct Keeper {
    orders: Option<SyncSender<Order>>,
    table: Arc<Table>,
    /// Whether it was said that there is no thread.
    complained: AtomicBool,
    worker: Mutex<Option<thread::JoinHandle<()>>>,
}

/// Ends what [`Keeper::attach`] began.
#[derive(Debug)]
pub struct Guard {
    pub keeper: Arc<Keeper>,
    serial: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.keeper.table.seats.lock().retain(|seat| seat.serial != self.serial);
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
        let table = Arc::new(Table::default());
        let (file, own_turn, own_table) = (path.to_owned(), turn.clone(), table.clone());
        let work = move || {
            let _turn = own_turn.lock();
            keep_on(|| run(&file, &inbox, &own_table));
        };
        let worker = thread::Builder::new().name("nvr-catalog".into()).spawn(work);
        let worker = worker.map_err(|error| gst::error!(CAT, "no thread for the catalogue: {error}")).ok();
        let keeper = Arc::new(Self {
            orders: Some(orders),
            table,
            complained: AtomicBool::new(false),
            worker: Mutex::new(worker),
        });
        keepers.insert(path.to_owned(), (Arc::downgrade(&keeper), turn));
        keeper
    }

    pub fn attach(self: &Arc<Self>, volume: &Volume, source_id: u32, limits: &Arc<Mutex<Limits>>) -> Guard {
        let serial = self.table.sit(volume, source_id, limits);
        self.send(Order::News);
        Guard { keeper: self.clone(), serial }
    }

    #[cfg(test)]
    pub(super) fn sitting(&self) -> usize {
        self.table.seats.lock().len()
    }

    /// Never waits. The files of entries that do not fit are looked for once the thread has caught up.
    pub fn send(&self, order: Order) {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Err(TrySendError::Full(Order::Note(entry)))) => {
                gst::warning!(CAT, "the catalogue does not keep up; left out for now: {entry:?}");
                self.table.leave_out(&entry);
            }
            Some(Err(TrySendError::Disconnected(_))) if !self.complained.swap(true, Ordering::Relaxed) => {
                gst::error!(
                    CAT,
                    "recordings are not entered in the catalogue and no limits are kept: its thread does not run"
                );
            }
            // Whoever wakes the thread or asks for room finds it at work.
            _ => {}
        }
    }
}

/// Begins anew after a panic: without this thread, disks fill up.
pub(super) fn keep_on(mut work: impl FnMut()) {
    let mut backoff = Backoff::default();
    while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
        gst::error!(CAT, "the thread of the catalogue panicked; it begins anew");
        thread::sleep(backoff.next_delay(0.0));
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

/// How far the leftovers of a recorder are taken care of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Care {
    /// They are to be, those from a time on (or all), not before a moment.
    Due(Option<i64>, Instant),
    UnderWay,
    Taken,
}

pub(super) struct Desk {
    path: PathBuf,
    pub(super) store: Option<Store>,
    /// Of the catalogue's file, as it was opened.
    inode: Option<u64>,
    backoff: Backoff,
    retry: Instant,
    began: Instant,
    backlog: VecDeque<Entry>,
    table: Arc<Table>,
    pub(super) attached: Vec<Attached>,
    /// By the serial number of the seat.
    cares: HashMap<u64, Care>,
    /// Begins with the first recorder.
    leftovers: Option<Leftovers>,
    /// By volume.
    pub(super) late: HashMap<String, Late>,
    /// Begins with the first recorder that has tiers.
    mover: Option<Mover>,
    /// Of the cameras at work, so that no other process moves their recordings.
    claims: Claims,
    complained: bool,
}

fn run(path: &Path, inbox: &Receiver<Order>, table: &Arc<Table>) {
    let mut desk = Desk::new(path, table);
    let mut next_retention = Instant::now();
    loop {
        let busy = !desk.backlog.is_empty() || desk.leftovers.as_ref().is_some_and(Leftovers::is_busy);
        let mut room = None;
        let ended = match inbox.recv_timeout(if busy { BATCH } else { RETENTION }) {
            Ok(order) => {
                thread::sleep(if matches!(order, Order::Room(_)) { Duration::ZERO } else { BATCH });
                for order in std::iter::once(order).chain(inbox.try_iter()) {
                    match order {
                        Order::News => {}
                        Order::Note(entry) => desk.note(*entry),
                        Order::Room(volume) => room = Some(volume),
                    }
                }
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        desk.attend();
        let settled = desk.settled();
        // Room first: there may be none for the catalogue itself.
        if let Some(volume) = &room {
            desk.room_now(volume);
        }
        desk.settle();
        if ended {
            return;
        }
        if Instant::now() >= next_retention || desk.settled() > settled {
            desk.tend_mover();
            desk.keep_limits();
            next_retention = Instant::now() + RETENTION;
        }
    }
}

impl Desk {
    pub(super) fn new(path: &Path, table: &Arc<Table>) -> Self {
        Self {
            path: path.to_owned(),
            store: None,
            inode: None,
            backoff: Backoff::limited(Duration::from_secs(5)),
            retry: Instant::now(),
            began: Instant::now(),
            backlog: VecDeque::new(),
            table: table.clone(),
            attached: Vec::new(),
            cares: HashMap::new(),
            leftovers: None,
            late: HashMap::new(),
            mover: None,
            claims: Claims::beside(path),
            complained: false,
        }
    }

    pub(super) fn note(&mut self, entry: Entry) {
        if self.backlog.len() >= BACKLOG
            && let Some(entry) = self.backlog.pop_front()
        {
            self.table.leave_out(&entry);
        }
        self.backlog.push_back(entry);
    }

    /// Looks who is at work. Of two recorders of one camera, the later one counts.
    pub(super) fn attend(&mut self) {
        let seats = self.table.seats.lock().clone();
        self.cares.retain(|serial, _| seats.iter().any(|seat| seat.serial == *serial));
        self.attached.clear();
        for Seat { serial, attached } in seats {
            let settled = self.cares.get(&serial) == Some(&Care::Taken);
            self.attached.retain(|a| a.source_id != attached.source_id || a.volume != attached.volume);
            self.attached.push(Attached { settled, ..attached });
        }
    }

    fn settled(&self) -> usize {
        self.attached.iter().filter(|a| a.settled).count()
    }

    /// Time since the thread began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The catalogue, even where it was to be left alone for a moment.
    pub(super) fn store_now(&mut self) -> Option<&mut Store> {
        self.retry = Instant::now();
        self.store()
    }

    fn store(&mut self) -> Option<&mut Store> {
        if self.store.is_none() && Instant::now() >= self.retry {
            match Store::open(&self.path).and_then(|store| store.begin_ages().map(|()| store)) {
                Ok(store) => {
                    self.inode = fs::metadata(&self.path).ok().map(|found| found.ino());
                    self.store = Some(store);
                }
                Err(error) => self.failed(&error),
            }
        }
        self.store.as_mut()
    }

    /// One warning for an outage; the file is opened anew, since it may be another by then.
    pub(super) fn failed(&mut self, error: &CatalogError) {
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
        if error.corrupt() {
            self.begin_anew();
        }
        self.retry = Instant::now() + self.backoff.next_delay(0.0);
    }

    /// Puts a damaged catalogue aside and makes another one from what is still in it and from the files.
    fn begin_anew(&mut self) {
        // Another process may have done so already.
        let found = fs::metadata(&self.path).ok().map(|found| found.ino());
        if self.inode.take().is_some_and(|inode| found != Some(inode)) {
            return;
        }
        // Both have it open.
        self.mover = None;
        self.leftovers = None;
        let anew = || {
            let aside = salvage::put_aside(&self.path)
                .map_err(|error| CatalogError::Io { path: self.path.clone(), error })?;
            let kept = Store::open(&self.path)?.take_over(&aside);
            let kept = kept.map_or_else(
                |error| format!("nothing of it can be read ({error})"),
                |count| format!("{count} recordings of it are taken over"),
            );
            Ok::<_, CatalogError>((aside, kept))
        };
        match anew() {
            Ok((aside, kept)) => gst::warning!(
                CAT,
                "the catalogue was damaged and is now {}; {kept}, others are looked for where it is recorded to. Those \
                 in other tiers, nvr-launch recordings repair finds",
                aside.display()
            ),
            Err(error) => gst::error!(CAT, "the catalogue is damaged and cannot be replaced: {error}"),
        }
        let seats = self.table.seats.lock().clone();
        self.cares = seats.iter().map(|seat| (seat.serial, Care::Due(None, Instant::now()))).collect();
    }

    /// Writes what waits, and has the leftovers of those who came taken care of.
    pub(super) fn settle(&mut self) {
        if self.store().is_none() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        // What is missing is told by what is there before anything of now is written.
        let result = self.look_for_leftovers(&store).and_then(|()| {
            if !self.backlog.is_empty() {
                store.write(self.backlog.make_contiguous())?;
                self.backlog.clear();
            }
            Ok(())
        });
        self.store = Some(store);
        match result {
            Ok(()) => {
                self.complained = false;
                self.backoff = Backoff::limited(Duration::from_secs(5));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn look_for_leftovers(&mut self, store: &Store) -> Result<(), CatalogError> {
        self.leftovers_done();
        let now = Instant::now();
        let seats = self.table.seats.lock().clone();
        for Seat { serial, attached } in seats {
            let Attached { volume, source_id, .. } = &attached;
            let care = match self.cares.get(&serial) {
                Some(care) => *care,
                None => Care::Due(store.recent(&volume.id, *source_id)?, now),
            };
            let place = (volume.id.clone(), *source_id);
            let care = match care {
                // Files whose entries were left out meanwhile.
                Care::Taken => match self.table.left_out.lock().remove(&place) {
                    Some(since) => Care::Due(Some(since), now),
                    None => care,
                },
                other => other,
            };
            self.cares.insert(serial, care);
            let Care::Due(since, at) = care else { continue };
            if now < at || volume.check().is_err() {
                continue;
            }
            if self.leftovers.is_none() {
                self.leftovers = Leftovers::start(&self.path);
            }
            if let Some(leftovers) = &mut self.leftovers {
                leftovers.order(Job { serial, volume: volume.clone(), source_id: *source_id, since });
                self.cares.insert(serial, Care::UnderWay);
            }
        }
        Ok(())
    }

    /// Hears of leftovers that were taken care of. Where that failed, it is tried again.
    fn leftovers_done(&mut self) {
        let Some(leftovers) = &mut self.leftovers else { return };
        let dead = leftovers.is_dead();
        while let Some((job, well)) = leftovers.done() {
            let care = if well { Care::Taken } else { Care::Due(job.since, Instant::now() + AGAIN) };
            if let Some(known) = self.cares.get_mut(&job.serial) {
                *known = care;
            }
            let here = |a: &&mut Attached| a.source_id == job.source_id && a.volume == job.volume;
            if let Some(attached) = self.attached.iter_mut().find(here) {
                attached.settled = well;
            }
        }
        if dead {
            self.leftovers = None;
            self.cares.retain(|_, care| *care != Care::UnderWay);
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
}
