//! Which segments have to go: those that are too old, and the oldest while there are too many bytes or too little
//! room. Segments with events may be kept for longer, and go last where room is short. Where they go (out, or to the
//! next tier) is the caller's business: the same rules say what leaves a tier.

mod ages;
mod late;
mod pace;
#[cfg(test)]
mod tests;

pub use ages::{Ages, DOUBTED};
pub use late::Late;
pub use pace::Pace;

/// What one camera may keep. A limit of `None` is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    pub max_age_us: Option<i64>,
    /// In place of `max_age_us` for segments with events.
    pub events_max_age_us: Option<i64>,
    pub max_bytes: Option<u64>,
}

/// A finished segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    pub id: i64,
    pub source_id: u32,
    pub start_us: i64,
    pub bytes: u64,
    pub has_events: bool,
}

impl Policy {
    /// Segments that began before this have outlived their time. The earlier of both limits comes first.
    pub fn too_old(&self, segment: &Candidate, now_us: i64) -> bool {
        let age = match (segment.has_events, self.events_max_age_us) {
            (true, Some(age)) => Some(age),
            _ => self.max_age_us,
        };
        age.is_some_and(|age| segment.start_us < now_us.saturating_sub(age))
    }

    /// Whether a segment goes after others that are younger than it.
    pub fn keeps_longer(&self, segment: &Candidate) -> bool {
        segment.has_events && self.events_max_age_us.is_some()
    }

    /// What of `oldest` (one camera's, oldest first) has to go while the camera has `used` bytes.
    pub fn plan(&self, oldest: &[Candidate], used: u64, now_us: i64) -> Vec<i64> {
        let (old, rest): (Vec<_>, Vec<_>) =
            oldest.iter().copied().partition(|segment| self.too_old(segment, now_us));
        let used = old.iter().fold(used, |used, segment| used.saturating_sub(segment.bytes));
        let over = self.max_bytes.map_or(0, |max| used.saturating_sub(max));
        // A limit of bytes counts for all; where there is a longer life for events, they go after the others.
        let more = make_room(&rest, over, |segment| self.keeps_longer(segment));
        old.iter().map(|segment| segment.id).chain(more).collect()
    }
}

/// The first of `oldest` (oldest first, of any camera) that together have `missing` bytes. Those that are kept
/// `longer` come after the others.
pub fn make_room(oldest: &[Candidate], missing: u64, longer: impl Fn(&Candidate) -> bool) -> Vec<i64> {
    let (kept, plain): (Vec<_>, Vec<_>) = oldest.iter().copied().partition(longer);
    let mut missing = missing;
    let mut gone = Vec::new();
    for segment in plain.iter().chain(&kept) {
        if missing == 0 {
            break;
        }
        missing = missing.saturating_sub(segment.bytes);
        gone.push(segment.id);
    }
    gone
}
