//! A small disk for one test: an image with a file system of its own, mounted where the test may (as root).

use std::fs;
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
        let folder = tempfile::tempdir().expect("a folder for temporary files");
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
        run(Command::new("umount").arg("-l").arg(self.root()))
    }

    /// From now on, whoever writes or syncs waits, as on a disk that does not answer; reading goes on.
    pub fn freeze(&self) -> Result<Frozen<'_>, String> {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.root()))?;
        Ok(Frozen(self))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
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
