//! Where test data lie: `tests/data` in this repository, and a larger set beside it that not every checkout has.

use std::path::{Path, PathBuf};

/// A file or folder of this repository's own `tests/data`.
pub fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(path)
}

/// The shared set of models, videos and pictures: `NVR_TEST_DATA`, else `../shared/data` beside the workspace.
pub fn shared_root() -> PathBuf {
    match std::env::var_os("NVR_TEST_DATA") {
        Some(root) if !root.is_empty() => root.into(),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    }
}

/// A file or folder of the shared set. `None` where it is missing; the test that asked then says that it was
/// skipped, and why, and has to return.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = shared_root().join(path);
    if full.exists() {
        return Some(full);
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!(
        "SKIPPED: {test} needs {path} of the shared test data; set NVR_TEST_DATA to the folder that has it"
    );
    None
}
