//! Detections as `GstAnalyticsRelationMeta`: an object detection per object, its type the class name, related to a
//! tracking entry where a tracker follows it.

use std::sync::Arc;

use gst::glib;
use gst_analytics::{
    AnalyticsClassificationMtd, AnalyticsMetaRefExt, AnalyticsMtdRef, AnalyticsODLocation, AnalyticsODMtd,
    AnalyticsRelationMeta, AnalyticsRelationMetaODExt, AnalyticsRelationMetaTrackingExt,
    AnalyticsTrackingMtd, RelTypes,
};
use nvr_core::detection::Detection;
use nvr_core::geometry::Rect;

use super::record::{Record, Records, whole};

/// Tracker id of a record whose object has none, whatever the tracking entries of others say.
const NOBODY: u64 = u64::MAX - 1;

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
            let Some(location) = location(&object) else { continue };
            let id = object.id();
            let confidence = confidence(&location);
            // Ids start at 0 on every buffer: the confidence tells our entry from one that took its place.
            let record = records.find(id).filter(|record| record.confidence == confidence);
            if record.is_some_and(|record| is_gone(&record)) {
                continue;
            }
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
                confidence,
                rect: Rect::new(location.x as f32, location.y as f32, location.w as f32, location.h as f32),
                tracker_id,
            };
            if let Some(record) = record {
                d.tracker_id = match record.tracker_id {
                    Some(NOBODY) => None,
                    known => known.or(d.tracker_id),
                };
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

/// Whether every analytics meta of `buffer` holds objects that we have added, and their tracks, and nothing else. Entries
/// cannot be taken out one by one, so only such a meta may be written anew.
pub fn is_ours(buffer: &gst::BufferRef) -> bool {
    let records = Records::of(buffer);
    buffer.iter_meta::<AnalyticsRelationMeta>().all(|meta| {
        let mut objects = 0;
        for object in meta.iter::<AnalyticsODMtd>() {
            let Some(location) = location(&object) else { return false };
            let record = records.find(object.id());
            if record.is_none_or(|record| record.confidence != confidence(&location)) {
                return false;
            }
            objects += 1;
        }
        objects + meta.iter::<AnalyticsTrackingMtd>().count() == meta.len()
    })
}

/// Notes what has become of the objects of `buffer`, of which [`read`] has given `after` something to each in its order,
/// and leaves the entries themselves as they are: others may refer to them. An object that is still there gets a
/// tracking entry; one that is gone is passed over by [`read`] from now on. Says how many of `after` that were.
pub fn annotate(buffer: &mut gst::BufferRef, after: &[Option<Detection>]) -> usize {
    let first_seen = buffer.pts().unwrap_or(gst::ClockTime::ZERO);
    let (before, mut records) = (Records::of(buffer), Records::default());
    let mut fates = after.iter();
    let mut tracks: Vec<(u32, u64)> = Vec::new();
    for (number, meta) in buffer.iter_meta::<AnalyticsRelationMeta>().enumerate() {
        for object in meta.iter::<AnalyticsODMtd>() {
            let (id, Some(location)) = (object.id(), location(&object)) else { continue };
            let confidence = confidence(&location);
            let known = before.find(id).filter(|record| record.confidence == confidence);
            let fate = match known {
                Some(record) if is_gone(&record) => None,
                _ => fates.next().and_then(Option::as_ref),
            };
            let gone = Detection {
                class_name: Arc::default(),
                class_id: None,
                confidence,
                rect: Rect::default(),
                tracker_id: None,
            };
            let Some(d) = fate else {
                records.add(id, &gone);
                continue;
            };
            records
                .add(id, &Detection { tracker_id: d.tracker_id.or(Some(NOBODY)), confidence, ..d.clone() });
            // The first meta is the one that others look at.
            if number == 0 {
                tracks.extend(d.tracker_id.map(|track| (id, track)));
            }
        }
    }
    records.store(buffer);
    if let Some(mut meta) = buffer.meta_mut::<AnalyticsRelationMeta>() {
        for (id, track) in tracks {
            let entry = meta.add_tracking_mtd(track, first_seen).map(|entry| entry.id());
            let Ok(entry) = entry else { break };
            // Both entries exist, which is all that can be wrong with a relation.
            let _ = meta.set_relation(RelTypes::RELATE_TO, entry, id);
        }
    }
    after.len() - fates.len()
}

/// Where an object is; `None` for one without size.
fn location(object: &AnalyticsMtdRef<'_, AnalyticsODMtd>) -> Option<AnalyticsODLocation> {
    object.location().ok().filter(|location| location.w > 0 && location.h > 0)
}

fn confidence(location: &AnalyticsODLocation) -> f32 {
    if location.loc_conf_lvl.is_nan() { 1.0 } else { location.loc_conf_lvl.clamp(0.0, 1.0) }
}

fn is_gone(record: &Record) -> bool {
    record.rect.width <= 0.0
}
