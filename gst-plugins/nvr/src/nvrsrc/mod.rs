//! `nvrsrc`: a camera as one element that never gives up. `imp.rs` has the documentation of the element.

#[doc(hidden)]
pub mod address;
mod branch;
mod codec;
mod flow;
mod gate;
mod hold;
mod imp;
mod lane;
mod light;
mod login;
mod outlet;
mod pads;
mod parts;
mod session;
mod sources;
mod tap;
mod worker;

use gst::{glib, prelude::*};

pub use lane::NEVER_WAITS;

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
    #[enum_value(name = "None: no decoder is loaded, the pad video stays silent", nick = "none")]
    None,
}

/// What receives RTSP.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "GstNvrSrcReceiver")]
#[repr(i32)]
pub enum Receiver {
    #[default]
    #[enum_value(name = "Auto: light over TCP without TLS, rtspsrc else", nick = "auto")]
    Auto,
    #[enum_value(
        name = "Rtspsrc: GStreamer's element, with threads of its own for each camera",
        nick = "rtspsrc"
    )]
    Rtspsrc,
    #[enum_value(name = "Light: one thread for all cameras of the process, and nothing else", nick = "light")]
    Light,
}

/// How a camera's certificate is checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "GstNvrSrcTlsValidation")]
#[repr(i32)]
pub enum TlsValidation {
    #[default]
    #[enum_value(
        name = "Full: signed by an authority that this machine trusts, for this name, and valid now",
        nick = "full"
    )]
    Full,
    #[enum_value(name = "None: any certificate; whoever is on the way can read along", nick = "none")]
    None,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nvrsrc", gst::Rank::NONE, NvrSrc::static_type())
}
