//! The same as `faults` with cameras that `rtspsrc` receives.

#[path = "../faults/clocks.rs"]
mod clocks;
#[path = "../faults/connections.rs"]
mod connections;
#[path = "../faults/hostile.rs"]
mod hostile;
#[path = "../faults/media.rs"]
mod media;
#[path = "../faults/watch.rs"]
mod watch;

/// What receives the cameras.
pub const RECEIVER: &str = "rtspsrc";
