//! What the elements have in common that look at frames and write metadata, and leave the pixels as they are.

use std::sync::LazyLock;

use gst::prelude::*;
use gst_base::{
    prelude::*,
    subclass::base_transform::{InputBuffer, PrepareOutputBufferSuccess},
};
use nvr_core::detection::FrameFacts;

use crate::frames;

/// One pad on each side, for anything.
pub fn pad_templates() -> &'static [gst::PadTemplate] {
    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| templates(&gst::Caps::new_any()));
    &TEMPLATES
}

/// One pad on each side, for raw video that can be looked at.
pub fn video_pad_templates() -> &'static [gst::PadTemplate] {
    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
        LazyLock::new(|| templates(&gst_video::VideoCapsBuilder::new().format_list(frames::FORMATS).build()));
    &TEMPLATES
}

fn templates(caps: &gst::Caps) -> Vec<gst::PadTemplate> {
    [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
        .into_iter()
        .filter_map(|(name, direction)| {
            gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps).ok()
        })
        .collect()
}

/// The buffer that goes on: the same one, or a new one around the same memory, since metadata needs one of its own and
/// pixels do not.
pub fn output(input: &InputBuffer<'_>) -> PrepareOutputBufferSuccess {
    match input {
        InputBuffer::Writable(_) => PrepareOutputBufferSuccess::InputBuffer,
        InputBuffer::Readable(buffer) => PrepareOutputBufferSuccess::Buffer(buffer.copy()),
    }
}

/// The same memory goes on downstream, so downstream decides. Frames are read whatever their strides. Where downstream
/// has no wishes for memory, there is some that decoders need not copy from.
pub fn ask_downstream(
    element: &impl IsA<gst_base::BaseTransform>,
    cat: gst::DebugCategory,
    query: &mut gst::query::Allocation,
) -> Result<(), gst::LoggableError> {
    if !element.src_pad().peer_query(query) {
        return Err(gst::loggable_error!(cat, "downstream has no wishes for the allocation"));
    }
    let anywhere = query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
    if anywhere && query.allocation_pools().len() + query.allocation_params().len() == 0 {
        frames::offer_pool(query);
    }
    Ok(())
}

/// When a frame is: its own time, or now. `None` without both.
pub fn running_time(
    element: &(impl IsA<gst_base::BaseTransform> + IsA<gst::Element>),
    buffer: &gst::BufferRef,
) -> Option<gst::ClockTime> {
    let segment = element.segment();
    segment
        .downcast_ref::<gst::ClockTime>()
        .and_then(|segment| segment.to_running_time(buffer.pts().or(buffer.dts())))
        .or_else(|| element.current_running_time())
}

/// How much older, in nanoseconds, the result is that a frame carries than the frame, as by `nvrinfer mode=async`.
pub fn age_ns(facts: &FrameFacts) -> u64 {
    let looked_at = facts.analysis.as_ref().and_then(|analysis| analysis.capture);
    facts.capture.zip(looked_at).map_or(0, |(frame, earlier)| {
        if frame.clock == earlier.clock { frame.unix_ns.saturating_sub(earlier.unix_ns) } else { 0 }
    })
}

/// Width and height of the frame in pixels; 0 where the caps do not say.
pub fn frame_size(caps: &gst::CapsRef) -> (u32, u32) {
    let size = |name| {
        let value = caps.structure(0).and_then(|s| s.get::<i32>(name).ok());
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
    };
    (size("width"), size("height"))
}
