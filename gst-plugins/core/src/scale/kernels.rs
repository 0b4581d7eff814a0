//! The loops over one row.
#![allow(clippy::inline_always, reason = "a kernel must be compiled inside the dispatched function")]

use pulp::Arch;
#[cfg(target_arch = "x86_64")]
use pulp::{Simd, x86::V3};

/// Bytes that may be read past the end of a row.
pub(super) const SLACK: usize = 16;
/// Output bytes that one table entry makes, from this many input bytes.
const GROUP: usize = 8;
const WINDOW: usize = 16;
/// Weights of a pair add up to this; a product with a byte and the sum of two fit 16 bits with a sign.
const ONE: i32 = 64;

/// Where eight neighbouring output bytes come from.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// First byte of the window.
    start: u32,
    /// For every output byte the places of its two samples in the window.
    pick: [u8; WINDOW],
    weight: [i8; WINDOW],
}

/// The way from a row of samples to a row of another length; at most two input samples to one output sample.
#[derive(Debug)]
pub(super) struct Columns(Vec<Group>);

impl Columns {
    /// From the left sample of every output sample and the share of its right neighbour.
    pub fn new(channels: usize, positions: impl Iterator<Item = (usize, f64)>) -> Self {
        let bytes: Vec<(usize, i32)> = positions
            .flat_map(|(first, share)| {
                let weight = (share * f64::from(ONE)).round() as i32;
                (0..channels).map(move |channel| (first * channels + channel, weight))
            })
            .collect();
        let groups = bytes.chunks(GROUP).map(|bytes| {
            let start = bytes[0].0;
            let mut group = Group { start: start as u32, pick: [0; WINDOW], weight: [0; WINDOW] };
            for (n, (first, weight)) in bytes.iter().enumerate() {
                // Two samples to one are the most that is asked for: the window holds them.
                let left = (first - start).min(WINDOW - 1 - channels);
                group.pick[2 * n] = left as u8;
                group.pick[2 * n + 1] = (left + channels) as u8;
                group.weight[2 * n] = (ONE - weight) as i8;
                group.weight[2 * n + 1] = *weight as i8;
            }
            group
        });
        Self(groups.collect())
    }

    /// `line` is the row, its last sample once more, and [`SLACK`] bytes.
    pub fn run(&self, line: &[u8], out: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = V3::try_new() {
            Simd::vectorize(simd, Run { simd, groups: &self.0, line, out });
            return;
        }
        self.run_plain(line, out);
    }

    pub(super) fn run_plain(&self, line: &[u8], out: &mut [u8]) {
        for (group, out) in self.0.iter().zip(out.chunks_mut(GROUP)) {
            let window = &line[group.start as usize..group.start as usize + WINDOW];
            for (n, out) in out.iter_mut().enumerate() {
                let part =
                    |n: usize| i32::from(window[usize::from(group.pick[n])]) * i32::from(group.weight[n]);
                *out = ((part(2 * n) + part(2 * n + 1) + ONE / 2) / ONE) as u8;
            }
        }
    }
}

// Not closures: only a method can be forced into the dispatched function, and only there is it compiled for the
// machine's vector instructions.

/// One row by table, 16 bytes at a time.
#[cfg(target_arch = "x86_64")]
struct Run<'a> {
    simd: V3,
    groups: &'a [Group],
    line: &'a [u8],
    out: &'a mut [u8],
}

#[cfg(target_arch = "x86_64")]
impl Run<'_> {
    #[inline(always)]
    fn window(&self, group: &Group) -> [u8; WINDOW] {
        let start = group.start as usize;
        self.line[start..start + WINDOW].try_into().unwrap_or([0; WINDOW])
    }

    /// Eight bytes of each group, at the beginning of each half.
    #[inline(always)]
    fn blend(&self, a: &Group, b: &Group) -> [u8; 32] {
        let (avx, avx2) = (self.simd.avx, self.simd.avx2);
        let bytes = pulp::cast([self.window(a), self.window(b)]);
        let pairs = avx2._mm256_shuffle_epi8(bytes, pulp::cast([a.pick, b.pick]));
        let sums = avx2._mm256_maddubs_epi16(pairs, pulp::cast([a.weight, b.weight]));
        let rounded = avx2._mm256_add_epi16(sums, avx._mm256_set1_epi16((ONE / 2) as i16));
        let words = avx2._mm256_srli_epi16::<6>(rounded);
        pulp::cast(avx2._mm256_packus_epi16(words, words))
    }
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let out = std::mem::take(&mut self.out);
        let whole = out.len() / (2 * GROUP);
        let mut n = 0;
        while n < whole {
            let bytes = self.blend(&self.groups[2 * n], &self.groups[2 * n + 1]);
            let out = &mut out[2 * GROUP * n..2 * GROUP * (n + 1)];
            out[..GROUP].copy_from_slice(&bytes[..GROUP]);
            out[GROUP..].copy_from_slice(&bytes[16..16 + GROUP]);
            n += 1;
        }
        for (group, out) in self.groups[2 * whole..].iter().zip(out[2 * GROUP * whole..].chunks_mut(GROUP)) {
            let bytes = self.blend(group, group);
            out.copy_from_slice(&bytes[..out.len()]);
        }
    }
}

/// `out` = `a` + (`b` - `a`) × `weight` / 256.
pub(super) fn blend(a: &[u8], b: &[u8], weight: u16, out: &mut [u8]) {
    if weight == 0 {
        out.copy_from_slice(&a[..out.len()]);
        return;
    }
    Arch::new().dispatch(Blend { a, b, weight, out });
}

struct Blend<'a> {
    a: &'a [u8],
    b: &'a [u8],
    weight: u16,
    out: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Blend<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let rest = 256 - self.weight;
        for ((out, &a), &b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = ((u16::from(a) * rest + u16::from(b) * self.weight + 128) >> 8) as u8;
        }
    }
}

/// One row of half as many samples from two rows: the mean of two by two. An odd last sample stands for itself.
pub(super) fn halve(channels: usize, upper: &[u8], lower: &[u8], out: &mut Vec<u8>) {
    let samples = upper.len() / channels;
    out.resize(samples.div_ceil(2) * channels, 0);
    #[cfg(target_arch = "x86_64")]
    let done = V3::try_new()
        .map_or(0, |simd| Simd::vectorize(simd, Halve { simd, channels, upper, lower, out: &mut out[..] }));
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    let blocks = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
    for (out, (a, b)) in out.chunks_exact_mut(channels).zip(blocks).skip(done / channels) {
        for n in 0..channels {
            let [a, c, b, d] = [a[n], a[n + channels], b[n], b[n + channels]].map(u16::from);
            out[n] = ((a + b + c + d + 2) >> 2) as u8;
        }
    }
    if samples % 2 == 1 {
        let (last, end) = ((samples - 1) * channels, out.len() - channels);
        for channel in 0..channels {
            let sum = u16::from(upper[last + channel]) + u16::from(lower[last + channel]);
            out[end + channel] = sum.div_ceil(2) as u8;
        }
    }
}

/// The part of [`halve`] that fills whole vectors; says how many bytes that were.
#[cfg(target_arch = "x86_64")]
struct Halve<'a> {
    simd: V3,
    channels: usize,
    upper: &'a [u8],
    lower: &'a [u8],
    out: &'a mut [u8],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Halve<'_> {
    type Output = usize;

    #[inline(always)]
    fn call(self) -> usize {
        const VECTOR: usize = 32;
        let (avx, avx2) = (self.simd.avx, self.simd.avx2);
        let ones = avx._mm256_set1_epi8(1);
        let half = avx._mm256_set1_epi16(2);
        // Interleaved channels are sorted so that neighbours belong together.
        let sort: [u8; 16] = if self.channels == 2 {
            [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]
        } else {
            std::array::from_fn(|n| n as u8)
        };
        let sort = pulp::cast([sort, sort]);
        let count = self.upper.len().min(self.lower.len()).min(2 * self.out.len()) / VECTOR;
        let mut n = 0;
        while n < count {
            let at = n * VECTOR..(n + 1) * VECTOR;
            let a: [u8; VECTOR] = self.upper[at.clone()].try_into().unwrap_or([0; VECTOR]);
            let b: [u8; VECTOR] = self.lower[at].try_into().unwrap_or([0; VECTOR]);
            let a = avx2._mm256_maddubs_epi16(avx2._mm256_shuffle_epi8(pulp::cast(a), sort), ones);
            let b = avx2._mm256_maddubs_epi16(avx2._mm256_shuffle_epi8(pulp::cast(b), sort), ones);
            let words = avx2._mm256_srli_epi16::<2>(avx2._mm256_add_epi16(avx2._mm256_add_epi16(a, b), half));
            let bytes: [u8; VECTOR] = pulp::cast(avx2._mm256_packus_epi16(words, words));
            let out = &mut self.out[n * VECTOR / 2..(n + 1) * VECTOR / 2];
            out[..8].copy_from_slice(&bytes[..8]);
            out[8..].copy_from_slice(&bytes[16..24]);
            n += 1;
        }
        count * VECTOR / 2
    }
}

/// Interleaved samples into two rows.
pub(super) fn split(pairs: &[u8], first: &mut [u8], second: &mut [u8]) {
    for ((pair, first), second) in pairs.chunks_exact(2).zip(first).zip(second) {
        *first = pair[0];
        *second = pair[1];
    }
}

/// Two rows into interleaved samples.
pub(super) fn join(first: &[u8], second: &[u8], pairs: &mut [u8]) {
    for ((pair, first), second) in pairs.chunks_exact_mut(2).zip(first).zip(second) {
        pair[0] = *first;
        pair[1] = *second;
    }
}
