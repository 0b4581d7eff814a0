//! A real mosquitto for a test, and a subscriber that remembers what it got.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::{Condvar, Mutex};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use crate::skipped;

/// Longest wait for anything that should take milliseconds.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How clients get in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    Open,
    /// User `camera` with password `p@ss/word`.
    Password,
    /// TLS; the broker's certificate is for localhost, 127.0.0.1 and ::1.
    Tls,
    /// TLS, and the client has to show a certificate of the same authority.
    MutualTls,
    /// As `config/mosquitto.conf` has it, on another port.
    Sample,
    /// Users `camera`, `wall`, `control` and `viewer`, with the rights that `config/mosquitto-acl` gives them.
    Acl,
}

/// The password of user `camera`, as it has to be written in a URL.
pub const PASSWORD_IN_URL: &str = "p%40ss%2Fword";
pub const PASSWORD: &str = "p@ss/word";

/// A mosquitto process with its own ports and folder. A second, open port lets the test itself in.
#[derive(Debug)]
pub struct Mosquitto {
    child: Option<Child>,
    program: PathBuf,
    directory: tempfile::TempDir,
    access: Access,
    port: u16,
    inside: u16,
}

impl Mosquitto {
    /// Starts a broker. `None`, and a line that says so, where mosquitto is not installed.
    pub fn start(access: Access) -> Option<Self> {
        let mut broker = Self::stopped(access)?;
        // Ports that were free may be taken by the time mosquitto asks for them: other tests run beside this one.
        for _ in 0..5 {
            match broker.try_restart() {
                Ok(()) => return Some(broker),
                Err(reason) if reason.contains("in use") => {
                    (broker.port, broker.inside) = free_ports();
                    broker.configure().expect("a configuration for mosquitto");
                }
                Err(reason) => panic!("{reason}"),
            }
        }
        panic!("mosquitto found no port: {}", broker.log());
    }

    /// A broker that does not run yet: nothing listens on its ports.
    pub fn stopped(access: Access) -> Option<Self> {
        let program = find(&["mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"])?;
        let directory = tempfile::tempdir().expect("a temporary folder");
        let (port, inside) = free_ports();
        let broker = Self { child: None, program, directory, access, port, inside };
        broker.configure().expect("a configuration for mosquitto");
        Some(broker)
    }

    /// Starts it again, with the sessions it had. Returns once it listens.
    pub fn restart(&mut self) {
        self.try_restart().unwrap_or_else(|reason| panic!("{reason}"));
    }

    fn try_restart(&mut self) -> Result<(), String> {
        self.kill();
        let log = fs::File::create(self.path("stderr")).expect("a log file");
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(self.path("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto starts");
        let deadline = Instant::now() + TIMEOUT;
        for port in [self.inside, self.port] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                let ended = child.try_wait().expect("the state of mosquitto");
                if ended.is_some() {
                    return Err(format!("mosquitto ended: {}", self.log()));
                }
                assert!(Instant::now() < deadline, "mosquitto does not listen: {}", self.log());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.child = Some(child);
        Ok(())
    }

    /// As a power cut would: no farewell, connections torn.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal, `STOP` or `CONT` for one.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("a running broker").id().to_string();
        let done = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(done.success());
    }

    /// What an element's `broker` property has to be.
    pub fn url(&self) -> String {
        let port = self.port;
        match self.access {
            Access::Open | Access::Sample => format!("mqtt://127.0.0.1:{port}"),
            Access::Password | Access::Acl => self.url_for("camera"),
            Access::Tls | Access::MutualTls => format!("mqtts://localhost:{port}"),
        }
    }

    /// The same for another of the users.
    pub fn url_for(&self, user: &str) -> String {
        format!("mqtt://{user}:{PASSWORD_IN_URL}@127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file of the broker: `ca.crt`, and with it `client.crt` and `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        for name in ["stderr", "mosquitto.log"] {
            if let Ok(mut file) = fs::File::open(self.path(name)) {
                let _ = file.read_to_string(&mut text);
            }
        }
        text
    }

    /// A subscriber by the open port. It is subscribed when this returns, and stays so over restarts of the broker.
    pub fn subscribe(&self, filter: &str) -> Subscriber {
        Subscriber::new(self.inside, filter)
    }

    fn configure(&self) -> Result<()> {
        let directory = self.directory.path();
        let shown = directory.display();
        if self.access == Access::Sample {
            let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/mosquitto.conf");
            let text = fs::read_to_string(&sample).with_context(|| sample.display().to_string())?;
            ensure!(text.contains("\nlistener 1883 "), "the sample listens on port 1883");
            let text = text
                .replace("\nlistener 1883 ", &format!("\nlistener {} ", self.port))
                .replace("/var/lib/mosquitto/", &format!("{shown}/"));
            let more = format!("user root\nlistener {} 127.0.0.1\nallow_anonymous true\n", self.inside);
            fs::write(self.path("mosquitto.conf"), text + &more)?;
            return Ok(());
        }
        let mut text = format!(
            "per_listener_settings true\npersistence true\npersistence_location {shown}/\nautosave_interval 1\n\
             autosave_on_changes true\nset_tcp_nodelay true\nmax_queued_messages 0\nuser root\n\
             log_dest file {shown}/mosquitto.log\nlog_type all\n\
             listener {} 127.0.0.1\nallow_anonymous true\n",
            self.inside
        );
        let host = if self.access == Access::Open { "" } else { " 127.0.0.1" };
        let _ = writeln!(text, "listener {}{host}", self.port);
        match self.access {
            Access::Open | Access::Sample => text += "allow_anonymous true\n",
            Access::Password | Access::Acl => {
                let file = self.path("passwords");
                fs::write(&file, "")?;
                for user in ["camera", "wall", "control", "viewer"] {
                    let mut command = Command::new("mosquitto_passwd");
                    command.arg("-b").arg(&file).args([user, PASSWORD]);
                    call(command)?;
                }
                let _ = writeln!(text, "allow_anonymous false\npassword_file {}", file.display());
                if self.access == Access::Acl {
                    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/mosquitto-acl");
                    let copy = self.path("acl");
                    fs::copy(&sample, &copy).with_context(|| sample.display().to_string())?;
                    let _ = writeln!(text, "acl_file {}", copy.display());
                }
            }
            Access::Tls | Access::MutualTls => {
                certificates(directory)?;
                let _ = write!(
                    text,
                    "allow_anonymous true\ncafile {shown}/ca.crt\ncertfile {shown}/server.crt\n\
                     keyfile {shown}/server.key\nrequire_certificate {}\n",
                    self.access == Access::MutualTls
                );
            }
        }
        fs::write(self.path("mosquitto.conf"), text)?;
        Ok(())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let found = names.iter().find(|name| {
        Command::new(name).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    if found.is_none() {
        skipped("mosquitto; install it with your package manager");
    }
    found.map(PathBuf::from)
}

fn free_ports() -> (u16, u16) {
    // Both are held until both are known, so that they differ.
    let (a, b) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
    let port = |listener: std::io::Result<TcpListener>| {
        listener.and_then(|listener| listener.local_addr()).expect("a free port").port()
    };
    (port(a), port(b))
}

fn call(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Makes an authority (`ca.crt`) and certificates for server and client in `directory`.
pub fn certificates(directory: &Path) -> Result<()> {
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(args);
        call(command)
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let mut ca = vec!["req", "-x509", "-days", "2", "-subj", "/CN=Test authority"];
    ca.extend(key);
    ca.extend(["-keyout", "ca.key", "-out", "ca.crt", "-addext", "keyUsage=critical,keyCertSign"]);
    openssl(&ca)?;
    for name in ["server", "client"] {
        let (key_file, request, certificate, extensions) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"), format!("{name}.ext"));
        fs::write(directory.join(&extensions), "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n")?;
        let subject = format!("/CN={name}");
        let mut args = vec!["req", "-new", "-subj", &subject];
        args.extend(key);
        args.extend(["-keyout", &key_file, "-out", &request]);
        openssl(&args)?;
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ])?;
    }
    Ok(())
}

/// One message as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
    pub qos: u8,
}

/// Collects messages on a thread of its own.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    messages: Mutex<Vec<Received>>,
    changed: Condvar,
    subscribed: AtomicBool,
    stop: AtomicBool,
}

impl Subscriber {
    fn new(port: u16, filter: &str) -> Self {
        let mut options = MqttOptions::new(format!("test-{port}-{filter}"), "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(16 << 20, 16 << 20);
        // The broker keeps what comes between its own restart and our return.
        options.set_clean_session(false);
        let (client, mut connection) = Client::new(options, 10);
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, filter) = (shared.clone(), filter.to_owned());
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::Acquire) {
                    match connection.recv_timeout(Duration::from_millis(50)) {
                        Ok(Ok(Event::Incoming(packet))) => {
                            if matches!(packet, Packet::ConnAck(_)) {
                                client.try_subscribe(&filter, QoS::AtLeastOnce).expect("room for a request");
                            }
                            shared.take(packet);
                        }
                        // Nothing to do while the broker is away but to try again.
                        Ok(Err(_)) => std::thread::sleep(Duration::from_millis(20)),
                        Ok(_) | Err(_) => {}
                    }
                }
            })
        };
        let subscriber = Self { shared, thread: Some(thread) };
        subscriber.until(|_| subscriber.shared.subscribed.load(Ordering::Acquire)).expect("a subscription");
        subscriber
    }

    /// Everything that came so far.
    pub fn messages(&self) -> Vec<Received> {
        self.shared.messages.lock().clone()
    }

    /// Waits for at least `count` messages, and gives all that came.
    pub fn wait(&self, count: usize) -> Result<Vec<Received>> {
        self.until(|messages| messages.len() >= count)
    }

    /// Waits until `done` says so of all that came.
    pub fn until(&self, done: impl Fn(&[Received]) -> bool) -> Result<Vec<Received>> {
        let deadline = Instant::now() + TIMEOUT;
        let mut messages = self.shared.messages.lock();
        while !done(&messages) {
            if self.shared.changed.wait_until(&mut messages, deadline).timed_out() {
                bail!("gave up waiting with {} messages", messages.len());
            }
        }
        Ok(messages.clone())
    }
}

impl Shared {
    fn take(&self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.messages.lock().push(Received {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
                retain: publish.retain,
                qos: publish.qos as u8,
            }),
            Packet::SubAck(_) => {
                // Under the lock, so that it cannot fall between a check and the wait after it.
                let _messages = self.messages.lock();
                self.subscribed.store(true, Ordering::Release);
            }
            _ => return,
        }
        self.changed.notify_all();
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
