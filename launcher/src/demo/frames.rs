//! Keeps copies of the last frames that reached each camera's sink, so that an event can be drawn on the very
//! frame it names.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use gst::prelude::*;
use parking_lot::Mutex;

/// Frames kept for each camera: what passes while an event travels to the broker and back.
const KEPT: usize = 12;

type Frames = Arc<Mutex<VecDeque<(u64, gst::Sample)>>>;

/// Copies of recent frames.
pub(super) struct FrameTap {
    pipeline: gst::Pipeline,
    /// The pad that is watched, and what came by.
    cameras: Mutex<BTreeMap<u32, (gst::Pad, Frames)>>,
}

impl FrameTap {
    pub fn new(pipeline: gst::Pipeline) -> Self {
        Self { pipeline, cameras: Mutex::default() }
    }

    /// Watches every camera that is not watched yet; a rebuilt branch has a new pad.
    pub fn attach(&self, cameras: u32) {
        for id in 0..cameras {
            let Some(pad) = self.sink_pad(id) else { continue };
            let mut watched = self.cameras.lock();
            if watched.get(&id).is_some_and(|(known, _)| *known == pad) {
                continue;
            }
            let frames = Frames::default();
            watched.insert(id, (pad.clone(), frames.clone()));
            drop(watched);
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                if let Some(buffer) = info.buffer() {
                    keep(pad, buffer, &frames);
                }
                gst::PadProbeReturn::Ok
            });
        }
    }

    fn sink_pad(&self, id: u32) -> Option<gst::Pad> {
        let bin = self.pipeline.by_name(&format!("camera-{id}"))?.downcast::<gst::Bin>().ok()?;
        let sink = bin.iterate_sinks().into_iter().flatten().next()?;
        sink.static_pad("sink")
    }

    /// The frame of this number, if it is still here.
    pub fn take(&self, camera: u32, frame_id: u64) -> Option<gst::Sample> {
        let frames = self.cameras.lock().get(&camera)?.1.clone();
        let mut frames = frames.lock();
        let position = frames.iter().position(|(id, _)| *id == frame_id)?;
        frames.remove(position).map(|(_, sample)| sample)
    }
}

fn keep(pad: &gst::Pad, buffer: &gst::Buffer, frames: &Frames) {
    let facts = gstnvr::meta::facts(buffer);
    // Only analysed frames become events.
    let (Some(frame_id), Some(_)) = (facts.frame_id, &facts.analysis) else { return };
    // A copy: a decoder's own buffers must go back to it.
    let (Some(caps), Ok(copy)) = (pad.current_caps(), buffer.copy_deep()) else { return };
    let sample = gst::Sample::builder().buffer(&copy).caps(&caps).build();
    let mut frames = frames.lock();
    if frames.len() >= KEPT {
        frames.pop_front();
    }
    frames.push_back((frame_id, sample));
}
