//! Memory kernels write to: outputs, scratch, and the pointers threads share.

use super::pool::{LARGE, Mapping};
use std::cell::RefCell;

/// An output under construction.
///
/// Its memory is initialised, but to what is not said: NaN in tests, so that a place a kernel forgot
/// is seen.
pub(crate) enum Output {
    /// From the allocator.
    Heap(Vec<f32>),
    /// From the pool.
    Mapped(Mapping),
}

impl Output {
    /// Room for `len` values.
    pub(crate) fn new(len: usize) -> Self {
        let mut output = match len {
            0..LARGE => Self::Heap(vec![0.0; len]),
            _ => Self::Mapped(Mapping::new(len)),
        };
        if cfg!(test) {
            output.values_mut().fill(f32::NAN);
        }
        output
    }

    /// Where to write.
    pub(crate) fn target(&mut self) -> Target {
        Target::new(self.values_mut())
    }

    /// The values.
    pub(crate) fn values(&self) -> &[f32] {
        match self {
            Self::Heap(values) => values,
            Self::Mapped(mapping) => mapping.values(),
        }
    }

    /// The values.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Heap(values) => values,
            Self::Mapped(mapping) => mapping.values_mut(),
        }
    }
}

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    start: *mut f32,
    len: usize,
}

// SAFETY: a target is an address; whoever writes through it promises, in an `unsafe` block of their
// own, that no other thread touches the same place.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// The address of `values`, which must outlive every use of it.
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len() }
    }

    /// The address `offset` values on.
    ///
    /// # Safety
    /// The offset lies inside the allocation, or one past its end.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.len, "an address at {offset} of {} values", self.len);
        // SAFETY: the caller's promise.
        unsafe { self.start.add(offset) }
    }

    /// `len` values from `offset`, to be written by this thread alone.
    ///
    /// # Safety
    /// They lie inside the allocation, nothing else touches them while the slice lives, and the
    /// allocation outlives it.
    #[inline(always)]
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} values from {offset} of {}",
            self.len
        );
        // SAFETY: the caller's promise; `f32` has no invalid values and is never dropped.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

/// Where values are read, while others may be written elsewhere in the same allocation.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    start: *const f32,
    len: usize,
}

// SAFETY: an origin is an address; whoever reads from it promises, in an `unsafe` block of their own,
// that no thread writes what is read.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

impl Origin {
    /// The address of `values`, which must outlive every use of it.
    pub(crate) fn new(values: &[f32]) -> Self {
        Self { start: values.as_ptr(), len: values.len() }
    }

    /// The value at `offset`.
    ///
    /// # Safety
    /// It lies inside the allocation, and no other thread writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn read(self, offset: usize) -> f32 {
        debug_assert!(offset < self.len, "the value at {offset} of {}", self.len);
        // SAFETY: the caller's promise.
        unsafe { *self.start.add(offset) }
    }

    /// Copies the values from `offset` on.
    ///
    /// # Safety
    /// They lie inside the allocation, `to` elsewhere, and no other thread writes them meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn copy(self, offset: usize, to: &mut [f32]) {
        debug_assert!(
            offset.checked_add(to.len()).is_some_and(|end| end <= self.len),
            "{} values from {offset} of {}",
            to.len(),
            self.len
        );
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(self.start.add(offset), to.as_mut_ptr(), to.len()) };
    }
}

impl From<Target> for Origin {
    fn from(target: Target) -> Self {
        Self { start: target.start, len: target.len }
    }
}

/// A cache line of values: buffers of lines are aligned for the widest vectors.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; 16]);

/// A buffer whose values begin at a cache line.
#[derive(Default)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    /// A buffer of at least `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self(vec![Line([0.0; 16]); len.div_ceil(16)])
    }

    /// `len` values, of which none has a meaning yet: NaN in tests.
    pub(crate) fn scratch(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        let values = &mut self.values_mut()[..len];
        if cfg!(test) {
            values.fill(f32::NAN);
        }
        values
    }

    /// All values.
    pub(crate) fn values(&self) -> &[f32] {
        // SAFETY: a `Line` is 16 `f32` without padding, and alignment only shrinks.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    /// All values.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `values`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }
}

/// Lends `work` two buffers of this thread, kept for the next call.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Lines, &mut Lines) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<(Lines, Lines)> = RefCell::default();
    }
    // A kernel never calls another one, and waits for no other thread, while it holds these.
    SCRATCH.with_borrow_mut(|(first, second)| work(first, second))
}
