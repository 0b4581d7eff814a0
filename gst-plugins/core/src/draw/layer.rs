//! What a stamp changes in one plane: runs of bytes, each of which becomes `old * keep / 255 + new`.

use std::ops::Range;

/// Transparent pixels between two opaque ones that are cheaper blended than skipped.
const GAP: usize = 8;
/// Pixels of a print's row that are looked at together.
const CHUNK: usize = 16;
/// Bytes that are blended together. Runs are filled up to whole blocks with bytes that change nothing.
const BLOCK: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// Bytes of a row that are the picture's.
    width: usize,
    runs: Vec<Run>,
    /// Premultiplied bytes, and how much of the old ones is kept.
    new: Vec<u8>,
    keep: Vec<u8>,
}

/// The same bytes, on one row or several.
#[derive(Clone, Copy, Debug)]
struct Run {
    row: u32,
    rows: u32,
    /// Of the first byte within the row.
    start: u32,
    len: u32,
    /// Index into `new` and `keep`.
    data: u32,
    /// Nothing of the old bytes is kept.
    opaque: bool,
}

impl Layer {
    pub fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.new.clear();
        self.keep.clear();
    }

    /// Adds pixels to each of `rows`, as far as they are not transparent; the first is at column `first`, each has `N`
    /// bytes. Of four bytes the last is not ours.
    pub fn pixels<const N: usize>(
        &mut self,
        rows: &Range<usize>,
        first: usize,
        pixels: &[[u8; 4]],
        bytes: impl Fn([u8; 4]) -> [u8; N],
    ) {
        let mut at = 0;
        // Neighbours are often of one colour.
        let mut last = ([0; 4], bytes([0; 4]));
        while let Some(start) = pixels[at..].iter().position(|p| p[3] > 0).map(|n| at + n) {
            let mut end = start;
            while let Some(next) = pixels[end..].iter().take(GAP).position(|p| p[3] > 0) {
                end += next + 1;
            }
            let run = &pixels[start..end];
            self.run::<N>(rows, first + start, run.len(), |new, keep| {
                for ((new, keep), pixel) in new.iter_mut().zip(keep).zip(run) {
                    if last.0 != *pixel {
                        last = (*pixel, bytes(*pixel));
                    }
                    *new = last.1;
                    *keep = kept(255 - pixel[3]);
                }
            });
            at = end;
        }
    }

    /// Adds pixels of two colours to a row, by the weight of each colour; the first is at column `first`.
    pub fn tones<const N: usize>(
        &mut self,
        row: usize,
        first: usize,
        (inks, grounds): (&[u8], &[u8]),
        [ink, ground]: [[u8; N]; 2],
    ) {
        let range = |chunk: usize| chunk * CHUNK..((chunk + 1) * CHUNK).min(inks.len());
        let any = |weights: &[u8]| weights.iter().fold(0, |all, weight| all | weight) > 0;
        let filled = |chunk: usize| any(&inks[range(chunk)]) || any(&grounds[range(chunk)]);
        let chunks = inks.len().div_ceil(CHUNK);
        let mut at = 0;
        while at < chunks {
            let end = at + (at..chunks).take_while(|chunk| filled(*chunk)).count();
            if end == at {
                at += 1;
                continue;
            }
            let run = at * CHUNK..range(end - 1).end;
            let (inks, grounds) = (&inks[run.clone()], &grounds[run.clone()]);
            self.run::<N>(&(row..row + 1), first + run.start, run.len(), |new, keep| {
                for ((new, i), g) in new.iter_mut().zip(inks).zip(grounds) {
                    for (new, (ink, ground)) in new.iter_mut().zip(ink.iter().zip(ground)) {
                        // The weights make 255 at most, so 16 bits are enough.
                        let (ink, ground) =
                            (u16::from(*ink) * u16::from(*i), u16::from(ground) * u16::from(*g));
                        *new = div255(ink.wrapping_add(ground));
                    }
                    if N == 4 {
                        new[3] = 0;
                    }
                }
                for ((keep, i), g) in keep.iter_mut().zip(inks).zip(grounds) {
                    *keep = kept(255 - i.saturating_add(*g));
                }
            });
            at = end;
        }
    }

    /// Adds `count` pixels, from column `first`, to each of `rows`.
    fn run<const N: usize>(
        &mut self,
        rows: &Range<usize>,
        first: usize,
        count: usize,
        write: impl FnOnce(&mut [[u8; N]], &mut [[u8; N]]),
    ) {
        let (start, len) = (first * N, count * N);
        let whole = len.next_multiple_of(BLOCK);
        // Fillings are behind the run, at the end of a row before it. Some rows are shorter than a block.
        let (from, padded) =
            if whole <= self.width { (start.min(self.width - whole), whole) } else { (start, len) };
        let data = self.new.len();
        self.new.resize(data + padded, 0);
        self.keep.resize(data + padded, 255);
        let inner = data + start - from..data + start - from + len;
        write(
            self.new[inner.clone()].as_chunks_mut::<N>().0,
            self.keep[inner.clone()].as_chunks_mut::<N>().0,
        );
        let opaque = self.keep[inner.clone()].iter().all(|keep| *keep == 0);
        let (start, len, data) = if opaque { (start, len, inner.start) } else { (from, padded, data) };
        self.runs.push(Run {
            row: rows.start as u32,
            rows: rows.len() as u32,
            start: start as u32,
            len: len as u32,
            data: data as u32,
            opaque,
        });
    }

    /// Changes the bytes of a plane.
    pub fn blend(&self, plane: &mut [u8], stride: usize) {
        for run in &self.runs {
            let data = run.data as usize..run.data as usize + run.len as usize;
            let (new, keep) = (&self.new[data.clone()], &self.keep[data]);
            for row in run.row..run.row + run.rows {
                let start = row as usize * stride + run.start as usize;
                let Some(bytes) = plane.get_mut(start..start + run.len as usize) else { continue };
                if run.opaque {
                    bytes.copy_from_slice(new);
                } else {
                    mix(bytes, new, keep);
                }
            }
        }
    }
}

/// How much of each byte of a pixel is kept.
fn kept<const N: usize>(keep: u8) -> [u8; N] {
    let mut bytes = [keep; N];
    if N == 4 {
        bytes[3] = 255;
    }
    bytes
}

/// `value / 255`, rounded, for values up to 255².
fn div255(value: u16) -> u8 {
    let value = value.wrapping_add(128);
    (value.wrapping_add(value >> 8) >> 8) as u8
}

/// `old * keep / 255 + new` for each byte.
fn mix(bytes: &mut [u8], new: &[u8], keep: &[u8]) {
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
    let (new, new_rest) = new.as_chunks::<BLOCK>();
    let (keep, keep_rest) = keep.as_chunks::<BLOCK>();
    for ((old, new), keep) in blocks.iter_mut().zip(new).zip(keep) {
        // Written out in steps, in place, and as often as a block has bytes, without checks for what cannot overflow:
        // so compilers make it a few vector instructions.
        let mut wide = [0_u16; BLOCK];
        for n in 0..BLOCK {
            wide[n] = (u16::from(old[n]) * u16::from(keep[n])).wrapping_add(128);
        }
        for wide in &mut wide {
            *wide = wide.wrapping_add(*wide >> 8) >> 8;
        }
        for n in 0..BLOCK {
            old[n] = (wide[n] as u8).saturating_add(new[n]);
        }
    }
    for ((old, new), keep) in rest.iter_mut().zip(new_rest).zip(keep_rest) {
        *old = mixed(*old, *new, *keep);
    }
}

fn mixed(old: u8, new: u8, keep: u8) -> u8 {
    div255(u16::from(old) * u16::from(keep)).saturating_add(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_rounded() {
        for old in 0..=255_u16 {
            for alpha in 0..=255_u16 {
                let new = div255(200 * alpha);
                for len in [1, BLOCK] {
                    let mut bytes = [old as u8; BLOCK];
                    mix(&mut bytes[..len], &[new; BLOCK][..len], &[255 - alpha as u8; BLOCK][..len]);
                    let exact =
                        f64::from(old) * f64::from(255 - alpha) / 255.0 + 200.0 * f64::from(alpha) / 255.0;
                    assert!((f64::from(bytes[0]) - exact).abs() <= 1.0, "{old} {alpha}: {bytes:?} {exact}");
                }
            }
        }
    }

    #[test]
    fn fillings_change_nothing() {
        for old in 0..=255 {
            assert_eq!(mixed(old, 0, 255), old);
        }
    }

    /// Runs of every length, at the left end of a row, in it, and at its right end, wide or narrow.
    #[test]
    fn runs_change_their_bytes_only() {
        for width in [1, 2, 5, 8, 9, 40] {
            for first in 0..width {
                for count in 1..=width - first {
                    let mut layer = Layer::new(width);
                    layer.pixels(&(1..3), first, &vec![[9, 9, 9, 100]; count], |p| [p[0]]);
                    let mut plane: Vec<u8> = (0..width * 4).map(|n| n as u8).collect();
                    layer.blend(&mut plane, width);
                    for (n, byte) in plane.iter().enumerate() {
                        let inside =
                            (1..3).contains(&(n / width)) && (first..first + count).contains(&(n % width));
                        let expected = if inside { mixed(n as u8, 9, 155) } else { n as u8 };
                        assert_eq!(*byte, expected, "{count} from {first} of {width}: byte {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_clear_in_the_middle_is_left_out() {
        let mut layer = Layer::new(200);
        let mut inks = [0; 200];
        inks[3..9].fill(255);
        inks[100..120].fill(40);
        layer.tones(0, 0, (&inks, &[0; 200]), [[200], [0]]);
        let touched: u32 = layer.runs.iter().map(|run| run.len).sum();
        assert_eq!(layer.runs.len(), 2);
        assert!(touched <= 2 * 16 + 32, "{touched} bytes");
    }
}
