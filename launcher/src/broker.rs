//! A small MQTT broker inside the process, for the demo and for trying things out on one machine. It listens
//! on this machine only, asks for no password, and keeps little: for real use take a real broker.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use clap::{Arg, ArgMatches, Command};
use rumqttd::{Config, ConnectionSettings, RouterConfig, ServerSettings};

use crate::{
    cli::{CommandResult, Failure, cannot_listen, port},
    output::outln,
};

/// A running broker. It lives as long as the process: its library has no way to end it.
#[derive(Clone, Copy, Debug)]
pub struct Broker {
    address: SocketAddr,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("the broker cannot listen on {address}: {}", cannot_listen(.source, "--port"))]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the broker does not start: {0}")]
    Start(String),
}

const READY: Duration = Duration::from_secs(5);

impl Broker {
    /// Starts a broker on this machine's loopback address; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is in use, or the broker does not answer.
    pub fn start(port: u16) -> Result<Self, BrokerError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = |source| BrokerError::Listen { address: wanted, source };
        // The library binds for itself, logs a failure and goes on: find out before it does.
        let address = TcpListener::bind(wanted).and_then(|listener| listener.local_addr()).map_err(listen)?;
        let config = config(address);
        let (failed, failure) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                let mut broker = rumqttd::Broker::new(config);
                if let Err(error) = broker.start() {
                    let _ = failed.send(error.to_string());
                }
            })
            .map_err(|error| BrokerError::Start(error.to_string()))?;
        let deadline = Instant::now() + READY;
        while TcpStream::connect_timeout(&address, READY).is_err() {
            match failure.recv_timeout(Duration::from_millis(10)) {
                Ok(message) => return Err(BrokerError::Start(message)),
                Err(_) if Instant::now() > deadline => {
                    return Err(BrokerError::Start(format!("nothing answers on {address}")));
                }
                Err(_) => {}
            }
        }
        Ok(Self { address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `mqtt://127.0.0.1:port`
    pub fn uri(&self) -> String {
        format!("mqtt://{}", self.address)
    }
}

fn config(address: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: 1024 * 1024,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "nvr".into(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    Config {
        id: 0,
        router: RouterConfig {
            max_connections: 256,
            max_outgoing_packet_count: 200,
            // What a slow subscriber may be behind, per topic.
            max_segment_size: 256 * 1024,
            max_segment_count: 2,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("nvr".into(), server)])),
        ..Config::default()
    }
}

pub(crate) fn command() -> Command {
    Command::new("broker")
        .about("Run a small MQTT broker for this machine only, without a password")
        .after_help("For real use take a real broker, for example mosquitto with the sample in config/.")
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .value_parser(port)
                .default_value("1883")
                .help("TCP port on 127.0.0.1; 0 takes a free one"),
        )
}

pub(crate) fn run(matches: &ArgMatches) -> CommandResult {
    let port = matches.get_one::<u16>("port").copied().unwrap_or(1883);
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
            .map_err(Failure::failed)?;
    let broker = Broker::start(port)
        .map_err(|error| Failure { code: crate::process::START, message: error.to_string() })?;
    outln!("broker on {}", broker.uri());
    signals.forever().next();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = Broker::start(port).unwrap_err().to_string();
        assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    }
}
