//! `nvroverlay`: shows detections on video.

mod caps;
mod ear;
mod imp;
mod line;
mod painter;
mod settings;

use gst::glib;
use gst::prelude::*;

/// Where detections come from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "NvrOverlaySource")]
pub enum Source {
    #[default]
    #[enum_value(name = "Events from the MQTT broker", nick = "mqtt")]
    Mqtt,
    #[enum_value(name = "Metadata on the frames", nick = "meta")]
    Meta,
    #[enum_value(name = "Both", nick = "both")]
    Both,
}

impl Source {
    fn mqtt(self) -> bool {
        self != Self::Meta
    }

    fn meta(self) -> bool {
        self != Self::Mqtt
    }
}

/// Which event goes with a frame.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "NvrOverlaySync")]
pub enum Sync {
    #[default]
    #[enum_value(name = "The newest, for as long as it is younger than ttl", nick = "latest")]
    Latest,
    #[enum_value(
        name = "The one that was made from it, for which it waits up to max-wait",
        nick = "timestamp"
    )]
    Timestamp,
}

glib::wrapper! {
    pub struct NvrOverlay(ObjectSubclass<imp::NvrOverlay>) @extends gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Source::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    Sync::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "nvroverlay", gst::Rank::NONE, NvrOverlay::static_type())
}

#[cfg(test)]
mod tests;
