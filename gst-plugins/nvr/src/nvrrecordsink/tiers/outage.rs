//! Which tiers of a camera are there. What changes is told once: a tier that is missing, and one that is back.

use parking_lot::Mutex;

use super::super::report::Voice;
use super::super::volume::VolumeError;
use super::PlaceError;

/// A tier of a camera as it was found at the last look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TierReport {
    /// `hot`, `warm` or `cold`.
    pub tier: &'static str,
    /// As it can be shown: it holds no secret.
    pub location: String,
    /// What is wrong with it and what to do; `None` where it takes recordings.
    pub error: Option<String>,
}

impl TierReport {
    /// As messages and status spell it.
    pub fn state(&self) -> &'static str {
        if self.error.is_some() { "failing" } else { "ready" }
    }
}

/// What is known of one camera's tiers, and where changes are told.
#[derive(Debug, Default)]
pub struct Outages {
    known: Mutex<Vec<TierReport>>,
    voice: Option<Voice>,
}

impl Outages {
    pub fn told_by(voice: Voice) -> Self {
        Self { known: Mutex::default(), voice: Some(voice) }
    }

    pub fn list(&self) -> Vec<TierReport> {
        self.known.lock().clone()
    }

    /// Takes what a look has found; tells what is no longer as it was.
    pub fn note(&self, found: &[TierReport], source_id: u32) {
        let before = std::mem::replace(&mut *self.known.lock(), found.to_vec());
        let Some(voice) = &self.voice else { return };
        for report in changed(&before, found) {
            voice.tier(report, source_id);
        }
    }
}

/// Those of `found` that fail and did not, or do no longer. A tier that is there at the first look is no news.
fn changed<'a>(before: &'a [TierReport], found: &'a [TierReport]) -> impl Iterator<Item = &'a TierReport> {
    found.iter().filter(|report| {
        let failed = before.iter().any(|old| old.tier == report.tier && old.error.is_some());
        failed != report.error.is_some()
    })
}

/// What is wrong with a tier, in words that say what happens meanwhile and what to do.
pub fn explain(error: &PlaceError, meanwhile: &str) -> String {
    let advice = match error {
        PlaceError::Volume(VolumeError::Gone(_)) => "mount its disk, or correct its location",
        PlaceError::Volume(VolumeError::Other { .. }) => {
            "connect its own disk; a new one in its place needs the wanted line in that file"
        }
        PlaceError::S3(_) => "check its location, its key, and the way to the store",
        _ => "check its disk, and that the recorder may write there",
    };
    format!("{error}; {meanwhile}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tier: &'static str, error: Option<&str>) -> TierReport {
        TierReport { tier, location: format!("/{tier}"), error: error.map(str::to_owned) }
    }

    #[test]
    fn each_outage_is_news_once_and_so_is_its_end() {
        let there = [report("hot", None), report("warm", None)];
        let gone = [report("hot", None), report("warm", Some("gone"))];
        let otherwise = [report("hot", None), report("warm", Some("gone in other words"))];
        let news = |before: &[TierReport], found: &[TierReport]| {
            changed(before, found).map(|report| (report.tier, report.state())).collect::<Vec<_>>()
        };
        for (before, found, expected) in [
            (&[][..], &there[..], &[][..]),
            (&[], &gone, &[("warm", "failing")]),
            (&there, &gone, &[("warm", "failing")]),
            (&gone, &otherwise, &[]),
            (&otherwise, &there, &[("warm", "ready")]),
            (&there, &there, &[]),
        ] {
            assert_eq!(news(before, found), expected, "{before:?} {found:?}");
        }
    }

    #[test]
    fn an_explanation_names_the_place_and_says_what_to_do() {
        for (error, parts) in [
            (PlaceError::Volume(VolumeError::Gone("/mnt/warm".into())), ["/mnt/warm", "mount its disk"]),
            (
                PlaceError::Volume(VolumeError::Other {
                    path: "/mnt/cold".into(),
                    found: "b".into(),
                    wanted: "a".into(),
                }),
                ["wanted is a", "connect its own disk"],
            ),
            (
                PlaceError::Io { path: "/srv".into(), error: std::io::ErrorKind::PermissionDenied.into() },
                ["/srv", "may write there"],
            ),
        ] {
            let text = explain(&error, "recordings wait");
            assert!(text.contains("; recordings wait: "), "{text}");
            for part in parts {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}
