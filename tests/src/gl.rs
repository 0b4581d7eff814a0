//! OpenGL where there may be neither a display nor a graphics card.

use std::sync::OnceLock;

use gst::prelude::*;

use crate::skipped;

/// More than the slowest machine needs; reached only where something is broken.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(60);

/// Whether OpenGL can be used here, by Mesa's software renderer if by nothing else; says so where not. To be called
/// before anything else of GStreamer.
///
/// # Panics
/// GStreamer cannot be initialised, or `NVR_NO_SKIP` is set and there is no OpenGL.
pub fn is_usable() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        let display = ["DISPLAY", "WAYLAND_DISPLAY", "GST_GL_WINDOW"];
        if display.iter().all(|name| std::env::var_os(name).is_none()) {
            // SAFETY: nothing else of this test's process has run yet that could read the environment meanwhile; other
            // tests wait here.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var("GST_GL_WINDOW", "egl-device");
            }
        }
        gst::init().expect("GStreamer");
        reason_against()
    });
    if let Some(reason) = reason {
        skipped(&format!("OpenGL (packages gstreamer1.0-gl and libgl1-mesa-dri): {reason}"));
    }
    reason.is_none()
}

fn reason_against() -> Option<String> {
    let description = "gltestsrc num-buffers=1 ! glcolorconvert ! gldownload ! fakesink";
    let pipeline = match gst::parse::launch(description) {
        Ok(pipeline) => pipeline,
        Err(error) => return Some(error.to_string()),
    };
    // What fails here says so on the bus.
    let _ = pipeline.set_state(gst::State::Playing);
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().and_then(|bus| bus.timed_pop_filtered(PATIENCE, &ends));
    let _ = pipeline.set_state(gst::State::Null);
    match end.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => None,
        Some(gst::MessageView::Error(error)) => Some(error.error().to_string()),
        _ => Some("nothing came from it".into()),
    }
}
