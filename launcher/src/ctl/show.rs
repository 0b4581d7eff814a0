//! Answers as tables, or as JSON lines. What comes from the network is printed without control characters.

use std::{collections::BTreeMap, fmt::Write};

use nvr_core::command::{Ack, Recording, Status, Tier};
use serde_json::{Value, json};

use crate::output::{clean, out, outln};

type Answers = BTreeMap<String, Result<Ack, String>>;

/// Columns as wide as their widest entry.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|text| text.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

pub fn statuses(statuses: &BTreeMap<String, Status>, answers: &Answers, json: bool) {
    if json {
        for status in statuses.values() {
            outln!("{}", serde_json::to_string(status).unwrap_or_default());
        }
        return;
    }
    out!("{}{}", status_table(statuses, answers), recorder_table(statuses));
}

/// What the recorders do and why, below an empty line; nothing where there is none.
fn recorder_table(statuses: &BTreeMap<String, Status>) -> String {
    let mut rows = Vec::new();
    for status in statuses.values().filter(|status| status.status.is_alive()) {
        for stream in &status.streams {
            let Some(recording) = &stream.recording else { continue };
            rows.push(vec![
                clean(&status.instance_id),
                stream.source_id.to_string(),
                clean(&recording.state),
                recording.reason.as_deref().map_or_else(|| "-".into(), clean),
                label(recording).map_or_else(|| "-".into(), clean),
                recording.since.as_deref().map_or_else(|| "-".into(), clean),
                tiers(recording),
                clean(&trouble(recording)),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = ["INSTANCE", "CAMERA", "RECORDER", "REASON", "LABEL", "SINCE", "TIERS", "ERROR"];
    format!("\n{}", table(&head, &rows))
}

fn label(recording: &Recording) -> Option<&str> {
    recording.on_demand.as_ref()?.label.as_deref()
}

/// All tiers, with the state of those that fail.
fn tiers(recording: &Recording) -> String {
    let one = |tier: &Tier| match tier.state.as_str() {
        "ready" => clean(&tier.tier),
        state => format!("{} {}", clean(&tier.tier), clean(state)),
    };
    let list: Vec<_> = recording.tiers.iter().map(one).collect();
    if list.is_empty() { "-".into() } else { list.join(", ") }
}

/// What is wrong, of the recorder and of its tiers.
fn trouble(recording: &Recording) -> String {
    let tiers = recording.tiers.iter().filter_map(|tier| tier.error.as_deref());
    recording.error.as_deref().into_iter().chain(tiers).collect::<Vec<_>>().join("; ")
}

fn status_table(statuses: &BTreeMap<String, Status>, answers: &Answers) -> String {
    let mut rows: Vec<Vec<String>> = statuses
        .values()
        .map(|status| {
            let playing = status.streams.iter().filter(|stream| stream.state == "playing").count();
            let parameter = |name: &str| match status.parameters.get(name) {
                Some(Value::String(text)) => clean(text),
                Some(other) => other.to_string(),
                None => "-".into(),
            };
            let silent = answers.get(&status.instance_id).is_some_and(Result::is_err);
            let state = if silent { "no answer" } else { status.status.name() };
            vec![
                clean(&status.instance_id),
                clean(&status.kind),
                state.into(),
                format!("{playing}/{}", status.streams.len()),
                parameter("max_fps"),
                parameter("model"),
                status.uptime_s.map_or_else(|| "-".into(), |s| uptime(s as u64)),
                clean(status.error.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    for (id, answer) in answers {
        if !statuses.contains_key(id) {
            let error = answer.as_ref().err().cloned().unwrap_or_default();
            let mut row = vec![clean(id), "-".into(), "unknown".into()];
            row.extend(["-", "-", "-", "-"].map(str::to_owned));
            row.push(clean(&error));
            rows.push(row);
        }
    }
    table(&["INSTANCE", "KIND", "STATUS", "PLAYING", "FPS", "MODEL", "UP", "ERROR"], &rows)
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

pub fn metrics(metrics: &BTreeMap<String, Value>, json: bool) {
    if json {
        for value in metrics.values() {
            outln!("{value}");
        }
        return;
    }
    let mut rows = Vec::new();
    for (id, value) in metrics {
        let number = |value: &Value, key: &str| value.get(key).map_or_else(|| "-".into(), Value::to_string);
        let memory =
            value["memory_bytes"].as_u64().map_or_else(|| "-".into(), |b| format!("{} MiB", b >> 20));
        let streams = value["streams"].as_array().cloned().unwrap_or_default();
        let first = vec![clean(id), number(value, "cpu_percent"), memory];
        if streams.is_empty() {
            rows.push(first.iter().cloned().chain(["-", "-", "-", "-", "-"].map(str::to_owned)).collect());
        }
        for (index, stream) in streams.iter().enumerate() {
            let mut row = if index == 0 { first.clone() } else { vec![String::new(); 3] };
            row.extend(
                ["source_id", "fps", "detections", "inference_p50_ms", "latency_ms"]
                    .map(|key| number(stream, key)),
            );
            rows.push(row);
        }
    }
    let head = ["INSTANCE", "CPU %", "MEMORY", "CAMERA", "FPS", "DETECTIONS", "INFERENCE ms", "LATENCY ms"];
    out!("{}", table(&head, &rows));
}

pub fn answers(answers: &Answers, json: bool) {
    if json {
        for (id, answer) in answers {
            let line = match answer {
                Ok(ack) => serde_json::to_value(ack).unwrap_or_default(),
                Err(error) => json!({ "instance_id": id, "ack_status": "error", "error": error }),
            };
            outln!("{line}");
        }
        return;
    }
    let rows: Vec<Vec<String>> = answers
        .iter()
        .map(|(id, answer)| match answer {
            Ok(ack) => {
                vec![clean(id), "completed".into(), ack.result.as_ref().map_or_else(String::new, brought)]
            }
            Err(error) => vec![clean(id), "error".into(), clean(error)],
        })
        .collect();
    let head = if answers.values().any(|answer| answer.as_ref().is_ok_and(|ack| ack.result.is_some())) {
        "RESULT"
    } else {
        "ERROR"
    };
    out!("{}", table(&["INSTANCE", "ANSWER", head], &rows));
}

/// What an answer brought to light, in a line.
fn brought(result: &Value) -> String {
    let text = |value: &Value, key: &str| value[key].as_str().map(clean);
    if let Some(clip) = result.get("clip") {
        let of = |key: &str| text(clip, key).unwrap_or_default();
        return format!("{}, {} to {}", of("path"), of("start"), of("end"));
    }
    let Some(list) = result["recordings"].as_array() else { return clean(&result.to_string()) };
    let lines = list.iter().map(|recording| {
        let mut line = format!(
            "camera {} since {}",
            recording["source_id"],
            text(recording, "since").unwrap_or_default()
        );
        if let Some(until) = text(recording, "until") {
            let _ = write!(line, " until {until}");
        }
        line
    });
    if list.is_empty() {
        "nothing was recorded on demand".into()
    } else {
        lines.collect::<Vec<_>>().join("; ")
    }
}

pub fn status_line(status: &Status, json: bool) {
    if json {
        outln!("{}", serde_json::to_string(status).unwrap_or_default());
        return;
    }
    let mut line =
        format!("{}  {}  {}", clean(&status.timestamp), clean(&status.instance_id), status.status.name());
    for stream in &status.streams {
        let _ = write!(line, "  {}:{}", stream.source_id, clean(&stream.state));
        if stream.paused {
            line.push_str(" (paused)");
        }
        if let Some(recording) = &stream.recording {
            let _ = write!(line, " ({}", clean(&recording.state));
            if let Some(reason) = &recording.reason {
                let _ = write!(line, ": {}", clean(reason));
            }
            if let Some(label) = label(recording) {
                let _ = write!(line, " \"{}\"", clean(label));
            }
            for tier in recording.tiers.iter().filter(|tier| tier.state != "ready") {
                let _ = write!(line, ", {} tier {}", clean(&tier.tier), clean(&tier.state));
            }
            line.push(')');
        }
    }
    if let Some(from) = &status.renamed_from {
        let _ = write!(line, "  renamed from {}", clean(from));
    }
    if let Some(error) = &status.error {
        let _ = write!(line, "  {}", clean(error));
    }
    outln!("{line}");
}

pub fn ack_line(ack: &Ack, json: bool) {
    if json {
        outln!("{}", serde_json::to_string(ack).unwrap_or_default());
        return;
    }
    let status = match &ack.error {
        Some(error) => format!("error: {}", clean(error)),
        None => format!("{:?}", ack.ack_status).to_lowercase(),
    };
    outln!("{}  {}  {}: {status}", clean(&ack.timestamp), clean(&ack.instance_id), clean(&ack.command));
}

#[cfg(test)]
mod tests {
    use nvr_core::command::{OnDemand, State, Stream};

    use super::*;

    #[test]
    fn a_table_is_aligned_and_holds_no_control_characters() {
        let mut a = Status::new("proc-a", State::Running);
        a.kind = "processor\x1b[2J".into();
        a.uptime_s = Some(3725.0);
        a.parameters.insert("model".into(), "demo".into());
        let b = Status::new("wall", State::Offline);
        let statuses = BTreeMap::from([("proc-a".into(), a), ("wall".into(), b)]);
        let answers = BTreeMap::from([("gone".into(), Err("no answer".into()))]);
        let text = status_table(&statuses, &answers);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with("proc-a    processor [2J  running"), "{text}");
        assert!(
            lines[1].contains("demo") && lines[1].contains("1h02m") && lines[3].ends_with("no answer"),
            "{text}"
        );
        assert!(!text.contains('\x1b'));
    }
    #[test]
    fn the_status_says_why_each_camera_is_recorded_and_which_tier_is_missing() {
        let tier = |tier: &str, error: Option<&str>| Tier {
            tier: tier.into(),
            state: if error.is_some() { "failing" } else { "ready" }.into(),
            error: error.map(str::to_owned),
        };
        let asked = Recording {
            state: "recording".into(),
            reason: Some("on_demand".into()),
            since: Some("2026-11-21T10:00:00.000Z".into()),
            on_demand: Some(OnDemand { label: Some("gate\x1b[2J open".into()), ..OnDemand::default() }),
            tiers: vec![tier("hot", None), tier("warm", Some("/mnt/warm is not mounted"))],
            ..Recording::default()
        };
        let idle = Recording { state: "idle".into(), ..Recording::default() };
        let stream = |source_id, recording| Stream { source_id, recording, ..Stream::default() };
        let mut status = Status::new("rec", State::Running);
        status.streams = vec![stream(2, Some(asked)), stream(3, Some(idle)), stream(4, None)];
        let mut gone = Status::new("old", State::Offline);
        gone.streams.clone_from(&status.streams);
        let text = recorder_table(&BTreeMap::from([("rec".into(), status), ("old".into(), gone)]));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(
            lines[2],
            [
                "rec",
                "2",
                "recording",
                "on_demand",
                "gate [2J open",
                "2026-11-21T10:00:00.000Z",
                "hot, warm failing",
                "/mnt/warm is not mounted"
            ]
        );
        assert_eq!(
            (lines.len(), &lines[3][..]),
            (4, &["rec", "3", "idle", "-", "-", "-", "-"][..]),
            "{text}"
        );
        let processor = Status::new("proc", State::Running);
        assert_eq!(recorder_table(&BTreeMap::from([("proc".into(), processor)])), "");
    }
}
