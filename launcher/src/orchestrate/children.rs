//! Supervised processes: started, started again when they fail, and found again after a restart of the supervisor.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nvr_core::backoff::Backoff;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// How long a process may take over its orderly end.
const PATIENCE: Duration = Duration::from_secs(15);
/// A process that ran this long has proven itself: its backoff starts over.
const PROVEN: Duration = Duration::from_secs(30);

/// How a process is recognised after the supervisor was restarted: process ids are used again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    pub args: Vec<String>,
    pub pid: u32,
    /// Start time of the process, in the kernel's ticks since boot.
    pub started: u64,
    /// Which boot that was: a machine that boots the same way each time has the same numbers again.
    #[serde(default)]
    pub boot: String,
}

#[derive(Debug)]
enum Process {
    Own(Child),
    /// Started by an earlier run of the supervisor.
    Adopted(Record),
    Waiting(Instant),
}

#[derive(Debug)]
struct Entry {
    args: Vec<String>,
    process: Process,
    since: Instant,
    backoff: Backoff,
    /// Asked to end; killed at this time.
    stopping: Option<Instant>,
}

/// All processes of one supervisor, by instance id.
#[derive(Debug)]
pub struct Children {
    program: PathBuf,
    env: Vec<(String, String)>,
    entries: BTreeMap<String, Entry>,
    /// The kernel's name for the present boot; empty where it has none.
    boot: String,
    changed: bool,
}

impl Children {
    /// `env` is given to every process beside the supervisor's own.
    pub fn new(program: PathBuf, env: Vec<(String, String)>) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { program, env, entries: BTreeMap::new(), boot: boot.trim().into(), changed: false }
    }

    /// Takes over a process of an earlier run, where it is still there.
    pub fn adopt(&mut self, id: &str, record: &Record) -> bool {
        // A file of an earlier version names no boot.
        let same_boot = record.boot.is_empty() || record.boot == self.boot;
        let there = same_boot && started(record.pid) == Some(record.started);
        if there {
            info!(event = "instance.adopted", instance_id = id, pid = record.pid, "found again");
            self.insert(id, &record.args, Process::Adopted(record.clone()));
        }
        there
    }

    /// Starts a process; nothing where it runs already.
    ///
    /// # Errors
    /// The program cannot be started at all, or the process of that name is still ending.
    pub fn spawn(&mut self, id: &str, args: &[String]) -> Result<(), String> {
        if let Some(entry) = self.entries.get_mut(id) {
            if entry.stopping.is_some() {
                return Err(format!("{id} is still ending"));
            }
            return Ok(());
        }
        let child = self.start(id, args).map_err(|error| format!("{id} cannot be started: {error}"))?;
        self.insert(id, args, Process::Own(child));
        Ok(())
    }

    fn insert(&mut self, id: &str, args: &[String], process: Process) {
        let entry = Entry {
            args: args.to_vec(),
            process,
            since: Instant::now(),
            backoff: Backoff::default(),
            stopping: None,
        };
        self.entries.insert(id.into(), entry);
        self.changed = true;
    }

    fn start(&self, id: &str, args: &[String]) -> io::Result<Child> {
        let child = Command::new(&self.program)
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            // Ctrl-C in a terminal reaches the whole group of the supervisor: what it also tells its children itself
            // would be their second signal, which ends them at once.
            .process_group(0)
            .spawn()?;
        info!(event = "instance.started", instance_id = id, pid = child.id(), "started");
        Ok(child)
    }

    /// Asks a process to end; it is killed where it does not.
    pub fn stop(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.stopping.is_some() {
            return;
        }
        entry.stopping = Some(Instant::now() + PATIENCE);
        match &entry.process {
            Process::Own(child) => signal(child.id(), libc::SIGTERM),
            Process::Adopted(record) => signal(record.pid, libc::SIGTERM),
            Process::Waiting(_) => drop(self.entries.remove(id)),
        }
    }

    pub fn stop_all(&mut self) {
        for id in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.stop(&id);
        }
    }

    pub fn contains(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Looks after all of them; gives those that were started anew.
    pub fn tick(&mut self, now: Instant) -> Vec<String> {
        let mut restarted = Vec::new();
        for id in self.entries.keys().cloned().collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let ended = match &mut entry.process {
                Process::Own(child) => match child.try_wait() {
                    Ok(Some(status)) => Some(status.to_string()),
                    Ok(None) | Err(_) => None,
                },
                Process::Adopted(record) if started(record.pid) != Some(record.started) => {
                    Some("gone".into())
                }
                Process::Adopted(_) => None,
                Process::Waiting(until) => {
                    if now >= *until {
                        let args = entry.args.clone();
                        let child = self.start(&id, &args);
                        self.restart(&id, child, now);
                        restarted.push(id);
                    }
                    continue;
                }
            };
            match ended {
                Some(_) if entry.stopping.is_some() => {
                    info!(event = "instance.ended", instance_id = id, "ended");
                    self.entries.remove(&id);
                    self.changed = true;
                }
                Some(how) => {
                    if now.duration_since(entry.since) > PROVEN {
                        entry.backoff.reset();
                    }
                    let delay = entry.backoff.next_delay(0.5);
                    warn!(
                        event = "instance.died",
                        instance_id = id,
                        "ended by itself ({how}); started again in {:.1} s",
                        delay.as_secs_f64()
                    );
                    entry.process = Process::Waiting(now + delay);
                    self.changed = true;
                }
                None => {
                    if entry.stopping.is_some_and(|at| now >= at) {
                        warn!(
                            event = "instance.killed",
                            instance_id = id,
                            "did not end in time and is killed"
                        );
                        entry.stopping = Some(now + PATIENCE);
                        match &entry.process {
                            Process::Own(child) => signal(child.id(), libc::SIGKILL),
                            Process::Adopted(record) => signal(record.pid, libc::SIGKILL),
                            Process::Waiting(_) => {}
                        }
                    }
                }
            }
        }
        restarted
    }

    fn restart(&mut self, id: &str, child: io::Result<Child>, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        match child {
            Ok(child) => (entry.process, entry.since) = (Process::Own(child), now),
            Err(error) => {
                let delay = entry.backoff.next_delay(0.5);
                warn!(event = "instance.died", instance_id = id, "cannot be started: {error}");
                entry.process = Process::Waiting(now + delay);
            }
        }
        self.changed = true;
    }

    /// What is needed to find them again, where it has changed since the last time.
    pub fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn records(&self) -> BTreeMap<String, Record> {
        self.entries
            .iter()
            .filter_map(|(id, entry)| {
                let record = match &entry.process {
                    Process::Own(child) => Record {
                        args: entry.args.clone(),
                        pid: child.id(),
                        started: started(child.id())?,
                        boot: self.boot.clone(),
                    },
                    Process::Adopted(record) => record.clone(),
                    Process::Waiting(_) => return None,
                };
                Some((id.clone(), record))
            })
            .collect()
    }
}

fn signal(pid: u32, signal: i32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    // SAFETY: kill only sends a signal; the process is a child of ours, or was recognised by its start time.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(pid, signal);
    }
}

/// When a process started, in ticks since boot; `None` where there is none, or only its remains.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then_some(())?;
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_boot_is_somebody_elses() {
        let pid = std::process::id();
        let mut children = Children::new("/nonexistent".into(), Vec::new());
        assert!(!children.boot.is_empty());
        let mut record =
            Record { args: Vec::new(), pid, started: started(pid).unwrap(), boot: "another".into() };
        assert!(!children.adopt("a", &record) && !children.contains("a"));
        record.boot = children.boot.clone();
        assert!(children.adopt("a", &record));
        assert_eq!(children.records()["a"], record);
        // What an earlier version has written is taken as before.
        record.boot.clear();
        assert!(children.adopt("b", &record));
        record.started += 1;
        assert!(!children.adopt("c", &record));
    }
}
