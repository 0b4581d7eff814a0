//! MQTT topics of the protocol, under a prefix (`nvr`, or `nvr/{tenant}`).

/// Why a prefix or an instance id cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TopicError {
    #[error(
        "topic prefix {0:?} must not be empty, start or end with '/', or hold '+', '#' or control characters"
    )]
    Prefix(String),
    #[error(
        "instance id {0:?} must be 1 to 128 letters, digits, '-', '_' or '.', and not the reserved word \"ack\""
    )]
    InstanceId(String),
    #[error(
        "topic filter {0:?} must be 1 to 1024 characters, '+' a level of its own, '#' the last level, without control \
         characters"
    )]
    Filter(String),
}

/// Checks a topic prefix.
pub fn check_prefix(prefix: &str) -> Result<(), TopicError> {
    let bad = prefix.is_empty()
        || prefix.starts_with('/')
        || prefix.ends_with('/')
        || prefix.starts_with('$')
        || prefix.len() > 256
        || prefix.chars().any(|c| c == '+' || c == '#' || c.is_control());
    if bad { Err(TopicError::Prefix(prefix.into())) } else { Ok(()) }
}

/// Checks an instance id: it becomes part of a topic and of a client id.
pub fn check_instance_id(id: &str) -> Result<(), TopicError> {
    let good = (1..=128).contains(&id.len())
        && id != "ack"
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if good { Ok(()) } else { Err(TopicError::InstanceId(id.into())) }
}

/// Checks a topic filter: a topic whose levels may be `+`, any one, and whose last level may be `#`, any number.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    let levels = filter.split('/').count();
    let good = (1..=1024).contains(&filter.len())
        && !filter.chars().any(char::is_control)
        && filter.split('/').enumerate().all(|(i, level)| match level {
            "+" => true,
            "#" => i + 1 == levels,
            level => !level.contains(['+', '#']),
        });
    if good { Ok(()) } else { Err(TopicError::Filter(filter.into())) }
}

/// Whether a topic falls under a filter. Topics that begin with `$` are the broker's own and match no wildcard there.
pub fn matches(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// `{prefix}/detections/{source_id}`: what a model saw.
pub fn detections(prefix: &str, source_id: u32) -> String {
    format!("{prefix}/detections/{source_id}")
}

/// `{prefix}/events/{source_id}`: the lives of objects.
pub fn events(prefix: &str, source_id: u32) -> String {
    format!("{prefix}/events/{source_id}")
}

/// `{prefix}/zones/{source_id}`: who enters, leaves, loiters and crosses.
pub fn zones(prefix: &str, source_id: u32) -> String {
    format!("{prefix}/zones/{source_id}")
}

/// `{prefix}/snapshots/{source_id}/{tracker_id}`: the best view of an object as JPEG.
pub fn snapshot(prefix: &str, source_id: u32, tracker_id: u64) -> String {
    format!("{prefix}/snapshots/{source_id}/{tracker_id}")
}

/// `{prefix}/alerts/{rule_id}`.
pub fn alerts(prefix: &str, rule_id: &str) -> String {
    format!("{prefix}/alerts/{rule_id}")
}

/// `{prefix}/control/status/{instance_id}`: retained status and last will.
pub fn status(prefix: &str, instance_id: &str) -> String {
    format!("{prefix}/control/status/{instance_id}")
}

/// `{prefix}/control/commands`: one topic for all instances.
pub fn commands(prefix: &str) -> String {
    format!("{prefix}/control/commands")
}

/// `{prefix}/control/status/ack`: the answers of all instances.
pub fn ack(prefix: &str) -> String {
    format!("{prefix}/control/status/ack")
}

/// `{prefix}/status/metrics/{instance_id}`.
pub fn metrics(prefix: &str, instance_id: &str) -> String {
    format!("{prefix}/status/metrics/{instance_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_follow_the_protocol() {
        assert_eq!(detections("nvr", 2), "nvr/detections/2");
        assert_eq!(detections("nvr/shop-7", 0), "nvr/shop-7/detections/0");
        assert_eq!(events("nvr", 2), "nvr/events/2");
        assert_eq!(zones("nvr", 2), "nvr/zones/2");
        assert_eq!(snapshot("nvr", 2, 17), "nvr/snapshots/2/17");
        assert_eq!(alerts("nvr", "night"), "nvr/alerts/night");
        assert_eq!(status("nvr", "proc-a"), "nvr/control/status/proc-a");
        assert_eq!(metrics("nvr", "proc-a"), "nvr/status/metrics/proc-a");
        assert_eq!(
            (commands("nvr"), ack("nvr")),
            ("nvr/control/commands".into(), "nvr/control/status/ack".into())
        );
    }

    #[test]
    fn filters_match_as_the_specification_says() {
        for (filter, topic, expected) in [
            ("nvr/detections/2", "nvr/detections/2", true),
            ("nvr/detections/2", "nvr/detections/22", false),
            ("nvr/detections/+", "nvr/detections/2", true),
            ("nvr/detections/+", "nvr/detections/2/x", false),
            ("nvr/detections/+", "nvr/detections", false),
            ("nvr/#", "nvr", true),
            ("nvr/#", "nvr/a/b", true),
            ("+/+", "/a", true),
            ("+", "a/b", false),
            ("#", "ü/é", true),
            ("#", "$SYS/uptime", false),
            ("+/uptime", "$SYS/uptime", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(topic, filter), expected, "{filter} {topic}");
        }
        for filter in ["", "a/#/b", "a#", "a/b+", "a\0", &"x".repeat(1025)] {
            assert!(check_filter(filter).is_err(), "{filter:?}");
        }
        for filter in ["#", "+", "a/+/b/#", "$SYS/#", "/"] {
            assert!(check_filter(filter).is_ok(), "{filter:?}");
        }
    }

    #[test]
    fn bad_prefixes_and_ids_are_refused() {
        for prefix in ["", "/nvr", "nvr/", "nvr/#", "a+b", "$SYS", "a\nb"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
        assert!(check_prefix("nvr/tenant").is_ok());
        for id in ["", "ack", "a/b", "a b", "ü", &"x".repeat(129)] {
            assert!(check_instance_id(id).is_err(), "{id:?}");
        }
        assert!(check_instance_id("processor-hab-0-3").is_ok());
    }
}
