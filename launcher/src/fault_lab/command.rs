//! `nvr-launch fault-lab`: cameras for the rehearsal of one's own site.

use std::{
    collections::BTreeMap,
    io::BufRead,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{
    Event, Lab, Options, Spec,
    camera::USAGE,
    fault::{KINDS, duration},
    schedule::{self, Step},
};
use crate::{
    cli::{CommandResult, Failure, init_gstreamer},
    files::{MOST, read_text},
    output::outln,
    process,
    rtsp_server::Camera,
};

/// What the command is told while it runs.
enum News {
    Happened(Event),
    Line(String),
    Stop,
}

pub(crate) fn command() -> Command {
    let width = KINDS.iter().map(|kind| kind.usage().len()).max().unwrap_or_default();
    let faults = KINDS.map(|kind| format!("  {:width$}  {}", kind.usage(), kind.help)).join("\n");
    Command::new("fault-lab")
        .about("Serve cameras that misbehave on command, to rehearse what a site does then")
        .arg(
            Arg::new("cameras")
                .long("cameras")
                .value_name("N")
                .default_value("4")
                .value_parser(value_parser!(u32).range(1..=256))
                .help("Number of cameras; they are at /0, /1, …"),
        )
        .arg(
            Arg::new("camera")
                .long("camera")
                .value_name("SPEC")
                .action(ArgAction::Append)
                .value_parser(|text: &str| text.parse::<Spec>().map_err(|error| error.0))
                .help(format!("What a camera encodes, dealt out in turn where given more than once: {USAGE}")),
        )
        .arg(
            Arg::new("video")
                .long("video")
                .value_name("FILE")
                .action(ArgAction::Append)
                .conflicts_with("camera")
                .value_parser(value_parser!(PathBuf))
                .help("A recording that repeats for ever, in place of an encoded scene: costs next to nothing"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS:PORT")
                .default_value("127.0.0.1:8555")
                .value_parser(address)
                .help("Where the cameras are; port 0 takes a free one. Others can reach 0.0.0.0:PORT"),
        )
        .arg(
            Arg::new("schedule")
                .long("schedule")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Lines of [AT] CAMERAS FAULT to carry out, such as: 10s 2 stall 30s"),
        )
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("TIME")
                .value_parser(|text: &str| duration(text).map_err(|error| error.0))
                .help("End after this time; without it a signal or the line quit ends the lab"),
        )
        .after_help(format!(
            "Faults are lines of the standard input or of the schedule: [AT] CAMERAS FAULT.\n\
             AT is the time since the start (now where it is left out), CAMERAS 2, or 0-3,7, or all.\n\n\
             \x20 2 stall 30s          10s 0-3 drop 5 1m          all clear\n\n\
             {faults}\n\n\
             Times are written 500ms, 30s, 10m, 2h. FOR is how long the fault lasts; without it, until clear.\n\
             The lines status and quit show what has passed, and end the lab."
        ))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an address is written with its port, as 127.0.0.1:8555 or [::1]:8555; names are not looked up".into()
    })
}

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    init_gstreamer()?;
    let steps = match matches.get_one::<PathBuf>("schedule") {
        None => Vec::new(),
        Some(file) => {
            let text = read_text(file, MOST)
                .map_err(|why| Failure::usage(format!("cannot read schedule {}: {why}", file.display())))?;
            schedule::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
        }
    };
    let count = matches.get_one::<u32>("cameras").copied().unwrap_or(1);
    let (sender, news) = mpsc::channel();
    let lab = set_up(matches, count, &sender)?;
    outln!("{count} cameras at {} to /{}", lab.uri(0), count - 1);
    listen(&sender)?;
    let end = matches.get_one::<Duration>("for").map(|lasts| Instant::now() + *lasts);
    Rehearsal { lab, count, began: Instant::now(), steps: steps.into() }.run(&news, end);
    Ok(())
}

fn set_up(matches: &ArgMatches, count: u32, sender: &mpsc::Sender<News>) -> Result<Lab, Failure> {
    let start = |error: anyhow::Error| Failure { code: process::START, message: format!("{error:#}") };
    let specs: Vec<Spec> = matches.get_many("camera").into_iter().flatten().cloned().collect();
    let files: Vec<PathBuf> = matches.get_many("video").into_iter().flatten().cloned().collect();
    let events = sender.clone();
    let lab = Lab::with_options(Options {
        listen: matches.get_one("listen").copied().unwrap_or_else(|| Options::default().listen),
        observer: Some(Arc::new(move |event: &Event| {
            // Nobody listens any more once the lab ends.
            let _ = events.send(News::Happened(event.clone()));
        })),
        ..Options::default()
    })
    .map_err(start)?;
    for id in 0..count {
        let turn = id as usize;
        if files.is_empty() {
            let spec = specs.get(turn % specs.len().max(1)).cloned();
            let spec = spec.unwrap_or_else(|| Spec { seed: id.into(), ..Spec::default() });
            lab.add_spec(id, &spec).map_err(start)?;
        } else {
            lab.add(id, &Camera::File(files[turn % files.len()].clone())).map_err(start)?;
        }
    }
    Ok(lab)
}

/// Has lines of the standard input and signals sent to `sender`.
fn listen(sender: &mpsc::Sender<News>) -> Result<(), Failure> {
    let start = |error: std::io::Error| Failure { code: process::START, message: error.to_string() };
    let lines = sender.clone();
    thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.send(News::Line(line)).is_err() {
                    return;
                }
            }
        })
        .map_err(start)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(start)?;
    let stop = sender.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.forever().next().is_some() {
                let _ = stop.send(News::Stop);
            }
        })
        .map_err(start)?;
    Ok(())
}

struct Rehearsal {
    lab: Lab,
    count: u32,
    began: Instant,
    steps: std::collections::VecDeque<Step>,
}

impl Rehearsal {
    fn run(mut self, news: &mpsc::Receiver<News>, end: Option<Instant>) {
        loop {
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                break;
            }
            while self.steps.front().is_some_and(|step| self.began + step.at <= now) {
                if let Some(step) = self.steps.pop_front() {
                    self.take(&step);
                }
            }
            let next = self.steps.front().map(|step| self.began + step.at);
            let wait = [next, end].into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
            match news.recv_timeout(wait.unwrap_or(Duration::from_hours(1))) {
                Ok(News::Happened(event)) => self.say(&format!("camera {}: {}", event.camera, event.text)),
                Ok(News::Line(line)) => {
                    if self.obey(line.trim()) {
                        break;
                    }
                }
                Ok(News::Stop) => break,
                Err(_) => {}
            }
        }
        self.say("the lab ends");
    }

    fn say(&self, text: &str) {
        outln!("{:9.3}  {text}", self.began.elapsed().as_secs_f64());
    }

    /// A line of the standard input; true where it ends the lab.
    fn obey(&mut self, line: &str) -> bool {
        match line {
            "quit" | "exit" => return true,
            "help" => {
                let _ = command().print_long_help();
            }
            "status" => {
                for id in 0..self.count {
                    let counts = self.lab.counts(id);
                    let requests: BTreeMap<_, _> = counts.requests.iter().collect();
                    self.say(&format!(
                        "camera {id}: {} connections, {} open, {} packets passed, {} withheld, requests {requests:?}",
                        counts.connections, counts.open, counts.packets, counts.withheld
                    ));
                }
            }
            _ => match schedule::parse_line(line) {
                Ok(Some(step)) if step.at.is_zero() => self.take(&step),
                Ok(Some(step)) => {
                    let at = self.steps.partition_point(|known| known.at <= step.at);
                    self.steps.insert(at, step);
                }
                Ok(None) => {}
                Err(error) => self.say(&error.0),
            },
        }
        false
    }

    fn take(&self, step: &Step) {
        let ids: Vec<u32> = (0..self.count).filter(|id| step.cameras.contains(*id)).collect();
        if ids.is_empty() {
            self.say(&format!("{step}: there is no such camera"));
        }
        for id in ids {
            match self.lab.order(id, &step.order) {
                Ok(()) => self.say(&format!("camera {id}: {}", step.order)),
                Err(error) => self.say(&format!("{error:#}")),
            }
        }
    }
}
