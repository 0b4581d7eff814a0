//! Logs of the process: text or JSON lines on standard error, with stable event names in the field `event`.
//! What GStreamer itself warns about appears at level debug, credentials removed.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::redact::redact;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Writes above the status lines where there are some, to standard error else.
#[derive(Clone, Debug)]
struct Above(Option<MultiProgress>);

struct Line(Option<MultiProgress>);

impl Write for Line {
    /// Never fails: a log that nobody reads any more, as behind `2>&1 | head`, is no reason for cameras to end, and
    /// the library answers an error with `eprintln!`, which would panic on the thread that had something to say.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write_all(bytes);
        let _ = match &self.0 {
            Some(status) => status.suspend(write),
            None => write(),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Above {
    type Writer = Line;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.clone())
    }
}

/// Libraries whose own logs only matter to their authors.
const QUIET: &str = "rumqttd=off,rumqttc=warn,ureq=warn,ureq_proto=warn,rustls=warn,ort=warn";

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| {
        format!("log level {level:?} is none of error, warn, info, debug, trace, nor a filter: {error}")
    })
}

/// Whether `level` can be given to [`init`].
///
/// # Errors
/// Says what it has to be.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// Installs the process's logs. `level` is a level or an `EnvFilter` expression.
///
/// # Errors
/// `level` is neither.
pub fn init(format: Format, level: &str, status: Option<MultiProgress>) -> Result<(), String> {
    let filter = filter(level)?;
    let writer = Above(status);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second call, as tests make it, keeps the first.
    let _ = match format {
        Format::Text => builder.with_target(false).with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => {
            builder.json().flatten_event(true).with_target(false).with_current_span(false).try_init()
        }
    };
    forward_gstreamer();
    Ok(())
}

/// Sends GStreamer's warnings and errors to our log, unless `GST_DEBUG` asks for GStreamer's own.
fn forward_gstreamer() {
    if std::env::var_os("GST_DEBUG").is_some() {
        return;
    }
    gst::log::remove_default_log_function();
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    gst::log::set_default_threshold(gst::DebugLevel::Warning);
    gst::log::add_log_function(|category, level, file, _function, line, object, message| {
        if level > gst::DebugLevel::Warning {
            return;
        }
        let text = message.get().map(|text| redact(text.as_str()).into_owned()).unwrap_or_default();
        tracing::debug!(
            event = "gstreamer",
            category = category.name(),
            object = object.map(|object| redact(&object.to_string()).into_owned()),
            place = format!("{file}:{line}"),
            "{text}"
        );
    });
}
