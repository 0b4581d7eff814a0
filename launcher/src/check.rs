//! Finds everything that is wrong with a graph without starting it: unknown elements and properties, types
//! and ranges, links that cannot be made.

mod values;

use gst::{glib, prelude::*};
pub use values::check_values;

use crate::{
    diagnostics::{Collector, Problems, hint},
    graph::{Graph, Kind, Section, Value, Values},
    runtime::property::{check_kind, class_of, convert},
    template::{Piece, SharedLink, Template},
};

/// Checks a graph with its defaults.
///
/// # Errors
/// Every problem, with its line.
pub fn check_graph(graph: &Graph) -> Result<(), Problems> {
    let mut collector = Collector::new(&graph.file);
    let fragments: Values = graph
        .params
        .iter()
        .filter(|param| param.is_text())
        .filter_map(|param| {
            let text = param.default.as_ref()?.iter().map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Param(name) => format!("${{{name}}}"),
            });
            Some((param.name.clone(), Value::Text(text.collect())))
        })
        .collect();
    check_choices(graph, &fragments, &mut collector);
    let mut templates = Vec::new();
    for section in graph.shared.iter().chain(&graph.camera) {
        match graph.template(section, &fragments) {
            Ok(template) => {
                check_elements(graph, section, &template, &mut collector);
                templates.push((section, template));
            }
            Err(problems) => {
                for problem in problems.list {
                    collector.add(problem.line, problem.message);
                }
            }
        }
    }
    if collector.is_empty() {
        for (section, template) in &templates {
            check_links(graph, section, template, &templates, &mut collector);
        }
    }
    collector.finish()
}

/// What can be chosen instead of the defaults. An element that only another choice needs may be missing here.
fn check_choices(graph: &Graph, fragments: &Values, collector: &mut Collector) {
    for param in &graph.params {
        let Kind::Choice { choices } = &param.kind else { continue };
        for choice in choices.keys() {
            let mut fragments = fragments.clone();
            fragments.insert(param.name.clone(), Value::Text(choice.clone()));
            for section in graph.shared.iter().chain(&graph.camera) {
                let wrong = |message: &str| format!("{:?} of parameter {:?}: {message}", choice, param.name);
                match graph.template(section, &fragments) {
                    Ok(mut template) => {
                        template.elements.retain(|element| class_of(&element.factory).is_some());
                        let mut own = Collector::new(&graph.file);
                        check_elements(graph, section, &template, &mut own);
                        for problem in own.finish().err().into_iter().flat_map(|problems| problems.list) {
                            collector.add(Some(param.line), wrong(&problem.message));
                        }
                    }
                    Err(problems) => {
                        for problem in problems.list {
                            collector.add(Some(param.line), wrong(&problem.message));
                        }
                    }
                }
            }
        }
    }
}

fn check_elements(graph: &Graph, section: &Section, template: &Template, collector: &mut Collector) {
    for element in &template.elements {
        let Some(class) = class_of(&element.factory) else {
            let factories =
                gst::ElementFactory::factories_with_type(gst::ElementFactoryType::ANY, gst::Rank::NONE);
            let names: Vec<_> = factories.iter().map(|factory| factory.name().to_string()).collect();
            let hint = hint(&element.factory, names.iter().map(String::as_str));
            collector.add(
                Some(section.line(element.offset)),
                format!("there is no element {:?} on this machine{hint}", element.factory),
            );
            continue;
        };
        for assignment in &element.assignments {
            if assignment.key.contains("::") {
                continue;
            }
            let line = Some(section.line(assignment.offset));
            let Some(pspec) = class.find_property(&assignment.key) else {
                let properties: Vec<_> =
                    class.list_properties().iter().map(|p| p.name().to_owned()).collect();
                let hint = hint(&assignment.key, properties.iter().map(String::as_str));
                collector
                    .add(line, format!("{} has no property {:?}{hint}", element.factory, assignment.key));
                continue;
            };
            check_assignment(graph, element, assignment, &pspec, line, collector);
        }
    }
}

fn check_assignment(
    graph: &Graph,
    element: &crate::template::Element,
    assignment: &crate::template::Assignment,
    pspec: &glib::ParamSpec,
    line: Option<usize>,
    collector: &mut Collector,
) {
    if let Some(text) = assignment.literal() {
        if crate::runtime::property::refuse(pspec).is_none()
            && let Err(message) = convert(pspec, &Value::Text(text.clone()))
        {
            collector.add(line, format!("{}: {message}, got {text:?}", element.factory));
        }
        return;
    }
    let alone = assignment.value.len() == 1;
    for param in assignment.params().filter_map(|name| graph.param(name)) {
        if let Err(message) = check_kind(pspec, param, alone) {
            collector.add(line, format!("{}: {message}", element.factory));
            continue;
        }
        // A fixed default must fit the property too, not only the parameter's own range.
        if let (true, Some([Piece::Text(text)])) = (alone, param.default.as_deref())
            && let Ok(value) = param.parse(text)
            && let Err(message) = convert(pspec, &value)
        {
            collector.add(
                line,
                format!("{}: {message}; the default of {:?} is {text}", element.factory, param.name),
            );
        }
        if let (true, Kind::Enum { values }) = (alone, &param.kind) {
            for value in values {
                if let Err(message) = convert(pspec, &Value::Text(value.clone())) {
                    collector.add(
                        line,
                        format!("{}: {message}; {:?} allows {value:?}", element.factory, param.name),
                    );
                }
            }
        }
    }
}

/// Lets GStreamer make the links, without values and without starting anything.
fn check_links(
    graph: &Graph,
    section: &Section,
    template: &Template,
    all: &[(&Section, Template)],
    collector: &mut Collector,
) {
    if let Err(error) = crate::runtime::parse(&template.description, "check") {
        collector.add(Some(section.line(0)), format!("{} cannot be built: {error}", graph.name));
    }
    for link in &template.links {
        check_pad_properties(graph, section, link, all, collector);
        let others = all.iter().filter(|(other, _)| !std::ptr::eq(*other, section));
        let names: Vec<_> = others.flat_map(|(_, other)| &other.elements).map(|e| e.name.as_str()).collect();
        if !names.contains(&link.to.as_str()) {
            let hint = hint(&link.to, names.iter().copied());
            collector.add(
                Some(section.line(link.offset)),
                format!("\"! {}.\" leads to no element of [graph]{hint}", link.to),
            );
        }
    }
}

/// The properties of a pad of the shared graph exist and take what they are given.
fn check_pad_properties(
    graph: &Graph,
    section: &Section,
    link: &SharedLink,
    all: &[(&Section, Template)],
    collector: &mut Collector,
) {
    let Some(element) = all.iter().flat_map(|(_, other)| &other.elements).find(|e| e.name == link.to) else {
        return;
    };
    let Some(class) = class_of(&element.factory) else { return };
    let name = link.pad.as_deref().unwrap_or("sink_%u");
    let pad_type = class.pad_template(name).map(|template| template.property::<glib::Type>("gtype"));
    let Some(pad) = pad_type.and_then(glib::Class::<gst::Pad>::from_type) else {
        if let Some(assignment) = link.assignments.first() {
            collector.add(
                Some(section.line(assignment.offset)),
                format!("{} has no pad {name:?} that takes properties", element.factory),
            );
        }
        return;
    };
    for assignment in &link.assignments {
        let line = Some(section.line(assignment.offset));
        let Some(pspec) = pad.find_property(&assignment.key) else {
            let properties: Vec<_> = pad.list_properties().iter().map(|p| p.name().to_owned()).collect();
            let hint = hint(&assignment.key, properties.iter().map(String::as_str));
            collector.add(
                line,
                format!("pads of {} have no property {:?}{hint}", element.factory, assignment.key),
            );
            continue;
        };
        check_assignment(graph, element, assignment, &pspec, line, collector);
    }
}
