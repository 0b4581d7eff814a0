//! What the stream of one `nvrinfer` is doing, and which of its frames are looked at.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use gst_video::VideoInfo;
use nvr_core::{decode::DecodeParams, preprocess::Preprocessor, rate::RateLimiter};

use super::{
    engine::Client,
    settings::{Gate, Settings},
    stats::{Skip, Stats},
    swap::Swap,
};

/// A stream that goes on after so long shows another picture.
const OUTAGE: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// A stream that has brought nothing for so long is not waited for by a model that is loaded.
const IDLE: Duration = Duration::from_secs(2);

/// What the stream is doing. `None` when stopped.
#[derive(Debug)]
pub struct State {
    /// Tells one start from another.
    pub run: u64,
    /// The model at work, as it was asked for.
    pub model: String,
    pub client: Arc<Client>,
    /// Away while a frame is sampled.
    pub preprocessor: Option<Preprocessor>,
    /// How to read outputs, and the settings that this was made from.
    pub params: Option<(Arc<Settings>, Arc<DecodeParams>)>,
    pub swap: Swap,
    pub info: Option<VideoInfo>,
    pub limiter: RateLimiter,
    /// Frames since the last one that was analysed; the first one always is.
    pub since_last: u32,
    /// When a frame was looked at last, or could have been for the first time.
    pub last_look: Option<gst::ClockTime>,
    /// The running time of the last frame, and when that came.
    pub last_frame: Option<gst::ClockTime>,
    pub last_arrival: Option<Instant>,
    /// It waits for its result.
    pub waiting: bool,
    /// Answers to this ticket and earlier ones belong to a stream that has been flushed or has changed its size.
    pub outdated: u64,
    pub stats: Stats,
    /// Each of these is said once.
    pub warned_error: bool,
    pub warned_motion: bool,
}

impl State {
    pub fn new(run: u64, model: String, client: Client) -> Self {
        let preprocessor = Some(Preprocessor::new(client.info().spec.input.clone()));
        Self {
            run,
            model,
            client: Arc::new(client),
            preprocessor,
            params: None,
            swap: Swap::default(),
            info: None,
            limiter: RateLimiter::default(),
            since_last: u32::MAX,
            last_look: None,
            last_frame: None,
            last_arrival: None,
            waiting: false,
            outdated: 0,
            stats: Stats::default(),
            warned_error: false,
            warned_motion: false,
        }
    }

    /// Whether no frame comes that a model could take over with.
    pub fn is_idle(&self) -> bool {
        !self.waiting && self.last_arrival.is_none_or(|last| last.elapsed() > IDLE)
    }

    /// Lets a model that has been loaded take over. Returns the old one.
    pub fn take_over(&mut self) -> Option<Arc<Client>> {
        let pending = self.swap.pending.take()?;
        self.preprocessor = Some(Preprocessor::new(pending.client.info().spec.input.clone()));
        self.model = pending.model;
        self.params = None;
        self.outdated = 0;
        self.warned_error = false;
        self.stats.model_changed();
        Some(mem::replace(&mut self.client, pending.client))
    }

    /// Whether to look at this frame.
    pub fn decide(
        &mut self,
        settings: &Settings,
        motion: Option<bool>,
        running_time: Option<gst::ClockTime>,
    ) -> Option<Skip> {
        if !settings.enabled {
            return Some(Skip::Disabled);
        }
        if settings.gate == Gate::Motion && motion == Some(false) && !self.overdue(settings, running_time) {
            return Some(Skip::Still);
        }
        self.since_last = self.since_last.saturating_add(1);
        if self.since_last < settings.inference_interval {
            return Some(Skip::Interval);
        }
        // A stream without timestamps and clock has no rate that could be limited.
        if running_time.is_some_and(|now| !self.limiter.accept(now.nseconds(), settings.max_fps)) {
            return Some(Skip::Rate);
        }
        self.since_last = 0;
        self.last_look = running_time;
        None
    }

    /// What is on its way belongs to the picture before this frame. Whether anything can be.
    pub fn outdate(&mut self) -> bool {
        let last = self.client.last_ticket();
        mem::replace(&mut self.outdated, last) != last
    }

    /// Whether this frame is the first after an outage.
    pub fn is_resuming(&mut self, discont: bool, running_time: Option<gst::ClockTime>) -> bool {
        let last = mem::replace(&mut self.last_frame, running_time);
        let gap = running_time.zip(last).and_then(|(now, last)| now.checked_sub(last));
        discont && gap.is_some_and(|gap| gap > OUTAGE)
    }

    /// Whether a frame is looked at though nothing moves in it.
    pub fn overdue(&mut self, settings: &Settings, running_time: Option<gst::ClockTime>) -> bool {
        let interval = gst::ClockTime::from_nseconds((settings.gate_interval * 1e9) as u64);
        let Some(now) = running_time else { return false };
        let last = *self.last_look.get_or_insert(now);
        !interval.is_zero() && now.checked_sub(last).is_none_or(|since| since >= interval)
    }

    /// How to read this model's outputs, and the names in `classes` that it does not have.
    pub fn params(&mut self, settings: &Arc<Settings>) -> (Arc<DecodeParams>, Vec<String>) {
        if let Some((made_from, params)) = &self.params
            && Arc::ptr_eq(made_from, settings)
        {
            return (params.clone(), Vec::new());
        }
        let (params, unknown) = settings.decode_params(&self.client.info().spec.labels);
        let params = Arc::new(params);
        let before = self.params.replace((settings.clone(), params.clone()));
        let same_names = before.is_some_and(|(before, _)| before.classes == settings.classes);
        (params, if same_names { Vec::new() } else { unknown })
    }
}
