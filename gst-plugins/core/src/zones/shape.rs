//! Polygons and lines in normalised coordinates: 0 to 1 of the frame, from its top left corner.

/// A place in the frame.
pub type Point = [f64; 2];

/// What is nearer than this to a line lies on it: far less than a pixel.
const NEAR: f64 = 1e-9;
const BELOW_ONE: f64 = 1.0_f64.next_down();

/// Corners of one polygon; more are a mistake.
pub const MAX_CORNERS: usize = 256;

/// Why a shape cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    #[error("{0} corners are too few for a polygon; three are needed")]
    TooFew(usize),
    #[error("{0} corners are too many; {MAX_CORNERS} are allowed")]
    TooMany(usize),
    #[error("corner {0:?} is outside the frame; coordinates go from 0 to 1")]
    Outside(Point),
    #[error("a polygon without area covers nothing")]
    Flat,
    #[error("a line needs two different ends")]
    NoLength,
    #[error("{0:?} is not \"x,y x,y x,y\" with numbers from 0 to 1")]
    Text(String),
}

/// The inside of a closed outline; where it crosses itself, by the even-odd rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    corners: Vec<Point>,
    low: Point,
    high: Point,
}

impl Polygon {
    pub fn new(corners: Vec<Point>) -> Result<Self, ShapeError> {
        match corners.len() {
            n @ 0..3 => return Err(ShapeError::TooFew(n)),
            n if n > MAX_CORNERS => return Err(ShapeError::TooMany(n)),
            _ => {}
        }
        corners.iter().try_for_each(check)?;
        let bound = |axis: usize, pick: fn(f64, f64) -> f64| {
            corners.iter().map(|c| c[axis]).reduce(pick).unwrap_or_default()
        };
        let (low, high) =
            ([bound(0, f64::min), bound(1, f64::min)], [bound(0, f64::max), bound(1, f64::max)]);
        if low[0] >= high[0] || low[1] >= high[1] || in_a_row(&corners) {
            return Err(ShapeError::Flat);
        }
        Ok(Self { corners, low, high })
    }

    /// From `"0.1,0.2 0.5,0.2 0.5,0.9"`.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        Self::new(parse_points(text)?)
    }

    pub fn corners(&self) -> &[Point] {
        &self.corners
    }

    /// Whether the point lies inside (even-odd rule; left and upper edges belong to it, and those that lie on the
    /// frame's border: who is cut by that stands on it).
    pub fn contains(&self, point: Point) -> bool {
        let [x, y] = point.map(|v| if v == 1.0 { BELOW_ONE } else { v });
        if !(self.low[0]..=self.high[0]).contains(&x) || !(self.low[1]..=self.high[1]).contains(&y) {
            return false;
        }
        let mut inside = false;
        let mut before = self.corners[self.corners.len() - 1];
        for &corner in &self.corners {
            let ([ax, ay], [bx, by]) = (before, corner);
            // Half open, so that a ray through a corner crosses one of its two edges.
            if (ay > y) != (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax) {
                inside = !inside;
            }
            before = corner;
        }
        inside
    }
}

/// Polygons apart by semicolons: `"0,0 1,0 1,0.1 0,0.1; 0.5,0.5 …"`. Empty text is none.
pub fn parse_polygons(text: &str) -> Result<Vec<Polygon>, ShapeError> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(Polygon::parse).collect()
}

/// A line with two sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub from: Point,
    pub to: Point,
}

/// Which way a line was crossed, seen by someone who walks it from its first end to its last: the picture's y goes
/// down, so left is left on the screen for a line that leads up.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    LeftToRight,
    RightToLeft,
}

impl Line {
    pub fn new(from: Point, to: Point) -> Result<Self, ShapeError> {
        [from, to].iter().try_for_each(check)?;
        if from == to { Err(ShapeError::NoLength) } else { Ok(Self { from, to }) }
    }

    /// Which side the point is on: negative is left, positive is right, 0 is on the (endless) line.
    pub fn side(&self, [x, y]: Point) -> f64 {
        let ([ax, ay], [bx, by]) = (self.from, self.to);
        (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    }

    /// Whether the way from `a` to `b` crosses it, and which way. Points on the line count as right of it, so that
    /// who stops on it and goes on crosses once and who turns back does not. The ends belong to the line.
    pub fn crossed(&self, a: Point, b: Point) -> Option<Direction> {
        let (before, after) = (self.side(a), self.side(b));
        if (before < 0.0) == (after < 0.0) {
            return None;
        }
        let share = before / (before - after);
        let at = [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
        let along = |p: Point| {
            (p[0] - self.from[0]) * (self.to[0] - self.from[0])
                + (p[1] - self.from[1]) * (self.to[1] - self.from[1])
        };
        (0.0..=along(self.to)).contains(&along(at)).then_some(if before < 0.0 {
            Direction::LeftToRight
        } else {
            Direction::RightToLeft
        })
    }
}

/// Whether all corners lie on one line, whichever way it goes.
fn in_a_row(corners: &[Point]) -> bool {
    let (a, rest) = (corners[0], &corners[1..]);
    let away = |p: &Point| [p[0] - a[0], p[1] - a[1]];
    let far = rest.iter().map(away).max_by(|p, q| p[0].hypot(p[1]).total_cmp(&q[0].hypot(q[1])));
    let Some([dx, dy]) = far else { return true };
    rest.iter().map(away).all(|[x, y]| (dx * y - dy * x).abs() <= NEAR * dx.hypot(dy))
}

fn check(point: &Point) -> Result<(), ShapeError> {
    if point.iter().all(|v| (0.0..=1.0).contains(v)) { Ok(()) } else { Err(ShapeError::Outside(*point)) }
}

fn parse_points(text: &str) -> Result<Vec<Point>, ShapeError> {
    let bad = || ShapeError::Text(text.chars().take(80).collect());
    text.split_whitespace()
        .map(|pair| {
            let (x, y) = pair.split_once(',').ok_or_else(bad)?;
            Ok([x.parse().map_err(|_| bad())?, y.parse().map_err(|_| bad())?])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn square() -> Polygon {
        Polygon::parse("0.2,0.2 0.6,0.2 0.6,0.6 0.2,0.6").unwrap()
    }

    #[test]
    fn containment_table() {
        for (point, expected) in [
            ([0.4, 0.4], true),
            ([0.2, 0.2], true),
            ([0.6, 0.6], false),
            ([0.1, 0.4], false),
            ([0.4, 0.7], false),
            ([f64::NAN, 0.4], false),
            ([f64::INFINITY, 0.4], false),
        ] {
            assert_eq!(square().contains(point), expected, "{point:?}");
        }
        let lower = Polygon::parse("0.5,0.5 1,0.5 1,1 0.5,1").unwrap();
        for corner in [[1.0, 1.0], [0.5, 1.0], [1.0, 0.5], [0.75, 1.0]] {
            assert!(lower.contains(corner), "on the frame's border: {corner:?}");
        }
        assert!(!lower.contains([0.4, 1.0]) && !square().contains([1.0, 1.0]));
        // An L, whose missing quarter is outside.
        let l = Polygon::parse("0,0 1,0 1,0.5 0.5,0.5 0.5,1 0,1").unwrap();
        assert!(l.contains([0.25, 0.75]) && l.contains([0.75, 0.25]) && !l.contains([0.75, 0.75]));
        // A bow tie: both wings, nothing between.
        let tie = Polygon::parse("0,0 1,1 1,0 0,1").unwrap();
        assert!(tie.contains([0.1, 0.5]) && tie.contains([0.9, 0.5]) && !tie.contains([0.5, 0.1]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, part) in [
            ("0,0 1,1", "2 corners are too few"),
            ("", "0 corners"),
            ("0,0 1,0 2,1", "outside the frame"),
            ("0,0 1,0 nan,1", "outside the frame"),
            ("0,0 0.5,0 1,0", "without area"),
            // Not only those along the frame's sides.
            ("0.1,0.1 0.5,0.5 0.9,0.9", "without area"),
            ("0.9,0.1 0.3,0.7 0.5,0.5 0.1,0.9", "without area"),
            ("0,0 1;0 1,1", "is not"),
            ("a,b c,d e,f", "is not"),
        ] {
            assert!(Polygon::parse(text).unwrap_err().to_string().contains(part), "{text}");
        }
        assert!(matches!(Polygon::new(vec![[0.5, 0.5]; 257]), Err(ShapeError::TooMany(257))));
        assert_eq!(Line::new([0.5, 0.5], [0.5, 0.5]), Err(ShapeError::NoLength));
        assert!(Line::new([0.5, 0.5], [0.5, -0.5]).is_err());
        assert_eq!(parse_polygons(" ").unwrap(), []);
        assert_eq!(parse_polygons("0,0 1,0 1,1; 0,0 0,1 1,1;").unwrap().len(), 2);
    }

    #[test]
    fn crossing_table() {
        // Leads up the screen, so left is left.
        let line = Line::new([0.5, 0.8], [0.5, 0.2]).unwrap();
        for (a, b, expected) in [
            ([0.4, 0.5], [0.6, 0.5], Some(Direction::LeftToRight)),
            ([0.6, 0.5], [0.4, 0.5], Some(Direction::RightToLeft)),
            ([0.4, 0.9], [0.6, 0.9], None),
            ([0.4, 0.5], [0.45, 0.5], None),
            // Onto the line and on, or back.
            ([0.4, 0.5], [0.5, 0.5], Some(Direction::LeftToRight)),
            ([0.5, 0.5], [0.6, 0.5], None),
            ([0.5, 0.5], [0.4, 0.5], Some(Direction::RightToLeft)),
            // Along it.
            ([0.5, 0.3], [0.5, 0.6], None),
            // At its end.
            ([0.4, 0.2], [0.6, 0.2], Some(Direction::LeftToRight)),
        ] {
            assert_eq!(line.crossed(a, b), expected, "{a:?} {b:?}");
        }
    }

    /// Slow and plain: the angles under which a point sees the edges add up to a full turn when it is inside.
    fn winds_around(corners: &[Point], [x, y]: Point) -> bool {
        let angle = |p: Point| (p[1] - y).atan2(p[0] - x);
        let total: f64 = (0..corners.len())
            .map(|n| {
                let turn = angle(corners[(n + 1) % corners.len()]) - angle(corners[n]);
                (turn + std::f64::consts::PI).rem_euclid(std::f64::consts::TAU) - std::f64::consts::PI
            })
            .sum();
        total.abs() > std::f64::consts::PI
    }

    fn point() -> impl Strategy<Value = Point> {
        [0.0..=1.0f64, 0.0..=1.0f64]
    }

    fn distance([px, py]: Point, [ax, ay]: Point, [bx, by]: Point) -> f64 {
        let (dx, dy) = (bx - ax, by - ay);
        let t = (((px - ax) * dx + (py - ay) * dy) / (dx * dx + dy * dy).max(1e-18)).clamp(0.0, 1.0);
        (px - ax - t * dx).hypot(py - ay - t * dy)
    }

    proptest! {
        /// A star around the middle never crosses itself: both rules agree.
        #[test]
        fn contains_agrees_with_angles(
            rays in prop::collection::vec(0.05f64..0.5, 3..12),
            points in prop::collection::vec(point(), 20),
        ) {
            let n = rays.len() as f64;
            let corners: Vec<Point> = rays
                .iter()
                .enumerate()
                .map(|(k, r)| {
                    let a = std::f64::consts::TAU * k as f64 / n;
                    [(0.5 + r * a.cos()).clamp(0.0, 1.0), (0.5 + r * a.sin()).clamp(0.0, 1.0)]
                })
                .collect();
            let polygon = Polygon::new(corners.clone()).unwrap();
            for p in points {
                let edge = (0..corners.len())
                    .map(|k| distance(p, corners[k], corners[(k + 1) % corners.len()]))
                    .fold(1.0, f64::min);
                if edge > 1e-6 {
                    prop_assert_eq!(polygon.contains(p), winds_around(&corners, p), "{:?}", p);
                }
            }
        }

        /// Against many small steps: the side changes an odd number of times between the ends of the line.
        #[test]
        fn crossing_agrees_with_small_steps(from in point(), to in point(), a in point(), b in point()) {
            prop_assume!(from != to);
            let line = Line::new(from, to).unwrap();
            let steps = 4000;
            let at = |k: i32| {
                let t = f64::from(k) / f64::from(steps);
                [a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]
            };
            let mut found = None;
            for k in 0..steps {
                let (p, q) = (at(k), at(k + 1));
                let (before, after) = (line.side(p) < 0.0, line.side(q) < 0.0);
                if before != after && distance(p, from, to) < 1.5e-3 {
                    found = Some(if before { Direction::LeftToRight } else { Direction::RightToLeft });
                }
            }
            // Close to an end of the line the steps are too coarse to tell.
            let clear = |e: Point| distance(e, a, b) > 3e-3;
            if clear(from) && clear(to) {
                prop_assert_eq!(line.crossed(a, b), found);
            }
        }
    }
}
