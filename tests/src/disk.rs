//! A small disk for one test: an image with a file system of its own, mounted where the test may (as root).

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

/// Unmounted at the end.
#[derive(Debug)]
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, and why, where this test may not mount. `options` are of `mkfs.ext4`.
    pub fn new(megabytes: u64, options: &[&str]) -> Option<Self> {
        let folder = crate::recordings::folder_in_memory().expect("a folder for temporary files");
        let disk = Self { folder };
        let made = fs::create_dir(disk.root())
            .and_then(|()| fs::File::create(disk.image()))
            .and_then(|image| image.set_len(megabytes << 20))
            .map_err(|error| error.to_string())
            .and_then(|()| {
                run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).args(options).arg(disk.image()))
            })
            .and_then(|()| disk.mount("rw"));
        if let Err(error) = made {
            crate::skipped(&format!("mkfs.ext4 and the right to mount: {error}"));
            return None;
        }
        Some(disk)
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub fn mount(&self, how: &str) -> Result<(), String> {
        run(Command::new("mount").args(["-o", &format!("loop,{how}")]).arg(self.image()).arg(self.root()))
    }

    pub fn remount(&self, how: &str) -> Result<(), String> {
        run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.root()))
    }

    pub fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(self.root()))
    }

    /// Takes the disk away although it is in use.
    pub fn pull(&self) -> Result<(), String> {
        run(Command::new("umount").arg("-l").arg(self.root()))
    }

    /// Takes the power away: from this moment on nothing reaches the disk any more, neither what waits in the
    /// system's memory nor what its journal has not yet been asked to keep. Only what was synchronised, or written
    /// back before, is there at the next mount, which has to replay the journal.
    ///
    /// This is what file system developers test power cuts with: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`
    /// (include/uapi/linux/ext4.h). A disk that lies about what it has kept is not part of it.
    pub fn cut_power(&self) -> std::io::Result<()> {
        const SHUTDOWN: libc::Ioctl = 0x8004_587d;
        let no_log_flush: u32 = 2;
        let folder = fs::File::open(self.root())?;
        // SAFETY: the descriptor is open, and the call reads one u32 where it is told to.
        let result = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const no_log_flush) };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }

    /// From now on, whoever writes or syncs waits, as on a disk that does not answer; reading goes on.
    pub fn freeze(&self) -> Result<Frozen<'_>, String> {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.root()))?;
        Ok(Frozen(self))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.pull();
    }
}

/// The disk answers again when this is dropped.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = run(Command::new("fsfreeze").arg("--unfreeze").arg(self.0.root()));
        if let Err(error) = thawed {
            println!("the disk stays frozen: {error}");
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
