//! Recordings on their way from one volume to the next.
//!
//! What is to be moved is noted before its first byte is copied, and the note goes after the old file has gone. At any
//! moment in between the entry of the recording says which of the two files counts; the other one is what a stop
//! without an orderly end has left, and is removed at the next start.

use std::path::{Path, PathBuf};

use nvr_core::segment::name;
use rusqlite::params;

use super::{CatalogError, Recording, Store, sqlite};
use crate::nvrrecordsink::tiers::Place;
use crate::nvrrecordsink::volume::Volume;

/// Checksums, how much lies where, and what is being moved.
pub(super) const MIGRATION: &str = "
    ALTER TABLE recordings ADD COLUMN checksum TEXT;
    CREATE INDEX recordings_by_place ON recordings (volume_id, source_id, start_us);
    CREATE INDEX recordings_by_place_plain ON recordings (volume_id, source_id, start_us) WHERE event_count = 0;
    CREATE INDEX recordings_by_age ON recordings (volume_id, start_us);
    CREATE INDEX recordings_by_age_plain ON recordings (volume_id, start_us) WHERE event_count = 0;
    CREATE TABLE usage (
        volume_id   INTEGER NOT NULL REFERENCES volumes (id),
        source_id   INTEGER NOT NULL REFERENCES cameras (source_id),
        bytes       INTEGER NOT NULL,
        PRIMARY KEY (volume_id, source_id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO usage SELECT volume_id, source_id, sum(bytes) FROM recordings GROUP BY volume_id, source_id;
    CREATE TRIGGER usage_added AFTER INSERT ON recordings BEGIN
        INSERT INTO usage VALUES (new.volume_id, new.source_id, new.bytes)
            ON CONFLICT (volume_id, source_id) DO UPDATE SET bytes = bytes + new.bytes;
    END;
    CREATE TRIGGER usage_removed AFTER DELETE ON recordings BEGIN
        UPDATE usage SET bytes = bytes - old.bytes WHERE volume_id = old.volume_id AND source_id = old.source_id;
    END;
    CREATE TRIGGER usage_changed AFTER UPDATE OF bytes, volume_id ON recordings BEGIN
        UPDATE usage SET bytes = bytes - old.bytes WHERE volume_id = old.volume_id AND source_id = old.source_id;
        INSERT INTO usage VALUES (new.volume_id, new.source_id, new.bytes)
            ON CONFLICT (volume_id, source_id) DO UPDATE SET bytes = bytes + new.bytes;
    END;
    CREATE TABLE moves (
        recording_id INTEGER PRIMARY KEY,
        source_id    INTEGER NOT NULL,
        from_volume  INTEGER NOT NULL REFERENCES volumes (id),
        to_volume    INTEGER NOT NULL REFERENCES volumes (id),
        path         TEXT NOT NULL,
        upload       TEXT
    ) STRICT;
";

/// One that was not finished, and what is left to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    pub recording_id: i64,
    /// Identities of the volumes.
    pub from: String,
    pub to: String,
    /// Below either.
    pub path: PathBuf,
    /// Name of an upload in parts that may not have been ended.
    pub upload: Option<String>,
    /// Where the entry says that the recording lies; `None` where it has none any more.
    pub entry: Option<Side>,
}

/// One of the two volumes of a move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    From,
    To,
}

impl Store {
    /// From now on, what is committed survives a power cut at once: files are removed on the strength of it.
    pub fn durable(&self) -> Result<(), CatalogError> {
        self.db.pragma_update(None, "synchronous", "full").map_err(|error| self.fail(error))
    }

    /// Identity of the volume that was last seen at a location, however that is written.
    pub fn volume_at(&self, location: &str) -> Result<Option<String>, CatalogError> {
        let location = Place::canonical(location);
        let read = || {
            let mut statement =
                self.db.prepare_cached("SELECT identity, path FROM volumes ORDER BY id DESC")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if Place::canonical(row.get_ref(1)?.as_str()?) == location {
                    return row.get(0).map(Some);
                }
            }
            Ok(None)
        };
        read().map_err(|error| self.fail(error))
    }

    /// Notes a volume, and where it is.
    pub fn know_volume(&self, volume: &Volume) -> Result<(), CatalogError> {
        super::put_volume(&self.db, volume).map_err(|error| self.fail(error))
    }

    /// Notes that recordings are about to be copied to a volume. Those that another has taken on are left out of it.
    pub fn intend(&mut self, recordings: &[Recording], to: &Volume) -> Result<(), CatalogError> {
        let write = |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            super::put_volume(&transaction, to)?;
            for recording in recordings {
                transaction
                    .prepare_cached(
                        "INSERT INTO moves (recording_id, source_id, from_volume, to_volume, path) VALUES (?1, ?2, \
                         (SELECT id FROM volumes WHERE identity = ?3), (SELECT id FROM volumes WHERE identity = ?4), ?5)",
                    )?
                    .execute(params![
                        recording.id,
                        recording.source_id,
                        recording.volume,
                        to.id,
                        recording.path.display().to_string()
                    ])?;
            }
            transaction.commit()
        };
        write(&mut self.db).map_err(|error| sqlite(&self.path, error))
    }

    /// Notes that an upload in parts was begun.
    pub fn uploading(&self, recording_id: i64, upload: &str) -> Result<(), CatalogError> {
        self.db
            .execute("UPDATE moves SET upload = ?2 WHERE recording_id = ?1", params![recording_id, upload])
            .map(|_| ())
            .map_err(|error| self.fail(error))
    }

    /// The copies count from now on. Which of them do: a recording may have been removed meanwhile, and its number
    /// given to another one.
    pub fn arrive(
        &mut self,
        recordings: &[Recording],
        to: &Volume,
        tier: &str,
    ) -> Result<Vec<i64>, CatalogError> {
        let write = |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            let mut arrived = Vec::new();
            for recording in recordings {
                let changed = transaction
                    .prepare_cached(
                        "UPDATE recordings SET volume_id = (SELECT id FROM volumes WHERE identity = ?3), tier = ?4 \
                         WHERE id = ?1 AND volume_id = (SELECT id FROM volumes WHERE identity = ?2) AND path = ?5",
                    )?
                    .execute(params![
                        recording.id,
                        recording.volume,
                        to.id,
                        tier,
                        recording.path.display().to_string()
                    ])?;
                if changed > 0 {
                    arrived.push(recording.id);
                }
            }
            transaction.commit()?;
            Ok(arrived)
        };
        write(&mut self.db).map_err(|error| sqlite(&self.path, error))
    }

    /// Says of the recording with this path on the volume `from` where it really is.
    pub fn point(&mut self, path: &Path, from: &Volume, to: &Volume, tier: &str) -> Result<(), CatalogError> {
        self.db
            .execute(
                "UPDATE recordings SET volume_id = (SELECT id FROM volumes WHERE identity = ?3), tier = ?4 \
                 WHERE path = ?1 AND volume_id = (SELECT id FROM volumes WHERE identity = ?2)",
                params![path.display().to_string(), from.id, to.id, tier],
            )
            .map(|_| ())
            .map_err(|error| self.fail(error))
    }

    /// Moves of a camera that were not finished.
    pub fn moves(&self, source_id: u32) -> Result<Vec<Move>, CatalogError> {
        let read = || {
            let mut statement = self.db.prepare_cached(
                "SELECT m.recording_id, f.identity, t.identity, m.path, m.upload, \
                 (SELECT max(r.volume_id = m.to_volume) FROM recordings r WHERE r.path = m.path \
                 AND r.volume_id IN (m.from_volume, m.to_volume)) FROM moves m \
                 JOIN volumes f ON f.id = m.from_volume JOIN volumes t ON t.id = m.to_volume \
                 WHERE m.source_id = ?1",
            )?;
            let rows = statement.query_map([source_id], |row| {
                Ok(Move {
                    recording_id: row.get(0)?,
                    from: row.get(1)?,
                    to: row.get(2)?,
                    path: row.get::<_, String>(3)?.into(),
                    upload: row.get(4)?,
                    entry: row.get::<_, Option<bool>>(5)?.map(|to| if to { Side::To } else { Side::From }),
                })
            })?;
            // A path that leads elsewhere is no recording's, and nothing is removed there.
            let ours = |one: &Move| name::source_id(&one.path) == Some(source_id);
            rows.filter(|one| one.as_ref().map_or(true, ours)).collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error| self.fail(error))
    }

    /// Nothing is left of these moves.
    pub fn moved(&mut self, recording_ids: &[i64]) -> Result<(), CatalogError> {
        let write = |db: &mut rusqlite::Connection| {
            let transaction = db.transaction()?;
            for id in recording_ids {
                transaction.prepare_cached("DELETE FROM moves WHERE recording_id = ?1")?.execute([id])?;
            }
            transaction.commit()
        };
        write(&mut self.db).map_err(|error| sqlite(&self.path, error))
    }

    /// Whether a recording with this path is known on another volume.
    pub fn elsewhere(&self, volume: &Volume, path: &Path) -> Result<bool, CatalogError> {
        self.db
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM recordings WHERE path = ?2 \
                 AND volume_id IN (SELECT id FROM volumes WHERE identity <> ?1))",
                params![volume.id, path.display().to_string()],
                |row| row.get(0),
            )
            .map_err(|error| self.fail(error))
    }
}
