//! What the wall needs beside its graph: keys of its window, an RTSP server for its picture, and a file that is not
//! emptied.

mod file;
mod rtsp;
mod sink;
#[cfg(test)]
mod tests;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// The RTSP output; see its own file.
    pub struct NvrRtspSink(ObjectSubclass<sink::RtspSink>) @extends gst::Bin, gst::Element, gst::Object;
}

glib::wrapper! {
    /// The file output; see its own file.
    pub struct NvrFileSink(ObjectSubclass<file::FileSink>) @extends gst::Bin, gst::Element, gst::Object;
}

/// Makes the launcher's own elements known to GStreamer.
///
/// # Errors
/// GStreamer refuses them.
pub fn register() -> Result<(), glib::BoolError> {
    // autovideosink tries what is there until something works. This one's library ends the whole process where there is
    // no frame buffer, which is every machine without a display.
    if let Some(sink) = gst::Registry::get().lookup_feature(DIRECTFB) {
        sink.set_rank(gst::Rank::NONE);
    }
    gst::Element::register(None, "nvrfilesink", gst::Rank::NONE, NvrFileSink::static_type())?;
    gst::Element::register(None, "nvrrtspsink", gst::Rank::NONE, NvrRtspSink::static_type())
}

pub(crate) use rtsp::host_and_port;

/// The output for DirectFB.
const DIRECTFB: &str = "dfbvideosink";

/// Posted by `nvrcompositor` for keys that it has no use for.
pub const KEY: &str = "nvr-compositor-key";

/// Carries out a key of the window. False where it asks for the end.
pub fn press(key: &str, pipeline: &gst::Pipeline) -> bool {
    match key {
        "q" | "Q" => return false,
        "f" | "F" | "F11" => {
            let sinks = pipeline.iterate_all_by_interface(gst_video::VideoOverlay::static_type());
            let switched = sinks.into_iter().flatten().filter(|sink| {
                let can = sink
                    .find_property("fullscreen")
                    .is_some_and(|pspec| pspec.value_type() == bool::static_type());
                if can {
                    let on: bool = sink.property("fullscreen");
                    sink.set_property("fullscreen", !on);
                }
                can
            });
            if switched.count() == 0 {
                tracing::warn!(
                    event = "instance.key",
                    "this window cannot fill the screen by itself: use the window manager's key for that, or start \
                     with --output fullscreen (Wayland) or --output kms (no desktop)"
                );
            }
        }
        other => tracing::debug!(key = other, "key without a meaning"),
    }
    true
}
