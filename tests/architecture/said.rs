//! Tests say what they did: none returns early, which would count as passed.

use crate::{root, rust_files};
use std::fs;

/// A test that lacks what it needs is ignored: by an attribute, or by `stunet_testing::harness`.
///
/// So no test ends before its last line: what would return there must be another branch, a check, or
/// the harness.
#[test]
fn no_test_returns_early() {
    let mut files = Vec::new();
    for folder in ["tests", "src", "crates"] {
        rust_files(&root().join(folder), &mut files);
    }
    let mut found = Vec::new();
    let mut lines = 0;
    for file in files.iter().filter(|file| !file.to_string_lossy().contains("/target/")) {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(file).unwrap();
        let tests = if name.starts_with("tests/") || name.contains("/tests") {
            text.as_str()
        } else {
            let foot = "#[cfg(test)]\nmod ";
            text.split_once(foot).map_or("", |(_, tests)| tests)
        };
        lines += tests.lines().count();
        let code = crate::source::code_of(tests);
        for (number, line) in code.lines().enumerate() {
            if line.contains("return;")
                || line.contains("return }")
                || line.contains("return Ok(())")
            {
                found.push(format!("{name}: {} lines into its tests: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(lines > 10_000, "the tests were not found: {lines} lines");
    assert!(found.is_empty(), "a test that returns early counts as passed:\n{}", found.join("\n"));
}
