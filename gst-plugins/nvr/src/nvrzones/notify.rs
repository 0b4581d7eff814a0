//! What takes time, on threads of their own: web addresses and commands of alerts, JPEGs of best views, heat maps.
//!
//! Each kind has its lane, a thread that begins with the first job of its kind, so that a web address that does not
//! answer holds up neither commands nor pictures. What a web address does not take is tried again, later ones
//! first as long as there are any: one that is down does not hold up the others for longer than it must.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use nvr_core::alert::Rule;
use parking_lot::Mutex;

use super::heat::Part;
use super::snapshot::View;
use crate::mqtt::{Message, Publisher, QoS};
use crate::sigpipe;

/// Jobs that wait in one lane; further ones are dropped, counted and reported.
const QUEUE: usize = 64;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after each failure a web address is tried again; after the last it is given up.
const PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30)];

/// What takes time.
pub enum Job {
    /// An alert for its rule's web address.
    Webhook { rule: Arc<Rule>, json: Arc<[u8]> },
    /// An alert for its rule's program.
    Command { rule: Arc<Rule>, json: Arc<[u8]> },
    /// A best view that is to be published.
    Snapshot { view: View, topic: String, publisher: Arc<Publisher> },
    /// A part of a heat map that is to be written into a folder.
    Heat { part: Part, folder: PathBuf },
}

impl Job {
    /// Index and name of its lane, and what to call it.
    fn lane(&self) -> (usize, &'static str, String) {
        match self {
            Self::Webhook { rule, .. } => (0, "nvr-webhook", format!("alert {} to its web address", rule.id)),
            Self::Command { rule, .. } => (1, "nvr-command", format!("alert {} to its command", rule.id)),
            Self::Snapshot { .. } => (2, "nvr-picture", "a best view".into()),
            Self::Heat { .. } => (2, "nvr-picture", "a part of a heat map".into()),
        }
    }
}

impl Job {
    /// Whose failures are told about once: a rule's, or those of all pictures.
    fn subject(&self) -> &str {
        match self {
            Self::Webhook { rule, .. } | Self::Command { rule, .. } => &rule.id,
            Self::Snapshot { .. } | Self::Heat { .. } => "",
        }
    }
}

/// Why a job was not done.
struct Failure {
    why: String,
    /// Whether it may go better later.
    passing: bool,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, passing: false }
    }
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    retried: AtomicU64,
    waiting: AtomicU64,
}

/// Numbers of jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sent: u64,
    pub failed: u64,
    pub dropped: u64,
    /// Attempts after the first.
    pub retried: u64,
    /// Given and not finished.
    pub waiting: u64,
}

type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// What the threads share.
#[derive(Clone)]
struct Shared {
    counters: Arc<Counters>,
    report: Report,
}

struct Lane {
    jobs: SyncSender<Job>,
    /// Closed by the thread when it ends.
    done: Receiver<()>,
    /// Whether it was full when it was given the last job.
    full: bool,
}

#[derive(Default)]
struct Lanes {
    open: [Option<Lane>; 3],
    closed: bool,
    /// Whether it has been said that a thread could not be started.
    threadless: bool,
}

/// The workers; they end, after what they have been given, when this is dropped.
pub struct Notifier {
    lanes: Mutex<Lanes>,
    shared: Shared,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("counters", &self.shared.counters).finish_non_exhaustive()
    }
}

impl Notifier {
    /// `report` hears why a channel failed, in words that hold no address; from the workers.
    pub fn new(report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let report: Report = Arc::new(report);
        let shared = Shared { counters: Arc::default(), report };
        Self { lanes: Mutex::default(), shared }
    }

    /// Never waits.
    pub fn give(&self, job: Job) {
        let (index, name, what) = job.lane();
        let Counters { waiting, dropped, .. } = &*self.shared.counters;
        waiting.fetch_add(1, Ordering::Relaxed);
        let refused = {
            let mut lanes = self.lanes.lock();
            let closed = lanes.closed;
            let lane = &mut lanes.open[index];
            if lane.is_none() && !closed {
                *lane = self.open(name);
            }
            match lane {
                Some(lane) => {
                    let full = lane.jobs.try_send(job).is_err();
                    let before = std::mem::replace(&mut lane.full, full);
                    let first = full && !before;
                    full.then_some(first.then_some("too many wait for a slow receiver"))
                }
                None if closed => Some(None),
                None => {
                    let told = std::mem::replace(&mut lanes.threadless, true);
                    Some((!told).then_some("no thread can be started"))
                }
            }
        };
        let Some(why) = refused else { return };
        waiting.fetch_sub(1, Ordering::Relaxed);
        dropped.fetch_add(1, Ordering::Relaxed);
        // Once for as long as it lasts; the rest is counted.
        if let Some(why) = why {
            (self.shared.report)(&format!("{what} was dropped: {why}"));
        }
    }

    fn open(&self, name: &str) -> Option<Lane> {
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let (alive, done) = mpsc::channel::<()>();
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let _alive = alive;
            sigpipe::block();
            shared.run(&queue);
        });
        thread.ok().map(|_| Lane { jobs, done, full: false })
    }

    pub fn counts(&self) -> Counts {
        let Counters { sent, failed, dropped, retried, waiting } = &*self.shared.counters;
        let [sent, failed, dropped, retried, waiting] =
            [sent, failed, dropped, retried, waiting].map(|counter| counter.load(Ordering::Relaxed));
        Counts { sent, failed, dropped, retried, waiting }
    }

    /// Takes no more jobs, and waits until then for those it has; what is to be tried again is tried at once. After that
    /// it is done, or not, while nobody waits.
    pub fn finish(&self, until: Instant) {
        let open = {
            let mut lanes = self.lanes.lock();
            lanes.closed = true;
            std::mem::take(&mut lanes.open)
        };
        let ends: Vec<_> = open.into_iter().flatten().map(|lane| lane.done).collect();
        for done in ends {
            // Nothing is ever sent: the answer is that the thread has gone, or that it takes too long.
            let _ = done.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.finish(Instant::now());
    }
}

/// A job that is to be tried again.
struct Retry {
    at: Instant,
    job: Job,
    failures: usize,
}

impl Shared {
    fn run(&self, queue: &Receiver<Job>) {
        let mut later: Vec<Retry> = Vec::new();
        // The rules that are known to fail; empty for pictures.
        let mut told: HashSet<String> = HashSet::new();
        loop {
            let due = (0..later.len()).min_by_key(|&n| later[n].at);
            let next = match due {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                // The end closes the queue, which is what wakes this one from its pause.
                Some(n) => queue.recv_timeout(later[n].at.saturating_duration_since(Instant::now())),
            };
            let (job, failures) = match (next, due) {
                (Ok(job), _) => (job, 0),
                (Err(_), Some(n)) => {
                    let Retry { job, failures, .. } = later.swap_remove(n);
                    self.counters.retried.fetch_add(1, Ordering::Relaxed);
                    (job, failures)
                }
                (Err(_), None) => return,
            };
            let Err(Failure { why, passing }) = work(&job) else {
                told.remove(job.subject());
                self.end(&self.counters.sent);
                continue;
            };
            let first = told.insert(job.subject().to_owned());
            if let Some(pause) = PAUSES.get(failures).filter(|_| passing && later.len() < QUEUE) {
                if first {
                    (self.report)(&format!("{why}; it is tried again"));
                }
                later.push(Retry { at: Instant::now() + *pause, job, failures: failures + 1 });
            } else {
                if first {
                    (self.report)(&format!("{why}; further failures are counted until it works again"));
                }
                self.end(&self.counters.failed);
            }
        }
    }

    fn end(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn work(job: &Job) -> Result<(), Failure> {
    match job {
        Job::Webhook { rule, json } => webhook(rule, json)
            .map_err(|failure| Failure { why: format!("alert {}: {}", rule.id, failure.why), ..failure }),
        // Not again: a program that failed may have done half of its work.
        Job::Command { rule, json } => {
            command(rule, json).map_err(|why| format!("alert {}: {why}", rule.id).into())
        }
        Job::Snapshot { view, topic, publisher } => {
            let jpeg = view.encode()?;
            publisher.publish(Message::new(topic, jpeg, QoS::AtLeastOnce, false, 0));
            Ok(())
        }
        Job::Heat { part, folder } => Ok(part.write(folder)?),
    }
}

fn webhook(rule: &Rule, json: &[u8]) -> Result<(), Failure> {
    let Some(url) = &rule.webhook else { return Ok(()) };
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let Err(error) = agent.post(url.as_str()).header("content-type", "application/json").send(json) else {
        return Ok(());
    };
    // Other errors may repeat the address, which may hold a token.
    let (why, passing) = match error {
        // Too slow, too many, or its own fault: those pass. That it does not like the request does not.
        ureq::Error::StatusCode(code) => {
            (format!("the web address answered {code}"), matches!(code, 408 | 429 | 500..))
        }
        ureq::Error::Timeout(_) => (format!("the web address did not answer in {PATIENCE:?}"), true),
        ureq::Error::HostNotFound => ("the host of the web address was not found".into(), true),
        ureq::Error::Io(error) => (format!("the web address cannot be reached: {}", error.kind()), true),
        ureq::Error::ConnectionFailed => ("the web address cannot be reached".into(), true),
        _ => ("the web address cannot be used".into(), false),
    };
    Err(Failure { why, passing })
}

/// Runs the rule's program with the alert on its standard input.
fn command(rule: &Rule, json: &[u8]) -> Result<(), String> {
    let Some((program, arguments)) = rule.command.split_first() else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {}", error.kind()))?;
    if let Some(mut input) = child.stdin.take() {
        // A pipe holds an alert several times over; who closes it does not want it.
        let _ = input.write_all(json);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{program} failed: {status}")),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} did not end in {PATIENCE:?} and was stopped"));
            }
        }
    }
}
