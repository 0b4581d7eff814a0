//! The thread that moves recordings from tier to tier, and removes what a lower tier may not keep. There is one for
//! each catalogue of the process, beside the one that writes it; nobody waits for it, except at the end.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::retention::Pace;
use parking_lot::{Condvar, Mutex};

use super::super::catalog::Attached;
use super::super::imp::CAT;
use super::PlaceError;
use super::round::Round;

#[derive(Debug, Default)]
struct Desk {
    attached: Vec<Attached>,
    news: bool,
    stop: bool,
}

/// Lock order: there is one lock, and nothing is called under it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Shared {
    /// Waits; `false` where the thread is to end.
    pub fn pause(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut desk = self.desk.lock();
        while !desk.stop && Instant::now() < deadline {
            self.changed.wait_until(&mut desk, deadline);
        }
        !desk.stop
    }

    /// The recorders, once there is news of them; `None` at the end.
    fn news(&self) -> Option<Vec<Attached>> {
        let mut desk = self.desk.lock();
        while !desk.stop && !desk.news {
            self.changed.wait(&mut desk);
        }
        desk.news = false;
        (!desk.stop).then(|| desk.attached.clone())
    }
}

/// What copying waits with, so that it is neither too fast nor in the way of the end.
#[derive(Debug)]
pub(super) struct Breath<'a> {
    pub shared: &'a Shared,
    pub pace: &'a mut Pace,
    /// When the time of the pace began.
    pub began: Instant,
    pub rate: u64,
}

impl Breath<'_> {
    /// To be called for what was copied.
    pub fn take(&mut self, bytes: u64) -> Result<(), PlaceError> {
        let time = self.pace.take(bytes, self.rate, self.began.elapsed());
        self.pause(time)
    }

    /// Waits, unless the thread is to end.
    pub fn pause(&self, time: Duration) -> Result<(), PlaceError> {
        if self.shared.pause(time) { Ok(()) } else { Err(PlaceError::Stopped) }
    }
}

/// The thread, as the keeper of the catalogue has it.
#[derive(Debug)]
pub struct Mover {
    shared: Arc<Shared>,
    worker: Option<thread::JoinHandle<()>>,
}

impl Mover {
    pub fn start(catalogue: &Path) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let (file, own) = (catalogue.to_owned(), shared.clone());
        let worker = thread::Builder::new()
            .name("nvr-tiers".into())
            .spawn(move || run(&file, &own))
            .map_err(|error| gst::error!(CAT, "no thread to move recordings with: {error}"))
            .ok()?;
        Some(Self { shared, worker: Some(worker) })
    }

    /// Says who is at work, and has the thread look.
    pub fn attend(&self, attached: Vec<Attached>) {
        let before = {
            let mut desk = self.shared.desk.lock();
            desk.news = true;
            std::mem::replace(&mut desk.attached, attached)
        };
        self.shared.changed.notify_one();
        drop(before);
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.shared.desk.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            gst::error!(
                CAT,
                "the thread that moves recordings panicked; what it left is removed at the next start"
            );
        }
    }
}

fn run(catalogue: &Path, shared: &Shared) {
    let mut round = Round::new(catalogue, shared);
    while let Some(attached) = shared.news() {
        // As long as there is much to do; the news of meanwhile is that there are others.
        while round.look(&attached) && shared.pause(Duration::ZERO) && !shared.desk.lock().news {}
    }
}
