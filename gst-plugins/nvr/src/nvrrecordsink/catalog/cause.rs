//! Why a recording was made: a migration of its own, and what writes it.

use nvr_core::segment::trigger::Reason;
use rusqlite::{Connection, params};

use super::Entry;

pub(super) const MIGRATION: &str = "
    ALTER TABLE recordings ADD COLUMN reason TEXT
        CHECK (reason IN ('continuous', 'motion', 'events', 'on_demand'));
    ALTER TABLE recordings ADD COLUMN label TEXT;
";

/// Why something was recorded, and what the one who asked for it called it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cause {
    pub reason: Option<Reason>,
    pub label: Option<String>,
}

/// Notes the cause of a recording that is there. What is not known leaves what was noted before.
pub(super) fn put(db: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    let Cause { reason: Some(reason), label } = &entry.cause else { return Ok(()) };
    db.prepare_cached(
        "UPDATE recordings SET reason = ?3, label = coalesce(?4, label) \
         WHERE volume_id = (SELECT id FROM volumes WHERE identity = ?1) AND path = ?2",
    )?
    .execute(params![entry.volume.id, entry.path.display().to_string(), reason.name(), label])?;
    Ok(())
}
