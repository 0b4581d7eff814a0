//! Standard output and standard error of commands. `println!` and `eprintln!` panic where nobody reads any more, as in
//! `nvr-launch ctl watch | head -1` and `nvr-launch check site.toml 2>&1 | head -1`.

use std::{
    fmt,
    io::{self, Write},
    process::exit,
};

use crate::process;

/// Writes, and ends the process where that cannot be: quietly where the reader has had enough.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit(process::OK.into()),
        Err(error) => {
            complain(format_args!("nvr-launch: standard output: {error}\n"));
            exit(process::FAILED.into());
        }
    }
}

/// Writes where somebody reads: for commands whose exit code says what they found, which they go on to find.
pub(crate) fn offer(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// Text of others without what would move the cursor or ring the bell.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Writes to standard error. Where nobody reads that, there is nobody to tell; the exit code says it.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// `print!` by [`write`].
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// `println!` by [`write`].
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// `println!` by [`offer`].
macro_rules! offerln {
    ($($text:tt)*) => { $crate::output::offer(format_args!("{}\n", format_args!($($text)*))) };
}

/// `eprintln!` by [`complain`].
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::complain(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {errln, offerln, out, outln};
