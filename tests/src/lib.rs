//! Shared parts of the end-to-end tests.

pub mod data;
pub mod mosquitto;
