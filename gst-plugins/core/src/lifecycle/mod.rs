//! The life of an object: it appears, it changes, it is gone.
//!
//! A track becomes an object once it has been seen often enough and the median of its scores reaches the threshold, so
//! a flicker makes no event. Each object makes one `new`, any number of `update`s and one `end`, in this order.

mod event;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub use event::{Best, LifecycleEvent, Phase, ZoneStay, bbox};

use crate::{geometry::Rect, times::nanoseconds, zones::Point};

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Median confidence from which a track is an object.
    pub min_score: f32,
    /// Sightings that takes at least.
    pub min_seen: u32,
    /// Seconds between two updates of one object; 0 = only when it changes its zones.
    pub update_interval: f64,
    /// Seconds without a sighting after which an object is gone.
    pub gone: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { min_score: 0.5, min_seen: 3, update_interval: 5.0, gone: 3.0 }
    }
}

/// Scores that the median is taken of.
const HISTORY: usize = 9;
/// Points that a path keeps; from there on every other one is dropped.
const MAX_PATH: usize = 64;
/// Objects at a time; more than any camera shows.
const MAX_OBJECTS: usize = 1000;
/// Another view has to be better by this factor to take the best one's place.
const BETTER: f32 = 1.1;

/// One moment by two clocks: nanoseconds that only go forward, and since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    pub now_ns: u64,
    pub unix_ns: u64,
}

/// One followed object in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub track: u64,
    pub class: Arc<str>,
    pub confidence: f32,
    /// Pixels of the frame.
    pub rect: Rect,
    /// Where it stands, 0 to 1 of the frame.
    pub foot: Point,
    /// Whether the frame cuts it.
    pub cut: bool,
}

/// What is known of a zone that an object has been in.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stay {
    inside_since: Option<u64>,
    dwell_ns: u64,
}

#[derive(Clone, Debug)]
struct Object {
    first: Moment,
    last: Moment,
    /// When the last event was made.
    told_ns: u64,
    confirmed: bool,
    seen: u64,
    scores: VecDeque<f32>,
    /// Confidence that was given to each class, summed up.
    classes: BTreeMap<Arc<str>, f32>,
    best: (f32, Moment, f32, Rect),
    rect: Rect,
    path: Vec<Point>,
    /// Every n-th sighting goes into the path.
    stride: u64,
    zones: BTreeMap<Arc<str>, Stay>,
    /// Its zones have changed since the last event.
    changed: bool,
}

/// The objects of one camera.
#[derive(Debug, Default)]
pub struct Lifecycles {
    objects: BTreeMap<u64, Object>,
}

/// A change in one object's life.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub track: u64,
    pub phase: Phase,
    pub class: Arc<str>,
}

impl Lifecycles {
    /// Objects that are confirmed and not gone.
    pub fn present(&self) -> usize {
        self.objects.values().filter(|object| object.confirmed).count()
    }

    /// Takes in one sighting. Whether this is the best view so far: the caller may want to keep the picture.
    pub fn see(&mut self, at: Moment, sighting: &Sighting) -> bool {
        if self.objects.len() >= MAX_OBJECTS && !self.objects.contains_key(&sighting.track) {
            return false;
        }
        // Large, sure and whole is what somebody wants to look at.
        let worth = sighting.confidence * sighting.rect.area().sqrt() * if sighting.cut { 0.5 } else { 1.0 };
        let object = self.objects.entry(sighting.track).or_insert_with(|| Object {
            first: at,
            last: at,
            told_ns: at.now_ns,
            confirmed: false,
            seen: 0,
            scores: VecDeque::with_capacity(HISTORY),
            classes: BTreeMap::new(),
            best: (f32::NEG_INFINITY, at, 0.0, sighting.rect),
            rect: sighting.rect,
            path: Vec::new(),
            stride: 1,
            zones: BTreeMap::new(),
            changed: false,
        });
        object.last = at;
        object.rect = sighting.rect;
        object.seen += 1;
        if object.scores.len() == HISTORY {
            object.scores.pop_front();
        }
        object.scores.push_back(sighting.confidence);
        *object.classes.entry(sighting.class.clone()).or_default() += sighting.confidence;
        if object.seen.is_multiple_of(object.stride) {
            if object.path.len() >= MAX_PATH {
                let mut keep = false;
                object.path.retain(|_| {
                    keep = !keep;
                    keep
                });
                object.stride *= 2;
            }
            object.path.push(sighting.foot);
        }
        // The factor is taken from what is positive only.
        let better = object.seen == 1 || worth > object.best.0 * BETTER;
        if better {
            object.best = (worth, at, sighting.confidence, sighting.rect);
        }
        better
    }

    /// Lets time pass in which nothing has moved: who was seen at `last` is still there, and is named.
    pub fn hold(&mut self, last: Moment, now: Moment) -> Vec<u64> {
        let mut held = Vec::new();
        for (track, object) in self.objects.iter_mut().filter(|(_, object)| object.last == last) {
            object.last = now;
            held.push(*track);
        }
        held
    }

    /// Notes that an object has entered or left a zone at `at_ns`; loitering and lines are an update as well.
    pub fn enter(&mut self, track: u64, zone: &Arc<str>, at_ns: u64) {
        if let Some(object) = self.objects.get_mut(&track) {
            object.zones.entry(zone.clone()).or_default().inside_since = Some(at_ns);
            object.changed = true;
        }
    }

    pub fn leave(&mut self, track: u64, zone: &Arc<str>, dwell_ns: u64) {
        if let Some(object) = self.objects.get_mut(&track) {
            let stay = object.zones.entry(zone.clone()).or_default();
            stay.inside_since = None;
            stay.dwell_ns += dwell_ns;
            object.changed = true;
        }
    }

    /// The confirmed objects that are to be told about now, new ones first.
    pub fn due(&mut self, now_ns: u64, params: &Params) -> Vec<Change> {
        let mut changes = Vec::new();
        let interval = nanoseconds(params.update_interval);
        for (&track, object) in &mut self.objects {
            let phase = if !object.confirmed {
                if !object.is_certain(params) {
                    continue;
                }
                object.confirmed = true;
                Phase::New
            } else if object.changed || object.is_due(now_ns, interval) {
                Phase::Update
            } else {
                continue;
            };
            object.changed = false;
            object.told_ns = now_ns;
            changes.push(Change { track, phase, class: object.class() });
        }
        changes.sort_by_key(|change| change.phase != Phase::New);
        changes
    }

    /// The tracks that have not been seen for too long, or all of them.
    pub fn gone(&self, now_ns: u64, params: &Params, all: bool) -> Vec<u64> {
        let limit = nanoseconds(params.gone);
        let gone = |object: &Object| all || now_ns.saturating_sub(object.last.now_ns) > limit;
        self.objects.iter().filter(|(_, object)| gone(object)).map(|(track, _)| *track).collect()
    }

    /// Forgets an object. Its last event, if it ever was one.
    pub fn end(&mut self, track: u64, frame: FrameSize) -> Option<LifecycleEvent> {
        let event = self.event(track, Phase::End, frame);
        let object = self.objects.remove(&track)?;
        event.filter(|_| object.confirmed)
    }

    /// What there is to say of an object. Fields that only the element knows are empty.
    pub fn event(&self, track: u64, phase: Phase, frame: FrameSize) -> Option<LifecycleEvent> {
        let object = self.objects.get(&track)?;
        Some(LifecycleEvent::of(track, phase, object, frame))
    }

    /// Whether the track has been seen and is not gone. One beyond the most that are followed is never known.
    pub fn knows(&self, track: u64) -> bool {
        self.objects.contains_key(&track)
    }

    /// Whether a track is an object that events are about, or becomes one at the next [`Self::due`].
    pub fn is_object(&self, track: u64, params: &Params) -> bool {
        self.objects.get(&track).is_some_and(|object| object.confirmed || object.is_certain(params))
    }

    /// What rules look at: class, time since it was first seen, and for each zone that it is in, since when.
    pub fn facts(&self, track: u64) -> Option<Facts> {
        let object = self.objects.get(&track).filter(|object| object.confirmed)?;
        Some(Facts {
            class: object.class(),
            since_ns: object.first.now_ns,
            inside: object
                .zones
                .iter()
                .filter_map(|(zone, stay)| Some((zone.clone(), stay.inside_since?)))
                .collect(),
        })
    }
}

/// What rules look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub class: Arc<str>,
    pub since_ns: u64,
    pub inside: Vec<(Arc<str>, u64)>,
}

/// Width and height in pixels.
pub type FrameSize = (u32, u32);

impl Object {
    /// Whether it has been seen often enough, and well enough, to be something.
    fn is_certain(&self, params: &Params) -> bool {
        self.seen >= u64::from(params.min_seen.max(1)) && median(&self.scores) >= params.min_score
    }

    /// Whether it has been seen since the last event, and that was long enough ago.
    fn is_due(&self, now_ns: u64, interval: u64) -> bool {
        interval > 0 && now_ns.saturating_sub(self.told_ns) >= interval && self.last.now_ns > self.told_ns
    }

    /// The class that most speaks for.
    fn class(&self) -> Arc<str> {
        let most = self.classes.iter().max_by(|a, b| a.1.total_cmp(b.1));
        most.map_or_else(|| Arc::from("object"), |(class, _)| class.clone())
    }
}

/// The lower one of an even number: in doubt, against.
fn median(scores: &VecDeque<f32>) -> f32 {
    let mut sorted: Vec<f32> = scores.iter().copied().collect();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}
