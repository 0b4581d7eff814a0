//! Brings catalogue and files together again after a stop that was none: what was being written is closed as far as
//! it is whole, and files that the catalogue had not yet heard of are entered. The cost depends on what was open,
//! never on the size of the archive.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use nvr_core::segment::mp4::{self, Medium};
use nvr_core::segment::name;
use nvr_core::segment::read::{self, Contents};

use super::keeper::Entry;
use super::{CatalogError, Cause, Recording, Store};
use crate::nvrrecordsink::checksum::Checksum;
use crate::nvrrecordsink::ear::Sightings;
use crate::nvrrecordsink::tiers::HOT;
use crate::nvrrecordsink::volume::Volume;

/// What was found and done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Repairs {
    /// Recordings that were closed.
    pub closed: u64,
    /// Files that were entered.
    pub entered: u64,
    /// Entries without a file, and files without a picture, that were removed.
    pub removed: u64,
    /// Files that could not be read.
    pub failed: u64,
    /// Files that are known on another volume, and were left alone.
    pub doubled: u64,
}

/// A file that nobody writes, and nobody will while this lives.
struct Idle {
    file: File,
    found: Contents,
}

impl Idle {
    /// Takes a file and cuts off what is not whole. `None` where somebody is writing it; a file without a picture is
    /// left as it is.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(None);
        }
        let found = read::contents(&mut file)?;
        if found.frames() > 0 && found.whole < found.size {
            file.set_len(found.whole)?;
            file.sync_all()?;
        }
        Ok(Some(Self { file, found }))
    }

    /// The checksum of what was just found to be whole: nobody has noted it.
    fn checksum(&mut self) -> Option<String> {
        self.file.rewind().ok()?;
        let (read, checksum) = Checksum::of(&mut self.file, self.found.whole).ok()?;
        (read == self.found.whole).then(|| checksum.text())
    }

    /// Whether a recorder had begun it, and there is nothing in it yet but what this recorder puts in front. The
    /// catalogue may not have heard of it; what begins otherwise is not ours, whatever its name.
    fn is_begun(&mut self) -> bool {
        let mut start = Vec::new();
        let read = self
            .file
            .rewind()
            .and_then(|()| (&mut self.file).take(mp4::BRAND.len() as u64).read_to_end(&mut start));
        // Some file systems know the length of what was never written.
        read.is_ok() && (mp4::BRAND.starts_with(&start) || start.iter().all(|byte| *byte == 0))
    }
}

/// Cuts off what is not whole. `None` where somebody is writing the file; a file without a picture is left as it is.
pub fn repair_file(path: &Path) -> io::Result<Option<Contents>> {
    Ok(Idle::take(path)?.map(|idle| idle.found))
}

/// Name of the codec of a sample entry.
fn codec(entry: &[u8]) -> String {
    match entry.get(4..8) {
        Some(b"avc1" | b"avc3") => "h264".into(),
        Some(b"hvc1" | b"hev1") => "h265".into(),
        Some(b"mp4a") => "aac".into(),
        Some(b"Opus") => "opus".into(),
        _ => "unknown".into(),
    }
}

/// The entry of a finished file that nobody noted.
pub fn describe(
    volume: &Volume,
    tier: &'static str,
    path: &Path,
    source_id: u32,
    start_us: i64,
    found: &Contents,
) -> Option<Entry> {
    let video = found.video().filter(|_| found.frames() > 0)?;
    let audio = found.tracks.iter().find(|track| track.medium == Medium::Audio);
    Some(Entry {
        volume: volume.clone(),
        source_id,
        path: path.to_owned(),
        start_us,
        end_us: Some(start_us + found.duration_us()),
        clock: "file",
        bytes: found.whole,
        frames: found.frames(),
        codec: codec(&video.entry),
        audio: audio.map(|track| codec(&track.entry)),
        width: u32::from(video.width),
        height: u32::from(video.height),
        event_count: 0,
        checksum: None,
        tier,
        sightings: Sightings::new(),
        cause: Cause::default(),
    })
}

impl Store {
    /// Closes what was open when the recorder of a camera stopped, and enters what was not noted. The volume has to
    /// be there: what is missing from another is not missing.
    pub fn reconcile(&mut self, volume: &Volume, source_id: u32) -> Result<Repairs, CatalogError> {
        let mut done = Repairs::default();
        self.close_open(volume, Some(source_id), &mut done)?;
        let newest = self.newest(&volume.id, source_id)?;
        self.enter_new(volume, HOT, source_id, newest, &mut done)?;
        Ok(done)
    }

    /// Closes every recording of a volume whose end was not noted and that nobody writes.
    pub fn close_open(
        &mut self,
        volume: &Volume,
        source_id: Option<u32>,
        done: &mut Repairs,
    ) -> Result<(), CatalogError> {
        for open in self.unfinished(&volume.id, source_id)? {
            self.close(volume, &open, done)?;
        }
        Ok(())
    }

    fn close(&mut self, volume: &Volume, open: &Recording, done: &mut Repairs) -> Result<(), CatalogError> {
        let file = volume.root.join(&open.path);
        match Idle::take(&file) {
            Ok(None) => {}
            Ok(Some(mut idle)) => {
                if let Some(entry) =
                    describe(volume, HOT, &open.path, open.source_id, open.start_us, &idle.found)
                {
                    self.write(&[Entry { checksum: idle.checksum(), ..entry }])?;
                    done.closed += 1;
                } else {
                    // Ours, since the catalogue has it, and of no use to anybody.
                    let _ = fs::remove_file(&file);
                    self.remove(&[open])?;
                    done.removed += 1;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.remove(&[open])?;
                done.removed += 1;
            }
            Err(error) => {
                gst::warning!(super::super::imp::CAT, "{}: {error}", open.path.display());
                done.failed += 1;
            }
        }
        Ok(())
    }

    /// Enters files from `since` on that the catalogue does not have: they were begun in the last moments before it
    /// stopped. Only whole days and hours are looked at, so one day's directory listing is the most that is read.
    /// Without `since`, the whole archive is; then the files get no checksum, which would mean to read all of it.
    pub fn enter_new(
        &mut self,
        volume: &Volume,
        tier: &'static str,
        source_id: u32,
        since: Option<i64>,
        done: &mut Repairs,
    ) -> Result<(), CatalogError> {
        let top = volume.root.join(source_id.to_string());
        let (first_day, first_hour) =
            since.map_or_else(Default::default, |us| (name::day(us), name::hour(us)));
        for day in listing(&top).into_iter().filter(|day| *day >= first_day) {
            for hour in listing(&top.join(&day)) {
                if day == first_day && hour < first_hour {
                    continue;
                }
                let known = self.paths_of_hour(volume, source_id, &day, &hour)?;
                for file in listing(&top.join(&day).join(&hour)) {
                    let Some(start_us) = name::start_us(&file) else { continue };
                    let path = Path::new(&source_id.to_string()).join(&day).join(&hour).join(&file);
                    if known.contains(&path.display().to_string()) {
                        continue;
                    }
                    // Its copy counts; what this one is, the notes on moves know.
                    if self.elsewhere(volume, &path)? {
                        done.doubled += 1;
                        continue;
                    }
                    let full = volume.root.join(&path);
                    match Idle::take(&full) {
                        Ok(None) => {}
                        Ok(Some(mut idle)) => {
                            if let Some(entry) =
                                describe(volume, tier, &path, source_id, start_us, &idle.found)
                            {
                                let checksum = since.and_then(|_| idle.checksum());
                                self.write(&[Entry { checksum, ..entry }])?;
                                done.entered += 1;
                            } else if idle.is_begun() && fs::remove_file(&full).is_ok() {
                                done.removed += 1;
                            }
                        }
                        Err(error) => {
                            gst::warning!(super::super::imp::CAT, "{}: {error}", path.display());
                            done.failed += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn paths_of_hour(
        &self,
        volume: &Volume,
        source_id: u32,
        day: &str,
        hour: &str,
    ) -> Result<std::collections::HashSet<String>, CatalogError> {
        let from = format!("{source_id}/{day}/{hour}/");
        // "0" follows "/".
        let to = format!("{source_id}/{day}/{hour}0");
        let read = || {
            let mut statement = self.db.prepare_cached(
                "SELECT r.path FROM recordings r WHERE r.volume_id = (SELECT id FROM volumes WHERE identity = ?1) \
                 AND r.path >= ?2 AND r.path < ?3",
            )?;
            let rows = statement.query_map(rusqlite::params![volume.id, from, to], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()
        };
        read().map_err(|error| self.fail(error))
    }
}

/// Names in a directory, in order; none where it cannot be read.
fn listing(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// The oldest file of some cameras by its name, for when the catalogue cannot be asked, held so that nobody begins to
/// write it. Files that are being written, and names that are not a recorder's, are left alone.
pub fn oldest_file(root: &Path, sources: &[u32]) -> Option<(PathBuf, File)> {
    let first = |source: &u32| {
        let top = root.join(source.to_string());
        listing(&top).into_iter().find_map(|day| {
            listing(&top.join(&day)).into_iter().find_map(|hour| {
                let folder = top.join(&day).join(hour);
                listing(&folder).into_iter().find_map(|file| {
                    let start_us = name::start_us(&file)?;
                    let path = folder.join(file);
                    let file = File::open(&path).ok().filter(|file| file.try_lock().is_ok())?;
                    Some((start_us, path, file))
                })
            })
        })
    };
    let oldest = sources.iter().filter_map(first).min_by_key(|(start_us, ..)| *start_us);
    oldest.map(|(_, path, file)| (path, file))
}
