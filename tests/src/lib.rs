//! Shared parts of the end-to-end tests.

pub mod control;
pub mod data;
pub mod detector;
pub mod disk;
pub mod gl;
pub mod golden;
pub mod markdown;
pub mod mosquitto;
pub mod mot;
pub mod picture;
pub mod plugin;
pub mod recorder;
pub mod recordings;
pub mod score;
mod skip;
pub mod store;

pub use skip::skipped;
