//! The command itself: help, checks, exit codes, signals, logs.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use gstnvr::nvrrecordsink::{
    catalog::{Cause, Entry, FILE, Store},
    tiers::HOT,
    volume::Volume,
};
use nvr_core::segment::trigger::Reason;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn nvr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvr-launch"));
    command.args(args).env_remove("GST_DEBUG");
    for (name, _) in std::env::vars() {
        if name.starts_with("NVR_") {
            command.env_remove(name);
        }
    }
    command
}

fn output(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = nvr(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_shows_commands_graphs_and_exit_codes() {
    let (code, out, _) = output(&["--help"]);
    assert_eq!(code, 0);
    for part in ["models", "demo", "check", "Shipped graphs: processor", "130  stopped at once"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = output(&["processor", "--help"]);
    assert_eq!(code, 0);
    for part in [
        "--max-fps <NUMBER>",
        "[default: 5]",
        "[from 0 to 1000]",
        "[live]",
        "[env: NVR_MAX_FPS]",
        "--streams",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = output(&["list"]);
    assert!(code == 0 && out.starts_with("processor"), "{out}");
}

#[test]
fn the_shipped_graphs_and_samples_pass_the_check() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut samples: Vec<String> = fs::read_dir(config)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    assert!(!samples.is_empty());
    samples.push("processor".into());
    let args: Vec<&str> = ["check"].into_iter().chain(samples.iter().map(String::as_str)).collect();
    let (code, out, err) = output(&args);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = output(&["--check", "processor", "--streams", "0-3"]);
    assert!(code == 0 && out.contains("right, with 4 cameras"), "{out}{err}");
}

/// A folder with the catalogue of one recording, which was asked for, and whose file is missing.
fn recordings(folder: &Path) -> String {
    let volume = Volume::open(folder, None).unwrap();
    let entry = Entry {
        volume,
        source_id: 2,
        path: "2/2026-11-21/10/2026-11-21T10-00-00.000Z.mp4".into(),
        start_us: 1_795_255_200_000_000,
        end_us: Some(1_795_255_210_000_000),
        clock: "ntp",
        bytes: 1000,
        frames: 250,
        codec: "h264".into(),
        audio: None,
        width: 640,
        height: 360,
        event_count: 1,
        checksum: None,
        tier: HOT,
        sightings: BTreeMap::default(),
        cause: Cause { reason: Some(Reason::OnDemand), label: Some("gate open".into()) },
    };
    Store::open(&folder.join(FILE)).unwrap().write(&[entry]).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_list_of_recordings_says_why_they_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let location = recordings(folder.path());
    let (code, out, err) = output(&["recordings", "list", "--location", &location]);
    assert!(code == 0 && out.contains("  hot   on_demand   \"gate open\"  "), "{out}{err}");
    let (_, out, _) = output(&["recordings", "list", "--location", &location, "--json"]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&line["reason"], &line["label"], &line["tier"]),
        (&"on_demand".into(), &"gate open".into(), &"hot".into())
    );
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let location = recordings(folder.path());
    let of = |name: &'static str| ["recordings", name, "--location", location.as_str()];
    for args in [
        &["list"][..],
        &["models"],
        &["completion", "bash"],
        &["graph", "processor"],
        &["check", "wall"],
        &["fault-lab", "--cameras", "1", "--listen", "127.0.0.1:0", "--for", "30s"],
        &of("list"),
        &[&of("list")[..], &["--json"]].concat(),
        &of("timeline"),
    ] {
        let mut child = nvr(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Nobody reads: as `| head` when it has its lines.
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!(status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    }
}

#[test]
fn what_was_found_is_in_the_exit_code_though_nobody_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let location = recordings(folder.path());
    let wrong = file(folder.path(), "wrong.toml", "summary = 1");
    for (args, expected) in [
        (&["procesor"][..], 2),
        // The file of the recording is missing.
        (&["recordings", "verify", "--location", &location], 1),
        (&["recordings", "repair", "--location", &location], 0),
        (&["check", "wall", &wrong], 2),
    ] {
        let mut child = nvr(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{args:?}");
    }
}

/// The library that writes the log answers an error with `eprintln!`, which panicked, on whatever thread that was.
#[test]
fn an_instance_whose_log_nobody_reads_any_more_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "idle.toml", IDLE);
    let mut child = nvr(&[&path, "--instance-id", "cli-test"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("instance.running")));
    drop(lines);
    // What it says of its end meets a closed pipe.
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

const WRONG: &str = r#"summary = "s"
kind = "k"
[params.rate]
type = "float"
default = 2.5
help = "h"
[params.size]
type = "string"
help = "h"
[camera]
launch = """
  videotestsrc pattern=snow num-buffers=${rate}
  ! queue max-size-bufers=1 leaky=sideways
  ! fakesnk
  videotestsrc is-live=${size} ! fakesink
"""
"#;

#[test]
fn a_check_finds_everything_at_once_with_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "wrong.toml", WRONG);
    for args in [["check", path.as_str()], ["--check", path.as_str()]] {
        let (code, _, err) = output(&args);
        assert_eq!(code, 2, "{err}");
        for part in [
            "wrong.toml:12: videotestsrc: property \"num-buffers\" takes a whole number from -1 to 2147483647; the default of \"rate\" is 2.5",
            "wrong.toml:13: queue has no property \"max-size-bufers\"; did you mean \"max-size-buffers\"?",
            "wrong.toml:13: queue: property \"leaky\" takes one of no, upstream, downstream, got \"sideways\"",
            "wrong.toml:14: there is no element \"fakesnk\" on this machine; did you mean \"fakesink\"?",
            "wrong.toml:15: videotestsrc: property \"is-live\" takes true or false; parameter \"size\" gives text",
        ] {
            assert!(err.contains(part), "{part}\n{err}");
        }
    }
}

#[test]
fn a_site_file_whose_addresses_are_in_the_environment_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let site = "broker = \"${env:NVR_TEST_BROKER}\"\n[[cameras]]\nid = 1\nuri = '${env:NVR_TEST_URI}'\n\
                [[cameras]]\nid = 2\nuri = \"rtsp://a:${env:NVR_TEST_PASSWORD}@host/2\"\n";
    let path = file(folder.path(), "site.toml", site);
    let (code, out, err) = output(&["check", &path]);
    assert!(code == 0 && out.contains("a site file, right"), "{out}{err}");
}

#[test]
fn mistakes_end_with_code_2_and_say_what_was_meant() {
    for (args, part) in [
        (&["procesor"][..], "did you mean \"processor\"?"),
        (&["modles"], "did you mean \"models\"?"),
        (&["processor", "--max-fps", "fast"], "max_fps must be a number from 0 to 1000, got \"fast\""),
        (&["processor", "--max-fsp", "1"], "--max-fps"),
        (&["processor", "--set", "max_fsp=1"], "did you mean \"max_fps\"?"),
        (&["processor", "--streams", "3-1"], "runs backwards"),
        (&["processor", "--uri", "//user:geheim@camera"], "uri must be a URI"),
        (&["processor", "--config", "/nonexistent/site.toml"], "/nonexistent/site.toml"),
        (&["processor", "--check", "--log-level", "loud=="], "log level \"loud==\" is none of"),
        (&["processor", "--check", "--uri", "rtsp://"], "(it names no host)"),
        (&["processor", "--check", "--broker", "mqtt://h:99999"], "such as mqtt://host:1883"),
        (&["processor", "--check", "--commands", "foo"], "there is no command \"foo\""),
        (&["processor", "--check", "--model", "/no/such.onnx"], "/no/such.onnx cannot be used as a model"),
        (&["processor", "--check", "--broker", "http://x"], "scheme \"http\" is not known"),
        (&["processor", "--check", "--topic-prefix", "a/#"], "topic-prefix"),
        (&["processor", "--check", "--set", "0.zones=not json"], "camera 0: nvrzones zones: "),
        (
            &["wall", "--check", "--broker", "mqtts://h", "--ca-file", "/nonexistent/ca.pem"],
            "/nonexistent/ca.pem",
        ),
        (&["broker", "--port", "high"], "a port is a whole number from 0 to 65535"),
        (&["ctl", "pause", "--source", "gate"], "a camera's number is a whole number"),
        (&["ctl", "status", "--broker", ""], "--broker is empty"),
        (&["ctl", "status", "--to", ""], "--to"),
        (&["ctl", "status", "--broker", "http://h"], "scheme \"http\" is not known"),
        (
            &["ctl", "status", "--ca-file", "/nonexistent/ca.pem", "--broker", "mqtts://h"],
            "/nonexistent/ca.pem",
        ),
        (&["ctl", "batch", "[1"], "in JSON: EOF while parsing a list"),
        (&["models", "show", "gate-2"], "nvr-launch models lists"),
        (&["demo", "--picture", "/"], "--picture /: it is a directory; name a file"),
        (&["demo", "--picture", "/nonexistent/x.png"], "there is no folder /nonexistent"),
        (&["fault-lab", "--listen", "localhost:8555"], "written with its port, as 127.0.0.1:8555"),
        (&["recordings", "list", "--source", "x"], "a camera's number is a whole number"),
        (&[], "Usage"),
    ] {
        let (code, out, err) = output(args);
        assert_eq!(code, 2, "{args:?}: {out}{err}");
        assert!(err.contains(part), "{args:?}: {err}");
        assert!(!err.contains("geheim@"), "{err}");
    }
}

/// Whoever can write to the working directory, which may be /tmp, chooses no pipeline by that.
#[test]
fn a_file_in_the_working_directory_takes_the_place_of_no_shipped_graph() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "processor", "summary = 1");
    for args in [&["check", "processor"][..], &["processor", "--check"]] {
        let Output { status, stderr, .. } = nvr(args).current_dir(folder.path()).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    }
    let output = nvr(&["check", "./processor"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "by its path it is meant");
}

#[test]
fn a_variable_that_is_no_text_is_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    for name in ["NVR_CONFIG", "NVR_URI", "NVR_INSTANCE_ID"] {
        let mut command = nvr(&["processor", "--check"]);
        command.env(name, std::ffi::OsStr::from_bytes(b"/etc/nvr/\xff.toml"));
        let Output { status, stderr, .. } = command.output().unwrap();
        let text = String::from_utf8_lossy(&stderr);
        assert!(status.code() == Some(2) && text.contains(name) && text.contains("UTF-8"), "{text}");
    }
}

#[test]
fn a_site_file_of_alerts_alone_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "alerts.toml", "[[alerts]]\nid = \"night\"\nobjects = [\"person\"]\n");
    let (code, out, err) = output(&["check", &path]);
    assert!(code == 0 && out.contains("a site file, right"), "{out}{err}");
}

/// Every file that a command reads, where there is none, or something else in its place.
#[test]
fn a_file_that_cannot_be_read_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let directory = folder.path().to_str().unwrap();
    let (missing, binary) = (path("missing.toml"), path("binary.toml"));
    fs::write(&binary, b"a = 1\n\xff").unwrap();
    let broken = file(folder.path(), "broken.toml", "a = 1\nb = = 2\n");
    let idle = file(folder.path(), "idle.toml", IDLE);
    let empty = file(folder.path(), "empty.toml", "");
    for command in [
        &["check"][..],
        &["check", &idle, "--config"],
        &["processor", "--check", "--config"],
        &["graph", "processor", "--config"],
        &["ctl", "status", "--config"],
        &["orchestrate", "--check"],
        &["fault-lab", "--listen", "127.0.0.1:0", "--schedule"],
    ] {
        for (wrong, part) in [
            (&missing[..], if command == ["check"] { "neither a file" } else { "it does not exist" }),
            (directory, "it is a directory"),
            (&binary, "it is no text in UTF-8, from line 2 on"),
            (&broken, "broken.toml:"),
        ] {
            let args = [command, &[wrong]].concat();
            let (code, out, err) = output(&args);
            assert_eq!(code, 2, "{args:?}: {out}{err}");
            assert!(err.contains(wrong) && err.contains(part), "{args:?}: {err}");
        }
    }
    let (code, _, err) = output(&["orchestrate", "--check", &empty]);
    assert!(code == 2 && err.contains("empty.toml: there is neither a [[rules]]"), "{err}");
    // A slip in the name of its tables makes no graph of a site file.
    let slip = file(folder.path(), "slip.toml", "broker = \"mqtt://h\"\n[[camera]]\nid = 1\n");
    let (code, _, err) = output(&["check", &slip]);
    assert!(code == 2 && err.contains("slip.toml:2: a site file has no key \"camera\""), "{err}");
    assert!(err.ends_with("did you mean \"cameras\"?\n"), "{err}");
}

/// Nor does a look leave anything in the place of what it did not find.
#[test]
fn recordings_that_are_not_there_are_not_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (empty, text) = (file(folder.path(), "empty", ""), file(folder.path(), "text", "no database"));
    let directory = folder.path().to_str().unwrap();
    let (missing, missing_file) = (path("missing"), path("missing.db"));
    for (args, code, part) in [
        (&["--location", &missing][..], 2, "missing: No such file or directory"),
        (&["--location", &empty], 2, "empty is no directory; --location names"),
        (&["--location", directory], 2, "catalog.db does not exist: nothing was recorded there"),
        (&["--catalog", &missing_file], 2, "missing.db does not exist; --catalog names"),
        (&["--catalog", directory], 2, "is a directory; --catalog names a file"),
        (&["--catalog", &empty], 2, "empty is empty and no catalogue"),
        (&["--catalog", &text], 1, "text: file is not a database"),
    ] {
        for command in ["list", "timeline", "verify"] {
            let args = [&["recordings", command], args].concat();
            let (found, out, err) = output(&args);
            assert_eq!(found, code, "{args:?}: {out}{err}");
            assert!(err.contains(part), "{args:?}: {err}");
        }
    }
    for (location, part) in
        [(&missing, "No such file"), (&empty, "no directory"), (&directory.into(), ".nvr-volume")]
    {
        let (code, _, err) = output(&["recordings", "repair", "--location", location]);
        assert!(code == 2 && err.contains(part), "{err}");
    }
    assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_address_that_is_taken_is_named_with_the_option_that_gives_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, option) in
        [(&["broker", "--port", &port][..], "--port"), (&["fault-lab", "--listen", &address], "--listen")]
    {
        let (code, out, err) = output(args);
        assert_eq!(code, 3, "{args:?}: {out}{err}");
        let said = err.contains(&address) && err.contains("another program serves there already");
        assert!(said && err.contains(option), "{err}");
    }
    drop(taken);
    // Nobody listens there now.
    let (code, _, err) = output(&["ctl", "status", "--broker", &format!("mqtt://{address}")]);
    assert!(code == 3 && err.contains(&address) && err.contains("--broker"), "{err}");
    assert!(!err.contains("trying again"), "it has ended: {err}");
}

const IDLE: &str = r#"summary = "s"
kind = "k"
[params.wait]
type = "int"
default = 0
help = "h"
[camera]
launch = "videotestsrc is-live=true ! identity sleep-time=${wait} ! fakesink"
"#;

const SECRETS: &str = r#"summary = "s"
kind = "k"
[params.secret]
type = "secret"
default = ""
help = "h"
[params.uri]
type = "uri"
default = "rtsp://host/${source_id}"
scope = "camera"
help = "h"
[camera]
launch = "fakesrc ! filesink location=${uri} fakesrc ! filesink location=x${secret}"
"#;

#[test]
fn a_picture_of_a_graph_holds_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "secrets.toml", SECRETS);
    let (code, out, err) = output(&[
        "graph",
        &path,
        "--uri",
        "rtsp://admin:ge\"heim@camera/1",
        "--secret",
        "streng-geheim",
        "--streams",
        "0,1",
    ]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("digraph") && out.contains("camera_1"), "{out}");
    assert!(!out.contains("heim"), "{out}");
}

struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

fn start(args: &[&str]) -> Running {
    spawn(nvr(args))
}

fn spawn(mut command: Command) -> Running {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let reader = BufReader::new(child.stderr.take().unwrap());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || reader.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    Running { child, lines }
}

impl Running {
    fn wait_for(&self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line with {part:?} ({error}): {seen:#?}"),
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn code(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

#[test]
fn a_signal_ends_it_in_order_and_json_logs_have_stable_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "idle.toml", IDLE);
    for signal in ["-INT", "-TERM", "-HUP"] {
        let running = start(&[&path, "--log-format", "json", "--instance-id", "cli-test"]);
        for event in ["instance.starting", "source.starting", "instance.running"] {
            let line: Value = serde_json::from_str(&running.wait_for(event)).unwrap();
            assert_eq!(line["event"], event);
            assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
        }
        running.signal(signal);
        running.wait_for("instance.stopped");
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn under_nohup_the_end_of_a_terminal_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "idle.toml", IDLE);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$1\"", env!("CARGO_BIN_EXE_nvr-launch"), &path]);
    let running = spawn(command);
    running.wait_for("running");
    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1, 1, "{status}");
    running.signal("-TERM");
    assert_eq!(running.code(), 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = IDLE.replace("videotestsrc is-live=true", "nvrsrc uri=testsrc://");
    let path = file(folder.path(), "slow.toml", &text);
    // One frame takes a minute, and an orderly end has to wait for it: the first one is on its way when it is played.
    let running = start(&[&path, "--wait", "60000000"]);
    running.wait_for("source.playing");
    running.signal("-INT");
    running.wait_for("instance.draining");
    running.signal("-INT");
    assert_eq!(running.code(), 130);
}

#[test]
fn a_signal_is_heard_while_the_broker_does_not_answer() {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", broker.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{}\n[graph]\nlaunch = \"nvrcontrol instance-id=${{instance_id}} broker={url}\"\n",
        IDLE.trim_end()
    );
    let path = file(folder.path(), "claims.toml", &text);
    let running = start(&[&path, "--log-format", "json"]);
    // The instance asks whether its name is free, and nobody answers.
    let _connection = broker.accept().unwrap();
    running.signal("-INT");
    let Running { child, lines } = running;
    let said: Vec<String> = lines.iter().collect();
    assert_eq!(Running { child, lines }.code(), 0);
    assert!(!said.iter().any(|line| line.contains("source.starting")), "{said:#?}");
}

/// A wall on a machine without a display, as far as that can be had on one that has it.
fn headless_wall(output: &str) -> Command {
    let mut command = nvr(&["wall", "--streams", "0", "--uri", "testsrc:", "--broker", "mqtt://127.0.0.1:1"]);
    command.args(["--output", output]);
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    command
}

/// DirectFB, which automatic choice of an output came to, ended the process.
#[test]
fn a_window_without_a_display_shows_nothing_and_the_wall_runs() {
    let running = spawn(headless_wall("window"));
    running.wait_for("source.playing");
    running.signal("-TERM");
    running.wait_for("instance.stopped");
    assert_eq!(running.code(), 0);
}

#[test]
fn a_full_screen_that_is_not_there_is_an_error_that_names_the_element() {
    let Output { status, stderr, .. } = headless_wall("fullscreen").output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    // 2 where the element is not installed.
    assert!(matches!(status.code(), Some(2 | 3)) && text.contains("waylandsink"), "{status}: {text}");
}

#[test]
fn what_cannot_start_ends_with_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let text = "summary = \"s\"\nkind = \"k\"\n[camera]\nlaunch = \"filesrc location=/nonexistent/file ! fakesink\"\n";
    let path = file(folder.path(), "missing.toml", text);
    let (code, _, err) = output(&[&path]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("camera 0:") && err.contains("/nonexistent/file"), "{err}");
}

#[test]
fn models_are_listed_shown_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir_all(&models).unwrap();
    fs::write(models.join("gate.onnx"), b"x").unwrap();
    let run = |args: &[&str]| {
        let output = nvr(args).env("NVR_DATA_DIR", folder.path()).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, _) = run(&["models"]);
    assert!(
        code == 0 && out.contains("yolox-nano") && out.contains("Apache-2.0") && out.contains("gate"),
        "{out}"
    );
    let (code, out, _) = run(&["models", "show", "gate"]);
    assert!(code == 0 && out.contains("1 bytes"), "{out}");
    assert_eq!(run(&["models", "remove", "gate"]).0, 0);
    let (code, _, err) = run(&["models", "remove", "gate"]);
    assert!(code == 2 && err.contains("not installed"), "{err}");
    assert_eq!(run(&["models", "remove", "../models/x"]).0, 2);
    let (code, _, err) = run(&["models", "get", "http://127.0.0.1:1/m.onnx"]);
    assert!(code == 2 && err.contains("--sha256"), "{err}");
    let hash = "0".repeat(64);
    let (code, _, err) = run(&["models", "get", "http://127.0.0.1:1/m.onnx", "--sha256", &hash]);
    assert!(code == 1 && err.contains("Without a network here"), "{err}");
}
