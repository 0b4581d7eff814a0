//! `nvr-launch GRAPH`: runs a graph.

use std::{collections::BTreeMap, env::VarError, ffi::OsString, fmt::Write, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use super::{CommandResult, Failure, init_gstreamer, load};
use crate::{
    check::{check_graph, check_values},
    control::Control,
    graph::{Graph, Kind, Param, Scope},
    live,
    logging::{self, Format},
    output::outln,
    process,
    redact::{redact, redact_address},
    runtime::{Instance, Outcome, StartError},
    site::Site,
    template::Piece,
    values::{CommandLine, Plan, parse_assignment, parse_streams},
};

const ABOUT_VALUES: &str = "Values come from, weakest first: the graph file, the site file (--config), NVR_* environment \
variables, the command line. [live]: changes while it runs. [local]: no command from the broker gives it.";

/// Variables that say something about every graph.
const VARIABLES: [&str; 4] = ["NVR_CONFIG", "NVR_INSTANCE_ID", "NVR_LOG", "NVR_LOG_FORMAT"];

/// The flags of a graph.
pub(crate) fn command(graph: &Graph, name: String) -> Command {
    let mut command = Command::new(name.clone())
        .bin_name(name)
        .about(graph.summary.clone())
        .no_binary_name(true)
        .disable_version_flag(true)
        .after_help(format!("{ABOUT_VALUES}\n\n{}", process::EXIT_CODES))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Site file: broker, cameras, parameter values [env: NVR_CONFIG]"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("[CAMERA.]NAME=VALUE")
                .action(ArgAction::Append)
                .value_parser(parse_assignment)
                .help("Give any parameter; with a camera's number, for that camera only"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Find everything that is wrong, without starting anything"),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .help("Log lines as text or as JSON [default: text] [env: NVR_LOG_FORMAT]"),
        )
        .arg(
            Arg::new("log-level")
                .long("log-level")
                .value_name("LEVEL")
                .help("error, warn, info, debug, trace, or a filter [default: info] [env: NVR_LOG]"),
        )
        .arg(
            Arg::new("no-status")
                .long("no-status")
                .action(ArgAction::SetTrue)
                .help("No status lines on a terminal"),
        )
        .arg(
            Arg::new("instance-id")
                .long("instance-id")
                .value_name("ID")
                .help("Name of this instance on the broker [default: the graph's and the host's name] [env: NVR_INSTANCE_ID]"),
        );
    if graph.camera.is_some() {
        command = command.arg(
            Arg::new("streams")
                .long("streams")
                .value_name("LIST")
                .value_parser(|text: &str| parse_streams(text).map(Streams))
                .help("Which cameras, as in 0-3,7 [default: those of the site file, or 0]"),
        );
    }
    for param in &graph.params {
        command = command.arg(flag(param));
    }
    command
}

#[derive(Clone)]
struct Streams(Vec<u32>);

fn flag(param: &Param) -> Arg {
    let mut help = param.help.clone();
    if let Some(default) = &param.default {
        let text: String = default
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Param(name) => format!("${{{name}}}"),
            })
            .collect();
        if !text.is_empty() && !param.is_secret() {
            let text =
                if param.kind == Kind::Uri { redact_address(&text) } else { redact(&text).into_owned() };
            let _ = write!(help, " [default: {text}]");
        }
    }
    match &param.kind {
        Kind::Int { .. } | Kind::Float { .. } => {
            let expected = param.expected();
            if let Some((_, range)) = expected.split_once(" from ") {
                let _ = write!(help, " [from {range}]");
            } else if let Some((_, range)) = expected.split_once(" up to ") {
                let _ = write!(help, " [up to {range}]");
            }
        }
        Kind::Enum { values } => {
            let _ = write!(help, " [{}]", values.join(", "));
        }
        Kind::Choice { choices } => {
            let _ = write!(help, " [{}]", choices.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
        }
        _ => {}
    }
    if param.required {
        help.push_str(" [required]");
    }
    if param.live {
        help.push_str(" [live]");
    }
    if !param.remote {
        help.push_str(" [local]");
    }
    if param.kind != Kind::Fragment {
        let _ = write!(help, " [env: {}]", param.env());
    }
    let name = match &param.kind {
        Kind::Int { .. } | Kind::Float { .. } => "NUMBER",
        Kind::Bool => "BOOL",
        Kind::Uri => "URI",
        Kind::Fragment => "PIPELINE",
        _ => "TEXT",
    };
    let heading = match param.scope {
        Scope::Instance => "Parameters of the graph",
        Scope::Camera => "Parameters of every camera (for one camera: --set 2.NAME=VALUE)",
    };
    let arg = Arg::new(param.name.clone())
        .long(param.flag())
        .value_name(name)
        .help(help)
        .help_heading(heading)
        .allow_hyphen_values(true);
    if param.kind == Kind::Bool {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        arg
    }
}

/// A graph and what was said about it.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub plan: Plan,
    check: bool,
    format: Format,
    level: String,
    status: bool,
}

/// Reads a graph's own arguments. The outer error is one of the command line itself.
pub(crate) fn parse(
    graph_name: &str,
    args: impl Iterator<Item = OsString>,
    prefix: &str,
) -> Result<Result<Invocation, Failure>, clap::Error> {
    let graph = match load(graph_name) {
        Ok(graph) => graph,
        Err(failure) => return Ok(Err(failure)),
    };
    let matches = command(&graph, format!("{prefix} {graph_name}")).try_get_matches_from(args)?;
    // To be passed over would be to run with other values than were meant.
    let names = graph.params.iter().map(Param::env).chain(VARIABLES.map(str::to_owned));
    for name in names {
        if let Err(VarError::NotUnicode(value)) = std::env::var(&name) {
            // It may be a password.
            let message = format!("environment variable {name} is no text in UTF-8 ({} bytes)", value.len());
            return Ok(Err(Failure::usage(message)));
        }
    }
    Ok(resolve(graph, &matches, &|name| std::env::var(name).ok()))
}

fn resolve(
    graph: Graph,
    matches: &ArgMatches,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Invocation, Failure> {
    let config =
        matches.get_one::<PathBuf>("config").cloned().or_else(|| env("NVR_CONFIG").map(PathBuf::from));
    let site = config.map(|path| Site::load(&path, env)).transpose().map_err(Failure::usage)?;
    let mut command_line = CommandLine {
        values: BTreeMap::new(),
        camera_values: BTreeMap::new(),
        streams: graph
            .camera
            .is_some()
            .then(|| matches.get_one::<Streams>("streams").map(|streams| streams.0.clone()))
            .flatten(),
        instance_id: matches.get_one::<String>("instance-id").cloned(),
    };
    for (camera, name, value) in
        matches.get_many::<(Option<u32>, String, String)>("set").into_iter().flatten()
    {
        match camera {
            Some(id) => drop(command_line.camera_values.insert((*id, name.clone()), value.clone())),
            None => drop(command_line.values.insert(name.clone(), value.clone())),
        }
    }
    for param in &graph.params {
        if matches.value_source(&param.name) == Some(ValueSource::CommandLine)
            && let Some(text) = matches.get_one::<String>(&param.name)
        {
            command_line.values.insert(param.name.clone(), text.clone());
        }
    }
    let format =
        match matches.get_one::<String>("log-format").cloned().or_else(|| env("NVR_LOG_FORMAT")).as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => {
                return Err(Failure::usage(format!("NVR_LOG_FORMAT must be text or json, got {other:?}")));
            }
        };
    let level = matches
        .get_one::<String>("log-level")
        .cloned()
        .or_else(|| env("NVR_LOG"))
        .unwrap_or_else(|| "info".into());
    let plan = Plan::resolve(graph, site.as_ref(), env, &command_line).map_err(Failure::usage)?;
    Ok(Invocation {
        plan,
        check: matches.get_flag("check"),
        format,
        level,
        status: !matches.get_flag("no-status"),
    })
}

pub(super) fn run(
    name: &str,
    args: impl Iterator<Item = OsString>,
    check: bool,
) -> Result<CommandResult, clap::Error> {
    Ok(parse(name, args, "nvr-launch")?.and_then(|invocation| {
        if check || invocation.check { check_only(invocation) } else { start(invocation) }
    }))
}

fn check_only(invocation: Invocation) -> CommandResult {
    logging::check_level(&invocation.level).map_err(Failure::usage)?;
    init_gstreamer()?;
    check_graph(&invocation.plan.graph).map_err(Failure::usage)?;
    check_values(&invocation.plan, true).map_err(Failure::usage)?;
    let name = invocation.plan.graph.name.clone();
    let cameras = invocation.plan.cameras.len();
    Instance::new(invocation.plan).and_then(|mut instance| instance.build_all()).map_err(Failure::from)?;
    outln!("{name}: right, with {cameras} camera{}", if cameras == 1 { "" } else { "s" });
    Ok(())
}

fn start(invocation: Invocation) -> CommandResult {
    init_gstreamer()?;
    let lines = if invocation.status && invocation.format == Format::Text { live::lines() } else { None };
    logging::init(invocation.format, &invocation.level, lines.clone()).map_err(Failure::usage)?;
    let graph = invocation.plan.graph.clone();
    // What cannot be built is explained by the check: it knows lines and nearest names.
    let mut instance = Instance::new(invocation.plan)
        .map_err(|error| check_graph(&graph).map_or_else(Failure::usage, |()| error.into()))?;
    process::stop_on_signals(instance.handle()).map_err(|error| Failure {
        code: process::START,
        message: format!("signals cannot be handled: {error}"),
    })?;
    live::show(&mut instance, lines);
    let control = Control::attach(&instance);
    control.claim()?;
    if instance.handle().is_stopping() {
        return Ok(());
    }
    instance.start().map_err(|error| match error {
        StartError::Configuration(_) => check_graph(&graph).map_or_else(Failure::usage, |()| error.into()),
        StartError::Start(_) => error.into(),
    })?;
    control.ready();
    match instance.run() {
        Outcome::Finished => Ok(()),
        Outcome::Failed(message) => Err(Failure::failed(message)),
    }
}
