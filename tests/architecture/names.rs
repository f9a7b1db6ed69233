//! One name, one meaning: no two public types of the house have the same name.

use crate::source::sources;
use std::collections::BTreeMap;

/// Every crate has its own, as is usual in Rust.
const USUAL: [&str; 1] = ["Result"];

#[test]
fn no_public_type_is_named_twice() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, _) in crate::ARROWS.iter().filter(|(name, _)| *name != "stunet-testing") {
        let folder =
            if *name == "stunet" { "src".to_owned() } else { format!("crates/{name}/src") };
        for source in sources(crate::root(), &folder) {
            for name in public_types(&source.code) {
                found.entry(name).or_default().push(source.name.clone());
            }
        }
    }
    assert!(found.len() > 200, "the types were not found: {}", found.len());
    found.retain(|name, files| files.len() > 1 && !USUAL.contains(&name.as_str()));
    assert!(found.is_empty(), "public types of one name: {found:#?}");
}

/// The names of the types that a file declares `pub` for everybody; those inside of functions, and the
/// associated types of traits, are not public.
fn public_types(code: &str) -> Vec<String> {
    let declared = code.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("pub ")?;
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let (kind, rest) = rest.split_once(' ')?;
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "type" | "union");
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        is_type.then(|| rest[..end].to_owned())
    });
    declared.collect()
}

#[test]
fn types_are_found() {
    let code = "pub struct A;\npub(crate) struct B;\n    pub enum C<T> {}\npub unsafe trait D: Copy {}\n\
                type E = u8;\npub type F<T> = Vec<T>;\npub fn g() {}";
    assert_eq!(public_types(code), ["A", "C", "D", "F"]);
}
