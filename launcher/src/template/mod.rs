//! Launch strings with `${parameters}`: taken apart so that no value ever becomes pipeline text.
//!
//! `${name}` may stand only where a property value stands. Every assignment that holds one is cut out of the
//! text; what is left is ordinary gst-launch syntax without any value in it, in which each element has a name.
//! The values are set on the named elements afterwards, as properties, with type conversion. Pure text work:
//! which elements and properties exist is checked elsewhere.

mod scan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use scan::parse_pieces;
use scan::{Token, TokenKind};

/// One piece of a value: text, or a parameter's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    Text(String),
    Param(String),
}

/// One `key=value` of an element.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assignment {
    pub key: String,
    pub value: Vec<Piece>,
    /// Byte offset in the launch string.
    pub offset: usize,
}

impl Assignment {
    /// The parameters whose values this property is made of.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.value.iter().filter_map(|piece| match piece {
            Piece::Param(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The value where it is fixed.
    pub fn literal(&self) -> Option<String> {
        self.value
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => Some(text.as_str()),
                Piece::Param(_) => None,
            })
            .collect()
    }
}

/// One element of the template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    pub factory: String,
    /// Unique within the template: the one given, or `{factory}-{n}`.
    pub name: String,
    pub offset: usize,
    pub assignments: Vec<Assignment>,
}

/// `! name.` at the end of a chain, where `name` is not in this template: a link into the shared graph.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedLink {
    /// Name of the element here whose source pad is linked.
    pub from: String,
    /// Name of the shared element.
    pub to: String,
    /// Name or template of the pad asked for (`name.sink_%u`).
    pub pad: Option<String>,
    /// What stands after it: properties of the pad.
    pub assignments: Vec<Assignment>,
    pub offset: usize,
}

/// A launch string, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    /// What GStreamer parses: no parameter, no value of one, a name on every element.
    pub description: String,
    pub elements: Vec<Element>,
    pub links: Vec<SharedLink>,
}

/// Something wrong in a launch string.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// Byte offset in the launch string.
    pub offset: usize,
    pub message: String,
}

impl TemplateError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into() }
    }
}

impl Template {
    /// Takes a launch string apart.
    ///
    /// # Errors
    /// Every place that is not understood, and every `${…}` that does not stand in a property value.
    pub fn parse(launch: &str) -> Result<Self, Vec<TemplateError>> {
        let tokens = scan::tokens(launch).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        let mut elements: Vec<Element> = Vec::new();
        // Index of the element that assignments belong to.
        let mut current: Option<usize> = None;
        // Properties of pads of the shared graph, by where their reference begins.
        let mut reference: Option<usize> = None;
        let mut pads: BTreeMap<usize, Vec<Assignment>> = BTreeMap::new();
        // Where each element's factory name ends, and which parts of the text are to be cut.
        let mut name_at: Vec<Option<usize>> = Vec::new();
        let mut cuts: Vec<(usize, usize)> = Vec::new();

        for token in &tokens {
            match &token.kind {
                TokenKind::Element(factory) => {
                    elements.push(Element {
                        factory: factory.clone(),
                        name: String::new(),
                        offset: token.start,
                        assignments: Vec::new(),
                    });
                    name_at.push(Some(token.end));
                    current = Some(elements.len() - 1);
                    reference = None;
                }
                TokenKind::Assignment { key, value } => {
                    let assignment =
                        Assignment { key: key.clone(), value: value.clone(), offset: token.start };
                    let has_params = assignment.params().next().is_some();
                    if let Some(start) = reference {
                        pads.entry(start).or_default().push(assignment);
                        cuts.push((token.start, token.end));
                        continue;
                    }
                    let Some(index) = current else {
                        errors.push(TemplateError::new(
                            token.start,
                            format!("{key:?} is set here, but no element stands before it"),
                        ));
                        continue;
                    };
                    if key == "name" {
                        match assignment.literal() {
                            Some(name) if scan::is_identifier(&name) => {
                                elements[index].name = name;
                                name_at[index] = None;
                            }
                            Some(name) => errors.push(TemplateError::new(
                                token.start,
                                format!("element name {name:?} must be letters, digits, '-' and '_'"),
                            )),
                            None => errors.push(TemplateError::new(
                                token.start,
                                "an element's name cannot come from a parameter",
                            )),
                        }
                        continue;
                    }
                    if has_params {
                        if key.contains("::") {
                            errors.push(TemplateError::new(
                                token.start,
                                format!("{key:?} belongs to a child element; a parameter can only feed a property of the element itself"),
                            ));
                        }
                        cuts.push((token.start, token.end));
                    }
                    elements[index].assignments.push(assignment);
                }
                TokenKind::Reference { .. } => {
                    current = None;
                    reference = Some(token.start);
                }
                TokenKind::Open | TokenKind::Close | TokenKind::Caps => {
                    current = None;
                    reference = None;
                }
                TokenKind::Link => reference = None,
            }
        }
        if elements.is_empty() && errors.is_empty() {
            errors.push(TemplateError::new(0, "there is no element here"));
        }
        name_elements(&mut elements, &mut errors);
        let mut links = shared_links(&tokens, &elements, &mut cuts, &mut errors);
        for link in &mut links {
            link.assignments = pads.remove(&link.offset).unwrap_or_default();
        }
        for assignment in pads.into_values().flatten() {
            errors.push(TemplateError::new(
                assignment.offset,
                format!(
                    "{:?} stands after a link within the launch string; only a pad of the shared graph takes properties",
                    assignment.key
                ),
            ));
        }
        if !errors.is_empty() {
            errors.sort_by_key(|error| error.offset);
            return Err(errors);
        }
        let names: Vec<(usize, &str)> = name_at
            .iter()
            .zip(&elements)
            .filter_map(|(at, element)| at.map(|at| (at, element.name.as_str())))
            .collect();
        Ok(Self { description: rewrite(launch, &cuts, &names), elements, links })
    }

    /// Every assignment that parameters feed, with its element. Those of pads of the shared graph are not among them.
    pub fn bindings(&self) -> impl Iterator<Item = (&Element, &Assignment)> {
        self.elements.iter().flat_map(|element| {
            element
                .assignments
                .iter()
                .filter(|assignment| assignment.params().next().is_some())
                .map(move |assignment| (element, assignment))
        })
    }
}

/// Gives every nameless element a name of its own, and refuses names given twice.
fn name_elements(elements: &mut [Element], errors: &mut Vec<TemplateError>) {
    let mut taken = BTreeSet::new();
    for element in elements.iter().filter(|element| !element.name.is_empty()) {
        if !taken.insert(element.name.clone()) {
            errors.push(TemplateError::new(
                element.offset,
                format!("two elements are named {:?}", element.name),
            ));
        }
    }
    for element in elements.iter_mut().filter(|element| element.name.is_empty()) {
        let mut number = 0;
        element.name = loop {
            let name = format!("{}-{number}", element.factory);
            if taken.insert(name.clone()) {
                break name;
            }
            number += 1;
        };
    }
}

/// Finds `! name.` that leaves the template, and marks it to be cut.
fn shared_links(
    tokens: &[Token],
    elements: &[Element],
    cuts: &mut Vec<(usize, usize)>,
    errors: &mut Vec<TemplateError>,
) -> Vec<SharedLink> {
    let mut links = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let TokenKind::Reference { name, pad } = &token.kind else { continue };
        if elements.iter().any(|element| element.name == *name) {
            continue;
        }
        let after_link = index > 0 && matches!(tokens[index - 1].kind, TokenKind::Link);
        let before_link = tokens.get(index + 1).is_some_and(|next| matches!(next.kind, TokenKind::Link));
        if !after_link || before_link {
            let hint = crate::diagnostics::hint(name, elements.iter().map(|element| element.name.as_str()));
            errors.push(TemplateError::new(
                token.start,
                format!("no element here is named {name:?}; only \"! {name}.\" at the end of a chain may leave it{hint}"),
            ));
            continue;
        }
        // The element that the link leaves: its name, skipping its assignments.
        let source = tokens[..index - 1]
            .iter()
            .rev()
            .find(|before| !matches!(before.kind, TokenKind::Assignment { .. }))
            .and_then(|before| match before.kind {
                TokenKind::Element(_) => elements.iter().find(|element| element.offset == before.start),
                _ => None,
            });
        match source {
            Some(element) => {
                cuts.push((tokens[index - 1].start, token.end));
                links.push(SharedLink {
                    from: element.name.clone(),
                    to: name.clone(),
                    pad: pad.clone(),
                    assignments: Vec::new(),
                    offset: token.start,
                });
            }
            None => errors.push(TemplateError::new(
                token.start,
                format!("put an element, for example queue, in front of \"! {name}.\""),
            )),
        }
    }
    links
}

/// The launch string without the cut parts and with ` name=…` where a name was missing.
fn rewrite(launch: &str, cuts: &[(usize, usize)], names: &[(usize, &str)]) -> String {
    enum Edit<'a> {
        Skip(usize),
        Insert(&'a str),
    }
    let mut edits: Vec<(usize, Edit<'_>)> =
        cuts.iter().map(|(start, end)| (*start, Edit::Skip(*end))).collect();
    edits.extend(names.iter().map(|(at, name)| (*at, Edit::Insert(name))));
    edits.sort_by_key(|(at, _)| *at);
    let mut text = String::with_capacity(launch.len() + 32 * names.len());
    let mut position = 0;
    for (at, edit) in edits {
        text.push_str(&launch[position..at]);
        position = at;
        match edit {
            Edit::Skip(end) => position = end,
            Edit::Insert(name) => {
                text.push_str(" name=");
                text.push_str(name);
            }
        }
    }
    text.push_str(&launch[position..]);
    text
}
