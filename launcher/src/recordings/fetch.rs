//! A recording as a file on this host, wherever it is.

use std::{fs::File, io};

use gstnvr::nvrrecordsink::{catalog::Recording, checksum::Checksum, tiers::Archive};

use crate::cli::Failure;

/// Opens the file of a recording. One in a bucket is fetched into a temporary file, and compared with its checksum.
pub fn fetch(archive: &mut Archive, recording: &Recording) -> Result<File, Failure> {
    let fail = |error: String| Failure::failed(format!("{}: {error}", recording.file().display()));
    if let Some(file) = archive.file(recording).map_err(Failure::failed)? {
        return Ok(file);
    }
    let mut source = archive.read(recording).map_err(fail)?;
    let mut file = tempfile::tempfile().map_err(|error| fail(format!("no temporary file: {error}")))?;
    io::copy(&mut source, &mut file).map_err(|error| fail(error.to_string()))?;
    io::Seek::rewind(&mut file).map_err(|error| fail(error.to_string()))?;
    if let Some(known) = &recording.checksum {
        let (_, found) = Checksum::of(&mut file, recording.bytes).map_err(|error| fail(error.to_string()))?;
        if found.text() != *known {
            return Err(fail(format!(
                "damaged: its checksum is {}, it was written with {known}",
                found.text()
            )));
        }
        io::Seek::rewind(&mut file).map_err(|error| fail(error.to_string()))?;
    }
    Ok(file)
}
