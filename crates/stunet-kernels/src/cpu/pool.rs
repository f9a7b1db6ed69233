//! Large buffers, kept from one operator to the next.
//!
//! A fresh large allocation costs a page fault for every 4 KB and the clearing of the page: a third
//! of a forward pass. While a [`Workspace`] lives, buffers that were dropped wait for the next output
//! of a like size; with the last workspace they go back to the system.

use memmap2::MmapMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values from which a buffer comes from here: smaller ones the allocator keeps itself.
pub(crate) const LARGE: usize = 1 << 18;

/// Keeps the memory of large tensors for those that follow, as long as it lives.
///
/// Without one every tensor is mapped and unmapped by itself. Holds no more than what was in use at
/// the same time while it lived.
#[derive(Debug)]
pub struct Workspace(());

impl Workspace {
    /// Begins to keep memory, if no other workspace has.
    pub(crate) fn new() -> Self {
        state().workspaces += 1;
        Self(())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let mut state = state();
        state.workspaces -= 1;
        let unused =
            if state.workspaces == 0 { std::mem::take(&mut state.free) } else { Vec::new() };
        // Unmapping takes a while: not under the lock.
        drop(state);
        drop(unused);
    }
}

#[derive(Default)]
struct State {
    workspaces: usize,
    free: Vec<MmapMut>,
}

static STATE: Mutex<State> = Mutex::new(State { workspaces: 0, free: Vec::new() });

fn state() -> MutexGuard<'static, State> {
    // Nothing under the lock leaves the state half changed.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A large buffer of `f32`, always initialised; goes back to the pool when dropped.
pub(crate) struct Mapping {
    map: Option<MmapMut>,
    len: usize,
}

impl Mapping {
    /// A buffer of `len` values: whatever was in it before, or zeros.
    ///
    /// # Panics
    /// When the system has no memory left, as an allocation would.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len * size_of::<f32>();
        let mut state = state();
        // The smallest that is large enough, unless most of it would lie idle.
        let fits = |map: &MmapMut| (bytes..=bytes * 3 / 2).contains(&map.len());
        let best = state.free.iter().enumerate().filter(|(_, map)| fits(map));
        let best = best.min_by_key(|(_, map)| map.len()).map(|(index, _)| index);
        let map = best.map(|index| state.free.swap_remove(index));
        drop(state);
        Self { map: Some(map.unwrap_or_else(|| fresh(bytes))), len }
    }

    /// The values.
    pub(crate) fn values(&self) -> &[f32] {
        let map = self.map.as_ref().expect("a mapping is taken only when it is dropped");
        &bytemuck::cast_slice(&map[..map.len() / 4 * 4])[..self.len]
    }

    /// The values.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        let map = self.map.as_mut().expect("a mapping is taken only when it is dropped");
        let bytes = map.len() / 4 * 4;
        &mut bytemuck::cast_slice_mut(&mut map[..bytes])[..self.len]
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut state = state();
        if state.workspaces > 0 {
            state.free.extend(self.map.take());
        }
    }
}

fn fresh(bytes: usize) -> MmapMut {
    // No huge pages: on a virtual machine whose host has not touched them yet, clearing them took
    // four times as long as the faults they save.
    MmapMut::map_anon(bytes)
        .unwrap_or_else(|error| panic!("no memory for a tensor of {bytes} bytes: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that looks at the pool itself, which all tests share.
    #[test]
    fn buffers_come_back_while_a_workspace_lives() {
        let len = LARGE + 4321;
        let workspace = Workspace::new();
        let mut first = Mapping::new(len);
        first.values_mut().fill(7.0);
        let address = first.values().as_ptr();
        drop(first);
        let second = Mapping::new(len - 100);
        assert_eq!((second.values().as_ptr(), second.values().len()), (address, len - 100));
        assert!(second.values().iter().all(|v| *v == 7.0), "what was in it");
        let third = Mapping::new(len);
        assert_ne!(third.values().as_ptr(), address);
        assert!(third.values().iter().all(|v| *v == 0.0), "fresh memory is zero");
        drop((second, third));
        assert!(Mapping::new(LARGE * 16).values().iter().all(|v| *v == 0.0), "none so large");
        drop(workspace);
    }
}
