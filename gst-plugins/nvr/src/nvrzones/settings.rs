//! What the user asked for: properties, their ranges and defaults.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use nvr_core::alert::{self, Rule};
use nvr_core::lifecycle::Params;
use nvr_core::zones::{self, Zone};

use crate::mqtt::{self, BrokerSettings};

/// A property that is text and means something: what was accepted last, and why the newest was not.
#[derive(Clone, Debug)]
pub struct Parsed<T> {
    pub text: String,
    pub value: T,
    pub error: Option<String>,
}

impl<T: Default> Default for Parsed<T> {
    fn default() -> Self {
        Self { text: String::new(), value: T::default(), error: None }
    }
}

impl<T> Parsed<T> {
    /// Takes the text over, or keeps what there is; the error in words.
    fn set(&mut self, text: String, parsed: Result<T, String>) -> Option<String> {
        match parsed {
            Ok(value) => *self = Self { text, value, error: None },
            Err(error) => self.error = Some(error),
        }
        self.error.clone()
    }
}

#[derive(Clone)]
pub struct Settings {
    pub broker: BrokerSettings,
    pub source_id: u32,
    pub instance_id: Arc<str>,
    pub zones: Parsed<Arc<[Zone]>>,
    pub rules: Parsed<Arc<[Arc<Rule>]>>,
    pub params: Params,
    pub publish: bool,
    pub snapshots: bool,
    pub heatmap: Option<PathBuf>,
    pub enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: BrokerSettings::default(),
            source_id: 0,
            instance_id: mqtt::default_instance_id().into(),
            zones: Parsed::default(),
            rules: Parsed::default(),
            params: Params::default(),
            publish: true,
            snapshots: false,
            heatmap: None,
            enabled: true,
        }
    }
}

impl Settings {
    /// Sets a property. Why a text is not used, in words.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> Option<String> {
        const CHECKED: &str = "the type is checked by GObject";
        if self.broker.set(value, pspec) {
            return None;
        }
        let text = || value.get::<Option<String>>().expect(CHECKED).unwrap_or_default();
        match pspec.name() {
            "source-id" => self.source_id = value.get().expect(CHECKED),
            "instance-id" => {
                let id = text();
                self.instance_id = if id.is_empty() { mqtt::default_instance_id().into() } else { id.into() };
            }
            "zones" => {
                let parsed = zones::parse(&text()).map(Arc::from).map_err(|error| error.to_string());
                return self.zones.set(text(), parsed);
            }
            "rules" => {
                let parsed = alert::parse(&text()).map(Arc::from).map_err(|error| error.to_string());
                return self.rules.set(text(), parsed);
            }
            "min-score" => self.params.min_score = value.get().expect(CHECKED),
            "min-seen" => self.params.min_seen = value.get().expect(CHECKED),
            "update-interval" => self.params.update_interval = value.get().expect(CHECKED),
            "gone-after" => self.params.gone = value.get().expect(CHECKED),
            "publish" => self.publish = value.get().expect(CHECKED),
            "snapshots" => self.snapshots = value.get().expect(CHECKED),
            "heatmap" => self.heatmap = Some(text()).filter(|text| !text.is_empty()).map(PathBuf::from),
            "enabled" => self.enabled = value.get().expect(CHECKED),
            name => unreachable!("no property {name}"),
        }
        None
    }

    pub fn get(&self, pspec: &glib::ParamSpec) -> glib::Value {
        if let Some(value) = self.broker.get(pspec) {
            return value;
        }
        match pspec.name() {
            "source-id" => self.source_id.to_value(),
            "instance-id" => (*self.instance_id).to_value(),
            "zones" => self.zones.text.to_value(),
            "min-score" => self.params.min_score.to_value(),
            "min-seen" => self.params.min_seen.to_value(),
            "update-interval" => self.params.update_interval.to_value(),
            "gone-after" => self.params.gone.to_value(),
            "publish" => self.publish.to_value(),
            "snapshots" => self.snapshots.to_value(),
            "heatmap" => self.heatmap.as_ref().map(|path| path.display().to_string()).to_value(),
            "enabled" => self.enabled.to_value(),
            name => unreachable!("no property {name} that can be read"),
        }
    }
}

/// The element's properties.
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let params = defaults.params;
    let mut list = BrokerSettings::properties();
    let seconds = |name, nick, blurb, default| {
        glib::ParamSpecDouble::builder(name)
            .nick(nick)
            .blurb(blurb)
            .minimum(0.0)
            .maximum(86_400.0)
            .default_value(default)
            .mutable_playing()
            .build()
    };
    let switch = |name, nick, blurb, default| {
        glib::ParamSpecBoolean::builder(name)
            .nick(nick)
            .blurb(blurb)
            .default_value(default)
            .mutable_playing()
            .build()
    };
    list.extend([
        glib::ParamSpecUInt::builder("source-id")
            .nick("Source id")
            .blurb("Number of the camera: the last part of the topics")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("instance-id")
            .nick("Instance id")
            .blurb("Name of this process in the events (default: made from host name and process id)")
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("zones")
            .nick("Zones")
            .blurb("JSON array of zones and lines; see the element's documentation")
            .default_value(Some(""))
            .mutable_playing()
            .build(),
        // Addresses and command lines hold secrets: what is set here is not read back.
        glib::ParamSpecString::builder("rules")
            .nick("Alert rules")
            .blurb("JSON array of alert rules; see the element's documentation. Cannot be read: it may hold secrets")
            .default_value(Some(""))
            .flags(glib::ParamFlags::WRITABLE)
            .mutable_ready()
            .build(),
        glib::ParamSpecFloat::builder("min-score")
            .nick("Least score")
            .blurb("Median confidence from which a track is an object that events are about")
            .minimum(0.0)
            .maximum(1.0)
            .default_value(params.min_score)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("min-seen")
            .nick("Least sightings")
            .blurb("Sightings that a track needs to be an object")
            .minimum(1)
            .maximum(1000)
            .default_value(params.min_seen)
            .mutable_playing()
            .build(),
        seconds(
            "update-interval",
            "Update interval",
            "Seconds between two updates of an object; 0 = only when it enters or leaves a zone",
            params.update_interval,
        ),
        seconds(
            "gone-after",
            "Gone after",
            "Seconds without a sighting after which an object is gone; longer than nvrtrack looks for it",
            params.gone,
        ),
        switch("publish", "Publish", "Whether events go to the broker; messages are posted always", true),
        switch("snapshots", "Snapshots", "Whether the best view of each object is published as JPEG", false),
        glib::ParamSpecString::builder("heatmap")
            .nick("Heat map")
            .blurb("Directory for pictures of where objects are, one for each camera and day (default: none)")
            .mutable_ready()
            .build(),
        switch("enabled", "Enabled", "Whether objects are watched; off ends their lives", true),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the start; see the element's documentation")
            .read_only()
            .build(),
    ]);
    list
});
