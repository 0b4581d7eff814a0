//! The recorder: coded video and audio into files that play at any moment, and a catalogue of them.

mod ask;
pub mod catalog;
pub mod checksum;
mod clips;
mod cut;
mod ear;
mod file;
mod imp;
mod inbox;
mod memory;
mod notice;
mod report;
pub mod stepwise;
#[cfg(test)]
mod tests;
pub mod tiers;
mod tracks;
pub mod volume;
mod worker;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::ObjectSubclassIsExt;
use nvr_core::segment::trigger::{Demand, When};

pub use clips::{Clip, Done};
pub use report::{Doing, Report};
pub use tiers::TierReport;
pub(crate) use worker::{now_us, steady_ns};

glib::wrapper! {
    pub struct NvrRecordSink(ObjectSubclass<imp::NvrRecordSink>) @extends gst::Element, gst::Object;
}

/// When to record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[enum_type(name = "NvrRecordMode")]
pub enum Mode {
    #[default]
    #[enum_value(name = "Continuous: always", nick = "continuous")]
    Continuous,
    #[enum_value(name = "Motion: while nvrmotion sees something move", nick = "motion")]
    Motion,
    #[enum_value(name = "Events: around detections, of the own graph or of the broker", nick = "events")]
    Events,
    #[enum_value(name = "Off: nothing but what is asked for", nick = "off")]
    Off,
}

impl Mode {
    fn when(self) -> When {
        match self {
            Self::Continuous => When::Always,
            Self::Motion => When::Motion,
            Self::Events => When::Events,
            Self::Off => When::Never,
        }
    }
}

impl NvrRecordSink {
    /// Records whatever the mode, for at most `seconds` where they are given. Goes on with what is recorded on demand
    /// already, under the new label and for the new time.
    ///
    /// # Errors
    /// The recorder does not run, or its disk fails.
    pub fn start_recording(&self, label: Option<String>, seconds: Option<f64>) -> Result<Demand, String> {
        self.imp().start_recording(label, seconds)
    }

    /// Takes over what another recorder of the camera was asked for, before its branch was built anew.
    pub fn continue_recording(&self, demand: &Demand) {
        self.imp().demand(Some(demand.clone()));
    }

    /// Ends recording on demand; `None` where nothing was asked for.
    pub fn stop_recording(&self) -> Option<Demand> {
        self.imp().demand(None)
    }

    /// Saves what is recorded from `before` seconds before now to `after` seconds after, as `name` or by the time.
    /// `done` is called in any case, perhaps much later and on another thread.
    pub fn save_clip(&self, name: Option<String>, before: f64, after: f64, done: Done) {
        self.imp().save_clip(name, before, after, done);
    }

    /// What the recorder is doing.
    pub fn report(&self) -> Report {
        self.imp().report()
    }

    /// Its storage tiers as they were found at the last look, which comes every few seconds; none where there is but
    /// the one place.
    pub fn tiers(&self) -> Vec<TierReport> {
        self.imp().tiers()
    }
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Mode::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "nvrrecordsink", gst::Rank::NONE, NvrRecordSink::static_type())
}
