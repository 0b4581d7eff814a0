//! `nvr-launch graph`: a picture of a graph, in the language of Graphviz.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command};
use gst::prelude::*;

use super::{CommandResult, Failure, init_gstreamer, run::parse};
use crate::{
    graph::{Kind, Value},
    output::outln,
    redact::redact,
    runtime::Instance,
    values::Plan,
};

pub(super) fn command() -> Command {
    Command::new("graph")
        .about("Print a graph with its cameras in the dot language: nvr-launch graph processor | dot -Tsvg")
        .arg(Arg::new("graph").value_name("GRAPH").required(true))
        .arg(
            Arg::new("args")
                .value_name("OPTIONS")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(OsString))
                .help("The graph's own options, as for running it"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<CommandResult, clap::Error> {
    let name = matches.get_one::<String>("graph").cloned().unwrap_or_default();
    let args = matches.get_many::<OsString>("args").into_iter().flatten().cloned();
    Ok(parse(&name, args, "nvr-launch graph")?.and_then(|invocation| {
        init_gstreamer()?;
        outln!("{}", dot(invocation.plan).map_err(Failure::usage)?);
        Ok(())
    }))
}

/// The built graph as dot text. Credentials are taken out of the values before anything is built with them.
fn dot(mut plan: Plan) -> Result<String, String> {
    let graph = plan.graph.clone();
    for values in plan.settings.cameras.values_mut().chain([&mut plan.settings.common]) {
        for (name, value) in values.iter_mut() {
            let Some(param) = graph.param(name) else { continue };
            match (&param.kind, &*value) {
                (Kind::Secret, _) => *value = Value::Text("***".into()),
                (_, Value::Text(text)) => *value = Value::Text(without_credentials(text)),
                _ => {}
            }
        }
    }
    let mut instance = Instance::new(plan).map_err(|error| error.to_string())?;
    instance.build_all().map_err(|error| error.to_string())?;
    let text = instance.pipeline().debug_to_dot_data(gst::DebugGraphDetails::all());
    Ok(redact(&text).into_owned())
}

fn without_credentials(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            if url.set_username("").is_err() || url.set_password(None).is_err() {
                return "***".into();
            }
            redact(url.as_str()).into_owned()
        }
        _ => redact(text).into_owned(),
    }
}
