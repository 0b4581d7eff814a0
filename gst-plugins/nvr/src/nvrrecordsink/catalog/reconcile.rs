//! Brings catalogue and files together again after a stop that was none: what was being written is closed as far as
//! it is whole, and files that the catalogue had not yet heard of are entered. The cost depends on what was open,
//! never on the size of the archive.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nvr_core::segment::mp4::{self, Medium};
use nvr_core::segment::name;
use nvr_core::segment::read::{self, Contents};

use super::keeper::Entry;
use super::{CatalogError, Cause, Recording, Store};
use crate::nvrrecordsink::checksum::Checksum;
use crate::nvrrecordsink::ear::Sightings;
use crate::nvrrecordsink::imp::CAT;
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
    /// Files that could not be read, or are damaged in the middle; they are left as they are.
    pub failed: u64,
    /// Files that are known on another volume, and were left alone.
    pub doubled: u64,
}

impl Repairs {
    fn fail(&mut self, file: &Path, what: &dyn std::fmt::Display) {
        gst::warning!(CAT, "{}: {what}", file.display());
        self.failed += 1;
    }

    /// Says so where a file is damaged.
    fn damage(&mut self, idle: &Idle, file: &Path) {
        if idle.is_damaged() {
            let whole = idle.found.whole;
            self.fail(file, &format!("it is damaged behind byte {whole}, and is left as it is"));
        }
    }
}

/// What may stand behind the last whole fragment when a recorder was stopped: one fragment. It is written once it has
/// 4 MiB, and its last picture comes on top of that.
const TORN: u64 = 8 << 20;
/// What stands in front of the first fragment is smaller.
const HEADER: u64 = 16 << 10;
/// How many recordings that were entered last are believed to tell from when on some may be missing.
const RECENT: u32 = 200;

/// Opens a file to take it, but not through a link: that is nobody's recording. To lock it, some network file systems
/// want it opened to be written.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// A file that nobody writes, and nobody will while this lives.
struct Idle {
    file: File,
    /// `size` is greater than `whole` where the file is damaged, and was left as it is.
    found: Contents,
}

impl Idle {
    /// Takes a file and cuts off what was being written when the recorder stopped. `None` where somebody is writing
    /// it; a file without a picture is left as it is, and so is one that goes on behind what is not whole.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut file = open(path)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(None);
        }
        let found = read::contents(&mut file)?;
        let mut this = Self { file, found };
        if this.found.frames() > 0 && this.found.whole < this.found.size && this.is_torn()? {
            this.file.set_len(this.found.whole)?;
            this.file.sync_all()?;
            this.found.size = this.found.whole;
        }
        Ok(Some(this))
    }

    fn is_damaged(&self) -> bool {
        self.found.whole < self.found.size
    }

    /// Whether what stands behind the last whole fragment is of no use to anybody: the one that was being written, or
    /// what some file systems make of what was never written. Anything else is damage, with more behind it.
    fn is_torn(&mut self) -> io::Result<bool> {
        let Contents { whole, size, .. } = self.found;
        Ok(self.is_blank(whole)? || (size - whole <= TORN && !read::goes_on(&mut self.file, whole)?))
    }

    /// Whether there are only zeroes from a place on.
    fn is_blank(&mut self, from: u64) -> io::Result<bool> {
        let mut piece = vec![0; 64 << 10];
        self.file.seek(SeekFrom::Start(from))?;
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(count) if piece[..count].iter().any(|byte| *byte != 0) => return Ok(false),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// The checksum of what was just found to be whole: nobody has noted it. What is damaged gets none.
    fn checksum(&mut self) -> Option<String> {
        if self.is_damaged() {
            return None;
        }
        self.file.rewind().ok()?;
        let (read, checksum) = Checksum::of(&mut self.file, self.found.whole).ok()?;
        (read == self.found.whole).then(|| checksum.text())
    }

    /// Whether it begins as a recorder's files do. What begins otherwise is not ours, whatever its name.
    fn is_ours(&mut self) -> io::Result<bool> {
        let mut start = Vec::new();
        self.file.rewind()?;
        (&mut self.file).take(mp4::BRAND.len() as u64).read_to_end(&mut start)?;
        Ok(mp4::BRAND.starts_with(&start))
    }

    /// Whether a recorder had begun a file without a picture, and there is nothing in it yet but what it puts in front
    /// and a fragment that was not finished. The catalogue may not have heard of it.
    fn is_begun(&mut self) -> io::Result<bool> {
        let header = !self.found.tracks.is_empty() || self.found.size <= HEADER;
        Ok(self.is_blank(0)? || (header && self.is_ours()? && self.is_torn()?))
    }
}

/// Cuts off what was being written. `None` where somebody is writing the file; one without a picture, or with damage in
/// the middle, is left as it is.
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
        // Of a damaged file, all there is.
        bytes: found.size,
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
        let since = self.recent(&volume.id, source_id)?;
        self.enter_new(volume, HOT, source_id, since, &mut done)?;
        Ok(done)
    }

    /// From when on files of a camera may be missing from the catalogue; `None` where it has none of them. What a
    /// power cut has taken from it is what was written last, so it is the order of writing that counts: by time, one
    /// recording of a day when the clock was ahead would be the newest ever after.
    pub fn recent(&self, volume: &str, source_id: u32) -> Result<Option<i64>, CatalogError> {
        let recent: Option<i64> = self
            .db
            .prepare_cached(
                "SELECT min(start_us) FROM (SELECT start_us FROM recordings \
                 WHERE id > (SELECT max(id) FROM recordings) - 100 * ?3 AND +source_id = ?1 \
                 AND +volume_id = (SELECT id FROM volumes WHERE identity = ?2) ORDER BY id DESC LIMIT ?3)",
            )
            .and_then(|mut all| all.query_row(rusqlite::params![source_id, volume, RECENT], |row| row.get(0)))
            .map_err(|error| self.fail(error))?;
        // Others have written so much since then that nothing of this one was lost.
        if recent.is_some() { Ok(recent) } else { self.newest(volume, source_id) }
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
                    done.damage(&idle, &file);
                } else if idle.is_begun().unwrap_or(false) {
                    // Of no use to anybody.
                    let _ = fs::remove_file(&file);
                    self.remove(&[open])?;
                    done.removed += 1;
                } else {
                    done.fail(&file, &"it cannot be read, and is left as it is");
                }
            }
            // A volume that vanished meanwhile has lost no file.
            Err(error) if error.kind() == ErrorKind::NotFound && volume.check().is_ok() => {
                self.remove(&[open])?;
                done.removed += 1;
            }
            Err(error) => done.fail(&file, &error),
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
        self.enter(volume, tier, source_id, since, done, &AtomicBool::new(false))
    }

    /// As [`enter_new`](Self::enter_new), until it is to `stop`.
    pub(super) fn enter(
        &mut self,
        volume: &Volume,
        tier: &'static str,
        source_id: u32,
        since: Option<i64>,
        done: &mut Repairs,
        stop: &AtomicBool,
    ) -> Result<(), CatalogError> {
        let top = volume.root.join(source_id.to_string());
        let (first_day, first_hour) =
            since.map_or_else(Default::default, |us| (name::day(us), name::hour(us)));
        for day in names(&top)?.into_iter().filter(|day| *day >= first_day) {
            for hour in names(&top.join(&day))? {
                if day == first_day && hour < first_hour {
                    continue;
                }
                let known = self.paths_of_hour(volume, source_id, &day, &hour)?;
                for file in names(&top.join(&day).join(&hour))? {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
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
                                done.damage(&idle, &full);
                            } else if idle.is_begun().unwrap_or(false) {
                                if fs::remove_file(&full).is_ok() {
                                    done.removed += 1;
                                }
                            } else if idle.is_ours().unwrap_or(true) {
                                done.fail(&full, &"it cannot be read, and is left as it is");
                            }
                        }
                        // It has been removed meanwhile.
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => done.fail(&full, &error),
                    }
                }
            }
        }
        // What vanishes meanwhile looks like files that were removed.
        volume
            .check()
            .map_err(|error| CatalogError::Io { path: volume.root.clone(), error: io::Error::other(error) })
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

/// Names in a directory, in order; none where there is no such directory. Links are left out: they lead to what is not
/// ours.
fn listing(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        // Something else of that name holds no recordings.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok();
        names.extend(name.filter(|_| !entry.file_type().is_ok_and(|kind| kind.is_symlink())));
    }
    names.sort_unstable();
    Ok(names)
}

/// As [`listing`], as the catalogue tells of trouble.
fn names(path: &Path) -> Result<Vec<String>, CatalogError> {
    listing(path).map_err(|error| CatalogError::Io { path: path.to_owned(), error })
}

/// The oldest file of some cameras by its name, for when the catalogue cannot be asked, held so that nobody begins to
/// write it. Files that are being written, and names that are not a recorder's, are left alone.
pub fn oldest_file(root: &Path, sources: &[u32]) -> Option<(PathBuf, File)> {
    let first = |source: &u32| {
        let top = root.join(source.to_string());
        let names = |path: &Path| listing(path).unwrap_or_default().into_iter();
        names(&top).find_map(|day| {
            names(&top.join(&day)).find_map(|hour| {
                let folder = top.join(&day).join(hour);
                names(&folder).find_map(|file| {
                    let start_us = name::start_us(&file)?;
                    let path = folder.join(file);
                    let file = open(&path).ok().filter(|file| file.try_lock().is_ok())?;
                    Some((start_us, path, file))
                })
            })
        })
    };
    let oldest = sources.iter().filter_map(first).min_by_key(|(start_us, ..)| *start_us);
    oldest.map(|(_, path, file)| (path, file))
}
