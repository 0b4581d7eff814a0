//! `nvrmotion`: says whether and where anything moves.

mod imp;
#[cfg(test)]
mod tests;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    pub struct NvrMotion(ObjectSubclass<imp::NvrMotion>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nvrmotion", gst::Rank::NONE, NvrMotion::static_type())
}
