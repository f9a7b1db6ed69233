//! `summary.json`, in the layouts of both nnU-Nets.
//!
//! Scores that do not exist are written as a bare `NaN`, numbers in Python's spelling, keys sorted:
//! what Python's `json` writes, and what nnU-Net's own tools read. **A strict JSON parser refuses
//! such a file**; it is what the reference writes, and its readers expect it.

use super::{Counts, Evaluation};
use crate::InferError;
use serde::{Serialize, Serializer};
use serde_json::ser::{Formatter, PrettyFormatter};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use stunet_data::{DataError, files};

/// A score: a count of voxels, or a number that may not exist.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Score {
    Count(u64),
    Ratio(f64),
}

impl Score {
    fn value(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Ratio(ratio) => ratio,
        }
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Ratio(ratio) => serializer.serialize_f64(*ratio),
        }
    }
}

/// A score's name in the file, and how it follows from the counts.
type Named = (&'static str, fn(&Counts) -> Score);

const SCORES_V2: [Named; 8] = [
    ("Dice", |c| Score::Ratio(c.dice())),
    ("FN", |c| Score::Count(c.false_negatives)),
    ("FP", |c| Score::Count(c.false_positives)),
    ("IoU", |c| Score::Ratio(c.iou())),
    ("TN", |c| Score::Count(c.true_negatives)),
    ("TP", |c| Score::Count(c.true_positives)),
    ("n_pred", |c| Score::Count(c.num_predicted())),
    ("n_ref", |c| Score::Count(c.num_reference())),
];

const SCORES_V1: [Named; 13] = [
    ("Accuracy", |c| Score::Ratio(c.accuracy())),
    ("Dice", |c| Score::Ratio(c.dice())),
    ("False Discovery Rate", |c| Score::Ratio(c.false_discovery_rate())),
    ("False Negative Rate", |c| Score::Ratio(c.false_negative_rate())),
    ("False Omission Rate", |c| Score::Ratio(c.false_omission_rate())),
    ("False Positive Rate", |c| Score::Ratio(c.false_positive_rate())),
    ("Jaccard", |c| Score::Ratio(c.iou())),
    ("Negative Predictive Value", |c| Score::Ratio(c.negative_predictive_value())),
    ("Precision", |c| Score::Ratio(c.precision())),
    ("Recall", |c| Score::Ratio(c.recall())),
    ("Total Positives Reference", |c| Score::Count(c.num_reference())),
    ("Total Positives Test", |c| Score::Count(c.num_predicted())),
    ("True Negative Rate", |c| Score::Ratio(c.true_negative_rate())),
];

/// Scores by name.
type Scores = BTreeMap<&'static str, Score>;
/// Scores by class.
type ByClass = BTreeMap<String, Scores>;

#[derive(Serialize)]
struct SummaryV2 {
    foreground_mean: Scores,
    mean: ByClass,
    metric_per_case: Vec<CaseV2>,
}

#[derive(Serialize)]
struct CaseV2 {
    metrics: ByClass,
    prediction_file: String,
    reference_file: String,
}

/// What nnU-Net 1 writes around its results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderV1 {
    /// Name of the evaluation.
    pub name: String,
    /// In words.
    pub description: String,
    /// The task.
    pub task: String,
    /// Who evaluates.
    pub author: String,
    /// When: `2026-11-23 07:13:32.529313`.
    pub timestamp: String,
}

#[derive(Serialize)]
struct SummaryV1<'a> {
    author: &'a str,
    description: &'a str,
    id: String,
    name: &'a str,
    results: ResultsV1,
    task: &'a str,
    timestamp: &'a str,
}

#[derive(Serialize)]
struct ResultsV1 {
    all: Vec<BTreeMap<String, EntryV1>>,
    mean: ByClass,
}

/// Scores of a class, or one of the two files, under keys of one dictionary.
#[derive(Serialize)]
#[serde(untagged)]
enum EntryV1 {
    Scores(Scores),
    File(String),
}

impl Evaluation {
    /// Writes nnU-Net 2's `summary.json`: scores per case, their mean per class, and the mean of
    /// these over the foreground.
    ///
    /// Contains bare `NaN`, as nnU-Net's does: see the head of `evaluate/summary.rs`.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is left under `path` then.
    ///
    /// # Source
    /// nnU-Net 2.2 and 2.8, `evaluate_predictions.py`: `compute_metrics_on_folder`. The mean of a
    /// class leaves out cases without a value; the mean of the foreground does not.
    pub fn write_v2(&self, path: &Path) -> Result<(), InferError> {
        let case = |case: &super::CaseCounts| CaseV2 {
            metrics: self.scores(&case.counts, &SCORES_V2),
            prediction_file: case.pair.prediction.display().to_string(),
            reference_file: case.pair.reference.display().to_string(),
        };
        let summary = SummaryV2 {
            foreground_mean: self.foreground_means(),
            mean: self.means(&SCORES_V2),
            metric_per_case: self.cases.iter().map(case).collect(),
        };
        save(path, &python_json(&summary))
    }

    /// The means of nnU-Net 2's `summary.json` alone; null where there is none.
    pub(crate) fn means_v2(&self) -> serde_json::Value {
        serde_json::json!({
            "foreground_mean": self.foreground_means(),
            "mean": self.means(&SCORES_V2),
        })
    }

    fn foreground_means(&self) -> Scores {
        let mean = |(name, score): Named| {
            (name, Score::Ratio(self.foreground_mean(|counts| score(counts).value())))
        };
        SCORES_V2.into_iter().map(mean).collect()
    }

    /// Writes nnU-Net 1's `summary.json`: thirteen scores per case, and their mean per class.
    ///
    /// # Errors
    /// As [`Evaluation::write_v2`].
    ///
    /// # Source
    /// nnU-Net 1.7, `evaluator.py`: `aggregate_scores`.
    ///
    /// # Deviations
    /// `id` is another hash of the results than the reference's.
    pub fn write_v1(&self, path: &Path, header: &HeaderV1) -> Result<(), InferError> {
        let case = |case: &super::CaseCounts| {
            let scores = self.scores(&case.counts, &SCORES_V1).into_iter();
            let mut entries: BTreeMap<String, EntryV1> =
                scores.map(|(class, scores)| (class, EntryV1::Scores(scores))).collect();
            let file = |path: &Path| EntryV1::File(path.display().to_string());
            entries.insert("reference".to_owned(), file(&case.pair.reference));
            entries.insert("test".to_owned(), file(&case.pair.prediction));
            entries
        };
        let mut summary = SummaryV1 {
            author: &header.author,
            description: &header.description,
            id: String::new(),
            name: &header.name,
            results: ResultsV1 {
                all: self.cases.iter().map(case).collect(),
                mean: self.means(&SCORES_V1),
            },
            task: &header.task,
            timestamp: &header.timestamp,
        };
        summary.id = id(&python_json(&summary));
        save(path, &python_json(&summary))
    }

    fn scores(&self, counts: &[Counts], table: &[Named]) -> ByClass {
        let score = |counts| table.iter().map(|(name, score)| (*name, score(counts))).collect();
        let classes = self.rules.classes.iter().zip(counts);
        classes.map(|(class, counts)| (class.to_string(), score(counts))).collect()
    }

    fn means(&self, table: &[Named]) -> ByClass {
        let mean = |class: usize, (name, score): &Named| {
            (*name, Score::Ratio(self.mean_of(class, |counts| score(counts).value())))
        };
        let classes = self.rules.classes.iter().enumerate();
        classes
            .map(|(i, class)| (class.to_string(), table.iter().map(|s| mean(i, s)).collect()))
            .collect()
    }
}

/// Twelve hexadecimal digits that tell two results apart (FNV-1a).
fn id(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:012x}", hash >> 16)
}

/// A value as Python's `json.dump(value, indent=4)` writes it.
fn python_json(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let python = Python(PrettyFormatter::with_indent(b"    "));
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, python))
        .expect("a summary has string keys and memory takes what is written");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Spells numbers as Python does; a summary holds no null, so what would be one is NaN.
struct Python<'a>(PrettyFormatter<'a>);

macro_rules! as_before {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $name<W: ?Sized + Write>(&mut self, to: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$name(to $(, $argument)*)
        }
    )*};
}

impl Formatter for Python<'_> {
    fn write_null<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b"NaN")
    }

    fn write_f64<W: ?Sized + Write>(&mut self, to: &mut W, value: f64) -> io::Result<()> {
        to.write_all(python_repr(value).as_bytes())
    }

    as_before! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
    }
}

/// Both languages print the shortest digits that read back as the same number; they differ in the
/// exponent (`1e-5` and `1e-05`, `1e16` and `1e+16`).
fn python_repr(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, size) = match exponent.strip_prefix('-') {
                Some(size) => ('-', size),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{size:0>2}")
        }
    }
}

/// Writes JSON as nnU-Net does; null as NaN.
pub(crate) fn save_as_python(path: &Path, value: &impl Serialize) -> Result<(), InferError> {
    save(path, &python_json(value))
}

fn save(path: &Path, text: &str) -> Result<(), InferError> {
    let write = |e| DataError::Io { action: "write", source: e };
    files::sweep([path]);
    Ok(files::write(path, |file| file.write_all(text.as_bytes()).map_err(write))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_pythons_spelling() {
        let check = |value: f64, text: &str| assert_eq!(python_repr(value), text);
        check(0.0, "0.0");
        check(672.0, "672.0");
        check(0.1 + 0.2, "0.30000000000000004");
        check(1e-4, "0.0001");
        check(1e-5, "1e-05");
        check(1.8949904573694826e-5, "1.8949904573694826e-05");
        check(2.5e-123, "2.5e-123");
        check(1e15, "1000000000000000.0");
        check(1e16, "1e+16");
        check(1.25e22, "1.25e+22");
    }

    #[test]
    fn layout_of_pythons_json() {
        let value: BTreeMap<&str, Vec<Score>> =
            [("b", vec![Score::Count(3), Score::Ratio(f64::NAN)]), ("a", Vec::new())].into();
        let expected = "{\n    \"a\": [],\n    \"b\": [\n        3,\n        NaN\n    ]\n}";
        assert_eq!(python_json(&value), expected);
    }
}
