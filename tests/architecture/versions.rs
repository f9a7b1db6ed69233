//! "Which nnU-Net" is asked for properties, not for versions.

use crate::source::sources;

/// The table itself. Readers of files say which version they read, and options which one was asked for,
/// but neither asks.
const TABLE: &str = "crates/stunet-data/src/reference.rs";
/// Options of the command line become versions here.
const OPTIONS: &str = "crates/stunet-cli/src/args";

#[test]
fn code_asks_for_properties_and_not_for_versions() {
    let (mut found, mut files, mut named) = (Vec::new(), 0, 0);
    for (name, _) in crate::ARROWS.iter().filter(|(name, _)| *name != "stunet-testing") {
        let folder =
            if *name == "stunet" { "src".to_owned() } else { format!("crates/{name}/src") };
        for source in sources(crate::root(), &folder) {
            files += 1;
            named += source.code.matches("Reference::NnUNet").count();
            let asked = source.code.lines().enumerate().filter(|(_, line)| asks(line));
            let asked = asked.map(|(index, line)| format!("{}:{}: {line}", source.name, index + 1));
            if source.name != TABLE && !source.name.starts_with(OPTIONS) {
                found.extend(asked);
            }
        }
    }
    assert!(files > 200 && named > 5, "the sources were not found: {files} files, {named} names");
    assert!(found.is_empty(), "a version where a property is meant:\n{}", found.join("\n"));
}

/// Whether a line compares or matches a version of nnU-Net.
fn asks(line: &str) -> bool {
    if ["Reference::{", "Reference::*"].iter().any(|import| line.contains(import)) {
        return true;
    }
    let Some(at) = line.find("Reference::NnUNet") else { return false };
    let (before, after) = line.split_at(at);
    let compares = ["==", "!=", "matches!(", "if let"].iter().any(|mark| before.contains(mark));
    compares || ["==", "!=", "=>", " |"].iter().any(|mark| after.contains(mark))
}

#[test]
fn questions_are_told_from_values() {
    assert!(asks("Reference::NnUNetV1 => 1,"));
    assert!(asks("if plans.reference == Reference::NnUNetV28 {"));
    assert!(asks("(Reference::NnUNetV1, true) => 2,"));
    assert!(asks("let v1 = matches!(r, Reference::NnUNetV1);"));
    assert!(asks("Reference::NnUNetV1 | Reference::NnUNetV22"));
    assert!(asks("use crate::plans::Reference::{NnUNetV1, NnUNetV22};"));
    assert!(!asks("reference: Reference::NnUNetV1,"));
    assert!(!asks("FileFormat::V1 => 1,"));
    assert!(!asks("Self::of(Reference::NnUNetV28, patch_size)"));
}
