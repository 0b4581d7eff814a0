//! Joins pieces of segments into one plain MP4 file without encoding anew. The file begins with the keyframe at or
//! before the wanted time; an edit list has players begin and end exactly where it was asked for. For those that know
//! no edit lists, the pictures up to the second keyframe can be replaced with others ([`Plan::opening`]).

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::mp4::{self, Medium, Track, put_box, put_full, put32, put64};
use super::read::{Contents, Placed};

/// Segments that follow each other more closely than this follow without a pause.
const SEAM_US: i64 = 500_000;
/// Chapters that the list in an MP4 file can hold.
const CHAPTERS: usize = 255;

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JoinError {
    #[error("nothing was recorded in that time")]
    Nothing,
    /// The index of the segment.
    #[error("the camera's settings changed between the segments, so they do not fit into one file")]
    Differs(usize),
}

/// A segment and when its first picture was taken, in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub start_us: i64,
    pub contents: &'a Contents,
}

/// Bytes to copy: from which part, where, how many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    pub part: usize,
    pub at: u64,
    pub size: u32,
    lane: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Decoding time and presentation time after the first decoding time of the file, in ticks of the track.
    dts: i64,
    pts: i64,
    lasts: u32,
    size: u32,
    key: bool,
}

#[derive(Clone, Debug)]
struct Lane {
    track: Track,
    rows: Vec<Row>,
    /// How many rows at the beginning were encoded anew, and their sample entry.
    anew: Option<(usize, Vec<u8>)>,
}

/// A picture of the [`Opening`], times in ticks of the track.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Picture {
    pub piece: Piece,
    pub dts: i64,
    pub pts: i64,
}

/// The beginning of a file of which not everything is shown.
#[derive(Clone, Debug)]
pub struct Opening {
    pub track: Track,
    /// In the order in which they are decoded, from one keyframe to before the next.
    pub pictures: Vec<Picture>,
    /// Presentation time of the first picture of which anything is shown.
    pub from: i64,
}

/// A picture that takes the place of one of the opening, in the order of their times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encoded {
    /// As the picture that it replaces.
    pub pts: i64,
    pub size: u32,
    pub key: bool,
}

/// A moment with a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chapter {
    pub at_us: i64,
    pub name: String,
}

/// What the joined file consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    lanes: Vec<Lane>,
    /// In the order of the file.
    pub pieces: Vec<Piece>,
    /// From when to when it plays, in microseconds since 1970.
    pub from_us: i64,
    pub to_us: i64,
    /// When that begins, in ticks of the video after its first decoding time.
    shown: i64,
}

/// Where a part lies on the common line of time.
struct Place {
    start_us: i64,
    /// Presentation time of its first picture, in ticks of the video.
    first: i64,
}

fn scaled(value: i64, from: u32, to: u32) -> i64 {
    (i128::from(value) * i128::from(to) / i128::from(from.max(1))) as i64
}

fn pts(sample: &Placed) -> i64 {
    sample.time as i64 + i64::from(sample.offset)
}

/// Chooses what has to be in the file for the time from `from_us` to `to_us`. The parts are in order.
pub fn plan(parts: &[Part<'_>], from_us: i64, to_us: i64) -> Result<Plan, JoinError> {
    let video = parts.iter().find_map(|part| part.contents.video()).ok_or(JoinError::Nothing)?.clone();
    let audio = |part: &Part<'_>| part.contents.tracks.iter().find(|t| t.medium == Medium::Audio).cloned();
    let sound = parts.iter().find_map(audio);
    let mut places: Vec<Place> = Vec::new();
    let mut end_us = i64::MIN;
    for (at, part) in parts.iter().enumerate() {
        let Some(track) = part.contents.video() else { return Err(JoinError::Nothing) };
        if (&track.entry, track.timescale) != (&video.entry, video.timescale) {
            return Err(JoinError::Differs(at));
        }
        let pictures = part.contents.samples.iter().filter(|s| s.track == track.id);
        let first = pictures.map(pts).min().ok_or(JoinError::Nothing)?;
        let close = end_us != i64::MIN && (part.start_us - end_us).abs() < SEAM_US;
        let start_us = if close { end_us } else { part.start_us.max(end_us) };
        end_us = start_us + part.contents.duration_us();
        places.push(Place { start_us, first });
    }
    let origin_us = places.first().ok_or(JoinError::Nothing)?.start_us;
    // Everything in order, in ticks after the first picture of the first part.
    let mut rows: Vec<(Piece, Row)> = Vec::new();
    for (at, (part, place)) in parts.iter().zip(&places).enumerate() {
        let own_sound = audio(part);
        let usable =
            own_sound.is_some() && own_sound.as_ref().map(|t| &t.entry) == sound.as_ref().map(|t| &t.entry);
        for sample in &part.contents.samples {
            let (lane, scale) = match (part.contents.video(), &own_sound) {
                (Some(track), _) if track.id == sample.track => (0, video.timescale),
                (_, Some(track)) if usable && track.id == sample.track => (1, track.timescale),
                _ => continue,
            };
            let base = scaled(place.start_us - origin_us, 1_000_000, scale)
                - scaled(place.first, video.timescale, scale);
            let row = Row {
                dts: base + sample.time as i64,
                pts: base + pts(sample),
                lasts: sample.duration,
                size: sample.size,
                key: sample.key,
            };
            rows.push((Piece { part: at, at: sample.at, size: sample.size, lane }, row));
        }
    }
    let ticks =
        |us: i64, scale: u32| scaled(us.saturating_sub(origin_us).clamp(-1 << 50, 1 << 50), 1_000_000, scale);
    let (begin, end) = (ticks(from_us, video.timescale), ticks(to_us, video.timescale));
    let picture = |(piece, _): &&(Piece, Row)| piece.lane == 0;
    let key = rows.iter().enumerate().filter(|(_, (piece, row))| piece.lane == 0 && row.key);
    let before = key.clone().rfind(|(_, (_, row))| row.pts <= begin);
    let (first, _) = before.or_else(|| key.clone().next()).ok_or(JoinError::Nothing)?;
    let last =
        rows.iter().rposition(|(piece, row)| piece.lane == 0 && row.pts < end).ok_or(JoinError::Nothing)?;
    if last < first {
        return Err(JoinError::Nothing);
    }
    let shown = rows[first].1.pts.max(begin);
    let over = rows[first..=last].iter().filter(picture).map(|(_, row)| row.pts + i64::from(row.lasts)).max();
    let over = over.unwrap_or(end).min(end);
    if over <= shown {
        return Err(JoinError::Nothing);
    }
    let zero = rows[first].1.dts;
    let mut lanes = vec![Lane { track: video.clone(), rows: Vec::new(), anew: None }];
    if let Some(track) = sound {
        lanes.push(Lane { track, rows: Vec::new(), anew: None });
    }
    let mut pieces = Vec::new();
    for (at, (piece, row)) in rows.iter().enumerate() {
        let lane = &mut lanes[piece.lane];
        let scale = lane.track.timescale;
        let wanted = if piece.lane == 0 {
            (first..=last).contains(&at)
        } else {
            let (from, to) = (scaled(shown, video.timescale, scale), scaled(over, video.timescale, scale));
            (from..to).contains(&row.pts)
        };
        if wanted {
            let zero = scaled(zero, video.timescale, scale);
            lane.rows.push(Row { dts: row.dts - zero, pts: row.pts - zero, ..*row });
            pieces.push(*piece);
        }
    }
    lanes.retain(|lane| !lane.rows.is_empty());
    let us = |ticks: i64| origin_us + scaled(ticks, video.timescale, 1_000_000);
    Ok(Plan { lanes, pieces, from_us: us(shown), to_us: us(over), shown: shown - zero })
}

impl Lane {
    /// Up to a keyframe that nothing behind it is shown before.
    fn opening_rows(&self) -> usize {
        let mut least = i64::MAX;
        let mut count = self.rows.len();
        for (at, row) in self.rows.iter().enumerate().skip(1).rev() {
            least = least.min(row.pts);
            if row.key && row.pts <= least {
                count = at;
            }
        }
        count
    }
}

impl Plan {
    /// The pictures up to the second keyframe; `None` where the first one is shown as a whole, or where nothing but
    /// sound is left.
    pub fn opening(&self) -> Option<Opening> {
        let lane = self.lanes.first().filter(|lane| lane.track.medium == Medium::Video)?;
        if lane.rows.first()?.pts >= self.shown {
            return None;
        }
        let count = lane.opening_rows();
        let pictures: Vec<_> = self
            .pieces
            .iter()
            .filter(|piece| piece.lane == 0)
            .zip(&lane.rows[..count])
            .map(|(piece, row)| Picture { piece: *piece, dts: row.dts, pts: row.pts })
            .collect();
        // Shown is what begins last before the wanted time, and all that follows.
        let from = pictures.iter().map(|picture| picture.pts).filter(|pts| *pts <= self.shown).max()?;
        Some(Opening { track: lane.track.clone(), pictures, from })
    }

    /// Puts pictures that were encoded anew, and lie one after the other in the part `part`, into the place of the
    /// opening. `entry` is their sample entry.
    pub fn replace_opening(&mut self, part: usize, entry: Vec<u8>, encoded: &[Encoded]) {
        let Some(lane) = self.lanes.first_mut() else { return };
        let count = lane.opening_rows();
        // Decoding times go on as those of the pictures behind, which may be decoded before they are shown.
        let next = lane.rows.get(count).copied();
        let ahead = next.map_or(0, |row| row.pts - row.dts);
        let end = next.map_or_else(
            || lane.rows.iter().map(|row| row.pts + i64::from(row.lasts)).max().unwrap_or_default(),
            |row| row.pts,
        );
        let ends = encoded.iter().skip(1).map(|picture| picture.pts).chain([end]);
        let rows: Vec<_> = encoded
            .iter()
            .zip(ends)
            .map(|(picture, end)| Row {
                dts: picture.pts - ahead,
                pts: picture.pts,
                lasts: (end - picture.pts).clamp(0, 1 << 31) as u32,
                size: picture.size,
                key: picture.key,
            })
            .collect();
        let mut at = 0;
        let mut pieces: Vec<_> = rows
            .iter()
            .map(|row| {
                let piece = Piece { part, at, size: row.size, lane: 0 };
                at += u64::from(row.size);
                piece
            })
            .collect();
        lane.anew = Some((rows.len(), entry));
        lane.rows.splice(..count, rows);
        let mut old = count;
        pieces.extend(self.pieces.iter().filter(|piece| {
            let replaced = piece.lane == 0 && old > 0;
            old -= usize::from(replaced);
            !replaced
        }));
        self.pieces = pieces;
    }

    /// What stands in front of the pieces.
    pub fn header(&self, chapters: &[Chapter]) -> Vec<u8> {
        // The second time with the places that the first one found.
        let length = self.movie(0, chapters).len() as u64;
        let mut out = self.movie(length + 16, chapters);
        let data: u64 = self.pieces.iter().map(|piece| u64::from(piece.size)).sum();
        put32(&mut out, 1);
        out.extend(b"mdat");
        put64(&mut out, data + 16);
        out
    }

    /// Writes the file: `header`, as [`header`](Self::header) gave it, and the pieces out of `files`, which are the
    /// parts in their order. `told` hears of the bytes of each piece.
    ///
    /// # Errors
    /// A part cannot be read to its end, or `out` takes nothing.
    pub fn write<F: Read + Seek>(
        &self,
        header: &[u8],
        files: &mut [F],
        out: &mut impl Write,
        mut told: impl FnMut(u64),
    ) -> io::Result<()> {
        out.write_all(header)?;
        let mut buffer = Vec::new();
        for piece in &self.pieces {
            let Some(file) = files.get_mut(piece.part) else { continue };
            buffer.resize(piece.size as usize, 0);
            file.seek(SeekFrom::Start(piece.at))?;
            file.read_exact(&mut buffer)?;
            out.write_all(&buffer)?;
            told(u64::from(piece.size));
        }
        Ok(())
    }

    fn movie(&self, data: u64, chapters: &[Chapter]) -> Vec<u8> {
        let milliseconds = ((self.to_us - self.from_us).max(0) / 1000) as u64;
        let mut out = Vec::new();
        put_box(&mut out, b"ftyp", |out| {
            out.extend(b"isom");
            put32(out, 512);
            out.extend(b"isomiso2mp41");
        });
        put_box(&mut out, b"moov", |out| {
            mp4::movie(out, 0, milliseconds, self.lanes.len());
            for (number, lane) in self.lanes.iter().enumerate() {
                self.track(out, number, lane, data, milliseconds);
            }
            if !chapters.is_empty() {
                put_box(out, b"udta", |out| self.chapters(out, chapters));
            }
        });
        out
    }

    fn chapters(&self, out: &mut Vec<u8>, chapters: &[Chapter]) {
        put_box(out, b"chpl", |out| {
            put32(out, 0x0100_0000);
            put32(out, 0);
            let chapters = &chapters[..chapters.len().min(CHAPTERS)];
            out.push(chapters.len() as u8);
            for chapter in chapters {
                put64(out, (chapter.at_us - self.from_us).max(0) as u64 * 10);
                let name: String = chapter.name.chars().take(60).collect();
                out.push(name.len() as u8);
                out.extend(name.as_bytes());
            }
        });
    }

    fn track(&self, out: &mut Vec<u8>, number: usize, lane: &Lane, data: u64, milliseconds: u64) {
        let Some(first) = lane.rows.first() else { return };
        let scale = lane.track.timescale;
        let begin = scaled(self.shown, self.video_scale(), scale);
        // The table counts from the track's first decoding time; the picture may begin within, sound after it.
        let (lead, skip) = ((first.pts - begin).max(0), (begin - first.dts).max(first.pts - first.dts));
        let lead_ms = (scaled(lead, scale, 1000) as u64).min(milliseconds);
        put_box(out, b"trak", |out| {
            mp4::track_header(out, &lane.track, 0, milliseconds);
            put_box(out, b"edts", |out| {
                put_full(out, b"elst", 1, 0, |out| {
                    put32(out, 1 + u32::from(lead_ms > 0));
                    if lead_ms > 0 {
                        put64(out, lead_ms);
                        put64(out, u64::MAX);
                        put32(out, 0x10000);
                    }
                    put64(out, milliseconds - lead_ms);
                    put64(out, skip as u64);
                    put32(out, 0x10000);
                });
            });
            let durations: Vec<u32> = durations(&lane.rows);
            let total = durations.iter().map(|duration| u64::from(*duration)).sum();
            let anew = lane.anew.iter().map(|(_, entry)| entry.as_slice());
            let entries: Vec<_> = anew.chain([lane.track.entry.as_slice()]).collect();
            mp4::media(out, &lane.track, &entries, 0, total, |out| {
                put_full(out, b"stts", 0, 0, |out| counted(out, durations.iter().copied()));
                let offsets = lane.rows.iter().map(|row| (row.pts - row.dts) as i32 as u32);
                put_full(out, b"ctts", 1, 0, |out| counted(out, offsets));
                if lane.track.medium == Medium::Video {
                    put_full(out, b"stss", 0, 0, |out| {
                        let keys: Vec<_> = (1..).zip(&lane.rows).filter(|(_, row)| row.key).collect();
                        put32(out, keys.len() as u32);
                        for (at, _) in keys {
                            put32(out, at);
                        }
                    });
                }
                put_full(out, b"stsz", 0, 0, |out| {
                    put32(out, 0);
                    put32(out, lane.rows.len() as u32);
                    for row in &lane.rows {
                        put32(out, row.size);
                    }
                });
                self.chunks(out, number, lane.anew.as_ref().map(|(count, _)| *count), data);
            });
        });
    }

    fn video_scale(&self) -> u32 {
        self.lanes.first().map_or(1, |lane| lane.track.timescale)
    }

    /// Neighbouring samples of a track are a chunk, if they have the same sample entry: the second one from the row
    /// `anew` on.
    fn chunks(&self, out: &mut Vec<u8>, number: usize, anew: Option<usize>, data: u64) {
        let (mut chunks, mut at, mut before) = (Vec::<(u64, u32, u32)>::new(), data, None);
        let mut row = 0;
        for piece in &self.pieces {
            if piece.lane == number {
                let entry = 1 + u32::from(anew.is_some_and(|anew| row >= anew));
                row += 1;
                match chunks.last_mut() {
                    Some((_, count, same)) if before == Some(number) && *same == entry => *count += 1,
                    _ => chunks.push((at, 1, entry)),
                }
            }
            before = Some(piece.lane);
            at += u64::from(piece.size);
        }
        put_full(out, b"stsc", 0, 0, |out| {
            let mut runs: Vec<(u32, u32, u32)> = Vec::new();
            for (at, (_, count, entry)) in (1..).zip(&chunks) {
                if runs.last().is_none_or(|(_, last, same)| (last, same) != (count, entry)) {
                    runs.push((at, *count, *entry));
                }
            }
            put32(out, runs.len() as u32);
            for (at, count, entry) in runs {
                put32(out, at);
                put32(out, count);
                put32(out, entry);
            }
        });
        put_full(out, b"co64", 0, 0, |out| {
            put32(out, chunks.len() as u32);
            for (at, ..) in chunks {
                put64(out, at);
            }
        });
    }
}

/// How long each sample lasts: up to the next one.
fn durations(rows: &[Row]) -> Vec<u32> {
    let next = rows.iter().skip(1).map(Some).chain([None]);
    rows.iter()
        .zip(next)
        .map(|(row, next)| {
            next.map_or(i64::from(row.lasts), |next| next.dts - row.dts).clamp(0, 1 << 31) as u32
        })
        .collect()
}

/// Runs of equal values, as several tables want them.
fn counted(out: &mut Vec<u8>, values: impl Iterator<Item = u32>) {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((count, last)) if *last == value => *count += 1,
            _ => runs.push((1, value)),
        }
    }
    put32(out, runs.len() as u32);
    for (count, value) in runs {
        put32(out, count);
        put32(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::read::Placed;

    const FRAME: i64 = 3600;

    /// Twelve pictures of 40 ms; what is shown as which picture, and a keyframe every fourth.
    fn contents(shown: impl Fn(i64) -> i64) -> Contents {
        let entry = mp4::video_entry(b"avc1", b"avcC", &[1, 2, 3], 640, 360);
        let track = Track { id: 1, medium: Medium::Video, timescale: 90_000, width: 640, height: 360, entry };
        let sample = |n: i64| Placed {
            track: 1,
            at: 1000 + n as u64 * 10,
            size: 10,
            time: (n * FRAME) as u64,
            duration: FRAME as u32,
            offset: ((shown(n) - n) * FRAME) as i32,
            key: n % 4 == 0,
        };
        Contents { tracks: vec![track], samples: (0..12).map(sample).collect(), whole: 1120, size: 1120 }
    }

    fn plan_of(contents: &Contents, from_us: i64, to_us: i64) -> Plan {
        plan(&[Part { start_us: 0, contents }], from_us, to_us).unwrap()
    }

    #[test]
    fn what_is_not_shown_can_be_replaced() {
        let contents = contents(|n| n);
        // From the middle of the sixth picture to the end of the tenth.
        let mut plan = plan_of(&contents, 220_000, 400_000);
        let opening = plan.opening().unwrap();
        let times: Vec<_> = opening.pictures.iter().map(|p| (p.piece.at, p.pts / FRAME)).collect();
        assert_eq!(times, [(1040, 0), (1050, 1), (1060, 2), (1070, 3)]);
        assert_eq!(opening.from, FRAME);
        let anew = [1, 2, 3].map(|n| Encoded { pts: n * FRAME, size: n as u32, key: n == 1 });
        plan.replace_opening(1, vec![0; 8], &anew);
        let pieces: Vec<_> = plan.pieces.iter().map(|p| (p.part, p.at, p.size)).collect();
        assert_eq!(pieces, [(1, 0, 1), (1, 1, 2), (1, 3, 3), (0, 1080, 10), (0, 1090, 10)]);
        assert_eq!((plan.from_us, plan.to_us), (220_000, 400_000));
        let durations = durations(&plan.lanes[0].rows);
        assert_eq!(durations, [FRAME as u32; 5]);
        let header = plan.header(&[]);
        // Two sample entries, and a chunk for each.
        let at = header.windows(4).position(|kind| kind == b"stsd").unwrap();
        assert_eq!(header[at + 11], 2);
        let at = header.windows(4).position(|kind| kind == b"stsc").unwrap() + 8;
        let numbers: Vec<_> = header[at..at + 28].chunks_exact(4).map(|n| n[3]).collect();
        assert_eq!(numbers, [2, 1, 3, 1, 2, 2, 2]);
    }

    #[test]
    fn what_is_shown_as_a_whole_stays() {
        let contents = contents(|n| n);
        assert!(plan_of(&contents, 160_000, 400_000).opening().is_none());
        assert!(plan_of(&contents, -1_000_000, 400_000).opening().is_none());
    }

    /// Pictures that are shown before the keyframe that they follow need what was before it.
    #[test]
    fn an_opening_ends_where_nothing_behind_needs_it() {
        let leading = contents(|n| match n {
            4 => 6,
            5 | 6 => n - 1,
            _ => n,
        });
        let opening = plan_of(&leading, 60_000, 480_000).opening().unwrap();
        assert_eq!(opening.pictures.len(), 8);
        let mut plan = plan_of(&leading, 330_000, 350_000);
        let opening = plan.opening().unwrap();
        assert_eq!((opening.pictures.len(), opening.from), (1, 0));
        plan.replace_opening(1, vec![0; 8], &[Encoded { pts: 0, size: 7, key: true }]);
        assert_eq!(plan.pieces.len(), 1);
        assert_eq!(durations(&plan.lanes[0].rows), [FRAME as u32]);
    }
}
