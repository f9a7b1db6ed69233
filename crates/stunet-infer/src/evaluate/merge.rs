//! Summaries of parts of the cases as one.

use super::{CaseCounts, Class, Counts, Evaluation, EvaluationRules, Pair};
use crate::InferError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use stunet_data::dataset::stem;
use stunet_data::{DataError, files};

impl Evaluation {
    /// Reads nnU-Net 2's `summary.json` back: the counts of every case, by which all of its scores can be
    /// computed anew.
    ///
    /// # Errors
    /// When the file cannot be read, is no such summary, or its cases have different classes.
    pub fn read_v2(path: &Path) -> Result<Self, InferError> {
        let value: Value = files::read_json(path)?;
        read(&value).map_err(|problem| problem.at(path).into())
    }

    /// Adds the cases of another evaluation of the same classes, which was read from the file `from`, and
    /// sorts all by name. What both have stays as it was here; those names are returned.
    ///
    /// # Errors
    /// When the classes differ.
    pub fn merge(&mut self, other: Self, from: &Path) -> Result<Vec<String>, InferError> {
        let names =
            |classes: &[Class]| classes.iter().map(Class::to_string).collect::<Vec<_>>().join(", ");
        if self.rules.classes != other.rules.classes {
            let (ours, theirs) = (names(&self.rules.classes), names(&other.rules.classes));
            return Err(InferError::Evaluation {
                what: "summaries",
                expected: format!("the classes {ours}"),
                found: theirs,
                path: from.to_owned(),
            });
        }
        let mut twice = Vec::new();
        for case in other.cases {
            match self.cases.iter().any(|known| known.pair.name == case.pair.name) {
                true => twice.push(case.pair.name),
                false => self.cases.push(case),
            }
        }
        self.cases.sort_by(|a, b| a.pair.name.cmp(&b.pair.name));
        Ok(twice)
    }
}

/// The problem of an entry of the summary.
fn wrong(key: impl Into<String>, expected: &str, found: Option<&Value>) -> DataError {
    let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
    DataError::Invalid {
        file: "summary.json",
        key: key.into(),
        expected: expected.to_owned(),
        found: found.chars().take(60).collect(),
    }
}

fn read(value: &Value) -> Result<Evaluation, DataError> {
    let entry = value.get("metric_per_case");
    let cases = entry.and_then(Value::as_array).filter(|cases| !cases.is_empty());
    let cases = cases.ok_or_else(|| wrong("metric_per_case", "a list of cases", entry))?;
    let mut classes = Vec::new();
    for name in metrics(&cases[0], 0)?.keys() {
        classes.push(name.parse::<Class>()?);
    }
    // As a dataset numbers them; the file has them in the order of their letters.
    classes.sort_by_key(|class| match class {
        Class::Label(value) => (0, vec![*value]),
        Class::Region(values) => (1, values.clone()),
    });
    let mut counted = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let metrics = metrics(case, index)?;
        let at = |class: &Class| format!("metric_per_case.{index}.metrics.{class}");
        let counts = classes.iter().map(|class| {
            let scores = metrics.get(&class.to_string());
            let counts = scores.and_then(counts_of);
            counts.ok_or_else(|| wrong(at(class), "counts TP, FP, FN and TN", scores))
        });
        let counts = counts.collect::<Result<_, _>>()?;
        if metrics.len() > classes.len() {
            let key = format!("metric_per_case.{index}.metrics");
            return Err(wrong(key, "the classes of the first case", case.get("metrics")));
        }
        counted.push(case_of(case, index, counts)?);
    }
    let rules = EvaluationRules { classes, ..EvaluationRules::default() };
    Ok(Evaluation { rules, cases: counted })
}

fn metrics(case: &Value, index: usize) -> Result<&Map<String, Value>, DataError> {
    let found = case.get("metrics");
    let key = || format!("metric_per_case.{index}.metrics");
    found.and_then(Value::as_object).ok_or_else(|| wrong(key(), "scores by class", found))
}

fn case_of(case: &Value, index: usize, counts: Vec<Counts>) -> Result<CaseCounts, DataError> {
    let file = |name: &str| {
        let found = case.get(name);
        let file = found.and_then(Value::as_str).map(PathBuf::from);
        file.ok_or_else(|| wrong(format!("metric_per_case.{index}.{name}"), "a file", found))
    };
    let (reference, prediction) = (file("reference_file")?, file("prediction_file")?);
    let whole = || prediction.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = stem(&prediction).map_or_else(whole, str::to_owned);
    Ok(CaseCounts {
        pair: Pair { name, reference, prediction },
        counts,
        voxel_volume_mm3: f64::NAN,
        surfaces: Vec::new(),
        lesions: Vec::new(),
        note: None,
    })
}

fn counts_of(scores: &Value) -> Option<Counts> {
    // Whole numbers, which nnU-Net writes as floating point where it summed them.
    let count = |name: &str| {
        let value = scores.get(name)?.as_f64().filter(|count| *count >= 0.0)?;
        (value.fract() == 0.0).then_some(value as u64)
    };
    Some(Counts {
        true_positives: count("TP")?,
        false_positives: count("FP")?,
        false_negatives: count("FN")?,
        true_negatives: count("TN")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(names: &[&str]) -> Evaluation {
        let classes =
            vec![Class::Label(1), Class::Label(2), Class::Label(10), Class::Region(vec![1, 2])];
        let case = |(index, name): (usize, &&str)| CaseCounts {
            pair: Pair {
                name: (*name).to_owned(),
                reference: format!("ref/{name}.nii.gz").into(),
                prediction: format!("pred/{name}.nii.gz").into(),
            },
            counts: (0..classes.len() as u64)
                .map(|class| Counts {
                    // One class that is nowhere, whose scores are NaN.
                    true_positives: if class == 1 { 0 } else { 7 * class + index as u64 },
                    false_positives: if class == 1 { 0 } else { 3 },
                    false_negatives: if class == 1 { 0 } else { 2 + class },
                    true_negatives: 1000,
                })
                .collect(),
            voxel_volume_mm3: 1.0,
            surfaces: Vec::new(),
            lesions: Vec::new(),
            note: None,
        };
        let cases = names.iter().enumerate().map(case).collect();
        Evaluation { rules: EvaluationRules { classes, ..EvaluationRules::default() }, cases }
    }

    #[test]
    fn parts_give_the_file_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let whole = evaluation(&["a", "b", "c", "d"]);
        whole.write_v2(&at("whole.json")).unwrap();
        let part = |cases: &[usize], name: &str| {
            let cases = cases.iter().map(|index| whole.cases[*index].clone()).collect();
            let part = Evaluation { cases, ..whole.clone() };
            part.write_v2(&at(name)).unwrap();
            Evaluation::read_v2(&at(name)).unwrap()
        };
        let (mut first, second) = (part(&[3, 1], "first.json"), part(&[0, 2], "second.json"));
        assert_eq!(first.merge(second, &at("second.json")).unwrap(), Vec::<String>::new());
        first.write_v2(&at("merged.json")).unwrap();
        let [merged, expected] =
            ["merged.json", "whole.json"].map(|name| std::fs::read_to_string(at(name)).unwrap());
        assert_eq!(merged, expected);
    }

    #[test]
    fn duplicates_and_other_classes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        let mut first = evaluation(&["a", "b"]);
        assert_eq!(first.merge(evaluation(&["b", "c"]), &path).unwrap(), ["b"]);
        assert_eq!(first.cases.len(), 3);
        let mut other = evaluation(&["x"]);
        other.rules.classes.pop();
        let message = first.merge(other, &path).unwrap_err().to_string();
        assert!(message.contains("the classes 1"), "{message}");
        for text in ["{}", r#"{"metric_per_case": [{"metrics": {"1": {"TP": 0.5}}}]}"#, "[1"] {
            std::fs::write(&path, text).unwrap();
            let message = Evaluation::read_v2(&path).unwrap_err().to_string();
            assert!(message.ends_with("summary.json"), "{message}");
        }
    }
}
