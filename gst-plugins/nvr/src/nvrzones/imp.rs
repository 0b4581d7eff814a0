//! # nvrzones
//!
//! Makes events of tracked objects: their lives, the zones they are in, the lines they cross, and alerts. It stands
//! behind `nvrtrack` and reads and writes the metadata of buffers only, so it takes any caps; with `snapshots=true` it
//! copies a part of a frame that shows an object better than before. The zones that an object is in go on with the
//! frame, as `zones` of its detection in what `nvrmqttsink` publishes.
//!
//! An object is a track that has been seen `min-seen` times with a median confidence of `min-score`: a flicker makes no
//! event. Each object makes one `new`, `update`s when it enters or leaves a zone and every `update-interval`
//! seconds, and one `end` when it has not been seen for `gone-after` seconds or the stream ends. They go to
//! `{topic-prefix}/events/{source-id}`, zone reports to `{topic-prefix}/zones/{source-id}`, alerts to
//! `{topic-prefix}/alerts/{rule id}` and best views as JPEG to `{topic-prefix}/snapshots/{source-id}/{tracker id}`, all
//! with QoS 1. The broker never holds up the video. `publish=false` keeps everything in the process; it can change while
//! playing. What a track does before it is an object is told when it becomes one, with the time at which it was.
//!
//! With `heatmap`, `{heatmap}/{source-id}/{day}.png` shows where objects have stood on that day, by the time that they
//! stood there, over what the camera shows; it is written once a minute and goes on after a restart (`{day}.heat` beside it holds the numbers).
//!
//! Frames that nobody looked at are passed over. Where that is because `nvrmotion` has marked them as still, who was
//! there is still there, and his time goes on: he may loiter, or fulfil a rule. While `nvrinfer` is switched off nobody
//! is; nor, if something moved meanwhile, afterwards until the next frame that is looked at.
//!
//! ## Zones
//!
//! `zones` is a JSON array. Coordinates go from 0 to 1 of the frame, from its top left corner; an object stands where
//! the middle of its box's lower edge is.
//!
//! ```json
//! [{"name": "yard", "polygon": [[0.1, 0.4], [0.9, 0.4], [0.9, 1], [0.1, 1]], "objects": ["person"],
//!   "min_confidence": 0.6, "min_area": 0.001, "max_area": 0.5, "inertia": 0.5, "loitering": 30},
//!  {"name": "gate", "line": [[0.5, 0.9], [0.5, 0.3]], "direction": "left_to_right"}]
//! ```
//!
//! All but name and shape may be left out. `inertia`: seconds on the other side before that counts (0.5).
//! `direction`: the only one that counts, as somebody sees it who walks the line from its first end to its last.
//!
//! ## Alert rules
//!
//! `rules` is a JSON array. Empty or missing lists mean any. Hours and weekdays are local time; a night belongs to the
//! day on which it begins. Each object fulfils a rule once, and after that the rule is silent for `cooldown` seconds
//! (60).
//!
//! ```json
//! [{"id": "night", "objects": ["person"], "zones": ["yard"], "cameras": [2], "weekdays": ["sat", "sun"],
//!   "from": "22:00", "to": "06:00", "dwell": 5, "cooldown": 120,
//!   "webhook": "https://example.org/hook", "command": ["notify-send", "Somebody is in the yard"]}]
//! ```
//!
//! The alert is posted to `webhook` as JSON, and `command` is run with it on its standard input; both have ten
//! seconds. A web address that cannot be reached, is too slow or answers 408, 429 or 500 and above is tried again
//! after 2, 10 and 30 seconds, so it may get an alert twice; a command that fails is not run again. Each kind has a thread of
//! its own, so neither holds up the other, nor pictures. 64 jobs may wait in each; the first that is dropped is warned about.
//!
//! ## Messages
//!
//! `nvr-object`: `type` (new, update, end), `tracker-id` (guint64), `class` and `json` (strings: the event as it is
//! published). `nvr-zone`: `type` (entered, left, loitering, crossed), `zone`, `tracker-id` (guint64), `class`,
//! `json`. `nvr-alert`: `rule`, `tracker-id` (guint64), `class`, `json`.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 nvrtestsrc ! nvrtrack ! nvrzones source-id=2 broker=mqtt://localhost:1883
//!     zones='[{"name":"left","polygon":[[0,0],[0.5,0],[0.5,1],[0,1]]}]' ! fakesink
//! ```
//!
//! Property `stats` (structure `nvrzones-stats`): `frames` that were looked at, `objects` that became new, `ended`,
//! `zone-events`, `alerts`, `notified`, `notify-failed`, `notify-dropped`, `notify-retried`, `notify-waiting` (jobs of
//! webhooks, commands, JPEGs and heat maps: done, given up, too many, tried again, under way),
//! `published`, `dropped`, `queued` (messages to the broker) (guint64); `present` (guint: objects now), `connected`
//! (gboolean), `zones` (array of structures `zone`: `name`, `present` (guint), `entered`, `left-to-right`,
//! `right-to-left` (guint64)).
//!
//! Lock order: `settings`, `state`, `worker`, `views`, `heat` and `FAREWELLS` are never held together.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess};
use gst_base::subclass::prelude::*;
use nvr_core::alert::Alerts;
use nvr_core::detection::{Detection, FrameFacts};
use nvr_core::lifecycle::Moment;
use nvr_core::topic;
use parking_lot::Mutex;

use super::CAT;
use super::heat::Heat;
use super::notify::{Counts, Job, Notifier};
use super::settings::{PROPERTIES, Settings, Text};
use super::snapshot::{View, Views};
use super::state::{Output, Seen, Stamp, State};
use crate::meta::Unseen;
use crate::mqtt::{Message, Publisher, QoS, Stats};
use crate::{in_place, meta};

/// How long the end waits for what is still to be done, and for the broker to get it.
const FAREWELL: Duration = Duration::from_secs(4);
/// The least of it for each camera where those of a pipeline stop one after the other.
const SHORT_FAREWELL: Duration = Duration::from_millis(300);
/// Cameras that stop within this time after the end of a farewell stop together.
const TOGETHER: Duration = Duration::from_secs(2);

/// Until when the cameras of a pipeline wait that is being stopped; pipelines by their addresses.
static FAREWELLS: Mutex<Vec<(usize, Instant)>> = Mutex::new(Vec::new());
/// Messages that wait for the broker; a full queue drops its oldest.
const QUEUE: usize = 1000;

/// What stands between the stream and the world; `None` when stopped.
#[derive(Clone)]
struct Worker {
    publisher: Option<Arc<Publisher>>,
    notifier: Arc<Notifier>,
    prefix: Arc<str>,
    source_id: u32,
    /// Of the heat maps.
    folder: Option<Arc<Path>>,
}

/// What is left of a run once it has ended.
#[derive(Clone, Copy, Default)]
struct Totals {
    broker: Stats,
    jobs: Counts,
}

/// What a `report` of trouble is, from any thread.
type Report = Arc<dyn Fn(&str) + Send + Sync>;

#[derive(Default)]
pub struct NvrZones {
    /// Replaced as a whole by every change, so that a frame's snapshot is one pointer.
    settings: Mutex<Arc<Settings>>,
    /// The counters stay readable when stopped.
    state: Mutex<State>,
    worker: Mutex<Option<Worker>>,
    views: Mutex<Views>,
    heat: Mutex<Heat>,
    last: Mutex<Totals>,
    /// Whether it was switched off when the last frame came.
    off: AtomicBool,
}

impl std::fmt::Debug for NvrZones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvrZones").finish_non_exhaustive()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for NvrZones {
    const NAME: &'static str = "GstNvrZones";
    type Type = super::NvrZones;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NvrZones {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = Text::read(value, pspec);
        let started = self.worker.lock().is_some();
        let refused = {
            let mut settings = self.settings.lock();
            let settings = Arc::make_mut(&mut settings);
            if let Some(text) = text {
                settings.take(text, started)
            } else {
                settings.set(value, pspec);
                None
            }
        };
        if let Some(error) = refused {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                ("Property {} stays as it was: {error}", pspec.name())
            );
            return;
        }
        match pspec.name() {
            "publish" if started => {
                if let Err(error) = self.connect() {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Settings,
                        ("Events are not published: {error}")
                    );
                }
            }
            "zones" if started => self.check_rules(),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.stats().to_value(),
            _ => self.settings.lock().get(pspec),
        }
    }
}

impl GstObjectImpl for NvrZones {}

impl ElementImpl for NvrZones {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR zones and events",
                "Filter/Analyzer/Video",
                "Makes events of tracked objects: their lives, zones, lines and alerts",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        in_place::pad_templates()
    }
}

impl BaseTransformImpl for NvrZones {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        for (name, error) in [("zones", &settings.zones.error), ("rules", &settings.rules.error)] {
            if let Some(error) = error {
                return Err(gst::error_msg!(gst::LibraryError::Settings, ["property {name}: {error}"]));
            }
        }
        *self.state.lock() = State::default();
        *self.views.lock() = Views::default();
        *self.heat.lock() = Heat::default();
        self.off.store(false, Ordering::Relaxed);
        let report = self.report();
        let folder = settings.heatmap.as_ref().map(|folder| folder.join(settings.source_id.to_string()));
        *self.worker.lock() = Some(Worker {
            publisher: None,
            notifier: Arc::new(Notifier::new(move |text: &str| report(text))),
            prefix: settings.broker.topic_prefix().into(),
            source_id: settings.source_id,
            folder: folder.map(Into::into),
        });
        if let Err(error) = self.connect() {
            let worker = self.worker.lock().take();
            drop(worker);
            return Err(gst::error_msg!(gst::ResourceError::Settings, ("{error}")));
        }
        self.check_rules();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.end_all();
        let Some(worker) = self.worker.lock().take() else { return Ok(()) };
        let part = self.heat.lock().take();
        let Worker { publisher, notifier, folder, .. } = worker;
        if let (Some(part), Some(folder)) = (part, folder) {
            notifier.give(Job::Heat { part, folder: folder.to_path_buf() });
        }
        // Ends the worker threads: what they still have to send comes before the broker's queue is drained.
        let until = self.farewell();
        notifier.finish(until);
        let mut totals = Totals { jobs: notifier.counts(), ..Totals::default() };
        if totals.jobs.waiting > 0 {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Write,
                ("{} alerts or pictures are still on their way to a slow receiver", totals.jobs.waiting)
            );
        }
        if let Some(publisher) = publisher {
            if !publisher.drain(until.saturating_duration_since(Instant::now()).max(SHORT_FAREWELL)) {
                gst::warning!(CAT, imp = self, "the broker did not get every event");
            }
            publisher.close();
            totals.broker = Stats { connected: false, ..publisher.stats() };
        }
        *self.last.lock() = totals;
        *self.views.lock() = Views::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let mut state = self.state.lock();
        (state.width, state.height) = in_place::frame_size(incaps);
        Ok(())
    }

    fn prepare_output_buffer(
        &self,
        inbuf: InputBuffer<'_>,
    ) -> Result<PrepareOutputBufferSuccess, gst::FlowError> {
        Ok(in_place::output(&inbuf))
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = self.settings.lock().clone();
        if !settings.enabled {
            if !self.off.swap(true, Ordering::Relaxed) {
                self.end_all();
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        self.off.store(false, Ordering::Relaxed);
        let found = meta::read(buffer);
        if found.facts.analysis.is_none() && found.detections.is_empty() {
            match meta::unseen(buffer) {
                Unseen::Still => self.hold(buffer, &found.facts, &settings),
                Unseen::Missed => self.state.lock().miss(),
                Unseen::Nothing => {}
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let stamp = self.stamp(buffer, &found.facts);
        let mut outputs = Vec::new();
        let untracked =
            !found.detections.is_empty() && found.detections.iter().all(|d| d.tracker_id.is_none());
        let (seen, gone, zones, lonely) = {
            let mut state = self.state.lock();
            state.stats.frames += 1;
            let lonely = state.without_tracker(untracked);
            let seen = state.look(stamp, &found.detections, &settings, &mut outputs);
            (seen, state.take_gone(), state.zones_of(&found.detections), lonely)
        };
        if !zones.is_empty() {
            meta::set_zones(buffer, &zones);
        }
        if lonely {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                ("No detection has a tracker id: put nvrtrack in front, enabled. There are no events without")
            );
        }
        if settings.snapshots && settings.publish && !seen.best.is_empty() {
            self.keep_views(buffer, &found.detections, &seen.best);
        }
        self.say(outputs, &gone, &settings);
        self.warm(&seen, buffer, &settings);
        Ok(gst::FlowSuccess::Ok)
    }

    fn propose_allocation(
        &self,
        _decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        in_place::ask_downstream(&*self.obj(), *CAT, query)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        if matches!(event.type_(), gst::EventType::Eos | gst::EventType::FlushStop) {
            self.end_all();
        }
        self.parent_sink_event(event)
    }
}

impl NvrZones {
    /// Says what goes wrong beside the stream.
    fn report(&self) -> Report {
        let weak = self.obj().downgrade();
        Arc::new(move |text: &str| {
            if let Some(element) = weak.upgrade() {
                gst::element_imp_warning!(element.imp(), gst::ResourceError::Write, ("{text}"));
            }
        })
    }

    /// Joins the broker's connection once events are to be published; it then stays until the end.
    fn connect(&self) -> Result<(), String> {
        let settings = self.settings.lock().clone();
        let alone = self.worker.lock().as_ref().is_some_and(|worker| worker.publisher.is_none());
        if !settings.publish || !alone {
            return Ok(());
        }
        let options = settings.broker.resolve().map_err(|error| error.to_string())?;
        let report = self.report();
        let publisher = Publisher::open(&options, QUEUE, move |notice| {
            if let Some(why) = notice.trouble() {
                report(why);
            }
        });
        let mut publisher = Some(Arc::new(publisher.map_err(|error| error.to_string())?));
        if let Some(worker) = &mut *self.worker.lock()
            && worker.publisher.is_none()
        {
            worker.publisher = publisher.take();
        }
        // Stopped, or opened by somebody else meanwhile: this one goes.
        drop(publisher);
        Ok(())
    }

    /// Says which rules can never be fulfilled.
    fn check_rules(&self) {
        let settings = self.settings.lock().clone();
        let zones = &settings.zones.value;
        let names: Vec<_> = zones.iter().map(|zone| zone.name.as_str()).collect();
        for (rule, zone) in Alerts::without_zone(&settings.rules.value, settings.source_id, zones) {
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                (
                    "Alert rule {rule} names camera {} and its zone {zone:?}, which it does not have. It has: {names}",
                    settings.source_id
                )
            );
        }
    }

    /// Until when this camera may wait. Those of a pipeline that is stopped stop one after the other, and share one
    /// time: a receiver that does not answer holds up the end once, not once for each camera.
    pub(super) fn farewell(&self) -> Instant {
        let mut root = self.obj().clone().upcast::<gst::Object>();
        let mut depth = 0;
        while let Some(parent) = root.parent() {
            root = parent;
            depth += 1;
        }
        let now = Instant::now();
        let whole = now + FAREWELL;
        if depth == 0 {
            return whole;
        }
        let key = root.as_ptr() as usize;
        let mut farewells = FAREWELLS.lock();
        farewells.retain(|(_, until)| now < *until + TOGETHER);
        if let Some((_, until)) = farewells.iter().find(|(pipeline, _)| *pipeline == key) {
            return (*until).max(now + SHORT_FAREWELL);
        }
        farewells.push((key, whole));
        whole
    }

    fn end_all(&self) {
        let settings = self.settings.lock().clone();
        let mut outputs = Vec::new();
        let gone = {
            let mut state = self.state.lock();
            state.end_all(&settings, &mut outputs);
            state.take_gone()
        };
        self.say(outputs, &gone, &settings);
    }

    /// A frame was left out because nothing moves in it.
    fn hold(&self, buffer: &gst::BufferRef, facts: &FrameFacts, settings: &Settings) {
        let stamp = self.stamp(buffer, facts);
        let mut outputs = Vec::new();
        let (seen, gone) = {
            let mut state = self.state.lock();
            let Some(seen) = state.hold(stamp, settings, &mut outputs) else { return };
            (seen, state.take_gone())
        };
        self.say(outputs, &gone, settings);
        self.warm(&seen, buffer, settings);
    }

    fn video_info(&self) -> Option<gst_video::VideoInfo> {
        let caps = self.obj().sink_pad().current_caps()?;
        gst_video::VideoInfo::from_caps(&caps).ok()
    }

    /// Keeps what the frame shows of the tracks that it shows best.
    fn keep_views(&self, buffer: &gst::BufferRef, detections: &[Detection], best: &[u64]) {
        let Some(info) = self.video_info() else { return };
        for d in detections {
            let Some(track) = d.tracker_id.filter(|track| best.contains(track)) else { continue };
            if !self.views.lock().has_room(track) {
                continue;
            }
            // Cut out at once: the buffer belongs to a decoder that has few of them.
            match View::cut(buffer, &info, &d.rect) {
                Ok(Some(view)) => self.views.lock().keep(track, view),
                Ok(None) => {}
                Err(error) => gst::debug!(CAT, imp = self, "no view of {track}: {error}"),
            }
        }
    }

    /// Notes in the heat map where tracked objects stand.
    fn warm(&self, seen: &Seen, buffer: &gst::BufferRef, settings: &Settings) {
        if settings.heatmap.is_none() {
            return;
        }
        let Some(worker) = self.worker.lock().clone() else { return };
        let Some(folder) = worker.folder else { return };
        let due = self.heat.lock().is_due(seen.at.now_ns);
        // Once a minute; what is no raw video has no picture, and the map does without.
        let view = due.then(|| View::whole(buffer, &self.video_info()?).ok().flatten()).flatten();
        let part = self.heat.lock().add(seen.at.now_ns, seen.at.unix_ns, view, &seen.feet);
        if let Some(part) = part {
            worker.notifier.give(Job::Heat { part, folder: folder.to_path_buf() });
        }
    }

    /// Posts, publishes and hands on, and forgets the tracks that are `gone`. No lock is held.
    fn say(&self, outputs: Vec<Output>, gone: &[u64], settings: &Settings) {
        self.tell(outputs, settings);
        if settings.snapshots && !gone.is_empty() {
            self.views.lock().forget(gone);
        }
    }

    fn tell(&self, outputs: Vec<Output>, settings: &Settings) {
        if outputs.is_empty() {
            return;
        }
        let Some(worker) = self.worker.lock().clone() else { return };
        let publisher = worker.publisher.as_ref().filter(|_| settings.publish);
        for mut output in outputs {
            let view = match &mut output {
                Output::Life(event) if settings.snapshots && publisher.is_some() => {
                    let track = event.tracker_id;
                    let (view, published) = self.views.lock().take(track);
                    let topic = || topic::snapshot(&worker.prefix, worker.source_id, track);
                    event.snapshot = published.then(topic);
                    view.zip(event.snapshot.clone())
                }
                _ => None,
            };
            let (name, topic, json, fields) = match &output {
                Output::Life(event) => {
                    let phase = match event.phase {
                        nvr_core::lifecycle::Phase::New => "new",
                        nvr_core::lifecycle::Phase::Update => "update",
                        nvr_core::lifecycle::Phase::End => "end",
                    };
                    let fields = ("type", phase.to_owned(), event.tracker_id, event.class_name.clone());
                    let topic = topic::events(&worker.prefix, worker.source_id);
                    ("nvr-object", topic, serde_json::to_vec(event), fields)
                }
                Output::Zone(report) => {
                    let fields =
                        ("type", report.kind.to_owned(), report.tracker_id, report.class_name.clone());
                    let topic = topic::zones(&worker.prefix, worker.source_id);
                    ("nvr-zone", topic, serde_json::to_vec(report), fields)
                }
                Output::Alert(alert, _) => {
                    let fields = ("rule", alert.rule_id.clone(), alert.tracker_id, alert.class_name.clone());
                    let topic = topic::alerts(&worker.prefix, &alert.rule_id);
                    ("nvr-alert", topic, serde_json::to_vec(alert), fields)
                }
            };
            let json = match json {
                Ok(json) => json,
                Err(error) => {
                    gst::error!(CAT, imp = self, "{name}: {error}");
                    continue;
                }
            };
            gst::debug!(CAT, imp = self, "{}", String::from_utf8_lossy(&json));
            let (key, value, track, class) = fields;
            let mut message = gst::Structure::builder(name)
                .field(key, value)
                .field("tracker-id", track)
                .field("class", class.replace('\0', ""))
                .field("json", String::from_utf8_lossy(&json).into_owned())
                .build();
            if let Output::Zone(report) = &output {
                message.set("zone", &report.zone);
            }
            let obj = self.obj();
            // Fails only where no bus listens.
            let _ = obj.post_message(gst::message::Element::builder(message).src(&*obj).build());
            if let Output::Alert(_, rule) = &output {
                if rule.webhook.is_some() {
                    let json = json.as_slice().into();
                    worker.notifier.give(Job::Webhook { rule: rule.clone(), json });
                }
                if !rule.command.is_empty() {
                    let json = json.as_slice().into();
                    worker.notifier.give(Job::Command { rule: rule.clone(), json });
                }
            }
            let Some(publisher) = publisher else { continue };
            publisher.publish(Message::new(&topic, json, QoS::AtLeastOnce, false, 0));
            if let Some((view, topic)) = view {
                worker.notifier.give(Job::Snapshot { view, topic, publisher: publisher.clone() });
            }
        }
    }

    /// When a buffer is, and when what it carries was true.
    fn stamp(&self, buffer: &gst::BufferRef, facts: &FrameFacts) -> Stamp {
        let obj = self.obj();
        let frame_ns = in_place::running_time(&*obj, buffer).map_or(0, gst::ClockTime::nseconds);
        let looked_at = facts.analysis.as_ref().and_then(|analysis| analysis.capture);
        let unix_ns = looked_at.or(facts.capture).map_or_else(
            || {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                // A file that is read faster than it plays has frames of the future: those have just arrived.
                let current = obj.current_running_time();
                let age = current.map_or(0, |now| now.nseconds().saturating_sub(frame_ns));
                (since.as_nanos() as u64).saturating_sub(age)
            },
            |capture| capture.unix_ns,
        );
        let now_ns = frame_ns.saturating_sub(in_place::age_ns(facts));
        Stamp { frame_ns, carried: Moment { now_ns, unix_ns } }
    }

    fn stats(&self) -> gst::Structure {
        let worker = self.worker.lock().clone();
        let totals = match &worker {
            Some(worker) => {
                let broker = worker.publisher.as_ref().map(|p| p.stats()).unwrap_or_default();
                Totals { broker, jobs: worker.notifier.counts() }
            }
            None => *self.last.lock(),
        };
        let (stats, present, counts) = {
            let state = self.state.lock();
            (state.stats, state.present(), state.counts())
        };
        let zones = counts.into_iter().map(|(name, counts)| {
            gst::Structure::builder("zone")
                .field("name", name)
                .field("present", counts.present)
                .field("entered", counts.entered)
                .field("left-to-right", counts.left_to_right)
                .field("right-to-left", counts.right_to_left)
                .build()
        });
        gst::Structure::builder("nvrzones-stats")
            .field("frames", stats.frames)
            .field("objects", stats.objects)
            .field("ended", stats.ended)
            .field("zone-events", stats.zone_events)
            .field("alerts", stats.alerts)
            .field("notified", totals.jobs.sent)
            .field("notify-failed", totals.jobs.failed)
            .field("notify-dropped", totals.jobs.dropped)
            .field("notify-retried", totals.jobs.retried)
            .field("notify-waiting", totals.jobs.waiting)
            .field("published", totals.broker.published)
            .field("dropped", totals.broker.dropped)
            .field("queued", totals.broker.queued)
            .field("connected", totals.broker.connected)
            .field("present", present as u32)
            .field("zones", gst::Array::new(zones))
            .build()
    }
}
