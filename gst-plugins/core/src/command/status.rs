//! What an instance says about itself, retained by the broker.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What an instance is doing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Starting,
    Running,
    Paused,
    Reconfiguring,
    Error,
    Stopped,
    /// The broker's last will: the connection broke.
    Offline,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Reconfiguring => "reconfiguring",
            Self::Error => "error",
            Self::Stopped => "stopped",
            Self::Offline => "offline",
        }
    }

    /// Whether there is a process.
    pub fn is_alive(self) -> bool {
        !matches!(self, Self::Stopped | Self::Offline)
    }
}

/// One camera of an instance.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Stream {
    pub source_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub state: String,
    /// Without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Analysed frames per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    #[serde(default)]
    pub reconnects: u64,
    /// When the last frame came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_frame: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Present and true while this camera is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Where the camera has a recorder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Recording>,
}

/// What the recorder of a camera is doing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Recording {
    /// `recording`, `idle` or `failing`.
    pub state: String,
    /// Why: `continuous`, `motion`, `events` or `on_demand`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From when on, without a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What was asked for, where something was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<OnDemand>,
    /// What is wrong with the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where recordings go on to others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
}

/// A storage tier of a recorder.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Tier {
    /// `hot`, `warm` or `cold`.
    pub tier: String,
    /// `ready` or `failing`.
    pub state: String,
    /// What is wrong with it and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A recording that was asked for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct OnDemand {
    pub since: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The retained status of an instance. All but the first two fields may be missing in the broker's last will.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    pub instance_id: String,
    pub status: State,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub timestamp: String,
    /// Names the process: another one with the same instance id has another.
    #[serde(default)]
    pub client_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// When the process started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub started: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// True while the process asks whether the id is free; such a status is not retained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claiming: bool,
}

impl Status {
    pub fn new(instance_id: &str, status: State) -> Self {
        Self {
            instance_id: instance_id.into(),
            status,
            kind: String::new(),
            timestamp: String::new(),
            client_id: String::new(),
            version: String::new(),
            started: String::new(),
            uptime_s: None,
            parameters: Map::new(),
            streams: Vec::new(),
            error: None,
            renamed_from: None,
            claiming: false,
        }
    }

    /// The payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a payload; `None` for what is no status.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}
