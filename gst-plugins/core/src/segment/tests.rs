use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;

use super::mp4::{self, Medium, Run, Sample, Track};
use super::prebuffer::PreBuffer;
use super::{name, read};

fn tracks() -> Vec<Track> {
    let entry = mp4::video_entry(b"avc1", b"avcC", &[1, 2, 3], 640, 360);
    let video = Track { id: 1, medium: Medium::Video, timescale: 90_000, width: 640, height: 360, entry };
    let entry = mp4::aac_entry(&[0x12, 0x10], 2, 44_100);
    let audio = Track { id: 2, medium: Medium::Audio, timescale: 44_100, width: 0, height: 0, entry };
    vec![video, audio]
}

/// A file with fragments of one keyframe, one other picture and one audio frame, and where each fragment ends.
fn file(fragments: u32) -> (Vec<u8>, Vec<usize>) {
    let mut out = mp4::header(&tracks(), 1_700_000_000_000_000);
    let mut ends = vec![out.len()];
    for number in 0..fragments {
        let pictures = [
            Sample { size: 10, duration: 3600, offset: 7200, key: true },
            Sample { size: 5, duration: 3600, offset: -3600, key: false },
        ];
        let sound = [Sample { size: 3, duration: 1024, offset: 0, key: true }];
        mp4::fragment(
            &mut out,
            number + 1,
            &[
                Run { track: 1, start: u64::from(number) * 7200, samples: &pictures },
                Run { track: 2, start: u64::from(number) * 1024, samples: &sound },
            ],
        );
        out.extend([number as u8; 18]);
        ends.push(out.len());
    }
    (out, ends)
}

#[test]
fn what_is_written_is_read() {
    let (bytes, _) = file(3);
    let found = read::contents(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!(found.tracks, tracks());
    assert_eq!((found.whole, found.size), (bytes.len() as u64, bytes.len() as u64));
    assert_eq!((found.frames(), found.samples.len()), (6, 9));
    let [key, other, sound] = found.samples[3..6] else { panic!() };
    assert_eq!((key.time, key.offset, key.key, key.size), (7200, 7200, true, 10));
    assert_eq!((other.time, other.offset, other.key, other.at), (10_800, -3600, false, key.at + 10));
    assert_eq!((sound.track, sound.at, sound.size), (2, key.at + 15, 3));
    assert_eq!(bytes[key.at as usize], 1);
    // From the earliest picture at 0 to the end of the last keyframe at 2 * 7200 + 7200 + 3600.
    assert_eq!(found.duration_us(), 280_000);
}

/// A power cut may leave the file at any length.
#[test]
fn a_file_that_is_cut_anywhere_is_whole_up_to_its_last_fragment() {
    let (bytes, ends) = file(3);
    for length in 0..=bytes.len() {
        let found = read::contents(&mut Cursor::new(&bytes[..length])).unwrap();
        let whole = ends.iter().copied().filter(|end| *end <= length).max().unwrap_or(0);
        assert_eq!(found.whole, whole as u64, "cut at {length}");
        let fragments = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
        assert_eq!(found.frames(), fragments as u64 * 2, "cut at {length}");
    }
}

/// What stands behind damage is found, wherever it lies, and what only looks like it is not.
#[test]
fn a_fragment_behind_damage_is_found() {
    let (bytes, ends) = file(3);
    let goes_on = |bytes: &[u8], at: usize| read::goes_on(&mut Cursor::new(bytes), at as u64).unwrap();
    assert!(goes_on(&bytes, ends[2]) && !goes_on(&bytes, ends[3]));
    // The second fragment is damaged, the third one whole.
    let mut damaged = bytes.clone();
    damaged[ends[1] + 4..ends[1] + 8].fill(0);
    let found = read::contents(&mut Cursor::new(&damaged)).unwrap();
    assert_eq!(found.whole, ends[1] as u64);
    assert!(goes_on(&damaged, ends[1]));
    // A fragment that is torn is none, and a name alone is not one either.
    assert!(!goes_on(&damaged[..bytes.len() - 1], ends[1]));
    assert!(!goes_on(b"moof\0\0\0\x08moof\0\0\0\x08mdat", 0));
    // Behind a long hole, also across the border of what is read at a time.
    for gap in [300_000, (256 << 10) - 5, (256 << 10) - 7, 1 << 20] {
        let mut holed = bytes[..ends[1]].to_vec();
        holed.resize(ends[1] + gap, 0);
        assert!(!goes_on(&holed, ends[1]));
        holed.extend(&bytes[ends[2]..]);
        assert!(goes_on(&holed, ends[1]), "{gap}");
    }
}

#[test]
fn only_paths_of_segments_are_taken_for_such() {
    let good = name::path(7, 1_763_709_138_123_456, 2);
    assert_eq!(name::source_id(&good), Some(7));
    let file = good.file_name().unwrap().to_str().unwrap();
    for path in [
        good.join("x"),
        Path::new("/").join(&good),
        Path::new("..").join(&good),
        Path::new("a").join(&good),
        format!("7/../07/{file}").into(),
        format!("7/{file}").into(),
        format!("07/2025-11-21/07/{file}").into(),
        format!("4294967296/2025-11-21/07/{file}").into(),
        "7/2025-11-21/07/passwd".into(),
        "".into(),
    ] {
        assert_eq!(name::source_id(&path), None, "{}", path.display());
    }
}

#[test]
fn names_are_utc_and_read_back() {
    let us = 1_763_709_138_123_456;
    let path = name::path(2, us, 0);
    assert_eq!(path, Path::new("2/2025-11-21/07/2025-11-21T07-12-18.123Z.mp4"));
    assert_eq!((name::day(us).as_str(), name::hour(us).as_str()), ("2025-11-21", "07"));
    for again in [0, 1, 12] {
        let path = name::path(2, us, again);
        let file = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name::start_us(file), Some(us / 1000 * 1000), "{file}");
    }
    for other in [
        "",
        ".mp4",
        "holiday.mp4",
        "2025-11-21T07-12-18.123Z.mkv",
        "2025-11-21T07-12-18.123Z-.mp4",
        "2025-11-21T07-12-18.123Z-x.mp4",
        "2025-13-21T07-12-18.123Z.mp4",
    ] {
        assert_eq!(name::start_us(other), None, "{other:?}");
    }
}

#[test]
fn the_prebuffer_begins_with_a_keyframe_that_covers_its_span() {
    let mut kept = PreBuffer::default();
    assert_eq!(kept.push(99, 0, 10, false, 3, 1000), 1, "nothing to begin with");
    for time in 0..20 {
        kept.push(time, time, 10, time % 5 == 0, 3, 1000);
    }
    // 3 before 19 is 16, and the keyframe before that is 15.
    assert_eq!(kept.drain().collect::<Vec<_>>(), [15, 16, 17, 18, 19]);
    assert!(kept.is_empty() && kept.bytes() == 0);
}

#[test]
fn the_prebuffer_is_trimmed_to_where_something_begins() {
    for (from, first) in [(-1, 0), (0, 0), (4, 0), (5, 5), (11, 10), (99, 15)] {
        let mut kept = PreBuffer::default();
        for time in 0..20 {
            kept.push(time, time, 10, time % 5 == 0, 100, 1000);
        }
        kept.trim(from);
        assert_eq!(kept.drain().next(), Some(first), "from {from}");
    }
}

proptest! {
    #[test]
    fn the_prebuffer_keeps_its_limit(units in proptest::collection::vec((1_usize..200, any::<bool>()), 0..200)) {
        let mut kept = PreBuffer::default();
        let (mut pushed, mut forgotten) = (0, 0);
        for (at, (bytes, key)) in units.into_iter().enumerate() {
            pushed += 1;
            forgotten += kept.push((at, key), at as i64, bytes, key, 20, 500);
            prop_assert!(kept.bytes() <= 500);
        }
        let left: Vec<_> = kept.drain().collect();
        prop_assert_eq!(left.len() + forgotten, pushed);
        prop_assert!(left.first().is_none_or(|(_, key)| *key));
        prop_assert!(left.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn hostile_files_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let found = read::contents(&mut Cursor::new(&bytes)).unwrap();
        prop_assert!(found.whole <= bytes.len() as u64);
    }

    #[test]
    fn damaged_files_are_read_without_harm(at in 0_usize..2000, value in any::<u8>()) {
        let (mut bytes, _) = file(2);
        let at = at % bytes.len();
        bytes[at] = value;
        let found = read::contents(&mut Cursor::new(&bytes)).unwrap();
        let length = bytes.len() as u64;
        prop_assert!(found.whole <= length);
        prop_assert!(found.samples.iter().all(|s| s.at + u64::from(s.size) <= length));
        let _ = (found.duration_us(), found.frames());
    }
}
