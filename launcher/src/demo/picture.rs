//! The proof: a picture of the wall as a PNG file.

use std::{io::Write, path::Path};

use gst::prelude::*;

use crate::process;

const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// What the wall showed last. It has one output, a sink that keeps that.
pub(super) fn last(pipeline: &gst::Pipeline) -> Option<gst::Sample> {
    let sink = pipeline
        .iterate_sinks()
        .into_iter()
        .flatten()
        .find(|element| element.has_property_with_type("last-sample", gst::Sample::static_type()))?;
    sink.property("last-sample")
}

/// Knows which pictures of the wall show boxes on every camera.
#[derive(Default)]
pub(super) struct Complete {
    /// Running time at which boxes had been drawn on every camera: the pictures composed from then on have them.
    since: Option<gst::ClockTime>,
}

impl Complete {
    /// What the wall showed last, if there are boxes on every camera in it.
    pub fn picture(&mut self, pipeline: &gst::Pipeline) -> Option<gst::Sample> {
        if self.since.is_none() && has_drawn_everywhere(pipeline) {
            self.since = pipeline.current_running_time();
        }
        let since = self.since?;
        last(pipeline).filter(|sample| running_time(sample).is_some_and(|time| time >= since))
    }
}

fn running_time(sample: &gst::Sample) -> Option<gst::ClockTime> {
    sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(sample.buffer()?.pts())
}

fn has_drawn_everywhere(pipeline: &gst::Pipeline) -> bool {
    pipeline.iterate_all_by_element_factory_name("nvroverlay").into_iter().flatten().all(|overlay| {
        let stats: gst::Structure = overlay.property("stats");
        stats.get::<u64>("drawn").is_ok_and(|drawn| drawn > 0)
    })
}

pub(super) fn write(path: &Path, sample: &gst::Sample) -> Result<(), String> {
    let caps = gst::Caps::builder("image/png").build();
    let png = gst_video::convert_sample(sample, &caps, Some(TIMEOUT))
        .map_err(|error| format!("no PNG (pngenc is in gstreamer1.0-plugins-good): {error}"))?;
    let map = png.buffer().and_then(|buffer| buffer.map_readable().ok()).ok_or("the PNG is empty")?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = |error: std::io::Error| error.to_string();
    let mut file = process::readable_temporary(folder).map_err(text)?;
    file.write_all(&map).map_err(text)?;
    file.persist(path).map(drop).map_err(|error| text(error.error))
}
