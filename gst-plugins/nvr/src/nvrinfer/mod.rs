//! `nvrinfer`: object detection on raw video, as metadata.

mod engine;
mod exit;
mod imp;
mod model_files;
mod notices;
mod registry;
mod runtime;
mod session;
mod settings;
mod state;
mod stats;
mod swap;
mod tensor;

use std::{borrow::Cow, sync::LazyLock};

use gst::{glib, prelude::*};

use model_files::FileError;
pub use settings::{Device, Gate, Mode, ModelTypeChoice};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrinfer", gst::DebugColorFlags::empty(), Some("NVR object detection"))
});

glib::wrapper! {
    pub struct NvrInfer(ObjectSubclass<imp::NvrInfer>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Text that a model file may have had a part in, fit for messages: GLib's strings end at a NUL, and terminals obey
/// control characters.
fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether the property `model` may have this value here: the file of that path is there, and what stands beside it
/// and in `labels-file` is right. The model itself is not opened. A name that is not found is no error: in which
/// folders it is looked up depends on who runs the program.
///
/// # Errors
/// What the element would say at its start.
pub fn check_model(model: &str, labels_file: Option<&str>) -> Result<(), String> {
    let source = match model_files::find(model, &model_files::data_directories()) {
        Err(FileError::NotFound { .. }) => return Ok(()),
        found => found.map_err(|error| error.to_string())?,
    };
    model_files::hints(&source, None, labels_file).map(drop).map_err(|error| error.to_string())
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for enumeration in
        [Device::static_type(), Gate::static_type(), Mode::static_type(), ModelTypeChoice::static_type()]
    {
        enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(Some(plugin), "nvrinfer", gst::Rank::NONE, NvrInfer::static_type())
}
