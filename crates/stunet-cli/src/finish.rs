//! What is done with labels that are there: cleaned up, left out, measured, checked.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;
use stunet::data::cleanup::CleanUp;
use stunet::data::components::Connectivity;
use stunet::data::labels::{CompactLabelMap, LabelChoice, LabelSet};
use stunet::infer::Record;

use crate::args::{CleanArgs, FinishArgs};

/// What the options mean for the labels of a model.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// What is cleaned up.
    pub clean: CleanUp,
    /// The labels that are written; all of them by default.
    pub kept: LabelChoice,
}

/// A label that the clean-up has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CleanedLabel {
    /// Its value.
    pub value: u16,
    /// Its name.
    pub name: String,
    /// Connected parts that were removed.
    pub removed_parts: u64,
    /// Their voxels.
    pub removed_voxels: u64,
    /// Voxels of filled holes.
    pub filled_voxels: u64,
}

/// What has become of the labels of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finished {
    /// Labels that the clean-up has changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cleaned: Vec<CleanedLabel>,
    /// Labels that were predicted and left out, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl Finish {
    /// Of `predict`.
    pub fn of(args: &FinishArgs, labels: &LabelSet) -> anyhow::Result<Self> {
        Self::new(&args.clean, &args.labels, labels)
    }

    /// Of any command.
    pub fn new(clean: &CleanArgs, kept: &[String], labels: &LabelSet) -> anyhow::Result<Self> {
        let kept = match kept {
            [] => LabelChoice::All,
            words => LabelChoice::Of(chosen("--labels", words.iter(), labels)?),
        };
        Ok(Self { clean: clean_up(clean, labels)?, kept })
    }

    /// Does it, and says what has changed. Parts and holes are those of all labels: what is left out
    /// goes last.
    pub fn apply(&self, labelmap: &mut CompactLabelMap, labels: &LabelSet) -> Finished {
        let painted = labels.painted();
        let name = |value: u16| {
            let found = painted.iter().find(|(of, _)| *of == value);
            found.map_or_else(|| format!("label_{value}"), |(_, name)| (*name).to_owned())
        };
        let cleaned = match self.clean.is_nothing() {
            true => Vec::new(),
            false => self.clean.apply(labelmap),
        };
        let left_out = match self.kept {
            LabelChoice::All => BTreeSet::new(),
            _ => labelmap.keep_only(&self.kept),
        };
        let cleaned = cleaned.into_iter().map(|change| CleanedLabel {
            value: change.label,
            name: name(change.label),
            removed_parts: change.removed_parts,
            removed_voxels: change.removed_voxels,
            filled_voxels: change.filled_voxels,
        });
        Finished { cleaned: cleaned.collect(), left_out: left_out.into_iter().map(name).collect() }
    }

    /// The record of labels that this was done to.
    pub fn record(&self, record: &Record) -> Record {
        let mut record = record.clone();
        if let LabelChoice::Of(values) = &self.kept {
            record = record.with_entry("labels", json!(values));
        }
        if !self.clean.is_nothing() {
            record = record.with_entry("clean-up", json!(self.clean));
        }
        record
    }

    /// The labels that are written, with their names; background first.
    pub fn written<'a>(&self, labels: &'a LabelSet) -> Vec<(u16, &'a str)> {
        let mut written = labels.painted();
        written.retain(|(value, _)| *value == 0 || self.kept.holds(*value));
        written
    }
}

impl Finished {
    /// What there is to say of it, in lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let sum = |of: &dyn Fn(&CleanedLabel) -> u64| self.cleaned.iter().map(of).sum::<u64>();
        let (parts, removed) = (sum(&|of| of.removed_parts), sum(&|of| of.removed_voxels));
        let filled = sum(&|of| of.filled_voxels);
        if !self.cleaned.is_empty() {
            lines.push(format!(
                "cleaned up {} label(s): {parts} part(s) of {removed} voxels removed, {filled} voxels \
                 of holes filled",
                self.cleaned.len()
            ));
        }
        if !self.left_out.is_empty() {
            lines.push(format!("left out, as --labels says: {}", listed(&self.left_out)));
        }
        lines
    }
}

/// Names with commas; of many the first.
pub fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn chosen<'a>(
    option: &'static str,
    words: impl Iterator<Item = &'a String>,
    labels: &LabelSet,
) -> anyhow::Result<BTreeSet<u16>> {
    let values = labels.choose(words.map(String::as_str)).context(option)?;
    ensure!(
        !values.is_empty(),
        "{option}: expected names, numbers or groups of labels, found none"
    );
    Ok(values)
}

fn clean_up(args: &CleanArgs, labels: &LabelSet) -> anyhow::Result<CleanUp> {
    let choice = |option, word: Option<&String>| -> anyhow::Result<LabelChoice> {
        Ok(match word {
            None => LabelChoice::None,
            Some(word) if word == "all" => LabelChoice::All,
            Some(word) => LabelChoice::Of(chosen(option, [word].into_iter(), labels)?),
        })
    };
    let (min_ml, small) = match &args.min_volume[..] {
        [] => (0.0, LabelChoice::None),
        [volume] => (millilitres(volume)?, LabelChoice::All),
        [volume, of, ..] => (millilitres(volume)?, choice("--min-volume", Some(of))?),
    };
    Ok(CleanUp {
        largest: choice("--largest-component", args.largest_component.as_ref())?,
        small,
        min_ml,
        holes: choice("--fill-holes", args.fill_holes.as_ref())?,
        connectivity: Connectivity::Corners,
    })
}

/// A volume with its unit.
fn millilitres(text: &str) -> anyhow::Result<f64> {
    let units =
        [("ml", 1.0), ("mm3", 0.001), ("mm³", 0.001), ("ul", 0.001), ("µl", 0.001), ("cm3", 1.0)];
    let found = units.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let volume = found.and_then(|(number, size)| Some(number.trim().parse::<f64>().ok()? * size));
    let volume = volume.filter(|volume| *volume > 0.0 && volume.is_finite());
    volume.with_context(|| {
        format!(
            "--min-volume: expected a volume above 0 with its unit, such as 0.2ml or 50mm3, found \
                 {text:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let check = |text: &str, expected: Option<f64>| {
            assert_eq!(millilitres(text).ok(), expected, "{text}");
        };
        check("0.2ml", Some(0.2));
        check("2 ml", Some(2.0));
        check("50mm3", Some(0.05));
        check("3cm3", Some(3.0));
        for bad in ["0.2", "ml", "0ml", "-1ml", "nanml", "infml", "1l", ""] {
            check(bad, None);
        }
    }

    fn finish(clean: CleanArgs, kept: &[&str]) -> anyhow::Result<Finish> {
        let kept: Vec<String> = kept.iter().map(|word| (*word).to_owned()).collect();
        Finish::new(&clean, &kept, &LabelSet::totalsegmentator())
    }

    #[test]
    fn options_become_choices() {
        let nothing = finish(CleanArgs::default(), &[]).unwrap();
        assert!(nothing.clean.is_nothing() && nothing.kept == LabelChoice::All);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let clean = CleanArgs {
            largest_component: Some("liver,spleen".to_owned()),
            min_volume: words(&["0.2ml", "ribs"]),
            fill_holes: Some("all".to_owned()),
        };
        let found = finish(clean, &["kidneys", "40"]).unwrap();
        let of = |values: &[u16]| LabelChoice::Of(values.iter().copied().collect());
        assert_eq!(found.clean.largest, of(&[40, 77]));
        assert_eq!(found.clean.holes, LabelChoice::All);
        assert_eq!((found.clean.min_ml, found.clean.small.holds(49)), (0.2, true));
        assert_eq!(found.kept, of(&[38, 39, 40]));
        let labels = LabelSet::totalsegmentator();
        assert_eq!(found.written(&labels).len(), 4);
        let everywhere =
            finish(CleanArgs { min_volume: words(&["1ml"]), ..CleanArgs::default() }, &[]);
        assert_eq!(everywhere.unwrap().clean.small, LabelChoice::All);
    }

    #[test]
    fn errors_name_the_option() {
        let check = |clean: CleanArgs, kept: &[&str], words: &str| {
            let error = format!("{:#}", finish(clean, kept).unwrap_err());
            assert!(error.contains(words), "expected {words:?}, found {error:?}");
        };
        check(CleanArgs::default(), &["livr"], "--labels: expected the name");
        check(CleanArgs::default(), &["livr"], "did you mean liver?");
        check(CleanArgs::default(), &[","], "--labels: expected names");
        let clean = |word: &str| CleanArgs {
            largest_component: Some(word.to_owned()),
            ..CleanArgs::default()
        };
        check(clean("livr"), &[], "--largest-component: expected the name");
        let small = CleanArgs { min_volume: vec!["0.2".to_owned()], ..CleanArgs::default() };
        check(small, &[], "--min-volume: expected a volume");
    }
}
