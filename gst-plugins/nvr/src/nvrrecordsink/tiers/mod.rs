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
mod place;
mod round;
mod s3;
mod secrets;
mod settings;
mod step;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;

pub use archive::Archive;
pub(super) use claims::Claims;
pub(super) use mover::Mover;
pub use place::{Place, PlaceError};
pub(super) use place::{make_folder, sync_folder};
pub use settings::TierSettings;

/// Names of the tiers, as the catalogue has them.
pub const HOT: &str = "hot";
pub const WARM: &str = "warm";
pub const COLD: &str = "cold";

/// What has become of a camera's recordings since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Recordings that went on to another tier.
    pub moved: AtomicU64,
    /// Attempts that failed; each is made again.
    pub failed: AtomicU64,
}
