//! A wall as layers for a device: what does not move, the cameras' pictures as they are, labels and clock. What is
//! drawn here is drawn by the processor, once for each change.

use std::collections::BTreeMap;

use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};
use nvr_core::{
    draw::{Print, Target, Typeface},
    layout::{Area, Placement},
    scale,
};

use super::{
    mixer::{Key, Layer},
    pad::Picture,
    paint,
    settings::Settings,
    tile::{self, PANEL, Tile},
    view,
};

/// What was drawn last.
#[derive(Debug, Default)]
pub(super) struct Scene {
    version: u64,
    ground: Option<(Standing, Layer)>,
    labels: BTreeMap<u64, (Area, String, Option<Layer>)>,
    clock: Option<(String, Layer)>,
}

/// Everything that decides what the ground looks like: the arrangement's generation, and for each tile where its
/// picture moves, or what it shows where none does.
#[derive(Debug, PartialEq)]
struct Standing {
    generation: u64,
    info: VideoInfo,
    tiles: Vec<(u64, Result<Area, u64>)>,
}

/// What a wall shows, and how it is to be drawn.
pub(super) struct View<'a> {
    pub settings: &'a Settings,
    pub generation: u64,
    /// In the order of their tiles.
    pub cameras: &'a [(u64, Option<Picture>)],
    /// The wall as the processor would draw it.
    pub info: &'a VideoInfo,
    /// Whether labels may be transparent in part.
    pub blends: bool,
}

impl Scene {
    /// The layers of the wall.
    ///
    /// # Errors
    /// Memory cannot be had or written.
    pub fn layers(
        &mut self,
        view: &View<'_>,
        tiles: &mut BTreeMap<u64, Tile>,
        typeface: &mut Typeface,
    ) -> Result<Vec<Layer>, String> {
        let mut layers = vec![self.ground(view, tiles, typeface)?];
        for (uid, picture) in view.cameras {
            let live = tiles.get(uid).filter(|tile| tile.is_live());
            let Some((tile, picture)) = live.zip(picture.as_ref()) else { continue };
            let Some(placement) = tile.placement else { continue };
            layers.push(Layer {
                key: Key::Tile(*uid),
                buffer: picture.buffer.clone(),
                caps: picture.caps.clone(),
                info: picture.info.clone(),
                version: picture.number,
                placement,
            });
            layers.extend(self.label(*uid, tile, view.blends, typeface)?);
        }
        self.labels.retain(|uid, _| tiles.contains_key(uid));
        layers.extend(self.clock(view, typeface)?);
        Ok(layers)
    }

    fn ground(
        &mut self,
        view: &View<'_>,
        tiles: &mut BTreeMap<u64, Tile>,
        typeface: &mut Typeface,
    ) -> Result<Layer, String> {
        let shown = |uid: &u64| {
            let tile = tiles.get(uid)?;
            Some((*uid, if tile.is_live() { Ok(tile.look.area) } else { Err(tile.version) }))
        };
        let standing = Standing {
            generation: view.generation,
            info: view.info.clone(),
            tiles: view.cameras.iter().filter_map(|(uid, _)| shown(uid)).collect(),
        };
        if let Some((known, layer)) = &self.ground
            && *known == standing
        {
            return Ok(layer.clone());
        }
        let mut buffer = gst::Buffer::with_size(view.info.size()).map_err(|error| error.to_string())?;
        let whole = Area::new(0, 0, view.info.width(), view.info.height());
        {
            let buffer = buffer.make_mut();
            let mut wall = VideoFrameRef::from_buffer_ref_writable(buffer, view.info)
                .map_err(|_| "the memory of a picture cannot be written")?;
            {
                let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
                let colour = paint::background(view.settings.background, &Target::of(&frame.as_frame()));
                scale::fill(&mut frame, whole, colour).map_err(|error| error.to_string())?;
            }
            for (uid, picture) in view.cameras {
                let Some(tile) = tiles.get_mut(uid) else { continue };
                // A tile that cannot be drawn says so itself.
                if let Err(error) = tile.draw_ground(picture.as_ref(), &mut wall, typeface) {
                    gst::debug!(super::imp::CAT, "{}: {error}", tile.look.name);
                }
            }
        }
        self.version += 1;
        let layer = layer(Key::Ground, buffer, view.info, self.version, whole)?;
        self.ground = Some((standing, layer.clone()));
        Ok(layer)
    }

    fn label(
        &mut self,
        uid: u64,
        tile: &Tile,
        blends: bool,
        typeface: &mut Typeface,
    ) -> Result<Option<Layer>, String> {
        if !tile.look.show_label {
            return Ok(None);
        }
        let shown = tile.shown();
        if let Some((area, name, layer)) = self.labels.get(&uid)
            && *area == shown
            && *name == tile.look.name
        {
            return Ok(layer.clone());
        }
        let layer = match tile::label(shown, &tile.look, typeface) {
            Some((x, y, print)) => {
                let corner = (x.max(0) as u32, y.max(0) as u32);
                Some(self.sheet(Key::Label(uid), &print, corner, blends)?)
            }
            None => None,
        };
        self.labels.insert(uid, (shown, tile.look.name.clone(), layer.clone()));
        Ok(layer)
    }

    fn clock(&mut self, view: &View<'_>, typeface: &mut Typeface) -> Result<Option<Layer>, String> {
        let text = paint::clock_text(view.settings);
        if text.is_empty() {
            self.clock = None;
        } else if self.clock.as_ref().is_none_or(|(known, _)| *known != text) {
            let size = (view.info.width(), view.info.height());
            let (area, print) = tile::clock(size, &text, view.settings.spacing & !1, typeface);
            let layer = self.sheet(Key::Clock, &print, (area.x, area.y), view.blends)?;
            self.clock = Some((text, layer));
        }
        Ok(self.clock.as_ref().map(|(_, layer)| layer.clone()))
    }

    /// A small picture with its top left corner at `corner`.
    fn sheet(&mut self, key: Key, print: &Print, corner: (u32, u32), blends: bool) -> Result<Layer, String> {
        let canvas = print.canvas();
        let info = VideoInfo::builder(VideoFormat::Rgba, canvas.width(), canvas.height())
            .build()
            .map_err(|error| error.to_string())?;
        let bytes: Vec<u8> = canvas
            .pixels()
            .iter()
            .flat_map(|pixel| if blends { straight(*pixel) } else { opaque(*pixel) })
            .collect();
        self.version += 1;
        let area = Area::new(corner.0, corner.1, canvas.width(), canvas.height());
        layer(key, gst::Buffer::from_mut_slice(bytes), &info, self.version, area)
    }
}

/// A layer that shows all of a picture in an area of its size.
fn layer(
    key: Key,
    buffer: gst::Buffer,
    info: &VideoInfo,
    version: u64,
    target: Area,
) -> Result<Layer, String> {
    let caps = info.to_caps().map_err(|error| error.to_string())?;
    let source = Area::new(0, 0, info.width(), info.height());
    Ok(Layer { key, buffer, caps, info: info.clone(), version, placement: Placement { source, target } })
}

/// A premultiplied pixel as mixers take it: colour and opacity apart.
fn straight([r, g, b, a]: [u8; 4]) -> [u8; 4] {
    let part = |c: u8| ((u32::from(c) * 255 + u32::from(a) / 2) / u32::from(a.max(1))).min(255) as u8;
    [part(r), part(g), part(b), a]
}

/// A premultiplied pixel over the colour of panels.
fn opaque([r, g, b, a]: [u8; 4]) -> [u8; 4] {
    let over = |c: u8, under: u8| {
        u16::from(c).saturating_add(u16::from(under) * u16::from(255 - a) / 255).min(255) as u8
    };
    [over(r, PANEL.r), over(g, PANEL.g), over(b, PANEL.b), 255]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_keep_their_colour() {
        assert_eq!(straight([0, 0, 0, 0]), [0, 0, 0, 0]);
        assert_eq!(straight([10, 20, 30, 255]), [10, 20, 30, 255]);
        assert_eq!(straight([64, 32, 0, 128]), [128, 64, 0, 128]);
        assert_eq!(opaque([0, 0, 0, 0]), [PANEL.r, PANEL.g, PANEL.b, 255]);
        assert_eq!(opaque([200, 100, 50, 255]), [200, 100, 50, 255]);
    }
}
