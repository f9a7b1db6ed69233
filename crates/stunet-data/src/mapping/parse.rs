//! The text of a label map.

use super::{LabelMapping, MappedClass};
use crate::error::{DataError, Result, invalid};
use crate::labels::LabelSet;
use std::collections::{BTreeMap, BTreeSet};

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
    let mut taken = Taken::default();
    taken.ignore(text.ignore);
    let mut classes = Vec::new();
    for entry in &text.reference {
        let reference = values(entry, None)?;
        if reference.is_empty() {
            return Err(wrong(entry.line, "labels of the reference", NONE));
        }
        taken.take(entry, &reference)?;
        let name = entry.name.to_owned();
        classes.push(MappedClass { name, reference, prediction: Vec::new() });
    }
    for entry in &text.omitted {
        taken.take(entry, &values(entry, None)?)?;
    }
    let numbers: BTreeMap<&str, usize> =
        text.reference.iter().enumerate().map(|(number, entry)| (entry.name, number)).collect();
    predictions(&text, set, &numbers, &mut classes)?;
    Ok(LabelMapping {
        title: text.title.to_owned(),
        note: text.note.map(str::to_owned),
        ignore: text.ignore,
        groups: groups(&text, &numbers)?,
        classes,
    })
}

/// The labels of the prediction's side, written or found under the name of the class.
fn predictions(
    text: &Text<'_>,
    set: Option<&LabelSet>,
    numbers: &BTreeMap<&str, usize>,
    classes: &mut [MappedClass],
) -> Result<()> {
    let mut taken = Taken::default();
    let mut written = vec![false; classes.len()];
    for entry in &text.prediction {
        let number = numbers
            .get(entry.name)
            .copied()
            .ok_or_else(|| wrong(entry.line, "a name of the section [reference]", entry.name))?;
        let values = values(entry, set)?;
        taken.take(entry, &values)?;
        classes[number].prediction = values;
        written[number] = true;
    }
    for ((class, entry), _) in
        classes.iter_mut().zip(&text.reference).zip(written).filter(|(_, written)| !written)
    {
        let value = named(entry.name, set).ok_or_else(|| {
            let expected =
                "a line for it in the section [prediction], as no label there has its name";
            wrong(entry.line, expected, entry.name)
        })?;
        taken.take(entry, &[value])?;
        class.prediction = vec![value];
    }
    Ok(())
}

fn groups(text: &Text<'_>, numbers: &BTreeMap<&str, usize>) -> Result<Vec<(String, Vec<u16>)>> {
    let mut groups = Vec::new();
    for entry in &text.groups {
        if numbers.contains_key(entry.name) {
            return Err(wrong(entry.line, "a name that no structure has", entry.name));
        }
        let members = entry.expression.split('+').map(str::trim).map(|word| {
            let found = numbers.get(word).ok_or_else(|| {
                wrong(entry.line, "names of the section [reference], with + between them", word)
            })?;
            Ok(*found as u16 + 1)
        });
        let mut members = members.collect::<Result<Vec<u16>>>()?;
        members.sort_unstable();
        members.dedup();
        groups.push((entry.name.to_owned(), members));
    }
    Ok(groups)
}

/// Labels that have a meaning already: none has two on the same side.
#[derive(Default)]
struct Taken<'a>(BTreeMap<u16, &'a str>);

impl<'a> Taken<'a> {
    fn ignore(&mut self, value: Option<u16>) {
        self.0.extend(value.map(|value| (value, "ignore")));
    }

    fn take(&mut self, entry: &Entry<'a>, values: &[u16]) -> Result<()> {
        for value in values {
            if let Some(other) = self.0.insert(*value, entry.name) {
                let expected = "a label that nothing else has on this side (unions go to [groups])";
                let found = format!("{value}, which {other} has, too");
                return Err(wrong(entry.line, expected, &found));
            }
        }
        Ok(())
    }
}

/// The labels that an expression names, ascending.
fn values(entry: &Entry<'_>, set: Option<&LabelSet>) -> Result<Vec<u16>> {
    if entry.expression == NONE {
        return Ok(Vec::new());
    }
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for word in entry.expression.split('+').map(str::trim) {
        if let Some(value) = number(word).or_else(|| named(word, set)) {
            ranges.push((value, value));
            continue;
        }
        match word.split_once("..").and_then(|(a, b)| number(a.trim()).zip(number(b.trim()))) {
            Some((first, last)) if first <= last => ranges.push((first, last)),
            _ => return Err(wrong(entry.line, labels_wanted(set), word)),
        }
    }
    ranges.sort_unstable();
    if ranges[0].0 == 0 {
        return Err(wrong(entry.line, "labels above 0, which is the background", "0"));
    }
    // What was named already is not named again, however often ranges overlap.
    let mut found: Vec<u16> = Vec::new();
    for (first, last) in ranges {
        let next = found.last().map_or(u32::from(first), |last| u32::from(*last) + 1);
        found.extend((next.max(first.into())..=last.into()).map(|value| value as u16));
    }
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
    let mut names = BTreeSet::new();
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
            if !names.insert((section, entry.name)) {
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
