//! One picture in one tile.

use super::Area;

/// How a picture of another shape than its tile is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum Fit {
    /// All of it, with bars.
    #[default]
    Letterbox,
    /// As much as fills the tile, from its middle.
    Crop,
    /// All of it, distorted.
    Stretch,
}

/// Which part of the picture goes where.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub struct Placement {
    /// In pixels of the picture.
    pub source: Area,
    /// In pixels of the wall.
    pub target: Area,
}

/// Pictures this much wider or higher than the tile, in parts of a thousand, are stretched rather than framed by
/// bars that are thinner than the eye accepts as intended.
const TOLERANCE: u64 = 20;

/// Puts a picture of `width` × `height` pixels, each `par.0 / par.1` as wide as it is high, into a tile.
/// `None` where either has no pixels.
pub fn place(fit: Fit, tile: Area, width: u32, height: u32, par: (u32, u32)) -> Option<Placement> {
    if tile.width < 2 || tile.height < 2 || width == 0 || height == 0 || par.0 == 0 || par.1 == 0 {
        return None;
    }
    let whole = Area::new(0, 0, width, height);
    // Width and height as the picture wants to be seen; below 2^64 for any u32 sides only with u128.
    let (shown_w, shown_h) = (u128::from(width) * u128::from(par.0), u128::from(height) * u128::from(par.1));
    let (tile_w, tile_h) = (u128::from(tile.width), u128::from(tile.height));
    let (a, b) = (shown_w * tile_h, shown_h * tile_w);
    let near = a.abs_diff(b) * 1000 <= u128::from(TOLERANCE) * a.max(b);
    if fit == Fit::Stretch || near {
        return Some(Placement { source: whole, target: tile });
    }
    let even = |value: u128, limit: u32| (u32::try_from(value).unwrap_or(limit) & !1).clamp(2, limit.max(2));
    Some(if fit == Fit::Letterbox {
        let (w, h) = if a > b {
            (tile.width, even((shown_h * tile_w + shown_w / 2) / shown_w, tile.height))
        } else {
            (even((shown_w * tile_h + shown_h / 2) / shown_h, tile.width), tile.height)
        };
        let target =
            Area::new(tile.x + (((tile.width - w) / 2) & !1), tile.y + (((tile.height - h) / 2) & !1), w, h);
        Placement { source: whole, target }
    } else {
        let part = |value: u128, limit: u32| {
            let value = u32::try_from(value).unwrap_or(limit).clamp(1, limit);
            // Chroma begins at even pixels.
            if limit > 2 { (value & !1).max(2) } else { value }
        };
        let source = if a > b {
            let w = part(shown_h * tile_w * u128::from(width) / (shown_w * tile_h), width);
            Area::new(((width - w) / 2) & !1, 0, w, height)
        } else {
            let h = part(shown_w * tile_h * u128::from(height) / (shown_h * tile_w), height);
            Area::new(0, ((height - h) / 2) & !1, width, h)
        };
        Placement { source, target: tile }
    })
}
