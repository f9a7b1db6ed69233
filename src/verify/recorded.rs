//! What the stages gave when they were recorded, in a few kilobytes, and the distance from it.
//!
//! Of numbers are kept some of them, for the largest error, and sums of all of them with random signs, for
//! the error of all: the sums of a difference are as large as its norm, whatever places it is at. One wrong
//! voxel among ten thousand shows. Labels are kept whole, as runs.

use super::bench::{Found, Values, hash_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values of each tensor that are kept.
const SAMPLES: usize = 24;
/// Sums of all of them that are kept. The error they tell is within a third of the true one.
const SUMS: usize = 16;

/// A list of values, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kept {
    /// Numbers.
    Numbers {
        /// How many there are.
        len: usize,
        /// The largest magnitude.
        largest: f64,
        /// The root of the mean square.
        rms: f64,
        /// Sums with signs.
        sums: Vec<f64>,
        /// Some of them.
        samples: Vec<f64>,
    },
    /// Labels, each with how often it follows.
    Labels(Vec<(i64, usize)>),
}

/// Stages and their results by name.
pub(super) type Recorded = BTreeMap<String, BTreeMap<String, Kept>>;

/// The recording that is part of the program.
pub(super) fn recorded() -> Recorded {
    serde_json::from_str(include_str!("recorded.json")).expect("a test reads it")
}

/// How far results are from what was recorded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Distance {
    /// Which of the results is farthest away.
    pub value: String,
    /// Of numbers relative to the largest or to the root of the mean square, whichever is more; of labels
    /// the share that differs.
    pub error: f64,
}

fn place(len: usize, sample: usize) -> usize {
    match sample {
        0 => 0,
        1 => len - 1,
        _ => (hash_of(1, sample) % len as u64) as usize,
    }
}

fn samples(values: &[f64]) -> Vec<f64> {
    let count = SAMPLES.min(values.len());
    (0..count).map(|sample| values[place(values.len(), sample)]).collect()
}

fn sums(values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; SUMS];
    for (index, value) in values.iter().enumerate() {
        let signs = hash_of(2, index);
        for (bit, sum) in sums.iter_mut().enumerate() {
            *sum += if signs >> bit & 1 == 0 { *value } else { -value };
        }
    }
    sums
}

fn runs(labels: &[i64]) -> Vec<(i64, usize)> {
    let runs = labels.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], run.len())).collect()
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

impl Kept {
    /// What is kept of values.
    pub(super) fn of(values: &Values) -> Self {
        match values {
            Values::Labels(labels) => Self::Labels(runs(labels)),
            Values::Numbers(values) => Self::Numbers {
                len: values.len(),
                largest: values.iter().fold(0.0, |most: f64, v| most.max(v.abs())),
                rms: rms(values),
                sums: sums(values),
                samples: samples(values),
            },
        }
    }

    /// How far values are from what is kept; without end where there are others, or not finite ones.
    fn distance(&self, found: &Values) -> f64 {
        let error = match (self, found) {
            (Self::Labels(runs), Values::Labels(found)) => labels_off(runs, found),
            (Self::Numbers { len, largest, rms, sums, samples }, Values::Numbers(found))
                if *len == found.len() =>
            {
                numbers_off((*largest, *rms), (sums, samples), found)
            }
            _ => f64::INFINITY,
        };
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

fn labels_off(expected: &[(i64, usize)], found: &[i64]) -> f64 {
    let expected = expected.iter().flat_map(|(label, len)| std::iter::repeat_n(*label, *len));
    if expected.clone().count() != found.len() {
        return f64::INFINITY;
    }
    let wrong = expected.zip(found).filter(|(expected, found)| expected != *found).count();
    wrong as f64 / found.len().max(1) as f64
}

fn numbers_off(
    (largest, expected_rms): (f64, f64),
    (expected_sums, expected_samples): (&[f64], &[f64]),
    found: &[f64],
) -> f64 {
    let of = |error: f64, whole: f64| if error == 0.0 { 0.0 } else { error / whole };
    let off = |expected: &[f64], found: Vec<f64>| -> Vec<f64> {
        expected.iter().zip(found).map(|(expected, found)| found - expected).collect()
    };
    // Not `f64::max`, which passes over what is not a number.
    let most = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
    let peak = off(expected_samples, samples(found)).into_iter().map(f64::abs).fold(0.0, most);
    let all = rms(&off(expected_sums, sums(found))) / (found.len().max(1) as f64).sqrt();
    most(of(peak, largest), of(all, expected_rms))
}

/// The recording of a stage.
pub(super) fn kept(found: &Found) -> BTreeMap<String, Kept> {
    found.iter().map(|(name, values)| (name.clone(), Kept::of(values))).collect()
}

/// The largest distance of all results of a stage.
pub(super) fn distance(expected: &BTreeMap<String, Kept>, found: &Found) -> Distance {
    let mut worst = Distance { value: String::new(), error: -1.0 };
    let mut take = |value: &str, error: f64| {
        if error > worst.error {
            worst = Distance { value: value.to_owned(), error };
        }
    };
    for (name, values) in found {
        take(name, expected.get(name).map_or(f64::INFINITY, |kept| kept.distance(values)));
    }
    for name in expected.keys().filter(|name| !found.iter().any(|(found, _)| found == *name)) {
        take(name, f64::INFINITY);
    }
    if worst.error < 0.0 { Distance { error: f64::INFINITY, ..worst } } else { worst }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves() -> Vec<f64> {
        (0..10_000).map(|i| f64::from(i).sin()).collect()
    }

    fn off(change: impl Fn(&mut Vec<f64>)) -> f64 {
        let mut found = waves();
        change(&mut found);
        Kept::of(&Values::Numbers(waves())).distance(&Values::Numbers(found))
    }

    #[test]
    fn distances_of_numbers() {
        assert_eq!(off(|_| ()), 0.0);
        // One value anywhere: a hundredth of its error is left in the root of the mean square.
        let one = off(|v| v[4321] += 0.1);
        assert!((0.5e-3..3e-3).contains(&one), "{one}");
        let all = off(|v| v.iter_mut().for_each(|v| *v *= 1.001));
        assert!((0.5e-3..2e-3).contains(&all), "{all}");
        assert!((off(|v| v[0] += 0.5) - 0.5).abs() < 0.01);
        assert_eq!(off(|v| v[77] = f64::NAN), f64::INFINITY);
        assert_eq!(off(|v| v[77] = f64::INFINITY), f64::INFINITY);
        assert_eq!(off(|v| v.truncate(9_999)), f64::INFINITY);
        // Two that changed places leave every sum without signs as it was.
        assert!(off(|v| v.swap(10, 11)) > 1e-3);
    }

    #[test]
    fn distances_of_labels() {
        let kept = Kept::of(&Values::Labels(vec![1, 1, 2, 2]));
        assert_eq!(kept, Kept::Labels(vec![(1, 2), (2, 2)]));
        assert_eq!(kept.distance(&Values::Labels(vec![1, 1, 2, 3])), 0.25);
        assert_eq!(kept.distance(&Values::Labels(vec![1, 1, 2])), f64::INFINITY);
        assert_eq!(kept.distance(&Values::Numbers(vec![1.0; 4])), f64::INFINITY);
        assert_eq!(
            Kept::of(&Values::Numbers(vec![0.0; 3])).distance(&Values::Numbers(vec![0.0; 3])),
            0.0
        );
    }

    #[test]
    fn the_farthest_result_is_named() {
        let of = |value: f64| Values::Numbers(vec![1.0, value]);
        let expected = kept(&vec![("a".to_owned(), of(2.0)), ("b".to_owned(), of(2.0))]);
        let found = vec![("a".to_owned(), of(2.0)), ("b".to_owned(), of(2.5))];
        let far = distance(&expected, &found);
        assert_eq!((far.value.as_str(), far.error > 0.1), ("b", true));
        for missing in [vec![], found[..1].to_vec()] {
            assert_eq!(distance(&expected, &missing).error, f64::INFINITY);
        }
    }
}
