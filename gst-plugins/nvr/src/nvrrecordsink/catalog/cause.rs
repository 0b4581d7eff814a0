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

#[cfg(test)]
mod tests {
    use super::super::{FILE, FIRST, Store};
    use super::*;
    use crate::nvrrecordsink::ear::Sightings;
    use crate::nvrrecordsink::tiers::HOT;
    use crate::nvrrecordsink::volume::Volume;

    #[test]
    fn a_recording_keeps_its_cause_whoever_closes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        // A catalogue of before.
        let db = Connection::open(&path).unwrap();
        db.execute_batch(FIRST).unwrap();
        db.execute_batch(
            "INSERT INTO volumes VALUES (1, 'old', '/old'); INSERT INTO cameras VALUES (1, 0);
             INSERT INTO recordings (source_id, volume_id, path, start_us, end_us, clock, codec, width, height)
             VALUES (1, 1, '1/1970-01-01/00/1970-01-01T00-00-00.000Z.mp4', 0, 1, 'ntp', 'h264', 1, 1);",
        )
        .unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        drop(db);
        let mut store = Store::open(&path).unwrap();
        let old = &store.page(0, 9).unwrap()[0];
        assert_eq!((old.reason.as_deref(), old.label.as_deref()), (None, None));

        let open = Entry {
            volume: Volume::open(folder.path(), None).unwrap(),
            source_id: 2,
            path: nvr_core::segment::name::path(2, 10, 0),
            start_us: 10,
            end_us: None,
            clock: "arrival",
            bytes: 100,
            frames: 0,
            codec: "h264".into(),
            audio: None,
            width: 640,
            height: 360,
            event_count: 0,
            checksum: None,
            tier: HOT,
            sightings: Sightings::new(),
            cause: Cause { reason: Some(Reason::Continuous), label: None },
        };
        let asked = Cause { reason: Some(Reason::OnDemand), label: Some("gate".into()) };
        let asked = Entry { event_count: 1, cause: asked, ..open.clone() };
        // A power cut, and the next start closes it by what is in the file.
        let closed =
            Entry { end_us: Some(20), frames: 5, clock: "file", cause: Cause::default(), ..open.clone() };
        store.write(&[open, asked, closed]).unwrap();
        let row = &store.page(0, 9).unwrap()[1];
        assert_eq!((row.reason.as_deref(), row.label.as_deref()), (Some("on_demand"), Some("gate")));
        assert_eq!((row.event_count, row.end_us, row.frames), (1, Some(20), 5));
    }
}
