//! The time that ages of recordings are reckoned by, one for each catalogue of the process: a clock that is wrong when
//! the machine starts must not cost the archive.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use nvr_core::retention::Ages;
use parking_lot::Mutex;
use rusqlite::OptionalExtension;

use super::{CatalogError, Store};
use crate::nvrrecordsink::imp::CAT;
use crate::nvrrecordsink::worker::now_us;

static AGES: LazyLock<Mutex<HashMap<PathBuf, Ages>>> = LazyLock::new(Mutex::default);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Store {
    /// Begins to mind the clock. To be called before anything is written: what was recorded last tells what time it
    /// was then, and the order of writing is right even if a clock was not.
    pub(super) fn begin_ages(&self) -> Result<(), CatalogError> {
        let last = self
            .db
            .query_row("SELECT start_us FROM recordings ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(|error| self.fail(error))?;
        let steady = START.elapsed();
        let mut all = AGES.lock();
        let ages = all.entry(self.path.clone()).or_default();
        if let Some(last) = last {
            ages.begin(last, steady);
        }
        Ok(())
    }

    /// The time that ages are reckoned by.
    pub fn age_now_us(&self) -> i64 {
        let wall = now_us();
        let steady = START.elapsed();
        let (now, news) = {
            let mut all = AGES.lock();
            let Some(ages) = all.get_mut(&self.path) else { return wall };
            let before = ages.doubts();
            let now = ages.now(wall, steady);
            (now, ages.doubts().then_some(!before))
        };
        if news == Some(true) {
            gst::warning!(
                CAT,
                "{}: the clock of this machine is {} hours ahead of the last recording; is it right? If it stays so, \
                 it counts in an hour; until then nothing is removed that it alone makes too old",
                self.path.display(),
                wall.saturating_sub(now) / 3_600_000_000
            );
        }
        now
    }
}
