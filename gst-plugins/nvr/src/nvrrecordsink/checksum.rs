//! What a file's bytes were when they were written: CRC-32 (ISO 3309), as zlib, `7z h` and `crc32` compute it.
//!
//! It finds what disks, memory and networks do to files by accident, at a cost that is not seen beside writing them,
//! on small machines too. It does not find who changes a file on purpose and the catalogue with it.

use std::io::{self, ErrorKind, Read};

/// In front of the number, so that there may be others one day.
const KIND: &str = "crc32:";

#[derive(Clone, Debug, Default)]
pub struct Checksum(crc32fast::Hasher);

impl Checksum {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// As the catalogue has it: `crc32:` and eight hexadecimal digits.
    pub fn text(&self) -> String {
        format!("{KIND}{:08x}", self.0.clone().finalize())
    }

    /// Of the next `bytes` bytes, or of those that there are, and how many those were.
    pub fn of(from: &mut impl Read, bytes: u64) -> io::Result<(u64, Self)> {
        let mut this = Self::default();
        let mut buffer = vec![0; 256 << 10];
        let (mut rest, mut from) = (bytes, from.take(bytes));
        while rest > 0 {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    this.update(&buffer[..count]);
                    rest -= count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((bytes - rest, this))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_crc_that_other_tools_compute() {
        let mut checksum = Checksum::default();
        assert_eq!(checksum.text(), "crc32:00000000");
        checksum.update(b"1234");
        checksum.update(b"56789");
        assert_eq!(checksum.text(), "crc32:cbf43926");
        let (count, same) = Checksum::of(&mut &b"123456789 and more"[..], 9).unwrap();
        assert_eq!((count, same.text()), (9, checksum.text()));
        assert_eq!(Checksum::of(&mut &b"12"[..], 9).unwrap().0, 2);
    }
}
