//! Answers to commands.

use serde::{Deserialize, Serialize};

use crate::event::timestamp;

/// How far a command has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AckStatus {
    Received,
    Completed,
    Error,
}

/// One answer, as it travels.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ack {
    pub instance_id: String,
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    pub ack_status: AckStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the command brought to light, where it asks for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    pub timestamp: String,
}

impl Ack {
    /// An answer given at `now_ns` since the Unix epoch.
    pub fn new(
        instance_id: &str,
        command: &str,
        request_id: Option<&str>,
        outcome: Result<AckStatus, String>,
        now_ns: u64,
    ) -> Self {
        let (ack_status, error) = match outcome {
            Ok(status) => (status, None),
            Err(error) => (AckStatus::Error, Some(error)),
        };
        Self {
            instance_id: instance_id.into(),
            command: command.into(),
            request_id: request_id.map(Into::into),
            ack_status,
            error,
            result: None,
            timestamp: timestamp(now_ns).to_string(),
        }
    }

    /// The payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
