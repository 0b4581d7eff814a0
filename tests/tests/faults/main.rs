//! What goes wrong with cameras in the field, one test for each row: real servers, a proxy that misbehaves on
//! command, and `nvrsrc` or a whole instance in front of it.

mod branches;
mod clocks;
mod connections;
mod hostile;
mod media;
mod watch;

/// What receives the cameras.
pub const RECEIVER: &str = "auto";
