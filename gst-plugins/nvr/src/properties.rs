//! Properties that several elements have.

use gst::glib;
use gst::prelude::*;

type Text = &'static str;

/// Seconds, up to a day, that can change while playing.
pub fn seconds(name: Text, nick: Text, blurb: Text, default: f64) -> glib::ParamSpec {
    glib::ParamSpecDouble::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(0.0)
        .maximum(86_400.0)
        .default_value(default)
        .mutable_playing()
        .build()
}

/// A share of something, a confidence for one, that can change while playing.
pub fn share(name: Text, nick: Text, blurb: Text, default: f32) -> glib::ParamSpec {
    glib::ParamSpecFloat::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(0.0)
        .maximum(1.0)
        .default_value(default)
        .mutable_playing()
        .build()
}

/// Yes or no, which can change while playing.
pub fn switch(name: Text, nick: Text, blurb: Text, default: bool) -> glib::ParamSpec {
    glib::ParamSpecBoolean::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_playing()
        .build()
}

/// Bytes, or seconds without an upper limit, that can change while playing.
pub fn amount(name: Text, nick: Text, blurb: Text, default: u64) -> glib::ParamSpec {
    glib::ParamSpecUInt64::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_playing()
        .build()
}

/// Text, a place for one, that stays while the element runs.
pub fn text(name: Text, nick: Text, blurb: Text, default: Option<Text>) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_ready()
        .build()
}

/// The camera's number.
pub fn source_id(blurb: Text) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder("source-id").nick("Source id").blurb(blurb).mutable_ready().build()
}

/// The process's name.
pub fn instance_id() -> glib::ParamSpec {
    glib::ParamSpecString::builder("instance-id")
        .nick("Instance id")
        .blurb("Name of this process in the events (default: made from host name and process id)")
        .mutable_playing()
        .build()
}

/// The counters.
pub fn stats(blurb: Text) -> glib::ParamSpec {
    glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
        .nick("Statistics")
        .blurb(blurb)
        .read_only()
        .build()
}
