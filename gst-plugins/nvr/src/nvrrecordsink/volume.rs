//! The directory that recordings go to, and whether it is still the one it was: a file in it carries an identity, so
//! that the empty directory under a mount that is gone is not taken for a disk without recordings.

use std::collections::hash_map::RandomState;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
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
        let id = mark(root).map_err(failed)?.ok_or_else(|| VolumeError::Gone(root.to_owned()))?;
        Ok(Self { root: root.to_owned(), id })
    }

    /// Whether the volume is still there.
    pub fn check(&self) -> Result<(), VolumeError> {
        Self::open(&self.root, Some(&self.id)).map(|_| ())
    }

    fn identity(root: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(root.join(IDENTITY)) {
            Ok(text) if !text.trim().is_empty() => Ok(Some(text.trim().chars().take(64).collect())),
            // A power cut left the name without the contents.
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file below the directory, and the hour and the day that are empty then. One that is not there is no
    /// error: the caller has seen that the volume is.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let file = self.root.join(path);
        // Whoever can put a link there decides on no file elsewhere.
        for folder in file.ancestors().skip(1).take(2) {
            if fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink()) {
                return Err(io::Error::new(
                    ErrorKind::InvalidInput,
                    format!("{} is a link", folder.display()),
                ));
            }
        }
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

/// Gives a directory an identity, and says which one it has then. Recorders that begin at once on a new disk have to
/// agree: whoever sees the file sees all of it, the first one counts, and a power cut does not take it again.
fn mark(root: &Path) -> io::Result<Option<String>> {
    let id = new_identity();
    let (made, named) = (root.join(format!("{IDENTITY}.{id}")), root.join(IDENTITY));
    let result = File::create_new(&made).and_then(|file| write(file, &id)).and_then(|()| put(&made, &named));
    // It is gone where it was renamed.
    let _ = fs::remove_file(&made);
    result?;
    // Some file systems cannot.
    let _ = File::open(root).and_then(|folder| folder.sync_all());
    Volume::identity(root)
}

fn write(mut file: File, id: &str) -> io::Result<()> {
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()
}

/// Gives `made` the name `named` too, unless there is something with contents.
fn put(made: &Path, named: &Path) -> io::Result<()> {
    let linked = fs::hard_link(made, named).or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => Err(error),
        // There are no such links on FAT.
        _ => rename_new(made, named),
    });
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let file = OpenOptions::new().read(true).write(true).open(named)?;
            // Where there are no locks, the last one counts.
            let _ = file.lock();
            let id = fs::read_to_string(made)?;
            if file.metadata()?.len() == 0 { write(file, id.trim()) } else { Ok(()) }
        }
        other => other,
    }
}

/// Renames a file, unless the new name is taken.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // SAFETY: both paths end in a zero byte and outlive the call.
    let result = unsafe {
        libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_NOREPLACE)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What nothing else is called.
pub fn new_identity() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// Twelve cameras begin on a new disk at the same moment, and on one whose identity a power cut has emptied.
    #[test]
    fn recorders_that_begin_at_once_agree_on_the_volume() {
        const RECORDERS: usize = 12;
        for round in 0..60 {
            let folder = tempfile::tempdir().unwrap();
            if round % 3 == 0 {
                File::create(folder.path().join(IDENTITY)).unwrap();
            }
            let start = Barrier::new(RECORDERS);
            let volumes: Vec<_> = thread::scope(|scope| {
                let open = || {
                    start.wait();
                    Volume::open(folder.path(), None).unwrap()
                };
                let threads: Vec<_> = (0..RECORDERS).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(volumes.iter().all(|volume| *volume == volumes[0]), "round {round}: {volumes:?}");
            volumes[0].check().unwrap();
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, [IDENTITY]);
        }
    }

    #[test]
    fn an_identity_is_renamed_where_there_are_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, named] = ["first", "second", "named"].map(|name| folder.path().join(name));
        fs::write(&first, "1").unwrap();
        fs::write(&second, "2").unwrap();
        rename_new(&first, &named).unwrap();
        let error = rename_new(&second, &named).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&named).unwrap(), "1");
    }
}
