//! Runs the examples of `examples/research`.
//!
//! An example has a `pub fn run(..) -> anyhow::Result<..>` that takes how much work to do and gives
//! figures that tell whether it worked, and a `main` that calls it and prints them. A test calls
//! `run` with less work and checks the figures. To add one: an `[[example]]` in `Cargo.toml`, a
//! `#[path]` module and a test here. At most 80 lines each, which the last test checks.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../examples/research/feature_extractor.rs"]
mod feature_extractor;

#[test]
fn feature_extractor() {
    for (steps, frozen) in [(60, true), (20, false)] {
        let (first, last) = feature_extractor::run(steps, frozen).unwrap();
        assert!(last < 0.5 * first, "frozen: {frozen}, loss {first} -> {last}");
    }
}

/// Every example of the folder is run by this file, and is short.
#[test]
fn examples_are_run_and_short() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let this = std::fs::read_to_string(root.join("tests/research.rs")).unwrap();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for entry in std::fs::read_dir(root.join("examples/research")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(this.contains(&format!("{name}::run(")), "{name} is not run");
        assert!(manifest.contains(&format!("examples/research/{name}.rs")), "{name}: Cargo.toml");
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 80, "{name}: expected at most 80 lines, found {lines}");
    }
}
