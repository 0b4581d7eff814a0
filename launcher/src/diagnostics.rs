//! Errors that point into a file: where, what was expected, and the nearest correct name.

use std::fmt;

/// One thing wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// One-based line; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    pub message: String,
}

/// Everything wrong with one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problems {
    pub file: String,
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match problem.line {
                Some(line) => write!(f, "{}:{line}: {}", self.file, problem.message)?,
                None => write!(f, "{}: {}", self.file, problem.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems of one file while reading goes on.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    file: String,
    list: Vec<Problem>,
}

impl Collector {
    pub fn new(file: &str) -> Self {
        Self { file: file.into(), list: Vec::new() }
    }

    pub fn add(&mut self, line: Option<usize>, message: impl Into<String>) {
        let problem = Problem { line, message: message.into() };
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    /// The one problem that a file has.
    pub fn only(file: &str, line: Option<usize>, message: String) -> Problems {
        Problems { file: file.into(), list: vec![Problem { line, message }] }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `Ok` when nothing was found; the problems, in file order, else.
    pub fn finish(mut self) -> Result<(), Problems> {
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.sort_by_key(|problem| problem.line);
        Err(Problems { file: self.file, list: self.list })
    }
}

/// One-based line of a byte offset.
pub(crate) fn line_of(source: &str, offset: usize) -> usize {
    source.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// `; did you mean "…"?`, or nothing where no candidate is near.
pub(crate) fn hint<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wanted, candidates).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// The candidate that `wanted` was probably meant to be.
pub(crate) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('_', "-");
    let wanted = plain(wanted);
    candidates
        .into_iter()
        .filter_map(|name| {
            let other = plain(name);
            let edits = strsim::osa_distance(&wanted, &other);
            let similarity = strsim::jaro_winkler(&wanted, &other);
            (edits <= 1 + wanted.len() / 5 || similarity >= 0.8).then_some((edits, similarity, name))
        })
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["nvrinfer", "nvrsrc", "queue"];
        assert_eq!(nearest("nvrinfr", names), Some("nvrinfer"));
        assert_eq!(nearest("max_fsp", ["max-fps", "model"]), Some("max-fps"));
        assert_eq!(nearest("kye", ["key", "max_fps"]), Some("key"));
        assert_eq!(nearest("zebra", names), None);
    }

    #[test]
    fn problems_are_listed_by_line_with_the_file() {
        let mut collector = Collector::new("a.toml");
        collector.add(Some(9), "later");
        collector.add(Some(2), "earlier");
        collector.add(Some(2), "earlier");
        let text = collector.finish().expect_err("problems").to_string();
        assert_eq!(text, "a.toml:2: earlier\na.toml:9: later");
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }
}
