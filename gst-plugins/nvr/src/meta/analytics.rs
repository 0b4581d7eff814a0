//! Detections as `GstAnalyticsRelationMeta`: an object detection per object, its type the class name, related to a
//! tracking entry where a tracker follows it.

use std::sync::Arc;

use gst::glib;
use gst_analytics::{
    AnalyticsClassificationMtd, AnalyticsMetaRefExt, AnalyticsODMtd, AnalyticsRelationMeta,
    AnalyticsRelationMetaODExt, AnalyticsRelationMetaTrackingExt, AnalyticsTrackingMtd, RelTypes,
};
use nvr_core::detection::Detection;
use nvr_core::geometry::Rect;

use super::record::{Records, whole};

pub fn add(buffer: &mut gst::BufferRef, detections: &[Detection]) {
    if detections.is_empty() {
        return;
    }
    let first_seen = buffer.pts().unwrap_or(gst::ClockTime::ZERO);
    let mut records = Records::of(buffer);
    if buffer.meta::<AnalyticsRelationMeta>().is_none() {
        AnalyticsRelationMeta::add(buffer);
    }
    if let Some(mut meta) = buffer.meta_mut::<AnalyticsRelationMeta>() {
        for d in detections {
            let (x, y, w, h) = whole(&d.rect);
            let class = glib::Quark::from_str(&*super::c_name(&d.class_name));
            let entry = meta
                .add_od_mtd(class, x as i32, y as i32, w as i32, h as i32, d.confidence)
                .map(|entry| entry.id());
            // Fails only at the limit of the meta; the objects after this one would fare no better.
            let Ok(id) = entry else { break };
            records.add(id, d);
            let Some(tracker_id) = d.tracker_id else { continue };
            let track = meta.add_tracking_mtd(tracker_id, first_seen).map(|entry| entry.id());
            if let Ok(track) = track {
                // Both entries exist, which is all that can be wrong with a relation.
                let _ = meta.set_relation(RelTypes::RELATE_TO, id, track);
                let _ = meta.set_relation(RelTypes::RELATE_TO, track, id);
            }
        }
    }
    records.store(buffer);
}

/// Appends the object detections on `buffer`.
pub fn read(buffer: &gst::BufferRef, records: &Records, detections: &mut Vec<Detection>) {
    for meta in buffer.iter_meta::<AnalyticsRelationMeta>() {
        // A relation may point either way, depending on who wrote it.
        let mut tracks: Vec<(u32, u64)> = Vec::new();
        for track in meta.iter::<AnalyticsTrackingMtd>() {
            let (tracker_id, ..) = track.info();
            for object in meta.iter_direct_related::<AnalyticsODMtd>(track.id(), RelTypes::ANY) {
                tracks.push((object.id(), tracker_id));
            }
        }
        for object in meta.iter::<AnalyticsODMtd>() {
            let Ok(location) = object.location() else { continue };
            if location.w <= 0 || location.h <= 0 {
                continue;
            }
            let id = object.id();
            let class = object.obj_type().or_else(|| {
                let mut classes = meta.iter_direct_related::<AnalyticsClassificationMtd>(id, RelTypes::ANY);
                classes.find(|class| !class.is_empty()).map(|class| class.quark(0))
            });
            let tracker_id =
                tracks.iter().find(|(object, _)| *object == id).map(|(_, track)| *track).or_else(|| {
                    let mut tracks = meta.iter_direct_related::<AnalyticsTrackingMtd>(id, RelTypes::ANY);
                    tracks.next().map(|track| track.info().0)
                });
            let mut d = Detection {
                class_name: Arc::from(class.map_or("object", |class| class.as_str())),
                class_id: None,
                confidence: location.loc_conf_lvl.clamp(0.0, 1.0),
                rect: Rect::new(location.x as f32, location.y as f32, location.w as f32, location.h as f32),
                tracker_id,
            };
            if d.confidence.is_nan() {
                d.confidence = 1.0;
            }
            // Ids start at 0 on every buffer: the confidence tells our entry from one that took its place.
            if let Some(record) = records.find(id).filter(|record| record.confidence == d.confidence) {
                d.class_id = record.class_id;
                let (x, y, w, h) = whole(&record.rect);
                // An element that scales moves the standard entry only.
                if (x as i32, y as i32, w as i32, h as i32)
                    == (location.x, location.y, location.w, location.h)
                {
                    d.rect = record.rect;
                }
            }
            detections.push(d);
        }
    }
}
