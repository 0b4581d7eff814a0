//! Addresses and messages of others: whatever they hold, nothing panics and no password is shown.
#![no_main]

use gstnvr::nvrsrc::address::{Address, redact, redact_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str, &str)| {
    let (uri, text, password) = texts;
    let _ = Address::parse(uri, None, Some(password));
    redact(uri);
    redact_text(text, uri, Some(password));
    let shown = redact_text(&format!("before {password} after"), "rtsp://camera.example/1", Some(password));
    // Shorter ones are not hidden, and these are in what was said anyway.
    if password.len() > 8 && !"before *** after".contains(password) {
        assert!(!shown.contains(password));
    }
});
