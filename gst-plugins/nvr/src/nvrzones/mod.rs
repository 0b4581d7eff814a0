//! `nvrzones`: zones, lines, the lives of objects, alerts.

mod heat;
mod imp;
mod notify;
mod settings;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrzones", gst::DebugColorFlags::empty(), Some("NVR zones and events"))
});

glib::wrapper! {
    pub struct NvrZones(ObjectSubclass<imp::NvrZones>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nvrzones", gst::Rank::NONE, NvrZones::static_type())
}
