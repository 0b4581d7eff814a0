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
use std::path::{Path, PathBuf};

const HEADER: usize = 8;
/// Numbers from here on are taken for damage: no spool lives to see them.
const LIMIT: u64 = 1 << 63;
/// Larger bodies are taken for damage.
const MAX_BODY: usize = 8 << 20;

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

    /// Appends a record. Where the spool is full the oldest segment goes.
    pub fn append(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
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
        result
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
            if self.reader.as_ref().is_none_or(|(first, _)| *first != segment.first) {
                let mut reader = BufReader::new(File::open(self.path(segment.first))?);
                let mut number = segment.first;
                while number < self.next && read_body(&mut reader).is_ok_and(|body| body.is_some()) {
                    number += 1;
                }
                self.next = self.next.max(segment.first);
                self.reader = Some((segment.first, reader));
            }
            let Some((_, reader)) = &mut self.reader else { return Ok(None) };
            let number = self.next;
            if let Some(record) = read_body(reader)?.and_then(|body| parse(number, &body)) {
                self.next += 1;
                if self.confirmed.contains(&number) {
                    continue;
                }
                return Ok(Some(record));
            }
            // It was whole when it was opened or written; what follows cannot be found any more.
            self.reader = None;
            for lost in self.next..segment.end() {
                self.dropped += 1;
                self.confirmed.insert(lost);
            }
            self.next = segment.end();
            self.settle()?;
        }
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
        fs::remove_file(self.path(oldest.first))
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
            fs::remove_file(self.path(segment.first))?;
        }
        Ok(())
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(spool: &mut Spool) -> Vec<u64> {
        std::iter::from_fn(|| spool.read().unwrap())
            .map(|record| {
                assert_eq!(record.topic, "nvr/detections/1");
                let text = String::from_utf8(record.payload).unwrap();
                text.trim_start_matches('x').parse().unwrap()
            })
            .collect()
    }

    fn append(spool: &mut Spool, value: u64, padding: usize) {
        spool.append("nvr/detections/1", format!("{}{value}", "x".repeat(padding)).as_bytes()).unwrap();
    }

    fn segments(directory: &Path) -> Vec<PathBuf> {
        let mut list: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "spool"))
            .collect();
        list.sort();
        list
    }

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn records_come_back_in_order_across_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        assert!(!spool.has_unread());
        for i in 0..10 {
            append(&mut spool, i, 0);
        }
        assert_eq!(read_all(&mut spool), (0..10).collect::<Vec<_>>());
        assert!(!spool.has_unread());
        for i in 0..4 {
            spool.confirm(i).unwrap();
        }
        spool.confirm(6).unwrap();
        assert_eq!(spool.len(), 5);
        spool.rewind();
        assert_eq!(read_all(&mut spool), [4, 5, 7, 8, 9]);
        spool.sync().unwrap();
        drop(spool);

        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        append(&mut spool, 10, 0);
        assert_eq!(
            read_all(&mut spool),
            [4, 5, 6, 7, 8, 9, 10],
            "what was confirmed out of turn comes again"
        );
        for i in 4..11 {
            spool.confirm(i).unwrap();
        }
        assert_eq!((spool.len(), spool.bytes()), (0, 0));
        assert!(segments(directory.path()).is_empty());
        spool.sync().unwrap();
        drop(spool);
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        append(&mut spool, 11, 0);
        assert_eq!(spool.read().unwrap().unwrap().number, 11, "numbers are not used twice");
    }

    #[test]
    fn a_full_spool_drops_its_oldest_segment() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 64 << 10).unwrap();
        for i in 0..200 {
            append(&mut spool, i, 1000);
            assert!(spool.bytes() <= 64 << 10);
        }
        let on_disk: u64 = segments(directory.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert_eq!(on_disk, spool.bytes());
        let left = read_all(&mut spool);
        assert_eq!(left, ((200 - left.len() as u64)..200).collect::<Vec<_>>());
        assert!(left.len() > 40, "{}", left.len());
        assert_eq!(spool.dropped(), 200 - left.len() as u64);
        assert!(spool.append("t", &vec![0; 64 << 10]).is_err());
        assert_eq!(read_all(&mut spool), [0u64; 0]);
    }

    #[test]
    fn what_is_read_may_be_dropped_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 16 << 10).unwrap();
        for i in 0..10 {
            append(&mut spool, i, 1000);
        }
        assert_eq!(spool.read().unwrap().unwrap().number, 0);
        for i in 10..100 {
            append(&mut spool, i, 1000);
        }
        let left = read_all(&mut spool);
        assert_eq!(left.last(), Some(&99));
        spool.confirm(0).unwrap();
        assert_eq!(spool.len(), left.len() as u64);
    }

    #[test]
    fn a_torn_record_ends_its_segment() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        for i in 0..5 {
            append(&mut spool, i, 0);
        }
        drop(spool);
        let path = &segments(directory.path())[0];
        let len = path.metadata().unwrap().len();
        OpenOptions::new().write(true).open(path).unwrap().set_len(len - 3).unwrap();
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        append(&mut spool, 5, 0);
        assert_eq!(read_all(&mut spool), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn a_cursor_beyond_everything_does_not_confirm_everything() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        for i in 0..5 {
            append(&mut spool, i, 0);
        }
        drop(spool);
        for cursor in ["18446744073709551615", "6"] {
            fs::write(directory.path().join("cursor"), cursor).unwrap();
            let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
            assert_eq!(read_all(&mut spool), [0, 1, 2, 3, 4], "{cursor}");
        }
        fs::remove_file(&segments(directory.path())[0]).unwrap();
        fs::write(directory.path().join("cursor"), "18446744073709551615").unwrap();
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        append(&mut spool, 7, 0);
        assert_eq!(read_all(&mut spool), [7]);
    }

    #[test]
    fn a_message_that_finds_no_room_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 64 << 10).unwrap();
        for i in 0..60 {
            append(&mut spool, i, 1000);
        }
        // A directory in its place cannot be removed as a file.
        let oldest = segments(directory.path()).remove(0);
        fs::remove_file(&oldest).unwrap();
        fs::create_dir(&oldest).unwrap();
        let (lost, kept) = (spool.dropped(), spool.len());
        let failed = (0..60).find(|_| spool.append("t", &[0; 1000]).is_err());
        let added = failed.expect("the spool is full at some time") + 1;
        assert_eq!(spool.dropped() - lost, kept + added - spool.len(), "each is kept or counted");
    }

    #[test]
    fn a_spool_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path(), 1 << 20).unwrap();
        let error = Spool::open(directory.path(), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        drop(spool);
        Spool::open(directory.path(), 1 << 20).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Like a queue in memory, whatever is appended, read, confirmed or restarted in whatever order.
        #[test]
        fn behaves_like_a_queue(steps in proptest::collection::vec(0u8..10, 1..120)) {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
            let (mut appended, mut read, mut confirmed) = (0, 0, 0);
            for step in steps {
                match step {
                    0..=4 => { append(&mut spool, appended, 1500); appended += 1; }
                    5 | 6 => {
                        let record = spool.read().unwrap();
                        prop_assert_eq!(record.map(|r| r.number), (read < appended).then_some(read));
                        read = (read + 1).min(appended);
                    }
                    7 if confirmed < read => { spool.confirm(confirmed).unwrap(); confirmed += 1; }
                    8 => { spool.rewind(); read = confirmed; }
                    9 => {
                        spool.sync().unwrap();
                        drop(spool);
                        spool = Spool::open(directory.path(), 1 << 20).unwrap();
                        read = confirmed;
                    }
                    _ => {}
                }
                prop_assert_eq!(spool.len(), appended - confirmed);
                prop_assert_eq!(spool.has_unread(), read < appended);
            }
        }

        #[test]
        fn damage_is_no_panic(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(), cursor in ".{0,12}",
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
            for i in 0..20 {
                append(&mut spool, i, 10);
            }
            drop(spool);
            let path = segments(directory.path()).remove(0);
            let mut bytes = fs::read(&path).unwrap();
            for (index, value) in edits {
                let i = index.index(bytes.len());
                bytes[i] = value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            fs::write(&path, bytes).unwrap();
            fs::write(directory.path().join("cursor"), cursor).unwrap();
            fs::write(directory.path().join("ffffffffffffffff.spool"), b"junk").unwrap();
            let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
            append(&mut spool, 99, 0);
            let left = std::iter::from_fn(|| spool.read().unwrap()).count();
            prop_assert!(left >= 1);
        }
    }
}
