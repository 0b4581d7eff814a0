//! The running instance: starts branches, rebuilds failed ones, carries out requests, ends in order.
//!
//! Everything happens on the one thread that calls [`Instance::run`]: it waits on the pipeline's bus, where
//! requests and workers wake it too. Nothing here is locked, and no sync handler is installed.

mod recovery;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use gst::prelude::*;
use tracing::{debug, error, info, warn};

use super::{
    branch::{self, Branch, Parts, Phase},
    change::{self, Paused},
    request::{Handle, Request, WAKE},
    status::{Snapshot, source_status, text_field},
};
use crate::{
    process,
    redact::redact,
    template::Template,
    values::{Camera, Plan},
    wall,
};

/// How an instance ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Asked to stop, or every source came to its end.
    Finished,
    /// An error outside any camera branch.
    Failed(String),
}

/// Why an instance did not start.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StartError {
    /// The graph or a value is wrong.
    #[error("{0}")]
    Configuration(String),
    /// Everything is right on paper, and no branch could be started.
    #[error("{0}")]
    Start(String),
}

/// Posted by the worker that tore a branch down.
const STOPPED: &str = "nvr-launch-branch-stopped";
/// How long an orderly end waits for the last frames.
const DRAIN: Duration = Duration::from_secs(2);
/// A branch that nothing has left for so long, although its camera sends, is built anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the end waits for branches that were being stopped when it came: less than a process has for it.
const LAST_BRANCHES: Duration = process::PATIENCE.saturating_sub(Duration::from_secs(3));
/// The messages that matter here; others are dropped unread.
const MESSAGES: [gst::MessageType; 6] = [
    gst::MessageType::Error,
    gst::MessageType::Warning,
    gst::MessageType::Eos,
    gst::MessageType::Latency,
    gst::MessageType::Element,
    gst::MessageType::Application,
];

/// Called on the instance's thread at every tick with what the sources are doing.
pub type Observer = Box<dyn FnMut(&Snapshot) + Send>;

/// One running graph.
pub struct Instance {
    pub(super) plan: Plan,
    pub(super) template: Option<Template>,
    pub(super) shared: Option<Template>,
    pub(super) pipeline: gst::Pipeline,
    bus: gst::Bus,
    pub(super) branches: BTreeMap<u32, Branch>,
    /// Branches built so far, over all cameras.
    generations: u64,
    pub(super) paused: Paused,
    /// As the files and the command line have it: what a camera gets that comes back.
    pub(super) given: Plan,
    requests: Receiver<Request>,
    handle: Handle,
    /// Messages that were taken off the bus while looking for another.
    pending: VecDeque<gst::Message>,
    observer: Option<(Duration, Observer)>,
    next_tick: Option<Instant>,
    /// How long a branch may be stuck, and when that is looked at.
    patience: Duration,
    next_look: Instant,
    /// When an orderly end gives up waiting.
    stop_by: Option<Instant>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("graph", &self.plan.graph.name)
            .field("instance_id", &self.plan.instance_id)
            .field("branches", &self.branches.keys())
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Builds the shared graph; no branch exists yet.
    ///
    /// # Errors
    /// What is wrong with the graph or a value.
    pub fn new(plan: Plan) -> Result<Self, StartError> {
        let wrong = |error: crate::diagnostics::Problems| StartError::Configuration(error.to_string());
        let fragments = plan.fragments();
        let shared =
            plan.graph.shared.as_ref().map(|section| plan.graph.template(section, &fragments)).transpose();
        let template =
            plan.graph.camera.as_ref().map(|section| plan.graph.template(section, &fragments)).transpose();
        let (shared, template) = (shared.map_err(wrong)?, template.map_err(wrong)?);
        let pipeline = match &shared {
            Some(shared) => {
                let pipeline =
                    super::parse_pipeline(&shared.description, &plan.graph.name).map_err(|message| {
                        StartError::Configuration(format!("{}: [graph]: {message}", plan.graph.file))
                    })?;
                branch::set_values(pipeline.upcast_ref(), shared, &plan, None).map_err(|message| {
                    StartError::Configuration(format!("{}: [graph]: {message}", plan.graph.file))
                })?;
                pipeline
            }
            None => gst::Pipeline::with_name(&plan.graph.name),
        };
        // No camera's branch may become the clock of the others: it can leave at any time.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        let bus =
            pipeline.bus().ok_or_else(|| StartError::Configuration("the pipeline has no bus".into()))?;
        let (handle, requests) = Handle::new(&bus);
        Ok(Self {
            given: plan.clone(),
            plan,
            template,
            shared,
            pipeline,
            bus,
            branches: BTreeMap::new(),
            generations: 0,
            paused: Paused::default(),
            requests,
            handle,
            pending: VecDeque::new(),
            observer: None,
            next_tick: None,
            patience: PATIENCE,
            next_look: Instant::now(),
            stop_by: None,
        })
    }

    /// For other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    /// Has `observer` called every `period` from within [`Self::run`].
    pub fn observe(&mut self, period: Duration, observer: Observer) {
        self.observer = Some((period, observer));
        self.next_tick = Some(Instant::now() + period);
    }

    /// How long nothing may leave a branch whose camera sends before it is built anew (30 s by default); a third of
    /// that is what its elements may take to stop before they are left behind.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Builds every branch without starting anything, for a picture of the graph.
    ///
    /// # Errors
    /// What cannot be built.
    pub fn build_all(&mut self) -> Result<(), StartError> {
        for camera in self.plan.cameras.clone() {
            let parts = self.build(&camera).map_err(StartError::Configuration)?;
            let mut branch = Branch::new(camera);
            branch.phase = Phase::Running(parts);
            self.branches.insert(branch.camera.id, branch);
        }
        Ok(())
    }

    /// Starts the shared graph and every camera's branch. A branch that does not start is tried again later,
    /// as long as there is one that did.
    ///
    /// # Errors
    /// The shared graph does not start, or no branch does.
    pub fn start(&mut self) -> Result<(), StartError> {
        info!(
            event = "instance.starting",
            instance_id = self.plan.instance_id,
            graph = self.plan.graph.name,
            cameras = self.plan.cameras.len(),
            version = env!("CARGO_PKG_VERSION"),
            "starting"
        );
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            let message = self.first_error_of(self.pipeline.clone().upcast_ref());
            let _ = self.pipeline.set_state(gst::State::Null);
            return Err(StartError::Start(message));
        }
        let cameras = self.plan.cameras.clone();
        let mut failures = Vec::new();
        // What is wrong on paper is wrong for good: find it before anything connects.
        for camera in &cameras {
            if let Err(message) = self.blueprint(camera) {
                return Err(StartError::Configuration(format!("camera {}: {message}", camera.id)));
            }
        }
        for camera in &cameras {
            // What each camera takes, a model that is loaded above all, would come on top of the orderly end.
            if self.handle.is_stopping() {
                break;
            }
            self.branches.insert(camera.id, Branch::new(camera.clone()));
            if let Err(message) = self.start_branch(camera.id) {
                failures.push((camera.id, message));
            }
        }
        if !cameras.is_empty() && failures.len() == cameras.len() {
            let _ = self.pipeline.set_state(gst::State::Null);
            let (id, message) = &failures[0];
            return Err(StartError::Start(format!("camera {id}: {message}")));
        }
        for (id, message) in failures {
            self.retry_later(id, &message);
        }
        info!(event = "instance.running", instance_id = self.plan.instance_id, "running");
        Ok(())
    }

    /// Looks after the instance until it ends.
    pub fn run(&mut self) -> Outcome {
        let outcome = loop {
            // Before the bus: what was asked before anybody read it has left no message there.
            while let Ok(request) = self.requests.try_recv() {
                self.handle_request(request);
            }
            if self.handle.is_stopping() {
                self.stop();
            }
            let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            if let Some(outcome) =
                self.next_message(timeout).and_then(|message| self.handle_message(&message))
            {
                break outcome;
            }
            let now = Instant::now();
            if self.stop_by.is_some_and(|at| now >= at) {
                debug!("sources did not end in time");
                break Outcome::Finished;
            }
            self.give_up_due(now);
            self.rebuild_due(now);
            self.look_for_stuck(now);
            self.tick(now);
        };
        info!(event = "instance.stopping", instance_id = self.plan.instance_id, "stopping");
        self.handle.stop();
        // Whoever still waits for an answer learns that there will be none: elements may wait for such a one.
        self.requests = Handle::new(&self.bus).1;
        self.shut_down();
        self.bus.set_flushing(true);
        match &outcome {
            Outcome::Finished => {
                info!(event = "instance.stopped", instance_id = self.plan.instance_id, "stopped");
            }
            Outcome::Failed(message) => {
                error!(event = "instance.failed", instance_id = self.plan.instance_id, "{message}");
            }
        }
        outcome
    }

    fn next_deadline(&self) -> Option<Instant> {
        let retries = self.branches.values().filter_map(|branch| match &branch.phase {
            Phase::Waiting { until } | Phase::Stopping { until, .. } => Some(*until),
            Phase::Running(parts) => parts.pulse.is_watching().then_some(self.next_look),
        });
        retries.chain(self.next_tick).chain(self.stop_by).min()
    }

    fn next_message(&mut self, timeout: Option<Duration>) -> Option<gst::Message> {
        if let Some(message) = self.pending.pop_front() {
            return Some(message);
        }
        let timeout = timeout
            .map(|wait| gst::ClockTime::from_nseconds(wait.as_nanos().min(u64::MAX as u128 - 1) as u64));
        self.bus.timed_pop_filtered(timeout, &MESSAGES)
    }

    fn handle_message(&mut self, message: &gst::Message) -> Option<Outcome> {
        match message.view() {
            gst::MessageView::Error(error) => {
                let text = error_text(error);
                match self.owner(message) {
                    Some(id) => self.retry_later(id, &text),
                    None if self.is_in_pipeline(message) => return Some(Outcome::Failed(text)),
                    // From a branch that is being torn down.
                    None => debug!(error = text, "late error"),
                }
            }
            gst::MessageView::Warning(warning) => {
                let text = redact(warning.error().message()).into_owned();
                let debug_text = warning.debug().map(|text| redact(&text).into_owned());
                // One that has just been taken down is known by its name.
                let named = || branch::camera_of(message.src()?);
                if let Some(id) = self.owner(message).or_else(named) {
                    warn!(event = "source.warning", source_id = id, detail = debug_text, "{text}");
                } else {
                    warn!(event = "instance.warning", detail = debug_text, "{text}");
                }
            }
            gst::MessageView::Eos(_) => {
                let waiting = self.branches.values().any(|branch| !matches!(branch.phase, Phase::Running(_)));
                if self.stop_by.is_some() || !waiting {
                    info!(event = "instance.ended", "every source has come to its end");
                    return Some(Outcome::Finished);
                }
            }
            gst::MessageView::Latency(_) => {
                if let Err(error) = self.pipeline.recalculate_latency() {
                    debug!(error = %error, "latency was not recalculated");
                }
            }
            gst::MessageView::Element(element) => {
                if let Some(structure) = element.structure() {
                    self.handle_element_message(message, structure);
                }
            }
            gst::MessageView::Application(application) => {
                let structure = application.structure()?;
                if structure.name() == STOPPED
                    && let (Ok(id), Ok(generation)) =
                        (structure.get::<u32>("id"), structure.get::<u64>("generation"))
                {
                    self.branch_stopped(id, generation);
                } else if structure.name() != WAKE {
                    debug!(name = %structure.name(), "unknown application message");
                }
            }
            _ => {}
        }
        None
    }

    fn handle_element_message(&mut self, message: &gst::Message, structure: &gst::StructureRef) {
        let Some(id) = self.owner(message) else {
            if structure.name() == wall::KEY
                && structure.get::<&str>("key").is_ok_and(|key| !wall::press(key, &self.pipeline))
            {
                info!(event = "instance.key", "ended from the keyboard");
                self.handle.stop();
            }
            return;
        };
        let field = |name: &str| text_field(structure, name).map(|text| redact(&text).into_owned());
        match structure.name().as_str() {
            "nvr-source-state" => {
                let Some(state) = field("state") else { return };
                let reason = field("reason").or_else(|| field("message")).filter(|reason| !reason.is_empty());
                let name =
                    self.branches.get(&id).map(|branch| branch.camera.name.clone()).unwrap_or_default();
                let event = format!("source.{state}");
                match (state.as_str(), reason) {
                    ("connecting" | "playing", _) => {
                        info!(event, source_id = id, name, "camera {id} is {state}");
                    }
                    (_, Some(reason)) => {
                        warn!(event, source_id = id, name, reason, "camera {id} is {state}: {reason}");
                    }
                    (_, None) => warn!(event, source_id = id, name, "camera {id} is {state}"),
                }
                if let Some(branch) = self.branches.get_mut(&id) {
                    if state == "playing" {
                        branch.last_error = None;
                    }
                    branch.state = state;
                }
            }
            "nvr-tier-state" => {
                if let (Some(tier), Some(location)) = (field("tier"), field("location")) {
                    let wrong = field("state").is_some_and(|state| state == "failing");
                    self.note_tier(id, &tier, &location, wrong.then(|| field("reason").unwrap_or_default()));
                }
            }
            "nvr-model-loaded" => {
                info!(
                    event = "model.loaded",
                    source_id = id,
                    model = field("model"),
                    device = field("device"),
                    "model loaded"
                );
            }
            "nvr-model-error" => {
                let reason = field("error").or_else(|| field("message")).unwrap_or_default();
                error!(event = "model.error", source_id = id, model = field("model"), "{reason}");
            }
            other => debug!(event = "element.message", source_id = id, name = other, "{other}"),
        }
    }

    /// The camera whose branch a message comes from.
    fn owner(&self, message: &gst::Message) -> Option<u32> {
        let source = message.src()?;
        self.branches
            .values()
            .find(|branch| branch.parts().is_some_and(|parts| is_inside(source, parts.bin.upcast_ref())))
            .map(|branch| branch.camera.id)
    }

    /// Whether the sender is (still) part of the pipeline.
    fn is_in_pipeline(&self, message: &gst::Message) -> bool {
        message.src().is_some_and(|source| is_inside(source, self.pipeline.upcast_ref()))
    }

    /// The text of the first error that `root` or something in it has posted. Other messages wait.
    fn first_error_of(&mut self, root: &gst::Object) -> String {
        self.pending_error_of(root).unwrap_or_else(|| {
            let name = refused(root).unwrap_or_else(|| "an element".into());
            format!(
                "{name} refused to start and did not say why: is the display or device that it needs there?"
            )
        })
    }

    /// The same where there is one.
    pub(super) fn pending_error_of(&mut self, root: &gst::Object) -> Option<String> {
        let mut found = None;
        while let Some(message) = self.bus.pop_filtered(&MESSAGES) {
            match message.view() {
                gst::MessageView::Error(error)
                    if message.src().is_some_and(|source| is_inside(source, root)) =>
                {
                    found.get_or_insert_with(|| error_text(error));
                }
                _ => self.pending.push_back(message),
            }
        }
        found
    }

    /// A branch as far as it can be checked without connecting to anything.
    fn blueprint(&self, camera: &Camera) -> Result<gst::Bin, String> {
        let template = self.template.as_ref().ok_or("this graph has no cameras")?;
        branch::build(template, &self.plan, camera)
    }

    fn build(&self, camera: &Camera) -> Result<Parts, String> {
        let bin = self.blueprint(camera)?;
        let links = self.template.as_ref().map_or(&[][..], |template| &template.links);
        branch::attach(&self.pipeline, bin, links, &self.plan, camera)
    }

    /// Builds and starts a branch that exists by name only.
    pub(super) fn start_branch(&mut self, id: u32) -> Result<(), String> {
        let camera = self.branches.get(&id).ok_or_else(|| unknown(id))?.camera.clone();
        let parts = self.build(&camera)?;
        if self.paused.contains(id) {
            change::enable(&parts.bin, false);
        }
        if parts.bin.sync_state_with_parent().is_err() {
            let message = self.first_error_of(parts.bin.clone().upcast_ref());
            self.begin(id, parts);
            self.take_down(id, Some(Duration::ZERO));
            return Err(message);
        }
        self.begin(id, parts);
        if let Some(branch) = self.branches.get_mut(&id) {
            branch.state = "starting".into();
            branch.missed_tiers.clear();
        }
        info!(event = "source.starting", source_id = id, name = camera.name, "camera {id} is starting");
        Ok(())
    }

    /// Gives a branch its elements.
    fn begin(&mut self, id: u32, parts: Parts) {
        self.generations += 1;
        if let Some(branch) = self.branches.get_mut(&id) {
            branch.generation = self.generations;
            branch.phase = Phase::Running(parts);
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|at| now < at) {
            return;
        }
        let snapshot = self.snapshot();
        if let Some((period, observer)) = &mut self.observer {
            observer(&snapshot);
            self.next_tick = Some(now + *period);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            instance_id: self.plan.instance_id.clone(),
            sources: self.branches.values().map(source_status).collect(),
        }
    }

    fn handle_request(&mut self, request: Request) {
        // A caller that went away needs no answer.
        match request {
            Request::Restart { id, reply } => drop(reply.send(self.restart(id))),
            Request::Snapshot { reply } => drop(reply.send(self.snapshot())),
            Request::Apply { edits, reply } => drop(reply.send(self.apply(edits))),
            Request::Restore { target, reply } => drop(reply.send(self.restore(*target))),
            Request::Inspect { reply } => drop(reply.send(self.inspect())),
        }
    }

    fn stop(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        info!(event = "instance.draining", instance_id = self.plan.instance_id, "ending");
        let sources = self.ending_sources();
        if sources.is_empty() {
            self.stop_by = Some(Instant::now());
            return;
        }
        self.stop_by = Some(Instant::now() + DRAIN);
        // A source whose stream is held up downstream would hold up this thread too.
        let worker = std::thread::Builder::new().name("end-of-stream".into()).spawn(move || {
            for source in sources {
                source.send_event(gst::event::Eos::new());
            }
        });
        if let Err(error) = worker {
            debug!(error = %error, "no thread to end the sources with");
        }
    }

    /// The sources that end when they are told to, and the wall, which is one to what follows it. `nvrsrc` goes on
    /// for ever by design: what follows it finishes its work when it is stopped.
    fn ending_sources(&self) -> Vec<gst::Element> {
        let bins = self.branches.values().filter_map(|branch| branch.parts()).map(|parts| parts.bin.clone());
        let shared = self.pipeline.clone().upcast::<gst::Bin>();
        bins.chain([shared])
            .flat_map(|bin| bin.iterate_sources().into_iter().flatten().collect::<Vec<_>>())
            .filter(|source| {
                let is_branch = self.branches.values().any(|branch| {
                    branch.parts().is_some_and(|parts| parts.bin.upcast_ref::<gst::Element>() == source)
                });
                !is_branch && source.factory().is_some_and(|factory| factory.name() != "nvrsrc")
            })
            .chain(self.pipeline.iterate_all_by_element_factory_name("nvrcompositor").into_iter().flatten())
            .collect()
    }

    /// Stops everything; branches in parallel, for each may wait for its camera or for the broker. Those that are
    /// being stopped already get their time too.
    fn shut_down(&mut self) {
        std::thread::scope(|scope| {
            for branch in self.branches.values() {
                if let Some(parts) = branch.parts() {
                    scope.spawn(|| parts.bin.set_state(gst::State::Null));
                }
            }
        });
        self.await_stopping(LAST_BRANCHES);
        let _ = self.pipeline.set_state(gst::State::Null);
    }

    fn restart(&mut self, id: Option<u32>) -> Result<(), String> {
        if let Some(id) = id.filter(|id| !self.branches.contains_key(id)) {
            return Err(unknown(id));
        }
        let ids: Vec<u32> =
            self.branches.keys().copied().filter(|other| id.is_none_or(|id| id == *other)).collect();
        for id in ids {
            match self.branches.get_mut(&id).map(|branch| &mut branch.phase) {
                Some(Phase::Running(_)) => self.take_down(id, Some(Duration::ZERO)),
                Some(Phase::Waiting { until }) => *until = Instant::now(),
                Some(Phase::Stopping { retry_after: Some(delay), .. }) => *delay = Duration::ZERO,
                Some(Phase::Stopping { retry_after: None, .. }) | None => {}
            }
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shut_down();
    }
}

pub(super) fn unknown(id: u32) -> String {
    format!("there is no camera {id}")
}

/// The output below `root` that cannot be opened: what fails without a word is mostly one. Called where `root` has
/// failed, and is put to an end next.
fn refused(root: &gst::Object) -> Option<String> {
    let mut sinks = root.downcast_ref::<gst::Bin>()?.iterate_sinks().into_iter().flatten();
    sinks.find(|sink| sink.set_state(gst::State::Ready).is_err()).map(|sink| sink.name().into())
}

fn is_inside(object: &gst::Object, root: &gst::Object) -> bool {
    object == root || object.has_as_ancestor(root)
}

/// An error as it may be shown. What GStreamer's own elements have to say in particular (which file, which
/// answer) stands in the second part of the debug text.
fn error_text(error: &gst::message::Error) -> String {
    let detail = error.debug();
    let detail = detail.as_deref().and_then(|text| text.split_once('\n')).map(|(_, detail)| detail.trim());
    let name = error.src().map_or_else(String::new, |source| format!("{}: ", source.name()));
    let message = error.error().message().to_owned();
    let text = match detail.filter(|detail| !detail.is_empty() && !message.contains(*detail)) {
        Some(detail) => format!("{name}{message} ({})", detail.replace('\n', " ")),
        None => format!("{name}{message}"),
    };
    redact(&text).into_owned()
}
