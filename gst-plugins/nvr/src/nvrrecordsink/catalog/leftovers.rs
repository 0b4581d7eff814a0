//! The thread that takes care of what recorders have left. That may take long, a whole archive where the catalogue was
//! lost; meanwhile the keeper goes on to write, and to make room.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{CatalogError, Repairs, Store};
use crate::nvrrecordsink::imp::CAT;
use crate::nvrrecordsink::tiers::HOT;
use crate::nvrrecordsink::volume::Volume;

/// How long the end waits for what is under way. It goes on at the next start.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one recorder has left.
#[derive(Debug)]
pub struct Job {
    /// Whose it is.
    pub serial: u64,
    pub volume: Volume,
    pub source_id: u32,
    /// From when on files may not be in the catalogue; `None` for all.
    pub since: Option<i64>,
}

#[derive(Debug)]
pub struct Leftovers {
    jobs: Option<Sender<Job>>,
    done: Receiver<(Job, bool)>,
    stop: Arc<AtomicBool>,
    worker: Option<thread::JoinHandle<()>>,
    flying: usize,
}

impl Leftovers {
    pub fn start(catalogue: &Path) -> Option<Self> {
        let (jobs, inbox) = mpsc::channel();
        let (report, done) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, own) = (catalogue.to_owned(), stop.clone());
        let worker = thread::Builder::new()
            .name("nvr-leftovers".into())
            .spawn(move || run(&path, &inbox, &report, &own))
            .map_err(|error| gst::error!(CAT, "no thread to look for recordings with: {error}"))
            .ok()?;
        Some(Self { jobs: Some(jobs), done, stop, worker: Some(worker), flying: 0 })
    }

    pub fn order(&mut self, job: Job) {
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            self.flying += 1;
        }
    }

    /// One that has come to its end, and whether all is well.
    pub fn done(&mut self) -> Option<(Job, bool)> {
        let done = self.done.try_recv().ok()?;
        self.flying -= 1;
        Some(done)
    }

    pub fn is_busy(&self) -> bool {
        self.flying > 0
    }

    /// Whether its thread has ended before it was to.
    pub fn is_dead(&self) -> bool {
        self.worker.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let deadline = Instant::now() + PATIENCE;
        while self.is_busy() {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.done.recv_timeout(left).is_err() {
                break;
            }
            self.flying -= 1;
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            gst::error!(CAT, "the thread that looks for recordings panicked");
        }
    }
}

fn run(path: &Path, jobs: &Receiver<Job>, report: &Sender<(Job, bool)>, stop: &AtomicBool) {
    for job in jobs {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut done = Repairs::default();
        let result = work(path, &job, &mut done, stop);
        match &result {
            Ok(()) => gst::info!(CAT, "camera {}: leftovers: {done:?}", job.source_id),
            Err(error) => {
                gst::warning!(CAT, "camera {}: looking for recordings: {error}", job.source_id);
            }
        }
        if report.send((job, result.is_ok())).is_err() {
            return;
        }
    }
}

fn work(path: &Path, job: &Job, done: &mut Repairs, stop: &AtomicBool) -> Result<(), CatalogError> {
    let mut store = Store::open(path)?;
    store.close_open(&job.volume, Some(job.source_id), done)?;
    store.enter(&job.volume, HOT, job.source_id, job.since, done, stop)
}
