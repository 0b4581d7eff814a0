//! A picture in memory, and the little that has to be drawn on it.

use super::font;

/// 8-bit RGB, rows without padding.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

pub(super) type Colour = [u8; 3];

impl Canvas {
    pub fn new(width: usize, height: usize, colour: Colour) -> Self {
        Self { width, height, pixels: colour.repeat(width * height) }
    }

    /// Copies rows of RGB in; what does not fit is left out.
    pub fn place(&mut self, left: usize, top: usize, width: usize, stride: usize, rows: &[u8]) {
        let width = width.min(self.width.saturating_sub(left));
        for (row, source) in rows.chunks(stride.max(1)).take(self.height.saturating_sub(top)).enumerate() {
            let start = ((top + row) * self.width + left) * 3;
            let length = (width * 3).min(source.len());
            self.pixels[start..start + length].copy_from_slice(&source[..length]);
        }
    }

    /// Fills an area, clipped to the picture.
    pub fn fill(&mut self, left: i64, top: i64, width: i64, height: i64, colour: Colour) {
        let range = |start: i64, length: i64, end: usize| {
            let end = end as i64;
            start.clamp(0, end) as usize..start.saturating_add(length).clamp(0, end) as usize
        };
        let columns = range(left, width, self.width);
        for row in range(top, height, self.height) {
            let start = row * self.width;
            for pixel in self.pixels
                [(start + columns.start) * 3..(start + columns.end.max(columns.start)) * 3]
                .chunks_exact_mut(3)
            {
                pixel.copy_from_slice(&colour);
            }
        }
    }

    /// The outline of an area, drawn inwards.
    pub fn outline(&mut self, left: i64, top: i64, width: i64, height: i64, colour: Colour) {
        const THICK: i64 = 2;
        self.fill(left, top, width, THICK, colour);
        self.fill(left, top + height - THICK, width, THICK, colour);
        self.fill(left, top, THICK, height, colour);
        self.fill(left + width - THICK, top, THICK, height, colour);
    }

    /// Text on a ground of its own, its top left corner moved so that it can be seen.
    pub fn label(&mut self, left: i64, top: i64, text: &str, ground: Colour) {
        const SCALE: i64 = 2;
        let (wide, high) = (font::WIDTH as i64 + 1, font::HEIGHT as i64 + 2);
        let width = (text.chars().count() as i64 * wide + 1) * SCALE;
        let left = left.min(self.width as i64 - width).max(0);
        let top = top.min(self.height as i64 - high * SCALE).max(0);
        self.fill(left, top, width, high * SCALE, ground);
        let bright = ground.iter().map(|part| u32::from(*part)).sum::<u32>() > 380;
        let ink = if bright { [0; 3] } else { [255; 3] };
        for (index, c) in text.chars().enumerate() {
            let x = left + (index as i64 * wide + 1) * SCALE;
            for (row, bits) in font::glyph(c).iter().enumerate() {
                for column in 0..font::WIDTH {
                    if bits >> (font::WIDTH - 1 - column) & 1 == 1 {
                        self.fill(
                            x + column as i64 * SCALE,
                            top + (row as i64 + 1) * SCALE,
                            SCALE,
                            SCALE,
                            ink,
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_is_clipped_to_the_picture() {
        let mut canvas = Canvas::new(40, 30, [0; 3]);
        canvas.fill(-5, -5, 10, 10, [1, 2, 3]);
        assert_eq!(canvas.pixels.chunks(3).filter(|pixel| *pixel == [1, 2, 3]).count(), 25);
        canvas.outline(30, 20, 100, 100, [9; 3]);
        canvas.outline(i64::MAX / 2, i64::MIN / 2, 4, 4, [9; 3]);
        canvas.label(35, -50, "person 0.93 with a long text", [255, 255, 0]);
        canvas.place(38, 28, 10, 30, &[7; 300]);
        assert_eq!(canvas.pixels.len(), 40 * 30 * 3);
        assert_eq!(canvas.pixels[(28 * 40 + 38) * 3], 7);
    }
}
