//! Standard output that ends quietly when its reader does, as in `stunet labels M | head -1`.

use std::io::{self, ErrorKind, Write};

/// Prints `text` and a line break.
///
/// # Errors
///
/// When standard output cannot be written, unless its reader has gone.
pub fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()) {
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
    line(&serde_json::to_string_pretty(value)?)
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

/// Bytes in the unit that suits them.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    for (unit, size) in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if count >= size {
            return format!("{:.1} {unit}", count / size);
        }
    }
    format!("{count} B")
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
