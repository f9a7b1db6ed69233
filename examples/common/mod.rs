//! What the examples share: scores, the demo model, pictures.
// Every example uses a part of this.
#![allow(dead_code)]

pub mod demo;
pub mod pictures;
pub mod scores;
pub mod training;

/// Text from outside (names in files, paths) without the characters that steer a terminal.
pub fn shown(text: impl std::fmt::Display) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    text.to_string().chars().map(shown).collect()
}
