//! The capture time in the picture: once for people, once for machines.
//!
//! The machine-readable strip is 34 × 2 cells of 1/80 of the width and 1/45 of the height (8 × 8 pixels at 640×360),
//! beginning one cell from the top left corner. The first and the last column are white over black and black over
//! white; between them, row by row, stand 64 bits, white for 1, most significant first: 48 bits of milliseconds
//! since the Unix epoch, then the CRC-16 (CCITT, as in X.25's polynomial 0x1021, start value 0xffff) of these six
//! bytes.

use super::{
    raster::{Paint, Point, Rasteriser},
    target::{Colour, FrameMut},
};
use crate::frame::{Frame, PixelFormat};

const COLUMNS: usize = 34;
const BITS_PER_ROW: usize = 32;
const BLACK: Colour = Colour::rgb(8, 8, 8);
const WHITE: Colour = Colour::rgb(244, 244, 244);

/// Size of a cell in pixels.
fn cell(width: usize, height: usize) -> (f32, f32) {
    (width as f32 / 80.0, height as f32 / 45.0)
}

fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0xffff_u16;
    for &byte in bytes {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc
}

fn encode(unix_ms: u64) -> u64 {
    let value = unix_ms & 0xffff_ffff_ffff;
    (value << 16) | u64::from(crc16(&value.to_be_bytes()[2..]))
}

/// Whether the cell is white.
fn strip_cell(code: u64, column: usize, row: usize) -> bool {
    match column {
        0 => row == 0,
        n if n == COLUMNS - 1 => row == 1,
        n => code >> (63 - (row * BITS_PER_ROW + n - 1)) & 1 == 1,
    }
}

/// Draws strip and text at the top of the frame.
pub(super) fn draw(raster: &mut Rasteriser, frame: &mut FrameMut<'_>, unix_ms: u64) {
    let (cw, ch) = cell(frame.width, frame.height);
    let mut rectangle = |x: f32, y: f32, w: f32, h: f32, colour: Colour| {
        let points: [Point; 4] = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
        raster.polygon(frame, &points, Paint { top: colour, bottom: colour, alpha: 1.0 });
    };
    let text = format_utc(unix_ms);
    let pixel = ((cw / 4.0).min(ch * 2.0 / 7.0)).max(1.0);
    let text_left = cw * (COLUMNS + 2) as f32;
    let text_width = pixel * 6.0 * text.len() as f32;
    rectangle(cw * 0.5, ch * 0.5, text_left + text_width, ch * 3.0, BLACK);
    let code = encode(unix_ms);
    for row in 0..2 {
        let mut column = 0;
        while column < COLUMNS {
            let from = column;
            while column < COLUMNS && strip_cell(code, column, row) {
                column += 1;
            }
            if from < column {
                let left = cw * (from + 1) as f32;
                rectangle(left, ch * (row + 1) as f32, cw * (column - from) as f32, ch, WHITE);
            }
            column += 1;
        }
    }
    let top = ch * 2.0 - pixel * 3.5;
    for (n, letter) in text.bytes().enumerate() {
        let left = text_left + pixel * 6.0 * n as f32;
        for (row, bits) in glyph(letter).into_iter().enumerate() {
            for column in (0..5).filter(|c| bits >> (4 - c) & 1 == 1) {
                let (x, y) = (left + pixel * column as f32, top + pixel * row as f32);
                rectangle(x, y, pixel, pixel, WHITE);
            }
        }
    }
}

/// `2026-11-21 02:47:56.123 UTC`.
fn format_utc(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let Some(time) = time else { return String::from("----") };
    let time = jiff::tz::Offset::UTC.to_datetime(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03} UTC",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// Five columns by seven rows, the leftmost column in bit 4.
fn glyph(letter: u8) -> [u8; 7] {
    match letter {
        b'0' => [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
        b'1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
        b'2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
        b'3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
        b'4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
        b'5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
        b'6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
        b'7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
        b'8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
        b'9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
        b'-' => [0, 0, 0, 0x1f, 0, 0, 0],
        b':' => [0, 0x0c, 0x0c, 0, 0x0c, 0x0c, 0],
        b'.' => [0, 0, 0, 0, 0, 0x0c, 0x0c],
        b'U' => [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e],
        b'T' => [0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04],
        b'C' => [0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e],
        _ => [0; 7],
    }
}

/// Mean brightness of the middle half of a cell, 0 to 255.
fn brightness(frame: &Frame<'_>, column: usize, row: usize) -> f32 {
    let (cw, ch) = cell(frame.width, frame.height);
    let middle = |start: f32, size: f32, limit: usize| {
        let from = ((start + size * 0.25).round() as usize).min(limit - 1);
        let to = ((start + size * 0.75).round() as usize).clamp(from + 1, limit);
        (from, to)
    };
    let (x0, x1) = middle(cw * (column + 1) as f32, cw, frame.width);
    let (y0, y1) = middle(ch * (row + 1) as f32, ch, frame.height);
    let plane = frame.planes[0];
    let bytes = match frame.format {
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8 => 1,
        PixelFormat::Rgb | PixelFormat::Bgr => 3,
        PixelFormat::Rgbx | PixelFormat::Bgrx => 4,
    };
    let mut sum = 0_u32;
    for y in y0..y1 {
        for x in x0..x1 {
            // The second byte is luma, or green, in every format.
            sum += u32::from(plane.data[y * plane.stride + x * bytes + bytes.min(2) - 1]);
        }
    }
    sum as f32 / ((x1 - x0) * (y1 - y0)) as f32
}

/// Reads the strip that [`super::Scene::render`] draws. The frame may have been encoded, decoded and scaled, also
/// unevenly, but not cropped. `None` where there is no strip or where it cannot be read beyond doubt.
///
/// Returns milliseconds since the Unix epoch, UTC.
pub fn read_timecode(frame: &Frame<'_>) -> Option<u64> {
    const CONTRAST: f32 = 40.0;
    frame.validate().ok()?;
    if frame.width < 80 || frame.height < 45 {
        return None;
    }
    let at = |column: usize, row: usize| brightness(frame, column, row);
    let white = at(0, 0).min(at(COLUMNS - 1, 1));
    let black = at(0, 1).max(at(COLUMNS - 1, 0));
    if white - black < CONTRAST {
        return None;
    }
    let limit = f32::midpoint(white, black);
    let mut code = 0_u64;
    for row in 0..2 {
        for column in 1..=BITS_PER_ROW {
            code = (code << 1) | u64::from(at(column, row) > limit);
        }
    }
    let value = code >> 16;
    (encode(value) == code).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests_support::Picture;
    use proptest::prelude::*;

    const NOW: u64 = 1_795_229_276_123;

    fn strip(format: PixelFormat, width: usize, height: usize, time: u64) -> Picture {
        let mut picture = Picture::new(format, width, height, 7);
        draw(&mut Rasteriser::default(), &mut picture.frame_mut(), time);
        picture
    }

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc16(b"123456789"), 0x29b1);
    }

    #[test]
    fn text_is_utc() {
        assert_eq!(format_utc(NOW), "2026-11-21 02:47:56.123 UTC");
        assert_eq!(format_utc(u64::MAX), "----");
    }

    #[test]
    fn every_format_and_size_is_read_back() {
        use PixelFormat::{Bgr, Bgrx, Gray8, I420, Nv12, Rgb, Rgbx};
        for format in [Nv12, I420, Rgb, Bgr, Rgbx, Bgrx, Gray8] {
            for (width, height) in [(320, 240), (333, 241), (640, 360), (704, 576), (1280, 720), (1921, 1081)]
            {
                let picture = strip(format, width, height, NOW);
                assert_eq!(read_timecode(&picture.frame()), Some(NOW), "{format:?} {width}x{height}");
            }
        }
    }

    #[test]
    fn survives_scaling_to_640x360() {
        for (width, height) in [(1280, 720), (1920, 1080), (960, 540), (704, 576)] {
            let small = strip(PixelFormat::I420, width, height, NOW).nearest(640, 360);
            assert_eq!(read_timecode(&small.frame()), Some(NOW), "from {width}x{height}");
        }
    }

    #[test]
    fn nothing_is_read_from_other_pictures() {
        assert_eq!(read_timecode(&Picture::new(PixelFormat::I420, 640, 360, 0).frame()), None);
        assert_eq!(read_timecode(&strip(PixelFormat::I420, 64, 36, NOW).frame()), None);
        let mut damaged = strip(PixelFormat::Gray8, 640, 360, NOW);
        // One inverted cell must be noticed.
        for y in 8..16 {
            for x in 80..88 {
                damaged.planes[0][y * damaged.strides[0] + x] ^= 0xff;
            }
        }
        assert_eq!(read_timecode(&damaged.frame()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn survives_noise(time in 0_u64..1 << 48, seed: u64, strength in 0_u64..90) {
            let mut picture = strip(PixelFormat::Gray8, 640, 360, time);
            for (n, byte) in picture.planes[0].iter_mut().enumerate() {
                let noise = crate::scene::world::mix(seed ^ n as u64) % (2 * strength + 1);
                *byte = (i64::from(*byte) + noise as i64 - strength as i64).clamp(0, 255) as u8;
            }
            prop_assert_eq!(read_timecode(&picture.frame()), Some(time));
        }

        #[test]
        fn random_pictures_have_no_time(seed: u64) {
            let mut picture = Picture::new(PixelFormat::Gray8, 160, 90, 0);
            for (n, byte) in picture.planes[0].iter_mut().enumerate() {
                *byte = crate::scene::world::mix(seed ^ n as u64) as u8;
            }
            // A random picture passes the sync columns at times, the checksum practically never.
            prop_assert_eq!(read_timecode(&picture.frame()), None);
        }
    }
}
