//! Without a decoder, cameras are received by one thread of the process: it is as patient, as careful and as quick as
//! the other receiver.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gst::prelude::*;
use gst_app::AppSink;
use gstnvr::meta;
use nvr_core::detection::Clock;
use nvr_launch::rtsp_server::{Camera, Options, RtspServer};

use crate::player::{Player, SOON, clip, init, pts};

struct Light {
    player: Player,
    encoded: AppSink,
}

impl Light {
    fn play(uri: &str, set_up: impl FnOnce(&gst::Element)) -> Self {
        let player = Player::new(uri, |source| {
            source.set_property_from_str("decode", "none");
            set_up(source);
        });
        let encoded = player.request("encoded", None);
        player.pipeline.set_state(gst::State::Playing).unwrap();
        Self { player, encoded }
    }

    fn unit(&self) -> gst::Sample {
        self.encoded.try_pull_sample(SOON).expect("a unit")
    }
}

fn camera(options: Options) -> Option<(tempfile::TempDir, PathBuf, RtspServer, String)> {
    let folder = tempfile::tempdir().unwrap();
    let file = clip(folder.path(), 50, 10, 0)?;
    let server = RtspServer::with_options(options).unwrap();
    let uri = server.add_camera("0", &Camera::File(file.clone())).unwrap();
    Some((folder, file, server, uri))
}

/// Whether a thread of this process has that name.
fn is_running(name: &str) -> bool {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .any(|found| found.trim() == name)
}

#[test]
fn units_come_with_even_times_and_the_cameras_own() {
    let Some((_folder, _, _server, uri)) = camera(Options::default()) else { return };
    let light = Light::play(&uri, |_| {});
    let (mut last, mut ntp) = (None, 0);
    for number in 0..100 {
        let unit = light.unit();
        let time = pts(&unit);
        if let Some(last) = last {
            let step = time.checked_sub(last).expect("time went back").mseconds();
            // How late the first ones were is only known when others come sooner.
            assert!(number < 20 || (20..=70).contains(&step), "{number}: {step} ms");
        }
        last = Some(time);
        let capture = meta::facts(unit.buffer().unwrap()).capture.expect("a capture time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(now.abs_diff(capture.unix_ns) < 5_000_000_000, "{capture:?}, now {now}");
        ntp += u32::from(capture.clock == Clock::Ntp);
    }
    assert!(ntp > 0, "no unit had the camera's time");
    assert!(is_running("nvr-receive"));
}

#[test]
fn a_camera_that_restarts_is_found_again() {
    let Some((_folder, file, server, uri)) = camera(Options::default()) else { return };
    let port = server.port();
    let mut light = Light::play(&uri, |_| {});
    let mut last = pts(&light.unit());
    light.player.state("playing");
    drop(server);
    light.player.state("lost");
    while let Some(unit) = light.encoded.try_pull_sample(gst::ClockTime::ZERO) {
        last = pts(&unit);
    }
    let server = RtspServer::with_options(Options { port, ..Options::default() }).unwrap();
    server.add_camera("0", &Camera::File(file)).unwrap();
    light.player.state("playing");
    let unit = light.unit();
    let flags = unit.buffer().unwrap().flags();
    assert!(flags.contains(gst::BufferFlags::DISCONT) && !flags.contains(gst::BufferFlags::DELTA_UNIT));
    assert!(pts(&unit) > last + gst::ClockTime::from_mseconds(200), "the pause shows in the time");
}

#[test]
fn a_camera_that_falls_silent_is_noticed() {
    let Some((_folder, _, server, uri)) = camera(Options::default()) else { return };
    let mut light = Light::play(&uri, |source| source.set_property("timeout", 2_u32));
    light.unit();
    light.player.state("playing");
    server.set_paused("0", true);
    let reason = light.player.state("stalled");
    assert!(reason.contains("2 s"), "{reason}");
    server.set_paused("0", false);
    light.player.state("playing");
}

#[test]
fn a_wrong_password_is_shown_to_the_camera_twice_and_to_nobody_else() {
    let options =
        Options { credentials: Some(("viewer".into(), "open-sesame".into())), ..Options::default() };
    let Some((_folder, _, _server, uri)) = camera(options) else { return };
    let wrong = uri.replace("rtsp://", "rtsp://viewer:wrong-guess@");
    let mut light = Light::play(&wrong, |_| {});
    light.player.state("unauthorised");
    assert_eq!(light.player.stat("connections"), 2);
    assert!(!light.player.heard("wrong-guess"), "{:?}", light.player.said);
    light.player.source.set_property("user-pw", "open-sesame");
    light.player.state("playing");
    light.unit();
    assert!(!light.player.heard("open-sesame"), "{:?}", light.player.said);
}

#[test]
fn stopping_does_not_wait_for_a_camera_that_is_mute() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rtsp://{}/0", listener.local_addr().unwrap());
    let mut light = Light::play(&uri, |_| {});
    light.player.state("connecting");
    let (_connection, _) = listener.accept().unwrap();
    let before = Instant::now();
    light.player.pipeline.set_state(gst::State::Null).unwrap();
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
}

/// What the light receiver cannot do is left to the other one.
#[test]
fn sound_that_it_does_not_know_costs_no_picture() {
    init();
    for (sound, expected) in [
        ("opusenc ! rtpopuspay", "audio/x-opus"),
        ("alawenc ! rtppcmapay", "audio/x-alaw"),
        ("avenc_aac ! aacparse ! rtpmp4gpay", "audio/mpeg"),
    ] {
        let rate = if sound.starts_with("alaw") { 8000 } else { 48_000 };
        let server = RtspServer::start().unwrap();
        let line = format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 \
             ! x264enc tune=zerolatency key-int-max=10 ! rtph264pay name=pay0 pt=96 \
             audiotestsrc is-live=true ! audio/x-raw,rate={rate},channels=1 ! {sound} name=pay1 pt=97"
        );
        let uri = server.add_camera("0", &Camera::Launch(line)).unwrap();
        let player = Player::new(&uri, |source| source.set_property_from_str("decode", "none"));
        let (encoded, audio) = (player.request("encoded", None), player.request("audio", None));
        player.pipeline.set_state(gst::State::Playing).unwrap();
        for sink in [&encoded, &audio] {
            for _ in 0..20 {
                sink.try_pull_sample(SOON).unwrap_or_else(|| panic!("{sound}: nothing comes"));
            }
        }
        assert_eq!(player.text("audio"), expected);
    }
}
