//! One colour per class, from a palette whose colours people with any common colour blindness can tell apart.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::draw::{ColourError, Rgba};

/// The colours of Okabe and Ito, "Color Universal Design" (2008), without black: orange, sky blue, bluish green,
/// yellow, blue, vermillion, reddish purple. The blue is a little lighter than theirs, which is lost on dark ground.
pub const PALETTE: [Rgba; 7] = [
    Rgba::rgb(230, 159, 0),
    Rgba::rgb(86, 180, 233),
    Rgba::rgb(0, 158, 115),
    Rgba::rgb(240, 228, 66),
    Rgba::rgb(20, 130, 200),
    Rgba::rgb(213, 94, 0),
    Rgba::rgb(204, 121, 167),
];

/// Classes that are often seen together, far apart in the palette.
const KNOWN: [(&str, usize); 12] = [
    ("person", 0),
    ("face", 3),
    ("car", 1),
    ("truck", 4),
    ("bus", 2),
    ("van", 4),
    ("bicycle", 3),
    ("motorcycle", 5),
    ("dog", 6),
    ("cat", 2),
    ("bird", 3),
    ("license_plate", 3),
];

/// Colours of one's own for some classes; the palette's for the others. Written `person=#e69f00,car=#56b4e9`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClassColours(BTreeMap<String, Rgba>);

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClassColoursError {
    #[error("{0:?}: expected class=#rrggbb, separated by commas")]
    NoColour(String),
    #[error("class {class:?}: {error}")]
    Colour { class: String, error: ColourError },
}

impl ClassColours {
    /// The colour of a class: always the same for the same name.
    pub fn of(&self, class: &str) -> Rgba {
        if let Some(colour) = self.0.get(class) {
            return *colour;
        }
        let known = KNOWN.iter().find(|(name, _)| *name == class);
        let index = known.map_or_else(
            // FNV-1a.
            || {
                class.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
                    as usize
            },
            |(_, index)| *index,
        );
        PALETTE[index % PALETTE.len()]
    }
}

impl FromStr for ClassColours {
    type Err = ClassColoursError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let (class, colour) =
                    entry.rsplit_once('=').ok_or_else(|| ClassColoursError::NoColour(entry.into()))?;
                let class = class.trim().to_string();
                match colour.trim().parse() {
                    Ok(colour) => Ok((class, colour)),
                    Err(error) => Err(ClassColoursError::Colour { class, error }),
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for ClassColours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (class, colour)) in self.0.iter().enumerate() {
            write!(f, "{}{class}={colour}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}
