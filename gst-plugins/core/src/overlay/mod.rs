//! What an overlay shows: which events belong to a frame ([`Timeline`]), and how they look ([`plan`]).
//!
//! No pixel is touched here: a plan is a list of rectangles and small pictures that [`crate::draw::Stamp`] blends, or
//! that go downstream as a composition.

mod colours;
mod plan;
mod sighting;
mod timeline;

pub use colours::{ClassColours, ClassColoursError, PALETTE};
pub use plan::{Piece, Style, font_size, plan, thickness};
pub use sighting::{Seen, Sighting, SightingError};
pub use timeline::{Filter, Pick, Publisher, Timeline};

#[cfg(test)]
mod tests;
