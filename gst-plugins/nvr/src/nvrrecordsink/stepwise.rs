//! Large files that are written beside recordings go to the disk in steps: whoever records to the same disk waits for
//! no more than one of them.

use std::fs::File;
use std::io::{self, Write};

/// Bytes of a step.
const STEP: usize = 8 << 20;

/// A file that is synchronised as it grows.
#[derive(Debug)]
pub struct Stepwise {
    file: File,
    waiting: usize,
}

impl Stepwise {
    pub fn new(file: File) -> Self {
        Self { file, waiting: 0 }
    }

    /// The file is whole: all of it goes to the disk.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for Stepwise {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.waiting += written;
        if self.waiting >= STEP {
            self.waiting = 0;
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
