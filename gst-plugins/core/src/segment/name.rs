//! Where a segment lies below the recorder's directory: `2/2026-11-21/07/2026-11-21T07-12-18.123Z.mp4`, camera, day,
//! hour, start, in UTC throughout, so that no change of the clocks repeats or leaves out a name.

use std::path::{Component, Path, PathBuf};

use jiff::{Timestamp, tz::Offset};

/// Ending of every segment.
pub const EXTENSION: &str = "mp4";

/// The path of a segment below the directory. `again` tells segments apart that begin in one millisecond.
pub fn path(source_id: u32, start_us: i64, again: u32) -> PathBuf {
    let suffix = if again == 0 { String::new() } else { format!("-{again}") };
    let mut path = PathBuf::from(source_id.to_string());
    path.push(day(start_us));
    path.push(hour(start_us));
    path.push(format!("{}{suffix}.{EXTENSION}", stem(start_us)));
    path
}

/// A moment as file names have it: `2026-11-21T07-12-18.123Z`.
pub fn stem(us: i64) -> String {
    let time = Offset::UTC.to_datetime(Timestamp::from_microsecond(us).unwrap_or_default());
    format!(
        "{}T{:02}-{:02}-{:02}.{:03}Z",
        time.date(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// Name of the directory of a day.
pub fn day(us: i64) -> String {
    Offset::UTC.to_datetime(Timestamp::from_microsecond(us).unwrap_or_default()).date().to_string()
}

/// Name of the directory of an hour.
pub fn hour(us: i64) -> String {
    let time = Offset::UTC.to_datetime(Timestamp::from_microsecond(us).unwrap_or_default());
    format!("{:02}", time.hour())
}

/// The start that a file's name says, in microseconds; `None` where the name is not one of ours.
pub fn start_us(file_name: &str) -> Option<i64> {
    let stem = file_name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let (stem, again) = stem.split_once('Z')?;
    let number = again.strip_prefix('-').map(|n| n.bytes().all(|b| b.is_ascii_digit()) && !n.is_empty());
    if !(again.is_empty() || number == Some(true)) {
        return None;
    }
    let (date, time) = stem.split_once('T')?;
    if time.len() != 12 || date.len() != 10 {
        return None;
    }
    let text = format!("{date}T{}Z", time.replace('-', ":"));
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// Whose segment lies at a path below the directory; `None` where the path is not one of ours. Nothing that leads out
/// of the directory is.
pub fn source_id(path: &Path) -> Option<u32> {
    let mut names = path.components().map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let (camera, _day, _hour) = (names.next()??, names.next()??, names.next()??);
    start_us(names.next()??)?;
    let source_id: u32 = camera.parse().ok()?;
    (names.next().is_none() && camera == source_id.to_string()).then_some(source_id)
}
