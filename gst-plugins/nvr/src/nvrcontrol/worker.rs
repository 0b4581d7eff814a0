//! The thread that carries out commands, one after the other, and publishes status and metrics.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::ObjectSubclassIsExt};
use nvr_core::command::{AckStatus, Command, Message};
use serde_json::{Map, Value};

use super::{
    NvrControl, SIGNAL_COMMAND, actions,
    announce::{Job, Shared, now_ns},
    imp::CAT,
    listener::Event,
    recorders, surroundings,
};

const METRICS: Duration = Duration::from_secs(10);
/// How exactly the time of a camera's last frame is known.
const SAMPLE: Duration = Duration::from_secs(1);
/// Status that nobody asked for is published this often at most.
const ANNOUNCE: Duration = Duration::from_millis(250);
/// How long a name may take to be claimed.
const CLAIM: Duration = Duration::from_secs(10);

pub fn run(shared: &Arc<Shared>, events: &SyncSender<Event>) {
    let now = Instant::now();
    let (mut metrics, mut sample) = (now + METRICS, now + SAMPLE);
    let mut announced = now;
    let mut announce = None;
    loop {
        let next = [Some(metrics), Some(sample), announce].into_iter().flatten().min();
        match shared.next_job(next.unwrap_or(sample)) {
            Err(()) => return,
            Ok(Some(Job::Command(order))) => execute(shared, events, &order.message, &order.command),
            Ok(Some(Job::Announce)) => {
                announce.get_or_insert_with(|| Instant::now().max(announced + ANNOUNCE));
            }
            Ok(None) => {}
        }
        let now = Instant::now();
        if announce.is_some_and(|at| now >= at) {
            (announce, announced) = (None, now);
            let _ = guarded(|| shared.publish_status());
        }
        if now >= metrics {
            metrics = now + METRICS;
            let _ = guarded(|| drop(shared.publish_metrics()));
        }
        if now >= sample {
            sample = now + SAMPLE;
            let _ = guarded(|| take_sample(shared));
        }
    }
}

fn take_sample(shared: &Shared) {
    if let Some(element) = shared.element() {
        let found = surroundings::find(element.upcast_ref());
        surroundings::note(&found, &shared.seen, now_ns());
        recorders::remind(&found, &shared.demands);
    }
}

/// Elements and applications are not ours: their panics must not end the control plane.
fn guarded<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|_| "carrying it out failed badly; see the log".to_owned())
}

/// How far a command has come.
enum Outcome {
    /// With what the answer brings.
    Done(Option<Value>),
    /// Somebody else answers when it is finished; further commands need not wait for that.
    Later,
}

fn execute(shared: &Arc<Shared>, events: &SyncSender<Event>, message: &Message, command: &Command) {
    let outcome = match command {
        Command::Status => guarded(|| shared.publish_status()).map(|()| Outcome::Done(None)),
        Command::Metrics => guarded(|| shared.publish_metrics()).map(|_| Outcome::Done(None)),
        _ => {
            if command.reconfigures() {
                shared.set_reconfiguring(true);
                let _ = guarded(|| shared.publish_status());
            }
            let outcome = guarded(|| act(shared, events, message, command)).and_then(|outcome| outcome);
            if command.reconfigures() {
                shared.set_reconfiguring(false);
                shared.set_error(outcome.as_ref().err().cloned());
            }
            if outcome.is_ok() {
                forget_removed(shared, command);
            }
            let _ = guarded(|| shared.publish_status());
            outcome
        }
    };
    let outcome = match outcome {
        Ok(Outcome::Later) => return,
        Ok(Outcome::Done(result)) => Ok(result),
        Err(error) => Err(error),
    };
    let mut answered = vec![message.clone()];
    if let Command::Restart { source_id } = command {
        // Those that came meanwhile wanted what has just been done.
        answered.extend(shared.take_jobs(|other| {
            matches!(other, Command::Restart { source_id: other } if source_id.is_none() || other == source_id)
        }));
    }
    for message in answered {
        match &outcome {
            Ok(result) => shared.answer(&message, Ok(AckStatus::Completed), result.clone()),
            Err(error) => {
                gst::info!(CAT, "{}: {error}", message.name);
                shared.answer(&message, Err(error.clone()), None);
            }
        }
    }
}

/// A camera that comes later under the same number is another one: nobody asked for its recording.
fn forget_removed(shared: &Shared, command: &Command) {
    match command {
        Command::RemoveStream { source_id } => drop(shared.demands.lock().remove(source_id)),
        Command::Batch { commands } => {
            for command in commands {
                forget_removed(shared, command);
            }
        }
        _ => {}
    }
}

/// Carries out a command that changes something.
fn act(
    shared: &Arc<Shared>,
    events: &SyncSender<Event>,
    message: &Message,
    command: &Command,
) -> Result<Outcome, String> {
    let element = shared.element().ok_or("the element is gone")?;
    let Command::RenameInstance { new_instance_id: new } = command else {
        return carry_out(shared, &element, message, command);
    };
    if *new == shared.id() {
        return Ok(Outcome::Done(None));
    }
    let (reply, claimed) = sync_channel(2);
    let gone = |_| "the instance is ending".to_owned();
    events.send(Event::Claim { id: new.clone(), reply }).map_err(gone)?;
    let outcome = claimed
        .recv_timeout(CLAIM)
        .unwrap_or_else(|_| Err("the broker did not say whether the new name is free".into()))
        .and_then(|()| carry_out(shared, &element, message, command));
    if outcome.is_ok() {
        shared.rename(new);
        element.imp().renamed(new);
    }
    events.send(Event::Settle { renamed: outcome.is_ok() }).map_err(gone)?;
    outcome
}

/// The application first, then what the element can do itself.
fn carry_out(
    shared: &Arc<Shared>,
    element: &NvrControl,
    message: &Message,
    command: &Command,
) -> Result<Outcome, String> {
    let params = command.params().to_string();
    let Some(answer) = element.emit_by_name::<Option<String>>(SIGNAL_COMMAND, &[&command.name(), &params])
    else {
        return by_ourselves(shared, element, message, command);
    };
    let mut answer: Map<String, Value> = serde_json::from_str(&answer)
        .map_err(|error| format!("the application's answer is not a JSON object: {error}"))?;
    match answer.remove("error") {
        Some(Value::String(error)) => Err(error),
        Some(other) => Err(other.to_string()),
        None => Ok(Outcome::Done((!answer.is_empty()).then_some(Value::Object(answer)))),
    }
}

fn by_ourselves(
    shared: &Arc<Shared>,
    element: &NvrControl,
    message: &Message,
    command: &Command,
) -> Result<Outcome, String> {
    let around = || surroundings::find(element.upcast_ref());
    match command {
        Command::StartRecording { source_id, label, max_duration } => {
            recorders::start(&around(), &shared.demands, *source_id, label.as_deref(), *max_duration)
                .map(|result| Outcome::Done(Some(result)))
        }
        Command::StopRecording { source_id } => {
            recorders::stop(&around(), &shared.demands, *source_id).map(|result| Outcome::Done(Some(result)))
        }
        Command::SaveClip { source_id, name, before, after } => {
            // The recorder answers in any case, also when the pipeline ends first.
            let (shared, message) = (Arc::downgrade(shared), message.clone());
            let done = move |outcome: Result<Value, String>| {
                if let Some(shared) = shared.upgrade() {
                    match outcome {
                        Ok(result) => shared.answer(&message, Ok(AckStatus::Completed), Some(result)),
                        Err(error) => shared.answer(&message, Err(error), None),
                    }
                }
            };
            recorders::save_clip(&around(), *source_id, name.clone(), (*before, *after), done)
                .map(|()| Outcome::Later)
        }
        _ => actions::carry_out(element, command).map(|()| Outcome::Done(None)),
    }
}
