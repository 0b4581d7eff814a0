//! The pads of the element: `video` is always there, `encoded` and `audio` come and go on request.

use std::sync::Arc;

use gst::{prelude::*, subclass::prelude::*};

use super::{
    NvrSrc, imp,
    lane::{Kind, Lane, Lanes},
};

pub fn templates() -> Vec<gst::PadTemplate> {
    let raw = gst::Caps::builder_full()
        .structure(gst::Structure::new_empty("video/x-raw"))
        .structure_with_any_features(gst::Structure::new_empty("video/x-raw"))
        .build();
    let units = |name: &str, formats: &[&str]| {
        gst::Structure::builder(name)
            .field("stream-format", gst::List::new(formats))
            .field("alignment", "au")
            .build()
    };
    let encoded = gst::Caps::builder_full()
        .structure(units("video/x-h264", &["byte-stream", "avc", "avc3"]))
        .structure(units("video/x-h265", &["byte-stream", "hvc1", "hev1"]))
        .structure(gst::Structure::new_empty("image/jpeg"))
        .build();
    let audio = [
        "audio/mpeg",
        "audio/x-alaw",
        "audio/x-mulaw",
        "audio/x-opus",
        "audio/x-adpcm",
        "audio/AMR",
        "audio/x-raw",
    ]
    .into_iter()
    .map(gst::Structure::new_empty)
    .fold(gst::Caps::builder_full(), gst::caps::BuilderFull::structure)
    .build();
    [
        ("video", gst::PadPresence::Always, raw),
        (Kind::Encoded.name(), gst::PadPresence::Request, encoded),
        (Kind::Audio.name(), gst::PadPresence::Request, audio),
    ]
    .into_iter()
    .filter_map(|(name, presence, caps)| {
        gst::PadTemplate::new(name, gst::PadDirection::Src, presence, &caps).ok()
    })
    .collect()
}

/// Makes the pad of `kind`; `None` where it exists already.
pub fn request(
    element: &NvrSrc,
    template: &gst::PadTemplate,
    kind: Kind,
    lanes: &Arc<Lanes>,
) -> Option<gst::Pad> {
    let lane = Arc::new_cyclic(|weak: &std::sync::Weak<Lane>| {
        let (events, modes) = (weak.clone(), weak.clone());
        let pad = gst::Pad::builder_from_template(template)
            .query_function(|pad, parent, query| {
                imp::NvrSrc::catch_panic_pad_function(parent, || false, |src| src.src_query(pad, query))
            })
            .event_function(move |_, _, event| match event.view() {
                gst::EventView::Latency(_) => true,
                gst::EventView::Reconfigure(_) => {
                    if let Some(lane) = events.upgrade() {
                        lane.reconfigure();
                    }
                    true
                }
                _ => false,
            })
            .activatemode_function(move |_, _, mode, active| {
                if mode != gst::PadMode::Push {
                    return Err(gst::loggable_error!(imp::CAT, "this pad pushes and nothing else"));
                }
                modes.upgrade().map_or(Ok(()), |lane| lane.activate(active))
            })
            .build();
        Lane::new(kind, pad, lanes)
    });
    if !lanes.add(lane.clone()) {
        gst::warning!(imp::CAT, obj = element, "there is a pad {} already", kind.name());
        return None;
    }
    let pad = lane.pad.clone();
    // Below PAUSED, pads are activated together with the element.
    let active =
        element.current_state() >= gst::State::Paused || element.pending_state() >= gst::State::Paused;
    if (active && pad.set_active(true).is_err()) || element.add_pad(&pad).is_err() {
        lanes.remove(&pad);
        return None;
    }
    Some(pad)
}

pub fn release(element: &NvrSrc, pad: &gst::Pad, lanes: &Lanes) {
    let Some(lane) = lanes.remove(pad) else { return };
    lane.let_go();
    // Going down does not fail for this pad, and nothing could be done about it.
    let _ = pad.set_active(false);
    let _ = element.remove_pad(pad);
}
