//! What the user asks for.

use std::sync::LazyLock;

use gst::{glib, prelude::*};
use nvr_core::layout::Wall;

use super::{NvrCompositorBackend, NvrCompositorLayout};

/// A wall may be as large as four 4K screens side by side.
pub(super) const MAX_SIDE: u32 = 16384;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    pub backend: NvrCompositorBackend,
    pub layout: NvrCompositorLayout,
    pub columns: u32,
    /// A source id; -1 takes the first tile.
    pub focus: i32,
    pub tile_width: u32,
    pub tile_height: u32,
    pub spacing: u32,
    pub background: u32,
    pub offline_after: u32,
    pub show_labels: bool,
    pub clock: bool,
    pub navigation: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: NvrCompositorBackend::default(),
            layout: NvrCompositorLayout::default(),
            columns: 0,
            focus: -1,
            tile_width: 0,
            tile_height: 0,
            spacing: 4,
            background: 0xff16_1a1e,
            offline_after: 5000,
            show_labels: true,
            clock: false,
            navigation: true,
        }
    }
}

impl Settings {
    /// The wall of this size; `focus` is the index of the tile that is meant.
    pub fn wall(&self, width: u32, height: u32, focus: usize) -> Wall {
        let shape = if self.tile_width > 0 && self.tile_height > 0 {
            (self.tile_width, self.tile_height)
        } else {
            (16, 9)
        };
        Wall {
            width,
            height,
            layout: self.layout.into(),
            columns: self.columns,
            focus,
            shape,
            spacing: self.spacing,
        }
    }

    /// Size of a wall of `count` tiles where downstream leaves it open.
    pub fn size(&self, count: usize) -> (u32, u32) {
        if self.tile_width == 0 || self.tile_height == 0 || count == 0 {
            return (1920, 1080);
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let columns = if self.columns > 0 { self.columns } else { (f64::from(count)).sqrt().ceil() as u32 };
        let columns = columns.min(count);
        let side = |tiles: u32, tile: u32| {
            let spacing = self.spacing & !1;
            (tiles.saturating_mul(tile.saturating_add(spacing)).saturating_add(spacing)).min(MAX_SIDE)
        };
        (side(columns, self.tile_width), side(count.div_ceil(columns), self.tile_height))
    }

    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        const CHECKED: &str = "the type is checked by GObject";
        match pspec.name() {
            "backend" => self.backend = value.get().expect(CHECKED),
            "layout" => self.layout = value.get().expect(CHECKED),
            "columns" => self.columns = value.get().expect(CHECKED),
            "focus" => self.focus = value.get().expect(CHECKED),
            "tile-width" => self.tile_width = value.get().expect(CHECKED),
            "tile-height" => self.tile_height = value.get().expect(CHECKED),
            "spacing" => self.spacing = value.get().expect(CHECKED),
            "background" => self.background = value.get().expect(CHECKED),
            "offline-after" => self.offline_after = value.get().expect(CHECKED),
            "show-labels" => self.show_labels = value.get().expect(CHECKED),
            "clock" => self.clock = value.get().expect(CHECKED),
            "navigation" => self.navigation = value.get().expect(CHECKED),
            _ => return false,
        }
        true
    }

    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        Some(match pspec.name() {
            "backend" => self.backend.to_value(),
            "layout" => self.layout.to_value(),
            "columns" => self.columns.to_value(),
            "focus" => self.focus.to_value(),
            "tile-width" => self.tile_width.to_value(),
            "tile-height" => self.tile_height.to_value(),
            "spacing" => self.spacing.to_value(),
            "background" => self.background.to_value(),
            "offline-after" => self.offline_after.to_value(),
            "show-labels" => self.show_labels.to_value(),
            "clock" => self.clock.to_value(),
            "navigation" => self.navigation.to_value(),
            _ => return None,
        })
    }
}

pub(super) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let default = Settings::default();
        vec![
            glib::ParamSpecEnum::builder_with_default("backend", default.backend)
                .nick("Backend")
                .blurb("Who draws the wall; auto = the device whose memory the cameras' pictures are in, where it works")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("layout", default.layout)
                .nick("Layout")
                .blurb("How the tiles are arranged")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("columns")
                .nick("Columns")
                .blurb("Tiles in a row; 0 = what makes them largest")
                .maximum(64)
                .default_value(default.columns)
                .mutable_playing()
                .build(),
            glib::ParamSpecInt::builder("focus")
                .nick("Focus")
                .blurb("Source id of the tile that layout=focus shows large; -1 = the first")
                .minimum(-1)
                .default_value(default.focus)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("tile-width")
                .nick("Tile width")
                .blurb("With tile-height: shape of a tile, and its size where downstream leaves the wall's size open; 0 = 16:9 and a wall of 1920×1080")
                .maximum(MAX_SIDE)
                .default_value(default.tile_width)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("tile-height")
                .nick("Tile height")
                .blurb("See tile-width")
                .maximum(MAX_SIDE)
                .default_value(default.tile_height)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("spacing")
                .nick("Spacing")
                .blurb("Pixels between tiles and around them; an odd number counts as the one below")
                .maximum(256)
                .default_value(default.spacing)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("background")
                .nick("Background")
                .blurb("Colour between the tiles as 0xAARRGGBB; opacity is ignored")
                .default_value(default.background)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("offline-after")
                .nick("Offline after")
                .blurb("Milliseconds without a picture after which a camera is shown as offline; 0 = never")
                .maximum(86_400_000)
                .default_value(default.offline_after)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("show-labels")
                .nick("Show labels")
                .blurb("Whether each tile shows its camera's label")
                .default_value(default.show_labels)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("clock")
                .nick("Clock")
                .blurb("Whether the wall shows date and time of this machine")
                .default_value(default.clock)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoolean::builder("navigation")
                .nick("Navigation")
                .blurb("Whether clicks and keys in the window change layout and focus")
                .default_value(default.navigation)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("What was drawn, as a whole and for each pad")
                .read_only()
                .build(),
        ]
    });
    PROPERTIES.as_ref()
}
