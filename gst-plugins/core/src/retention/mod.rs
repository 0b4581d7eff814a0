//! Which segments have to go: those that are too old, and the oldest while there are too many bytes or too little
//! room. Segments with events may be kept for longer, and go last where room is short.

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
    pub start_us: i64,
    pub bytes: u64,
    pub has_events: bool,
}

impl Policy {
    /// Segments that ended before this have outlived their time. The earlier of both limits comes first.
    pub fn too_old(&self, segment: &Candidate, now_us: i64) -> bool {
        let age = match (segment.has_events, self.events_max_age_us) {
            (true, Some(age)) => Some(age),
            _ => self.max_age_us,
        };
        age.is_some_and(|age| segment.start_us < now_us.saturating_sub(age))
    }

    /// What has to go of `oldest` (oldest first) while the camera has `used` bytes and the volume lacks `missing`.
    pub fn plan(&self, oldest: &[Candidate], used: u64, missing: u64, now_us: i64) -> Vec<i64> {
        let mut gone: Vec<i64> = Vec::new();
        let (mut used, mut missing) = (used, missing);
        let mut take = |segment: &Candidate, used: &mut u64, missing: &mut u64| {
            *used = used.saturating_sub(segment.bytes);
            *missing = missing.saturating_sub(segment.bytes);
            gone.push(segment.id);
        };
        let (old, rest): (Vec<_>, Vec<_>) =
            oldest.iter().copied().partition(|segment| self.too_old(segment, now_us));
        for segment in &old {
            take(segment, &mut used, &mut missing);
        }
        // A limit of bytes counts for all; where there is a longer life for events, they go after the others.
        let longer = self.events_max_age_us.is_some();
        let (kept, plain): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|segment| longer && segment.has_events);
        for segment in plain.iter().chain(&kept) {
            if missing == 0 && self.max_bytes.is_none_or(|max| used <= max) {
                break;
            }
            take(segment, &mut used, &mut missing);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(id: i64, has_events: bool) -> Candidate {
        Candidate { id, start_us: id * 10, bytes: 100, has_events }
    }

    #[test]
    fn age_bytes_and_room_each_take_the_oldest() {
        let all: Vec<_> = (0..6).map(|id| segment(id, id == 0)).collect();
        for (policy, missing, expected) in [
            (Policy::default(), 0, vec![]),
            (Policy { max_age_us: Some(30), ..Policy::default() }, 0, vec![0, 1]),
            (Policy { max_age_us: Some(30), events_max_age_us: Some(1000), ..Policy::default() }, 0, vec![1]),
            (Policy { max_bytes: Some(350), ..Policy::default() }, 0, vec![0, 1, 2]),
            (
                Policy { max_bytes: Some(350), events_max_age_us: Some(1000), ..Policy::default() },
                0,
                vec![1, 2, 3],
            ),
            (Policy::default(), 101, vec![0, 1]),
        ] {
            assert_eq!(policy.plan(&all, 600, missing, 50), expected, "{policy:?} {missing}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_needed(sizes in proptest::collection::vec(1_u64..1000, 0..50), max in 0_u64..20_000) {
            let all: Vec<_> = sizes.iter().enumerate()
                .map(|(at, bytes)| Candidate { id: at as i64, start_us: at as i64, bytes: *bytes, has_events: false })
                .collect();
            let used: u64 = sizes.iter().sum();
            let gone = Policy { max_bytes: Some(max), ..Policy::default() }.plan(&all, used, 0, 0);
            let freed: u64 = gone.iter().map(|id| sizes[*id as usize]).sum();
            prop_assert!(used - freed <= max);
            if let Some(last) = gone.last() {
                prop_assert!(used - (freed - sizes[*last as usize]) > max);
            }
        }
    }
}
