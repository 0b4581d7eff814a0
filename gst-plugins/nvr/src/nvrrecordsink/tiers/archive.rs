//! Reads recordings wherever they are.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::{Place, PlaceError};
use crate::nvrrecordsink::catalog::Recording;

/// Opens the volumes of a catalogue as they are needed, each once.
#[derive(Debug, Default)]
pub struct Archive {
    /// The file with the key to buckets, if it is not in the environment.
    credentials: Option<PathBuf>,
    places: HashMap<String, Result<Place, String>>,
}

impl Archive {
    pub fn new(credentials: Option<PathBuf>) -> Self {
        Self { credentials, ..Self::default() }
    }

    /// The place of a recording; an error says why its volume is not there.
    pub fn place(&mut self, recording: &Recording) -> Result<&Place, &str> {
        let credentials = self.credentials.as_deref();
        let open = || {
            let location = recording.root.display().to_string();
            Place::open(&location, Some(&recording.volume), credentials).map_err(|error| error.to_string())
        };
        self.places.entry(recording.volume.clone()).or_insert_with(open).as_ref().map_err(String::as_str)
    }

    /// Size of a recording's file, if there is one.
    pub fn size(&mut self, recording: &Recording) -> Result<Option<u64>, String> {
        let place = self.place(recording)?;
        place.size(&recording.path).map_err(|error| error.to_string())
    }

    /// The file itself, where the tier is a directory.
    pub fn file(&mut self, recording: &Recording) -> Result<Option<File>, String> {
        match self.place(recording)? {
            Place::Folder(volume) => {
                let path = volume.root.join(&recording.path);
                File::open(&path).map(Some).map_err(|error| format!("{}: {error}", path.display()))
            }
            Place::Bucket(_) => Ok(None),
        }
    }

    /// Reads a recording from its begin.
    pub fn read(&mut self, recording: &Recording) -> Result<Box<dyn Read + Send>, String> {
        let place = self.place(recording)?;
        place.read(&recording.path).map_err(|error: PlaceError| error.to_string())
    }
}
