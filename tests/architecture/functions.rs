//! Functions fit on a screen.

use crate::source::{Source, sources};

/// Lines of the longest function, signature and braces included.
const MOST_LINES: usize = 60;

#[test]
fn functions_fit_on_a_screen() {
    let mut lengths = Vec::new();
    for (name, _) in crate::ARROWS {
        let folder = if name == "stunet" { "src".to_owned() } else { format!("crates/{name}/src") };
        for source in sources(crate::root(), &folder) {
            let functions = functions(&source).into_iter();
            lengths
                .extend(functions.map(|(function, lines)| (lines, source.name.clone(), function)));
        }
    }
    lengths.sort();
    assert!(lengths.len() > 1000, "the functions were not found: {}", lengths.len());
    let [median, ninety] = [50, 90].map(|p| lengths[lengths.len() * p / 100].0);
    println!("{} functions: median {median} lines, nine of ten up to {ninety}", lengths.len());
    for (lines, file, function) in lengths.iter().rev().take(20) {
        println!("{lines:4} {file} {function}");
    }
    let longer: Vec<String> = lengths
        .iter()
        .filter(|(lines, ..)| *lines > MOST_LINES)
        .map(|(lines, file, function)| format!("{file} {function}: {lines}"))
        .collect();
    assert!(longer.is_empty(), "functions of more than {MOST_LINES} lines: {longer:#?}");
}

/// Name and lines of every function of a file.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        if code[..at].ends_with(is_part) {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| is_part(*c)).collect();
        if let Some(end) = body_end(rest).filter(|_| !name.is_empty()) {
            found.push((name, rest[..end].lines().count()));
        }
    }
    found
}

/// Where the body ends; none for a declaration. `[u8; 3]` in a signature is no end of one.
fn body_end(rest: &str) -> Option<usize> {
    let (mut braces, mut others) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            ';' if braces == 0 && others == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}
