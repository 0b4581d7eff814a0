//! Writes ISO base media (ISO/IEC 14496-12) headers and fragments. Sample entries follow 14496-15 for H.264 and
//! H.265, 14496-14 for AAC and the Opus mapping; codec configurations are taken as the stream gives them.
#![allow(clippy::trivially_copy_pass_by_ref, reason = "names of boxes are byte string literals")]

/// Ticks per second of video tracks.
pub const VIDEO_TIMESCALE: u32 = 90_000;
/// How every segment begins: its `ftyp` box.
pub const BRAND: &[u8; 28] = b"\0\0\0\x1cftypiso5\0\0\x02\0iso5iso6mp41";
/// Seconds from 1904, where MP4 begins to count, to 1970.
const EPOCH: u64 = 2_082_844_800;
const IDENTITY: [u32; 9] = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Medium {
    Video,
    Audio,
}

/// One track of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Track {
    pub id: u32,
    pub medium: Medium,
    /// Ticks per second of its times.
    pub timescale: u32,
    /// Of the picture; 0 for audio.
    pub width: u16,
    pub height: u16,
    /// The sample entry, a whole box.
    pub entry: Vec<u8>,
}

/// One access unit or audio frame as a fragment's table describes it, in ticks of its track.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sample {
    pub size: u32,
    pub duration: u32,
    /// Presentation time minus decoding time.
    pub offset: i32,
    pub key: bool,
}

/// The samples of one track in one fragment. Their bytes follow the fragment's header, run after run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub track: u32,
    /// Decoding time of the first sample.
    pub start: u64,
    pub samples: &'a [Sample],
}

pub(super) fn put_box(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    out.extend(kind);
    body(out);
    let size = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

pub(super) fn put_full(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    version: u8,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    put_box(out, kind, |out| {
        put32(out, u32::from(version) << 24 | flags);
        body(out);
    });
}

pub(super) fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes());
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

/// Sample entry of H.264 (`avc1`, `avc3` with `avcC`) or H.265 (`hvc1`, `hev1` with `hvcC`).
pub fn video_entry(
    format: &[u8; 4],
    config_box: &[u8; 4],
    config: &[u8],
    width: u16,
    height: u16,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(100 + config.len());
    put_box(&mut out, format, |out| {
        out.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend([0; 16]);
        put16(out, width);
        put16(out, height);
        put32(out, 0x0048_0000);
        put32(out, 0x0048_0000);
        put32(out, 0);
        put16(out, 1);
        out.extend([0; 32]);
        put16(out, 24);
        out.extend([0xff, 0xff]);
        put_box(out, config_box, |out| out.extend(config));
    });
    out
}

/// The codec's configuration (`avcC`, `hvcC`) in the sample entry of a video track.
pub fn configuration(entry: &[u8]) -> Option<&[u8]> {
    // What stands before the boxes within is of one size.
    let mut rest = entry.get(86..)?;
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let (kind, body) = (rest.get(4..8)?, rest.get(8..length)?);
        if kind == b"avcC" || kind == b"hvcC" {
            return Some(body);
        }
        rest = rest.get(length..)?;
    }
}

fn audio_entry(format: &[u8; 4], channels: u16, rate: u32, config: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(100);
    put_box(&mut out, format, |out| {
        out.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend([0; 8]);
        put16(out, channels);
        put16(out, 16);
        put32(out, 0);
        put32(out, rate.min(0xffff) << 16);
        config(out);
    });
    out
}

/// Sample entry of AAC; `config` is the AudioSpecificConfig.
pub fn aac_entry(config: &[u8], channels: u16, rate: u32) -> Vec<u8> {
    let config = &config[..config.len().min(64)];
    audio_entry(b"mp4a", channels, rate, |out| {
        put_full(out, b"esds", 0, 0, |out| {
            let inner = config.len() as u8;
            out.extend([0x03, 3 + 2 + 13 + 2 + inner + 3, 0, 0, 0]);
            out.extend([0x04, 13 + 2 + inner, 0x40, 0x15, 0, 0, 0]);
            out.extend([0; 8]);
            out.extend([0x05, inner]);
            out.extend(config);
            out.extend([0x06, 1, 0x02]);
        });
    })
}

/// Sample entry of Opus with one or two channels.
pub fn opus_entry(channels: u8, pre_skip: u16, input_rate: u32) -> Vec<u8> {
    audio_entry(b"Opus", u16::from(channels), 48_000, |out| {
        put_box(out, b"dOps", |out| {
            out.extend([0, channels]);
            put16(out, pre_skip);
            put32(out, input_rate);
            out.extend([0, 0, 0]);
        });
    })
}

/// What stands in front of a file's fragments. `created_us`: when it begins, in microseconds since 1970.
pub fn header(tracks: &[Track], created_us: i64) -> Vec<u8> {
    let created = (created_us.max(0) / 1_000_000) as u64 + EPOCH;
    let mut out = Vec::with_capacity(1500);
    out.extend(BRAND);
    put_box(&mut out, b"moov", |out| {
        movie(out, created, 0, tracks.len());
        for track in tracks {
            put_box(out, b"trak", |out| {
                track_header(out, track, created, 0);
                media(out, track, &[&track.entry], created, 0, |out| {
                    put_full(out, b"stts", 0, 0, |out| put32(out, 0));
                    put_full(out, b"stsc", 0, 0, |out| put32(out, 0));
                    put_full(out, b"stsz", 0, 0, |out| put64(out, 0));
                    put_full(out, b"stco", 0, 0, |out| put32(out, 0));
                });
            });
        }
        put_box(out, b"mvex", |out| {
            for track in tracks {
                put_full(out, b"trex", 0, 0, |out| {
                    for value in [track.id, 1, 0, 0, 0] {
                        put32(out, value);
                    }
                });
            }
        });
    });
    out
}

/// Milliseconds are the movie's own unit.
pub(super) fn movie(out: &mut Vec<u8>, created: u64, duration_ms: u64, tracks: usize) {
    put_full(out, b"mvhd", 1, 0, |out| {
        put64(out, created);
        put64(out, created);
        put32(out, 1000);
        put64(out, duration_ms);
        put32(out, 0x10000);
        put16(out, 0x100);
        out.extend([0; 10]);
        for value in IDENTITY {
            put32(out, value);
        }
        out.extend([0; 24]);
        put32(out, tracks as u32 + 1);
    });
}

pub(super) fn track_header(out: &mut Vec<u8>, track: &Track, created: u64, duration_ms: u64) {
    put_full(out, b"tkhd", 1, 3, |out| {
        put64(out, created);
        put64(out, created);
        put32(out, track.id);
        put32(out, 0);
        put64(out, duration_ms);
        out.extend([0; 12]);
        put16(out, if track.medium == Medium::Audio { 0x100 } else { 0 });
        put16(out, 0);
        for value in IDENTITY {
            put32(out, value);
        }
        put32(out, u32::from(track.width) << 16);
        put32(out, u32::from(track.height) << 16);
    });
}

pub(super) fn media(
    out: &mut Vec<u8>,
    track: &Track,
    entries: &[&[u8]],
    created: u64,
    duration: u64,
    tables: impl FnOnce(&mut Vec<u8>),
) {
    put_box(out, b"mdia", |out| {
        put_full(out, b"mdhd", 1, 0, |out| {
            put64(out, created);
            put64(out, created);
            put32(out, track.timescale);
            put64(out, duration);
            put16(out, 0x55c4); // "und"
            put16(out, 0);
        });
        put_full(out, b"hdlr", 0, 0, |out| {
            put32(out, 0);
            out.extend(if track.medium == Medium::Video { b"vide" } else { b"soun" });
            out.extend([0; 12]);
            out.extend(b"camera\0");
        });
        put_box(out, b"minf", |out| {
            match track.medium {
                Medium::Video => put_full(out, b"vmhd", 0, 1, |out| out.extend([0; 8])),
                Medium::Audio => put_full(out, b"smhd", 0, 0, |out| out.extend([0; 4])),
            }
            put_box(out, b"dinf", |out| {
                put_full(out, b"dref", 0, 0, |out| {
                    put32(out, 1);
                    put_full(out, b"url ", 0, 1, |_| {});
                });
            });
            put_box(out, b"stbl", |out| {
                put_full(out, b"stsd", 0, 0, |out| {
                    put32(out, entries.len() as u32);
                    for entry in entries {
                        out.extend(*entry);
                    }
                });
                tables(out);
            });
        });
    });
}

/// Appends the header of a fragment; the bytes of all samples, run after run, have to follow.
pub fn fragment(out: &mut Vec<u8>, sequence: u32, runs: &[Run<'_>]) {
    let from = out.len();
    let mut offsets = Vec::with_capacity(runs.len());
    put_box(out, b"moof", |out| {
        put_full(out, b"mfhd", 0, 0, |out| put32(out, sequence));
        for run in runs {
            put_box(out, b"traf", |out| {
                // default-base-is-moof
                put_full(out, b"tfhd", 0, 0x02_0000, |out| put32(out, run.track));
                put_full(out, b"tfdt", 1, 0, |out| put64(out, run.start));
                // data offset; per sample duration, size, flags and composition offset
                put_full(out, b"trun", 1, 0xf01, |out| {
                    put32(out, run.samples.len() as u32);
                    offsets.push(out.len());
                    put32(out, 0);
                    for sample in run.samples {
                        put32(out, sample.duration);
                        put32(out, sample.size);
                        // sample_depends_on 2: on none; else 1, and not a sync sample
                        put32(out, if sample.key { 0x0200_0000 } else { 0x0101_0000 });
                        out.extend(sample.offset.to_be_bytes());
                    }
                });
            });
        }
    });
    let mut at = out.len() - from + 8;
    for (place, run) in offsets.into_iter().zip(runs) {
        out[place..place + 4].copy_from_slice(&(at as u32).to_be_bytes());
        at += run.samples.iter().map(|sample| sample.size as usize).sum::<usize>();
    }
    let data = at - (out.len() - from + 8);
    put32(out, data as u32 + 8);
    out.extend(b"mdat");
}
