//! The control plane's language: commands, whom they are for, acknowledgements, status, and who owns an instance id.
//!
//! Everything that comes from a broker passes [`read`] first. It checks size, depth, types and ranges, and always
//! leads to an answer where there is somebody to answer to.

mod ack;
mod claim;
mod limit;
mod policy;
mod read;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use ack::{Ack, AckStatus};
pub use claim::{Answer, Claim};
pub use limit::Bucket;
pub use policy::{DEFAULT_SCHEMES, Policy};
pub use read::{Incoming, MAX_BATCH, MAX_PAYLOAD, Message, read};
pub use status::{OnDemand, Recording, State, Status, Stream, Tier};

/// A value as JSON has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// Values by parameter name.
pub type Params = BTreeMap<String, Scalar>;

/// What an instance can be told to do. Ranges are checked; whether a camera or a parameter exists is not.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Status,
    Metrics,
    Pause {
        source_id: Option<u32>,
    },
    Resume {
        source_id: Option<u32>,
    },
    Stop,
    Restart {
        source_id: Option<u32>,
    },
    AddStream {
        source_id: u32,
        name: Option<String>,
        uri: Option<String>,
        params: Params,
    },
    RemoveStream {
        source_id: u32,
    },
    ChangeStreamUri {
        source_id: u32,
        uri: String,
    },
    ChangeModel {
        model_id: String,
    },
    SetFps {
        max_fps: f64,
        source_id: Option<u32>,
    },
    SetConfidence {
        confidence: f64,
        source_id: Option<u32>,
    },
    EnableTracking {
        enabled: bool,
    },
    Set {
        source_id: Option<u32>,
        params: Params,
    },
    Reconfigure {
        source_id: Option<u32>,
        params: Params,
    },
    Batch {
        commands: Vec<Command>,
    },
    RenameInstance {
        new_instance_id: String,
    },
    /// Records on demand, whatever the mode, for at most so many seconds.
    StartRecording {
        source_id: Option<u32>,
        label: Option<String>,
        max_duration: Option<f64>,
    },
    StopRecording {
        source_id: Option<u32>,
    },
    /// Seconds before and after now as one file.
    SaveClip {
        source_id: u32,
        name: Option<String>,
        before: f64,
        after: f64,
    },
}

/// A command's name, its parameters in words, and what it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Description {
    pub name: &'static str,
    /// Required ones first; optional ones in brackets.
    pub params: &'static [&'static str],
    pub effect: &'static str,
}

/// Every command of the protocol.
pub const COMMANDS: [Description; 20] = [
    describe("status", &[], "Publishes the status"),
    describe("metrics", &[], "Publishes the metrics now"),
    describe("pause", &["[source_id]"], "Stops analysis and publishing at once; connections stay open"),
    describe("resume", &["[source_id]"], "Goes on after a pause"),
    describe("stop", &[], "Ends the process in order"),
    describe("restart", &["[source_id]"], "Builds one camera's branch, or all of them, anew"),
    describe("add_stream", &["source_id", "[uri]", "[name]", "[parameters]"], "Adds a camera"),
    describe("remove_stream", &["source_id"], "Removes a camera"),
    describe("change_stream_uri", &["source_id", "uri"], "Has a camera's branch connect elsewhere"),
    describe(
        "change_model",
        &["model_id"],
        "Changes the model between two frames; the old one stays on failure",
    ),
    describe("set_fps", &["max_fps", "[source_id]"], "Sets the analysed frames per second; 0 = every frame"),
    describe(
        "set_confidence",
        &["confidence", "[source_id]"],
        "Sets the least confidence of a detection, 0 to 1",
    ),
    describe("enable_tracking", &["enabled"], "Turns tracking on or off"),
    describe("set", &["parameters", "[source_id]"], "Changes live parameters"),
    describe("reconfigure", &["parameters", "[source_id]"], "Changes several parameters, all or nothing"),
    describe("batch", &["commands"], "Carries out several commands in order, all or nothing"),
    describe("rename_instance", &["new_instance_id"], "Gives the instance another name without reconnecting"),
    describe(
        "start_recording",
        &["[source_id]", "[label]", "[max_duration]"],
        "Records on demand, whatever the mode, until it is stopped or so many seconds have passed",
    ),
    describe("stop_recording", &["[source_id]"], "Ends recording on demand; the mode decides again"),
    describe(
        "save_clip",
        &["source_id", "[before]", "[after]", "[name]"],
        "Writes the seconds before and after now into one file, and answers when it is finished",
    ),
];

const fn describe(name: &'static str, params: &'static [&'static str], effect: &'static str) -> Description {
    Description { name, params, effect }
}

impl Command {
    /// As the protocol spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Stop => "stop",
            Self::Restart { .. } => "restart",
            Self::AddStream { .. } => "add_stream",
            Self::RemoveStream { .. } => "remove_stream",
            Self::ChangeStreamUri { .. } => "change_stream_uri",
            Self::ChangeModel { .. } => "change_model",
            Self::SetFps { .. } => "set_fps",
            Self::SetConfidence { .. } => "set_confidence",
            Self::EnableTracking { .. } => "enable_tracking",
            Self::Set { .. } => "set",
            Self::Reconfigure { .. } => "reconfigure",
            Self::Batch { .. } => "batch",
            Self::RenameInstance { .. } => "rename_instance",
            Self::StartRecording { .. } => "start_recording",
            Self::StopRecording { .. } => "stop_recording",
            Self::SaveClip { .. } => "save_clip",
        }
    }

    /// Whether it changes how the instance works for longer than a property takes to set.
    pub fn reconfigures(&self) -> bool {
        matches!(
            self,
            Self::Restart { .. }
                | Self::AddStream { .. }
                | Self::RemoveStream { .. }
                | Self::ChangeStreamUri { .. }
                | Self::ChangeModel { .. }
                | Self::Reconfigure { .. }
                | Self::Batch { .. }
        )
    }

    /// Whether a batch may hold it: what it does can be undone. What was recorded, or was not, stays so.
    pub fn can_be_undone(&self) -> bool {
        !matches!(
            self,
            Self::Status
                | Self::Metrics
                | Self::Stop
                | Self::Restart { .. }
                | Self::Batch { .. }
                | Self::RenameInstance { .. }
                | Self::StartRecording { .. }
                | Self::StopRecording { .. }
                | Self::SaveClip { .. }
        )
    }

    /// The params object of the protocol, as JSON.
    pub fn params(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let with_source = |source_id: &Option<u32>, mut map: Map<String, Value>| {
            if let Some(id) = source_id {
                map.insert("source_id".into(), (*id).into());
            }
            Value::Object(map)
        };
        let object = |params: &Params| -> Map<String, Value> {
            params.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
        };
        let one = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        match self {
            Self::Status | Self::Metrics | Self::Stop => json!({}),
            Self::Pause { source_id }
            | Self::Resume { source_id }
            | Self::Restart { source_id }
            | Self::StopRecording { source_id } => with_source(source_id, Map::new()),
            Self::StartRecording { source_id, label, max_duration } => {
                let mut map = Map::new();
                map.extend(label.iter().map(|label| ("label".to_owned(), Value::from(label.clone()))));
                map.extend(max_duration.map(|seconds| ("max_duration".to_owned(), Value::from(seconds))));
                with_source(source_id, map)
            }
            Self::SaveClip { source_id, name, before, after } => {
                let mut map = one("before", (*before).into());
                map.insert("after".into(), (*after).into());
                map.extend(name.iter().map(|name| ("name".to_owned(), Value::from(name.clone()))));
                with_source(&Some(*source_id), map)
            }
            Self::AddStream { source_id, name, uri, params } => {
                let mut map = object(params);
                map.insert("source_id".into(), (*source_id).into());
                for (key, text) in [("name", name), ("uri", uri)] {
                    if let Some(text) = text {
                        map.insert(key.into(), text.clone().into());
                    }
                }
                Value::Object(map)
            }
            Self::RemoveStream { source_id } => json!({ "source_id": source_id }),
            Self::ChangeStreamUri { source_id, uri } => json!({ "source_id": source_id, "uri": uri }),
            Self::ChangeModel { model_id } => json!({ "model_id": model_id }),
            Self::SetFps { max_fps, source_id } => with_source(source_id, one("max_fps", (*max_fps).into())),
            Self::SetConfidence { confidence, source_id } => {
                with_source(source_id, one("confidence", (*confidence).into()))
            }
            Self::EnableTracking { enabled } => json!({ "enabled": enabled }),
            Self::Set { source_id, params } | Self::Reconfigure { source_id, params } => {
                with_source(source_id, object(params))
            }
            Self::Batch { commands } => {
                let list: Vec<_> = commands
                    .iter()
                    .map(|command| json!({ "command": command.name(), "params": command.params() }))
                    .collect();
                json!({ "commands": list })
            }
            Self::RenameInstance { new_instance_id } => json!({ "new_instance_id": new_instance_id }),
        }
    }
}

impl Scalar {
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Int(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Bool(on) => (*on).into(),
        }
    }
}
