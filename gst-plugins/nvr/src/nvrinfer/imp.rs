//! # nvrinfer
//!
//! Looks at raw video with an ONNX detection model and attaches what it sees. Pixels pass untouched and uncopied:
//! the model's input is sampled straight from the frame, whatever its format, size and strides. The allocation query
//! goes on to downstream; where that has no wishes for memory, a decoder gets some that it need not copy its pictures
//! from.
//!
//! An analysed frame carries the facts `model-id` and `inference-time-ms` (`NvrFrameFacts`), also where nothing was
//! seen, and one detection meta per object. Every frame carries its number and capture time: those of upstream
//! where it knows them, else counted from 0 and the arrival here.
//!
//! ## Modes
//!
//! `sync`: a frame that is looked at waits for its own result. LATENCY is answered with the 99th percentile of
//! the measured time that frames take here, and a latency message says when that changes much. `async`: frames pass
//! at once, and the newest result goes with the next frame, together with the number and the capture time of the
//! frame that was looked at (`analysed-frame-id`, `analysed-capture-time`). While the engine is busy one frame
//! waits; a newer one takes its place and the older is counted as `skipped-busy`. What is on its way at a flush, at
//! a new size, at EOS, while `enabled` is off or when the stream goes on after more than 5 s (marked `DISCONT`) is
//! dropped.
//!
//! ## Sharing
//!
//! Elements of one process with the same `model-instance-id`, model, device and engine properties use one loaded
//! model. On the CPU it has `threads` sessions of one thread each, opened as cameras come, which do more per core
//! than one session with many threads. The camera that was served longest ago is served next. With `batch-size`
//! and a model that leaves its batch open, or with a fixed batch, frames of several cameras share an inference.
//!
//! ## Models
//!
//! `model` is the path of a file (it holds a slash or ends in `.onnx`), the name of a built-in model, or the name of
//! `models/NAME.onnx` in `NVR_DATA_DIR` or `$XDG_DATA_HOME/nvr` or `~/.local/share/nvr`, in `/usr/local/share/nvr`
//! or in `/usr/share/nvr`. Facts about it come from, strongest first: `model-type` and `labels-file`, `NAME.toml` and
//! `NAME.modelinfo` beside the file, the metadata inside it, the shapes of its outputs. A model is tried on an
//! empty picture when it is loaded; one that fails, answers with NaN or does not have the shape of its type is
//! refused with an error that names the file. On a CPU a Focus stem (YOLOX, early YOLOv5) is run as the one
//! convolution that it equals.
//!
//! A model set while playing is loaded beside the old one, which goes on working, and takes over between two
//! frames, or at once where none come. `model` then reads the new name; if loading fails it reads the old one again. Every request is answered
//! by one message; one that is overtaken by another is answered as an error.
//!
//! ONNX Runtime 1.17 or newer is loaded when the first model is: from `runtime-library`, `ORT_DYLIB_PATH`,
//! `lib/libonnxruntime.so` in the folders named above, or the system's. A process loads one.
//!
//! ## Messages
//!
//! `nvr-model-loaded`: `model`, `model-id`, `type` (strings), `width`, `height` (guint, of the input), `classes`
//! (array of strings), `device` (string), `load-time-ms` (gdouble), `conclusions` (array of strings: what was
//! concluded about the model, from what). Posted at the start and after a change; frames from the next on are
//! looked at with this model. `nvr-model-error`: `model`, `error`, `active` (strings: what was asked for, why it is
//! not used, what goes on). A model that cannot be loaded at the start is an error message instead.
//!
//! A frame whose analysis fails passes without one; the first time with each model there is a warning message,
//! further ones are counted.
//!
//! ## Motion
//!
//! With `gate=motion`, frames that are marked as still (`motion` of `NvrFrameFacts` is false, as `nvrmotion` sets
//! it) are not looked at, except one every `gate-interval` seconds: what has come to rest before anybody looked is not
//! missed for ever. Frames without a mark are looked at, with one warning message. While `enabled` is off, frames are
//! marked as not to be looked at (`analysis-off`), so that nobody downstream takes their silence for a still picture.
//!
//! ## Statistics
//!
//! Property `stats` (structure `nvrinfer-stats`, unset when stopped): `frames` that came, `analysed`, `detections`,
//! `skipped-disabled`, `skipped-still`, `skipped-interval`, `skipped-rate`, `skipped-busy`, `errors` (guint64);
//! `fps` (analysed frames a second), `inference-p50-ms`, `inference-p99-ms`, `preprocess-p50-ms`,
//! `preprocess-p99-ms`, `latency-p99-ms`, `load-time-ms` (gdouble); `model`, `model-id`, `model-type`, `device`
//! (strings); `width`, `height` of the input, `batch`, `workers` (most inferences at once), `users` (elements on
//! this engine) (guint); `labels`, `conclusions` (arrays of strings).
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 filesrc location=street.mp4 ! decodebin ! nvrinfer model=yolox-nano max-fps=5
//!     ! nvrmqttsink source-id=0 broker=mqtt://localhost:1883
//! ```
//!
//! ## Locks
//!
//! Lock order: settings and state are never held together. The state is locked for moments only: not while a
//! frame is sampled, not while a result is waited for, not while a model is loaded, and nothing is posted, pushed
//! or dropped under it that could call back.

use std::{
    mem,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{
        base_transform::{InputBuffer, PrepareOutputBufferSuccess},
        prelude::*,
    },
};
use gst_video::{VideoFrameRef, VideoInfo};
use nvr_core::{
    decode::DecodeParams,
    detection::{Analysis, CaptureTime, Clock, FrameFacts},
    preprocess::Preprocessor,
};
use parking_lot::Mutex;

use super::{
    CAT,
    engine::{Client, FrameTag, Mailbox, ModelInfo, Outcome},
    notices::Notices,
    printable,
    settings::{Gate, Mode, PROPERTIES, Settings},
    state::State,
    swap,
};
use crate::{frames, in_place, meta};

#[derive(Debug, Default)]
pub struct NvrInfer {
    /// Replaced as a whole by every change, so that a frame's snapshot is one pointer.
    settings: Mutex<Arc<Settings>>,
    state: Mutex<Option<State>>,
}

/// What it takes to hand one frame over.
struct Task {
    preprocessor: Preprocessor,
    params: Arc<DecodeParams>,
    info: VideoInfo,
}

impl NvrInfer {
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().clone()
    }

    pub fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.state.lock().as_mut().map(f)
    }

    /// As [`with_state`](Self::with_state), for the start that `run` belongs to.
    pub fn with_run<T>(&self, run: u64, f: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.state.lock().as_mut().filter(|state| state.run == run).map(f)
    }

    fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.with_state(|state| state.client.mailbox().clone())
    }

    /// Says which model is ready.
    pub fn model_loaded(&self, model: &str, info: &ModelInfo) {
        gst::info!(CAT, imp = self, "Model {model} on {}: {:?}", info.device.name(), info.conclusions);
        let spec = &info.spec;
        self.post(
            gst::Structure::builder("nvr-model-loaded")
                .field("model", model)
                .field("model-id", &*printable(&info.id))
                .field("type", spec.model_type.name())
                .field("width", spec.input.width as u32)
                .field("height", spec.input.height as u32)
                .field(
                    "classes",
                    gst::Array::new(spec.labels.iter().map(|label| printable(label).into_owned())),
                )
                .field("device", info.device.name())
                .field("load-time-ms", info.load_time.as_secs_f64() * 1e3)
                .field(
                    "conclusions",
                    gst::Array::new(info.conclusions.iter().map(|line| printable(line).into_owned())),
                )
                .build(),
        );
    }

    /// Says which model could not be loaded while playing.
    pub fn model_failed(&self, model: &str, error: &str) {
        let error = &*printable(error);
        let active = self.with_state(|state| {
            // One that is loaded and waits for its first frame counts as active.
            state.swap.pending.as_ref().map_or(&state.model, |pending| &pending.model).clone()
        });
        let Some(active) = active else { return };
        gst::element_imp_warning!(
            self,
            gst::ResourceError::OpenRead,
            ("Model {model} is not used, {active} goes on: {error}")
        );
        self.post(
            gst::Structure::builder("nvr-model-error")
                .field("model", model)
                .field("error", error)
                .field("active", &active)
                .build(),
        );
    }

    /// Lets the property `model` read what is in use, where it still reads what was `asked` for and is settled now.
    pub fn settle_model(&self, asked: &str, active: &str) {
        {
            let mut settings = self.settings.lock();
            if asked == active || settings.model.as_deref() != Some(asked) {
                return;
            }
            Arc::make_mut(&mut settings).model = Some(active.to_owned());
        }
        self.obj().notify("model");
    }

    /// The model at work, or the one that is loaded and waits for its first frame; `None` when stopped, or
    /// while another one is wanted.
    pub fn settled_model(&self, run: u64) -> Option<String> {
        self.with_run(run, |state| {
            let active = state.swap.pending.as_ref().map_or(&state.model, |pending| &pending.model);
            (!state.swap.is_outdated()).then(|| active.clone())
        })
        .flatten()
    }

    fn post(&self, structure: gst::Structure) {
        let obj = self.obj();
        // Fails only where no bus listens.
        let _ = obj.post_message(gst::message::Element::builder(structure).src(&*obj).build());
    }

    /// Whether to look at a frame, and with which model.
    fn plan(
        &self,
        settings: &Arc<Settings>,
        motion: Option<bool>,
        discont: bool,
        running_time: Option<gst::ClockTime>,
        notices: &mut Notices,
    ) -> Result<(Arc<Client>, Option<Task>), gst::FlowError> {
        let mut state = self.state.lock();
        let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
        notices.retired = state.take_over();
        if state.is_resuming(discont, running_time) || !settings.enabled {
            notices.withdraw = state.outdate();
        }
        notices.no_motion = settings.gate == Gate::Motion
            && motion.is_none()
            && !mem::replace(&mut state.warned_motion, true);
        notices.latency = state.stats.latency_changed(settings.mode == Mode::Sync && settings.enabled);
        let client = state.client.clone();
        if let Some(skip) = state.decide(settings, motion, running_time) {
            gst::trace!(CAT, imp = self, "Not analysed: {skip:?}");
            state.stats.skipped(skip);
            return Ok((client, None));
        }
        let info = state.info.clone().ok_or(gst::FlowError::NotNegotiated)?;
        let (params, unknown) = state.params(settings);
        if !unknown.is_empty() {
            notices.unknown_classes = unknown;
            notices.labels.clone_from(&client.info().spec.labels);
        }
        let preprocessor =
            state.preprocessor.take().unwrap_or_else(|| Preprocessor::new(client.info().spec.input.clone()));
        Ok((client, Some(Task { preprocessor, params, info })))
    }

    /// Hands a frame over. Returns its ticket, or why it could not be read.
    fn submit(
        &self,
        buffer: &gst::BufferRef,
        tag: FrameTag,
        client: &Client,
        task: Task,
        mode: Mode,
    ) -> Result<u64, String> {
        let Task { mut preprocessor, params, info } = task;
        let submitted = VideoFrameRef::from_buffer_ref_readable(buffer, &info)
            .map_err(|_| format!("the buffer is too small for a {}x{} frame", info.width(), info.height()))
            .and_then(|frame| {
                let view = frames::view(&frame).ok_or("the frame's memory is laid out backwards")?;
                client
                    .submit(&mut preprocessor, &view, params, tag, mode == Mode::Sync)
                    .map_err(|error| error.to_string())
            });
        self.with_state(|state| {
            state.preprocessor.get_or_insert(preprocessor);
            state.waiting = mode == Mode::Sync && submitted.is_ok();
            if let Ok(submitted) = &submitted {
                state.stats.preprocessed(submitted.preprocess.as_secs_f64() * 1e3);
                if submitted.replaced {
                    state.stats.busy();
                }
            }
        });
        submitted.map(|submitted| submitted.ticket)
    }

    /// Puts a result on a frame: on its own, or on one that came later.
    fn attach(
        &self,
        buffer: &mut gst::BufferRef,
        outcome: &Outcome,
        own: FrameTag,
        info: &ModelInfo,
        running_time: Option<gst::ClockTime>,
        notices: &mut Notices,
    ) {
        let inference_ms = outcome.inference.as_secs_f64() * 1e3;
        let size = self.with_state(|state| {
            let size = state
                .info
                .as_ref()
                .filter(|_| outcome.ticket > state.outdated)
                .map(|i| (i.width(), i.height()));
            match &outcome.result {
                Ok(found) if size.is_some() => {
                    let now = running_time.map_or(0, gst::ClockTime::nseconds);
                    state.stats.analysed(found.len(), inference_ms, now);
                }
                Ok(_) => {}
                Err(error) => {
                    state.stats.error();
                    if !mem::replace(&mut state.warned_error, true) {
                        notices.error = Some(error.clone());
                    }
                }
            }
            size
        });
        let (Ok(detections), Some((width, height))) = (&outcome.result, size.flatten()) else { return };
        let elsewhere = outcome.tag != own;
        let analysis = Analysis {
            model_id: info.id.clone(),
            inference_time_ms: inference_ms,
            capture: outcome.tag.capture.filter(|_| elsewhere),
            frame_id: outcome.tag.frame_id.filter(|_| elsewhere),
        };
        gst::trace!(CAT, imp = self, "{} detections in {inference_ms:.1} ms", detections.len());
        meta::set_facts(buffer, &FrameFacts { analysis: Some(analysis), ..FrameFacts::default() });
        meta::add_detections(buffer, width, height, detections);
    }

    fn analyse(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let arrived = Instant::now();
        let settings = self.settings();
        let running_time = in_place::running_time(&*self.obj(), buffer);
        let frame = self
            .with_state(|state| {
                state.stats.frames += 1;
                state.last_arrival = Some(arrived);
                state.stats.frames - 1
            })
            .ok_or(gst::FlowError::Flushing)?;
        let tag = complete_facts(buffer, frame);
        if !settings.enabled {
            // Whoever follows objects must not take the silence for a picture without motion.
            meta::mark_off(buffer);
        }

        let mut notices = Notices::default();
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let (client, task) =
            self.plan(&settings, meta::has_motion(buffer), discont, running_time, &mut notices)?;
        if notices.withdraw {
            client.withdraw();
        }

        // In mode `async` the newest result goes with whatever frame comes next, looked at or not.
        let mut outcome = match settings.mode {
            Mode::Async if settings.enabled => client.mailbox().take(),
            _ => None,
        };
        let mut waited = false;
        if let Some(task) = task {
            match self.submit(buffer, tag, &client, task, settings.mode) {
                Ok(ticket) if settings.mode == Mode::Sync => {
                    outcome = client.wait(ticket);
                    if outcome.is_none() {
                        client.withdraw();
                        return Err(gst::FlowError::Flushing);
                    }
                    waited = true;
                }
                Ok(_) => {}
                Err(error) => {
                    outcome = Some(Outcome {
                        ticket: u64::MAX,
                        tag,
                        result: Err(error),
                        inference: Duration::ZERO,
                    });
                }
            }
        }
        if let Some(outcome) = outcome {
            self.attach(buffer, &outcome, tag, client.info(), running_time, &mut notices);
        }
        if waited {
            self.with_state(|state| {
                state.waiting = false;
                state.stats.waited(arrived.elapsed().as_secs_f64() * 1e3);
            });
        }
        self.give(notices);
        Ok(gst::FlowSuccess::Ok)
    }
}

/// Fills in what nobody upstream said of the frame: its number here, and the time of its arrival here.
fn complete_facts(buffer: &mut gst::BufferRef, frame: u64) -> FrameTag {
    let known = meta::facts(buffer);
    let added = FrameFacts {
        frame_id: known.frame_id.is_none().then_some(frame),
        capture: known.capture.is_none().then(now).flatten(),
        analysis: None,
    };
    if added.frame_id.is_some() || added.capture.is_some() {
        meta::set_facts(buffer, &added);
    }
    FrameTag { frame_id: known.frame_id.or(added.frame_id), capture: known.capture.or(added.capture) }
}

fn now() -> Option<CaptureTime> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(CaptureTime { unix_ns: u64::try_from(since.as_nanos()).ok()?, clock: Clock::Arrival })
}

#[glib::object_subclass]
impl ObjectSubclass for NvrInfer {
    const NAME: &'static str = "GstNvrInfer";
    type Type = super::NvrInfer;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NvrInfer {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let model = {
            let mut settings = self.settings.lock();
            Arc::make_mut(&mut settings).set(pspec.name(), value);
            (pspec.name() == "model").then(|| settings.model.clone().unwrap_or_default())
        };
        gst::debug!(CAT, imp = self, "{} is {value:?}", pspec.name());
        if let Some(model) = model {
            swap::begin(&self.obj(), &model);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() != "stats" {
            return self.settings.lock().get(pspec.name());
        }
        let stats = self.with_state(|state| (state.stats.clone(), state.model.clone(), state.client.clone()));
        stats.map(|(stats, model, client)| stats.structure(&model, client.engine())).to_value()
    }
}

impl GstObjectImpl for NvrInfer {}

impl ElementImpl for NvrInfer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR object detection",
                "Filter/Analyzer/Video",
                "Looks at raw video with an ONNX detection model and attaches what it sees",
                "The NVR developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        in_place::video_pad_templates()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::PausedToReady
            && let Some(mailbox) = self.mailbox()
        {
            // A frame that waits for its result must let go before the pads can be stopped.
            mailbox.interrupt();
        }
        self.parent_change_state(transition)
    }
}

impl BaseTransformImpl for NvrInfer {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = true;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        static RUNS: AtomicU64 = AtomicU64::new(0);

        let settings = self.settings();
        let model = settings.model.clone().unwrap_or_default();
        let client = swap::load(&settings, &model).map_err(|error| {
            gst::error_msg!(gst::ResourceError::OpenRead, ("{}", printable(&error.to_string())))
        })?;
        let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        let state = State::new(run, model.clone(), client);
        let client = state.client.clone();
        *self.state.lock() = Some(state);
        self.model_loaded(&model, client.info());
        // What was set while this one was loaded found nothing that it could change.
        let wanted = self.settings().model.clone().unwrap_or_default();
        if wanted != model && self.with_run(run, |state| state.swap.is_idle()) == Some(true) {
            swap::begin(&self.obj(), &wanted);
        }
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let state = self.state.lock().take();
        drop(state);
        gst::debug!(CAT, imp = self, "Stopped");
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(incaps)
            .map_err(|error| gst::loggable_error!(CAT, "caps {incaps} are no video caps: {error}"))?;
        gst::debug!(CAT, imp = self, "{info:?}");
        self.with_state(|state| {
            if state.info.replace(info).is_some() {
                // Boxes in pixels of the old size must not end up on frames of the new one.
                state.outdated = state.client.last_ticket();
            }
        });
        Ok(())
    }

    fn prepare_output_buffer(
        &self,
        inbuf: InputBuffer<'_>,
    ) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
        Ok(in_place::output(&inbuf))
    }

    fn transform_ip(&self, buf: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.analyse(buf)
    }

    fn propose_allocation(
        &self,
        _decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        in_place::ask_downstream(&*self.obj(), *CAT, query)
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        if direction == gst::PadDirection::Src
            && let gst::QueryViewMut::Latency(query) = query.view_mut()
        {
            let mut upstream = gst::query::Latency::new();
            if !self.obj().sink_pad().peer_query(&mut upstream) {
                return false;
            }
            let (live, min, max) = upstream.result();
            let ms = self.with_state(|state| state.stats.reported_latency()).unwrap_or(0.0);
            let own = gst::ClockTime::from_nseconds((ms * 1e6) as u64);
            gst::debug!(CAT, imp = self, "Latency {min} and {own} of our own");
            query.set(live, min + own, max.map(|max| max + own));
            return true;
        }
        BaseTransformImplExt::parent_query(self, direction, query)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => {
                if let Some(mailbox) = self.mailbox() {
                    mailbox.interrupt();
                }
            }
            gst::EventView::FlushStop(_) => {
                let client = self.with_state(|state| {
                    state.outdated = state.client.last_ticket();
                    state.limiter.reset();
                    state.since_last = u32::MAX;
                    state.last_look = None;
                    state.waiting = false;
                    state.client.clone()
                });
                if let Some(client) = client {
                    client.withdraw();
                    client.mailbox().resume();
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }
}
