//! How rules are written down: a JSON array, one object for each.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

use super::LocalTime;
use crate::{lifecycle::Facts, topic};

/// Rules of one site.
pub const MAX_RULES: usize = 256;
const TIME: &str = "a time of day, as in \"22:30\"";
/// Longest text that is read.
const MAX_BYTES: usize = 1 << 20;

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("alert rules are a JSON array of objects: {0}")]
    Json(String),
    #[error("{0} bytes of alert rules are too many; {MAX_BYTES} are allowed")]
    TooLong(usize),
    #[error("{0} alert rules are too many; {MAX_RULES} are allowed")]
    TooMany(usize),
    #[error("alert rule: {0}")]
    Id(#[from] topic::TopicError),
    #[error("two alert rules have the id {0:?}")]
    Twice(String),
    #[error("alert rule {id:?}: {key} must be {wanted}")]
    Value { id: String, key: &'static str, wanted: &'static str },
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    fn before(self) -> Self {
        Self::ALL[(self as usize + 6) % 7]
    }
}

/// One rule. Empty lists mean any.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: String,
    pub objects: Vec<String>,
    pub zones: Vec<String>,
    pub cameras: Vec<u32>,
    pub weekdays: Vec<Weekday>,
    /// Minutes from midnight, first and one after the last; over midnight where the second is smaller.
    pub hours: Option<(u32, u32)>,
    /// Seconds that the object has been in the zone, or in view.
    pub dwell: f64,
    /// Seconds for which the rule is silent after it has fired.
    pub cooldown: f64,
    /// Where the alert is posted.
    pub webhook: Option<Url>,
    /// What is run, with the alert on its standard input.
    pub command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: String,
    #[serde(default)]
    objects: Vec<String>,
    #[serde(default)]
    zones: Vec<String>,
    #[serde(default)]
    cameras: Vec<u32>,
    #[serde(default)]
    weekdays: Vec<Weekday>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    dwell: f64,
    #[serde(default = "minute")]
    cooldown: f64,
    webhook: Option<String>,
    #[serde(default)]
    command: Vec<String>,
}

fn minute() -> f64 {
    60.0
}

/// Reads a JSON array of rules; empty text is none. No error repeats an address: it may hold a secret.
pub fn parse(text: &str) -> Result<Vec<Arc<Rule>>, RuleError> {
    if text.len() > MAX_BYTES {
        return Err(RuleError::TooLong(text.len()));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let raw: Vec<Raw> = serde_json::from_str(text).map_err(|error| RuleError::Json(described(&error)))?;
    if raw.len() > MAX_RULES {
        return Err(RuleError::TooMany(raw.len()));
    }
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    for raw in raw {
        if rules.iter().any(|rule| rule.id == raw.id) {
            return Err(RuleError::Twice(raw.id));
        }
        rules.push(Arc::new(rule(raw)?));
    }
    Ok(rules)
}

/// What is wrong, without the value that is: a command line may hold a password.
fn described(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("invalid type") || text.starts_with("invalid value") {
        let expected = text.rsplit_once("expected ").map_or("", |(_, expected)| expected);
        return format!("a value has another type than expected: {expected}");
    }
    text
}

fn rule(raw: Raw) -> Result<Rule, RuleError> {
    // It becomes the last part of a topic, as an instance id does.
    topic::check_instance_id(&raw.id)?;
    let bad = |key, wanted| RuleError::Value { id: raw.id.clone(), key, wanted };
    let hours = match (&raw.from, &raw.to) {
        (None, None) => None,
        (from, to) => {
            let from = from.as_deref().map_or(Some(0), minutes).ok_or_else(|| bad("from", TIME))?;
            let to = to.as_deref().map_or(Some(24 * 60), minutes).ok_or_else(|| bad("to", TIME))?;
            Some((from, to))
        }
    };
    let seconds = 0.0..=86_400.0;
    if !seconds.contains(&raw.dwell) {
        return Err(bad("dwell", "seconds, from 0 to 86400"));
    }
    if !seconds.contains(&raw.cooldown) {
        return Err(bad("cooldown", "seconds, from 0 to 86400"));
    }
    let webhook = match &raw.webhook {
        None => None,
        Some(text) => {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            Some(url.ok_or_else(|| bad("webhook", "an http:// or https:// address"))?)
        }
    };
    if raw.command.first().is_some_and(String::is_empty) || raw.command.iter().any(|part| part.contains('\0'))
    {
        return Err(bad("command", "a program and its arguments, without NUL"));
    }
    Ok(Rule {
        id: raw.id,
        objects: raw.objects,
        zones: raw.zones,
        cameras: raw.cameras,
        weekdays: raw.weekdays,
        hours,
        dwell: raw.dwell,
        cooldown: raw.cooldown,
        webhook,
        command: raw.command,
    })
}

/// Minutes from midnight of "22:30"; "24:00" is the end of the day.
fn minutes(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<u32>().ok() } else { None }
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
    (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
}

impl Rule {
    pub(super) fn wants(&self, class: &str) -> bool {
        self.objects.is_empty() || self.objects.iter().any(|object| object.eq_ignore_ascii_case(class))
    }

    /// Whether it holds at this time. A night belongs to the day on which it began.
    pub(super) fn is_on(&self, local: LocalTime) -> bool {
        let on_day = |day: Weekday| self.weekdays.is_empty() || self.weekdays.contains(&day);
        let minute = local.minute;
        match self.hours {
            None => on_day(local.weekday),
            Some((from, to)) if from < to => (from..to).contains(&minute) && on_day(local.weekday),
            Some((from, _)) if minute >= from => on_day(local.weekday),
            Some((_, to)) => minute < to && on_day(local.weekday.before()),
        }
    }

    /// Where the object fulfils it, and since when: the zone in which it has been longest, or anywhere.
    pub(super) fn place(&self, facts: &Facts) -> Option<(Option<Arc<str>>, u64)> {
        if self.zones.is_empty() {
            return Some((None, facts.since_ns));
        }
        facts
            .inside
            .iter()
            .filter(|(zone, _)| self.zones.iter().any(|name| **name == **zone))
            .min_by_key(|(_, since)| *since)
            .map(|(zone, since)| (Some(zone.clone()), *since))
    }
}
