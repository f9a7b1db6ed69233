//! The sources as the rules read them: without comments, texts, and the tests at the foot.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of a crate's `src`, and the module it is.
pub struct Source {
    /// From the root of the repository, with slashes.
    pub name: String,
    /// `["weights", "pickle"]`; none for `lib.rs` and `main.rs`.
    pub module: Vec<String>,
    /// The code, line by line where it stands in the file.
    pub code: String,
}

/// All files below `folder` but those that hold tests only.
pub fn sources(root: &Path, folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    super::rust_files(&root.join(folder), &mut files);
    files.sort();
    let names_of = |path: &PathBuf| -> Vec<String> {
        let below = path.strip_prefix(root.join(folder)).unwrap().with_extension("");
        below.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
    };
    let sources = files.iter().map(|path| (path, names_of(path)));
    let sources = sources.filter(|(_, names)| !names.iter().any(|name| name == "tests"));
    let sources: Vec<_> = sources
        .map(|(path, mut module)| {
            if matches!(module.last().map(String::as_str), Some("lib" | "main" | "mod")) {
                module.pop();
            }
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            let code = without_tests(&code_of(&fs::read_to_string(path).unwrap()));
            Source { name, module, code }
        })
        .collect();
    assert!(!sources.is_empty(), "no sources in {folder}");
    sources
}

fn without_tests(code: &str) -> String {
    let foot = code.match_indices("#[cfg(test)]").find(|(at, attribute)| {
        let mut rest = code[at + attribute.len()..].trim_start();
        while rest.starts_with("#[") {
            rest = rest[rest.find(']').map_or(rest.len(), |end| end + 1)..].trim_start();
        }
        rest.starts_with("mod ")
            && rest.find('{').unwrap_or(0) < rest.find(';').unwrap_or(usize::MAX)
    });
    foot.map_or(code, |(at, _)| &code[..at]).to_owned()
}

/// The text of a file without comments and without what stands in texts and characters; lines stay.
pub fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'r' if !follows_a_word(&code) => raw_text(rest),
            b'"' => text_length(rest),
            b'\'' => character(rest),
            _ => 0,
        };
        if skipped > 0 {
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            at += skipped;
        } else {
            let next = rest.chars().next().unwrap();
            code.push(next);
            at += next.len_utf8();
        }
    }
    code
}

/// Whether the code so far ends in a letter: `r` is then no beginning of a raw text, but for `br`.
fn follows_a_word(code: &str) -> bool {
    let word = code.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
    !word.is_empty() && word != "b"
}

/// Length of a raw text; 0 where there is none.
fn raw_text(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if rest.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = hashes + 2;
    rest[begin..].find(&end).map_or(rest.len(), |found| begin + found + end.len())
}

fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a character; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |end| end + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}
