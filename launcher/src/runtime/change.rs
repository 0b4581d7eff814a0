//! Changes by command: from what is asked for now to what is asked for then, all or nothing.

use std::collections::BTreeSet;

use gst::{glib, prelude::*};
use tracing::{debug, info};

use super::{
    branch::{self, Branch, Change, Phase, Update},
    instance::{Instance, unknown},
    status::Snapshot,
};
use crate::{
    graph::{Graph, Scope, Value},
    values::{Camera, MOST_CAMERAS, Plan},
};

/// How long a branch that was just started may take to play before it counts as started all the same: a camera may
/// be slow or away.
const SETTLE: gst::ClockTime = gst::ClockTime::from_mseconds(500);

/// One change of what is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// One more camera, with values of its own.
    Add {
        camera: Camera,
        values: Vec<(String, Value)>,
    },
    Remove(u32),
    /// `any`: parameters that are not live too; their branches are built anew.
    Set {
        camera: Option<u32>,
        values: Vec<(String, Value)>,
        any: bool,
    },
    /// Stops analysis and publishing of one camera or of all, or goes on.
    Pause {
        camera: Option<u32>,
        on: bool,
    },
    Rename(String),
}

/// Which cameras are paused.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Paused {
    all: bool,
    cameras: BTreeSet<u32>,
}

impl Paused {
    pub fn contains(&self, id: u32) -> bool {
        self.all || self.cameras.contains(&id)
    }

    fn set(&mut self, camera: Option<u32>, on: bool, known: &[Camera]) {
        match (camera, on) {
            (None, _) => *self = Self { all: on, cameras: BTreeSet::new() },
            (Some(id), true) => drop(self.cameras.insert(id)),
            (Some(id), false) => {
                if std::mem::take(&mut self.all) {
                    self.cameras = known.iter().map(|camera| camera.id).collect();
                }
                self.cameras.remove(&id);
            }
        }
    }
}

/// Everything that is asked of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    plan: Plan,
    paused: Paused,
}

/// What a change has done.
#[derive(Clone, Debug)]
pub struct Applied {
    /// To go back to.
    pub before: Target,
    /// Elements that have been told to change their model, and to which.
    pub models: Vec<(gst::Element, String)>,
}

/// What is asked of an instance, and what it does.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub plan: Plan,
    pub paused: Paused,
    pub snapshot: Snapshot,
}

/// Turns analysis and publishing of a branch on or off. Publishing stops first and analysis begins first.
pub(super) fn enable(bin: &gst::Bin, on: bool) {
    let factories = if on { ["nvrinfer", "nvrmqttsink"] } else { ["nvrmqttsink", "nvrinfer"] };
    for factory in factories {
        for element in bin.iterate_all_by_element_factory_name(factory).into_iter().flatten() {
            element.set_property("enabled", on);
        }
    }
}

/// What has to be done to get to a target.
#[derive(Debug, Default)]
struct Steps {
    properties: Vec<Change>,
    rebuild: Vec<u32>,
    add: Vec<Camera>,
    remove: Vec<u32>,
}

impl Instance {
    pub(super) fn inspect(&self) -> Inspection {
        Inspection { plan: self.plan.clone(), paused: self.paused.clone(), snapshot: self.snapshot() }
    }

    /// Carries out `edits`, all of them or none.
    pub(super) fn apply(&mut self, edits: Vec<Edit>) -> Result<Applied, String> {
        let before = Target { plan: self.plan.clone(), paused: self.paused.clone() };
        let mut target = before.clone();
        for edit in edits {
            self.edit(&mut target, edit)?;
        }
        let models = self.go(target)?;
        Ok(Applied { before, models })
    }

    /// Goes back to an earlier target.
    pub(super) fn restore(&mut self, target: Target) -> Result<(), String> {
        self.go(target).map(drop)
    }

    fn edit(&self, target: &mut Target, edit: Edit) -> Result<(), String> {
        let plan = &mut target.plan;
        let known = |plan: &Plan, id: u32| plan.cameras.iter().any(|camera| camera.id == id);
        match edit {
            Edit::Add { camera, values } => {
                if known(plan, camera.id) {
                    return Err(format!("camera {} exists already", camera.id));
                }
                has_room(plan)?;
                // One that the site file knows keeps its address and its values.
                if let Some(given) = self.given.settings.cameras.get(&camera.id) {
                    plan.settings.cameras.insert(camera.id, given.clone());
                }
                let given = self.given.cameras.iter().find(|given| given.id == camera.id);
                let camera = match given {
                    Some(given) if camera == Camera::new(camera.id) => given.clone(),
                    _ => camera,
                };
                for (name, value) in values {
                    let value = checked(&plan.graph, &name, value, Given::NewBranch)?;
                    plan.settings.put(Some(camera.id), &name, value);
                }
                plan.cameras.push(camera);
            }
            Edit::Remove(id) => {
                if !known(plan, id) {
                    return Err(unknown(id));
                }
                plan.cameras.retain(|camera| camera.id != id);
                plan.settings.cameras.remove(&id);
                target.paused.cameras.remove(&id);
            }
            Edit::Set { camera, values, any } => {
                if let Some(id) = camera.filter(|id| !known(plan, *id)) {
                    return Err(unknown(id));
                }
                let given = if any { Given::Anyhow } else { Given::Live };
                for (name, value) in values {
                    let value = checked(&plan.graph, &name, value, given)?;
                    let scope = plan.graph.param(&name).map(|param| param.scope);
                    if camera.is_some() && scope != Some(Scope::Camera) {
                        return Err(format!("{name} has one value for all cameras"));
                    }
                    plan.settings.put(camera, &name, value);
                }
            }
            Edit::Pause { camera, on } => {
                if let Some(id) = camera.filter(|id| !known(plan, *id)) {
                    return Err(unknown(id));
                }
                target.paused.set(camera, on, &plan.cameras);
            }
            Edit::Rename(id) => {
                nvr_core::topic::check_instance_id(&id).map_err(|error| error.to_string())?;
                plan.instance_id = id;
            }
        }
        Ok(())
    }

    /// From the present target to another. Everything that can fail comes before what cannot be taken back.
    fn go(&mut self, target: Target) -> Result<Vec<(gst::Element, String)>, String> {
        let steps = self.steps(&target)?;
        let models = steps
            .properties
            .iter()
            .filter(|change| change.property == "model" && is_nvrinfer(&change.element))
            .filter_map(|change| Some((change.element.clone(), change.new.get::<String>().ok()?)))
            .collect();
        let plan = std::mem::replace(&mut self.plan, target.plan);
        let paused = std::mem::replace(&mut self.paused, target.paused);
        for change in &steps.properties {
            set(&change.element, &change.property, &change.new);
        }
        let mut rebuilt = Vec::new();
        if let Err(message) = self.start_all(&steps, &mut rebuilt) {
            debug!("going back: {message}");
            (self.plan, self.paused) = (plan, paused);
            for change in steps.properties.iter().rev() {
                set(&change.element, &change.property, &change.old);
            }
            for camera in &steps.add {
                self.forget(camera.id);
            }
            // The others were never touched.
            for id in rebuilt {
                if self.handle().is_stopping() {
                    break;
                }
                if let Err(again) = self.rebuild_now(id) {
                    self.retry_later(id, &again);
                }
            }
            return Err(message);
        }
        for branch in self.branches.values() {
            let (was, is) = (paused.contains(branch.camera.id), self.paused.contains(branch.camera.id));
            if was != is
                && let Some(parts) = branch.parts()
            {
                enable(&parts.bin, !is);
            }
        }
        for id in steps.remove {
            self.forget(id);
            info!(event = "source.removed", source_id = id, "camera {id} removed");
        }
        Ok(models)
    }

    /// What differs between now and `target`. Nothing has changed yet.
    fn steps(&self, target: &Target) -> Result<Steps, String> {
        let mut steps = Steps::default();
        if let Some(shared) = &self.shared {
            let update =
                branch::plan_update(self.pipeline.upcast_ref(), shared, &self.plan, &target.plan, None)?;
            match update {
                // nvrcontrol changes its own name when the broker has agreed.
                Update::Properties(changes) => steps.properties.extend(changes),
                Update::Rebuild if self.only_renamed(&target.plan) => {}
                Update::Rebuild => {
                    return Err(
                        "this belongs to the shared part of the graph and cannot change while it runs".into(),
                    );
                }
            }
        }
        for camera in &target.plan.cameras {
            let Some(branch) = self.branches.get(&camera.id) else {
                steps.add.push(camera.clone());
                continue;
            };
            if matches!(branch.phase, Phase::Stopping { retry_after: None, .. }) {
                return Err(format!("camera {} is still being taken down", camera.id));
            }
            let template = self.template.as_ref().ok_or("this graph has no cameras")?;
            // A branch without elements is built with the new values when its time comes.
            let Some(parts) = branch.parts() else { continue };
            match branch::plan_update(&parts.bin, template, &self.plan, &target.plan, Some(camera))? {
                Update::Properties(changes) => steps.properties.extend(changes),
                Update::Rebuild => steps.rebuild.push(camera.id),
            }
        }
        let stays = |id: &u32| target.plan.cameras.iter().any(|camera| camera.id == *id);
        steps.remove = self.branches.keys().copied().filter(|id| !stays(id)).collect();
        Ok(steps)
    }

    fn only_renamed(&self, plan: &Plan) -> bool {
        self.plan.settings == plan.settings
    }

    /// Starts what has to be built, and waits until it plays or has had its time. `rebuilt`: the cameras that it came
    /// to.
    fn start_all(&mut self, steps: &Steps, rebuilt: &mut Vec<u32>) -> Result<(), String> {
        // What each of them takes, a model that is loaded above all, would come on top of the time for an orderly end.
        for id in &steps.rebuild {
            self.goes_on()?;
            rebuilt.push(*id);
            self.rebuild_now(*id)?;
            self.settled(*id)?;
        }
        for camera in &steps.add {
            self.goes_on()?;
            self.branches.insert(camera.id, Branch::new(camera.clone()));
            self.start_branch(camera.id)?;
            self.settled(camera.id)?;
        }
        Ok(())
    }

    fn goes_on(&self) -> Result<(), String> {
        if self.handle().is_stopping() { Err("the instance is stopping".into()) } else { Ok(()) }
    }

    fn settled(&mut self, id: u32) -> Result<(), String> {
        let Some(parts) = self.branches.get(&id).and_then(Branch::parts) else { return Ok(()) };
        let bin = parts.bin.clone();
        let (result, ..) = bin.state(SETTLE);
        match (self.pending_error_of(bin.upcast_ref()), result) {
            (Some(message), _) => Err(message),
            (None, Err(_)) => Err("an element refused to play and did not say why".into()),
            (None, Ok(_)) => Ok(()),
        }
    }

    /// Takes a camera's branch away, whatever it is doing.
    fn forget(&mut self, id: u32) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        match &mut branch.phase {
            Phase::Running(_) => self.take_down(id, None),
            Phase::Stopping { retry_after, .. } => *retry_after = None,
            Phase::Waiting { .. } => drop(self.branches.remove(&id)),
        }
    }
}

/// Each camera is a connection and some threads, and whoever may send commands may send many.
fn has_room(plan: &Plan) -> Result<(), String> {
    if plan.cameras.len() < MOST_CAMERAS {
        return Ok(());
    }
    Err(format!("there are {} cameras, which is the limit; remove one first", plan.cameras.len()))
}

/// What is done with a value, which decides whether the parameter may have another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Given {
    /// Set while its branches play.
    Live,
    /// Of a camera that comes.
    NewBranch,
    /// Set, or its branches built anew.
    Anyhow,
}

/// A value that may be given to a parameter while the graph runs. Who may publish on the broker chooses no files, no
/// addresses and no programs but those that the graph file lets commands choose.
fn checked(graph: &Graph, name: &str, value: Value, given: Given) -> Result<Value, String> {
    let param = graph
        .param(name)
        .ok_or_else(|| format!("there is no parameter {name:?}{}", graph.param_hint(name)))?;
    if !param.remote {
        return Err(format!("{name} comes only from files and the command line"));
    }
    if given == Given::NewBranch && param.scope != Scope::Camera {
        return Err(format!("{name} has one value for all cameras"));
    }
    if given == Given::Live && !param.live {
        return Err(format!("{name} cannot change while the graph runs"));
    }
    param.check(value).map_err(|error| error.0)
}

fn is_nvrinfer(element: &gst::Element) -> bool {
    element.factory().is_some_and(|factory| factory.name() == "nvrinfer")
}

fn set(element: &gst::Element, property: &str, value: &glib::Value) {
    element.set_property_from_value(property, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::CommandLine;

    #[test]
    fn commands_add_no_more_cameras_than_a_site_file_may_have() {
        let text = "summary = \"s\"\nkind = \"k\"\n[camera]\nlaunch = \"fakesrc ! fakesink\"\n";
        let graph = Graph::parse("g.toml", text).unwrap();
        let line = CommandLine { streams: Some((0..1023).collect()), ..CommandLine::default() };
        let mut plan = Plan::resolve(graph, None, &|_| None, &line).unwrap();
        assert_eq!(has_room(&plan), Ok(()));
        plan.cameras.push(Camera::new(1023));
        assert!(has_room(&plan).unwrap_err().contains("1024 cameras, which is the limit"));
    }
}
