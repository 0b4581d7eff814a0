//! What the sources are doing, read from the elements' `stats`.

use gst::{glib, prelude::*};
use serde::Serialize;

use super::branch::{Branch, Phase};

/// One source at one moment. Numbers are `None` where no element of the graph reports them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceStatus {
    pub source_id: u32,
    pub name: String,
    pub state: String,
    /// Frames per second that are decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Frames per second that are analysed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysed_fps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detections: Option<u64>,
    /// Capture to publication of the last event, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Frames that a busy engine passed over, and events that were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Connections made again, and branches built again.
    pub reconnects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All sources at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    pub instance_id: String,
    pub sources: Vec<SourceStatus>,
}

/// A number out of a stats structure, whatever its type.
fn number(stats: &gst::StructureRef, name: &str) -> Option<f64> {
    let value = stats.value(name).ok()?.transform::<f64>().ok()?.get::<f64>().ok()?;
    value.is_finite().then_some(value)
}

pub(super) fn source_status(branch: &Branch) -> SourceStatus {
    let mut status = SourceStatus {
        source_id: branch.camera.id,
        name: branch.camera.name.clone(),
        state: match branch.phase {
            Phase::Running(_) => branch.state.clone(),
            Phase::Stopping { .. } | Phase::Waiting { .. } => "failed".into(),
        },
        reconnects: branch.rebuilds,
        error: branch.last_error.clone(),
        ..SourceStatus::default()
    };
    let Some(parts) = branch.parts() else { return status };
    for element in parts.bin.iterate_recurse().into_iter().flatten() {
        let Some(factory) = element.factory() else { continue };
        let has_stats = element
            .find_property("stats")
            .is_some_and(|pspec| pspec.value_type() == gst::Structure::static_type());
        if !factory.name().starts_with("nvr") || !has_stats {
            continue;
        }
        let Ok(Some(stats)) = element.property_value("stats").get::<Option<gst::Structure>>() else {
            continue;
        };
        let count = |name: &str| number(&stats, name).map(|count| count.max(0.0) as u64);
        match factory.name().as_str() {
            "nvrsrc" => {
                // What it says of itself goes before its messages: whoever asks because of one would else be told
                // what was before, as long as that message waits its turn on the bus.
                if let Some(state) = text_field(&stats, "state").filter(|state| state != "stopped") {
                    if state == "playing" {
                        status.error = None;
                    }
                    status.state = state;
                }
                status.fps = number(&stats, "decoded-fps");
                status.reconnects += count("connections").unwrap_or(0).saturating_sub(1);
            }
            "nvrinfer" => {
                status.analysed_fps = number(&stats, "fps");
                status.detections = count("detections");
                status.dropped = add(status.dropped, count("skipped-busy"));
            }
            "nvrmqttsink" => {
                status.latency_ms = number(&stats, "latency-ms");
                status.dropped = add(status.dropped, count("dropped"));
            }
            _ => {}
        }
    }
    status
}

fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (one, None) | (None, one) => one,
    }
}

/// A field of a message as text, whether it is one or an enum.
pub(super) fn text_field(structure: &gst::StructureRef, name: &str) -> Option<String> {
    let value = structure.value(name).ok()?;
    if let Ok(text) = value.get::<Option<String>>() {
        return text;
    }
    if let Some((_, entry)) = glib::EnumValue::from_value(value) {
        return Some(entry.nick().to_owned());
    }
    value.serialize().ok().map(|text| text.to_string())
}
