//! `nvrcontrol`: commands from MQTT for the pipeline it stands in, with answers, status and metrics.

mod actions;
mod announce;
mod imp;
mod listener;
mod models;
mod recorders;
mod surroundings;
#[cfg(test)]
mod tests;
mod worker;

use gst::{glib, prelude::*};

pub use models::{ModelWatch, models};

/// Signal that offers a command to the application, see the element's documentation.
pub const SIGNAL_COMMAND: &str = "command";
/// Signal that asks the application for its part of the status.
pub const SIGNAL_DESCRIBE: &str = "describe";
/// Element message: whether the instance id is this process's.
pub const IDENTITY_MESSAGE: &str = "nvr-control-identity";

glib::wrapper! {
    pub struct NvrControl(ObjectSubclass<imp::NvrControl>) @extends gst::Element, gst::Object;
}

impl NvrControl {
    /// Has the status published anew: the application knows something that has changed.
    pub fn announce(&self) {
        use gst::subclass::prelude::ObjectSubclassIsExt;
        self.imp().announce();
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nvrcontrol", gst::Rank::NONE, NvrControl::static_type())
}
