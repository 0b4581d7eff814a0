//! The wall by OpenGL, next to the one that the processor draws.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use gst::prelude::*;
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};
use nvr_core::{detection::Detection, geometry::Rect};
use nvr_tests::{gl, golden};

use super::{Camera, I420, NV12, PATIENCE, camera, nvr_launch_elements, ssim, wall};

/// Other filters and the way through RGB are no difference that a person sees.
const ALIKE: f64 = 0.95;

fn same_wall(
    name: &str,
    size: (u32, u32),
    properties: &str,
    cameras: &[Camera],
    silent: usize,
) -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let by_cpu = wall(size, &format!("backend=cpu {properties}"), cameras, silent)?;
    let by_gl = wall(size, &format!("backend=gl {properties}"), cameras, silent)?;
    let found = ssim(&by_cpu, &by_gl);
    println!("{name}: {found:.4}");
    if found < ALIKE || std::env::var_os("NVR_WRITE_GOLDEN").is_some() {
        for (picture, backend) in [(&by_cpu, "cpu"), (&by_gl, "gl")] {
            golden::write(&std::env::temp_dir().join(format!("wall-{name}-{backend}.png")), picture)?;
        }
    }
    anyhow::ensure!(
        found >= ALIKE,
        "{name}: similarity {found:.3}; see wall-{name}-*.png in the temporary folder"
    );
    Ok(())
}

#[test]
fn gl_draws_the_same_grid_with_labels_and_a_camera_that_connects() -> anyhow::Result<()> {
    let cameras = [
        camera(1, (640, 360), I420, "::label=\"Street, north side\""),
        camera(2, (1280, 720), NV12, "::label=Room"),
        camera(
            3,
            (640, 480),
            I420,
            "::label=\"Yard behind the house with a very long name that does not fit\"",
        ),
    ];
    same_wall("grid", (960, 540), "", &cameras, 1)
}

#[test]
fn gl_draws_the_same_focus() -> anyhow::Result<()> {
    let cameras: Vec<_> =
        (1..7).map(|seed| camera(seed, (640, 360), if seed % 2 == 0 { NV12 } else { I420 }, "")).collect();
    same_wall("focus", (960, 540), "layout=focus focus=2 background=0xff204060", &cameras, 0)
}

#[test]
fn gl_draws_the_same_custom_layout_with_every_fit() -> anyhow::Result<()> {
    let cameras = [
        camera(1, (640, 360), I420, "::fit=crop ::column=0 ::row=0 ::column-span=2 ::row-span=2"),
        camera(2, (360, 640), I420, "::fit=letterbox ::column=0 ::row=2"),
        camera(3, (640, 360), NV12, "::fit=stretch ::column=1 ::row=2"),
    ];
    same_wall("custom", (480, 720), "layout=custom columns=2", &cameras, 0)
}

/// A wall of 320×180 whose pictures are pulled one by one.
struct Show {
    pipeline: gst::Pipeline,
    wall: gst::Element,
    out: gst_app::AppSink,
}

/// A camera whose pictures of one grey go through `glupload`.
struct Source {
    pictures: gst_app::AppSrc,
    upload: gst::Element,
    pad: gst::Pad,
    size: (u32, u32),
}

fn info(size: (u32, u32)) -> VideoInfo {
    VideoInfo::builder(VideoFormat::I420, size.0, size.1)
        .fps(gst::Fraction::new(25, 1))
        .build()
        .expect("an info")
}

impl Show {
    fn new(properties: &str, behind: &str) -> anyhow::Result<Self> {
        nvr_launch_elements();
        let pipeline = gst::parse::launch(&format!(
            "nvrcompositor name=wall spacing=0 show-labels=false {properties} \
             ! {behind} ! appsink name=out max-buffers=1 drop=true sync=false"
        ))?
        .downcast::<gst::Pipeline>()
        .expect("a pipeline");
        let wall = pipeline.by_name("wall").context("the wall")?;
        let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().context("the output")?;
        Ok(Self { pipeline, wall, out })
    }

    fn camera(&self, id: i32, size: (u32, u32)) -> anyhow::Result<Source> {
        self.camera_by(id, size, None)
    }

    /// A camera whose pictures go through another element behind `glupload`.
    fn camera_by(&self, id: i32, size: (u32, u32), by: Option<&gst::Element>) -> anyhow::Result<Source> {
        let source = gst_app::AppSrc::builder()
            .caps(&info(size).to_caps()?)
            .format(gst::Format::Time)
            .is_live(true)
            .do_timestamp(true)
            .build();
        let upload = gst::ElementFactory::make("glupload").build()?;
        self.pipeline.add_many([source.upcast_ref(), &upload])?;
        source.link(&upload)?;
        let pad = self.wall.request_pad_simple("sink_%u").context("a pad")?;
        pad.set_property("source-id", id);
        if let Some(by) = by {
            self.pipeline.add(by)?;
        }
        let last = by.unwrap_or(&upload);
        last.static_pad("src").context("a pad")?.link(&pad)?;
        if let Some(by) = by {
            upload.link(by)?;
            by.sync_state_with_parent()?;
        }
        upload.sync_state_with_parent()?;
        source.sync_state_with_parent()?;
        Ok(Source { pictures: source, upload, pad, size })
    }

    fn remove(&self, camera: &Source) -> anyhow::Result<()> {
        for element in [camera.pictures.upcast_ref(), &camera.upload] {
            element.set_state(gst::State::Null)?;
            self.pipeline.remove(element)?;
        }
        self.wall.release_request_pad(&camera.pad);
        Ok(())
    }

    /// Pulls pictures until one is as wanted.
    fn until(
        &self,
        what: &str,
        mut each: impl FnMut() -> anyhow::Result<()>,
        wanted: impl Fn(&gst::BufferRef) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE.seconds());
        loop {
            each()?;
            let sample = self.out.try_pull_sample(PATIENCE);
            let sample =
                sample.with_context(|| format!("the wall stands still before: {what}: {:?}", self.said()))?;
            if wanted(sample.buffer().context("a picture")?) {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "did not happen: {what}");
        }
    }

    fn said(&self) -> Option<gst::Message> {
        let kinds = [gst::MessageType::Error, gst::MessageType::Warning];
        self.pipeline.bus().and_then(|bus| bus.pop_filtered(&kinds))
    }

    fn backend(&self) -> String {
        self.wall.property::<gst::Structure>("stats").get("backend").expect("the backend")
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Source {
    fn show(&self, grey: u8) -> anyhow::Result<()> {
        let info = info(self.size);
        let mut buffer = gst::Buffer::with_size(info.size())?;
        {
            let buffer = buffer.make_mut();
            let mut frame = VideoFrameRef::from_buffer_ref_writable(buffer, &info)?;
            for plane in 0..frame.n_planes() {
                frame.plane_data_mut(plane)?.fill(if plane == 0 { grey } else { 128 });
            }
        }
        self.pictures.push_buffer(buffer)?;
        Ok(())
    }

    fn offline(&self) -> bool {
        self.pad.property::<gst::Structure>("stats").get("offline") == Ok(true)
    }
}

const PLAIN: &str = "video/x-raw,format=I420,width=320,height=180,framerate=25/1,colorimetry=bt601";

fn luma(buffer: &gst::BufferRef, x: u32, y: u32) -> u8 {
    let info = info((320, 180));
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("a readable picture");
    let stride = frame.plane_stride()[0] as usize;
    frame.plane_data(0).expect("luma")[y as usize * stride + x as usize]
}

fn near(found: u8, wanted: u8) -> bool {
    found.abs_diff(wanted) <= 2
}

#[test]
fn cameras_in_gl_memory_come_freeze_change_size_and_go() -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let show = Show::new("offline-after=400", PLAIN)?;
    show.pipeline.set_state(gst::State::Playing)?;
    let first = show.camera(7, (64, 36))?;
    show.until("one camera has all of the wall", || first.show(200), |wall| near(luma(wall, 160, 90), 200))?;
    assert_eq!(show.backend(), "gl", "auto goes by the cameras' memory");

    let mut second = show.camera(3, (128, 72))?;
    let both = || first.show(200).and_then(|()| second.show(100));
    show.until("two beside each other, by their ids", both, |wall| {
        near(luma(wall, 80, 90), 100) && near(luma(wall, 240, 90), 200)
    })?;

    second.size = (36, 64);
    second.pictures.set_caps(Some(&info(second.size).to_caps()?));
    let both = || first.show(200).and_then(|()| second.show(220));
    show.until("a picture in portrait with bars", both, |wall| {
        near(luma(wall, 80, 90), 220) && luma(wall, 4, 90) < 30
    })?;

    // The first is silent: its last picture becomes grey and darker, and the other goes on.
    show.until("the first is offline", || second.show(220), |_| first.offline())?;
    show.until(
        "its last picture is dark",
        || second.show(220),
        |wall| (60..140).contains(&luma(wall, 170, 50)) && near(luma(wall, 80, 90), 220),
    )?;
    let both = || first.show(210).and_then(|()| second.show(220));
    show.until("the first is back", both, |wall| near(luma(wall, 240, 90), 210))?;

    show.remove(&second)?;
    show.until("the first alone", || first.show(210), |wall| near(luma(wall, 10, 90), 210))?;
    assert!(show.said().is_none(), "{:?}", show.said());
    Ok(())
}

#[test]
fn layout_and_focus_change_while_gl_draws() -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let show = Show::new("backend=gl", PLAIN)?;
    show.pipeline.set_state(gst::State::Playing)?;
    let cameras = (0..4).map(|id| show.camera(id, (64, 36))).collect::<anyhow::Result<Vec<_>>>()?;
    let all = || (1..).zip(&cameras).try_for_each(|(n, camera)| camera.show(40 * n));
    let grey = |wall: &gst::BufferRef, places: &[(u32, u32, u8)]| {
        places.iter().all(|(x, y, wanted)| near(luma(wall, *x, *y), *wanted))
    };
    show.until("a grid", all, |wall| grey(wall, &[(10, 10, 40), (310, 170, 160)]))?;
    show.wall.set_property_from_str("layout", "focus");
    show.wall.set_property("focus", 2);
    show.until("the third is large", all, |wall| grey(wall, &[(10, 10, 120), (310, 10, 40)]))?;
    show.wall.set_property_from_str("layout", "grid");
    show.wall.set_property("columns", 1_u32);
    show.until("a column", all, |wall| grey(wall, &[(160, 10, 40), (160, 55, 80), (160, 175, 160)]))?;
    show.wall.set_property("show-labels", true);
    show.wall.set_property("clock", true);
    // Its white letters are in the black beside the last picture.
    let letters = |wall: &gst::BufferRef| {
        (240..318).flat_map(|x| (162..178).map(move |y| (x, y))).any(|(x, y)| luma(wall, x, y) > 150)
    };
    show.until("a clock in the corner", all, letters)?;
    show.wall.set_property("clock", false);
    show.until("no clock", all, |wall| !letters(wall))?;
    Ok(())
}

#[test]
fn detections_on_pictures_in_gl_memory_are_in_pixels_of_the_wall() -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let show = Show::new("", PLAIN)?;
    show.pipeline.set_state(gst::State::Playing)?;
    let camera = show.camera(0, (64, 36))?;
    let dog = Detection {
        class_name: "dog".into(),
        class_id: None,
        confidence: 0.75,
        rect: Rect::new(16.0, 9.0, 32.0, 18.0),
        tracker_id: Some(4),
    };
    // Behind glupload, which keeps no such metas.
    camera.pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            gstnvr::meta::add_detections(buffer.make_mut(), 64, 36, std::slice::from_ref(&dog));
        }
        gst::PadProbeReturn::Ok
    });
    show.until(
        "the dog",
        || camera.show(100),
        |wall| {
            let found = gstnvr::meta::read(wall).detections;
            found.first().is_some_and(|found| found.rect == Rect::new(80.0, 45.0, 160.0, 90.0))
        },
    )?;
    assert_eq!(show.backend(), "gl");
    Ok(())
}

/// Boxes that `nvroverlay` cannot draw into pictures in GLMemory come with them, and are drawn there.
#[test]
fn boxes_on_pictures_in_gl_memory_are_drawn_by_gl() -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let show = Show::new("backend=gl", PLAIN)?;
    show.pipeline.set_state(gst::State::Playing)?;
    let size = (320, 180);
    let boxes = gst::ElementFactory::make("nvroverlay").property_from_str("source", "meta").build()?;
    let camera = show.camera_by(0, size, Some(&boxes))?;
    let upload = camera.upload.static_pad("src").context("a pad")?;
    let dog = Detection {
        class_name: "dog".into(),
        class_id: None,
        confidence: 0.75,
        rect: Rect::new(80.0, 45.0, 160.0, 90.0),
        tracker_id: None,
    };
    // Behind glupload, which keeps no such metas.
    upload.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            gstnvr::meta::add_detections(buffer.make_mut(), size.0, size.1, std::slice::from_ref(&dog));
        }
        gst::PadProbeReturn::Ok
    });
    show.until(
        "the box",
        || camera.show(128),
        |wall| {
            near(luma(wall, 20, 90), 128)
                && near(luma(wall, 160, 90), 128)
                && (76..84).any(|x| luma(wall, x, 100).abs_diff(128) > 20)
        },
    )?;
    let caps = camera.pad.current_caps().context("caps")?;
    assert!(caps.to_string().contains("memory:GLMemory, meta:GstVideoOverlayComposition"), "{caps}");
    Ok(())
}

#[test]
fn a_wall_stays_in_gl_memory_where_what_follows_asks_for_that() -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let behind = format!("glcolorconvert name=next ! gldownload ! {PLAIN}");
    let show = Show::new("backend=gl", &behind)?;
    show.pipeline.set_state(gst::State::Playing)?;
    let camera = show.camera(0, (64, 36))?;
    show.until("the picture", || camera.show(150), |wall| near(luma(wall, 160, 90), 150))?;
    let caps = show.wall.static_pad("src").and_then(|pad| pad.current_caps()).context("caps")?;
    assert!(caps.features(0).is_some_and(|features| features.contains("memory:GLMemory")), "{caps}");
    Ok(())
}

#[test]
fn a_wall_by_gl_starts_stops_and_starts_again() -> anyhow::Result<()> {
    if !gl::is_usable() {
        return Ok(());
    }
    let show = Show::new("backend=gl", PLAIN)?;
    for grey in [60, 180] {
        show.pipeline.set_state(gst::State::Playing)?;
        let camera = show.camera(0, (64, 36))?;
        show.until("the picture", || camera.show(grey), |wall| near(luma(wall, 160, 90), grey))?;
        show.pipeline.set_state(gst::State::Null)?;
        show.remove(&camera)?;
    }
    Ok(())
}
