//! What concerns the process as a whole: exit codes, signals, the allocator.

use std::{
    io::Write,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{output::errln, runtime::Handle};

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
  1    failed while running; a download or the demo failed; an instance that ctl told did not carry it out
  2    wrong command line, graph file, site file or value
  3    could not start: no model, no inference runtime, no camera branch, an instance id that is in use, no broker for ctl
  4    did not stop within 10 s of being asked to
  130  stopped at once by a second SIGINT or SIGTERM";

/// How long an orderly end may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// First SIGINT, SIGTERM or SIGHUP: an orderly end. A second SIGINT or SIGTERM: the end. Who closes a terminal may well
/// send more than one SIGHUP.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn stop_on_signals(handle: Handle) -> std::io::Result<()> {
    let mut signals = Signals::new(stop_signals())?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            if asked && signal == SIGHUP {
                continue;
            }
            if asked {
                end_now(FORCED);
            }
            asked = true;
            handle.stop();
            give_up_later();
        }
    })?;
    Ok(())
}

/// The signals that ask for an orderly end. A SIGHUP that is ignored, as under nohup, stays ignored.
pub(crate) fn stop_signals() -> Vec<i32> {
    // SAFETY: a null pointer for the new action only asks for the present one, for which there is room.
    #[allow(unsafe_code)]
    let ignored = unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(SIGHUP, std::ptr::null(), &raw mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    };
    if ignored { vec![SIGINT, SIGTERM] } else { vec![SIGINT, SIGTERM, SIGHUP] }
}

static LEFT_BEHIND: AtomicBool = AtomicBool::new(false);

/// Threads of elements that hang are in the process for good.
pub(crate) fn leave_behind() {
    LEFT_BEHIND.store(true, Ordering::Relaxed);
}

/// The end of `main`.
pub(crate) fn finish(code: u8) -> ExitCode {
    if LEFT_BEHIND.load(Ordering::Relaxed) {
        let _ = std::io::stdout().flush();
        end_now(code);
    }
    ExitCode::from(code)
}

/// Ends the process without another word: libraries tidy up at an ordinary exit, and crash over threads that are
/// still at work in them.
fn end_now(code: u8) -> ! {
    // SAFETY: the function takes any number and does not return.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code.into())
    }
}

/// Ends the process should its orderly end hang.
fn give_up_later() {
    let watchdog = thread::Builder::new().name("watchdog".into()).spawn(|| {
        thread::sleep(PATIENCE);
        errln!("nvr-launch did not stop within {} s and ends now", PATIENCE.as_secs());
        end_now(STUCK);
    });
    if watchdog.is_err() {
        end_now(STUCK);
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

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    #[test]
    fn the_end_at_once_leaves_libraries_alone() {
        extern "C" fn crash() {
            std::process::abort();
        }
        const CHILD: &str = "NVR_TEST_ENDS_AT_ONCE";
        if env::var_os(CHILD).is_some() {
            // SAFETY: a function without arguments that lives as long as the program.
            #[allow(unsafe_code)]
            unsafe {
                libc::atexit(crash);
            }
            leave_behind();
            finish(FORCED);
        }
        let name = "process::tests::the_end_at_once_leaves_libraries_alone";
        let mut child = Command::new(env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.code(), Some(FORCED.into()), "{output:?}");
    }

    #[test]
    fn help_and_documentation_say_the_same_of_the_exit_codes() {
        let page = include_str!("../../docs/ref/command-line.md").replace('`', "");
        let (_, table) = page.split_once("| code | meaning |").unwrap();
        let table = table.split("\n\n").next().unwrap();
        let documented: Vec<Vec<&str>> = table
            .lines()
            .skip(2)
            .map(|line| line.trim_matches(['|', ' ']).splitn(2, '|').map(str::trim).collect())
            .collect();
        let shown: Vec<Vec<&str>> = EXIT_CODES
            .lines()
            .skip(1)
            .map(|line| line.trim().splitn(2, ' ').map(str::trim).collect())
            .collect();
        assert_eq!(shown, documented);
    }
}
