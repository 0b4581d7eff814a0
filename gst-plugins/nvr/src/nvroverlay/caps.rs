//! Which frames come in, given which go out.

use crate::frames;

/// What can be drawn into.
pub fn drawable() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format_list(frames::FORMATS).build()
}

/// The same caps for frames with a composition.
pub fn with_composition(caps: &gst::Caps) -> gst::Caps {
    let mut caps = caps.copy();
    if let Some(caps) = caps.get_mut() {
        for n in 0..caps.size() {
            if let Some(features) = caps.features_mut(n)
                && !features.is_any()
            {
                features.add(gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION);
            }
        }
    }
    caps
}

/// What upstream may send where downstream takes `downstream`: anything that a composition goes with, with and without
/// one of upstream's own, else what can be drawn into.
pub fn accepted(downstream: &gst::Caps) -> gst::Caps {
    let composition = gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION;
    let drawable = drawable();
    let mut caps = gst::Caps::new_empty();
    {
        let Some(caps) = caps.get_mut() else { return drawable };
        for (structure, features) in downstream.iter_with_features() {
            let one = gst::Caps::builder_full()
                .structure_with_features(structure.to_owned(), features.to_owned())
                .build();
            if !features.is_any() && features.contains(composition) {
                let mut plain = features.to_owned();
                plain.remove(composition);
                caps.append(one);
                caps.append_structure_full(structure.to_owned(), Some(plain));
            } else {
                caps.append(one.intersect_with_mode(&drawable, gst::CapsIntersectMode::First));
            }
        }
    }
    if downstream.is_any() { drawable } else { caps }
}

pub fn narrowed(caps: gst::Caps, filter: Option<&gst::Caps>) -> gst::Caps {
    match filter {
        Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
        None => caps,
    }
}

pub fn in_system_memory(caps: &gst::Caps) -> bool {
    let composition = gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION;
    caps.features(0).is_none_or(|features| {
        !features.is_any()
            && features.iter().all(|f| f == gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY || f == composition)
    })
}
