//! The heat map of a camera and day, on disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use gst::glib;
use nvr_core::zones::{HeatMap, Point};

use super::snapshot::View;

/// How often the picture is written, nanoseconds.
const WRITE_NS: u64 = 60_000_000_000;
/// Longest time between two looks that counts as presence.
const LOOK_NS: u64 = 2_000_000_000;
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// What has come since the last time it was written.
#[derive(Debug, Default)]
pub struct Heat {
    map: HeatMap,
    day: String,
    since_ns: u64,
    last_ns: Option<u64>,
    /// What the camera shows.
    view: Option<View>,
}

/// What is to be added to the map of a day.
#[derive(Debug)]
pub struct Part {
    map: HeatMap,
    day: String,
    view: Option<View>,
}

impl Heat {
    /// Whether what has come is to be written at `now_ns`, and what the camera shows is to be looked at anew.
    pub fn is_due(&self, now_ns: u64) -> bool {
        // Another stream begins with another time.
        let since = now_ns.checked_sub(self.since_ns);
        self.day.is_empty() || since.is_none_or(|since| since >= WRITE_NS)
    }

    /// Adds where objects stand at `now_ns`. What is to be written now, if anything.
    pub fn add(&mut self, now_ns: u64, unix_ns: u64, view: Option<View>, feet: &[Point]) -> Option<Part> {
        let seconds = self.last_ns.replace(now_ns).map_or(0, |last| now_ns.saturating_sub(last).min(LOOK_NS));
        let part = if self.is_due(now_ns) {
            let today = day(unix_ns)?;
            let part = self.take();
            self.day = today;
            self.since_ns = now_ns;
            self.view = view.or(self.view.take());
            part
        } else {
            None
        };
        for &foot in feet {
            self.map.add(foot, seconds as f32 / 1e9);
        }
        part
    }

    /// What has not been written.
    pub fn take(&mut self) -> Option<Part> {
        let map = std::mem::take(&mut self.map);
        (!map.is_empty()).then(|| Part { map, day: self.day.clone(), view: self.view.clone() })
    }
}

/// The day on the calendar of this machine.
fn day(unix_ns: u64) -> Option<String> {
    let time = glib::DateTime::from_unix_local(i64::try_from(unix_ns / 1_000_000_000).ok()?).ok()?;
    Some(time.format("%Y-%m-%d").ok()?.to_string())
}

impl Part {
    /// Adds it to `{folder}/{day}.heat` and draws `{folder}/{day}.png`. For a worker.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let fail =
            |path: &Path, error: &dyn std::fmt::Display| format!("heat map {}: {error}", path.display());
        fs::create_dir_all(folder).map_err(|error| fail(folder, &error))?;
        let kept = folder.join(format!("{}.heat", self.day));
        let mut map = self.map.clone();
        match fs::read(&kept) {
            Ok(bytes) => match HeatMap::from_bytes(&bytes) {
                Some(before) => map.merge(&before),
                // Somebody may still want to look at it.
                None => fs::rename(&kept, beside(&kept, ".damaged")).map_err(|error| fail(&kept, &error))?,
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // What there is must not be written over for want of a permission or a file handle.
            Err(error) => return Err(fail(&kept, &error)),
        }
        replace(&kept, &map.to_bytes()).map_err(|error| fail(&kept, &error))?;
        let picture = folder.join(format!("{}.png", self.day));
        let png = self.png(&map).map_err(|error| fail(&picture, &error))?;
        replace(&picture, &png).map_err(|error| fail(&picture, &error))
    }

    /// The map over what the camera showed, or over grey.
    fn png(&self, map: &HeatMap) -> Result<Vec<u8>, String> {
        let seen = self.view.as_ref().and_then(|view| view.rgb().ok());
        let (width, mut rgb) = seen.unwrap_or_else(|| {
            let (width, height) = HeatMap::SIZE;
            (width, vec![50; width * height * 3])
        });
        map.paint(width, &mut rgb);
        png(width, rgb)
    }
}

/// A reader sees the old file or the new one, never half of one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = beside(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    // Else a power cut may leave the new name and nothing behind it.
    file.sync_all()?;
    fs::rename(&new, path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = PathBuf::from(path).into_os_string();
    name.push(ending);
    name.into()
}

/// Lines are as wide as a video's: a multiple of four.
fn png(width: usize, rgb: Vec<u8>) -> Result<Vec<u8>, String> {
    let height = rgb.len() / (3 * width);
    let caps = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width as u32, height as u32)
        .fps(gst::Fraction::new(1, 1))
        .build()
        .and_then(|info| info.to_caps())
        .map_err(|error| error.to_string())?;
    let buffer = gst::Buffer::from_mut_slice(rgb);
    let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
    let png = gst::Caps::builder("image/png").build();
    let png = gst_video::convert_sample(&sample, &png, Some(PATIENCE)).map_err(|error| error.to_string())?;
    let buffer = png.buffer_owned().ok_or("no picture came out")?;
    Ok(buffer.map_readable().map_err(|error| error.to_string())?.to_vec())
}
