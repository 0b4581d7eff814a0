//! Lists.

use gstnvr::nvrrecordsink::catalog::{Recording, Store};
use nvr_core::event::timestamp;
use serde_json::{Value, json};

use super::Span;
use crate::{
    cli::{CommandResult, Failure},
    output::{clean, outln},
};

pub(super) fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

pub fn list(store: &Store, span: &Span) -> CommandResult {
    for source in span.sources(store)? {
        let found = store.recordings(source, span.from_us, span.to_us).map_err(Failure::failed)?;
        for recording in &found {
            if span.json {
                outln!("{}", object(recording));
            } else {
                outln!("{}", line(recording));
            }
        }
    }
    Ok(())
}

fn object(r: &Recording) -> Value {
    json!({
        "source_id": r.source_id, "path": r.file(), "start": time(r.start_us),
        "end": r.end_us.map(time), "clock": r.clock, "bytes": r.bytes, "frames": r.frames,
        "codec": r.codec, "audio": r.audio, "width": r.width, "height": r.height,
        "event_count": r.event_count, "tier": r.tier, "checksum": r.checksum,
        "reason": r.reason, "label": r.label,
    })
}

fn line(r: &Recording) -> String {
    let end = r.end_us.map_or_else(|| "open".into(), time);
    let label = r.label.as_ref().map(|label| format!("\"{}\"  ", clean(label))).unwrap_or_default();
    format!(
        "{:>3}  {}  {end:<24}  {:>9} B  {:>5} frames  {}x{} {}  {:>3} events  {:<4}  {:<10}  {label}{}",
        r.source_id,
        time(r.start_us),
        r.bytes,
        r.frames,
        r.width,
        r.height,
        clean(&r.codec),
        r.event_count,
        clean(&r.tier),
        r.reason.as_deref().map_or_else(|| "-".into(), clean),
        clean(&r.file().display().to_string())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        Recording {
            id: 1,
            source_id: 2,
            volume: "v".into(),
            root: "/srv/rec".into(),
            path: "2/a.mp4".into(),
            start_us: 0,
            end_us: Some(10_000_000),
            clock: "ntp".into(),
            bytes: 1000,
            frames: 250,
            codec: "h264".into(),
            audio: None,
            width: 640,
            height: 360,
            event_count: 1,
            tier: "warm".into(),
            checksum: None,
            reason: Some("on_demand".into()),
            label: Some("gate\x1b[2J open".into()),
        }
    }

    #[test]
    fn a_line_says_why_it_was_recorded_and_where_it_lies() {
        let asked = recording();
        let text = line(&asked);
        assert!(
            text.ends_with("  1 events  warm  on_demand   \"gate [2J open\"  /srv/rec/2/a.mp4"),
            "{text}"
        );
        let value = object(&asked);
        assert_eq!((&value["reason"], &value["tier"]), (&json!("on_demand"), &json!("warm")));
        assert_eq!(value["label"], "gate\x1b[2J open", "JSON escapes what a terminal must not see");
        // Of before there were reasons, and still being written.
        let old = Recording { reason: None, label: None, end_us: None, ..asked };
        let text = line(&old);
        assert!(
            text.contains("  open  ") && text.ends_with("  warm  -           /srv/rec/2/a.mp4"),
            "{text}"
        );
        assert!(object(&old)["reason"].is_null() && object(&old)["end"].is_null());
    }
}
