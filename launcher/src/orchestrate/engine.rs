//! Which rules are at work, and how far. The world is a parameter: processes, commands and status come through
//! [`World`], and times are milliseconds of a clock that nobody sets, see [`super::clock`].

use std::collections::{BTreeMap, BTreeSet};

use nvr_core::command::{Ack, AckStatus, Command, State, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{info, warn};

use super::rules::{Action, Rule, Rules, Step, Vars, fill};

/// What the engine can do.
pub trait World {
    /// Starts a supervised process; nothing where it runs already.
    fn spawn(&mut self, id: &str, args: &[String]) -> Result<(), String>;
    /// Ends a process and supervises it no more.
    fn stop(&mut self, id: &str);
    /// Whether there is such a process, supervised or still ending.
    fn is_running(&self, id: &str) -> bool;
    /// How many processes there are.
    fn count(&self) -> usize;
    /// Sends a command; gives the request's id.
    fn send(&mut self, command: &Command, to: &[String]) -> String;
    /// What an instance last said of itself.
    fn status(&self, id: &str) -> Option<&Status>;
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "phase", content = "step")]
enum Phase {
    Doing(usize),
    Active,
    Undoing(usize),
}

/// A step under way.
#[derive(Clone, Debug)]
struct Wait {
    action: Action,
    deadline_ms: u64,
    request: Option<String>,
    open: BTreeSet<String>,
    failed: Option<String>,
}

/// One rule at work for one key.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Activation {
    rule: String,
    key: String,
    vars: Vars,
    #[serde(flatten)]
    phase: Phase,
    /// When the end comes by itself.
    ends_at_ms: Option<u64>,
    /// The end has come, and the steps are not done yet.
    ending: bool,
    /// Steps are done again: what is done already may refuse to be done.
    #[serde(default)]
    again: bool,
    #[serde(skip)]
    wait: Option<Wait>,
}

/// What survives a restart of the orchestrator.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Saved {
    activations: Vec<Activation>,
    /// Until when a rule and key start nothing, milliseconds; in the file since the epoch.
    cool_downs: BTreeMap<String, u64>,
}

/// The rules and what they are doing.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    saved: Saved,
    changed: bool,
    /// Only the end of something has moved, and when that was last kept.
    moved: bool,
    moved_kept_ms: u64,
    /// That there are too many activations has been said.
    crowded: bool,
}

/// Rules at work at once; each is written to the state file.
const MOST_ACTIVATIONS: usize = 1024;
/// A deadline that every event moves is kept this often, milliseconds.
const KEEP_MOVED_MS: u64 = 1000;

/// What an event has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Begun {
    Nothing,
    /// The end of an activation comes later.
    Moved,
    Added,
    /// Too many are at work.
    Crowded,
}

impl Saved {
    /// The same by another clock, which is `by_ms` ahead of this one.
    #[must_use]
    pub fn by_clock(mut self, by_ms: i64) -> Self {
        let times = self.activations.iter_mut().filter_map(|activation| activation.ends_at_ms.as_mut());
        for time in times.chain(self.cool_downs.values_mut()) {
            *time = time.saturating_add_signed(by_ms);
        }
        self
    }

    /// Nothing lasts longer than its rule says, whatever the clock has done since it was written.
    fn clamp(&mut self, rules: &[Rule], now_ms: u64) {
        for activation in &mut self.activations {
            let rule = rules.iter().find(|rule| rule.name == activation.rule && rule.timeout > 0.0);
            if let (Some(rule), Some(at)) = (rule, &mut activation.ends_at_ms) {
                *at = (*at).min(after(now_ms, rule.timeout));
            }
        }
        for (name, until) in &mut self.cool_downs {
            let is_of = |rule: &&Rule| name.strip_prefix(&rule.name).is_some_and(|key| key.starts_with('/'));
            let most = rules.iter().filter(is_of).map(|rule| rule.cool_down).fold(0.0, f64::max);
            *until = (*until).min(after(now_ms, most));
        }
    }
}

/// So many seconds after `now_ms`.
fn after(now_ms: u64, seconds: f64) -> u64 {
    now_ms.saturating_add((seconds * 1e3) as u64)
}

impl Engine {
    pub fn new(rules: Rules, mut saved: Saved, now_ms: u64) -> Self {
        saved.clamp(&rules.rules, now_ms);
        // A rule that is no longer there cannot be undone by anybody.
        saved.activations.retain(|activation| {
            let known = rules.rules.iter().any(|rule| rule.name == activation.rule);
            if !known {
                warn!(event = "rule.forgotten", rule = activation.rule, "the file has no such rule any more");
            }
            known
        });
        for activation in &mut saved.activations {
            activation.again = true;
        }
        Self { rules, saved, changed: true, moved: false, moved_kept_ms: 0, crowded: false }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What to keep.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Whether that has changed since the last time, and is worth a write to the disk now.
    pub fn take_changes(&mut self, now_ms: u64) -> bool {
        let due = self.moved && now_ms >= self.moved_kept_ms.saturating_add(KEEP_MOVED_MS);
        if !self.changed && !due {
            return false;
        }
        (self.changed, self.moved, self.moved_kept_ms) = (false, false, now_ms);
        true
    }

    /// The instances that rules at work have started: they are to run again after a restart.
    pub fn wanted(&self) -> Vec<(String, Vec<String>)> {
        let mut wanted = Vec::new();
        for activation in &self.saved.activations {
            let Some(rule) = self.rules.rules.iter().find(|rule| rule.name == activation.rule) else {
                continue;
            };
            let done = match activation.phase {
                Phase::Doing(step) => step,
                Phase::Active | Phase::Undoing(0) => rule.steps.len(),
                // How far the undoing is does not tell which of them it has stopped: those that run are adopted.
                Phase::Undoing(_) => 0,
            };
            for step in &rule.steps[..done.min(rule.steps.len())] {
                if let Ok(Action::Spawn { id, args }) = self.rules.action(step, &activation.vars) {
                    wanted.push((id, args));
                }
            }
        }
        wanted
    }

    /// Whether a rule at work starts, has started or is ending this instance.
    pub fn involves(&self, id: &str) -> bool {
        self.saved.activations.iter().any(|activation| {
            let rule = self.rules.rules.iter().find(|rule| rule.name == activation.rule);
            rule.into_iter().flat_map(|rule| rule.steps.iter().chain(&rule.undo)).any(|step| {
                matches!(self.rules.action(step, &activation.vars),
                    Ok(Action::Spawn { id: known, .. } | Action::Stop { id: known }) if known == id)
            })
        })
    }

    /// Something was published.
    pub fn event(&mut self, topic: &str, payload: &Value, now_ms: u64) {
        for rule in &self.rules.rules {
            if let Some(vars) = rule.start.read(topic, payload) {
                let room = self.saved.activations.len() < MOST_ACTIVATIONS;
                match begin(&mut self.saved, rule, &self.rules.vars(), vars, now_ms, room) {
                    Begun::Nothing => {}
                    Begun::Crowded if std::mem::replace(&mut self.crowded, true) => {}
                    Begun::Crowded => warn!(
                        event = "rule.crowded",
                        rule = rule.name,
                        "{MOST_ACTIVATIONS} rules are at work; more keys begin nothing until some have ended"
                    ),
                    Begun::Moved => self.moved = true,
                    Begun::Added => (self.changed, self.crowded) = (true, false),
                }
            }
            let Some(end) = &rule.end else { continue };
            let Some(mut vars) = end.read(topic, payload) else { continue };
            vars.extend(self.rules.vars());
            let Ok(key) = fill(&rule.key, &vars) else { continue };
            for activation in &mut self.saved.activations {
                if activation.rule == rule.name && activation.key == key && !activation.ending {
                    info!(event = "rule.ending", rule = rule.name, key, "the end has come");
                    activation.ending = true;
                    self.changed = true;
                }
            }
        }
    }

    /// An instance has answered.
    pub fn answer(&mut self, ack: &Ack) {
        for activation in &mut self.saved.activations {
            let Some(wait) = &mut activation.wait else { continue };
            if wait.request.is_none() || wait.request != ack.request_id {
                continue;
            }
            match ack.ack_status {
                AckStatus::Received => {}
                AckStatus::Completed => drop(wait.open.remove(&ack.instance_id)),
                AckStatus::Error => {
                    wait.open.remove(&ack.instance_id);
                    let error = ack.error.as_deref().unwrap_or("failed");
                    wait.failed.get_or_insert_with(|| format!("{}: {error}", ack.instance_id));
                }
            }
        }
    }

    /// An instance was started anew and knows nothing of what it was told before.
    pub fn restarted(&mut self, id: &str) {
        for activation in &mut self.saved.activations {
            let Some(rule) = self.rules.rules.iter().find(|rule| rule.name == activation.rule) else {
                continue;
            };
            let told = rule.steps.iter().position(|step| {
                matches!(self.rules.action(step, &activation.vars),
                    Ok(Action::Command { to, .. }) if to.iter().any(|target| target == id))
            });
            if let (Phase::Active, Some(step)) = (activation.phase, told) {
                (activation.phase, activation.again, activation.wait) = (Phase::Doing(step), true, None);
                self.changed = true;
            }
        }
    }

    /// Goes on with whatever can go on.
    pub fn tick(&mut self, world: &mut dyn World, now_ms: u64) {
        let before = self.saved.cool_downs.len();
        self.saved.cool_downs.retain(|_, until| *until > now_ms);
        self.changed |= before != self.saved.cool_downs.len();
        let mut finished = Vec::new();
        for (index, activation) in self.saved.activations.iter_mut().enumerate() {
            let Some(rule) = self.rules.rules.iter().find(|rule| rule.name == activation.rule) else {
                continue;
            };
            let phase = activation.phase;
            if advance(activation, rule, &self.rules, world, now_ms) {
                finished.push(index);
            }
            self.changed |= phase != activation.phase;
        }
        for index in finished.into_iter().rev() {
            let activation = self.saved.activations.remove(index);
            let rule = self.rules.rules.iter().find(|rule| rule.name == activation.rule);
            if let Some(rule) = rule.filter(|rule| rule.cool_down > 0.0) {
                let key = name(&activation.rule, &activation.key);
                self.saved.cool_downs.insert(key, after(now_ms, rule.cool_down));
            }
            info!(event = "rule.done", rule = activation.rule, key = activation.key, "back to normal");
            self.changed = true;
        }
    }
}

fn name(rule: &str, key: &str) -> String {
    format!("{rule}/{key}")
}

fn begin(saved: &mut Saved, rule: &Rule, values: &Vars, mut vars: Vars, now_ms: u64, room: bool) -> Begun {
    vars.extend(values.clone());
    let Ok(key) = fill(&rule.key, &vars) else { return Begun::Nothing };
    let ends_at_ms = (rule.timeout > 0.0).then(|| after(now_ms, rule.timeout));
    if let Some(known) = saved.activations.iter_mut().find(|a| a.rule == rule.name && a.key == key) {
        let before = std::mem::replace(&mut known.ends_at_ms, ends_at_ms);
        return if before == ends_at_ms { Begun::Nothing } else { Begun::Moved };
    }
    if saved.cool_downs.get(&name(&rule.name, &key)).is_some_and(|until| *until > now_ms) {
        info!(event = "rule.cooling", rule = rule.name, key, "cooling down; nothing is done");
        return Begun::Nothing;
    }
    if !room {
        return Begun::Crowded;
    }
    info!(event = "rule.started", rule = rule.name, key, "the rule begins");
    saved.activations.push(Activation {
        rule: rule.name.clone(),
        key,
        vars,
        phase: Phase::Doing(0),
        ends_at_ms,
        ending: false,
        again: false,
        wait: None,
    });
    Begun::Added
}

/// Takes as many steps as can be taken now. Whether everything is done and undone.
fn advance(
    activation: &mut Activation,
    rule: &Rule,
    rules: &Rules,
    world: &mut dyn World,
    now_ms: u64,
) -> bool {
    loop {
        let (steps, index): (&[Step], usize) = match activation.phase {
            Phase::Doing(index) => (&rule.steps, index),
            Phase::Undoing(index) => (&rule.undo, index),
            Phase::Active => {
                let over = activation.ends_at_ms.is_some_and(|at| now_ms >= at);
                if !activation.ending && !over {
                    return false;
                }
                activation.phase = Phase::Undoing(0);
                continue;
            }
        };
        let undoing = matches!(activation.phase, Phase::Undoing(_));
        let Some(step) = steps.get(index) else {
            if undoing {
                return true;
            }
            activation.again = false;
            activation.phase = Phase::Active;
            info!(event = "rule.active", rule = rule.name, key = activation.key, "all steps are done");
            continue;
        };
        let failure = match take(activation, step, rules, world, now_ms) {
            Ok(true) => None,
            Ok(false) => return false,
            Err(error) => Some(error),
        };
        activation.wait = None;
        let next = if undoing { Phase::Undoing(index + 1) } else { Phase::Doing(index + 1) };
        match failure {
            None => activation.phase = next,
            Some(error) if undoing || activation.again => {
                let (rule, key) = (&rule.name, &activation.key);
                warn!(event = "rule.step_failed", rule, key, step = index + 1, "going on: {error}");
                activation.phase = next;
            }
            Some(error) => {
                let (rule, key) = (&rule.name, &activation.key);
                warn!(event = "rule.failed", rule, key, step = index + 1, "undoing what was done: {error}");
                activation.phase = Phase::Undoing(0);
            }
        }
    }
}

/// Begins a step, or looks how far it is. `true` when it is done.
fn take(
    activation: &mut Activation,
    step: &Step,
    rules: &Rules,
    world: &mut dyn World,
    now_ms: u64,
) -> Result<bool, String> {
    if activation.wait.is_none() {
        let action = rules.action(step, &activation.vars)?;
        match &action {
            Action::Spawn { id, args } => {
                if !world.is_running(id) && world.count() >= rules.max_instances {
                    return Err(format!("{} instances run already, which is the limit", world.count()));
                }
                world.spawn(id, args)?;
            }
            Action::Stop { id } => world.stop(id),
            Action::Command { .. } | Action::Wait { .. } => {}
        }
        let deadline_ms = after(now_ms, step.timeout.clamp(0.0, 1e6));
        activation.wait =
            Some(Wait { action, deadline_ms, request: None, open: BTreeSet::new(), failed: None });
    }
    let Some(wait) = &mut activation.wait else { return Ok(false) };
    let done = match &wait.action {
        Action::Spawn { id, .. } => world.status(id).is_some_and(is_playing),
        Action::Stop { id } => !world.is_running(id),
        Action::Wait { id, status } => world.status(id).is_some_and(|known| known.status.name() == status),
        Action::Command { command, to } => {
            let there = |id: &String| world.status(id).is_some_and(|status| status.status.is_alive());
            if wait.request.is_none() && to.iter().all(there) {
                wait.open = to.iter().cloned().collect();
                wait.request = Some(world.send(command, to));
            }
            if let Some(error) = wait.failed.take() {
                return Err(error);
            }
            wait.request.is_some() && wait.open.is_empty()
        }
    };
    if !done && now_ms >= wait.deadline_ms {
        let what = match &wait.action {
            Action::Spawn { id, .. } => format!("{id} does not play"),
            Action::Stop { id } => format!("{id} does not end"),
            Action::Wait { id, status } => format!("{id} is not {status}"),
            Action::Command { command, to } => {
                format!("{}: no answer from {}", command.name(), to.join(", "))
            }
        };
        return Err(format!("{what} within {} s", step.timeout));
    }
    Ok(done)
}

/// Runs, and every camera delivers.
fn is_playing(status: &Status) -> bool {
    matches!(status.status, State::Running | State::Paused)
        && status.streams.iter().all(|stream| stream.state == "playing")
}
