//! # nvrcontrol
//!
//! Takes commands from `{topic-prefix}/control/commands` and carries them out in the pipeline that it stands in,
//! whichever that is; it has no pads. Every command that is addressed to this instance is answered on
//! `{topic-prefix}/control/status/ack`. The status is retained on `{topic-prefix}/control/status/{instance-id}`, with
//! a last will; metrics are published every ten seconds on `{topic-prefix}/status/metrics/{instance-id}`.
//!
//! By itself it does what needs no new elements: `status`, `metrics`, `pause`, `resume`, `set_fps`, `set_confidence`,
//! `change_model`, `enable_tracking`, `set` and `reconfigure` of these, `batch` of these, `rename_instance`, and of
//! recorders `start_recording`, `stop_recording` and `save_clip`. It finds `nvrinfer`, `nvrtrack`, `nvrmqttsink`,
//! `nvrrecordsink` and `nvrsrc` anywhere in the pipeline, and sets their properties. What fails is undone, and the
//! answer says why. What was asked of a recorder holds also for the one that takes its place in a branch that is built
//! anew. `save_clip` is answered when the clip is finished; other commands are carried out meanwhile.
//!
//! Everything else needs an application: the signal `command` offers it every command but `status` and `metrics`, with
//! the name and the params as JSON text. The signal is emitted on a thread of this element that may be held up for as
//! long as the command takes; further commands wait. The application returns
//!
//! - NULL where the command is none of its business: then the element does what it can itself;
//! - a JSON object: `{}` where the command was carried out, `{"error": "why"}` where it failed and everything is as
//!   before; other keys are passed on as the answer's `result`.
//!
//! What the params say, anybody may have said who may publish on the topic. By itself the element sets the properties
//! named above and no others; an application had better take no paths, programs or addresses from params either, but
//! those that it knows to be harmless.
//!
//! The signal `describe` asks for the application's part of the status: a JSON object that may hold `parameters`,
//! `streams` and, until everything runs, `"starting": true`; or NULL. What it says of a stream goes before what the
//! element finds.
//!
//! Two processes with one `instance-id`: the second one posts an error and touches nothing of the first.
//!
//! Messages (`nvr-control-identity`): `identity` is `owner` when the instance id is this process's, `unreachable` where
//! the broker could not be asked. The pipeline runs in both cases.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 nvrtestsrc is-live=true ! nvrinfer model=demo ! nvrmqttsink source-id=0 \
//!     nvrcontrol instance-id=demo broker=mqtt://localhost:1883
//! ```
//!
//! Property `stats` (structure `nvrcontrol-stats`): `received` commands that were addressed to this instance,
//! `completed`, `failed`, `ignored` ones for others, `malformed` payloads with nobody to answer, `limited` by
//! `max-rate`, `queued` now, `connected`, `reconnects`.

use std::sync::{Arc, LazyLock};

use gst::{glib, prelude::*, subclass::prelude::*};
use nvr_core::command::{DEFAULT_SCHEMES, Policy};
use parking_lot::Mutex;

use super::{SIGNAL_COMMAND, SIGNAL_DESCRIBE, announce::Shared, listener::Running};
use crate::{
    mqtt::{BrokerSettings, default_instance_id},
    properties::text,
};

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrcontrol", gst::DebugColorFlags::empty(), Some("NVR control plane"))
});

const DEFAULT_MAX_RATE: f64 = 50.0;

/// What the user asked for.
#[derive(Clone)]
pub struct Settings {
    pub broker: BrokerSettings,
    pub instance_id: String,
    pub kind: String,
    pub enabled_commands: String,
    pub uri_schemes: String,
    pub max_rate: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: BrokerSettings::default(),
            instance_id: default_instance_id().into(),
            kind: "pipeline".into(),
            enabled_commands: "all".into(),
            uri_schemes: DEFAULT_SCHEMES.into(),
            max_rate: DEFAULT_MAX_RATE,
        }
    }
}

/// Lock order: none is taken while another is held.
#[derive(Default)]
pub struct NvrControl {
    settings: Mutex<Settings>,
    /// From READY to NULL.
    running: Mutex<Option<Running>>,
    /// Counters of the last run.
    last: Mutex<Option<gst::Structure>>,
}

impl NvrControl {
    pub fn announce(&self) {
        if let Some(shared) = self.shared() {
            shared.announce_soon();
        }
    }

    /// The instance has another name from now on.
    pub fn renamed(&self, id: &str) {
        self.settings.lock().instance_id = id.into();
        self.obj().notify("instance-id");
    }

    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.running.lock().as_ref().map(|running| running.shared.clone())
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let wrong =
            |error: &dyn std::fmt::Display| gst::error_msg!(gst::ResourceError::Settings, ("{error}"));
        let policy = Policy::new(&settings.enabled_commands, &settings.uri_schemes)
            .map_err(|error| wrong(&format_args!("property `enabled-commands`: {error}")))?;
        let options = settings.broker.resolve().map_err(|error| wrong(&error))?;
        let running =
            Running::start(&self.obj(), &settings, &options, policy).map_err(|error| wrong(&error))?;
        *self.running.lock() = Some(running);
        Ok(())
    }

    fn stop(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let stats = running.shared.stats();
        running.stop();
        *self.last.lock() = Some(stats);
    }
}

#[glib::object_subclass]
impl ObjectSubclass for NvrControl {
    const NAME: &'static str = "NvrControl";
    type Type = super::NvrControl;
    type ParentType = gst::Element;
}

impl std::fmt::Debug for NvrControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvrControl").finish_non_exhaustive()
    }
}

/// Takes the first answer that is one.
fn first_answer(
    _: &glib::subclass::SignalInvocationHint,
    before: glib::Value,
    answer: &glib::Value,
) -> std::ops::ControlFlow<glib::Value, glib::Value> {
    match answer.get::<Option<String>>() {
        Ok(Some(_)) => std::ops::ControlFlow::Break(answer.clone()),
        _ => std::ops::ControlFlow::Continue(before),
    }
}

impl ObjectImpl for NvrControl {
    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            vec![
                glib::subclass::Signal::builder(SIGNAL_COMMAND)
                    .param_types([String::static_type(), String::static_type()])
                    .return_type::<Option<String>>()
                    .run_last()
                    .accumulator(first_answer)
                    .build(),
                glib::subclass::Signal::builder(SIGNAL_DESCRIBE)
                    .return_type::<Option<String>>()
                    .run_last()
                    .accumulator(first_answer)
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut list = BrokerSettings::properties();
            list.extend([
                text(
                    "instance-id",
                    "Instance id",
                    "Name of this process on the broker (default: made from host name and process id); the command \
                     rename_instance changes it while playing",
                    None,
                ),
                text("kind", "Kind", "What the pipeline is for, as the status says it", Some("pipeline")),
                text(
                    "enabled-commands",
                    "Enabled commands",
                    "Commands that are carried out, separated by commas, or `all`; the others are refused",
                    Some("all"),
                ),
                text(
                    "uri-schemes",
                    "URI schemes",
                    "Schemes of the addresses that commands may hold, separated by commas",
                    Some(DEFAULT_SCHEMES),
                ),
                glib::ParamSpecDouble::builder("max-rate")
                    .nick("Rate limit")
                    .blurb("Commands per second that are carried out, twice as many at once; more are refused. 0 = no limit")
                    .minimum(0.0)
                    .maximum(1e6)
                    .default_value(DEFAULT_MAX_RATE)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("Counters since the start")
                    .read_only()
                    .build(),
            ]);
            list
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings.lock();
        if settings.broker.set(value, pspec) {
            return;
        }
        let text = |default: &str| {
            let text = value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty());
            text.unwrap_or_else(|| default.into())
        };
        match pspec.name() {
            "instance-id" => settings.instance_id = text(default_instance_id()),
            "kind" => settings.kind = text("pipeline"),
            "enabled-commands" => settings.enabled_commands = text("all"),
            "uri-schemes" => settings.uri_schemes = text(DEFAULT_SCHEMES),
            "max-rate" => settings.max_rate = value.get().unwrap_or(DEFAULT_MAX_RATE),
            name => gst::error!(CAT, imp = self, "no property {name} to set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            let now = self.shared().map(|shared| shared.stats());
            return now.or_else(|| self.last.lock().clone()).to_value();
        }
        let settings = self.settings.lock();
        if let Some(value) = settings.broker.get(pspec) {
            return value;
        }
        match pspec.name() {
            "instance-id" => settings.instance_id.to_value(),
            "kind" => settings.kind.to_value(),
            "enabled-commands" => settings.enabled_commands.to_value(),
            "uri-schemes" => settings.uri_schemes.to_value(),
            "max-rate" => settings.max_rate.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for NvrControl {}

impl ElementImpl for NvrControl {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR control plane",
                "Generic/Network",
                "Carries out commands from MQTT in the pipeline it stands in",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            self.start().map_err(|error| {
                self.post_error_message(error);
                gst::StateChangeError
            })?;
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToPlaying => {
                if let Some(shared) = self.shared() {
                    shared.started();
                }
            }
            gst::StateChange::ReadyToNull => self.stop(),
            _ => {}
        }
        Ok(success)
    }
}
