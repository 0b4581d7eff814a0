//! Standard output of commands. `println!` panics where nobody reads any more, as in `nvr-launch ctl watch | head -1`.

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
            eprintln!("nvr-launch: standard output: {error}");
            exit(process::FAILED.into());
        }
    }
}

/// `print!` by [`write`].
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// `println!` by [`write`].
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {out, outln};
