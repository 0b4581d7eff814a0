//! Connections that are lost, silent, refused or forgotten.

use std::time::Duration;

use gst::prelude::*;

use super::watch::{PATIENCE, Watch, each, lab};

const LAG: Duration = Duration::from_secs(5);

/// Long enough for a source that goes on trying to be seen doing it.
const LEFT_ALONE: Duration = Duration::from_secs(3);

#[test]
fn socket_open_no_data() {
    // With RTSP answered, and with nothing at all: the camera hangs, or its cable was pulled.
    each(&["mute", "stall"], |fault| {
        let Some((lab, uri)) = lab("") else { return };
        let mut watch = Watch::play(&uri, |src| src.set_property("timeout", 1_u32));
        watch.state("playing");
        watch.pictures.more(5);
        lab.tell(0, fault).unwrap();
        let reason = watch.state("stalled");
        assert!(reason.contains("1 s"), "{fault}: {reason}");
        // Again and again, as long as it lasts.
        lab.wait(0, PATIENCE, |counts| counts.connections >= 3).expect("further attempts");
        lab.tell(0, "clear").unwrap();
        watch.state("playing");
        let back = watch.pictures.more(5);
        assert!(back.iter().filter(|picture| picture.discont).count() <= 1);
        watch.check(LAG);
        assert!(lab.wait(0, PATIENCE, |counts| counts.open == 1).is_some(), "old connections are closed");
    });
}

#[test]
fn camera_restarts() {
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |_| {});
    watch.state("playing");
    for (fault, connections) in [("cut", 2), ("reset", 3)] {
        watch.pictures.more(5);
        lab.tell(0, fault).unwrap();
        watch.state("lost");
        watch.state("playing");
        assert_eq!(lab.counts(0).connections, connections, "{fault}");
    }
    watch.pictures.more(5);
    lab.tell(0, "off").unwrap();
    watch.state("lost");
    lab.wait(0, PATIENCE, |counts| counts.connections >= 5).expect("further attempts");
    lab.tell(0, "clear").unwrap();
    watch.state("playing");
    watch.pictures.more(5);
    watch.check(LAG);
}

#[test]
fn forgotten_session() {
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |src| src.set_property("timeout", 1_u32));
    watch.state("playing");
    watch.pictures.more(5);
    // As live555 does: the socket stays open, media stops, and whoever names the session is told 454.
    lab.tell(0, "forget").unwrap();
    watch.any_state(&["stalled", "lost"]);
    watch.state("playing");
    watch.pictures.more(5);
    watch.check(LAG);
    let counts = lab.counts(0);
    assert!(counts.requests("TEARDOWN") >= 1, "the old session is given up: {counts:?}");
    assert_eq!((counts.requests("SETUP"), counts.open), (2, 1), "a fresh session: {counts:?}");
}

#[test]
fn sessions_are_ended_with_teardown() {
    // Cameras have few sessions, and keep those that nobody ended.
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |_| {});
    watch.state("playing");
    watch.pictures.more(5);
    watch.source.set_property("uri", format!("{uri}?again"));
    watch.state("connecting");
    watch.state("playing");
    let ended = |n: u64| lab.wait(0, PATIENCE, |counts| counts.requests("TEARDOWN") == n);
    assert!(ended(1).is_some(), "another address: {:?}", lab.counts(0));
    watch.pipeline.set_state(gst::State::Null).unwrap();
    assert!(ended(2).is_some(), "the element stops: {:?}", lab.counts(0));
    assert!(lab.wait(0, PATIENCE, |counts| counts.open == 0).is_some());
}

#[test]
fn password_change_401() {
    // Basic shows the password, Digest what only those can compute who know it.
    each(&["password", "digest"], |scheme| {
        let Some((lab, uri)) = lab("") else { return };
        lab.tell(0, &format!("{scheme} old-sesame")).unwrap();
        let mut watch = Watch::play(&uri, |src| {
            src.set_property("user-id", "viewer");
            src.set_property("user-pw", "old-sesame");
        });
        watch.state("playing");
        watch.pictures.more(5);
        lab.tell(0, &format!("{scheme} new-sesame")).unwrap();
        watch.state("unauthorised");
        // Two attempts: nobody is locked out by that.
        let counts = lab.counts(0);
        assert_eq!((counts.connections, counts.wrong_passwords), (3, 2), "{scheme}: {counts:?}");
        let more = lab.wait(0, LEFT_ALONE, |now| now.connections > counts.connections);
        assert!(more.is_none(), "{scheme}: a camera that refuses is left alone: {more:?}");
        // A new password is tried at once.
        watch.source.set_property("user-pw", "new-sesame");
        watch.state("playing");
        watch.pictures.more(5);
        watch.check(LAG);
        assert_eq!(lab.counts(0).wrong_passwords, 2, "{scheme}");
        let said = format!("{:?} {:?}", watch.said, watch.source.property::<gst::Structure>("stats"));
        assert!(!said.contains("sesame"), "{said}");
        assert_eq!(watch.stat("failures"), 3, "{scheme}: the reset, and two refusals: {:?}", watch.said);
    });
}

#[test]
fn refusals_404_453_503() {
    each(&["404", "453", "454", "503"], |status| {
        let Some((lab, uri)) = lab("") else { return };
        lab.tell(0, &format!("answer {status}")).unwrap();
        let mut watch = Watch::play(&uri, |_| {});
        let reason = watch.state("lost");
        assert!(!reason.is_empty());
        lab.wait(0, PATIENCE, |counts| counts.connections >= 2).expect("another attempt");
        lab.tell(0, "clear").unwrap();
        watch.state("playing");
        watch.pictures.more(5);
        watch.check(LAG);
    });
}

#[test]
fn slow_and_late_line() {
    let Some((lab, uri)) = lab("") else { return };
    let mut watch = Watch::play(&uri, |src| src.set_property("timeout", 3_u32));
    watch.state("playing");
    watch.pictures.more(5);
    lab.tell(0, "delay 700ms 2s").unwrap();
    watch.pictures.more(50);
    // The camera sends several times as much.
    lab.tell(0, "throttle 100 2s").unwrap();
    watch.pictures.more(50);
    assert_eq!(lab.counts(0).connections, 1, "slow is not dead: {:?}", watch.said);
    watch.check(LAG);
}
