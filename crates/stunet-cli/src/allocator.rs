//! Memory that the system refuses ends the program in one line.
//!
//! Large blocks (volumes, tensors) are asked for with `try_reserve` or planned beforehand, and their
//! refusal is an error like any other. A refused block of a few bytes is nobody's to handle: Rust would
//! end the program by an abort, with a core dump and no hint. Under a tight `ulimit -v` that happens
//! although megabytes are left, since glibc sets address space aside for every thread.
#![allow(
    unsafe_code,
    reason = "an allocator is an unsafe trait; this one adds a question to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Smallest block whose refusal is left to whoever asked for it.
const LARGE: usize = 4 << 20;

const MESSAGE: &[u8] = b"stunet: memory: the system refuses even small amounts; allow more \
    (ulimit -v, the memory of the job) or fewer threads (RAYON_NUM_THREADS=1)\n";

/// The system's allocator; a small block that it refuses ends the program.
pub struct OneLine;

fn checked(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() && size < LARGE {
        out_of_memory();
    }
    block
}

#[cold]
fn out_of_memory() -> ! {
    crate::screen::restore();
    #[cfg(unix)]
    {
        // Nothing here may allocate; a standard error that is gone changes nothing.
        let _ = rustix::io::write(rustix::stdio::stderr(), MESSAGE);
    }
    #[cfg(not(unix))]
    {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), MESSAGE);
    }
    std::process::exit(1)
}

// SAFETY: every block comes from the system's allocator and goes back to it with the layout it was
// asked for with; null is returned only where that allocator returned it.
unsafe impl GlobalAlloc for OneLine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        checked(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}
