//! How detections and frame facts travel on buffers. The only place that knows which metas are used.
//!
//! Frame facts are one `GstCustomMeta` named [`FACTS`] whose structure holds, where known: `frame-id`
//! (guint64), `capture-time` (guint64, nanoseconds since the Unix epoch, UTC), `camera-clock` (gboolean: that
//! time is the camera's own), `model-id` (string), `inference-time-ms` (gdouble), `analysed-frame-id`,
//! `analysed-capture-time`, `analysed-camera-clock` (as above, of the frame that was looked at where that is
//! another one), `motion` (gboolean), `analysis-off` (gboolean: nobody was to look), `zones` (string: a JSON object from tracker id to names of zones) and
//! `detections` (bytes, see `record.rs`). It has no tags, so that elements copy it along with the buffer whatever
//! they do to the pixels; applications in any language can read it.
//!
//! Detections are `GstVideoRegionOfInterestMeta` in the form that Intel DL Streamer gives them or, with feature
//! `analytics`, `GstAnalyticsRelationMeta`. Both are read in the latter case.

#[cfg(feature = "analytics")]
mod analytics;
mod record;
mod replace;
mod roi;

use std::borrow::Cow;
use std::sync::{Arc, Once};

use gst::glib::{self, gstr};
use gst::meta::CustomMeta;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::event::InZones;

pub use replace::replace_detections;

/// Name of the custom meta that carries the frame facts.
pub const FACTS: &str = "NvrFrameFacts";

/// Region type that is kept for regions of motion, which are not detections.
pub const MOTION: &str = "motion";

/// Seconds from the NTP epoch (1900) to the Unix epoch.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// Registers the custom meta; once per process, before the first buffer. Further calls do nothing.
pub fn init() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // The plugin and a program that links the same elements may live in one process.
        if !CustomMeta::is_registered(FACTS) {
            CustomMeta::register_simple(FACTS);
        }
    });
}

/// What a buffer carries.
#[derive(Clone, Debug, Default)]
pub struct FrameDetections {
    pub facts: FrameFacts,
    pub detections: Vec<Detection>,
}

/// Replaces the facts on `buffer`. Fields that `facts` leaves open keep what another element wrote.
pub fn set_facts(buffer: &mut gst::BufferRef, facts: &FrameFacts) {
    let FrameFacts { frame_id, capture, analysis } = facts;
    edit(buffer, |s| {
        if let Some(id) = *frame_id {
            s.set(gstr!("frame-id"), id);
        }
        if let Some(time) = capture {
            s.set(gstr!("capture-time"), time.unix_ns);
            s.set(gstr!("camera-clock"), time.clock == Clock::Ntp);
        }
        let Some(analysis) = analysis else { return };
        s.set(gstr!("model-id"), &*c_name(&analysis.model_id));
        s.set(gstr!("inference-time-ms"), analysis.inference_time_ms);
        // One analysis replaces another as a whole.
        match analysis.frame_id {
            Some(id) => s.set(gstr!("analysed-frame-id"), id),
            None => s.remove_field(gstr!("analysed-frame-id")),
        }
        if let Some(time) = analysis.capture {
            s.set(gstr!("analysed-capture-time"), time.unix_ns);
            s.set(gstr!("analysed-camera-clock"), time.clock == Clock::Ntp);
        } else {
            s.remove_field(gstr!("analysed-capture-time"));
            s.remove_field(gstr!("analysed-camera-clock"));
        }
    });
}

/// The facts on `buffer`, empty where there are none. Falls back to a `GstReferenceTimestampMeta` of the NTP or
/// Unix clock for the capture time.
pub fn facts(buffer: &gst::BufferRef) -> FrameFacts {
    init();
    let mut facts = FrameFacts::default();
    if let Ok(meta) = CustomMeta::from_buffer(buffer, FACTS) {
        let s = meta.structure();
        facts.frame_id = s.get(gstr!("frame-id")).ok();
        facts.capture = capture(s, gstr!("capture-time"), gstr!("camera-clock"));
        facts.analysis = s.get::<&str>(gstr!("model-id")).ok().map(|model_id| Analysis {
            model_id: Arc::from(model_id),
            inference_time_ms: s.get(gstr!("inference-time-ms")).unwrap_or_default(),
            capture: capture(s, gstr!("analysed-capture-time"), gstr!("analysed-camera-clock")),
            frame_id: s.get(gstr!("analysed-frame-id")).ok(),
        });
    }
    if facts.capture.is_none() {
        facts.capture = reference_time(buffer);
    }
    facts
}

/// Adds detections, in pixels of a frame of `width` × `height`, to `buffer`. What others attached stays.
pub fn add_detections(buffer: &mut gst::BufferRef, width: u32, height: u32, detections: &[Detection]) {
    #[cfg(feature = "analytics")]
    {
        let _ = (width, height);
        analytics::add(buffer, detections);
    }
    #[cfg(not(feature = "analytics"))]
    roi::add(buffer, width, height, detections);
}

/// Every detection on `buffer`, whoever attached it, and its facts. Rectangles are not clipped: only the caller
/// knows the size of the frame.
pub fn read(buffer: &gst::BufferRef) -> FrameDetections {
    let mut detections = Vec::new();
    let records = record::Records::of(buffer);
    #[cfg(feature = "analytics")]
    analytics::read(buffer, &records, &mut detections);
    roi::read(buffer, &records, &mut detections);
    FrameDetections { facts: facts(buffer), detections }
}

/// Notes whether anything moved in the frame, once that has been looked at.
pub fn mark_motion(buffer: &mut gst::BufferRef, moved: bool) {
    edit(buffer, |s| s.set(gstr!("motion"), moved));
}

/// Whether anything moved in the frame; `None` where nobody looked.
pub fn has_motion(buffer: &gst::BufferRef) -> Option<bool> {
    init();
    CustomMeta::from_buffer(buffer, FACTS).ok()?.structure().get(gstr!("motion")).ok()
}

/// Notes that nobody was to look at the frame, which therefore says nothing.
pub fn mark_off(buffer: &mut gst::BufferRef) {
    edit(buffer, |s| s.set(gstr!("analysis-off"), true));
}

/// What a frame that nobody looked at says of those who were there before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unseen {
    /// It was left out because nothing moves in it: they are still there.
    Still,
    /// Something may have moved, and nobody was to look.
    Missed,
    Nothing,
}

/// Why nobody looked at the frame.
pub fn unseen(buffer: &gst::BufferRef) -> Unseen {
    init();
    let Ok(meta) = CustomMeta::from_buffer(buffer, FACTS) else { return Unseen::Nothing };
    let is = |name| meta.structure().get::<bool>(name).ok();
    let still = is(gstr!("motion")) == Some(false);
    match is(gstr!("analysis-off")) == Some(true) {
        true if still => Unseen::Nothing,
        true => Unseen::Missed,
        false if still => Unseen::Still,
        false => Unseen::Nothing,
    }
}

/// Notes which zones the tracked objects of the frame are in.
pub fn set_zones(buffer: &mut gst::BufferRef, zones: &InZones) {
    let Ok(text) = serde_json::to_string(zones) else { return };
    edit(buffer, |s| s.set(gstr!("zones"), text));
}

/// Which zones the tracked objects of the frame are in; `None` where they are in none, or nobody looked.
pub fn zones(buffer: &gst::BufferRef) -> Option<InZones> {
    init();
    let meta = CustomMeta::from_buffer(buffer, FACTS).ok()?;
    serde_json::from_str(meta.structure().get(gstr!("zones")).ok()?).ok()
}

/// A class name as GLib can hold it: a C string.
fn c_name(name: &str) -> Cow<'_, str> {
    if name.contains('\0') { Cow::Owned(name.replace('\0', "")) } else { Cow::Borrowed(name) }
}

fn edit(buffer: &mut gst::BufferRef, change: impl FnOnce(&mut gst::StructureRef)) {
    init();
    if let Ok(mut meta) = CustomMeta::from_mut_buffer(buffer, FACTS) {
        change(meta.mut_structure());
    } else if let Ok(mut meta) = CustomMeta::add(buffer, FACTS) {
        change(meta.mut_structure());
    }
}

fn capture(s: &gst::StructureRef, time: &glib::GStr, clock: &glib::GStr) -> Option<CaptureTime> {
    let unix_ns = s.get(time).ok()?;
    let clock = if s.get(clock).unwrap_or(false) { Clock::Ntp } else { Clock::Arrival };
    Some(CaptureTime { unix_ns, clock })
}

fn reference_time(buffer: &gst::BufferRef) -> Option<CaptureTime> {
    buffer.iter_meta::<gst::ReferenceTimestampMeta>().find_map(|meta| {
        let ns = meta.timestamp().nseconds();
        let unix_ns = match meta.reference().structure(0)?.name().as_str() {
            "timestamp/x-ntp" => ns.checked_sub(NTP_TO_UNIX_S * 1_000_000_000)?,
            "timestamp/x-unix" => ns,
            _ => return None,
        };
        Some(CaptureTime { unix_ns, clock: Clock::Ntp })
    })
}

#[cfg(test)]
mod tests;
