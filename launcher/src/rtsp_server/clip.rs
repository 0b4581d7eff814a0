//! Recorded files as cameras: split into access units once and held in memory.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use gst::prelude::*;
use gst_app::AppSink;

/// A file that takes longer than this to split is not a sensible camera.
const LOAD_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest amount of video that one file may hold in memory.
const CLIP_LIMIT: usize = 512 << 20;

/// The access units of a file, in decoding order, beginning with a keyframe.
#[derive(Debug)]
pub(super) struct Clip {
    pub caps: gst::Caps,
    /// With presentation times from 0.
    pub units: Vec<gst::Buffer>,
    /// From one unit to the next.
    pub interval: gst::ClockTime,
}

impl Clip {
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        if !file.is_file() {
            let what = if file.is_dir() { "is a directory; a video file is wanted" } else { "no such file" };
            bail!("{}: {what}", file.display());
        }
        let pipeline = gst::Pipeline::new();
        let loaded = Self::read(&pipeline, file);
        // Nothing to do about a pipeline that does not stop: it is dropped next.
        let _ = pipeline.set_state(gst::State::Null);
        loaded.with_context(|| format!("{}: cannot be shown as a camera", file.display()))
    }

    fn read(pipeline: &gst::Pipeline, file: &Path) -> anyhow::Result<Self> {
        let source = gst::ElementFactory::make("filesrc").property("location", file).build()?;
        let parse = gst::ElementFactory::make("parsebin").build()?;
        let sink = AppSink::builder()
            .caps(&"video/x-h264, alignment=au; video/x-h265, alignment=au; image/jpeg".parse::<gst::Caps>()?)
            .sync(false)
            .build();
        pipeline.add_many([&source, &parse])?;
        source.link(&parse)?;
        parse.connect_pad_added({
            let (pipeline, sink) = (pipeline.downgrade(), sink.clone());
            move |_, pad| {
                let Some(pipeline) = pipeline.upgrade() else { return };
                let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
                let wanted = sink.parent().is_none()
                    && caps.structure(0).is_some_and(|s| {
                        ["video/x-h264", "video/x-h265", "image/jpeg"].contains(&s.name().as_str())
                    });
                // What is not linked is not read; the demuxer does without.
                if !wanted {
                    return;
                }
                // Where this fails, the file fails to load, which is reported.
                if pipeline.add(&sink).is_ok()
                    && sink.sync_state_with_parent().is_ok()
                    && let Some(input) = sink.static_pad("sink")
                {
                    let _ = pad.link(&input);
                }
            }
        });
        let none = Arc::new(AtomicBool::new(false));
        parse.connect_no_more_pads({
            let (none, sink) = (none.clone(), sink.clone());
            move |_| none.store(sink.parent().is_none(), Ordering::Relaxed)
        });
        pipeline.set_state(gst::State::Playing)?;

        let bus = pipeline.bus().context("a pipeline without a bus")?;
        let deadline = Instant::now() + LOAD_TIMEOUT;
        let (mut caps, mut units, mut bytes) = (None, Vec::new(), 0);
        loop {
            if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(20)) {
                caps = caps.or_else(|| sample.caps_owned());
                if let Some(buffer) = sample.buffer_owned() {
                    bytes += buffer.size();
                    if !units.is_empty() || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
                        units.push(buffer);
                    }
                }
                if bytes > CLIP_LIMIT {
                    bail!("more than {} MB of video; cut it shorter", CLIP_LIMIT >> 20);
                }
                continue;
            }
            // The sink answers at once while it is not started, and the end is announced once it is empty.
            let wait = gst::ClockTime::from_mseconds(5);
            let message = bus.timed_pop_filtered(wait, &[gst::MessageType::Error, gst::MessageType::Eos]);
            match message.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => bail!("{}", error.error()),
                Some(_) => break,
                None => {}
            }
            if none.load(Ordering::Relaxed) {
                bail!("no H.264, H.265 or JPEG video in it");
            }
            if Instant::now() > deadline {
                bail!("could not be read within {LOAD_TIMEOUT:?}");
            }
        }
        let caps = caps.context("no video in it")?;
        let first = units.iter().filter_map(|unit| unit.pts()).min();
        let last = units.iter().filter_map(|unit| unit.pts()).max();
        let (Some(first), Some(last)) = (first, last) else { bail!("its frames have no timestamps") };
        let count = units.len() as u64;
        let interval =
            if count > 1 { (last - first) / (count - 1) } else { gst::ClockTime::from_mseconds(200) };
        if interval.is_zero() {
            bail!("its frames all have the same timestamp");
        }
        let units = units
            .into_iter()
            .enumerate()
            .map(|(i, mut unit)| {
                let buffer = unit.make_mut();
                let pts = buffer.pts().map_or(interval * i as u64, |pts| pts.saturating_sub(first));
                buffer.set_pts(pts);
                buffer.set_dts(gst::ClockTime::NONE);
                buffer.unset_flags(gst::BufferFlags::DISCONT);
                unit
            })
            .collect();
        Ok(Self { caps, units, interval })
    }

    pub fn payloader(&self) -> anyhow::Result<&'static str> {
        let name = self.caps.structure(0).map(|s| s.name().as_str()).unwrap_or_default();
        Ok(match name {
            "video/x-h264" => "rtph264pay config-interval=-1",
            // Files may say `hev1`, which the payloader does not take.
            "video/x-h265" => "h265parse ! rtph265pay config-interval=-1",
            "image/jpeg" => "rtpjpegpay",
            other => bail!("{other} cannot be sent over RTSP"),
        })
    }

    /// The `n`th unit of the endless repetition, with its presentation time from the start of all.
    pub fn unit(&self, n: u64) -> Option<gst::Buffer> {
        let count = self.units.len() as u64;
        let mut unit = self.units.get(usize::try_from(n % count).ok()?)?.clone();
        let offset = self.interval * (n - n % count);
        let buffer = unit.make_mut();
        buffer.set_pts(buffer.pts().map(|pts| pts + offset));
        if n > 0 && n.is_multiple_of(count) {
            buffer.set_flags(gst::BufferFlags::DISCONT);
        }
        Some(unit)
    }
}
