//! How much a parser allocates, and whether it comes back.
//!
//! The allocator counts per thread, so that several parsers can be watched at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Memory that a parser may hold for every byte of input, and in any case.
pub const PER_BYTE: usize = 1000;
/// See [`PER_BYTE`].
pub const IN_ANY_CASE: usize = 64 << 20;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// What is refused, so that a bomb does not take the machine with it.
    static MOST: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// The system's allocator, counted.
pub struct Counting;

fn grow(bytes: isize) -> bool {
    // At the end of a thread there is nothing left to count with.
    let counted = LIVE.try_with(|live| {
        let now = live.get().saturating_add(bytes);
        if bytes > 0 && now > MOST.with(Cell::get) {
            return false;
        }
        live.set(now);
        PEAK.with(|peak| peak.set(peak.get().max(now)));
        true
    });
    counted.unwrap_or(true)
}

// SAFETY: every call is the system allocator's, with the arguments it was given; counting touches
// numbers only, and a request that is refused returns null, as the trait allows.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match grow(layout.size() as isize) {
            true => unsafe { System.alloc(layout) },
            false => std::ptr::null_mut(),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match grow(layout.size() as isize) {
            true => unsafe { System.alloc_zeroed(layout) },
            false => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        grow(-(layout.size() as isize));
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match grow(size as isize - layout.size() as isize) {
            true => unsafe { System.realloc(place, layout, size) },
            false => std::ptr::null_mut(),
        }
    }
}

/// What one run of a target came to.
pub struct Run {
    /// Whether the input was accepted; none after a panic.
    pub accepted: Option<bool>,
    /// Bytes held at most beyond what was held before.
    pub peak: usize,
    /// Bytes that were allowed.
    pub allowed: usize,
}

/// Runs a target on one input. A request for four times what is allowed ends the process.
pub fn run(target: fn(&[u8]) -> bool, per_byte: usize, input: &[u8]) -> Run {
    let allowed = per_byte * input.len() + IN_ANY_CASE;
    let before = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    MOST.with(|most| most.set(before + 4 * allowed as isize));
    let accepted = std::panic::catch_unwind(|| target(input)).ok();
    MOST.with(|most| most.set(isize::MAX));
    let peak = PEAK.with(Cell::get) - before;
    Run { accepted, peak: peak.max(0) as usize, allowed }
}
