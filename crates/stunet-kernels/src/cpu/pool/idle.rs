//! Gives memory back where no large buffer is made or dropped for a while.

use super::{Pool, State};
use std::time::Duration;

/// How long memory waits at least when no large buffer is in use.
pub(super) const UNUSED: Duration = Duration::from_secs(1);

/// The same, in looks of [`UNUSED`], while buffers are in use: an operator of a large network takes seconds.
const LOOKS_IN_USE: u32 = 15;

/// Begins to look for idle times on a thread of its own, which ends when nothing waits any more; false
/// where there are no threads. Called under the lock of the state.
pub(super) fn watch(pool: &'static Pool) -> bool {
    let thread = std::thread::Builder::new().name("stunet-memory".to_owned());
    thread.spawn(|| look(pool)).is_ok()
}

fn look(pool: &Pool) {
    let (mut seen, mut idle) = (0, 0);
    loop {
        std::thread::sleep(UNUSED);
        let mut state = pool.state();
        idle = if state.moves == seen { idle + 1 } else { 0 };
        seen = state.moves;
        let unused = match is_over(&state, idle) {
            true => state.give_back(),
            false => Vec::new(),
        };
        if state.waiting.is_empty() {
            state.watched = false;
            drop(state);
            // Unmapping takes a while: not under the lock.
            return drop(unused);
        }
    }
}

/// Whether memory that waits goes back after so many looks at which nothing had moved.
fn is_over(state: &State, idle: u32) -> bool {
    idle >= if state.used == 0 { 1 } else { LOOKS_IN_USE }
}
