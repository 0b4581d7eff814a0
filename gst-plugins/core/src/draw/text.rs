//! Text: glyphs of the embedded font, rasterised once per size and kept.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph as Placed, GlyphId, PxScale, point};

use super::canvas::Canvas;
use super::colour::Rgba;

/// Roboto Medium, cut down to the scripts that `fonts/README.md` lists.
static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("fonts/Roboto-Medium.ttf")).expect("the embedded font is one")
});

/// Glyphs kept at most; then all are forgotten. A wall in two sizes needs some hundred.
const MAX_GLYPHS: usize = 4096;
/// Places between two pixels at which a glyph is rasterised.
const STEPS: f32 = 4.0;
/// Sizes that text is drawn at, in pixels per em.
const SIZES: std::ops::RangeInclusive<f32> = 4.0..=512.0;

/// Vertical measures of a line of text, in pixels; all positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// From the top of the tallest letters with accents to the baseline.
    pub ascent: f32,
    /// From the baseline to the bottom of the lowest letters.
    pub descent: f32,
    /// Height of capital letters: what has to look centred.
    pub capitals: f32,
}

/// Draws text in the embedded font. Keeps the glyphs that it has drawn.
///
/// One character is one glyph, from left to right: scripts that need shaping, and those that the font does not have,
/// become boxes.
#[derive(Default)]
pub struct Typeface {
    glyphs: HashMap<Key, Glyph>,
}

impl std::fmt::Debug for Typeface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typeface").field("glyphs", &self.glyphs.len()).finish()
    }
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
struct Key {
    id: u16,
    /// In 1/16 pixel.
    size: u16,
    step: u8,
}

struct Glyph {
    /// Of the top left pixel, from the pen on the baseline.
    left: i32,
    top: i32,
    width: usize,
    coverage: Vec<u8>,
}

impl Typeface {
    pub fn new() -> Self {
        Self::default()
    }

    /// Measures of a line at `size` pixels per em.
    pub fn line(size: f32) -> Line {
        let size = size_of(size);
        let unit = size / units_per_em();
        Line {
            ascent: FONT.ascent_unscaled() * unit,
            descent: -FONT.descent_unscaled() * unit,
            capitals: size * 0.711,
        }
    }

    /// Width of `text` at `size` pixels per em.
    pub fn width(text: &str, size: f32) -> f32 {
        let unit = size_of(size) / units_per_em();
        visible(text).map(|c| FONT.h_advance_unscaled(glyph_id(c)) * unit).sum()
    }

    /// `text`, or as much of its beginning as fits into `width` with an ellipsis after it.
    pub fn fit(text: &str, size: f32, width: f32) -> Cow<'_, str> {
        let unit = size_of(size) / units_per_em();
        let advance = |c| FONT.h_advance_unscaled(glyph_id(c)) * unit;
        let room = width - advance('…');
        let (mut used, mut fitting) = (0.0, 0);
        for (at, c) in text.char_indices().filter(|(_, c)| !c.is_control()) {
            used += advance(c);
            if used > width {
                return format!("{}…", text[..fitting].trim_end()).into();
            }
            if used <= room {
                fitting = at + c.len_utf8();
            }
        }
        text.into()
    }

    /// Draws `text` with its first letter's origin at `x` on the line `baseline`, and gives where the next would be.
    pub fn draw(
        &mut self,
        canvas: &mut Canvas,
        origin: (f32, f32),
        size: f32,
        text: &str,
        colour: Rgba,
    ) -> f32 {
        self.each(size, text, origin, |x, y, coverage| canvas.cover(x, y, coverage, colour))
    }

    /// As [`Self::draw`], but for each row of each letter calls `cover` with its place and its coverage, 0 to 255.
    pub(super) fn each(
        &mut self,
        size: f32,
        text: &str,
        (x, baseline): (f32, f32),
        mut cover: impl FnMut(i32, i32, &[u8]),
    ) -> f32 {
        let size = size_of(size);
        let unit = size / units_per_em();
        let row = baseline.round() as i32;
        let mut pen = x;
        for c in visible(text) {
            let id = glyph_id(c);
            let (mut column, mut step) = (pen.floor(), ((pen - pen.floor()) * STEPS).round());
            if step >= STEPS {
                (column, step) = (column + 1.0, 0.0);
            }
            let glyph = self.glyph(id, size, step);
            if glyph.width > 0 {
                let rows = glyph.coverage.chunks_exact(glyph.width);
                for (n, coverage) in rows.enumerate() {
                    cover(column as i32 + glyph.left, row + glyph.top + n as i32, coverage);
                }
            }
            pen += FONT.h_advance_unscaled(id) * unit;
        }
        pen
    }

    fn glyph(&mut self, id: GlyphId, size: f32, step: f32) -> &Glyph {
        if self.glyphs.len() >= MAX_GLYPHS {
            self.glyphs.clear();
        }
        let key = Key { id: id.0, size: (size * 16.0) as u16, step: step as u8 };
        self.glyphs.entry(key).or_insert_with(|| {
            let scale = PxScale::from(size * FONT.height_unscaled() / units_per_em());
            let placed = Placed { id, scale, position: point(step / STEPS, 0.0) };
            let Some(outline) = FONT.outline_glyph(placed) else {
                return Glyph { left: 0, top: 0, width: 0, coverage: Vec::new() };
            };
            let bounds = outline.px_bounds();
            let (width, height) = (bounds.width() as usize, bounds.height() as usize);
            let mut coverage = vec![0; width * height];
            outline.draw(|x, y, covered| {
                if let Some(pixel) = coverage.get_mut(y as usize * width + x as usize) {
                    *pixel = (covered.clamp(0.0, 1.0) * 255.0).round() as u8;
                }
            });
            Glyph { left: bounds.min.x as i32, top: bounds.min.y as i32, width, coverage }
        })
    }
}

/// Control characters have no picture.
fn visible(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_control())
}

fn glyph_id(c: char) -> GlyphId {
    FONT.glyph_id(c)
}

fn units_per_em() -> f32 {
    FONT.units_per_em().unwrap_or(2048.0)
}

/// Sizes in steps of 1/16 pixel, so that equal sizes find equal glyphs.
fn size_of(size: f32) -> f32 {
    let size = if size.is_finite() { size } else { 16.0 };
    (size.clamp(*SIZES.start(), *SIZES.end()) * 16.0).round() / 16.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_font_has_the_letters_of_its_scripts() {
        for c in "AZaz09.,:%#@×äßéñçłőİ€°…–µΩЖяґĐđườṩ".chars().filter(|c| !"Ǻṩ".contains(*c))
        {
            assert_ne!(glyph_id(c).0, 0, "{c}");
        }
        assert_eq!(glyph_id('猫').0, 0, "what is missing is the box");
    }

    #[test]
    fn width_is_where_the_pen_ends() {
        let mut typeface = Typeface::new();
        let mut canvas = Canvas::new(400, 40);
        for text in ["", "i", "person 0.92 #42", "Ä\u{7}B"] {
            let end = typeface.draw(&mut canvas, (3.0, 30.0), 20.0, text, Rgba::WHITE);
            assert!((end - 3.0 - Typeface::width(text, 20.0)).abs() < 1e-3, "{text:?}");
        }
        assert!(Typeface::width("mm", 20.0) > 2.0 * Typeface::width("i", 20.0));
        let line = Typeface::line(20.0);
        assert!(line.capitals < line.ascent && line.ascent + line.descent < 25.0, "{line:?}");
    }

    #[test]
    fn letters_stand_on_the_line_and_within_their_width() {
        let mut typeface = Typeface::new();
        let mut canvas = Canvas::new(60, 40);
        typeface.draw(&mut canvas, (10.0, 30.0), 20.0, "H", Rgba::WHITE);
        let inked = |x: u32, y: u32| canvas.pixel(x, y)[3] > 127;
        let rows: Vec<_> = (0..40).filter(|y| (0..60).any(|x| inked(x, *y))).collect();
        let columns: Vec<_> = (0..60).filter(|x| (0..40).any(|y| inked(*x, y))).collect();
        assert_eq!((rows[0], rows[rows.len() - 1]), (16, 29), "14 rows of capitals above the baseline");
        assert!(columns[0] >= 10 && columns[columns.len() - 1] < 25, "{columns:?}");
    }

    #[test]
    fn long_text_ends_in_an_ellipsis() {
        let text = "a name that nobody wanted this long";
        let width = Typeface::width(text, 16.0);
        assert_eq!(Typeface::fit(text, 16.0, width + 0.1), text);
        let short = Typeface::fit(text, 16.0, width / 2.0);
        assert!(short.ends_with('…') && short.len() > 10, "{short}");
        assert!(Typeface::width(&short, 16.0) <= width / 2.0);
        assert_eq!(Typeface::fit("wide", 16.0, 0.0), "…");
        assert_eq!(Typeface::fit("", 16.0, 0.0), "");
    }

    #[test]
    fn glyphs_are_few_however_much_is_drawn() {
        let mut typeface = Typeface::new();
        let mut canvas = Canvas::new(10, 10);
        for size in 0..3000 {
            typeface.draw(&mut canvas, (0.0, 9.0), 4.0 + size as f32 / 16.0, "xyz", Rgba::WHITE);
        }
        assert!(typeface.glyphs.len() <= MAX_GLYPHS);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "\\PC{0,30}", size in -1e9_f32..1e9, x in -1e9_f32..1e9, y in -1e9_f32..1e9) {
            // Sizes that a frame can have; the others are proven by the clamp.
            let size = if size.abs() > 64.0 { size % 64.0 } else { size };
            let mut canvas = Canvas::new(32, 16);
            let mut typeface = Typeface::new();
            typeface.draw(&mut canvas, (x % 1e4, y % 1e4), size, &text, Rgba::WHITE);
            typeface.draw(&mut canvas, (x, y), size, &text, Rgba::WHITE);
            let room = Typeface::width(&text, size) * 0.7;
            let least = Typeface::width("…", size);
            prop_assert!(Typeface::width(&Typeface::fit(&text, size, room), size) <= room.max(least) + 0.01);
        }
    }
}
