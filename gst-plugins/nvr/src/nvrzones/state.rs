//! What the stream is doing, from detections to what is to be said of them.

use std::collections::HashMap;
use std::sync::Arc;

use gst::glib;
use nvr_core::alert::{Alert, Alerts, Fired, LocalTime, Rule, Weekday};
use nvr_core::detection::Detection;
use nvr_core::event::{InZones, VERSION, timestamp};
use nvr_core::geometry::Rect;
use nvr_core::lifecycle::{LifecycleEvent, Lifecycles, Moment, Phase, Sighting, bbox};
use nvr_core::track::LookClock;
use nvr_core::zones::{self, Counts, Direction, Point, Watcher, ZoneEvent, ZoneEventKind};

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

/// When a frame is, and when what it carries was true.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Running time.
    pub frame_ns: u64,
    pub carried: Moment,
}

impl Stamp {
    /// The moment `now_ns`, which may be later than what the frame carries.
    fn at(&self, now_ns: u64) -> Moment {
        let Moment { now_ns: carried_ns, unix_ns } = self.carried;
        Moment { now_ns, unix_ns: unix_ns.saturating_add(now_ns.saturating_sub(carried_ns)) }
    }
}

/// What a frame has told of the objects.
#[derive(Debug, Default)]
pub struct Seen {
    pub at: Moment,
    /// Where those stand who are there, if that is wanted.
    pub feet: Vec<Point>,
    /// The tracks whose best view it shows.
    pub best: Vec<u64>,
}

/// How a track was seen last.
#[derive(Debug)]
struct Glimpse {
    class: Arc<str>,
    confidence: f32,
    rect: Rect,
    foot: Point,
}

#[derive(Debug, Default)]
pub struct State {
    pub stats: Stats,
    pub width: u32,
    pub height: u32,
    watcher: Watcher,
    lives: Lifecycles,
    alerts: Alerts,
    glimpses: HashMap<u64, Glimpse>,
    /// Tracks that have gone since somebody asked, objects or not.
    gone: Vec<u64>,
    clock: LookClock,
    /// When somebody looked last, or until when nothing has moved since.
    last: Moment,
    /// What the alerts were made from.
    rules: Arc<[Arc<Rule>]>,
    /// Frames with detections of which none had an id, in a row.
    untracked: u32,
}

/// As many frames without an id are no accident: a tracker takes a few to be sure.
const NO_TRACKER: u32 = 50;

impl State {
    /// A frame that somebody has looked at.
    pub fn look(
        &mut self,
        stamp: Stamp,
        detections: &[Detection],
        settings: &Settings,
        outputs: &mut Vec<Output>,
    ) -> Seen {
        self.configure(settings, outputs);
        let look = self.clock.look(stamp.frame_ns, stamp.frame_ns.saturating_sub(stamp.carried.now_ns));
        if look.anew {
            self.end_gone(self.last, true, settings, outputs);
        }
        let at = stamp.at(look.now_ns);
        self.last = at;
        let (width, height) = (f64::from(self.width.max(1)), f64::from(self.height.max(1)));
        let (mut best, mut feet) = (Vec::new(), Vec::new());
        let mut seen = Vec::with_capacity(detections.len());
        for d in detections {
            let Some(track) = d.tracker_id else { continue };
            let foot = foot(d, self.width, self.height);
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
            if self.lives.see(at, &sighting) {
                best.push(track);
            }
            if settings.heatmap.is_some() {
                feet.push(foot);
            }
            if !self.lives.knows(track) {
                continue;
            }
            let Sighting { class, confidence, rect, .. } = sighting;
            self.glimpses.insert(track, Glimpse { class, confidence, rect, foot });
            seen.push(zones::Seen {
                track,
                class: &d.class_name,
                confidence: d.confidence,
                foot,
                area: f64::from(d.rect.area()) / (width * height),
                confirmed: self.lives.is_object(track, &settings.params),
            });
        }
        let mut events = Vec::new();
        self.watcher.update(at.now_ns, &seen, &mut events);
        let tracks = seen.iter().map(|seen| seen.track);
        self.report(&events, tracks, settings, outputs);
        Seen { at, feet, best }
    }

    /// What has happened, to all of them and to the `tracks` that are there.
    fn report(
        &mut self,
        events: &[ZoneEvent],
        tracks: impl Iterator<Item = u64>,
        settings: &Settings,
        outputs: &mut Vec<Output>,
    ) {
        // Zones are part of what is told of a life, and who is new is told about first.
        let mut reports = Vec::new();
        self.zone_events(events, settings, &mut reports);
        let mut lives = Vec::new();
        self.tell(settings, &mut lives);
        let new = lives.partition_point(|output| matches!(output, Output::Life(e) if e.phase == Phase::New));
        let updates = lives.split_off(new);
        outputs.extend(lives.into_iter().chain(reports).chain(updates));
        let mut local = None;
        for track in tracks {
            self.alert(track, &mut local, settings, outputs);
        }
        self.end_gone(self.last, false, settings, outputs);
    }

    /// The zones that the objects of a frame are in; who is in none is left out.
    pub fn zones_of(&self, detections: &[Detection]) -> InZones {
        let zones = self.watcher.zones();
        let names = |track: u64| -> Vec<String> {
            self.watcher.inside(track).map(|(zone, _)| zones[zone].name.clone()).collect()
        };
        let tracks = detections.iter().filter_map(|d| d.tracker_id);
        tracks.map(|track| (track, names(track))).filter(|(_, names)| !names.is_empty()).collect()
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

    /// A frame that was left out because nothing moved in it: who was there is still there. `None` where that cannot be
    /// said.
    pub fn hold(&mut self, stamp: Stamp, settings: &Settings, outputs: &mut Vec<Output>) -> Option<Seen> {
        let at = stamp.at(self.clock.hold(stamp.frame_ns)?);
        self.configure(settings, outputs);
        let mut events = Vec::new();
        self.watcher.hold(self.last.now_ns, at.now_ns, &mut events);
        let held = self.lives.hold(self.last, at);
        self.last = at;
        let mut seen = Seen { at, ..Seen::default() };
        if settings.heatmap.is_some() {
            seen.feet.extend(held.iter().filter_map(|track| Some(self.glimpses.get(track)?.foot)));
        }
        self.report(&events, held.into_iter(), settings, outputs);
        Some(seen)
    }

    /// Something may have moved in a frame that nobody was to look at.
    pub fn miss(&mut self) {
        self.clock.miss();
    }

    /// The stream has ended, or nobody is to be watched any longer.
    pub fn end_all(&mut self, settings: &Settings, outputs: &mut Vec<Output>) {
        self.end_gone(self.last, true, settings, outputs);
        self.last = Moment::default();
        self.clock = LookClock::default();
    }

    /// The tracks that have gone since the last call, objects or not.
    pub fn take_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
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
                class_name: self
                    .glimpses
                    .get(&event.track)
                    .map_or("object", |glimpse| &glimpse.class)
                    .to_owned(),
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

    /// `local` is the time on the wall once it has been asked for.
    fn alert(
        &mut self,
        track: u64,
        local: &mut Option<LocalTime>,
        settings: &Settings,
        outputs: &mut Vec<Output>,
    ) {
        if !self.alerts.is_open(track) {
            return;
        }
        let (Some(facts), Some(glimpse)) = (self.lives.facts(track), self.glimpses.get(&track)) else {
            return;
        };
        *local = local.or_else(|| local_time(self.last.unix_ns));
        let Some(local) = *local else { return };
        for Fired { rule, zone, dwell_ns } in self.alerts.check(self.last.now_ns, local, track, &facts) {
            self.stats.alerts += 1;
            let alert = Alert {
                version: VERSION.into(),
                rule_id: rule.id.clone(),
                instance_id: settings.instance_id.to_string(),
                source_id: settings.source_id,
                tracker_id: track,
                class_name: facts.class.to_string(),
                confidence: (f64::from(glimpse.confidence) * 1e4).round() / 1e4,
                timestamp: timestamp(self.last.unix_ns).to_string(),
                zone: zone.map(|zone| zone.to_string()),
                dwell_s: (dwell_ns as f64 / 1e6).round() / 1e3,
                bbox: bbox(&glimpse.rect),
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
            self.glimpses.remove(&track);
            self.gone.push(track);
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
fn foot(d: &Detection, width: u32, height: u32) -> Point {
    let share = |v: f32, size: u32| (f64::from(v) / f64::from(size.max(1))).clamp(0.0, 1.0);
    [share(d.rect.x + d.rect.width / 2.0, width), share(d.rect.bottom(), height)]
}

fn signed(event: LifecycleEvent, settings: &Settings) -> LifecycleEvent {
    LifecycleEvent { instance_id: settings.instance_id.to_string(), source_id: settings.source_id, ..event }
}

/// What the clock on the wall of this machine shows.
fn local_time(unix_ns: u64) -> Option<LocalTime> {
    let time = glib::DateTime::from_unix_local(i64::try_from(unix_ns / 1_000_000_000).ok()?).ok()?;
    let weekday = *Weekday::ALL.get(usize::try_from(time.day_of_week() - 1).ok()?)?;
    Some(LocalTime { weekday, minute: (time.hour() * 60 + time.minute()) as u32 })
}
