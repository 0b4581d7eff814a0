//! What lies between the pictures that `max-fps` lets through is decoded as far as they are made from it.

use gst::prelude::*;
use gstnvr::meta;
use nvr_launch::rtsp_server::{Camera, RtspServer};

use crate::{
    memory::{pixels, reference},
    player::{Player, clip},
};

const FRAMES: usize = 80;

#[test]
fn pictures_are_the_same_when_others_wait_or_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    // Fewer keyframes than pictures that are wanted: 1.25 and 2 a second.
    let Some(file) = clip(folder.path(), FRAMES as u32, 20, 0) else { return };
    let expected = reference(&file);
    assert_eq!(expected.len(), FRAMES);
    let server = RtspServer::start().unwrap();
    for receiver in ["light", "rtspsrc"] {
        // Shows its clip over and over again.
        let uri = server.add_camera(receiver, &Camera::File(file.clone())).unwrap();
        let player = Player::play(&uri, |src| {
            src.set_property("max-fps", 2.0);
            src.set_property_from_str("receiver", receiver);
        });
        // Frames of the clip that the first picture may have been: some look alike.
        let (mut last, mut begins): (_, Vec<_>) = (0, (0..FRAMES).collect());
        for _ in 0..12 {
            let sample = player.picture();
            let seen = pixels(&sample);
            last = meta::facts(sample.buffer().unwrap()).frame_id.unwrap();
            begins.retain(|begin| expected[(begin + last as usize) % FRAMES] == seen);
            assert!(!begins.is_empty(), "{receiver}: picture {last}");
        }
        let (decoded, skipped) = (player.stat("decoded"), player.stat("skipped"));
        // Six seconds. From the third keyframe on the length of a group is known; a part of each is left out.
        assert!(skipped >= 10 && decoded >= last / 2, "{receiver}: {skipped} of {last} were not decoded");
        assert!(decoded + skipped >= last, "{receiver}: {decoded} and {skipped} of {last}");
        assert_eq!((player.stat("undecodable"), player.stat("late")), (0, 0));
    }
}
