//! Codecs, parameters and sound as cameras have them.

use std::time::Duration;

use gst::prelude::*;

use super::watch::{Watch, each, lab};

const LAG: Duration = Duration::from_secs(5);

#[test]
fn sps_change_resolution_change() {
    each(&["h264", "h265", "mjpeg"], |codec| {
        let Some((lab, uri)) = lab(codec) else { return };
        let mut watch = Watch::new(&uri, |_| {});
        // Whoever records sees the new parameters as new caps.
        let units = watch.request("encoded");
        watch.pipeline.set_state(gst::State::Playing).unwrap();
        watch.state("playing");
        watch.pictures.more(5);
        for (size, width) in [("480x270", 480), ("160x120", 160)] {
            lab.tell(0, &format!("resize {size}")).unwrap();
            for pad in [&watch.pictures, &units] {
                pad.wait(size, 0, |all| all.iter().filter(|p| p.width == width).count() > 5);
            }
        }
        assert_eq!(lab.counts(0).connections, 1, "{codec}: {:?}", watch.said);
        watch.check(LAG);
    });
}

#[test]
fn b_frames_h265_long_gop_garbage() {
    each(&["h264,b-frames=3", "h265", "h265,b-frames=2", "mjpeg", "h264,gop=500", "h265,gop=500"], |spec| {
        let Some((lab, uri)) = lab(spec) else { return };
        let mut watch = Watch::play(&uri, |_| {});
        watch.state("playing");
        watch.pictures.more(15);
        // Whatever comes of it, it is no wedge, and no reason to connect again.
        lab.tell(0, "corrupt 50 1s").unwrap();
        if !spec.contains("gop=500") {
            let from = watch.pictures.count();
            watch.pictures.wait(spec, from, |new| {
                new.first()
                    .is_some_and(|a| new.iter().any(|b| b.now > a.now + gst::ClockTime::from_seconds(2)))
            });
            assert_eq!(lab.counts(0).connections, 1, "{spec}: {:?}", watch.said);
        }
        watch.check(LAG);
    });
}

#[test]
fn no_or_late_audio() {
    each(&["none", "pcma", "pcmu", "aac", "opus"], |audio| {
        let Some((lab, uri)) = lab(&format!("audio={audio}")) else { return };
        lab.tell(0, "mute audio").unwrap();
        let mut watch = Watch::new(&uri, |_| {});
        let (units, sound) = (watch.request("encoded"), watch.request("audio"));
        watch.pipeline.set_state(gst::State::Playing).unwrap();
        watch.state("playing");
        watch.pictures.more(10);
        units.more(10);
        assert_eq!(sound.count(), 0, "{audio}: there is none yet");
        lab.tell(0, "clear").unwrap();
        if audio != "none" {
            sound.more(20);
        }
        watch.pictures.more(10);
        units.more(10);
        let packets = sound.all();
        assert_eq!(packets.is_empty(), audio == "none", "{audio}");
        for pair in packets.windows(2) {
            assert!(pair[0].pts < pair[1].pts, "{audio}: time went back or stood still: {pair:?}");
        }
        for packet in &packets {
            let off = Duration::from(packet.now.absdiff(packet.pts));
            assert!(off <= LAG, "{audio}: {off:?} between a packet's time and its coming");
        }
        assert_eq!(lab.counts(0).connections, 1, "{audio}: {:?}", watch.said);
        watch.check(LAG);
    });
}

#[test]
fn camera_changes_its_mind_between_connections() {
    // A camera that was set to another codec: the next connection brings it.
    let Some((lab, uri)) = lab("h264") else { return };
    let mut watch = Watch::play(&uri, |_| {});
    watch.state("playing");
    let before = watch.source.property::<gst::Structure>("stats").get::<String>("decoder").unwrap();
    let spec = "mjpeg,640x360,fps=10".parse().unwrap();
    lab.add_spec(0, &spec).unwrap();
    lab.tell(0, "cut").unwrap();
    watch.pictures.wait("the new picture", 0, |all| all.iter().filter(|p| p.width == 640).count() > 3);
    let after = watch.source.property::<gst::Structure>("stats").get::<String>("decoder").unwrap();
    assert_ne!(before, after);
    watch.check(LAG);
}
