//! Waiting for `nvrinfer` to say what became of a change of its model.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use parking_lot::{Condvar, Mutex};

use super::surroundings;

/// How often elements that may have stopped meanwhile are looked at.
const LOOK: Duration = Duration::from_millis(200);

struct News {
    source: gst::Object,
    model: String,
    error: Option<String>,
}

#[derive(Default)]
struct Inbox {
    news: Mutex<Vec<News>>,
    changed: Condvar,
}

/// Hears every `nvr-model-loaded` and `nvr-model-error` from when it is made until it is dropped. It listens beside
/// whoever reads the bus and takes nothing away.
pub struct ModelWatch {
    bus: gst::Bus,
    handler: Option<glib::SignalHandlerId>,
    inbox: Arc<Inbox>,
}

impl std::fmt::Debug for ModelWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelWatch").finish_non_exhaustive()
    }
}

impl ModelWatch {
    pub fn new(bus: &gst::Bus) -> Self {
        let inbox = Arc::<Inbox>::default();
        bus.enable_sync_message_emission();
        let handler = {
            let inbox = inbox.clone();
            bus.connect_sync_message(None, move |_, message| {
                if let Some(news) = news(message) {
                    inbox.news.lock().push(news);
                    inbox.changed.notify_all();
                }
            })
        };
        Self { bus: bus.clone(), handler: Some(handler), inbox }
    }

    /// Waits until every element has loaded the model given with it. An element that is stopped meanwhile is not
    /// waited for: it loads its model when it starts.
    ///
    /// # Errors
    /// The first failure, or that `timeout` has passed.
    pub fn settle(&self, wanted: &[(gst::Element, String)], timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        let mut open: Vec<_> = wanted.iter().collect();
        let mut failure = None;
        let mut checked = 0;
        let mut news = self.inbox.news.lock();
        loop {
            for item in &news[checked..] {
                open.retain(|(element, model)| {
                    let settled = item.source == *element.upcast_ref::<gst::Object>() && item.model == *model;
                    if settled && let Some(error) = &item.error {
                        failure.get_or_insert_with(|| error.clone());
                    }
                    !settled
                });
            }
            checked = news.len();
            if open.is_empty() || failure.is_some() {
                return failure.map_or(Ok(()), Err);
            }
            if Instant::now() >= deadline {
                return Err(format!("the model was not loaded within {} s", timeout.as_secs()));
            }
            self.inbox.changed.wait_for(&mut news, LOOK);
            if news.len() == checked {
                parking_lot::MutexGuard::unlocked(&mut news, || {
                    open.retain(|(element, _)| is_started(element));
                });
            }
        }
    }
}

impl Drop for ModelWatch {
    fn drop(&mut self) {
        if let Some(handler) = self.handler.take() {
            self.bus.disconnect(handler);
            self.bus.disable_sync_message_emission();
        }
    }
}

fn news(message: &gst::Message) -> Option<News> {
    let gst::MessageView::Element(element) = message.view() else { return None };
    let structure = element.structure()?;
    let error = match structure.name().as_str() {
        "nvr-model-loaded" => None,
        "nvr-model-error" => Some(structure.get::<String>("error").unwrap_or_default()),
        _ => return None,
    };
    Some(News { source: message.src()?.clone(), model: structure.get("model").ok()?, error })
}

/// Whether an element works with its model, or loads it just now.
pub fn is_started(element: &gst::Element) -> bool {
    element.current_state() >= gst::State::Paused || element.pending_state() >= gst::State::Paused
}

/// Every playing `nvrinfer` below `top`, with the model that it has been told to use.
pub fn models(top: &gst::Bin) -> Vec<(gst::Element, String)> {
    surroundings::all(top)
        .into_iter()
        .filter(|element| element.factory().is_some_and(|factory| factory.name() == "nvrinfer"))
        .filter(|element| element.current_state() >= gst::State::Paused)
        .filter_map(|element| {
            let model = element.property::<Option<String>>("model")?;
            Some((element, model))
        })
        .collect()
}
