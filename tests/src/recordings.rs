//! Recorded files as a test looks at them: what is in them, and whether others can play them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use gst::prelude::*;
use nvr_core::segment::read::{self, Contents};

/// All recordings below a directory, in the order of their names.
pub fn segments(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "mp4") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub fn contents(path: &Path) -> anyhow::Result<Contents> {
    let open = || read::contents(&mut fs::File::open(path)?);
    open().with_context(|| path.display().to_string())
}

/// What ffprobe says of a file, which it must do without a complaint: the values of `entries`, line by line.
pub fn ffprobe(path: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(arguments)
        .arg(path)
        .output()
        .context("ffprobe is installed with ffmpeg")?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", path.display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Pictures that FFmpeg decodes from a file without a complaint.
pub fn played(path: &Path) -> anyhow::Result<u64> {
    let text = ffprobe(
        path,
        &["-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames"],
    )?;
    text.trim().trim_end_matches(',').parse().with_context(|| format!("{}: {text:?}", path.display()))
}

/// Pictures that GStreamer decodes from a file without an error.
pub fn played_by_gstreamer(path: &Path) -> anyhow::Result<u64> {
    let pipeline = gst::parse::launch(
        "filesrc name=file ! qtdemux ! h264parse ! avdec_h264 ! fakesink name=end sync=false",
    )?
    .downcast::<gst::Pipeline>()
    .map_err(|_| anyhow::anyhow!("no pipeline"))?;
    let element = |name: &str| pipeline.by_name(name).context("no such element");
    element("file")?.set_property("location", path);
    let bus = pipeline.bus().context("no bus")?;
    pipeline.set_state(gst::State::Playing)?;
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    let rendered = element("end")?.property::<gst::Structure>("stats").get("rendered");
    pipeline.set_state(gst::State::Null)?;
    match end.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(rendered?),
        Some(gst::MessageView::Error(error)) => {
            bail!("{}: {} ({:?})", path.display(), error.error(), error.debug())
        }
        _ => bail!("{}: GStreamer does not come to its end", path.display()),
    }
}

/// A directory in memory where there is one: no other process's writing makes this one's wait.
pub fn folder_in_memory() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}
