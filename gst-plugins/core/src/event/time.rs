//! Timestamps of the protocol: RFC 3339, UTC, milliseconds.

use std::fmt;

/// Prints nanoseconds since the Unix epoch as `2025-10-25T10:30:00.123Z`. What is finer than a millisecond is cut
/// off.
pub fn timestamp(unix_ns: u64) -> impl fmt::Display {
    Rfc3339(unix_ns)
}

/// Nanoseconds since the Unix epoch of an RFC 3339 timestamp with any offset; `None` for anything else and for
/// times before 1970.
pub fn parse_timestamp(text: &str) -> Option<u64> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_nanosecond()).ok()
}

pub(super) struct Rfc3339(pub u64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 2^64 nanoseconds end in the year 2554: always within jiff's range.
        let timestamp = jiff::Timestamp::from_nanosecond(self.0.into()).map_err(|_| fmt::Error)?;
        write!(f, "{timestamp:.3}")
    }
}
