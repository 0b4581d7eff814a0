//! Reads segments back: what is whole, what is in it, and where its samples lie. A file may be cut off, or not be
//! ours at all; nothing in it is believed before it is checked.
#![allow(clippy::trivially_copy_pass_by_ref, reason = "names of boxes are byte string literals")]

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use super::mp4::{Medium, Track};

/// Headers that are larger are not ours.
const MAX_HEADER: u64 = 16 << 20;
/// Bytes that are searched at a time.
const SEARCHED: u64 = 256 << 10;

/// One sample and where it lies in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placed {
    pub track: u32,
    pub at: u64,
    pub size: u32,
    /// Decoding time and what is added to it for presentation, in ticks of the track.
    pub time: u64,
    pub duration: u32,
    pub offset: i32,
    pub key: bool,
}

/// What a file holds up to its last whole fragment.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub tracks: Vec<Track>,
    /// In the order of the file.
    pub samples: Vec<Placed>,
    /// Where the last whole fragment ends. 0 where not even the header is whole.
    pub whole: u64,
    /// Size of the file.
    pub size: u64,
}

impl Contents {
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.medium == Medium::Video)
    }

    pub fn frames(&self) -> u64 {
        let id = self.video().map(|track| track.id);
        self.samples.iter().filter(|sample| Some(sample.track) == id).count() as u64
    }

    /// From the first picture to the end of the last one, in microseconds.
    pub fn duration_us(&self) -> i64 {
        let Some(video) = self.video() else { return 0 };
        let pictures = self.samples.iter().filter(|sample| sample.track == video.id);
        let times = pictures.map(|s| (s.time as i64 + i64::from(s.offset), i64::from(s.duration)));
        let (first, last) = times.fold((i64::MAX, i64::MIN), |(from, to), (at, lasts)| {
            (from.min(at), to.max(at.saturating_add(lasts)))
        });
        if first == i64::MAX {
            return 0;
        }
        (i128::from(last.saturating_sub(first)) * 1_000_000 / i128::from(video.timescale.max(1))) as i64
    }
}

/// Reads the headers of a segment; the media are skipped. An error is one of reading, never of what was read.
pub fn contents(file: &mut (impl Read + Seek)) -> io::Result<Contents> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut found = Contents { size, ..Contents::default() };
    let mut at = 0;
    let mut pending: Option<(u64, Vec<u8>)> = None;
    while let Some((kind, length)) = box_at(file, at, size)? {
        match &kind {
            b"moov" | b"moof" if length <= MAX_HEADER => {
                let mut body = vec![0; length as usize - 8];
                file.seek(SeekFrom::Start(at + 8))?;
                file.read_exact(&mut body)?;
                if kind == *b"moof" {
                    pending = Some((at, body));
                } else {
                    found.tracks = tracks(&body);
                    if found.tracks.is_empty() {
                        break;
                    }
                    found.whole = at + length;
                }
            }
            b"mdat" => {
                let Some((base, moof)) = pending.take() else { break };
                let Some(samples) = fragment(&moof, base, at + 8, at + length) else { break };
                found.samples.extend(samples);
                found.whole = at + length;
            }
            b"ftyp" | b"free" => {}
            _ => break,
        }
        at += length;
    }
    Ok(found)
}

/// Whether a whole fragment lies somewhere from `at` on. What is in front of it may be anything: damage, or a hole.
pub fn goes_on(file: &mut (impl Read + Seek), at: u64) -> io::Result<bool> {
    const KIND: &[u8] = b"moof";
    let size = file.seek(SeekFrom::End(0))?;
    let (mut at, mut piece) = (at, Vec::new());
    loop {
        piece.clear();
        file.seek(SeekFrom::Start(at))?;
        file.take(SEARCHED).read_to_end(&mut piece)?;
        for (found, _) in piece.windows(KIND.len()).enumerate().filter(|(_, bytes)| *bytes == KIND) {
            let Some(start) = (at + found as u64).checked_sub(4) else { continue };
            if fragment_at(file, start, size)? {
                return Ok(true);
            }
        }
        // A name may lie across the border.
        let step = (piece.len() as u64).saturating_sub(KIND.len() as u64 - 1);
        if (piece.len() as u64) < SEARCHED {
            return Ok(false);
        }
        at += step;
    }
}

/// Whether a whole fragment with samples begins here.
fn fragment_at(file: &mut (impl Read + Seek), start: u64, size: u64) -> io::Result<bool> {
    let Some((_, length)) = box_at(file, start, size)?.filter(|(_, length)| *length <= MAX_HEADER) else {
        return Ok(false);
    };
    let mut moof = vec![0; length as usize - 8];
    file.seek(SeekFrom::Start(start + 8))?;
    file.read_exact(&mut moof)?;
    let data = start + length;
    let Some((_, length)) = box_at(file, data, size)?.filter(|(kind, _)| kind == b"mdat") else {
        return Ok(false);
    };
    Ok(fragment(&moof, start, data + 8, data + length).is_some_and(|samples| !samples.is_empty()))
}

/// Kind and length of a box that lies within the file as a whole.
fn box_at(file: &mut (impl Read + Seek), at: u64, size: u64) -> io::Result<Option<([u8; 4], u64)>> {
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(at))?;
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [a, b, c, d, kind @ ..] = head;
    let length = u64::from(u32::from_be_bytes([a, b, c, d]));
    let whole = length >= 8 && at.checked_add(length).is_some_and(|end| end <= size);
    Ok(whole.then_some((kind, length)))
}

/// The boxes within one; stops at what is not one.
fn boxes(body: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let length = be32(rest, 0)? as usize;
        let kind = rest.get(4..8)?.first_chunk::<4>()?;
        let inner = rest.get(8..length)?;
        rest = &rest[length..];
        Some((kind, inner))
    })
}

fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(body).find_map(|(found, inner)| (found == kind).then_some(inner))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn tracks(moov: &[u8]) -> Vec<Track> {
    boxes(moov).filter(|(kind, _)| *kind == b"trak").filter_map(|(_, trak)| track(trak)).collect()
}

/// A track as this module's writer describes it: version 1 headers, one sample entry.
fn track(trak: &[u8]) -> Option<Track> {
    let tkhd = child(trak, b"tkhd").filter(|b| b.first() == Some(&1))?;
    let mdia = child(trak, b"mdia")?;
    let mdhd = child(mdia, b"mdhd").filter(|b| b.first() == Some(&1))?;
    let medium = match child(mdia, b"hdlr")?.get(8..12)? {
        b"vide" => Medium::Video,
        b"soun" => Medium::Audio,
        _ => return None,
    };
    let stsd = child(child(child(mdia, b"minf")?, b"stbl")?, b"stsd")?;
    let entry = stsd.get(8..).filter(|entry| be32(entry, 0).is_some_and(|n| n as usize == entry.len()))?;
    let timescale = be32(mdhd, 20).filter(|scale| *scale > 0)?;
    Some(Track {
        id: be32(tkhd, 20)?,
        medium,
        timescale,
        width: (be32(tkhd, 88)? >> 16) as u16,
        height: (be32(tkhd, 92)? >> 16) as u16,
        entry: entry.to_vec(),
    })
}

/// The samples of a fragment; `None` where they do not lie within its data.
fn fragment(moof: &[u8], base: u64, from: u64, to: u64) -> Option<Vec<Placed>> {
    let mut samples = Vec::new();
    for (_, traf) in boxes(moof).filter(|(kind, _)| *kind == b"traf") {
        let track = be32(child(traf, b"tfhd")?, 4)?;
        let tfdt = child(traf, b"tfdt").filter(|b| b.first() == Some(&1))?;
        let mut time = be64(tfdt, 4)?;
        let trun = child(traf, b"trun").filter(|b| be32(b, 0) == Some(0x0100_0f01))?;
        let count = be32(trun, 4)? as usize;
        let mut at = base.checked_add(u64::from(be32(trun, 8)?))?;
        let table = trun.get(12..)?;
        if table.len() / 16 != count || at < from {
            return None;
        }
        for row in table.chunks_exact(16) {
            let (duration, size, flags) = (be32(row, 0)?, be32(row, 4)?, be32(row, 8)?);
            let offset = be32(row, 12)? as i32;
            samples.push(Placed { track, at, size, time, duration, offset, key: flags & 0x1_0000 == 0 });
            at = at.checked_add(u64::from(size)).filter(|end| *end <= to)?;
            time = time.checked_add(u64::from(duration)).filter(|time| *time < 1 << 62)?;
        }
    }
    Some(samples)
}
