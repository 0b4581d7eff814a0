//! `nvrsrc`: a camera as one element that never gives up. `imp.rs` has the documentation of the element.

mod address;
mod codec;
mod flow;
mod gate;
mod imp;
mod outlet;
mod session;
mod tap;
mod worker;

use gst::{glib, prelude::*};

glib::wrapper! {
    pub struct NvrSrc(ObjectSubclass<imp::NvrSrc>) @extends gst::Element, gst::Object;
}

/// Which decoders may be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "GstNvrSrcHwaccel")]
#[repr(i32)]
pub enum Hwaccel {
    #[default]
    #[enum_value(name = "Auto: hardware where it works, software else", nick = "auto")]
    Auto,
    #[enum_value(name = "None: software decoders only", nick = "none")]
    None,
    #[enum_value(name = "VA: VA-API", nick = "va")]
    Va,
    #[enum_value(name = "NVDEC: NVIDIA", nick = "nvdec")]
    Nvdec,
    #[enum_value(name = "V4L2: stateful and stateless V4L2 decoders", nick = "v4l2")]
    V4l2,
}

/// Which frames reach the decoder.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "GstNvrSrcDecode")]
#[repr(i32)]
pub enum Decode {
    #[default]
    #[enum_value(name = "Auto: keyframes only where they come often enough for max-fps", nick = "auto")]
    Auto,
    #[enum_value(name = "All: every frame that max-fps may need", nick = "all")]
    All,
    #[enum_value(name = "Keyframes: nothing else", nick = "keyframes")]
    Keyframes,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nvrsrc", gst::Rank::NONE, NvrSrc::static_type())
}
