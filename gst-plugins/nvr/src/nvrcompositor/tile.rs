//! One tile: what it shows, and how that is drawn.

use gst_video::{VideoConverter, VideoConverterConfig, VideoFrameExt, VideoFrameRef, VideoInfo};
use nvr_core::{
    detection::Detection,
    draw::{Canvas, Print, Rgba, Stamp, Target, Typeface},
    frame::{Frame, FrameMut, PixelFormat},
    layout::{Area, Placement, place},
    scale::{self, Recolour, Scaler},
};

use super::{NvrCompositorFit, pad::Picture, view};
use crate::meta;

pub(super) const PANEL: Rgba = Rgba::rgb(10, 12, 14);
const FAINT: Rgba = Rgba::rgb(172, 178, 184);
const ALERT: Rgba = Rgba::rgb(255, 176, 72);
/// Luma beside a picture, and without one, above black.
const BARS: u8 = 0;
const EMPTY: u8 = 10;

/// Everything that decides what a tile looks like. While it stays the same, the tile need not be drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Look {
    pub area: Area,
    pub fit: NvrCompositorFit,
    /// Number and size of the picture.
    pub picture: Option<(u64, u32, u32)>,
    pub name: String,
    pub show_label: bool,
    /// What is said about a camera without a picture of now.
    pub notice: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Tile {
    pub look: Look,
    /// Grows with every change of the look.
    pub version: u64,
    /// Where the picture is; the tile itself where there is none.
    pub placement: Option<Placement>,
    scaler: Option<Scaler>,
    converter: Option<Converter>,
    texts: Option<Texts>,
    /// Boxes of the picture in pixels of the wall.
    pub detections: Vec<Detection>,
}

/// The way of pictures that the scaler does not know: over one of the right size and format. GStreamer's converter
/// can be told a place in a larger picture, but does not leave alone what is beside it.
#[derive(Debug)]
struct Converter {
    placement: Placement,
    from: VideoInfo,
    to: VideoInfo,
    memory: gst::Buffer,
    inner: VideoConverter,
}

/// Label and notice, drawn once for a place and a wording.
#[derive(Debug)]
struct Texts {
    area: Area,
    label: Option<String>,
    name: String,
    notice: Option<String>,
    stamp: Stamp,
}

impl Tile {
    /// Takes a look; says whether it is another one.
    pub fn update(&mut self, look: Look, picture: Option<&Picture>, version: u64) -> bool {
        if self.version > 0 && self.look == look {
            return false;
        }
        let same_picture =
            self.look.picture == look.picture && self.look.notice.is_some() == look.notice.is_some();
        let before = self.placement;
        self.placement = picture.and_then(|picture| {
            let par = picture.info.par();
            let par = (u32::try_from(par.numer()).unwrap_or(1), u32::try_from(par.denom()).unwrap_or(1));
            place(look.fit.into(), look.area, picture.info.width(), picture.info.height(), par)
        });
        if !same_picture || before != self.placement {
            self.detections.clear();
            if let (Some(picture), Some(placement), None) = (picture, self.placement, &look.notice) {
                self.detections = meta::read(&picture.buffer).detections;
                self.detections.retain_mut(|detection| {
                    placement.to_wall(&detection.rect).map(|rect| detection.rect = rect).is_some()
                });
            }
        }
        self.look = look;
        self.version = version;
        true
    }

    /// Where the picture is shown, or would be.
    pub fn shown(&self) -> Area {
        self.placement.map_or(self.look.area, |placement| placement.target)
    }

    /// Whether it shows a picture of now.
    pub fn is_live(&self) -> bool {
        self.placement.is_some() && self.look.notice.is_none()
    }

    /// Draws what does not move: all of a tile without a picture of now, else what is behind its picture.
    ///
    /// # Errors
    /// As [`Self::draw`].
    pub fn draw_ground(
        &mut self,
        picture: Option<&Picture>,
        wall: &mut VideoFrameRef<&mut gst::BufferRef>,
        typeface: &mut Typeface,
    ) -> Result<(), String> {
        if self.is_live() {
            clear(wall, self.look.area, BARS)
        } else {
            self.draw(picture, wall, true, typeface)
        }
    }

    /// Draws the tile. `bars` also clears what the picture leaves of it.
    ///
    /// # Errors
    /// A picture that cannot be read or converted; the tile then says so.
    pub fn draw(
        &mut self,
        picture: Option<&Picture>,
        wall: &mut VideoFrameRef<&mut gst::BufferRef>,
        bars: bool,
        typeface: &mut Typeface,
    ) -> Result<(), String> {
        let area = self.look.area;
        if area.is_empty() {
            return Ok(());
        }
        let shown = picture.zip(self.placement);
        if bars || shown.is_none() {
            clear(wall, area, if shown.is_some() { BARS } else { EMPTY })?;
        }
        let drawn = shown.map_or(Ok(()), |(picture, placement)| self.draw_picture(picture, placement, wall));
        if drawn.is_err() {
            clear(wall, area, EMPTY)?;
        }
        let mut target = view::write(wall).ok_or("the wall's memory cannot be written")?;
        if drawn.is_ok() && self.look.notice.is_some() && shown.is_some() {
            scale::grey(&mut target, self.shown()).map_err(|error| error.to_string())?;
        }
        let stamp_target = Target::of(&target.as_frame());
        let shown = self.shown();
        let label = self.look.show_label.then_some(&self.look.name);
        let fits = |texts: &Texts| {
            texts.area == shown
                && texts.label.as_ref() == label
                && texts.name == self.look.name
                && texts.notice == self.look.notice
                && *texts.stamp.target() == stamp_target
        };
        if !self.texts.as_ref().is_some_and(fits) {
            self.texts = Some(texts(stamp_target, shown, &self.look, typeface));
        }
        if let Some(texts) = &self.texts {
            texts.stamp.blend(&mut target).map_err(|error| error.to_string())?;
        }
        drawn
    }

    fn draw_picture(
        &mut self,
        picture: &Picture,
        placement: Placement,
        wall: &mut VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<(), String> {
        let mapped = VideoFrameRef::from_buffer_ref_readable(&picture.buffer, &picture.info)
            .map_err(|_| "its pictures cannot be read")?;
        let to = view::pixel_format(wall.info().format()).unwrap_or(PixelFormat::I420);
        let mut target = view::write(wall).ok_or("the wall's memory cannot be written")?;
        if let Some(source) = view::read(&mapped) {
            scale_into(&mut self.scaler, &source, to, placement, &mut target)?;
            let meanings = ((source.matrix, source.range), (target.matrix, target.range));
            if let Some(recolour) = Recolour::between(meanings.0, meanings.1) {
                recolour.run(&mut target, placement.target);
            }
            return Ok(());
        }
        if !self.converter.as_ref().is_some_and(|known| known.fits(&mapped, wall, placement)) {
            self.converter = Some(Converter::new(mapped.info(), wall.info(), placement)?);
        }
        let Some(Converter { inner, to: small, memory, .. }) = &mut self.converter else { return Ok(()) };
        let buffer = memory.get_mut().ok_or("its memory is in use")?;
        let mut converted = VideoFrameRef::from_buffer_ref_writable(buffer, small)
            .map_err(|_| "converted pictures cannot be written")?;
        inner.frame_ref(&mapped, &mut converted);
        drop(converted);
        let converted = VideoFrameRef::from_buffer_ref_readable(memory, small)
            .map_err(|_| "converted pictures cannot be read")?;
        let source = view::read(&converted).ok_or("converted pictures cannot be read")?;
        let whole = Area::new(0, 0, placement.target.width, placement.target.height);
        let copy = Placement { source: whole, target: placement.target };
        let mut target = view::write(wall).ok_or("the wall's memory cannot be written")?;
        scale_into(&mut self.scaler, &source, to, copy, &mut target)
    }
}

fn scale_into(
    scaler: &mut Option<Scaler>,
    source: &Frame<'_>,
    to: PixelFormat,
    placement: Placement,
    target: &mut FrameMut<'_>,
) -> Result<(), String> {
    let size = (source.width, source.height);
    if !scaler.as_ref().is_some_and(|scaler| scaler.fits(source.format, to, size, placement)) {
        *scaler = Some(Scaler::new(source.format, to, size, placement).map_err(|error| error.to_string())?);
    }
    match scaler {
        Some(scaler) => scaler.scale(source, target).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

impl Converter {
    fn fits(
        &self,
        source: &VideoFrameRef<&gst::BufferRef>,
        wall: &VideoFrameRef<&mut gst::BufferRef>,
        placement: Placement,
    ) -> bool {
        self.placement == placement
            && self.from == *source.info()
            && self.to.format() == wall.info().format()
            && self.to.colorimetry() == wall.info().colorimetry()
    }

    fn new(from: &VideoInfo, wall: &VideoInfo, placement: Placement) -> Result<Self, String> {
        let wrong = |_| format!("{} pictures cannot be shown", from.format());
        // The converter insists on one frame rate.
        let plain = VideoInfo::builder(from.format(), from.width(), from.height())
            .fps(wall.fps())
            .par(from.par())
            .colorimetry(&from.colorimetry())
            .chroma_site(from.chroma_site())
            .build()
            .map_err(wrong)?;
        let Placement { source, target } = placement;
        let to = VideoInfo::builder(wall.format(), target.width, target.height)
            .fps(wall.fps())
            .colorimetry(&wall.colorimetry())
            .chroma_site(wall.chroma_site())
            .build()
            .map_err(wrong)?;
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let mut config = VideoConverterConfig::new();
        config.set_src_x(number(source.x));
        config.set_src_y(number(source.y));
        config.set_src_width(Some(number(source.width)));
        config.set_src_height(Some(number(source.height)));
        config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
        let inner = VideoConverter::new(&plain, &to, Some(config)).map_err(wrong)?;
        let memory = gst::Buffer::with_size(to.size()).map_err(wrong)?;
        Ok(Self { placement, from: from.clone(), to, memory, inner })
    }
}

/// Fills an area with grey, given above black.
fn clear(wall: &mut VideoFrameRef<&mut gst::BufferRef>, area: Area, grey: u8) -> Result<(), String> {
    let mut target = view::write(wall).ok_or("the wall's memory cannot be written")?;
    let black = if target.range == nvr_core::frame::ColorRange::Full { 0 } else { 16 };
    scale::fill(&mut target, area, [black + grey, 128, 128]).map_err(|error| error.to_string())
}

/// Size of text in an area, in pixels per em.
fn text_size(area: Area) -> f32 {
    (area.height as f32 / 17.0).min(area.width as f32 / 22.0).clamp(11.0, 34.0)
}

fn texts(target: Target, area: Area, look: &Look, typeface: &mut Typeface) -> Texts {
    let mut stamp = Stamp::new(target);
    let (x, y) = (area.x as i32, area.y as i32);
    let (width, height) = (area.width as i32, area.height as i32);
    let size = text_size(area);
    if let Some((x, y, label)) = label(area, look, typeface) {
        stamp.print(&label, x, y);
    }
    if let Some(notice) = &look.notice {
        let card = card(&look.name, notice, size, width as f32 * 0.92, typeface);
        if (card.height() as i32) < height {
            let left = (width - card.width() as i32) / 2;
            let top = (height - card.height() as i32) / 2;
            stamp.picture(&card, x + left, y + top);
        }
    }
    Texts {
        area,
        label: look.show_label.then(|| look.name.clone()),
        name: look.name.clone(),
        notice: look.notice.clone(),
        stamp,
    }
}

/// The label of a tile whose picture is shown in `area`, and where its top left corner is on the wall.
pub(super) fn label(area: Area, look: &Look, typeface: &mut Typeface) -> Option<(i32, i32, Print)> {
    let (width, height) = (area.width as i32, area.height as i32);
    // A notice names the camera itself.
    if !look.show_label || look.notice.is_some() || height <= 24 {
        return None;
    }
    let size = text_size(area);
    let margin = (size * 0.4).round() as i32;
    let room = (width - 2 * margin) as f32 - size;
    let name = Typeface::fit(&look.name, size, room);
    let label = Print::label(typeface, &name, size, Rgba::WHITE, PANEL.with_alpha(0.62));
    let (x, y) = (area.x as i32 + margin, area.y as i32 + height - margin - label.height() as i32);
    Some((x, y, label))
}

/// Name and notice, one above the other on a panel.
fn card(name: &str, notice: &str, size: f32, room: f32, typeface: &mut Typeface) -> Canvas {
    let (large, small) = (size * 1.25, size * 0.95);
    let padding = size * 0.8;
    let room = room - 2.0 * padding;
    let name = Typeface::fit(name, large, room);
    let notice = Typeface::fit(notice, small, room);
    let dot = small * 0.5;
    let notice_width = Typeface::width(&notice, small) + dot * 1.9;
    let name_width = Typeface::width(&name, large);
    let width = name_width.max(notice_width) + 2.0 * padding;
    let (first, second) = (Typeface::line(large), Typeface::line(small));
    let gap = size * 0.65;
    let height = first.capitals + gap + second.capitals + 2.0 * padding;
    let (width, height) = (width.ceil(), height.ceil());
    let mut canvas = Canvas::new(width as u32, height as u32);
    canvas.panel((0.0, 0.0, width, height), size * 0.4, PANEL.with_alpha(0.72));
    let baseline = padding + first.capitals;
    typeface.draw(&mut canvas, ((width - name_width) / 2.0, baseline), large, &name, Rgba::WHITE);
    let baseline = baseline + gap + second.capitals;
    let left = (width - notice_width) / 2.0;
    canvas.panel((left, baseline - second.capitals / 2.0 - dot / 2.0, dot, dot), dot / 2.0, ALERT);
    typeface.draw(&mut canvas, (left + dot * 1.9, baseline), small, &notice, FAINT);
    canvas
}

/// Date and time of a wall of this size, and where they stand: the lower right corner.
pub(super) fn clock(size: (u32, u32), text: &str, spacing: u32, typeface: &mut Typeface) -> (Area, Print) {
    let (width, height) = size;
    let size = (height as f32 / 44.0).clamp(11.0, 40.0);
    let label = Print::label(typeface, text, size, Rgba::WHITE, PANEL.with_alpha(0.72));
    let margin = (size * 0.4).round() as u32 + spacing;
    let x = width.saturating_sub(label.width() + margin) & !1;
    let y = height.saturating_sub(label.height() + margin) & !1;
    let even = |n: u32| n.div_ceil(2) * 2;
    (Area::new(x, y, even(label.width()), even(label.height())), label)
}
