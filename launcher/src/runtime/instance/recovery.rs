//! Branches that fail, get stuck or hang: taken down, built anew, and in the end left behind.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use gst::prelude::*;
use tracing::{error, info, warn};

use super::{
    super::branch::{self, Parts, Phase},
    Instance, STOPPED, unknown,
};
use crate::process;

/// Branches of one camera that may hang, before only a restart of the process helps.
const MOST_ABANDONED: usize = 3;
/// Until a camera whose branches hang is looked at again.
const HOPELESS: Duration = Duration::from_mins(1);

impl Instance {
    /// Takes a failed branch down and has it built again after the backoff.
    pub(in crate::runtime) fn retry_later(&mut self, id: u32, reason: &str) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        let delay = branch.next_delay();
        branch.last_error = Some(reason.to_owned());
        branch.rebuilds += 1;
        warn!(
            event = "source.failed",
            source_id = id,
            name = branch.camera.name,
            retry_in_s = delay.as_secs_f64(),
            "camera {id} failed, next attempt in {:.1} s: {reason}",
            delay.as_secs_f64()
        );
        match &mut branch.phase {
            Phase::Running(_) => self.take_down(id, Some(delay)),
            Phase::Stopping { retry_after, .. } => *retry_after = Some(delay),
            Phase::Waiting { until } => *until = Instant::now() + delay,
        }
    }

    /// Takes a branch out of the pipeline; a worker stops its elements, however long that takes.
    pub(in crate::runtime) fn take_down(&mut self, id: u32, retry_after: Option<Duration>) {
        let Some(branch) = self.branches.get_mut(&id).filter(|branch| branch.parts().is_some()) else {
            return;
        };
        let generation = branch.generation;
        let waiting = Phase::Waiting { until: Instant::now() };
        let Phase::Running(parts) = std::mem::replace(&mut branch.phase, waiting) else { return };
        branch::detach(&self.pipeline, &parts);
        let end = self.stop_parts(id, generation, parts);
        match (end, self.branches.get_mut(&id)) {
            (Some(end), Some(branch)) => {
                let until = Instant::now() + self.patience / 3;
                branch.phase = Phase::Stopping { retry_after, until, end };
            }
            _ => self.after_stop(id, retry_after),
        }
    }

    /// Stops elements in the background. What is returned closes when that is done; `None` where nobody does it.
    fn stop_parts(&self, id: u32, generation: u64, parts: Parts) -> Option<Receiver<()>> {
        let bus = self.bus.clone();
        let (done, end) = sync_channel(0);
        let worker = std::thread::Builder::new().name(format!("stop-camera-{id}")).spawn(move || {
            let _ = parts.bin.set_state(gst::State::Null);
            drop(parts);
            drop(done);
            let structure =
                gst::Structure::builder(STOPPED).field("id", id).field("generation", generation).build();
            let _ = bus.post(gst::message::Application::builder(structure).build());
        });
        if let Err(error) = &worker {
            error!(event = "instance.warning", source_id = id, "no thread to stop a branch with: {error}");
        }
        worker.is_ok().then_some(end)
    }

    /// Waits for the elements that are being stopped, together for at most `patience`: what they write is finished.
    pub(super) fn await_stopping(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        for branch in self.branches.values_mut() {
            let waiting = Phase::Waiting { until };
            match std::mem::replace(&mut branch.phase, waiting) {
                Phase::Stopping { end, .. } => {
                    if !has_closed(&end, until.saturating_duration_since(Instant::now())) {
                        process::leave_behind();
                        warn!(
                            event = "source.stuck",
                            source_id = branch.camera.id,
                            "elements did not stop in time"
                        );
                    }
                }
                other => branch.phase = other,
            }
        }
    }

    pub(super) fn branch_stopped(&mut self, id: u32, generation: u64) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        if branch.abandoned.remove(&generation) {
            info!(event = "source.unstuck", source_id = id, "a branch of camera {id} that hung has stopped");
            return;
        }
        if branch.generation == generation
            && let Phase::Stopping { retry_after, .. } = branch.phase
        {
            self.after_stop(id, retry_after);
        }
    }

    fn after_stop(&mut self, id: u32, retry_after: Option<Duration>) {
        match (self.branches.get_mut(&id), retry_after) {
            (Some(branch), Some(delay)) => branch.phase = Phase::Waiting { until: Instant::now() + delay },
            _ => drop(self.branches.remove(&id)),
        }
    }

    /// Elements that do not stop are left to themselves: the camera must not stay away because of them.
    pub(super) fn give_up_due(&mut self, now: Instant) {
        let due = self.branches.values().filter_map(|branch| match branch.phase {
            Phase::Stopping { retry_after, until, .. } if until <= now => {
                Some((branch.camera.id, retry_after))
            }
            _ => None,
        });
        for (id, retry_after) in due.collect::<Vec<_>>() {
            self.abandon(id);
            self.after_stop(id, retry_after);
        }
    }

    fn abandon(&mut self, id: u32) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        branch.abandoned.insert(branch.generation);
        process::leave_behind();
        error!(
            event = "source.stuck",
            source_id = id,
            name = branch.camera.name,
            hanging = branch.abandoned.len(),
            "elements of camera {id} hang and were left behind with their memory and threads"
        );
    }

    /// Finds branches that take pictures in and let none out.
    pub(super) fn look_for_stuck(&mut self, now: Instant) {
        if now < self.next_look || self.stop_by.is_some() {
            return;
        }
        let patience = self.patience;
        self.next_look = now + patience / 6;
        let mut stuck = Vec::new();
        for branch in self.branches.values_mut() {
            let sending = branch.is_sending();
            if let Phase::Running(parts) = &mut branch.phase
                && let Some(end) = parts.pulse.stuck(sending, patience, now)
            {
                stuck.push((branch.camera.id, end.to_owned()));
            }
        }
        for (id, end) in stuck {
            let seconds = patience.as_secs_f64();
            let text = format!("nothing has reached {end} for {seconds:.0} s although the camera sends");
            self.retry_later(id, &text);
        }
    }

    pub(super) fn rebuild_due(&mut self, now: Instant) {
        if self.stop_by.is_some() {
            return;
        }
        let due: Vec<u32> = self
            .branches
            .values()
            .filter(|branch| matches!(branch.phase, Phase::Waiting { until } if until <= now))
            .map(|branch| branch.camera.id)
            .collect();
        for id in due {
            if let Some(branch) = self.branches.get_mut(&id)
                && branch.abandoned.len() >= MOST_ABANDONED
            {
                let text = "its elements have hung too often; restart the instance";
                branch.last_error = Some(text.into());
                branch.phase = Phase::Waiting { until: now + HOPELESS };
                error!(
                    event = "source.stuck",
                    source_id = id,
                    name = branch.camera.name,
                    hanging = branch.abandoned.len(),
                    "camera {id} stays off: {text}"
                );
                continue;
            }
            if let Err(message) = self.start_branch(id) {
                self.retry_later(id, &message);
            }
        }
    }

    /// Stops a branch and starts it with the present values, waiting for both.
    pub(in crate::runtime) fn rebuild_now(&mut self, id: u32) -> Result<(), String> {
        let branch = self.branches.get_mut(&id).ok_or_else(|| unknown(id))?;
        let waiting = Phase::Waiting { until: Instant::now() };
        let generation = branch.generation;
        let end = match std::mem::replace(&mut branch.phase, waiting) {
            Phase::Running(parts) => {
                branch::detach(&self.pipeline, &parts);
                self.stop_parts(id, generation, parts)
            }
            // Two of one camera at once would write the same files.
            Phase::Stopping { end, .. } => Some(end),
            Phase::Waiting { .. } => None,
        };
        if end.is_some_and(|end| !has_closed(&end, self.patience / 3)) {
            self.abandon(id);
        }
        self.start_branch(id)
    }
}

/// Nothing is ever sent: the end of the channel is the answer.
fn has_closed(end: &Receiver<()>, patience: Duration) -> bool {
    end.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
}
