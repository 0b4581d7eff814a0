//! Takes credentials out of text before it reaches a log, a message or a file.

pub use nvr_core::secret::{redact, redact_address};
