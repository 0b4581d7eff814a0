use proptest::prelude::*;

use super::*;
use crate::{
    frame::{ColorMatrix, ColorRange},
    layout::{Fit, place},
    scene::tests_support::Picture,
};

const FORMATS: [PixelFormat; 2] = [PixelFormat::Nv12, PixelFormat::I420];

/// A picture whose codes change slowly, so that a wrong position shows and rounding does not.
fn gradient(format: PixelFormat, width: usize, height: usize) -> Picture {
    let mut picture = Picture::new(format, width, height, 5);
    let code = |plane: usize, x: usize, y: usize, w: usize, h: usize| {
        let (x, y) = ((x as f64 + 0.5) / w as f64, (y as f64 + 0.5) / h as f64);
        (40.0 + 150.0 * if plane == 1 { y } else { x } + 30.0 * if plane == 2 { 1.0 - y } else { y }) as u8
    };
    let (cw, ch) = (width.div_ceil(2), height.div_ceil(2));
    for y in 0..height {
        for x in 0..width {
            picture.planes[0][y * picture.strides[0] + x] = code(0, x, y, width, height);
        }
    }
    for y in 0..ch {
        for x in 0..cw {
            let [u, v] = [1, 2].map(|plane| code(plane, x, y, cw, ch));
            if format == PixelFormat::Nv12 {
                let at = y * picture.strides[1] + 2 * x;
                picture.planes[1][at..at + 2].copy_from_slice(&[u, v]);
            } else {
                picture.planes[1][y * picture.strides[1] + x] = u;
                picture.planes[2][y * picture.strides[2] + x] = v;
            }
        }
    }
    picture
}

/// Sample `x`, `y` of plane 0 (luma), 1 (Cb) or 2 (Cr).
fn sample(picture: &Picture, plane: usize, x: usize, y: usize) -> u8 {
    match (picture.format, plane) {
        (_, 0) | (PixelFormat::I420, _) => picture.planes[plane][y * picture.strides[plane] + x],
        _ => picture.planes[1][y * picture.strides[1] + 2 * x + plane - 1],
    }
}

fn scaled(source: &Picture, to: PixelFormat, size: (usize, usize), placement: Placement) -> Picture {
    let mut target = Picture::new(to, size.0, size.1, 9);
    let mut scaler =
        Scaler::new(source.format, to, (source.width, source.height), placement).expect("it can be scaled");
    // Twice: the second picture must not meet rows of the first.
    let other = Picture::new(source.format, source.width, source.height, 3);
    scaler.scale(&other.frame(), &mut target.frame_mut()).unwrap();
    scaler.scale(&source.frame(), &mut target.frame_mut()).unwrap();
    target
}

fn whole(source: (usize, usize), target: Area) -> Placement {
    Placement { source: Area::new(0, 0, source.0 as u32, source.1 as u32), target }
}

#[test]
fn every_size_and_pair_of_formats_shows_the_same_picture() {
    let sizes = [(640, 360), (1280, 720), (1920, 1080), (352, 288), (641, 361), (2, 2), (3, 7), (98, 120)];
    for from in FORMATS {
        for to in FORMATS {
            for size in sizes {
                for (w, h) in [(480, 270), (640, 360), (474, 266), (1280, 720), (34, 18), (2, 2)] {
                    let source = gradient(from, size.0, size.1);
                    let target = scaled(
                        &source,
                        to,
                        (w + 20, h + 20),
                        whole(size, Area::new(8, 6, w as u32, h as u32)),
                    );
                    for plane in 0..3 {
                        let half = usize::from(plane > 0);
                        let (width, height) = (w >> half, h >> half);
                        let (sw, sh) = ((size.0 + half) >> half, (size.1 + half) >> half);
                        for (x, y) in [
                            (0, 0),
                            (width / 2, height / 2),
                            (width - 1, 0),
                            (width - 1, height - 1),
                            (width / 3, height - 1),
                        ] {
                            let found = sample(&target, plane, x + (8 >> half), y + (6 >> half));
                            let at = |n: usize, size: usize, from: usize| {
                                (((n as f64 + 0.5) * from as f64 / size as f64 - 0.5).round().max(0.0)
                                    as usize)
                                    .min(from - 1)
                            };
                            let wanted = sample(&source, plane, at(x, width, sw), at(y, height, sh));
                            // A source of few samples has steps as large as a sample.
                            let step = 190 / sw.min(sh).min(width).min(height) + 3;
                            assert!(
                                usize::from(found.abs_diff(wanted)) <= step,
                                "{from:?}→{to:?} {size:?}→{w}x{h} plane {plane} at {x},{y}: {found}, not {wanted}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_picture_of_its_own_size_is_copied() {
    for format in FORMATS {
        let source = gradient(format, 64, 38);
        let target = scaled(&source, format, (64, 38), whole((64, 38), Area::new(0, 0, 64, 38)));
        for y in 0..38 {
            for x in 0..64 {
                assert_eq!(sample(&target, 0, x, y), sample(&source, 0, x, y));
                for plane in 1..3 {
                    assert_eq!(sample(&target, plane, x / 2, y / 2), sample(&source, plane, x / 2, y / 2));
                }
            }
        }
    }
}

#[test]
fn vector_code_is_the_plain_code() {
    for (channels, from, to) in
        [(1, 640, 474), (2, 321, 237), (1, 100, 100), (1, 30, 64), (2, 100, 51), (1, 5, 3)]
    {
        let positions = (0..to).map(|n| {
            let at = (n as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let at = at.clamp(0.0, (from - 1) as f64);
            (at as usize, at.fract())
        });
        let columns = kernels::Columns::new(channels, positions);
        let mut line: Vec<u8> = (0..from * channels).map(|n| (n * 37 % 251) as u8).collect();
        line.extend([7; 2 + kernels::SLACK]);
        let mut fast = vec![0; to * channels];
        let mut plain = fast.clone();
        columns.run(&line, &mut fast);
        columns.run_plain(&line, &mut plain);
        assert_eq!(fast, plain, "{channels} {from}→{to}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let nv12 = PixelFormat::Nv12;
    let fits = whole((64, 48), Area::new(0, 0, 32, 24));
    assert!(matches!(Scaler::new(PixelFormat::Rgb, nv12, (64, 48), fits), Err(ScaleError::Format { .. })));
    assert!(Scaler::new(nv12, nv12, (63, 48), fits).is_err());
    assert!(Scaler::new(nv12, nv12, (64, 48), Placement::default()).is_err());
    let mut scaler = Scaler::new(nv12, nv12, (64, 48), fits).unwrap();
    let mut target = Picture::new(nv12, 30, 24, 0);
    let source = Picture::new(nv12, 64, 48, 0);
    assert!(scaler.scale(&source.frame(), &mut target.frame_mut()).is_err(), "the target is too small");
    let mut target = Picture::new(nv12, 32, 24, 0);
    assert!(scaler.scale(&Picture::new(nv12, 62, 48, 0).frame(), &mut target.frame_mut()).is_err());
    let mut short = Picture::new(nv12, 64, 48, 0);
    short.planes[1].truncate(100);
    assert!(matches!(scaler.scale(&short.frame(), &mut target.frame_mut()), Err(ScaleError::Frame(_))));
}

#[test]
fn grey_has_no_colour_and_fill_stays_inside() {
    for format in FORMATS {
        let mut picture = gradient(format, 64, 48);
        let before = picture.clone();
        grey(&mut picture.frame_mut(), Area::new(8, 8, 16, 16)).unwrap();
        fill(&mut picture.frame_mut(), Area::new(32, 32, 1000, 1000), [100, 90, 80]).unwrap();
        for y in 0..48 {
            for x in 0..64 {
                let [now, then] = [&picture, &before].map(|picture| {
                    [
                        sample(picture, 0, x, y),
                        sample(picture, 1, x / 2, y / 2),
                        sample(picture, 2, x / 2, y / 2),
                    ]
                });
                if (8..24).contains(&x) && (8..24).contains(&y) {
                    assert!(now[0] < then[0] && now[1..] == [128, 128], "{x} {y}");
                } else if x >= 32 && y >= 32 {
                    assert_eq!(now, [100, 90, 80]);
                } else {
                    assert_eq!(now, then, "{x} {y}");
                }
            }
        }
    }
}

#[test]
fn recoloured_codes_mean_the_same_colour() {
    use ColorMatrix::{Bt601, Bt709};
    use ColorRange::{Full, Limited};
    assert_eq!(Recolour::between((Bt601, Full), (Bt601, Full)), None);
    let change = Recolour::between((Bt601, Full), (Bt709, Limited)).unwrap();
    for (code, wanted) in [([0, 128, 128], [16, 128, 128]), ([255, 128, 128], [235, 128, 128])] {
        assert_eq!(change.colour(code), wanted);
    }
    // Pure red, green and blue in BT.601 and in BT.709, both limited.
    let change = Recolour::between((Bt601, Limited), (Bt709, Limited)).unwrap();
    for (code, wanted) in
        [([81, 90, 240], [63, 102, 240]), ([145, 54, 34], [173, 42, 26]), ([41, 240, 110], [32, 240, 118])]
    {
        let found = change.colour(code);
        assert!(
            found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 1),
            "{code:?}: {found:?}, not {wanted:?}"
        );
    }
    for format in FORMATS {
        let mut picture = Picture::new(format, 16, 16, 4);
        fill(&mut picture.frame_mut(), Area::new(0, 0, 16, 16), [81, 90, 240]).unwrap();
        change.run(&mut picture.frame_mut(), Area::new(4, 4, 8, 8));
        let colour = |x: usize, y: usize| {
            [0, 1, 2].map(|plane| {
                sample(&picture, plane, x >> usize::from(plane > 0), y >> usize::from(plane > 0))
            })
        };
        assert_eq!(colour(3, 3), [81, 90, 240]);
        assert_eq!(colour(12, 12), [81, 90, 240]);
        assert_eq!(colour(4, 4), change.colour([81, 90, 240]));
        assert_eq!(colour(11, 11), change.colour([81, 90, 240]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flat_picture_stays_flat_and_nothing_else_is_touched(
        from in prop::sample::select(FORMATS.to_vec()),
        to in prop::sample::select(FORMATS.to_vec()),
        size in (1usize..300, 1usize..300),
        tile in (0u32..20, 0u32..20, 1u32..80, 1u32..80),
        fit in prop::sample::select(vec![Fit::Letterbox, Fit::Crop, Fit::Stretch]),
        colour: [u8; 3],
    ) {
        let tile = Area::new(tile.0 * 2, tile.1 * 2, tile.2 * 2, tile.3 * 2);
        let placement = place(fit, tile, size.0 as u32, size.1 as u32, (1, 1)).unwrap();
        let mut source = Picture::new(from, size.0, size.1, 1);
        fill(&mut source.frame_mut(), placement.source, colour).unwrap();
        if placement.source.width % 2 == 1 || placement.source.height % 2 == 1 {
            fill(&mut source.frame_mut(), Area::new(0, 0, 1000, 1000), colour).unwrap();
        }
        let target = scaled(&source, to, (210, 211), placement);
        let area = placement.target;
        for y in 0..211 {
            for x in 0..210 {
                let inside = area.contains(x as f64, y as f64);
                let found = [sample(&target, 0, x, y), sample(&target, 1, x / 2, y / 2), sample(&target, 2, x / 2, y / 2)];
                prop_assert_eq!(found, if inside { colour } else { [Picture::PADDING; 3] }, "at {},{} {:?}", x, y, placement);
            }
        }
    }
}
