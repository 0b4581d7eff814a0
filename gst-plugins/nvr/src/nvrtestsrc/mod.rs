//! A camera for demos and tests.

use gst::glib;
use gst::prelude::*;

mod imp;
#[cfg(test)]
mod tests;

/// Where the scene plays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrTestSrcScene")]
pub enum NvrTestSrcScene {
    #[default]
    #[enum_value(name = "Yard: grass, a drive, a fence; people, dogs and cars", nick = "yard")]
    Yard = 0,
    #[enum_value(name = "Street: two lanes, two pavements; people, dogs and more cars", nick = "street")]
    Street = 1,
    #[enum_value(name = "Room: a living room; people and dogs", nick = "room")]
    Room = 2,
}

glib::wrapper! {
    pub struct NvrTestSrc(ObjectSubclass<imp::NvrTestSrc>)
        @extends gst_base::BaseSrc, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    NvrTestSrcScene::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "nvrtestsrc", gst::Rank::NONE, NvrTestSrc::static_type())
}
