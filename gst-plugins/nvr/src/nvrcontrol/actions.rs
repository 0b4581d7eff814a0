//! What the element can do by itself: set properties of the elements around it, and set them back.

use std::time::Duration;

use gst::{glib, prelude::*};
use nvr_core::command::{Command, Params, Scalar};

use super::{
    NvrControl,
    models::{ModelWatch, is_started},
    surroundings::{self, Found},
};

/// How long a model may take to load.
const LOAD: Duration = Duration::from_mins(2);

/// One property of one element.
struct Change {
    element: gst::Element,
    property: &'static str,
    value: glib::Value,
}

/// Carries out a command; all of it or nothing.
///
/// # Errors
/// Why not; everything is as before then.
pub fn carry_out(control: &NvrControl, command: &Command) -> Result<(), String> {
    let found = surroundings::find(control.upcast_ref());
    let mut changes = Vec::new();
    plan(&found, command, &mut changes)?;
    apply(control, changes)
}

fn plan(found: &[Found], command: &Command, changes: &mut Vec<Change>) -> Result<(), String> {
    match command {
        Command::Pause { source_id } => enable(found, *source_id, false, changes),
        Command::Resume { source_id } => enable(found, *source_id, true, changes),
        Command::SetFps { max_fps, source_id } => {
            parameter(found, *source_id, "max_fps", &Scalar::Float(*max_fps), changes)
        }
        Command::SetConfidence { confidence, source_id } => {
            parameter(found, *source_id, "confidence", &Scalar::Float(*confidence), changes)
        }
        Command::ChangeModel { model_id } => {
            parameter(found, None, "model", &Scalar::Text(model_id.clone()), changes)
        }
        Command::EnableTracking { enabled } => {
            let before = changes.len();
            for item in found.iter().filter(|item| item.is("nvrtrack")) {
                push(item, "enabled", &Scalar::Bool(*enabled), changes)?;
            }
            if changes.len() == before { Err("no nvrtrack is in this pipeline".into()) } else { Ok(()) }
        }
        Command::Set { source_id, params } | Command::Reconfigure { source_id, params } => {
            parameters(found, *source_id, params, changes)
        }
        Command::Batch { commands } => commands.iter().enumerate().try_for_each(|(index, command)| {
            plan(found, command, changes)
                .map_err(|error| format!("command {} of the batch ({}): {error}", index + 1, command.name()))
        }),
        Command::RenameInstance { new_instance_id } => {
            for item in found.iter().filter(|item| item.element.has_property("instance-id")) {
                push(item, "instance-id", &Scalar::Text(new_instance_id.clone()), changes)?;
            }
            Ok(())
        }
        // Alone, they are not carried out here; see `recorders`.
        Command::StartRecording { .. } | Command::StopRecording { .. } | Command::SaveClip { .. } => {
            Err(format!("{} cannot be part of a batch", command.name()))
        }
        Command::Status
        | Command::Metrics
        | Command::Stop
        | Command::Restart { .. }
        | Command::AddStream { .. }
        | Command::RemoveStream { .. }
        | Command::ChangeStreamUri { .. } => Err(format!(
            "{} needs an application that answers the signal \"command\"; in this pipeline there is none",
            command.name()
        )),
    }
}

fn parameters(
    found: &[Found],
    source_id: Option<u32>,
    params: &Params,
    changes: &mut Vec<Change>,
) -> Result<(), String> {
    params.iter().try_for_each(|(name, value)| parameter(found, source_id, name, value, changes))
}

/// The elements of one camera, or of all.
fn of(found: &[Found], source_id: Option<u32>) -> Result<Vec<&Found>, String> {
    let items: Vec<_> =
        found.iter().filter(|item| source_id.is_none() || item.source_id == source_id).collect();
    match source_id {
        Some(id) if items.is_empty() => Err(format!("there is no camera {id}")),
        _ => Ok(items),
    }
}

fn enable(
    found: &[Found],
    source_id: Option<u32>,
    on: bool,
    changes: &mut Vec<Change>,
) -> Result<(), String> {
    let before = changes.len();
    // Publishing stops first and analysis begins first: nothing half done gets out.
    let mut items = of(found, source_id)?;
    items.sort_by_key(|item| item.is("nvrinfer") != on);
    for item in items.into_iter().filter(|item| surroundings::can_pause(item)) {
        push(item, "enabled", &Scalar::Bool(on), changes)?;
    }
    if changes.len() == before {
        return Err("nothing here can be paused: there is neither an nvrinfer nor an nvrmqttsink".into());
    }
    Ok(())
}

/// The names that commands use, and the element and the property behind each.
const PARAMETERS: [(&str, &str, &str); 8] = [
    ("max_fps", "nvrinfer", "max-fps"),
    ("confidence", "nvrinfer", "threshold"),
    ("model", "nvrinfer", "model"),
    ("iou_threshold", "nvrinfer", "iou-threshold"),
    ("classes", "nvrinfer", "classes"),
    ("mode", "nvrrecordsink", "mode"),
    ("pre_buffer", "nvrrecordsink", "pre-buffer"),
    ("post_buffer", "nvrrecordsink", "post-buffer"),
];

fn parameter(
    found: &[Found],
    source_id: Option<u32>,
    name: &str,
    value: &Scalar,
    changes: &mut Vec<Change>,
) -> Result<(), String> {
    let Some((_, factory, property)) = PARAMETERS.iter().find(|(known, ..)| *known == name) else {
        let names: Vec<_> = PARAMETERS.iter().map(|(name, ..)| *name).collect();
        return Err(format!("there is no parameter {name:?}; there are {}", names.join(", ")));
    };
    let before = changes.len();
    let items = of(found, source_id)?;
    for item in &items {
        if item.is(factory) {
            push(item, property, value, changes)?;
        } else if item.is("nvrsrc") && name == "max_fps" && item.element.property::<f64>("max-fps") > 0.0 {
            // A source that holds frames back would keep a higher rate from being reached.
            push(item, property, value, changes)?;
        }
    }
    if changes.len() == before { Err(format!("no {factory} is in this pipeline")) } else { Ok(()) }
}

fn push(
    item: &Found,
    property: &'static str,
    value: &Scalar,
    changes: &mut Vec<Change>,
) -> Result<(), String> {
    let name = &item.factory;
    let pspec =
        item.element.find_property(property).ok_or_else(|| format!("{name} has no property {property:?}"))?;
    let wrong = || format!("{property} of {name} cannot be set to {}", value.to_json());
    let text = match value {
        Scalar::Text(text) => text.clone(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Bool(on) => on.to_string(),
    };
    let value = if pspec.value_type() == glib::Type::STRING {
        text.to_value()
    } else {
        if let (Some((min, max)), Ok(number)) = (limits(&pspec), text.parse::<f64>())
            && !(min..=max).contains(&number)
        {
            return Err(format!("{property} of {name} must be from {min} to {max}, got {text}"));
        }
        glib::Value::deserialize(&text, pspec.value_type()).map_err(|_| wrong())?
    };
    changes.push(Change { element: item.element.clone(), property, value });
    Ok(())
}

/// The range of a number property: GObject refuses what is outside of it.
fn limits(pspec: &glib::ParamSpec) -> Option<(f64, f64)> {
    if let Some(spec) = pspec.downcast_ref::<glib::ParamSpecFloat>() {
        return Some((spec.minimum().into(), spec.maximum().into()));
    }
    if let Some(spec) = pspec.downcast_ref::<glib::ParamSpecUInt>() {
        return Some((spec.minimum().into(), spec.maximum().into()));
    }
    let spec = pspec.downcast_ref::<glib::ParamSpecDouble>()?;
    Some((spec.minimum(), spec.maximum()))
}

fn apply(control: &NvrControl, changes: Vec<Change>) -> Result<(), String> {
    let swaps: Vec<(gst::Element, String)> = changes
        .iter()
        .filter(|change| change.property == "model" && is_started(&change.element))
        .filter_map(|change| Some((change.element.clone(), change.value.get::<String>().ok()?)))
        .collect();
    let watch = match surroundings::bus(control.upcast_ref()) {
        Some(bus) if !swaps.is_empty() => Some(ModelWatch::new(&bus)),
        _ => None,
    };
    let mut undo = Vec::new();
    for Change { element, property, value } in changes {
        undo.push((element.clone(), property, element.property_value(property)));
        element.set_property_from_value(property, &value);
    }
    let outcome = watch.map_or(Ok(()), |watch| watch.settle(&swaps, LOAD));
    if outcome.is_err() {
        for (element, property, value) in undo.into_iter().rev() {
            element.set_property_from_value(property, &value);
        }
    }
    outcome
}
