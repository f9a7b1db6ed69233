//! No files of a crate need each other.
//!
//! A file needs another when it names something of that file's module, by `use` or by path. That a
//! file names something of a module which contains it does not count: a module may keep what its
//! parts share.

use crate::source::{Source, sources};
use std::collections::{BTreeMap, BTreeSet};

/// A module by its path.
type Module = Vec<String>;

#[test]
fn no_circles_between_files() {
    let mut found = Vec::new();
    for (name, _) in crate::ARROWS {
        let folder = if name == "stunet" { "src".to_owned() } else { format!("crates/{name}/src") };
        let circles = circles(&needs(&sources(crate::root(), &folder)));
        found.extend(circles.into_iter().map(|circle| format!("{name}: {circle:?}")));
    }
    assert!(found.is_empty(), "files need each other in a circle:\n{}", found.join("\n"));
}

/// Which modules each names.
fn needs(sources: &[Source]) -> BTreeMap<Module, BTreeSet<Module>> {
    let modules: BTreeSet<Module> = sources.iter().map(|source| source.module.clone()).collect();
    let mut all = BTreeMap::new();
    for Source { module, code, .. } in sources {
        let named = paths(code).into_iter().filter_map(|path| resolve(&path, module, &modules));
        let named = named.filter(|other| !module.starts_with(other));
        all.entry(module.clone()).or_insert_with(BTreeSet::new).extend(named);
    }
    all
}

/// The module of this crate that a path leads to, if it leads to one.
fn resolve(path: &[String], from: &Module, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut names = path.iter().map(String::as_str).peekable();
    let mut found = match *names.peek()? {
        "crate" => {
            names.next();
            Vec::new()
        }
        "self" | "super" => {
            let mut at = from.clone();
            while let Some(word) = names.next_if(|name| matches!(*name, "self" | "super")) {
                if word == "super" {
                    at.pop()?;
                }
            }
            at
        }
        first => {
            let child = [from.as_slice(), &[first.to_owned()]].concat();
            modules.contains(&child).then(|| from.clone())?
        }
    };
    for name in names {
        found.push(name.to_owned());
        if !modules.contains(&found) {
            found.pop();
            break;
        }
    }
    Some(found)
}

/// All paths of a file: those of `use`, groups taken apart, and those in the code.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        // `use` stands at the end of what comes before it: attributes, braces, `pub(crate)`.
        let is_use =
            |at: &usize| !statement[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let begin = statement.match_indices("use ").map(|(at, _)| at).find(is_use);
        match begin {
            Some(at) if !statement[at..].contains(['(', '=']) => {
                taken_apart(&[], &statement[at + 4..], &mut found);
                words(&statement[..at], &mut found);
            }
            _ => words(statement, &mut found),
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn taken_apart(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let parts = tree.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let (path, group) = part.split_once('{').map_or((part, None), |(p, g)| (p, Some(g)));
        let path = path.split(" as ").next().unwrap_or(path);
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty());
        let path: Vec<String> = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
        match group {
            Some(group) => taken_apart(&path, group.trim_end().trim_end_matches('}'), found),
            None => found.push(path),
        }
    }
}

/// Paths of more than one name in code.
fn words(code: &str, found: &mut Vec<Vec<String>>) {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for word in code.split(|c| !is_part(c)).filter(|word| word.contains("::")) {
        if !word.starts_with(':') {
            let names = word.split("::").filter(|name| !name.is_empty());
            found.push(names.map(str::to_owned).collect());
        }
    }
}

/// Groups of modules each of which needs, directly or not, every other of its group.
fn circles(needs: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        needs.keys().map(|module| (module, reached_from(module, needs))).collect();
    let mut groups = BTreeSet::new();
    for (module, others) in &reached {
        let back = |other: &&&Module| reached.get(**other).is_some_and(|r| r.contains(*module));
        let group: BTreeSet<String> = others.iter().filter(back).map(|m| m.join("::")).collect();
        if group.len() > 1 {
            groups.insert(group);
        }
    }
    groups.into_iter().collect()
}

fn reached_from<'a>(
    from: &'a Module,
    needs: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in needs.get(module).into_iter().flatten() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

#[test]
fn a_circle_is_found() {
    let source = |module: &str, code: &str| Source {
        name: module.to_owned(),
        module: module.split("::").map(str::to_owned).collect(),
        code: crate::source::code_of(code),
    };
    let two = [
        source("a", "use crate::{b::{self, Thing}, c};\nfn f<'x>() { '\"'; }"),
        source("b", "// crate::a::g\nfn g() { let _ = \"crate::c\"; crate::a::f() }"),
        source("c", "mod d; use d::Inner;"),
        // Its own module does not count.
        source("c::d", "use super::Shared; pub use crate::c::More;"),
    ];
    let found = circles(&needs(&two));
    assert_eq!(found, [BTreeSet::from(["a".to_owned(), "b".to_owned()])]);
}
