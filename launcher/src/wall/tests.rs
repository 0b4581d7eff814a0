//! The RTSP output: it is watched by a client, and says what is wrong with an address. The file output: it keeps what
//! is there.

use gst::prelude::*;

/// More than the slowest machine needs; reached only where something is broken.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(60);

fn init() {
    gst::init().unwrap();
    super::register().unwrap();
}

fn pipeline(description: &str) -> gst::Pipeline {
    gst::parse::launch(description).unwrap().downcast().unwrap()
}

#[test]
fn clients_that_come_and_come_again_see_the_stream() {
    init();
    if gst::ElementFactory::find("x264enc").is_none() || gst::ElementFactory::find("rtspsrc").is_none() {
        println!(
            "SKIPPED: x264enc (gstreamer1.0-plugins-ugly) or rtspsrc (gstreamer1.0-plugins-good) is missing"
        );
        return;
    }
    let wall = pipeline(
        "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=250 ! h264parse config-interval=-1 \
         ! nvrrtspsink name=out address=127.0.0.1:0",
    );
    wall.set_state(gst::State::Playing).unwrap();
    let uri: Option<String> = wall.by_name("out").unwrap().property("uri");
    let uri = uri.unwrap();
    assert!(uri.starts_with("rtsp://127.0.0.1:") && uri.ends_with("/wall") && !uri.contains(":0/"), "{uri}");
    for _ in 0..2 {
        let client = pipeline(&format!(
            "rtspsrc location={uri} protocols=tcp latency=0 ! rtph264depay ! h264parse \
             ! video/x-h264,stream-format=byte-stream,alignment=au ! fakesink num-buffers=5 sync=false"
        ));
        client.set_state(gst::State::Playing).unwrap();
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end = client.bus().unwrap().timed_pop_filtered(PATIENCE, &ends);
        client.set_state(gst::State::Null).unwrap();
        assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
    }
    wall.set_state(gst::State::Null).unwrap();
    let after: Option<String> = wall.by_name("out").unwrap().property("uri");
    assert_eq!(after, None);
}

#[test]
fn a_wrong_address_is_an_error_that_says_what_is_right() {
    init();
    for address in ["here", "127.0.0.1:", ":8556", "127.0.0.1:99999"] {
        let wall = pipeline("fakesrc nvrrtspsink name=out");
        wall.by_name("out").unwrap().set_property("address", address);
        assert!(wall.set_state(gst::State::Ready).is_err(), "{address}");
        let message = wall.bus().unwrap().pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else { unreachable!() };
        let text = error.error().to_string();
        assert!(text.contains(address) && text.contains("0.0.0.0:8556"), "{text}");
        wall.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_wall_that_starts_again_keeps_the_recording_that_is_there() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wall.mp4");
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let write = || {
        let description = format!(
            "fakesrc num-buffers=1 sizetype=fixed sizemax=10 ! nvrfilesink location=\"{}\"",
            path.display()
        );
        let pipeline = pipeline(&description);
        pipeline.set_state(gst::State::Playing).unwrap();
        let types = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = pipeline.bus().unwrap().timed_pop_filtered(PATIENCE, &types).unwrap();
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
        pipeline.set_state(gst::State::Null).unwrap();
    };
    write();
    assert_eq!(names(), ["wall.mp4"]);
    std::fs::write(&path, "survived").unwrap();
    write();
    // Once more with the same time: neither takes the other's place.
    let kept = names();
    assert!(kept.len() == 2 && kept[0].starts_with("wall-2") && kept[0].ends_with("Z.mp4"), "{kept:?}");
    let first = folder.path().join(&kept[0]);
    assert_eq!(std::fs::read_to_string(&first).unwrap(), "survived");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 10);
    let time = std::fs::metadata(&first).unwrap().modified().unwrap();
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    write();
    assert_eq!(names().len(), 3);
    assert_eq!(std::fs::read_to_string(&first).unwrap(), "survived");
    // An empty file is none, and a device is no file.
    std::fs::write(&path, "").unwrap();
    write();
    assert_eq!(names().len(), 3);
    assert_eq!(super::file::set_aside(std::path::Path::new("/dev/null")).unwrap(), None);
}
