//! What the user asked for: properties, their ranges and defaults.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use nvr_core::alert::{self, Rule};
use nvr_core::lifecycle::Params;
use nvr_core::topic;
use nvr_core::zones::{self, Zone};

use crate::mqtt::{self, BrokerSettings};
use crate::properties;

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
    /// Takes the text over, or keeps what there is; the error in words. One that changes nothing, since the element is
    /// `started`, must not keep the next start from working.
    fn set(&mut self, (text, parsed): Read<T>, started: bool) -> Option<String> {
        match parsed {
            Ok(value) => {
                *self = Self { text, value, error: None };
                None
            }
            Err(error) => {
                self.error = Some(error.clone()).filter(|_| !started);
                Some(error)
            }
        }
    }
}

type Read<T> = (String, Result<T, String>);

/// A property that is text and has been read, which takes a while and needs no lock.
pub enum Text {
    Zones(Read<Arc<[Zone]>>),
    Rules(Read<Arc<[Arc<Rule>]>>),
    InstanceId(Result<Arc<str>, String>),
}

impl Text {
    /// `None` where it is none of these.
    pub fn read(value: &glib::Value, pspec: &glib::ParamSpec) -> Option<Self> {
        let text = || value.get::<Option<String>>().expect(CHECKED).unwrap_or_default();
        Some(match pspec.name() {
            "zones" => {
                let text = text();
                let zones = zones::parse(&text).map(Arc::from).map_err(|error| error.to_string());
                Self::Zones((text, zones))
            }
            "rules" => {
                let text = text();
                let rules = alert::parse(&text).map(Arc::from).map_err(|error| error.to_string());
                Self::Rules((text, rules))
            }
            "instance-id" => Self::InstanceId(match text() {
                id if id.is_empty() => Ok(mqtt::default_instance_id().into()),
                id => topic::check_instance_id(&id).map(|()| id.into()).map_err(|error| error.to_string()),
            }),
            _ => return None,
        })
    }
}

const CHECKED: &str = "the type is checked by GObject";

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
    /// Sets a property that is text. Why it is not used, in words.
    pub fn take(&mut self, text: Text, started: bool) -> Option<String> {
        match text {
            Text::Zones(read) => self.zones.set(read, started),
            Text::Rules(read) => self.rules.set(read, started),
            Text::InstanceId(Ok(id)) => {
                self.instance_id = id;
                None
            }
            Text::InstanceId(Err(error)) => Some(error),
        }
    }

    /// Sets any other property.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) {
        if self.broker.set(value, pspec) {
            return;
        }
        match pspec.name() {
            "source-id" => self.source_id = value.get().expect(CHECKED),
            "min-score" => self.params.min_score = value.get().expect(CHECKED),
            "min-seen" => self.params.min_seen = value.get().expect(CHECKED),
            "update-interval" => self.params.update_interval = value.get().expect(CHECKED),
            "gone-after" => self.params.gone = value.get().expect(CHECKED),
            "publish" => self.publish = value.get().expect(CHECKED),
            "snapshots" => self.snapshots = value.get().expect(CHECKED),
            "heatmap" => {
                let folder = value.get::<Option<String>>().expect(CHECKED);
                self.heatmap = folder.filter(|text| !text.is_empty()).map(PathBuf::from);
            }
            "enabled" => self.enabled = value.get().expect(CHECKED),
            name => unreachable!("no property {name}"),
        }
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
    list.extend([
        properties::source_id("Number of the camera: the last part of the topics"),
        properties::instance_id(),
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
        properties::share(
            "min-score",
            "Least score",
            "Median confidence from which a track is an object that events are about",
            params.min_score,
        ),
        glib::ParamSpecUInt::builder("min-seen")
            .nick("Least sightings")
            .blurb("Sightings that a track needs to be an object")
            .minimum(1)
            .maximum(1000)
            .default_value(params.min_seen)
            .mutable_playing()
            .build(),
        properties::seconds(
            "update-interval",
            "Update interval",
            "Seconds between two updates of an object; 0 = only when it enters or leaves a zone",
            params.update_interval,
        ),
        properties::seconds(
            "gone-after",
            "Gone after",
            "Seconds without a sighting after which an object is gone; longer than nvrtrack looks for it",
            params.gone,
        ),
        properties::switch("publish", "Publish", "Whether events go to the broker; messages are posted always", true),
        properties::switch("snapshots", "Snapshots", "Whether the best view of each object is published as JPEG", false),
        glib::ParamSpecString::builder("heatmap")
            .nick("Heat map")
            .blurb("Directory for pictures of where objects are, one for each camera and day (default: none)")
            .mutable_ready()
            .build(),
        properties::switch("enabled", "Enabled", "Whether objects are watched; off ends their lives", true),
        properties::stats("Counters since the start; see the element's documentation"),
    ]);
    list
});
