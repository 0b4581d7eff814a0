//! Graph files: a pipeline for a job, with its parameters.

mod file;
mod param;
mod shipped;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(crate) use file::toml_value;
pub use param::{Kind, Param, Scope, Value, ValueError, Values};
pub use shipped::{SHIPPED, Shipped};

use crate::{
    diagnostics::{Collector, Problems, hint, line_of},
    files::{MOST, read_text},
    template::Template,
};

/// Names that the launcher itself gives to every camera branch.
pub const CAMERA_BUILTINS: [&str; 2] = ["source_id", "source_name"];
/// Names that the launcher itself gives to the whole graph.
pub const INSTANCE_BUILTINS: [&str; 1] = ["instance_id"];

/// A launch string in a graph file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Section {
    pub launch: String,
    /// Line of the file on which each line of `launch` stands, as far as that can be told.
    first_line: usize,
    verbatim: bool,
}

impl Section {
    /// Line of the file for a byte offset in the launch string.
    pub fn line(&self, offset: usize) -> usize {
        if self.verbatim { self.first_line + line_of(&self.launch, offset) - 1 } else { self.first_line }
    }
}

/// A graph file, read and checked for what can be checked without GStreamer.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The file as it appears in messages.
    pub file: String,
    /// Short name: the file's stem.
    pub name: String,
    pub summary: String,
    pub kind: String,
    /// In the order of the file.
    pub params: Vec<Param>,
    /// Built once per source.
    pub camera: Option<Section>,
    /// Built once.
    pub shared: Option<Section>,
}

/// Why there is no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error("there is no graph {name:?}: it is neither a file nor one of {}{hint}", shipped_names())]
    Unknown { name: String, hint: String },
    #[error("cannot read graph file {}: {why}", path.display())]
    Read { path: PathBuf, why: String },
}

/// The shipped graph of that name; a file of that name is meant by a path: `./processor`.
pub fn shipped(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|graph| graph.name == name)
}

fn shipped_names() -> String {
    SHIPPED.iter().map(|graph| graph.name).collect::<Vec<_>>().join(", ")
}

impl Graph {
    /// A shipped graph by name, or a graph file by path.
    ///
    /// # Errors
    /// Neither of them, unreadable, or wrong.
    pub fn load(name_or_path: &str) -> Result<Self, GraphError> {
        // First: what somebody has put into the working directory takes the place of no shipped graph.
        if let Some(shipped) = shipped(name_or_path) {
            return Ok(Self::parse(&format!("{}.toml", shipped.name), shipped.text)?);
        }
        let path = Path::new(name_or_path);
        // Where that cannot be seen, reading says why.
        if !path.try_exists().unwrap_or(true) {
            let hint = hint(name_or_path, SHIPPED.iter().map(|graph| graph.name));
            return Err(GraphError::Unknown { name: name_or_path.into(), hint });
        }
        let text = read_text(path, MOST).map_err(|why| GraphError::Read { path: path.into(), why })?;
        Ok(Self::parse(name_or_path, &text)?)
    }

    /// Reads the text of a graph file; `file` is its name in messages.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        file::parse(file, text)
    }

    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }

    /// `; did you mean "…"?` for a parameter name that does not exist.
    pub fn param_hint(&self, name: &str) -> String {
        hint(name, self.params.iter().map(|param| param.name.as_str()))
    }

    /// Takes a section apart, fragments put in. `fragments` holds the value of every parameter that is text or
    /// chooses one.
    ///
    /// # Errors
    /// What the template does not understand, with lines of the graph file.
    pub fn template(&self, section: &Section, fragments: &Values) -> Result<Template, Problems> {
        let mut collector = Collector::new(&self.file);
        let text = self.with_fragments(&section.launch, fragments);
        // Fragments move everything after them: then only the section's own line is certain.
        let verbatim = text == section.launch;
        let line = |offset| if verbatim { section.line(offset) } else { section.first_line };
        match Template::parse(&text) {
            Ok(template) => {
                self.check_references(&template, &line, &mut collector, section);
                collector.finish().map(|()| template)
            }
            Err(errors) => {
                for error in errors {
                    collector.add(Some(line(error.offset)), error.message);
                }
                Err(collector
                    .finish()
                    .err()
                    .unwrap_or(Problems { file: self.file.clone(), list: Vec::new() }))
            }
        }
    }

    fn with_fragments(&self, launch: &str, fragments: &Values) -> String {
        let mut text = launch.to_owned();
        for param in self.params.iter().filter(|param| param.is_text()) {
            let mut value = fragments.get(&param.name).map_or_else(String::new, ToString::to_string);
            if let Kind::Choice { choices } = &param.kind {
                value = choices.get(&value).cloned().unwrap_or_default();
            }
            text = text.replace(&format!("${{{}}}", param.name), &value);
        }
        text
    }

    /// Every parameter that the template uses exists and has a scope that reaches it.
    fn check_references(
        &self,
        template: &Template,
        line: &dyn Fn(usize) -> usize,
        collector: &mut Collector,
        section: &Section,
    ) {
        let in_camera =
            self.camera.as_ref().is_some_and(|camera| std::ptr::eq(camera, section) || camera == section);
        let pads = template.links.iter().flat_map(|link| &link.assignments);
        for assignment in template.bindings().map(|(_, assignment)| assignment).chain(pads) {
            for name in assignment.params() {
                self.check_reference(name, in_camera, Some(line(assignment.offset)), collector);
            }
        }
    }

    fn check_reference(&self, name: &str, in_camera: bool, line: Option<usize>, collector: &mut Collector) {
        if INSTANCE_BUILTINS.contains(&name) || (in_camera && CAMERA_BUILTINS.contains(&name)) {
            return;
        }
        match self.param(name) {
            Some(param) if param.scope == Scope::Camera && !in_camera => collector.add(
                line,
                format!(
                    "parameter {name:?} has a value per camera and cannot be used where there is no camera"
                ),
            ),
            Some(_) => {}
            None if CAMERA_BUILTINS.contains(&name) => {
                collector.add(line, format!("{name:?} has a value only in a camera branch"));
            }
            None => {
                let names = self.params.iter().map(|param| param.name.as_str());
                let hint = hint(name, names.chain(INSTANCE_BUILTINS).chain(CAMERA_BUILTINS));
                collector.add(line, format!("parameter {name:?} is not declared{hint}"));
            }
        }
    }
}
