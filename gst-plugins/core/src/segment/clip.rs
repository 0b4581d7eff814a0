//! Clips: pieces of a recording that somebody asked for, as finished files beside the recordings. Their names come
//! from the network: a name, never a path.

use std::path::PathBuf;

use super::name::{self, EXTENSION};

/// Directory of the clips, below that of the recordings.
pub const FOLDER: &str = "clips";
/// Most seconds before and after the moment of asking, each.
pub const MAX_SECONDS: f64 = 600.0;
/// Longest name, in bytes.
const MAX_NAME: usize = 64;

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a clip is named by 1 to {MAX_NAME} letters, digits, '-', '_' or '.' that do not begin with '.', got {0:?}; it is a \
     name and no path"
)]
pub struct NameError(String);

/// Checks a clip's name, which is without the ending.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let good = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if good { Ok(()) } else { Err(NameError(name.chars().take(MAX_NAME).collect())) }
}

/// The name of a clip that was given none.
pub fn default_name(asked_us: i64) -> String {
    name::stem(asked_us)
}

/// Where a clip lies below the directory of the recordings.
///
/// # Errors
/// The name is none.
pub fn path(source_id: u32, name: &str) -> Result<PathBuf, NameError> {
    check_name(name)?;
    let mut path = PathBuf::from(FOLDER);
    path.push(source_id.to_string());
    path.push(format!("{name}.{EXTENSION}"));
    Ok(path)
}

/// Which of the segments that begin at `starts`, in order, may hold something of a time.
pub fn touching(starts: &[i64], from_us: i64, to_us: i64) -> std::ops::Range<usize> {
    let first = starts.partition_point(|start| *start <= from_us).saturating_sub(1);
    let end = starts.partition_point(|start| *start < to_us);
    first.min(end)..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_no_path() {
        assert_eq!(path(2, "front-door_1.b").unwrap(), PathBuf::from("clips/2/front-door_1.b.mp4"));
        let long = "x".repeat(65);
        for wrong in
            ["", ".", "..", ".x", "a/b", "../x", "/etc/x", "a\\b", "a\0b", "a b", "ä", "a\n", "a%2fb", &long]
        {
            let error = path(2, wrong).unwrap_err().to_string();
            assert!(error.contains("no path") && error.len() < 300, "{wrong:?}: {error}");
        }
        assert_eq!(check_name(&default_name(1_763_709_138_123_456)), Ok(()));
    }

    #[test]
    fn segments_that_touch_a_time_are_found() {
        let starts = [0, 10, 20, 30];
        for (from, to, expected) in [
            (0, 5, 0..1),
            (5, 15, 0..2),
            (10, 20, 1..2),
            (25, 100, 2..4),
            (-5, 0, 0..0),
            (-5, 1, 0..1),
            (35, 36, 3..4),
        ] {
            assert_eq!(touching(&starts, from, to), expected, "{from} to {to}");
        }
        assert!(touching(&[], 0, 1).is_empty());
    }

    proptest! {
        #[test]
        fn a_name_that_passes_stays_in_its_folder(name in ".{0,80}") {
            if let Ok(path) = path(7, &name) {
                let parts: Vec<_> = path.components().collect();
                prop_assert_eq!(parts.len(), 3);
                prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
