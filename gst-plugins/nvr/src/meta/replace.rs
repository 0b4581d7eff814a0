//! Putting other detections in the place of those on a buffer, as a tracker does.

use std::ops::ControlFlow;

use gst::buffer::BufferMetaForeachAction::{Keep, Remove};
use gst::glib::gstr;
use gst_video::VideoRegionOfInterestMeta;
use nvr_core::detection::Detection;
use nvr_core::geometry::Rect;

/// What else another element has said of an object: the region and its parameters.
type Extra = (Rect, String, Vec<gst::Structure>);

/// Replaces the detections on `buffer`, in pixels of a frame of `width` × `height`. `before` is what
/// [`read`](super::read) gave, in its order; `after` has one entry for each, `None` for what goes. Parameters that
/// other elements gave a region (a classifier's attributes) go on to its successor; so do motion regions.
pub fn replace_detections(
    buffer: &mut gst::BufferRef,
    width: u32,
    height: u32,
    before: &[Detection],
    after: &[Option<Detection>],
) {
    let mut extras: Vec<Extra> = Vec::new();
    buffer.foreach_meta_mut(|mut meta| {
        #[cfg(feature = "analytics")]
        if meta.downcast_ref::<gst_analytics::AnalyticsRelationMeta>().is_some() {
            return ControlFlow::Continue(Remove);
        }
        let Some(region) = meta.downcast_ref::<VideoRegionOfInterestMeta>() else {
            return ControlFlow::Continue(Keep);
        };
        if region.roi_type() == super::MOTION {
            return ControlFlow::Continue(Keep);
        }
        let params: Vec<_> = region
            .params()
            .filter(|s| !["detection", "object_id"].contains(&s.name().as_str()))
            .map(ToOwned::to_owned)
            .collect();
        if !params.is_empty() {
            let (x, y, w, h) = region.rect();
            let rect = Rect::new(x as f32, y as f32, w as f32, h as f32);
            extras.push((rect, region.roi_type().to_owned(), params));
        }
        ControlFlow::Continue(Remove)
    });
    super::edit(buffer, |s| s.remove_field(gstr!("detections")));
    let kept: Vec<Detection> = after.iter().flatten().cloned().collect();
    super::add_detections(buffer, width, height, &kept);
    for (rect, class, params) in extras {
        let owner =
            before.iter().zip(after).find(|(b, _)| *b.class_name == *class && b.rect.iou(&rect) > 0.9);
        let Some((_, Some(after))) = owner else { continue };
        let (x, y, w, h) = super::record::whole(&after.rect);
        // Found again by its place; where ours travel in the analytics meta, it is a region of its own.
        let place = |region: &VideoRegionOfInterestMeta| {
            region.rect() == (x, y, w, h) && region.roi_type() == &*after.class_name
        };
        if buffer.iter_meta::<VideoRegionOfInterestMeta>().all(|region| !place(&region)) {
            VideoRegionOfInterestMeta::add(buffer, &super::c_name(&after.class_name), (x, y, w, h));
        }
        let mut params = Some(params);
        buffer.foreach_meta_mut(|mut meta| {
            if let Some(region) = meta.downcast_mut::<VideoRegionOfInterestMeta>()
                && place(region)
            {
                params.take().into_iter().flatten().for_each(|param| region.add_param(param));
            }
            ControlFlow::Continue(Keep)
        });
    }
}
