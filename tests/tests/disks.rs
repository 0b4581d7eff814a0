//! nvrrecordsink on disks that fill up, run out of inodes, cannot be written, do not answer, or vanish. They are small
//! images, mounted where the test may (as root); elsewhere they say that they are skipped.

use std::fs;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstnvr::nvrrecordsink::volume::IDENTITY;
use nvr_tests::disk::{Disk, Frozen};
use nvr_tests::recorder::{Recorder, TIMEOUT, agrees_with_files, catalogue, played, segments};

/// A recorder on a disk, and beside it a branch that must not notice anything.
fn on_disk(disk: &Disk, properties: &str) -> Recorder {
    Recorder::start(&format!(
        "videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=240,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12 bitrate=4000 ! h264parse ! tee name=t \
         t. ! queue ! h264parse ! nvrrecordsink name=rec segment-duration=1 min-free=0 {properties} location={} \
         t. ! queue ! identity name=other ! fakesink async=false",
        disk.root().display()
    ))
}

/// Frames that the other branch has had; they keep coming.
fn other_goes_on(recorder: &Recorder) {
    let other = recorder.pipeline.by_name("other").unwrap();
    let count = || other.property::<gst::Structure>("stats").get::<u64>("num-buffers").unwrap();
    let (before, deadline) = (count(), Instant::now() + TIMEOUT);
    while count() < before + 25 {
        assert!(Instant::now() < deadline, "the other branch stands still");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The disk does not answer until what this gives is dropped; `None` on machines that have no such thing.
fn frozen(disk: &Disk) -> Option<Frozen<'_>> {
    disk.freeze()
        .map_err(|error| nvr_tests::skipped(&format!("a file system that can be frozen: {error}")))
        .ok()
}

#[test]
fn a_full_disk_loses_the_oldest_and_recording_goes_on() {
    let Some(disk) = Disk::new(8, &[]) else { return };
    fs::write(disk.root().join("theirs.txt"), "keep").unwrap();
    let recorder = on_disk(&disk, "");
    let first = disk.root().join(recorder.segment().get::<&str>("path").unwrap());
    recorder.state("failing");
    other_goes_on(&recorder);
    recorder.state("recording");
    let errors = recorder.stat("errors");
    recorder.segment();
    assert!(errors > 0 && !first.exists());
    assert_eq!((recorder.stat("dropped"), recorder.stat("lost")), (0, 0));
    recorder.end();
    assert_eq!(fs::read_to_string(disk.root().join("theirs.txt")).unwrap(), "keep");
    let rows = agrees_with_files(&disk.root());
    for row in &rows {
        played(&row.file());
    }
    // What could not be written waited: of all that is left, one segment ends where the next one begins.
    for pair in rows.windows(2) {
        let pause = pair[1].start_us - pair[0].end_us.unwrap();
        assert!(pause.abs() < 100_000, "{pause} us between {pair:?}");
    }
}

#[test]
fn free_space_is_kept_before_the_disk_is_full() {
    let Some(disk) = Disk::new(24, &[]) else { return };
    let recorder = on_disk(&disk, "");
    recorder.sink.set_property("min-free", 12_u64 << 20);
    let first = disk.root().join(recorder.segment().get::<&str>("path").unwrap());
    while first.exists() {
        recorder.segment();
    }
    assert_eq!(recorder.stat("errors"), 0);
    recorder.end();
    agrees_with_files(&disk.root());
}

#[test]
fn a_read_only_disk_is_recorded_to_once_it_can_be_written() {
    let Some(disk) = Disk::new(24, &[]) else { return };
    disk.remount("ro").unwrap();
    let recorder = on_disk(&disk, "");
    recorder.state("failing");
    other_goes_on(&recorder);
    disk.remount("rw").unwrap();
    recorder.state("recording");
    let segment = recorder.segment();
    // What had waited in memory is there.
    assert!(segment.get::<u64>("frames").unwrap() >= 12, "{segment}");
    recorder.end();
    agrees_with_files(&disk.root());
}

#[test]
fn nothing_goes_under_the_mount_point_of_a_disk_that_vanished() {
    let Some(disk) = Disk::new(24, &[]) else { return };
    let recorder = on_disk(&disk, "");
    recorder.segment();
    disk.pull().unwrap();
    recorder.state("failing");
    other_goes_on(&recorder);
    assert_eq!(fs::read_dir(disk.root()).unwrap().count(), 0, "recorded under the mount point");
    disk.mount("rw").unwrap();
    assert!(disk.root().join(IDENTITY).exists());
    recorder.state("recording");
    recorder.segment();
    recorder.end();
    for file in segments(&disk.root()) {
        played(&file);
    }
}

/// As full as one can be with most of its bytes free.
#[test]
fn a_disk_without_inodes_loses_the_oldest_and_recording_goes_on() {
    let Some(disk) = Disk::new(64, &["-N", "32"]) else { return };
    // Somebody else's files have all but a few of them.
    let theirs: Vec<_> = (0..1000)
        .map(|number| disk.root().join(format!("theirs-{number}")))
        .take_while(|path| fs::File::create(path).is_ok())
        .collect();
    assert!((20..1000).contains(&theirs.len()), "{}", theirs.len());
    let (free, theirs) = theirs.split_at(16);
    for path in free {
        fs::remove_file(path).unwrap();
    }
    let recorder = on_disk(&disk, "");
    let first = disk.root().join(recorder.segment().get::<&str>("path").unwrap());
    recorder.state("failing");
    other_goes_on(&recorder);
    recorder.state("recording");
    recorder.segment();
    assert!(recorder.stat("errors") > 0 && !first.exists());
    recorder.end();
    for row in catalogue(&disk.root()) {
        assert!(row.end_us.is_some(), "{row:?}");
        played(&row.file());
    }
    assert!(theirs.iter().all(|path| path.exists()));
}

/// Writing and syncing hang, as on a disk that tries to read a bad sector, or a server that is being restarted.
#[test]
fn a_disk_that_does_not_answer_stops_nothing_and_is_recorded_to_afterwards() {
    let Some(disk) = Disk::new(64, &[]) else { return };
    let recorder = on_disk(&disk, "");
    recorder.segment();
    let Some(frozen) = frozen(&disk) else { return };
    let (received, written) = (recorder.stat("received"), recorder.stat("written"));
    other_goes_on(&recorder);
    other_goes_on(&recorder);
    assert!(recorder.stat("received") >= received + 25, "the recorder's own stream stands still");
    // What had been taken on before the disk stopped may still be counted.
    assert!(recorder.stat("written") <= written + 25, "the disk was not frozen");
    drop(frozen);
    recorder.segment();
    recorder.segment();
    assert_eq!((recorder.stat("dropped"), recorder.stat("lost"), recorder.stat("errors")), (0, 0, 0));
    recorder.end();
    let rows = agrees_with_files(&disk.root());
    // No picture is missing: one segment ends where the next one begins.
    for pair in rows.windows(2) {
        let pause = pair[1].start_us - pair[0].end_us.unwrap();
        assert!(pause.abs() < 500_000, "{pause} us between {pair:?}");
    }
}

/// Slow all the time: it answers for a moment, again and again.
#[test]
fn a_slow_disk_is_recorded_to_without_disturbing_others() {
    let Some(disk) = Disk::new(64, &[]) else { return };
    if frozen(&disk).is_none() {
        return;
    }
    let recorder = on_disk(&disk, "");
    for _ in 0..12 {
        let frozen = disk.freeze().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        drop(frozen);
        std::thread::sleep(Duration::from_millis(100));
    }
    other_goes_on(&recorder);
    recorder.segment();
    assert_eq!((recorder.stat("dropped"), recorder.stat("lost"), recorder.stat("errors")), (0, 0, 0));
    recorder.end();
    let rows = agrees_with_files(&disk.root());
    assert!(rows.iter().map(|row| row.frames).sum::<u64>() >= 100, "{rows:?}");
    for row in rows {
        played(&row.file());
    }
}

/// A pipeline can be taken down although the disk does not answer.
#[test]
fn stopping_waits_for_no_disk() {
    let Some(disk) = Disk::new(64, &[]) else { return };
    let recorder = on_disk(&disk, "");
    recorder.segment();
    let Some(frozen) = frozen(&disk) else { return };
    let began = Instant::now();
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(frozen);
    // What was under way comes to its end in the background.
    let deadline = Instant::now() + TIMEOUT;
    while catalogue(&disk.root()).iter().any(|row| row.end_us.is_none()) {
        assert!(Instant::now() < deadline, "{:?}", catalogue(&disk.root()));
        std::thread::sleep(Duration::from_millis(50));
    }
    agrees_with_files(&disk.root());
}

fn moved(recorder: &Recorder, count: u64) {
    let until = Instant::now() + TIMEOUT;
    while recorder.stat("moved") < count {
        assert!(Instant::now() < until, "{:?}", recorder.sink.property::<gst::Structure>("stats"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One that is there and takes nothing was back, in words, before each attempt, and missing again after it.
#[test]
fn a_tier_that_takes_nothing_is_missed_once_until_it_does() {
    let (Some(hot), Some(warm)) = (Disk::new(64, &[]), Disk::new(64, &[])) else { return };
    let tiers = format!("hot-max-age=3 warm-location={} warm-min-free=0", warm.root().display());
    let recorder = on_disk(&hot, &tiers);
    moved(&recorder, 1);
    warm.remount("ro").unwrap();
    recorder.tier("warm", "failing");
    let before = recorder.stat("move-errors");
    recorder.wait("three more attempts", |message| {
        let tier = message.structure().filter(|structure| structure.name() == "nvr-tier-state");
        assert!(tier.is_none(), "{tier:?}");
        recorder.stat("move-errors") >= before + 3
    });
    warm.remount("rw").unwrap();
    recorder.tier("warm", "ready");
    recorder.end();
}

/// A warm tier that is unmounted and comes back: recordings wait on the hot one, and none is lost or doubled.
#[test]
fn a_tier_that_vanishes_is_waited_for() {
    let (Some(hot), Some(warm)) = (Disk::new(64, &[]), Disk::new(64, &[])) else { return };
    let tiers = format!("hot-max-age=3 warm-location={} warm-min-free=0", warm.root().display());
    let recorder = on_disk(&hot, &tiers);
    moved(&recorder, 2);
    warm.pull().unwrap();
    recorder.tier("warm", "failing");
    let until = Instant::now() + TIMEOUT;
    let before = recorder.stat("moved");
    let waiting = |rows: &[gstnvr::nvrrecordsink::catalog::Recording]| {
        rows.iter().filter(|row| row.tier == "hot").count()
    };
    while waiting(&catalogue(&hot.root())) < 8 {
        assert!(Instant::now() < until, "{:?}", catalogue(&hot.root()));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(recorder.stat("moved") <= before + 16, "moved to nowhere");
    assert_eq!(fs::read_dir(warm.root()).unwrap().count(), 0, "something went under the mount point");
    other_goes_on(&recorder);
    let failing = recorder.sink.property::<gst::Structure>("stats").get::<String>("failing-tiers");
    assert_eq!(failing.as_deref(), Ok("warm"));
    warm.mount("rw").unwrap();
    recorder.tier("warm", "ready");
    moved(&recorder, before + 6);
    recorder.end();
    let rows = catalogue(&hot.root());
    let mut named: Vec<_> = rows.iter().map(gstnvr::nvrrecordsink::catalog::Recording::file).collect();
    named.sort();
    let mut files = [segments(&hot.root()), segments(&warm.root())].concat();
    files.sort();
    assert_eq!(named, files);
    for row in &rows {
        played(&row.file());
    }
}
