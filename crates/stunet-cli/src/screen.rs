//! A whole screen of the terminal for one command, and the terminal put back however that ends.
//!
//! While it is shown, what the program says is kept and printed afterwards. Ctrl-C remains a signal. The
//! terminal is put back by [`Screen`]'s end, and by [`restore`] where the program ends at once.

#[cfg(all(unix, feature = "watch"))]
pub use shown::Screen;
#[cfg(all(unix, feature = "watch"))]
pub use shown::restore;

/// Without a screen there is nothing to put back.
#[cfg(not(all(unix, feature = "watch")))]
pub fn restore() {}

#[cfg(all(unix, feature = "watch"))]
mod shown {
    use std::io::{self, Stdout};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError, TryLockError};
    use std::time::Duration;

    use ratatui::backend::TermionBackend;
    use ratatui::{Frame, Terminal};
    use rustix::stdio::{stdin, stdout};
    use rustix::termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr,
    };

    use crate::output;

    /// The other screen, empty, without a cursor.
    const ENTER: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l";
    /// Plain letters, a cursor, and the screen that was there before.
    const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";
    /// What a terminal takes for no key at all.
    const NO_KEY: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };

    static IS_SHOWN: AtomicBool = AtomicBool::new(false);
    /// The terminal as it was.
    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
    /// Held while something is drawn, so that nothing is drawn after the terminal was put back.
    static DRAWING: Mutex<()> = Mutex::new(());

    /// A screen that is shown.
    pub struct Screen {
        terminal: Terminal<TermionBackend<Stdout>>,
        has_keys: bool,
    }

    impl Screen {
        /// Shows an empty screen; none where standard output is no terminal.
        ///
        /// # Errors
        /// When the terminal does not do as it is told.
        pub fn open() -> io::Result<Option<Self>> {
            if !isatty(stdout()) {
                return Ok(None);
            }
            let terminal = Terminal::new(TermionBackend::new(output::handle()))?;
            let before = tcgetattr(stdout())?;
            let mut changed = before.clone();
            // Typed letters are not shown, nor kept for a line. Ctrl-C is a signal as before; Ctrl-Z and
            // Ctrl-\ would leave the terminal as it is.
            changed.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
            changed.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
            changed.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
            changed.special_codes[SpecialCodeIndex::VMIN] = 0;
            changed.special_codes[SpecialCodeIndex::VTIME] = 0;
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
            output::hold();
            IS_SHOWN.store(true, Ordering::SeqCst);
            let screen = Self { terminal, has_keys: isatty(stdin()) };
            tcsetattr(stdout(), OptionalActions::Now, &changed)?;
            rustix::io::write(stdout(), ENTER)?;
            Ok(Some(screen))
        }

        /// Draws it anew.
        ///
        /// # Errors
        /// When the terminal is gone.
        pub fn draw(&mut self, content: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
            let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
            if !IS_SHOWN.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.terminal.draw(content).map(|_| ())
        }

        /// Whether `q` was pressed since the last time.
        pub fn is_left(&self) -> bool {
            let mut keys = [0; 32];
            let read = if self.has_keys { rustix::io::read(stdin(), &mut keys) } else { Ok(0) };
            keys[..read.unwrap_or(0)].iter().any(|key| matches!(key, b'q' | b'Q'))
        }
    }

    impl Drop for Screen {
        fn drop(&mut self) {
            restore();
            output::release();
        }
    }

    /// Puts the terminal back, if a screen is shown. Allocates nothing.
    pub fn restore() {
        // Whoever draws is done in a moment, unless the terminal takes nothing.
        let mut drawing = DRAWING.try_lock();
        for _ in 0..20 {
            if !matches!(drawing, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            drawing = DRAWING.try_lock();
        }
        if !IS_SHOWN.swap(false, Ordering::SeqCst) {
            return;
        }
        // Nothing can be done where the terminal is gone.
        let _ = rustix::io::write(stdout(), LEAVE);
        if let Ok(before) = BEFORE.try_lock()
            && let Some(before) = &*before
        {
            let _ = tcsetattr(stdout(), OptionalActions::Now, before);
        }
    }
}
