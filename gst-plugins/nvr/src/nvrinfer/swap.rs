//! Changing the model while playing: the new one is loaded on a thread of its own while the old one works.

use std::{
    sync::{
        Arc, LazyLock,
        mpsc::{self, Sender},
    },
    thread,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use parking_lot::Mutex;

use super::{
    CAT, NvrInfer,
    engine::{Client, EngineKey, LoadError},
    exit::Busy,
    imp, model_files, registry,
    settings::Settings,
};

/// Loads the model that `model` names, or finds it loaded.
pub fn load(settings: &Settings, model: &str) -> Result<Client, LoadError> {
    let key = EngineKey {
        instance: settings.model_instance_id.clone().unwrap_or_default(),
        source: model_files::find(model, &model_files::data_directories())?,
        model_type: settings.model_type.model_type(),
        labels_file: settings.labels_file.clone(),
        device: settings.device,
        threads: settings.threads as usize,
        batch_size: settings.batch_size as usize,
        batch_timeout: settings.batch_timeout(),
        runtime_library: settings.runtime_library.clone(),
    };
    registry::get(&key)?.attach()
}

/// A loaded model that takes over at the next frame.
#[derive(Debug)]
pub struct Pending {
    pub client: Arc<Client>,
    pub model: String,
}

/// Where a change of model stands. Part of the element's state.
#[derive(Debug, Default)]
pub struct Swap {
    /// Asked for last and not begun.
    wanted: Option<String>,
    /// Whether a thread is at work.
    loading: bool,
    pub pending: Option<Pending>,
}

impl Swap {
    /// Notes what is wanted. Returns a request that was not begun and never will be, and whether a thread must be
    /// started for this one.
    fn request(&mut self, model: String) -> (Option<String>, bool) {
        (self.wanted.replace(model), !std::mem::replace(&mut self.loading, true))
    }

    /// What to load next; `None` ends the thread.
    fn next(&mut self) -> Option<String> {
        let next = self.wanted.take();
        self.loading = next.is_some();
        next
    }

    /// Whether nothing is asked for.
    pub fn is_idle(&self) -> bool {
        !self.loading && self.pending.is_none()
    }

    /// Whether something else was asked for meanwhile.
    pub fn is_outdated(&self) -> bool {
        self.wanted.is_some()
    }
}

/// Begins to load `model` for a started element. Its answer is a message.
pub fn begin(element: &NvrInfer, model: &str) {
    let imp = element.imp();
    let Some(((superseded, spawn), run)) =
        imp.with_state(|state| (state.swap.request(model.to_owned()), state.run))
    else {
        return;
    };
    if let Some(old) = superseded {
        imp.model_failed(&old, &format!("{model} was asked for before it was loaded"));
    }
    if !spawn {
        return;
    }
    let (weak, busy) = (element.downgrade(), Busy::new());
    let thread = thread::Builder::new().name("nvrinfer-load".into()).spawn(move || {
        serve(&weak, run);
        drop(busy);
    });
    if let Err(error) = thread {
        // One that is loaded already takes over all the same.
        imp.with_run(run, |state| (state.swap.wanted, state.swap.loading) = (None, false));
        if let Some(active) = imp.settled_model(run) {
            imp.settle_model(model, &active);
        }
        imp.model_failed(model, &format!("no thread to load it: {error}"));
    }
}

/// Loads what is wanted until nothing is. `run` tells this start of the element from a later one.
fn serve(element: &glib::WeakRef<NvrInfer>, run: u64) {
    loop {
        let Some((model, settings)) = element.upgrade().and_then(|element| {
            let imp = element.imp();
            let model = imp.with_run(run, |state| state.swap.next()).flatten()?;
            Some((model, imp.settings()))
        }) else {
            return;
        };
        gst::info!(CAT, "Loading model {model}");
        // The element is not held meanwhile: it may be stopped and dropped while a large model loads.
        let result = load(&settings, &model).map(Arc::new);
        let Some(element) = element.upgrade() else { return };
        finish(element.imp(), run, &model, &result);
    }
}

fn finish(imp: &imp::NvrInfer, run: u64, model: &str, result: &Result<Arc<Client>, LoadError>) {
    // `None`: stopped meanwhile, and the next start loads what is set.
    let placed = match result {
        Ok(client) => imp.with_run(run, |state| {
            if state.swap.is_outdated() {
                return Err("another model was asked for while it was loaded".to_owned());
            }
            let never_used =
                state.swap.pending.replace(Pending { client: client.clone(), model: model.to_owned() });
            // A camera that is away would keep the old one in memory, and the GPU's, for as long.
            let old = if state.is_idle() { state.take_over() } else { None };
            Ok((never_used, old))
        }),
        Err(error) => imp.with_run(run, |_| Err(error.to_string())),
    };
    // The property is settled before the answer, so that whoever waits for the answer can read it.
    if placed.is_some()
        && let Some(active) = imp.settled_model(run)
    {
        imp.settle_model(model, &active);
    }
    match (placed, result) {
        (Some(Ok(_not_needed)), Ok(client)) => imp.model_loaded(model, client.info()),
        (Some(Err(error)), _) => imp.model_failed(model, &error),
        _ => {}
    }
}

/// Drops a client elsewhere: the last one waits for its engine's threads, for which no frame should wait.
pub fn retire(client: Arc<Client>) {
    type Retired = (Arc<Client>, Busy);
    static RETIRED: LazyLock<Option<Mutex<Sender<Retired>>>> = LazyLock::new(|| {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("nvrinfer-retire".into())
            .spawn(move || receiver.iter().for_each(drop));
        thread.is_ok().then(|| Mutex::new(sender))
    });
    if let Some(retired) = &*RETIRED {
        let _ = retired.lock().send((client, Busy::new()));
    }
}
