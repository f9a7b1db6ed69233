//! Oracle H: the folds of scikit-learn and the 80:20 splits of NumPy, case by case.

use serde_json::Value;
use stunet::data::splits::{Fold, Splits};
use stunet_testing::oracle::{self, Golden, Part};
use stunet_testing::say;

const SPLITS: &str = "H_eval/splits.json";

pub(crate) fn tests(golden: &mut Golden) {
    golden.one("splits::validation_cases_of_five_folds", &[SPLITS], validation_cases_of_five_folds);
    golden.one("splits::training_cases_of_80_20_splits", &[SPLITS], training_cases_of_80_20_splits);
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("case_{i:04}")).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The places of `found` in `names`.
fn places(names: &[String], found: &[String]) -> Vec<usize> {
    found.iter().map(|name| names.binary_search(name).unwrap()).collect()
}

fn validation_cases_of_five_folds(part: &Part) {
    let recorded = oracle::json(&part.path(SPLITS));
    let counts = recorded["val_idx"].as_object().unwrap();
    assert!(!counts.is_empty());
    for (count, folds) in counts {
        let names = names(count.parse().unwrap());
        let splits = Splits::five_fold(&names).unwrap();
        assert_eq!(splits.folds().len(), folds.as_array().unwrap().len(), "{count} cases");
        for (fold, expected) in folds.as_array().unwrap().iter().enumerate() {
            let split = splits.fold(Fold::Number(fold), &names).unwrap();
            let expected = indices(expected);
            assert_eq!(places(&names, &split.val), expected, "{count} cases, fold {fold}");
            let train: Vec<_> = (0..names.len()).filter(|i| !expected.contains(i)).collect();
            assert_eq!(places(&names, &split.train), train, "{count} cases, fold {fold}");
        }
    }
    say!("{} numbers of cases: all folds equal", counts.len());
}

fn training_cases_of_80_20_splits(part: &Part) {
    let recorded = oracle::json(&part.path(SPLITS));
    let folds = recorded["fallback_80_20"].as_object().unwrap();
    assert!(!folds.is_empty());
    for (fold, expected) in folds {
        let names = names(expected["n"].as_u64().unwrap() as usize);
        let splits = Splits::five_fold(&names).unwrap();
        let split = splits.fold(fold.parse().unwrap(), &names).unwrap();
        assert_eq!(places(&names, &split.train), indices(&expected["idx_tr"]), "fold {fold}");
        assert_eq!(split.train.len() + split.val.len(), names.len());
        assert!(split.val.iter().all(|name| !split.train.contains(name)));
    }
}
