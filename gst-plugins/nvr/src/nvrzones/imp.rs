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
//! with QoS 1. The broker never holds up the video. `publish=false` keeps everything in the process.
//!
//! With `heatmap`, `{heatmap}/{source-id}/{day}.png` shows where objects have stood on that day, by the time that they
//! stood there, over what the camera shows; it is written once a minute and goes on after a restart (`{day}.heat` beside it holds the numbers).
//!
//! Frames that nobody looked at are passed over. Where that is because `nvrmotion` has marked them as still, who was
//! there is still there.
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
//! Lock order: `settings`, `state`, `worker`, `views` and `heat` are never held together.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_transform::{BaseTransformMode, InputBuffer, PrepareOutputBufferSuccess};
use gst_base::subclass::prelude::*;
use nvr_core::detection::Detection;
use nvr_core::lifecycle::Moment;
use nvr_core::topic;
use parking_lot::Mutex;

use super::CAT;
use super::heat::Heat;
use super::notify::{Counts, Job, Notifier};
use super::settings::{PROPERTIES, Settings};
use super::snapshot::{View, Views};
use super::state::{Frame, Output, State, foot};
use crate::mqtt::{Message, Publisher, QoS, Stats};
use crate::{in_place, meta};

/// How long the end waits for the broker.
const DRAIN: Duration = Duration::from_secs(2);
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
        let refused = {
            let mut settings = self.settings.lock();
            Arc::make_mut(&mut settings).set(value, pspec)
        };
        if let Some(error) = refused {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                ("Property {} stays as it was: {error}", pspec.name())
            );
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
        let worker = self.open(&settings)?;
        *self.state.lock() = State::default();
        *self.views.lock() = Views::default();
        *self.heat.lock() = Heat::default();
        *self.worker.lock() = Some(worker);
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
        notifier.finish();
        let mut totals = Totals { jobs: notifier.counts(), ..Totals::default() };
        if totals.jobs.waiting > 0 {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Write,
                ("{} alerts or pictures are still on their way to a slow receiver", totals.jobs.waiting)
            );
        }
        if let Some(publisher) = publisher {
            if !publisher.drain(DRAIN) {
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
        let size = |name| {
            let value = incaps.structure(0).and_then(|s| s.get::<i32>(name).ok());
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
        };
        let mut state = self.state.lock();
        (state.width, state.height) = (size("width"), size("height"));
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
            self.end_all();
            return Ok(gst::FlowSuccess::Ok);
        }
        let found = meta::read(buffer);
        let at = self.moment(buffer, &found.facts);
        let mut outputs = Vec::new();
        if found.facts.analysis.is_none() && found.detections.is_empty() {
            if meta::has_motion(buffer) == Some(false) {
                self.state.lock().hold(at, &settings, &mut outputs);
                self.say(outputs, &settings);
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let untracked =
            !found.detections.is_empty() && found.detections.iter().all(|d| d.tracker_id.is_none());
        let (best, zones, size, lonely) = {
            let mut state = self.state.lock();
            state.stats.frames += 1;
            let lonely = state.without_tracker(untracked);
            let (width, height) = (state.width, state.height);
            let frame = Frame { at, detections: &found.detections, width, height };
            let best = state.look(&frame, &settings, &mut outputs);
            (best, state.zones_of(&found.detections), (width, height), lonely)
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
        if settings.snapshots && settings.publish && !best.is_empty() {
            self.keep_views(buffer, &found.detections, &best);
        }
        self.say(outputs, &settings);
        self.warm(at, buffer, &found.detections, size);
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
    fn open(&self, settings: &Settings) -> Result<Worker, gst::ErrorMessage> {
        let invalid =
            |error: &dyn std::fmt::Display| gst::error_msg!(gst::ResourceError::Settings, ("{error}"));
        let weak = self.obj().downgrade();
        let report = move |text: &str| {
            if let Some(element) = weak.upgrade() {
                gst::element_imp_warning!(element.imp(), gst::ResourceError::Write, ("{text}"));
            }
        };
        let publisher = if settings.publish {
            let options = settings.broker.resolve().map_err(|error| invalid(&error))?;
            let tell = report.clone();
            let publisher = Publisher::open(&options, QUEUE, move |notice| {
                if let Some(why) = notice.trouble() {
                    tell(why);
                }
            });
            Some(Arc::new(publisher.map_err(|error| invalid(&error))?))
        } else {
            None
        };
        Ok(Worker {
            publisher,
            notifier: Arc::new(Notifier::new(report)),
            prefix: settings.broker.topic_prefix().into(),
            source_id: settings.source_id,
            folder: settings
                .heatmap
                .as_ref()
                .map(|folder| folder.join(settings.source_id.to_string()).into()),
        })
    }

    fn end_all(&self) {
        let settings = self.settings.lock().clone();
        let mut outputs = Vec::new();
        self.state.lock().end_all(&settings, &mut outputs);
        self.say(outputs, &settings);
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
            let kept = self.views.lock().keep(track, buffer, &info, &d.rect);
            if let Err(error) = kept {
                gst::debug!(CAT, imp = self, "no view of {track}: {error}");
            }
        }
    }

    /// Notes in the heat map where tracked objects stand.
    fn warm(
        &self,
        at: Moment,
        buffer: &gst::BufferRef,
        detections: &[Detection],
        (width, height): (u32, u32),
    ) {
        let Some(worker) = self.worker.lock().clone() else { return };
        let Some(folder) = worker.folder else { return };
        let tracked = detections.iter().filter(|d| d.tracker_id.is_some());
        let due = self.heat.lock().is_due(at.now_ns);
        // Once a minute; what is no raw video has no picture, and the map does without.
        let view = due.then(|| View::whole(buffer, &self.video_info()?).ok().flatten()).flatten();
        let feet = tracked.map(|d| foot(d, width, height));
        let part = self.heat.lock().add(at.now_ns, at.unix_ns, view, feet);
        if let Some(part) = part {
            worker.notifier.give(Job::Heat { part, folder: folder.to_path_buf() });
        }
    }

    /// Posts, publishes and hands on. No lock is held.
    fn say(&self, outputs: Vec<Output>, settings: &Settings) {
        if outputs.is_empty() {
            return;
        }
        let Some(worker) = self.worker.lock().clone() else { return };
        for output in outputs {
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
            let Some(publisher) = &worker.publisher else { continue };
            publisher.publish(Message::new(&topic, json, QoS::AtLeastOnce, false, 0));
            if let Output::Life(event) = &output
                && settings.snapshots
                && let Some(view) = self.views.lock().take(event.tracker_id)
            {
                let topic = topic::snapshot(&worker.prefix, worker.source_id, event.tracker_id);
                worker.notifier.give(Job::Snapshot { view, topic, publisher: publisher.clone() });
            }
        }
        if settings.snapshots {
            let kept = self.views.lock().tracks();
            let gone: Vec<u64> = {
                let state = self.state.lock();
                kept.into_iter().filter(|track| !state.knows(*track)).collect()
            };
            self.views.lock().forget(&gone);
        }
    }

    /// When what a buffer carries was true.
    fn moment(&self, buffer: &gst::BufferRef, facts: &nvr_core::detection::FrameFacts) -> Moment {
        let obj = self.obj();
        let segment = obj.segment();
        let current = obj.current_running_time();
        let running = segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(|segment| segment.to_running_time(buffer.pts().or(buffer.dts())))
            .or(current)
            .map_or(0, gst::ClockTime::nseconds);
        let looked_at = facts.analysis.as_ref().and_then(|analysis| analysis.capture);
        let late = facts.capture.zip(looked_at).map_or(0, |(frame, earlier)| {
            if frame.clock == earlier.clock { frame.unix_ns.saturating_sub(earlier.unix_ns) } else { 0 }
        });
        let unix_ns = looked_at.or(facts.capture).map_or_else(
            || {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                // A file that is read faster than it plays has frames of the future: those have just arrived.
                let age = current.map_or(0, |now| now.nseconds().saturating_sub(running));
                (since.as_nanos() as u64).saturating_sub(age)
            },
            |capture| capture.unix_ns,
        );
        Moment { now_ns: running.saturating_sub(late), unix_ns }
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
