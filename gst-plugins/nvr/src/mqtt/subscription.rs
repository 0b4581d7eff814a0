//! What an element that listens holds: topic filters, and a bounded queue of what came under them.
//!
//! Filters are asked for again on every connection. The queue drops its oldest message and counts it, so a reader that
//! is slow, or gone, costs nothing but messages.
//!
//! Lock order: `Receiver::filters` and `Receiver::queue` are never held together. Observers are called without locks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nvr_core::topic;
use parking_lot::{Condvar, Mutex};
use rumqttc::{Event, Outgoing, Packet, Publish, QoS, SubscribeReasonCode};

use super::CAT;
use super::connection::{Connection, Status};
use super::options::{Options, OptionsError};
use super::publisher::MAX_PAYLOAD;

/// What comes within this time of asking for a filter was retained under it.
const CALM: Duration = Duration::from_secs(2);
/// How long a filter is not asked for again that has something too large retained under it.
const REST: Duration = Duration::from_mins(5);
/// How long filters are asked for one by one after something that was too large.
const CAREFUL: Duration = Duration::from_mins(10);
/// Payload bytes that one queue holds at most.
const MAX_QUEUED_BYTES: usize = 2 * MAX_PAYLOAD;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Delivery(Publish);

impl Delivery {
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    pub fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Whether the broker had kept it from before.
    pub fn retained(&self) -> bool {
        self.0.retain
    }
}

/// What the connection tells a subscription's observer. Sent from the worker thread: the observer must not block.
#[derive(Clone, Debug)]
pub enum Signal {
    Connected,
    /// The connection was lost or could not be made, and why, in words for the user. Once per outage; once more where
    /// the broker then turns the client away.
    Disconnected(Arc<str>),
    /// The broker has confirmed every filter of this subscription; again after each connection.
    Subscribed,
    /// The broker does not let this client listen to the filter, in words for the user.
    Refused(Arc<str>),
    /// A message is in the queue.
    Received,
}

type Observer = Box<dyn Fn(Signal) + Send + Sync>;

/// Counters of one subscription.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SubscriptionStats {
    /// Messages that came under the filters, dropped ones included.
    pub received: u64,
    /// Payload bytes of `received`.
    pub bytes: u64,
    /// Not delivered: the queue was full or the message too large.
    pub dropped: u64,
    /// Messages waiting to be taken.
    pub queued: u64,
    /// Connections of this process to the broker after the first.
    pub reconnects: u64,
    pub connected: bool,
}

/// Messages under some topic filters of one broker. Dropping it ends the subscription.
///
/// A message that falls under several filters may come more than once, and one of QoS 1 after a cut again.
pub struct Subscription {
    receiver: Arc<Receiver>,
    connection: Arc<Connection>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Subscription {
    /// Joins the connection that `options` describe, or makes it, and listens to `filters`. Returns at once: the
    /// connection is made on its worker. The queue holds `capacity` messages and a few megabytes.
    pub fn open(
        options: &Options,
        filters: &[(&str, QoS)],
        capacity: usize,
        observer: impl Fn(Signal) + Send + Sync + 'static,
    ) -> Result<Self, OptionsError> {
        let filters = checked(filters)?;
        let connection = Connection::shared(options)?;
        let receiver = Arc::new(Receiver {
            capacity: capacity.max(1),
            filters: Mutex::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            observer: Box::new(observer),
            received: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        connection.listen(&receiver);
        let this = Self { receiver, connection };
        this.replace(filters);
        Ok(this)
    }

    /// Listens to other filters from now on. What is queued stays.
    pub fn set_filters(&self, filters: &[(&str, QoS)]) -> Result<(), OptionsError> {
        self.replace(checked(filters)?);
        Ok(())
    }

    fn replace(&self, filters: Vec<(String, QoS)>) {
        let new = Filter { qos: QoS::AtMostOnce, generation: next_generation(), confirmed: false };
        let filters = filters.into_iter().map(|(filter, qos)| (filter, Filter { qos, ..new })).collect();
        *self.receiver.filters.lock() = filters;
        self.connection.filters_changed();
    }

    /// The oldest message that waits; never waits itself.
    pub fn try_recv(&self) -> Option<Delivery> {
        self.receiver.queue.lock().pop()
    }

    /// The oldest message, once there is one. `None` after `timeout` and after [`Self::close`]. For threads of one's
    /// own: a streaming thread takes what is there with [`Self::try_recv`].
    pub fn recv(&self, timeout: Duration) -> Option<Delivery> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.receiver.queue.lock();
        while queue.waiting.is_empty() && !queue.closed {
            if self.receiver.changed.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        queue.pop()
    }

    /// Forgets what is queued, takes nothing more and ends every wait.
    pub fn close(&self) {
        let forgotten = {
            let mut queue = self.receiver.queue.lock();
            queue.closed = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        drop(forgotten);
        self.receiver.changed.notify_all();
    }

    pub fn stats(&self) -> SubscriptionStats {
        let receiver = &self.receiver;
        SubscriptionStats {
            received: receiver.received.load(Ordering::Relaxed),
            bytes: receiver.bytes.load(Ordering::Relaxed),
            dropped: receiver.dropped.load(Ordering::Relaxed),
            queued: receiver.queue.lock().waiting.len() as u64,
            reconnects: self.connection.reconnects(),
            connected: self.connection.status() == Status::Connected,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close();
        self.receiver.filters.lock().clear();
        self.connection.filters_changed();
    }
}

fn checked(filters: &[(&str, QoS)]) -> Result<Vec<(String, QoS)>, OptionsError> {
    filters
        .iter()
        .map(|(filter, qos)| {
            topic::check_filter(filter).map_err(OptionsError::Filter)?;
            Ok(((*filter).to_string(), *qos))
        })
        .collect()
}

/// Ever larger numbers, so that a filter that is set anew is asked for anew: only then does a broker send again what
/// it retained.
fn next_generation() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

#[derive(Clone, Copy)]
struct Filter {
    qos: QoS,
    generation: u64,
    confirmed: bool,
}

pub(super) struct Receiver {
    capacity: usize,
    filters: Mutex<BTreeMap<String, Filter>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    observer: Observer,
    received: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.waiting.pop_front()?;
        self.bytes -= delivery.payload().len();
        Some(delivery)
    }
}

impl Receiver {
    pub fn notify(&self, signal: Signal) {
        (self.observer)(signal);
    }

    fn take(&self, publish: &Publish) {
        if !self.filters.lock().keys().any(|filter| topic::matches(&publish.topic, filter)) {
            return;
        }
        let size = publish.payload.len();
        self.received.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size as u64, Ordering::Relaxed);
        if size > MAX_PAYLOAD {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut dropped = Vec::new();
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return;
            }
            queue.bytes += size;
            queue.waiting.push_back(Delivery(publish.clone()));
            while queue.waiting.len() > self.capacity || queue.bytes > MAX_QUEUED_BYTES {
                dropped.extend(queue.pop());
            }
        }
        self.dropped.fetch_add(dropped.len() as u64, Ordering::Relaxed);
        self.changed.notify_one();
        self.notify(Signal::Received);
    }

    /// The broker has answered a request for `filter`.
    fn answered(&self, filter: &str, generation: u64, granted: bool) {
        let complete = {
            let mut filters = self.filters.lock();
            let Some(known) = filters.get_mut(filter) else { return };
            if known.generation > generation {
                return;
            }
            let before = std::mem::replace(&mut known.confirmed, granted);
            granted && !before && filters.values().all(|filter| filter.confirmed)
        };
        if complete {
            self.notify(Signal::Subscribed);
        }
    }
}

/// The subscriptions of one connection.
#[derive(Default)]
pub(super) struct Subscriptions {
    receivers: Mutex<Vec<Weak<Receiver>>>,
    changes: AtomicU64,
    heavy: Mutex<Heavy>,
}

/// What is known of packets that were too large: each of them ends the connection, and one that a broker retains would
/// end every one.
#[derive(Default)]
struct Heavy {
    /// When the last one came.
    last: Option<Instant>,
    /// Filters that are not asked for, and until when.
    resting: BTreeMap<String, Instant>,
}

impl Subscriptions {
    pub fn add(&self, receiver: &Arc<Receiver>) {
        self.receivers.lock().push(Arc::downgrade(receiver));
    }

    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    pub fn notify(&self, signal: &Signal) {
        for receiver in self.receivers() {
            receiver.notify(signal.clone());
        }
    }

    /// Nothing is confirmed any more.
    pub fn disconnected(&self) {
        for receiver in self.receivers() {
            receiver.filters.lock().values_mut().for_each(|filter| filter.confirmed = false);
        }
    }

    fn receivers(&self) -> Vec<Arc<Receiver>> {
        let mut list = self.receivers.lock();
        list.retain(|receiver| receiver.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }

    /// Every filter that somebody listens to, with the highest QoS and generation asked for.
    fn wanted(&self) -> BTreeMap<String, (QoS, u64)> {
        let mut wanted = BTreeMap::new();
        for receiver in self.receivers() {
            for (name, filter) in &*receiver.filters.lock() {
                let (qos, generation) = wanted.entry(name.clone()).or_insert((filter.qos, 0));
                if *qos == QoS::AtMostOnce {
                    *qos = filter.qos;
                }
                *generation = filter.generation.max(*generation);
            }
        }
        wanted
    }
}

pub(super) enum Request {
    Subscribe(String, QoS),
    Unsubscribe(String),
}

/// What one connection has asked the broker for.
pub(super) struct Requests {
    /// [`Subscriptions::changes`] at the last comparison.
    seen: Option<u64>,
    asked: BTreeMap<String, (QoS, u64)>,
    /// Still to be asked.
    due: VecDeque<Request>,
    /// Given to the event loop and not written yet, in order, with their generation.
    submitted: VecDeque<(String, u64)>,
    /// Written and not answered, by packet id.
    unanswered: VecDeque<(u16, String, u64)>,
    /// Asks for one filter at a time, to learn which one is too heavy.
    careful: bool,
    /// The filter that was asked for last, and when.
    last: Option<(String, Instant)>,
    /// When a filter has rested enough.
    rested: Option<Instant>,
}

impl Requests {
    pub fn new(subscriptions: &Subscriptions) -> Self {
        let last = subscriptions.heavy.lock().last;
        Self {
            seen: None,
            asked: BTreeMap::new(),
            due: VecDeque::new(),
            submitted: VecDeque::new(),
            unanswered: VecDeque::new(),
            careful: last.is_some_and(|last| last.elapsed() < CAREFUL),
            last: None,
            rested: None,
        }
    }

    /// How long to wait at most before [`Self::next`] is called again.
    pub fn pause(&self) -> Duration {
        let now = Instant::now();
        let step =
            self.last.as_ref().filter(|_| self.careful && !self.due.is_empty()).map(|(_, at)| *at + CALM);
        let until = step.into_iter().chain(self.rested).min();
        until.map_or(CAREFUL, |until| until.saturating_duration_since(now))
    }

    /// The next request, where what is wanted differs from what was asked for.
    pub fn next(&mut self, subscriptions: &Subscriptions) -> Option<Request> {
        let now = Instant::now();
        let changes = subscriptions.changes.load(Ordering::Acquire);
        let rested = self.rested.is_some_and(|rested| rested <= now);
        if self.due.is_empty() && (self.seen != Some(changes) || rested) {
            self.seen = Some(changes);
            let mut wanted = subscriptions.wanted();
            {
                let resting = &mut subscriptions.heavy.lock().resting;
                resting.retain(|_, until| *until > now);
                wanted.retain(|filter, _| !resting.contains_key(filter));
                self.rested = resting.values().min().copied();
            }
            for filter in self.asked.keys().filter(|filter| !wanted.contains_key(*filter)) {
                self.due.push_back(Request::Unsubscribe(filter.clone()));
            }
            for (filter, (qos, generation)) in &wanted {
                if self.asked.get(filter) != Some(&(*qos, *generation)) {
                    self.due.push_back(Request::Subscribe(filter.clone(), *qos));
                }
            }
            self.asked = wanted;
        }
        if self.careful && self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < CALM) {
            return None;
        }
        let request = self.due.pop_front()?;
        if let Request::Subscribe(filter, _) = &request {
            let generation = self.asked.get(filter).map_or(0, |(_, generation)| *generation);
            self.submitted.push_back((filter.clone(), generation));
            self.last = Some((filter.clone(), now));
        }
        Some(request)
    }

    /// Whether the broker has answered everything it was asked.
    pub fn answered(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// A packet of `size` bytes has ended the connection. Says so, and keeps it from ending the next one where it is
    /// clear under which filter it is retained.
    pub fn too_large(&self, subscriptions: &Subscriptions, size: usize, limit: usize) -> String {
        let mebi = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let guilty = self.last.as_ref().filter(|(_, at)| self.careful && at.elapsed() < CALM);
        {
            let mut heavy = subscriptions.heavy.lock();
            heavy.last = Some(Instant::now());
            if let Some((filter, _)) = guilty {
                heavy.resting.insert(filter.clone(), Instant::now() + REST);
            }
        }
        let Some((filter, _)) = guilty else {
            let asked: Vec<_> = self.asked.keys().map(String::as_str).collect();
            return format!(
                "has sent a message of {:.1} MiB, more than the {:.0} MiB that are taken, under one of {}; trying \
                 again",
                mebi(size),
                mebi(limit),
                asked.join(", ")
            );
        };
        let why = format!(
            "retains a message of {:.1} MiB under {filter}, more than the {:.0} MiB that are taken: clear it with an \
             empty retained message; nothing is heard under {filter} until it is tried again in {} minutes",
            mebi(size),
            mebi(limit),
            REST.as_secs() / 60
        );
        let told: Arc<str> = format!("the MQTT broker {why}").into();
        gst::warning!(CAT, "{told}");
        for receiver in subscriptions.receivers() {
            if receiver.filters.lock().contains_key(filter) {
                receiver.notify(Signal::Refused(told.clone()));
            }
        }
        why
    }

    /// Keeps book of what the event loop did, and passes on what came.
    pub fn follow(&mut self, subscriptions: &Subscriptions, event: &Event) {
        match event {
            Event::Incoming(Packet::Publish(publish)) => {
                for receiver in subscriptions.receivers() {
                    receiver.take(publish);
                }
            }
            Event::Outgoing(Outgoing::Subscribe(id)) => {
                if let Some((filter, generation)) = self.submitted.pop_front() {
                    self.unanswered.push_back((*id, filter, generation));
                }
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let position = self.unanswered.iter().position(|(id, ..)| *id == ack.pkid);
                let Some((_, filter, generation)) = position.and_then(|at| self.unanswered.remove(at)) else {
                    return;
                };
                let granted = matches!(ack.return_codes.first(), Some(SubscribeReasonCode::Success(_)));
                gst::debug!(CAT, "{filter}: {}", if granted { "subscribed" } else { "refused" });
                for receiver in subscriptions.receivers() {
                    receiver.answered(&filter, generation, granted);
                    if !granted && receiver.filters.lock().contains_key(&filter) {
                        let why = format!(
                            "the MQTT broker does not let this client listen to {filter}; check its access list"
                        );
                        receiver.notify(Signal::Refused(why.into()));
                    }
                }
            }
            _ => {}
        }
    }
}
