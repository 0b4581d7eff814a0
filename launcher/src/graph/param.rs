//! Parameters: what a graph declares, and values of it.

use std::{collections::BTreeMap, fmt};

use crate::{
    diagnostics::hint,
    redact::{redact, redact_address},
    template::Piece,
};

/// What a parameter takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    String,
    /// Text that is never shown.
    Secret,
    Uri,
    Int {
        min: i64,
        max: i64,
    },
    Float {
        min: f64,
        max: f64,
    },
    Bool,
    Enum {
        values: Vec<String>,
    },
    /// A name that stands for pipeline text of the graph file.
    Choice {
        choices: BTreeMap<String, String>,
    },
    /// Pipeline text. Only files and the command line may give it.
    Fragment,
}

/// Who a value belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    Instance,
    Camera,
}

/// One declared parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub name: String,
    pub kind: Kind,
    /// What the value is made of where nobody gives one.
    pub default: Option<Vec<Piece>>,
    /// May change while the graph runs.
    pub live: bool,
    /// Commands from the broker may give it.
    pub remote: bool,
    pub scope: Scope,
    pub required: bool,
    pub help: String,
    /// Line of the declaration in the graph file.
    pub line: usize,
}

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(on) => on.fmt(f),
        }
    }
}

/// Why a value does not fit. Never quotes a secret.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub String);

/// Texts longer than this are refused: nothing legitimate comes near.
const MAX_TEXT: usize = 64 * 1024;

impl Param {
    /// The flag and environment spelling.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    pub fn env(&self) -> String {
        format!("NVR_{}", self.name.to_uppercase())
    }

    /// What it takes, in words: `a number from 0 to 1000`.
    pub fn expected(&self) -> String {
        match &self.kind {
            Kind::String | Kind::Secret => "text".into(),
            Kind::Uri if self.is_broker() => "a URI such as mqtt://host:1883".into(),
            Kind::Uri => "a URI such as rtsp://host/path".into(),
            Kind::Int { min, max } => format!("a whole number{}", range(*min, *max, i64::MIN, i64::MAX)),
            Kind::Float { min, max } => format!("a number{}", range(*min, *max, f64::MIN, f64::MAX)),
            Kind::Bool => "true or false".into(),
            Kind::Enum { values } => format!("one of {}", values.join(", ")),
            Kind::Choice { choices } => {
                format!("one of {}", choices.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Kind::Fragment => "pipeline text".into(),
        }
    }

    /// Whether the address is a broker's, as its default says.
    fn is_broker(&self) -> bool {
        let first = self.default.as_ref().and_then(|pieces| pieces.first());
        matches!(first, Some(Piece::Text(text)) if text.starts_with("mqtt"))
    }

    /// Whether values may be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// The value as it may be shown: credentials removed.
    pub fn show(&self, value: &Value) -> String {
        match (&self.kind, value) {
            (Kind::Secret, _) => "***".into(),
            // One address from end to end: what looks like the end of one in a text may belong to its password.
            (Kind::Uri, Value::Text(uri)) => redact_address(uri),
            _ => redact(&value.to_string()).into_owned(),
        }
    }

    /// Reads a value from text: a flag, an environment variable, a default that is put together.
    ///
    /// # Errors
    /// Names the parameter, what was expected, and what was given.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let wrong = || self.wrong(&format!("{text:?}"));
        match &self.kind {
            Kind::Int { .. } => text.trim().parse().map_err(|_| wrong()).map(Value::Int),
            Kind::Float { .. } => text.trim().parse().map_err(|_| wrong()).map(Value::Float),
            Kind::Bool => match text.trim() {
                "true" | "yes" | "on" | "1" => Ok(Value::Bool(true)),
                "false" | "no" | "off" | "0" => Ok(Value::Bool(false)),
                _ => Err(wrong()),
            },
            _ => Ok(Value::Text(text.into())),
        }
        .and_then(|value| self.check(value))
    }

    /// Checks a value that has a type of its own (from TOML). A whole number is taken for a float.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn check(&self, value: Value) -> Result<Value, ValueError> {
        let shown = match &value {
            Value::Text(text) => format!("{text:?}"),
            other => other.to_string(),
        };
        let wrong = || self.wrong(&shown);
        // Text that looks like a number or a switch, as a class or a label may: who writes it need not know that.
        let value = if self.kind == Kind::String { Value::Text(value.to_string()) } else { value };
        if let Value::Text(text) = &value {
            if text.contains('\0') {
                return Err(ValueError(format!("{} must not hold a NUL character", self.name)));
            }
            if text.len() > MAX_TEXT {
                return Err(ValueError(format!(
                    "{} is {} bytes long; {MAX_TEXT} are allowed",
                    self.name,
                    text.len()
                )));
            }
        }
        match (&self.kind, value) {
            (Kind::String | Kind::Secret | Kind::Fragment, Value::Text(text)) => Ok(Value::Text(text)),
            (Kind::Uri, Value::Text(text)) => match url::Url::parse(&text) {
                Ok(url) if needs_host(&url) => Err(ValueError(format!("{} (it names no host)", wrong().0))),
                Ok(_) => Ok(Value::Text(text)),
                Err(error) => Err(ValueError(format!("{} ({error})", wrong().0))),
            },
            (Kind::Int { min, max }, Value::Int(number)) if (*min..=*max).contains(&number) => {
                Ok(Value::Int(number))
            }
            (Kind::Float { min, max }, Value::Float(number)) if number >= *min && number <= *max => {
                Ok(Value::Float(number))
            }
            (Kind::Float { .. }, Value::Int(number)) => self.check(Value::Float(number as f64)),
            (Kind::Bool, Value::Bool(on)) => Ok(Value::Bool(on)),
            (Kind::Enum { values }, Value::Text(text)) => {
                if values.contains(&text) {
                    Ok(Value::Text(text))
                } else {
                    let hint = hint(&text, values.iter().map(String::as_str));
                    Err(ValueError(format!("{}{hint}", wrong().0)))
                }
            }
            (Kind::Choice { choices }, Value::Text(text)) => {
                if choices.contains_key(&text) {
                    Ok(Value::Text(text))
                } else {
                    let hint = hint(&text, choices.keys().map(String::as_str));
                    Err(ValueError(format!("{}{hint}", wrong().0)))
                }
            }
            _ => Err(wrong()),
        }
    }

    /// Whether commands may give values of this kind where the graph file does not say: numbers, names of a list,
    /// and a model's name, which is checked to be no path. Free text may name files, addresses and programs.
    pub(super) fn remote_by_default(name: &str, kind: &Kind) -> bool {
        match kind {
            Kind::Int { .. } | Kind::Float { .. } | Kind::Bool | Kind::Enum { .. } => true,
            Kind::String => name == "model",
            Kind::Uri | Kind::Secret | Kind::Choice { .. } | Kind::Fragment => false,
        }
    }

    /// Whether values become part of the launch string.
    pub fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Fragment | Kind::Choice { .. })
    }

    fn wrong(&self, given: &str) -> ValueError {
        let given = match (&self.kind, given.rsplit_once('@')) {
            (Kind::Secret, _) => "something else".into(),
            // It is no URI, yet what stands before the '@' may well be a password.
            (Kind::Uri, Some((_, host))) => format!("\"***@{host}").into(),
            _ => redact(given),
        };
        ValueError(format!("{} must be {}, got {given}", self.name, self.expected()))
    }
}

/// Whether a host is missing that such an address is nothing without. Of most schemes, the library knows.
fn needs_host(url: &url::Url) -> bool {
    matches!(url.scheme(), "rtsp" | "rtsps" | "mqtt" | "mqtts") && url.host_str().is_none_or(str::is_empty)
}

fn range<T: Copy + PartialEq + fmt::Display>(min: T, max: T, lowest: T, highest: T) -> String {
    match (min == lowest, max == highest) {
        (true, true) => String::new(),
        (false, true) => format!(" from {min} up"),
        (true, false) => format!(" up to {max}"),
        (false, false) => format!(" from {min} to {max}"),
    }
}

/// Values by parameter name.
pub type Values = BTreeMap<String, Value>;

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn param(name: &str, kind: Kind) -> Param {
        Param {
            name: name.into(),
            kind,
            default: None,
            live: false,
            remote: false,
            scope: Scope::Instance,
            required: false,
            help: String::new(),
            line: 1,
        }
    }

    #[test]
    fn values_are_checked_and_errors_say_what_was_expected() {
        let fps = param("max_fps", Kind::Float { min: 0.0, max: 1000.0 });
        assert_eq!(fps.parse("5"), Ok(Value::Float(5.0)));
        assert_eq!(fps.check(Value::Int(5)), Ok(Value::Float(5.0)));
        let label = param("label", Kind::String);
        for (value, text) in [(Value::Int(12), "12"), (Value::Float(0.5), "0.5"), (Value::Bool(true), "true")]
        {
            assert_eq!(label.check(value), Ok(Value::Text(text.into())));
        }
        for (kind, text, message) in [
            (fps.kind.clone(), "fast", "p must be a number from 0 to 1000, got \"fast\""),
            (fps.kind.clone(), "NaN", "p must be a number from 0 to 1000, got NaN"),
            (fps.kind.clone(), "-1", "p must be a number from 0 to 1000, got -1"),
            (Kind::Int { min: 1, max: i64::MAX }, "0", "p must be a whole number from 1 up, got 0"),
            (Kind::Bool, "maybe", "p must be true or false, got \"maybe\""),
            (
                Kind::Uri,
                "camera",
                "p must be a URI such as rtsp://host/path, got \"camera\" (relative URL without a base)",
            ),
            (
                Kind::Uri,
                "rtsp://",
                "p must be a URI such as rtsp://host/path, got \"rtsp://\" (it names no host)",
            ),
            (
                Kind::Uri,
                "rtsp:///stream1",
                "p must be a URI such as rtsp://host/path, got \"rtsp:///stream1\" (it names no host)",
            ),
            (
                Kind::Uri,
                "rtsp://h:99999/1",
                "p must be a URI such as rtsp://host/path, got \"rtsp://h:99999/1\" (invalid port number)",
            ),
            (Kind::String, "a\0b", "p must not hold a NUL character"),
            (
                Kind::Enum { values: vec!["json".into(), "msgpack".into()] },
                "jsn",
                "p must be one of json, msgpack, got \"jsn\"; did you mean \"json\"?",
            ),
            (
                choice(),
                "pictures",
                "p must be one of none, picture, got \"pictures\"; did you mean \"picture\"?",
            ),
            // Text for a pipeline is no name of a choice, whatever it says.
            (choice(), "fakesink", "p must be one of none, picture, got \"fakesink\""),
        ] {
            assert_eq!(param("p", kind).parse(text), Err(ValueError(message.into())));
        }
    }

    fn choice() -> Kind {
        let choices = [("none", "fakesink"), ("picture", "jpegenc ! multifilesink")];
        Kind::Choice { choices: choices.map(|(name, text)| (name.into(), text.into())).into() }
    }

    #[test]
    fn a_choice_is_a_name_and_becomes_text_of_the_pipeline() {
        let output = param("output", choice());
        assert_eq!(output.parse("none"), Ok(Value::Text("none".into())));
        assert!(output.is_text() && !param("p", Kind::String).is_text());
        assert!(output.check(Value::Int(1)).is_err());
    }

    #[test]
    fn the_example_of_an_address_is_one_of_the_kind_that_is_wanted() {
        let mut broker = param("broker", Kind::Uri);
        broker.default = Some(vec![Piece::Text("mqtt://localhost".into())]);
        let text = broker.parse("").unwrap_err().0;
        assert!(text.starts_with("broker must be a URI such as mqtt://host:1883, got \"\""), "{text}");
        assert!(broker.parse("mqtt://").unwrap_err().0.ends_with("(it names no host)"));
    }

    #[test]
    fn secrets_are_never_quoted() {
        let secret = param("password", Kind::Secret);
        assert_eq!(secret.show(&Value::Text("geheim".into())), "***");
        assert!(!secret.check(Value::Int(4711)).unwrap_err().0.contains("4711"));
        let uri = param("uri", Kind::Uri);
        assert_eq!(uri.show(&Value::Text("rtsp://a:b@c/d".into())), "rtsp://***@c/d");
        // As some cameras have it, and as the source takes it: neither escaped nor without spaces.
        assert_eq!(uri.show(&Value::Text("rtsp://a:my pass@c/d".into())), "rtsp://***@c/d");
        assert!(uri.parse("//a:geheim@x").unwrap_err().0.contains("got \"***@x\" ("));
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_an_error(text in "\\PC*|.{0,40}") {
            for kind in [
                Kind::String, Kind::Uri, Kind::Bool, Kind::Secret, Kind::Int { min: 0, max: 9 },
                Kind::Float { min: 0.0, max: 1.0 }, Kind::Enum { values: vec!["a".into()] },
            ] {
                if let Ok(Value::Text(value)) = param("p", kind).parse(&text) {
                    prop_assert_eq!(value, text.clone());
                }
            }
        }
    }
}
