//! One connection to one broker: a worker thread that connects, feeds and reconnects for ever.
//!
//! rumqttc's event loop lives for one connection only and is fed one message at a time. Everything not confirmed
//! stays in our hands: rumqttc forgets its pending messages when a broker has lost the session, and its state from
//! before a cut confuses the next connection.
//!
//! Locks are held for a few instructions, one at a time, never while I/O or an observer runs. The one exception is what
//! a newcomer is told of an outage: an observer opens and drops nothing that has to do with its own connection.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use nvr_core::backoff::Backoff;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, QoS,
    StateError, Transport, mqttbytes,
};
use tokio::sync::Notify;
use tokio::time;

use super::CAT;
use super::flight::{Flight, Suspects};
use super::options::{Options, OptionsError};
use super::publisher::{Inner, MAX_PAYLOAD, Notice};
use super::subscription::{Receiver, Request, Requests, Signal, Subscriptions};
use super::tls;

/// A broker that goes silent is noticed after at most twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// For the TCP connection, TLS and the MQTT greeting together.
const CONNECT_TIMEOUT_S: u64 = 5;
/// How long a broker may take over a farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// A connection that lasted this long has proven itself: the next failure starts the backoff anew.
const PROVEN: Duration = Duration::from_secs(10);
/// The longest wait between attempts: a broker is one machine of one's own, and events are wanted as soon as it is back.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Between attempts with credentials that the broker has refused.
const REFUSED_DELAY: Duration = Duration::from_mins(1);
/// How long a broker may owe confirmations without giving one. Pings say nothing of that: one whose store hangs answers
/// them, and with the window full nothing else would move again.
const PATIENCE: Duration = Duration::from_secs(30);
/// QoS 1 messages sent ahead of their confirmations.
const IN_FLIGHT: u16 = 100;
/// A packet above this ends the connection. Far more than is ever passed on, so that what is merely too large can be
/// counted without losing the connection over it; what is far too large would have to be held in memory.
const MAX_INCOMING: usize = 16 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// The first attempt since the start is under way.
    Connecting,
    Connected,
    /// The last attempt failed or the connection was lost; the next attempt will come.
    Down,
}

/// Shared by the publishers and subscriptions of one broker; the worker ends when the last is gone.
pub(super) struct Connection {
    shared: Arc<Shared>,
    worker: ThreadId,
}

pub(super) struct Shared {
    options: Options,
    client_id: String,
    /// Replaced and never changed: every message that is sent looks at them.
    publishers: Mutex<Arc<Vec<Arc<Inner>>>>,
    subscriptions: Subscriptions,
    suspects: Mutex<Suspects>,
    turn: AtomicUsize,
    /// Something was queued, or the connection is to end.
    work: Notify,
    stopping: AtomicBool,
    /// The end is to look like a crash: the broker publishes the last will.
    abrupt: AtomicBool,
    stop: Notify,
    status: Mutex<Status>,
    /// What the users were told of the outage.
    outage: Mutex<Option<Outage>>,
    reconnects: AtomicU64,
    ended: Mutex<bool>,
    end: Condvar,
    /// [`PATIENCE`], which tests do not have.
    patience: Duration,
}

#[derive(Clone)]
struct Outage {
    why: Arc<str>,
    refused: bool,
}

static CONNECTIONS: Mutex<Vec<(Options, Weak<Connection>)>> = Mutex::new(Vec::new());

impl Connection {
    /// The connection with these options, made where there is none.
    pub fn shared(options: &Options) -> Result<Arc<Self>, OptionsError> {
        let mut connections = CONNECTIONS.lock();
        connections.retain(|(_, connection)| connection.strong_count() > 0);
        let known = connections.iter().find(|(known, _)| known == options);
        if let Some(connection) = known.and_then(|(_, connection)| connection.upgrade()) {
            return Ok(connection);
        }
        let connection = Arc::new(Self::start(options.clone())?);
        connections.push((options.clone(), Arc::downgrade(&connection)));
        Ok(connection)
    }

    fn start(options: Options) -> Result<Self, OptionsError> {
        let shared = Arc::new(Shared::new(options));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new().name("nvr-mqtt".into()).spawn(move || {
                // Its sockets are written to with `writev`, which has no flag against the signal.
                crate::sigpipe::block();
                // rumqttc parses what a broker sends; no broker may end the worker.
                while catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(&shared)))).is_err() {
                    shared
                        .disconnected("sent something that the MQTT client cannot bear; trying again", false);
                    std::thread::sleep(Duration::from_secs(1));
                }
                // A name lookup under way would hold up an orderly shutdown for as long as it takes.
                runtime.shutdown_background();
                *shared.ended.lock() = true;
                shared.end.notify_all();
            })?
        };
        Ok(Self { shared, worker: thread.thread().id() })
    }

    /// Adds a publisher. It learns at once of an outage that others already know of.
    pub fn join(&self, publisher: &Arc<Inner>) {
        self.shared.add(publisher);
        // Held while it is told, so that what the worker finds out meanwhile is told after this and not before.
        let outage = self.shared.outage.lock();
        if let Some(outage) = &*outage {
            publisher.notify(Notice::Disconnected(outage.why.clone()));
        } else if self.status() == Status::Connected {
            publisher.notify(Notice::Connected);
        }
    }

    /// Takes a publisher away: it hears and sends nothing more.
    pub fn leave(&self, publisher: &Arc<Inner>) {
        self.shared.remove(publisher);
    }

    /// Adds a subscription. Its filters are asked for once they are set.
    pub fn listen(&self, receiver: &Arc<Receiver>) {
        self.shared.subscriptions.add(receiver);
        // As above.
        let outage = self.shared.outage.lock();
        if let Some(outage) = &*outage {
            receiver.notify(Signal::Disconnected(outage.why.clone()));
        } else if self.status() == Status::Connected {
            receiver.notify(Signal::Connected);
        }
    }

    /// The filters of a subscription have changed, or it is gone.
    pub fn filters_changed(&self) {
        self.shared.subscriptions.changed();
        self.wake();
    }

    pub fn wake(&self) {
        self.shared.wake();
    }

    /// When the last user leaves, the broker is to publish the last will.
    pub fn end_abruptly(&self) {
        self.shared.abrupt.store(true, Ordering::Release);
    }

    pub fn status(&self) -> Status {
        *self.shared.status.lock()
    }

    pub fn reconnects(&self) -> u64 {
        self.shared.reconnects.load(Ordering::Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.notify_one();
        self.shared.work.notify_one();
        // An observer on the worker may have held the last reference.
        if std::thread::current().id() != self.worker {
            let mut ended = self.shared.ended.lock();
            if !*ended {
                self.shared.end.wait_for(&mut ended, FAREWELL + FAREWELL / 2);
            }
        }
    }
}

impl Shared {
    fn new(options: Options) -> Self {
        Self {
            client_id: options.client_id(),
            options,
            publishers: Mutex::default(),
            subscriptions: Subscriptions::default(),
            suspects: Mutex::default(),
            turn: AtomicUsize::new(0),
            work: Notify::new(),
            stopping: AtomicBool::new(false),
            abrupt: AtomicBool::new(false),
            stop: Notify::new(),
            status: Mutex::new(Status::Connecting),
            outage: Mutex::new(None),
            reconnects: AtomicU64::new(0),
            ended: Mutex::new(false),
            end: Condvar::new(),
            patience: PATIENCE,
        }
    }

    /// The publishers that are there.
    pub fn publishers(&self) -> Arc<Vec<Arc<Inner>>> {
        self.publishers.lock().clone()
    }

    fn add(&self, publisher: &Arc<Inner>) {
        Arc::make_mut(&mut *self.publishers.lock()).push(publisher.clone());
    }

    fn remove(&self, publisher: &Arc<Inner>) {
        Arc::make_mut(&mut *self.publishers.lock()).retain(|known| !Arc::ptr_eq(known, publisher));
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Topics that the broker may not want anything for.
    pub fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.suspects.lock()
    }

    /// There may be something to send now.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Which of `n` publishers is next.
    pub fn turn(&self, n: usize) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % n.max(1)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn connected(&self) {
        *self.status.lock() = Status::Connected;
        *self.outage.lock() = None;
        gst::info!(CAT, "{}: connected", self.options);
        for publisher in &*self.publishers() {
            publisher.wake();
            publisher.notify(Notice::Connected);
        }
        self.subscriptions.notify(&Signal::Connected);
    }

    fn disconnected(&self, why: &str, refused: bool) {
        *self.status.lock() = Status::Down;
        gst::debug!(CAT, "{}: {why}", self.options);
        let news = {
            let mut outage = self.outage.lock();
            let known = outage.as_ref().is_some_and(|known| known.refused || !refused);
            (!known).then(|| {
                let why: Arc<str> = format!("MQTT broker {}: {why}", self.options).into();
                *outage = Some(Outage { why: why.clone(), refused });
                why
            })
        };
        for publisher in &*self.publishers() {
            publisher.wake();
            if let Some(why) = &news {
                publisher.notify(Notice::Disconnected(why.clone()));
            }
        }
        self.subscriptions.disconnected();
        if let Some(why) = news {
            self.subscriptions.notify(&Signal::Disconnected(why));
        }
    }
}

/// Connects again and again until told to stop.
async fn run(shared: &Shared) {
    let mut backoff = Backoff::limited(LONGEST_DELAY);
    let mut connections = 0u64;
    while !shared.stopping() {
        let begun = Instant::now();
        let failure = match session(shared, &mut connections).await {
            Ok(()) => break,
            Err(failure) => failure,
        };
        if failure.connected && begun.elapsed() >= PROVEN {
            backoff.reset();
        }
        let mut delay = backoff.next_delay(jitter());
        if failure.refused {
            delay = delay.max(REFUSED_DELAY.mul_f64(1.0 - 0.2 * jitter()));
        }
        shared.disconnected(&failure.why, failure.refused);
        tokio::select! {
            () = time::sleep(delay) => {}
            () = shared.stop.notified() => break,
        }
    }
}

struct Failure {
    why: String,
    /// The broker turned the client away: trying again soon is pointless.
    refused: bool,
    connected: bool,
}

/// One connection, from the first packet to the last. `Ok` where it ended because it was to.
async fn session(shared: &Shared, connections: &mut u64) -> Result<(), Failure> {
    let options = mqtt_options(&shared.options, &shared.client_id).map_err(|error| Failure {
        why: error.to_string(),
        refused: false,
        connected: false,
    })?;
    let (client, mut event_loop) = AsyncClient::new(options, 1);
    event_loop.network_options.set_tcp_nodelay(true);
    event_loop.network_options.set_connection_timeout(CONNECT_TIMEOUT_S);
    tokio::select! {
        greeting = event_loop.poll() => greeting.map_err(|error| failure(&error, false))?,
        () = shared.stop.notified() => return Ok(()),
    };
    if *connections > 0 {
        shared.reconnects.fetch_add(1, Ordering::Relaxed);
    }
    *connections += 1;
    shared.connected();

    let flight = RefCell::new(Flight::new(shared));
    let requests = RefCell::new(Requests::new(&shared.subscriptions));
    let ended = exchange(shared, &client, event_loop, &flight, &requests).await;
    let failure = ended.filter(|_| !shared.stopping()).map(|end| match end {
        End::Owing => Failure {
            why: format!(
                "does not confirm what it is sent (nothing for {} s): check its store and its limits; trying again",
                shared.patience.as_secs()
            ),
            refused: false,
            connected: true,
        },
        End::Broken(error) => {
            // Who is asked to listen to something forbidden may answer with a cut as well.
            if requests.borrow().answered() {
                flight.borrow_mut().ended(&error);
            }
            match error {
                ConnectionError::MqttState(StateError::Deserialization(
                    mqttbytes::Error::PayloadSizeLimitExceeded(size),
                )) => Failure {
                    why: requests.borrow().too_large(&shared.subscriptions, size, MAX_INCOMING),
                    refused: false,
                    connected: true,
                },
                error => failure(&error, true),
            }
        }
    });
    // Back to the queues before anybody hears of the end.
    drop(flight);
    failure.map_or(Ok(()), Err)
}

/// Why a connection has ended that was not to.
enum End {
    Broken(ConnectionError),
    /// The broker has confirmed nothing for too long.
    Owing,
}

/// Feeds and polls until the connection breaks, which says how, or is to end.
async fn exchange(
    shared: &Shared,
    client: &AsyncClient,
    mut event_loop: EventLoop,
    flight: &RefCell<Flight<'_>>,
    requests: &RefCell<Requests>,
) -> Option<End> {
    let poll = async {
        loop {
            match event_loop.poll().await {
                Ok(event) => {
                    Flight::follow(flight, &event);
                    requests.borrow_mut().follow(&shared.subscriptions, &event);
                }
                Err(error) => {
                    // What came before the end counts: rumqttc reads both in one go and tells of the end first.
                    for event in std::mem::take(&mut event_loop.state.events) {
                        if matches!(event, Event::Incoming(_)) {
                            Flight::follow(flight, &event);
                            requests.borrow_mut().follow(&shared.subscriptions, &event);
                        }
                    }
                    return error;
                }
            }
        }
    };
    // Never cancels the poll: a packet half written would be lost without a trace.
    let feed = async {
        while !shared.stopping() {
            // A request goes to the list before it goes to the event loop, which may be quicker than this.
            let next = requests.borrow_mut().next(&shared.subscriptions);
            if let Some(request) = next {
                // Fail only where the event loop is gone, and then `poll` says why: filters are checked.
                let _ = match request {
                    Request::Subscribe(filter, qos) => client.subscribe(filter, qos).await,
                    Request::Unsubscribe(filter) => client.unsubscribe(filter).await,
                };
                continue;
            }
            let Some(publish) = Flight::next(flight) else {
                let pause = requests.borrow().pause();
                // Whichever comes first: both mean to look again.
                let _ = time::timeout(pause, shared.work.notified()).await;
                continue;
            };
            // Fails only where the event loop is gone, and then `poll` says why.
            let _ = client.publish_bytes(publish.topic, publish.qos, publish.retain, publish.payload).await;
        }
        if !shared.abrupt.load(Ordering::Acquire) {
            let _ = client.disconnect().await;
        }
    };
    let overdue = async {
        shared.stop.notified().await;
        time::sleep(FAREWELL).await;
    };
    let owing = async {
        loop {
            let since = flight.borrow().owing_since().unwrap_or_else(Instant::now);
            let left = (since + shared.patience).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            time::sleep(left).await;
        }
    };
    tokio::pin!(poll);
    tokio::select! {
        error = &mut poll => Some(End::Broken(error)),
        () = owing => Some(End::Owing),
        () = feed => {
            if !shared.abrupt.load(Ordering::Acquire) {
                let _ = time::timeout(FAREWELL, poll).await;
            }
            None
        }
        () = overdue => None,
    }
}

fn mqtt_options(options: &Options, client_id: &str) -> Result<MqttOptions, OptionsError> {
    let mut mqtt = MqttOptions::new(client_id, options.host.clone(), options.port);
    mqtt.set_keep_alive(KEEP_ALIVE);
    mqtt.set_inflight(IN_FLIGHT);
    // rumqttc's own limit is 10 KiB, which a crowd of detections exceeds.
    mqtt.set_max_packet_size(MAX_INCOMING, MAX_PAYLOAD + 65536);
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user.clone(), password.clone());
    }
    if let Some(will) = &options.will {
        mqtt.set_last_will(LastWill::new(&will.topic, will.payload.clone(), QoS::AtLeastOnce, will.retain));
    }
    if options.tls {
        mqtt.set_transport(Transport::tls_with_config(tls::client_config(options)?.into()));
    }
    Ok(mqtt)
}

fn failure(error: &ConnectionError, connected: bool) -> Failure {
    let (why, refused) = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                ("refuses user name or password; correct them in `broker`".into(), true)
            }
            ConnectReturnCode::BadClientId => ("refuses the client id; set another `client-id`".into(), true),
            code => (format!("refuses the connection ({code:?})"), false),
        },
        ConnectionError::Tls(error) => {
            (format!("{error}; check `ca-file` and that the broker's certificate names this host"), false)
        }
        ConnectionError::NetworkTimeout => ("does not answer".into(), false),
        ConnectionError::MqttState(StateError::AwaitPingResp) => ("has gone silent".into(), false),
        // Not the fault of any packet, which is what rumqttc calls it.
        ConnectionError::MqttState(StateError::Deserialization(mqttbytes::Error::Io(error))) if connected => {
            (format!("connection lost: {error}"), false)
        }
        error if connected => (format!("connection lost: {error}"), false),
        error => (format!("cannot connect: {error}"), false),
    };
    Failure { why: format!("{why}; trying again"), refused, connected }
}

/// 0 to 1, from the standard library's source of hash seeds.
fn jitter() -> f64 {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
