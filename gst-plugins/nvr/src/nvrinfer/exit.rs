//! A process may end while a model loads or an engine is taken down on a thread of its own. ONNX Runtime's global
//! objects are destroyed on exit, and a thread that still uses them then crashes. So the exit waits for such threads,
//! for a while.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A load that takes longer than this is left to its fate: a process that was told to end has to.
const LIMIT: Duration = Duration::from_secs(5);

static BUSY: Mutex<usize> = Mutex::new(0);
static IDLE: Condvar = Condvar::new();

/// Held by whoever uses ONNX Runtime on a thread that nobody joins.
#[derive(Debug)]
pub struct Busy(());

impl Busy {
    pub fn new() -> Self {
        *BUSY.lock() += 1;
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *BUSY.lock() -= 1;
        IDLE.notify_all();
    }
}

extern "C" fn wait() {
    let deadline = Instant::now() + LIMIT;
    let mut busy = BUSY.lock();
    while *busy > 0 && !IDLE.wait_until(&mut busy, deadline).timed_out() {}
}

/// To be called once, after the library was loaded: what is registered last is called first, so the library's own
/// objects still exist while [`wait`] waits.
pub fn guard() {
    // SAFETY: `wait` is a function without arguments that lives as long as the program; a plugin is never unloaded.
    unsafe {
        libc::atexit(wait);
    }
}
