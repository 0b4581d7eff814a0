//! What concerns the process as a whole: exit codes, signals, the allocator.

use std::{process::exit, thread, time::Duration};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::runtime::Handle;

/// Everything went as asked.
pub const OK: u8 = 0;
/// An error outside any camera branch, or a check, download or demo that failed.
pub const FAILED: u8 = 1;
/// The command line, a graph file, a site file or a value is wrong.
pub const USAGE: u8 = 2;
/// Everything is right on paper, and nothing could be started: no model, no inference runtime, a port in use.
pub const START: u8 = 3;
/// Asked to stop, and still not stopped after ten seconds.
pub const STUCK: u8 = 4;
/// A second SIGINT or SIGTERM.
pub const FORCED: u8 = 130;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0    as asked: stopped by a signal, every source came to its end, or the check found nothing
  1    failed while running
  2    wrong command line, graph file, site file or value
  3    could not start: no model, no inference runtime, no camera branch
  4    did not stop within 10 s
  130  stopped at once by a second SIGINT or SIGTERM";

/// How long an orderly end may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// First SIGINT or SIGTERM: an orderly end. Second: the end.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn stop_on_signals(handle: Handle) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut asked = false;
        for _ in signals.forever() {
            if asked {
                exit(FORCED.into());
            }
            asked = true;
            handle.stop();
            give_up_later();
        }
    })?;
    Ok(())
}

/// Ends the process should its orderly end hang.
fn give_up_later() {
    let watchdog = thread::Builder::new().name("watchdog".into()).spawn(|| {
        thread::sleep(PATIENCE);
        eprintln!("nvr-launch did not stop within {} s and ends now", PATIENCE.as_secs());
        exit(STUCK.into());
    });
    if watchdog.is_err() {
        exit(STUCK.into());
    }
}

/// Keeps the allocator from holding one arena per thread: with a dozen cameras that alone would be half the
/// memory of the process. To be called before threads exist.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only changes parameters of the allocator; it is called before any thread is started, and
    // both parameters are documented for glibc.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Frames and tensors go back to the system when they are freed.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1024 * 1024);
    }
}

/// A file in `folder` that is given its name when it is complete, with the permissions of any new file: a service of
/// another user may have to read it.
pub fn readable_temporary(folder: &std::path::Path) -> std::io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}
