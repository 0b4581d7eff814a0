//! Where everything goes: boxes, labels, trails and lines of text, in pixels of one frame.

use std::fmt::Write;

use super::colours::ClassColours;
use super::timeline::Pick;
use crate::draw::{Print, Rgba, Stamp, Typeface, Vertex};
use crate::geometry::Rect;

/// Objects whose trails are drawn.
const MAX_TRAILS: usize = 64;
/// Dark edges on both sides of a coloured line.
const EDGE: Rgba = Rgba { r: 0, g: 0, b: 0, a: 150 };
/// Dark edges of trails, which lie on the ground and must not look like shadows.
const TRAIL_EDGE: Rgba = Rgba { r: 0, g: 0, b: 0, a: 70 };
/// Ground of the lines of text.
const PANEL: Rgba = Rgba { r: 0, g: 0, b: 0, a: 140 };

/// What is shown, and how large.
#[derive(Clone, Debug, PartialEq)]
pub struct Style {
    pub labels: bool,
    pub confidence: bool,
    /// Track numbers and trails.
    pub tracks: bool,
    pub latency: bool,
    pub fps: bool,
    /// Pixels; `None` for what suits the frame.
    pub thickness: Option<u32>,
    /// Pixels per em; `None` for what suits the frame.
    pub font_size: Option<f32>,
    pub colours: ClassColours,
    /// How long a trail reaches back.
    pub trail_ns: u64,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            labels: true,
            confidence: true,
            tracks: true,
            latency: false,
            fps: false,
            thickness: None,
            font_size: None,
            colours: ClassColours::default(),
            trail_ns: 1_500_000_000,
        }
    }
}

/// One thing to draw.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// The same row of pixels, `height` times.
    Bars {
        x: i32,
        y: i32,
        height: u32,
        row: Vec<Rgba>,
    },
    Print {
        x: i32,
        y: i32,
        print: Print,
    },
}

impl Piece {
    pub fn stamp(&self, stamp: &mut Stamp) {
        match self {
            Self::Bars { x, y, height, row } => stamp.bars((*x, *y), *height, row),
            Self::Print { x, y, print } => stamp.print(print, *x, *y),
        }
    }
}

/// Pixels per em that can be read on a frame without covering it.
pub fn font_size(width: usize, height: usize) -> f32 {
    (width.min(height) as f32 * 0.0205 + 4.6).max(10.0).round()
}

/// Pixels of a box's line that suit a frame.
pub fn thickness(width: usize, height: usize) -> u32 {
    match width.min(height) {
        0..240 => 1,
        240..540 => 2,
        side => (side as f32 / 270.0).round() as u32,
    }
}

/// Lays out what is to be shown on a frame of `width` × `height`, first to last.
pub fn plan(
    picks: &[Pick<'_>],
    style: &Style,
    (width, height): (usize, usize),
    typeface: &mut Typeface,
) -> Vec<Piece> {
    let mut layout = Layout {
        style,
        width: width as f32,
        height: height as f32,
        font: style.font_size.unwrap_or_else(|| font_size(width, height)),
        line: style.thickness.unwrap_or_else(|| thickness(width, height)) as i32,
        typeface,
        pieces: Vec::new(),
        taken: Vec::new(),
    };
    if style.tracks {
        for pick in picks {
            layout.trails(pick);
        }
    }
    let mut boxes: Vec<_> = picks
        .iter()
        .flat_map(|pick| {
            let sighting = pick.sighting();
            let scale = scale(sighting.width, sighting.height, layout.width, layout.height);
            sighting.seen.iter().map(move |seen| (seen, scaled(&seen.rect, scale)))
        })
        .filter_map(|(seen, rect)| {
            let rect = rect.clipped(layout.width, layout.height);
            rect.is_valid().then_some((seen, rect))
        })
        .collect();
    boxes.sort_by(|a, b| b.0.confidence.total_cmp(&a.0.confidence));
    // The most confident lies on top.
    for (seen, rect) in boxes.iter().rev() {
        layout.outline(rect, style.colours.of(&seen.class));
    }
    // Labels keep clear of the lines of text.
    let lines = if style.latency || style.fps { layout.lines(picks) } else { Vec::new() };
    if style.labels || style.confidence || style.tracks {
        let mut labels = Vec::new();
        let mut text = String::new();
        // The most confident has the first choice of a place.
        for (seen, rect) in &boxes {
            text.clear();
            if style.labels {
                text.push_str(&seen.class);
            }
            // Writing to a string cannot fail.
            if style.confidence {
                let space = if text.is_empty() { "" } else { " " };
                let _ = write!(text, "{space}{:.0}%", seen.confidence * 100.0);
            }
            if let Some(track) = seen.track.filter(|_| style.tracks) {
                let space = if text.is_empty() { "" } else { " " };
                let _ = write!(text, "{space}#{track}");
            }
            if !text.is_empty() {
                labels.push(layout.label(rect, &text, style.colours.of(&seen.class)));
            }
        }
        layout.pieces.extend(labels.into_iter().rev());
    }
    layout.pieces.extend(lines);
    layout.pieces
}

/// From an event's frame to this one.
fn scale(from_width: f32, from_height: f32, width: f32, height: f32) -> (f32, f32) {
    let ratio = |from: f32, to: f32| if from > 0.0 { to / from } else { 1.0 };
    (ratio(from_width, width), ratio(from_height, height))
}

fn scaled(rect: &Rect, (x, y): (f32, f32)) -> Rect {
    Rect::new(rect.x * x, rect.y * y, rect.width * x, rect.height * y)
}

struct Layout<'a> {
    style: &'a Style,
    width: f32,
    height: f32,
    font: f32,
    /// Thickness of a box's line.
    line: i32,
    typeface: &'a mut Typeface,
    pieces: Vec<Piece>,
    /// Where labels are.
    taken: Vec<Rect>,
}

impl Layout<'_> {
    /// The line lies inside of the box, so that its outer edge is the box; dark edges are beside it. Drawn in bands
    /// from top to bottom, so that each row of pixels is one piece of work.
    fn outline(&mut self, rect: &Rect, colour: Rgba) {
        let (left, top) = (rect.x.round() as i32, rect.y.round() as i32);
        let (right, bottom) = (rect.right().round() as i32, rect.bottom().round() as i32);
        let edge = (self.line + 2) / 4 + i32::from(self.line < 2);
        let line = self.line.min((right - left) / 4).min((bottom - top) / 4).max(1);
        let mut band = |x: i32, y: i32, height: i32, parts: &[(i32, Rgba)]| {
            let row: Vec<_> = parts
                .iter()
                .flat_map(|(count, colour)| std::iter::repeat_n(*colour, (*count).max(0) as usize))
                .collect();
            if height > 0 && !row.is_empty() {
                self.pieces.push(Piece::Bars { x, y, height: height as u32, row });
            }
        };
        let (x, width) = (left - edge, right - left);
        band(x, top - edge, edge, &[(width + 2 * edge, EDGE)]);
        let solid = [(edge, EDGE), (width, colour), (edge, EDGE)];
        if width <= 4 * line || bottom - top <= 4 * line {
            band(x, top, bottom - top, &solid);
        } else {
            let inner = width - 2 * line;
            let rim = [(edge, EDGE), (line, colour), (inner, EDGE), (line, colour), (edge, EDGE)];
            let side = [(edge, EDGE), (line, colour), (edge, EDGE)];
            let height = bottom - top - 2 * (line + edge);
            band(x, top, line, &solid);
            band(x, top + line, edge, &rim);
            band(x, top + line + edge, height, &side);
            band(right - line - edge, top + line + edge, height, &side);
            band(x, bottom - line - edge, edge, &rim);
            band(x, bottom - line, line, &solid);
        }
        band(x, bottom, edge, &[(width + 2 * edge, EDGE)]);
    }

    /// A tag in the colour of the box: above it, else inside, else below, where no other tag is; always whole.
    fn label(&mut self, rect: &Rect, text: &str, colour: Rgba) -> Piece {
        let room = (self.width - self.font).max(self.font);
        let text = Typeface::fit(text, self.font, room);
        let print = Print::label(self.typeface, &text, self.font, colour.ink(), colour);
        let (width, height) = (print.width() as f32, print.height() as f32);
        let line = self.line as f32;
        let column = |x: f32| x.min(self.width - width).max(0.0).round();
        let places = [
            (rect.x, rect.y - height),
            (rect.x, rect.y),
            (rect.x, rect.bottom()),
            (rect.right() - width, rect.y - height),
            (rect.right() - width, rect.bottom()),
            (rect.x, rect.bottom() - height),
            (rect.right() + line, rect.y),
            (rect.x - width - line, rect.y),
        ]
        .map(|(x, y)| Rect::new(column(x), y.round(), width, height));
        let inside = |place: &Rect| place.y >= 0.0 && place.bottom() <= self.height;
        let overlap = |place: &Rect| self.taken.iter().map(|taken| taken.intersection(place)).sum::<f32>();
        let best =
            places.iter().filter(|place| inside(place)).min_by(|a, b| overlap(a).total_cmp(&overlap(b)));
        let place = best.copied().unwrap_or_else(|| {
            let y = (rect.y - height).min(self.height - height).max(0.0).round();
            Rect { y, ..places[0] }
        });
        self.taken.push(place);
        Piece::Print { x: place.x as i32, y: place.y as i32, print }
    }

    /// Where the feet of each object have been.
    fn trails(&mut self, pick: &Pick<'_>) {
        let shown = pick.sighting();
        let oldest = shown.capture_ns.saturating_sub(self.style.trail_ns);
        let age = |ns: u64| shown.capture_ns.saturating_sub(ns) as f32 / self.style.trail_ns.max(1) as f32;
        let thick = (self.line as f32 * 1.5).max(1.5);
        for seen in shown.seen.iter().filter(|seen| seen.track.is_some()).take(MAX_TRAILS) {
            let mut points: Vec<Vertex> = Vec::new();
            let past = pick.history().take_while(|past| past.capture_ns >= oldest);
            for past in std::iter::once(shown).chain(past) {
                let Some(then) = past.seen.iter().find(|then| then.track == seen.track) else { continue };
                let rect = scaled(&then.rect, scale(past.width, past.height, self.width, self.height));
                let vertex = Vertex {
                    x: rect.x + rect.width / 2.0,
                    y: rect.bottom(),
                    alpha: 1.0 - age(past.capture_ns).powi(2),
                };
                let moved = |last: &Vertex| (last.x - vertex.x).hypot(last.y - vertex.y) >= thick;
                if points.last().is_none_or(moved) {
                    points.push(vertex);
                }
            }
            if points.len() < 2 {
                continue;
            }
            let colour = self.style.colours.of(&seen.class);
            let within = (self.width as u32, self.height as u32);
            if let Some((x, y, print)) = Print::trail(&points, thick, colour, TRAIL_EDGE, within) {
                self.pieces.push(Piece::Print { x, y, print });
            }
        }
    }

    /// One line per publisher at the bottom right, the first one lowest.
    fn lines(&mut self, picks: &[Pick<'_>]) -> Vec<Piece> {
        let mut lines = Vec::new();
        let size = (self.font * 0.85).max(9.0);
        let margin = (self.font * 0.4).round();
        let mut bottom = self.height - margin;
        for pick in picks {
            let sighting = pick.sighting();
            let mut text = String::new();
            let shared =
                picks.iter().filter(|other| other.publisher.model == pick.publisher.model).count() > 1;
            let who = if shared { &pick.publisher.instance } else { &pick.publisher.model };
            text.extend(who.chars().filter(|c| !c.is_control()).take(64));
            let before = text.len();
            // Writing to a string cannot fail.
            if let Some(fps) = sighting.fps.filter(|_| self.style.fps) {
                let _ = write!(text, "  {fps:.1} fps");
            }
            if let Some(latency) = sighting.latency_ms.filter(|_| self.style.latency) {
                let _ = write!(text, "  {latency:.0} ms");
            }
            if text.len() == before {
                continue;
            }
            let text = Typeface::fit(text.trim(), size, (self.width - 3.0 * size).max(size));
            let print = Print::label(self.typeface, &text, size, Rgba::WHITE, PANEL);
            let top = bottom - print.height() as f32;
            if top < 0.0 {
                break;
            }
            let x = (self.width - margin - print.width() as f32).max(0.0).round() as i32;
            self.taken.push(Rect::new(x as f32, top, print.width() as f32, print.height() as f32));
            lines.push(Piece::Print { x, y: top as i32, print });
            bottom = top - 2.0;
        }
        lines
    }
}
