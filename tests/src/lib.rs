//! Shared parts of the end-to-end tests.

pub mod data;
pub mod detector;
pub mod picture;
pub mod score;
pub mod mosquitto;
