//! Which broker, as whom: the properties that every element with MQTT has, and what they resolve to.

use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use gst::glib;
use gst::prelude::*;
use nvr_core::secret::HIDDEN;
use nvr_core::topic::{self, TopicError};
use url::Url;

use super::tls;
use crate::properties::text;

/// Why the settings cannot be used. Never holds a password.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(
        "property `broker`: {0}; expected mqtt://host[:port] or mqtts://host[:port], with user:password@ before the host where they are needed"
    )]
    Broker(String),
    #[error("property `topic-prefix`: {0}")]
    Prefix(TopicError),
    #[error(transparent)]
    Filter(TopicError),
    #[error("property `client-id` must be 1 to 256 characters without control characters")]
    ClientId,
    #[error("property `{property}`: {path}: {why}")]
    File { property: &'static str, path: String, why: String },
    #[error("{0}")]
    Tls(String),
    #[error("cannot start the MQTT worker: {0}")]
    Worker(#[from] std::io::Error),
}

/// The values of the shared properties. An element holds one among its settings.
#[derive(Clone)]
pub struct BrokerSettings {
    broker: String,
    topic_prefix: String,
    client_id: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            broker: DEFAULT_BROKER.into(),
            topic_prefix: DEFAULT_PREFIX.into(),
            client_id: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

const DEFAULT_BROKER: &str = "mqtt://localhost:1883";
const DEFAULT_PREFIX: &str = "nvr";

impl BrokerSettings {
    /// `broker`, `topic-prefix`, `client-id`, `ca-file`, `cert-file` and `key-file`.
    pub fn properties() -> Vec<glib::ParamSpec> {
        vec![
            text(
                "broker",
                "Broker",
                "mqtt:// or mqtts:// URL of the broker, user and password allowed; reads back without the password",
                Some(DEFAULT_BROKER),
            ),
            text("topic-prefix", "Topic prefix", "First part of every topic", Some(DEFAULT_PREFIX)),
            text(
                "client-id",
                "Client id",
                "MQTT client id (default: made from host name and process id)",
                None,
            ),
            text(
                "ca-file",
                "CA file",
                "PEM file of the certificates that the broker's must come from (default: the system's)",
                None,
            ),
            text("cert-file", "Certificate file", "PEM file of the certificate to show to the broker", None),
            text("key-file", "Key file", "PEM file of the private key of cert-file", None),
        ]
    }

    /// Sets one of the shared properties; `false` where `pspec` is none of them.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        let text = || value.get::<Option<String>>().ok().flatten().filter(|text| !text.is_empty());
        match pspec.name() {
            "broker" => self.broker = text().unwrap_or_else(|| DEFAULT_BROKER.into()),
            "topic-prefix" => self.topic_prefix = text().unwrap_or_else(|| DEFAULT_PREFIX.into()),
            "client-id" => self.client_id = text(),
            "ca-file" => self.ca_file = text().map(PathBuf::from),
            "cert-file" => self.cert_file = text().map(PathBuf::from),
            "key-file" => self.key_file = text().map(PathBuf::from),
            _ => return false,
        }
        true
    }

    /// Reads one of the shared properties; `None` where `pspec` is none of them.
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).to_value();
        Some(match pspec.name() {
            "broker" => redacted(&self.broker).to_value(),
            "topic-prefix" => self.topic_prefix.to_value(),
            "client-id" => self.client_id.to_value(),
            "ca-file" => path(&self.ca_file),
            "cert-file" => path(&self.cert_file),
            "key-file" => path(&self.key_file),
            _ => return None,
        })
    }

    pub fn topic_prefix(&self) -> &str {
        &self.topic_prefix
    }

    /// Checks everything, the files included, and gives what a connection needs.
    pub fn resolve(&self) -> Result<Options, OptionsError> {
        topic::check_prefix(&self.topic_prefix).map_err(OptionsError::Prefix)?;
        if let Some(id) = &self.client_id
            && (id.chars().count() > 256 || id.chars().any(char::is_control))
        {
            return Err(OptionsError::ClientId);
        }
        let mut options = Options {
            client_id: self.client_id.clone(),
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ..parse(&self.broker).map_err(OptionsError::Broker)?
        };
        if options.tls {
            tls::client_config(&options)?;
        } else {
            // Without TLS the files say nothing about the connection, and must not keep elements from sharing it.
            (options.ca_file, options.cert_file, options.key_file) = (None, None, None);
        }
        Ok(options)
    }
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerSettings")
            .field("broker", &redacted(&self.broker))
            .field("topic_prefix", &self.topic_prefix)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// What the broker publishes for a client that vanishes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

/// A checked description of a connection. Elements whose options are equal share one.
#[derive(Clone, Eq, PartialEq)]
pub struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) credentials: Option<(String, String)>,
    pub(super) client_id: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    /// Published with QoS 1.
    pub will: Option<Will>,
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({self}, client id {:?})", self.client_id)
    }
}

impl Options {
    /// The same broker once more, for a connection whose only purpose is that the broker publishes `will` when it
    /// breaks. It has a client id of its own.
    #[must_use]
    pub fn presence(&self, will: Will) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let client_id = self.client_id.as_ref().map(|id| format!("{id}-presence-{number}"));
        Self { client_id, will: Some(will), ..self.clone() }
    }

    /// The client id, made up where none was asked for. Another one each time, for two connections that differ in
    /// something else must not share one.
    pub(super) fn client_id(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.client_id.clone().unwrap_or_else(|| {
            format!("{}-{}", default_instance_id(), NUMBER.fetch_add(1, Ordering::Relaxed))
        })
    }
}

/// `nvr-{host name}-{process id}`, of the characters that an instance id may have.
pub fn default_instance_id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        let host: String = glib::host_name()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
            .take(64)
            .collect();
        format!("nvr-{host}-{}", std::process::id())
    });
    &ID
}

fn parse(text: &str) -> Result<Options, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let tls = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(format!("scheme {other:?} is not known")),
    };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_string();
    if host.is_empty() || host.len() > 255 {
        return Err("no usable host name".into());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("nothing may follow host and port".into());
    }
    let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
    if port == 0 {
        return Err("port 0 cannot be connected to".into());
    }
    let user = decode(url.username())?;
    let password = decode(url.password().unwrap_or_default())?;
    if user.is_empty() && !password.is_empty() {
        return Err("a password needs a user name".into());
    }
    if user.len() > 65535 || password.len() > 65535 {
        return Err("user name or password is too long".into());
    }
    let credentials = (!user.is_empty()).then_some((user, password));
    Ok(Options {
        host,
        port,
        tls,
        credentials,
        client_id: None,
        ca_file: None,
        cert_file: None,
        key_file: None,
        will: None,
    })
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                return Err(
                    "user name or password has a '%' that is no percent encoding; write it as %25".into()
                );
            };
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| "user name or password is not UTF-8".into())
}

/// The URL as it may be shown: scheme, user, host and port, and of something that is no broker's URL nothing at all.
fn redacted(text: &str) -> String {
    shown(text).unwrap_or_else(|| "(not a broker URL)".into())
}

fn shown(text: &str) -> Option<String> {
    let (scheme, rest) = text.trim().split_once("://")?;
    // Nothing may follow host and port: whatever stands before the last '@' belongs to the password.
    let (credentials, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, rest),
    };
    let url = Url::parse(&format!("{scheme}://{host}")).ok()?;
    if !matches!(url.scheme(), "mqtt" | "mqtts") {
        return None;
    }
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let user = credentials.map_or_else(String::new, |text| match text.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}@"),
        None => format!("{text}@"),
    });
    Some(format!("{}://{user}{host}{port}", url.scheme()))
}
