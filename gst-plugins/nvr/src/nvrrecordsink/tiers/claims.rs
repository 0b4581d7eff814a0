//! Which process moves which camera's recordings: several may share a catalogue, and the recordings of a camera that
//! does not run are anybody's.
//!
//! A byte of a file beside the catalogue stands for each camera. Who holds its lock moves the camera's recordings; the
//! system takes the lock back when a process ends, however it does.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The locks of one thread; another one's are another process's to it.
#[derive(Debug)]
pub struct Claims {
    path: PathBuf,
    file: Option<File>,
    held: HashSet<u32>,
    /// Cameras that another process has.
    taken: HashSet<u32>,
}

impl Claims {
    pub fn beside(catalogue: &Path) -> Self {
        let mut path = catalogue.as_os_str().to_owned();
        path.push("-cameras");
        Self { path: path.into(), file: None, held: HashSet::new(), taken: HashSet::new() }
    }

    /// Takes these cameras as far as they are free, and lets go of all others. Without any, the file is closed: the
    /// disk may be about to go.
    pub fn hold(&mut self, cameras: &HashSet<u32>) {
        if cameras.is_empty() {
            // This lets go of its locks.
            self.file = None;
            self.held.clear();
        }
        for camera in self.held.difference(cameras).copied().collect::<Vec<_>>() {
            let _ = self.lock(camera, libc::F_UNLCK);
            self.held.remove(&camera);
        }
        self.taken.clear();
        for camera in cameras {
            if matches!(self.take(*camera), Ok(false)) {
                self.taken.insert(*camera);
            }
        }
    }

    /// Whether nobody else is known to have a camera of those that were to be held. Where there are no locks, nobody is.
    pub fn may_move(&self, camera: u32) -> bool {
        !self.taken.contains(&camera)
    }

    /// Takes a camera. Whether that went; an error where there are no locks.
    pub fn take(&mut self, camera: u32) -> io::Result<bool> {
        if self.held.contains(&camera) {
            return Ok(true);
        }
        match self.lock(camera, libc::F_WRLCK) {
            Ok(()) => {
                self.held.insert(camera);
                Ok(true)
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lock(&mut self, camera: u32, kind: i32) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&self.path)?,
            ),
        };
        // SAFETY: flock is plain data, for which zeroes are valid.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = camera.into();
        lock.l_len = 1;
        // SAFETY: the descriptor is open, and the structure outlives the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_one_process_s_until_it_lets_go_or_ends() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = folder.path().join("catalog.db");
        let (mut one, mut other) = (Claims::beside(&catalogue), Claims::beside(&catalogue));
        one.hold(&HashSet::from([1, 2, u32::MAX]));
        other.hold(&HashSet::from([2, 3]));
        assert!(one.may_move(1) && one.may_move(2) && other.may_move(3) && !other.may_move(2));
        assert!(!one.take(3).unwrap() && !other.take(u32::MAX).unwrap());
        one.hold(&HashSet::from([1]));
        other.hold(&HashSet::from([2]));
        assert!(other.may_move(2) && other.take(u32::MAX).unwrap());
        drop(one);
        assert!(other.take(1).unwrap());
        // A place without locks is nobody's reason to wait.
        let mut nowhere = Claims::beside(&folder.path().join("missing/catalog.db"));
        nowhere.hold(&HashSet::from([1]));
        assert!(nowhere.may_move(1) && nowhere.take(2).is_err());
    }
}
