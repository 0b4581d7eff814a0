//! Processes under control: instances of the launcher, and somebody who commands them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nvr_core::command::{Ack, Incoming, State, Status, read};
use nvr_launch::ctl::client::{Broker, Client, Event};

use crate::{detector::runtime_library, mosquitto::Mosquitto};

/// Longest wait for anything that should take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process of ours. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Process {
    /// Starts a command; what it prints is kept.
    pub fn start(mut command: Command) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a log file");
        let output = || Stdio::from(log.reopen().expect("the log file"));
        let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
        Self { child: child.expect("the program starts"), log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the state of a child").is_none()
    }

    /// Waits for the end; gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the process does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.id().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    /// Resident memory in bytes, threads, open files.
    pub fn resources(&self) -> (u64, usize, usize) {
        let folder = Path::new("/proc").join(self.id().to_string());
        let count = |name: &str| fs::read_dir(folder.join(name)).map_or(0, Iterator::count);
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
        (kib.unwrap_or(0) * 1024, count("task"), count("fd"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Arguments and environment of an instance: nothing of the caller's own settings.
pub fn launcher(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("GST_DEBUG");
    for (name, _) in std::env::vars() {
        if name.starts_with("NVR_") && name != "NVR_DATA_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// An instance of `graph`, named `id`, with the cameras of `streams`, on a broker.
pub fn instance(
    program: &str,
    graph: &str,
    id: &str,
    streams: &str,
    broker: &Mosquitto,
    more: &[&str],
) -> Process {
    Process::start(instance_command(program, graph, id, streams, broker, more))
}

/// The same, not started yet.
pub fn instance_command(
    program: &str,
    graph: &str,
    id: &str,
    streams: &str,
    broker: &Mosquitto,
    more: &[&str],
) -> Command {
    let url = broker.url();
    let args = [graph, "--instance-id", id, "--streams", streams, "--broker", &url];
    launcher(program, &[&args[..], more].concat())
}

/// What a processor of drawn cameras with the built-in model is told besides; commands may name drawn cameras too, as
/// fast as they come.
pub const DRAWN: [&str; 6] = ["--model", "demo", "--uri-schemes", "rtsp,testsrc,file", "--command-rate", "0"];

/// Somebody with a connection to the broker.
#[derive(Debug)]
pub struct Operator {
    pub client: Client,
    /// What came on other topics: topic and payload, in order.
    pub heard: Vec<(String, Vec<u8>)>,
}

impl Operator {
    pub fn new(url: &str, more: &[&str]) -> Self {
        gst::init().expect("GStreamer starts");
        let broker = Broker { uri: url.into(), topic_prefix: "nvr".into(), ..Broker::default() };
        let more: Vec<String> = more.iter().map(|filter| (*filter).to_owned()).collect();
        let client = Client::connect(&broker, &more).expect("a broker");
        Self { client, heard: Vec::new() }
    }

    /// Waits until `done` says so of what is known.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not happen: {:#?}", self.client.statuses);
            let event = self.client.next(Duration::from_millis(50));
            self.keep(event);
        }
    }

    fn keep(&mut self, event: Option<Event>) {
        if let Some(Event::Other(topic, payload, _)) = event {
            self.heard.push((topic, payload));
        }
    }

    /// Waits for an instance to be in a state; gives its status.
    pub fn state(&mut self, id: &str, state: State) -> Status {
        let is = |this: &Self| this.client.statuses.get(id).is_some_and(|status| status.status == state);
        self.until(&format!("{id} {}", state.name()), is);
        self.client.statuses[id].clone()
    }

    /// Waits until an instance runs and all its cameras play.
    pub fn playing(&mut self, id: &str, cameras: usize) -> Status {
        self.until(&format!("{id} playing"), |this| {
            this.client.statuses.get(id).is_some_and(|status| {
                status.status == State::Running
                    && status.streams.len() == cameras
                    && status.streams.iter().all(|stream| stream.state == "playing")
            })
        });
        self.client.statuses[id].clone()
    }

    /// Sends a command, as JSON, to one instance; gives its last answer.
    pub fn tell(&mut self, id: &str, command: &str) -> Result<Ack, String> {
        self.tell_all(&[id], command).remove(id).expect("an answer")
    }

    pub fn tell_all(&mut self, ids: &[&str], command: &str) -> BTreeMap<String, Result<Ack, String>> {
        let Incoming::Message(message) = read(command.as_bytes(), "") else { panic!("{command}") };
        let command = message.command.expect("a command");
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let mut heard = Vec::new();
        let answers = self.client.call(&command, &ids, &ids, PATIENCE, |event| {
            if let Event::Other(topic, payload, _) = event {
                heard.push((topic, payload));
            }
        });
        self.heard.extend(heard);
        answers
    }

    /// Payloads on one topic so far.
    pub fn on(&self, topic: &str) -> Vec<serde_json::Value> {
        self.heard
            .iter()
            .filter(|(heard, _)| heard == topic)
            .filter_map(|(_, payload)| serde_json::from_slice(payload).ok())
            .collect()
    }
}

/// The built-in model a second time, under the name `other`, in a data folder.
pub fn second_model(data: &Path) {
    let folder = data.join("models");
    fs::create_dir_all(&folder).expect("a folder for models");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gst-plugins/nvr/models");
    for end in ["onnx", "toml"] {
        let copied = fs::copy(source.join(format!("demo.{end}")), folder.join(format!("other.{end}")));
        copied.expect("the built-in model");
    }
}

/// Gives a process a data folder of its own, without taking ONNX Runtime from it.
pub fn data_folder(command: &mut Command, data: &Path) {
    command.env("NVR_DATA_DIR", data);
    if let Some(library) = runtime_library() {
        command.env("ORT_DYLIB_PATH", library);
    }
}
