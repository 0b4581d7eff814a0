//! One camera's branch: built from the template, linked into the shared graph, taken out again.

use std::{
    collections::BTreeSet,
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use nvr_core::backoff::Backoff;

use super::{
    property::{changes_while_playing, check_kind, compose, convert},
    pulse::Pulse,
};
use crate::{
    graph::Value,
    template::{Element, SharedLink, Template},
    values::{Camera, Plan},
};

/// A branch that failed after this long had proven itself: its backoff starts over.
const PROVEN: Duration = Duration::from_secs(30);

/// The elements of a branch while they exist.
#[derive(Debug)]
pub(super) struct Parts {
    pub bin: gst::Bin,
    /// Pads of the shared graph that belong to this branch, and whether they were requested.
    links: Vec<(gst::Element, gst::Pad, bool)>,
    pub since: Instant,
    pub pulse: Pulse,
}

#[derive(Debug)]
pub(super) enum Phase {
    Running(Parts),
    /// Being torn down by a worker; then built again after the time given, or forgotten.
    Stopping {
        retry_after: Option<Duration>,
        /// When it is given up; elements that hang would keep the camera away for ever.
        until: Instant,
        /// Closes when the elements have stopped.
        end: Receiver<()>,
    },
    /// Built again at this time.
    Waiting {
        until: Instant,
    },
}

/// One camera, whether its elements exist or not.
#[derive(Debug)]
pub(super) struct Branch {
    pub camera: Camera,
    pub phase: Phase,
    pub backoff: Backoff,
    /// Of all that the instance has built, whichever camera they were for: a worker's late report about an older one
    /// is told apart by it.
    pub generation: u64,
    pub rebuilds: u64,
    /// Generations whose elements did not stop and still hold their threads and memory.
    pub abandoned: BTreeSet<u64>,
    /// As the source reported it, or as the launcher knows it.
    pub state: String,
    pub last_error: Option<String>,
    /// Storage tiers that its recorder misses: name and place.
    pub missed_tiers: BTreeSet<(String, String)>,
}

impl Branch {
    pub fn new(camera: Camera) -> Self {
        Self {
            camera,
            phase: Phase::Waiting { until: Instant::now() },
            backoff: Backoff::default(),
            generation: 0,
            rebuilds: 0,
            abandoned: BTreeSet::new(),
            state: "starting".into(),
            last_error: None,
            missed_tiers: BTreeSet::new(),
        }
    }

    /// Whether the source claims to send, or is one that claims nothing.
    pub fn is_sending(&self) -> bool {
        !["connecting", "stalled", "unauthorised", "lost"].contains(&self.state.as_str())
    }

    pub fn parts(&self) -> Option<&Parts> {
        match &self.phase {
            Phase::Running(parts) => Some(parts),
            _ => None,
        }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        if self.parts().is_some_and(|parts| parts.since.elapsed() > PROVEN) {
            self.backoff.reset();
        }
        self.backoff.next_delay(jitter())
    }
}

/// A number from 0 to 1 that differs between calls; nothing depends on its quality.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::hash::RandomState::new().build_hasher().finish();
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Sets every property that parameters feed.
///
/// # Errors
/// Names element and property, never the value.
pub(super) fn set_values(
    bin: &gst::Bin,
    template: &Template,
    plan: &Plan,
    camera: Option<&Camera>,
) -> Result<(), String> {
    for (element, assignment) in template.bindings() {
        let target = find(bin, element)?;
        let place = |message: String| format!("{} ({}): {message}", element.name, element.factory);
        let value_of = |name: &str| plan.get(camera, name).map_err(|error| error.0);
        let Some(value) = compose(assignment, &value_of).map_err(place)? else { continue };
        let pspec = pspec(&target, element, &assignment.key)?;
        for param in assignment.params().filter_map(|name| plan.graph.param(name)) {
            check_kind(&pspec, param, assignment.value.len() == 1).map_err(place)?;
        }
        let value = convert(&pspec, &value).map_err(place)?;
        target.set_property_from_value(&assignment.key, &value);
    }
    Ok(())
}

/// The element that the template means, and no other.
fn find(bin: &gst::Bin, element: &Element) -> Result<gst::Element, String> {
    bin.by_name(&element.name)
        .filter(|found| found.factory().is_some_and(|factory| factory.name() == element.factory))
        .ok_or_else(|| {
            format!(
                "the pipeline was not understood as it was written: {} is not where it should be",
                element.name
            )
        })
}

fn pspec(target: &gst::Element, element: &Element, key: &str) -> Result<glib::ParamSpec, String> {
    target.find_property(key).ok_or_else(|| format!("{} has no property {key:?}", element.factory))
}

/// One property of a playing branch that is to change.
#[derive(Debug)]
pub(super) struct Change {
    pub element: gst::Element,
    pub property: String,
    pub new: glib::Value,
    pub old: glib::Value,
}

/// What a branch needs to go from one set of values to another.
#[derive(Debug)]
pub(super) enum Update {
    Properties(Vec<Change>),
    Rebuild,
}

/// Compares what every property has with what it should have.
///
/// # Errors
/// A value that does not fit.
pub(super) fn plan_update(
    bin: &gst::Bin,
    template: &Template,
    old: &Plan,
    new: &Plan,
    camera: Option<&Camera>,
) -> Result<Update, String> {
    let mut changes = Vec::new();
    let value_of = |plan: &Plan, assignment| {
        compose(assignment, &|name| plan.get(camera, name).map_err(|error| error.0))
    };
    // A pad of the shared graph gets its values when it is requested.
    let mut rebuild = false;
    for assignment in template.links.iter().flat_map(|link| &link.assignments) {
        rebuild |= value_of(old, assignment)? != value_of(new, assignment)?;
    }
    for (element, assignment) in template.bindings() {
        let (before, after) = (value_of(old, assignment)?, value_of(new, assignment)?);
        if before == after {
            continue;
        }
        let target = find(bin, element)?;
        let pspec = pspec(&target, element, &assignment.key)?;
        let property_value = |value: Option<Value>| match value {
            Some(value) => convert(&pspec, &value)
                .map_err(|message| format!("{} ({}): {message}", element.name, element.factory)),
            None => Ok(pspec.default_value().clone()),
        };
        // What it was is not asked of the element: an address reads back without its password.
        let (new, old) = (property_value(after)?, property_value(before)?);
        if changes_while_playing(&pspec) {
            changes.push(Change { element: target, property: assignment.key.clone(), new, old });
        } else {
            rebuild = true;
        }
    }
    Ok(if rebuild { Update::Rebuild } else { Update::Properties(changes) })
}

/// Builds a branch; nothing is started or linked yet.
///
/// # Errors
/// What cannot be built, and why.
pub(super) fn build(template: &Template, plan: &Plan, camera: &Camera) -> Result<gst::Bin, String> {
    let bin = super::parse(&template.description, &bin_name(camera.id))?;
    // A branch that prerolls later than the others must not take the running pipeline back to PAUSED.
    bin.set_property("async-handling", true);
    set_values(&bin, template, plan, Some(camera))?;
    Ok(bin)
}

pub(super) fn bin_name(id: u32) -> String {
    format!("camera-{id}")
}

/// The camera of a branch that has left the pipeline, by something in it.
pub(super) fn camera_of(object: &gst::Object) -> Option<u32> {
    let mut top = object.clone();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    top.name().strip_prefix("camera-")?.parse().ok()
}

/// Adds a built branch to the pipeline and links it into the shared graph.
///
/// # Errors
/// A link that cannot be made; the pipeline is then as it was before.
pub(super) fn attach(
    pipeline: &gst::Pipeline,
    bin: gst::Bin,
    links: &[SharedLink],
    plan: &Plan,
    camera: &Camera,
) -> Result<Parts, String> {
    pipeline.add(&bin).map_err(|error| error.to_string())?;
    let mut parts = Parts { bin, links: Vec::new(), since: Instant::now(), pulse: Pulse::default() };
    for (index, link) in links.iter().enumerate() {
        let attached = attach_link(pipeline, &mut parts, index, link, plan, camera);
        if let Err(message) = attached {
            detach(pipeline, &parts);
            return Err(message);
        }
    }
    let outlets: Vec<_> = parts.links.iter().filter_map(|(_, pad, _)| pad.peer()).collect();
    parts.pulse = Pulse::of(&parts.bin, &outlets);
    Ok(parts)
}

fn attach_link(
    pipeline: &gst::Pipeline,
    parts: &mut Parts,
    index: usize,
    link: &SharedLink,
    plan: &Plan,
    camera: &Camera,
) -> Result<(), String> {
    let from = parts.bin.by_name(&link.from).ok_or_else(|| format!("there is no element {:?}", link.from))?;
    let source = from.src_pads().into_iter().find(|pad| !pad.is_linked()).ok_or_else(|| {
        format!("{} has no free pad for the link to {:?}; put a queue between them", link.from, link.to)
    })?;
    let ghost = gst::GhostPad::builder_with_target(&source)
        .map_err(|error| error.to_string())?
        .name(format!("link-{index}"))
        .build();
    // The shared element may play already; the pad must too, before data comes.
    ghost.set_active(true).map_err(|error| error.to_string())?;
    parts.bin.add_pad(&ghost).map_err(|error| error.to_string())?;
    let shared =
        pipeline.by_name(&link.to).ok_or_else(|| format!("[graph] has no element named {:?}", link.to))?;
    let (sink, requested) = if let Some(name) = &link.pad {
        match shared.static_pad(name) {
            Some(pad) => (Some(pad), false),
            None => (shared.request_pad_simple(name), true),
        }
    } else {
        let before = shared.sink_pads();
        let pad = shared.compatible_pad(&ghost, None);
        let requested = pad.as_ref().is_some_and(|pad| !before.contains(pad));
        (pad, requested)
    };
    let sink = sink.ok_or_else(|| format!("{} has no pad that fits {}", link.to, link.from))?;
    parts.links.push((shared, sink.clone(), requested));
    set_pad_values(&sink, link, plan, camera)?;
    ghost
        .link(&sink)
        .map(drop)
        .map_err(|error| format!("{} cannot be linked to {}: {error}", link.from, link.to))
}

/// Sets what the template says about the pad of the shared graph, before anything flows.
fn set_pad_values(pad: &gst::Pad, link: &SharedLink, plan: &Plan, camera: &Camera) -> Result<(), String> {
    for assignment in &link.assignments {
        let key = &assignment.key;
        let place = |message: String| format!("pad of {}: {message}", link.to);
        let value_of = |name: &str| plan.get(Some(camera), name).map_err(|error| error.0);
        let Some(value) = compose(assignment, &value_of).map_err(place)? else { continue };
        let pspec = pad.find_property(key).ok_or_else(|| place(format!("there is no property {key:?}")))?;
        for param in assignment.params().filter_map(|name| plan.graph.param(name)) {
            check_kind(&pspec, param, assignment.value.len() == 1).map_err(place)?;
        }
        pad.set_property_from_value(key, &convert(&pspec, &value).map_err(place)?);
    }
    Ok(())
}

/// Takes a branch out of the pipeline. Its elements are still in their state.
pub(super) fn detach(pipeline: &gst::Pipeline, parts: &Parts) {
    for (_, pad, _) in &parts.links {
        if let Some(peer) = pad.peer() {
            let _ = peer.unlink(pad);
        }
    }
    if let Err(error) = pipeline.remove(&parts.bin) {
        tracing::debug!(error = %error, "a branch was not in the pipeline");
    }
    for (element, pad, requested) in &parts.links {
        if *requested {
            element.release_request_pad(pad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_on_its_own_is_known_by_its_name() {
        gst::init().unwrap();
        let bin = gst::Bin::with_name(&bin_name(7));
        let inner = gst::Bin::new();
        let element = gst::ElementFactory::make("fakesink").build().unwrap();
        inner.add(&element).unwrap();
        bin.add(&inner).unwrap();
        assert_eq!(camera_of(element.upcast_ref()), Some(7));
        // In the pipeline it is known by itself, and a name is only a name.
        let pipeline = gst::Pipeline::new();
        pipeline.add(&bin).unwrap();
        assert_eq!(camera_of(element.upcast_ref()), None);
    }
}
