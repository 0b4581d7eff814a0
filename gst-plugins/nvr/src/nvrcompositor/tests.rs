//! The wall under a clock that stands still until it is told to go on.

use gst::{glib, prelude::*};
use gst_check::Harness;
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};

use super::NvrCompositorPad;
use crate::{init, meta};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;

/// A wall of 320×180 at 25 frames a second whose clock is the test's.
struct Wall {
    element: gst::Element,
    source: Harness,
    frames: u64,
}

/// One camera of the wall.
struct Camera {
    harness: Harness,
    pad: NvrCompositorPad,
    info: VideoInfo,
}

fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
    VideoInfo::builder(format, width, height).fps(gst::Fraction::new(25, 1)).build().unwrap()
}

/// A picture of one grey.
fn picture(info: &VideoInfo, luma: u8) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
    {
        let buffer = buffer.get_mut().unwrap();
        let mut frame = VideoFrameRef::from_buffer_ref_writable(buffer, info).unwrap();
        let planes = frame.n_planes();
        for plane in 0..planes {
            frame.plane_data_mut(plane).unwrap().fill(if plane == 0 { luma } else { 128 });
        }
    }
    buffer
}

impl Wall {
    fn new(properties: &[(&str, glib::Value)]) -> Self {
        init();
        let element = gst::ElementFactory::make("nvrcompositor").build().unwrap();
        element.set_property("show-labels", false);
        element.set_property("spacing", 0_u32);
        for (name, value) in properties {
            element.set_property_from_value(name, value);
        }
        let mut source = Harness::with_element(&element, None, Some("src"));
        source.use_testclock();
        source.set_sink_caps_str(&format!(
            "video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=25/1,colorimetry=bt601"
        ));
        source.play();
        Self { element, source, frames: 0 }
    }

    fn camera(&self, source_id: i32, format: VideoFormat, width: u32, height: u32) -> Camera {
        let pad = self.element.request_pad_simple("sink_%u").unwrap();
        let mut harness = Harness::with_element(&self.element, Some(&pad.name()), None);
        let info = info(format, width, height);
        harness.set_src_caps(info.to_caps().unwrap());
        let pad = pad.downcast::<NvrCompositorPad>().unwrap();
        pad.set_property("source-id", source_id);
        Camera { harness, pad, info }
    }

    /// Lets the next frame's time come, and gives the frame.
    fn next(&mut self) -> gst::Buffer {
        let time = gst::ClockTime::from_mseconds(40 * self.frames);
        // Not before the wall waits: what was pushed has been seen then.
        self.source.crank_single_clock_wait().unwrap();
        let buffer = self.source.pull().unwrap();
        assert_eq!(buffer.pts(), Some(time), "one frame follows another");
        assert_eq!(buffer.duration(), Some(gst::ClockTime::from_mseconds(40)));
        self.frames += 1;
        buffer
    }

    fn stats(&self) -> gst::Structure {
        self.element.property("stats")
    }
}

impl Camera {
    fn show(&mut self, luma: u8) {
        self.harness.push(picture(&self.info, luma)).unwrap();
    }

    fn stat<T: for<'a> glib::value::FromValue<'a> + 'static>(&self, name: &str) -> T {
        let stats: gst::Structure = self.pad.property("stats");
        stats.value(name).unwrap().get::<T>().unwrap()
    }
}

/// Luma at a place of the wall.
fn luma(buffer: &gst::Buffer, x: u32, y: u32) -> u8 {
    let info = info(VideoFormat::I420, WIDTH, HEIGHT);
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &info).unwrap();
    frame.plane_data(0).unwrap()[(y * WIDTH + x) as usize]
}

#[test]
fn a_wall_without_cameras_goes_on() {
    let mut wall = Wall::new(&[]);
    for _ in 0..5 {
        wall.next();
    }
    assert_eq!(wall.stats().get::<u64>("frames"), Ok(5));
    assert_eq!(wall.stats().get::<u64>("skipped"), Ok(0));
}

#[test]
fn cameras_that_come_freeze_change_size_and_go_do_not_disturb_the_rate() {
    let mut wall = Wall::new(&[("offline-after", 200_u32.to_value())]);
    let mut first = wall.camera(7, VideoFormat::I420, 64, 36);
    first.show(200);
    let frame = wall.next();
    assert_eq!(luma(&frame, 160, 90), 200, "one camera has all of the wall");

    // A second one, in another format and with a smaller id: it comes first.
    let mut second = wall.camera(3, VideoFormat::Nv12, 128, 72);
    second.show(100);
    first.show(201);
    let frame = wall.next();
    assert_eq!([luma(&frame, 80, 90), luma(&frame, 240, 90)], [100, 201]);
    assert_eq!(second.stat::<u32>("source-id"), 3);

    // The size changes, and the format.
    second.info = info(VideoFormat::Bgrx, 36, 64);
    second.harness.set_src_caps(second.info.to_caps().unwrap());
    second.show(255);
    let frame = wall.next();
    assert!(luma(&frame, 80, 90) > 225, "white in another format: {}", luma(&frame, 80, 90));
    assert!(luma(&frame, 4, 90) < 30, "a picture in portrait has bars");

    // The first is silent: its last picture becomes grey, then it is back.
    for _ in 0..4 {
        second.show(255);
        wall.next();
    }
    assert!(!first.stat::<bool>("offline"));
    second.show(255);
    let frame = wall.next();
    assert!(first.stat::<bool>("offline"));
    assert_eq!(first.stat::<u64>("outages"), 1);
    assert!((60..140).contains(&luma(&frame, 170, 50)), "{}", luma(&frame, 170, 50));
    assert!(luma(&frame, 80, 90) > 225, "the other goes on");
    first.show(210);
    let frame = wall.next();
    assert_eq!(luma(&frame, 240, 90), 210);
    assert!(!first.stat::<bool>("offline"));

    // The second goes.
    wall.element.release_request_pad(&second.pad);
    let frame = wall.next();
    assert_eq!(luma(&frame, 10, 90), 210, "the first has the wall to itself");
    assert_eq!(wall.stats().get::<u64>("skipped"), Ok(0));
}

#[test]
fn the_newest_of_several_pictures_is_shown() {
    let mut wall = Wall::new(&[]);
    let mut camera = wall.camera(0, VideoFormat::I420, 64, 36);
    camera.show(50);
    camera.show(60);
    let frame = wall.next();
    assert_eq!(luma(&frame, 160, 90), 60);
    assert_eq!((camera.stat::<u64>("shown"), camera.stat::<u64>("late")), (1, 1));
    let again = wall.next();
    assert_eq!(luma(&again, 160, 90), 60);
    assert_eq!(camera.stat::<u64>("missing"), 1);
}

#[test]
fn layout_and_focus_change_while_it_plays() {
    let mut wall = Wall::new(&[]);
    let mut cameras: Vec<_> = (0..4).map(|id| wall.camera(id, VideoFormat::I420, 64, 36)).collect();
    for (n, camera) in (1..).zip(&mut cameras) {
        camera.show(40 * n);
    }
    let frame = wall.next();
    assert_eq!([luma(&frame, 10, 10), luma(&frame, 310, 170)], [40, 160]);
    wall.element.set_property_from_str("layout", "focus");
    wall.element.set_property("focus", 2);
    let frame = wall.next();
    assert_eq!([luma(&frame, 10, 10), luma(&frame, 310, 10)], [120, 40]);
    wall.element.set_property_from_str("layout", "grid");
    wall.element.set_property("columns", 1_u32);
    let frame = wall.next();
    assert_eq!([luma(&frame, 160, 10), luma(&frame, 160, 55), luma(&frame, 160, 175)], [40, 80, 160]);
}

#[test]
fn who_writes_into_a_frame_does_not_touch_the_wall() {
    let mut wall = Wall::new(&[]);
    let mut camera = wall.camera(0, VideoFormat::I420, 64, 36);
    camera.show(90);
    let mut frame = wall.next();
    {
        let mut map = frame.make_mut().map_writable().unwrap();
        map.fill(0);
    }
    drop(frame);
    for _ in 0..3 {
        let next = wall.next();
        assert_eq!(luma(&next, 160, 90), 90);
    }
    // Nothing was new: nothing was drawn, except on pictures that did not have it yet.
    assert!(wall.stats().get::<u64>("tiles-drawn").unwrap() <= 2);
}

#[test]
fn detections_are_in_pixels_of_the_wall() {
    let mut wall = Wall::new(&[("columns", 2_u32.to_value())]);
    let mut cameras: Vec<_> = (0..2).map(|id| wall.camera(id, VideoFormat::I420, 64, 36)).collect();
    cameras[0].show(10);
    let mut buffer = picture(&cameras[1].info, 20);
    let dog = nvr_core::detection::Detection {
        class_name: "dog".into(),
        class_id: None,
        confidence: 0.75,
        rect: nvr_core::geometry::Rect::new(16.0, 9.0, 32.0, 18.0),
        tracker_id: Some(4),
    };
    meta::add_detections(buffer.get_mut().unwrap(), 64, 36, std::slice::from_ref(&dog));
    cameras[1].harness.push(buffer).unwrap();
    let frame = wall.next();
    let found = meta::read(&frame).detections;
    assert_eq!(found.len(), 1);
    // The second tile begins at 160, its picture of 160×90 at a height of 45 (44, to be even).
    let rect = found[0].rect;
    assert_eq!((rect.x, rect.y, rect.width, rect.height), (200.0, 66.5, 80.0, 45.0));
    assert_eq!((&*found[0].class_name, found[0].tracker_id), ("dog", Some(4)));
}

#[test]
fn it_starts_stops_and_starts_again_and_ends_when_told() {
    let mut wall = Wall::new(&[]);
    wall.next();
    wall.element.set_state(gst::State::Null).unwrap();
    assert_eq!(wall.element.property::<gst::Structure>("stats").get::<u64>("frames"), Ok(1));
    let mut wall = Wall::new(&[]);
    wall.next();
    assert!(wall.element.send_event(gst::event::Eos::new()));
    wall.source.crank_single_clock_wait().unwrap();
    loop {
        let event = wall.source.pull_event().unwrap();
        if event.type_() == gst::EventType::Eos {
            break;
        }
    }
}

#[test]
fn a_clock_that_comes_before_the_base_time_tells_no_time() {
    init();
    let pipeline = gst::parse::launch(
        "videotestsrc num-buffers=50 ! video/x-raw,width=64,height=48,framerate=25/1 ! nvrcompositor name=wall ! \
         video/x-raw,width=64,height=48,framerate=25/1 ! appsink name=sink sync=false",
    )
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    // A machine that has been up for ten hours; the pipeline gives it to its elements one after the other.
    let clock = gst_check::TestClock::with_start_time(gst::ClockTime::from_seconds(36_000));
    pipeline.by_name("wall").unwrap().set_clock(Some(&clock)).unwrap();
    pipeline.set_state(gst::State::Paused).unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let first = sink.try_pull_preroll(gst::ClockTime::from_seconds(20)).expect("a picture");
    assert_eq!(first.buffer().unwrap().pts(), Some(gst::ClockTime::ZERO));
    pipeline.set_state(gst::State::Null).unwrap();
}
