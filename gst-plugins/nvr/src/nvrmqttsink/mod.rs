//! `nvrmqttsink`: publishes what was detected.

mod imp;
mod outlet;
mod spool;
mod spooler;

use gst::glib;
use gst::prelude::*;

/// How events are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "NvrMqttSinkPayload")]
pub enum Payload {
    #[default]
    #[enum_value(name = "JSON", nick = "json")]
    Json,
    #[enum_value(name = "MessagePack, with the keys of the JSON", nick = "msgpack")]
    Msgpack,
    #[enum_value(name = "The JSON of Intel DL Streamer's gvametaconvert", nick = "dlstreamer")]
    DlStreamer,
}

/// Which frames become events.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "NvrMqttSinkPublish")]
pub enum Publish {
    #[default]
    #[enum_value(name = "Every analysed frame, also where nothing was found", nick = "all")]
    All,
    #[enum_value(name = "Frames with at least one detection", nick = "detections-only")]
    DetectionsOnly,
}

glib::wrapper! {
    pub struct NvrMqttSink(ObjectSubclass<imp::NvrMqttSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Payload::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    Publish::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "nvrmqttsink", gst::Rank::NONE, NvrMqttSink::static_type())
}

#[cfg(test)]
mod tests;
