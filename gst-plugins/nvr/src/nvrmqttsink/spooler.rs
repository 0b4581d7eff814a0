//! Keeps QoS 1 messages across an outage: a worker between the streaming thread and the connection that moves
//! messages to a [`Spool`] while the broker is away and replays them, in order, once it is back.
//!
//! Messages that the broker has not confirmed go to the spool before anything newer does; what is in the spool stays
//! there until it is confirmed. So order is kept, and a message may arrive twice but does not vanish. Where the broker
//! bars a topic, everything waits in the spool until the bar is over.
//!
//! One lock, `Shared::inbox`, held for a few instructions.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::spool::{Record, Spool};
use crate::mqtt::{Message, Notice, Options, OptionsError, Publisher, QoS, Stats, Status};

/// Messages that are with the connection at once.
const WINDOW: usize = 100;
/// What is written is on disk for good after this long.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Trouble with the disk is reported at most this often.
const REPORT_EVERY: Duration = Duration::from_mins(1);

pub struct Spooler {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    capacity: usize,
    /// Whether nobody counts on its owner any more.
    is_abandoned: Box<dyn Fn() -> bool + Send + Sync>,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Message>,
    notices: VecDeque<Notice>,
    closing: bool,
    /// The spool is closed.
    closed: bool,
    interrupted: bool,
    /// Something has changed since the worker last looked.
    news: bool,
    /// Everything the worker had was with the broker when it last looked.
    idle: bool,
    /// Nothing goes to the broker for now.
    barred: bool,
    dropped: u64,
    totals: Totals,
}

/// What is in the spool and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub spooled: u64,
    pub replayed: u64,
    pub spool_messages: u64,
    pub spool_bytes: u64,
    pub spool_dropped: u64,
}

/// The spools that are open in this process.
static OPEN: Mutex<Vec<(PathBuf, Weak<Shared>)>> = Mutex::new(Vec::new());
/// How long an abandoned spooler may take to close its spool.
const INHERITANCE: Duration = Duration::from_secs(2);

/// Has the spool in `directory` closed if it belongs to an abandoned spooler of this process. Whether it is.
fn inherit(directory: &Path) -> bool {
    let known =
        OPEN.lock().iter().filter(|(open, _)| open == directory).filter_map(|(_, s)| s.upgrade()).next_back();
    let Some(shared) = known.filter(|shared| (shared.is_abandoned)()) else { return false };
    shared.tell(|inbox| inbox.closing = true);
    let deadline = Instant::now() + INHERITANCE;
    let mut inbox = shared.inbox.lock();
    while !inbox.closed {
        if shared.changed.wait_until(&mut inbox, deadline).timed_out() {
            break;
        }
    }
    inbox.closed
}

#[derive(Debug, thiserror::Error)]
pub enum SpoolerError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("spool {directory}: {error}")]
    Spool { directory: String, error: io::Error },
}

impl Spooler {
    /// Opens the spool in `directory` and joins the broker's connection. `report` gets what the user should know:
    /// outages and trouble with the disk, once each; it is called from workers and must not block. Another spooler of
    /// this process has to give the spool up where its own `is_abandoned` says so: what is behind an element that hangs
    /// must not keep its successor away.
    pub fn open(
        options: &Options,
        capacity: usize,
        directory: &Path,
        max_bytes: u64,
        report: impl Fn(&str) + Send + Sync + 'static,
        is_abandoned: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self, SpoolerError> {
        let fail = |error| SpoolerError::Spool { directory: directory.display().to_string(), error };
        let spool = match Spool::open(directory, max_bytes) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && inherit(directory) => {
                Spool::open(directory, max_bytes)
            }
            opened => opened,
        };
        let spool = spool.map_err(fail)?;
        let shared = Arc::new(Shared {
            capacity: capacity.max(1),
            is_abandoned: Box::new(is_abandoned),
            inbox: Mutex::default(),
            changed: Condvar::new(),
        });
        {
            let mut open = OPEN.lock();
            open.retain(|(_, shared)| shared.strong_count() > 0);
            open.push((directory.to_path_buf(), Arc::downgrade(&shared)));
        }
        // The first look finds what an earlier run has left.
        shared.tell(|_| {});
        let report = Arc::new(report);
        let publisher = {
            let (shared, report) = (shared.clone(), report.clone());
            Publisher::open(options, 2 * WINDOW, move |notice| {
                if let Some(why) = notice.trouble() {
                    report(why);
                }
                shared.tell(|inbox| inbox.notices.push_back(notice));
            })?
        };
        let publisher = Arc::new(publisher);
        let worker = Worker {
            shared: shared.clone(),
            publisher: publisher.clone(),
            spool,
            outstanding: VecDeque::new(),
            online: false,
            barred: None,
            token: 0,
            refused: 0,
            totals: Totals::default(),
            synced: Instant::now(),
            trouble: None,
            report: Box::new(move |text| report(text)),
        };
        let worker =
            std::thread::Builder::new().name("nvr-spool".into()).spawn(move || worker.run()).map_err(fail)?;
        Ok(Self { shared, publisher, worker: Mutex::new(Some(worker)) })
    }

    /// Queues a message; never waits. Where the disk does not keep up, the oldest is dropped.
    pub fn publish(&self, message: Message) {
        let capacity = self.shared.capacity;
        self.shared.tell(|inbox| {
            inbox.idle = false;
            inbox.messages.push_back(message);
            if inbox.messages.len() > capacity {
                inbox.messages.pop_front();
                inbox.dropped += 1;
            }
        });
    }

    /// Waits until everything is with the broker, for at most `timeout`, and not at all where it is away: then the
    /// spool keeps it.
    pub fn drain(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut inbox = self.shared.inbox.lock();
        loop {
            let done = inbox.idle && inbox.messages.is_empty() && inbox.notices.is_empty();
            let away = inbox.notices.is_empty() && (inbox.barred || self.publisher.status() == Status::Down);
            if done || inbox.interrupted || away {
                return done;
            }
            if self.shared.changed.wait_until(&mut inbox, deadline).timed_out() {
                return false;
            }
        }
    }

    pub fn interrupt(&self, interrupted: bool) {
        self.shared.tell(|inbox| inbox.interrupted = interrupted);
    }

    /// Puts what the broker has not confirmed into the spool and closes it.
    pub fn close(&self) {
        self.shared.tell(|inbox| inbox.closing = true);
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && worker.thread().id() != std::thread::current().id()
        {
            // The worker does not panic; if it did, there is nothing left to close.
            let _ = worker.join();
        }
        self.publisher.close();
    }

    pub fn stats(&self) -> (Stats, Totals) {
        let stats = self.publisher.stats();
        let inbox = self.shared.inbox.lock();
        // What the connection gave up is in the spool.
        let dropped = inbox.dropped + inbox.totals.spool_dropped;
        (Stats { dropped, queued: stats.queued + inbox.messages.len() as u64, ..stats }, inbox.totals)
    }
}

impl Drop for Spooler {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn tell(&self, change: impl FnOnce(&mut Inbox)) {
        {
            let mut inbox = self.inbox.lock();
            change(&mut inbox);
            inbox.news = true;
        }
        self.changed.notify_all();
    }
}

struct Worker {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    spool: Spool,
    /// Handed to the connection and not confirmed, in order.
    outstanding: VecDeque<Outstanding>,
    online: bool,
    /// Until when the broker is left alone with a topic that it closes the connection over.
    barred: Option<Instant>,
    token: u64,
    /// Messages that the broker does not want.
    refused: u64,
    totals: Totals,
    synced: Instant,
    /// When the user was last told that the disk gives trouble.
    trouble: Option<Instant>,
    report: Box<dyn Fn(&str) + Send>,
}

struct Outstanding {
    token: u64,
    origin: Origin,
}

enum Origin {
    /// Never was in the spool; kept here so that it can get there.
    Direct(Message),
    /// In the spool, under this number.
    Spool(u64),
    /// The spool could not take it, which is counted and told.
    Lost,
}

impl Worker {
    fn run(mut self) {
        loop {
            let (notices, messages, closing) = self.wait();
            self.barred = self.barred.filter(|until| *until > Instant::now());
            for notice in notices {
                self.follow(&notice);
            }
            for message in messages {
                if self.direct() && self.outstanding.len() < WINDOW {
                    self.send(message.clone(), Origin::Direct(message));
                } else {
                    self.spool(&message);
                }
            }
            if closing {
                self.retreat();
            } else {
                self.replay();
            }
            if closing || self.synced.elapsed() >= SYNC_EVERY {
                let synced = self.spool.sync();
                self.check(synced);
                self.synced = Instant::now();
            }
            self.publish_totals();
            if closing {
                break;
            }
        }
        let shared = self.shared.clone();
        // Its lock goes with it.
        drop(self);
        shared.tell(|inbox| inbox.closed = true);
    }

    /// Waits for something to do and takes it: all messages where they go to the spool, and only as many as the
    /// connection has room for where they do not.
    fn wait(&mut self) -> (VecDeque<Notice>, Vec<Message>, bool) {
        let mut inbox = self.shared.inbox.lock();
        let sync = self.spool.is_dirty().then(|| self.synced + SYNC_EVERY);
        let due = sync.into_iter().chain(self.barred).min();
        while !inbox.news {
            let Some(due) = due else {
                self.shared.changed.wait(&mut inbox);
                continue;
            };
            if self.shared.changed.wait_until(&mut inbox, due).timed_out() {
                break;
            }
        }
        inbox.news = false;
        let room = WINDOW - self.outstanding.len().min(WINDOW);
        let slow = inbox.messages.len() > self.shared.capacity / 2;
        let spooling = !self.direct() || slow || inbox.closing || !inbox.notices.is_empty();
        let count = if spooling { inbox.messages.len() } else { inbox.messages.len().min(room) };
        let messages = inbox.messages.drain(..count).collect();
        inbox.idle &= count == 0;
        (std::mem::take(&mut inbox.notices), messages, inbox.closing)
    }

    /// Whether the broker takes messages.
    fn reachable(&self) -> bool {
        self.online && self.barred.is_none()
    }

    /// Whether a message may go to the connection without overtaking another.
    fn direct(&self) -> bool {
        self.reachable() && !self.spool.has_unread()
    }

    fn follow(&mut self, notice: &Notice) {
        match notice {
            Notice::Connected => self.online = true,
            Notice::Disconnected(_) => {
                self.online = false;
                self.retreat();
            }
            Notice::Barred(token, until) => {
                self.barred = Some(*until);
                if self.outstanding.iter().any(|o| o.token == *token) {
                    self.retreat();
                }
            }
            // What the broker does not want is done with too: it would come back for ever.
            Notice::Acknowledged(token) | Notice::Refused(token, _) => {
                self.refused += u64::from(matches!(notice, Notice::Refused(..)));
                let position = self.outstanding.iter().position(|o| o.token == *token);
                if let Some(Outstanding { origin: Origin::Spool(number), .. }) =
                    position.and_then(|position| self.outstanding.remove(position))
                {
                    let confirmed = self.spool.confirm(number);
                    self.check(confirmed);
                }
            }
        }
    }

    /// Takes everything back that the broker has not confirmed.
    fn retreat(&mut self) {
        self.publisher.clear();
        for outstanding in std::mem::take(&mut self.outstanding) {
            if let Origin::Direct(message) = outstanding.origin {
                self.append(&message);
            }
        }
        self.spool.rewind();
    }

    fn replay(&mut self) {
        while self.reachable() && self.outstanding.len() < WINDOW {
            let record = self.spool.read();
            match record {
                Ok(Some(Record { number, topic, payload })) => {
                    self.totals.replayed += 1;
                    let message = Message::new(&topic, payload, QoS::AtLeastOnce, false, 0);
                    self.send(message, Origin::Spool(number));
                }
                Ok(None) => break,
                Err(error) => {
                    self.check(Err(error));
                    break;
                }
            }
        }
    }

    fn send(&mut self, message: Message, origin: Origin) {
        self.token += 1;
        self.outstanding.push_back(Outstanding { token: self.token, origin });
        self.publisher.publish(message.with_token(self.token));
    }

    fn spool(&mut self, message: &Message) {
        self.keep_outstanding();
        self.append(message);
    }

    /// Puts what went to the connection directly into the spool, before something newer gets there and would come first
    /// after an outage.
    fn keep_outstanding(&mut self) {
        if !self.outstanding.iter().any(|outstanding| matches!(outstanding.origin, Origin::Direct(_))) {
            return;
        }
        let mut list = std::mem::take(&mut self.outstanding);
        for outstanding in &mut list {
            if let Origin::Direct(message) = &outstanding.origin {
                outstanding.origin = self.append(message).map_or(Origin::Lost, Origin::Spool);
            }
        }
        self.outstanding = list;
        // Nothing goes directly before everything in the spool is with the connection, and now these are as well.
        self.spool.skip();
    }

    /// The number of the message in the spool.
    fn append(&mut self, message: &Message) -> Option<u64> {
        match self.spool.append(message.topic(), message.payload()) {
            Ok(number) => {
                self.totals.spooled += 1;
                Some(number)
            }
            Err(error) => {
                self.check(Err(error));
                None
            }
        }
    }

    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && self.trouble.is_none_or(|told| told.elapsed() >= REPORT_EVERY)
        {
            self.trouble = Some(Instant::now());
            (self.report)(&format!("the spool lost events: {error}; check the disk and `spool-max-bytes`"));
        }
    }

    fn publish_totals(&mut self) {
        self.totals.spool_messages = self.spool.len();
        self.totals.spool_bytes = self.spool.bytes();
        self.totals.spool_dropped = self.spool.dropped() + self.refused;
        {
            let mut inbox = self.shared.inbox.lock();
            inbox.idle = self.outstanding.is_empty() && !self.spool.has_unread();
            inbox.barred = self.barred.is_some();
            inbox.totals = self.totals;
            // A message that found no room waits for a confirmation, which is news; one that does fit is news now.
            inbox.news |= self.direct() && !inbox.messages.is_empty() && self.outstanding.len() < WINDOW;
        }
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
#[path = "spooler_tests.rs"]
mod tests;
