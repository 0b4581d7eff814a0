//! The pipeline around the element: which `nvr` elements there are, whose camera they belong to, what they say.

use std::collections::BTreeMap;

use gst::prelude::*;
use nvr_core::{
    command::{Status, Stream},
    event::timestamp,
    secret::redact_address,
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{announce::Seen, recorders};

/// How far an element's camera is looked for, in elements.
const REACH: usize = 64;
/// The element where the cameras of a wall come together.
const WALL: &str = "nvrcompositor";
/// How often a pipeline that changes meanwhile is walked again.
const TRIES: usize = 20;

/// An element of this project.
#[derive(Clone, Debug)]
pub struct Found {
    pub element: gst::Element,
    pub factory: String,
    /// The camera it belongs to, where that can be told.
    pub source_id: Option<u32>,
}

impl Found {
    pub fn is(&self, factory: &str) -> bool {
        self.factory == factory
    }

    fn stats(&self) -> Option<gst::Structure> {
        let pspec = self.element.find_property("stats")?;
        (pspec.value_type() == gst::Structure::static_type())
            .then(|| self.element.property::<Option<gst::Structure>>("stats"))
            .flatten()
    }
}

/// The outermost bin around an element.
fn top(element: &gst::Element) -> Option<gst::Bin> {
    let mut object: gst::Object = element.clone().upcast();
    while let Some(parent) = object.parent() {
        object = parent;
    }
    object.downcast().ok()
}

/// The bus that the application reads.
pub fn bus(element: &gst::Element) -> Option<gst::Bus> {
    top(element)?.downcast::<gst::Pipeline>().ok()?.bus()
}

/// Every element below `top`, also while branches come and go.
pub fn all(top: &gst::Bin) -> Vec<gst::Element> {
    for _ in 0..TRIES {
        let mut iterator = top.iterate_recurse();
        let mut found = Vec::new();
        loop {
            match iterator.next() {
                Ok(Some(element)) => found.push(element),
                Ok(None) => return found,
                Err(_) => break,
            }
        }
    }
    Vec::new()
}

/// Every element of this project in the pipeline around `element`, itself excluded.
pub fn find(element: &gst::Element) -> Vec<Found> {
    let Some(top) = top(element) else { return Vec::new() };
    all(&top)
        .into_iter()
        .filter_map(|element| {
            let factory = element.factory()?.name().to_string();
            (factory.starts_with("nvr") && factory != "nvrcontrol").then_some((element, factory))
        })
        .map(|(element, factory)| {
            // A wall belongs to no single camera.
            let source_id = (factory != WALL)
                .then(|| {
                    own_source(&element)
                        .or_else(|| neighbour(&element, gst::PadDirection::Sink))
                        .or_else(|| neighbour(&element, gst::PadDirection::Src))
                })
                .flatten();
            Found { element, factory, source_id }
        })
        .collect()
}

fn own_source(element: &gst::Element) -> Option<u32> {
    let pspec = element.find_property("source-id")?;
    (pspec.value_type() == u32::static_type()).then(|| element.property("source-id"))
}

/// The camera of the nearest element in one direction that knows its own.
fn neighbour(element: &gst::Element, direction: gst::PadDirection) -> Option<u32> {
    let mut open = vec![element.clone()];
    let mut seen = Vec::new();
    while let Some(element) = open.pop() {
        if seen.len() > REACH || seen.contains(&element) {
            continue;
        }
        for pad in element.pads().into_iter().filter(|pad| pad.direction() == direction) {
            let Some(other) = pad.peer().and_then(|peer| peer.parent_element()) else { continue };
            if let Some(id) = own_source(&other) {
                return Some(id);
            }
            open.push(other);
        }
        seen.push(element);
    }
    None
}

fn number(stats: &gst::StructureRef, name: &str) -> Option<f64> {
    let value = stats.value(name).ok()?.transform::<f64>().ok()?.get::<f64>().ok()?;
    value.is_finite().then_some(value)
}

fn count(stats: &gst::StructureRef, name: &str) -> Option<u64> {
    number(stats, name).map(|count| count.max(0.0) as u64)
}

/// Elements by camera; those of none are left out.
fn by_camera(found: &[Found]) -> BTreeMap<u32, Vec<&Found>> {
    let mut cameras: BTreeMap<u32, Vec<&Found>> = BTreeMap::new();
    for item in found {
        if let Some(id) = item.source_id {
            cameras.entry(id).or_default().push(item);
        }
    }
    cameras
}

/// Whether an element takes part in `pause`.
pub fn can_pause(found: &Found) -> bool {
    found.is("nvrinfer") || found.is("nvrmqttsink")
}

/// Notes which cameras have delivered frames since the last time.
pub fn note(found: &[Found], seen: &Mutex<Seen>, now_ns: u64) -> BTreeMap<u32, Option<u64>> {
    let counts: BTreeMap<u32, u64> = by_camera(found)
        .into_iter()
        .map(|(id, items)| {
            let frames = items.iter().filter_map(|item| {
                let stats = item.stats()?;
                count(&stats, if item.is("nvrsrc") { "delivered" } else { "frames" })
            });
            (id, frames.max().unwrap_or(0))
        })
        .collect();
    let mut seen = seen.lock();
    seen.keep(&counts.keys().copied().collect::<Vec<_>>());
    counts.into_iter().map(|(id, frames)| (id, seen.note(id, frames, now_ns))).collect()
}

/// What the elements say of their cameras.
pub fn streams(found: &[Found], seen: &Mutex<Seen>, now_ns: u64) -> Vec<Stream> {
    let last = note(found, seen, now_ns);
    by_camera(found)
        .into_iter()
        .map(|(id, items)| {
            let mut stream = Stream {
                source_id: id,
                state: "playing".into(),
                last_frame: last.get(&id).copied().flatten().map(|ns| timestamp(ns).to_string()),
                ..Stream::default()
            };
            let mut pausable = items.iter().filter(|item| can_pause(item)).peekable();
            stream.paused =
                pausable.peek().is_some() && pausable.all(|item| !item.element.property::<bool>("enabled"));
            for item in items {
                if item.is("nvrrecordsink") {
                    stream.recording = recorders::describe(item);
                    continue;
                }
                let Some(stats) = item.stats() else { continue };
                if item.is("nvrsrc") {
                    if let Ok(state) = stats.get::<String>("state") {
                        stream.state = state;
                    }
                    stream.reconnects = count(&stats, "connections").unwrap_or(0).saturating_sub(1);
                    stream.fps = stream.fps.or(number(&stats, "decoded-fps"));
                    stream.uri = item.element.property::<Option<String>>("uri");
                } else if item.is("nvrinfer") {
                    stream.fps = number(&stats, "fps");
                }
            }
            stream.fps = stream.fps.map(|fps| (fps * 100.0).round() / 100.0);
            stream
        })
        .collect()
}

/// The parameters that commands change, as the first `nvrinfer` has them.
pub fn parameters(found: &[Found]) -> Map<String, Value> {
    let mut map = Map::new();
    if let Some(infer) = found.iter().find(|item| item.is("nvrinfer")) {
        let element = &infer.element;
        map.insert("model".into(), element.property::<Option<String>>("model").into());
        map.insert("max_fps".into(), element.property::<f64>("max-fps").into());
        let threshold = f64::from(element.property::<f32>("threshold"));
        map.insert("confidence".into(), ((threshold * 1e4).round() / 1e4).into());
    }
    map
}

/// Numbers of every camera.
pub fn metrics(found: &[Found]) -> Vec<Value> {
    by_camera(found)
        .into_iter()
        .map(|(id, items)| {
            let mut map = Map::from_iter([("source_id".to_owned(), Value::from(id))]);
            for item in items {
                let Some(stats) = item.stats() else { continue };
                let mut float = |name: &str, field: &str| {
                    if let Some(value) = number(&stats, field) {
                        map.insert(name.into(), json!((value * 100.0).round() / 100.0));
                    }
                };
                match item.factory.as_str() {
                    "nvrsrc" => float("decoded_fps", "decoded-fps"),
                    "nvrinfer" => {
                        float("fps", "fps");
                        float("inference_p50_ms", "inference-p50-ms");
                        float("inference_p99_ms", "inference-p99-ms");
                    }
                    "nvrmqttsink" => float("latency_ms", "latency-ms"),
                    _ => {}
                }
                let fields: &[(&str, &str)] = match item.factory.as_str() {
                    "nvrsrc" => {
                        &[("bytes", "bytes"), ("frames", "delivered"), ("connections", "connections")]
                    }
                    "nvrinfer" => &[
                        ("analysed", "analysed"),
                        ("detections", "detections"),
                        ("skipped_busy", "skipped-busy"),
                    ],
                    "nvrmqttsink" => &[("events", "published"), ("events_dropped", "dropped")],
                    "nvroverlay" => &[("overlay_events", "events"), ("overlay_late", "late")],
                    "nvrrecordsink" => &[
                        ("recorded", "written"),
                        ("recorded_bytes", "bytes"),
                        ("record_lost", "lost"),
                        ("record_dropped", "dropped"),
                        ("record_errors", "errors"),
                        ("clips", "clips"),
                    ],
                    _ => &[],
                };
                for (name, field) in fields {
                    if let Some(value) = count(&stats, field) {
                        map.insert((*name).into(), value.into());
                    }
                }
            }
            Value::Object(map)
        })
        .collect()
}

/// Numbers of a video wall, where the pipeline has one.
pub fn wall(found: &[Found]) -> Option<Value> {
    let stats = found.iter().find(|item| item.is(WALL))?.stats()?;
    let rounded = |stats: &gst::StructureRef, name: &str, unit: f64| {
        number(stats, name).map(|value| (value / unit * 100.0).round() / 100.0)
    };
    let tiles: Vec<Value> = stats
        .get::<gst::ArrayRef<'_>>("pads")
        .map(|pads| {
            let pads = pads.iter().filter_map(|pad| pad.get::<gst::Structure>().ok());
            pads.map(|pad| {
                json!({
                    "source_id": number(&pad, "source-id").map(|id| id as i64),
                    "fps": rounded(&pad, "fps", 1.0),
                    "offline": pad.get::<bool>("offline").ok(),
                    "shown": count(&pad, "shown"),
                    "late": count(&pad, "late"),
                    "outages": count(&pad, "outages"),
                })
            })
            .collect()
        })
        .unwrap_or_default();
    Some(json!({
        "fps": rounded(&stats, "fps", 1.0),
        "frames": count(&stats, "frames"),
        "skipped": count(&stats, "skipped"),
        "compose_ms": rounded(&stats, "compose-time", 1e6),
        "tiles": tiles,
    }))
}

/// Puts what the application says over what was found.
pub fn merge(status: &mut Status, described: Map<String, Value>) {
    for (key, value) in described {
        match (key.as_str(), value) {
            ("parameters", Value::Object(parameters)) => status.parameters = parameters,
            ("streams", Value::Array(list)) => {
                let found = std::mem::take(&mut status.streams);
                status.streams = list
                    .into_iter()
                    .filter_map(|stream| serde_json::from_value::<Stream>(stream).ok())
                    .map(|mut stream| {
                        // It is retained on the broker, whatever an application thinks of passwords.
                        stream.uri = stream.uri.as_deref().map(redact_address);
                        if let Some(found) = found.iter().find(|found| found.source_id == stream.source_id) {
                            stream.uri = stream.uri.or_else(|| found.uri.clone());
                            stream.fps = stream.fps.or(found.fps);
                            stream.last_frame = stream.last_frame.or_else(|| found.last_frame.clone());
                            stream.paused |= found.paused;
                            stream.recording = stream.recording.or_else(|| found.recording.clone());
                        }
                        stream
                    })
                    .collect();
            }
            _ => {}
        }
    }
}
