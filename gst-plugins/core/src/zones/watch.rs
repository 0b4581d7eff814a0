//! Who enters, leaves, stays and crosses.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    config::{Shape, Zone},
    shape::{Direction, Line, Point},
};
use crate::times::nanoseconds;

/// One followed object in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen<'a> {
    pub track: u64,
    pub class: &'a str,
    pub confidence: f32,
    /// Where it stands: the middle of the lower edge of its box, 0 to 1 of the frame.
    pub foot: Point,
    /// Of its box, as a share of the frame.
    pub area: f64,
    /// Whether it is sure to be an object. What happens before is told once it is, and never where it never is.
    pub confirmed: bool,
}

/// Events of one doubtful object that wait for it to be confirmed; of more, finished visits and crossings are forgotten.
const MAX_HELD: usize = 64;

/// What happened. Times are nanoseconds of the clock that [`Watcher::update`] is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZoneEvent {
    pub track: u64,
    /// Index into the zones.
    pub zone: usize,
    /// When it began to be so; `inertia` earlier than it was noticed.
    pub at_ns: u64,
    pub kind: ZoneEventKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ZoneEventKind {
    Entered,
    Left { dwell_ns: u64 },
    Loitering { dwell_ns: u64 },
    Crossed(Direction),
}

/// Numbers of one zone since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Objects inside now.
    pub present: u32,
    pub entered: u64,
    pub left_to_right: u64,
    pub right_to_left: u64,
}

/// One object and one zone.
#[derive(Clone, Copy, Debug, Default)]
struct Presence {
    /// Inside since, for an area.
    inside: Option<u64>,
    /// Since when it has been seen otherwise; for a line with the way that was crossed.
    otherwise: Option<(u64, Direction)>,
    /// Of a line: which side it was on.
    left_side: Option<bool>,
    loitered: bool,
    /// Where it stood when the zone's filters let it through last.
    foot: Option<Point>,
}

#[derive(Clone, Debug)]
struct Known {
    seen_ns: u64,
    zones: Vec<Presence>,
    confirmed: bool,
    /// What has happened to it before it was confirmed.
    held: Vec<ZoneEvent>,
}

/// Watches the zones of one camera.
#[derive(Clone, Debug, Default)]
pub struct Watcher {
    zones: Arc<[Zone]>,
    known: BTreeMap<u64, Known>,
    counts: Vec<Counts>,
}

impl Watcher {
    pub fn new(zones: Arc<[Zone]>) -> Self {
        let counts = vec![Counts::default(); zones.len()];
        Self { zones, known: BTreeMap::new(), counts }
    }

    pub fn zones(&self) -> &Arc<[Zone]> {
        &self.zones
    }

    /// One for each zone.
    pub fn counts(&self) -> &[Counts] {
        &self.counts
    }

    /// The zones that an object is in, and since when.
    pub fn inside(&self, track: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
        let zones = self.known.get(&track).into_iter().flat_map(|known| known.zones.iter().enumerate());
        zones.filter_map(|(zone, presence)| Some((zone, presence.inside?)))
    }

    /// Takes in what is seen at `now_ns`. Events are appended, oldest object first. A sighting that a zone's filters
    /// leave out says nothing about that zone.
    pub fn update(&mut self, now_ns: u64, seen: &[Seen<'_>], events: &mut Vec<ZoneEvent>) {
        let Self { zones, known, counts } = self;
        for object in seen {
            let known = known.entry(object.track).or_insert_with(|| Known {
                seen_ns: now_ns,
                zones: vec![Presence::default(); zones.len()],
                confirmed: false,
                held: Vec::new(),
            });
            known.seen_ns = now_ns;
            known.confirm(object.confirmed, counts, events);
            for n in 0..zones.len() {
                if zones[n].admits(object) {
                    known.look(now_ns, &zones[n], (object.track, n), object.foot, counts, events);
                }
            }
        }
    }

    /// Lets time pass in which nothing has moved: who was seen at `last_ns` still stands where he stood, which may be
    /// long enough to have entered, or to loiter.
    pub fn hold(&mut self, last_ns: u64, now_ns: u64, events: &mut Vec<ZoneEvent>) {
        let Self { zones, known, counts } = self;
        let now_ns = now_ns.max(last_ns);
        for (&track, known) in known.iter_mut().filter(|(_, known)| known.seen_ns == last_ns) {
            known.seen_ns = now_ns;
            for n in 0..zones.len() {
                if let Some(foot) = known.zones[n].foot {
                    known.look(now_ns, &zones[n], (track, n), foot, counts, events);
                }
            }
        }
    }

    /// The objects that it knows.
    pub fn tracks(&self) -> Vec<u64> {
        self.known.keys().copied().collect()
    }

    /// Takes leave of an object that will not come back: it leaves the zones it is in when it was last seen, or
    /// when it was first seen outside, and a line that it has just crossed counts. One that was never confirmed has
    /// never been anywhere.
    pub fn end(&mut self, track: u64, events: &mut Vec<ZoneEvent>) {
        let Some(known) = self.known.remove(&track).filter(|known| known.confirmed) else { return };
        for (zone, presence) in known.zones.iter().enumerate() {
            let (at_ns, kind) = match (presence.inside, presence.otherwise, &self.zones[zone].shape) {
                (Some(since), out, _) => {
                    let at = out.map_or(known.seen_ns, |(at, _)| at);
                    (at, ZoneEventKind::Left { dwell_ns: at.saturating_sub(since) })
                }
                (None, Some((at, direction)), Shape::Line(_))
                    if self.zones[zone].direction.is_none_or(|only| only == direction) =>
                {
                    (at, ZoneEventKind::Crossed(direction))
                }
                _ => continue,
            };
            self.counts[zone].note(kind);
            events.push(ZoneEvent { track, zone, at_ns, kind });
        }
    }
}

impl Known {
    /// Tells what has happened to it once it is confirmed.
    fn confirm(&mut self, confirmed: bool, counts: &mut [Counts], events: &mut Vec<ZoneEvent>) {
        if confirmed && !std::mem::replace(&mut self.confirmed, true) {
            for event in std::mem::take(&mut self.held) {
                counts[event.zone].note(event.kind);
                events.push(event);
            }
        }
    }

    /// Takes in where it stands, as one of the zones sees it.
    fn look(
        &mut self,
        now_ns: u64,
        zone: &Zone,
        (track, n): (u64, usize),
        foot: Point,
        counts: &mut [Counts],
        events: &mut Vec<ZoneEvent>,
    ) {
        let presence = &mut self.zones[n];
        // Of the sightings that this zone sees, else who crosses a line in one that it does not has never crossed it.
        let from = presence.foot.replace(foot).unwrap_or(foot);
        let found = match &zone.shape {
            Shape::Area(polygon) => {
                let inside = polygon.contains(foot);
                [presence.step(now_ns, inside, zone.inertia), presence.loiter(now_ns, inside, zone.loitering)]
            }
            Shape::Line(line) => {
                let crossed = presence.cross(now_ns, line, from, foot, zone.inertia);
                let counts = crossed.filter(|(_, way)| zone.direction.is_none_or(|only| only == *way));
                [counts.map(|(at, way)| (at, ZoneEventKind::Crossed(way))), None]
            }
        };
        for (at_ns, kind) in found.into_iter().flatten() {
            let event = ZoneEvent { track, zone: n, at_ns, kind };
            if self.confirmed {
                counts[n].note(kind);
                events.push(event);
                continue;
            }
            if self.held.len() >= MAX_HELD {
                let zones = &self.zones;
                self.held.retain(|e| zones[e.zone].inside.is_some_and(|since| e.at_ns >= since));
            }
            self.held.push(event);
        }
    }
}

impl Zone {
    fn admits(&self, object: &Seen<'_>) -> bool {
        (self.objects.is_empty() || self.objects.iter().any(|class| class.eq_ignore_ascii_case(object.class)))
            && object.confidence >= self.min_confidence
            && (self.min_area..=self.max_area).contains(&object.area)
    }
}

impl Counts {
    fn note(&mut self, kind: ZoneEventKind) {
        match kind {
            ZoneEventKind::Entered => {
                self.entered += 1;
                self.present += 1;
            }
            ZoneEventKind::Left { .. } => self.present = self.present.saturating_sub(1),
            ZoneEventKind::Loitering { .. } => {}
            ZoneEventKind::Crossed(Direction::LeftToRight) => self.left_to_right += 1,
            ZoneEventKind::Crossed(Direction::RightToLeft) => self.right_to_left += 1,
        }
    }
}

impl Presence {
    /// Whether it enters or leaves with this sighting, and since when.
    fn step(&mut self, now_ns: u64, inside: bool, inertia: f64) -> Option<(u64, ZoneEventKind)> {
        if inside == self.inside.is_some() {
            self.otherwise = None;
            return None;
        }
        let (at, _) = *self.otherwise.get_or_insert((now_ns, Direction::LeftToRight));
        if now_ns.saturating_sub(at) < nanoseconds(inertia) {
            return None;
        }
        self.otherwise = None;
        if let Some(since) = self.inside.take() {
            return Some((at, ZoneEventKind::Left { dwell_ns: at.saturating_sub(since) }));
        }
        self.inside = Some(at);
        self.loitered = false;
        Some((at, ZoneEventKind::Entered))
    }

    /// Whether it has just been inside for too long.
    fn loiter(&mut self, now_ns: u64, inside: bool, limit: Option<f64>) -> Option<(u64, ZoneEventKind)> {
        let dwell_ns = now_ns.saturating_sub(self.inside.filter(|_| inside && !self.loitered)?);
        self.loitered = dwell_ns >= nanoseconds(limit?);
        self.loitered.then_some((now_ns, ZoneEventKind::Loitering { dwell_ns }))
    }

    /// Whether a crossing counts with this sighting, and when it was.
    fn cross(
        &mut self,
        now_ns: u64,
        line: &Line,
        from: Point,
        foot: Point,
        inertia: f64,
    ) -> Option<(u64, Direction)> {
        let left = line.side(foot) < 0.0;
        let was_left = *self.left_side.get_or_insert(left);
        if left == was_left {
            self.otherwise = None;
            return None;
        }
        if self.otherwise.is_none() {
            let Some(direction) = line.crossed(from, foot) else {
                // Around the end of the line.
                self.left_side = Some(left);
                return None;
            };
            self.otherwise = Some((now_ns, direction));
        }
        let (at, direction) = self.otherwise?;
        if now_ns.saturating_sub(at) < nanoseconds(inertia) {
            return None;
        }
        self.otherwise = None;
        self.left_side = Some(left);
        Some((at, direction))
    }
}
