//! Some of a set's labels, by name, number or group.

use super::groups::GROUPS;
use super::{CompactLabelMap, LabelSet, LabelVoxels};
use crate::error::{DataError, Result};
use serde::Serialize;
use std::collections::BTreeSet;

/// Some label values of a labelmap; never the background.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelChoice {
    /// None.
    #[default]
    None,
    /// Every one.
    All,
    /// These.
    Of(BTreeSet<u16>),
}

impl LabelChoice {
    /// Whether a value is one of them.
    pub fn holds(&self, value: u16) -> bool {
        match self {
            Self::None => false,
            Self::All => value != 0,
            Self::Of(values) => values.contains(&value),
        }
    }

    /// Whether no value is.
    pub fn is_none(&self) -> bool {
        match self {
            Self::None => true,
            Self::All => false,
            Self::Of(values) => values.is_empty(),
        }
    }
}

impl LabelSet {
    /// The values of labels that are named: by their names, their numbers, or groups such as `ribs`
    /// ([`GROUPS`]). Capitals do not matter, nor whether words are
    /// joined by `_`, `-` or a space. Several may stand in one word, with commas between them.
    ///
    /// A region means every value that it covers.
    ///
    /// # Errors
    /// Names the first word that is none of them, and what looks like it. Background (0) is refused.
    ///
    /// ```
    /// use stunet_data::labels::LabelSet;
    /// let labels = LabelSet::totalsegmentator();
    /// let values = labels.choose(["liver,spleen", "kidneys"])?;
    /// assert_eq!(values.into_iter().collect::<Vec<_>>(), [38, 39, 40, 77]);
    /// let error = labels.choose(["livr"]).unwrap_err().to_string();
    /// assert!(error.contains("did you mean liver?"));
    /// # Ok::<(), stunet_data::DataError>(())
    /// ```
    pub fn choose<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<BTreeSet<u16>> {
        let words = words.into_iter().flat_map(|word| word.split(','));
        let mut chosen = BTreeSet::new();
        for word in words.map(str::trim).filter(|word| !word.is_empty()) {
            chosen.extend(self.values_of(word)?);
        }
        Ok(chosen)
    }

    fn values_of(&self, word: &str) -> Result<BTreeSet<u16>> {
        let wanted = plain(word);
        let foreground = || self.labels()[1..].iter();
        if let Some(label) = foreground().find(|label| plain(&label.name) == wanted) {
            return Ok(label.values.iter().copied().filter(|value| *value != 0).collect());
        }
        if let Ok(number) = word.parse::<u16>() {
            let known = foreground().any(|label| label.values.contains(&number));
            return match known && number != 0 {
                true => Ok(BTreeSet::from([number])),
                false => Err(self.unknown(word)),
            };
        }
        let group = GROUPS.iter().find(|group| plain(group.name) == wanted);
        match group.map(|group| group.values(self)).filter(|values| !values.is_empty()) {
            Some(values) => Ok(values),
            None => Err(self.unknown(word)),
        }
    }

    fn unknown(&self, word: &str) -> DataError {
        /// Names that are listed where none looks like the word.
        const LISTED: usize = 12;
        let groups = GROUPS.iter().filter(|group| !group.values(self).is_empty());
        let names: Vec<&str> = (self.labels()[1..].iter().map(|label| label.name.as_str()))
            .chain(groups.map(|group| group.name))
            .collect();
        let near = nearest(word, &names);
        let hint = match near[..] {
            [] => {
                let more = names.len().saturating_sub(LISTED);
                let listed = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("there are {listed}{more}")
            }
            [one] => format!("did you mean {one}?"),
            _ => format!("did you mean one of {}?", near.join(", ")),
        };
        DataError::UnknownLabel { found: word.to_owned(), hint }
    }

    /// The values that occur in labelmaps of this set, with the names they go by, background first.
    ///
    /// Regions overlap; a voxel is painted with the value of the last region that holds it.
    pub fn painted(&self) -> Vec<(u16, &str)> {
        let order = self.region_order().filter(|_| self.has_regions()).unwrap_or_default();
        let names = self.labels().iter().enumerate();
        names
            .map(|(index, label)| {
                let value = match index {
                    0 => 0,
                    _ => order.get(index - 1).copied().unwrap_or(label.values[0]),
                };
                (value, label.name.as_str())
            })
            .collect()
    }
}

impl CompactLabelMap {
    /// Sets every label that is not chosen to background, and returns the values that were there.
    pub fn keep_only(&mut self, chosen: &LabelChoice) -> BTreeSet<u16> {
        let mut dropped = vec![false; usize::from(u16::MAX) + 1];
        let mut keep = |value: u16| {
            let kept = value == 0 || chosen.holds(value);
            dropped[usize::from(value)] |= !kept;
            kept
        };
        // Labels come in runs: what was decided last is mostly decided again.
        match &mut self.voxels {
            LabelVoxels::Bytes(voxels) => {
                let mut last = (0, true);
                voxels.iter_mut().for_each(|voxel| {
                    if *voxel != last.0 {
                        last = (*voxel, keep(u16::from(*voxel)));
                    }
                    *voxel = if last.1 { *voxel } else { 0 };
                });
            }
            LabelVoxels::Words(voxels) => {
                let mut last = (0, true);
                voxels.iter_mut().for_each(|voxel| {
                    if *voxel != last.0 {
                        last = (*voxel, keep(*voxel));
                    }
                    *voxel = if last.1 { *voxel } else { 0 };
                });
            }
        }
        (0..=u16::MAX).filter(|value| dropped[usize::from(*value)]).collect()
    }
}

/// A name without what people write in several ways.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Names that look like a word, the most similar first: at most three.
fn nearest<'a>(word: &str, names: &[&'a str]) -> Vec<&'a str> {
    let wanted = plain(word);
    // A third of the letters may be wrong, but for words of two parts in the wrong order.
    let allowed = (wanted.chars().count() / 3).max(1);
    let sorted = |text: &str| {
        let mut parts: Vec<&str> = text.split('_').collect();
        parts.sort_unstable();
        parts.join("_")
    };
    let of = sorted(&wanted);
    let distance = |name: &&'a str| {
        let name = plain(name);
        let typed = strsim::damerau_levenshtein(&wanted, &name);
        typed.min(strsim::damerau_levenshtein(&of, &sorted(&name)))
    };
    let mut near: Vec<(usize, &str)> = names.iter().map(|name| (distance(name), *name)).collect();
    near.retain(|(distance, _)| *distance <= allowed);
    near.sort();
    let best = near.first().map_or(0, |(distance, _)| *distance);
    near.into_iter().take_while(|(d, _)| *d <= best + 1).map(|(_, name)| name).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use ndarray::arr3;
    use serde_json::json;

    fn check(words: &[&str], expected: &[u16]) {
        let found = LabelSet::totalsegmentator().choose(words.iter().copied()).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{words:?}");
    }

    #[test]
    fn names_numbers_and_groups() {
        check(&[], &[]);
        check(&["liver"], &[40]);
        check(&["Liver", " spleen "], &[40, 77]);
        check(&["40,77", "40"], &[40, 77]);
        check(&["kidney-left", "kidney right"], &[38, 39]);
        check(&["lungs"], &[41, 42, 43, 44, 45]);
        check(&["lung_left,", ",liver"], &[40, 41, 44]);
        check(&["vertebrae_c1"], &[81]);
    }

    fn refused(word: &str, words: &str) {
        let message = LabelSet::totalsegmentator().choose([word]).unwrap_err().to_string();
        assert!(message.contains(words), "expected {words:?}, found {message:?}");
    }

    #[test]
    fn what_looks_like_it() {
        refused("livr", "did you mean liver?");
        refused("splene", "did you mean one of spleen, spine?");
        refused("left_kidney", "did you mean kidney_left?");
        refused("rib", "found \"rib\" (did you mean ribs?)");
        refused("vertebra_T1", "vertebrae_T1");
        refused("0", "found \"0\"");
        refused("background", "found \"background\"");
        refused("105", "found \"105\"");
        refused("xyzzyxyzzy", "there are adrenal_gland_left");
        refused("xyzzyxyzzy", " more");
    }

    #[test]
    fn a_region_is_all_of_its_values() {
        let json = json!({
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
            "regions_class_order": [1, 2, 3]
        });
        let set = LabelSet::from_dataset_json(&json).unwrap();
        let of = |word| set.choose([word]).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(of("core"), [2, 3]);
        assert_eq!(of("enhancing"), [3]);
        assert_eq!(of("1"), [1]);
        assert!(set.choose(["ribs"]).is_err(), "no label of this set is a rib");
        assert_eq!(set.painted(), [(0, "background"), (1, "whole"), (2, "core"), (3, "enhancing")]);
    }

    #[test]
    fn the_rest_is_background() {
        let geometry = Geometry::axis_aligned([1, 2, 3], [1.0; 3]).unwrap();
        let bytes = LabelVoxels::Bytes(arr3(&[[[1u8, 2, 0], [3, 3, 1]]]));
        let words = LabelVoxels::Words(bytes.to_words());
        for voxels in [bytes, words] {
            let mut labels = CompactLabelMap { voxels, geometry: geometry.clone() };
            let chosen = LabelChoice::Of(BTreeSet::from([1, 7]));
            assert_eq!(labels.keep_only(&chosen), BTreeSet::from([2, 3]));
            assert_eq!(labels.voxels.to_words(), arr3(&[[[1, 0, 0], [0, 0, 1]]]));
            assert_eq!(labels.keep_only(&LabelChoice::All), BTreeSet::new());
            assert_eq!(labels.keep_only(&LabelChoice::None), BTreeSet::from([1]));
        }
    }
}
