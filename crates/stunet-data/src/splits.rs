//! Which cases train and which validate: nnU-Net's folds and its `splits_final.json`.

use crate::error::{DataError, Result, invalid};
use crate::numpy_random::RandomState;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Seed of nnU-Net's folds; an 80:20 split adds the number of its fold.
const SEED: u32 = 12345;
/// Number of folds of the cross-validation.
pub const NUM_FOLDS: usize = 5;

/// A fold by its number, or all cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// One of the splits, or beyond the last one an 80:20 split of its own.
    Number(usize),
    /// Every case trains and validates.
    All,
}

impl FromStr for Fold {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let number = || {
            let bad = |_| invalid("splits", "fold", "a number or `all`", format_args!("`{text}`"));
            text.parse::<u16>().map(|n| Self::Number(n.into())).map_err(bad)
        };
        if text == "all" { Ok(Self::All) } else { number() }
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

/// The cases of one fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Cases to train on.
    pub train: Vec<String>,
    /// Cases to validate on.
    pub val: Vec<String>,
}

impl Split {
    /// A sentence on cases that train and validate, which nnU-Net warns of; none if there are none.
    /// Not for [`Fold::All`], where that is meant.
    pub fn note(&self) -> Option<String> {
        let train: BTreeSet<&String> = self.train.iter().collect();
        let both: BTreeSet<&String> = self.val.iter().filter(|name| train.contains(name)).collect();
        let first = both.first()?;
        Some(format!(
            "{} case(s) of the fold are trained on and validated on, such as {first}: the \
             validation says nothing of other images",
            both.len()
        ))
    }
}

/// The folds of a dataset, in their order.
///
/// ```
/// use stunet_data::splits::{Fold, Splits};
/// let names: Vec<String> = (0..6).map(|i| format!("case_{i}")).collect();
/// let splits = Splits::five_fold(&names)?;
/// assert_eq!(splits.fold(Fold::Number(0), &names)?.val, ["case_3", "case_5"]);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Splits {
    folds: Vec<Split>,
}

impl Splits {
    /// Five folds of nearly equal size, the same for the same names in any order.
    ///
    /// # Errors
    /// With fewer than five cases, or a name twice.
    ///
    /// # Source
    /// scikit-learn's `KFold(5, shuffle=True, random_state=12345)` as nnU-Net 1.7
    /// (`nnUNetTrainerV2.do_split`) and nnU-Net 2 (`crossval_split.py`) use it.
    pub fn five_fold(names: &[String]) -> Result<Self> {
        let names = sorted(names)?;
        if names.len() < NUM_FOLDS {
            let expected = format!("at least {NUM_FOLDS} for as many folds (or use fold all)");
            return Err(invalid("splits", "cases", expected, names.len()));
        }
        let order = RandomState::new(SEED).permutation(names.len());
        let (size, larger) = (names.len() / NUM_FOLDS, names.len() % NUM_FOLDS);
        let mut rest = &order[..];
        let folds = (0..NUM_FOLDS).map(|fold| {
            let (val, after) = rest.split_at(size + usize::from(fold < larger));
            rest = after;
            let (val, train) = (0..names.len()).partition(|i| val.contains(i));
            Split { train: pick(&names, train), val: pick(&names, val) }
        });
        Ok(Self { folds: folds.collect() })
    }

    /// The cases of one fold. A number beyond the splits gives a random 80:20 split of its own.
    ///
    /// # Errors
    /// When the splits name a case that is not among `names`, a fold has nothing to train on or to
    /// validate on (nnU-Net ends after the first epoch then), or a name appears twice.
    ///
    /// # Source
    /// nnU-Net 1.7 and 2, `do_split`.
    pub fn fold(&self, fold: Fold, names: &[String]) -> Result<Split> {
        let names = sorted(names)?;
        let split = match fold {
            Fold::All => Split { train: names.clone(), val: names.clone() },
            Fold::Number(number) => match self.folds.get(number) {
                Some(split) => split.clone(),
                None => eighty_twenty(number, &names),
            },
        };
        let known: BTreeSet<&String> = names.iter().collect();
        if let Some(unknown) = split.train.iter().chain(&split.val).find(|n| !known.contains(n)) {
            let expected = format!("names of the {} cases there are", names.len());
            return Err(invalid("splits", format!("fold {fold}"), expected, unknown));
        }
        for (what, names) in [("train", &split.train), ("validate", &split.val)] {
            if names.is_empty() {
                let expected = format!("cases to {what} on");
                return Err(invalid("splits", format!("fold {fold}"), expected, "none"));
            }
        }
        Ok(split)
    }

    /// The folds there are.
    pub fn folds(&self) -> &[Split] {
        &self.folds
    }

    /// Reads the content of `splits_final.json`; other keys of a fold are passed over.
    ///
    /// # Errors
    /// When it is no list of folds with `train` and `val`.
    pub fn from_json(value: &Value) -> Result<Self> {
        let Some(list) = value.as_array() else {
            return Err(invalid("splits", "splits", "a list of folds", "something else"));
        };
        let folds = list.iter().enumerate().map(|(i, fold)| {
            Split::deserialize(fold).map_err(|_| {
                let expected = "lists of names under `train` and `val`";
                invalid("splits", format!("fold {i}"), expected, "something else")
            })
        });
        Ok(Self { folds: folds.collect::<Result<_>>()? })
    }

    /// Reads nnU-Net's `splits_final.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self> {
        let value: Value = crate::files::read_json(path)?;
        Self::from_json(&value).map_err(|e| e.at(path))
    }

    /// Writes `splits_final.json` as nnU-Net does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::files::save_json(path, self)
    }
}

fn sorted(names: &[String]) -> Result<Vec<String>> {
    let mut names = names.to_vec();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(invalid("splits", "cases", "different names", format!("{} twice", pair[0])))
        }
        None => Ok(names),
    }
}

fn pick(names: &[String], indices: Vec<usize>) -> Vec<String> {
    indices.into_iter().map(|i| names[i].clone()).collect()
}

/// Training cases in the order they were drawn, validation cases sorted, as in the reference.
fn eighty_twenty(fold: usize, names: &[String]) -> Split {
    let seed = SEED.wrapping_add(fold as u32);
    let count = (names.len() as f64 * 0.8) as usize;
    let train = RandomState::new(seed).choice(names.len(), count, false);
    let val = (0..names.len()).filter(|i| !train.contains(i)).collect();
    Split { train: pick(names, train), val: pick(names, val) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("case_{i:03}")).collect()
    }

    #[test]
    fn every_case_validates_once() {
        for count in [5, 6, 13, 64] {
            let names = names(count);
            let splits = Splits::five_fold(&names).unwrap();
            let mut validated: Vec<String> =
                splits.folds().iter().flat_map(|s| s.val.clone()).collect();
            validated.sort();
            assert_eq!(validated, names);
            for split in splits.folds() {
                assert_eq!(split.train.len() + split.val.len(), count);
                assert!(split.train.iter().all(|name| !split.val.contains(name)));
            }
        }
    }

    #[test]
    fn the_order_of_the_names_does_not_matter() {
        let mut backwards = names(17);
        backwards.reverse();
        assert_eq!(Splits::five_fold(&backwards).unwrap(), Splits::five_fold(&names(17)).unwrap());
    }

    #[test]
    fn folds_beyond_the_splits_and_all() {
        let names = names(13);
        let splits = Splits::five_fold(&names).unwrap();
        // np.random.RandomState(12350).choice(13, 10, replace=False)
        let expected = [11, 4, 10, 3, 0, 7, 5, 8, 9, 12].map(|i: usize| names[i].clone());
        let split = splits.fold(Fold::Number(5), &names).unwrap();
        assert_eq!(split.train, expected);
        assert_eq!(split.val, [1, 2, 6].map(|i: usize| names[i].clone()));
        let all = splits.fold(Fold::All, &names).unwrap();
        assert_eq!((&all.train, &all.val), (&names, &names));
    }

    #[test]
    fn saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("splits_final.json");
        let splits = Splits::five_fold(&names(7)).unwrap();
        splits.save(&path).unwrap();
        assert_eq!(Splits::load(&path).unwrap(), splits);
        std::fs::write(&path, "[{\"train\": [\"a\"]}]").unwrap();
        let message = Splits::load(&path).unwrap_err().to_string();
        assert!(
            message.contains("fold 0: expected") && message.ends_with("final.json"),
            "{message}"
        );
    }

    fn refused(result: Result<impl fmt::Debug>, words: &str) {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "expected {words:?}, found {message:?}");
    }

    #[test]
    fn bad_splits_are_refused() {
        refused(Splits::five_fold(&names(4)), "at least 5");
        refused(Splits::five_fold(&[names(4), names(2)].concat()), "twice");
        refused(Splits::from_json(&json!({})), "a list of folds");
        let foreign = json!([{"train": ["case_000", "other"], "val": []}]);
        let splits = Splits::from_json(&foreign).unwrap();
        refused(splits.fold(Fold::Number(0), &names(5)), "other");
        refused(splits.fold(Fold::Number(1), &names(1)), "cases to train on");
        let nothing = json!([{"train": ["case_000"], "val": []}]);
        let splits = Splits::from_json(&nothing).unwrap();
        refused(splits.fold(Fold::Number(0), &names(5)), "cases to validate on");
    }

    #[test]
    fn cases_on_both_sides_are_told() {
        let split = |train: &[&str], val: &[&str]| Split {
            train: train.iter().map(|name| (*name).to_owned()).collect(),
            val: val.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(split(&["a", "b"], &["c"]).note(), None);
        let note = split(&["a", "b", "c"], &["c", "d", "b", "b"]).note().unwrap();
        assert!(note.starts_with("2 case(s)") && note.contains("such as b"), "{note}");
    }

    #[test]
    fn folds_as_text() {
        for text in ["0", "4", "17", "all"] {
            assert_eq!(text.parse::<Fold>().unwrap().to_string(), text);
        }
        refused("first".parse::<Fold>(), "`first`");
        refused("-1".parse::<Fold>(), "a number or `all`");
    }
}
