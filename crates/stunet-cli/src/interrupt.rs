//! Ctrl-C and SIGTERM: the first one stops after the current unit of work, the second ends the program.

use crate::{output, screen};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The exit code of a program ended by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);
static AT_ONCE: AtomicBool = AtomicBool::new(false);
/// What is said at the first signal: whether nothing is, and the unit of work. None before [`watch`].
static WATCHED: Mutex<Option<(bool, &'static str)>> = Mutex::new(None);

/// Catches Ctrl-C and termination from here on.
///
/// Work stops between two units (windows of a prediction, steps of a training run), and temporary
/// files are removed. A second signal does not wait for that. Commands that run one after the other
/// may each call it.
pub fn watch(quiet: bool, unit: &'static str) -> anyhow::Result<()> {
    let before = watched(|watched| watched.replace((quiet, unit)));
    if before.is_some() {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) || AT_ONCE.load(Ordering::SeqCst) {
            screen::restore();
            std::process::exit(i32::from(INTERRUPTED));
        }
        if let Some((false, unit)) = watched(|watched| *watched) {
            // On a thread of its own: where nobody reads, it may wait, and the second Ctrl-C is to
            // be heard all the same. No thread, no word.
            let say = move || {
                output::complain(&format!(
                    "stopping after this {unit}; press Ctrl-C again to stop at once"
                ));
            };
            let _ = std::thread::Builder::new().spawn(say);
        }
    })?;
    Ok(())
}

fn watched<T>(change: impl FnOnce(&mut Option<(bool, &'static str)>) -> T) -> T {
    change(&mut WATCHED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// While it exists no file is being written, and the first signal ends the program.
///
/// Loading has no steps between which it could stop.
pub struct AtOnce(());

/// See [`AtOnce`].
pub fn at_once() -> AtOnce {
    AT_ONCE.store(true, Ordering::SeqCst);
    AtOnce(())
}

impl Drop for AtOnce {
    fn drop(&mut self) {
        AT_ONCE.store(false, Ordering::SeqCst);
    }
}

/// Whether the user has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// The same for a listener.
pub fn flow() -> ControlFlow<()> {
    if asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
