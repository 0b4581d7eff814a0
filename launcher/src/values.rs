//! Where values come from, weakest first: the graph file's default, the site file, the environment, the
//! command line. What comes out answers one question: which value has parameter p for camera c?

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    diagnostics::hint,
    graph::{Graph, Kind, Param, SHIPPED, Scope, Value, ValueError, Values},
    site::Site,
    template::Piece,
};

/// Most cameras of one instance; ids and threads are made for tens, not for thousands.
pub(crate) const MOST_CAMERAS: usize = 1024;

/// A camera of the running instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Camera {
    pub id: u32,
    pub name: String,
}

impl Camera {
    pub fn new(id: u32) -> Self {
        Self { id, name: format!("camera {id}") }
    }
}

/// Values that somebody gave; defaults are not among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub common: Values,
    pub cameras: BTreeMap<u32, Values>,
}

/// Everything that is needed to run a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub graph: Graph,
    pub instance_id: String,
    pub settings: Settings,
    pub cameras: Vec<Camera>,
}

/// What the command line gave, as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandLine {
    pub values: BTreeMap<String, String>,
    /// `--set 2.max_fps=1`
    pub camera_values: BTreeMap<(u32, String), String>,
    pub streams: Option<Vec<u32>>,
    pub instance_id: Option<String>,
}

/// All that is wrong with the values.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct PlanErrors(pub Vec<String>);

impl Settings {
    /// The value of a parameter. `None` where nobody gave one and there is no default.
    ///
    /// # Errors
    /// A default whose parts have no value, or whose result does not fit.
    pub fn get(
        &self,
        graph: &Graph,
        instance_id: &str,
        camera: Option<&Camera>,
        name: &str,
    ) -> Result<Option<Value>, ValueError> {
        match (name, camera) {
            ("instance_id", _) => return Ok(Some(Value::Text(instance_id.into()))),
            ("source_id", Some(camera)) => return Ok(Some(Value::Int(camera.id.into()))),
            ("source_name", Some(camera)) => return Ok(Some(Value::Text(camera.name.clone()))),
            _ => {}
        }
        let param = graph
            .param(name)
            .ok_or_else(|| ValueError(format!("there is no parameter {name:?}{}", graph.param_hint(name))))?;
        let own = camera
            .filter(|_| param.scope == Scope::Camera)
            .and_then(|camera| self.cameras.get(&camera.id))
            .and_then(|values| values.get(name));
        if let Some(value) = own.or_else(|| self.common.get(name)) {
            return Ok(Some(value.clone()));
        }
        let Some(default) = &param.default else {
            return if param.required { Err(ValueError(missing(param, camera))) } else { Ok(None) };
        };
        let mut text = String::new();
        for piece in default {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Param(other) => match self.get(graph, instance_id, camera, other)? {
                    Some(value) => text.push_str(&value.to_string()),
                    None => {
                        return Err(ValueError(format!(
                            "{} has no value: its default uses {other}, which has none either. Give --{} or --{}",
                            name,
                            param.flag(),
                            other.replace('_', "-")
                        )));
                    }
                },
            }
        }
        param.parse(&text).map(Some)
    }

    /// Puts a value in for one camera, or for all. A value for all replaces those of single cameras.
    pub fn put(&mut self, camera: Option<u32>, name: &str, value: Value) {
        if let Some(id) = camera {
            self.cameras.entry(id).or_default().insert(name.into(), value);
        } else {
            for values in self.cameras.values_mut() {
                values.remove(name);
            }
            self.common.insert(name.into(), value);
        }
    }
}

fn missing(param: &Param, camera: Option<&Camera>) -> String {
    let place = camera.map_or_else(String::new, |camera| format!(" for camera {}", camera.id));
    format!(
        "{} has no value{place}: give --{}, {} or a value in the site file ({})",
        param.name,
        param.flag(),
        param.env(),
        param.expected()
    )
}

impl Plan {
    /// Layers everything that was given. `env` looks up an environment variable.
    ///
    /// # Errors
    /// Every value that does not fit, and every name that does not exist.
    pub fn resolve(
        graph: Graph,
        site: Option<&Site>,
        env: &dyn Fn(&str) -> Option<String>,
        command_line: &CommandLine,
    ) -> Result<Self, PlanErrors> {
        let mut errors = Vec::new();
        let mut settings = Settings::default();
        if let Some(site) = site {
            site_values(&graph, site, &mut settings, &mut errors);
        }
        for param in graph.params.iter().filter(|param| param.kind != Kind::Fragment) {
            if let Some(text) = env(&param.env()) {
                match param.parse(&text) {
                    Ok(value) => settings.put(None, &param.name, value),
                    Err(error) => errors.push(format!("environment variable {}: {error}", param.env())),
                }
            }
        }
        for (name, text) in &command_line.values {
            match graph.param(name) {
                Some(param) => match param.parse(text) {
                    Ok(value) => settings.put(None, name, value),
                    Err(error) => errors.push(format!("--{}: {error}", param.flag())),
                },
                None => {
                    errors
                        .push(format!("--set {name}: there is no such parameter{}", graph.param_hint(name)));
                }
            }
        }
        let cameras = cameras(&graph, site, command_line, &mut errors);
        for ((id, name), text) in &command_line.camera_values {
            let place = format!("--set {id}.{name}");
            match graph.param(name) {
                None => errors.push(format!("{place}: there is no such parameter{}", graph.param_hint(name))),
                Some(param) if param.scope != Scope::Camera => {
                    errors.push(format!("{place}: {name} has one value for all cameras; use --set {name}="));
                }
                Some(_) if !cameras.iter().any(|camera| camera.id == *id) => {
                    errors.push(format!("{place}: camera {id} is not among the streams of this run"));
                }
                Some(param) => match param.parse(text) {
                    Ok(value) => settings.put(Some(*id), name, value),
                    Err(error) => errors.push(format!("{place}: {error}")),
                },
            }
        }
        let instance_id = instance_id(&graph, site, env, command_line);
        if let Err(error) = nvr_core::topic::check_instance_id(&instance_id) {
            errors.push(error.to_string());
        }
        let plan = Self { graph, instance_id, settings, cameras };
        if errors.is_empty() {
            errors.extend(plan.check_complete());
        }
        if errors.is_empty() { Ok(plan) } else { Err(PlanErrors(errors)) }
    }

    /// Everything that has no value and needs one.
    fn check_complete(&self) -> Vec<String> {
        let mut errors = BTreeSet::new();
        for param in &self.graph.params {
            let cameras: Vec<Option<&Camera>> = match param.scope {
                Scope::Instance => vec![None],
                Scope::Camera => self.cameras.iter().map(Some).collect(),
            };
            for camera in cameras {
                if let Err(error) = self.get(camera, &param.name) {
                    errors.insert(error.0);
                }
            }
        }
        errors.into_iter().collect()
    }

    /// The value of a parameter, see [`Settings::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, camera: Option<&Camera>, name: &str) -> Result<Option<Value>, ValueError> {
        self.settings.get(&self.graph, &self.instance_id, camera, name)
    }

    /// The values of all fragment parameters.
    pub fn fragments(&self) -> Values {
        self.graph
            .params
            .iter()
            .filter(|param| param.is_text())
            .filter_map(|param| Some((param.name.clone(), self.get(None, &param.name).ok()??)))
            .collect()
    }
}

fn site_values(graph: &Graph, site: &Site, settings: &mut Settings, errors: &mut Vec<String>) {
    let mut put = |camera: Option<u32>, name: &str, value: &crate::site::SiteValue| {
        let place = format!("{}:{}", site.file, value.line);
        match graph.param(name) {
            Some(param) if camera.is_some() && param.scope != Scope::Camera => {
                errors.push(format!(
                    "{place}: {name} has one value for all cameras; it belongs under [values]"
                ));
            }
            Some(param) => match param.check(value.value.clone()) {
                Ok(value) => settings.put(camera, name, value),
                Err(error) => errors.push(format!("{place}: {error}")),
            },
            // One site file serves several graphs: what another shipped graph knows is no mistake here.
            None if known_elsewhere(name) => {}
            None => {
                errors.push(format!(
                    "{place}: graph {} has no parameter {name:?}{}",
                    graph.name,
                    graph.param_hint(name)
                ));
            }
        }
    };
    for (name, value) in &site.values {
        put(None, name, value);
    }
    for camera in &site.cameras {
        for (name, value) in &camera.values {
            put(Some(camera.id), name, value);
        }
    }
}

fn known_elsewhere(name: &str) -> bool {
    matches!(name, "broker" | "topic_prefix" | "uri")
        || SHIPPED.iter().any(|shipped| {
            Graph::parse(shipped.name, shipped.text).is_ok_and(|graph| graph.param(name).is_some())
        })
}

fn cameras(
    graph: &Graph,
    site: Option<&Site>,
    command_line: &CommandLine,
    errors: &mut Vec<String>,
) -> Vec<Camera> {
    if graph.camera.is_none() {
        if command_line.streams.is_some() {
            errors.push(format!("--streams: graph {} has no cameras", graph.name));
        }
        return Vec::new();
    }
    let known = site.map_or(&[][..], |site| &site.cameras);
    let known_name = |id: u32| {
        known
            .iter()
            .find(|camera| camera.id == id)
            .map_or_else(|| Camera::new(id), |camera| Camera { id, name: camera.name.clone() })
    };
    match &command_line.streams {
        Some(streams) => streams.iter().map(|id| known_name(*id)).collect(),
        None if known.is_empty() => vec![Camera::new(0)],
        None => known.iter().map(|camera| known_name(camera.id)).collect(),
    }
}

fn instance_id(
    graph: &Graph,
    site: Option<&Site>,
    env: &dyn Fn(&str) -> Option<String>,
    command_line: &CommandLine,
) -> String {
    command_line
        .instance_id
        .clone()
        .or_else(|| env("NVR_INSTANCE_ID"))
        .or_else(|| site.and_then(|site| site.instance_id.as_ref()).map(|value| value.value.to_string()))
        .unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let id = format!("{}-{}", graph.name, host.trim());
            let clean: String = id
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
                .collect();
            clean.trim_end_matches('-').chars().take(128).collect()
        })
}

/// Reads `0-3,7`.
///
/// # Errors
/// Says what was not understood.
pub fn parse_streams(text: &str) -> Result<Vec<u32>, String> {
    let mut streams = Vec::new();
    for part in text.split(',').map(str::trim) {
        let wrong = || format!("{part:?} is not a camera number or a range such as 0-3");
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (first.trim(), last.trim()),
            None => (part, part),
        };
        let first: u32 = first.parse().map_err(|_| wrong())?;
        let last: u32 = last.parse().map_err(|_| wrong())?;
        if last < first {
            return Err(format!("{part:?} runs backwards"));
        }
        if (last - first) as usize >= MOST_CAMERAS || streams.len() > MOST_CAMERAS {
            return Err(format!("{part:?} names more than {MOST_CAMERAS} cameras"));
        }
        for id in first..=last {
            if streams.contains(&id) {
                return Err(format!("camera {id} is named twice"));
            }
            streams.push(id);
        }
    }
    Ok(streams)
}

/// `; did you mean …` for a stream parameter given as `name=value`.
///
/// # Errors
/// Says how it is written.
pub fn parse_assignment(text: &str) -> Result<(Option<u32>, String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} must be written name=value, or 2.name=value for camera 2"))?;
    let (camera, name) = match key.split_once('.') {
        Some((id, name)) => {
            let id = id.trim().parse().map_err(|_| {
                format!("{key:?} must begin with a camera number, as in 2.max_fps{}", hint(key, []))
            })?;
            (Some(id), name)
        }
        None => (None, key),
    };
    Ok((camera, name.trim().replace('-', "_"), value.into()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const GRAPH: &str = r#"
        summary = "s"
        kind = "k"
        [params.server]
        type = "uri"
        default = "rtsp://srv"
        help = "h"
        [params.uri]
        type = "uri"
        default = "${server}/${source_id}"
        scope = "camera"
        help = "h"
        [params.max_fps]
        type = "float"
        default = 5
        min = 0
        max = 1000
        scope = "camera"
        live = true
        help = "h"
        [params.key]
        type = "string"
        required = true
        help = "h"
        [camera]
        launch = "fakesrc a=${uri} b=${max_fps} c=${key} ! fakesink"
    "#;

    fn graph() -> Graph {
        Graph::parse("test.toml", GRAPH).unwrap()
    }

    fn site(text: &str) -> Site {
        Site::parse("site.toml", text, Path::new("."), &|_| None).unwrap()
    }

    fn command_line(values: &[(&str, &str)]) -> CommandLine {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        CommandLine { values, ..CommandLine::default() }
    }

    fn fps(plan: &Plan, id: u32) -> Value {
        let camera = plan.cameras.iter().find(|camera| camera.id == id).unwrap();
        plan.get(Some(camera), "max_fps").unwrap().unwrap()
    }

    #[test]
    fn layers_override_each_other_in_the_documented_order() {
        let site = site(
            "[values]\nkey = \"x\"\nmax_fps = 1\n[[cameras]]\nid = 1\n[[cameras]]\nid = 2\nmax_fps = 2\n",
        );
        let none = |_: &str| None;
        let env = |name: &str| (name == "NVR_MAX_FPS").then(|| "3".to_owned());
        let plan = Plan::resolve(graph(), None, &none, &command_line(&[("key", "x")])).unwrap();
        assert_eq!(fps(&plan, 0), Value::Float(5.0));
        let plan = Plan::resolve(graph(), Some(&site), &none, &command_line(&[])).unwrap();
        assert_eq!((fps(&plan, 1), fps(&plan, 2)), (Value::Float(1.0), Value::Float(2.0)));
        let plan = Plan::resolve(graph(), Some(&site), &env, &command_line(&[])).unwrap();
        assert_eq!((fps(&plan, 1), fps(&plan, 2)), (Value::Float(3.0), Value::Float(3.0)));
        let plan = Plan::resolve(graph(), Some(&site), &env, &command_line(&[("max_fps", "4")])).unwrap();
        assert_eq!((fps(&plan, 1), fps(&plan, 2)), (Value::Float(4.0), Value::Float(4.0)));
        let mut with_camera = command_line(&[("max_fps", "4")]);
        with_camera.camera_values.insert((2, "max_fps".into()), "6".into());
        let plan = Plan::resolve(graph(), Some(&site), &env, &with_camera).unwrap();
        assert_eq!((fps(&plan, 1), fps(&plan, 2)), (Value::Float(4.0), Value::Float(6.0)));
    }

    #[test]
    fn a_default_may_use_other_parameters() {
        let line =
            CommandLine { streams: Some(vec![7]), ..command_line(&[("key", "x"), ("server", "rtsp://a:1")]) };
        let plan = Plan::resolve(graph(), None, &|_| None, &line).unwrap();
        assert_eq!(plan.get(Some(&plan.cameras[0]), "uri"), Ok(Some(Value::Text("rtsp://a:1/7".into()))));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let site = site("[values]\nmax_fsp = 1\n[[cameras]]\nid = 1\nkey = \"x\"\nmax_fps = \"fast\"\n");
        let mut line = command_line(&[("max_fps", "-1"), ("kye", "1")]);
        line.camera_values.insert((9, "max_fps".into()), "1".into());
        line.camera_values.insert((1, "key".into()), "1".into());
        line.instance_id = Some("ack".into());
        let env = |name: &str| (name == "NVR_SERVER").then(|| "x".to_owned());
        let PlanErrors(errors) = Plan::resolve(graph(), Some(&site), &env, &line).unwrap_err();
        for part in [
            "site.toml:2: graph test has no parameter \"max_fsp\"; did you mean \"max_fps\"?",
            "site.toml:5: key has one value for all cameras",
            "site.toml:6: max_fps must be a number from 0 to 1000, got \"fast\"",
            "environment variable NVR_SERVER: server must be a URI",
            "--max-fps: max_fps must be a number from 0 to 1000, got -1",
            "--set kye: there is no such parameter; did you mean \"key\"?",
            "--set 9.max_fps: camera 9 is not among",
            "--set 1.key: key has one value",
            "instance id \"ack\"",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part}: {errors:#?}");
        }
        let PlanErrors(errors) = Plan::resolve(graph(), None, &|_| None, &command_line(&[])).unwrap_err();
        assert_eq!(errors, ["key has no value: give --key, NVR_KEY or a value in the site file (text)"]);
    }

    #[test]
    fn streams_and_assignments_are_read() {
        assert_eq!(parse_streams("0-3, 7"), Ok(vec![0, 1, 2, 3, 7]));
        for text in ["", "a", "3-1", "1,1", "0-4000000000", "-1"] {
            assert!(parse_streams(text).is_err(), "{text}");
        }
        assert_eq!(parse_assignment("2.max-fps=1=2"), Ok((Some(2), "max_fps".into(), "1=2".into())));
        assert_eq!(parse_assignment("a="), Ok((None, "a".into(), String::new())));
        assert!(parse_assignment("a").is_err() && parse_assignment("x.a=1").is_err());
    }

    #[test]
    fn the_built_in_instance_id_is_valid() {
        let plan = Plan::resolve(graph(), None, &|_| None, &command_line(&[("key", "x")])).unwrap();
        assert!(plan.instance_id.starts_with("test"), "{}", plan.instance_id);
    }
}
