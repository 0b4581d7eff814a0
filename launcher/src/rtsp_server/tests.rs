use std::time::Instant;

use gst_app::AppSink;

use super::*;

/// Twelve frames of 160×120 at 25 fps with a keyframe every six, and sound; `None` where no encoder is installed.
fn clip(folder: &Path) -> Option<PathBuf> {
    gst::init().unwrap();
    if gst::ElementFactory::find("x264enc").is_none() {
        eprintln!("skipped: x264enc (gstreamer1.0-plugins-ugly) is not installed");
        return None;
    }
    let file = folder.join("clip.mkv");
    let pipeline = gst::parse::launch(
        "videotestsrc num-buffers=12 ! video/x-raw,width=160,height=120,framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=6 ! matroskamux name=mux ! filesink name=sink \
         audiotestsrc num-buffers=20 ! mux.",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    pipeline.by_name("sink").unwrap().set_property("location", &file);
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(
            gst::ClockTime::from_seconds(20),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        )
        .unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos);
    pipeline.set_state(gst::State::Null).unwrap();
    Some(file)
}

fn client(uri: &str, extra: &str) -> (gst::Pipeline, AppSink) {
    let pipeline = gst::parse::launch(&format!(
        "rtspsrc location={uri} latency=0 {extra} ! rtph264depay ! h264parse ! appsink name=sink sync=false"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    (pipeline, sink)
}

#[test]
fn a_file_repeats_at_its_own_pace_with_times_that_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path()) else { return };
    let sent = Arc::new(Mutex::new(Vec::new()));
    let hook = SendHook::new({
        let sent = sent.clone();
        move |path, number| sent.lock().push((path.to_owned(), number))
    });
    let server = RtspServer::with_options(Options { on_send: Some(hook), ..Options::default() }).unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    for protocols in ["protocols=tcp", "protocols=udp"] {
        sent.lock().clear();
        let (pipeline, sink) = client(&uri, protocols);
        let mut times = Vec::new();
        let mut began = None;
        while times.len() < 40 {
            let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(10)).expect("a frame within 10 s");
            began.get_or_insert_with(Instant::now);
            times.push(sample.buffer().unwrap().pts().unwrap());
        }
        let took = began.unwrap().elapsed();
        assert!(times.windows(2).all(|w| w[0] < w[1]), "{protocols}: {times:?}");
        let span = Duration::from(*times.last().unwrap() - times[0]);
        assert!(span.abs_diff(Duration::from_millis(39 * 40)) < Duration::from_millis(200), "{span:?}");
        assert!(took > span / 2, "{span:?} of video were sent in {took:?}");
        let sent: Vec<_> = std::mem::take(&mut *sent.lock());
        let count = sent.len() as u64;
        assert!(count >= 40, "the hook was told of {count} frames");
        assert!(
            sent.windows(2).all(|w| w[0].0 == "/0" && (w[1].1 == w[0].1 + 1 || w[1].1 == 0)),
            "every frame once, in order, from 0 for a new stream: {sent:?}"
        );
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_paused_camera_keeps_the_connection_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path()) else { return };
    let server = RtspServer::start().unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let (pipeline, sink) = client(&uri, "protocols=tcp");
    assert!(sink.try_pull_sample(gst::ClockTime::from_seconds(10)).is_some());
    assert!(server.set_paused("0", true));
    assert!(!server.set_paused("1", true), "no such camera");
    // What is on its way arrives, then nothing does.
    while sink.try_pull_sample(gst::ClockTime::from_mseconds(500)).is_some() {}
    server.set_paused("0", false);
    assert!(sink.try_pull_sample(gst::ClockTime::from_seconds(10)).is_some());
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn asks_for_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path()) else { return };
    let options = Options { credentials: Some(("viewer".into(), "secret".into())), ..Options::default() };
    let server = RtspServer::with_options(options).unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let (pipeline, sink) = client(&uri, "protocols=tcp user-id=viewer user-pw=secret");
    assert!(sink.try_pull_sample(gst::ClockTime::from_seconds(10)).is_some());
    pipeline.set_state(gst::State::Null).unwrap();

    let (pipeline, _sink) = client(&uri, "protocols=tcp user-id=viewer user-pw=wrong");
    let message = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Error])
        .unwrap();
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().matches(gst::ResourceError::NotAuthorized), "{error:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_server_stops_with_clients_and_its_port_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(file) = clip(folder.path()) else { return };
    let server = RtspServer::start().unwrap();
    let port = server.port();
    let uri = server.add_camera("0", &Camera::File(file.clone())).unwrap();
    let (pipeline, sink) = client(&uri, "protocols=tcp");
    assert!(sink.try_pull_sample(gst::ClockTime::from_seconds(10)).is_some());
    drop(server);
    let server = RtspServer::with_options(Options { port, ..Options::default() }).unwrap();
    assert_eq!(server.port(), port);
    pipeline.set_state(gst::State::Null).unwrap();
    let uri = server.add_camera("0", &Camera::File(file)).unwrap();
    let (pipeline, sink) = client(&uri, "protocols=tcp");
    assert!(sink.try_pull_sample(gst::ClockTime::from_seconds(10)).is_some());
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn files_that_are_no_video_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = RtspServer::start().unwrap();
    let missing = folder.path().join("missing.mp4");
    let text = format!("{:#}", server.add_camera("0", &Camera::File(missing)).unwrap_err());
    assert!(text.contains("missing.mp4"), "{text}");
    let garbage = folder.path().join("garbage.mp4");
    std::fs::write(&garbage, [7_u8; 4096]).unwrap();
    let text = format!("{:#}", server.add_camera("0", &Camera::File(garbage)).unwrap_err());
    assert!(text.contains("garbage.mp4"), "{text}");
}
