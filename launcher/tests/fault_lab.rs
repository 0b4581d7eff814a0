//! The fault lab as a command, and its documentation.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use nvr_launch::fault_lab::fault::KINDS;

fn lab(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvr-launch"));
    command.arg("fault-lab").args(args).env_remove("GST_DEBUG");
    command
}

#[test]
fn every_fault_is_explained() {
    let output = lab(&["--help"]).output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/fault-lab.md");
    let guide = std::fs::read_to_string(guide).unwrap().replace('\\', "");
    for kind in KINDS {
        assert!(help.contains(&kind.usage()), "{}: {help}", kind.name);
        assert!(guide.contains(&format!("`{}`", kind.usage())), "{} is missing in the guide", kind.usage());
    }
}

#[test]
fn lines_and_schedules_are_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = folder.path().join("night.txt");
    std::fs::write(&schedule, "10ms 1 stall 30s # asleep\n0-1 drop 5\n").unwrap();
    let schedule = schedule.to_str().unwrap();
    let mut child =
        lab(&["--cameras", "2", "--listen", "127.0.0.1:0", "--for", "1m", "--schedule", schedule])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("2 cameras at rtsp://127.0.0.1:") && line.ends_with("/0 to /1\n"), "{line}");
    let mut stdin = child.stdin.take().unwrap();
    // The schedule has been carried out before the last of these is answered: it is due first.
    let mut text = String::new();
    while !text.contains("stall 30s") {
        writeln!(stdin, "status").unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{text}");
        text += &line;
    }
    writeln!(stdin, "0 password hush-hush\n7 cut\n0 melt\n1 resize 64x64\nquit").unwrap();
    out.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    for part in [
        "camera 0: drop 5",
        "camera 1: drop 5",
        "camera 1: stall 30s",
        "camera 0: password ***",
        "7 cut: there is no such camera",
        "\"melt\" is no fault",
        "nobody watches it",
        "camera 1: 0 connections, 0 open",
        "the lab ends",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = folder.path().join("night.txt");
    std::fs::write(&schedule, "1s 0 stall\nsoon 0 stall\n").unwrap();
    for (args, part) in [
        (&["--schedule", schedule.to_str().unwrap()][..], "night.txt: line 2"),
        (&["--schedule", "/nowhere/night.txt"], "/nowhere/night.txt"),
        (&["--camera", "h266"], "h264|h265|mjpeg"),
        (&["--for", "soon"], "500ms, 30s, 10m or 2h"),
        (&["--cameras", "0"], "--cameras"),
    ] {
        let output = lab(args).stdin(Stdio::null()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    }
}
