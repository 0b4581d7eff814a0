//! How other threads ask the instance for something: a control plane, the command line's signals, tests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};

use super::{
    change::{Applied, Edit, Inspection, Target},
    status::Snapshot,
};
use crate::{
    graph::{Value, Values},
    values::Camera,
};

type Reply<T> = SyncSender<T>;

#[derive(Debug)]
pub(super) enum Request {
    Restart { id: Option<u32>, reply: Reply<Result<(), String>> },
    Snapshot { reply: Reply<Snapshot> },
    Apply { edits: Vec<Edit>, reply: Reply<Result<Applied, String>> },
    Restore { target: Box<Target>, reply: Reply<Result<(), String>> },
    Inspect { reply: Reply<Inspection> },
}

/// Asks a running instance. Every call but `stop` waits for the answer, which comes from the instance's own
/// thread: never call it from there.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: SyncSender<Request>,
    bus: gst::Bus,
    /// The end has been asked for, or has come. No queue can be too full for that.
    stopping: Arc<AtomicBool>,
}

/// The instance has ended; nobody answers any more.
const GONE: &str = "the instance has stopped";
/// Requests that may wait; a caller beyond that waits for room.
const QUEUE: usize = 64;
/// Application message that wakes the instance's thread.
pub(super) const WAKE: &str = "nvr-launch-wake";

impl Handle {
    pub(super) fn new(bus: &gst::Bus) -> (Self, Receiver<Request>) {
        let (requests, receiver) = sync_channel(QUEUE);
        (Self { requests, bus: bus.clone(), stopping: Arc::default() }, receiver)
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        self.send(request(reply))?;
        answer.recv().ok()
    }

    fn send(&self, request: Request) -> Option<()> {
        self.requests.send(request).ok()?;
        self.wake();
        Some(())
    }

    fn wake(&self) {
        // A flushing bus drops it: then the instance is ending, and the reply channel closes.
        let _ = self.bus.post(gst::message::Application::builder(gst::Structure::new_empty(WAKE)).build());
    }

    /// One more camera branch, with values of its own.
    ///
    /// # Errors
    /// The id exists, a value does not fit, or the branch cannot be built; nothing has changed then.
    pub fn add_stream(&self, camera: Camera, values: Values) -> Result<(), String> {
        self.apply(vec![Edit::Add { camera, values: values.into_iter().collect() }]).map(drop)
    }

    /// Ends a camera branch; returns once its elements are gone from the pipeline.
    ///
    /// # Errors
    /// There is no such camera.
    pub fn remove_stream(&self, id: u32) -> Result<(), String> {
        self.apply(vec![Edit::Remove(id)]).map(drop)
    }

    /// Builds one branch, or all of them, anew.
    ///
    /// # Errors
    /// There is no such camera.
    pub fn restart(&self, id: Option<u32>) -> Result<(), String> {
        self.ask(|reply| Request::Restart { id, reply }).unwrap_or_else(|| Err(GONE.into()))
    }

    /// Changes live parameters of one camera, or of all and of those to come. All or nothing.
    ///
    /// # Errors
    /// What does not fit, or cannot change while running; everything is as before then.
    pub fn set(&self, camera: Option<u32>, changes: Vec<(String, Value)>) -> Result<(), String> {
        self.apply(vec![Edit::Set { camera, values: changes, any: false }]).map(drop)
    }

    /// What every source is doing. `None` once the instance has ended.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.ask(|reply| Request::Snapshot { reply })
    }

    /// Carries out several changes at once; all or nothing. Models that have been told to change may still fail:
    /// then [`Self::restore`] goes back.
    ///
    /// # Errors
    /// Why not; everything is as before then.
    pub fn apply(&self, edits: Vec<Edit>) -> Result<Applied, String> {
        self.ask(|reply| Request::Apply { edits, reply }).unwrap_or_else(|| Err(GONE.into()))
    }

    /// Goes back to how everything was before [`Self::apply`].
    ///
    /// # Errors
    /// What could not be brought back.
    pub fn restore(&self, target: Target) -> Result<(), String> {
        let target = Box::new(target);
        self.ask(|reply| Request::Restore { target, reply }).unwrap_or_else(|| Err(GONE.into()))
    }

    /// What is asked of the instance at this moment, and what every source is doing. `None` once it has ended.
    pub fn inspect(&self) -> Option<Inspection> {
        self.ask(|reply| Request::Inspect { reply })
    }

    /// Asks for an orderly end and returns at once. `false` where the instance is ending already.
    pub fn stop(&self) -> bool {
        let first = !self.stopping.swap(true, Ordering::AcqRel);
        self.wake();
        first
    }

    /// Whether the end has been asked for.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
