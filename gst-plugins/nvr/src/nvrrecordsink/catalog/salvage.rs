//! What is done about a catalogue that is damaged: it is put aside, and what can still be read of it goes into a new one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nvr_core::segment::name;

use super::{CatalogError, Store};
use crate::nvrrecordsink::worker::now_us;

/// Rows that are read at a time: where one cannot be, the others of these are lost with it.
const PIECE: i64 = 100;
/// Ids that are looked at, at most: what a damaged catalogue says may be anything.
const MOST: i64 = 1 << 28;

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Puts a catalogue aside, with what belongs to it. Returns its new name.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with(path, &format!(".corrupt-{}", name::stem(now_us())));
    fs::rename(path, &aside)?;
    for ending in ["-wal", "-shm"] {
        match fs::rename(with(path, ending), with(&aside, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

impl Store {
    /// Takes over what can be read of another catalogue of the same version. How many recordings that were.
    pub fn take_over(&mut self, other: &Path) -> Result<u64, CatalogError> {
        let fail = |error| super::sqlite(other, error);
        self.db.execute("ATTACH ?1 AS old", [other.display().to_string()]).map_err(fail)?;
        for table in ["volumes", "cameras"] {
            let copy = format!("INSERT OR IGNORE INTO main.{table} SELECT * FROM old.{table}");
            // What cannot be read is done without.
            let _ = self.db.execute(&copy, []);
        }
        let mut recordings = 0;
        for table in ["recordings", "events"] {
            let last = format!("SELECT max(id) FROM old.{table}");
            let last = self.db.query_row(&last, [], |row| row.get::<_, Option<i64>>(0));
            let Some(last) = last.ok().flatten() else { continue };
            let copy = format!(
                "INSERT OR IGNORE INTO main.{table} SELECT * FROM old.{table} WHERE id >= ?1 AND id < ?2"
            );
            for from in (0..=last.min(MOST)).step_by(PIECE as usize) {
                let copied = self.db.execute(&copy, [from, from + PIECE]).unwrap_or(0);
                if table == "recordings" {
                    recordings += copied as u64;
                }
            }
        }
        // A note without its entry would say that the recording was removed.
        let notes = "INSERT OR IGNORE INTO main.moves SELECT * FROM old.moves m \
                     WHERE EXISTS (SELECT 1 FROM main.recordings r WHERE r.id = m.recording_id AND r.path = m.path)";
        let _ = self.db.execute(notes, []);
        self.db.execute("DETACH old", []).map_err(fail)?;
        Ok(recordings)
    }
}
