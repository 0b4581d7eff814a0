//! `nvr-launch` for the tests of this package: cargo tells a test only where its own package's programs are.

use std::process::ExitCode;

fn main() -> ExitCode {
    nvr_launch::process::tune_allocator();
    nvr_launch::cli::main(std::env::args_os())
}
