//! What was recorded at a time, and what was seen.
//!
//! What reaches into a time began before it: it is the last that did, or, where the clock was set back meanwhile, an
//! earlier one that is longer. So nothing that began more than [`REACH_US`] before is looked at, but that last one.

use nvr_core::segment::trigger::Reason;
use rusqlite::params;

use super::{CatalogError, Recording, Store};
use crate::nvrrecordsink::worker::now_us;

/// How far back recordings are looked for that reach into a time. Those that are still being written, or whose end was
/// not noted, count until now, but for no longer than this.
const REACH_US: i64 = 3_600_000_000;

/// What was seen of a class in a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub source_id: u32,
    pub class_name: String,
    pub first_us: i64,
    pub last_us: i64,
    pub count: u64,
    pub confidence: f64,
}

/// From when to when a camera was recorded without a pause, for one reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    pub source_id: u32,
    pub start_us: i64,
    pub end_us: i64,
    pub segments: u64,
    pub bytes: u64,
    pub event_count: u64,
    pub reason: Option<Reason>,
}

impl Store {
    /// Recordings of a camera that overlap a time, in order.
    pub fn recordings(
        &self,
        source_id: u32,
        from_us: i64,
        to_us: i64,
    ) -> Result<Vec<Recording>, CatalogError> {
        self.query(
            "WHERE r.source_id = ?1 AND r.start_us < ?3 AND r.start_us >= min(?4, coalesce((SELECT max(start_us) \
             FROM recordings WHERE source_id = ?1 AND start_us <= ?2), ?4)) \
             AND coalesce(r.end_us, min(?5, r.start_us + ?6)) > ?2 ORDER BY r.start_us",
            params![source_id, from_us, to_us, from_us.saturating_sub(REACH_US), now_us(), REACH_US],
        )
    }

    /// What was seen in the recordings of a time.
    pub fn events(&self, source_id: u32, from_us: i64, to_us: i64) -> Result<Vec<Event>, CatalogError> {
        let read = || {
            let mut statement = self.db.prepare_cached(
                "SELECT e.class_name, e.first_us, e.last_us, e.count, e.confidence FROM recordings r \
                 JOIN events e ON e.recording_id = r.id WHERE r.source_id = ?1 AND r.event_count > 0 \
                 AND r.start_us < ?3 AND r.start_us >= min(?4, coalesce((SELECT max(start_us) FROM recordings \
                 WHERE source_id = ?1 AND start_us <= ?2), ?4)) AND e.last_us >= ?2 AND e.first_us < ?3 \
                 ORDER BY e.first_us",
            )?;
            let since_us = from_us.saturating_sub(REACH_US);
            let rows = statement.query_map(params![source_id, from_us, to_us, since_us], |row| {
                Ok(Event {
                    source_id,
                    class_name: row.get(0)?,
                    first_us: row.get(1)?,
                    last_us: row.get(2)?,
                    count: row.get(3)?,
                    confidence: row.get(4)?,
                })
            })?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error| self.fail(error))
    }

    /// Stretches without a pause longer than `pause_us`, each recorded for one reason.
    pub fn timeline(
        &self,
        source_id: u32,
        from_us: i64,
        to_us: i64,
        pause_us: i64,
    ) -> Result<Vec<Span>, CatalogError> {
        let mut spans: Vec<Span> = Vec::new();
        let read = |spans: &mut Vec<Span>| {
            let mut statement = self.db.prepare_cached(
                "SELECT start_us, coalesce(end_us, min(?5, start_us + ?6)), bytes, event_count, reason \
                 FROM recordings WHERE source_id = ?1 AND start_us < ?3 AND start_us >= min(?4, \
                 coalesce((SELECT max(start_us) FROM recordings WHERE source_id = ?1 AND start_us <= ?2), ?4)) \
                 ORDER BY start_us",
            )?;
            let since_us = from_us.saturating_sub(REACH_US);
            let values = params![source_id, from_us, to_us, since_us, now_us(), REACH_US];
            let mut rows = statement.query(values)?;
            while let Some(row) = rows.next()? {
                let (start_us, end_us): (i64, i64) = (row.get(0)?, row.get(1)?);
                let (bytes, event_count): (u64, u64) = (row.get(2)?, row.get(3)?);
                let reason = row.get_ref(4)?.as_str_or_null()?.and_then(Reason::of);
                if end_us <= from_us {
                    continue;
                }
                match spans.last_mut() {
                    Some(span) if start_us <= span.end_us + pause_us && span.reason == reason => {
                        span.end_us = span.end_us.max(end_us);
                        span.segments += 1;
                        span.bytes += bytes;
                        span.event_count += event_count;
                    }
                    _ => spans.push(Span {
                        source_id,
                        start_us,
                        end_us,
                        segments: 1,
                        bytes,
                        event_count,
                        reason,
                    }),
                }
            }
            Ok(())
        };
        read(&mut spans).map_err(|error| self.fail(error))?;
        Ok(spans)
    }
}
