//! What a command does to the running instance.

use std::{
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstnvr::nvrcontrol::ModelWatch;
use nvr_core::command::{Command, Incoming, Params, Scalar, read};
use serde_json::json;

use crate::{
    graph::{Graph, Value},
    runtime::{Edit, Handle},
    values::Camera,
};

/// How long models may take to load.
const LOAD: Duration = Duration::from_mins(2);
/// How long branches may take to come back or to go.
const BRANCH: Duration = Duration::from_secs(15);
/// How often a branch on its way is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The answer to `nvrcontrol`'s signal: `None` where the element is to do it itself.
pub fn answer(handle: &Handle, pipeline: &gst::Pipeline, name: &str, params: &str) -> Option<String> {
    let text = format!("{{\"command\":{},\"params\":{params}}}", json!(name));
    let outcome = match read(text.as_bytes(), "") {
        Incoming::Message(message) => message.command,
        Incoming::NotForUs | Incoming::Noise(_) => Err("not a command".into()),
    };
    let outcome = outcome.and_then(|command| carry_out(handle, pipeline, &command));
    match outcome {
        Ok(true) => Some("{}".into()),
        Ok(false) => None,
        Err(error) => Some(json!({ "error": crate::redact::redact(&error) }).to_string()),
    }
}

/// Whether the command was for us.
fn carry_out(handle: &Handle, pipeline: &gst::Pipeline, command: &Command) -> Result<bool, String> {
    match command {
        Command::Stop => {
            if !handle.stop() {
                return Err("the instance is ending already".into());
            }
        }
        Command::Restart { source_id } => {
            handle.restart(*source_id)?;
            wait(handle, "not every camera came back", |source| {
                source_id.is_none_or(|id| id == source.source_id) && source.state == "failed"
            })?;
        }
        Command::Status | Command::Metrics => return Ok(false),
        // The element finds the recorders itself, and answers for a clip when it is finished.
        Command::StartRecording { .. } | Command::StopRecording { .. } | Command::SaveClip { .. } => {
            return Ok(false);
        }
        Command::EnableTracking { .. } if !has_tracking(handle)? => return Ok(false),
        _ => transact(handle, pipeline, edits(command))?,
    }
    Ok(true)
}

fn has_tracking(handle: &Handle) -> Result<bool, String> {
    let graph: Graph = handle.inspect().ok_or("the instance has stopped")?.plan.graph;
    Ok(graph.param("tracking").is_some())
}

fn edits(command: &Command) -> Vec<Edit> {
    let set = |camera: Option<u32>, name: &str, value: Value| Edit::Set {
        camera,
        values: vec![(name.into(), value)],
        any: false,
    };
    match command {
        Command::Pause { source_id } => vec![Edit::Pause { camera: *source_id, on: true }],
        Command::Resume { source_id } => vec![Edit::Pause { camera: *source_id, on: false }],
        Command::AddStream { source_id, name, uri, params } => {
            let camera = match name {
                Some(name) => Camera { id: *source_id, name: name.clone() },
                None => Camera::new(*source_id),
            };
            let uri = uri.iter().map(|uri| ("uri".to_owned(), Value::Text(uri.clone())));
            vec![Edit::Add { camera, values: values(params).into_iter().chain(uri).collect() }]
        }
        Command::RemoveStream { source_id } => vec![Edit::Remove(*source_id)],
        Command::ChangeStreamUri { source_id, uri } => {
            vec![set(Some(*source_id), "uri", Value::Text(uri.clone()))]
        }
        Command::ChangeModel { model_id } => vec![set(None, "model", Value::Text(model_id.clone()))],
        Command::SetFps { max_fps, source_id } => vec![set(*source_id, "max_fps", Value::Float(*max_fps))],
        Command::SetConfidence { confidence, source_id } => {
            vec![set(*source_id, "confidence", Value::Float(*confidence))]
        }
        Command::EnableTracking { enabled } => vec![set(None, "tracking", Value::Bool(*enabled))],
        Command::Set { source_id, params } => {
            vec![Edit::Set { camera: *source_id, values: values(params), any: false }]
        }
        Command::Reconfigure { source_id, params } => {
            vec![Edit::Set { camera: *source_id, values: values(params), any: true }]
        }
        Command::Batch { commands } => commands.iter().flat_map(edits).collect(),
        Command::RenameInstance { new_instance_id } => vec![Edit::Rename(new_instance_id.clone())],
        Command::Status
        | Command::Metrics
        | Command::Stop
        | Command::Restart { .. }
        | Command::StartRecording { .. }
        | Command::StopRecording { .. }
        | Command::SaveClip { .. } => Vec::new(),
    }
}

fn values(params: &Params) -> Vec<(String, Value)> {
    params
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Scalar::Text(text) => Value::Text(text.clone()),
                Scalar::Int(number) => Value::Int(*number),
                Scalar::Float(number) => Value::Float(*number),
                Scalar::Bool(on) => Value::Bool(*on),
            };
            (name.clone(), value)
        })
        .collect()
}

/// Applies changes, waits for what they began, and goes back where that fails.
fn transact(handle: &Handle, pipeline: &gst::Pipeline, edits: Vec<Edit>) -> Result<(), String> {
    let removed: Vec<u32> =
        edits.iter().filter_map(|edit| if let Edit::Remove(id) = edit { Some(*id) } else { None }).collect();
    // Listens before anything is said: a model that cannot be found fails at once.
    let watch = pipeline.bus().map(|bus| ModelWatch::new(&bus));
    let applied = handle.apply(edits)?;
    if let Some(watch) = watch
        && let Err(error) = watch.settle(&applied.models, LOAD)
    {
        // A camera that is still being taken down cannot be built again beside itself.
        let back = await_removed(handle, &removed).and_then(|()| handle.restore(applied.before));
        return Err(match back {
            Ok(()) => error,
            Err(again) => format!("{error}; and going back failed: {again}"),
        });
    }
    await_removed(handle, &removed)
}

/// Waits until the elements of these cameras are gone, but for those that have come back.
fn await_removed(handle: &Handle, removed: &[u32]) -> Result<(), String> {
    if removed.is_empty() {
        return Ok(());
    }
    let stays: Vec<u32> = handle
        .inspect()
        .map(|inspection| inspection.plan.cameras.iter().map(|camera| camera.id).collect())
        .unwrap_or_default();
    wait(handle, "the camera's elements are still stopping", |source| {
        removed.contains(&source.source_id) && !stays.contains(&source.source_id)
    })
}

/// Waits until `open` is true of no source.
fn wait(
    handle: &Handle,
    otherwise: &str,
    open: impl Fn(&crate::runtime::SourceStatus) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + BRANCH;
    loop {
        let Some(snapshot) = handle.snapshot() else { return Err("the instance has stopped".into()) };
        if !snapshot.sources.iter().any(&open) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(otherwise.into());
        }
        thread::sleep(LOOK);
    }
}
