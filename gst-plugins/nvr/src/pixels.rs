//! Memory that a decoder writes pictures to and that others read where it lies.
//!
//! A decoder keeps a picture mapped for writing while later pictures refer to it. GStreamer's base class of decoders needs
//! a buffer of its own to hand on, and what is mapped for writing it copies: 1.4 MB for a picture of 1280×720, into memory
//! that is new each time. A copy of this memory that is made while it is mapped so is a read-only view of the same pixels
//! instead, for the picture is complete. Once the decoder maps the memory for writing again while somebody still looks, it
//! gets other pixels in it, and finds what is left there of an earlier picture, as in any buffer of a pool. So this is for
//! decoders and for nobody else.

use std::{
    alloc::{self, Layout},
    ptr::{self, NonNull},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
};

use gst::{
    ffi::{self, GstAllocator, GstMapFlags, GstMemory},
    glib::{
        self,
        translate::{IntoGlib, IntoGlibPtr},
    },
};
use parking_lot::Mutex;

/// Blocks that are kept for the next picture. Those at work are not among them.
const SPARE: usize = 4;

type CopyFn = unsafe extern "C" fn(*mut GstMemory, isize, isize) -> *mut GstMemory;

/// GStreamer's own way to copy memory.
static PLAIN_COPY: OnceLock<CopyFn> = OnceLock::new();

glib::wrapper! {
    /// Allocates memory of which copies are views while it is being written. For one stream's pictures.
    pub struct Pixels(ObjectSubclass<imp::Pixels>) @extends gst::Allocator, gst::Object;
}

impl Default for Pixels {
    fn default() -> Self {
        glib::Object::new()
    }
}

/// Bytes on the heap.
#[derive(Debug)]
struct Bytes {
    data: NonNull<u8>,
    layout: Layout,
}

// SAFETY: they belong to whoever has this, like a box's.
unsafe impl Send for Bytes {}
// SAFETY: through a shared reference nothing is written but by the one that has the memory mapped for writing, which
// GStreamer's lock of the memory makes one at a time; views are made when that has written.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn new(layout: Layout) -> Option<Self> {
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the size is not zero.
        let data = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        Some(Self { data, layout })
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed here alone.
        unsafe { alloc::dealloc(self.data.as_ptr(), self.layout) }
    }
}

/// Where bytes wait for their next use: new ones would cost a page fault for every 4 kB.
#[derive(Debug, Default)]
struct Depot {
    free: Mutex<Vec<Bytes>>,
}

impl Depot {
    fn take(self: &Arc<Self>, layout: Layout) -> Option<Arc<Block>> {
        let mut free = self.free.lock();
        let found = free.iter().position(|bytes| bytes.layout == layout).map(|at| free.swap_remove(at));
        drop(free);
        let bytes = match found {
            Some(bytes) => bytes,
            None => Bytes::new(layout)?,
        };
        Some(Arc::new(Block { bytes: Some(bytes), home: Arc::downgrade(self) }))
    }
}

/// Bytes that go back to their depot.
#[derive(Debug)]
struct Block {
    /// There until the end.
    bytes: Option<Bytes>,
    home: Weak<Depot>,
}

impl Block {
    fn bytes(&self) -> &Bytes {
        self.bytes.as_ref().expect("only dropping takes them")
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some((home, bytes)) = self.home.upgrade().zip(self.bytes.take()) else { return };
        let mut free = home.free.lock();
        if free.len() < SPARE {
            free.push(bytes);
        }
    }
}

/// What somebody reads, for as long as it takes.
struct View {
    block: Arc<Block>,
    offset: usize,
    size: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        let data = self.block.bytes().data;
        // SAFETY: it lies within the block, as the memory that it is of did, and nobody writes to a block with views.
        unsafe { std::slice::from_raw_parts(data.as_ptr().add(self.offset), self.size) }
    }
}

/// `GstMemory`, and what it is of.
#[repr(C)]
struct Memory {
    base: GstMemory,
    depot: Arc<Depot>,
    block: Mutex<Arc<Block>>,
    /// How often it is mapped.
    maps: AtomicUsize,
}

impl Memory {
    fn allocate(
        allocator: *mut GstAllocator,
        depot: &Arc<Depot>,
        size: usize,
        params: &gst::AllocationParams,
    ) -> Option<*mut GstMemory> {
        let whole = size.checked_add(params.prefix())?.checked_add(params.padding())?;
        let align = params.align() | gst::Memory::default_alignment();
        let layout = Layout::from_size_align(whole, align.checked_add(1)?).ok()?;
        let memory = Self {
            // SAFETY: numbers and pointers; it is initialised below.
            base: unsafe { std::mem::zeroed() },
            depot: depot.clone(),
            block: Mutex::new(depot.take(layout)?),
            maps: AtomicUsize::new(0),
        };
        let memory = Box::into_raw(Box::new(memory)).cast::<GstMemory>();
        // SAFETY: it points to room for one, and the prefix lies within it.
        unsafe {
            ffi::gst_memory_init(
                memory,
                params.flags().into_glib(),
                allocator,
                ptr::null_mut(),
                whole,
                align,
                params.prefix(),
                size,
            );
        }
        Some(memory)
    }

    /// SAFETY: `memory` has to be one of this allocator's.
    unsafe fn of<'a>(memory: *mut GstMemory) -> &'a Self {
        // SAFETY: made in `allocate`; the caller sees to it that it lives.
        unsafe { &*memory.cast::<Self>() }
    }
}

unsafe extern "C" fn map(memory: *mut GstMemory, _size: usize, flags: GstMapFlags) -> glib::ffi::gpointer {
    // SAFETY: GStreamer calls this for memory of this allocator alone, and holds it.
    let this = unsafe { Memory::of(memory) };
    let mut block = this.block.lock();
    let first = this.maps.load(Ordering::Relaxed) == 0;
    if first && flags & ffi::GST_MAP_WRITE != 0 && Arc::strong_count(&block) > 1 {
        let Some(other) = this.depot.take(block.bytes().layout) else { return ptr::null_mut() };
        *block = other;
    }
    this.maps.fetch_add(1, Ordering::Relaxed);
    block.bytes().data.as_ptr().cast()
}

unsafe extern "C" fn unmap(memory: *mut GstMemory) {
    // SAFETY: as above.
    unsafe { Memory::of(memory) }.maps.fetch_sub(1, Ordering::Relaxed);
}

unsafe extern "C" fn copy(memory: *mut GstMemory, offset: isize, size: isize) -> *mut GstMemory {
    // SAFETY: as above; GStreamer itself changes this field in the same way.
    let (this, locked) = unsafe {
        let state = AtomicI32::from_ptr(&raw mut (*memory).mini_object.lockstate).load(Ordering::Acquire);
        (Memory::of(memory), state & ffi::GST_LOCK_FLAG_WRITE as i32 != 0)
    };
    if !locked {
        // SAFETY: what GStreamer would have called.
        return PLAIN_COPY.get().map_or(ptr::null_mut(), |plain| unsafe { plain(memory, offset, size) });
    }
    // SAFETY: sizes of memory that is held.
    let (start, length, end) = unsafe { ((*memory).offset, (*memory).size, (*memory).maxsize) };
    let offset = start.wrapping_add_signed(offset);
    let size = usize::try_from(size).unwrap_or_else(|_| (start + length).saturating_sub(offset));
    if offset.checked_add(size).is_none_or(|last| last > end) {
        return ptr::null_mut();
    }
    let block = this.block.lock().clone();
    gst::Memory::from_slice(View { block, offset, size }).into_glib_ptr()
}

/// Part of a memory for reading. It is copied: the whole may be written to while the part is there.
unsafe extern "C" fn share(memory: *mut GstMemory, offset: isize, size: isize) -> *mut GstMemory {
    // SAFETY: as above.
    PLAIN_COPY.get().map_or(ptr::null_mut(), |plain| unsafe { plain(memory, offset, size) })
}

mod imp {
    use std::{ptr, sync::Arc};

    use gst::{ffi::GstMemory, glib, prelude::*, subclass::prelude::*};

    use super::{Depot, Memory, PLAIN_COPY, copy, map, share, unmap};

    #[derive(Debug, Default)]
    pub struct Pixels {
        depot: Arc<Depot>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Pixels {
        const NAME: &'static str = "NvrPixels";
        type Type = super::Pixels;
        type ParentType = gst::Allocator;
    }

    impl ObjectImpl for Pixels {
        fn constructed(&self) {
            self.parent_constructed();
            let allocator = self.obj().upcast_ref::<gst::Allocator>().as_ptr();
            // SAFETY: nobody else has it yet.
            unsafe {
                (*allocator).mem_type = c"NvrPixels".as_ptr();
                if let Some(plain) = (*allocator).mem_copy {
                    PLAIN_COPY.get_or_init(|| plain);
                }
                (*allocator).mem_map = Some(map);
                (*allocator).mem_unmap = Some(unmap);
                (*allocator).mem_copy = Some(copy);
                (*allocator).mem_share = Some(share);
            }
        }
    }

    impl GstObjectImpl for Pixels {}

    // SAFETY: what is allocated here is made for this allocator, and freed as what it was made as.
    unsafe impl AllocatorImpl for Pixels {
        unsafe fn alloc(&self, size: usize, params: &gst::AllocationParams) -> *mut GstMemory {
            let allocator = self.obj().upcast_ref::<gst::Allocator>().as_ptr();
            Memory::allocate(allocator, &self.depot, size, params).unwrap_or(ptr::null_mut())
        }

        unsafe fn free(&self, memory: *mut GstMemory) {
            // SAFETY: boxed in `Memory::allocate`, and this is its end.
            drop(unsafe { Box::from_raw(memory.cast::<Memory>()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;

    use super::*;

    fn buffer(allocator: &Pixels, size: usize) -> gst::Buffer {
        let params = gst::AllocationParams::new(gst::MemoryFlags::empty(), 63, 0, 0);
        let memory = allocator.upcast_ref::<gst::Allocator>().alloc(size, Some(&params)).unwrap();
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory);
        buffer
    }

    /// As a decoder has it that refers to the picture later.
    struct Writing(gst::Buffer, ffi::GstMapInfo);

    impl Writing {
        fn begin(buffer: &gst::Buffer, value: u8) -> Self {
            let mut info = std::mem::MaybeUninit::uninit();
            let flags = ffi::GST_MAP_READ | ffi::GST_MAP_WRITE;
            let memory = buffer.peek_memory(0).as_ptr().cast_mut();
            // SAFETY: the buffer is kept until it is unmapped.
            unsafe {
                assert_ne!(ffi::gst_memory_map(memory, info.as_mut_ptr(), flags), 0);
                let info = info.assume_init();
                ptr::write_bytes(info.data, value, info.size);
                Self(buffer.clone(), info)
            }
        }

        fn place(&self) -> *const u8 {
            self.1.data
        }
    }

    impl Drop for Writing {
        fn drop(&mut self) {
            // SAFETY: mapped in `begin`.
            unsafe { ffi::gst_memory_unmap(self.0.peek_memory(0).as_ptr().cast_mut(), &raw mut self.1) }
        }
    }

    fn place(buffer: &gst::Buffer) -> *const u8 {
        buffer.map_readable().unwrap().as_ptr()
    }

    fn is(buffer: &gst::Buffer, value: u8) -> bool {
        buffer.map_readable().unwrap().iter().all(|byte| *byte == value)
    }

    #[test]
    fn a_copy_of_what_is_being_written_shows_the_same_pixels() {
        gst::init().unwrap();
        let allocator = Pixels::default();
        let picture = buffer(&allocator, 1000);
        let decoder = Writing::begin(&picture, 7);
        let shown = picture.copy();
        assert_eq!(place(&shown), decoder.place());
        assert!(place(&shown).addr().is_multiple_of(64));
        assert!(is(&shown, 7) && shown.size() == 1000);
    }

    #[test]
    fn the_next_picture_does_not_change_what_is_looked_at() {
        gst::init().unwrap();
        let allocator = Pixels::default();
        let picture = buffer(&allocator, 1000);
        let decoder = Writing::begin(&picture, 7);
        let shown = picture.copy();
        let first = place(&shown);
        // Mapped once more, as by who looks whether it is there, it stays what it is.
        drop(Writing::begin(&picture, 7));
        assert_eq!(decoder.place(), first);
        drop(decoder);
        let decoder = Writing::begin(&picture, 8);
        assert_ne!(decoder.place(), first);
        assert!(is(&shown, 7));
        drop(decoder);
        drop(shown);
        // Nobody looked at the second one: it is written to where it was.
        let second = Writing::begin(&picture, 9).place();
        assert_ne!(second, first);
        let shown = {
            let _decoder = Writing::begin(&picture, 10);
            picture.copy()
        };
        // The first place is free again, and is taken before there is a third.
        let decoder = Writing::begin(&picture, 11);
        assert_eq!(decoder.place(), first);
        assert!(is(&shown, 10) && place(&shown) == second);
    }

    #[test]
    fn who_wants_to_write_gets_memory_of_its_own() {
        gst::init().unwrap();
        let allocator = Pixels::default();
        let picture = buffer(&allocator, 1000);
        let decoder = Writing::begin(&picture, 7);
        let mut shown = picture.copy();
        shown.get_mut().unwrap().map_writable().unwrap().fill(1);
        assert!(is(&shown, 1));
        drop(decoder);
        assert!(is(&picture, 7));
        // What nobody writes to is shared and copied as any other memory is.
        let mut other = picture.copy();
        other.make_mut().map_writable().unwrap().fill(2);
        assert!(is(&picture, 7) && is(&other, 2));
        let part = picture.copy_region(gst::BufferCopyFlags::MEMORY, 10..20).unwrap();
        assert!(part.size() == 10 && is(&part, 7));
    }

    #[test]
    fn what_is_shown_outlives_everything_else() {
        gst::init().unwrap();
        let allocator = Pixels::default();
        let picture = buffer(&allocator, 1000);
        let shown = {
            let _decoder = Writing::begin(&picture, 7);
            picture.copy()
        };
        drop((picture, allocator));
        assert!(is(&shown, 7));
    }

    #[test]
    fn what_waits_for_its_next_use_is_bounded() {
        gst::init().unwrap();
        let allocator = Pixels::default();
        let pictures: Vec<_> = (0..4 * SPARE).map(|_| buffer(&allocator, 1000)).collect();
        drop(pictures);
        let depot = {
            let picture = buffer(&allocator, 2000);
            // SAFETY: it is of this allocator, and there until the end of the block.
            unsafe { Memory::of(picture.peek_memory(0).as_ptr().cast_mut()) }.depot.clone()
        };
        assert_eq!(depot.free.lock().len(), SPARE);
    }
}
