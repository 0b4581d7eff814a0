//! Values that GStreamer takes and the elements refuse when they start: what such a text means is known to nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use gst::prelude::*;
use gstnvr::{mqtt::BrokerSettings, nvrinfer::check_model};
use nvr_core::{alert, command::Policy, zones};

use crate::{
    graph::Section,
    site::UNSET,
    template::{Element, Piece},
    values::{Camera, Plan},
    wall::host_and_port,
};

/// Elements that talk to a broker.
const MQTT: [&str; 5] = ["nvrcontrol", "nvrmqttsink", "nvroverlay", "nvrrecordsink", "nvrzones"];
/// Properties that name files, which may be on another machine.
const FILES: [&str; 3] = ["ca-file", "cert-file", "key-file"];
/// Outputs that write below a folder and make none.
const OUTPUTS: [(&str, &str); 3] =
    [("hlssink2", "playlist-location"), ("multifilesink", "location"), ("nvrfilesink", "location")];

/// Checks what a plan gives to our elements. `here`: on this machine and with its environment; else what only another
/// one has is left out.
///
/// # Errors
/// Everything that an element would refuse, each once.
pub fn check_values(plan: &Plan, here: bool) -> Result<(), String> {
    let cameras: Vec<Option<&Camera>> = plan.cameras.iter().map(Some).collect();
    let sections = [(&plan.graph.shared, vec![None]), (&plan.graph.camera, cameras)];
    let mut problems = BTreeSet::new();
    for (section, cameras) in &sections {
        let Some(section) = section else { continue };
        for camera in cameras {
            check_section(plan, section, *camera, here, &mut problems);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.into_iter().collect::<Vec<_>>().join("\n")) }
}

fn check_section(
    plan: &Plan,
    section: &Section,
    camera: Option<&Camera>,
    here: bool,
    problems: &mut BTreeSet<String>,
) {
    // What is wrong with the template itself is said by whoever builds it.
    let Ok(template) = plan.graph.template(section, &plan.fragments()) else { return };
    for element in &template.elements {
        let mut given = given(plan, camera, element);
        if !here {
            given.retain(|name, value| !FILES.contains(name) && !value.contains(UNSET));
        }
        let mut wrong = |property: &str, error: String, of_camera: bool| {
            let place =
                camera.filter(|_| of_camera).map_or_else(String::new, |c| format!("camera {}: ", c.id));
            problems.insert(format!("{place}{} {property}: {error}", element.factory));
        };
        let text = |name: &str| given.get(name).map_or("", String::as_str);
        match element.factory.as_str() {
            "nvrcontrol" => {
                if let Err(error) = Policy::new(text("enabled-commands"), text("uri-schemes")) {
                    wrong("enabled-commands", error, false);
                }
            }
            // The files of another machine are not here.
            "nvrinfer" if here => {
                let labels = given.get("labels-file").filter(|path| !path.is_empty());
                if let Err(error) = check_model(text("model"), labels.map(String::as_str)) {
                    wrong("model", error, false);
                }
            }
            "nvrzones" => {
                if let Err(error) = zones::parse(text("zones")) {
                    wrong("zones", error.to_string(), true);
                }
                if let Err(error) = alert::parse(text("rules")) {
                    wrong("rules", error.to_string(), false);
                }
            }
            "nvrrtspsink" => {
                if let Some(Err(error)) = given.get("address").map(|address| host_and_port(address)) {
                    wrong("address", error.to_string(), false);
                }
            }
            _ => {}
        }
        let output = OUTPUTS.iter().find(|(factory, _)| here && *factory == element.factory);
        if let Some((_, property)) = output
            && let Some(folder) = given.get(property).and_then(|path| Path::new(path).parent())
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            wrong(property, format!("there is no folder {}; make it first", folder.display()), false);
        }
        if let Err(error) = broker(element, &given) {
            problems.insert(error);
        }
    }
}

/// What the element's properties are given, as far as there are values.
fn given<'a>(plan: &Plan, camera: Option<&Camera>, element: &'a Element) -> BTreeMap<&'a str, String> {
    let text = |pieces: &[Piece]| -> Option<String> {
        pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => Some(text.clone()),
                Piece::Param(name) => plan.get(camera, name).ok()?.map(|value| value.to_string()),
            })
            .collect()
    };
    let assignments = element.assignments.iter();
    assignments.filter_map(|a| Some((a.key.as_str(), text(&a.value)?))).collect()
}

fn broker(element: &Element, given: &BTreeMap<&str, String>) -> Result<(), String> {
    let is = |name: &str, value: &str| given.get(name).is_some_and(|given| given == value);
    let talks = match element.factory.as_str() {
        "nvroverlay" => is("source", "mqtt"),
        "nvrrecordsink" => is("listen", "true"),
        factory => MQTT.contains(&factory),
    };
    if !talks {
        return Ok(());
    }
    let mut settings = BrokerSettings::default();
    for pspec in BrokerSettings::properties() {
        if let Some(value) = given.get(pspec.name()) {
            settings.set(&value.to_value(), &pspec);
        }
    }
    // The same for every element: no need to say whose it is.
    settings.resolve().map(drop).map_err(|error| error.to_string().replace("property ", ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::Graph, values::CommandLine};

    fn check(graph: &str, values: &[(&str, &str)], here: bool) -> Result<(), String> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let streams = Some(vec![0, 1]);
        let line = CommandLine { values, streams, ..CommandLine::default() };
        check_values(&Plan::resolve(Graph::load(graph).unwrap(), None, &|_| None, &line).unwrap(), here)
    }

    #[test]
    fn what_an_element_would_refuse_is_said_before_it_starts() {
        for graph in ["processor", "recorder", "nvr", "wall"] {
            assert_eq!(check(graph, &[], true), Ok(()), "{graph}");
            for (name, value, part) in [
                ("commands", "foo", "nvrcontrol enabled-commands: there is no command \"foo\""),
                ("broker", "http://x", "`broker`: scheme \"http\" is not known"),
                ("topic_prefix", "a/#", "`topic-prefix`: "),
            ] {
                let error = check(graph, &[(name, value)], true).unwrap_err();
                assert!(error.contains(part) && error.lines().count() == 1, "{graph}: {error}");
            }
            let files = [("broker", "mqtts://h"), ("ca_file", "/nonexistent/ca.pem")];
            assert!(check(graph, &files, true).unwrap_err().contains("/nonexistent/ca.pem"), "{graph}");
            assert_eq!(check(graph, &files, false), Ok(()), "{graph}");
        }
        for (output, name, value, part) in [
            ("rtsp", "rtsp_address", "nonsense", "nvrrtspsink address: \"nonsense\" is no address"),
            ("hls", "location", "/nonexistent", "there is no folder /nonexistent; make it first"),
            ("picture", "location", "/nonexistent/%d.jpg", "there is no folder /nonexistent"),
            ("file", "location", "/nonexistent/wall.mp4", "there is no folder /nonexistent"),
        ] {
            let error = check("wall", &[("output", output), (name, value)], true).unwrap_err();
            assert!(error.contains(part), "{output}: {error}");
            assert_eq!(check("wall", &[("output", output)], true).is_err(), output == "hls", "{output}");
        }
        for graph in ["processor", "nvr"] {
            let error = check(graph, &[("model", "/nonexistent.onnx")], true).unwrap_err();
            assert!(error.contains("nvrinfer model: /nonexistent.onnx cannot be used"), "{error}");
            assert_eq!(check(graph, &[("model", "/nonexistent.onnx")], false), Ok(()));
            let error = check(graph, &[("zones", "not json"), ("alerts", "nor this")], true).unwrap_err();
            assert!(error.contains("camera 0: nvrzones zones: ") && error.contains("camera 1: "), "{error}");
            assert!(error.contains("nvrzones rules: ") && error.lines().count() == 3, "{error}");
            // Somewhere else the variable of the environment is there.
            assert_eq!(check(graph, &[("broker", "rtsp://unset"), ("alerts", "unset")], false), Ok(()));
        }
    }
}
