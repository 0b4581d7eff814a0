//! What the standard metas cannot hold of a detection: fractions of pixels, the class number and, on GStreamer 1.22,
//! whose scalers copy a region without its parameters, everything but its class. Kept in field `detections` of
//! the facts, keyed by the id of the standard entry.

use gst::glib::{self, gstr};
use gst::meta::CustomMeta;
use nvr_core::detection::Detection;
use nvr_core::geometry::Rect;

/// Bytes of one record, little-endian: entry id, class number, confidence, tracker id (8), x, y, width, height. All
/// ones stand for a number that is not known.
const SIZE: usize = 36;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    pub class_id: Option<u32>,
    pub confidence: f32,
    pub tracker_id: Option<u64>,
    pub rect: Rect,
}

/// The records of a buffer: those that it has, shared with it, or with more.
#[derive(Debug)]
pub enum Records {
    Shared(glib::Bytes),
    Own(Vec<u8>),
}

impl Default for Records {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Records {
    pub fn of(buffer: &gst::BufferRef) -> Self {
        super::init();
        let bytes = CustomMeta::from_buffer(buffer, super::FACTS)
            .ok()
            .and_then(|meta| meta.structure().get::<glib::Bytes>(gstr!("detections")).ok());
        bytes.map_or_else(Self::default, Self::Shared)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    #[cfg(any(not(feature = "analytics"), test))]
    pub fn len(&self) -> usize {
        self.bytes().len() / SIZE
    }

    pub fn add(&mut self, id: u32, d: &Detection) {
        if let Self::Shared(bytes) = self {
            *self = Self::Own(bytes.to_vec());
        }
        let Self::Own(own) = self else { return };
        own.extend_from_slice(&id.to_le_bytes());
        own.extend_from_slice(&d.class_id.unwrap_or(u32::MAX).to_le_bytes());
        own.extend_from_slice(&d.confidence.to_le_bytes());
        own.extend_from_slice(&d.tracker_id.unwrap_or(u64::MAX).to_le_bytes());
        for v in [d.rect.x, d.rect.y, d.rect.width, d.rect.height] {
            own.extend_from_slice(&v.to_le_bytes());
        }
    }

    /// Puts what was added on a buffer.
    pub fn store(self, buffer: &mut gst::BufferRef) {
        if let Self::Own(own) = self {
            super::edit(buffer, |s| s.set(gstr!("detections"), glib::Bytes::from_owned(own)));
        }
    }

    pub fn find(&self, id: u32) -> Option<Record> {
        let bytes = self.bytes().chunks_exact(SIZE).find(|record| record.starts_with(&id.to_le_bytes()))?;
        let word = |i: usize| [bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]];
        let number = |i| f32::from_le_bytes(word(i));
        let class_id = u32::from_le_bytes(word(4));
        let (low, high) = (u32::from_le_bytes(word(12)), u32::from_le_bytes(word(16)));
        let tracker_id = u64::from(high) << 32 | u64::from(low);
        Some(Record {
            class_id: (class_id != u32::MAX).then_some(class_id),
            confidence: number(8),
            tracker_id: (tracker_id != u64::MAX).then_some(tracker_id),
            rect: Rect::new(number(20), number(24), number(28), number(32)),
        })
    }
}

/// The whole pixels that hold a rectangle best: x, y, width, height.
pub fn whole(rect: &Rect) -> (u32, u32, u32, u32) {
    let (x, y) = (rect.x.round() as u32, rect.y.round() as u32);
    let (right, bottom) = (rect.right().round() as u32, rect.bottom().round() as u32);
    (x, y, right.saturating_sub(x).max(1), bottom.saturating_sub(y).max(1))
}
