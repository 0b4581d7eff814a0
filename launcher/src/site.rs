//! Site files: what belongs to one place. Broker, cameras, parameter values, secrets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml_edit::{Item, TableLike};

use crate::{
    diagnostics::{Collector, Problems, hint, line_of},
    files::{MOST, read_text, toml},
    graph::{Value, toml_value},
    values::MOST_CAMERAS,
};

/// A value of a site file with its line.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteValue {
    pub value: Value,
    pub line: usize,
}

/// One `[[cameras]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteCamera {
    pub id: u32,
    pub name: String,
    pub line: usize,
    /// Everything but `id` and `name`: per-camera parameters.
    pub values: BTreeMap<String, SiteValue>,
}

/// A site file, secrets put in. Its `Debug` is not for logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Site {
    pub file: String,
    pub instance_id: Option<SiteValue>,
    /// `[values]`, and `broker`, `topic_prefix` and `[[alerts]]` from the top level.
    pub values: BTreeMap<String, SiteValue>,
    pub cameras: Vec<SiteCamera>,
}

/// Why a site file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error("cannot read site file {}: {why}", path.display())]
    Read { path: PathBuf, why: String },
}

/// Parameters that are lists of tables: `[[cameras.zones]]`, `[[alerts]]`. Elements get them as JSON.
const STRUCTURED: [&str; 2] = ["zones", "alerts"];
/// What stands for a variable that is missing where a file is only checked.
pub const UNSET: &str = "unset";
/// A secret file is a password, not a film.
const MAX_SECRET: u64 = 64 * 1024;

impl Site {
    /// Reads a site file. Relative `${file:…}` paths start at its folder.
    ///
    /// # Errors
    /// Unreadable, or wrong: then all problems with their lines.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, SiteError> {
        let text = text(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self::parse(&path.display().to_string(), &text, folder, env)?)
    }

    /// Reads a site file to check it on a machine whose environment may be another: a variable that is missing stands
    /// for some text, and where it is the whole of a value for some address, which any text may be.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_to_check(path: &Path) -> Result<Self, SiteError> {
        let lookup = |name: &str, whole: bool| {
            let unset = || if whole { format!("rtsp://{UNSET}") } else { UNSET.into() };
            Some(std::env::var(name).unwrap_or_else(|_| unset()))
        };
        let text = text(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(Self::read(&path.display().to_string(), &text, folder, &lookup)?)
    }

    /// Reads the text of a site file.
    ///
    /// # Errors
    /// All problems with their lines.
    pub fn parse(
        file: &str,
        text: &str,
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        Self::read(file, text, folder, &|name, _| env(name))
    }

    fn read(file: &str, text: &str, folder: &Path, env: &Env<'_>) -> Result<Self, Problems> {
        let document = toml(file, text)?;
        let mut reader = Reader { text, folder, env, collector: Collector::new(file) };
        let mut site = Self { file: file.into(), ..Self::default() };
        let known = ["instance_id", "broker", "topic_prefix", "values", "alerts", "cameras"];
        for (key, item) in document.as_table() {
            match key {
                "instance_id" => site.instance_id = reader.value(key, item),
                "broker" | "topic_prefix" | "alerts" => {
                    site.values.extend(reader.value(key, item).map(|value| (key.to_owned(), value)));
                }
                "values" => match item.as_table_like() {
                    Some(table) => site.values.extend(reader.values(table, &[])),
                    None => reader.add(item, "[values] must be a table of parameter values"),
                },
                "cameras" => site.cameras = reader.cameras(item),
                _ => {
                    let hint = hint(key, known);
                    let message = format!(
                        "a site file has no key {key:?}; it takes {}, and parameter values under [values]{hint}",
                        known.join(", ")
                    );
                    reader.add(item, message);
                }
            }
        }
        reader.collector.finish().map(|()| site)
    }
}

fn text(path: &Path) -> Result<String, SiteError> {
    read_text(path, MOST).map_err(|why| SiteError::Read { path: path.into(), why })
}

/// Looks up an environment variable, which may be the whole of a value or a part of it.
type Env<'a> = dyn Fn(&str, bool) -> Option<String> + 'a;

struct Reader<'a> {
    text: &'a str,
    folder: &'a Path,
    env: &'a Env<'a>,
    collector: Collector,
}

impl Reader<'_> {
    fn line(&self, item: &Item) -> usize {
        item.span().map_or(1, |span| line_of(self.text, span.start))
    }

    fn add(&mut self, item: &Item, message: impl Into<String>) {
        let line = self.line(item);
        self.collector.add(Some(line), message);
    }

    fn value(&mut self, key: &str, item: &Item) -> Option<SiteValue> {
        if STRUCTURED.contains(&key) && !item.is_str() {
            return self.structured(key, item);
        }
        let Some(value) = toml_value(item) else {
            self.add(
                item,
                format!("{key:?} must be text, a number, true or false, got {}", item.type_name()),
            );
            return None;
        };
        let value = match value {
            Value::Text(text) => match expand(&text, self.folder, self.env) {
                Ok(text) => Value::Text(text),
                Err(message) => {
                    self.add(item, format!("{key}: {message}"));
                    return None;
                }
            },
            other => other,
        };
        Some(SiteValue { value, line: self.line(item) })
    }

    /// A value that is written as tables and handed on as JSON.
    fn structured(&mut self, key: &str, item: &Item) -> Option<SiteValue> {
        let json = if let Some(tables) = item.as_array_of_tables() {
            tables.iter().map(|table| self.table(table)).collect()
        } else if let Some(array) = item.as_array() {
            array.iter().map(|value| self.json(value)).collect()
        } else {
            let tables = if key == "alerts" { "[[alerts]]" } else { "[[cameras.zones]]" };
            Err(format!("{key} must be written as {tables} tables or as an array, got {}", item.type_name()))
        };
        match json.map(serde_json::Value::Array) {
            Ok(json) => Some(SiteValue { value: Value::Text(json.to_string()), line: self.line(item) }),
            Err(message) => {
                self.add(item, message);
                None
            }
        }
    }

    fn table(&self, table: &dyn TableLike) -> Result<serde_json::Value, String> {
        let entry = |(key, item): (&str, &Item)| {
            let value = item.as_value().ok_or_else(|| format!("{key:?} cannot be a table here"))?;
            Ok((key.to_owned(), self.json(value)?))
        };
        table.iter().map(entry).collect::<Result<serde_json::Map<_, _>, String>>().map(Into::into)
    }

    fn json(&self, value: &toml_edit::Value) -> Result<serde_json::Value, String> {
        use toml_edit::Value as Toml;
        Ok(match value {
            Toml::String(text) => expand(text.value(), self.folder, self.env)?.into(),
            Toml::Integer(number) => (*number.value()).into(),
            Toml::Float(number) => (*number.value()).into(),
            Toml::Boolean(flag) => (*flag.value()).into(),
            Toml::Array(list) => list.iter().map(|value| self.json(value)).collect::<Result<_, _>>()?,
            Toml::InlineTable(table) => self.table(table)?,
            // What TOML calls a time of day reads like one: from = 22:00:00.
            Toml::Datetime(time) => {
                let text = time.value().to_string();
                text.strip_suffix(":00").filter(|t| t.matches(':').count() == 1).unwrap_or(&text).into()
            }
        })
    }

    fn values(&mut self, table: &dyn TableLike, skip: &[&str]) -> BTreeMap<String, SiteValue> {
        let mut values = BTreeMap::new();
        for (key, item) in table.iter().filter(|(key, _)| !skip.contains(key)) {
            values.extend(self.value(key, item).map(|value| (key.to_owned(), value)));
        }
        values
    }

    fn cameras(&mut self, item: &Item) -> Vec<SiteCamera> {
        let tables: Vec<&dyn TableLike> = if let Some(tables) = item.as_array_of_tables() {
            tables.iter().map(|table| table as &dyn TableLike).collect()
        } else if let Some(array) = item.as_array()
            && array.iter().all(toml_edit::Value::is_inline_table)
        {
            array
                .iter()
                .filter_map(|value| value.as_inline_table().map(|table| table as &dyn TableLike))
                .collect()
        } else {
            self.add(item, "cameras must be written as [[cameras]] tables");
            return Vec::new();
        };
        if tables.len() > MOST_CAMERAS {
            self.add(
                item,
                format!(
                    "{} cameras are too many for one site file; {MOST_CAMERAS} are allowed",
                    tables.len()
                ),
            );
            return Vec::new();
        }
        let mut cameras: Vec<SiteCamera> = Vec::new();
        for table in tables {
            let line = table.iter().next().map_or_else(|| self.line(item), |(_, item)| self.line(item));
            let Some(id) = table.get("id") else {
                self.collector.add(Some(line), "a camera needs id = a whole number from 0 up");
                continue;
            };
            let Some(number) = id.as_integer().and_then(|id| u32::try_from(id).ok()) else {
                self.add(id, "a camera's id must be a whole number from 0 to 4294967295");
                continue;
            };
            if cameras.iter().any(|camera| camera.id == number) {
                self.add(id, format!("two cameras have id {number}"));
            }
            let name = match table.get("name") {
                None => String::new(),
                Some(item) => match self.value("name", item) {
                    Some(SiteValue { value: Value::Text(name), .. }) => name,
                    Some(_) => {
                        self.add(item, "a camera's name must be text in quotes");
                        String::new()
                    }
                    None => String::new(),
                },
            };
            let name = if name.is_empty() { format!("camera {number}") } else { name };
            let values = self.values(table, &["id", "name"]);
            cameras.push(SiteCamera { id: number, name, line, values });
        }
        cameras
    }
}

/// Puts `${env:NAME}` and `${file:/path}` in. What they give is not looked at again.
fn expand(text: &str, folder: &Path, env: &Env<'_>) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        result.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or("\"${\" is never closed with \"}\"")?;
        let reference = &after[..end];
        if let Some(name) = reference.strip_prefix("env:") {
            let whole = text.len() == reference.len() + 3;
            result.push_str(
                &env(name, whole).ok_or_else(|| format!("environment variable {name:?} is not set"))?,
            );
        } else if let Some(path) = reference.strip_prefix("file:") {
            let path = folder.join(path);
            let secret = read_text(&path, MAX_SECRET)
                .map_err(|why| format!("cannot read secret file {}: {why}", path.display()))?;
            result.push_str(secret.trim_end_matches(['\r', '\n']));
        } else {
            return Err(format!(
                "\"${{{reference}}}\" is not known here; ${{env:NAME}} and ${{file:/path}} are"
            ));
        }
        rest = &after[end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Site, Problems> {
        let env = |name: &str| (name == "PW").then(|| "p${env:PW}".to_owned());
        Site::parse("site.toml", text, Path::new("."), &env)
    }

    #[test]
    fn a_site_file_gives_broker_cameras_and_values() {
        let site = parse(
            "instance_id = \"hall-1\"\nbroker = \"mqtt://u:${env:PW}@b\"\n[values]\nmax_fps = 2\n\
             [[cameras]]\nid = 3\nname = \"Gate\"\nuri = \"rtsp://g\"\nmax_fps = 0.5\n[[cameras]]\nid = 4\n",
        )
        .unwrap();
        assert_eq!(site.values["broker"].value, Value::Text("mqtt://u:p${env:PW}@b".into()));
        assert_eq!(site.values["max_fps"], SiteValue { value: Value::Int(2), line: 4 });
        assert_eq!((site.cameras[0].id, site.cameras[0].name.as_str()), (3, "Gate"));
        assert_eq!(site.cameras[0].values["max_fps"].value, Value::Float(0.5));
        assert_eq!(site.cameras[1].name, "camera 4");
    }

    #[test]
    fn zones_and_alerts_are_tables_that_become_json() {
        let site = parse(
            "[[cameras]]\nid = 3\n[[cameras.zones]]\nname = \"yard\"\npolygon = [[0, 0], [1, 0.5], [1, 1]]\n\
             [[cameras.zones]]\nname = \"gate\"\nline = [[0.5, 0.1], [0.5, 0.9]]\n\
             [[alerts]]\nid = \"night\"\nfrom = 22:00:00\nobjects = [\"person\"]\n\
             webhook = \"https://h/?t=${env:PW}\"\n",
        )
        .unwrap();
        let Value::Text(zones) = &site.cameras[0].values["zones"].value else { panic!("text") };
        let zones: serde_json::Value = serde_json::from_str(zones).unwrap();
        assert_eq!(zones[0]["polygon"], serde_json::json!([[0, 0], [1, 0.5], [1, 1]]));
        assert_eq!(zones[1]["name"], "gate");
        assert_eq!(nvr_core::zones::parse(&zones.to_string()).unwrap().len(), 2);
        let Value::Text(alerts) = &site.values["alerts"].value else { panic!("text") };
        assert_eq!(nvr_core::alert::parse(alerts).unwrap()[0].hours, Some((22 * 60, 24 * 60)));
        assert!(alerts.contains("t=p${env:PW}"), "{alerts}");
        let problems =
            parse("alerts = 3\n[[cameras]]\nid = 1\nzones = [{ name = \"${env:NONE}\" }]\n").unwrap_err();
        let text = problems.to_string();
        assert!(text.contains("site.toml:1: alerts must be written as [[alerts]]"), "{text}");
        assert!(text.contains("site.toml:4: environment variable \"NONE\" is not set"), "{text}");
    }

    #[test]
    fn the_site_file_of_the_guide_is_right() {
        let page = include_str!("../../docs/guide/zones-and-alerts.md");
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let env = |name: &str| (name == "HOOK_TOKEN").then(|| "t".to_owned());
        let site = Site::parse("site.toml", text, Path::new("."), &env).unwrap();
        let zones = nvr_core::zones::parse(&site.cameras[0].values["zones"].value.to_string()).unwrap();
        assert_eq!(zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>(), ["drive", "gate"]);
        let rules = nvr_core::alert::parse(&site.values["alerts"].value.to_string()).unwrap();
        assert_eq!(rules[0].webhook.as_ref().unwrap().query(), Some("token=t"));
    }

    #[test]
    fn every_problem_is_named_with_its_line() {
        let text = "brokr = \"mqtt://b\"\n[values]\na = [1]\nb = \"${env:NONE}\"\nc = \"${x}\"\nd = \"${file:none.txt}\"\n\
                    [[cameras]]\nname = \"x\"\n[[cameras]]\nid = -1\n[[cameras]]\nid = 1\n[[cameras]]\nid = 1\nname = 2\n";
        let problems = parse(text).unwrap_err();
        let lines: Vec<_> = problems.list.iter().map(|p| (p.line.unwrap_or(0), p.message.as_str())).collect();
        for (line, part) in [
            (1, "did you mean \"broker\"?"),
            (3, "\"a\" must be text"),
            (4, "environment variable \"NONE\" is not set"),
            (5, "\"${x}\" is not known here"),
            (6, "cannot read secret file"),
            (8, "needs id"),
            (10, "must be a whole number"),
            (14, "two cameras have id 1"),
            (15, "name must be text"),
        ] {
            assert!(
                lines.iter().any(|(at, message)| *at == line && message.contains(part)),
                "{line} {part}: {lines:?}"
            );
        }
        assert!(parse("a = ").unwrap_err().to_string().starts_with("site.toml:1: not valid TOML"));
    }

    #[test]
    fn a_secret_file_is_read_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pw"), "geheim\n").unwrap();
        let site = Site::parse("s", "broker = \"mqtt://u:${file:pw}@b\"", folder.path(), &|_| None).unwrap();
        assert_eq!(site.values["broker"].value, Value::Text("mqtt://u:geheim@b".into()));
    }
}
