//! Clips: what is recorded around a moment that somebody asks for. Who waits for which, and who is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::segment::clip;

use super::catalog;
use super::cut::save;
use super::imp::CAT;
use super::report::Voice;
use super::volume::Volume;
use super::worker::Shared;

/// Clips of one camera that may wait or be written.
pub const MOST: usize = 8;

/// How long a clip waits for media that do not come. Without media for that long, the host's clock says what now is.
pub const GRACE: Duration = Duration::from_secs(5);

/// A finished clip.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Clip {
    /// Below the directory of the recordings.
    pub path: PathBuf,
    /// From when to when it plays, microseconds since 1970. Less than what was asked for where less was recorded.
    pub start_us: i64,
    pub end_us: i64,
    pub bytes: u64,
    /// Recordings of that time that could not be read: they are gone, in a bucket, or on a disk that is not there.
    pub missing: u32,
}

/// Told once when a clip is finished, or why it is not. Called on a thread that may write to the disk.
pub type Done = Box<dyn FnOnce(Result<Clip, String>) + Send>;

/// A clip that somebody asked for.
#[derive(Debug)]
pub struct Order {
    /// Made from the time where nobody gave one.
    pub name: Option<String>,
    /// Seconds.
    pub before: f64,
    pub after: f64,
    pub promise: Promise,
}

/// A clip whose time has not passed yet, or whose end is not on the disk yet.
#[derive(Debug)]
struct Pending {
    name: String,
    from_us: i64,
    to_us: i64,
    /// When it is made from what there is: the camera may be away.
    deadline: Instant,
    promise: Promise,
}

/// The clips of one camera on their way. Each is joined on a thread of its own: the recording does not wait for it.
#[derive(Debug)]
pub struct Cutter {
    shared: Arc<Shared>,
    voice: Arc<Voice>,
    pending: Vec<Pending>,
    /// By the name of the clip.
    jobs: Vec<(String, thread::JoinHandle<()>)>,
}

impl Cutter {
    pub fn new(shared: Arc<Shared>, voice: Arc<Voice>) -> Self {
        Self { shared, voice, pending: Vec::new(), jobs: Vec::new() }
    }

    /// Whether a clip needs what comes after `last_us`.
    pub fn wants(&self, last_us: Option<i64>) -> bool {
        self.pending.iter().any(|clip| last_us.is_none_or(|last| last < clip.to_us))
    }

    /// Name of the clip that was asked for first.
    pub fn first(&self) -> Option<&str> {
        self.pending.first().map(|clip| clip.name.as_str())
    }

    /// Takes an order at the capture time `now_us`; gives the clip's name and where it begins.
    pub fn accept(&mut self, order: Order, now_us: i64, source_id: u32) -> Option<(String, i64)> {
        let seconds = |seconds: f64| seconds.clamp(0.0, clip::MAX_SECONDS);
        let us = |seconds: f64| (seconds * 1e6) as i64;
        let (before, after) = (seconds(order.before), seconds(order.after));
        let name = order.name.unwrap_or_else(|| clip::default_name(now_us));
        self.jobs.retain(|(_, job)| !job.is_finished());
        let making = self.jobs.iter().any(|(other, _)| *other == name);
        if making || self.pending.iter().any(|other| other.name == name) {
            let why = format!("clip {name} of camera {source_id} is being made already; choose another name");
            answer(&self.shared, &self.voice, &name, order.promise, Err(why), source_id);
            return None;
        }
        let from_us = now_us - us(before);
        self.pending.push(Pending {
            name: name.clone(),
            from_us,
            to_us: now_us + us(after),
            deadline: Instant::now() + Duration::from_secs_f64(after) + GRACE,
            promise: order.promise,
        });
        Some((name, from_us))
    }

    /// Makes the clips that end before `written_us` or have waited for long enough, or all of them. `volume`: where the
    /// recordings are, or why there are none.
    pub fn save_due(&mut self, written_us: i64, all: bool, volume: Result<&Volume, &str>, source_id: u32) {
        if self.pending.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = |clip: &Pending| all || written_us >= clip.to_us || now >= clip.deadline;
        let (due, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().partition(due);
        self.pending = wait;
        for pending in due {
            match volume {
                Ok(volume) => self.make(pending, volume.clone(), source_id),
                Err(why) => {
                    let Pending { name, promise, .. } = pending;
                    let why = format!("clip {name} of camera {source_id}: {why}");
                    answer(&self.shared, &self.voice, &name, promise, Err(why), source_id);
                }
            }
        }
    }

    fn make(&mut self, pending: Pending, volume: Volume, source_id: u32) {
        let (shared, voice, name) = (self.shared.clone(), self.voice.clone(), pending.name.clone());
        let job = move || {
            let Pending { name, from_us, to_us, promise, .. } = pending;
            let (most, catalogue) = {
                let settings = shared.settings.lock();
                (settings.clips_max_bytes, settings.catalog.clone())
            };
            let catalogue = catalogue.unwrap_or_else(|| volume.root.join(catalog::FILE));
            let outcome = save(&volume, &catalogue, source_id, &name, (from_us, to_us), most);
            answer(&shared, &voice, &name, promise, outcome, source_id);
        };
        match thread::Builder::new().name(format!("nvr-clip-{source_id}")).spawn(job) {
            Ok(job) => self.jobs.push((name, job)),
            // The promise went with the job and has been answered.
            Err(error) => {
                gst::warning!(CAT, "no thread to make a clip: {error}");
                self.shared.asked.lock().open_clips -= 1;
            }
        }
    }

    /// Waits for the clips that are being made.
    pub fn end(&mut self) {
        for (_, job) in self.jobs.drain(..) {
            // Where it panicked, the promise was dropped, which answers.
            let _ = job.join();
        }
    }
}

/// Answers for a clip that is finished or will not be made.
fn answer(
    shared: &Shared,
    voice: &Voice,
    name: &str,
    promise: Promise,
    outcome: Result<Clip, String>,
    source_id: u32,
) {
    shared.asked.lock().open_clips -= 1;
    if outcome.is_ok() {
        shared.counters.clips.fetch_add(1, Ordering::Relaxed);
    }
    voice.clip(name, &outcome, source_id);
    promise.keep(outcome);
}

/// Answers in any case: one that is dropped says that there will be no clip.
pub struct Promise(Option<Done>);

impl Promise {
    pub fn new(done: Done) -> Self {
        Self(Some(done))
    }

    pub fn keep(mut self, outcome: Result<Clip, String>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err("the recorder has ended before the clip was finished".into()));
        }
    }
}

impl std::fmt::Debug for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Promise").field(&self.0.is_some()).finish()
    }
}
