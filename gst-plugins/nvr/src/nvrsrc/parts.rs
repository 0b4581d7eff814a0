//! Puts pictures together again that came in parts.
//!
//! A camera that repeats its parameter sets before each slice of a keyframe, as GStreamer's own payloader does with
//! `config-interval=-1`, has the picture taken apart there by GStreamer's depayloader: in a stream in order, parameter
//! sets begin a picture. The marker bit on a picture's last packet tells the parts from whole ones.

/// Most bytes and most parts of one picture: a camera that never ends one must not fill the memory.
const BYTES: usize = nvr_core::access_unit::LIMIT;
const PARTS: usize = 64;

/// The beginning of a picture, until its end comes.
#[derive(Debug, Default)]
pub struct Parts {
    part: Option<gst::Buffer>,
    /// How many were put together in it.
    count: usize,
    /// Pictures of this camera end without a mark.
    unmarked: bool,
}

impl Parts {
    /// The pictures that are whole with `buffer`, in order.
    pub fn add(&mut self, mut buffer: gst::Buffer) -> [Option<gst::Buffer>; 2] {
        let ends = buffer.flags().contains(gst::BufferFlags::MARKER);
        let before = match self.part.take() {
            Some(mut part)
                if part.pts() == buffer.pts()
                    && self.count < PARTS
                    && part.size() + buffer.size() <= BYTES =>
            {
                self.count += 1;
                let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                part.append(buffer);
                if keyframe {
                    part.make_mut().unset_flags(gst::BufferFlags::DELTA_UNIT);
                }
                buffer = part;
                None
            }
            part => {
                self.count = 1;
                part
            }
        };
        // One that another one follows was whole by itself.
        self.unmarked = !ends && (self.unmarked || before.is_some());
        if ends || self.unmarked {
            return [before, Some(buffer)];
        }
        self.part = Some(buffer);
        [before, None]
    }

    /// What has begun.
    pub fn take(&mut self) -> Option<gst::Buffer> {
        self.part.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: gst::BufferFlags = gst::BufferFlags::empty();
    const DELTA: gst::BufferFlags = gst::BufferFlags::DELTA_UNIT;
    const END: gst::BufferFlags = gst::BufferFlags::MARKER;

    fn part(time: u64, byte: u8, flags: gst::BufferFlags) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_mut_slice([byte]);
        let inside = buffer.make_mut();
        inside.set_pts(gst::ClockTime::from_mseconds(time));
        inside.set_flags(flags);
        buffer
    }

    /// Times, bytes and whether they are keyframes of what comes out of what goes in, and of what is left.
    fn run(parts: &[(u64, u8, gst::BufferFlags)]) -> (String, Option<u8>) {
        gst::init().unwrap();
        let mut whole = Parts::default();
        let mut seen = Vec::new();
        for (time, byte, flags) in parts {
            for buffer in whole.add(part(*time, *byte, *flags)).into_iter().flatten() {
                let bytes = buffer.map_readable().unwrap();
                let bytes: String = bytes.iter().map(|byte| char::from(*byte)).collect();
                let key = if buffer.flags().contains(DELTA) { "" } else { "!" };
                seen.push(format!("{}{bytes}{key}", buffer.pts().unwrap().mseconds()));
            }
        }
        (seen.join(" "), whole.take().map(|buffer| buffer.map_readable().unwrap()[0]))
    }

    #[test]
    fn pictures_are_whole_again() {
        for (what, parts, expected, left) in [
            ("whole ones", &[(0, b'a', KEY | END), (40, b'b', DELTA | END)][..], "0a! 40b", None),
            (
                "a keyframe in three parts",
                &[(0, b'a', KEY), (0, b'b', DELTA), (0, b'c', KEY | END), (40, b'd', DELTA | END)],
                "0abc! 40d",
                None,
            ),
            ("parameters first", &[(0, b'a', DELTA), (0, b'b', KEY | END)], "0ab!", None),
            (
                "no marks at all: one is held once",
                &[(0, b'a', KEY), (40, b'b', DELTA), (80, b'c', DELTA), (120, b'd', DELTA)],
                "0a! 40b 80c 120d",
                None,
            ),
            (
                "a lost mark",
                &[(0, b'a', KEY | END), (40, b'b', DELTA), (80, b'c', DELTA | END), (120, b'd', DELTA | END)],
                "0a! 40b 80c 120d",
                None,
            ),
            ("two in a row without an end", &[(0, b'a', KEY), (0, b'b', KEY)], "", Some(b'a')),
            ("the end is missing", &[(0, b'a', KEY | END), (40, b'b', DELTA)], "0a!", Some(b'b')),
        ] {
            assert_eq!(run(parts), (expected.to_owned(), left), "{what}");
        }
    }

    #[test]
    fn a_picture_without_an_end_does_not_grow_for_ever() {
        gst::init().unwrap();
        let mut parts = Parts::default();
        let mut most = 0;
        for _ in 0..10 * PARTS {
            let whole = parts.add(part(0, b'a', DELTA));
            most = most.max(whole.iter().flatten().map(|buffer| buffer.size()).sum());
        }
        assert_eq!(most, PARTS + 1, "given out as it is, and then one by one");
        assert!(parts.take().is_none());
    }
}
