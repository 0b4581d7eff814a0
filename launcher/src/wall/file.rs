//! SECTION:element-nvrfilesink
//!
//! Writes a file, and keeps what stands under its name already: a wall that is started again, as after a power cut,
//! would begin by emptying the recording that survived it. Part of `nvr-launch` only.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::SystemTime,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use jiff::Timestamp;
use parking_lot::Mutex;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrfilesink", gst::DebugColorFlags::empty(), Some("NVR file output"))
});

#[derive(Debug, Default)]
struct Settings {
    location: Option<PathBuf>,
}

#[derive(Debug)]
pub struct FileSink {
    settings: Mutex<Settings>,
    sink: Option<gst::Element>,
}

#[glib::object_subclass]
impl ObjectSubclass for FileSink {
    const NAME: &'static str = "GstNvrFileSink";
    type Type = super::NvrFileSink;
    type ParentType = gst::Bin;

    fn new() -> Self {
        // Unbuffered: a killed process takes no second with it that was written already. The wall's pictures leave at
        // their time; a file has no use for waiting again.
        let sink = gst::ElementFactory::make("filesink")
            .property_from_str("buffer-mode", "unbuffered")
            .property("async", false)
            .build()
            .ok();
        Self { settings: Mutex::default(), sink }
    }
}

impl ObjectImpl for FileSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("location")
                    .nick("Location")
                    .blurb("File to write; one of that name gets the time of its last change into its name")
                    .mutable_ready()
                    .build(),
            ]
        });
        PROPERTIES.as_ref()
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_suppressed_flags(gst::ElementFlags::SOURCE);
        obj.set_element_flags(gst::ElementFlags::SINK);
        // Without filesink there is no pad, and the link says so.
        if let (Some(sink), Some(template)) = (&self.sink, obj.pad_template("sink"))
            && obj.add(sink).is_ok()
            && let Some(target) = sink.static_pad("sink")
            && let Ok(ghost) = gst::GhostPad::from_template_with_target(&template, &target)
        {
            let _ = obj.add_pad(&ghost);
        }
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if pspec.name() == "location" {
            let location: Option<String> = value.get().expect("the type is checked by GObject");
            self.settings.lock().location = location.filter(|text| !text.is_empty()).map(PathBuf::from);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "location" => {
                let settings = self.settings.lock();
                settings.location.as_ref().map(|path| path.display().to_string()).to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for FileSink {}
impl BinImpl for FileSink {}

impl ElementImpl for FileSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR file output",
                "Sink/File",
                "Writes a file and keeps an earlier one of that name",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &gst::Caps::new_any(),
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        // Before the file is opened, which empties it.
        if transition == gst::StateChange::NullToReady {
            let location = self.settings.lock().location.clone();
            if let (Some(sink), Some(location)) = (&self.sink, location) {
                if let Err(error) = self.make_room(&location) {
                    let place = location.display();
                    gst::element_imp_error!(
                        self,
                        gst::ResourceError::OpenWrite,
                        ("{place} exists and cannot be kept under another name: {error}")
                    );
                    return Err(gst::StateChangeError);
                }
                sink.set_property("location", location.display().to_string());
            }
        }
        self.parent_change_state(transition)
    }
}

impl FileSink {
    fn make_room(&self, location: &Path) -> io::Result<()> {
        if let Some(kept) = set_aside(location)? {
            gst::info!(CAT, imp = self, "what was in {} is in {}", location.display(), kept.display());
            tracing::info!(
                event = "output.kept",
                path = %kept.display(),
                "what was in {} is in {} now",
                location.display(),
                kept.display()
            );
        }
        Ok(())
    }
}

/// Gives a file with something in it another name: `wall.mp4` becomes `wall-2026-11-21T13-58-00Z.mp4`. Devices and
/// pipes stay.
pub fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(None);
    }
    let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let changed = Timestamp::try_from(changed).unwrap_or_default().strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    for number in 1.. {
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{changed}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        let kept = path.with_file_name(name);
        if !kept.try_exists()? {
            fs::rename(path, &kept)?;
            return Ok(Some(kept));
        }
    }
    Ok(None)
}
