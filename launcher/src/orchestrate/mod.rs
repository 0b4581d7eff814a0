//! `nvr-launch orchestrate`: instances that come and go by rules.

mod children;
mod clock;
mod engine;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::{self, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Arg, ArgAction, ArgMatches, Command as Cli};
use nvr_core::command::{Command, Status};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, warn};

use crate::{
    cli::{CommandResult, Failure, init_gstreamer},
    ctl::{
        self,
        client::{Broker, Client, Event, request_id},
    },
    files::{MOST, read_text},
    logging::{self, Format},
    output::outln,
    process,
};
use children::{Children, Record};
use clock::{Clock, wall_ms};
use engine::{Engine, Saved, World};
use rules::Rules;

/// How often processes and deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Largest event that is read, in bytes.
const MAX_EVENT: usize = 64 << 10;
/// Somebody has set the clock, where it has moved by more than this against one that nobody sets.
const CLOCK_SET_MS: u64 = 1000;
/// How long the end may take.
const END: Duration = Duration::from_secs(20);

pub(crate) fn command() -> Cli {
    Cli::new("orchestrate")
        .about("Starts, steers and stops instances by rules, on events from the broker")
        .args(ctl::broker_args())
        .arg(
            Arg::new("rules")
                .value_name("RULES")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("Rules file, such as config/orchestrate/care-home.toml"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("NAME=VALUE")
                .action(ArgAction::Append)
                .value_parser(pair)
                .help("Give one of the file's [values] another value"),
        )
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where to keep what is going on, so that a restart goes on with it [default: RULES with the ending .state]"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Find what is wrong with the file, without starting anything"),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("Log lines as text or as JSON"),
        )
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} must be written name=value"))?;
    Ok((name.trim().into(), value.into()))
}

/// The state file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct File {
    engine: Saved,
    instances: BTreeMap<String, Record>,
}

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    let path = matches.get_one::<PathBuf>("rules").cloned().unwrap_or_default();
    let shown = path.display().to_string();
    let text = read_text(&path, MOST)
        .map_err(|why| Failure::usage(format!("cannot read rules file {shown}: {why}")))?;
    let broker = ctl::broker(matches)?;
    let set: BTreeMap<String, String> =
        matches.get_many::<(String, String)>("set").into_iter().flatten().cloned().collect();
    let rules = Rules::parse(&shown, &text, &broker.topic_prefix, &set).map_err(Failure::usage)?;
    if matches.get_flag("check") {
        outln!("{shown}: right, with {} rules and {} instances", rules.rules.len(), rules.instances.len());
        return Ok(());
    }
    init_gstreamer()?;
    let json = matches.get_one::<String>("log-format").is_some_and(|format| format == "json");
    logging::init(if json { Format::Json } else { Format::Text }, "info", None).map_err(Failure::usage)?;
    let state = matches.get_one::<PathBuf>("state").cloned().unwrap_or_else(|| path.with_extension("state"));
    let start = |message: String| Failure { code: process::START, message };
    let _lock = lock(&state).map_err(start)?;
    let file = load(&state).map_err(start)?;
    let program = std::env::current_exe().map_err(|error| start(error.to_string()))?;
    let env = environment(&broker, matches.get_one::<PathBuf>("config").map(PathBuf::as_path));
    let filters: Vec<String> = rules
        .rules
        .iter()
        .flat_map(|rule| [Some(&rule.start), rule.end.as_ref()])
        .flatten()
        .map(|t| t.topic.clone())
        .collect();
    let client = Client::open(&broker, &filters).map_err(Failure::usage)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in process::stop_signals() {
        signal_hook::flag::register(signal, stop.clone()).map_err(|error| start(error.to_string()))?;
    }
    let clock = Clock::new(Instant::now(), wall_ms());
    let mut orchestrator = Orchestrator {
        engine: Engine::new(rules, file.engine, clock.at(Instant::now())),
        hands: Hands { children: Children::new(program, env), client },
        clock,
        lag_kept: 0,
        anew: BTreeMap::new(),
        state,
    };
    orchestrator.recover(&file.instances);
    orchestrator.run(&stop);
    Ok(())
}

/// What every instance finds in its environment. A password on a command line could be read by everybody on the machine.
fn environment(broker: &Broker, config: Option<&Path>) -> Vec<(String, String)> {
    let values = [
        ("NVR_BROKER", Some(broker.uri.clone())),
        ("NVR_TOPIC_PREFIX", Some(broker.topic_prefix.clone())),
        ("NVR_CA_FILE", broker.ca_file.clone()),
        ("NVR_CERT_FILE", broker.cert_file.clone()),
        ("NVR_KEY_FILE", broker.key_file.clone()),
        ("NVR_CONFIG", config.map(|config| config.display().to_string())),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Keeps a second orchestrator off this state file: it would take over the processes of the first, and take every step
/// once more. The file that is locked is another one, for the state is replaced as a whole.
fn lock(state: &Path) -> Result<Option<fs::File>, String> {
    let mut path = state.as_os_str().to_owned();
    path.push(".lock");
    // Where that cannot be written, neither can the state, which is said when it is.
    let Ok(file) = fs::File::create(&path) else { return Ok(None) };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(format!(
            "another orchestrator keeps its state in {}; end it, or name another file with --state",
            state.display()
        )),
        // A file system without locks: go on without.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

fn load(path: &Path) -> Result<File, String> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| format!("{}: {error}; remove the file to begin anew", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(format!("{}: {error}; --state names the file to keep", path.display())),
    }
}

fn save(path: &Path, file: &File) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = process::readable_temporary(folder)?;
    serde_json::to_writer_pretty(&temporary, file)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// What the engine acts with.
struct Hands {
    children: Children,
    client: Client,
}

impl World for Hands {
    fn spawn(&mut self, id: &str, args: &[String]) -> Result<(), String> {
        // What an earlier process of that name said of itself says nothing about this one.
        if !self.children.contains(id) {
            self.client.statuses.remove(id);
        }
        self.children.spawn(id, args)
    }

    fn stop(&mut self, id: &str) {
        self.children.stop(id);
    }

    fn is_running(&self, id: &str) -> bool {
        self.children.contains(id)
    }

    fn count(&self) -> usize {
        self.children.count()
    }

    fn send(&mut self, command: &Command, to: &[String]) -> String {
        let id = request_id();
        self.client.send(command, to, &id);
        id
    }

    fn status(&self, id: &str) -> Option<&Status> {
        self.client.statuses.get(id)
    }
}

struct Orchestrator {
    engine: Engine,
    hands: Hands,
    clock: Clock,
    /// By how much the time of day was ahead of the clock when the state was last kept.
    lag_kept: i64,
    /// Instances that are ending because the rules file has other arguments for them now, with those.
    anew: BTreeMap<String, Vec<String>>,
    state: PathBuf,
}

/// What becomes of a process that an earlier run has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Kept,
    /// The rules file has other arguments for it.
    Changed,
    /// Neither the rules file nor a rule at work knows it.
    Unknown,
}

fn found(id: &str, args: &[String], due: &BTreeMap<String, Vec<String>>, engine: &Engine) -> Found {
    match due.get(id) {
        Some(due) if due == args => Found::Kept,
        Some(_) => Found::Changed,
        None if engine.involves(id) => Found::Kept,
        None => Found::Unknown,
    }
}

impl Orchestrator {
    /// Finds what an earlier run left, and starts what has to run.
    fn recover(&mut self, records: &BTreeMap<String, Record>) {
        let due: BTreeMap<String, Vec<String>> =
            self.engine.rules().always().into_iter().chain(self.engine.wanted()).collect();
        for (id, record) in records {
            if !self.hands.children.adopt(id, record) {
                continue;
            }
            match found(id, &record.args, &due, &self.engine) {
                Found::Kept => {}
                Found::Changed => {
                    info!(event = "instance.changed", instance_id = id, "the rules file has other arguments");
                    self.hands.children.stop(id);
                    self.anew.extend(due.get(id).map(|args| (id.clone(), args.clone())));
                }
                Found::Unknown => {
                    info!(event = "instance.forgotten", instance_id = id, "nothing asks for it any more");
                    self.hands.children.stop(id);
                }
            }
        }
        for (id, args) in due {
            if !self.hands.is_running(&id) {
                self.start(&id, &args);
            }
        }
    }

    fn start(&mut self, id: &str, args: &[String]) {
        if let Err(error) = self.hands.spawn(id, args) {
            error!(event = "instance.failed", instance_id = id, "{error}");
        }
        // It begins as the rules file has it: what rules at work told it is told again.
        self.engine.restarted(id);
    }

    fn run(&mut self, stop: &AtomicBool) {
        info!(event = "orchestrator.running", rules = self.engine.rules().rules.len(), "waiting for events");
        while !stop.load(Ordering::Acquire) {
            match self.hands.client.next(TICK) {
                Some(Event::Other(topic, payload, retained)) => self.event(&topic, &payload, retained),
                Some(Event::Ack(ack)) => self.engine.answer(&ack),
                Some(Event::Disconnected(why)) => warn!(event = "broker.lost", "{why}"),
                Some(Event::Subscribed) => info!(event = "broker.connected", "listening"),
                Some(Event::Status(_) | Event::Cleared(_)) | None => {}
            }
            self.tick();
        }
        info!(event = "orchestrator.stopping", "stopping every instance");
        // What is going on stays in the file: the next start goes on with it.
        self.hands.children.stop_all();
        let deadline = Instant::now() + END;
        while self.hands.children.count() > 0 && Instant::now() < deadline {
            self.hands.children.tick(Instant::now());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.keep(true);
    }

    fn tick(&mut self) {
        for id in self.hands.children.tick(Instant::now()) {
            self.hands.client.statuses.remove(&id);
            self.engine.restarted(&id);
        }
        let gone: Vec<String> = self.anew.keys().filter(|id| !self.hands.is_running(id)).cloned().collect();
        for id in gone {
            if let Some(args) = self.anew.remove(&id) {
                self.start(&id, &args);
            }
        }
        self.engine.tick(&mut self.hands, self.clock.at(Instant::now()));
        self.keep(false);
    }

    fn event(&mut self, topic: &str, payload: &[u8], retained: bool) {
        if retained {
            debug!(topic, "an event that the broker kept from before is none");
            return;
        }
        if payload.len() > MAX_EVENT {
            warn!(
                event = "event.refused",
                topic,
                "an event of {} bytes; {MAX_EVENT} are allowed",
                payload.len()
            );
            return;
        }
        match serde_json::from_slice(payload) {
            Ok(value) => self.engine.event(topic, &value, self.clock.at(Instant::now())),
            Err(error) => warn!(event = "event.refused", topic, "no JSON: {error}"),
        }
    }

    fn keep(&mut self, always: bool) {
        let children = self.hands.children.take_changes();
        let now = Instant::now();
        let rules = self.engine.take_changes(self.clock.at(now));
        // In the file are times of day: the next run has no other.
        let lag = self.clock.lag(now, wall_ms());
        let set = lag.abs_diff(self.lag_kept) > CLOCK_SET_MS;
        if !always && !children && !rules && !set {
            return;
        }
        self.lag_kept = lag;
        let file = File {
            engine: self.engine.saved().clone().by_clock(lag),
            instances: self.hands.children.records(),
        };
        if let Err(error) = save(&self.state, &file) {
            error!(event = "state.failed", "{}: {error}; a restart would forget", self.state.display());
        }
    }
}
