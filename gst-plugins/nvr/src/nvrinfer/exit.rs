//! A process may end while a model loads, an engine is taken down or an inference runs on a thread of its own. ONNX
//! Runtime's global objects are destroyed on exit, and a thread that still uses them then crashes. So the exit waits for
//! such threads, for a while, and lets nobody begin again.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A load that takes longer than this is left to its fate: a process that was told to end has to.
const LIMIT: Duration = Duration::from_secs(5);

static GATE: Gate = Gate::new();

struct Gate {
    state: Mutex<State>,
    idle: Condvar,
}

struct State {
    busy: usize,
    /// The process ends: who would begin now waits for that.
    closed: bool,
}

impl Gate {
    const fn new() -> Self {
        Self { state: Mutex::new(State { busy: 0, closed: false }), idle: Condvar::new() }
    }

    fn enter(&self) {
        let mut state = self.state.lock();
        while state.closed {
            self.idle.wait(&mut state);
        }
        state.busy += 1;
    }

    fn leave(&self) {
        let last = {
            let mut state = self.state.lock();
            state.busy -= 1;
            state.busy == 0
        };
        if last {
            self.idle.notify_all();
        }
    }

    fn close(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        while state.busy > 0 && !self.idle.wait_until(&mut state, deadline).timed_out() {}
        state.closed = true;
    }
}

/// Held by whoever uses ONNX Runtime on a thread that nobody can be relied on to join.
#[derive(Debug)]
pub struct Busy(());

impl Busy {
    pub fn new() -> Self {
        GATE.enter();
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        GATE.leave();
    }
}

extern "C" fn wait() {
    GATE.close(LIMIT);
}

/// To be called once, after the library was loaded: what is registered last is called first, so the library's own
/// objects still exist while [`wait`] waits.
pub fn guard() {
    // SAFETY: `wait` is a function without arguments that lives as long as the program; a plugin is never unloaded.
    unsafe {
        libc::atexit(wait);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc::channel},
        thread,
    };

    use super::*;

    #[test]
    fn an_end_waits_for_what_runs_and_lets_nobody_begin() {
        let gate = Arc::new(Gate::new());
        gate.enter();
        let (done, closed) = channel();
        let closing = gate.clone();
        thread::spawn(move || {
            closing.close(Duration::from_mins(1));
            done.send(()).unwrap();
        });
        assert!(closed.recv_timeout(Duration::from_millis(100)).is_err(), "somebody is busy");
        gate.leave();
        closed.recv_timeout(Duration::from_secs(20)).unwrap();

        let (done, entered) = channel();
        let late = gate.clone();
        // Ends with the process, as it does where it is needed.
        thread::spawn(move || {
            late.enter();
            let _ = done.send(());
        });
        assert!(entered.recv_timeout(Duration::from_millis(100)).is_err(), "the process is ending");
    }

    #[test]
    fn an_end_does_not_wait_for_ever() {
        let gate = Gate::new();
        gate.enter();
        gate.close(Duration::from_millis(50));
        gate.leave();
    }
}
