//! From bytes to a command, or to what can be answered about them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{COMMANDS, Command, Params, Scalar};
use crate::segment::clip;
use crate::topic;

/// Largest payload that is read, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Most commands of one batch.
pub const MAX_BATCH: usize = 64;
/// Most names in `target_instances`.
const MAX_TARGETS: usize = 4096;
/// Most parameters of one command.
const MAX_PARAMS: usize = 128;
/// Longest text in a parameter, in bytes.
const MAX_TEXT: usize = 4096;
/// Longest label of a recording, in characters.
const MAX_LABEL: usize = 64;
/// Longest recording on demand that ends by itself, in seconds.
const MAX_RECORDING: f64 = 86_400.0;
/// Seconds before now that a clip has where nothing is said.
const CLIP_BEFORE: f64 = 10.0;
/// Longest request id, in bytes. It comes back in every answer.
const MAX_REQUEST_ID: usize = 256;
/// Longest part of a wrong name or value that is quoted, in characters.
const MAX_QUOTE: usize = 64;

/// What came on the commands topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// To be answered.
    Message(Message),
    /// Well formed and addressed to others: no reply.
    NotForUs,
    /// Neither names a command nor holds a request id: nobody to answer.
    Noise(String),
}

/// A message to answer: a command, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The command's name as it was given, shortened where it is absurd; empty where there was none.
    pub name: String,
    pub request_id: Option<String>,
    pub command: Result<Command, String>,
}

/// Reads one payload for the instance `instance_id`.
///
/// Of a payload that does not parse, what stands before the damage decides: where it names a command or a request
/// id, there is somebody to answer.
pub fn read(payload: &[u8], instance_id: &str) -> Incoming {
    let mut fields = Fields::default();
    let too_long = payload.len() > MAX_PAYLOAD;
    let payload_start = &payload[..payload.len().min(MAX_PAYLOAD)];
    let (text, broken) = match std::str::from_utf8(payload_start) {
        Ok(text) => (text, false),
        Err(error) => {
            let valid = &payload_start[..error.valid_up_to()];
            (std::str::from_utf8(valid).unwrap_or_default(), true)
        }
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = fields.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    let mut error = match parsed {
        _ if too_long => Some(format!("the message has {} bytes; {MAX_PAYLOAD} are allowed", payload.len())),
        _ if broken => Some("the message is not UTF-8".into()),
        Err(error) => Some(format!("the message is no JSON object of the protocol: {error}")),
        Ok(()) => None,
    };

    match fields.targets.as_ref().map(|targets| includes(targets, instance_id)) {
        None | Some(Ok(true)) => {}
        Some(Ok(false)) => return Incoming::NotForUs,
        Some(Err(why)) => error = error.or(Some(why)),
    }
    let request_id = match &fields.request_id {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.len() <= MAX_REQUEST_ID => Some(text.clone()),
        Some(other) => {
            let why = format!("request_id must be text of at most {MAX_REQUEST_ID} bytes");
            error = error.or(Some(why));
            Some(match other {
                Value::String(text) => cut(text, MAX_QUOTE),
                other => cut(&other.to_string(), MAX_QUOTE),
            })
        }
    };
    let name = match &fields.command {
        Some(Value::String(name)) => cut(name, MAX_QUOTE),
        _ => String::new(),
    };
    let command = match (error, &fields.command) {
        (Some(error), _) => Err(error),
        (None, Some(Value::String(name))) => build(name, fields.params, true),
        (None, Some(_)) => Err("command must be text".into()),
        (None, None) => Err("the message names no command".into()),
    };
    match (&command, name.is_empty(), &request_id) {
        (Err(why), true, None) => Incoming::Noise(why.clone()),
        _ => Incoming::Message(Message { name, request_id, command }),
    }
}

/// Whether a list of targets includes this instance.
fn includes(targets: &Value, instance_id: &str) -> Result<bool, String> {
    let wrong = || "target_instances must be a list of instance ids".to_owned();
    let list = match targets {
        Value::Null => return Ok(true),
        Value::Array(list) => list,
        _ => return Err(wrong()),
    };
    if list.len() > MAX_TARGETS {
        return Err(format!("target_instances has {} names; {MAX_TARGETS} are allowed", list.len()));
    }
    if list.is_empty() {
        return Ok(true);
    }
    let mut found = false;
    for target in list {
        let target = target.as_str().ok_or_else(wrong)?;
        found |= target == "*" || target == instance_id;
    }
    Ok(found)
}

/// Top-level fields as they are read: what came before an error stays.
#[derive(Debug, Default)]
struct Fields {
    command: Option<Value>,
    params: Option<Value>,
    request_id: Option<Value>,
    targets: Option<Value>,
}

impl<'de> DeserializeSeed<'de> for &mut Fields {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Fields {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let field = match key.as_str() {
                "command" => &mut self.command,
                "params" => &mut self.params,
                "request_id" => &mut self.request_id,
                "target_instances" => &mut self.targets,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if field.is_some() {
                return Err(A::Error::custom(format_args!("{key} is given twice")));
            }
            *field = Some(map.next_value()?);
        }
        Ok(())
    }
}

/// Makes a command of a name and its params. `outer`: not inside a batch.
fn build(name: &str, params: Option<Value>, outer: bool) -> Result<Command, String> {
    let map = match params {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err("params must be an object".into()),
    };
    if map.len() > MAX_PARAMS {
        return Err(format!("params has {} entries; {MAX_PARAMS} are allowed", map.len()));
    }
    let mut params = Reader { command: name, map };
    let command = match name {
        "status" => Command::Status,
        "metrics" => Command::Metrics,
        "pause" => Command::Pause { source_id: params.source_id()? },
        "resume" => Command::Resume { source_id: params.source_id()? },
        "stop" => Command::Stop,
        "restart" => Command::Restart { source_id: params.source_id()? },
        "add_stream" => Command::AddStream {
            source_id: params.needed("source_id", Reader::source_id)?,
            name: params.text("name")?,
            uri: params.text("uri")?,
            params: params.rest()?,
        },
        "remove_stream" => {
            Command::RemoveStream { source_id: params.needed("source_id", Reader::source_id)? }
        }
        "change_stream_uri" => Command::ChangeStreamUri {
            source_id: params.needed("source_id", Reader::source_id)?,
            uri: params.needed("uri", |params| params.text("uri"))?,
        },
        "change_model" => {
            let model_id = params.needed("model_id", |params| params.text("model_id"))?;
            check_model(&model_id)?;
            Command::ChangeModel { model_id }
        }
        "set_fps" => Command::SetFps {
            max_fps: params.needed("max_fps", |params| params.number("max_fps", 1000.0))?,
            source_id: params.source_id()?,
        },
        "set_confidence" => Command::SetConfidence {
            confidence: params.needed("confidence", |params| params.number("confidence", 1.0))?,
            source_id: params.source_id()?,
        },
        "enable_tracking" => Command::EnableTracking {
            enabled: match params.map.remove("enabled") {
                Some(Value::Bool(enabled)) => enabled,
                Some(other) => return Err(format!("enabled must be true or false, got {}", quote(&other))),
                None => return Err(params.missing("enabled")),
            },
        },
        "set" | "reconfigure" => {
            let source_id = params.source_id()?;
            let values = params.rest()?;
            if values.is_empty() {
                return Err(format!("{name} needs at least one parameter"));
            }
            if name == "set" {
                Command::Set { source_id, params: values }
            } else {
                Command::Reconfigure { source_id, params: values }
            }
        }
        "batch" if outer => Command::Batch { commands: params.commands()? },
        "batch" => return Err("a batch cannot hold a batch".into()),
        "rename_instance" => {
            let new_instance_id =
                params.needed("new_instance_id", |params| params.text("new_instance_id"))?;
            topic::check_instance_id(&new_instance_id).map_err(|error| error.to_string())?;
            Command::RenameInstance { new_instance_id }
        }
        "start_recording" => {
            let label = params.text("label")?;
            if label.as_ref().is_some_and(|label| label.is_empty() || label.chars().count() > MAX_LABEL) {
                return Err(format!("label must have 1 to {MAX_LABEL} characters"));
            }
            let max_duration = params.between("max_duration", 1.0, MAX_RECORDING)?;
            Command::StartRecording { source_id: params.source_id()?, label, max_duration }
        }
        "stop_recording" => Command::StopRecording { source_id: params.source_id()? },
        "save_clip" => {
            let source_id = params.needed("source_id", Reader::source_id)?;
            let name = params.text("name")?;
            name.iter().try_for_each(|name| clip::check_name(name)).map_err(|error| error.to_string())?;
            let before = params.between("before", 0.0, clip::MAX_SECONDS)?.unwrap_or(CLIP_BEFORE);
            let after = params.between("after", 0.0, clip::MAX_SECONDS)?.unwrap_or(0.0);
            if before + after < 1.0 {
                return Err("a clip has at least a second: before and after together".into());
            }
            Command::SaveClip { source_id, name, before, after }
        }
        unknown => {
            let names: Vec<_> = COMMANDS.iter().map(|known| known.name).collect();
            return Err(format!(
                "there is no command {:?}; there are {}",
                cut(unknown, MAX_QUOTE),
                names.join(", ")
            ));
        }
    };
    params.finish()?;
    if !outer && !command.can_be_undone() {
        return Err(format!("{name} cannot be undone and cannot be part of a batch"));
    }
    Ok(command)
}

/// A model's name; not a path: the network does not choose which files are opened.
pub(super) fn check_model(model: &str) -> Result<(), String> {
    // With this ending it would be a file of the working directory.
    let is_file = std::path::Path::new(model).extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx"));
    let good = (1..=128).contains(&model.len())
        && !is_file
        && !model.starts_with('.')
        && model.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'));
    if good {
        Ok(())
    } else {
        Err(format!(
            "a model is named by 1 to 128 letters, digits, '-', '_', '.' or '+', without .onnx, got {:?}; paths are \
             for the command line",
            cut(model, MAX_QUOTE)
        ))
    }
}

/// Takes params out one by one; what is left at the end is a mistake.
struct Reader<'a> {
    command: &'a str,
    map: Map<String, Value>,
}

impl Reader<'_> {
    fn missing(&self, key: &str) -> String {
        format!("{} needs {key}", self.command)
    }

    fn needed<T>(
        &mut self,
        key: &str,
        take: impl Fn(&mut Self) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        take(self)?.ok_or_else(|| self.missing(key))
    }

    fn source_id(&mut self) -> Result<Option<u32>, String> {
        match self.map.remove("source_id") {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| format!("source_id must be a camera's number, got {}", quote(&value))),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => check_text(key, &text).map(|()| Some(text)),
            // An address may hold a password, whatever was made of it.
            Some(_) => Err(format!("{key} must be text")),
        }
    }

    fn number(&mut self, key: &str, max: f64) -> Result<Option<f64>, String> {
        self.between(key, 0.0, max)
    }

    fn between(&mut self, key: &str, min: f64, max: f64) -> Result<Option<f64>, String> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_f64().filter(|number| (min..=max).contains(number)).map(Some).ok_or_else(|| {
                    format!("{key} must be a number from {min} to {max}, got {}", quote(&value))
                })
            }
        }
    }

    /// All that is left, as parameters of the graph.
    fn rest(&mut self) -> Result<Params, String> {
        let mut params = Params::new();
        for (name, value) in std::mem::take(&mut self.map) {
            let valid = (1..=64).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !valid {
                return Err(format!("{:?} is no parameter's name", cut(&name, MAX_QUOTE)));
            }
            let value = match value {
                Value::String(text) => {
                    check_text(&name, &text)?;
                    Scalar::Text(text)
                }
                Value::Bool(on) => Scalar::Bool(on),
                Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(whole), _) => Scalar::Int(whole),
                    (None, Some(float)) => Scalar::Float(float),
                    (None, None) => return Err(format!("{name} is a number beyond all ranges")),
                },
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(format!("{name} must be text, a number, true or false"));
                }
            };
            params.insert(name, value);
        }
        Ok(params)
    }

    fn commands(&mut self) -> Result<Vec<Command>, String> {
        let Some(Value::Array(list)) = self.map.remove("commands") else {
            return Err("batch needs commands, a list".into());
        };
        if !(1..=MAX_BATCH).contains(&list.len()) {
            return Err(format!("a batch has 1 to {MAX_BATCH} commands, got {}", list.len()));
        }
        let build = |(index, item): (usize, Value)| {
            let number = index + 1;
            let Value::Object(mut item) = item else {
                return Err(format!("command {number} of the batch must be an object"));
            };
            let name = item.remove("command");
            let Some(name) = name.as_ref().and_then(Value::as_str) else {
                return Err(format!("command {number} of the batch has no name"));
            };
            build(name, item.remove("params"), false)
                .map_err(|error| format!("command {number} of the batch ({}): {error}", cut(name, MAX_QUOTE)))
        };
        list.into_iter().enumerate().map(build).collect()
    }

    /// A misspelt `source_id` would change every camera: what is not known is refused.
    fn finish(self) -> Result<(), String> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => {
                let known = COMMANDS
                    .iter()
                    .find(|known| known.name == self.command)
                    .map_or(&[][..], |known| known.params);
                let takes = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
                Err(format!("{} takes {takes}; {:?} is not known", self.command, cut(key, MAX_QUOTE)))
            }
        }
    }
}

fn check_text(key: &str, text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("{key} has {} bytes; {MAX_TEXT} are allowed", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{key} must not hold control characters"));
    }
    Ok(())
}

fn quote(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => cut(&other.to_string(), MAX_QUOTE),
    }
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
