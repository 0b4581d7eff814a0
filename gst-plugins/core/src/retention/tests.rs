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

const HOUR: i64 = 3_600_000_000;

#[test]
fn a_clock_that_jumps_ahead_is_believed_after_an_hour() {
    let hours = |count: u64| Duration::from_hours(count);
    let mut ages = Ages::default();
    ages.begin(100 * HOUR, hours(0));
    // As it should be, and set back.
    assert_eq!(ages.now(100 * HOUR + HOUR / 2, hours(0)), 100 * HOUR + HOUR / 2);
    assert_eq!(ages.now(90 * HOUR, hours(1)), 90 * HOUR);
    assert!(!ages.doubts());
    // Ahead by far: time goes on as before, until the clock is right again.
    assert_eq!(ages.now(5000 * HOUR, hours(2)), 91 * HOUR);
    assert!(ages.doubts());
    assert_eq!(ages.now(92 * HOUR, hours(3)), 92 * HOUR);
    assert!(!ages.doubts());
    // Ahead, then further ahead: what counts is how long it has been where it is.
    let minutes = |count: u64| hours(3) + Duration::from_mins(count);
    assert_eq!(ages.now(5000 * HOUR, minutes(30)), 92 * HOUR + HOUR / 2);
    assert_eq!(ages.now(9000 * HOUR, minutes(89)), 92 * HOUR + 89 * HOUR / 60);
    assert_eq!(ages.now(9001 * HOUR, minutes(148)), 92 * HOUR + 148 * HOUR / 60);
    assert_eq!(ages.now(9001 * HOUR, minutes(149)), 9001 * HOUR);
    assert!(!ages.doubts());
}

#[test]
fn a_clock_is_believed_where_nothing_was_recorded() {
    let mut ages = Ages::default();
    assert_eq!(ages.now(7 * HOUR, Duration::ZERO), 7 * HOUR);
    ages.begin(HOUR, Duration::ZERO);
    assert_eq!(ages.now(7 * HOUR, Duration::ZERO), 7 * HOUR);
}

#[test]
fn what_is_freed_late_is_not_removed_again() {
    let at = Duration::from_secs;
    let mut late = Late::default();
    assert_eq!(late.missing(100, 40, at(0)), 60);
    // Free at once: that was it, however much is written meanwhile.
    late.removed(60, 100, at(0));
    assert_eq!(late.missing(100, 70, at(5)), 30);
    // Not free yet, then in part.
    late.removed(30, 70, at(5));
    assert_eq!(late.missing(100, 70, at(10)), 0);
    assert_eq!(late.missing(100, 60, at(15)), 10);
    late.removed(10, 60, at(15));
    assert_eq!(late.missing(100, 90, at(20)), 0);
    // What does not come is not waited for any longer.
    assert_eq!(late.missing(100, 60, at(75)), 40);
    assert!(!late.is_vain());
}

/// A snapshot holds everything that is removed.
#[test]
fn removing_that_does_not_help_is_slowed_down() {
    let mut late = Late::default();
    let (mut gone, mut seconds) = (0, 0);
    while seconds < 24 * 3600 {
        let now = Duration::from_secs(seconds);
        let missing = late.missing(100, 40, now);
        if missing > 0 {
            late.removed(missing, 40, now);
        }
        gone += missing;
        seconds += 5;
    }
    assert!(late.is_vain());
    assert_eq!(gone, 60 * 3 + 24 * 6);
    // The snapshot has gone.
    assert_eq!(late.missing(200, 190, Duration::from_secs(seconds)), 10);
    assert!(!late.is_vain());
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
