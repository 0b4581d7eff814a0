use super::*;

const S: u64 = 1_000_000_000;

fn alerts(json: &str) -> Alerts {
    Alerts::new(&parse(json).unwrap(), 3)
}

fn facts(class: &str, since: u64, inside: &[(&str, u64)]) -> Facts {
    Facts {
        class: class.into(),
        since_ns: since * S,
        inside: inside.iter().map(|(zone, since)| ((*zone).into(), since * S)).collect(),
    }
}

fn noon(weekday: Weekday) -> LocalTime {
    LocalTime { weekday, minute: 720 }
}

fn ids(fired: &[Fired]) -> Vec<&str> {
    fired.iter().map(|f| f.rule.id.as_str()).collect()
}

#[test]
fn class_zone_camera_and_dwell_decide() {
    let mut a = alerts(
        r#"[{"id":"any","cooldown":0},
            {"id":"yard","objects":["Person"],"zones":["yard","gate"],"dwell":5,"cooldown":0},
            {"id":"elsewhere","cameras":[4]},
            {"id":"here","cameras":[3,4],"objects":["car"]}]"#,
    );
    let walker = facts("person", 0, &[("street", 0)]);
    assert_eq!(ids(&a.check(S, noon(Weekday::Mon), 1, &walker)), ["any"]);
    let inside = facts("person", 0, &[("yard", 2), ("street", 0)]);
    assert_eq!(a.check(6 * S, noon(Weekday::Mon), 1, &inside), []);
    let fired = a.check(7 * S, noon(Weekday::Mon), 1, &inside);
    assert_eq!(ids(&fired), ["yard"]);
    assert_eq!((fired[0].zone.as_deref(), fired[0].dwell_ns), (Some("yard"), 5 * S));
    assert_eq!(a.check(9 * S, noon(Weekday::Mon), 1, &inside), [], "once for each object");
    assert_eq!(ids(&a.check(9 * S, noon(Weekday::Mon), 2, &facts("car", 0, &[]))), ["any", "here"]);
    a.end(1);
    assert_eq!(ids(&a.check(10 * S, noon(Weekday::Mon), 1, &inside)), ["any", "yard"], "another life");
}

#[test]
fn a_rule_that_names_a_zone_that_is_not_there_is_found() {
    let zones = crate::zones::parse(r#"[{"name":"yard","line":[[0,0],[1,1]]}]"#).unwrap();
    let rules = parse(
        r#"[{"id":"right","cameras":[3],"zones":["yard"]},{"id":"wrong","cameras":[3],"zones":["yard","yrad"]},
            {"id":"elsewhere","cameras":[4],"zones":["gate"]},{"id":"anywhere","zones":["gate"]}]"#,
    )
    .unwrap();
    assert_eq!(Alerts::without_zone(&rules, 3, &zones), [("wrong", "yrad")]);
}

#[test]
fn an_object_that_every_rule_has_fired_for_is_not_looked_at() {
    let mut a = alerts(r#"[{"id":"one","cooldown":0},{"id":"two","objects":["car"],"cooldown":0}]"#);
    a.check(S, noon(Weekday::Mon), 1, &facts("person", 0, &[]));
    assert!(a.is_open(1));
    a.check(S, noon(Weekday::Mon), 2, &facts("car", 0, &[]));
    assert!(!a.is_open(2) && a.is_open(3));
    a.end(2);
    assert!(a.is_open(2));
}

#[test]
fn a_rule_that_cools_down_is_put_off() {
    let mut a = alerts(r#"[{"id":"r","cooldown":60}]"#);
    let person = facts("person", 0, &[]);
    assert_eq!(a.check(S, noon(Weekday::Mon), 1, &person).len(), 1);
    assert_eq!(a.check(30 * S, noon(Weekday::Mon), 2, &person), []);
    assert_eq!(a.check(61 * S, noon(Weekday::Mon), 2, &person).len(), 1);
}

#[test]
fn hours_and_weekdays_table() {
    use Weekday::{Fri, Mon, Sat, Sun};
    let night = r#"[{"id":"r","from":"22:00","to":"6:00","weekdays":["fri","sat"]}]"#;
    let office = r#"[{"id":"r","from":"08:00","to":"17:30","weekdays":["mon","fri"]}]"#;
    for (json, weekday, hour, minute, expected) in [
        (night, Fri, 21, 59, false),
        (night, Fri, 22, 0, true),
        (night, Sat, 5, 59, true),
        (night, Sat, 6, 0, false),
        (night, Sun, 3, 0, true),
        (night, Sun, 22, 0, false),
        (night, Fri, 3, 0, false),
        (office, Mon, 8, 0, true),
        (office, Mon, 17, 29, true),
        (office, Mon, 17, 30, false),
        (office, Sun, 12, 0, false),
        (r#"[{"id":"r","from":"18:00"}]"#, Mon, 23, 59, true),
        (r#"[{"id":"r","from":"18:00"}]"#, Mon, 0, 0, false),
        (r#"[{"id":"r","to":"24:00"}]"#, Mon, 23, 59, true),
        (r#"[{"id":"r","from":"00:00","to":"00:00"}]"#, Mon, 12, 0, true),
    ] {
        let local = LocalTime { weekday, minute: hour * 60 + minute };
        let fired = alerts(json).check(S, local, 1, &facts("person", 0, &[]));
        assert_eq!(!fired.is_empty(), expected, "{json} {weekday:?} {hour}:{minute:02}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_without_secrets() {
    for (json, part) in [
        ("{}", "JSON array"),
        (r#"[{"id":"a/b"}]"#, "letters, digits"),
        (r#"[{"id":"a"},{"id":"a"}]"#, "two alert rules"),
        (r#"[{"id":"a","from":"25:00"}]"#, "from must be a time"),
        (r#"[{"id":"a","to":"12:60"}]"#, "to must be a time"),
        (r#"[{"id":"a","to":"noon"}]"#, "to must be a time"),
        (r#"[{"id":"a","weekdays":["monday"]}]"#, "unknown variant"),
        (r#"[{"id":"a","dwell":-1}]"#, "dwell must be seconds"),
        (r#"[{"id":"a","cooldown":1e9}]"#, "cooldown must be seconds"),
        (r#"[{"id":"a","webhook":"ftp://u:geheim@h"}]"#, "webhook must be an http"),
        (r#"[{"id":"a","command":"curl geheim"}]"#, "another type"),
        (r#"[{"id":"a","command":[""]}]"#, "command must be a program"),
        (r#"[{"id":"a","sound":1}]"#, "unknown field"),
    ] {
        let error = parse(json).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("geheim"), "{json}: {error}");
    }
    assert_eq!(parse("").unwrap(), []);
    let many: Vec<_> = (0..=MAX_RULES).map(|n| format!(r#"{{"id":"{n}"}}"#)).collect();
    assert!(parse(&format!("[{}]", many.join(","))).is_err());
}
