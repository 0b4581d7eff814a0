//! What the stream is doing, from detections to what is to be said of them.

use std::collections::HashMap;
use std::sync::Arc;

use gst::glib;
use nvr_core::alert::{Alert, Alerts, Fired, LocalTime, Rule, Weekday};
use nvr_core::detection::Detection;
use nvr_core::event::{VERSION, timestamp};
use nvr_core::lifecycle::{LifecycleEvent, Lifecycles, Moment, Phase, Sighting, bbox};
use nvr_core::zones::{Counts, Direction, Point, Seen, Watcher, ZoneEvent, ZoneEventKind};

use super::settings::Settings;

/// Something to say.
#[derive(Clone, Debug)]
pub enum Output {
    Life(LifecycleEvent),
    Zone(ZoneReport),
    Alert(Alert, Arc<Rule>),
}

/// Published on `{prefix}/zones/{source_id}` and posted as message `nvr-zone`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ZoneReport {
    pub version: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub instance_id: String,
    pub source_id: u32,
    pub zone: String,
    pub tracker_id: u64,
    pub class_name: String,
    /// RFC 3339, UTC.
    pub timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dwell_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Objects in the zone now, and all that have entered it; of a line, those that have crossed it each way.
    pub present: u32,
    pub entered: u64,
    pub left_to_right: u64,
    pub right_to_left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub frames: u64,
    pub objects: u64,
    pub ended: u64,
    pub zone_events: u64,
    pub alerts: u64,
}

/// One frame that somebody has looked at.
#[derive(Debug)]
pub struct Frame<'a> {
    pub at: Moment,
    pub detections: &'a [Detection],
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Default)]
pub struct State {
    pub stats: Stats,
    pub width: u32,
    pub height: u32,
    watcher: Watcher,
    lives: Lifecycles,
    alerts: Alerts,
    /// Of each track: what it was called last.
    classes: HashMap<u64, Arc<str>>,
    /// When somebody looked last.
    last: Moment,
    /// What the alerts were made from.
    rules: Arc<[Arc<Rule>]>,
    /// Frames with detections of which none had an id, in a row.
    untracked: u32,
}

/// As many frames without an id are no accident: a tracker takes a few to be sure.
const NO_TRACKER: u32 = 50;

impl State {
    /// The tracks whose best view the frame shows, and what there is to say.
    pub fn look(&mut self, frame: &Frame<'_>, settings: &Settings, outputs: &mut Vec<Output>) -> Vec<u64> {
        self.configure(settings, outputs);
        if frame.at.now_ns < self.last.now_ns {
            // Another stream has begun.
            self.end_all(settings, outputs);
        }
        let (width, height) = (f64::from(frame.width.max(1)), f64::from(frame.height.max(1)));
        let mut best = Vec::new();
        let mut seen = Vec::with_capacity(frame.detections.len());
        for d in frame.detections {
            let Some(track) = d.tracker_id else { continue };
            let foot = foot(d, frame.width, frame.height);
            let cut = d.rect.x <= 1.0
                || d.rect.y <= 1.0
                || f64::from(d.rect.right()) >= width - 1.0
                || f64::from(d.rect.bottom()) >= height - 1.0;
            let sighting = Sighting {
                track,
                class: d.class_name.clone(),
                confidence: d.confidence,
                rect: d.rect,
                foot,
                cut,
            };
            if self.lives.see(frame.at, &sighting) {
                best.push(track);
            }
            if !self.lives.knows(track) {
                continue;
            }
            self.classes.insert(track, d.class_name.clone());
            let area = f64::from(d.rect.area()) / (width * height);
            seen.push(Seen { track, class: &d.class_name, confidence: d.confidence, foot, area });
        }
        self.last = frame.at;
        let mut events = Vec::new();
        self.watcher.update(frame.at.now_ns, &seen, &mut events);
        self.zone_events(&events, settings, outputs);
        self.tell(settings, outputs);
        for d in frame.detections {
            self.alert(d, settings, outputs);
        }
        self.end_gone(frame.at, false, settings, outputs);
        best
    }

    /// Notes whether a frame had detections and no id; true once, when it seems that nobody tracks.
    pub fn without_tracker(&mut self, untracked: bool) -> bool {
        let before = self.untracked;
        if untracked {
            self.untracked = self.untracked.saturating_add(1).min(NO_TRACKER);
        } else if before < NO_TRACKER {
            self.untracked = 0;
        }
        before < NO_TRACKER && self.untracked == NO_TRACKER
    }

    /// A frame that was left out because nothing moved in it: who was there is still there.
    pub fn hold(&mut self, at: Moment, settings: &Settings, outputs: &mut Vec<Output>) {
        if at.now_ns < self.last.now_ns {
            return;
        }
        self.watcher.hold(self.last.now_ns, at.now_ns);
        self.lives.hold(self.last, at);
        self.last = at;
        self.tell(settings, outputs);
        self.end_gone(at, false, settings, outputs);
    }

    /// The stream has ended, or nobody is to be watched any longer.
    pub fn end_all(&mut self, settings: &Settings, outputs: &mut Vec<Output>) {
        self.end_gone(self.last, true, settings, outputs);
        self.last = Moment::default();
    }

    /// Whether a track has been seen and is not gone.
    pub fn knows(&self, track: u64) -> bool {
        self.lives.knows(track)
    }

    pub fn present(&self) -> usize {
        self.lives.present()
    }

    /// Name and numbers of every zone.
    pub fn counts(&self) -> Vec<(String, Counts)> {
        let names = self.watcher.zones().iter().map(|zone| zone.name.clone());
        names.zip(self.watcher.counts().iter().copied()).collect()
    }

    fn configure(&mut self, settings: &Settings, outputs: &mut Vec<Output>) {
        if !Arc::ptr_eq(self.watcher.zones(), &settings.zones.value) {
            // Who was in a zone that is no more has left it.
            let mut events = Vec::new();
            for track in self.watcher.tracks() {
                self.watcher.end(track, &mut events);
            }
            self.zone_events(&events, settings, outputs);
            self.watcher = Watcher::new(settings.zones.value.clone());
        }
        if !Arc::ptr_eq(&self.rules, &settings.rules.value) {
            self.rules = settings.rules.value.clone();
            self.alerts = Alerts::new(&self.rules, settings.source_id);
        }
    }

    fn zone_events(&mut self, events: &[ZoneEvent], settings: &Settings, outputs: &mut Vec<Output>) {
        for event in events {
            let zone = &self.watcher.zones()[event.zone];
            let name: Arc<str> = zone.name.as_str().into();
            let seconds = |ns: u64| (ns as f64 / 1e6).round() / 1e3;
            let (kind, dwell_s, direction) = match event.kind {
                ZoneEventKind::Entered => {
                    self.lives.enter(event.track, &name, event.at_ns);
                    ("entered", None, None)
                }
                ZoneEventKind::Left { dwell_ns } => {
                    self.lives.leave(event.track, &name, dwell_ns);
                    ("left", Some(seconds(dwell_ns)), None)
                }
                ZoneEventKind::Loitering { dwell_ns } => ("loitering", Some(seconds(dwell_ns)), None),
                ZoneEventKind::Crossed(direction) => ("crossed", None, Some(direction)),
            };
            let counts = self.watcher.counts()[event.zone];
            self.stats.zone_events += 1;
            outputs.push(Output::Zone(ZoneReport {
                version: VERSION,
                kind,
                instance_id: settings.instance_id.to_string(),
                source_id: settings.source_id,
                zone: zone.name.clone(),
                tracker_id: event.track,
                class_name: self.classes.get(&event.track).map_or("object", AsRef::as_ref).to_owned(),
                timestamp: timestamp(self.unix_at(event.at_ns)).to_string(),
                dwell_s,
                direction,
                present: counts.present,
                entered: counts.entered,
                left_to_right: counts.left_to_right,
                right_to_left: counts.right_to_left,
            }));
        }
    }

    fn tell(&mut self, settings: &Settings, outputs: &mut Vec<Output>) {
        for change in self.lives.due(self.last.now_ns, &settings.params) {
            self.stats.objects += u64::from(change.phase == Phase::New);
            let event = self.lives.event(change.track, change.phase, (self.width, self.height));
            outputs.extend(event.map(|event| Output::Life(signed(event, settings))));
        }
    }

    fn alert(&mut self, d: &Detection, settings: &Settings, outputs: &mut Vec<Output>) {
        let Some(track) = d.tracker_id.filter(|_| !self.alerts.is_empty()) else { return };
        let Some(facts) = self.lives.facts(track) else { return };
        let Some(local) = local_time(self.last.unix_ns) else { return };
        for Fired { rule, zone, dwell_ns } in self.alerts.check(self.last.now_ns, local, track, &facts) {
            self.stats.alerts += 1;
            let alert = Alert {
                version: VERSION.into(),
                rule_id: rule.id.clone(),
                instance_id: settings.instance_id.to_string(),
                source_id: settings.source_id,
                tracker_id: track,
                class_name: facts.class.to_string(),
                confidence: (f64::from(d.confidence) * 1e4).round() / 1e4,
                timestamp: timestamp(self.last.unix_ns).to_string(),
                zone: zone.map(|zone| zone.to_string()),
                dwell_s: (dwell_ns as f64 / 1e6).round() / 1e3,
                bbox: bbox(&d.rect),
            };
            outputs.push(Output::Alert(alert, rule));
        }
    }

    fn end_gone(&mut self, at: Moment, all: bool, settings: &Settings, outputs: &mut Vec<Output>) {
        for track in self.lives.gone(at.now_ns, &settings.params, all) {
            let mut events = Vec::new();
            self.watcher.end(track, &mut events);
            self.zone_events(&events, settings, outputs);
            self.alerts.end(track);
            self.classes.remove(&track);
            if let Some(event) = self.lives.end(track, (self.width, self.height)) {
                self.stats.ended += 1;
                outputs.push(Output::Life(signed(event, settings)));
            }
        }
    }

    /// The wall clock's time of an earlier moment.
    fn unix_at(&self, now_ns: u64) -> u64 {
        self.last.unix_ns.saturating_sub(self.last.now_ns.saturating_sub(now_ns))
    }
}

/// Where an object stands: the middle of its box's lower edge, 0 to 1 of the frame.
pub fn foot(d: &Detection, width: u32, height: u32) -> Point {
    let share = |v: f32, size: u32| (f64::from(v) / f64::from(size.max(1))).clamp(0.0, 1.0);
    [share(d.rect.x + d.rect.width / 2.0, width), share(d.rect.bottom(), height)]
}

fn signed(event: LifecycleEvent, settings: &Settings) -> LifecycleEvent {
    let snapshot = settings.snapshots.then(|| {
        nvr_core::topic::snapshot(settings.broker.topic_prefix(), settings.source_id, event.tracker_id)
    });
    LifecycleEvent {
        instance_id: settings.instance_id.to_string(),
        source_id: settings.source_id,
        snapshot,
        ..event
    }
}

/// What the clock on the wall of this machine shows.
fn local_time(unix_ns: u64) -> Option<LocalTime> {
    let time = glib::DateTime::from_unix_local(i64::try_from(unix_ns / 1_000_000_000).ok()?).ok()?;
    let weekday = *Weekday::ALL.get(usize::try_from(time.day_of_week() - 1).ok()?)?;
    Some(LocalTime { weekday, minute: (time.hour() * 60 + time.minute()) as u32 })
}
