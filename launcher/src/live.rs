//! What a person sees of a running instance: one line per source, refreshed in place on a terminal; a log line
//! per source every ten seconds else.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

use crate::runtime::{Instance, Snapshot, SourceStatus};

const REFRESH: Duration = Duration::from_millis(500);
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The status lines, where standard error is a terminal.
pub fn lines() -> Option<MultiProgress> {
    io::stderr().is_terminal().then(MultiProgress::new)
}

/// Shows the status of an instance on `lines`, or in the log.
pub fn show(instance: &mut Instance, lines: Option<MultiProgress>) {
    match lines {
        Some(lines) => {
            let mut bars: BTreeMap<u32, ProgressBar> = BTreeMap::new();
            let style =
                ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            instance.observe(REFRESH, Box::new(move |snapshot| refresh(snapshot, &lines, &mut bars, &style)));
        }
        None => instance.observe(LOG_PERIOD, Box::new(log)),
    }
}

fn refresh(
    snapshot: &Snapshot,
    lines: &MultiProgress,
    bars: &mut BTreeMap<u32, ProgressBar>,
    style: &ProgressStyle,
) {
    bars.retain(|id, bar| {
        let stays = snapshot.sources.iter().any(|source| source.source_id == *id);
        if !stays {
            lines.remove(bar);
        }
        stays
    });
    for source in &snapshot.sources {
        let bar = bars.entry(source.source_id).or_insert_with(|| {
            let bar = lines.add(ProgressBar::new_spinner());
            bar.set_style(style.clone());
            bar
        });
        bar.set_message(line(source));
        bar.tick();
    }
}

/// One source in one line of text.
pub fn line(source: &SourceStatus) -> String {
    // Names come from files, and errors from cameras: what would move the cursor stays out.
    let clean =
        |text: &str, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
    let (name, state) = (clean(&source.name, 24), clean(&source.state, 24));
    let mut text = format!("{:>4} {name:<16} {state:<12}", source.source_id);
    let mut add = |part: String| {
        let _ = write!(text, "  {part}");
    };
    if let Some(fps) = source.fps {
        add(format!("{fps:>5.1} fps"));
    }
    if let Some(fps) = source.analysed_fps {
        add(format!("{fps:>5.1}/s analysed"));
    }
    if let Some(detections) = source.detections {
        add(format!("{detections} detections"));
    }
    if let Some(latency) = source.latency_ms {
        add(format!("{latency:.0} ms"));
    }
    if let Some(dropped) = source.dropped {
        add(format!("{dropped} dropped"));
    }
    if source.reconnects > 0 {
        add(format!("{} reconnects", source.reconnects));
    }
    if let Some(error) = source.error.as_ref().filter(|_| source.state != "playing") {
        add(clean(error.lines().next().unwrap_or_default(), 200));
    }
    text
}

fn log(snapshot: &Snapshot) {
    for source in &snapshot.sources {
        info!(
            event = "source.metrics",
            source_id = source.source_id,
            state = source.state,
            fps = source.fps,
            analysed_fps = source.analysed_fps,
            detections = source.detections,
            latency_ms = source.latency_ms,
            dropped = source.dropped,
            reconnects = source.reconnects,
            "{}",
            line(source).trim_start()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_what_is_known() {
        let mut source = SourceStatus {
            source_id: 2,
            name: "Ga\x1bte".into(),
            state: "playing".into(),
            ..Default::default()
        };
        assert_eq!(line(&source).trim_end(), "   2 Gate             playing");
        source.fps = Some(25.0);
        source.analysed_fps = Some(5.04);
        source.detections = Some(3);
        source.latency_ms = Some(41.4);
        source.dropped = Some(0);
        source.reconnects = 1;
        assert!(
            line(&source)
                .ends_with(" 25.0 fps    5.0/s analysed  3 detections  41 ms  0 dropped  1 reconnects")
        );
    }

    #[test]
    fn an_error_of_a_camera_does_not_move_the_cursor() {
        let source = SourceStatus {
            state: "lo\x1b[2Jst".into(),
            error: Some("\x1b]0;title\x07the server said \u{9b}2J404".into()),
            ..Default::default()
        };
        let text = line(&source);
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.ends_with("]0;titlethe server said 2J404"), "{text:?}");
    }
}
