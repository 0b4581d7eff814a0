//! `nvr-launch recordings export`.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, IsTerminal},
    path::Path,
};

use gstnvr::nvrrecordsink::{
    catalog::{Event, Store},
    stepwise::Stepwise,
    tiers::Archive,
};
use indicatif::{ProgressBar, ProgressStyle};
use nvr_core::{
    event::timestamp,
    segment::{
        join::{self, Chapter, Part},
        read,
    },
};

use super::{Span, fetch::fetch, opening};
use crate::{
    cli::{CommandResult, Failure},
    output::outln,
};

/// What the file is to be.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub output: &'a Path,
    /// Nothing before the wanted moment is to be in it.
    pub exact: bool,
}

pub fn run(store: &Store, archive: &mut Archive, span: &Span, wanted: &Wanted<'_>) -> CommandResult {
    let output = wanted.output;
    let Some(source) = span.source else { return Err(Failure::usage("--source is missing")) };
    if span.from_us >= span.to_us {
        return Err(Failure::usage("--from has to lie before --to"));
    }
    let recordings = store.recordings(source, span.from_us, span.to_us).map_err(Failure::failed)?;
    let mut files: Vec<File> = Vec::new();
    let mut found = Vec::new();
    for recording in &recordings {
        let path = recording.file();
        let mut file = fetch(archive, recording)?;
        let contents =
            read::contents(&mut file).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        if contents.frames() > 0 {
            found.push((recording.start_us, contents));
            files.push(file);
        }
    }
    let parts: Vec<_> =
        found.iter().map(|(start_us, contents)| Part { start_us: *start_us, contents }).collect();
    let mut plan = join::plan(&parts, span.from_us, span.to_us).map_err(|error| match error {
        join::JoinError::Differs(at) => Failure::failed(format!(
            "{error}; export up to and from {} on their own",
            time(parts[at].start_us)
        )),
        other @ join::JoinError::Nothing => Failure::failed(other),
    })?;
    if wanted.exact {
        let anew = opening::encode_anew(&mut plan, &mut files)?;
        files.extend(anew);
    }
    let events = store.events(source, plan.from_us, plan.to_us).map_err(Failure::failed)?;
    let fail = |error: std::io::Error| Failure::failed(format!("{}: {error}", output.display()));
    let file = OpenOptions::new().write(true).create_new(true).open(output).map_err(fail)?;
    let result = copy(file, &plan, &plan.header(&chapters(&events)), &mut files).map_err(fail);
    if result.is_err() {
        // Ours, made above, and of no use to anybody.
        let _ = fs::remove_file(output);
    }
    result?;
    outln!("{}: {} to {}", output.display(), time(plan.from_us), time(plan.to_us));
    Ok(())
}

fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

fn chapters(events: &[Event]) -> Vec<Chapter> {
    events
        .iter()
        .map(|event| Chapter {
            at_us: event.first_us,
            name: format!("{} {}", event.class_name, time(event.first_us)),
        })
        .collect()
}

fn copy(file: File, plan: &join::Plan, header: &[u8], files: &mut [File]) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, Stepwise::new(file));
    let total = plan.pieces.iter().map(|piece| u64::from(piece.size)).sum();
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    plan.write(header, files, &mut out, |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
}
