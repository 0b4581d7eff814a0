//! What an element holds: a bounded queue in front of the shared connection, with counters of its own.
//!
//! Lock order: `Inner::queue`, then the connection's status. Observers are called without locks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rumqttc::{Publish, QoS};

use super::connection::{Connection, Shared, Status};
use super::options::{Options, OptionsError};

/// Largest payload that is published, in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// A message to publish. `token` comes back in [`Notice::Acknowledged`].
#[derive(Clone, Debug)]
pub struct Message {
    pub(super) publish: Publish,
    pub(super) token: u64,
    /// Has been written to a socket before: a broker may see it twice.
    pub(super) sent: bool,
}

impl Message {
    /// `qos` 0 or 1.
    pub fn new(topic: &str, payload: Vec<u8>, qos: QoS, retain: bool, token: u64) -> Self {
        let mut publish = Publish::new(topic, qos, payload);
        publish.retain = retain;
        Self { publish, token, sent: false }
    }

    pub fn topic(&self) -> &str {
        &self.publish.topic
    }

    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    #[must_use]
    pub fn with_token(self, token: u64) -> Self {
        Self { token, ..self }
    }
}

/// What the connection tells an element. Sent from the worker thread: the observer must not block.
#[derive(Clone, Debug)]
pub enum Notice {
    Connected,
    /// The connection was lost or could not be made, and why, in words for the user. Once per outage; once more where
    /// the broker then turns the client away.
    Disconnected(Arc<str>),
    /// The broker has taken responsibility for the QoS 1 message with this token.
    Acknowledged(u64),
    /// The broker closes the connection over the message with this token, which has been given up; and why, in words
    /// for the user, where it is the first for its topic.
    Refused(u64, Option<Arc<str>>),
    /// The message with this token was not sent: the broker closed the connection over others for its topic, to which
    /// nothing goes before this time. It is given up here; its owner may try again then.
    Barred(u64, Instant),
}

impl Notice {
    /// What the user should know of it.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Disconnected(why) | Self::Refused(_, Some(why)) => Some(why),
            Self::Connected | Self::Acknowledged(_) | Self::Refused(_, None) | Self::Barred(..) => None,
        }
    }
}

type Observer = Box<dyn Fn(Notice) + Send + Sync>;

/// Counters of one publisher. `published` counts what was written to a socket, each message once; of QoS 0 the last
/// few before a cut may have been lost on the way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    pub published: u64,
    /// QoS 1 messages that the broker has confirmed.
    pub acknowledged: u64,
    /// Given up: the queue was full, the message too large, the broker did not want it, or there was no time left to
    /// send it.
    pub dropped: u64,
    /// QoS 1 messages that were sent again after a cut.
    pub retransmitted: u64,
    /// Payload bytes of `published`.
    pub bytes: u64,
    /// Messages waiting, sent but not confirmed included.
    pub queued: u64,
    /// Connections of this process to the broker after the first.
    pub reconnects: u64,
    pub connected: bool,
}

pub(super) struct Inner {
    capacity: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    interrupted: AtomicBool,
    observer: Observer,
    published: AtomicU64,
    acknowledged: AtomicU64,
    dropped: AtomicU64,
    retransmitted: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Message>,
    /// Taken by the worker and neither confirmed nor given back.
    in_hand: usize,
    closed: bool,
}

/// A bounded queue of messages for one broker. Dropping it forgets what is still queued.
pub struct Publisher {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Joins the connection that `options` describe, or makes it. Returns at once: the connection is made on its
    /// worker. The queue holds `capacity` messages.
    pub fn open(
        options: &Options,
        capacity: usize,
        observer: impl Fn(Notice) + Send + Sync + 'static,
    ) -> Result<Self, OptionsError> {
        let connection = Connection::shared(options)?;
        let inner = Arc::new(Inner {
            capacity: capacity.max(1),
            queue: Mutex::default(),
            changed: Condvar::new(),
            interrupted: AtomicBool::new(false),
            observer: Box::new(observer),
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            retransmitted: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        connection.join(&inner);
        Ok(Self { inner, connection })
    }

    /// Queues a message; never waits. A full queue drops its oldest message.
    pub fn publish(&self, message: Message) {
        let too_large = message.publish.payload.len() > MAX_PAYLOAD;
        let dropped = {
            let mut queue = self.inner.queue.lock();
            if queue.closed || too_large {
                Some(message)
            } else {
                queue.waiting.push_back(message);
                if queue.waiting.len() > self.inner.capacity { queue.waiting.pop_front() } else { None }
            }
        };
        if dropped.is_some() {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if !too_large {
            self.connection.wake();
        }
    }

    /// Forgets what waits in the queue, without counting it; the owner has kept it elsewhere.
    pub fn clear(&self) {
        self.inner.queue.lock().waiting.clear();
    }

    /// Waits until everything queued is with the broker, for at most `timeout`; gives up at once where the broker is
    /// known to be away and on [`Self::interrupt`]. Whether everything is.
    pub fn drain(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut queue = self.inner.queue.lock();
        loop {
            if queue.waiting.is_empty() && queue.in_hand == 0 {
                return true;
            }
            if self.inner.interrupted.load(Ordering::Acquire)
                || self.connection.status() == Status::Down
                || self.inner.changed.wait_until(&mut queue, deadline).timed_out()
            {
                return queue.waiting.is_empty() && queue.in_hand == 0;
            }
        }
    }

    /// Makes [`Self::drain`] return at once, now and until this is called with `false`.
    pub fn interrupt(&self, interrupted: bool) {
        self.inner.interrupted.store(interrupted, Ordering::Release);
        // Taking the lock keeps the change from falling between a check and the wait after it.
        drop(self.inner.queue.lock());
        self.inner.changed.notify_all();
    }

    /// Takes no more messages, and counts what is queued or not confirmed as dropped.
    pub fn close(&self) {
        let mut queue = self.inner.queue.lock();
        if !queue.closed {
            queue.closed = true;
            let given_up = queue.waiting.len() + queue.in_hand;
            queue.waiting.clear();
            self.inner.dropped.fetch_add(given_up as u64, Ordering::Relaxed);
        }
    }

    /// Leaves the connection for good and without a farewell, so that the broker publishes its last will.
    pub fn vanish(self) {
        self.connection.end_abruptly();
    }

    pub fn status(&self) -> Status {
        self.connection.status()
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub fn stats(&self) -> Stats {
        let queued = {
            let queue = self.inner.queue.lock();
            if queue.closed { 0 } else { queue.waiting.len() + queue.in_hand }
        };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            published: get(&self.inner.published),
            acknowledged: get(&self.inner.acknowledged),
            dropped: get(&self.inner.dropped),
            retransmitted: get(&self.inner.retransmitted),
            bytes: get(&self.inner.bytes),
            queued: queued as u64,
            reconnects: self.connection.reconnects(),
            connected: self.connection.status() == Status::Connected,
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.close();
        self.connection.leave(&self.inner);
    }
}

/// A message in the hands of the worker.
pub(super) struct Taken {
    pub owner: Arc<Inner>,
    pub message: Message,
}

impl Inner {
    pub fn notify(&self, notice: Notice) {
        (self.observer)(notice);
    }

    /// The connection's status has changed: whoever drains looks again.
    pub fn wake(&self) {
        drop(self.queue.lock());
        self.changed.notify_all();
    }

    pub fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut queue = self.queue.lock();
        let message = queue.waiting.pop_front()?;
        queue.in_hand += 1;
        Some(Taken { owner: self.clone(), message })
    }

    /// Gives back what was not delivered, oldest first.
    pub fn give_back(&self, messages: Vec<Message>) {
        let mut queue = self.queue.lock();
        queue.in_hand = queue.in_hand.saturating_sub(messages.len());
        if queue.closed {
            return;
        }
        for message in messages.into_iter().rev() {
            queue.waiting.push_front(message);
        }
        let excess = queue.waiting.len().saturating_sub(self.capacity);
        queue.waiting.drain(..excess);
        self.dropped.fetch_add(excess as u64, Ordering::Relaxed);
    }
}

impl Taken {
    /// Has been written to the socket. Gives it back where a confirmation is still to come.
    pub fn written(mut self) -> Option<Self> {
        if self.message.sent {
            self.owner.retransmitted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.owner.published.fetch_add(1, Ordering::Relaxed);
            self.owner.bytes.fetch_add(self.message.publish.payload.len() as u64, Ordering::Relaxed);
        }
        if self.message.publish.qos == QoS::AtMostOnce {
            self.finished();
            return None;
        }
        self.message.sent = true;
        Some(self)
    }

    /// The broker has confirmed it.
    pub fn confirmed(self) {
        self.owner.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.finished();
        self.owner.notify(Notice::Acknowledged(self.message.token));
    }

    /// The broker does not want it.
    pub fn refused(self, why: Option<Arc<str>>) {
        let token = self.message.token;
        self.given_up(Notice::Refused(token, why));
    }

    /// Nothing goes to its topic before `until`.
    pub fn barred(self, until: Instant) {
        let token = self.message.token;
        self.given_up(Notice::Barred(token, until));
    }

    fn given_up(self, notice: Notice) {
        // What a closed queue had in hand is counted already.
        if !self.owner.queue.lock().closed {
            self.owner.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.finished();
        self.owner.notify(notice);
    }

    fn finished(&self) {
        {
            let mut queue = self.owner.queue.lock();
            queue.in_hand = queue.in_hand.saturating_sub(1);
        }
        self.owner.changed.notify_all();
    }
}

/// Takes one message from each publisher in turn, so that a busy one does not hold up the others.
pub(super) fn next(shared: &Shared) -> Option<Taken> {
    let publishers = shared.publishers();
    let start = shared.turn(publishers.len());
    (0..publishers.len()).find_map(|i| publishers[(start + i) % publishers.len()].take())
}
