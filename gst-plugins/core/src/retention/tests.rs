use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn segment(id: i64, has_events: bool) -> Candidate {
    Candidate { id, source_id: 0, start_us: id * 10, bytes: 100, has_events }
}

#[test]
fn age_and_bytes_each_take_the_oldest() {
    let all: Vec<_> = (0..6).map(|id| segment(id, id == 0)).collect();
    for (policy, expected) in [
        (Policy::default(), vec![]),
        (Policy { max_age_us: Some(30), ..Policy::default() }, vec![0, 1]),
        (Policy { max_age_us: Some(30), events_max_age_us: Some(1000), ..Policy::default() }, vec![1]),
        (Policy { max_age_us: Some(30), events_max_age_us: Some(20), ..Policy::default() }, vec![0, 1]),
        (Policy { max_bytes: Some(350), ..Policy::default() }, vec![0, 1, 2]),
        (Policy { max_age_us: Some(30), max_bytes: Some(350), ..Policy::default() }, vec![0, 1, 2]),
        (Policy { max_bytes: Some(350), events_max_age_us: Some(1000), ..Policy::default() }, vec![1, 2, 3]),
        // The limit of bytes is kept although all that is left has events.
        (
            Policy { max_bytes: Some(0), events_max_age_us: Some(1000), ..Policy::default() },
            vec![1, 2, 3, 4, 5, 0],
        ),
    ] {
        assert_eq!(policy.plan(&all, 600, 50), expected, "{policy:?}");
    }
}

#[test]
fn room_is_made_by_the_oldest_of_all_cameras() {
    let all: Vec<_> =
        (0..6).map(|id| Candidate { source_id: id as u32 % 2, ..segment(id, id < 2) }).collect();
    assert!(make_room(&all, 0, |_| false).is_empty());
    assert_eq!(make_room(&all, 101, |_| false), [0, 1]);
    // One camera keeps what has events for longer, the other does not.
    assert_eq!(make_room(&all, 300, |s| s.has_events && s.source_id == 0), [1, 2, 3]);
    assert_eq!(make_room(&all, u64::MAX, |s| s.has_events), [2, 3, 4, 5, 0, 1]);
}

#[test]
fn bytes_are_spread_over_time_and_idle_time_is_not_saved() {
    let mut pace = Pace::default();
    let seconds = Duration::from_secs;
    assert_eq!(pace.take(100, 100, seconds(0)), seconds(1));
    assert_eq!(pace.take(100, 100, seconds(0)), seconds(2));
    assert_eq!(pace.take(100, 100, seconds(60)), seconds(1));
    assert_eq!(pace.take(u64::MAX, 0, seconds(60)), Duration::ZERO);
    assert_eq!(pace.take(50, 100, seconds(60)), Duration::from_millis(500));
}

proptest! {
    #[test]
    fn never_more_than_needed(sizes in proptest::collection::vec(1_u64..1000, 0..50), max in 0_u64..20_000) {
        let all: Vec<_> = sizes.iter().enumerate()
            .map(|(at, bytes)| Candidate { id: at as i64, source_id: 0, start_us: at as i64, bytes: *bytes, has_events: false })
            .collect();
        let used: u64 = sizes.iter().sum();
        let gone = Policy { max_bytes: Some(max), ..Policy::default() }.plan(&all, used, 0);
        let freed: u64 = gone.iter().map(|id| sizes[*id as usize]).sum();
        prop_assert!(used - freed <= max);
        if let Some(last) = gone.last() {
            prop_assert!(used - (freed - sizes[*last as usize]) > max);
        }
    }
}
