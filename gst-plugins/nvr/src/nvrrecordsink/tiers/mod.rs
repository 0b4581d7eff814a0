//! Storage tiers: recordings begin on the hot volume, go on to the warm one and the cold one, and out of the last.
//! What leaves a tier is what is too old for it, too much for it, or in the way of what its volume has to keep free.
//!
//! One thread moves them, at a limited rate: what it copies is on the other disk, read back and compared, before the
//! catalogue says so, and the catalogue says so before the old file goes.

mod address;
mod archive;
mod claims;
#[cfg(test)]
mod faults;
mod mover;
mod outage;
mod place;
mod round;
mod s3;
mod secrets;
mod settings;
mod step;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;

use outage::Outages;

use super::report::Voice;

pub use archive::Archive;
pub(super) use claims::Claims;
pub(super) use mover::Mover;
pub use outage::TierReport;
pub use place::{Place, PlaceError};
pub(super) use place::{make_folder, sync_folder};
pub use settings::TierSettings;

/// Names of the tiers, as the catalogue has them.
pub const HOT: &str = "hot";
pub const WARM: &str = "warm";
pub const COLD: &str = "cold";

/// What has become of a camera's recordings since the start, and which of its tiers are there.
#[derive(Debug, Default)]
pub struct Tally {
    /// Recordings that went on to another tier.
    pub moved: AtomicU64,
    /// Attempts that failed, each of which is made again, and looks at tiers that were not there.
    pub failed: AtomicU64,
    outages: Outages,
}

impl Tally {
    /// One that tells of tiers that are missing, and back.
    pub(super) fn told_by(voice: Voice) -> Self {
        Self { outages: Outages::told_by(voice), ..Self::default() }
    }

    /// The tiers as they were found at the last look; none before the first.
    pub fn tiers(&self) -> Vec<TierReport> {
        self.outages.list()
    }
}
