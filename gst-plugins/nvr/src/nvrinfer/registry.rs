//! The engines of this process, found by what they were loaded for.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Weak},
};

use parking_lot::{Condvar, Mutex};

use super::engine::{Engine, EngineKey, LoadError};

#[derive(Debug)]
enum Entry {
    /// Somebody loads it; the others wait.
    Loading,
    Loaded(Weak<Engine>),
}

#[derive(Debug, Default)]
struct Registry {
    entries: Mutex<HashMap<EngineKey, Entry>>,
    changed: Condvar,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::default);

/// The engine for `key`: the one that is in use, or a new one. Cameras that ask at the same time load it once.
pub fn get(key: &EngineKey) -> Result<Arc<Engine>, LoadError> {
    REGISTRY.get(key, Engine::load)
}

impl Registry {
    fn get(
        &self,
        key: &EngineKey,
        load: impl FnOnce(&EngineKey) -> Result<Arc<Engine>, LoadError>,
    ) -> Result<Arc<Engine>, LoadError> {
        let mut entries = self.entries.lock();
        loop {
            match entries.get(key) {
                Some(Entry::Loaded(engine)) => match engine.upgrade() {
                    Some(engine) => return Ok(engine),
                    None => break,
                },
                Some(Entry::Loading) => self.changed.wait(&mut entries),
                None => break,
            }
        }
        entries.retain(|_, entry| !matches!(entry, Entry::Loaded(engine) if engine.strong_count() == 0));
        entries.insert(key.clone(), Entry::Loading);
        drop(entries);

        let mut claim = Claim { registry: self, key, loaded: None };
        let engine = load(key)?;
        claim.loaded = Some(Arc::downgrade(&engine));
        Ok(engine)
    }
}

/// The right to load; lets the others go on however the loading ends.
struct Claim<'a> {
    registry: &'a Registry,
    key: &'a EngineKey,
    loaded: Option<Weak<Engine>>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut entries = self.registry.entries.lock();
        match self.loaded.take() {
            Some(engine) => entries.insert(self.key.clone(), Entry::Loaded(engine)),
            None => entries.remove(self.key),
        };
        drop(entries);
        self.registry.changed.notify_all();
    }
}
