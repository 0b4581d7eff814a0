//! `nvr-launch ctl`: commands to running instances from a shell, with their answers.

pub mod client;
mod show;

use std::{collections::BTreeMap, io::Write, path::PathBuf, time::Duration};

use clap::{
    Arg, ArgAction, ArgMatches, Command as Cli, builder::NonEmptyStringValueParser, parser::ValueSource,
};
use nvr_core::command::{Command, Incoming, Status, read};
use serde_json::{Map, Value, json};

use crate::{
    cli::{CommandResult, Failure, camera_number, init_gstreamer},
    output::{clean, errln, outln},
    process,
    site::Site,
};
use client::{Broker, Client, Event};

/// After the answers, metrics may still be on their way.
const LATE: Duration = Duration::from_millis(500);

fn source() -> Arg {
    Arg::new("source").long("source").value_name("ID").help("One camera only").value_parser(camera_number)
}

fn camera() -> Arg {
    Arg::new("camera")
        .value_name("CAMERA")
        .required(true)
        .help("The camera's number")
        .value_parser(camera_number)
}

fn one(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(name.to_uppercase()).required(true).help(help).allow_hyphen_values(true)
}

fn seconds(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name("SECONDS").help(help)
}

fn assignments(required: bool) -> Arg {
    Arg::new("values")
        .value_name("NAME=VALUE")
        .num_args(1..)
        .required(required)
        .value_parser(assignment)
        .help("Parameters of the graph, see nvr-launch GRAPH --help")
}

/// `name=value`; the value is a number, true, false, or text.
fn assignment(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} must be written name=value"))?;
    let parsed = serde_json::from_str::<Value>(value).ok();
    let value = parsed.filter(|value| value.is_number() || value.is_boolean() || value.is_string());
    Ok((
        name.trim().replace('-', "_"),
        value.unwrap_or_else(|| Value::String(text.split_once('=').map_or("", |(_, value)| value).into())),
    ))
}

/// The options that say which broker; `nvr-launch orchestrate` has them too.
pub(crate) fn broker_args() -> [Arg; 6] {
    let option = |name: &'static str, value: &'static str, env: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).env(env).global(true).help(help)
    };
    [
        option(
            "broker",
            "URI",
            "NVR_BROKER",
            "MQTT broker: mqtt:// or mqtts://, user and password allowed [default: mqtt://localhost:1883]",
        )
        .hide_env_values(true),
        option("topic-prefix", "PREFIX", "NVR_TOPIC_PREFIX", "First part of every topic [default: nvr]"),
        option("ca-file", "FILE", "NVR_CA_FILE", "Certificates that the broker's must come from"),
        option("cert-file", "FILE", "NVR_CERT_FILE", "Certificate to show to the broker"),
        option("key-file", "FILE", "NVR_KEY_FILE", "Private key of cert-file"),
        option("config", "FILE", "NVR_CONFIG", "Site file that names the broker")
            .value_parser(clap::value_parser!(PathBuf)),
    ]
}

/// The broker that the options mean: a flag, else the site file, else this machine.
pub(crate) fn broker(matches: &ArgMatches) -> Result<Broker, Failure> {
    // A variable of the shell that is not set, most often. This machine's broker would be another one than was meant.
    let empty = |flag: &&str| {
        matches.value_source(flag) == Some(ValueSource::CommandLine)
            && matches.get_one::<String>(flag).is_some_and(String::is_empty)
    };
    if let Some(flag) = ["broker", "topic-prefix", "ca-file", "cert-file", "key-file"].into_iter().find(empty)
    {
        return Err(Failure::usage(format!("--{flag} is empty; give it a value or leave it out")));
    }
    let site = matches
        .get_one::<PathBuf>("config")
        .map(|path| Site::load(path, &|name| std::env::var(name).ok()))
        .transpose()
        .map_err(Failure::usage)?;
    let text = |flag: &str, key: &str| {
        let site = || site.as_ref()?.values.get(key).map(|value| value.value.to_string());
        matches.get_one::<String>(flag).cloned().or_else(site)
    };
    Ok(Broker {
        uri: text("broker", "broker").unwrap_or_else(|| "mqtt://localhost:1883".into()),
        topic_prefix: text("topic-prefix", "topic_prefix").unwrap_or_else(|| "nvr".into()),
        ca_file: text("ca-file", "ca_file"),
        cert_file: text("cert-file", "cert_file"),
        key_file: text("key-file", "key_file"),
    })
}

pub(crate) fn command() -> Cli {
    let sub = |name: &'static str, about: &'static str| Cli::new(name).about(about);
    Cli::new("ctl")
        .about("Sends commands to running instances and shows their answers")
        .after_help(format!(
            "Exit codes: {} every instance has carried it out; {} one has not, or none answers; {} wrong command \
             line; {} no broker",
            process::OK,
            process::FAILED,
            process::USAGE,
            process::START
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(broker_args())
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("IDS")
                .value_delimiter(',')
                .value_parser(NonEmptyStringValueParser::new())
                .global(true)
                .help("Instances to tell, separated by commas [default: all that are there]"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("SECONDS")
                .value_parser(clap::value_parser!(u64).range(1..=3600))
                .default_value("30")
                .global(true)
                .help("How long to wait for answers"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).global(true).help("One JSON object per line"))
        .subcommand(sub("status", "Show what every instance is doing"))
        .subcommand(sub("metrics", "Show rates and what every instance costs"))
        .subcommand(sub("watch", "Show status and answers as they come, until Ctrl-C"))
        .subcommand(sub("pause", "Stop analysis and publishing; connections stay open").arg(source()))
        .subcommand(sub("resume", "Go on after a pause").arg(source()))
        .subcommand(sub("stop", "End the processes in order"))
        .subcommand(sub("restart", "Build one camera's branch, or all of them, anew").arg(source()))
        .subcommand(
            sub("add-stream", "Add a camera")
                .arg(camera())
                .arg(Arg::new("uri").long("uri").value_name("URI").help("Where it is found"))
                .arg(Arg::new("name").long("name").value_name("TEXT").help("What it is called"))
                .arg(assignments(false)),
        )
        .subcommand(sub("remove-stream", "Remove a camera").arg(camera()))
        .subcommand(
            sub("change-stream-uri", "Have a camera's branch connect elsewhere")
                .arg(camera())
                .arg(one("uri", "The new address")),
        )
        .subcommand(sub("change-model", "Change the model between two frames").arg(one("model", "The model's name")))
        .subcommand(
            sub("set-fps", "Set the analysed frames per second; 0 = every frame")
                .arg(one("fps", "Frames per second and camera"))
                .arg(source()),
        )
        .subcommand(
            sub("set-confidence", "Set the least confidence of a detection")
                .arg(one("confidence", "0 to 1"))
                .arg(source()),
        )
        .subcommand(sub("enable-tracking", "Turn tracking on or off").arg(one("enabled", "true or false")))
        .subcommand(sub("set", "Change live parameters").arg(assignments(true)).arg(source()))
        .subcommand(
            sub("reconfigure", "Change several parameters, live or not; all or nothing")
                .arg(assignments(true))
                .arg(source()),
        )
        .subcommand(
            sub("batch", "Carry out several commands in order; all or nothing")
                .arg(one("commands", "JSON list of {\"command\": …, \"params\": …}")),
        )
        .subcommand(
            sub("start-recording", "Record on demand, whatever the mode")
                .arg(source())
                .arg(Arg::new("label").long("label").value_name("TEXT").help("Noted in the catalogue"))
                .arg(
                    seconds("max_duration", "End by itself after so many seconds [default: when it is stopped]")
                        .long("max-duration"),
                ),
        )
        .subcommand(sub("stop-recording", "End recording on demand; the mode decides again").arg(source()))
        .subcommand(
            sub("save-clip", "Write the seconds before and after now into one file, and wait for it")
                .arg(camera())
                .arg(seconds("before", "Seconds before now [default: 10]").long("before"))
                .arg(seconds("after", "Seconds after now [default: 0]").long("after"))
                .arg(
                    Arg::new("name")
                        .long("name")
                        .value_name("NAME")
                        .help("File name without folder and ending [default: made from the time]"),
                ),
        )
        .subcommand(
            sub("rename-instance", "Give one instance (--to) another name without reconnecting")
                .arg(one("new", "The new instance id")),
        )
}

/// The protocol's command for a subcommand.
fn protocol(name: &str, matches: &ArgMatches) -> Result<Command, String> {
    let mut params = Map::new();
    let has = |id: &str| matches.ids().any(|known| known.as_str() == id);
    for key in ["source", "camera"] {
        if has(key)
            && let Some(id) = matches.get_one::<u32>(key)
        {
            params.insert("source_id".into(), (*id).into());
        }
    }
    // Numbers and switches are JSON; what is none is text, and the answer says what was expected.
    let json_or_text = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.into()));
    for (arg, key) in [
        ("uri", "uri"),
        ("name", "name"),
        ("model", "model_id"),
        ("new", "new_instance_id"),
        ("fps", "max_fps"),
        ("confidence", "confidence"),
        ("enabled", "enabled"),
        ("commands", "commands"),
        ("label", "label"),
        ("max_duration", "max_duration"),
        ("before", "before"),
        ("after", "after"),
    ] {
        if has(arg)
            && let Some(text) = matches.get_one::<String>(arg)
        {
            let value = match arg {
                "uri" | "name" | "model" | "new" | "label" => text.clone().into(),
                "commands" => serde_json::from_str(text).map_err(|error| {
                    format!("a batch is a list such as [{{\"command\": \"pause\"}}] in JSON: {error}")
                })?,
                _ => json_or_text(text),
            };
            params.insert(key.into(), value);
        }
    }
    if has("values") {
        for (name, value) in matches.get_many::<(String, Value)>("values").into_iter().flatten() {
            params.insert(name.clone(), value.clone());
        }
    }
    let text = json!({ "command": name.replace('-', "_"), "params": params }).to_string();
    match read(text.as_bytes(), "") {
        Incoming::Message(message) => message.command,
        Incoming::NotForUs | Incoming::Noise(_) => Err(format!("{name} is no command")),
    }
}

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    let Some((name, sub)) = matches.subcommand() else {
        return Err(Failure::usage("no command; see nvr-launch ctl --help"));
    };
    let command = match name {
        "watch" => None,
        name => Some(protocol(name, sub).map_err(Failure::usage)?),
    };
    let to: Vec<String> = sub.get_many::<String>("to").into_iter().flatten().cloned().collect();
    if matches!(command, Some(Command::RenameInstance { .. })) && to.len() != 1 {
        return Err(Failure::usage("rename-instance needs exactly one instance: --to ID"));
    }
    let broker = broker(sub)?;
    init_gstreamer()?;
    let more = [format!("{}/status/metrics/+", broker.topic_prefix)];
    let mut client = Client::open(&broker, &more).map_err(Failure::usage)?;
    client.ready().map_err(|why| Failure {
        code: process::START,
        message: format!(
            "{why}; does it run, and may this user use it? --broker and --config say which one it is"
        ),
    })?;
    let json = sub.get_flag("json");
    let Some(command) = command else { return watch(&mut client, &to, json) };

    let expected = if to.is_empty() { client.alive() } else { to.clone() };
    if expected.is_empty() {
        if command == Command::Status {
            show::statuses(&client.statuses, &BTreeMap::new(), json);
        }
        return Err(Failure::failed("no instance is there"));
    }
    let mut timeout = Duration::from_secs(sub.get_one::<u64>("timeout").copied().unwrap_or(30));
    if let Command::SaveClip { after, .. } = &command {
        // The answer comes when the last of these seconds is in the file.
        timeout += Duration::from_secs_f64(*after);
    }
    let mut metrics = BTreeMap::new();
    let mut keep = |event: Event| {
        if let Event::Other(topic, payload, _) = event
            && let Some(id) = topic.rsplit('/').next()
            && let Ok(value) = serde_json::from_slice::<Value>(&payload)
        {
            metrics.insert(id.to_owned(), value);
        }
    };
    let answers = client.call(&command, &to, &expected, timeout, &mut keep);
    if command == Command::Metrics {
        while let Some(event) = client.next(LATE) {
            keep(event);
        }
        metrics.retain(|id, _| expected.contains(id));
    }
    match command {
        Command::Status => {
            let shown: BTreeMap<String, Status> = client
                .statuses
                .iter()
                .filter(|(id, _)| to.is_empty() || to.contains(id))
                .map(|(id, status)| (id.clone(), status.clone()))
                .collect();
            show::statuses(&shown, &answers, json);
        }
        Command::Metrics => show::metrics(&metrics, json),
        _ => show::answers(&answers, json),
    }
    let failed: Vec<&str> =
        answers.iter().filter(|(_, answer)| answer.is_err()).map(|(id, _)| id.as_str()).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(format!("{} of {} failed: {}", failed.len(), answers.len(), failed.join(", "))))
    }
}

fn watch(client: &mut Client, to: &[String], json: bool) -> CommandResult {
    let wanted = |id: &str| to.is_empty() || to.iter().any(|known| known == id);
    for status in client.statuses.values().filter(|status| wanted(&status.instance_id)) {
        show::status_line(status, json);
    }
    loop {
        // A pipe that was closed ends the watch.
        if std::io::stdout().flush().is_err() {
            return Ok(());
        }
        match client.next(Duration::from_hours(1)) {
            Some(Event::Status(status)) if wanted(&status.instance_id) => show::status_line(&status, json),
            Some(Event::Ack(ack)) if wanted(&ack.instance_id) => show::ack_line(&ack, json),
            Some(Event::Cleared(id)) if wanted(&id) && !json => {
                outln!("{}: has another name now", clean(&id));
            }
            Some(Event::Disconnected(why)) => errln!("nvr-launch: {}", clean(&why)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let matches = command()
            .try_get_matches_from(std::iter::once("ctl").chain(line.split_whitespace()))
            .map_err(|error| error.to_string())?;
        let (name, sub) = matches.subcommand().unwrap();
        protocol(name, sub)
    }

    #[test]
    fn the_command_line_becomes_the_protocols_commands() {
        assert_eq!(parsed("set-fps 0.05 --to a,c"), Ok(Command::SetFps { max_fps: 0.05, source_id: None }));
        assert_eq!(parsed("set-fps 5 --source 2"), Ok(Command::SetFps { max_fps: 5.0, source_id: Some(2) }));
        assert_eq!(parsed("--to a status"), Ok(Command::Status));
        assert_eq!(parsed("pause"), Ok(Command::Pause { source_id: None }));
        assert_eq!(parsed("enable-tracking false"), Ok(Command::EnableTracking { enabled: false }));
        assert_eq!(parsed("change-model 5"), Ok(Command::ChangeModel { model_id: "5".into() }));
        let Ok(Command::AddStream { source_id: 3, name: None, uri: Some(uri), params }) =
            parsed("add-stream 3 --uri rtsp://c/3 max-fps=0.5 classes=person")
        else {
            panic!("add-stream")
        };
        assert_eq!((uri.as_str(), params.len()), ("rtsp://c/3", 2));
        let Ok(Command::Set { source_id: None, params }) = parsed("set confidence=0.4 model=demo") else {
            panic!("set")
        };
        assert_eq!(params["confidence"], nvr_core::command::Scalar::Float(0.4));
        assert!(
            matches!(parsed(r#"batch [{"command":"pause"}]"#), Ok(Command::Batch { commands }) if commands.len() == 1)
        );
        assert_eq!(
            parsed("set-fps fast").unwrap_err(),
            "max_fps must be a number from 0 to 1000, got \"fast\""
        );
        assert!(parsed("batch [1").unwrap_err().contains("EOF while parsing a list at line 1 column 2"));
        assert!(parsed("set confidence").is_err() && parsed("stop now").is_err());
        assert_eq!(
            parsed("start-recording --source 2 --label 5 --max-duration 60"),
            Ok(Command::StartRecording {
                source_id: Some(2),
                label: Some("5".into()),
                max_duration: Some(60.0)
            })
        );
        assert_eq!(parsed("stop-recording"), Ok(Command::StopRecording { source_id: None }));
        assert_eq!(
            parsed("save-clip 2 --after 20 --name gate"),
            Ok(Command::SaveClip { source_id: 2, name: Some("gate".into()), before: 10.0, after: 20.0 })
        );
        assert!(parsed("save-clip 2 --name ../gate").unwrap_err().contains("no path"));
        assert!(parsed("save-clip").is_err());
    }

    #[test]
    fn every_command_of_the_protocol_has_a_subcommand() {
        let cli = command();
        for known in nvr_core::command::COMMANDS {
            let name = known.name.replace('_', "-");
            assert!(cli.find_subcommand(&name).is_some(), "{name}");
        }
    }
}
