//! Lists.

use std::io::{self, Write};

use gstnvr::nvrrecordsink::catalog::Store;
use nvr_core::event::timestamp;
use serde_json::json;

use super::Span;
use crate::cli::{CommandResult, Failure};

pub(super) fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

/// Prints lines; a reader that has seen enough is no failure.
pub(super) fn print(lines: impl Iterator<Item = String>) -> CommandResult {
    let mut out = io::stdout().lock();
    for line in lines {
        match writeln!(out, "{line}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(Failure::failed)?,
        }
    }
    Ok(())
}

pub fn list(store: &Store, span: &Span) -> CommandResult {
    for source in span.sources(store)? {
        let found = store.recordings(source, span.from_us, span.to_us).map_err(Failure::failed)?;
        print(found.iter().map(|r| {
            if span.json {
                json!({
                    "source_id": r.source_id, "path": r.file(), "start": time(r.start_us),
                    "end": r.end_us.map(time), "clock": r.clock, "bytes": r.bytes, "frames": r.frames,
                    "codec": r.codec, "audio": r.audio, "width": r.width, "height": r.height,
                    "event_count": r.event_count, "tier": r.tier,
                    "checksum": r.checksum,
                })
                .to_string()
            } else {
                let end = r.end_us.map_or_else(|| "open".into(), time);
                format!(
                    "{:>3}  {}  {end:<24}  {:>9} B  {:>5} frames  {}x{} {}  {} events  {}",
                    r.source_id,
                    time(r.start_us),
                    r.bytes,
                    r.frames,
                    r.width,
                    r.height,
                    r.codec,
                    r.event_count,
                    r.file().display()
                )
            }
        }))?;
    }
    Ok(())
}
