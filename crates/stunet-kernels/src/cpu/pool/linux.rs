//! Pages that move from one buffer to another.

use super::CHUNK;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap_fixed, munmap};
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};

/// Whole chunks of memory at consecutive addresses, readable and writable, and no one else's.
pub(super) struct Pages {
    start: NonNull<c_void>,
    chunks: usize,
}

// SAFETY: memory belongs to no thread; `Pages` gives shared references to it only through its own.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `chunks` chunks: up to `moved` of them from `waiting`, the first of which give theirs first,
    /// the others fresh and zero.
    ///
    /// # Panics
    /// When the system has no addresses left.
    pub(super) fn gather(chunks: usize, moved: usize, waiting: &mut Vec<Self>) -> Self {
        let (mut pages, mut failed) = (Self::fresh(chunks), None);
        for index in 0..moved.min(chunks) {
            let Some(giver) = waiting.first_mut() else { break };
            // What moves is gone from the giver, whether it arrives or not.
            giver.chunks -= 1;
            // SAFETY: the last chunk of the giver's, which it no longer counts, and one of the new
            // pages', to which nothing refers yet; both are mapped, and `CHUNK` is whole pages.
            unsafe {
                let from = giver.start.as_ptr().byte_add(giver.chunks * CHUNK);
                let to = pages.start.as_ptr().byte_add(index * CHUNK);
                let flags = MremapFlags::MAYMOVE;
                if let Err(error) = mremap_fixed(from, CHUNK, CHUNK, flags, to) {
                    // The system may have dropped the target already, and somebody may live there
                    // by now: the rest of these addresses is left alone.
                    let _ = munmap(from, CHUNK);
                    std::mem::forget(pages);
                    failed = Some(error);
                    pages = Self::fresh(chunks);
                    break;
                }
            }
            if giver.chunks == 0 {
                waiting.remove(0);
            }
        }
        waiting.retain(|pages| pages.chunks > 0);
        debug_assert!(failed.is_none(), "pages do not move: {failed:?}");
        pages
    }

    /// The last `chunks` of more chunks.
    pub(super) fn split_off(&mut self, chunks: usize) -> Option<Self> {
        let left = self.chunks.checked_sub(chunks).filter(|left| *left > 0)?;
        // SAFETY: inside of these pages, whose end now lies there.
        let start = unsafe { self.start.byte_add(left * CHUNK) };
        self.chunks = left;
        Some(Self { start, chunks })
    }

    /// Both as one where they lie beside each other.
    pub(super) fn join(self, other: Self) -> Result<Self, [Self; 2]> {
        let chunks = self.chunks + other.chunks;
        let start = match (self.end() == other.start, other.end() == self.start) {
            (true, _) => self.start,
            (_, true) => other.start,
            _ => return Err([self, other]),
        };
        std::mem::forget((self, other));
        Ok(Self { start, chunks })
    }

    /// The address behind the last chunk.
    fn end(&self) -> NonNull<c_void> {
        // SAFETY: one past the end of what is mapped.
        unsafe { self.start.byte_add(self.chunks * CHUNK) }
    }

    fn fresh(chunks: usize) -> Self {
        let bytes = chunks * CHUNK;
        // No huge pages: on a virtual machine whose host has not touched them yet, clearing them
        // took four times as long as the faults they save.
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address of the system's choice.
        let start = unsafe { mmap_anonymous(null_mut(), bytes, protection, flags) }
            .unwrap_or_else(|error| panic!("no memory for a tensor of {bytes} bytes: {error}"));
        let start = NonNull::new(start).expect("the system maps nothing at address zero");
        Self { start, chunks }
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and initialised, by the system if by nobody else; the borrow is of `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.chunks * CHUNK) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.chunks * CHUNK) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.chunks > 0 {
            // SAFETY: mapped by `fresh` or moved there since, and nothing refers to it any more.
            // Without success the memory stays, which harms nobody.
            let _ = unsafe { munmap(self.start.as_ptr(), self.chunks * CHUNK) };
        }
    }
}
