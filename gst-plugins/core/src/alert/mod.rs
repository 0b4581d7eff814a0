//! Alert rules: which object, where, when and for how long, before somebody is told.

mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use rule::{MAX_RULES, Rule, RuleError, Weekday, parse};

use crate::{lifecycle::Facts, times::nanoseconds, zones::Zone};

/// The time on the wall where the camera is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LocalTime {
    pub weekday: Weekday,
    /// From midnight, 0 to 1439.
    pub minute: u32,
}

/// A rule that has been fulfilled by an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    pub rule: Arc<Rule>,
    /// The zone in which it was, where the rule names zones, and the time it has spent there; else the time since it was
    /// first seen.
    pub zone: Option<Arc<str>>,
    pub dwell_ns: u64,
}

/// Published on `{prefix}/alerts/{rule_id}`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Alert {
    pub version: String,
    pub rule_id: String,
    pub instance_id: String,
    pub source_id: u32,
    pub tracker_id: u64,
    pub class_name: String,
    pub confidence: f64,
    /// RFC 3339, UTC.
    pub timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    pub dwell_s: f64,
    pub bbox: crate::event::BBox,
}

#[derive(Debug)]
struct Watched {
    rule: Arc<Rule>,
    /// Objects that it has fired for.
    told: BTreeSet<u64>,
    last_ns: Option<u64>,
}

/// The rules of one camera.
#[derive(Debug, Default)]
pub struct Alerts {
    rules: Vec<Watched>,
}

impl Alerts {
    /// Those of `rules` that are for the camera `source_id`.
    pub fn new(rules: &[Arc<Rule>], source_id: u32) -> Self {
        let own = rules.iter().filter(|rule| rule.cameras.is_empty() || rule.cameras.contains(&source_id));
        Self {
            rules: own
                .map(|rule| Watched { rule: rule.clone(), told: BTreeSet::new(), last_ns: None })
                .collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether there is a rule that has not fired for this object.
    pub fn is_open(&self, track: u64) -> bool {
        self.rules.iter().any(|watched| !watched.told.contains(&track))
    }

    /// The rules that an object fulfils at `now_ns` for the first time. One that is still cooling down is put off, not
    /// dropped: who stays until it has cooled down is told about then.
    pub fn check(&mut self, now_ns: u64, local: LocalTime, track: u64, facts: &Facts) -> Vec<Fired> {
        let mut fired = Vec::new();
        for watched in &mut self.rules {
            let rule = &watched.rule;
            if watched.told.contains(&track) || !rule.wants(&facts.class) || !rule.is_on(local) {
                continue;
            }
            let Some((zone, since)) = rule.place(facts) else { continue };
            let dwell_ns = now_ns.saturating_sub(since);
            let cooling =
                watched.last_ns.is_some_and(|last| now_ns.saturating_sub(last) < nanoseconds(rule.cooldown));
            if dwell_ns < nanoseconds(rule.dwell) || cooling {
                continue;
            }
            watched.told.insert(track);
            watched.last_ns = Some(now_ns);
            fired.push(Fired { rule: rule.clone(), zone, dwell_ns });
        }
        fired
    }

    /// The rules that name the camera `source_id` and zones that it does not have, with the first of these zones.
    pub fn without_zone<'a>(
        rules: &'a [Arc<Rule>],
        source_id: u32,
        zones: &[Zone],
    ) -> Vec<(&'a str, &'a str)> {
        // One for any camera may mean another camera's zones.
        let own = rules.iter().filter(|rule| rule.cameras.contains(&source_id));
        own.filter_map(|rule| {
            let missing = rule.zones.iter().find(|name| zones.iter().all(|zone| zone.name != **name))?;
            Some((rule.id.as_str(), missing.as_str()))
        })
        .collect()
    }

    /// Forgets an object that is gone.
    pub fn end(&mut self, track: u64) {
        for watched in &mut self.rules {
            watched.told.remove(&track);
        }
    }
}
