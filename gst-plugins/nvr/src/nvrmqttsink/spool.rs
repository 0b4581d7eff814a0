//! Messages on disk, first in, first out, bounded.
//!
//! A spool is a directory of segments named after the number of their first record in hexadecimal,
//! `0000000000000000.spool`, each a sequence of records: length of the body and its CRC-32 (both 4 bytes,
//! little-endian), then the body: length of the topic (2 bytes), topic, payload. File `cursor` holds the number of
//! the first record that has not been confirmed, in decimal. Whatever follows a record that does not check out
//! is lost with it. A reader that restarts may see the last few confirmed records again.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HEADER: usize = 8;
/// Numbers from here on are taken for damage: no spool lives to see them.
const LIMIT: u64 = 1 << 63;
/// Larger bodies are taken for damage.
const MAX_BODY: usize = 8 << 20;

/// A segment that cannot be read for so long is given up: what follows it has to get out.
const UNREADABLE_FOR: Duration = Duration::from_mins(1);

/// A record as it comes back.
#[derive(Debug, PartialEq)]
pub struct Record {
    pub number: u64,
    pub topic: String,
    pub payload: Vec<u8>,
}

#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    /// Held for as long as the spool is open.
    _lock: File,
    max_bytes: u64,
    segment_bytes: u64,
    /// Oldest first. The last is being written where `writer` is there.
    segments: VecDeque<Segment>,
    writer: Option<File>,
    /// Number of the next record to be appended.
    end: u64,
    /// Everything before is confirmed.
    cursor: u64,
    /// Confirmed out of turn.
    confirmed: BTreeSet<u64>,
    saved_cursor: Option<u64>,
    /// Number of the next record to be read, and where that is.
    next: u64,
    reader: Option<(u64, BufReader<File>)>,
    /// The first record of a segment that cannot be read, and since when.
    unreadable: Option<(u64, Instant)>,
    dropped: u64,
    dirty: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    count: u64,
    bytes: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.first + self.count
    }
}

impl Spool {
    /// Opens the spool in `directory`, made where it is missing, with what is still unconfirmed in it. Fails where
    /// another process or element has it open.
    pub fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "in use by another element or process")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let first = name.to_str().and_then(|name| name.strip_suffix(".spool"));
            let first = first.and_then(|first| u64::from_str_radix(first, 16).ok());
            firsts.extend(first.filter(|first| *first < LIMIT));
        }
        firsts.sort_unstable();
        let mut spool = Self {
            directory: directory.to_path_buf(),
            _lock: lock,
            max_bytes,
            segment_bytes: (max_bytes / 8).clamp(4096, 8 << 20),
            segments: VecDeque::new(),
            writer: None,
            end: 0,
            cursor: 0,
            confirmed: BTreeSet::new(),
            saved_cursor: None,
            next: 0,
            reader: None,
            unreadable: None,
            dropped: 0,
            dirty: false,
        };
        let mut segments = Vec::with_capacity(firsts.len());
        for first in firsts {
            segments.push(check_segment(&spool.path(first), first)?);
        }
        // What is beyond all records is damage, and must not pass for the confirmation of all of them.
        let limit = segments.last().map_or(LIMIT, Segment::end);
        let cursor = fs::read_to_string(spool.cursor_path()).ok().and_then(|text| text.trim().parse().ok());
        let cursor = cursor.filter(|cursor: &u64| *cursor <= limit);
        spool.cursor = cursor.unwrap_or(0);
        spool.saved_cursor = cursor;
        for segment in segments {
            let first = segment.first;
            // Only damage makes segments overlap; the numbers of the later one cannot be trusted then.
            if segment.count == 0 || first < spool.end || segment.end() <= spool.cursor {
                fs::remove_file(spool.path(first))?;
            } else {
                spool.end = segment.end();
                spool.segments.push_back(segment);
            }
        }
        if spool.segments.is_empty() {
            spool.end = spool.cursor;
        }
        spool.settle()?;
        spool.rewind();
        Ok(spool)
    }

    /// Appends a record and gives its number. Where the spool is full the oldest segment goes.
    pub fn append(&mut self, topic: &str, payload: &[u8]) -> io::Result<u64> {
        let body = 2 + topic.len() + payload.len();
        let size = (HEADER + body) as u64;
        let (Ok(topic_len), true) = (u16::try_from(topic.len()), body <= MAX_BODY && size <= self.max_bytes)
        else {
            self.dropped += 1;
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is larger than the spool"));
        };
        while self.bytes() + size > self.max_bytes {
            if let Err(error) = self.drop_oldest() {
                self.dropped += 1;
                return Err(error);
            }
        }
        let mut record = Vec::with_capacity(HEADER + body);
        record.extend_from_slice(&(body as u32).to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&topic_len.to_le_bytes());
        record.extend_from_slice(topic.as_bytes());
        record.extend_from_slice(payload);
        let crc = crc32(&record[HEADER..]);
        record[4..HEADER].copy_from_slice(&crc.to_le_bytes());

        let result = self.write(&record);
        if result.is_err() {
            self.dropped += 1;
        }
        result.map(|()| self.end - 1)
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        if self.segments.back().is_some_and(|last| last.bytes >= self.segment_bytes)
            && let Some(finished) = self.writer.take()
        {
            finished.sync_data()?;
        }
        let writer = if let Some(writer) = &mut self.writer {
            writer
        } else {
            // The directory is not made again: where it is gone, so is the disk it was on.
            let file = OpenOptions::new().create_new(true).append(true).open(self.path(self.end))?;
            self.segments.push_back(Segment { first: self.end, count: 0, bytes: 0 });
            self.writer.insert(file)
        };
        let written = writer.write_all(record);
        let Some(segment) = self.segments.back_mut() else { return written };
        if let Err(error) = written {
            // A full disk leaves half a record; the next must not follow it.
            if writer.set_len(segment.bytes).is_err() {
                self.writer = None;
            }
            if segment.count == 0 {
                let first = segment.first;
                (self.writer, self.reader) = (None, None);
                self.segments.pop_back();
                let _ = fs::remove_file(self.path(first));
            }
            return Err(error);
        }
        segment.count += 1;
        segment.bytes += record.len() as u64;
        self.end += 1;
        self.dirty = true;
        Ok(())
    }

    /// The next record that has not been read since the last [`Self::rewind`].
    pub fn read(&mut self) -> io::Result<Option<Record>> {
        loop {
            let Some(segment) = self.segments.iter().find(|segment| segment.end() > self.next).copied()
            else {
                return Ok(None);
            };
            self.next = self.next.max(segment.first);
            match self.read_from(segment) {
                Ok(Some(record)) => {
                    self.unreadable = None;
                    self.next += 1;
                    if self.confirmed.contains(&record.number) {
                        continue;
                    }
                    return Ok(Some(record));
                }
                // Deleted by hand, or damaged: it was whole when it was opened or written.
                Ok(None) => self.give_up(segment)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.give_up(segment)?,
                Err(error) => {
                    self.reader = None;
                    let (first, since) = self.unreadable.unwrap_or((segment.first, Instant::now()));
                    if first != segment.first {
                        self.unreadable = Some((segment.first, Instant::now()));
                    } else if since.elapsed() < UNREADABLE_FOR {
                        self.unreadable = Some((first, since));
                    } else {
                        self.give_up(segment)?;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// The next record, which is in this segment. `None` where it is damaged.
    fn read_from(&mut self, segment: Segment) -> io::Result<Option<Record>> {
        if self.reader.as_ref().is_none_or(|(first, _)| *first != segment.first) {
            let mut reader = BufReader::new(File::open(self.path(segment.first))?);
            let mut number = segment.first;
            while number < self.next && read_body(&mut reader)?.is_some() {
                number += 1;
            }
            self.reader = Some((segment.first, reader));
        }
        let Some((_, reader)) = &mut self.reader else { return Ok(None) };
        Ok(read_body(reader)?.and_then(|body| parse(self.next, &body)))
    }

    /// Counts what has not been read of a segment as lost: what follows damage cannot be found any more.
    fn give_up(&mut self, segment: Segment) -> io::Result<()> {
        (self.reader, self.unreadable) = (None, None);
        if segment.end() == self.end {
            // What comes next must not follow it.
            self.writer = None;
        }
        for lost in self.next.max(segment.first)..segment.end() {
            self.dropped += u64::from(lost >= self.cursor && self.confirmed.insert(lost));
        }
        // Earlier segments may be there to be read.
        if self.next >= segment.first {
            self.next = self.next.max(segment.end());
        }
        self.settle()
    }

    /// What has been appended is with its receiver already: it is read only after a [`Self::rewind`].
    pub fn skip(&mut self) {
        self.next = self.end;
        self.reader = None;
    }

    /// Reads from the first unconfirmed record again.
    pub fn rewind(&mut self) {
        self.next = self.cursor;
        self.reader = None;
    }

    /// Whether [`Self::read`] has something to give.
    pub fn has_unread(&self) -> bool {
        self.next < self.end
    }

    /// The record need not be kept.
    pub fn confirm(&mut self, number: u64) -> io::Result<()> {
        if number >= self.cursor && number < self.end {
            self.confirmed.insert(number);
            self.settle()?;
        }
        Ok(())
    }

    /// Makes what was written and confirmed survive a power cut.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            if let Some(writer) = &self.writer {
                writer.sync_data()?;
                if writer.metadata()?.nlink() == 0
                    && let Some(segment) = self.segments.back().copied()
                {
                    // Deleted by hand: what is written from here on must not be lost with it.
                    self.give_up(segment)?;
                }
            }
            self.dirty = false;
        }
        if self.saved_cursor != Some(self.cursor) {
            let temporary = self.directory.join("cursor.new");
            fs::write(&temporary, format!("{}\n", self.cursor))?;
            fs::rename(temporary, self.cursor_path())?;
            self.saved_cursor = Some(self.cursor);
        }
        Ok(())
    }

    /// Whether [`Self::sync`] has something to do.
    pub fn is_dirty(&self) -> bool {
        self.dirty || self.saved_cursor.unwrap_or(0) != self.cursor
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Records that are not confirmed.
    pub fn len(&self) -> u64 {
        let kept: u64 = self
            .segments
            .iter()
            .map(|segment| segment.end() - segment.first.max(self.cursor).min(segment.end()))
            .sum();
        kept - self.confirmed.len() as u64
    }

    /// Records lost since the spool was opened: it was full, or they were damaged or could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.segments.pop_front() else { return Ok(()) };
        if self.segments.is_empty() {
            self.writer = None;
        }
        self.dropped += (oldest.first.max(self.cursor)..oldest.end())
            .filter(|number| !self.confirmed.contains(number))
            .count() as u64;
        self.confirmed = self.confirmed.split_off(&oldest.end());
        self.cursor = self.cursor.max(oldest.end());
        self.settle()?;
        if self.next < self.cursor {
            self.rewind();
        }
        self.remove(oldest)
    }

    /// Moves the cursor over what is confirmed or was never there, and removes segments that are behind it.
    fn settle(&mut self) -> io::Result<()> {
        loop {
            if self.confirmed.remove(&self.cursor) {
                self.cursor += 1;
                continue;
            }
            match self.segments.iter().find(|segment| segment.end() > self.cursor) {
                Some(segment) if segment.first > self.cursor => self.cursor = segment.first,
                Some(_) => break,
                None => {
                    self.cursor = self.end;
                    break;
                }
            }
        }
        self.next = self.next.max(self.cursor);
        while let Some(segment) =
            self.segments.front().copied().filter(|segment| segment.end() <= self.cursor)
        {
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.writer = None;
            }
            if self.reader.as_ref().is_some_and(|(first, _)| *first == segment.first) {
                self.reader = None;
            }
            self.remove(segment)?;
        }
        Ok(())
    }

    fn remove(&self, segment: Segment) -> io::Result<()> {
        match fs::remove_file(self.path(segment.first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, first: u64) -> PathBuf {
        self.directory.join(format!("{first:016x}.spool"))
    }

    fn cursor_path(&self) -> PathBuf {
        self.directory.join("cursor")
    }
}

/// Counts the whole records of a segment and cuts off what follows them.
fn check_segment(path: &Path, first: u64) -> io::Result<Segment> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut reader = BufReader::new(&file);
    let mut segment = Segment { first, count: 0, bytes: 0 };
    while let Some(body) = read_body(&mut reader)? {
        if parse(0, &body).is_none() {
            break;
        }
        segment.count += 1;
        segment.bytes += (HEADER + body.len()) as u64;
    }
    if segment.bytes < len {
        file.set_len(segment.bytes)?;
    }
    Ok(segment)
}

/// The body of the next record; `None` at the end and where there is no whole record.
fn read_body(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER];
    if !read_whole(reader, &mut header)? {
        return Ok(None);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if !(2..=MAX_BODY).contains(&len) {
        return Ok(None);
    }
    let mut body = vec![0; len];
    let whole = read_whole(reader, &mut body)?;
    Ok((whole && crc32(&body) == u32::from_le_bytes([c0, c1, c2, c3])).then_some(body))
}

fn read_whole(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn parse(number: u64, body: &[u8]) -> Option<Record> {
    let (len, rest) = body.split_first_chunk::<2>()?;
    let (topic, payload) = rest.split_at_checked(u16::from_le_bytes(*len) as usize)?;
    Some(Record { number, topic: String::from_utf8(topic.to_vec()).ok()?, payload: payload.to_vec() })
}

/// CRC-32 as in IEEE 802.3 and zip: reflected polynomial 0xEDB88320.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
