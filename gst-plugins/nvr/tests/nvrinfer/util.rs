//! What the tests of `nvrinfer` share: models that say how bright a frame is, and frames of one grey.

use std::{path::PathBuf, sync::Once, time::Duration};

use gst::prelude::*;
use gst_check::Harness;
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};
use gstnvr::meta;

/// Generous: only a failing test waits this long.
pub const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(30);

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer");
        gstnvr::plugin_register_static().expect("the plugin");
    });
}

pub fn model(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(format!("{name}.onnx"))
        .display()
        .to_string()
}

/// Whether ONNX Runtime is here; says so where it is not.
pub fn runtime() -> bool {
    init();
    let camera = Camera::element("grey_a", &[]);
    let bus = gst::Bus::new();
    camera.set_bus(Some(&bus));
    let started = camera.set_state(gst::State::Paused);
    let _ = camera.set_state(gst::State::Null);
    if started.is_ok() {
        bus.set_flushing(true);
        return true;
    }
    let error = error_on(&bus);
    bus.set_flushing(true);
    assert!(error.contains("ONNX Runtime was not found"), "{error}");
    assert!(std::env::var_os("NVR_NO_SKIP").is_none(), "{error}");
    println!("SKIPPED: {error}");
    false
}

pub fn error_on(bus: &gst::Bus) -> String {
    let message = bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Error]).expect("an error message");
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    error.error().to_string()
}

/// A frame of one grey, 0 to 255.
pub fn grey(info: &VideoInfo, value: u8) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(info.size()).expect("memory");
    paint(buffer.get_mut().expect("ours"), info, value);
    buffer
}

/// The same in a buffer whose rows and planes have `padding` bytes between them, described by a `GstVideoMeta`.
pub fn padded_grey(info: &VideoInfo, value: u8, padding: usize) -> gst::Buffer {
    let planes = info.n_planes() as usize;
    let strides: Vec<_> = info.stride()[..planes].iter().map(|stride| stride + padding as i32).collect();
    let mut offsets = Vec::new();
    let mut size = padding;
    for (plane, stride) in strides.iter().enumerate() {
        offsets.push(size);
        let rows = if plane == 0 { info.height() } else { info.height().div_ceil(2) };
        size += *stride as usize * rows as usize + padding;
    }
    // The padding is white, so that reading it shows.
    let mut buffer = gst::Buffer::from_mut_slice(vec![255u8; size]);
    let frame = buffer.get_mut().expect("ours");
    gst_video::VideoMeta::add_full(
        frame,
        gst_video::VideoFrameFlags::empty(),
        info.format(),
        info.width(),
        info.height(),
        &offsets,
        &strides,
    )
    .expect("a video meta");
    paint(frame, info, value);
    buffer
}

fn paint(buffer: &mut gst::BufferRef, info: &VideoInfo, value: u8) {
    let mut frame = VideoFrameRef::from_buffer_ref_writable(buffer, info).expect("a frame");
    let planar = matches!(info.format(), VideoFormat::Nv12 | VideoFormat::I420 | VideoFormat::Yv12);
    for plane in 0..info.n_planes() {
        let stride = frame.plane_stride()[plane as usize] as usize;
        let (row, rows) = match (info.format(), plane) {
            (VideoFormat::Nv12, 1) => (info.width().div_ceil(2) * 2, info.height().div_ceil(2)),
            (VideoFormat::I420 | VideoFormat::Yv12, 1 | 2) => {
                (info.width().div_ceil(2), info.height().div_ceil(2))
            }
            (format, _) if planar || format == VideoFormat::Gray8 => (info.width(), info.height()),
            (VideoFormat::Rgb | VideoFormat::Bgr, _) => (info.width() * 3, info.height()),
            _ => (info.width() * 4, info.height()),
        };
        let value = if planar && plane > 0 { 128 } else { value };
        let data = frame.plane_data_mut(plane).expect("a plane");
        for line in data.chunks_mut(stride).take(rows as usize) {
            line[..row as usize].fill(value);
        }
    }
}

/// The grey of class `class`.
pub fn value_of(class: usize) -> u8 {
    (class as f32 * 25.5).round() as u8
}

pub fn info(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
    let builder = VideoInfo::builder(format, width, height).fps(gst::Fraction::new(25, 1));
    let yuv =
        matches!(format, VideoFormat::Nv12 | VideoFormat::I420 | VideoFormat::Yv12 | VideoFormat::Gray8);
    let full = "1:4:7:1".parse().expect("full range BT.601");
    if yuv { builder.colorimetry(&full).build() } else { builder.build() }.expect("video info")
}

/// What came out with one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Which frame was looked at.
    pub frame_id: u64,
    pub model_id: String,
    /// Name of the class, where there is exactly one detection.
    pub class: Option<String>,
}

pub fn seen(buffer: &gst::BufferRef) -> Option<Seen> {
    let read = meta::read(buffer);
    let analysis = read.facts.analysis?;
    assert!(read.detections.len() <= 1, "{:?}", read.detections);
    Some(Seen {
        frame_id: analysis.frame_id.or(read.facts.frame_id).expect("a frame id"),
        model_id: analysis.model_id.to_string(),
        class: read.detections.first().map(|detection| detection.class_name.to_string()),
    })
}

/// One `nvrinfer` in a harness, fed with grey frames at 25 a second of stream time.
pub struct Camera {
    pub harness: Harness,
    pub element: gst::Element,
    pub bus: gst::Bus,
    pub info: VideoInfo,
    pub frames: u64,
}

impl Drop for Camera {
    /// Messages that nobody took hold the element, which holds the bus.
    fn drop(&mut self) {
        self.bus.set_flushing(true);
    }
}

impl Camera {
    pub fn element(model_name: &str, properties: &[(&str, &str)]) -> gst::Element {
        init();
        let element = gst::ElementFactory::make("nvrinfer")
            .property("model", model(model_name))
            .build()
            .expect("nvrinfer");
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        element
    }

    pub fn new(model_name: &str, properties: &[(&str, &str)]) -> Self {
        Self::with_info(model_name, properties, info(VideoFormat::Gray8, 64, 64))
    }

    pub fn with_info(model_name: &str, properties: &[(&str, &str)], info: VideoInfo) -> Self {
        Self::around(Self::element(model_name, properties), info)
    }

    pub fn around(element: gst::Element, info: VideoInfo) -> Self {
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        harness.set_src_caps(info.to_caps().expect("caps"));
        Self { harness, element, bus, info, frames: 0 }
    }

    /// The next frame, of grey `value`.
    pub fn frame(&mut self, value: u8) -> gst::Buffer {
        let mut buffer = grey(&self.info, value);
        self.stamp(&mut buffer);
        buffer
    }

    pub fn stamp(&mut self, buffer: &mut gst::Buffer) {
        let buffer = buffer.make_mut();
        buffer.set_pts(gst::ClockTime::from_mseconds(40) * self.frames);
        buffer.set_duration(gst::ClockTime::from_mseconds(40));
        self.frames += 1;
    }

    pub fn push(&mut self, value: u8) -> gst::Buffer {
        let frame = self.frame(value);
        self.harness.push_and_pull(frame).expect("every frame comes out")
    }

    pub fn look(&mut self, value: u8) -> Option<Seen> {
        seen(&self.push(value))
    }

    pub fn class(&mut self, value: u8) -> Option<String> {
        self.look(value).and_then(|seen| seen.class)
    }

    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.element.property::<gst::Structure>("stats");
        stats
            .get::<u64>(name)
            .or_else(|_| stats.get::<u32>(name).map(u64::from))
            .unwrap_or_else(|_| panic!("{name} in {stats}"))
    }

    pub fn element_stat_ms(&self, name: &str) -> f64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap_or_else(|_| panic!("{name}"))
    }

    /// The next element message of this name.
    pub fn message(&self, name: &str) -> gst::Structure {
        loop {
            let message = self
                .bus
                .timed_pop_filtered(PATIENCE, &[gst::MessageType::Element])
                .unwrap_or_else(|| panic!("a message {name}"));
            if let Some(structure) = message.structure().filter(|structure| structure.name() == name) {
                return structure.to_owned();
            }
        }
    }

    /// Element messages and texts of warnings since the last look, without waiting.
    pub fn news(&self) -> (Vec<gst::Structure>, Vec<String>) {
        let (mut structures, mut warnings) = (Vec::new(), Vec::new());
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Element(element) => {
                    structures.extend(element.structure().map(ToOwned::to_owned));
                }
                gst::MessageView::Warning(warning) => warnings.push(warning.error().to_string()),
                _ => {}
            }
        }
        (structures, warnings)
    }

    /// Texts of the warnings since the last look.
    pub fn warnings(&self) -> Vec<String> {
        self.news().1
    }

    /// Feeds frames, of the grey that `value` gives for their number, until one carries a result, in mode `async`.
    pub fn feed_until_seen(&mut self, value: impl Fn(u64) -> u8) -> Seen {
        let begun = std::time::Instant::now();
        loop {
            if let Some(seen) = self.look(value(self.frames)) {
                return seen;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "no result");
            std::thread::yield_now();
        }
    }
}
