//! Reads a graph file with `toml_edit`, which knows where each value stands.

use std::collections::BTreeMap;

use toml_edit::{Item, TableLike};

use super::{CAMERA_BUILTINS, Graph, INSTANCE_BUILTINS, Kind, Param, Scope, Section, Value};
use crate::{
    diagnostics::{Collector, Problems, hint, line_of},
    files::toml,
    template::{Piece, parse_pieces},
};

const TYPES: [&str; 9] = ["string", "int", "float", "bool", "enum", "uri", "secret", "choice", "fragment"];
const PARAM_KEYS: [&str; 11] =
    ["type", "default", "min", "max", "values", "choices", "live", "remote", "scope", "help", "required"];

/// Flags that every graph has, and what the variables NVR_LOG and NVR_DATA_DIR are named for; a parameter of that name
/// would hide one, or take its value.
const RESERVED: [&str; 11] = [
    "config",
    "set",
    "streams",
    "help",
    "version",
    "check",
    "log",
    "log_format",
    "log_level",
    "no_status",
    "data_dir",
];

struct Reader<'a> {
    text: &'a str,
    collector: Collector,
}

impl Reader<'_> {
    fn line(&self, span: Option<std::ops::Range<usize>>) -> Option<usize> {
        span.map(|span| line_of(self.text, span.start))
    }

    fn item_line(&self, item: &Item) -> Option<usize> {
        self.line(item.span())
    }

    fn unknown_keys(&mut self, table: &dyn TableLike, what: &str, known: &[&str]) {
        for (key, item) in table.iter() {
            if !known.contains(&key) {
                let line =
                    self.line(table.key(key).and_then(toml_edit::Key::span)).or_else(|| self.item_line(item));
                let hint = hint(key, known.iter().copied());
                self.collector
                    .add(line, format!("{what} has no key {key:?}; it takes {}{hint}", known.join(", ")));
            }
        }
    }

    fn string(&mut self, table: &dyn TableLike, key: &str) -> Option<String> {
        let item = table.get(key)?;
        let text = item.as_str().map(str::to_owned);
        if text.is_none() {
            let line = self.item_line(item);
            self.collector.add(line, format!("{key:?} must be text in quotes, got {}", item.type_name()));
        }
        text
    }

    fn bool(&mut self, table: &dyn TableLike, key: &str) -> Option<bool> {
        let item = table.get(key)?;
        let value = item.as_bool();
        if value.is_none() {
            let line = self.item_line(item);
            self.collector.add(line, format!("{key:?} must be true or false, got {}", item.type_name()));
        }
        value
    }

    fn number(&mut self, table: &dyn TableLike, key: &str) -> Option<f64> {
        let item = table.get(key)?;
        let number = item.as_float().or_else(|| item.as_integer().map(|number| number as f64));
        if number.is_none_or(f64::is_nan) {
            let line = self.item_line(item);
            self.collector.add(line, format!("{key:?} must be a number, got {}", item.type_name()));
        }
        number.filter(|number| !number.is_nan())
    }

    fn section(&mut self, root: &dyn TableLike, key: &str) -> Option<Section> {
        let item = root.get(key)?;
        let line = self.item_line(item);
        let Some(table) = item.as_table_like() else {
            self.collector.add(line, format!("[{key}] must be a table with a launch string"));
            return None;
        };
        self.unknown_keys(table, &format!("[{key}]"), &["launch"]);
        let Some(item) = table.get("launch") else {
            self.collector.add(line, format!("[{key}] needs launch = \"…\""));
            return None;
        };
        let launch = self.string(table, "launch")?;
        let span = item.span().unwrap_or(0..0);
        let raw = self.text.get(span.clone()).unwrap_or_default();
        // A multi-line string drops the line break after its opening quotes.
        let inner = ["\"\"\"", "'''", "\"", "'"].into_iter().find_map(|quote| {
            let inner = raw.strip_prefix(quote)?.strip_suffix(quote)?;
            Some(if quote.len() == 3 {
                let cut = inner.strip_prefix("\r\n").or_else(|| inner.strip_prefix('\n')).unwrap_or(inner);
                (quote.len() + inner.len() - cut.len(), cut)
            } else {
                (1, inner)
            })
        });
        let (skip, verbatim) =
            inner.map_or((0, false), |(skip, inner)| (skip, inner.replace("\r\n", "\n") == launch));
        Some(Section { launch, first_line: line_of(self.text, span.start + skip), verbatim })
    }

    fn param(&mut self, name: &str, item: &Item, line: Option<usize>) -> Option<Param> {
        let at = line.unwrap_or(1);
        let Some(table) = item.as_table_like() else {
            self.collector.add(line, format!("[params.{name}] must be a table"));
            return None;
        };
        self.unknown_keys(table, &format!("[params.{name}]"), &PARAM_KEYS);
        let valid_name = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !valid_name {
            self.collector
                .add(line, format!("parameter name {name:?} must be lower-case letters, digits and '_'"));
        }
        if RESERVED.contains(&name) || CAMERA_BUILTINS.contains(&name) || INSTANCE_BUILTINS.contains(&name) {
            self.collector
                .add(line, format!("{name:?} is the launcher's own; a parameter needs another name"));
        }
        let kind = self.kind(name, table, line)?;
        let scope = match self.string(table, "scope").as_deref() {
            None | Some("instance") => Scope::Instance,
            Some("camera") => Scope::Camera,
            Some(other) => {
                let line = table.get("scope").and_then(|item| self.item_line(item));
                self.collector.add(line, format!("\"scope\" must be instance or camera, got {other:?}"));
                Scope::Instance
            }
        };
        let help = self.string(table, "help").unwrap_or_default();
        if help.is_empty() {
            self.collector.add(line, format!("parameter {name:?} needs help = \"what it does\""));
        }
        let live = self.bool(table, "live").unwrap_or_default();
        let remote = self.bool(table, "remote");
        let text = match kind {
            Kind::Fragment => Some("fragment"),
            Kind::Choice { .. } => Some("choice"),
            _ => None,
        };
        if let Some(text) = text.filter(|_| live) {
            self.collector.add(line, format!("parameter {name:?} is a {text} and cannot be live"));
        }
        if let Some(text) = text.filter(|_| remote == Some(true)) {
            self.collector.add(line, format!("parameter {name:?} is a {text} and cannot be remote"));
        }
        if let Some(text) = text.filter(|_| scope == Scope::Camera) {
            self.collector
                .add(line, format!("parameter {name:?} is a {text} and cannot differ between cameras"));
        }
        let mut param = Param {
            name: name.into(),
            default: None,
            live,
            remote: remote.unwrap_or_else(|| Param::remote_by_default(name, &kind)),
            kind,
            scope,
            required: self.bool(table, "required").unwrap_or_default(),
            help,
            line: at,
        };
        if let Some(item) = table.get("default") {
            let line = self.item_line(item);
            match default_pieces(&param, item) {
                Ok(pieces) => param.default = Some(pieces),
                Err(message) => self.collector.add(line, message),
            }
        }
        Some(param)
    }

    fn kind(&mut self, name: &str, table: &dyn TableLike, line: Option<usize>) -> Option<Kind> {
        let Some(item) = table.get("type") else {
            self.collector.add(line, format!("parameter {name:?} needs type = one of {}", TYPES.join(", ")));
            return None;
        };
        let type_line = self.item_line(item);
        let kind = self.string(table, "type")?;
        let (min, max) = (self.number(table, "min"), self.number(table, "max"));
        if let (Some(low), Some(high)) = (min, max)
            && low > high
        {
            self.collector.add(line, format!("parameter {name:?}: min {low} is above max {high}"));
        }
        let takes_range = matches!(kind.as_str(), "int" | "float");
        for key in ["min", "max"] {
            if !takes_range && let Some(item) = table.get(key) {
                let line = self.item_line(item);
                self.collector
                    .add(line, format!("{key:?} belongs to int and float parameters, not to {kind}"));
            }
        }
        if kind != "enum"
            && let Some(item) = table.get("values")
        {
            let line = self.item_line(item);
            self.collector.add(line, format!("\"values\" belongs to enum parameters, not to {kind}"));
        }
        Some(match kind.as_str() {
            "string" => Kind::String,
            "secret" => Kind::Secret,
            "uri" => Kind::Uri,
            "bool" => Kind::Bool,
            "fragment" => Kind::Fragment,
            "choice" => {
                let choices: Option<BTreeMap<String, String>> =
                    table.get("choices").and_then(Item::as_table_like).and_then(|choices| {
                        choices
                            .iter()
                            .map(|(key, text)| Some((key.to_owned(), text.as_str()?.to_owned())))
                            .collect()
                    });
                let Some(choices) = choices.filter(|choices| !choices.is_empty()) else {
                    let line = table.get("choices").map_or(line, |item| self.item_line(item));
                    self.collector.add(
                        line,
                        format!("parameter {name:?} is a choice and needs [params.{name}.choices] with pipeline texts"),
                    );
                    return None;
                };
                Kind::Choice { choices }
            }
            "int" => Kind::Int {
                min: min.map_or(i64::MIN, |min| min as i64),
                max: max.map_or(i64::MAX, |max| max as i64),
            },
            "float" => Kind::Float { min: min.unwrap_or(f64::MIN), max: max.unwrap_or(f64::MAX) },
            "enum" => {
                let values: Option<Vec<String>> = table
                    .get("values")
                    .and_then(Item::as_array)
                    .and_then(|array| array.iter().map(|value| value.as_str().map(str::to_owned)).collect());
                let Some(values) = values.filter(|values| !values.is_empty()) else {
                    let line = table.get("values").map_or(line, |item| self.item_line(item));
                    self.collector
                        .add(line, format!("parameter {name:?} is an enum and needs values = [\"…\", …]"));
                    return None;
                };
                Kind::Enum { values }
            }
            other => {
                let hint = hint(other, TYPES);
                self.collector
                    .add(type_line, format!("type {other:?} is not one of {}{hint}", TYPES.join(", ")));
                return None;
            }
        })
    }
}

/// A default: a value of its own type, or text that may use other parameters.
fn default_pieces(param: &Param, item: &Item) -> Result<Vec<Piece>, String> {
    let value = toml_value(item).ok_or_else(|| {
        format!("the default of {:?} must be {}, got {}", param.name, param.expected(), item.type_name())
    })?;
    let wrong = |error: super::ValueError| format!("default: {error}");
    if let Value::Text(text) = &value {
        if param.kind == Kind::Fragment {
            return Ok(vec![Piece::Text(text.clone())]);
        }
        let pieces = parse_pieces(text, false).map_err(|error| error.message)?;
        if let [Piece::Text(text)] = pieces.as_slice() {
            param.check(Value::Text(text.clone())).map_err(wrong)?;
        }
        return Ok(pieces);
    }
    let value = param.check(value).map_err(wrong)?;
    Ok(vec![Piece::Text(value.to_string())])
}

/// A TOML scalar as a parameter value.
pub(crate) fn toml_value(item: &Item) -> Option<Value> {
    item.as_str()
        .map(|text| Value::Text(text.into()))
        .or_else(|| item.as_integer().map(Value::Int))
        .or_else(|| item.as_float().map(Value::Float))
        .or_else(|| item.as_bool().map(Value::Bool))
}

pub(super) fn parse(file: &str, text: &str) -> Result<Graph, Problems> {
    let document = toml(file, text)?;
    let mut reader = Reader { text, collector: Collector::new(file) };
    let root: &dyn TableLike = document.as_table();
    reader.unknown_keys(root, "a graph file", &["summary", "kind", "params", "camera", "graph"]);
    let summary = reader.string(root, "summary").unwrap_or_default();
    let kind = reader.string(root, "kind").unwrap_or_default();
    for (key, value) in [("summary", &summary), ("kind", &kind)] {
        if value.is_empty() && root.get(key).is_none() {
            reader.collector.add(None, format!("{key} = \"…\" is missing"));
        }
    }
    let mut params = Vec::new();
    if let Some(item) = root.get("params") {
        if let Some(table) = item.as_table_like() {
            for (name, item) in table.iter() {
                let line = reader
                    .line(table.key(name).and_then(toml_edit::Key::span))
                    .or_else(|| reader.item_line(item));
                params.extend(reader.param(name, item, line));
            }
        } else {
            let line = reader.item_line(item);
            reader.collector.add(line, "[params] must be a table of tables");
        }
    }
    params.sort_by_key(|param| param.line);
    let camera = reader.section(root, "camera");
    let shared = reader.section(root, "graph");
    if root.get("camera").is_none() && root.get("graph").is_none() {
        reader.collector.add(None, "there is neither [camera] nor [graph]: nothing would run");
    }
    let name =
        std::path::Path::new(file).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into());
    let graph = Graph { file: file.into(), name, summary, kind, params, camera, shared };
    let mut collector = reader.collector;
    check_defaults(&graph, &mut collector);
    check_used(&graph, &mut collector);
    collector.finish().map(|()| graph)
}

/// Defaults refer to parameters that exist, reach them, and do not go in a circle.
fn check_defaults(graph: &Graph, collector: &mut Collector) {
    let references: BTreeMap<&str, Vec<&str>> = graph
        .params
        .iter()
        .map(|param| {
            let names = param.default.iter().flatten().filter_map(|piece| match piece {
                Piece::Param(name) => Some(name.as_str()),
                Piece::Text(_) => None,
            });
            (param.name.as_str(), names.collect())
        })
        .collect();
    for param in &graph.params {
        let line = Some(param.line);
        for name in &references[param.name.as_str()] {
            graph.check_reference(name, param.scope == Scope::Camera, line, collector);
            if graph.param(name).is_some_and(|other| other.is_secret() && !param.is_secret()) {
                collector.add(
                    line,
                    format!("parameter {:?} shows the secret {name:?}; make it a secret too", param.name),
                );
            }
        }
        let mut open: Vec<&str> = references[param.name.as_str()].clone();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = open.pop() {
            if name == param.name {
                collector.add(line, format!("the default of {name:?} depends on itself"));
                break;
            }
            if seen.insert(name) {
                open.extend(references.get(name).into_iter().flatten());
            }
        }
    }
}

/// Every parameter is used: one that feeds nothing would accept values and do nothing.
fn check_used(graph: &Graph, collector: &mut Collector) {
    let mut text = String::new();
    for section in graph.camera.iter().chain(&graph.shared) {
        text.push_str(&section.launch);
        text.push(' ');
    }
    for param in &graph.params {
        for piece in param.default.iter().flatten() {
            match piece {
                Piece::Param(name) => text.extend(["${", name, "}"]),
                Piece::Text(fragment) if param.kind == Kind::Fragment => text.push_str(fragment),
                Piece::Text(_) => {}
            }
        }
        if let Kind::Choice { choices } = &param.kind {
            for choice in choices.values() {
                text.push_str(choice);
            }
        }
    }
    for param in &graph.params {
        if !text.contains(&format!("${{{}}}", param.name)) {
            collector.add(Some(param.line), format!("parameter {:?} is declared and never used", param.name));
        }
    }
}
