//! Detections as `GstVideoRegionOfInterestMeta`, in the form of Intel DL Streamer: the region's type is the class
//! name, parameter structure `detection` holds `x_min`, `x_max`, `y_min`, `y_max` (0 to 1 of the frame),
//! `confidence` and `label_id`, and `object_id` holds the tracker's `id`.

use std::sync::Arc;

use gst::glib::{self, gstr};
use gst_video::VideoRegionOfInterestMeta;
use nvr_core::detection::Detection;
use nvr_core::geometry::Rect;

use super::record::{Records, whole};

/// Region ids of ours start here, so that a region of another element is not taken for one.
#[cfg(any(not(feature = "analytics"), test))]
const FIRST_ID: u32 = 0x6e76_0000;

/// Where feature `analytics` is on, ours travel in the analytics meta instead.
#[cfg(any(not(feature = "analytics"), test))]
pub fn add(buffer: &mut gst::BufferRef, width: u32, height: u32, detections: &[Detection]) {
    if detections.is_empty() {
        return;
    }
    let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
    let mut records = Records::of(buffer);
    for d in detections {
        let id = FIRST_ID + records.len() as u32;
        records.add(id, d);
        let mut meta = VideoRegionOfInterestMeta::add(buffer, &super::c_name(&d.class_name), whole(&d.rect));
        meta.set_id(id as i32);
        let (x, y) = (f64::from(d.rect.x), f64::from(d.rect.y));
        let mut detection = gst::Structure::builder(gstr!("detection"))
            .field(gstr!("x_min"), x / width)
            .field(gstr!("x_max"), (x + f64::from(d.rect.width)) / width)
            .field(gstr!("y_min"), y / height)
            .field(gstr!("y_max"), (y + f64::from(d.rect.height)) / height)
            .field(gstr!("confidence"), f64::from(d.confidence))
            .build();
        if let Some(id) = d.class_id.and_then(|id| i32::try_from(id).ok()) {
            detection.set(gstr!("label_id"), id);
        }
        meta.add_param(detection);
        if let Some(id) = d.tracker_id {
            let mut object = gst::Structure::new_empty(gstr!("object_id"));
            // DL Streamer's type is int; ids beyond it are kept whole for those who look.
            match i32::try_from(id) {
                Ok(id) => object.set(gstr!("id"), id),
                Err(_) => object.set(gstr!("id"), id),
            }
            meta.add_param(object);
        }
    }
    records.store(buffer);
}

/// Appends the regions on `buffer`, except those of motion and those that `detections` already holds: some
/// elements describe one object with both kinds of meta.
pub fn read(buffer: &gst::BufferRef, records: &Records, detections: &mut Vec<Detection>) {
    let known = detections.len();
    for meta in buffer.iter_meta::<VideoRegionOfInterestMeta>() {
        let (x, y, w, h) = meta.rect();
        if meta.roi_type() == super::MOTION || w == 0 || h == 0 {
            continue;
        }
        let mut d = Detection {
            class_name: Arc::default(),
            class_id: None,
            confidence: 1.0,
            rect: Rect::new(x as f32, y as f32, w as f32, h as f32),
            tracker_id: None,
        };
        if let Some(record) = records.find(meta.id() as u32) {
            d.class_id = record.class_id;
            d.confidence = record.confidence;
            d.tracker_id = record.tracker_id;
            // An element that scales moves the region only.
            if whole(&record.rect) == (x, y, w, h) {
                d.rect = record.rect;
            }
        }
        let mut label = meta.roi_type();
        for s in meta.params() {
            match s.name().as_str() {
                "detection" => {
                    if let Some(confidence) = number(s, gstr!("confidence")).filter(|c| !c.is_nan()) {
                        d.confidence = confidence.clamp(0.0, 1.0) as f32;
                    }
                    if let Some(id) = integer(s, gstr!("label_id")) {
                        d.class_id = u32::try_from(id).ok();
                    }
                    if let Some(name) = s.get(gstr!("label")).ok().filter(|name: &&str| !name.is_empty()) {
                        label = name;
                    }
                }
                "object_id" => d.tracker_id = integer(s, gstr!("id")).or(d.tracker_id),
                _ => {}
            }
        }
        if !detections[..known].iter().any(|k| *k.class_name == *label && near(&k.rect, &d.rect)) {
            d.class_name = Arc::from(label);
            detections.push(d);
        }
    }
}

fn near(a: &Rect, b: &Rect) -> bool {
    [a.x - b.x, a.y - b.y, a.width - b.width, a.height - b.height].iter().all(|d| d.abs() <= 1.0)
}

/// A number of whichever floating type its writer chose.
fn number(s: &gst::StructureRef, name: &glib::GStr) -> Option<f64> {
    s.get::<f64>(name).ok().or_else(|| s.get::<f32>(name).ok().map(f64::from))
}

/// A number that is not negative, of whichever integer type its writer chose.
fn integer(s: &gst::StructureRef, name: &glib::GStr) -> Option<u64> {
    let value = s.value(name).ok()?;
    if let Ok(v) = value.get::<i32>() {
        return u64::try_from(v).ok();
    }
    if let Ok(v) = value.get::<u32>() {
        return Some(v.into());
    }
    if let Ok(v) = value.get::<i64>() {
        return u64::try_from(v).ok();
    }
    value.get().ok()
}
