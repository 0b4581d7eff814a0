//! The pictures that the wall is drawn into. Each is kept and remembers what it shows, so that only what has changed
//! since is drawn again.
//!
//! What leaves the element is another buffer with the same memory. As long as somebody holds that, the memory
//! counts as shared: an element that wants to write into it gets a copy, and the canvas is left alone.

use std::collections::BTreeMap;

use gst_video::VideoInfo;
use nvr_core::layout::Area;

/// Canvases that are kept; encoders and sinks that hold more pictures get fresh memory for each.
const KEPT: usize = 24;

/// One picture and what is on it.
#[derive(Debug)]
pub(super) struct Canvas {
    pub buffer: gst::Buffer,
    /// Generation of the layout and background that it was drawn with.
    pub layout: u64,
    /// Version of each tile on it.
    pub tiles: BTreeMap<u64, u64>,
    /// Where each tile's picture was drawn: around it, the tile is clear.
    pub places: BTreeMap<u64, Area>,
    pub clock: String,
    used: u64,
}

#[derive(Debug, Default)]
pub(super) struct Canvases {
    list: Vec<Canvas>,
    uses: u64,
}

impl Canvases {
    /// The canvas that nobody looks at and that was drawn last, or a new one.
    pub fn take(&mut self, info: &VideoInfo) -> Result<&mut Canvas, gst::glib::BoolError> {
        self.uses += 1;
        let free = |canvas: &Canvas| canvas.buffer.is_all_memory_writable();
        let newest =
            self.list.iter().enumerate().filter(|(_, canvas)| free(canvas)).max_by_key(|(_, c)| c.used);
        let index = if let Some((index, _)) = newest {
            index
        } else {
            if self.list.len() >= KEPT {
                // Its memory lives on with whoever holds it.
                self.list.remove(0);
            }
            let buffer = gst::Buffer::with_size(info.size())?;
            let canvas = Canvas {
                buffer,
                layout: 0,
                tiles: BTreeMap::new(),
                places: BTreeMap::new(),
                clock: String::new(),
                used: 0,
            };
            self.list.push(canvas);
            self.list.len() - 1
        };
        let canvas = &mut self.list[index];
        canvas.used = self.uses;
        Ok(canvas)
    }
}
