//! Cameras that send what no camera should.

use std::time::Duration;

use gst::prelude::*;

use super::watch::{PATIENCE, Watch, each, lab};

const LAG: Duration = Duration::from_secs(5);

/// Resident memory of this process, MB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn hostile_camera_sdp() {
    each(&["empty", "garbage", "truncated", "huge", "parameters"], |kind| {
        let Some((lab, uri)) = lab("audio=aac") else { return };
        lab.tell(0, &format!("sdp {kind}")).unwrap();
        let mut watch = Watch::play(&uri, |src| src.set_property("timeout", 2_u32));
        let (state, reason) = watch.any_state(&["lost", "stalled", "playing"]);
        // A description may be so wrong that there is nothing to play, or so little that there still is.
        if state != "playing" {
            assert!(!reason.is_empty(), "{kind}");
            lab.wait(0, PATIENCE, |counts| counts.connections >= 2).expect("another attempt");
            lab.tell(0, "clear").unwrap();
            watch.state("playing");
        }
        watch.pictures.more(5);
        watch.check(LAG);
    });
}

#[test]
fn hostile_camera_endless_headers() {
    let Some((lab, uri)) = lab("") else { return };
    lab.tell(0, "headers").unwrap();
    let before = resident();
    let mut watch = Watch::play(&uri, |src| src.set_property("timeout", 2_u32));
    let (_, reason) = watch.any_state(&["lost", "stalled"]);
    assert!(!reason.is_empty());
    let grown = resident().saturating_sub(before);
    // A megabyte a second may be read until it is enough; other tests of this process need some as well.
    assert!(grown < 64, "{grown} MB more");
    lab.tell(0, "clear").unwrap();
    watch.state("playing");
    watch.pictures.more(5);
    watch.check(LAG);
}
