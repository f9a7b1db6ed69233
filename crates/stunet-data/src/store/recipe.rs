//! `store.json`: how the cases of a store were prepared.

use crate::compare::{Differences, differences, label_differences};
use crate::error::{Result, invalid};
use crate::files;
use crate::labels::LabelSet;
use crate::nifti::Reader;
use crate::plans::Plans;
use crate::preprocess::resample::Resampling;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Plans, labels and cases of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreRecipe {
    plans: Plans,
    labels: LabelSet,
    cases: Vec<String>,
    digest: String,
}

impl StoreRecipe {
    /// The recipe for the cases of a dataset.
    ///
    /// # Errors
    /// When there is no case, a name occurs twice, or one cannot be the name of a file.
    pub fn new(plans: Plans, labels: LabelSet, mut cases: Vec<String>) -> Result<Self> {
        cases.sort();
        if cases.is_empty() {
            return Err(invalid("store.json", "cases", "at least one case", "none"));
        }
        if let Some(twice) = cases.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(invalid("store.json", "cases", "every name once", &twice[0]));
        }
        // `store.json` may come from elsewhere, and names become paths.
        cases.iter().try_for_each(|name| files::plain_name("store.json", "cases", name))?;
        let digest = digest(&plans, &labels);
        Ok(Self { plans, labels, cases, digest })
    }

    /// Whose arithmetic, which spacing, which normalisation.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// What label values mean.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// Names of the dataset's cases, sorted.
    pub fn cases(&self) -> &[String] {
        &self.cases
    }

    /// [`digest`] of plans and labels.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What would have to be prepared anew for these plans and labels: every entry in which they
    /// differ from the recipe, theirs first. Patch, batch and strides are none of them.
    ///
    /// # Errors
    /// When an entry cannot be written as JSON.
    pub fn differences(&self, plans: &Plans, labels: &LabelSet) -> Result<Differences> {
        let of = |plans: &Plans, labels: &LabelSet| {
            let mut parts = parts(plans, labels);
            // As the user knows them.
            parts["labels"] = serde_json::Value::Null;
            parts
        };
        let plans = differences(&of(plans, labels), &of(&self.plans, &self.labels))?;
        Ok(plans.and(label_differences(labels, &self.labels)?))
    }

    /// Reads the content of a `store.json`.
    ///
    /// # Errors
    /// When it is none, or malformed.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        Self::checked(files::parse_json(json)?)
    }

    pub(super) fn load(path: &Path) -> Result<Self> {
        Self::checked(files::read_json(path)?).map_err(|e| e.at(path))
    }

    fn checked(raw: RawRecipe) -> Result<Self> {
        files::check_format("store.json", (&raw.format, raw.version), FORMAT)?;
        Self::new(raw.plans, raw.labels, raw.cases)
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let raw = RawRecipe {
            format: FORMAT.to_owned(),
            version: 1,
            digest: self.digest.clone(),
            plans: self.plans.clone(),
            labels: self.labels.clone(),
            cases: self.cases.clone(),
        };
        files::save_json(path, &raw)
    }
}

/// Of the layout of a case's file; part of the digest of a recipe.
pub(super) const CASE_FORMAT: u32 = 1;

/// Tells recipes apart, in 16 hexadecimal digits.
///
/// Covers what a preprocessed case depends on: reader, whose arithmetic, spacing, axes,
/// normalisation, and the labels. Patch and batch size may change without a case being prepared anew.
pub fn digest(plans: &Plans, labels: &LabelSet) -> String {
    fnv(parts(plans, labels).to_string().as_bytes())
}

/// What a preprocessed case depends on.
fn parts(plans: &Plans, labels: &LabelSet) -> serde_json::Value {
    let mut parts = serde_json::json!({
        "case_format": CASE_FORMAT,
        "reference": plans.reference,
        "spacing_mm": plans.spacing_mm,
        "transpose_forward": plans.transpose_forward,
        "channels": plans.channels,
        "force_separate_z": plans.force_separate_z,
        "labels": labels,
    });
    // Named only where it is not the usual one: digests of older stores stay what they are.
    if plans.reader != Reader::default() {
        parts["reader"] = serde_json::json!(plans.reader);
    }
    if plans.resampling != Resampling::default() {
        parts["resampling"] = serde_json::json!(plans.resampling);
    }
    parts
}

/// FNV-1a, which is the same on every machine and in every version.
pub(super) fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

const FORMAT: &str = "stunet-store";

#[derive(Serialize, Deserialize)]
struct RawRecipe {
    format: String,
    version: u32,
    /// For people and other programs; it follows from the rest.
    digest: String,
    plans: Plans,
    labels: LabelSet,
    cases: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::{Normalization, Reference};

    fn published() -> (Plans, LabelSet) {
        (Plans::totalsegmentator(), LabelSet::totalsegmentator())
    }

    #[test]
    fn the_digest_covers_what_cases_depend_on_and_nothing_else() {
        let (plans, labels) = published();
        let same = digest(&plans, &labels);
        let check = |change: &dyn Fn(&mut Plans), matters: bool| {
            let mut other = plans.clone();
            change(&mut other);
            assert_eq!(digest(&other, &labels) != same, matters, "{other:?}");
            let recipe = StoreRecipe::new(plans.clone(), labels.clone(), vec!["a".into()]).unwrap();
            let found = recipe.differences(&other, &labels).unwrap();
            assert_eq!(!found.is_empty(), matters, "{found:?}");
        };
        check(&|p| p.batch_size = 7, false);
        check(&|p| p.patch_size = [64; 3], false);
        check(&|p| p.notes.push("a note".into()), false);
        check(&|p| p.spacing_mm[1] = 1.25, true);
        check(&|p| p.reference = Reference::NnUNetV28, true);
        check(&|p| p.transpose_forward = [1, 0, 2], true);
        check(&|p| p.force_separate_z = Some(true), true);
        check(&|p| p.resampling = Resampling::Torch, true);
        check(&|p| p.channels[0].use_mask = true, true);
        check(&|p| p.reader = Reader::NibabelReorient, true);
        check(&|p| p.channels[0].scheme = Normalization::None, true);
        assert_ne!(digest(&plans, &LabelSet::numbered(3).unwrap()), same);
    }

    #[test]
    fn differences_are_named_with_both_values() {
        let (plans, _) = published();
        let labels = LabelSet::from_names(["background", "liver"]).unwrap();
        let recipe = StoreRecipe::new(plans.clone(), labels.clone(), vec!["a".into()]).unwrap();
        let told = |plans: &Plans, labels: &LabelSet| {
            recipe.differences(plans, labels).unwrap().told("plans", "store")
        };
        assert_eq!(told(&plans, &labels), "");
        let mut other = Plans { spacing_mm: [2.0, 1.5, 1.5], ..plans.clone() };
        other.channels[0].scheme = Normalization::None;
        let expected = "spacing_mm is [2.0,1.5,1.5] in plans and [1.5,1.5,1.5] in store; \
                        channels.0.scheme is \"none\" in plans and \"z-score\" in store";
        assert_eq!(told(&other, &labels), expected);
        let renamed = LabelSet::from_names(["background", "hepar"]).unwrap();
        let found = told(&plans, &renamed);
        assert!(found.contains("labels.hepar is 1 in plans and nothing in store"), "{found}");
    }

    #[test]
    fn the_digest_is_the_same_on_every_machine_and_in_every_version() {
        let (plans, labels) = published();
        assert_eq!(digest(&plans, &labels), "aba50d9813c1ef4b");
        assert_eq!(fnv(b""), "cbf29ce484222325");
        assert_eq!(fnv(b"foobar"), "85944171f73967e8");
    }

    #[test]
    fn saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.json");
        let (plans, labels) = published();
        let recipe = StoreRecipe::new(plans.clone(), labels.clone(), vec!["b".into(), "a".into()]);
        let recipe = recipe.unwrap();
        assert_eq!(recipe.cases(), ["a", "b"]);
        recipe.save(&path).unwrap();
        assert_eq!(StoreRecipe::load(&path).unwrap(), recipe);
        let check = |cases: &[&str]| {
            let cases = cases.iter().map(|c| (*c).to_owned()).collect();
            StoreRecipe::new(plans.clone(), labels.clone(), cases).unwrap_err().to_string()
        };
        assert!(check(&[]).contains("at least one case"));
        assert!(check(&["a", "b", "a"]).contains("every name once, found a"));
        for bad in ["../a", "/a", "", "a\nb"] {
            assert!(check(&[bad, "b"]).contains("expected a name without"), "{bad:?}");
        }
        let text = std::fs::read_to_string(&path).unwrap().replace("stunet-store", "other");
        std::fs::write(&path, text).unwrap();
        let message = StoreRecipe::load(&path).unwrap_err().to_string();
        assert!(message.contains("stunet-store version 1"), "{message}");
        assert!(message.ends_with("store.json"), "{message}");
    }
}
