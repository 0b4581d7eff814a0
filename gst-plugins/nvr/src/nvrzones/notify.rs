//! What takes time, on a thread of its own: web addresses and commands of alerts, JPEGs of best
//! views, heat maps.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use nvr_core::alert::Rule;
use parking_lot::Mutex;

use super::heat::Part;
use super::snapshot::View;
use crate::mqtt::{Message, Publisher, QoS};

/// Jobs that wait for a slow receiver; further ones are dropped and counted.
const QUEUE: usize = 64;
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end waits for what is still to be done; after that it is done, or not, while nobody waits.
const FAREWELL: Duration = Duration::from_secs(3);

/// What takes time.
pub enum Job {
    /// An alert for its rule's channels.
    Alert { rule: Arc<Rule>, json: Vec<u8> },
    /// A best view that is to be published.
    Snapshot { view: View, topic: String, publisher: Arc<Publisher> },
    /// A part of a heat map that is to be written into a folder.
    Heat { part: Part, folder: PathBuf },
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// The worker; it ends, after what it has been given, when this is dropped.
pub struct Notifier {
    queue: Mutex<Option<SyncSender<Job>>>,
    counters: Arc<Counters>,
    /// Closed by the thread when it ends.
    done: Mutex<Option<Receiver<()>>>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Notifier {
    /// `report` hears why a channel failed, in words that hold no address; from the worker.
    pub fn start(report: impl Fn(&str) + Send + 'static) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel::<Job>(QUEUE);
        let counters = Arc::new(Counters::default());
        let count = counters.clone();
        let (alive, done) = mpsc::channel::<()>();
        std::thread::Builder::new().name("nvr-notify".into()).spawn(move || {
            let _alive = alive;
            for job in jobs {
                for result in work(job).into_iter().flatten() {
                    match result {
                        Ok(()) => count.sent.fetch_add(1, Ordering::Relaxed),
                        Err(why) => {
                            report(&why);
                            count.failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            }
        })?;
        Ok(Self { queue: Mutex::new(Some(queue)), counters, done: Mutex::new(Some(done)) })
    }

    /// Never waits.
    pub fn give(&self, job: Job) {
        let queue = self.queue.lock().clone();
        let sent = queue.map(|queue| queue.try_send(job));
        if let None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Jobs that were done, that failed, that were dropped.
    pub fn totals(&self) -> (u64, u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&self.counters.sent), get(&self.counters.failed), get(&self.counters.dropped))
    }

    /// Takes no more jobs, and waits a moment for those it has.
    pub fn finish(&self) {
        self.queue.lock().take();
        let done = self.done.lock().take();
        if let Some(done) = done {
            // Nothing is ever sent: the answer is that the thread has gone, or that it takes too long.
            let _ = done.recv_timeout(FAREWELL);
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.finish();
    }
}

fn work(job: Job) -> [Option<Result<(), String>>; 2] {
    match job {
        Job::Alert { rule, json } => {
            let named =
                |result: Result<(), String>| result.map_err(|why| format!("alert {}: {why}", rule.id));
            [webhook(&rule, &json).map(named), command(&rule, &json).map(named)]
        }
        Job::Snapshot { view, topic, publisher } => {
            let encoded = view.encode();
            [
                Some(encoded.map(|jpeg| {
                    publisher.publish(Message::new(&topic, jpeg, QoS::AtLeastOnce, false, 0));
                })),
                None,
            ]
        }
        Job::Heat { part, folder } => [Some(part.write(&folder)), None],
    }
}

fn webhook(rule: &Rule, json: &[u8]) -> Option<Result<(), String>> {
    let url = rule.webhook.as_ref()?;
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let sent = agent.post(url.as_str()).header("content-type", "application/json").send(json);
    Some(match sent {
        Ok(_) => Ok(()),
        // Other errors may repeat the address, which may hold a token.
        Err(ureq::Error::StatusCode(code)) => Err(format!("the web address answered {code}")),
        Err(ureq::Error::Timeout(_)) => Err(format!("the web address did not answer in {PATIENCE:?}")),
        Err(ureq::Error::HostNotFound) => Err("the host of the web address was not found".into()),
        Err(ureq::Error::Io(error)) => Err(format!("the web address cannot be reached: {}", error.kind())),
        Err(_) => Err("the web address cannot be used".into()),
    })
}

/// Runs the rule's program with the alert on its standard input.
fn command(rule: &Rule, json: &[u8]) -> Option<Result<(), String>> {
    let (program, arguments) = rule.command.split_first()?;
    let run = || -> Result<(), String> {
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
    };
    Some(run())
}
