//! `nvr-launch`: see `nvr-launch --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nvr_launch::process::tune_allocator();
    nvr_launch::cli::main(std::env::args_os())
}
