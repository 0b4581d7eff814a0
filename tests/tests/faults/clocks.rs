//! Cameras that lie about time.

use std::time::Duration;

use nvr_core::detection::Clock;

use super::watch::{Watch, lab};

/// However wrong the camera's clock is, a picture's running time is about when it came.
const LAG: Duration = Duration::from_secs(3);

#[test]
fn rtp_timestamp_jump_wrap_loss() {
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |_| {});
    watch.state("playing");
    watch.pictures.more(10);
    for fault in ["jump 2h", "jump -90s", "jump 500ms", "wrap", "drop 40 1s", "drop 100 1s"] {
        lab.tell(0, fault).unwrap();
        // Three seconds of pictures: past the wrap, and past the loss.
        watch.pictures.wait(fault, watch.pictures.count(), |new| {
            new.first().zip(new.last()).is_some_and(|(a, b)| b.now > a.now + gst::ClockTime::from_seconds(3))
        });
    }
    watch.pictures.more(10);
    watch.check(LAG);
}

#[test]
fn camera_clock_drift() {
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |_| {});
    watch.state("playing");
    for fault in ["drift 20000", "drift -20000"] {
        lab.tell(0, fault).unwrap();
        watch.pictures.more(75);
    }
    watch.check(LAG);
    assert_eq!(watch.stat("connections"), 1);
}

#[test]
fn camera_clock_step() {
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |_| {});
    watch.state("playing");
    let from = watch.pictures.count();
    watch.pictures.wait("the camera's time", from, |new| new.iter().any(|p| p.clock == Some(Clock::Ntp)));
    // The camera's time of day is set while it plays, then it is found wrong from the start.
    for start in [false, true] {
        lab.tell(0, "step 2h").unwrap();
        if start {
            lab.tell(0, "cut").unwrap();
            watch.state("lost");
            watch.state("playing");
        }
        let from = watch.pictures.count();
        watch.pictures.wait("times of arrival", from, |new| {
            new.iter().rev().take(5).filter(|p| p.clock == Some(Clock::Arrival)).count() == 5
        });
    }
    assert!(watch.stat("clock-refused") > 0);
    watch.check(LAG);
}
