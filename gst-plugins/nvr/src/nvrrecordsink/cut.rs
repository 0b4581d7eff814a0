//! Making a clip: what was recorded in a time, joined into one finished file beside the recordings.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvr_core::event::timestamp;
use nvr_core::segment::join::{self, JoinError, Part, Plan};
use nvr_core::segment::read::{self, Contents};
use nvr_core::segment::{clip, name};

use super::catalog::Store;
use super::clips::Clip;
use super::imp::CAT;
use super::stepwise::Stepwise;
use super::tiers::{make_folder, sync_folder};
use super::volume::Volume;

/// What has to stay free when a clip is written: the recording goes first.
const RESERVE: u64 = 16 << 20;
/// Ending of a clip that is being written.
const PART: &str = "part";
/// For how long nobody takes such a file for a leftover.
const YOUNG: Duration = Duration::from_mins(1);

fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

/// What was recorded in a time.
struct Stock {
    /// In order.
    found: Vec<(i64, Contents, File)>,
    /// How many recordings there are besides that cannot be read.
    missing: usize,
}

/// Joins what a camera recorded from `from_us` to `to_us`. `most`: bytes that its clips may take, 0 for no limit.
pub fn save(
    volume: &Volume,
    catalogue: &Path,
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
    let stock = stock(volume, catalogue, source_id, (from_us, to_us)).map_err(|error| about(&error))?;
    let parts: Vec<_> =
        stock.found.iter().map(|(start_us, contents, _)| Part { start_us: *start_us, contents }).collect();
    let plan = join::plan(&parts, from_us, to_us).map_err(|error| match error {
        JoinError::Nothing if stock.missing > 0 => about(&format_args!(
            "nothing that was recorded from {} to {} can be read here; it may be in a bucket, from which `recordings \
             export` takes it",
            time(from_us),
            time(to_us)
        )),
        JoinError::Nothing => {
            about(&format_args!("nothing was recorded from {} to {}", time(from_us), time(to_us)))
        }
        JoinError::Differs(at) => about(&format_args!("{error}: they did at {}", time(parts[at].start_us))),
    })?;
    let header = plan.header(&[]);
    let bytes = header.len() as u64 + plan.pieces.iter().map(|piece| u64::from(piece.size)).sum::<u64>();
    remove_leftovers(&full);
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
    let mut files: Vec<_> = stock.found.into_iter().map(|(.., file)| file).collect();
    write(&full, &plan, &header, &mut files)
        .map_err(|error| about(&format_args!("{}: {error}", path.display())))?;
    let missing = u32::try_from(stock.missing).unwrap_or(u32::MAX);
    if missing > 0 {
        gst::warning!(CAT, "clip {name} of camera {source_id} is without {missing} recordings of its time");
    }
    Ok(Clip { path, start_us: plan.from_us, end_us: plan.to_us, bytes, missing })
}

/// Opens what was recorded: first what lies here, also what nobody has noted yet, then what the catalogue says has gone
/// on to other directories meanwhile.
fn stock(
    volume: &Volume,
    catalogue: &Path,
    source_id: u32,
    (from_us, to_us): (i64, i64),
) -> Result<Stock, String> {
    let (mut found, mut opened, mut missing) = (Vec::new(), HashSet::new(), HashSet::new());
    for (start_us, file) in segments(&volume.root, source_id, from_us, to_us) {
        let path = file.strip_prefix(&volume.root).unwrap_or(&file).to_owned();
        match open(&file) {
            Ok((contents, file)) => {
                found.push((start_us, contents, file));
                opened.insert(path);
            }
            // Its time had come while we looked, or it has gone on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.insert(path);
            }
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    let rows = Store::existing(catalogue).and_then(|store| store.recordings(source_id, from_us, to_us));
    let rows = rows.unwrap_or_else(|error| {
        gst::info!(CAT, "a clip is made without a look into the catalogue: {error}");
        Vec::new()
    });
    for row in rows.into_iter().filter(|row| !opened.contains(&row.path)) {
        let place = Volume { root: row.root.clone(), id: row.volume.clone() };
        let there = place.check().map_err(io::Error::other);
        match there.and_then(|()| open(&row.file())) {
            Ok((contents, file)) => {
                found.push((row.start_us, contents, file));
                missing.remove(&row.path);
            }
            Err(error) => {
                gst::info!(CAT, "a clip is made without {}: {error}", row.file().display());
                missing.insert(row.path);
            }
        }
    }
    found.retain(|(_, contents, _)| contents.frames() > 0);
    found.sort_by_key(|(start_us, ..)| *start_us);
    Ok(Stock { found, missing: missing.len() })
}

fn open(path: &Path) -> io::Result<(Contents, File)> {
    let mut file = File::open(path)?;
    Ok((read::contents(&mut file)?, file))
}

/// Removes what was being written when a process ended without an orderly end.
fn remove_leftovers(clip: &Path) {
    let entries = clip.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    for part in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == PART)) {
        let Ok(file) = OpenOptions::new().write(true).open(&part) else { continue };
        let age = file.metadata().and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
        // Who writes it has it locked, but for the moment after it is made.
        if age.is_some_and(|age| age > YOUNG) && file.try_lock().is_ok() {
            gst::info!(CAT, "{} was never finished, and is removed", part.display());
            let _ = fs::remove_file(&part);
        }
    }
}

/// Bytes of the clips that lie beside this one.
fn taken(clip: &Path) -> u64 {
    let entries = clip.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// The file has its name once it is whole.
fn write(full: &Path, plan: &Plan, header: &[u8], files: &mut [File]) -> io::Result<()> {
    let folder = full.parent().unwrap_or(full);
    make_folder(folder)?;
    let part = full.with_extension(PART);
    let result = copy(&part, plan, header, files).and_then(|()| fs::rename(&part, full));
    if result.is_err() {
        // Ours, made above, and of no use to anybody.
        let _ = fs::remove_file(&part);
    }
    // A power cut does not take what was answered for.
    result.and_then(|()| sync_folder(folder))
}

fn copy(part: &Path, plan: &Plan, header: &[u8], files: &mut [File]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(part)?;
    // Where there are no locks, its age has to do.
    let _ = file.try_lock();
    let mut out = BufWriter::with_capacity(1 << 20, Stepwise::new(file));
    plan.write(header, files, &mut out, |_| {})?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
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
    use std::time::SystemTime;

    use nvr_core::segment::mp4::{self, Medium, Run, Sample, Track};

    use super::*;
    use crate::nvrrecordsink::catalog::describe;
    use crate::nvrrecordsink::tiers::WARM;
    use crate::nvrrecordsink::volume::IDENTITY;

    const S: i64 = 1_000_000;

    /// There is no catalogue.
    fn nowhere() -> PathBuf {
        "/nowhere/catalog.db".into()
    }

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
            let clip = save(&volume, &nowhere(), 2, &name, (from * S, to * S), 0).unwrap();
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
        let limited = |name: &str, from: i64, to: i64, most: u64| {
            save(&volume, &nowhere(), 2, name, (from * S, to * S), most)
        };
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
        fs::remove_file(folder.path().join(IDENTITY)).unwrap();
        assert!(save("z", 0, 5).unwrap_err().contains("is it mounted?"));
    }

    #[test]
    fn a_clip_has_what_went_on_to_another_directory_and_says_what_it_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let [hot, warm] = ["hot", "warm"].map(|name| Volume::open(&folder.path().join(name), None).unwrap());
        for (volume, start) in [(&hot, 0), (&warm, 10), (&hot, 20)] {
            segment(&volume.root, start * S, 10, 1);
        }
        let catalogue = hot.root.join("catalog.db");
        let path = name::path(2, 10 * S, 0);
        let (contents, _) = open(&warm.root.join(&path)).unwrap();
        let entry = describe(&warm, WARM, &path, 2, 10 * S, &contents).unwrap();
        Store::open(&catalogue).unwrap().write(&[entry]).unwrap();
        let make = |name: &str, from: i64, to: i64| save(&hot, &catalogue, 2, name, (from * S, to * S), 0);
        // A leftover, a file that is being written, and one that is about to be.
        let clips = hot.root.join("clips/2");
        fs::create_dir_all(&clips).unwrap();
        let [old, held, young] = ["old", "held", "young"].map(|name| clips.join(name).with_extension(PART));
        let files = [&old, &held, &young].map(|path| File::create(path).unwrap());
        for file in &files[..2] {
            file.set_modified(SystemTime::now() - 2 * YOUNG).unwrap();
        }
        files[1].lock().unwrap();
        let clip = make("whole", 5, 25).unwrap();
        assert_eq!((clip.start_us, clip.end_us, clip.missing), (5 * S, 25 * S, 0));
        assert!(fs::read(hot.root.join(&clip.path)).unwrap().ends_with(
            &[12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24].map(|second| [second; 4]).concat()
        ));
        assert!(!old.exists() && held.exists() && young.exists());
        // The disk of the other tier is not there.
        fs::remove_file(warm.root.join(IDENTITY)).unwrap();
        let clip = make("less", 5, 25).unwrap();
        assert_eq!((clip.start_us, clip.end_us, clip.missing), (5 * S, 25 * S, 1));
        let error = make("none", 12, 18).unwrap_err();
        assert!(error.contains("can be read here"), "{error}");
    }
}
