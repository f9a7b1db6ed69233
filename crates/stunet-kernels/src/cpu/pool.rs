//! Large buffers, kept from one operator to the next.
//!
//! A fresh large allocation costs a page fault for every 4 KB and the clearing of the page: a third
//! of a forward pass. The pages of dropped buffers wait for the buffers made next, whatever the size of
//! either; where none is made for a while, they go back to the system.

mod idle;
#[cfg_attr(target_os = "linux", path = "pool/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "pool/portable.rs")]
mod pages;

use pages::Pages;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values from which a buffer comes from here: smaller ones the allocator keeps itself.
pub(crate) const LARGE: usize = 1 << 18;

/// Bytes that pages are counted in.
const CHUNK: usize = 2 << 20;

/// Memory of large buffers, and those of it that wait. Operators share one.
struct Pool(Mutex<State>);

struct State {
    /// The one that waits longest first.
    waiting: Vec<Pages>,
    /// Chunks in use, and the most there were since nothing waited.
    used: usize,
    most: usize,
    /// Buffers that were made and dropped: whether it stands still tells idle times.
    moves: u64,
    /// Whether a thread looks for idle times.
    watched: bool,
}

static POOL: Pool = Pool::new();

/// Gives the pages back that wait.
pub(crate) fn release_memory() {
    POOL.release();
}

/// Bytes that wait.
pub(crate) fn kept_memory() -> u64 {
    POOL.kept()
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(State::new()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        let unused = self.state().give_back();
        // Unmapping takes a while: not under the lock.
        drop(unused);
    }

    fn kept(&self) -> u64 {
        (self.state().num_waiting() * CHUNK) as u64
    }
}

impl State {
    const fn new() -> Self {
        Self { waiting: Vec::new(), used: 0, most: 0, moves: 0, watched: false }
    }

    /// Pages of `chunks`, taken from those that wait as far as they would be too many.
    fn take(&mut self, chunks: usize) -> Pages {
        self.moves += 1;
        self.used += chunks;
        self.most = self.most.max(self.used);
        // Those that fit best and waited least; where they are too large, what is left waits on.
        let fits = (0..self.waiting.len()).rev().filter(|at| self.waiting[*at].chunks() >= chunks);
        if let Some(at) = fits.min_by_key(|at| self.waiting[*at].chunks()) {
            if self.waiting[at].chunks() == chunks {
                return self.waiting.remove(at);
            }
            if let Some(pages) = self.waiting[at].split_off(chunks) {
                return pages;
            }
        }
        let too_many = (self.used + self.num_waiting()).saturating_sub(self.most);
        Pages::gather(chunks, too_many, &mut self.waiting)
    }

    /// Pages wait, as one with those that lie beside them.
    fn wait(&mut self, mut pages: Pages) {
        let mut at = 0;
        while at < self.waiting.len() {
            match pages.join(self.waiting.remove(at)) {
                Ok(joined) => pages = joined,
                Err([unjoined, other]) => {
                    pages = unjoined;
                    self.waiting.insert(at, other);
                    at += 1;
                }
            }
        }
        self.waiting.push(pages);
    }

    /// Chunks that wait.
    fn num_waiting(&self) -> usize {
        self.waiting.iter().map(Pages::chunks).sum()
    }

    /// All that waits, to be dropped outside of the lock.
    fn give_back(&mut self) -> Vec<Pages> {
        self.most = self.used;
        std::mem::take(&mut self.waiting)
    }
}

/// A large buffer of `f32`, always initialised; goes back to the pool when dropped.
pub(crate) struct Mapping {
    pool: &'static Pool,
    pages: Option<Pages>,
    len: usize,
}

impl Mapping {
    /// A buffer of `len` values: whatever was in its pages before, or zeros.
    ///
    /// # Panics
    /// When the system has no memory left, as an allocation would.
    pub(crate) fn new(len: usize) -> Self {
        Self::of(&POOL, len)
    }

    fn of(pool: &'static Pool, len: usize) -> Self {
        let chunks = (len * size_of::<f32>()).div_ceil(CHUNK);
        Self { pool, pages: Some(pool.state().take(chunks)), len }
    }

    /// The values.
    pub(crate) fn values(&self) -> &[f32] {
        let pages = self.pages.as_ref().expect("pages are taken only when a mapping is dropped");
        &bytemuck::cast_slice(pages.bytes())[..self.len]
    }

    /// The values.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        let pages = self.pages.as_mut().expect("pages are taken only when a mapping is dropped");
        &mut bytemuck::cast_slice_mut(pages.bytes_mut())[..self.len]
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let Some(pages) = self.pages.take() else { return };
        let mut state = self.pool.state();
        state.moves += 1;
        state.used -= pages.chunks();
        state.watched = state.watched || idle::watch(self.pool);
        if state.watched {
            state.wait(pages);
        } else {
            // Nobody would give it back. Not under the lock.
            drop(state);
            drop(pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mapping: &Mapping, value: f32) -> bool {
        mapping.values().iter().all(|v| *v == value)
    }

    #[test]
    fn buffers_come_back() {
        // One that no other test takes from.
        static ALONE: Pool = Pool::new();
        let pool = &ALONE;
        // Nobody looks for idle times: they are a test of their own.
        pool.state().watched = true;
        let len = 3 * CHUNK / 4 + 4321;
        let mut first = Mapping::of(pool, len);
        first.values_mut().fill(7.0);
        let address = first.values().as_ptr();
        assert_eq!(pool.kept(), 0, "a buffer in use does not wait");
        drop(first);
        let second = Mapping::of(pool, len - 100);
        assert_eq!(second.values().as_ptr(), address, "the buffer itself comes back");
        assert_eq!(second.values().len(), len - 100, "with the length that was asked for");
        assert!(all(&second, 7.0), "with what was in it");
        let third = Mapping::of(pool, len);
        assert_ne!(third.values().as_ptr(), address, "a buffer has one owner");
        assert!(all(&third, 0.0), "fresh memory is zero");
        drop((second, third));
        assert_eq!(pool.kept(), 8 * CHUNK as u64, "dropped memory waits");
        pool.release();
        assert_eq!(pool.kept(), 0);
        assert!(all(&Mapping::of(pool, LARGE * 16), 0.0), "none waits after it was given back");
    }

    /// Operators take from one pool, and what is said of kept memory is said of that one.
    #[test]
    fn operators_share_one_pool() {
        let buffer = Mapping::new(LARGE);
        assert!(std::ptr::eq(buffer.pool, &POOL));
    }

    /// Memory goes back by itself, and is watched anew when some waits again.
    #[test]
    fn idle_memory_goes_back() {
        static ALONE: Pool = Pool::new();
        let pool = &ALONE;
        for _ in 0..2 {
            drop(Mapping::of(pool, LARGE));
            let looks = (0..600).take_while(|_| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                pool.kept() > 0
            });
            assert!(looks.count() < 600, "memory still waits after a minute");
        }
    }

    /// A buffer is part of a larger one that waits, and one with it again when it waits.
    #[cfg(target_os = "linux")]
    #[test]
    fn large_buffers_are_divided_and_joined() {
        let mut whole = Pages::gather(9, 0, &mut Vec::new());
        whole.bytes_mut().fill(5);
        // One in use lies between those that wait and one apart, wherever the system maps what is fresh.
        let apart = whole.split_off(1).expect("one of nine chunks");
        let between = whole.split_off(1).expect("one of eight chunks");
        let first = whole.bytes().as_ptr();
        let mut state = State { most: 7, watched: true, ..State::new() };
        state.waiting.push(whole);
        let (one, two) = (state.take(2), state.take(4));
        assert_eq!(state.waiting.iter().map(Pages::chunks).collect::<Vec<_>>(), [1]);
        assert!([&one, &two].iter().all(|pages| pages.bytes().iter().all(|byte| *byte == 5)));
        // In either order, and what is no neighbour stays apart.
        state.wait(apart);
        state.wait(two);
        state.wait(one);
        let mut waiting: Vec<_> = state.waiting.iter().map(Pages::chunks).collect();
        waiting.sort_unstable();
        assert_eq!(waiting, [1, 7]);
        assert!(state.waiting.iter().any(|pages| pages.bytes().as_ptr() == first));
        state.wait(between);
        assert_eq!(state.waiting.iter().map(Pages::chunks).collect::<Vec<_>>(), [9]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_of_several_make_one() {
        let filled = |chunks: usize, value: u8| {
            let mut pages = Pages::gather(chunks, 0, &mut Vec::new());
            pages.bytes_mut().fill(value);
            pages
        };
        let mut waiting = vec![filled(2, 1), filled(3, 2)];
        let mut joined = Pages::gather(6, 4, &mut waiting);
        assert_eq!(joined.bytes().len(), 6 * CHUNK);
        let left: Vec<_> = waiting.iter().map(Pages::chunks).collect();
        assert_eq!(left, [1], "four of five chunks were taken, the longest waiting first");
        assert!(waiting[0].bytes().iter().all(|byte| *byte == 2), "what is left is untouched");
        // All of it can be read and written.
        assert!(joined.bytes().iter().all(|byte| *byte <= 2));
        joined.bytes_mut().fill(9);
        // And it can be taken apart again.
        waiting.push(joined);
        let mut small = Pages::gather(4, 4, &mut waiting);
        small.bytes_mut().fill(3);
        assert!(small.bytes().iter().all(|byte| *byte == 3));
        assert_eq!(waiting.iter().map(Pages::chunks).sum::<usize>(), 3);
        assert!(waiting.iter().flat_map(|pages| pages.bytes()).all(|byte| *byte == 9));
    }
}
