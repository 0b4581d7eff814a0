//! What cameras speak besides H.264 over RTSP, and what they say when something is wrong with them.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use nvr_launch::rtsp_server::{Camera, RtspServer};

use super::player::{Player, SOON, clip, init, pts};

/// Runs a pipeline to its end.
fn encode(line: &str) {
    let pipeline = gst::parse::launch(line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(SOON, &kinds).unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

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

#[test]
fn keyframes_alone_are_decoded_of_every_codec() {
    let folder = tempfile::tempdir().unwrap();
    let server = RtspServer::start().unwrap();
    for (encoder, distance) in [
        (
            "x265enc key-int-max=10 tune=zerolatency option-string=keyint=10:min-keyint=10:scenecut=0 ! h265parse",
            400,
        ),
        ("jpegenc", 40),
    ] {
        if !installed(&[encoder.split(' ').next().unwrap()]) {
            continue;
        }
        let file = folder.path().join(format!("{distance}.mkv"));
        encode(&format!(
            "videotestsrc num-buffers=50 ! video/x-raw,format=I420,width=320,height=180,framerate=25/1 ! {encoder} ! matroskamux \
             ! filesink location={}",
            file.display()
        ));
        let uri = server.add_camera(&distance.to_string(), &Camera::File(file)).unwrap();
        let player = Player::play(&uri, |source| source.set_property_from_str("decode", "keyframes"));
        let times: Vec<_> = (0..6).map(|_| pts(&player.picture()).mseconds()).collect();
        let between = (times[5] - times[1]) / 4;
        assert!(between.abs_diff(distance) <= 20, "{encoder}: {times:?}");
        drop(player);

        // Keyframes are often enough for this rate, so nothing else is decoded.
        let player = Player::play(&uri, |source| source.set_property("max-fps", 1.0));
        for _ in 0..4 {
            player.picture();
        }
        let (decoded, skipped) = (player.stat("decoded"), player.stat("skipped"));
        assert!(skipped > 2 * decoded, "{encoder}: {decoded} decoded, {skipped} skipped");
        drop(player);

        // What came is handed on as well.
        let player = Player::new(&uri, |source| source.set_property_from_str("decode", "none"));
        let encoded = player.request("encoded", None);
        player.pipeline.set_state(gst::State::Playing).unwrap();
        let unit = encoded.try_pull_sample(SOON).unwrap();
        assert_eq!(unit.caps().unwrap().structure(0).unwrap().get::<i32>("width"), Ok(320), "{encoder}");
    }
}

/// A camera that speaks HTTP: `answer` writes to whoever asks.
struct HttpCamera {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl HttpCamera {
    fn new(answer: impl Fn(&str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        let thread = thread::spawn({
            let stop = stop.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = answer.clone();
                    thread::spawn(move || Self::serve(stream, &*answer));
                }
            }
        });
        Self { port, stop, thread: Some(thread) }
    }

    fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &mut TcpStream) -> std::io::Result<()>) {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        // Whoever has seen enough closes the connection.
        let _ = answer(&String::from_utf8_lossy(&request), &mut stream);
    }

    fn uri(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for HttpCamera {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn jpegs(folder: &Path, count: u32) -> Vec<Vec<u8>> {
    encode(&format!(
        "videotestsrc num-buffers={count} ! video/x-raw,width=320,height=180,framerate=25/1 ! jpegenc \
         ! multifilesink location={}/%d.jpg",
        folder.display()
    ));
    (0..count).map(|n| std::fs::read(folder.join(format!("{n}.jpg"))).unwrap()).collect()
}

/// Sends `pictures` in turn, for ever, 25 a second.
fn multipart(stream: &mut TcpStream, pictures: &[Vec<u8>]) -> std::io::Result<()> {
    stream.write_all(
        b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=--frame\r\nConnection: close\r\n\r\n",
    )?;
    for picture in pictures.iter().cycle() {
        write!(stream, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len())?;
        stream.write_all(picture)?;
        stream.write_all(b"\r\n")?;
        thread::sleep(Duration::from_millis(40));
    }
    Ok(())
}

#[test]
fn jpeg_pictures_over_http() {
    if !installed(&["jpegenc", "souphttpsrc", "multipartdemux"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pictures = jpegs(folder.path(), 10);
    let camera = HttpCamera::new(move |_, stream| multipart(stream, &pictures));
    let mut player = Player::new(&camera.uri("live.mjpg"), |_| {});
    let encoded = player.request("encoded", None);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let times: Vec<_> = (0..20).map(|_| pts(&player.picture()).mseconds()).collect();
    assert!(times.windows(2).all(|w| w[0] < w[1]) && times[19] - times[0] > 500, "{times:?}");
    player.state("playing");
    let unit = encoded.try_pull_sample(SOON).unwrap();
    assert_eq!(unit.caps().unwrap().structure(0).unwrap().name(), "image/jpeg");
    assert_eq!(unit.buffer().unwrap().map_readable().unwrap()[..2], [0xff, 0xd8]);
}

/// jpegdec answers pictures with impossible colour components with an error that no message explains; a push that
/// waits for room behind such a decoder waits for ever.
#[test]
fn damaged_jpeg_pictures_are_skipped() {
    if !installed(&["jpegenc", "souphttpsrc", "multipartdemux"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let good = jpegs(folder.path(), 10);
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as usize % below
    };
    let mut pictures = Vec::new();
    for n in 0..400 {
        let mut picture = good[n % good.len()].clone();
        if n % 8 != 7 {
            for _ in 0..=random(8) {
                // Not the size of the picture, which the first bytes hold.
                let at = 170 + random(picture.len() - 170);
                match random(3) {
                    0 => picture[at] ^= 1 << random(8),
                    1 => picture.truncate(at.max(200)),
                    _ => picture.extend_from_within(170..at.max(171)),
                }
                picture.truncate(60_000);
            }
        }
        pictures.push(picture);
    }
    let camera = HttpCamera::new(move |_, stream| multipart(stream, &pictures));
    let mut player = Player::play(&camera.uri("live.mjpg"), |source| source.set_property("timeout", 3_u32));
    for _ in 0..60 {
        player.picture();
    }
    player.state("playing");
    assert!(player.stat("units") > 60);
    assert_eq!(player.stat("connections"), 1, "damaged pictures are no reason for a new connection");
}

#[test]
fn media_without_a_picture_are_noticed() {
    if !installed(&["souphttpsrc", "multipartdemux"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut picture = jpegs(folder.path(), 1).remove(0);
    // A picture whose tables are all wrong.
    let end = picture.len() - 2;
    picture[30..end].fill(0x55);
    let camera = HttpCamera::new(move |_, stream| multipart(stream, std::slice::from_ref(&picture)));
    let mut player = Player::play(&camera.uri("live.mjpg"), |source| {
        source.set_property("timeout", 2_u32);
    });
    let reason = player.state("stalled");
    assert!(reason.contains("no picture") || reason.contains("no media"), "{reason}");
}

#[test]
fn an_mp4_file_over_http() {
    if !installed(&["souphttpsrc"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path(), 50, 10, 0) else { return };
    let whole = std::fs::read(file).unwrap();
    let camera = HttpCamera::new(move |_, stream| {
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {}\r\n\r\n",
            whole.len()
        )?;
        stream.write_all(&whole)
    });
    let mut player = Player::play(&camera.uri("clip.mp4"), |_| {});
    let times: Vec<_> = (0..75).map(|_| pts(&player.picture()).mseconds()).collect();
    assert!(times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
    assert!((1800..=2100).contains(&(times[48] - times[0])), "at its own pace: {times:?}");
    player.state("playing");
}

#[test]
fn a_playlist_over_http() {
    if !installed(&["souphttpsrc", "mpegtsmux", "x264enc", "hlsdemux"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let segment = folder.path().join("0.ts");
    encode(&format!(
        "videotestsrc num-buffers=50 ! video/x-raw,width=320,height=180,framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=25 ! h264parse ! mpegtsmux ! filesink location={}",
        segment.display()
    ));
    let segment = std::fs::read(segment).unwrap();
    let camera = HttpCamera::new(move |request, stream| {
        let playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n\
                        #EXTINF:2.0,\n0.ts\n#EXTINF:2.0,\n1.ts\n#EXT-X-ENDLIST\n";
        let (kind, body) = if request.starts_with("GET /live.m3u8") {
            ("application/vnd.apple.mpegurl", playlist.as_bytes())
        } else {
            ("video/mp2t", &segment[..])
        };
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(body)
    });
    let mut player = Player::play(&camera.uri("live.m3u8"), |_| {});
    let times: Vec<_> = (0..40).map(|_| pts(&player.picture()).mseconds()).collect();
    assert!(times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
    player.state("playing");
    assert_eq!(player.text("codec"), "video/x-h264");
}

#[test]
fn what_a_web_server_refuses_is_said_without_its_token() {
    if !installed(&["souphttpsrc"]) {
        return;
    }
    let camera =
        HttpCamera::new(|_, stream| stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
    let mut player = Player::play(&camera.uri("live.mjpg?channel=2&token=very-secret-1"), |_| {});
    let reason = player.state("lost");
    assert!(!reason.is_empty());
    player.heard("");
    assert!(player.said.iter().all(|said| !said.contains("very-secret-1")), "{:?}", player.said);

    let camera = HttpCamera::new(|_, stream| {
        stream
            .write_all(b"HTTP/1.0 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")
    });
    let mut player = Player::play(&camera.uri("live.mjpg").replace("//", "//user:open-sesame@"), |_| {});
    player.state("unauthorised");
    assert_eq!(player.stat("connections"), 2);
}

/// A process that is ended with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_that_nobody_signed_is_refused_with_advice() {
    use std::process::{Command, Stdio};

    init();
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=camera",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Child(server);
    let deadline = Instant::now() + Duration::from(SOON);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = server.0.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "openssl s_server does not listen: {ended:?}");
        thread::yield_now();
    }
    for scheme in ["rtsps", "https"] {
        if scheme == "https" && !installed(&["souphttpsrc"]) {
            continue;
        }
        // It serves one client at a time, so each has to be gone before the next.
        let uri = format!("{scheme}://127.0.0.1:{port}/1");
        let mut player = Player::play(&uri, |_| {});
        let reason = player.state("lost");
        drop(player);
        if reason.contains("TLS") && reason.contains("not available") {
            eprintln!("skipped: glib-networking is not installed");
            return;
        }
        assert!(reason.contains("tls-validation=none"), "{reason}");
    }
    // It is taken when that is asked for; that nobody answers behind it is another matter.
    let mut player = Player::play(&format!("rtsps://127.0.0.1:{port}/1"), |source| {
        source.set_property_from_str("tls-validation", "none");
        source.set_property("timeout", 2_u32);
    });
    let deadline = Instant::now() + Duration::from(SOON);
    while !player.heard("stalled") && !player.heard("lost") {
        assert!(Instant::now() < deadline, "{:?}", player.said);
        thread::yield_now();
    }
    assert!(!player.heard("certificate"), "{:?}", player.said);
}
