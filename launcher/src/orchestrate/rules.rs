//! Rules files: what they may hold, and what an event means under them. Nothing here starts or sends anything.

use std::collections::BTreeMap;

use nvr_core::{
    command::{Command, Incoming, read},
    topic,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Values that are known by name while a rule runs.
pub type Vars = BTreeMap<String, Value>;

/// A whole rules file.
#[allow(clippy::struct_field_names, reason = "the names are those of the file")]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Most processes that run at once.
    #[serde(default = "default_max_instances")]
    pub max_instances: usize,
    /// Values for `${name}`; the command line may give others.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    #[serde(default)]
    pub instances: BTreeMap<String, Instance>,
    #[serde(default)]
    pub rules: Vec<Rule>,
}

fn default_max_instances() -> usize {
    8
}

/// A process of the launcher: how it is started, and what it is called.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    pub id: String,
    pub graph: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// Runs as long as the orchestrator does.
    #[serde(default)]
    pub always: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: String,
    #[serde(flatten)]
    pub start: Trigger,
    pub end: Option<Trigger>,
    /// What the rule runs once for at a time.
    #[serde(default)]
    pub key: String,
    /// Seconds after the end in which the same key starts nothing.
    #[serde(default)]
    pub cool_down: f64,
    /// Seconds after which the end comes by itself; 0 = never. Another start event begins them anew.
    #[serde(default)]
    pub timeout: f64,
    pub steps: Vec<Step>,
    #[serde(default)]
    pub undo: Vec<Step>,
}

/// An event that matters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    pub topic: String,
    /// What has to be true of the payload, by path.
    #[serde(default)]
    pub when: BTreeMap<String, Condition>,
    /// What is taken out of the payload.
    #[serde(default)]
    pub vars: BTreeMap<String, Var>,
}

/// A value, or bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    Bounds(Bounds),
    Equals(Value),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub min: Option<f64>,
    pub max: Option<f64>,
    #[serde(rename = "in")]
    pub one_of: Option<Vec<Value>>,
    pub exists: Option<bool>,
}

/// A variable out of a payload. There is no free text: it would reach command lines and addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Var {
    pub from: String,
    #[serde(rename = "type")]
    pub kind: VarKind,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum VarKind {
    Int,
    Float,
    Bool,
    /// Letters, digits, '-' and '_', not at the beginning a '-'; at most 64.
    Name,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Starts an instance of this description, and waits until all its cameras play.
    pub spawn: Option<String>,
    /// Stops an instance of this description, and waits until it is gone.
    pub stop: Option<String>,
    /// Sends a command, and waits until every instance in `to` has carried it out.
    pub command: Option<String>,
    #[serde(default)]
    pub params: Map<String, Value>,
    #[serde(default)]
    pub to: Vec<String>,
    /// Waits until this instance's status is `status`.
    pub wait: Option<String>,
    pub status: Option<String>,
    /// Seconds that the step may take.
    #[serde(default = "default_step_timeout")]
    pub timeout: f64,
}

fn default_step_timeout() -> f64 {
    60.0
}

/// What a step comes to with its variables filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Spawn { id: String, args: Vec<String> },
    Stop { id: String },
    Command { command: Command, to: Vec<String> },
    Wait { id: String, status: String },
}

impl Rules {
    /// Reads and checks a file. `prefix` is the topic prefix, `set` overrides `[values]`.
    ///
    /// # Errors
    /// What is wrong, with the name of the file.
    pub fn parse(
        file: &str,
        text: &str,
        prefix: &str,
        set: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut rules: Self = toml::from_str(text).map_err(|error| format!("{file}: {error}"))?;
        for (name, value) in set {
            if !rules.values.contains_key(name) {
                let known: Vec<_> = rules.values.keys().map(String::as_str).collect();
                return Err(format!("--set {name}: {file} has no such value; it has {}", known.join(", ")));
            }
            rules.values.insert(name.clone(), value.clone());
        }
        rules.values.insert("prefix".into(), prefix.into());
        let vars: Vars = rules.values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        for rule in &mut rules.rules {
            for trigger in std::iter::once(&mut rule.start).chain(&mut rule.end) {
                trigger.topic = fill(&trigger.topic, &vars).map_err(|error| format!("{file}: {error}"))?;
            }
        }
        rules.check().map_err(|error| format!("{file}: {error}"))?;
        Ok(rules)
    }

    fn check(&self) -> Result<(), String> {
        if self.rules.is_empty() && !self.instances.values().any(|instance| instance.always) {
            return Err(
                "there is neither a [[rules]] nor an instance with always = true: nothing would start".into(),
            );
        }
        let mut names = Vec::new();
        for (name, instance) in self.instances.iter().filter(|(_, instance)| instance.always) {
            let id = fill(&instance.id, &self.vars())
                .map_err(|error| format!("instance {name}: {error}; it always runs, without an event"))?;
            topic::check_instance_id(&id).map_err(|error| error.to_string())?;
            instance.start_args(&self.vars()).map_err(|error| format!("instance {name}: {error}"))?;
        }
        for rule in &self.rules {
            let place = |error: String| format!("rule {:?}: {error}", rule.name);
            if names.contains(&&rule.name) {
                return Err(place("there are two of that name".into()));
            }
            names.push(&rule.name);
            for trigger in std::iter::once(&rule.start).chain(&rule.end) {
                topic::check_filter(&trigger.topic).map_err(|error| place(error.to_string()))?;
            }
            // Anything that the payload may give stands in for it.
            let sample = |trigger: &Trigger| -> Vars {
                let mut vars = self.vars();
                vars.extend(trigger.vars.iter().map(|(name, var)| {
                    let value = match var.kind {
                        VarKind::Int => json!(var.min.unwrap_or(0.0) as i64),
                        VarKind::Float => json!(var.min.unwrap_or(0.0)),
                        VarKind::Bool => json!(true),
                        VarKind::Name => json!("x"),
                    };
                    (name.clone(), value)
                }));
                vars
            };
            for trigger in std::iter::once(&rule.start).chain(&rule.end) {
                fill(&rule.key, &sample(trigger)).map_err(|error| place(format!("key: {error}")))?;
            }
            let vars = sample(&rule.start);
            for (list, steps) in [("step", &rule.steps), ("undo step", &rule.undo)] {
                for (index, step) in steps.iter().enumerate() {
                    self.action(step, &vars)
                        .map_err(|error| place(format!("{list} {}: {error}", index + 1)))?;
                }
            }
        }
        Ok(())
    }

    /// The file's own values.
    pub fn vars(&self) -> Vars {
        self.values.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
    }

    /// The instances that always run: id and arguments.
    pub fn always(&self) -> Vec<(String, Vec<String>)> {
        let vars = self.vars();
        self.instances
            .values()
            .filter(|instance| instance.always)
            .filter_map(|instance| Some((fill(&instance.id, &vars).ok()?, instance.start_args(&vars).ok()?)))
            .collect()
    }

    /// What a step means with these variables.
    ///
    /// # Errors
    /// What is missing or makes no sense.
    pub fn action(&self, step: &Step, vars: &Vars) -> Result<Action, String> {
        let instance = |name: &String| {
            self.instances.get(name).ok_or_else(|| format!("there is no instance description {name:?}"))
        };
        let id_of = |text: &str| -> Result<String, String> {
            let id = fill(text, vars)?;
            topic::check_instance_id(&id).map_err(|error| error.to_string())?;
            Ok(id)
        };
        match (&step.spawn, &step.stop, &step.command, &step.wait) {
            (Some(name), None, None, None) => {
                let instance = instance(name)?;
                Ok(Action::Spawn { id: id_of(&instance.id)?, args: instance.start_args(vars)? })
            }
            (None, Some(name), None, None) => Ok(Action::Stop { id: id_of(&instance(name)?.id)? }),
            (None, None, Some(command), None) => {
                if step.to.is_empty() {
                    return Err("a command needs the instances that it is for: to = [\"…\"]".into());
                }
                let to = step.to.iter().map(|id| id_of(id)).collect::<Result<_, _>>()?;
                let params = fill_value(&Value::Object(step.params.clone()), vars)?;
                let text = json!({ "command": command, "params": params }).to_string();
                match read(text.as_bytes(), "") {
                    Incoming::Message(message) => Ok(Action::Command { command: message.command?, to }),
                    Incoming::NotForUs | Incoming::Noise(_) => Err("not a command".into()),
                }
            }
            (None, None, None, Some(id)) => {
                let status = step.status.clone().unwrap_or_else(|| "running".into());
                Ok(Action::Wait { id: id_of(id)?, status })
            }
            _ => Err("a step is one of spawn, stop, command and wait".into()),
        }
    }
}

impl Instance {
    /// The command line without the program.
    fn start_args(&self, vars: &Vars) -> Result<Vec<String>, String> {
        let mut args = vec![fill(&self.graph, vars)?];
        for arg in &self.args {
            args.push(fill(arg, vars)?);
        }
        args.extend(["--instance-id".into(), fill(&self.id, vars)?, "--no-status".into()]);
        Ok(args)
    }
}

impl Trigger {
    /// The variables of an event, where it is one that matters.
    pub fn read(&self, topic: &str, payload: &Value) -> Option<Vars> {
        if !topic::matches(topic, &self.topic) {
            return None;
        }
        let holds = |(path, condition): (&String, &Condition)| condition.holds(at(payload, path));
        if !self.when.iter().all(holds) {
            return None;
        }
        self.vars.iter().map(|(name, var)| Some((name.clone(), var.read(payload)?))).collect()
    }
}

impl Condition {
    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Equals(wanted) => value.is_some_and(|value| same(value, wanted)),
            Self::Bounds(bounds) => {
                if let Some(exists) = bounds.exists
                    && exists != value.is_some_and(|value| !value.is_null())
                {
                    return false;
                }
                let number = value.and_then(Value::as_f64);
                bounds.min.is_none_or(|min| number.is_some_and(|number| number >= min))
                    && bounds.max.is_none_or(|max| number.is_some_and(|number| number <= max))
                    && bounds
                        .one_of
                        .as_ref()
                        .is_none_or(|list| value.is_some_and(|value| list.iter().any(|one| same(value, one))))
            }
        }
    }
}

/// Numbers are the same whether they are written as whole ones or not.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

impl Var {
    fn read(&self, payload: &Value) -> Option<Value> {
        let value = at(payload, &self.from)?;
        let within = |number: f64| {
            self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max)
        };
        let fits = match self.kind {
            VarKind::Int => value.as_i64().is_some_and(|number| within(number as f64)),
            VarKind::Float => value.as_f64().is_some_and(within),
            VarKind::Bool => value.is_boolean(),
            VarKind::Name => value.as_str().is_some_and(|text| {
                (1..=64).contains(&text.len())
                    && !text.starts_with('-')
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            }),
        };
        fits.then(|| value.clone())
    }
}

/// A value by its path: `a.b.0`.
fn at<'a>(payload: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(payload, |value, key| match value {
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => value.get(key),
    })
}

/// Puts values in for `${name}`.
///
/// # Errors
/// A name that has no value.
pub fn fill(text: &str, vars: &Vars) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) =
            after.split_once('}').ok_or_else(|| format!("{text:?} has a \"${{\" without end"))?;
        let value = vars.get(name).ok_or_else(|| format!("{name:?} in {text:?} has no value"))?;
        result.push_str(before);
        match value {
            Value::String(text) => result.push_str(text),
            other => result.push_str(&other.to_string()),
        }
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// The same in JSON: text that is one variable and nothing else becomes its value.
fn fill_value(value: &Value, vars: &Vars) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            match name.and_then(|name| vars.get(name)) {
                // What the file or the command line gives is text; numbers among it are meant as such.
                Some(Value::String(text)) => Ok(serde_json::from_str(text)
                    .ok()
                    .filter(Value::is_number)
                    .unwrap_or_else(|| json!(text))),
                Some(value) => Ok(value.clone()),
                None => fill(text, vars).map(Value::String),
            }
        }
        Value::Array(list) => list.iter().map(|value| fill_value(value, vars)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| Ok((key.clone(), fill_value(value, vars)?))).collect()
        }
        other => Ok(other.clone()),
    }
}
