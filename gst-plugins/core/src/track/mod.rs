//! Following objects from frame to frame.
//!
//! [`Algorithm::ByteTrack`] follows Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection
//! Box" (2022): confident boxes meet the predicted tracks first, then the doubtful ones meet what is left, and only
//! confident ones begin a track. Four things differ because cameras here run at anything from one frame in two
//! seconds to thirty a second: every span is time and not a number of frames; where frames are far apart, what
//! is left is matched once more with boxes that are widened by as far as an object may have moved; and classes are
//! kept apart, except for a box that changes its class without moving. And where the original has a second, higher
//! threshold for new tracks, here a doubtful object has to be seen more often before it gets its id.
//!
//! [`Algorithm::Iou`] matches each box with where the track was last seen.

mod assign;
mod clock;
mod kalman;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use assign::{Assigner, Pair};
pub use clock::{Look, LookClock};
use kalman::Motion;

use crate::{detection::Detection, geometry::Rect, times::nanoseconds};

/// How boxes and tracks find each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Algorithm {
    #[default]
    ByteTrack,
    Iou,
}

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    pub algorithm: Algorithm,
    /// Seconds for which an object that is not seen is looked for.
    pub max_lost: f64,
    /// Sightings after which a track gets its id. From 2, a doubtful one counts less, down to a quarter; see [`DOUBT_S`].
    pub min_hits: u32,
    /// Confidence from which a box may begin a track.
    pub new: f32,
    /// Confidence from which a box is matched in earnest; with less it can only continue a track that it covers well.
    pub high: f32,
    /// Boxes with less are not looked at.
    pub low: f32,
}

impl Default for Params {
    fn default() -> Self {
        Self { algorithm: Algorithm::default(), max_lost: 2.0, min_hits: 2, new: 0.5, high: 0.5, low: 0.1 }
    }
}

/// What the sightings of a track have to weigh, as a share of [`Params::min_hits`], before it gets its id, and the least
/// that one weighs. What a detector is unsure of is more often nothing, and then mostly for a few frames only: asking
/// for more sightings of it costs an object less than a higher threshold, which it may never reach.
const SURE: f32 = 0.85;
const DOUBTFUL: f32 = 0.25;
/// Seconds after which a doubtful object is as good as a sure one: slow cameras have no frames to spare.
pub const DOUBT_S: f64 = 0.5;

/// Least overlap of a track and a confident box, weighted with its confidence.
const FIRST: f32 = 0.22;
/// Least overlap of a track and a doubtful box.
const SECOND: f32 = 0.45;
/// Least overlap of a track that has no id yet and a confident box, weighted.
const NEW: f32 = 0.4;
/// Least overlap of an object that changes its class.
const RELABEL: f32 = 0.7;
/// Two tracks that overlap more than this follow one object.
const DUPLICATE: f32 = 0.9;
/// Least overlap without a prediction (`Algorithm::Iou`).
const PLAIN: f32 = 0.3;

/// How far an object may move against its prediction, in sizes of its own per second: more than a person runs, and
/// about what a car does in a street.
const SPEED: f32 = 2.0;
/// Boxes are widened by no more than this many sizes on each side.
const MAX_MARGIN: f32 = 1.5;
/// Below this margin, widening is left out: frames come fast enough.
const MIN_MARGIN: f32 = 0.08;
/// Least overlap of widened boxes, and least ratio of their areas.
const WIDENED: f32 = 0.1;
const SAME_SIZE: f32 = 0.4;

/// Tracks at a time; more than any camera shows. Further boxes begin none.
const MAX_TRACKS: usize = 1000;

#[derive(Clone, Debug)]
struct Track {
    /// From the moment it is confirmed.
    id: Option<u64>,
    class: Arc<str>,
    motion: Motion,
    /// Where it was last seen.
    rect: Rect,
    /// Where it should be now.
    expected: Rect,
    born_ns: u64,
    seen_ns: u64,
    hits: u32,
    /// What its sightings weigh.
    evidence: f32,
    lost: bool,
}

impl Track {
    /// Whether it has been seen often enough to be something.
    fn is_certain(&self, now_ns: u64, min_hits: u32) -> bool {
        let old = now_ns - self.born_ns >= nanoseconds(DOUBT_S);
        self.hits >= min_hits && (min_hits <= 1 || old || self.evidence >= SURE * min_hits as f32)
    }
}

/// What one sighting weighs.
fn weight(confidence: f32) -> f32 {
    (2.0 * confidence - 1.0).clamp(0.0, 1.0).powi(2).max(DOUBTFUL)
}

/// Follows the objects of one camera.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    tracks: Vec<Track>,
    last_ns: Option<u64>,
    scratch: Scratch,
}

/// Working memory, kept between frames.
#[derive(Clone, Debug, Default)]
struct Scratch {
    assigner: Assigner,
    pairs: Vec<Pair>,
    chosen: Vec<usize>,
    /// For each detection the track it has been given to.
    owner: Vec<Option<usize>>,
    /// For each track whether it has been found.
    found: Vec<bool>,
    ids: Vec<Option<u64>>,
}

impl Tracker {
    /// Forgets everything; ids are not given twice as long as `new_id` does not.
    pub fn reset(&mut self) {
        self.tracks.clear();
        self.last_ns = None;
    }

    /// Objects that are followed and have an id, seen in the last frame or looked for.
    pub fn confirmed(&self) -> usize {
        self.tracks.iter().filter(|track| track.id.is_some()).count()
    }

    /// Where the filter has each object of the last frame, with its id: steadier than the detector's boxes.
    pub fn boxes(&self) -> impl Iterator<Item = (u64, Rect)> {
        self.tracks.iter().filter(|t| !t.lost).filter_map(|t| Some((t.id?, t.expected)))
    }

    /// Lets time pass in which nothing has moved, and nobody has looked for that reason: who was there is still there.
    pub fn hold(&mut self, now_ns: u64) {
        if self.last_ns.is_none_or(|last| now_ns < last) {
            return;
        }
        self.last_ns = Some(now_ns);
        for track in self.tracks.iter_mut().filter(|track| !track.lost) {
            track.seen_ns = now_ns;
        }
    }

    /// Takes in what was seen at `now_ns` and says which track each detection belongs to: an id once the track is
    /// confirmed. Time that goes backwards begins anew.
    pub fn update(
        &mut self,
        now_ns: u64,
        detections: &[Detection],
        params: &Params,
        mut new_id: impl FnMut() -> u64,
    ) -> &[Option<u64>] {
        if self.last_ns.is_some_and(|last| now_ns < last) {
            self.reset();
        }
        let first_frame = self.last_ns.is_none();
        let dt = self.last_ns.map_or(0.0, |last| (now_ns - last) as f32 / 1e9);
        self.last_ns = Some(now_ns);

        // Before anything is matched: what has been away for too long must not come back, however far apart frames
        // are. At slow rates one missed frame is always allowed.
        let limit = nanoseconds(params.max_lost);
        let limit = limit.max((2.5 * dt * 1e9) as u64);
        self.tracks.retain(|track| now_ns - track.seen_ns <= limit);

        let Scratch { owner, found, .. } = &mut self.scratch;
        owner.clear();
        owner.resize(detections.len(), None);
        found.clear();
        found.resize(self.tracks.len(), false);
        match params.algorithm {
            Algorithm::ByteTrack => {
                for track in &mut self.tracks {
                    if track.lost {
                        track.motion.hold_size();
                    }
                    track.motion.predict(dt);
                    track.expected = track.motion.rect();
                }
                self.associate(detections, params, dt);
            }
            Algorithm::Iou => {
                for track in &mut self.tracks {
                    track.expected = track.rect;
                }
                self.pass(detections, |track, d| {
                    let overlap = overlap(track, d);
                    (d.confidence >= params.low && same_class(track, d) && overlap >= PLAIN)
                        .then_some(overlap)
                });
            }
        }
        self.follow(now_ns, detections);
        self.retire();
        self.begin(now_ns, detections, params.new.max(params.high));

        // Sightings before the first frame are not known: what is there then is taken at its word.
        for track in &mut self.tracks {
            if track.id.is_none() && (first_frame || track.is_certain(now_ns, params.min_hits)) {
                track.id = Some(new_id());
            }
        }
        let Scratch { owner, ids, .. } = &mut self.scratch;
        ids.clear();
        ids.extend(owner.iter().map(|owner| owner.and_then(|track| self.tracks[track].id)));
        ids
    }

    /// The passes of ByteTrack, and those for slow cameras and changed minds.
    fn associate(&mut self, detections: &[Detection], params: &Params, dt: f32) {
        let high = |d: &Detection| d.confidence >= params.high;
        self.pass(detections, |track, d| {
            let gain = overlap(track, d) * d.confidence;
            (track.id.is_some() && high(d) && same_class(track, d) && gain >= FIRST).then_some(gain)
        });
        self.pass(detections, |track, d| {
            let overlap = overlap(track, d);
            let doubtful = !high(d) && d.confidence >= params.low;
            (track.id.is_some() && !track.lost && doubtful && same_class(track, d) && overlap >= SECOND)
                .then_some(overlap)
        });
        self.pass(detections, |track, d| {
            let gain = overlap(track, d) * d.confidence;
            (track.id.is_none() && high(d) && same_class(track, d) && gain >= NEW).then_some(gain)
        });
        let margin = (SPEED * dt).min(MAX_MARGIN);
        if margin >= MIN_MARGIN {
            self.pass(detections, |track, d| {
                if !high(d) || !same_class(track, d) {
                    return None;
                }
                let (a, b) = (track.expected.area(), d.rect.area());
                let overlap = widened(&track.expected, margin).iou(&widened(&d.rect, margin));
                (a.min(b) >= SAME_SIZE * a.max(b) && overlap >= WIDENED).then_some(overlap)
            });
        }
        self.pass(detections, |track, d| {
            let overlap = overlap(track, d);
            (high(d) && !track.lost && overlap >= RELABEL).then_some(overlap)
        });
    }

    /// Matches the tracks and the detections that are left over, where `gain` allows.
    fn pass(&mut self, detections: &[Detection], gain: impl Fn(&Track, &Detection) -> Option<f32>) {
        let Scratch { assigner, pairs, chosen, owner, found, .. } = &mut self.scratch;
        pairs.clear();
        chosen.clear();
        for (column, d) in detections.iter().enumerate().filter(|(n, _)| owner[*n].is_none()) {
            for (row, track) in self.tracks.iter().enumerate().filter(|(n, _)| !found[*n]) {
                pairs.extend(gain(track, d).map(|gain| Pair { row, column, gain }));
            }
        }
        assigner.solve(self.tracks.len(), detections.len(), pairs, chosen);
        for &n in &*chosen {
            owner[pairs[n].column] = Some(pairs[n].row);
            found[pairs[n].row] = true;
        }
    }

    /// Moves the tracks that were found to where they were seen; the others are lost.
    fn follow(&mut self, now_ns: u64, detections: &[Detection]) {
        for (track, found) in self.tracks.iter_mut().zip(&self.scratch.found) {
            track.lost = !found;
        }
        for (d, owner) in detections.iter().zip(&self.scratch.owner) {
            let Some(track) = owner.map(|owner| &mut self.tracks[owner]) else { continue };
            track.motion.update(&d.rect);
            track.rect = d.rect;
            track.expected = track.motion.rect();
            track.class = d.class_name.clone();
            track.seen_ns = now_ns;
            track.hits = track.hits.saturating_add(1);
            track.evidence += weight(d.confidence);
        }
    }

    /// Drops tracks that missed their confirmation, and of two that follow one object the younger.
    fn retire(&mut self) {
        let mut drop = vec![false; self.tracks.len()];
        for (n, track) in self.tracks.iter().enumerate() {
            drop[n] = track.lost && track.id.is_none();
            if !track.lost || track.id.is_none() {
                continue;
            }
            for (m, other) in self.tracks.iter().enumerate().filter(|(_, t)| !t.lost && t.id.is_some()) {
                if track.class == other.class && track.expected.iou(&other.expected) > DUPLICATE {
                    let lost_is_older = track.seen_ns - track.born_ns > other.seen_ns - other.born_ns;
                    drop[if lost_is_older { m } else { n }] = true;
                }
            }
        }
        if !drop.contains(&true) {
            return;
        }
        // Owners are indices into the list that is about to shrink.
        let mut next = 0;
        let new_index: Vec<Option<usize>> = drop
            .iter()
            .map(|&drop| {
                next += usize::from(!drop);
                (!drop).then(|| next - 1)
            })
            .collect();
        let mut keep = drop.iter().map(|drop| !drop);
        self.tracks.retain(|_| keep.next().unwrap_or(true));
        for owner in &mut self.scratch.owner {
            *owner = owner.and_then(|owner| new_index[owner]);
        }
    }

    /// Begins a track with every confident box that belongs to none.
    fn begin(&mut self, now_ns: u64, detections: &[Detection], least: f32) {
        for (d, owner) in detections.iter().zip(&mut self.scratch.owner) {
            if owner.is_some()
                || d.confidence < least
                || !d.rect.is_valid()
                || self.tracks.len() >= MAX_TRACKS
            {
                continue;
            }
            *owner = Some(self.tracks.len());
            self.tracks.push(Track {
                id: None,
                class: d.class_name.clone(),
                motion: Motion::new(&d.rect),
                rect: d.rect,
                expected: d.rect,
                born_ns: now_ns,
                seen_ns: now_ns,
                hits: 1,
                evidence: weight(d.confidence),
                lost: false,
            });
        }
    }
}

fn same_class(track: &Track, d: &Detection) -> bool {
    Arc::ptr_eq(&track.class, &d.class_name) || track.class == d.class_name
}

fn overlap(track: &Track, d: &Detection) -> f32 {
    track.expected.iou(&d.rect)
}

/// The box with a margin of so many of its own sizes on each side.
fn widened(rect: &Rect, margin: f32) -> Rect {
    let by = margin * (rect.width * rect.height).max(0.0).sqrt();
    Rect::new(rect.x - by, rect.y - by, rect.width + 2.0 * by, rect.height + 2.0 * by)
}
