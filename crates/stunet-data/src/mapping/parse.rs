//! The text of a label map.

use super::{LabelMapping, MappedClass};
use crate::error::{DataError, Result, invalid};
use crate::labels::LabelSet;
use std::collections::BTreeMap;

/// The label sets that a section may name.
const SETS: &str = "totalsegmentator";
/// Written where a structure has no label.
const NONE: &str = "none";

/// `NAME = EXPRESSION`, and the number of its line.
struct Entry<'a> {
    line: usize,
    name: &'a str,
    expression: &'a str,
}

#[derive(Default)]
struct Text<'a> {
    title: &'a str,
    note: Option<&'a str>,
    ignore: Option<u16>,
    /// Labels whose names the prediction's section may use.
    set: Option<LabelSet>,
    reference: Vec<Entry<'a>>,
    prediction: Vec<Entry<'a>>,
    groups: Vec<Entry<'a>>,
    omitted: Vec<Entry<'a>>,
}

fn wrong(line: usize, expected: impl Into<String>, found: &str) -> DataError {
    let found: String = found.chars().take(80).collect();
    invalid("label map", format!("line {line}"), expected, format!("{found:?}"))
}

pub(super) fn mapping(text: &str, labels: Option<&LabelSet>) -> Result<LabelMapping> {
    let text = read(text)?;
    if text.reference.is_empty() {
        let expected = "a section [reference] with a line such as liver = 1";
        return Err(invalid("label map", "[reference]", expected, "none"));
    }
    let set = text.set.as_ref().or(labels);
    let mut classes = Vec::new();
    for entry in &text.reference {
        let reference = values(entry, None)?;
        if reference.is_empty() {
            return Err(wrong(entry.line, "labels of the reference", NONE));
        }
        let name = entry.name.to_owned();
        classes.push(MappedClass { name, reference, prediction: Vec::new() });
    }
    let mut written: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for entry in &text.prediction {
        if !classes.iter().any(|class| class.name == entry.name) {
            return Err(wrong(entry.line, "a name of the section [reference]", entry.name));
        }
        written.insert(entry.name, values(entry, set)?);
    }
    for (class, entry) in classes.iter_mut().zip(&text.reference) {
        class.prediction = match written.remove(entry.name) {
            Some(values) => values,
            None => vec![named(entry.name, set).ok_or_else(|| {
                let expected = "a line for it in the section [prediction], as no label there has its \
                                name";
                wrong(entry.line, expected, entry.name)
            })?],
        };
    }
    check_disjoint(&text, set)?;
    Ok(LabelMapping {
        title: text.title.to_owned(),
        note: text.note.map(str::to_owned),
        ignore: text.ignore,
        groups: groups(&text, &classes)?,
        classes,
    })
}

fn groups(text: &Text<'_>, classes: &[MappedClass]) -> Result<Vec<(String, Vec<u16>)>> {
    let number = |name: &str| classes.iter().position(|class| class.name == name);
    let mut groups = Vec::new();
    for entry in &text.groups {
        if number(entry.name).is_some() {
            return Err(wrong(entry.line, "a name that no structure has", entry.name));
        }
        let members = entry.expression.split('+').map(str::trim).map(|word| {
            let found = number(word).ok_or_else(|| {
                wrong(entry.line, "names of the section [reference], with + between them", word)
            })?;
            Ok(found as u16 + 1)
        });
        let mut members = members.collect::<Result<Vec<u16>>>()?;
        members.sort_unstable();
        members.dedup();
        groups.push((entry.name.to_owned(), members));
    }
    Ok(groups)
}

/// No label has two meanings on the same side.
fn check_disjoint(text: &Text<'_>, set: Option<&LabelSet>) -> Result<()> {
    let reference = text.reference.iter().chain(&text.omitted).map(|entry| (entry, None));
    let prediction = text.prediction.iter().map(|entry| (entry, set));
    let own: Vec<&Entry<'_>> = text
        .reference
        .iter()
        .filter(|entry| !text.prediction.iter().any(|other| other.name == entry.name))
        .collect();
    let mut taken: BTreeMap<u16, &str> = text.ignore.map(|v| (v, "ignore")).into_iter().collect();
    for (entry, set) in reference {
        take(entry, &values(entry, set)?, &mut taken)?;
    }
    let mut taken = BTreeMap::new();
    for (entry, set) in prediction {
        take(entry, &values(entry, set)?, &mut taken)?;
    }
    for entry in own {
        let value: Vec<u16> = named(entry.name, set).into_iter().collect();
        take(entry, &value, &mut taken)?;
    }
    Ok(())
}

fn take<'a>(entry: &Entry<'a>, values: &[u16], taken: &mut BTreeMap<u16, &'a str>) -> Result<()> {
    for value in values {
        if let Some(other) = taken.insert(*value, entry.name).filter(|o| *o != entry.name) {
            let expected = "a label that nothing else has on this side (unions go to [groups])";
            let found = format!("{value}, which {other} has, too");
            return Err(wrong(entry.line, expected, &found));
        }
    }
    Ok(())
}

/// The labels that an expression names, ascending.
fn values(entry: &Entry<'_>, set: Option<&LabelSet>) -> Result<Vec<u16>> {
    if entry.expression == NONE {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for word in entry.expression.split('+').map(str::trim) {
        if let Some(value) = number(word).or_else(|| named(word, set)) {
            found.push(value);
            continue;
        }
        match word.split_once("..").and_then(|(a, b)| number(a.trim()).zip(number(b.trim()))) {
            Some((first, last)) if first <= last => found.extend(first..=last),
            _ => return Err(wrong(entry.line, labels_wanted(set), word)),
        }
    }
    if found.contains(&0) {
        return Err(wrong(entry.line, "labels above 0, which is the background", "0"));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn labels_wanted(set: Option<&LabelSet>) -> String {
    let names = match set {
        Some(_) => "names of the label set, ",
        None => "",
    };
    format!("{names}numbers from 1 to 65535 or ranges such as 5..9, with + between them")
}

fn number(word: &str) -> Option<u16> {
    word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten()
}

/// The value of the label with a name.
fn named(name: &str, set: Option<&LabelSet>) -> Option<u16> {
    let found = set?.labels().iter().find(|label| label.name == name)?;
    match found.values[..] {
        [value] if value > 0 => Some(value),
        _ => None,
    }
}

fn read(text: &str) -> Result<Text<'_>> {
    let mut out = Text::default();
    let mut section = "";
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, words) in (1..).zip(text.lines()) {
        let words = words.split('#').next().unwrap_or_default().trim();
        if words.is_empty() {
            continue;
        }
        if let Some(name) = words.strip_prefix('[') {
            section = begin(&mut out, line, name)?;
        } else if section.is_empty() {
            head(&mut out, line, words)?;
        } else {
            let entry = entry(line, words)?;
            let into = match section {
                "reference" => &mut out.reference,
                "prediction" => &mut out.prediction,
                "groups" => &mut out.groups,
                _ => &mut out.omitted,
            };
            if into.iter().any(|other: &Entry<'_>| other.name == entry.name) {
                return Err(wrong(line, "a name that this section does not have yet", entry.name));
            }
            into.push(entry);
        }
    }
    Ok(out)
}

fn begin<'a>(out: &mut Text<'a>, line: usize, name: &'a str) -> Result<&'a str> {
    const EXPECTED: &str = "[reference], [prediction], [prediction: totalsegmentator], [groups] or \
                            [omitted]";
    let inner = name.strip_suffix(']').ok_or_else(|| wrong(line, EXPECTED, name))?.trim();
    let (section, set) = match inner.split_once(':') {
        Some((section, set)) => (section.trim(), Some(set.trim())),
        None => (inner, None),
    };
    match (section, set) {
        ("reference" | "prediction" | "groups" | "omitted", None) => {}
        ("prediction", Some(SETS)) => out.set = Some(LabelSet::totalsegmentator()),
        _ => return Err(wrong(line, EXPECTED, name)),
    }
    Ok(section)
}

fn head<'a>(out: &mut Text<'a>, line: usize, words: &'a str) -> Result<()> {
    const EXPECTED: &str =
        "title: TEXT, note: TEXT, ignore: LABEL, or a section such as [reference]";
    let (key, value) = words.split_once(':').ok_or_else(|| wrong(line, EXPECTED, words))?;
    let value = value.trim();
    match key.trim() {
        "title" => out.title = value,
        "note" => out.note = Some(value),
        "ignore" => {
            let found = number(value).filter(|v| *v > 0);
            out.ignore = Some(found.ok_or_else(|| wrong(line, "a number from 1 to 65535", value))?);
        }
        _ => return Err(wrong(line, EXPECTED, words)),
    }
    Ok(())
}

fn entry(line: usize, words: &str) -> Result<Entry<'_>> {
    let expected = "a line such as liver = 1 + 2";
    let (name, expression) = words.split_once('=').ok_or_else(|| wrong(line, expected, words))?;
    let (name, expression) = (name.trim(), expression.trim());
    let plain = !name.is_empty() && !name.contains(['+', '[', ']']) && name != "background";
    if !plain || expression.is_empty() {
        return Err(wrong(line, expected, words));
    }
    Ok(Entry { line, name, expression })
}
