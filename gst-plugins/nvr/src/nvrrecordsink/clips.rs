//! Clips: what was recorded around a moment, joined into one finished file beside the recordings.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nvr_core::event::timestamp;
use nvr_core::segment::join::{self, JoinError, Part, Plan};
use nvr_core::segment::{clip, name, read};

use super::imp::CAT;
use super::report::Voice;
use super::volume::Volume;
use super::worker::Shared;

/// Clips of one camera that may wait or be written.
pub const MOST: usize = 8;
/// What has to stay free when a clip is written: the recording goes first.
const RESERVE: u64 = 16 << 20;

/// How long a clip waits for media that do not come. Without media for that long, the host's clock says what now is.
pub const GRACE: Duration = Duration::from_secs(5);

/// A finished clip.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Clip {
    /// Below the directory of the recordings.
    pub path: PathBuf,
    /// From when to when it plays, microseconds since 1970. Less than what was asked for where less was recorded.
    pub start_us: i64,
    pub end_us: i64,
    pub bytes: u64,
}

/// Told once when a clip is finished, or why it is not. Called on a thread that may write to the disk.
pub type Done = Box<dyn FnOnce(Result<Clip, String>) + Send>;

/// A clip that somebody asked for.
#[derive(Debug)]
pub struct Order {
    /// Made from the time where nobody gave one.
    pub name: Option<String>,
    /// Seconds.
    pub before: f64,
    pub after: f64,
    pub promise: Promise,
}

/// A clip whose time has not passed yet, or whose end is not on the disk yet.
#[derive(Debug)]
struct Pending {
    name: String,
    from_us: i64,
    to_us: i64,
    /// When it is made from what there is: the camera may be away.
    deadline: Instant,
    promise: Promise,
}

/// The clips of one camera on their way. Each is joined on a thread of its own: the recording does not wait for it.
#[derive(Debug)]
pub struct Cutter {
    shared: Arc<Shared>,
    voice: Arc<Voice>,
    pending: Vec<Pending>,
    /// By the name of the clip.
    jobs: Vec<(String, thread::JoinHandle<()>)>,
}

impl Cutter {
    pub fn new(shared: Arc<Shared>, voice: Arc<Voice>) -> Self {
        Self { shared, voice, pending: Vec::new(), jobs: Vec::new() }
    }

    /// Whether a clip needs what comes after `last_us`.
    pub fn wants(&self, last_us: Option<i64>) -> bool {
        self.pending.iter().any(|clip| last_us.is_none_or(|last| last < clip.to_us))
    }

    /// Name of the clip that was asked for first.
    pub fn first(&self) -> Option<&str> {
        self.pending.first().map(|clip| clip.name.as_str())
    }

    /// Takes an order at the capture time `now_us`; gives the clip's name and where it begins.
    pub fn accept(&mut self, order: Order, now_us: i64, source_id: u32) -> Option<(String, i64)> {
        let seconds = |seconds: f64| seconds.clamp(0.0, clip::MAX_SECONDS);
        let us = |seconds: f64| (seconds * 1e6) as i64;
        let (before, after) = (seconds(order.before), seconds(order.after));
        let name = order.name.unwrap_or_else(|| clip::default_name(now_us));
        self.jobs.retain(|(_, job)| !job.is_finished());
        let making = self.jobs.iter().any(|(other, _)| *other == name);
        if making || self.pending.iter().any(|other| other.name == name) {
            let why = format!("clip {name} of camera {source_id} is being made already; choose another name");
            answer(&self.shared, &self.voice, &name, order.promise, Err(why), source_id);
            return None;
        }
        let from_us = now_us - us(before);
        self.pending.push(Pending {
            name: name.clone(),
            from_us,
            to_us: now_us + us(after),
            deadline: Instant::now() + Duration::from_secs_f64(after) + GRACE,
            promise: order.promise,
        });
        Some((name, from_us))
    }

    /// Makes the clips that end before `written_us` or have waited for long enough, or all of them. `volume`: where the
    /// recordings are, or why there are none.
    pub fn save_due(&mut self, written_us: i64, all: bool, volume: Result<&Volume, &str>, source_id: u32) {
        if self.pending.is_empty() {
            return;
        }
        let now = Instant::now();
        let due = |clip: &Pending| all || written_us >= clip.to_us || now >= clip.deadline;
        let (due, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().partition(due);
        self.pending = wait;
        for pending in due {
            match volume {
                Ok(volume) => self.make(pending, volume.clone(), source_id),
                Err(why) => {
                    let Pending { name, promise, .. } = pending;
                    let why = format!("clip {name} of camera {source_id}: {why}");
                    answer(&self.shared, &self.voice, &name, promise, Err(why), source_id);
                }
            }
        }
    }

    fn make(&mut self, pending: Pending, volume: Volume, source_id: u32) {
        let (shared, voice, name) = (self.shared.clone(), self.voice.clone(), pending.name.clone());
        let job = move || {
            let Pending { name, from_us, to_us, promise, .. } = pending;
            let most = shared.settings.lock().clips_max_bytes;
            let outcome = save(&volume, source_id, &name, (from_us, to_us), most);
            answer(&shared, &voice, &name, promise, outcome, source_id);
        };
        match thread::Builder::new().name(format!("nvr-clip-{source_id}")).spawn(job) {
            Ok(job) => self.jobs.push((name, job)),
            // The promise went with the job and has been answered.
            Err(error) => {
                gst::warning!(CAT, "no thread to make a clip: {error}");
                self.shared.asked.lock().open_clips -= 1;
            }
        }
    }

    /// Waits for the clips that are being made.
    pub fn end(&mut self) {
        for (_, job) in self.jobs.drain(..) {
            // Where it panicked, the promise was dropped, which answers.
            let _ = job.join();
        }
    }
}

/// Answers for a clip that is finished or will not be made.
fn answer(
    shared: &Shared,
    voice: &Voice,
    name: &str,
    promise: Promise,
    outcome: Result<Clip, String>,
    source_id: u32,
) {
    shared.asked.lock().open_clips -= 1;
    if outcome.is_ok() {
        shared.counters.clips.fetch_add(1, Ordering::Relaxed);
    }
    voice.clip(name, &outcome, source_id);
    promise.keep(outcome);
}

/// Answers in any case: one that is dropped says that there will be no clip.
pub struct Promise(Option<Done>);

impl Promise {
    pub fn new(done: Done) -> Self {
        Self(Some(done))
    }

    pub fn keep(mut self, outcome: Result<Clip, String>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err("the recorder has ended before the clip was finished".into()));
        }
    }
}

impl std::fmt::Debug for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Promise").field(&self.0.is_some()).finish()
    }
}

fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

/// Joins what a camera recorded from `from_us` to `to_us`. `most`: bytes that its clips may take, 0 for no limit.
pub fn save(
    volume: &Volume,
    source_id: u32,
    name: &str,
    (from_us, to_us): (i64, i64),
    most: u64,
) -> Result<Clip, String> {
    let about = |error: &dyn std::fmt::Display| format!("clip {name} of camera {source_id}: {error}");
    let path = clip::path(source_id, name).map_err(|error| about(&error))?;
    volume.check().map_err(|error| about(&error))?;
    let full = volume.root.join(&path);
    if full.exists() {
        return Err(about(&format_args!("{} exists already; choose another name", path.display())));
    }
    let mut files = Vec::new();
    let mut found = Vec::new();
    for (start_us, file) in segments(&volume.root, source_id, from_us, to_us) {
        let text = file.display().to_string();
        let failed = |error: io::Error| about(&format_args!("{text}: {error}"));
        let mut file = match File::open(&file) {
            Ok(file) => file,
            // Its time had come while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let contents = read::contents(&mut file).map_err(failed)?;
        if contents.frames() > 0 {
            found.push((start_us, contents));
            files.push(file);
        }
    }
    let parts: Vec<_> =
        found.iter().map(|(start_us, contents)| Part { start_us: *start_us, contents }).collect();
    let plan = join::plan(&parts, from_us, to_us).map_err(|error| match error {
        JoinError::Nothing => {
            about(&format_args!("nothing was recorded from {} to {}", time(from_us), time(to_us)))
        }
        JoinError::Differs(at) => about(&format_args!("{error}: they did at {}", time(parts[at].start_us))),
    })?;
    let header = plan.header(&[]);
    let bytes = header.len() as u64 + plan.pieces.iter().map(|piece| u64::from(piece.size)).sum::<u64>();
    let taken = taken(&full);
    if most > 0 && taken + bytes > most {
        return Err(about(&format_args!(
            "it takes {bytes} bytes, and of the {most} that the camera's clips may take, {taken} are taken; remove \
             clips, or set clips-max-bytes"
        )));
    }
    let free = volume.free().map_err(|error| about(&error))?;
    if free < bytes + RESERVE {
        return Err(about(&format_args!("it takes {bytes} bytes, and {free} are free on the disk")));
    }
    write(&full, &plan, &header, &mut files)
        .map_err(|error| about(&format_args!("{}: {error}", path.display())))?;
    Ok(Clip { path, start_us: plan.from_us, end_us: plan.to_us, bytes })
}

/// Bytes of the clips that lie beside this one.
fn taken(clip: &Path) -> u64 {
    let entries = clip.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// The file has its name once it is whole.
fn write(full: &Path, plan: &Plan, header: &[u8], files: &mut [File]) -> io::Result<()> {
    if let Some(folder) = full.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = full.with_extension("part");
    let result = copy(&part, plan, header, files).and_then(|()| fs::rename(&part, full));
    if result.is_err() {
        // Ours, made above, and of no use to anybody.
        let _ = fs::remove_file(&part);
    }
    result
}

fn copy(part: &Path, plan: &Plan, header: &[u8], files: &mut [File]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(part)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    plan.write(header, files, &mut out, |_| {})?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Segments that may hold something of a time, in order, by their names: what is being written is there too, and
/// nobody has to have noted it.
fn segments(root: &Path, source_id: u32, from_us: i64, to_us: i64) -> Vec<(i64, PathBuf)> {
    let top = root.join(source_id.to_string());
    let mut found: Vec<(i64, PathBuf)> = Vec::new();
    let last_day = name::day(to_us);
    for day in newest_first(&top).into_iter().filter(|day| *day <= last_day) {
        for hour in newest_first(&top.join(&day)) {
            let folder = top.join(&day).join(hour);
            let files = newest_first(&folder);
            let starts = files.iter().filter_map(|file| Some((name::start_us(file)?, folder.join(file))));
            found.extend(starts.filter(|(start, _)| *start < to_us));
            // The one that began before reaches into the time at most.
            if found.iter().any(|(start, _)| *start <= from_us) {
                return touching(found, from_us, to_us);
            }
        }
    }
    touching(found, from_us, to_us)
}

fn touching(mut found: Vec<(i64, PathBuf)>, from_us: i64, to_us: i64) -> Vec<(i64, PathBuf)> {
    found.sort();
    let starts: Vec<_> = found.iter().map(|(start, _)| *start).collect();
    let range = clip::touching(&starts, from_us, to_us);
    found.drain(range).collect()
}

/// Names in a directory; none where it cannot be read.
fn newest_first(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    names
}

#[cfg(test)]
mod tests {
    use nvr_core::segment::mp4::{self, Medium, Run, Sample, Track};

    use super::*;

    const S: i64 = 1_000_000;

    /// A segment of `seconds` pictures, one each second, each a keyframe of four bytes that name its second.
    fn segment(root: &Path, start_us: i64, seconds: u8, config: u8) {
        let entry = mp4::video_entry(b"avc1", b"avcC", &[config], 640, 360);
        let track = Track { id: 1, medium: Medium::Video, timescale: 90_000, width: 640, height: 360, entry };
        let mut bytes = mp4::header(&[track], start_us);
        for at in 0..seconds {
            let samples = [Sample { size: 4, duration: 90_000, offset: 0, key: true }];
            let start = u64::from(at) * 90_000;
            mp4::fragment(&mut bytes, u32::from(at) + 1, &[Run { track: 1, start, samples: &samples }]);
            bytes.extend([(start_us / S) as u8 + at; 4]);
        }
        let path = root.join(name::path(2, start_us, 0));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_clip_is_what_was_recorded_around_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::open(folder.path(), None).unwrap();
        for start in [0, 10, 20, 40] {
            segment(folder.path(), start * S, 10, 1);
        }
        for (at, (from, to, seconds)) in
            [(5, 15, 5..15), (0, 10, 0..10), (12, 13, 12..13), (25, 45, 25..45)].into_iter().enumerate()
        {
            let name = format!("clip-{at}");
            let clip = save(&volume, 2, &name, (from * S, to * S), 0).unwrap();
            assert_eq!((clip.start_us, clip.end_us), (from * S, to * S), "{from} to {to}");
            assert_eq!(clip.path, PathBuf::from(format!("clips/2/{name}.mp4")));
            let bytes = fs::read(folder.path().join(&clip.path)).unwrap();
            assert_eq!(bytes.len() as u64, clip.bytes);
            // A pause stays a pause.
            let expected: Vec<u8> =
                seconds.filter(|second| !(30..40).contains(second)).flat_map(|second| [second; 4]).collect();
            assert!(bytes.ends_with(&expected), "{from} to {to}");
        }
        let part = fs::read_dir(folder.path().join("clips/2")).unwrap().flatten();
        assert!(part.map(|entry| entry.path()).all(|path| path.extension().is_some_and(|e| e == "mp4")));
    }

    #[test]
    fn what_cannot_be_saved_says_why_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::open(folder.path(), None).unwrap();
        segment(folder.path(), 0, 10, 1);
        segment(folder.path(), 10 * S, 10, 2);
        let limited =
            |name: &str, from: i64, to: i64, most: u64| save(&volume, 2, name, (from * S, to * S), most);
        let save = |name: &str, from: i64, to: i64| limited(name, from, to, 0);
        for (name, from, to, part) in [
            ("x", 30, 40, "clip x of camera 2: nothing was recorded from 1970-01-01T00:00:30.000Z"),
            (
                "x",
                5,
                15,
                "settings changed between the segments, so they do not fit into one file: they did at",
            ),
            ("../x", 0, 5, "no path"),
        ] {
            let error = save(name, from, to).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(!folder.path().join("clips/2/x.mp4").exists());
        let first = save("x", 0, 5).unwrap();
        let error = limited("y", 0, 5, 2 * first.bytes - 1).unwrap_err();
        assert!(error.contains("clips-max-bytes") && error.contains(&first.bytes.to_string()), "{error}");
        limited("y", 0, 5, 2 * first.bytes).unwrap();
        assert!(save("x", 0, 5).unwrap_err().contains("clips/2/x.mp4 exists already"));
        fs::remove_file(folder.path().join(super::super::volume::IDENTITY)).unwrap();
        assert!(save("z", 0, 5).unwrap_err().contains("is it mounted?"));
    }
}
