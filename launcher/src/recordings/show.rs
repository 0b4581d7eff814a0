//! Lists and timelines.

use std::io::{self, Write};

use gstnvr::nvrrecordsink::catalog::Store;
use nvr_core::event::timestamp;
use serde_json::json;

use super::Span;
use crate::cli::{CommandResult, Failure};

/// A pause that is none: what a segment's last picture lasts longer or shorter than its camera said.
const PAUSE_US: i64 = 1_000_000;

fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

/// Prints lines; a reader that has seen enough is no failure.
fn print(lines: impl Iterator<Item = String>) -> CommandResult {
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
                    "event_count": r.event_count,
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

pub fn timeline(store: &Store, span: &Span) -> CommandResult {
    for source in span.sources(store)? {
        let spans = store.timeline(source, span.from_us, span.to_us, PAUSE_US).map_err(Failure::failed)?;
        let events = store.events(source, span.from_us, span.to_us).map_err(Failure::failed)?;
        if span.json {
            let spans: Vec<_> = spans
                .iter()
                .map(|s| {
                    json!({
                        "start": time(s.start_us), "end": time(s.end_us), "segments": s.segments,
                        "bytes": s.bytes, "event_count": s.event_count,
                    })
                })
                .collect();
            let events: Vec<_> = events
                .iter()
                .map(|e| {
                    json!({
                        "class_name": e.class_name, "first": time(e.first_us), "last": time(e.last_us),
                        "count": e.count, "confidence": e.confidence,
                    })
                })
                .collect();
            print(std::iter::once(
                json!({"source_id": source, "spans": spans, "events": events}).to_string(),
            ))?;
            continue;
        }
        print(spans.iter().map(|s| {
            format!(
                "{source:>3}  {}  {}  {:>5} segments  {:>9.1} MB  {} events",
                time(s.start_us),
                time(s.end_us),
                s.segments,
                s.bytes as f64 / 1e6,
                s.event_count
            )
        }))?;
        print(events.iter().map(|e| {
            format!(
                "{source:>3}    {} {} to {}, {} times, confidence up to {:.2}",
                e.class_name,
                time(e.first_us),
                time(e.last_us),
                e.count,
                e.confidence
            )
        }))?;
    }
    Ok(())
}
