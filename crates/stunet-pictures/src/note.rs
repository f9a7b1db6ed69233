//! A note within a PNG, by which a program knows the pictures that it made.

use std::io::Read;

/// Keyword of the note among the texts of a PNG.
pub const KEYWORD: &str = "stunet";

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Longest note that is read.
const MOST_BYTES: u32 = 1 << 20;
/// Chunks that are looked at before the pixels.
const MOST_CHUNKS: usize = 64;

/// The note of a PNG: its international text of the keyword [`KEYWORD`], before the pixels. None where
/// there is none, and of what is no PNG.
///
/// # Source
/// Portable Network Graphics (PNG) Specification, third edition, 11.3.3.4, `iTXt`.
pub fn note_of_png(mut file: impl Read) -> Option<String> {
    let mut signature = [0; 8];
    file.read_exact(&mut signature).ok()?;
    if signature != SIGNATURE {
        return None;
    }
    for _ in 0..MOST_CHUNKS {
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if &head[4..] == b"IDAT" || length > MOST_BYTES {
            return None;
        }
        let mut chunk = vec![0; length as usize];
        file.read_exact(&mut chunk).ok()?;
        let mut checksum = [0; 4];
        file.read_exact(&mut checksum).ok()?;
        if &head[4..] == b"iTXt"
            && let Some(note) = text_of(&chunk)
        {
            return Some(note);
        }
    }
    None
}

/// Keyword, flag and method of compression, language, translated keyword, text.
fn text_of(chunk: &[u8]) -> Option<String> {
    let rest = chunk.strip_prefix(KEYWORD.as_bytes())?.strip_prefix(&[0, 0])?;
    let mut parts = rest.get(1..)?.splitn(3, |byte| *byte == 0);
    let text = parts.nth(2)?;
    String::from_utf8(text.to_vec()).ok()
}
