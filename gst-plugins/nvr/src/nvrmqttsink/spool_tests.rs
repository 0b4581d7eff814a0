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
    assert_eq!(read_all(&mut spool), [4, 5, 6, 7, 8, 9, 10], "what was confirmed out of turn comes again");
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
fn segments_that_are_deleted_by_hand_cost_what_was_in_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), 64 << 10).unwrap();
    for i in 0..20 {
        append(&mut spool, i, 1000);
    }
    assert!(segments(directory.path()).len() > 2);
    // In the middle.
    fs::remove_file(&segments(directory.path())[1]).unwrap();
    let left = read_all(&mut spool);
    assert!(left.len() < 20 && left.first() == Some(&0) && left.last() == Some(&19), "{left:?}");
    assert_eq!(spool.dropped(), 20 - left.len() as u64);

    // All of them, the one that is written to included; noticed when it is read, and before that when it is written.
    for synced in [false, true] {
        let (before, lost) = (spool.len(), spool.dropped());
        segments(directory.path()).into_iter().for_each(|path| fs::remove_file(path).unwrap());
        spool.rewind();
        if synced {
            append(&mut spool, 20, 0);
            spool.sync().unwrap();
            append(&mut spool, 21, 0);
            assert_eq!(read_all(&mut spool), [21]);
            assert_eq!(spool.dropped() - lost, before + 1);
        } else {
            assert_eq!(read_all(&mut spool), [0; 0]);
            assert_eq!(spool.dropped() - lost, before);
            append(&mut spool, 22, 0);
            assert_eq!(read_all(&mut spool), [22]);
        }
        assert!(!spool.has_unread());
    }
}

#[test]
fn a_segment_that_cannot_be_read_is_given_up_after_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), 64 << 10).unwrap();
    for i in 0..20 {
        append(&mut spool, i, 1000);
    }
    // A directory can be opened, and not be read.
    let first = segments(directory.path()).remove(0);
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    for _ in 0..3 {
        spool.read().unwrap_err();
    }
    assert_eq!((spool.dropped(), spool.has_unread()), (0, true), "it may be a trouble of the moment");
    let (number, since) = spool.unreadable.unwrap();
    spool.unreadable = since.checked_sub(UNREADABLE_FOR).map(|since| (number, since));
    spool.read().unwrap_err();
    let left = read_all(&mut spool);
    assert_eq!(left.last(), Some(&19));
    assert_eq!(spool.dropped(), 20 - left.len() as u64);
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
