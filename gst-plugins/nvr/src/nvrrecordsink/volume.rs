//! The directory that recordings go to, and whether it is still the one it was: a file in it carries an identity, so
//! that the empty directory under a mount that is gone is not taken for a disk without recordings.

use std::collections::hash_map::RandomState;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of the identity file.
pub const IDENTITY: &str = ".nvr-volume";

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{0} is not the volume that was recorded to before: its file {IDENTITY} is gone; is it mounted?")]
    Gone(PathBuf),
    #[error("{path} is another volume: its file {IDENTITY} says {found}, wanted is {wanted}")]
    Other { path: PathBuf, found: String, wanted: String },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// A directory with an identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Volume {
    pub root: PathBuf,
    pub id: String,
}

impl Volume {
    /// Opens `root`, with the identity `wanted` if there is one, else with whatever it has; a directory without one
    /// is given one.
    pub fn open(root: &Path, wanted: Option<&str>) -> Result<Self, VolumeError> {
        let failed = |error| VolumeError::Io { path: root.to_owned(), error };
        if let Some(id) = Self::identity(root).map_err(failed)? {
            return match wanted {
                Some(wanted) if wanted != id => {
                    Err(VolumeError::Other { path: root.to_owned(), found: id, wanted: wanted.to_owned() })
                }
                _ => Ok(Self { root: root.to_owned(), id }),
            };
        }
        if wanted.is_some() {
            return Err(VolumeError::Gone(root.to_owned()));
        }
        fs::create_dir_all(root).map_err(failed)?;
        let id = new_identity();
        match OpenOptions::new().write(true).create_new(true).open(root.join(IDENTITY)) {
            Ok(mut file) => {
                file.write_all(format!("{id}\n").as_bytes()).map_err(failed)?;
                file.sync_all().map_err(failed)?;
                Ok(Self { root: root.to_owned(), id })
            }
            // Another recorder was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let id = Self::identity(root).map_err(failed)?.ok_or(VolumeError::Gone(root.to_owned()))?;
                Ok(Self { root: root.to_owned(), id })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether the volume is still there.
    pub fn check(&self) -> Result<(), VolumeError> {
        Self::open(&self.root, Some(&self.id)).map(|_| ())
    }

    fn identity(root: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(root.join(IDENTITY)) {
            Ok(text) if !text.trim().is_empty() => Ok(Some(text.trim().chars().take(64).collect())),
            // A power cut left the name without the contents.
            Ok(_) => fs::remove_file(root.join(IDENTITY)).map(|()| None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file below the directory, and the hour and the day that are empty then. One that is not there is no
    /// error: the caller has seen that the volume is.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let file = self.root.join(path);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for folder in file.ancestors().skip(1).take(2) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Bytes that can still be written.
    pub fn free(&self) -> io::Result<u64> {
        let path = CString::new(self.root.as_os_str().as_bytes())?;
        // SAFETY: statvfs is plain data, for which zeroes are valid; the path ends in a zero byte.
        let (result, stat) = unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(path.as_ptr(), &raw mut stat), stat)
        };
        if result == 0 { Ok(stat.f_bavail * stat.f_frsize) } else { Err(io::Error::last_os_error()) }
    }
}

/// What nothing else is called.
pub fn new_identity() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}
