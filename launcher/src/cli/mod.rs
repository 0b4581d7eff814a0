//! The command line. A graph's parameters become its flags, so the flags are made when the graph is known.

mod check;
mod graph;
mod run;

use std::{ffi::OsString, fmt::Display, io, process::ExitCode, sync::OnceLock};

use clap::{Arg, ArgAction, ArgMatches, Command};
use gst::glib;

use crate::{
    diagnostics::hint,
    graph::{Graph, GraphError, SHIPPED},
    output::{clean, errln, out, outln},
    process,
    runtime::StartError,
};

/// Why a command ended without success, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub code: u8,
    pub message: String,
}

#[allow(clippy::needless_pass_by_value, reason = "they are given to map_err")]
impl Failure {
    pub fn usage(message: impl Display) -> Self {
        Self { code: process::USAGE, message: message.to_string() }
    }

    pub fn failed(message: impl Display) -> Self {
        Self { code: process::FAILED, message: message.to_string() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Configuration(message) => Self::usage(message),
            StartError::Start(message) => Self { code: process::START, message },
        }
    }
}

pub(crate) type CommandResult = Result<(), Failure>;

/// What `nvr-launch` does with these arguments. The first is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return clap_exit(&error),
    };
    let result = match dispatch(&matches) {
        Ok(result) => result,
        Err(error) => return clap_exit(&error),
    };
    match result {
        Ok(()) => process::finish(process::OK),
        Err(failure) => {
            for line in failure.message.lines() {
                errln!("nvr-launch: {}", clean(line));
            }
            process::finish(failure.code)
        }
    }
}

fn clap_exit(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { process::USAGE } else { process::OK })
}

fn command() -> Command {
    let graphs: Vec<_> = SHIPPED.iter().map(|graph| graph.name).collect();
    Command::new("nvr-launch")
        .about("Runs NVR graphs: cameras, detection, events")
        .version(env!("CARGO_PKG_VERSION"))
        .override_usage(
            "nvr-launch GRAPH [OPTIONS]        runs a graph: a shipped one by name, or a file\n       \
             nvr-launch GRAPH --help           shows the graph's parameters\n       \
             nvr-launch COMMAND [OPTIONS]",
        )
        .after_help(format!("Shipped graphs: {}\n\n{}", graphs.join(", "), process::EXIT_CODES))
        .arg_required_else_help(true)
        .subcommand_required(true)
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(clap::value_parser!(OsString))
        .arg(Arg::new("check").long("check").action(ArgAction::SetTrue).help(
            "Find everything that is wrong with GRAPH and the options after it, without starting anything",
        ))
        .subcommand(Command::new("list").about("List the shipped graphs"))
        .subcommand(check::command())
        .subcommand(graph::command())
        .subcommand(crate::models::command::command())
        .subcommand(crate::demo::command())
        .subcommand(crate::broker::command())
        .subcommand(crate::ctl::command())
        .subcommand(crate::orchestrate::command())
        .subcommand(crate::recordings::command())
        .subcommand(
            Command::new("completion").about("Print a completion script for a shell").arg(
                Arg::new("shell")
                    .value_name("SHELL")
                    .required(true)
                    .value_parser(clap::value_parser!(clap_complete::Shell))
                    .help("As in: nvr-launch completion bash > /etc/bash_completion.d/nvr-launch"),
            ),
        )
        .subcommand(crate::fault_lab::command::command())
}

/// Names of the commands; what is none of them is a graph.
pub fn commands() -> Vec<String> {
    let command = command();
    let names = command.get_subcommands().map(|command| command.get_name().to_owned());
    names.chain(["help".to_owned()]).collect()
}

/// Runs the chosen command. The outer error is one of the command line itself.
fn dispatch(matches: &ArgMatches) -> Result<CommandResult, clap::Error> {
    let check = matches.get_flag("check");
    match matches.subcommand() {
        Some(("list", _)) => Ok(list()),
        Some(("check", matches)) => Ok(check::run(matches)),
        Some(("graph", matches)) => graph::run(matches),
        Some(("models", matches)) => Ok(crate::models::command::run(matches)),
        Some(("demo", matches)) => Ok(crate::demo::run(matches)),
        Some(("ctl", matches)) => Ok(crate::ctl::run(matches)),
        Some(("orchestrate", matches)) => Ok(crate::orchestrate::run(matches)),
        Some(("recordings", matches)) => Ok(crate::recordings::run(matches)),
        Some(("completion", matches)) => {
            completion(matches);
            Ok(Ok(()))
        }
        Some(("broker", matches)) => Ok(crate::broker::run(matches)),
        Some(("fault-lab", matches)) => Ok(crate::fault_lab::command::run(matches)),
        Some((name, matches)) => {
            let args = matches.get_many::<OsString>("").into_iter().flatten().cloned();
            run::run(name, args, check)
        }
        None => Ok(Err(Failure::usage("no graph and no command; see nvr-launch --help"))),
    }
}

/// Loads a graph for a command.
pub(crate) fn load(name: &str) -> Result<Graph, Failure> {
    Graph::load(name).map_err(|error| match error {
        GraphError::Unknown { .. } => {
            let commands = commands();
            let hint = hint(name, commands.iter().map(String::as_str));
            let hint = if hint.is_empty() { hint } else { format!("; or the command: {}", &hint[2..]) };
            Failure::usage(format!("{error}{hint}"))
        }
        other => Failure::usage(other),
    })
}

/// A camera's number on the command line.
pub(crate) fn camera_number(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("a camera's number is a whole number from 0 to {}", u32::MAX))
}

/// A TCP port on the command line.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| "a port is a whole number from 0 to 65535".into())
}

/// Why nothing can be served at an address, and what to do about it.
pub(crate) fn cannot_listen(error: &io::Error, option: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program serves there already; end it, or choose another port with {option}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "this machine has no such address; choose one of its own, or 0.0.0.0 for all, with {option}"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("this user may not; choose a port from 1024 up with {option}")
        }
        _ => error.to_string(),
    }
}

/// GStreamer and the elements that are built in.
pub(crate) fn init_gstreamer() -> Result<(), Failure> {
    // A second registration would take the factories away from elements that exist.
    static REGISTERED: OnceLock<Result<(), glib::BoolError>> = OnceLock::new();
    let fail = |error: &dyn Display| Failure {
        code: process::START,
        message: format!("GStreamer does not start: {error}"),
    };
    gst::init().map_err(|error| fail(&error))?;
    REGISTERED
        .get_or_init(|| gstnvr::plugin_register_static().and_then(|()| crate::wall::register()))
        .clone()
        .map_err(|error| fail(&error))
}

fn completion(matches: &ArgMatches) {
    if let Some(shell) = matches.get_one::<clap_complete::Shell>("shell") {
        out!("{}", completion_script(*shell));
    }
}

fn completion_script(shell: clap_complete::Shell) -> String {
    // Completes commands and their options; a graph's own flags are known once the graph is.
    let graphs = SHIPPED.iter().map(|graph| Command::new(graph.name).about("Run this graph"));
    let mut command = command().override_usage("nvr-launch COMMAND").subcommands(graphs);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "nvr-launch", &mut script);
    let script = String::from_utf8_lossy(&script);
    // For bash, clap_complete names a program with a hyphen in one way where it sets the name and in another where it
    // looks for it, so that nothing below the first word would be completed.
    script.replace("nvr__subcmd__launch", "nvr__launch")
}

fn list() -> CommandResult {
    for shipped in SHIPPED {
        let graph = Graph::parse(shipped.name, shipped.text).map_err(Failure::failed)?;
        outln!("{:<12} {}", shipped.name, graph.summary);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_or_not_ours_says_what_to_do() {
        for (kind, part) in [
            (io::ErrorKind::AddrInUse, "another program serves there already"),
            (io::ErrorKind::AddrNotAvailable, "0.0.0.0 for all"),
            (io::ErrorKind::PermissionDenied, "from 1024 up"),
        ] {
            let text = cannot_listen(&kind.into(), "--port");
            assert!(text.contains(part) && text.ends_with("with --port"), "{text}");
        }
    }

    #[test]
    fn the_script_for_bash_knows_every_command_that_it_finds() {
        let script = completion_script(clap_complete::Shell::Bash);
        let found: Vec<_> =
            script.lines().filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"')).collect();
        assert!(found.len() > 20 && found.iter().any(|name| name.ends_with("ctl__subcmd__set__subcmd__fps")));
        for name in found.iter().filter(|name| !name.is_empty()) {
            assert!(script.lines().any(|line| line.trim() == format!("{name})")), "{name}");
        }
    }
}
