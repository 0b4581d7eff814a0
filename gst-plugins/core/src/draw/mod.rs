//! Drawing into raw frames without converting them: colours, text, small pictures, and what blends them into planes.
//!
//! What is to be seen is drawn once into [`Print`]s (two colours) and [`Canvas`]es (premultiplied
//! RGBA) and compiled into a [`Stamp`], which holds
//! it in the frame's own format, as runs of bytes per row and plane. Blending a stamp into a frame then costs time for
//! the pixels that it covers and for nothing else, and can be repeated for any number of frames.
//!
//! ```
//! use nvr_core::draw::{Print, Rgba, Stamp, Target, Typeface};
//! use nvr_core::frame::{ColorMatrix, ColorRange, FrameMut, PixelFormat, PlaneMut};
//!
//! let mut typeface = Typeface::new();
//! let label = Print::label(&mut typeface, "Yard", 24.0, Rgba::WHITE, Rgba::BLACK.with_alpha(0.6));
//! let target = Target {
//!     format: PixelFormat::Rgb,
//!     width: 160,
//!     height: 90,
//!     matrix: ColorMatrix::Bt709,
//!     range: ColorRange::Limited,
//! };
//! let mut stamp = Stamp::new(target);
//! stamp.print(&label, 8, 8);
//!
//! let mut pixels = vec![0; 160 * 90 * 3];
//! let mut frame = FrameMut {
//!     format: target.format,
//!     width: target.width,
//!     height: target.height,
//!     planes: [PlaneMut { data: &mut pixels, stride: 160 * 3 }, PlaneMut::default(), PlaneMut::default()],
//!     matrix: target.matrix,
//!     range: target.range,
//! };
//! stamp.blend(&mut frame)?;
//! # Ok::<(), nvr_core::draw::StampError>(())
//! ```

mod canvas;
mod colour;
mod layer;
mod print;
mod stamp;
mod text;

pub use canvas::Canvas;
pub use colour::{ColourError, Rgba};
pub use print::{Print, Vertex};
pub use stamp::{Stamp, StampError, Target};
pub use text::{Line, Typeface};
