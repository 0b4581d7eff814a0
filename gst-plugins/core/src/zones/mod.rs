//! Who is where: polygons and lines in the picture, who enters, stays, leaves and crosses.
//!
//! An object stands where the middle of its box's lower edge is. To enter or to leave it has to be seen on the other
//! side for [`Zone::inertia`] seconds, so that a box that trembles on the edge does not come and go; the moment that
//! counts is the first of these sightings.

mod config;
mod heat;
mod shape;
#[cfg(test)]
mod tests;
mod watch;

pub use config::{MAX_ZONES, Shape, Zone, ZoneError, parse};
pub use heat::HeatMap;
pub use shape::{Direction, Line, MAX_CORNERS, Point, Polygon, ShapeError, parse_polygons};
pub use watch::{Counts, Seen, Watcher, ZoneEvent, ZoneEventKind};
