//! Recordings as a power cut or a failing disk leaves them.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use nvr_core::segment::read;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(contents) = read::contents(&mut Cursor::new(bytes)) {
        contents.video();
        contents.frames();
        contents.duration_us();
    }
});
