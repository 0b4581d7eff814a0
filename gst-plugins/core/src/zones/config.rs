//! How zones are written down: a JSON array, one object for each.

use serde::{Deserialize, Serialize};

use super::shape::{Direction, Line, Point, Polygon, ShapeError};

/// Zones of one camera.
pub const MAX_ZONES: usize = 64;
/// Longest text that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// Why zones cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    #[error("zones are a JSON array of objects: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} bytes of zones are too many; {MAX_BYTES} are allowed")]
    TooLong(usize),
    #[error("{0} zones are too many; {MAX_ZONES} are allowed")]
    TooMany(usize),
    #[error("zone {0:?}: a name has 1 to 64 characters and no control characters")]
    Name(String),
    #[error("two zones are named {0:?}")]
    Twice(String),
    #[error("zone {0:?} needs either \"polygon\" or \"line\"")]
    Shape(String),
    #[error("zone {name:?}: {error}")]
    Corner { name: String, error: ShapeError },
    #[error("zone {name:?}: {key} must be {wanted}")]
    Number { name: String, key: &'static str, wanted: &'static str },
}

/// What is watched.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Area(Polygon),
    Line(Line),
}

/// One zone or line.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    pub name: String,
    pub shape: Shape,
    /// Classes that count; empty for all.
    pub objects: Vec<String>,
    pub min_confidence: f32,
    /// Smallest and largest box, as shares of the frame's area.
    pub min_area: f64,
    pub max_area: f64,
    /// Seconds for which an object has to be on the other side before that counts.
    pub inertia: f64,
    /// Seconds inside after which an object loiters.
    pub loitering: Option<f64>,
    /// The only direction that counts, of a line.
    pub direction: Option<Direction>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polygon: Option<Vec<Point>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<[Point; 2]>,
    #[serde(default)]
    objects: Vec<String>,
    #[serde(default)]
    min_confidence: f32,
    #[serde(default)]
    min_area: f64,
    #[serde(default = "one")]
    max_area: f64,
    #[serde(default = "half")]
    inertia: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loitering: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

/// Reads a JSON array of zones; empty text is none.
pub fn parse(text: &str) -> Result<Vec<Zone>, ZoneError> {
    if text.len() > MAX_BYTES {
        return Err(ZoneError::TooLong(text.len()));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let raw: Vec<Raw> = serde_json::from_str(text)?;
    if raw.len() > MAX_ZONES {
        return Err(ZoneError::TooMany(raw.len()));
    }
    let mut zones: Vec<Zone> = Vec::new();
    for raw in raw {
        if zones.iter().any(|zone| zone.name == raw.name) {
            return Err(ZoneError::Twice(raw.name));
        }
        zones.push(zone(raw)?);
    }
    Ok(zones)
}

fn zone(raw: Raw) -> Result<Zone, ZoneError> {
    let name = raw.name;
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(ZoneError::Name(name));
    }
    let shape = match (raw.polygon, raw.line) {
        (Some(corners), None) => Polygon::new(corners).map(Shape::Area),
        (None, Some([from, to])) => Line::new(from, to).map(Shape::Line),
        _ => return Err(ZoneError::Shape(name)),
    };
    let shape = match shape {
        Ok(shape) => shape,
        Err(error) => return Err(ZoneError::Corner { name, error }),
    };
    let share = 0.0..=1.0;
    let seconds = 0.0..=86_400.0;
    for (key, good, wanted) in [
        ("min_confidence", (0.0..=1.0).contains(&raw.min_confidence), "a number from 0 to 1"),
        ("min_area", share.contains(&raw.min_area), "a share of the frame, from 0 to 1"),
        ("max_area", share.contains(&raw.max_area), "a share of the frame, from 0 to 1"),
        ("inertia", seconds.contains(&raw.inertia), "seconds, from 0 to 86400"),
        ("loitering", raw.loitering.is_none_or(|s| seconds.contains(&s)), "seconds, from 0 to 86400"),
        (
            "loitering",
            raw.loitering.is_none() || matches!(shape, Shape::Area(_)),
            "left out for a line, on which nobody stays",
        ),
        (
            "direction",
            raw.direction.is_none() || matches!(shape, Shape::Line(_)),
            "left out for a polygon, which has none",
        ),
    ] {
        if !good {
            return Err(ZoneError::Number { name, key, wanted });
        }
    }
    Ok(Zone {
        name,
        shape,
        objects: raw.objects,
        min_confidence: raw.min_confidence,
        min_area: raw.min_area,
        max_area: raw.max_area,
        inertia: raw.inertia,
        loitering: raw.loitering,
        direction: raw.direction,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_read_with_their_defaults() {
        let zones = parse(
            r#"[{"name":"yard","polygon":[[0,0],[1,0],[1,1]]},
                {"name":"gate","line":[[0.5,0.1],[0.5,0.9]],"objects":["person"],"direction":"left_to_right",
                 "min_confidence":0.6,"min_area":0.01,"max_area":0.5,"inertia":0}]"#,
        )
        .unwrap();
        assert_eq!((zones[0].inertia, zones[0].max_area, zones[0].loitering), (0.5, 1.0, None));
        assert_eq!(zones[1].direction, Some(Direction::LeftToRight));
        assert!(matches!(zones[1].shape, Shape::Line(_)));
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("[]").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_name_of_the_zone() {
        for (text, part) in [
            ("{}", "JSON array"),
            (r#"[{"name":"a"}]"#, "needs either"),
            (r#"[{"name":"a","polygon":[[0,0],[1,0],[1,1]],"line":[[0,0],[1,1]]}]"#, "needs either"),
            (r#"[{"name":"a","polygon":[[0,0],[1,0]]}]"#, "zone \"a\": 2 corners"),
            (r#"[{"name":"a","line":[[0,0],[0,0]]}]"#, "two different ends"),
            (r#"[{"name":"","line":[[0,0],[0,1]]}]"#, "1 to 64 characters"),
            (r#"[{"name":"a","line":[[0,0],[0,1]],"colour":1}]"#, "unknown field"),
            (r#"[{"name":"a","line":[[0,0],[0,1]],"loitering":1}]"#, "nobody stays"),
            (r#"[{"name":"a","polygon":[[0,0],[1,0],[1,1]],"direction":"left_to_right"}]"#, "has none"),
            (r#"[{"name":"a","line":[[0,0],[0,1]],"inertia":-1}]"#, "inertia must be seconds"),
            (r#"[{"name":"a","line":[[0,0],[0,1]]},{"name":"a","line":[[0,0],[0,1]]}]"#, "two zones"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(&" ".repeat(MAX_BYTES + 1)).is_err());
        let many: Vec<_> = (0..65).map(|n| format!(r#"{{"name":"{n}","line":[[0,0],[0,1]]}}"#)).collect();
        assert!(matches!(parse(&format!("[{}]", many.join(","))), Err(ZoneError::TooMany(65))));
    }
}
