//! What the elements have in common that look at frames and write metadata, and leave the pixels as they are.

use std::sync::LazyLock;

use gst::prelude::*;
use gst_base::{
    prelude::*,
    subclass::base_transform::{InputBuffer, PrepareOutputBufferSuccess},
};

/// One pad on each side, for anything.
pub fn pad_templates() -> &'static [gst::PadTemplate] {
    static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
        [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
            .into_iter()
            .filter_map(|(name, direction)| {
                let caps = gst::Caps::new_any();
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
            })
            .collect()
    });
    &TEMPLATES
}

/// The buffer that goes on: the same one, or a new one around the same memory, since metadata needs one of its own and
/// pixels do not.
pub fn output(input: &InputBuffer<'_>) -> PrepareOutputBufferSuccess {
    match input {
        InputBuffer::Writable(_) => PrepareOutputBufferSuccess::InputBuffer,
        InputBuffer::Readable(buffer) => PrepareOutputBufferSuccess::Buffer(buffer.copy()),
    }
}

/// The same memory goes on downstream, so downstream decides. Frames are read whatever their strides.
pub fn ask_downstream(
    element: &impl IsA<gst_base::BaseTransform>,
    cat: gst::DebugCategory,
    query: &mut gst::query::Allocation,
) -> Result<(), gst::LoggableError> {
    if !element.src_pad().peer_query(query) {
        return Err(gst::loggable_error!(cat, "downstream has no wishes for the allocation"));
    }
    Ok(())
}
