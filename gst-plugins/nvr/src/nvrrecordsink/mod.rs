//! The recorder: coded video and audio into files that play at any moment, and a catalogue of them.

pub mod catalog;
pub mod checksum;
mod ear;
mod file;
mod imp;
mod inbox;
pub mod tiers;
mod tracks;
pub mod volume;
mod worker;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    pub struct NvrRecordSink(ObjectSubclass<imp::NvrRecordSink>) @extends gst::Element, gst::Object;
}

/// When to record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "NvrRecordMode")]
pub enum Mode {
    #[default]
    #[enum_value(name = "Continuous: always", nick = "continuous")]
    Continuous,
    #[enum_value(name = "Events: around detections that the broker tells of", nick = "events")]
    Events,
    #[enum_value(name = "Off: nothing", nick = "off")]
    Off,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Mode::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "nvrrecordsink", gst::Rank::NONE, NvrRecordSink::static_type())
}
