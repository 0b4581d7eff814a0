//! What the user asked for.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use nvr_core::overlay::{Filter, Style};

use super::{Source, Sync};
use crate::mqtt::BrokerSettings;
use crate::properties::switch;

const DEFAULT_MAX_WAIT_MS: u32 = 300;
const DEFAULT_TTL_MS: u32 = 1000;
const DEFAULT_TRAIL_MS: u32 = 1500;

/// Pictures are made anew when `look` is another one than before.
#[derive(Clone, Debug)]
pub struct Settings {
    pub broker: BrokerSettings,
    pub source_id: u32,
    pub source: Source,
    pub sync: Sync,
    max_wait_ms: u32,
    ttl_ms: u32,
    instance_filter: String,
    model_filter: String,
    pub look: Arc<Look>,
}

/// What decides how an event looks, and which are shown.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub style: Style,
    pub filter: Filter,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: BrokerSettings::default(),
            source_id: 0,
            source: Source::default(),
            sync: Sync::default(),
            max_wait_ms: DEFAULT_MAX_WAIT_MS,
            ttl_ms: DEFAULT_TTL_MS,
            instance_filter: String::new(),
            model_filter: String::new(),
            look: Arc::default(),
        }
    }
}

impl Settings {
    /// How long a frame may wait for its event.
    pub fn delay(&self) -> Duration {
        if self.sync == Sync::Timestamp && self.source.mqtt() {
            Duration::from_millis(self.max_wait_ms.into())
        } else {
            Duration::ZERO
        }
    }

    pub fn ttl_ns(&self) -> u64 {
        u64::from(self.ttl_ms) * 1_000_000
    }

    pub fn properties() -> Vec<glib::ParamSpec> {
        let default = Style::default();
        let text = |name, nick, blurb| {
            glib::ParamSpecString::builder(name)
                .nick(nick)
                .blurb(blurb)
                .default_value(Some(""))
                .mutable_playing()
                .build()
        };
        let number = |name, nick, blurb, maximum, default| {
            glib::ParamSpecUInt::builder(name)
                .nick(nick)
                .blurb(blurb)
                .maximum(maximum)
                .default_value(default)
                .mutable_playing()
                .build()
        };
        let mut list = BrokerSettings::properties();
        list.extend([
            number(
                "source-id",
                "Source id",
                "Number of the camera: the last part of the topic that is listened to",
                u32::MAX,
                0,
            ),
            glib::ParamSpecEnum::builder::<Source>("source")
                .nick("Source")
                .blurb("Where detections come from")
                .mutable_playing()
                .build(),
            glib::ParamSpecEnum::builder::<Sync>("sync")
                .nick("Sync")
                .blurb("Which event goes with a frame")
                .mutable_playing()
                .build(),
            number(
                "max-wait",
                "Maximum wait",
                "Milliseconds that sync=timestamp may delay video; part of the answer to LATENCY",
                10_000,
                DEFAULT_MAX_WAIT_MS,
            ),
            number(
                "ttl",
                "Time to live",
                "Milliseconds for which an event is shown where no newer one takes its place",
                60_000,
                DEFAULT_TTL_MS,
            ),
            text(
                "instance-filter",
                "Instance filter",
                "Instances whose events are shown, separated by commas, * for any characters (empty: all)",
            ),
            text(
                "model-filter",
                "Model filter",
                "Models whose events are shown, separated by commas, * for any characters (empty: all)",
            ),
            switch("show-labels", "Show labels", "Whether boxes have the names of their classes", default.labels),
            switch("show-confidence", "Show confidence", "Whether boxes have their confidence", default.confidence),
            switch("show-tracks", "Show tracks", "Whether boxes have track numbers and trails", default.tracks),
            switch(
                "show-latency",
                "Show latency",
                "Whether the time from capture to event is shown, per model",
                default.latency,
            ),
            switch("show-fps", "Show rate", "Whether the rate of analysed frames is shown, per model", default.fps),
            number(
                "trail",
                "Trail",
                "Milliseconds that the trail of a track reaches back (0: no trail)",
                10_000,
                DEFAULT_TRAIL_MS,
            ),
            number("box-thickness", "Box thickness", "Pixels of a box's line (0: what suits the frame)", 64, 0),
            number("font-size", "Font size", "Pixels per em of the text (0: what suits the frame)", 256, 0),
            text(
                "class-colors",
                "Class colours",
                "Colours of classes, as in person=#e69f00,car=#56b4e9 (others: a palette for colour-blind eyes)",
            ),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Counters since the start")
                .read_only()
                .build(),
        ]);
        list
    }

    /// Sets a property; the error says what is wrong with its value, and then nothing has changed.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> Result<(), String> {
        if self.broker.set(value, pspec) {
            return Ok(());
        }
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        let number = || value.get::<u32>().unwrap_or_default();
        let switch = || value.get::<bool>().unwrap_or_default();
        match pspec.name() {
            "source-id" => self.source_id = number(),
            "source" => self.source = value.get().unwrap_or_default(),
            "sync" => self.sync = value.get().unwrap_or_default(),
            "max-wait" => self.max_wait_ms = number(),
            "ttl" => self.ttl_ms = number(),
            name => {
                let look = Arc::make_mut(&mut self.look);
                let style = &mut look.style;
                match name {
                    "instance-filter" => {
                        self.instance_filter = text();
                        look.filter = Filter::new(&self.instance_filter, &self.model_filter);
                    }
                    "model-filter" => {
                        self.model_filter = text();
                        look.filter = Filter::new(&self.instance_filter, &self.model_filter);
                    }
                    "show-labels" => style.labels = switch(),
                    "show-confidence" => style.confidence = switch(),
                    "show-tracks" => style.tracks = switch(),
                    "show-latency" => style.latency = switch(),
                    "show-fps" => style.fps = switch(),
                    "trail" => style.trail_ns = u64::from(number()) * 1_000_000,
                    "box-thickness" => style.thickness = Some(number()).filter(|n| *n > 0),
                    "font-size" => style.font_size = Some(number()).filter(|n| *n > 0).map(|n| n as f32),
                    "class-colors" => {
                        style.colours =
                            text().parse().map_err(|e| format!("property `class-colors`: {e}"))?;
                    }
                    name => return Err(format!("no property {name} to set")),
                }
            }
        }
        Ok(())
    }

    pub fn get(&self, pspec: &glib::ParamSpec) -> glib::Value {
        if let Some(value) = self.broker.get(pspec) {
            return value;
        }
        let style = &self.look.style;
        match pspec.name() {
            "source-id" => self.source_id.to_value(),
            "source" => self.source.to_value(),
            "sync" => self.sync.to_value(),
            "max-wait" => self.max_wait_ms.to_value(),
            "ttl" => self.ttl_ms.to_value(),
            "instance-filter" => self.instance_filter.to_value(),
            "model-filter" => self.model_filter.to_value(),
            "show-labels" => style.labels.to_value(),
            "show-confidence" => style.confidence.to_value(),
            "show-tracks" => style.tracks.to_value(),
            "show-latency" => style.latency.to_value(),
            "show-fps" => style.fps.to_value(),
            "trail" => ((style.trail_ns / 1_000_000) as u32).to_value(),
            "box-thickness" => style.thickness.unwrap_or_default().to_value(),
            "font-size" => (style.font_size.unwrap_or_default() as u32).to_value(),
            "class-colors" => style.colours.to_string().to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(Settings::properties);
