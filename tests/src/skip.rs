//! Tests that cannot run here say so.

/// Says that the running test is skipped, and why. With `NVR_NO_SKIP` set, as CI has it, that is a failure: what set-up
/// installs is there, so a test that does not find it would pass without having looked at anything.
pub fn skipped(needs: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let allowed = std::env::var_os("NVR_NO_SKIP").is_none_or(|value| value.is_empty());
    assert!(allowed, "{test} needs {needs}, and NVR_NO_SKIP is set");
    eprintln!("SKIPPED: {test} needs {needs}");
}
