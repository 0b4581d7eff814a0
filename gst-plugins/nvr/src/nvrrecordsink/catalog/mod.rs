//! The catalogue: which recording of which camera lies where, from when to when, and what was seen in it.
//!
//! An SQLite file in WAL mode, so that others may read while the recorder writes. Times are microseconds since 1970,
//! UTC. [`Store`] is the file; [`Keeper`] is the thread that writes it for the elements of this process, in batches.

mod cause;
#[cfg(test)]
mod figures;
mod keeper;
mod moves;
mod reconcile;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nvr_core::retention::Candidate;
use nvr_core::segment::trigger::Reason;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::tiers::Place;
use super::volume::Volume;

pub use cause::Cause;
pub(super) use keeper::{Attached, PASS, candidates, chosen, oldest};
pub use keeper::{Entry, Guard, Keeper, Limits, Order};
pub use moves::{Move, Side};
pub use reconcile::{Repairs, describe, repair_file};

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
}

impl CatalogError {
    /// Whether the file itself is as good as it was, and only room is missing.
    fn full(&self) -> bool {
        let Self::Sqlite { error, .. } = self else { return false };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
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

/// The catalogue's file.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
}

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

    fn query<P: rusqlite::Params>(&self, rest: &str, params: P) -> Result<Vec<Recording>, CatalogError> {
        let text = format!("SELECT {COLUMNS} FROM recordings r JOIN volumes v ON v.id = r.volume_id {rest}");
        let read = || {
            let mut statement = self.db.prepare_cached(&text)?;
            let rows = statement.query_map(params, recording)?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error| self.fail(error))
    }

    /// Cameras that have or had recordings.
    pub fn cameras(&self) -> Result<Vec<u32>, CatalogError> {
        let read = || {
            let mut statement = self.db.prepare_cached("SELECT source_id FROM cameras ORDER BY source_id")?;
            statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error| self.fail(error))
    }

    /// Recordings of a camera that overlap a time, in order.
    pub fn recordings(
        &self,
        source_id: u32,
        from_us: i64,
        to_us: i64,
    ) -> Result<Vec<Recording>, CatalogError> {
        // The one that began before `from_us` and reaches into it is the last that did, so no scan is needed.
        self.query(
            "WHERE r.source_id = ?1 AND r.start_us < ?3 AND r.start_us >= coalesce((SELECT max(start_us) \
             FROM recordings WHERE source_id = ?1 AND start_us <= ?2), ?2) \
             AND coalesce(r.end_us, r.start_us + 1) > ?2 ORDER BY r.start_us",
            params![source_id, from_us, to_us],
        )
    }

    /// Every recording, a page at a time: those with ids after `after`.
    pub fn page(&self, after: i64, count: u32) -> Result<Vec<Recording>, CatalogError> {
        self.query("WHERE r.id > ?1 ORDER BY r.id LIMIT ?2", params![after, count])
    }

    /// Recordings of a camera whose end was not noted.
    pub fn unfinished(&self, volume: &str, source_id: Option<u32>) -> Result<Vec<Recording>, CatalogError> {
        self.query(
            "WHERE r.end_us IS NULL AND v.identity = ?1 AND (?2 IS NULL OR r.source_id = ?2)",
            params![volume, source_id],
        )
    }

    /// What was seen in the recordings of a time.
    pub fn events(&self, source_id: u32, from_us: i64, to_us: i64) -> Result<Vec<Event>, CatalogError> {
        let read = || {
            let mut statement = self.db.prepare_cached(
                "SELECT e.class_name, e.first_us, e.last_us, e.count, e.confidence FROM recordings r \
                 JOIN events e ON e.recording_id = r.id WHERE r.source_id = ?1 AND r.event_count > 0 \
                 AND r.start_us < ?3 AND r.start_us >= coalesce((SELECT max(start_us) FROM recordings \
                 WHERE source_id = ?1 AND start_us <= ?2), ?2) AND e.last_us >= ?2 AND e.first_us < ?3 \
                 ORDER BY e.first_us",
            )?;
            let rows = statement.query_map(params![source_id, from_us, to_us], |row| {
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
                "SELECT start_us, coalesce(end_us, start_us), bytes, event_count, reason FROM recordings \
                 WHERE source_id = ?1 AND start_us < ?3 AND start_us >= coalesce((SELECT max(start_us) \
                 FROM recordings WHERE source_id = ?1 AND start_us <= ?2), ?2) ORDER BY start_us",
            )?;
            let mut rows = statement.query(params![source_id, from_us, to_us])?;
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
                |row| row.get(0),
            )
            .map_err(|error| self.fail(error))
    }

    /// The oldest finished recordings: of a camera or of all, on a volume or on all; with `plain` those without
    /// events.
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
        self.query(&rest, params![wanted.source_id, wanted.volume, count])
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

    /// Notes recordings that began or ended; all or none.
    pub fn write(&mut self, entries: &[Entry]) -> Result<(), CatalogError> {
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
         end_us = ?5, bytes = ?7, frames = ?8, event_count = max(event_count, ?13), checksum = ?14",
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
            seen.confidence,
        ])?;
    }
    Ok(())
}

fn sqlite(path: &Path, error: rusqlite::Error) -> CatalogError {
    CatalogError::Sqlite { path: path.to_owned(), error }
}
