//! Codecs that no camera of today needs and some of yesterday and tomorrow speak: taken where GStreamer can, named
//! where it cannot.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use gst::prelude::*;
use nvr_launch::rtsp_server::{Camera, RtspServer};

use super::player::{Player, init, pts};

const SCENE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1";

#[test]
fn whatever_can_be_decoded_is_played() {
    init();
    let server = RtspServer::start().unwrap();
    // Milliseconds from keyframe to keyframe.
    for (codec, encoder, payloader, decoder, distance) in [
        ("video/x-vp8", "vp8enc deadline=1 keyframe-max-dist=10", "rtpvp8pay", "vp8dec", 400),
        ("video/x-vp9", "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=10", "rtpvp9pay", "vp9dec", 400),
        // Nobody says which units are keyframes, and everything is decoded.
        ("video/x-h261", "avenc_h261", "rtph261pay", "avdec_h261", 40),
    ] {
        let first = |line: &'static str| line.split(' ').next().unwrap();
        let missing = [first(encoder), first(payloader), decoder]
            .into_iter()
            .find(|name| gst::ElementFactory::find(name).is_none());
        if let Some(name) = missing {
            eprintln!("skipped in part: {name} is not installed");
            continue;
        }
        let scene = if codec == "video/x-h261" {
            SCENE.replace("320", "352").replace("180", "288")
        } else {
            SCENE.to_owned()
        };
        let line = format!("( {scene} ! {encoder} ! {payloader} name=pay0 pt=96 )");
        let uri = server.add_camera(first(payloader), &Camera::Launch(line)).unwrap();
        let mut player = Player::new(&uri, |source| source.set_property_from_str("decode", "keyframes"));
        player.request("encoded", None);
        player.pipeline.set_state(gst::State::Playing).unwrap();
        player.state("playing");
        assert_eq!((player.text("codec").as_str(), player.text("decoder").as_str()), (codec, decoder));
        let times: Vec<_> = (0..6).map(|_| pts(&player.picture()).mseconds()).collect();
        let between = (times[5] - times[1]) / 4;
        assert!(between.abs_diff(distance) <= 20, "{codec}: {times:?}");
        // Said with the first keyframe, where any is marked.
        let unfit = format!("{codec}, which the pad encoded does not hand on");
        assert!(distance == 40 || player.heard(&unfit), "{codec}: {:?}", player.said);
    }
}

/// Answers whoever asks with this description.
fn describe(sdp: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the process: a test has no use for an orderly end of it.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sdp = sdp.clone();
            thread::spawn(move || answer(&stream, &sdp));
        }
    });
    format!("rtsp://{address}/0")
}

fn answer(mut stream: &TcpStream, sdp: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    loop {
        let (mut method, mut cseq) = (String::new(), String::new());
        loop {
            let Some(line) = lines.next() else { return Ok(()) };
            let line = line?;
            if method.is_empty() {
                line.split(' ').next().unwrap_or_default().clone_into(&mut method);
            } else if let Some(number) = line.strip_prefix("CSeq:") {
                number.trim().clone_into(&mut cseq);
            } else if line.is_empty() {
                break;
            }
        }
        let body = if method == "DESCRIBE" { sdp } else { "" };
        write!(
            stream,
            "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

fn description(encoding: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n\
         a=rtpmap:96 {encoding}/90000\r\na=control:stream=0\r\n"
    )
}

#[test]
fn what_cannot_be_taken_is_named_with_what_is_missing() {
    init();
    let mut strange = vec![("X-STRANGE-1", "gstreamer1.0-plugins")];
    if gst::ElementFactory::find("rtpav1depay").is_none() {
        strange.push(("AV1", "rtpav1depay"));
    }
    for (encoding, needed) in strange {
        let mut player = Player::play(&describe(description(encoding)), |_| {});
        let reason = player.state("lost");
        assert!(reason.contains(encoding) && reason.contains(needed), "{encoding}: {reason}");
        player.state("connecting");
        assert!(player.heard("trying again"), "a warning as well");
    }
}
