//! Timelines: from when to when each camera was recorded, and what was seen, for people, as JSON, and as a picture.

use std::{fs::File, io::BufWriter, path::Path};

use gstnvr::nvrrecordsink::catalog::{self, Event, Store};
use jiff::tz::TimeZone;
use nvr_core::{
    draw::Canvas,
    segment::{
        chart::{self, Chart, Mark, Row, Stretch},
        trigger::Reason,
    },
};
use serde_json::json;

use super::{Span, show::time};
use crate::{
    cli::{CommandResult, Failure},
    output::{clean, outln},
};

/// A pause that is none: what a segment's last picture lasts longer or shorter than its camera said.
const PAUSE_US: i64 = 1_000_000;

/// What is known of one camera.
struct Line {
    source: u32,
    spans: Vec<catalog::Span>,
    events: Vec<Event>,
}

/// A picture that is wanted.
#[derive(Debug)]
pub struct Picture<'a> {
    pub file: &'a Path,
    pub width: u32,
    /// Name of a time zone; the system's where there is none.
    pub zone: Option<&'a str>,
}

pub fn run(store: &Store, span: &Span, picture: Option<&Picture<'_>>) -> CommandResult {
    let mut lines = Vec::new();
    for source in span.sources(store)? {
        let spans = store.timeline(source, span.from_us, span.to_us, PAUSE_US).map_err(Failure::failed)?;
        let events = store.events(source, span.from_us, span.to_us).map_err(Failure::failed)?;
        lines.push(Line { source, spans, events });
    }
    let (from_us, to_us) = limits(span, &lines);
    if let Some(picture) = picture {
        if lines.iter().all(|line| line.spans.is_empty()) && (span.from_us == 0 || span.to_us == i64::MAX) {
            return Err(Failure::failed(
                "nothing is recorded; --from and --to say what to draw all the same",
            ));
        }
        let rows: Vec<_> = lines.iter().map(Line::row).collect();
        let zone = match picture.zone {
            Some(name) => TimeZone::get(name).map_err(Failure::usage)?,
            None => TimeZone::system(),
        };
        let canvas = chart::draw(&Chart { from_us, to_us, rows: &rows, zone, width: picture.width });
        save(picture.file, &canvas)
            .map_err(|error| Failure::failed(format!("{}: {error}", picture.file.display())))?;
        return Ok(());
    }
    for line in &lines {
        if span.json {
            outln!("{}", line.json(from_us, to_us));
        } else {
            line.text().for_each(|text| outln!("{text}"));
        }
    }
    Ok(())
}

/// The time that is shown: what was asked for, else what there is.
fn limits(span: &Span, lines: &[Line]) -> (i64, i64) {
    let spans = || lines.iter().flat_map(|line| &line.spans);
    let from_us = if span.from_us > 0 { None } else { spans().map(|s| s.start_us).min() };
    let to_us = if span.to_us < i64::MAX { None } else { spans().map(|s| s.end_us).max() };
    let from_us = from_us.unwrap_or(span.from_us);
    (from_us, to_us.unwrap_or(span.to_us).max(from_us))
}

impl Line {
    fn row(&self) -> Row {
        let stretch = |s: &catalog::Span| Stretch {
            start_us: s.start_us,
            end_us: s.end_us,
            reason: s.reason.unwrap_or(Reason::Continuous),
        };
        let mark = |e: &Event| Mark { class: e.class_name.clone(), first_us: e.first_us, last_us: e.last_us };
        Row {
            name: format!("Camera {}", self.source),
            bytes: self.spans.iter().map(|span| span.bytes).sum(),
            stretches: self.spans.iter().map(stretch).collect(),
            marks: self.events.iter().map(mark).collect(),
        }
    }

    fn json(&self, from_us: i64, to_us: i64) -> String {
        let row = self.row();
        let spans: Vec<_> = self
            .spans
            .iter()
            .map(|s| {
                json!({
                    "start": time(s.start_us), "end": time(s.end_us), "segments": s.segments,
                    "bytes": s.bytes, "event_count": s.event_count, "reason": s.reason.map(Reason::name),
                })
            })
            .collect();
        let gaps: Vec<_> = row
            .gaps(from_us, to_us)
            .into_iter()
            .filter(|(from, to)| to - from > PAUSE_US)
            .map(|(from, to)| json!({"start": time(from), "end": time(to)}))
            .collect();
        let events: Vec<_> = self
            .events
            .iter()
            .map(|e| {
                json!({
                    "class_name": e.class_name, "first": time(e.first_us), "last": time(e.last_us),
                    "count": e.count, "confidence": e.confidence,
                })
            })
            .collect();
        let coverage = row.covered_us(from_us, to_us) as f64 / (to_us - from_us).max(1) as f64;
        json!({
            "source_id": self.source, "from": time(from_us), "to": time(to_us), "coverage": coverage,
            "spans": spans, "gaps": gaps, "events": events,
        })
        .to_string()
    }

    fn text(&self) -> impl Iterator<Item = String> {
        let source = self.source;
        let spans = self.spans.iter().map(move |s| {
            format!(
                "{source:>3}  {}  {}  {:>5} segments  {:>9.1} MB  {} events{}",
                time(s.start_us),
                time(s.end_us),
                s.segments,
                s.bytes as f64 / 1e6,
                s.event_count,
                s.reason.map(|reason| format!("  {}", reason.name())).unwrap_or_default()
            )
        });
        let events = self.events.iter().map(move |e| {
            format!(
                "{source:>3}    {} {} to {}, {} times, confidence up to {:.2}",
                clean(&e.class_name),
                time(e.first_us),
                time(e.last_us),
                e.count,
                e.confidence
            )
        });
        spans.chain(events)
    }
}

/// Writes a picture that covers its ground as PNG.
fn save(file: &Path, canvas: &Canvas) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(file)?), canvas.width(), canvas.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let bytes: Vec<u8> = canvas.pixels().iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&bytes)?;
    writer.finish()
}
