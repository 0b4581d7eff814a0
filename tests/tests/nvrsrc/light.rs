//! The light receiver, one thread for all cameras of the process: it is as patient, as careful and as quick as `rtspsrc`,
//! and what it cannot do is left to that.

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

use crate::{
    player::{Player, SOON, clip, init, pts},
    scripted::{self, Scripted, answer},
};

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
    for number in 0..150 {
        let unit = light.unit();
        let time = pts(&unit);
        if let Some(last) = last {
            let step = time.checked_sub(last).expect("time went back").mseconds();
            // How late the first ones were is only known when others come sooner.
            assert!(number < 50 || (20..=70).contains(&step), "{number}: {step} ms");
        }
        last = Some(time);
        let capture = meta::facts(unit.buffer().unwrap()).capture.expect("a capture time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(now.abs_diff(capture.unix_ns) < 5_000_000_000, "{capture:?}, now {now}");
        ntp += u32::from(capture.clock == Clock::Ntp);
    }
    assert!(ntp > 0, "no unit had the camera's time");
    assert!(is_running("nvr-receive"));
    assert_eq!(light.player.text("receiver"), "light");
}

/// Pictures of a camera with B-frames come in another order than they are shown.
#[test]
fn b_frames_have_the_times_at_which_they_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 2) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let light = Light::play(&uri, |_| {});
    // What they are late by is learned from the first ones.
    for _ in 0..25 {
        light.unit();
    }
    let units: Vec<_> = (0..50).map(|_| light.unit()).collect();
    let dts: Vec<_> = units.iter().map(|unit| unit.buffer().unwrap().dts().unwrap()).collect();
    assert!(dts.windows(2).all(|pair| pair[0] < pair[1]), "{dts:?}");
    let mut shown: Vec<_> = units.iter().map(|unit| pts(unit).mseconds()).collect();
    assert!(!shown.is_sorted(), "there are no B-frames: {shown:?}");
    assert!(units.iter().zip(&dts).all(|(unit, dts)| *dts <= pts(unit)));
    shown.sort_unstable();
    // The first and the last are not all there.
    for pair in shown[4..46].windows(2) {
        // That one came sooner than all before shifts those after it.
        assert!((15..=65).contains(&(pair[1] - pair[0])), "{shown:?}");
    }
    assert_eq!(light.player.text("receiver"), "light");
}

#[test]
fn the_receiver_can_be_chosen_and_is_said() {
    let Some((_folder, _, _server, uri)) = camera(Options::default()) else { return };
    let mut player = Player::play(&uri, |_| {});
    for (receiver, runs) in [("auto", "light"), ("rtspsrc", "rtspsrc"), ("light", "light")] {
        if receiver != "auto" {
            player.source.set_property_from_str("receiver", receiver);
        }
        player.state("playing");
        assert_eq!(player.text("receiver"), runs);
        let said = player.said.last().unwrap();
        assert!(said.contains("receiver") && said.contains(&format!("\"{runs}\"")), "{said}");
        player.picture();
    }
}

/// A camera that refuses what the light receiver asks gets the other one, until something is set anew.
#[test]
fn a_camera_that_answers_with_an_error_is_received_by_rtspsrc() {
    // The second one means the address of its stream in another way.
    for status in ["461 Unsupported Transport", "404 Not Found"] {
        refuses(status);
    }
}

fn refuses(status: &'static str) {
    let strict = Scripted::serve(
        move |request| {
            let light = request.header("User-Agent").is_some_and(|agent| agent.starts_with("nvrsrc"));
            (light && request.method() == "SETUP").then(|| answer(request, status, &[], ""))
        },
        |stream| scripted::pictures(&stream),
    );
    let mut player = Player::play(&strict.uri(), |source| source.set_property_from_str("decode", "none"));
    player.state("playing");
    assert_eq!(player.text("receiver"), "rtspsrc");
    assert_eq!((player.stat("connections"), player.stat("failures")), (2, 0));
    // It may be another camera now.
    let easy = Scripted::serve(|_| None, |stream| scripted::pictures(&stream));
    player.source.set_property("uri", easy.uri());
    player.state("playing");
    assert_eq!(player.text("receiver"), "light");
    // Asked for by name it is an error.
    player.source.set_property_from_str("receiver", "light");
    player.state("playing");
    player.source.set_property("uri", strict.uri());
    let reason = player.state("lost");
    assert!(reason.contains(&status[..3]), "{reason}");
}

/// A camera that sends clients elsewhere.
#[test]
fn redirected() {
    let Some((_folder, _, _server, uri)) = camera(Options::default()) else { return };
    let location = format!("Location: {uri}");
    let sign = Scripted::serve(
        move |request| {
            let found = || answer(request, "302 Found", &[&location], "");
            (request.method() == "DESCRIBE").then(found)
        },
        |_| {},
    );
    let mut player = Player::play(&sign.uri(), |_| {});
    player.state("playing");
    player.picture();
    assert_eq!(player.text("receiver"), "rtspsrc");
}

/// Sessions end that nobody shows an interest in, log-ins grow old, and some cameras ask as well.
#[test]
fn a_session_is_kept_alive() {
    let digest = |nonce: &str, stale: bool| {
        format!("WWW-Authenticate: Digest realm=\"camera\", nonce=\"{nonce}\", stale={stale}")
    };
    let camera = Scripted::serve(
        move |request| {
            let nonce = |name| request.header("Authorization").is_some_and(|with| with.contains(name));
            let refuse = |header: &str| Some(answer(request, "401 Unauthorized", &[header], ""));
            match request.method() {
                "DESCRIBE" if !nonce("first") => refuse(&digest("first", false)),
                "GET_PARAMETER" if request.before > 0 && !nonce("second") => refuse(&digest("second", true)),
                _ => None,
            }
        },
        |stream| {
            use std::io::Write;
            let _ = (&stream).write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 77\r\n\r\n");
            scripted::pictures(&stream);
        },
    );
    let mut light = Light::play(&camera.uri(), |source| {
        source.set_property("user-id", "viewer");
        source.set_property("user-pw", "open-sesame");
    });
    light.player.state("playing");
    let heard = camera.wait("signs of life", |heard| {
        heard.iter().filter(|message| message.method() == "GET_PARAMETER").count() >= 4
    });
    let signs: Vec<_> = heard.iter().filter(|message| message.method() == "GET_PARAMETER").collect();
    assert!(signs.iter().all(|sign| sign.header("Session") == Some("1234")), "{signs:#?}");
    let with = |n: usize| signs[n].header("Authorization").unwrap_or_default().to_owned();
    assert!(
        with(1).contains("first") && with(2).contains("second") && with(3).contains("second"),
        "{signs:#?}"
    );
    let nod = heard.iter().find(|message| message.method() == "RTSP/1.0").expect("an answer");
    assert_eq!((nod.first.as_str(), nod.header("CSeq")), ("RTSP/1.0 200 OK", Some("77")));
    assert_eq!((light.player.stat("connections"), light.player.stat("failures")), (1, 0));
    assert!(!light.player.heard("sesame"), "{:?}", light.player.said);
    light.player.pipeline.set_state(gst::State::Null).unwrap();
    camera.wait("the end of the session", |heard| heard.iter().any(|message| message.method() == "TEARDOWN"));
}

/// Resident memory of this process, MB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// What a camera does once it plays.
type Act = Box<dyn Fn(&std::net::TcpStream) + Send + Sync>;

/// Whatever has no end ends the connection, and never takes the memory.
#[test]
fn a_camera_that_sends_without_end_is_cut_off() {
    init();
    let fragment = scripted::packet(0, 1, 9, false, &[vec![0x5c, 0x01], vec![7; 60_000]].concat());
    let first = scripted::packet(0, 0, 9, false, &[0x5c, 0x81, 0x9a]);
    let before = resident();
    let hostile: Vec<(&str, Act)> = vec![
        ("too long", Box::new(|s| scripted::flood(s, b"RTSP/1.0 200 OK\r\nX: y\r\n"))),
        ("too long", Box::new(|s| scripted::flood(s, b"RTSP/1.0 200 OK"))),
        (
            "too long",
            Box::new(|s| scripted::flood(s, b"GET / RTSP/1.0\r\nContent-Length: 4000000000\r\n\r\n")),
        ),
        ("too long", Box::new(|s| scripted::flood(s, b"\r\n"))),
        ("neither media nor RTSP", Box::new(|s| scripted::flood(s, &[0; 100]))),
        (
            "more than 16 MB",
            Box::new(move |s| {
                use std::io::Write;
                let _ = (&*s).write_all(&first);
                // The numbers of the packets do not count up: each is one that has come already, or the last one.
                for number in 1_u16.. {
                    let mut packet = fragment.clone();
                    packet[6..8].copy_from_slice(&number.to_be_bytes());
                    if (&*s).write_all(&packet).is_err() {
                        return;
                    }
                }
            }),
        ),
    ];
    std::thread::scope(|scope| {
        for (expected, act) in hostile {
            scope.spawn(move || {
                let camera = Scripted::serve(|_| None, move |stream| act(&stream));
                let mut light = Light::play(&camera.uri(), |_| {});
                let reason = light.player.state("lost");
                assert!(reason.contains(expected), "{expected}: {reason}");
            });
        }
        for text in
            ["RTSP/1.0 200 OK\r\nCSeq: 2\r\n", "RTSP/1.0 200 OK\r\nContent-Length: 4000000000\r\n\r\n"]
        {
            scope.spawn(move || {
                let endless = format!("{text}{}", "X: y\r\n".repeat(1 << 20));
                let camera = Scripted::serve(
                    move |request| (request.method() == "DESCRIBE").then(|| endless.clone()),
                    |_| {},
                );
                let mut light = Light::play(&camera.uri(), |_| {});
                let reason = light.player.state("lost");
                assert!(reason.contains("too long"), "{reason}");
            });
        }
    });
    let grown = resident().saturating_sub(before);
    // The cameras and the other tests of this process need some as well.
    assert!(grown < 200, "{grown} MB more");
}

/// One camera that sends as fast as it can, none of it of use; another one does not lose a picture.
#[test]
fn a_flood_starves_nobody() {
    let Some((_folder, _, _server, uri)) = camera(Options::default()) else { return };
    let flood = Scripted::serve(
        |_| None,
        |stream| scripted::flood(&stream, &scripted::packet(0, 0, 0, false, &[0x41; 1400])),
    );
    let _pest = Light::play(&flood.uri(), |source| source.set_property("timeout", 0_u32));
    flood.wait("the flood", |heard| heard.iter().any(|message| message.method() == "PLAY"));
    let watched = Player::play(&uri, |source| source.set_property_from_str("decode", "all"));
    let recorded = Light::play(&uri, |_| {});
    let numbers: Vec<_> = (0..75)
        .map(|_| {
            recorded.unit();
            meta::facts(watched.picture().buffer().unwrap()).frame_id.unwrap()
        })
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "pictures are missing: {numbers:?}");
    for player in [&watched, &recorded.player] {
        assert_eq!((player.text("receiver").as_str(), player.stat("connections")), ("light", 1));
    }
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

#[test]
fn sound_comes_with_the_pictures() {
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
        assert_eq!((player.text("audio").as_str(), player.text("receiver").as_str()), (expected, "light"));
    }
}

#[test]
fn sound_of_an_unknown_kind_is_left_out() {
    let sdp = format!(
        "{}m=audio 0 RTP/AVP 97\r\na=rtpmap:97 X-Whistle/8000\r\na=control:track2\r\n",
        scripted::SDP
    );
    let camera = Scripted::serve(
        move |request| (request.method() == "DESCRIBE").then(|| answer(request, "200 OK", &[], &sdp)),
        |stream| scripted::pictures(&stream),
    );
    let mut player = Player::new(&camera.uri(), |source| source.set_property_from_str("decode", "none"));
    let _audio = player.request("audio", None);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    player.state("playing");
    assert_eq!((player.text("audio").as_str(), player.text("receiver").as_str()), ("", "light"));
    let heard = camera.wait("PLAY", |heard| heard.iter().any(|message| message.method() == "PLAY"));
    assert_eq!(heard.iter().filter(|message| message.method() == "SETUP").count(), 1);
}
