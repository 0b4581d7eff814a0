//! Shared parts of the end-to-end tests.

pub mod control;
pub mod data;
pub mod detector;
pub mod golden;
pub mod markdown;
pub mod mosquitto;
pub mod mot;
pub mod picture;
pub mod plugin;
pub mod recordings;
pub mod score;
mod skip;

pub use skip::skipped;
