//! `nvrtrack`: follows objects from frame to frame.

mod imp;
#[cfg(test)]
mod tests;

use gst::glib;
use gst::prelude::*;

/// How boxes and tracks find each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrTrackAlgorithm")]
pub enum Algorithm {
    #[default]
    #[enum_value(name = "Predicted motion, confident boxes first, then doubtful ones", nick = "bytetrack")]
    ByteTrack,
    #[enum_value(name = "Overlap with where the object was last seen", nick = "iou")]
    Iou,
}

glib::wrapper! {
    pub struct NvrTrack(ObjectSubclass<imp::NvrTrack>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Algorithm::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "nvrtrack", gst::Rank::NONE, NvrTrack::static_type())
}
