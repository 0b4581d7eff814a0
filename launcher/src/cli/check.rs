//! `nvr-launch check`: finds everything that is wrong with graph files and site files.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};

use super::{CommandResult, Failure, init_gstreamer, load};
use crate::{
    check::{check_graph, check_values},
    files::{MOST, read_text},
    graph::{Graph, SHIPPED, shipped},
    output::offerln,
    runtime::Instance,
    site::Site,
    values::{CommandLine, Plan},
};

pub(super) fn command() -> Command {
    Command::new("check")
        .about("Check graph files and site files without starting anything")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .num_args(1..)
                .help("Graph files, names of shipped graphs, or site files"),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Site file to check the graphs with"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> CommandResult {
    init_gstreamer()?;
    let mut problems = Vec::new();
    let config = matches.get_one::<PathBuf>("config");
    for file in matches.get_many::<String>("file").into_iter().flatten() {
        match check_file(file, config.map(PathBuf::as_path)) {
            Ok(what) => offerln!("{file}: {what}, right"),
            Err(message) => problems.push(message),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::usage(problems.join("\n"))) }
}

fn check_file(file: &str, config: Option<&Path>) -> Result<&'static str, String> {
    if shipped(file).is_none() && is_site_file(file) {
        // A site file serves every graph.
        for shipped in SHIPPED {
            let graph = Graph::parse(shipped.name, shipped.text).map_err(|error| error.to_string())?;
            check_site(Path::new(file), graph)?;
        }
        return Ok("a site file");
    }
    let graph = load(file).map_err(|failure| failure.message)?;
    check_graph(&graph).map_err(|problems| problems.to_string())?;
    if let Some(path) = config {
        check_site(path, graph)?;
        return Ok("a graph with its site file");
    }
    Ok("a graph")
}

/// A site file has cameras, values or a broker, and none of what makes a graph: a `[[camera]]` that should have been
/// `[[cameras]]` makes none.
fn is_site_file(file: &str) -> bool {
    let Ok(text) = read_text(Path::new(file), MOST) else { return false };
    let Ok(document) = toml_edit::Document::parse(text.as_str()) else { return false };
    let table = document.as_table();
    let has = |key: &str| table.contains_key(key);
    let launches = |key: &str| table.get(key).is_some_and(toml_edit::Item::is_table_like);
    !["summary", "kind", "params"].into_iter().any(has)
        && !["camera", "graph"].into_iter().any(launches)
        && ["instance_id", "broker", "topic_prefix", "values", "alerts", "cameras"].into_iter().any(has)
}

/// Whether a graph can be built with a site file. Environment variables that it names may be missing on the
/// machine that checks it.
fn check_site(path: &Path, graph: Graph) -> Result<(), String> {
    let site = Site::load_to_check(path).map_err(|error| error.to_string())?;
    let plan = Plan::resolve(graph, Some(&site), &|_| None, &CommandLine::default())
        .map_err(|error| error.to_string())?;
    check_values(&plan, false)?;
    Instance::new(plan).and_then(|mut instance| instance.build_all()).map_err(|error| error.to_string())
}
