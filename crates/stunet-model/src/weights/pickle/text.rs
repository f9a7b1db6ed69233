//! Text and numbers as pickles spell them.

use super::error::{StepResult, unexpected};
use std::sync::Arc;

pub(super) fn decimal(digits: &str) -> StepResult<i128> {
    digits.parse().map_err(|_| unexpected("a decimal integer", format!("`{digits:.40}`")))
}

pub(super) fn utf8(bytes: Vec<u8>) -> StepResult<String> {
    String::from_utf8(bytes).map_err(|_| unexpected("text in UTF-8", "other bytes"))
}

pub(super) fn latin1_text(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

/// Python 2's quoted string.
pub(super) fn unquote(line: &str) -> StepResult<String> {
    let bad = || unexpected("a quoted string", format!("`{line:.32}`"));
    let inner =
        ['\'', '"'].iter().find_map(|&q| line.strip_prefix(q)?.strip_suffix(q)).ok_or_else(bad)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next().ok_or_else(bad)? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'x' => hex(&mut chars, 2).ok_or_else(bad)?,
                c @ ('\\' | '\'' | '"') => c,
                _ => return Err(bad()),
            },
            c => c,
        });
    }
    Ok(out)
}

/// Python's raw-unicode-escape.
pub(super) fn unescape(line: &str) -> StepResult<String> {
    let bad = || unexpected("escaped text", format!("`{line:.32}`"));
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let mut ahead = chars.clone();
        let width = match (c, ahead.next()) {
            ('\\', Some('u')) => 4,
            ('\\', Some('U')) => 8,
            _ => {
                out.push(c);
                continue;
            }
        };
        chars = ahead;
        out.push(hex(&mut chars, width).ok_or_else(bad)?);
    }
    Ok(out)
}

fn hex(chars: &mut std::str::Chars<'_>, width: usize) -> Option<char> {
    let mut code = 0;
    for _ in 0..width {
        code = code * 16 + chars.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}

/// Text of code points below 256 as bytes.
pub(super) fn latin1(text: &str) -> StepResult<Arc<[u8]>> {
    text.chars()
        .map(|c| u8::try_from(c).map_err(|_| unexpected("latin-1 text", "wider characters")))
        .collect::<StepResult<Vec<u8>>>()
        .map(Into::into)
}
