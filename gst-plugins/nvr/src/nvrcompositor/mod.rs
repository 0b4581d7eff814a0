//! The video wall.

use gst::glib;
use gst::prelude::*;
use nvr_core::layout;

mod canvas;
mod device;
mod devices;
mod imp;
mod mixer;
mod navigation;
mod pad;
mod paint;
mod scene;
mod settings;
#[cfg(test)]
mod tests;
mod tile;
mod view;

pub use pad::NvrCompositorPad;

/// Who draws the wall.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrCompositorBackend")]
pub enum NvrCompositorBackend {
    #[default]
    #[enum_value(name = "Auto: where the cameras' pictures are, the processor else", nick = "auto")]
    Auto = 0,
    #[enum_value(name = "CPU: the processor, in system memory", nick = "cpu")]
    Cpu = 1,
    #[enum_value(name = "GL: OpenGL, in GLMemory", nick = "gl")]
    Gl = 2,
    #[enum_value(name = "VA: VA-API, in VAMemory", nick = "va")]
    Va = 3,
    #[enum_value(name = "CUDA: in CUDAMemory", nick = "cuda")]
    Cuda = 4,
}

impl NvrCompositorBackend {
    /// The one that was asked for; `None` where that is left open.
    fn fixed(self) -> Option<layout::Backend> {
        match self {
            Self::Auto => None,
            Self::Cpu => Some(layout::Backend::Cpu),
            Self::Gl => Some(layout::Backend::Gl),
            Self::Va => Some(layout::Backend::Va),
            Self::Cuda => Some(layout::Backend::Cuda),
        }
    }
}

/// How the tiles are arranged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrCompositorLayout")]
pub enum NvrCompositorLayout {
    #[default]
    #[enum_value(name = "Grid: all of one size", nick = "grid")]
    Grid = 0,
    #[enum_value(name = "Focus: one large, the others around it", nick = "focus")]
    Focus = 1,
    #[enum_value(name = "Custom: where the pads say", nick = "custom")]
    Custom = 2,
}

impl From<NvrCompositorLayout> for layout::Layout {
    fn from(layout: NvrCompositorLayout) -> Self {
        match layout {
            NvrCompositorLayout::Grid => Self::Grid,
            NvrCompositorLayout::Focus => Self::Focus,
            NvrCompositorLayout::Custom => Self::Custom,
        }
    }
}

/// How a picture fills a tile of another shape.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrCompositorFit")]
pub enum NvrCompositorFit {
    #[default]
    #[enum_value(name = "Letterbox: all of the picture, with bars", nick = "letterbox")]
    Letterbox = 0,
    #[enum_value(name = "Crop: the middle of the picture, no bars", nick = "crop")]
    Crop = 1,
    #[enum_value(name = "Stretch: all of the picture, distorted", nick = "stretch")]
    Stretch = 2,
}

impl From<NvrCompositorFit> for layout::Fit {
    fn from(fit: NvrCompositorFit) -> Self {
        match fit {
            NvrCompositorFit::Letterbox => Self::Letterbox,
            NvrCompositorFit::Crop => Self::Crop,
            NvrCompositorFit::Stretch => Self::Stretch,
        }
    }
}

glib::wrapper! {
    pub struct NvrCompositor(ObjectSubclass<imp::NvrCompositor>)
        @extends gst_base::Aggregator, gst::Element, gst::Object, @implements gst::ChildProxy;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let none = gst::PluginAPIFlags::empty();
    NvrCompositorBackend::static_type().mark_as_plugin_api(none);
    NvrCompositorLayout::static_type().mark_as_plugin_api(none);
    NvrCompositorFit::static_type().mark_as_plugin_api(none);
    NvrCompositorPad::static_type().mark_as_plugin_api(none);
    gst::Element::register(Some(plugin), "nvrcompositor", gst::Rank::NONE, NvrCompositor::static_type())
}
