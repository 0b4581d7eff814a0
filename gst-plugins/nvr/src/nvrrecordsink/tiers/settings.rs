//! The properties that say which tiers there are, and when recordings go on.

use std::path::PathBuf;

use gst::glib;
use gst::prelude::*;
use nvr_core::retention::Policy;

use super::address::{address, is_bucket};
use super::{COLD, Place, WARM};
use crate::properties::{amount, text};

/// Bytes that a lower tier keeps free.
const MIN_FREE: u64 = 256 << 20;
/// Five times what twelve cameras of 2 Mb/s record.
const RATE: u64 = 16 << 20;

/// The values of the properties.
#[derive(Clone, Debug)]
pub struct TierSettings {
    hot_max_age: u64,
    hot_max_bytes: u64,
    warm_location: Option<String>,
    warm_max_age: u64,
    warm_max_bytes: u64,
    warm_min_free: u64,
    cold_location: Option<String>,
    cold_min_free: u64,
    /// Bytes per second, 0 for as fast as it goes.
    pub move_rate: u64,
    /// Secrets for buckets; the environment where there is no file.
    pub s3_credentials: Option<PathBuf>,
}

impl Default for TierSettings {
    fn default() -> Self {
        Self {
            hot_max_age: 0,
            hot_max_bytes: 0,
            warm_location: None,
            warm_max_age: 0,
            warm_max_bytes: 0,
            warm_min_free: MIN_FREE,
            cold_location: None,
            cold_min_free: MIN_FREE,
            move_rate: RATE,
            s3_credentials: None,
        }
    }
}

/// A tier below the first one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stage<'a> {
    pub tier: &'static str,
    pub location: &'a str,
    /// What goes from the tier before to this one.
    pub takes: Policy,
    /// Of this one.
    pub min_free: u64,
}

fn policy(max_age: u64, max_bytes: u64) -> Policy {
    Policy {
        max_age_us: (max_age > 0).then(|| max_age.min(1 << 40) as i64 * 1_000_000),
        events_max_age_us: None,
        max_bytes: (max_bytes > 0).then_some(max_bytes),
    }
}

impl TierSettings {
    pub fn properties() -> Vec<glib::ParamSpec> {
        let text = |name, nick, blurb| text(name, nick, blurb, None);
        vec![
            amount(
                "hot-max-age",
                "Hot age",
                "Seconds after which recordings go on to the next tier, 0 for never",
                0,
            ),
            amount(
                "hot-max-bytes",
                "Hot size",
                "Bytes of this camera's recordings above which the oldest go on to the next tier, 0 for no limit",
                0,
            ),
            text(
                "warm-location",
                "Warm location",
                "Directory, or s3:https://host/bucket/prefix, of the second tier",
            ),
            amount(
                "warm-max-age",
                "Warm age",
                "Seconds of age after which recordings go on from the warm tier to the cold one, 0 for never",
                0,
            ),
            amount(
                "warm-max-bytes",
                "Warm size",
                "Bytes of this camera's recordings in the warm tier above which the oldest go on, 0 for no limit",
                0,
            ),
            amount(
                "warm-min-free",
                "Warm free space",
                "Bytes that the warm tier keeps free; the oldest recordings go on, or out where it is the last tier",
                MIN_FREE,
            ),
            text(
                "cold-location",
                "Cold location",
                "Directory, or s3:https://host/bucket/prefix, of the last tier",
            ),
            amount(
                "cold-min-free",
                "Cold free space",
                "Bytes that the cold tier keeps free, at the cost of the oldest recordings",
                MIN_FREE,
            ),
            amount(
                "move-rate",
                "Move rate",
                "Bytes per second that moving recordings may take, 0 for no limit",
                RATE,
            ),
            text(
                "s3-credentials",
                "S3 credentials",
                "File with aws_access_key_id and aws_secret_access_key, for tiers in a bucket (default: the \
                 environment variables of these names in capitals)",
            ),
        ]
    }

    /// Sets a property; `false` where it is none of these.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        let text = || value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty());
        let number = || value.get::<u64>().unwrap_or_default();
        match pspec.name() {
            "hot-max-age" => self.hot_max_age = number(),
            "hot-max-bytes" => self.hot_max_bytes = number(),
            "warm-location" => self.warm_location = text(),
            "warm-max-age" => self.warm_max_age = number(),
            "warm-max-bytes" => self.warm_max_bytes = number(),
            "warm-min-free" => self.warm_min_free = number(),
            "cold-location" => self.cold_location = text(),
            "cold-min-free" => self.cold_min_free = number(),
            "move-rate" => self.move_rate = number(),
            "s3-credentials" => self.s3_credentials = text().map(PathBuf::from),
            _ => return false,
        }
        true
    }

    /// The value of a property; `None` where it is none of these.
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        Some(match pspec.name() {
            "hot-max-age" => self.hot_max_age.to_value(),
            "hot-max-bytes" => self.hot_max_bytes.to_value(),
            "warm-location" => self.warm_location.as_deref().map(Place::canonical).to_value(),
            "warm-max-age" => self.warm_max_age.to_value(),
            "warm-max-bytes" => self.warm_max_bytes.to_value(),
            "warm-min-free" => self.warm_min_free.to_value(),
            "cold-location" => self.cold_location.as_deref().map(Place::canonical).to_value(),
            "cold-min-free" => self.cold_min_free.to_value(),
            "move-rate" => self.move_rate.to_value(),
            "s3-credentials" => {
                self.s3_credentials.as_ref().map(|path| path.display().to_string()).to_value()
            }
            _ => return None,
        })
    }

    /// Whether every location is one; whether it is there is another matter.
    ///
    /// # Errors
    /// Names the property and what is wrong.
    pub fn check(&self) -> Result<(), String> {
        for stage in self.stages().iter().filter(|stage| is_bucket(stage.location)) {
            address(stage.location)
                .map_err(|error| format!("property `{}-location`: {error}", stage.tier))?;
        }
        Ok(())
    }

    /// Whether there is more than the first tier.
    pub fn any(&self) -> bool {
        self.warm_location.is_some() || self.cold_location.is_some()
    }

    /// The tiers below the first one, in order.
    pub fn stages(&self) -> Vec<Stage<'_>> {
        let mut takes = policy(self.hot_max_age, self.hot_max_bytes);
        let mut stages = Vec::new();
        if let Some(location) = self.warm_location.as_deref() {
            stages.push(Stage { tier: WARM, location, takes, min_free: self.warm_min_free });
            takes = policy(self.warm_max_age, self.warm_max_bytes);
        }
        if let Some(location) = self.cold_location.as_deref() {
            stages.push(Stage { tier: COLD, location, takes, min_free: self.cold_min_free });
        }
        stages
    }
}
