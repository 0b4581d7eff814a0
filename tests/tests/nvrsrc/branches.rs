//! The pads `encoded` and `audio` beside `video`: one connection, one timeline, and each on its own.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_app::AppSink;
use gstnvr::meta;
use nvr_launch::rtsp_server::{Camera, Options, RtspServer};

use super::player::{Player, SOON, clip, init, pts};

fn installed(elements: &[&str]) -> bool {
    init();
    for name in elements {
        if gst::ElementFactory::find(name).is_none() {
            eprintln!("skipped: {name} is not installed");
            return false;
        }
    }
    true
}

/// 320×180 at 25 fps with a keyframe a second, and sound.
fn talking(audio: &str) -> Camera {
    Camera::Launch(format!(
        "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=25 option-string=scenecut=0 ! rtph264pay name=pay0 pt=96 config-interval=-1 \
         audiotestsrc is-live=true samplesperbuffer=160 ! {audio} name=pay1 )"
    ))
}

fn sample(sink: &AppSink) -> gst::Sample {
    sink.try_pull_sample(SOON).expect("a sample")
}

fn is_key(sample: &gst::Sample) -> bool {
    !sample.buffer().unwrap().flags().contains(gst::BufferFlags::DELTA_UNIT)
}

fn is_discont(sample: &gst::Sample) -> bool {
    sample.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT)
}

fn id(sample: &gst::Sample) -> u64 {
    meta::facts(sample.buffer().unwrap()).frame_id.expect("a number")
}

fn caps(sample: &gst::Sample) -> gst::Structure {
    sample.caps().unwrap().structure(0).unwrap().to_owned()
}

#[test]
fn pictures_units_and_sound_come_from_one_connection_with_one_time() {
    for (audio, elements, expected) in [
        (
            "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay",
            ["alawenc", "rtppcmapay"],
            "audio/x-alaw",
        ),
        (
            "audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay",
            ["mulawenc", "rtppcmupay"],
            "audio/x-mulaw",
        ),
        ("audioconvert ! avenc_aac ! rtpmp4gpay pt=97", ["avenc_aac", "rtpmp4gpay"], "audio/mpeg"),
        ("audioresample ! opusenc ! rtpopuspay pt=97", ["opusenc", "rtpopuspay"], "audio/x-opus"),
    ] {
        if !installed(&["x264enc"]) || !installed(&elements) {
            continue;
        }
        let server = RtspServer::start().unwrap();
        let uri = server.add_camera("0", &talking(audio)).unwrap();
        let mut player = Player::new(&uri, |_| {});
        let (encoded, sound) = (player.request("encoded", None), player.request("audio", None));
        player.pipeline.set_state(gst::State::Playing).unwrap();

        let (mut last, mut last_dts, mut numbers) = (None, None, Vec::new());
        for n in 0..40 {
            let unit = sample(&encoded);
            assert!(n > 0 || (is_key(&unit) && is_discont(&unit)), "begins with a keyframe");
            let buffer = unit.buffer().unwrap();
            assert!(last_dts < buffer.dts() && buffer.dts() <= buffer.pts(), "{buffer:?}");
            assert!(last < buffer.pts());
            (last, last_dts) = (buffer.pts(), buffer.dts());
            let facts = meta::facts(buffer);
            numbers.push((facts.frame_id.unwrap(), buffer.pts().unwrap(), facts.capture.unwrap().unix_ns));
            let caps = caps(&unit);
            assert_eq!((caps.name().as_str(), caps.get::<i32>("width")), ("video/x-h264", Ok(320)));
        }
        let mut same = 0;
        for _ in 0..30 {
            let picture = player.picture();
            let facts = meta::facts(picture.buffer().unwrap());
            let found = numbers.iter().find(|(number, ..)| Some(*number) == facts.frame_id);
            if let Some((_, time, capture)) = found {
                assert_eq!((pts(&picture), facts.capture.unwrap().unix_ns), (*time, *capture));
                same += 1;
            }
        }
        assert!(same >= 20, "{same} pictures have the number of a unit");

        let (mut last, began) = (None, sample(&sound));
        assert_eq!(caps(&began).name(), expected);
        assert!(pts(&began).absdiff(numbers[0].1) < gst::ClockTime::from_seconds(2));
        for _ in 0..20 {
            let packet = sample(&sound);
            assert!(last < Some(pts(&packet)), "{expected}");
            assert!(meta::facts(packet.buffer().unwrap()).capture.is_some());
            last = Some(pts(&packet));
        }
        player.state("playing");
        assert_eq!(player.stat("connections"), 1);
        assert_eq!(
            (player.text("codec").as_str(), player.text("audio").as_str()),
            ("video/x-h264", expected)
        );
    }
}

#[test]
fn without_a_decoder_the_units_come_as_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    for (wanted, first) in [
        ("video/x-h264,stream-format=avc,alignment=au", [0, 0]),
        ("video/x-h264,stream-format=byte-stream,alignment=au", [0, 0]),
    ] {
        let mut player = Player::new(&uri, |source| source.set_property_from_str("decode", "none"));
        let encoded = player.request("encoded", Some(wanted));
        player.pipeline.set_state(gst::State::Playing).unwrap();
        for _ in 0..30 {
            let unit = sample(&encoded);
            assert!(
                unit.caps().unwrap().is_subset(&wanted.parse::<gst::Caps>().unwrap()),
                "{:?}",
                unit.caps()
            );
            let avc = wanted.contains("avc");
            assert_eq!(caps(&unit).has_field("codec_data"), avc);
            let map = unit.buffer().unwrap().map_readable().unwrap();
            assert_eq!(map[..2], first);
            assert_eq!(map[2..4] == [0, 1], !avc, "{:?}", &map[..8]);
        }
        player.state("playing");
        assert_eq!((player.text("decoder").as_str(), player.stat("decoded")), ("", 0));
        assert!(player.stat("units") >= 30);

        // A decoder can be asked for at any time.
        player.source.set_property_from_str("decode", "all");
        // What it is called is noted once it has shown something.
        let named = (0..100).any(|_| {
            player.picture();
            !player.text("decoder").is_empty()
        });
        assert!(named);
    }
}

#[test]
fn b_frames_have_decoding_times_that_grow() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 25, 2) else { return };
    let server = RtspServer::start().unwrap();
    for uri in [format!("file://{}", file.display()), server.add_camera("0", &Camera::File(file)).unwrap()] {
        let player = Player::new(&uri, |source| source.set_property_from_str("decode", "none"));
        let encoded = player.request("encoded", None);
        player.pipeline.set_state(gst::State::Playing).unwrap();
        let (mut last, mut times) = (None, Vec::new());
        for _ in 0..40 {
            let unit = sample(&encoded);
            let buffer = unit.buffer().unwrap();
            assert!(last < buffer.dts() && buffer.dts() <= buffer.pts(), "{uri}: {last:?} {buffer:?}");
            last = buffer.dts();
            times.push(buffer.pts().unwrap().mseconds());
        }
        // All but what told of the reordering are a frame apart once they are in order; packets arrive unevenly.
        assert!(times.windows(2).any(|pair| pair[1] < pair[0]), "{times:?}");
        times.sort_unstable();
        let even = times.windows(2).filter(|pair| (10..=80).contains(&(pair[1] - pair[0]))).count();
        assert!(even >= 35, "{uri}: {times:?}");
    }
}

#[test]
fn an_mp4_file_can_be_written_without_a_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let recorded = folder.path().join("recorded.mp4");
    let line = format!(
        "nvrsrc uri={uri} decode=none name=cam cam.encoded ! identity eos-after=60 ! mp4mux ! filesink location={}",
        recorded.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(SOON, &kinds).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let player = Player::play(&format!("file://{}", recorded.display()), |_| {});
    let count = std::iter::from_fn(|| player.sink.try_pull_sample(SOON)).count();
    assert!((55..=60).contains(&count), "{count} pictures of 60 units");
}

#[test]
fn pads_come_and_go_while_pictures_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::play(&uri, |_| {});
    let mut last = id(&player.picture());
    for _ in 0..4 {
        let encoded = player.request("encoded", None);
        let unit = sample(&encoded);
        assert!(is_key(&unit) && is_discont(&unit) && caps(&unit).get::<i32>("width") == Ok(320));
        sample(&encoded);
        player.release(&encoded);
        while let Some(picture) = player.sink.try_pull_sample(gst::ClockTime::ZERO) {
            let number = id(&picture);
            assert_eq!(number, last + 1, "a picture was lost");
            last = number;
        }
    }
    assert_eq!(player.stat("connections"), 1);
}

#[test]
fn sound_that_is_asked_for_later_comes_with_a_new_connection() {
    if !installed(&["x264enc", "alawenc"]) {
        return;
    }
    let server = RtspServer::start().unwrap();
    let audio = "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay";
    let uri = server.add_camera("0", &talking(audio)).unwrap();
    let player = Player::play(&uri, |_| {});
    let before = pts(&player.picture());
    let sound = player.request("audio", None);
    assert_eq!(caps(&sample(&sound)).name(), "audio/x-alaw");
    assert_eq!(player.stat("connections"), 2);
    assert!(pts(&player.picture()) > before);
    // Without it nothing is to be made anew.
    player.release(&sound);
    player.picture();
    assert_eq!(player.stat("connections"), 2);
}

/// Waits until `n` more pictures are there.
fn pictures(player: &Player, n: usize) {
    for _ in 0..n {
        player.picture();
    }
}

#[test]
fn a_branch_that_stands_still_does_not_stop_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::new(&uri, |_| {});
    let encoded = player.request("encoded", None);
    encoded.set_max_buffers(1);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    pictures(&player, 75);
    assert!(player.stat("encoded-queued") > 40);
    // Nor does it hold up its own release.
    let before = Instant::now();
    player.release(&encoded);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    pictures(&player, 10);
}

#[test]
fn a_branch_that_fails_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let mut player = Player::new(&uri, |_| {});
    let failing =
        gst::parse::bin_from_description("identity error-after=10 ! fakesink async=false", true).unwrap();
    player.pipeline.add(&failing).unwrap();
    player.source.link_pads(Some("encoded"), &failing, Some("sink")).unwrap();
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let deadline = Instant::now() + Duration::from(SOON);
    while !player.heard("the pad is silent until it is linked anew") {
        player.picture();
        assert!(Instant::now() < deadline, "{:?}", player.said);
    }
    pictures(&player, 50);
    assert_eq!(player.stat("connections"), 1);

    // Linked to something that works, it goes on.
    let pad = player.source.static_pad("encoded").unwrap();
    pad.unlink(&failing.static_pad("sink").unwrap()).unwrap();
    let sink = AppSink::builder().sync(false).build();
    player.pipeline.add(&sink).unwrap();
    sink.sync_state_with_parent().unwrap();
    pad.link(&sink.static_pad("sink").unwrap()).unwrap();
    assert!(is_key(&sample(&sink)));
    failing.set_state(gst::State::Null).unwrap();
}

#[test]
fn what_cannot_take_the_codec_is_only_that_branchs_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let mut player = Player::new(&uri, |_| {});
    let encoded = player.request("encoded", Some("image/jpeg"));
    player.pipeline.set_state(gst::State::Playing).unwrap();
    pictures(&player, 30);
    assert_eq!(player.stat("connections"), 1);
    assert!(encoded.try_pull_sample(gst::ClockTime::ZERO).is_none());
    assert!(player.heard("the pad is silent"), "{:?}", player.said);
}

#[test]
fn pictures_that_nobody_takes_do_not_stop_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    // Stands still.
    let player = Player::new(&uri, |_| {});
    let encoded = player.request("encoded", None);
    player.sink.set_max_buffers(1);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let numbers: Vec<_> = (0..150).map(|_| id(&sample(&encoded))).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(player.stat("late") > 0, "the decoder's queue is bounded");
    drop(player);

    // Fails.
    init();
    let pipeline = gst::parse::launch(&format!(
        "nvrsrc name=cam uri={uri} cam.video ! identity error-after=5 ! fakesink async=false \
         cam.encoded ! appsink name=sink sync=false async=false"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for _ in 0..60 {
        sample(&sink);
    }
    let stats: gst::Structure = pipeline.by_name("cam").unwrap().property("stats");
    assert_eq!((stats.get::<u64>("connections"), stats.get::<u64>("failures")), (Ok(1), Ok(0)));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_camera_that_comes_back_continues_every_pad() {
    if !installed(&["x264enc", "alawenc"]) {
        return;
    }
    let audio = "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay";
    let server = RtspServer::start().unwrap();
    let (port, uri) = (server.port(), server.add_camera("0", &talking(audio)).unwrap());
    let mut player = Player::new(&uri, |_| {});
    let sinks = [player.sink.clone(), player.request("encoded", None), player.request("audio", None)];
    let gaps: Vec<_> = sinks
        .iter()
        .map(|sink| {
            let (sender, gaps) = std::sync::mpsc::channel();
            let pad = sink.static_pad("sink").unwrap();
            pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
                if let Some(gst::EventView::Gap(gap)) = info.event().map(|event| event.view()) {
                    let (from, duration) = gap.get();
                    let _ = sender.send((from, from + duration.unwrap()));
                }
                gst::PadProbeReturn::Ok
            });
            gaps
        })
        .collect();
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let mut last: Vec<_> = sinks.iter().map(|sink| pts(&sample(sink))).collect();
    player.state("playing");
    drop(server);
    player.state("lost");
    for (sink, last) in sinks.iter().zip(&mut last) {
        while let Some(sample) = sink.try_pull_sample(gst::ClockTime::ZERO) {
            *last = pts(&sample);
        }
    }
    let gap: Vec<_> =
        gaps.iter().map(|gaps| gaps.recv_timeout(SOON.into()).expect("a gap on every pad")).collect();
    // Another size: another stream of parameters, and new caps.
    let Camera::Launch(line) = talking(audio) else { unreachable!() };
    let server = RtspServer::with_options(Options { port, ..Options::default() }).unwrap();
    let line = line.replace("width=320,height=180", "width=640,height=360");
    server.add_camera("0", &Camera::Launch(line)).unwrap();
    player.state("playing");
    for ((sink, last), gap) in sinks.iter().zip(last).zip(gap) {
        assert!(gap.0 >= last && gap.1 > gap.0, "{gap:?} {last}");
        let first = sample(sink);
        assert!(is_discont(&first) && is_key(&first));
        assert!(pts(&first) >= gap.1, "{} {gap:?}", pts(&first));
        if caps(&first).name().starts_with("video/") {
            assert_eq!(caps(&first).get::<i32>("width"), Ok(640));
        }
        assert!(!sink.is_eos());
    }
}

#[test]
fn a_file_ends_every_pad_and_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 25, 10, 2) else { return };
    let uri = format!("file://{}", file.display());
    let player = Player::new(&uri, |_| {});
    let encoded = player.request("encoded", None);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    assert_eq!(std::iter::from_fn(|| encoded.try_pull_sample(SOON)).count(), 25);
    assert!(encoded.is_eos());
    drop(player);

    let player = Player::new(&uri, |source| source.set_property("loop", true));
    let encoded = player.request("encoded", None);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let mut last = None;
    for n in 0..60 {
        let unit = sample(&encoded);
        assert!(last < unit.buffer().unwrap().dts(), "{n}");
        assert_eq!(is_discont(&unit), n % 25 == 0, "{n}");
        last = unit.buffer().unwrap().dts();
    }
}

#[test]
fn starts_and_stops_with_every_pad() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let player = Player::new(&uri, |_| {});
    let encoded = player.request("encoded", None);
    let _sound = player.request("audio", None);
    for state in [gst::State::Null, gst::State::Ready, gst::State::Paused] {
        player.pipeline.set_state(gst::State::Playing).unwrap();
        assert!(is_key(&sample(&encoded)));
        player.picture();
        player.pipeline.set_state(state).unwrap();
        // In READY an appsink keeps what it has.
        while encoded.try_pull_sample(gst::ClockTime::ZERO).is_some() {}
    }
}

/// As `gst-launch-1.0 -e` does when it is interrupted.
#[test]
fn an_end_that_is_asked_for_ends_every_pad() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let server = RtspServer::start().unwrap();
    let there = server.add_camera("0", &Camera::File(file)).unwrap();
    // Nobody listens any more.
    let away =
        format!("rtsp://{}/0", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for (uri, plays) in [(there, true), (away, false)] {
        let mut player = Player::new(&uri, |_| {});
        let encoded = player.request("encoded", None);
        // Else the end waits for somebody who takes all pictures.
        for sink in [&encoded, &player.sink] {
            sink.set_property("wait-on-eos", false);
        }
        player.pipeline.set_state(gst::State::Playing).unwrap();
        if plays {
            player.picture();
            sample(&encoded);
        } else {
            player.state("lost");
        }
        assert!(player.pipeline.send_event(gst::event::Eos::new()));
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        // Once every sink has ended.
        let end = player.pipeline.bus().unwrap().timed_pop_filtered(SOON, &kinds).expect("an end");
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    }
}
