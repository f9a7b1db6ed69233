//! Calls a driver with its output on standard error suppressed.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

/// Runs `probe`; a panic becomes its first line, and nothing is printed.
///
/// Drivers' libraries report what they miss by panicking, or write to standard error themselves:
/// Mesa's device selection complains about a missing desktop twice for each question. The panic hook
/// and standard error are one per process, so probes take turns, and what another thread says
/// meanwhile is lost.
pub(crate) fn silently<T>(probe: impl FnOnce() -> T) -> Result<T, String> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let outcome = {
        let _mute = mute::standard_error();
        catch_unwind(AssertUnwindSafe(probe))
    };
    set_hook(hook);
    outcome.map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("the driver gave no reason");
        text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(text).to_owned()
    })
}

#[cfg(unix)]
mod mute {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    /// Standard error as it was; put back when dropped.
    pub(super) struct Muted(OwnedFd);

    /// Sends standard error to nowhere; `None`, and no change, where that cannot be had.
    #[allow(clippy::disallowed_methods, reason = "nothing is written to it")]
    pub(super) fn standard_error() -> Option<Muted> {
        let nowhere = File::options().write(true).open("/dev/null").ok()?;
        let before = rustix::io::dup(std::io::stderr()).ok()?;
        rustix::stdio::dup2_stderr(&nowhere).ok()?;
        Some(Muted(before))
    }

    impl Drop for Muted {
        fn drop(&mut self) {
            // Without it, later messages would be lost: nothing that could be said about it here.
            let _ = rustix::stdio::dup2_stderr(&self.0);
        }
    }
}

#[cfg(not(unix))]
mod mute {
    pub(super) const fn standard_error() -> Option<()> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_driver_becomes_a_reason() {
        let reason = silently(|| -> () { panic!("\n  no driver\nbacktrace") }).unwrap_err();
        assert_eq!(reason, "no driver");
    }

    /// Seen from outside: a child of this test's own binary writes during a probe and after it.
    #[cfg(unix)]
    #[allow(clippy::disallowed_methods, reason = "a test tells its child by it")]
    #[test]
    fn what_a_driver_writes_is_not_seen() {
        use std::io::Write as _;

        const ASKED: &str = "STUNET_TEST_TALKING_DRIVER";
        if std::env::var_os(ASKED).is_some() {
            silently(|| std::io::stderr().write_all(b"a driver talks\n")).unwrap().unwrap();
            std::io::stderr().write_all(b"heard again\n").unwrap();
        } else {
            assert_silence(ASKED);
        }
    }

    #[cfg(unix)]
    fn assert_silence(asked: &str) {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "device::quiet::tests::what_a_driver_writes_is_not_seen"])
            .arg("--nocapture")
            .env(asked, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!said.contains("a driver talks"), "{said}");
        assert!(said.contains("heard again"), "{said}");
    }
}
