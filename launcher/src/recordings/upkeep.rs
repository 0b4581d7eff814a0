//! Whether catalogue and files agree, and making them agree.

use std::{collections::BTreeMap, io::IsTerminal, path::Path};

use gstnvr::nvrrecordsink::{
    catalog::{Recording, Repairs, Store},
    checksum::Checksum,
    tiers::Archive,
    volume::Volume,
};
use indicatif::{ProgressBar, ProgressStyle};
use nvr_core::segment::read;

use super::{Span, root_is_there};
use crate::{
    cli::{CommandResult, Failure},
    output::offerln,
};

/// Entries that are read at a time.
const PAGE: u32 = 1000;

#[derive(Debug, Default)]
struct Findings {
    checked: u64,
    missing: u64,
    damaged: u64,
    /// Volumes that are not there, why, and how many recordings are on them.
    absent: BTreeMap<String, (String, u64)>,
    /// Recordings without a checksum: only their headers could be looked at.
    headers_only: u64,
}

/// What is wrong with one recording.
enum Wrong {
    Missing,
    Damaged(String),
}

/// Compares every recording of a time with its file, in whatever tier it is. With `quick`, sizes and headers only.
pub fn verify(store: &Store, archive: &mut Archive, span: &Span, quick: bool) -> CommandResult {
    let mut findings = Findings::default();
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{pos} recordings, {msg}") {
        bar.set_style(style);
    }
    let mut after = 0;
    loop {
        let page = store.page(after, PAGE).map_err(Failure::failed)?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for recording in page.iter().filter(|recording| span.holds(recording) && recording.end_us.is_some()) {
            bar.set_message(recording.path.display().to_string());
            if let Err(reason) = archive.place(recording) {
                let place = recording.root.display().to_string();
                let absent = findings.absent.entry(place).or_insert_with(|| (reason.to_owned(), 0));
                absent.1 += 1;
                continue;
            }
            findings.checked += 1;
            bar.inc(1);
            if recording.checksum.is_none() {
                findings.headers_only += 1;
            }
            match check_now(store, archive, recording, quick) {
                Ok(()) => {}
                Err(Wrong::Missing) => {
                    findings.missing += 1;
                    bar.suspend(|| offerln!("missing: {}", recording.file().display()));
                }
                Err(Wrong::Damaged(how)) => {
                    findings.damaged += 1;
                    bar.suspend(|| offerln!("damaged: {}: {how}", recording.file().display()));
                }
            }
        }
    }
    bar.finish_and_clear();
    findings.report(quick)
}

impl Findings {
    fn report(&self, quick: bool) -> CommandResult {
        for (place, (reason, count)) in &self.absent {
            offerln!("not checked: {count} recordings on {place}: {reason}");
        }
        if self.headers_only > 0 && !quick {
            offerln!("{} recordings have no checksum; only their headers were compared", self.headers_only);
        }
        offerln!("{} recordings checked, {} missing, {} damaged", self.checked, self.missing, self.damaged);
        if self.missing + self.damaged > 0 {
            return Err(Failure::failed("recordings are missing or damaged; they are named above"));
        }
        if !self.absent.is_empty() {
            return Err(Failure::failed("some volumes are not there; they are named above"));
        }
        Ok(())
    }
}

/// What is wrong with a recording that may go on to another tier, or whose time may come, while it is looked at.
fn check_now(store: &Store, archive: &mut Archive, recording: &Recording, quick: bool) -> Result<(), Wrong> {
    let result = check(archive, recording, quick);
    if result.is_ok() {
        return result;
    }
    let Ok(rows) = store.page(recording.id - 1, 1) else { return result };
    match rows.first().filter(|row| row.id == recording.id && row.path == recording.path) {
        Some(row) if row.volume == recording.volume => result,
        Some(row) => check(archive, row, quick),
        None => Ok(()),
    }
}

fn check(archive: &mut Archive, recording: &Recording, quick: bool) -> Result<(), Wrong> {
    let damaged = |text: String| Err(Wrong::Damaged(text));
    match archive.size(recording).map_err(Wrong::Damaged)? {
        None => return Err(Wrong::Missing),
        Some(size) if size < recording.bytes => {
            return damaged(format!("{size} bytes, {} are known", recording.bytes));
        }
        Some(_) => {}
    }
    if let (Some(known), false) = (&recording.checksum, quick) {
        let mut file = archive.read(recording).map_err(Wrong::Damaged)?;
        let (read, found) =
            Checksum::of(&mut file, recording.bytes).map_err(|error| Wrong::Damaged(error.to_string()))?;
        if read < recording.bytes {
            return damaged(format!("only {read} of {} bytes can be read", recording.bytes));
        }
        if found.text() != *known {
            return damaged(format!("its checksum is {}, it was written with {known}", found.text()));
        }
        return Ok(());
    }
    headers(archive, recording)
}

/// Without a checksum, what the headers say has to do.
fn headers(archive: &mut Archive, recording: &Recording) -> Result<(), Wrong> {
    let damaged = |error: &dyn std::fmt::Display| Wrong::Damaged(error.to_string());
    let Some(mut file) = archive.file(recording).map_err(Wrong::Damaged)? else { return Ok(()) };
    let found = read::contents(&mut file).map_err(|error| damaged(&error))?;
    if found.whole < recording.bytes {
        return Err(Wrong::Damaged(format!(
            "whole up to byte {}, {} are known",
            found.whole, recording.bytes
        )));
    }
    if found.frames() != recording.frames {
        return Err(Wrong::Damaged(format!("{} pictures, {} are known", found.frames(), recording.frames)));
    }
    Ok(())
}

/// Closes what a crash left open in the first tier, and enters the files of a directory that are not known.
pub fn repair(file: &Path, root: &Path, tier: &'static str) -> CommandResult {
    let volume = volume(root)?;
    // A catalogue that was lost is made anew from the files.
    let mut store = Store::open(file).map_err(Failure::failed)?;
    let mut done = Repairs::default();
    store.close_open(&volume, None, &mut done).map_err(Failure::failed)?;
    let folders =
        std::fs::read_dir(root).map_err(|error| Failure::failed(format!("{}: {error}", root.display())))?;
    for folder in folders.flatten() {
        let Some(source) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        store.enter_new(&volume, tier, source, None, &mut done).map_err(Failure::failed)?;
    }
    offerln!(
        "{} closed, {} entered, {} removed, {} could not be read, {} are known elsewhere",
        done.closed,
        done.entered,
        done.removed,
        done.failed,
        done.doubled
    );
    Ok(())
}

/// The volume as it is; one without an identity is not a recorder's.
fn volume(root: &Path) -> Result<Volume, Failure> {
    root_is_there(root)?;
    let identity = root.join(gstnvr::nvrrecordsink::volume::IDENTITY);
    if !identity.exists() {
        return Err(Failure::usage(format!(
            "{} does not exist: nothing was recorded there, or the disk is not mounted",
            identity.display()
        )));
    }
    Volume::open(root, None).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use gstnvr::nvrrecordsink::catalog::{Cause, Entry};

    use super::*;

    /// The page of entries was read before, the file is looked for after.
    #[test]
    fn a_recording_that_goes_on_or_is_removed_while_it_is_verified_is_not_missing() {
        let folder = tempfile::tempdir().unwrap();
        let [hot, warm] = ["hot", "warm"].map(|name| Volume::open(&folder.path().join(name), None).unwrap());
        let mut store = Store::open(&folder.path().join("catalog.db")).unwrap();
        let path = nvr_core::segment::name::path(1, 0, 0);
        let entry = |volume: &Volume, tier| Entry {
            volume: volume.clone(),
            source_id: 1,
            path: path.clone(),
            start_us: 0,
            end_us: Some(1),
            clock: "arrival",
            bytes: 0,
            frames: 1,
            codec: "h264".into(),
            audio: None,
            width: 0,
            height: 0,
            event_count: 0,
            checksum: Some(Checksum::default().text()),
            tier,
            sightings: BTreeMap::default(),
            cause: Cause::default(),
        };
        store.write(&[entry(&hot, "hot")]).unwrap();
        let before = store.page(0, 1).unwrap();
        let mut archive = Archive::new(None);
        let mut missing =
            |store: &Store| matches!(check_now(store, &mut archive, &before[0], false), Err(Wrong::Missing));
        assert!(missing(&store));
        store.arrive(&before, &warm, "warm").unwrap_err();
        store.know_volume(&warm).unwrap();
        assert_eq!(store.arrive(&before, &warm, "warm").unwrap().len(), 1);
        assert!(missing(&store));
        let file = warm.root.join(&path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
        assert!(!missing(&store));
        let moved = store.page(0, 1).unwrap();
        store.remove(&[&moved[0]]).unwrap();
        assert!(!missing(&store));
    }
}
