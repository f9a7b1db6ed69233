//! What is compared: single labels, or regions of several.

use crate::InferError;
use std::fmt;
use std::str::FromStr;
use stunet_data::geometry::Leniency;
use stunet_data::labels::LabelSet;
use stunet_data::nifti::Reader;

/// A label, or a region: the union of several labels.
///
/// Its text is nnU-Net's key in `summary.json`: `3`, or `(2, 3)`. Read from text, the parentheses
/// and spaces of a region may be left out.
///
/// ```
/// use stunet_infer::evaluate::Class;
/// let region: Class = "2,3".parse()?;
/// assert_eq!(region, Class::Region(vec![2, 3]));
/// assert_eq!(region.to_string(), "(2, 3)");
/// # Ok::<(), stunet_infer::InferError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// All voxels of one value.
    Label(u16),
    /// All voxels of any of these values.
    Region(Vec<u16>),
}

impl Class {
    /// Whether voxels of this value belong to the class.
    pub fn holds(&self, value: u16) -> bool {
        match self {
            Self::Label(label) => *label == value,
            Self::Region(labels) => labels.contains(&value),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "{label}"),
            Self::Region(labels) => {
                // Python's tuples: one element has a comma of its own.
                let words: Vec<String> = labels.iter().map(u16::to_string).collect();
                let comma = if labels.len() == 1 { "," } else { "" };
                write!(f, "({}{comma})", words.join(", "))
            }
        }
    }
}

impl FromStr for Class {
    type Err = InferError;

    fn from_str(text: &str) -> Result<Self, InferError> {
        let bad = || InferError::NotAClass { found: text.chars().take(60).collect() };
        let inner = text.trim();
        let inner = match inner.strip_prefix('(') {
            Some(rest) => rest.strip_suffix(')').ok_or_else(bad)?,
            None => inner,
        };
        let tuple = inner.contains(',');
        let inner = inner.strip_suffix(',').unwrap_or(inner);
        let values: Result<Vec<u16>, _> = inner.split(',').map(|v| v.trim().parse()).collect();
        match values.map_err(|_| bad())? {
            one if one.len() == 1 && !tuple => Ok(Self::Label(one[0])),
            several => Ok(Self::Region(several)),
        }
    }
}

/// What is compared, and where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationRules {
    /// Each is compared on its own.
    pub classes: Vec<Class>,
    /// Voxels of this value in the reference are left out of every count.
    pub ignore: Option<u16>,
    /// Which of nnU-Net's readers opens both files: one that turns compares across orientations.
    pub reader: Reader,
    /// What of their headers is forgiven.
    pub leniency: Leniency,
}

impl EvaluationRules {
    /// The foreground of a label set: its regions where it has some, else its labels.
    ///
    /// # Source
    /// nnU-Net 2's `LabelManager`: `foreground_regions` in the order of `dataset.json`,
    /// `foreground_labels` ascending.
    ///
    /// # Deviations
    /// A region that `dataset.json` lists with a single value is taken for that label: key `3` and
    /// not `(3,)`.
    pub fn of(labels: &LabelSet) -> Self {
        let classes = labels.labels()[1..].iter().map(|label| match label.values[..] {
            [value] => Class::Label(value),
            _ => Class::Region(label.values.clone()),
        });
        Self { classes: classes.collect(), ignore: labels.ignore(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = text.parse::<Class>().ok().map(|class| class.to_string());
        assert_eq!(found.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn classes_as_text() {
        check("3", Some("3"));
        check(" 17 ", Some("17"));
        check("2,3", Some("(2, 3)"));
        check("(2, 3)", Some("(2, 3)"));
        check("(4,)", Some("(4,)"));
        check("5,", Some("(5,)"));
        check("", None);
        check("()", None);
        check("(2, 3", None);
        check("2,,3", None);
        check("-1", None);
        check("65536", None);
        check("liver", None);
    }

    #[test]
    fn rules_of_a_label_set() {
        let json = serde_json::json!({
            "labels": {"background": 0, "whole": [1, 2, 3], "core": 3, "ignore": 4},
            "regions_class_order": [1, 3]
        });
        let rules = EvaluationRules::of(&LabelSet::from_dataset_json(&json).unwrap());
        assert_eq!(rules.classes, [Class::Region(vec![1, 2, 3]), Class::Label(3)]);
        assert_eq!(rules.ignore, Some(4));
        assert_eq!(EvaluationRules::of(&LabelSet::totalsegmentator()).classes.len(), 104);
    }
}
