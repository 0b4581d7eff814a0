//! The catalogue: which recording of which camera lies where, from when to when, and what was seen in it.
//!
//! An SQLite file in WAL mode, so that others may read while the recorder writes. Times are microseconds since 1970,
//! UTC. [`Store`] is the file; [`Keeper`] is the thread that writes it for the elements of this process, in batches.

mod ages;
mod cause;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod hostile;
mod keeper;
#[cfg(test)]
mod keeping;
mod leftovers;
mod moves;
mod reconcile;
mod room;
mod rows;
mod salvage;
#[cfg(test)]
mod tests;
mod times;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nvr_core::retention::Candidate;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::imp::CAT;
use super::tiers::Place;
use super::volume::Volume;

pub use cause::Cause;
pub(super) use keeper::Attached;
pub use keeper::{Entry, Guard, Keeper, Limits, Order};
pub use moves::{Move, Side};
pub use reconcile::{Repairs, describe, repair_file};
pub(super) use room::{PASS, candidates, chosen, oldest};
pub use times::{Event, Span};

/// Name of the catalogue in the directory of recordings.
pub const FILE: &str = "catalog.db";

/// Each entry takes the schema one version further. Entries are never changed, only added.
const MIGRATIONS: [&str; 3] = [FIRST, cause::MIGRATION, moves::MIGRATION];

const FIRST: &str = "
    CREATE TABLE volumes (
        id          INTEGER PRIMARY KEY,
        identity    TEXT NOT NULL UNIQUE,
        path        TEXT NOT NULL
    ) STRICT;
    CREATE TABLE cameras (
        source_id   INTEGER PRIMARY KEY,
        first_us    INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE recordings (
        id          INTEGER PRIMARY KEY,
        source_id   INTEGER NOT NULL REFERENCES cameras (source_id),
        volume_id   INTEGER NOT NULL REFERENCES volumes (id),
        path        TEXT NOT NULL,
        start_us    INTEGER NOT NULL,
        end_us      INTEGER,
        clock       TEXT NOT NULL CHECK (clock IN ('ntp', 'arrival', 'file')),
        bytes       INTEGER NOT NULL DEFAULT 0,
        frames      INTEGER NOT NULL DEFAULT 0,
        codec       TEXT NOT NULL,
        audio       TEXT,
        width       INTEGER NOT NULL,
        height      INTEGER NOT NULL,
        tier        TEXT NOT NULL DEFAULT 'hot',
        event_count INTEGER NOT NULL DEFAULT 0,
        UNIQUE (volume_id, path)
    ) STRICT;
    CREATE INDEX recordings_by_time ON recordings (source_id, start_us);
    CREATE INDEX recordings_plain ON recordings (source_id, start_us) WHERE event_count = 0;
    CREATE INDEX recordings_open ON recordings (volume_id) WHERE end_us IS NULL;
    CREATE TABLE events (
        id           INTEGER PRIMARY KEY,
        recording_id INTEGER NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
        class_name   TEXT NOT NULL,
        first_us     INTEGER NOT NULL,
        last_us      INTEGER NOT NULL,
        count        INTEGER NOT NULL,
        confidence   REAL NOT NULL
    ) STRICT;
    CREATE INDEX events_by_recording ON events (recording_id);
";

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("{path}: {error}")]
    Sqlite { path: PathBuf, error: rusqlite::Error },
    #[error(
        "{path} was written by a newer version (schema {found}, this one knows {known}); update nvr-launch"
    )]
    Newer { path: PathBuf, found: i64, known: usize },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
}

impl CatalogError {
    /// Whether the file itself is as good as it was, and only room is missing.
    fn full(&self) -> bool {
        let Self::Sqlite { error, .. } = self else { return false };
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
    }

    /// Whether the file is no catalogue any more.
    fn corrupt(&self) -> bool {
        let Self::Sqlite { error, .. } = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether what was to be written is at fault, and nothing else.
    fn refused(&self) -> bool {
        let Self::Sqlite { error, .. } = self else { return false };
        matches!(error, rusqlite::Error::ToSqlConversionFailure(_))
            || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
    }
}

/// One recording as the catalogue has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    pub id: i64,
    pub source_id: u32,
    /// Identity and directory of the volume.
    pub volume: String,
    pub root: PathBuf,
    /// Below `root`.
    pub path: PathBuf,
    pub start_us: i64,
    /// `None` while it is written, or where its end was not noted.
    pub end_us: Option<i64>,
    pub clock: String,
    pub bytes: u64,
    pub frames: u64,
    pub codec: String,
    pub audio: Option<String>,
    pub width: u32,
    pub height: u32,
    pub event_count: u64,
    /// `hot`, `warm` or `cold`.
    pub tier: String,
    /// Of the first `bytes` bytes, as [`Checksum`](super::checksum::Checksum) writes it; `None` where nobody knows.
    pub checksum: Option<String>,
    /// Why it was recorded; `None` where nobody noted it.
    pub reason: Option<String>,
    /// What the one who asked for it called it.
    pub label: Option<String>,
}

impl Recording {
    pub fn file(&self) -> PathBuf {
        self.root.join(&self.path)
    }

    /// What decides whether it stays.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            id: self.id,
            source_id: self.source_id,
            start_us: self.start_us,
            bytes: self.bytes,
            has_events: self.event_count > 0,
        }
    }
}

/// Which recordings [`Store::oldest`] looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oldest<'a> {
    /// Identity of a volume.
    pub volume: Option<&'a str>,
    pub source_id: Option<u32>,
    /// Only those without events.
    pub plain: bool,
}

/// The catalogue's file.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens the catalogue to write, and makes or updates it.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let db = Connection::open(path).map_err(|error| sqlite(path, error))?;
        let mut this = Self { db, path: path.to_owned() };
        this.prepare(true)?;
        Ok(this)
    }

    /// Opens a catalogue that exists, to look things up and to note repairs.
    pub fn existing(path: &Path) -> Result<Self, CatalogError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(|error| sqlite(path, error))?;
        let mut this = Self { db, path: path.to_owned() };
        this.prepare(false)?;
        Ok(this)
    }

    fn prepare(&mut self, create: bool) -> Result<(), CatalogError> {
        let path = self.path.clone();
        let fail = |error| sqlite(&path, error);
        self.db.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
        if create {
            self.db.pragma_update(None, "journal_mode", "wal").map_err(fail)?;
        }
        for (name, value) in [("synchronous", "normal"), ("foreign_keys", "on")] {
            self.db.pragma_update(None, name, value).map_err(fail)?;
        }
        let found: i64 = self.db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
        let Some(missing) = usize::try_from(found).ok().and_then(|version| MIGRATIONS.get(version..)) else {
            return Err(CatalogError::Newer { path, found, known: MIGRATIONS.len() });
        };
        for (at, migration) in missing.iter().enumerate() {
            let transaction = self.db.transaction().map_err(fail)?;
            transaction.execute_batch(migration).map_err(fail)?;
            transaction.pragma_update(None, "user_version", found + at as i64 + 1).map_err(fail)?;
            transaction.commit().map_err(fail)?;
        }
        Ok(())
    }

    fn fail(&self, error: rusqlite::Error) -> CatalogError {
        sqlite(&self.path, error)
    }

    /// Cameras that have or had recordings.
    pub fn cameras(&self) -> Result<Vec<u32>, CatalogError> {
        let read = || {
            let mut statement = self.db.prepare_cached("SELECT source_id FROM cameras ORDER BY source_id")?;
            let rows = statement.query_map([], |row| row.get::<_, i64>(0))?;
            rows.map(|id| id.map(|id| u32::try_from(id).ok()))
                .filter_map(Result::transpose)
                .collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error| self.fail(error))
    }

    /// Recordings of a camera whose end was not noted.
    pub fn unfinished(&self, volume: &str, source_id: Option<u32>) -> Result<Vec<Recording>, CatalogError> {
        self.query(
            "WHERE r.end_us IS NULL AND v.identity = ?1 AND (?2 IS NULL OR r.source_id = ?2)",
            params![volume, source_id],
        )
    }

    /// When the newest recording of a camera began.
    pub fn newest(&self, volume: &str, source_id: u32) -> Result<Option<i64>, CatalogError> {
        self.db
            .query_row(
                "SELECT start_us FROM recordings WHERE source_id = ?1 \
                 AND volume_id = (SELECT id FROM volumes WHERE identity = ?2) ORDER BY start_us DESC LIMIT 1",
                params![source_id, volume],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| self.fail(error))
    }

    /// Bytes of a camera's recordings on a volume, or on all of them.
    pub fn used(&self, volume: Option<&str>, source_id: u32) -> Result<u64, CatalogError> {
        self.db
            .query_row(
                "SELECT coalesce(sum(bytes), 0) FROM usage WHERE source_id = ?1 \
                 AND (?2 IS NULL OR volume_id = (SELECT id FROM volumes WHERE identity = ?2))",
                params![source_id, volume],
                |row| row.get::<_, i64>(0),
            )
            // Below 0 where rows were not what they should be.
            .map(|bytes| u64::try_from(bytes).unwrap_or(0))
            .map_err(|error| self.fail(error))
    }

    /// Forgets recordings that are still where they were found. The number of one that went meanwhile may be
    /// another's.
    pub fn remove(&mut self, recordings: &[&Recording]) -> Result<(), CatalogError> {
        let write = |db: &mut Connection| {
            let transaction = db.transaction()?;
            for recording in recordings {
                transaction
                    .prepare_cached(
                        "DELETE FROM recordings WHERE id = ?1 \
                         AND volume_id = (SELECT id FROM volumes WHERE identity = ?2) AND path = ?3",
                    )?
                    .execute(params![recording.id, recording.volume, recording.path.display().to_string()])?;
            }
            transaction.commit()
        };
        write(&mut self.db).map_err(|error| sqlite(&self.path, error))
    }

    /// Notes recordings that began or ended; all or none, but for those that the catalogue cannot hold: they are left
    /// out, so that they do not keep others from it.
    pub fn write(&mut self, entries: &[Entry]) -> Result<(), CatalogError> {
        match self.write_all(entries) {
            Err(error) if error.refused() => {}
            other => return other,
        }
        for entry in entries {
            match self.write_all(std::slice::from_ref(entry)) {
                Err(error) if error.refused() => {
                    gst::warning!(CAT, "{} cannot be entered: {error}", entry.path.display());
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn write_all(&mut self, entries: &[Entry]) -> Result<(), CatalogError> {
        let write = |db: &mut Connection| {
            let transaction = db.transaction()?;
            for entry in entries {
                put(&transaction, entry)?;
            }
            transaction.commit()
        };
        write(&mut self.db).map_err(|error| sqlite(&self.path, error))
    }
}

fn put_volume(db: &Connection, volume: &Volume) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO volumes (identity, path) VALUES (?1, ?2) ON CONFLICT (identity) DO UPDATE SET path = ?2 \
         WHERE path <> ?2",
    )?
    .execute(params![volume.id, Place::canonical(&volume.root.display().to_string())])?;
    Ok(())
}

fn put(db: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    // A recording that ended without a picture has no file.
    if entry.end_us.is_some() && entry.frames == 0 {
        db.prepare_cached(
            "DELETE FROM recordings WHERE volume_id = (SELECT id FROM volumes WHERE identity = ?1) AND path = ?2",
        )?
        .execute(params![entry.volume.id, entry.path.display().to_string()])?;
        return Ok(());
    }
    put_volume(db, &entry.volume)?;
    db.prepare_cached("INSERT INTO cameras (source_id, first_us) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![entry.source_id, entry.start_us])?;
    db.prepare_cached(
        "INSERT INTO recordings (source_id, volume_id, path, start_us, end_us, clock, bytes, frames, codec, audio, \
         width, height, event_count, checksum, tier) VALUES (?1, (SELECT id FROM volumes WHERE identity = ?2), ?3, \
         ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT (volume_id, path) DO UPDATE SET \
         end_us = ?5, bytes = ?7, frames = ?8, event_count = max(event_count, ?13), checksum = coalesce(?14, checksum)",
    )?
    .execute(params![
        entry.source_id,
        entry.volume.id,
        entry.path.display().to_string(),
        entry.start_us,
        entry.end_us,
        entry.clock,
        entry.bytes,
        entry.frames,
        entry.codec,
        entry.audio,
        entry.width,
        entry.height,
        entry.event_count,
        entry.checksum,
        entry.tier,
    ])?;
    cause::put(db, entry)?;
    for (class, seen) in &entry.sightings {
        db.prepare_cached(
            "INSERT INTO events (recording_id, class_name, first_us, last_us, count, confidence) SELECT r.id, ?3, \
             ?4, ?5, ?6, ?7 FROM recordings r JOIN volumes v ON v.id = r.volume_id WHERE v.identity = ?1 \
             AND r.path = ?2",
        )?
        .execute(params![
            entry.volume.id,
            entry.path.display().to_string(),
            class,
            seen.first_us,
            seen.last_us,
            seen.count,
            // SQLite has no such number.
            if seen.confidence.is_nan() { 0.0 } else { seen.confidence },
        ])?;
    }
    Ok(())
}

fn sqlite(path: &Path, error: rusqlite::Error) -> CatalogError {
    CatalogError::Sqlite { path: path.to_owned(), error }
}
