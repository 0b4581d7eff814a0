//! `nvr-launch models`.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Arg, ArgMatches, Command};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    BUILT_IN, DownloadError, KNOWN, Known, Progress, Request, all_installed, download, facts, facts_path,
    installed, is_name, model_folders, sha256_of,
};
use crate::{
    cli::{CommandResult, Failure},
    diagnostics::hint,
    output::{errln, outln},
    process,
    redact::redact_address,
};

pub(crate) fn command() -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true);
    Command::new("models")
        .about("List, download, show and remove detection models")
        .subcommand(Command::new("list").about("List known and installed models (the default)"))
        .subcommand(
            Command::new("get")
                .about("Download a known model, or take one from a URL or a file")
                .arg(Arg::new("what").value_name("NAME|URL|FILE").required(true))
                .arg(
                    Arg::new("sha256")
                        .long("sha256")
                        .value_name("HASH")
                        .value_parser(hash)
                        .help("Expected SHA-256; required for a URL"),
                )
                .arg(Arg::new("name").long("name").value_name("NAME").help("Name to install it under")),
        )
        .subcommand(Command::new("show").about("Show what is known about a model").arg(name()))
        .subcommand(Command::new("remove").about("Delete an installed model").arg(name()))
}

fn hash(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        Ok(text.to_lowercase())
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".into())
    }
}

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    let folders = model_folders();
    let text = |matches: &ArgMatches, key: &str| matches.get_one::<String>(key).cloned();
    match matches.subcommand() {
        Some(("get", matches)) => {
            let what = text(matches, "what").unwrap_or_default();
            get(&folders, KNOWN, &what, text(matches, "sha256"), text(matches, "name")).map(|path| {
                outln!("{}", path.display());
            })
        }
        Some(("show", matches)) => show(&folders, &text(matches, "name").unwrap_or_default()),
        Some(("remove", matches)) => remove(&folders, &text(matches, "name").unwrap_or_default()),
        _ => {
            list(&folders);
            Ok(())
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn list(folders: &[PathBuf]) {
    outln!("{:<14} {:>9}  {:<9} {:<11} {:<24} STATE", "NAME", "SIZE", "INPUT", "LICENCE", "ORIGIN");
    outln!(
        "{BUILT_IN:<14} {:>9}  {:<9} {:<11} {:<24} built in, for the demo only",
        "",
        "",
        "as NVR",
        "this project"
    );
    for known in KNOWN {
        let state = if installed(folders, known.name).is_some() { "installed" } else { "models get" };
        outln!(
            "{:<14} {:>9}  {:<9} {:<11} {:<24} {state}",
            known.name,
            megabytes(known.bytes),
            known.input,
            known.licence,
            known.origin
        );
    }
    for (name, path) in all_installed(folders) {
        if KNOWN.iter().all(|known| known.name != name) {
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            outln!(
                "{name:<14} {:>9}  {:<9} {:<11} {:<24} installed",
                megabytes(bytes),
                "",
                "",
                path.display()
            );
        }
    }
}

/// Installs a model and returns its path.
pub(super) fn get(
    folders: &[PathBuf],
    known: &[Known],
    what: &str,
    sha256: Option<String>,
    name: Option<String>,
) -> Result<PathBuf, Failure> {
    let folder =
        folders.first().ok_or_else(|| Failure::failed("there is no folder for models: set NVR_DATA_DIR"))?;
    let is_url = what.starts_with("http://") || what.starts_with("https://");
    let entry = known.iter().find(|known| known.name == what);
    if what == BUILT_IN && entry.is_none() {
        return Err(Failure::usage(format!("{BUILT_IN} is built in and needs no file")));
    }
    if entry.is_none() && !is_url && !Path::new(what).is_file() {
        let hint = hint(what, known.iter().map(|known| known.name));
        return Err(Failure::usage(format!("{what:?} is no known model, no URL and no file{hint}")));
    }
    if is_url && let Err(error) = url::Url::parse(what) {
        return Err(Failure::usage(format!(
            "{:?} is no URL that can be fetched: {error}",
            redact_address(what)
        )));
    }
    let name = name.unwrap_or_else(|| entry.map_or_else(|| name_of(what), |known| known.name.to_owned()));
    if !is_name(&name) || name == BUILT_IN {
        return Err(Failure::usage(format!(
            "{name:?} cannot be a model's name: letters, digits, '-', '_' and '.', not \"{BUILT_IN}\"; give another with --name"
        )));
    }
    let target = folder.join(format!("{name}.onnx"));
    if entry.is_none() && !is_url {
        return copy(Path::new(what), &target, sha256.as_deref(), known);
    }
    let (url, expected, bytes) = match (entry, sha256) {
        (Some(known), None) => (known.url, known.sha256.to_owned(), Some(known.bytes)),
        (Some(known), Some(given)) if given == known.sha256 => (known.url, given, Some(known.bytes)),
        (Some(known), Some(_)) => {
            return Err(Failure::usage(format!(
                "the SHA-256 of {} is {}, not the one given",
                known.name, known.sha256
            )));
        }
        (None, Some(given)) => (what, given, None),
        (None, None) => {
            return Err(Failure::usage(
                "a URL needs --sha256: what comes over the network is used only if it is what was meant",
            ));
        }
    };
    if sha256_of(&target).is_ok_and(|(actual, _)| actual == expected) {
        errln!("{name} is installed and intact");
        write_facts(&target, entry, url, &expected)?;
        return Ok(target);
    }
    let request = Request { url: url.into(), sha256: expected.clone(), bytes, target: target.clone() };
    let bar = Bar::new(&name);
    let result = download(&request, &bar);
    bar.0.finish_and_clear();
    result.map_err(|error| {
        let by_hand = matches!(error, DownloadError::Unreachable { .. } | DownloadError::Status { .. });
        let help = if by_hand {
            format!(
                "\nWithout a network here: download {} on another machine, then nvr-launch models get FILE --name {name} --sha256 {expected}",
                redact_address(url)
            )
        } else {
            String::new()
        };
        Failure::failed(format!("{error}{help}"))
    })?;
    write_facts(&target, entry, url, &expected)?;
    Ok(target)
}

/// The last part of a path or URL, without its ending.
fn name_of(what: &str) -> String {
    let path = url::Url::parse(what).map_or_else(|_| what.to_owned(), |url| url.path().to_owned());
    Path::new(&path).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into())
}

fn copy(source: &Path, target: &Path, sha256: Option<&str>, known: &[Known]) -> Result<PathBuf, Failure> {
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Failure::failed(format!("{path}: {error}"))
    };
    let (actual, bytes) = sha256_of(source).map_err(fail(source))?;
    if let Some(expected) = sha256.filter(|expected| *expected != actual) {
        return Err(Failure::failed(format!(
            "{}: SHA-256 is {actual}, expected {expected}",
            source.display()
        )));
    }
    if bytes == 0 {
        return Err(Failure::failed(format!("{}: the file is empty", source.display())));
    }
    if is_text(source).map_err(fail(source))? {
        return Err(Failure::failed(format!(
            "{}: this is text and no model: perhaps the page of a website, or what git has in place of a large file \
             before git lfs pull",
            source.display()
        )));
    }
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail(folder))?;
    let mut part = process::readable_temporary(folder).map_err(fail(folder))?;
    let mut reader = fs::File::open(source).map_err(fail(source))?;
    io::copy(&mut reader, &mut part).map_err(fail(target))?;
    part.as_file_mut().sync_all().map_err(fail(target))?;
    part.persist(target).map_err(|error| fail(target)(error.error))?;
    let entry = known.iter().find(|known| known.sha256 == actual);
    write_facts(target, entry, entry.map_or("a local file", |known| known.url), &actual)?;
    Ok(target.into())
}

/// Whether a file begins as no ONNX file does: with text.
fn is_text(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(head.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..)))
}

/// Writes the facts beside a model. What a person has written there stays, unless it is about other bytes.
fn write_facts(model: &Path, entry: Option<&Known>, origin: &str, sha256: &str) -> Result<(), Failure> {
    let path = facts_path(model);
    // A file that names no bytes was written by a person and is about whatever is there.
    let about_others = |text: &str| {
        let table: Option<toml::Table> = text.parse().ok();
        let named = table.as_ref().and_then(|table| table.get("sha256")?.as_str());
        named.is_some_and(|named| !named.eq_ignore_ascii_case(sha256))
    };
    match fs::read_to_string(&path) {
        Ok(text) if !about_others(&text) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::failed(format!("{}: {error}", path.display())));
        }
        Ok(_) | Err(_) => {}
    }
    let bytes = fs::metadata(model).map_or(0, |metadata| metadata.len());
    let origin = match entry {
        Some(known) => format!("{} ({})", known.origin, known.url),
        None => redact_address(origin),
    };
    let text = facts(entry, &origin, sha256, bytes);
    let fail = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut part = process::readable_temporary(path.parent().unwrap_or(Path::new("."))).map_err(fail)?;
    part.write_all(text.as_bytes()).map_err(fail)?;
    part.persist(&path).map_err(|error| fail(error.error))?;
    Ok(())
}

fn not_installed(folders: &[PathBuf], name: &str) -> Failure {
    let names: Vec<_> = all_installed(folders).into_iter().map(|(name, _)| name).collect();
    let hint = hint(name, names.iter().map(String::as_str));
    let list = if hint.is_empty() { "; nvr-launch models lists those that are" } else { "" };
    Failure::usage(format!("model {name:?} is not installed{hint}{list}"))
}

fn show(folders: &[PathBuf], name: &str) -> CommandResult {
    let known = KNOWN.iter().find(|known| known.name == name);
    let path = if is_name(name) { installed(folders, name) } else { None };
    if name == BUILT_IN {
        outln!("{BUILT_IN}: part of the plugin; finds what nvrtestsrc draws, and nothing else");
        return Ok(());
    }
    if let Some(known) = known {
        outln!(
            "name     {}\nurl      {}\nsha256   {}\nsize     {} bytes",
            known.name,
            known.url,
            known.sha256,
            known.bytes
        );
        outln!("licence  {}\ninput    {}\norigin   {}", known.licence, known.input, known.origin);
    }
    match path {
        Some(path) => {
            outln!("file     {}", path.display());
            let (actual, bytes) =
                sha256_of(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            match known {
                Some(known) if known.sha256 != actual => {
                    outln!("         differs from the release: sha256 {actual}, {bytes} bytes");
                }
                Some(_) => outln!("         intact"),
                None => outln!("sha256   {actual}\nsize     {bytes} bytes"),
            }
            if let Ok(text) = fs::read_to_string(facts_path(&path)) {
                outln!("\n{}", text.trim_end());
            }
            Ok(())
        }
        None if known.is_some() => {
            outln!("         not installed: nvr-launch models get {name}");
            Ok(())
        }
        None => Err(not_installed(folders, name)),
    }
}

fn remove(folders: &[PathBuf], name: &str) -> CommandResult {
    let path = if is_name(name) { installed(folders, name) } else { None };
    let path = path.ok_or_else(|| not_installed(folders, name))?;
    fs::remove_file(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    let _ = fs::remove_file(facts_path(&path));
    outln!("removed {}", path.display());
    Ok(())
}

/// A progress bar on a terminal; nothing else.
struct Bar(ProgressBar);

impl Bar {
    fn new(name: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
        let bar = ProgressBar::new(0).with_message(name.to_owned());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }
}

impl Progress for Bar {
    fn at(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    fn note(&self, text: &str) {
        self.0.println(text);
    }
}
