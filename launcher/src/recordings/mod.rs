//! `nvr-launch recordings`: what was recorded, whether it is whole, and taking a piece of it.

mod export;
mod fetch;
mod opening;
mod show;
mod timeline;
mod upkeep;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Command, value_parser};
use gstnvr::nvrrecordsink::{
    catalog::{FILE, Recording, Store},
    tiers::{Archive, COLD, HOT, WARM},
};
use nvr_core::event::parse_timestamp;

use crate::cli::{CommandResult, Failure, camera_number};

pub(crate) fn command() -> Command {
    let time = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TIME").value_parser(time_us).help(help)
    };
    let from = || time("from", "Begin, as 2026-11-21T10:00:00Z");
    let to = || time("to", "End, as 2026-11-21T11:00:00Z");
    let camera = || {
        Arg::new("source")
            .long("source")
            .value_name("ID")
            .value_parser(camera_number)
            .help("Number of the camera")
    };
    let json = || {
        Arg::new("json").long("json").action(clap::ArgAction::SetTrue).help("One JSON object for each line")
    };
    Command::new("recordings")
        .about("List, check, repair and export recordings")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("location")
                .long("location")
                .value_name("DIRECTORY")
                .value_parser(value_parser!(PathBuf))
                .default_value("recordings")
                .global(true)
                .help("Directory of the recordings"),
        )
        .arg(
            Arg::new("catalog")
                .long("catalog")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("Catalogue, where it is not catalog.db in the directory"),
        )
        .arg(
            Arg::new("s3-credentials")
                .long("s3-credentials")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .help("File with the key to a tier in a bucket, where it is not in the environment"),
        )
        .subcommand(Command::new("list").about("List segments").args([camera(), from(), to(), json()]))
        .subcommand(
            Command::new("timeline")
                .about("Show from when to when each camera was recorded, and what was seen")
                .args([camera(), from(), to(), json()])
                .args([
                    Arg::new("picture")
                        .long("picture")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .conflicts_with("json")
                        .help("Draw it into this PNG file"),
                    Arg::new("width")
                        .long("width")
                        .value_name("PIXELS")
                        .value_parser(value_parser!(u32).range(480..=16_000))
                        .default_value("1600")
                        .help("Width of the picture"),
                    Arg::new("time-zone")
                        .long("time-zone")
                        .value_name("NAME")
                        .help("Zone of the local hours in the picture, as Europe/Berlin; the system's where not given"),
                ]),
        )
        .subcommand(
            Command::new("export")
                .about("Write a time of one camera into one MP4 file, as the camera sent it")
                .args([camera().required(true), from().required(true), to().required(true)])
                .arg(
                    Arg::new("exact")
                        .long("exact")
                        .action(clap::ArgAction::SetTrue)
                        .help("Encode the pictures before the first keyframe within the time anew, for players that know no edit lists"),
                )
                .arg(
                    Arg::new("output")
                        .long("output")
                        .short('o')
                        .value_name("FILE")
                        .required(true)
                        .value_parser(value_parser!(PathBuf))
                        .help("File to write; it must not exist"),
                ),
        )
        .subcommand(
            Command::new("verify")
                .about("Compare the catalogue with the files of every tier, and change nothing")
                .args([camera(), from(), to()])
                .arg(
                    Arg::new("quick")
                        .long("quick")
                        .action(clap::ArgAction::SetTrue)
                        .help("Look at sizes and headers only, and read no file as a whole"),
                ),
        )
        .subcommand(
            Command::new("repair").about("Close what a crash left open, and enter what is not known").arg(
                Arg::new("tier")
                    .long("tier")
                    .value_name("TIER")
                    .value_parser([HOT, WARM, COLD])
                    .default_value(HOT)
                    .help("Which tier the directory is, for files that are entered"),
            ),
        )
}

fn time_us(text: &str) -> Result<i64, String> {
    let ns = parse_timestamp(text).ok_or("a time is written as 2026-11-21T10:00:00Z, or with an offset")?;
    Ok((ns / 1000) as i64)
}

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    let root = matches.get_one::<PathBuf>("location").cloned().unwrap_or_default();
    let named = matches.get_one::<PathBuf>("catalog");
    let file = named.cloned().unwrap_or_else(|| root.join(FILE));
    if name != "repair" {
        check(&root, &file, named.is_some())?;
    }
    let span = Span::of(matches);
    let mut archive = Archive::new(matches.get_one::<PathBuf>("s3-credentials").cloned());
    match name {
        "list" => show::list(&open(&file)?, &span),
        "timeline" => {
            let picture = matches.get_one::<PathBuf>("picture").map(|file| timeline::Picture {
                file,
                width: matches.get_one("width").copied().unwrap_or_default(),
                zone: matches.get_one::<String>("time-zone").map(String::as_str),
            });
            timeline::run(&open(&file)?, &span, picture.as_ref())
        }
        "export" => {
            let output = matches.get_one::<PathBuf>("output").cloned().unwrap_or_default();
            let wanted = export::Wanted { output: &output, exact: matches.get_flag("exact") };
            export::run(&open(&file)?, &mut archive, &span, &wanted)
        }
        "verify" => upkeep::verify(&open(&file)?, &mut archive, &span, matches.get_flag("quick")),
        _ => {
            let wanted = matches.get_one::<String>("tier");
            let tier = [WARM, COLD].into_iter().find(|tier| wanted.is_some_and(|wanted| wanted == tier));
            upkeep::repair(&file, &root, tier.unwrap_or(HOT))
        }
    }
}

/// Whether there is a catalogue to look into. SQLite would make one of any empty file.
fn check(root: &Path, file: &Path, named: bool) -> CommandResult {
    let shown = file.display();
    let wrong = |text: String| Err(Failure::usage(text));
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => wrong(format!("{shown} is a directory; --catalog names a file")),
        Ok(found) if found.len() == 0 => {
            wrong(format!("{shown} is empty and no catalogue; --location and --catalog say where it is"))
        }
        Ok(_) => fs::File::open(file).map(drop).or_else(|error| wrong(format!("{shown} cannot be read: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            wrong(format!("this user may not look for {shown}"))
        }
        Err(_) if named => wrong(format!("{shown} does not exist; --catalog names the catalogue")),
        Err(_) => root_is_there(root).and_then(|()| {
            wrong(format!(
                "{shown} does not exist: nothing was recorded there, or the disk is not mounted; recordings repair \
                 makes a catalogue that was lost anew"
            ))
        }),
    }
}

fn root_is_there(root: &Path) -> CommandResult {
    let shown = root.display();
    match fs::metadata(root) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Failure::usage(format!(
            "{shown} is no directory; --location names the directory of the recordings"
        ))),
        Err(error) => {
            Err(Failure::usage(format!("{shown}: {error}; --location names the directory of the recordings")))
        }
    }
}

fn open(file: &Path) -> Result<Store, Failure> {
    Store::existing(file).map_err(Failure::failed)
}

/// What is asked about.
struct Span {
    source: Option<u32>,
    from_us: i64,
    to_us: i64,
    json: bool,
}

impl Span {
    fn of(matches: &ArgMatches) -> Self {
        // Not every command has every option.
        let time = |name| matches.try_get_one::<i64>(name).ok().flatten().copied();
        Self {
            source: matches.try_get_one("source").ok().flatten().copied(),
            from_us: time("from").unwrap_or(0),
            to_us: time("to").unwrap_or(i64::MAX),
            json: matches.try_get_one("json").ok().flatten().copied().unwrap_or_default(),
        }
    }

    /// Whether a recording overlaps what is asked about.
    fn holds(&self, recording: &Recording) -> bool {
        self.source.is_none_or(|source| source == recording.source_id)
            && recording.start_us < self.to_us
            && recording.end_us.is_none_or(|end_us| end_us > self.from_us)
    }

    fn sources(&self, store: &Store) -> Result<Vec<u32>, Failure> {
        self.source.map_or_else(|| store.cameras().map_err(Failure::failed), |source| Ok(vec![source]))
    }
}
