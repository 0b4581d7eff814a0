//! The proxy between clients and the RTSP server: one thread, one task for each connection.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::{sleep, sleep_until, timeout},
};

use super::{
    fault::Order,
    framing::{Framer, Item},
    orders::{Faults, Orders},
    outbox::Outbox,
    rtsp::Message,
    tamper::{Tamper, Verdict},
};
use crate::cli::cannot_listen;

/// For a client that connects and asks for nothing.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// How long the accepting waits after an error, which is one of too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Headers that never end come at this pace, kbit/s, in such pieces.
const ENDLESS_KBIT: u32 = 8000;
const ENDLESS_PIECE: usize = 4096;

/// What has passed to and from one camera.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Connections that asked for this camera, and those that are open.
    pub connections: u64,
    pub open: u64,
    /// Requests by method.
    pub requests: BTreeMap<String, u64>,
    /// Answers by status that the camera did not give itself.
    pub answered: BTreeMap<u16, u64>,
    /// Requests with a password that was not the right one.
    pub wrong_passwords: u64,
    /// Packets that clients were given, and those that they were not.
    pub packets: u64,
    pub withheld: u64,
}

impl Counts {
    pub fn requests(&self, method: &str) -> u64 {
        self.requests.get(method).copied().unwrap_or_default()
    }
}

/// Something that happened to a camera.
#[derive(Clone, Debug)]
pub struct Event {
    pub camera: u32,
    pub text: String,
}

/// Told of every event, on the proxy's thread: it must return at once.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Debug)]
struct Camera {
    orders: watch::Sender<Orders>,
    counts: Mutex<Counts>,
    changed: Condvar,
}

struct Shared {
    server: SocketAddr,
    cameras: Mutex<BTreeMap<u32, Arc<Camera>>>,
    observer: Option<Observer>,
}

impl Shared {
    fn say(&self, camera: u32, text: impl Into<String>) {
        if let Some(observer) = &self.observer {
            observer(&Event { camera, text: text.into() });
        }
    }
}

/// A running proxy; its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on `listen` and passes everything to the server on port `server` of this machine.
    pub fn start(listen: SocketAddr, server: u16, observer: Option<Observer>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(|error| {
            let why = cannot_listen(&error, "--listen");
            anyhow::anyhow!("the fault lab cannot listen on {listen}: {why}")
        })?;
        let address = listener.local_addr()?;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, server));
        let shared = Arc::new(Shared { server, cameras: Mutex::default(), observer });
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("fault-proxy".into()).spawn({
            let shared = shared.clone();
            // Dropping the runtime ends every connection.
            move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, shared) => {}
                        _ = stopped => {}
                    }
                });
            }
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Clients can ask for camera `id`; one that is there keeps its connections and faults.
    pub fn add(&self, id: u32) {
        self.shared.cameras.lock().entry(id).or_insert_with(|| {
            Arc::new(Camera {
                orders: watch::Sender::new(Orders::default()),
                counts: Mutex::default(),
                changed: Condvar::new(),
            })
        });
    }

    fn camera(&self, id: u32) -> Option<Arc<Camera>> {
        self.shared.cameras.lock().get(&id).cloned()
    }

    /// False where there is no such camera.
    pub fn apply(&self, id: u32, order: &Order) -> bool {
        let Some(camera) = self.camera(id) else { return false };
        camera.orders.send_modify(|orders| orders.apply(order, Instant::now()));
        true
    }

    pub fn counts(&self, id: u32) -> Option<Counts> {
        Some(self.camera(id)?.counts.lock().clone())
    }

    /// Waits until the counts are as wanted; gives them, or `None` where they are not within `patience`.
    pub fn wait(&self, id: u32, patience: Duration, wanted: impl Fn(&Counts) -> bool) -> Option<Counts> {
        let camera = self.camera(id)?;
        let deadline = Instant::now() + patience;
        let mut counts = camera.counts.lock();
        while !wanted(&counts) {
            if camera.changed.wait_until(&mut counts, deadline).timed_out() {
                return wanted(&counts).then(|| counts.clone());
            }
        }
        Some(counts.clone())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // Broken connections are what this is about; nothing is to be done about them.
                    let _ = serve(client, &shared).await;
                });
            }
            Err(_) => sleep(ACCEPT_RETRY).await,
        }
    }
}

/// One client, from its first request on, which says which camera it wants.
async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut up = Framer::default();
    let first = async {
        let mut buffer = [0; 4096];
        loop {
            client.readable().await?;
            match client.try_read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => up.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if let Some(item) = up.next_item() {
                return Ok(Some(item));
            }
        }
    };
    let Ok(Some(item)) = timeout(FIRST_REQUEST, first).await? else { return Ok(()) };
    let Some(request) = Message::parse(item.bytes()) else { return Ok(()) };
    let id = request.segment().and_then(|segment| segment.parse::<u32>().ok());
    let camera = id.and_then(|id| Some((id, shared.cameras.lock().get(&id).cloned()?)));
    let Some((id, camera)) = camera else {
        let answer = Message::answer(&request, 404).into_bytes();
        client.writable().await?;
        client.try_write(&answer)?;
        return Ok(());
    };

    let opened = Opened::new(&camera);
    let mut orders = camera.orders.subscribe();
    let known = orders.borrow_and_update().clone();
    if known.at(Instant::now()).off {
        shared.say(id, "connection reset: the camera is off");
        return client.set_zero_linger();
    }
    let server = TcpStream::connect(shared.server).await?;
    server.set_nodelay(true)?;
    shared.say(id, "connection opened");
    let seed = u64::from(id) << 32 | opened.number;
    let connection = Connection {
        shared,
        id,
        camera: &camera,
        tamper: Tamper::new(seed, &known),
        orders,
        known,
        client,
        server,
        server_gone: false,
        up,
        down: Framer::default(),
        to_client: Outbox::default(),
        to_server: Outbox::default(),
        endless: false,
    };
    let end = connection.run(item).await;
    shared.say(id, "connection closed");
    end
}

/// Counts a connection for as long as it is open.
struct Opened<'a> {
    camera: &'a Camera,
    number: u64,
}

impl<'a> Opened<'a> {
    fn new(camera: &'a Camera) -> Self {
        let number = camera.note(|counts| {
            counts.connections += 1;
            counts.open += 1;
            counts.connections
        });
        Self { camera, number }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.camera.note(|counts| counts.open -= 1);
    }
}

impl Camera {
    fn note<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        let result = change(&mut self.counts.lock());
        self.changed.notify_all();
        result
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    id: u32,
    camera: &'a Camera,
    tamper: Tamper,
    orders: watch::Receiver<Orders>,
    known: Orders,
    client: TcpStream,
    server: TcpStream,
    /// The server has closed its side; a stalled camera does not show that.
    server_gone: bool,
    up: Framer,
    down: Framer,
    to_client: Outbox,
    to_server: Outbox,
    /// Headers without end are being sent.
    endless: bool,
}

impl Connection<'_> {
    async fn run(mut self, first: Item) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        self.take_from_client(first);
        loop {
            while let Some(item) = self.up.next_item() {
                self.take_from_client(item);
            }
            while let Some(item) = self.down.next_item() {
                self.take_from_server(item);
            }
            if self.endless && self.to_client.is_empty() {
                self.more_headers();
            }
            let now = Instant::now();
            self.to_client.write(now, |bytes| self.client.try_write(bytes))?;
            self.to_server.write(now, |bytes| self.server.try_write(bytes))?;
            if self.server_gone && self.to_client.is_empty() && !self.known.at(now).stall && !self.endless {
                return Ok(());
            }
            let wake = [self.to_client.next_due(), self.to_server.next_due(), self.known.next_end(now)];
            let wake = wake.into_iter().flatten().filter(|at| *at > now).min();
            tokio::select! {
                ready = self.client.readable(), if self.to_server.has_room() => {
                    ready?;
                    match read(&self.client, &mut buffer)? {
                        Some(0) => return Ok(()),
                        count => self.up.push(&buffer[..count.unwrap_or(0)]),
                    }
                }
                ready = self.server.readable(), if self.to_client.has_room() && !self.server_gone => {
                    ready?;
                    match read(&self.server, &mut buffer)? {
                        Some(0) => self.server_gone = true,
                        count => self.down.push(&buffer[..count.unwrap_or(0)]),
                    }
                }
                ready = self.client.writable(), if self.to_client.is_due(now) => ready?,
                ready = self.server.writable(), if self.to_server.is_due(now) => ready?,
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
                changed = self.orders.changed() => {
                    if changed.is_err() || self.obey()? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Does what is new in the orders; true where the connection is over.
    fn obey(&mut self) -> std::io::Result<bool> {
        let orders = self.orders.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.known, orders);
        self.tamper.heed(&self.known);
        if self.known.resets > before.resets || self.known.at(Instant::now()).off {
            self.client.set_zero_linger()?;
            return Ok(true);
        }
        Ok(self.known.cuts > before.cuts)
    }

    fn faults(&self) -> Faults {
        self.known.at(Instant::now())
    }

    fn take_from_client(&mut self, item: Item) {
        let (now, faults) = (Instant::now(), self.faults());
        let Item::Message(bytes) = item else {
            if !faults.stall {
                self.to_server.push(now, Duration::ZERO, None, item.into_bytes());
            }
            return;
        };
        let request = Message::parse(&bytes);
        let has_password = request.as_ref().is_some_and(|request| request.header("Authorization").is_some());
        if let Some(method) = request.as_ref().and_then(Message::method) {
            // Whatever a client calls a method, the table of them stays small.
            let method = if method.len() <= 16 { method } else { "other" };
            self.camera.note(|counts| {
                if counts.requests.len() < 32 || counts.requests.contains_key(method) {
                    *counts.requests.entry(method.to_owned()).or_default() += 1;
                }
            });
        }
        match self.tamper.request(bytes, &faults) {
            Verdict::Forward(bytes) => self.to_server.push(now, Duration::ZERO, None, bytes),
            Verdict::Answer(bytes, what) => {
                let status = Message::parse(&bytes).and_then(|answer| answer.status());
                self.camera.note(|counts| {
                    *counts.answered.entry(status.unwrap_or_default()).or_default() += 1;
                    counts.wrong_passwords += u64::from(status == Some(401) && has_password);
                });
                self.shared.say(self.id, what);
                self.to_client.push(now, faults.delay, faults.throttle, bytes);
            }
            Verdict::Endless(bytes) => {
                self.shared.say(self.id, "DESCRIBE answered with endless headers");
                self.endless = true;
                self.to_client.push(now, faults.delay, faults.throttle, bytes);
            }
            Verdict::Swallow => {}
        }
    }

    fn take_from_server(&mut self, item: Item) {
        let (now, faults) = (Instant::now(), self.faults());
        let bytes = match item {
            Item::Packet(bytes) => {
                let passed = self.tamper.packet(bytes, &faults);
                let is_passed = passed.is_some();
                self.camera.note(|counts| {
                    *(if is_passed { &mut counts.packets } else { &mut counts.withheld }) += 1;
                });
                passed
            }
            Item::Message(bytes) => self.tamper.answer(bytes, &faults),
            Item::Raw(bytes) => (!faults.stall).then_some(bytes),
        };
        if let Some(bytes) = bytes.filter(|_| !self.endless) {
            self.to_client.push(now, faults.delay, faults.throttle, bytes);
        }
    }

    fn more_headers(&mut self) {
        let mut piece = b"X-More: ".to_vec();
        piece.resize(ENDLESS_PIECE - 2, b'x');
        piece.extend_from_slice(b"\r\n");
        self.to_client.push(Instant::now(), Duration::ZERO, Some(ENDLESS_KBIT), piece);
    }
}

/// `None` where there is nothing to read after all.
fn read(stream: &TcpStream, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    match stream.try_read(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
