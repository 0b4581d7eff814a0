//! Pictures that were looked at once, and comparison with them by structural similarity: a change of a rounding or of a
//! chroma filter passes, a label that moved does not.
//!
//! The pictures lie in `tests/data/golden`. With `NVR_GOLDEN=write` they are written anew instead of compared; look at
//! them before committing them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::data;
use crate::picture::Picture;

/// Side of the windows that are compared, in pixels.
const WINDOW: usize = 8;
/// Least mean similarity of all windows, and least mean of any 4 × 4 neighbouring ones.
const LEAST_MEAN: f64 = 0.97;
const LEAST_REGION: f64 = 0.80;

/// How similar two pictures are, from -1 to 1: the mean, and that of the worst region.
#[derive(Clone, Copy, Debug)]
pub struct Similarity {
    pub mean: f64,
    pub worst: f64,
    /// Left and top of the worst region.
    pub at: (usize, usize),
}

/// Structural similarity (Wang, Bovik, Sheikh, Simoncelli, 2004) of luma, over windows of 8 × 8 pixels.
pub fn similarity(a: &Picture, b: &Picture) -> Result<Similarity> {
    ensure!(
        (a.width, a.height) == (b.width, b.height),
        "{}x{} is compared with {}x{}",
        a.width,
        a.height,
        b.width,
        b.height
    );
    let (columns, rows) = (a.width / WINDOW, a.height / WINDOW);
    ensure!(columns >= 4 && rows >= 4, "pictures of {}x{} are too small to be compared", a.width, a.height);
    let luma = |picture: &Picture, x: usize, y: usize| {
        let at = (y * picture.width + x) * 3;
        let [r, g, b] = [0, 1, 2].map(|n| f64::from(picture.rgb[at + n]));
        0.299 * r + 0.587 * g + 0.114 * b
    };
    let (c1, c2) = ((0.01_f64 * 255.0).powi(2), (0.03_f64 * 255.0).powi(2));
    let window = |left: usize, top: usize| {
        let (mut sa, mut sb, mut saa, mut sbb, mut sab) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for y in top..top + WINDOW {
            for x in left..left + WINDOW {
                let (p, q) = (luma(a, x, y), luma(b, x, y));
                (sa, sb) = (sa + p, sb + q);
                (saa, sbb, sab) = (saa + p * p, sbb + q * q, sab + p * q);
            }
        }
        let n = (WINDOW * WINDOW) as f64;
        let (ma, mb) = (sa / n, sb / n);
        let (va, vb, cov) = (saa / n - ma * ma, sbb / n - mb * mb, sab / n - ma * mb);
        ((2.0 * ma * mb + c1) * (2.0 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    };
    let windows: Vec<Vec<f64>> = (0..rows)
        .map(|row| (0..columns).map(|column| window(column * WINDOW, row * WINDOW)).collect())
        .collect();
    let mean = windows.iter().flatten().sum::<f64>() / (rows * columns) as f64;
    let (mut worst, mut at) = (f64::MAX, (0, 0));
    for row in 0..=rows - 4 {
        for column in 0..=columns - 4 {
            let region = windows[row..row + 4].iter().flat_map(|line| &line[column..column + 4]);
            let value = region.sum::<f64>() / 16.0;
            if value < worst {
                (worst, at) = (value, (column * WINDOW, row * WINDOW));
            }
        }
    }
    Ok(Similarity { mean, worst, at })
}

/// Compares with `tests/data/golden/{name}.png`, or writes it where `NVR_GOLDEN=write`. A picture that fails is left in
/// the temporary folder.
pub fn check(name: &str, picture: &Picture) -> Result<()> {
    let path = data::own("golden").join(format!("{name}.png"));
    if std::env::var_os("NVR_GOLDEN").is_some_and(|value| value == "write") {
        return write(&path, picture);
    }
    let golden = read(&path)?;
    let found = similarity(&golden, picture).with_context(|| path.display().to_string())?;
    if found.mean < LEAST_MEAN || found.worst < LEAST_REGION {
        let left = std::env::temp_dir().join(format!("nvr-golden-{name}.png"));
        write(&left, picture)?;
        anyhow::bail!(
            "{} differs from {}: similarity {:.4}, {:.4} around {:?}",
            left.display(),
            path.display(),
            found.mean,
            found.worst,
            found.at
        );
    }
    Ok(())
}

/// Reads an RGB picture.
pub fn read(path: &std::path::Path) -> Result<Picture> {
    let file = std::fs::File::open(path)
        .with_context(|| format!("{}; NVR_GOLDEN=write makes it", path.display()))?;
    let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info()?;
    let mut rgb = vec![0; reader.output_buffer_size().context("a picture too large for memory")?];
    let info = reader.next_frame(&mut rgb)?;
    ensure!(info.color_type == png::ColorType::Rgb, "{}: not RGB", path.display());
    Ok(Picture { width: info.width as usize, height: info.height as usize, rgb })
}

/// Writes an RGB picture.
pub fn write(path: &std::path::Path, picture: &Picture) -> Result<()> {
    let folder: PathBuf = path.parent().map(Into::into).unwrap_or_default();
    std::fs::create_dir_all(&folder)?;
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut encoder = png::Encoder::new(file, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(&picture.rgb)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient() -> Picture {
        let rgb = (0..160 * 96).flat_map(|n| [(n % 160) as u8, (n / 160) as u8, 99]).collect();
        Picture { width: 160, height: 96, rgb }
    }

    #[test]
    fn noise_passes_and_a_missing_label_does_not() {
        let a = gradient();
        let same = similarity(&a, &a).unwrap();
        assert!((same.mean - 1.0).abs() < 1e-9 && (same.worst - 1.0).abs() < 1e-9);
        let mut noisy = a.clone();
        noisy.rgb.iter_mut().enumerate().for_each(|(n, byte)| *byte = byte.saturating_add((n % 3) as u8));
        assert!(similarity(&a, &noisy).unwrap().worst > LEAST_REGION);
        let mut labelled = a.clone();
        for y in 40..52 {
            for x in 60..100 {
                labelled.rgb[(y * 160 + x) * 3..][..3].fill(if (x + y) % 3 == 0 { 255 } else { 0 });
            }
        }
        let found = similarity(&a, &labelled).unwrap();
        assert!(found.worst < LEAST_REGION, "{found:?}");
        assert!((32..104).contains(&found.at.0) && (16..56).contains(&found.at.1), "{found:?}");
        assert!(similarity(&a, &Picture { width: 96, height: 160, ..a.clone() }).is_err());
    }
}
