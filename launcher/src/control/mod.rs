//! The application behind `nvrcontrol`: commands become changes of what is asked of the running instance.

mod answer;
mod describe;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gst::prelude::*;
use gstnvr::nvrcontrol::{IDENTITY_MESSAGE, NvrControl, SIGNAL_COMMAND, SIGNAL_DESCRIBE};
use tracing::{info, warn};

use crate::{
    redact::redact,
    runtime::{Handle, Instance, StartError},
};

/// How long the broker may take to say whether the instance's name is free.
const CLAIM: Duration = Duration::from_secs(5);

/// The control elements of an instance, with this program behind them.
#[derive(Debug)]
pub struct Control {
    elements: Vec<NvrControl>,
    bus: Option<gst::Bus>,
    handle: Handle,
    ready: Arc<AtomicBool>,
}

/// A panic that left a signal's handler would end the process.
fn guarded<T>(what: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(what)).ok()
}

impl Control {
    /// Stands behind every `nvrcontrol` of the graph; there may be none.
    pub fn attach(instance: &Instance) -> Self {
        let pipeline = instance.pipeline();
        let elements: Vec<NvrControl> = pipeline
            .iterate_all_by_element_factory_name("nvrcontrol")
            .into_iter()
            .flatten()
            .filter_map(|element| element.downcast().ok())
            .collect();
        let ready = Arc::new(AtomicBool::new(false));
        for element in &elements {
            let (handle, weak) = (instance.handle(), pipeline.downgrade());
            element.connect(SIGNAL_COMMAND, false, move |values| {
                let text = |index: usize| values.get(index)?.get::<String>().ok();
                let answer = guarded(|| {
                    let ((name, params), pipeline) = text(1).zip(text(2)).zip(weak.upgrade())?;
                    answer::answer(&handle, &pipeline, &name, &params)
                });
                let failed = || Some(r#"{"error":"carrying it out failed badly; see the log"}"#.to_owned());
                Some(answer.unwrap_or_else(failed).to_value())
            });
            let (handle, ready) = (instance.handle(), ready.clone());
            element.connect(SIGNAL_DESCRIBE, false, move |_| {
                // Before that, nobody would answer.
                let text = if ready.load(Ordering::Acquire) {
                    guarded(|| handle.inspect().map(|inspection| describe::describe(&inspection).to_string()))
                        .flatten()
                } else {
                    Some(r#"{"starting":true}"#.to_owned())
                };
                Some(text.to_value())
            });
        }
        Self { elements, bus: pipeline.bus(), handle: instance.handle(), ready }
    }

    /// Claims the instance's name, before any camera is connected. Where the broker does not answer, the instance
    /// starts without; where it is asked to stop meanwhile, nothing is waited for.
    ///
    /// # Errors
    /// Another process has the name, or the element cannot be started.
    pub fn claim(&self) -> Result<(), StartError> {
        let Some(bus) = &self.bus else { return Ok(()) };
        for element in &self.elements {
            let started = element.set_state(gst::State::Ready).is_ok();
            let until = std::time::Instant::now() + CLAIM;
            while !self.handle.is_stopping() {
                let left = until.saturating_duration_since(std::time::Instant::now());
                let wait = gst::ClockTime::from_nseconds(left.as_nanos() as u64);
                // An application's message wakes: the instance may have been asked to stop.
                let types = [
                    gst::MessageType::Element,
                    gst::MessageType::Error,
                    gst::MessageType::Warning,
                    gst::MessageType::Application,
                ];
                match bus.timed_pop_filtered(wait, &types).as_ref().map(|message| message.view()) {
                    Some(gst::MessageView::Error(error)) => {
                        let _ = element.set_state(gst::State::Null);
                        let text = redact(error.error().message()).into_owned();
                        return Err(if started {
                            StartError::Start(text)
                        } else {
                            StartError::Configuration(text)
                        });
                    }
                    // Nobody else reads the bus yet, and the element says it once.
                    Some(gst::MessageView::Warning(warning)) => {
                        warn!(event = "instance.warning", "{}", redact(warning.error().message()));
                    }
                    Some(gst::MessageView::Element(message)) => {
                        let structure = message.structure().filter(|s| s.name() == IDENTITY_MESSAGE);
                        let identity = structure.and_then(|s| s.get::<String>("identity").ok());
                        match identity.as_deref() {
                            Some("owner") => {
                                info!(event = "control.ready", "commands are welcome");
                                break;
                            }
                            Some(_) => {
                                warn!(
                                    event = "control.unreachable",
                                    "no commands yet: the broker does not answer"
                                );
                                break;
                            }
                            None => {}
                        }
                    }
                    Some(_) => {}
                    None => {
                        warn!(event = "control.unreachable", "no commands yet: the broker does not answer");
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything has been started, and the instance answers from now on.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.elements.iter().for_each(NvrControl::announce);
    }
}
