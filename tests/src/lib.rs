//! Shared parts of the end-to-end tests.

pub mod data;
pub mod markdown;
pub mod plugin;
