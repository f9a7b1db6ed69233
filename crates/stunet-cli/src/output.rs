//! The only module that writes to the terminal.
//!
//! Text from outside (names, arguments, contents of files) may contain control characters, which are
//! escaped. If the reader of standard output closes the pipe, as in `stunet labels M | head -1`, that is
//! no error. A message that cannot be written to standard error is dropped, and the work continues.

#![allow(clippy::disallowed_methods, reason = "the one place where the binary writes to them")]

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

pub use stunet::data::error::size_text as bytes;

/// The progress bars on the terminal: they make way for each line and come back below it.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Shows a bar on standard error, where that is a terminal, or not at all.
pub fn bar(bar: ProgressBar, quiet: bool) -> ProgressBar {
    match quiet {
        true => {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            bar
        }
        false => BARS.add(bar),
    }
}

/// `text` with every character that steers a terminal or turns the direction of writing as its
/// escape in JSON, such as `\u001b`.
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let steers = |c: char| (c.is_control() || turns(c)) && !kept(c);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if steers(c) => out.push_str("\\n"),
            '\t' if steers(c) => out.push_str("\\t"),
            // None of them lies beyond four digits.
            c if steers(c) => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether a character breaks lines or reverses the direction of the text after it.
fn turns(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

/// Prints `text` as one line.
///
/// # Errors
///
/// When standard output cannot be written, unless its reader has gone.
pub fn line(text: &str) -> anyhow::Result<()> {
    print(&shown(text))
}

/// Prints lines: `text` may hold line breaks.
///
/// # Errors
///
/// As [`line()`].
pub fn lines(text: &str) -> anyhow::Result<()> {
    print(&escaped(text, |c| c == '\n'))
}

/// Prints cells as one line with tabs between them, for other programs.
///
/// # Errors
///
/// As [`line()`].
pub fn cells(cells: &[&str]) -> anyhow::Result<()> {
    let cells: Vec<_> = cells.iter().map(|cell| shown(cell)).collect();
    print(&cells.join("\t"))
}

/// What was said while a screen is shown; none while there is no screen.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn held<T>(change: impl FnOnce(&mut Option<Vec<String>>) -> T) -> T {
    change(&mut HELD.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(all(unix, feature = "watch"))]
/// Keeps what [`complain`] is told from here on, as a screen is shown.
pub fn hold() {
    held(|held| _ = held.get_or_insert_default());
}

#[cfg(all(unix, feature = "watch"))]
/// Says what was kept since [`hold`], and keeps nothing more.
pub fn release() {
    let kept = held(Option::take);
    kept.into_iter().flatten().for_each(|text| complain(&text));
}

#[cfg(all(unix, feature = "watch"))]
/// The newest of what is kept, for the screen to show.
pub fn newest_held() -> Option<String> {
    held(|held| held.as_ref()?.last().cloned())
}

#[cfg(all(unix, feature = "watch"))]
/// Standard output for whoever shows a screen there; texts from outside go through [`shown`] first.
pub fn handle() -> io::Stdout {
    io::stdout()
}

/// Says something on standard error, as one line after the program's name; while a screen is shown, when
/// it has gone.
///
/// Where that cannot be written (closed, full), nobody can be told, and nothing else happens.
pub fn complain(text: &str) {
    let is_held = held(|held| held.as_mut().map(|held| held.push(text.to_owned())).is_some());
    if is_held {
        return;
    }
    let _ = BARS.suspend(|| writeln!(io::stderr(), "stunet: {}", shown(text)));
}

/// Prints the help or the version, in colours where that is a terminal: all of it is our own text.
///
/// # Errors
///
/// As [`line()`].
pub fn help(text: &clap::Error) -> anyhow::Result<()> {
    ended(text.print().and_then(|()| io::stdout().flush()))
}

fn print(text: &str) -> anyhow::Result<()> {
    let write = || writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush());
    ended(BARS.suspend(write))
}

/// A reader that has seen enough is none that was refused something.
fn ended(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("standard output"))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
///
/// # Errors
///
/// As [`line()`].
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    lines(&serde_json::to_string_pretty(value)?)
}

/// A count with its digits in groups of three: `14 596 941`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A time in the unit that suits it.
pub fn duration(secs: f64) -> String {
    match secs {
        secs if secs < 90.0 => format!("{secs:.0} s"),
        secs if secs < 5400.0 => format!("{:.0} min", secs / 60.0),
        secs => format!("{:.1} h", secs / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        let check = |text: &str, expected: &str| assert_eq!(shown(text), expected);
        check("lung, Straße, 肺", "lung, Straße, 肺");
        check("a\u{1b}[2Jb", "a\\u001b[2Jb");
        check("a\nb\r\u{7f}\u{9b}\u{202e}", "a\\nb\\u000d\\u007f\\u009b\\u202e");
        assert_eq!(escaped("a\nb\u{7}", |c| c == '\n'), "a\nb\\u0007");
    }

    #[cfg(all(unix, feature = "watch"))]
    #[test]
    fn what_is_held_is_the_newest_until_it_is_released() {
        assert_eq!(newest_held(), None);
        hold();
        complain("first");
        complain("second");
        assert_eq!(newest_held().as_deref(), Some("second"));
        release();
        assert_eq!(newest_held(), None);
    }

    #[test]
    fn numbers_for_people() {
        let check = |count, text: &str| assert_eq!(grouped(count), text);
        check(0, "0");
        check(999, "999");
        check(1000, "1 000");
        check(14_596_941, "14 596 941");
        assert_eq!(bytes(58_387_764), "58.4 MB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(
            [0.4, 89.0, 91.0, 5399.0, 9000.0].map(duration),
            ["0 s", "89 s", "2 min", "90 min", "2.5 h"]
        );
    }
}
