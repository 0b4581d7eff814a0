//! What both threads of the element share: the connection, the name, the counters, and how status, metrics and answers
//! are published.
//!
//! Lock order: none is taken while another is held, and none while a signal is emitted or a property is read.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use gst::{glib, prelude::*};
use nvr_core::{
    command::{Ack, AckStatus, Command, Message, Policy, State, Status},
    event::timestamp,
    topic,
};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};

use super::{
    NvrControl, SIGNAL_DESCRIBE,
    imp::{CAT, Settings},
    recorders::Demands,
    surroundings,
};
use crate::mqtt::{
    Message as Mqtt, Notice, Options, OptionsError, Publisher, QoS, Status as Link, Will, default_instance_id,
};

/// Answers and status that may wait for the broker.
const QUEUE: usize = 4096;
/// Commands that may wait for their turn.
const JOBS: usize = 256;
const ENDING: &str = "the instance is ending";
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A command and whom to answer.
#[derive(Debug)]
pub struct Order {
    pub message: Message,
    pub command: Command,
}

/// What the worker is to do.
#[derive(Debug)]
pub enum Job {
    Command(Box<Order>),
    /// The status has changed.
    Announce,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
    /// The worker is on its way out.
    ended: bool,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub received: AtomicU64,
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub ignored: AtomicU64,
    pub malformed: AtomicU64,
    pub limited: AtomicU64,
}

/// What the status says besides what is found in the pipeline.
#[derive(Clone, Debug, Default)]
struct Public {
    id: String,
    playing: bool,
    reconfiguring: bool,
    error: Option<String>,
    renamed_from: Option<String>,
}

/// When a camera's last frame was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Frames counted so far, and when the count last grew, nanoseconds since the epoch.
    sources: BTreeMap<u32, (u64, Option<u64>)>,
}

impl Seen {
    /// Notes a count; gives the time of the last frame.
    pub fn note(&mut self, source_id: u32, frames: u64, now_ns: u64) -> Option<u64> {
        let (known, at) = self.sources.entry(source_id).or_default();
        if *known != frames {
            (*known, *at) = (frames, Some(now_ns));
        }
        *at
    }

    pub fn keep(&mut self, sources: &[u32]) {
        self.sources.retain(|id, _| sources.contains(id));
    }
}

pub struct Shared {
    element: glib::WeakRef<NvrControl>,
    pub prefix: String,
    kind: String,
    options: Options,
    publisher: Arc<Publisher>,
    presence: Mutex<Option<Publisher>>,
    pub client_id: String,
    pub started: String,
    since: Instant,
    pub policy: Policy,
    pub max_rate: f64,
    public: Mutex<Public>,
    owner: AtomicBool,
    jobs: Mutex<Jobs>,
    jobs_changed: Condvar,
    pub counters: Counters,
    pub seen: Mutex<Seen>,
    pub demands: Demands,
    cpu: Mutex<Option<(Instant, f64)>>,
}

pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl Shared {
    pub fn new(
        element: &NvrControl,
        settings: &Settings,
        options: &Options,
        policy: Policy,
    ) -> Result<Self, OptionsError> {
        let nonce = {
            use std::hash::{BuildHasher, Hasher};
            std::hash::RandomState::new().build_hasher().finish() as u32
        };
        Ok(Self {
            element: element.downgrade(),
            prefix: settings.broker.topic_prefix().into(),
            kind: settings.kind.clone(),
            options: options.clone(),
            publisher: {
                let element = element.downgrade();
                Arc::new(Publisher::open(options, QUEUE, move |notice| {
                    // Of outages the listener tells.
                    if let Notice::Refused(_, Some(why)) = notice
                        && let Some(element) = element.upgrade()
                    {
                        gst::element_warning!(element, gst::ResourceError::Write, ("{why}"));
                    }
                })?)
            },
            presence: Mutex::default(),
            client_id: format!("{}-{nonce:08x}", default_instance_id()),
            started: timestamp(now_ns()).to_string(),
            since: Instant::now(),
            policy,
            max_rate: settings.max_rate,
            public: Mutex::new(Public { id: settings.instance_id.clone(), ..Public::default() }),
            owner: AtomicBool::new(false),
            jobs: Mutex::default(),
            jobs_changed: Condvar::new(),
            counters: Counters::default(),
            seen: Mutex::default(),
            demands: Mutex::default(),
            cpu: Mutex::default(),
        })
    }

    pub fn element(&self) -> Option<NvrControl> {
        self.element.upgrade()
    }

    pub fn id(&self) -> String {
        self.public.lock().id.clone()
    }

    /// Nanoseconds since the start, for what must not go backwards.
    pub fn elapsed_ns(&self) -> u64 {
        self.since.elapsed().as_nanos() as u64
    }

    pub fn is_owner(&self) -> bool {
        self.owner.load(Ordering::Acquire)
    }

    // --- jobs ---

    /// Queues a command, or says why not.
    pub fn queue(&self, job: Job) -> Result<(), String> {
        let mut jobs = self.jobs.lock();
        if jobs.closed {
            return Err(ENDING.into());
        }
        if jobs.waiting.len() >= JOBS {
            return Err(format!("{JOBS} commands wait already"));
        }
        jobs.waiting.push_back(job);
        drop(jobs);
        self.jobs_changed.notify_all();
        Ok(())
    }

    /// Has the status published when the worker comes to it; once, however often it is asked for.
    pub fn announce_soon(&self) {
        let mut jobs = self.jobs.lock();
        if jobs.closed || jobs.waiting.iter().any(|job| matches!(job, Job::Announce)) {
            return;
        }
        jobs.waiting.push_back(Job::Announce);
        drop(jobs);
        self.jobs_changed.notify_all();
    }

    /// The next job, or nothing before `deadline`. `Err` when there will be none any more.
    pub fn next_job(&self, deadline: Instant) -> Result<Option<Job>, ()> {
        let mut jobs = self.jobs.lock();
        loop {
            if jobs.closed {
                return Err(());
            }
            if let Some(job) = jobs.waiting.pop_front() {
                return Ok(Some(job));
            }
            if self.jobs_changed.wait_until(&mut jobs, deadline).timed_out() {
                return Ok(None);
            }
        }
    }

    /// Takes out what waits and is answered by what was just done.
    pub fn take_jobs(&self, mut same: impl FnMut(&Command) -> bool) -> Vec<Message> {
        let mut jobs = self.jobs.lock();
        let mut taken = Vec::new();
        for job in std::mem::take(&mut jobs.waiting) {
            match job {
                Job::Command(order) if same(&order.command) => taken.push(order.message),
                other => jobs.waiting.push_back(other),
            }
        }
        taken
    }

    pub fn worker_ended(&self) {
        self.jobs.lock().ended = true;
        self.jobs_changed.notify_all();
    }

    /// Takes no more jobs; answers those that wait, and waits for the one at work, for at most `patience`.
    pub fn close(&self, patience: Duration) {
        let waiting = {
            let mut jobs = self.jobs.lock();
            jobs.closed = true;
            std::mem::take(&mut jobs.waiting)
        };
        self.jobs_changed.notify_all();
        for job in waiting {
            if let Job::Command(order) = job {
                self.answer(&order.message, Err(ENDING.into()), None);
            }
        }
        let deadline = Instant::now() + patience;
        let mut jobs = self.jobs.lock();
        while !jobs.ended {
            if self.jobs_changed.wait_until(&mut jobs, deadline).timed_out() {
                gst::warning!(CAT, "a command is still being carried out");
                return;
            }
        }
    }

    // --- names ---

    /// The id is ours: the broker is to know when we vanish.
    pub fn claimed(&self) {
        let id = self.id();
        self.set_presence(self.open_presence(&id));
        self.owner.store(true, Ordering::Release);
        self.announce_soon();
    }

    /// The id is another's now: nothing that we say about it is true any more, not even that we are gone.
    pub fn lost(&self) {
        self.owner.store(false, Ordering::Release);
        self.set_presence(None);
    }

    fn set_presence(&self, presence: Option<Publisher>) {
        let before = std::mem::replace(&mut *self.presence.lock(), presence);
        // An orderly farewell, which takes its time: no last will.
        drop(before);
    }

    fn open_presence(&self, id: &str) -> Option<Publisher> {
        let will = Status { timestamp: timestamp(now_ns()).to_string(), ..self.blank(id, State::Offline) };
        let will = Will { topic: topic::status(&self.prefix, id), payload: will.to_json(), retain: true };
        let (element, publisher) = (self.element.clone(), Arc::downgrade(&self.publisher));
        let told = AtomicBool::new(false);
        let observer = move |notice: Notice| {
            // Of outages the listener tells. Here it matters that one connection stands and the other is not to be had.
            if let Notice::Disconnected(why) = notice
                && publisher.upgrade().is_some_and(|publisher| publisher.status() == Link::Connected)
                && let Some(element) = element.upgrade()
                && !told.swap(true, Ordering::Relaxed)
            {
                gst::element_warning!(
                    element,
                    gst::ResourceError::OpenWrite,
                    ("{why}. This is the connection with the last will: while there is none, the broker does not \
                         say it when this process dies")
                );
            }
        };
        Publisher::open(&self.options.presence(will), 1, observer)
            .inspect_err(|error| gst::error!(CAT, "no last will: {error}"))
            .ok()
    }

    /// Goes by another name from now on. The connection stays; the old name's retained status is cleared.
    pub fn rename(&self, new: &str) {
        let old = {
            let mut public = self.public.lock();
            let old = std::mem::replace(&mut public.id, new.to_owned());
            public.renamed_from = Some(old.clone());
            old
        };
        self.set_presence(self.open_presence(new));
        self.publish(&topic::status(&self.prefix, &old), Vec::new(), true);
        self.publish_status();
    }

    // --- publishing ---

    fn publish(&self, topic: &str, payload: Vec<u8>, retain: bool) {
        self.publisher.publish(Mqtt::new(topic, payload, QoS::AtLeastOnce, retain, 0));
    }

    /// Answers a message.
    pub fn answer(&self, message: &Message, outcome: Result<AckStatus, String>, result: Option<Value>) {
        match &outcome {
            Ok(AckStatus::Completed) => self.counters.completed.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.counters.failed.fetch_add(1, Ordering::Relaxed),
            Ok(_) => 0,
        };
        let mut ack = Ack::new(&self.id(), &message.name, message.request_id.as_deref(), outcome, now_ns());
        ack.result = result;
        self.publish(&topic::ack(&self.prefix), ack.to_json(), false);
    }

    /// A status that says who we are and nothing of the pipeline.
    fn blank(&self, id: &str, state: State) -> Status {
        Status {
            kind: self.kind.clone(),
            client_id: self.client_id.clone(),
            started: self.started.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Status::new(id, state)
        }
    }

    /// Asks whether somebody has the id.
    pub fn ask(&self, id: &str) {
        let status = Status {
            timestamp: timestamp(now_ns()).to_string(),
            claiming: true,
            ..self.blank(id, State::Starting)
        };
        self.publish(&topic::status(&self.prefix, id), status.to_json(), false);
    }

    /// The pipeline plays.
    pub fn started(&self) {
        self.public.lock().playing = true;
        self.announce_soon();
    }

    pub fn set_reconfiguring(&self, on: bool) {
        self.public.lock().reconfiguring = on;
    }

    pub fn set_error(&self, error: Option<String>) {
        self.public.lock().error = error;
    }

    /// What the pipeline and the application say at this moment. Emits a signal and reads properties.
    pub fn status(&self) -> Status {
        let public = self.public.lock().clone();
        let mut status = self.blank(&public.id, State::Starting);
        let mut starting = !public.playing;
        if let Some(element) = &self.element() {
            let found = surroundings::find(element.upcast_ref());
            status.streams = surroundings::streams(&found, &self.seen, now_ns());
            status.parameters = surroundings::parameters(&found);
            if let Some(Value::Object(described)) = describe(element) {
                starting |= described.get("starting") == Some(&Value::Bool(true));
                surroundings::merge(&mut status, described);
            }
        }
        let all = |test: &dyn Fn(&nvr_core::command::Stream) -> bool| {
            !status.streams.is_empty() && status.streams.iter().all(test)
        };
        status.status = if starting {
            State::Starting
        } else if public.reconfiguring {
            State::Reconfiguring
        } else if all(&|stream| stream.paused) {
            State::Paused
        } else if all(&|stream| stream.state == "failed") {
            State::Error
        } else {
            State::Running
        };
        status.error = public.error;
        status.renamed_from = public.renamed_from;
        status.uptime_s = Some((self.since.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        status.timestamp = timestamp(now_ns()).to_string();
        status
    }

    /// Nothing while the broker is away: it would all be told when it is back, and nothing of it be true. What is true
    /// then is published after the subscription.
    pub fn publish_status(&self) {
        if self.is_owner() && self.publisher.status() == Link::Connected {
            let status = self.status();
            self.publish(&topic::status(&self.prefix, &status.instance_id), status.to_json(), true);
        }
    }

    /// Publishes and gives the metrics.
    pub fn publish_metrics(&self) -> Value {
        let found = self.element().map_or_else(Vec::new, |element| surroundings::find(element.upcast_ref()));
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let id = self.id();
        let mut metrics = json!({
            "instance_id": &id,
            "kind": &self.kind,
            "timestamp": timestamp(now_ns()).to_string(),
            "uptime_s": (self.since.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "streams": surroundings::metrics(&found),
            "commands": {
                "received": get(&self.counters.received),
                "completed": get(&self.counters.completed),
                "failed": get(&self.counters.failed),
                "malformed": get(&self.counters.malformed),
                "limited": get(&self.counters.limited),
            },
        });
        if let Some(object) = metrics.as_object_mut() {
            object.extend(self.process());
            object.extend(surroundings::wall(&found).map(|wall| ("wall".to_owned(), wall)));
        }
        if self.is_owner() && self.publisher.status() == Link::Connected {
            let payload = metrics.to_string().into_bytes();
            let topic = topic::metrics(&self.prefix, &id);
            self.publisher.publish(Mqtt::new(&topic, payload, QoS::AtMostOnce, false, 0));
        }
        metrics
    }

    /// What the process costs, as Linux tells it; nothing elsewhere.
    fn process(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            for line in status.lines() {
                let number = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
                if let Some(kib) = line.strip_prefix("VmRSS:").and_then(number) {
                    map.insert("memory_bytes".into(), (kib * 1024).into());
                } else if let Some(threads) = line.strip_prefix("Threads:").and_then(number) {
                    map.insert("threads".into(), threads.into());
                }
            }
        }
        // Ticks of a hundredth of a second on every Linux that Rust runs on, after the name in parentheses.
        let ticks = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
            let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
            Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
        });
        if let Some(ticks) = ticks {
            let now = (Instant::now(), ticks / 100.0);
            let before = self.cpu.lock().replace(now);
            let (at, seconds) = before.unwrap_or((self.since, 0.0));
            let elapsed = now.0.duration_since(at).as_secs_f64();
            if elapsed > 0.5 {
                let percent = (now.1 - seconds) / elapsed * 100.0;
                map.insert("cpu_percent".into(), ((percent * 10.0).round() / 10.0).into());
            }
        }
        map
    }

    pub fn stats(&self) -> gst::Structure {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = self.publisher.stats();
        gst::Structure::builder("nvrcontrol-stats")
            .field("received", get(&self.counters.received))
            .field("completed", get(&self.counters.completed))
            .field("failed", get(&self.counters.failed))
            .field("ignored", get(&self.counters.ignored))
            .field("malformed", get(&self.counters.malformed))
            .field("limited", get(&self.counters.limited))
            .field("queued", self.jobs.lock().waiting.len() as u64)
            .field("connected", stats.connected)
            .field("reconnects", stats.reconnects)
            .build()
    }

    /// The last words: everything that was said is with the broker, and the status says that this was meant.
    pub fn farewell(&self) {
        if self.owner.swap(false, Ordering::AcqRel) {
            let id = self.id();
            let status = Status {
                timestamp: timestamp(now_ns()).to_string(),
                uptime_s: Some((self.since.elapsed().as_secs_f64() * 10.0).round() / 10.0),
                ..self.blank(&id, State::Stopped)
            };
            self.publish(&topic::status(&self.prefix, &id), status.to_json(), true);
        }
        if !self.publisher.drain(FAREWELL) {
            gst::info!(CAT, "the broker did not hear the end");
            // It has to learn from the last will that nobody is here any more.
            let presence = self.presence.lock().take();
            if let Some(presence) = presence {
                presence.vanish();
            }
        }
        self.set_presence(None);
    }
}

fn describe(element: &NvrControl) -> Option<Value> {
    let text = element.emit_by_name::<Option<String>>(SIGNAL_DESCRIBE, &[])?;
    serde_json::from_str(&text)
        .inspect_err(|error| gst::warning!(CAT, obj = element, "the application's description: {error}"))
        .ok()
}
