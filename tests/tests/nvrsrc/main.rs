//! `nvrsrc` against a real RTSP server that is stopped, restarted, silenced and locked.

mod branches;
mod codecs;
mod hold;
mod light;
mod memory;
mod player;
mod scripted;
mod seldom;

use std::{
    net::TcpListener,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gst::prelude::*;
use gstnvr::meta;
use nvr_core::detection::Clock;
use nvr_launch::rtsp_server::{Camera, Options, RtspServer, TestSrc};
use player::{Player, SOON, clip, init, pts};

#[test]
fn pictures_come_with_number_and_capture_time() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 25, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let mut player = Player::play(&uri, |_| {});
    let (mut last_time, mut last_id, mut ntp) = (None, None, 0);
    for _ in 0..100 {
        let sample = player.picture();
        let caps = sample.caps().unwrap().structure(0).unwrap().to_owned();
        assert_eq!((caps.get::<i32>("width"), caps.get::<i32>("height")), (Ok(320), Ok(180)));
        let facts = meta::facts(sample.buffer().unwrap());
        assert!(last_time < Some(pts(&sample)), "time went back");
        assert!(last_id < facts.frame_id, "{last_id:?} {:?}", facts.frame_id);
        (last_time, last_id) = (Some(pts(&sample)), facts.frame_id);
        let capture = facts.capture.expect("a capture time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(now.abs_diff(capture.unix_ns) < 5_000_000_000, "{capture:?}, now {now}");
        ntp += u32::from(capture.clock == Clock::Ntp);
    }
    assert!(ntp > 0, "no picture had the camera's time");
    player.state("playing");
    assert_eq!(player.stat("dropped") + player.stat("skipped"), 0);
}

#[test]
fn max_fps_follows_while_playing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 100, 50, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::play(&uri, |src| src.set_property("max-fps", 5.0));
    let distance = |n: u64| {
        let first = pts(&player.picture());
        let last = (0..n).fold(first, |_, _| pts(&player.picture()));
        (last - first).mseconds() as f64 / n as f64
    };
    // The second picture comes early: it begins the source's own schedule.
    player.picture();
    let slow = distance(8);
    assert!((195.0..=215.0).contains(&slow), "{slow} ms at 5 fps");
    player.source.set_property("max-fps", 12.5);
    // Pictures of the old rate may be waiting.
    distance(3);
    let fast = distance(12);
    assert!((78.0..=90.0).contains(&fast), "{fast} ms at 12.5 fps");
    assert!(player.stat("dropped") > 0);
}

#[test]
fn a_restarted_server_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let (port, uri) = (server.port(), server.add_camera("0", &Camera::File(file.clone())).unwrap());
    let mut player = Player::play(&uri, |_| {});
    let mut last = pts(&player.picture());
    player.state("playing");
    drop(server);
    player.state("lost");
    while let Some(sample) = player.sink.try_pull_sample(gst::ClockTime::ZERO) {
        last = pts(&sample);
    }
    assert!(!player.sink.is_eos());
    let server = RtspServer::with_options(Options { port, ..Options::default() }).unwrap();
    server.add_camera("0", &Camera::File(file)).unwrap();
    player.state("playing");
    let sample = player.picture();
    assert!(sample.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT));
    assert!(pts(&sample) > last + gst::ClockTime::from_mseconds(200), "the pause shows in the time");
    assert!(player.stat("failures") >= 1);
}

#[test]
fn a_silent_camera_is_noticed_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let mut player = Player::play(&uri, |src| src.set_property("timeout", 2_u32));
    player.picture();
    player.state("playing");
    server.set_paused("0", true);
    let reason = player.state("stalled");
    assert!(reason.contains("2 s"), "{reason}");
    server.set_paused("0", false);
    player.state("playing");
}

#[test]
fn a_wrong_password_is_tried_twice_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let options =
        Options { credentials: Some(("viewer".into(), "open-sesame".into())), ..Options::default() };
    let server = RtspServer::with_options(options).unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let wrong = uri.replace("rtsp://", "rtsp://viewer:wrong-guess@");
    let mut player = Player::play(&wrong, |_| {});
    player.state("unauthorised");
    assert_eq!(player.stat("connections"), 2);
    let shown: String = player.source.property("uri");
    assert_eq!(shown, uri);
    assert!(player.said.iter().all(|text| !text.contains("wrong-guess")), "{:?}", player.said);
    // The right one is taken at once.
    player.source.set_property("user-pw", "open-sesame");
    player.state("playing");
    player.picture();
    assert!(player.said.iter().all(|text| !text.contains("open-sesame")), "{:?}", player.said);
}

#[test]
fn stopping_does_not_wait_for_a_camera_that_does_not_answer() {
    // The connection is accepted by the kernel, and nobody ever answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rtsp://{}/0", listener.local_addr().unwrap());
    let mut player = Player::play(&uri, |_| {});
    player.state("connecting");
    let (_connection, _) = listener.accept().unwrap();
    let before = Instant::now();
    player.pipeline.set_state(gst::State::Null).unwrap();
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
}

#[test]
fn another_uri_while_playing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("1", &Camera::File(file)).unwrap();
    let mut player = Player::play(&server.uri("0"), |_| {});
    let reason = player.state("lost");
    assert!(!reason.is_empty());
    player.source.set_property("uri", &uri);
    player.state("playing");
    player.picture();
}

#[test]
fn starts_again_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::play(&uri, |_| {});
    for state in [gst::State::Null, gst::State::Ready, gst::State::Paused] {
        player.picture();
        player.pipeline.set_state(state).unwrap();
        player.pipeline.set_state(gst::State::Playing).unwrap();
    }
    player.picture();
}

#[test]
fn files_play_at_their_own_pace_and_end_or_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 25, 10, 2) else { return };
    let uri = format!("file://{}", file.display());
    let player = Player::play(&uri, |_| {});
    let began = Instant::now();
    let times: Vec<_> =
        std::iter::from_fn(|| player.sink.try_pull_sample(SOON)).map(|sample| pts(&sample)).collect();
    assert_eq!(times.len(), 25);
    assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
    assert!(player.sink.is_eos());

    let player = Player::play(&uri, |src| src.set_property("loop", true));
    let times: Vec<_> = (0..60).map(|_| pts(&player.picture())).collect();
    assert!(times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
    assert!(player.stat("connections") >= 3);
}

#[test]
fn keyframes_alone_are_decoded_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // With B-frames a decoder holds back pictures until later ones come.
    let Some(file) = clip(folder.path(), 50, 10, 2) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::play(&uri, |src| src.set_property_from_str("decode", "keyframes"));
    let mut times = Vec::new();
    for _ in 0..6 {
        let sample = player.picture();
        let age = player.pipeline.current_running_time().unwrap().saturating_sub(pts(&sample));
        times.push((pts(&sample).mseconds(), age.mseconds()));
    }
    let distance = (times[5].0 - times[1].0) / 4;
    assert!((380..=420).contains(&distance), "a keyframe every 10 frames: {times:?}");
    let soonest = times.iter().map(|(_, age)| age).min().unwrap();
    assert!(*soonest < 300, "not held back until the next keyframe: {times:?}");
    assert!(player.stat("skipped") >= 9 * 5);
}

#[test]
fn a_slow_watch_needs_only_keyframes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::play(&uri, |src| src.set_property("max-fps", 2.0));
    let times: Vec<_> = (0..8).map(|_| pts(&player.picture()).mseconds()).collect();
    let (decoded, skipped) = (player.stat("decoded"), player.stat("skipped"));
    assert!(skipped > 2 * decoded, "{decoded} decoded, {skipped} skipped");
    assert!(times.windows(2).all(|w| w[1] - w[0] >= 360), "{times:?}");
}

#[test]
fn what_cannot_work_is_said_at_once() {
    init();
    for (uri, expected) in [("", "no uri"), ("ftp://cam/1", "ftp"), ("rtsp://u:top-secret@", "host")] {
        let player = Player::new(uri, |_| {});
        assert!(player.pipeline.set_state(gst::State::Playing).is_err(), "{uri}");
        let message = player.pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]).unwrap();
        let text = format!("{message:?}");
        assert!(text.contains(expected) && !text.contains("top-secret"), "{text}");
    }
    let player = Player::play("file:///nowhere/street.mp4", |src| src.set_property("reconnect", false));
    let message =
        player.pipeline.bus().unwrap().timed_pop_filtered(SOON, &[gst::MessageType::Error]).unwrap();
    assert!(format!("{message:?}").contains("/nowhere/street.mp4"), "{message:?}");
}

#[test]
fn real_files_of_every_codec_play_from_disk_and_over_rtsp() {
    init();
    let server = RtspServer::start().unwrap();
    for (name, rtsp) in [
        ("swdee_cars.mp4", true),
        ("deepstream_Retail02_short.mp4", true),
        ("x_cars_mjpeg_5fps.mkv", true),
        ("vtest_tiodh.mp4", true),
        ("sobral_video1.avi", false),
    ] {
        let Some(file) = nvr_tests::data::shared(&format!("videos/{name}")) else { return };
        let file = file.canonicalize().unwrap();
        let mut uris = vec![format!("file://{}", file.display())];
        if rtsp {
            uris.push(server.add_camera(name, &Camera::File(file)).unwrap());
        }
        for uri in uris {
            let mut player = Player::play(&uri, |_| {});
            player.state("playing");
            let times: Vec<_> = (0..10).map(|_| pts(&player.picture())).collect();
            assert!(times.windows(2).all(|w| w[0] < w[1]), "{uri}: {times:?}");
        }
    }
}

#[test]
fn the_test_source_plays_here_and_over_rtsp() {
    let player = Player::play("testsrc://?seed=7&width=320&height=180&framerate=10&objects=3", |_| {});
    let sample = player.picture();
    let caps = sample.caps().unwrap().structure(0).unwrap().to_owned();
    assert_eq!((caps.get::<i32>("width"), caps.get::<i32>("height")), (Ok(320), Ok(180)));
    assert_eq!(caps.get::<gst::Fraction>("framerate"), Ok(gst::Fraction::new(10, 1)));
    assert!(meta::facts(sample.buffer().unwrap()).capture.is_some());

    let mut player = Player::new("testsrc://?colour=blue", |_| {});
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let reason = player.state("lost");
    assert!(reason.contains("colour=blue"), "{reason}");

    if gst::ElementFactory::find("x264enc").is_none() && gst::ElementFactory::find("openh264enc").is_none() {
        eprintln!("skipped in part: no H.264 encoder is installed");
        return;
    }
    let server = RtspServer::start().unwrap();
    let scene = TestSrc {
        seed: 7,
        width: 320,
        height: 180,
        fps: 10,
        objects: Some(3),
        bitrate: 500,
        ..TestSrc::default()
    };
    let uri = server.add_camera("scene", &Camera::TestSrc(scene)).unwrap();
    let player = Player::play(&uri, |_| {});
    let caps = player.picture().caps().unwrap().structure(0).unwrap().to_owned();
    assert_eq!((caps.get::<i32>("width"), caps.get::<i32>("height")), (Ok(320), Ok(180)));
}
