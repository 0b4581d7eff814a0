//! One segment while it is written.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nvr_core::detection::Clock;
use nvr_core::segment::mp4::{self, Medium, Run, Sample};
use nvr_core::segment::name;

use super::catalog::Cause;
use super::checksum::Checksum;
use super::ear::Sightings;
use super::inbox::Unit;
use super::tracks::{AUDIO, Recorded, VIDEO};

/// A fragment is written at the latest when it is this large.
const MAX_BYTES: usize = 4 << 20;
const MAX_UNITS: usize = 2000;
/// How many files may begin in the same microsecond.
const NAMES: u32 = 1000;
/// How often, and with what pauses, the lock of a new file is tried.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    /// Below the directory of the recorder.
    pub path: PathBuf,
    pub video: Arc<Recorded>,
    pub audio: Option<Recorded>,
    pub start_us: i64,
    pub clock: Clock,
    pub sightings: Sightings,
    pub events: u64,
    /// Why it is recorded.
    pub cause: Cause,
    /// From when to when it was recorded on demand, microseconds since 1970.
    pub asked_us: Option<(i64, i64)>,
    pub frames: u64,
    pub keyframes: u64,
    /// Up to where the file is whole.
    pub bytes: u64,
    /// Of these bytes, made while they are still in memory.
    pub checksum: Checksum,
    sequence: u32,
    sync: bool,
    fragment_ns: i64,
    /// Running time of the first picture: when it is decoded, and when it is shown.
    first_ns: i64,
    shown_ns: i64,
    last_ns: i64,
    end_ns: i64,
    waiting: [Waiting; 2],
    bytes_waiting: usize,
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Waiting {
    units: Vec<Unit>,
    /// End of the last fragment, in ticks.
    end: u64,
}

impl SegmentFile {
    /// Makes the file and writes what stands in front.
    pub fn create(
        root: &Path,
        source_id: u32,
        first: &Unit,
        video: &Arc<Recorded>,
        audio: Option<&Recorded>,
        fragment_ns: i64,
        sync: bool,
    ) -> io::Result<Self> {
        let start_us = (first.capture.unix_ns / 1000) as i64;
        let (file, path) = create(root, source_id, start_us)?;
        let tracks: Vec<_> =
            [Some(&**video), audio].into_iter().flatten().map(|recorded| recorded.track.clone()).collect();
        let mut this = Self {
            file,
            path,
            video: video.clone(),
            audio: audio.cloned(),
            start_us,
            clock: first.capture.clock,
            sightings: Sightings::new(),
            events: 0,
            cause: Cause::default(),
            asked_us: None,
            frames: 0,
            keyframes: 0,
            bytes: 0,
            checksum: Checksum::default(),
            sequence: 0,
            sync,
            fragment_ns,
            first_ns: first.dts_ns,
            shown_ns: first.pts_ns,
            last_ns: first.dts_ns,
            end_ns: first.pts_ns,
            waiting: Default::default(),
            bytes_waiting: 0,
            scratch: mp4::header(&tracks, start_us),
        };
        if let Err(error) = this.write() {
            this.discard(root);
            return Err(error);
        }
        Ok(this)
    }

    /// How long the video lasts, from the first picture to before the one at `dts_ns`.
    pub fn age_ns(&self, dts_ns: i64) -> i64 {
        dts_ns - self.first_ns
    }

    /// Whether the unit follows what is there: neither back in time nor after a long silence.
    pub fn follows(&self, unit: &Unit, most_ns: i64) -> bool {
        unit.medium == Medium::Audio
            || (unit.dts_ns > self.last_ns - most_ns && unit.dts_ns < self.last_ns + most_ns)
    }

    /// Up to when the video is in the file.
    pub fn written_us(&self) -> i64 {
        let ticks = i128::from(self.waiting[lane(Medium::Video)].end);
        let us = ticks * 1_000_000 / i128::from(self.video.track.timescale.max(1));
        self.start_us.saturating_add(us as i64)
    }

    pub fn end_us(&self) -> i64 {
        self.start_us + (self.end_ns - self.shown_ns).max(0) / 1000
    }

    /// Whether what waits is to be written before this unit comes to it.
    pub fn is_due(&self, unit: &Unit) -> bool {
        let waiting = &self.waiting[lane(unit.medium)].units;
        // Sound goes with the pictures, for as long as there are any.
        let most_ns = self.fragment_ns * if unit.medium == Medium::Video { 1 } else { 2 };
        waiting.first().is_some_and(|first| unit.dts_ns - first.dts_ns >= most_ns)
            || self.bytes_waiting > MAX_BYTES
            || waiting.len() >= MAX_UNITS
    }

    /// When a picture would have to be decoded for what waits to be written.
    pub fn due_ns(&self) -> Option<i64> {
        self.waiting[lane(Medium::Video)].units.first().map(|first| first.dts_ns + self.fragment_ns)
    }

    pub fn waiting_bytes(&self) -> usize {
        self.bytes_waiting
    }

    /// Whether more waits than a fragment may have.
    pub fn is_crowded(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.units.len() > MAX_UNITS)
    }

    /// Takes a unit on, to be written with those that wait.
    pub fn add(&mut self, unit: Unit) {
        if unit.medium == Medium::Audio {
            // Audio from before the first picture.
            if self.audio.is_none() || unit.pts_ns < self.first_ns {
                return;
            }
        } else {
            self.last_ns = self.last_ns.max(unit.dts_ns);
            let lasts =
                unit.buffer.duration().map_or(self.video.usual_ns, |d| d.nseconds().min(1 << 33) as i64);
            self.end_ns = self.end_ns.max(unit.pts_ns + lasts);
        }
        self.bytes_waiting += unit.buffer.size();
        self.waiting[lane(unit.medium)].units.push(unit);
    }

    /// Everything that waits, in the order of decoding. It will not be written here.
    pub fn release(&mut self) -> Vec<Unit> {
        let mut units: Vec<_> =
            self.waiting.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.units)).collect();
        units.sort_by_key(|unit| unit.dts_ns);
        self.bytes_waiting = 0;
        if let Some(first) = units.iter().find(|unit| unit.medium == Medium::Video) {
            self.end_ns = self.end_ns.min(first.pts_ns).max(self.shown_ns);
        }
        units
    }

    /// Writes what waits as a fragment. `next_ns`: when the next picture is decoded, where that is known.
    pub fn flush(&mut self, next_ns: Option<i64>) -> io::Result<()> {
        if self.waiting.iter().all(|waiting| waiting.units.is_empty()) {
            return Ok(());
        }
        let mut tables: [(u64, Vec<Sample>); 2] = Default::default();
        let mut fresh = [0, 0];
        for medium in [Medium::Video, Medium::Audio] {
            let lane = lane(medium);
            let Some(recorded) =
                (if medium == Medium::Video { Some(&*self.video) } else { self.audio.as_ref() })
            else {
                continue;
            };
            let next = (medium == Medium::Video).then_some(next_ns).flatten();
            tables[lane] = self.table(lane, recorded, next);
            let (start, samples) = &tables[lane];
            fresh[lane] = start + samples.iter().map(|sample| u64::from(sample.duration)).sum::<u64>();
        }
        let runs: Vec<_> = [VIDEO, AUDIO]
            .into_iter()
            .zip(&tables)
            .filter(|(_, (_, samples))| !samples.is_empty())
            .map(|(track, (start, samples))| Run { track, start: *start, samples })
            .collect();
        self.sequence += 1;
        self.scratch.clear();
        mp4::fragment(&mut self.scratch, self.sequence, &runs);
        for unit in self.waiting.iter().flat_map(|waiting| &waiting.units) {
            let map = unit.buffer.map_readable().map_err(|_| io::Error::other("a buffer cannot be read"))?;
            self.scratch.extend_from_slice(&map);
        }
        self.write()?;
        for (waiting, end) in self.waiting.iter_mut().zip(fresh) {
            if waiting.units.first().is_some_and(|unit| unit.medium == Medium::Video) {
                self.frames += waiting.units.len() as u64;
                self.keyframes += waiting.units.iter().filter(|unit| unit.key).count() as u64;
            }
            waiting.end = waiting.end.max(end);
            waiting.units.clear();
        }
        self.bytes_waiting = 0;
        Ok(())
    }

    /// Times of the units that wait, in ticks: decoding times that never go back.
    fn table(&self, lane: usize, recorded: &Recorded, next_ns: Option<i64>) -> (u64, Vec<Sample>) {
        let ticks = |ns: i64| {
            let ns = i128::from((ns - self.first_ns).max(0));
            (ns * i128::from(recorded.track.timescale) / 1_000_000_000) as u64
        };
        let waiting = &self.waiting[lane];
        let mut last = waiting.end;
        let times: Vec<u64> = waiting
            .units
            .iter()
            .map(|unit| {
                last = last.max(ticks(unit.dts_ns));
                last
            })
            .collect();
        let usual = (recorded.usual_ns * i64::from(recorded.track.timescale) / 1_000_000_000) as u64;
        let end = match (next_ns, times.last()) {
            (Some(next), Some(last)) => ticks(next).max(*last),
            (None, Some(last)) => last + usual,
            (_, None) => 0,
        };
        let samples = waiting.units.iter().zip(&times).enumerate().map(|(at, (unit, time))| Sample {
            size: unit.buffer.size() as u32,
            duration: (times.get(at + 1).unwrap_or(&end) - time).min(u64::from(u32::MAX)) as u32,
            offset: (ticks(unit.pts_ns) as i64 - *time as i64).clamp(-(1 << 30), 1 << 30) as i32,
            key: unit.key || unit.medium == Medium::Audio,
        });
        (times.first().copied().unwrap_or(waiting.end), samples.collect())
    }

    /// Writes the scratch. Where that fails, the file ends where it ended before.
    fn write(&mut self) -> io::Result<()> {
        let result = self
            .file
            .write_all_at(&self.scratch, self.bytes)
            .and_then(|()| if self.sync { self.file.sync_data() } else { Ok(()) });
        match result {
            Ok(()) => {
                self.bytes += self.scratch.len() as u64;
                self.checksum.update(&self.scratch);
                Ok(())
            }
            Err(error) => {
                // What is half written does not hurt a reader, and repair takes it off where this fails too.
                let _ = self.file.set_len(self.bytes);
                Err(error)
            }
        }
    }

    /// Removes a file in which there is no picture.
    pub fn discard(&self, root: &Path) {
        let _ = fs::remove_file(root.join(&self.path));
    }
}

fn lane(medium: Medium) -> usize {
    match medium {
        Medium::Video => 0,
        Medium::Audio => 1,
    }
}

/// A new file, locked for as long as it is open: whoever repairs leaves it alone.
pub fn create(root: &Path, source_id: u32, start_us: i64) -> io::Result<(File, PathBuf)> {
    for again in 0..NAMES {
        let path = name::path(source_id, start_us, again);
        let full = root.join(&path);
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder)?;
        }
        match OpenOptions::new().write(true).create_new(true).open(&full) {
            Ok(file) if lock(&file) => return Ok((file, path)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // The folder was empty, and somebody removed it just now.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Locks a new file. False where somebody took it for a leftover and removed it before.
fn lock(file: &File) -> bool {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            // Whoever looks at it holds it for a moment.
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            // Some network file systems have no locks; one process records to a directory there.
            _ => break,
        }
    }
    file.metadata().map_or(true, |metadata| metadata.nlink() > 0)
}
