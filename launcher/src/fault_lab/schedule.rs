//! A rehearsal as text: `10s 2 stall 30s`. Pure.

use std::time::Duration;

use super::fault::{Order, ParseError, Time, duration, parse_time};
use crate::values::parse_streams;

/// Which cameras a line is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cameras {
    All,
    These(Vec<u32>),
}

impl Cameras {
    pub fn contains(&self, id: u32) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(&id),
        }
    }
}

/// One line: from `at` on, counted from the start, `cameras` have a fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub at: Duration,
    pub cameras: Cameras,
    pub order: Order,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", Time(self.at.as_secs_f64()))?;
        match &self.cameras {
            Cameras::All => f.write_str("all")?,
            Cameras::These(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                f.write_str(&ids.join(","))?;
            }
        }
        write!(f, " {}", self.order)
    }
}

/// One line: `[AT] CAMERAS FAULT …`. `None` where it is empty or a comment.
pub fn parse_line(line: &str) -> Result<Option<Step>, ParseError> {
    let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
    if line.is_empty() {
        return Ok(None);
    }
    let (first, rest) = word(line);
    let (at, rest) =
        if parse_time(first).is_ok() { (duration(first)?, rest) } else { (Duration::ZERO, line) };
    let (cameras, rest) = word(rest);
    let cameras = match cameras {
        "" => return Err(ParseError("no camera is named; a line is written [AT] CAMERAS FAULT".into())),
        "all" | "*" => Cameras::All,
        ids => Cameras::These(parse_streams(ids).map_err(|_| {
            ParseError(format!("{ids:?} names no cameras; they are written 2, or 0-3,7, or all"))
        })?),
    };
    Ok(Some(Step { at, cameras, order: rest.parse()? }))
}

/// The first word, and what follows.
fn word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).map_or((text, ""), |(first, rest)| (first, rest.trim_start()))
}

/// A whole schedule in the order of its times.
///
/// # Errors
/// Every line that is wrong, with its number.
pub fn parse(text: &str) -> Result<Vec<Step>, ParseError> {
    let mut steps = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match parse_line(line) {
            Ok(step) => steps.extend(step),
            Err(error) => wrong.push(format!("line {}: {error}", number + 1)),
        }
    }
    if !wrong.is_empty() {
        return Err(ParseError(wrong.join("\n")));
    }
    steps.sort_by_key(|step| step.at);
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fault_lab::fault::Fault;

    #[test]
    fn a_schedule_is_read_and_sorted() {
        let steps = parse(
            "# a rehearsal\n\n1m all cut   # everyone\n10s 2 stall 30s\n0-1,3 drop 5\n500ms 0 answer 401 2s\r\n",
        )
        .unwrap();
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["0s 0,1,3 drop 5", "0.5s 0 answer 401 2s", "10s 2 stall 30s", "60s all cut"]);
        assert!(
            steps[0].cameras.contains(3) && !steps[0].cameras.contains(2) && steps[3].cameras.contains(9)
        );
        assert_eq!(steps[2].order.fault, Fault::Stall);
    }

    #[test]
    fn wrong_lines_are_named() {
        let error = parse("2 stall\n10s\n10s two stall\n-5s 2 stall\n3 melt\n").unwrap_err().0;
        for part in ["line 2: no camera", "line 3: \"two\" names no cameras", "line 4: ", "line 5: \"melt\""]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("line 1:"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_line_reads_back(at in 0_u64..10_000_000, ids in prop::collection::btree_set(0_u32..99, 1..5), for_ in 1_u64..99) {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            let line = format!("{at}ms {} mute {for_}s", ids.join(","));
            let step = parse_line(&line).unwrap().unwrap();
            prop_assert_eq!(parse_line(&step.to_string()).unwrap().unwrap(), step);
        }
    }
}
