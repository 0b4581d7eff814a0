//! Reads entries of recordings. What a row says is not believed before it is checked: files are removed, cut off and
//! sent elsewhere on the strength of it.

use nvr_core::segment::name;
use rusqlite::{Row, params};

use super::{CatalogError, Oldest, Recording, Store};
use crate::nvrrecordsink::imp::CAT;

const COLUMNS: &str = "r.id, r.source_id, v.identity, v.path, r.path, r.start_us, r.end_us, r.clock, r.bytes, \
                       r.frames, r.codec, r.audio, r.width, r.height, r.event_count, \
                       r.tier, r.checksum, r.reason, r.label";

fn recording(row: &Row<'_>) -> rusqlite::Result<Recording> {
    Ok(Recording {
        id: row.get(0)?,
        source_id: row.get(1)?,
        volume: row.get(2)?,
        root: row.get::<_, String>(3)?.into(),
        path: row.get::<_, String>(4)?.into(),
        start_us: row.get(5)?,
        end_us: row.get(6)?,
        clock: row.get(7)?,
        bytes: row.get(8)?,
        frames: row.get(9)?,
        codec: row.get(10)?,
        audio: row.get(11)?,
        width: row.get(12)?,
        height: row.get(13)?,
        event_count: row.get(14)?,
        tier: row.get(15)?,
        checksum: row.get(16)?,
        reason: row.get("reason")?,
        label: row.get("label")?,
    })
}

/// What a query found.
#[derive(Debug, Default)]
struct Found {
    recordings: Vec<Recording>,
    /// Rows that are no recording's, by id.
    strange: Vec<i64>,
}

impl Store {
    fn find<P: rusqlite::Params>(&self, rest: &str, params: P) -> Result<Found, CatalogError> {
        let text = format!("SELECT {COLUMNS} FROM recordings r JOIN volumes v ON v.id = r.volume_id {rest}");
        let read = || {
            let mut statement = self.db.prepare_cached(&text)?;
            let mut rows = statement.query(params)?;
            let mut found = Found::default();
            while let Some(row) = rows.next()? {
                match recording(row) {
                    // A path that leads elsewhere, or to another camera's files, is none of ours.
                    Ok(one) if name::source_id(&one.path) == Some(one.source_id) => {
                        found.recordings.push(one);
                    }
                    Ok(_) | Err(_) => found.strange.push(row.get(0)?),
                }
            }
            Ok(found)
        };
        read().map_err(|error| self.fail(error))
    }

    pub(super) fn query<P: rusqlite::Params>(
        &self,
        rest: &str,
        params: P,
    ) -> Result<Vec<Recording>, CatalogError> {
        let found = self.find(rest, params)?;
        if !found.strange.is_empty() {
            gst::warning!(
                CAT,
                "{}: entries {:?} are no recordings', and are passed over",
                self.path.display(),
                found.strange
            );
        }
        Ok(found.recordings)
    }

    /// Every recording, a page at a time: those with ids after `after`.
    pub fn page(&self, after: i64, count: u32) -> Result<Vec<Recording>, CatalogError> {
        let mut after = after;
        loop {
            let found = self.find("WHERE r.id > ?1 ORDER BY r.id LIMIT ?2", params![after, count])?;
            match found.strange.last() {
                // An empty page says that there are no more.
                Some(last) if found.recordings.is_empty() => after = *last,
                _ => return Ok(found.recordings),
            }
        }
    }

    /// The oldest finished recordings: of a camera or of all, on a volume or on all; with `plain` those without
    /// events. Rows that are no recording's would be in the way for ever: they are taken out of the catalogue, and no
    /// file is touched.
    pub fn oldest(&self, wanted: &Oldest<'_>, count: u32) -> Result<Vec<Recording>, CatalogError> {
        let camera = if wanted.source_id.is_some() { "AND r.source_id = ?1" } else { "" };
        let volume = if wanted.volume.is_some() {
            "AND r.volume_id = (SELECT id FROM volumes WHERE identity = ?2)"
        } else {
            ""
        };
        let only = if wanted.plain { "AND r.event_count = 0" } else { "" };
        let rest =
            format!("WHERE r.end_us IS NOT NULL {camera} {volume} {only} ORDER BY r.start_us LIMIT ?3");
        loop {
            let found = self.find(&rest, params![wanted.source_id, wanted.volume, count])?;
            if found.strange.is_empty() {
                return Ok(found.recordings);
            }
            for id in found.strange {
                gst::warning!(
                    CAT,
                    "{}: entry {id} is no recording's; it is taken out of the catalogue",
                    self.path.display()
                );
                self.db
                    .execute("DELETE FROM recordings WHERE id = ?1", [id])
                    .map_err(|error| self.fail(error))?;
            }
        }
    }
}
