//! One loaded model, shared by all the cameras that use it.
//!
//! Each camera has a [`Client`]: its own slot in the queue and its own mailbox. A frame becomes a tensor on the
//! camera's streaming thread; worker threads, each with a session of its own, take waiting tensors in turn. A
//! job carries the mailbox that its answer goes to, so an answer cannot reach another camera, and a ticket, so it
//! cannot be taken for the answer to another frame. Where there are few cameras, one that waits for its answer while
//! nobody is at the first worker's session runs its job there itself.
//!
//! Lock order: the engine's queue, then nothing. Mailboxes are locked alone.

use std::{
    io, mem,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nvr_core::{
    decode::{DecodeParams, RawDetection},
    detection::{CaptureTime, Detection},
    frame::Frame,
    model::{ModelHints, ModelSpec, ModelType},
    preprocess::{PreprocessError, Preprocessor, Transform},
    slots::{Batching, Next, SlotId, Slots},
};
use parking_lot::{Condvar, Mutex};

use super::{
    CAT,
    model_files::{self, FileError, Source},
    runtime::{self, Runtime, RuntimeError},
    session::{self, PictureFacts, RunError, Runner, SessionError},
    settings::Device,
    tensor::TensorBuf,
};

/// Most sessions that one engine opens by itself; each holds the weights and its working memory.
const MAX_AUTOMATIC_WORKERS: usize = 8;
/// Tensors that are kept beyond those at work.
const SPARE_TENSORS: usize = 2;

/// What makes two cameras use the same engine.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct EngineKey {
    /// `model-instance-id`; cameras with different ones never share.
    pub instance: String,
    pub source: Source,
    pub model_type: Option<ModelType>,
    pub labels_file: Option<String>,
    pub device: Device,
    /// 0 for automatic.
    pub threads: usize,
    pub batch_size: usize,
    pub batch_timeout: Duration,
    pub runtime_library: Option<String>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("{model} is not a detector that is known: {reason}")]
    Model { model: String, reason: String },
    #[error(
        "{model} cannot be loaded: ONNX Runtime or the plugin panicked over it; please report this with the file"
    )]
    Panicked { model: String },
    #[error("{model} does not work: {reason}")]
    Trial { model: String, reason: String },
    #[error("{model} cannot run: no thread can be started: {reason}")]
    Thread { model: String, reason: String },
}

/// What is known of a loaded model.
#[derive(Debug)]
pub struct ModelInfo {
    pub id: Arc<str>,
    pub spec: Arc<ModelSpec>,
    /// Never [`Device::Auto`].
    pub device: Device,
    pub load_time: Duration,
    /// What was concluded about the model, the device and the batch, one fact a line.
    pub conclusions: Vec<String>,
    /// Most pictures in one inference.
    pub batch: usize,
    /// Most inferences at the same time.
    pub workers: usize,
}

/// What a frame is called, so that a result can say which frame it is of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FrameTag {
    pub frame_id: Option<u64>,
    pub capture: Option<CaptureTime>,
}

/// The answer to one frame.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub ticket: u64,
    pub tag: FrameTag,
    pub result: Result<Vec<Detection>, String>,
    /// Wall time of the inference alone.
    pub inference: Duration,
}

/// Where one camera's answers arrive. Holds the newest.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<MailboxState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct MailboxState {
    newest: Option<Outcome>,
    interrupted: bool,
}

impl Mailbox {
    fn put(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        if state.newest.as_ref().is_none_or(|newest| newest.ticket < outcome.ticket) {
            state.newest = Some(outcome);
        }
        drop(state);
        self.arrived.notify_all();
    }

    /// Waits for the answer to `ticket`. `None` once [`interrupt`](Self::interrupt) is called.
    pub fn wait(&self, ticket: u64) -> Option<Outcome> {
        let mut state = self.state.lock();
        loop {
            if state.interrupted {
                return None;
            }
            if state.newest.as_ref().is_some_and(|newest| newest.ticket >= ticket) {
                return state.newest.take();
            }
            self.arrived.wait(&mut state);
        }
    }

    /// The newest answer that was not taken yet.
    pub fn take(&self) -> Option<Outcome> {
        self.state.lock().newest.take()
    }

    /// Ends every wait, now and until [`resume`](Self::resume).
    pub fn interrupt(&self) {
        self.state.lock().interrupted = true;
        self.arrived.notify_all();
    }

    /// Waiting is allowed again; what has arrived is forgotten.
    pub fn resume(&self) {
        *self.state.lock() = MailboxState::default();
    }
}

/// The duty to answer one job. Dropped without an answer, as in a panic, it answers with an error, so that
/// nobody waits for ever.
#[derive(Debug)]
struct Reply {
    mailbox: Option<Arc<Mailbox>>,
    ticket: u64,
    tag: FrameTag,
}

impl Reply {
    fn answer(mut self, result: Result<Vec<Detection>, String>, inference: Duration) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.put(Outcome { ticket: self.ticket, tag: self.tag, result, inference });
        }
    }

    /// Nobody waits for this one any more.
    fn forget(mut self) {
        self.mailbox = None;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            let result = Err("the inference ended without a result".into());
            mailbox.put(Outcome { ticket: self.ticket, tag: self.tag, result, inference: Duration::ZERO });
        }
    }
}

#[derive(Debug)]
struct Job {
    tensor: TensorBuf,
    picture: PictureFacts,
    reply: Reply,
}

/// A session, and what running it needs.
#[derive(Debug)]
struct Desk {
    runner: Runner,
    batch: Vec<(SlotId, Job)>,
    /// The tensor of several pictures, and how many it has room for.
    gathered: Option<(usize, TensorBuf)>,
}

impl Desk {
    fn new(runner: Runner) -> Self {
        Self { runner, batch: Vec::new(), gathered: None }
    }
}

#[derive(Debug, Default)]
struct Queue {
    slots: Slots<Job>,
    /// The first worker's, while nobody is at it.
    desk: Option<Desk>,
    /// Tensors that nobody uses at the moment.
    free: Vec<TensorBuf>,
    stopping: bool,
}

#[derive(Debug)]
struct Shared {
    info: ModelInfo,
    batching: Batching,
    queue: Mutex<Queue>,
    wake: Condvar,
    epoch: Instant,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Gives the first desk back. What came meanwhile is the workers' business.
    fn leave(&self, desk: Desk) {
        let mut queue = self.queue.lock();
        queue.desk = Some(desk);
        if queue.slots.waiting() > 0 {
            self.wake.notify_all();
        }
    }

    fn take_tensor(&self) -> TensorBuf {
        let tensor = self.queue.lock().free.pop();
        tensor.unwrap_or_else(|| TensorBuf::new(&self.info.spec.input, 1))
    }

    /// Keeps as many tensors as are in use at a time when cameras take turns. What a burst needs beyond that, the
    /// first frames of all cameras for one, goes back to the system.
    fn give_tensor(&self, queue: &mut Queue, tensor: TensorBuf) {
        let kept = self.info.workers + self.batching.max + SPARE_TENSORS;
        if queue.free.len() < kept.min(queue.slots.attached()) {
            queue.free.push(tensor);
        }
    }
}

/// A loaded model and the threads that run it. Ends with its last user.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    runtime: &'static Runtime,
    source: Source,
    workers: Mutex<Vec<Worker>>,
    /// The session that was opened to look at the model; the first worker takes it.
    first: Arc<Mutex<Option<Runner>>>,
}

/// A thread that runs jobs, or has found that it cannot.
#[derive(Debug)]
struct Worker {
    /// No two that are at work have the same.
    number: usize,
    thread: JoinHandle<()>,
}

/// A model that has been tried on a device.
struct Tried {
    runner: Runner,
    spec: Arc<ModelSpec>,
    id: Arc<str>,
    batch: usize,
    device: Device,
}

impl Engine {
    /// Loads the library if need be, then the model, and tries it once.
    pub fn load(key: &EngineKey) -> Result<Arc<Self>, LoadError> {
        std::panic::catch_unwind(AssertUnwindSafe(|| Self::load_unguarded(key)))
            .unwrap_or_else(|_| Err(LoadError::Panicked { model: key.source.describe() }))
    }

    fn load_unguarded(key: &EngineKey) -> Result<Arc<Self>, LoadError> {
        let started = Instant::now();
        let runtime = runtime::get(key.runtime_library.as_deref())?;
        let hints = model_files::hints(&key.source, key.model_type, key.labels_file.as_deref())?;
        let layers: Vec<_> = hints.iter().map(|(origin, hints)| (origin.as_str(), hints.clone())).collect();
        let candidates = session::candidates(runtime, key.device);
        let (tried, passed_over) =
            first_that_works(&candidates, |device| try_on(runtime, key, &layers, device))?;
        let Tried { runner, spec, id, batch, device } = tried;

        let model = || key.source.describe();
        let mut conclusions = spec.conclusions.clone();
        if key.device == Device::Auto {
            conclusions.push(match (device, &passed_over[..]) {
                (Device::Cpu, []) => {
                    format!("device: cpu (this ONNX Runtime has {})", session::available(runtime))
                }
                (device, []) => format!("device: {} (found)", device.name()),
                (device, errors) => {
                    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                    format!("device: {} ({})", device.name(), errors.join("; "))
                }
            });
        }
        if batch != key.batch_size {
            conclusions.push(format!(
                "batch: {batch} (fixed in the model; batch-size {} is not used)",
                key.batch_size
            ));
        }
        let workers = match (key.threads, device) {
            (0, Device::Cpu) => {
                std::thread::available_parallelism().map_or(1, usize::from).min(MAX_AUTOMATIC_WORKERS)
            }
            // One session keeps an accelerator busy; more would only hold its memory.
            (0, _) => 1,
            (threads, _) => threads,
        };

        let info = ModelInfo { id, spec, device, load_time: started.elapsed(), conclusions, batch, workers };
        gst::info!(CAT, "{} loaded in {:?}: {:?}", model(), info.load_time, info.conclusions);
        let shared = Shared {
            batching: Batching { max: batch, timeout_ns: key.batch_timeout.as_nanos() as u64 },
            info,
            queue: Mutex::default(),
            wake: Condvar::new(),
            epoch: Instant::now(),
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
            runtime,
            source: key.source.clone(),
            workers: Mutex::default(),
            first: Arc::new(Mutex::new(Some(runner))),
        }))
    }

    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// How many cameras use this engine.
    pub fn users(&self) -> usize {
        self.shared.queue.lock().slots.attached()
    }

    /// One more camera. Every one up to the number of workers brings a thread; without any there is none.
    pub fn attach(self: &Arc<Self>) -> Result<Client, LoadError> {
        self.attach_with(|number, work| {
            std::thread::Builder::new().name(format!("nvrinfer-{number}")).spawn(work)
        })
    }

    fn attach_with(
        self: &Arc<Self>,
        spawn: impl FnOnce(usize, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Client, LoadError> {
        let (slot, attached) = {
            let mut queue = self.shared.queue.lock();
            (queue.slots.attach(), queue.slots.attached())
        };
        // Drops its place again where nobody would serve it.
        let client =
            Client { engine: self.clone(), slot, mailbox: Arc::default(), tickets: AtomicU64::new(0) };
        let mut workers = self.workers.lock();
        // One that found no memory for a session of its own may find some now.
        workers.retain(|worker| !worker.thread.is_finished());
        if workers.len() < attached.min(self.shared.info.workers) {
            let free = |n: &usize| workers.iter().all(|worker| worker.number != *n);
            let number = (0..workers.len()).find(free).unwrap_or(workers.len());
            match spawn(number, self.worker(number)) {
                Ok(thread) => workers.push(Worker { number, thread }),
                Err(error) if workers.is_empty() => {
                    drop(workers);
                    let (model, reason) = (self.source.describe(), error.to_string());
                    return Err(LoadError::Thread { model, reason });
                }
                Err(error) => gst::warning!(CAT, "One worker less: {error}"),
            }
        }
        drop(workers);
        Ok(client)
    }

    /// What a worker does from its first moment to its last.
    fn worker(&self, number: usize) -> Box<dyn FnOnce() + Send> {
        let (shared, runtime, source) = (self.shared.clone(), self.runtime, self.source.clone());
        let first = self.first.clone();
        Box::new(move || {
            let first = first.lock().take();
            let runner = first.map_or_else(
                || {
                    let session = session::open(runtime, &source, shared.info.device)?;
                    Ok(Runner::new(session, shared.info.spec.clone()))
                },
                Ok,
            );
            match runner {
                Ok(runner) => work(&shared, number, runner),
                Err::<_, SessionError>(error) => gst::warning!(CAT, "One worker less: {error}"),
            }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = self.shared.queue.lock();
            queue.stopping = true;
            queue.slots.drain()
        };
        for job in waiting {
            job.reply.forget();
        }
        self.shared.wake.notify_all();
        for worker in mem::take(self.workers.get_mut()) {
            let _ = worker.thread.join();
        }
    }
}

/// The first candidate that works, and what was wrong with those before it. The last one's error, where none does.
fn first_that_works<T, E>(
    candidates: &[Device],
    mut attempt: impl FnMut(Device) -> Result<T, E>,
) -> Result<(T, Vec<E>), E> {
    let mut errors = Vec::new();
    let (last, better) = candidates.split_last().unwrap_or((&Device::Cpu, &[]));
    for &device in better {
        match attempt(device) {
            Ok(found) => return Ok((found, errors)),
            Err(error) => errors.push(error),
        }
    }
    Ok((attempt(*last)?, errors))
}

/// Opens the model on a device and tries it there: a device that takes a model may still fail over it.
fn try_on(
    runtime: &'static Runtime,
    key: &EngineKey,
    layers: &[(&str, ModelHints)],
    device: Device,
) -> Result<Tried, LoadError> {
    let model = || key.source.describe();
    let session = session::open(runtime, &key.source, device)?;
    let id = model_files::model_id(&key.source);
    let spec = ModelSpec::resolve(&session::describe(&session), layers, &id)
        .map_err(|error| LoadError::Model { model: model(), reason: error.to_string() })?;
    let spec = Arc::new(spec);
    let batch = spec.batch.unwrap_or(key.batch_size).max(1);
    let mut runner = Runner::new(session, spec.clone());
    try_out(&mut runner, &spec, batch)
        .map_err(|error| LoadError::Trial { model: model(), reason: error.to_string() })?;
    Ok(Tried { runner, spec, id, batch, device })
}

/// One inference on an empty picture: a model that fails, gives what its layout does not say, or numbers that are
/// none, is refused here and not at the first frame.
fn try_out(runner: &mut Runner, spec: &ModelSpec, batch: usize) -> Result<(), RunError> {
    let transform = Transform { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
    let params = DecodeParams { threshold: 0.9, iou_threshold: 0.5, max_detections: 1, classes: None };
    let picture =
        PictureFacts { transform, width: spec.input.width, height: spec.input.height, params: params.into() };
    let (results, _) = runner.run(&TensorBuf::new(&spec.input, batch), batch, &[picture])?;
    results.into_iter().try_for_each(|result| result.map(|_| ()))
}

fn work(shared: &Shared, worker: usize, runner: Runner) {
    // The first worker shares its desk with the cameras that wait.
    let mut own = Some(Desk::new(runner));
    if worker == 0 {
        shared.queue.lock().desk = own.take();
    }
    loop {
        let mut desk = {
            let mut queue = shared.queue.lock();
            let desk = loop {
                if queue.stopping {
                    return;
                }
                let Some(mut desk) = own.take().or_else(|| queue.desk.take()) else {
                    shared.wake.wait(&mut queue);
                    continue;
                };
                let due = match queue.slots.take(shared.now_ns(), shared.batching, &mut desk.batch) {
                    Next::Run => break desk,
                    Next::WaitUntil(due) => Some(due),
                    Next::Idle => None,
                };
                *(if worker == 0 { &mut queue.desk } else { &mut own }) = Some(desk);
                match due {
                    Some(due) => {
                        let _ = shared.wake.wait_until(&mut queue, shared.epoch + Duration::from_nanos(due));
                    }
                    None => shared.wake.wait(&mut queue),
                }
            };
            if queue.slots.waiting() > 0 {
                shared.wake.notify_all();
            }
            desk
        };
        run_batch(shared, &mut desk);
        if worker == 0 {
            shared.leave(desk);
        } else {
            own = Some(desk);
        }
    }
}

fn run_batch(shared: &Shared, desk: &mut Desk) {
    let Desk { runner, batch, gathered } = desk;
    let spec = &shared.info.spec;
    let pictures: Vec<_> = batch.iter().map(|(_, job)| job.picture.clone()).collect();
    let size = spec.batch.unwrap_or(batch.len()).max(batch.len());
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| match &batch[..] {
        [(_, job)] if size == 1 => runner.run(&job.tensor, 1, &pictures),
        jobs => {
            // One that was made for a larger batch has room for a smaller one.
            let whole = match gathered.take() {
                Some((room, tensor)) if room >= size => gathered.insert((room, tensor)),
                _ => gathered.insert((size, TensorBuf::new(&spec.input, size))),
            };
            for (index, (_, job)) in jobs.iter().enumerate() {
                job.tensor.copy_to(&mut whole.1, index);
            }
            runner.run(&whole.1, size, &pictures)
        }
    }))
    .unwrap_or_else(|_| {
        runner.recover();
        Err(RunError::Run("it panicked; please report this with the model's name".into()))
    });

    let mut ids = Vec::with_capacity(batch.len());
    let (mut results, inference) = match result {
        Ok((results, inference)) => (Ok(results.into_iter()), inference),
        Err(error) => (Err(error), Duration::ZERO),
    };
    let mut tensors = Vec::with_capacity(batch.len());
    let mut answers = Vec::with_capacity(batch.len());
    for (id, job) in batch.drain(..) {
        let result = match &mut results {
            Ok(results) => results.next().unwrap_or_else(|| Err(RunError::Run("a result is missing".into()))),
            Err(error) => Err(error.clone()),
        };
        ids.push(id);
        tensors.push(job.tensor);
        answers.push((job.reply, result));
    }
    {
        let mut queue = shared.queue.lock();
        for tensor in tensors {
            shared.give_tensor(&mut queue, tensor);
        }
    }
    for (reply, result) in answers {
        let result = result.and_then(|raw| name(spec, raw)).map_err(|error| error.to_string());
        reply.answer(result, inference);
    }
    // Only now: another worker could begin a camera's newer job, and answer it before the older one.
    let mut queue = shared.queue.lock();
    for id in ids {
        queue.slots.done(id);
    }
    if queue.slots.waiting() > 0 {
        shared.wake.notify_all();
    }
}

/// Detections with their classes' names.
fn name(spec: &ModelSpec, raw: Vec<RawDetection>) -> Result<Vec<Detection>, RunError> {
    raw.into_iter()
        .map(|raw| {
            let class_name = spec.labels.get(raw.class_id as usize).cloned().ok_or_else(|| {
                let (id, count) = (raw.class_id, spec.labels.len());
                RunError::Run(format!(
                    "the model answered class {id}, but has {count} labels: the label list is wrong"
                ))
            })?;
            Ok(Detection {
                class_name,
                class_id: Some(raw.class_id),
                confidence: raw.confidence,
                rect: raw.rect,
                tracker_id: None,
            })
        })
        .collect()
}

/// One camera's way to an engine.
#[derive(Debug)]
pub struct Client {
    engine: Arc<Engine>,
    slot: SlotId,
    mailbox: Arc<Mailbox>,
    tickets: AtomicU64,
}

/// A frame that was handed over.
#[derive(Clone, Copy, Debug)]
pub struct Submitted {
    pub ticket: u64,
    /// An older frame was still waiting and will not be analysed.
    pub replaced: bool,
    pub preprocess: Duration,
}

impl Client {
    pub fn info(&self) -> &ModelInfo {
        self.engine.info()
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Makes a frame a tensor and puts it in line, in place of an older one that still waits. Workers look at it soon, or,
    /// where the caller will [`wait`](Self::wait), once that is called.
    pub fn submit(
        &self,
        preprocessor: &mut Preprocessor,
        frame: &Frame<'_>,
        params: Arc<DecodeParams>,
        tag: FrameTag,
        will_wait: bool,
    ) -> Result<Submitted, PreprocessError> {
        let shared = &self.engine.shared;
        let started = Instant::now();
        let mut tensor = shared.take_tensor();
        let transform = match preprocessor.run(frame, tensor.as_mut()) {
            Ok(transform) => transform,
            Err(error) => {
                shared.give_tensor(&mut shared.queue.lock(), tensor);
                return Err(error);
            }
        };
        let preprocess = started.elapsed();

        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let picture = PictureFacts { transform, width: frame.width, height: frame.height, params };
        let reply = Reply { mailbox: Some(self.mailbox.clone()), ticket, tag };
        let job = Job { tensor, picture, reply };
        let mut queue = shared.queue.lock();
        let old = queue.slots.offer(self.slot, shared.now_ns(), job);
        let replaced = matches!(old, Ok(Some(_)));
        if let Ok(Some(old)) = old {
            old.reply.forget();
            shared.give_tensor(&mut queue, old.tensor);
        }
        drop(queue);
        if !will_wait {
            shared.wake.notify_all();
        }
        Ok(Submitted { ticket, replaced, preprocess })
    }

    /// Waits for the answer to `ticket`. `None` once the mailbox is [interrupted](Mailbox::interrupt).
    ///
    /// Where there are no more cameras than workers, nothing else waits and nobody is at the first desk, this thread does
    /// the work: the tensor and the frame are in its processor's caches, and no other thread has to be woken up. Otherwise
    /// the workers do: they see to a fair order, and go from one job to the next without a change of threads.
    pub fn wait(&self, ticket: u64) -> Option<Outcome> {
        let shared = &*self.engine.shared;
        let desk = {
            let mut queue = shared.queue.lock();
            let queue = &mut *queue;
            let few = queue.slots.attached() <= shared.info.workers;
            let mine = shared.info.device == Device::Cpu && few && queue.slots.is_only(self.slot);
            queue.desk.take_if(|desk| {
                mine && queue.slots.take(shared.now_ns(), shared.batching, &mut desk.batch) == Next::Run
            })
        };
        if let Some(mut desk) = desk {
            run_batch(shared, &mut desk);
            shared.leave(desk);
        } else {
            shared.wake.notify_all();
        }
        self.mailbox.wait(ticket)
    }

    /// The ticket of the frame that was submitted last; 0 for none.
    pub fn last_ticket(&self) -> u64 {
        self.tickets.load(Ordering::Relaxed)
    }

    /// Takes back the frame that waits, if one does.
    pub fn withdraw(&self) {
        let shared = &self.engine.shared;
        let mut queue = shared.queue.lock();
        if let Some(job) = queue.slots.withdraw(self.slot) {
            job.reply.forget();
            shared.give_tensor(&mut queue, job.tensor);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let job = self.engine.shared.queue.lock().slots.detach(self.slot);
        if let Some(job) = job {
            job.reply.forget();
        }
        // The others may have waited for this one to complete a batch.
        self.engine.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests;
