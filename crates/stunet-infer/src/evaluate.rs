//! How well predicted labelmaps agree with their references, case by case and on average.
//!
//! 1. [`pairs`] finds the prediction of every reference,
//! 2. [`evaluate`] reads each pair once and counts where the two agree ([`Contingency`]); if the rules
//!    ask for it, it measures the distances of surfaces and counts lesions, too. Several cases are
//!    counted at a time, and no voxel outlives its case,
//! 3. [`Evaluation::write_v2`] writes nnU-Net 2's `summary.json`, [`Evaluation::write_v1`] nnU-Net
//!    1's,
//! 4. [`EvaluationReport`] adds intervals, holds two runs against each other ([`Comparison`]), and writes
//!    tables, JSON and a page with plots.
//!
//! ```no_run
//! use std::{ops::ControlFlow, path::Path};
//! use stunet_infer::evaluate::{Class, Missing, EvaluationRules, evaluate, pairs};
//! let pairs = pairs(Path::new("labelsTr"), Path::new("predicted"), Missing::Refuse)?;
//! let classes = vec![Class::Label(1), Class::Region(vec![2, 3])];
//! let rules = EvaluationRules { classes, ..EvaluationRules::default() };
//! let result = evaluate(&pairs, &rules, &|_| ControlFlow::Continue(()))?;
//! println!("mean Dice of the foreground: {:.3}", result.foreground_dice());
//! result.write_v2(Path::new("predicted/summary.json"))?;
//! # Ok::<(), stunet_infer::InferError>(())
//! ```

mod csv;
mod difference;
mod html;
mod json;
mod merge;
mod metric;
mod pairs;
mod plot;
mod report;
mod rules;
mod summary;
mod write;

pub use difference::{Comparison, PairedDifference};
pub use metric::{Better, Metric};
pub use pairs::{Missing, Pair, pairs};
pub use report::{EvaluationReport, MeanScore};
pub use rules::EvaluationRules;
pub use stunet_data::metrics::{Class, Contingency, Counts};
pub use summary::HeaderV1;
pub(crate) use summary::save_as_python;

use crate::InferError;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use stunet_data::DataError;
use stunet_data::labels::LabelMap;
use stunet_data::metrics::{LabelPair, LesionCounts, SurfaceScores, numpy};

/// One case, counted.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseCounts {
    /// Its files.
    pub pair: Pair,
    /// Counts per class, in the order of the rules.
    pub counts: Vec<Counts>,
    /// Volume of one voxel of the reference.
    pub voxel_volume_mm3: f64,
    /// Distances per class, if the rules ask for them.
    pub surfaces: Vec<SurfaceScores>,
    /// Lesions per class, if the rules ask for them.
    pub lesions: Vec<LesionCounts>,
    /// How the two files' grids differ, where they do and the shape does not: nnU-Net compares
    /// voxels all the same, and so do we, but it may be the wrong file.
    pub note: Option<String>,
}

/// Every case, counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// What was compared.
    pub rules: EvaluationRules,
    /// In the order of the pairs.
    pub cases: Vec<CaseCounts>,
}

/// A case that has just been counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Which one.
    pub case: &'a CaseCounts,
    /// Cases counted so far, this one included.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// Reads and counts every pair, several at a time on rayon's current pool.
///
/// `on_event` is called after each case, in the order in which they become ready; what is returned is
/// in the order of the pairs and does not depend on the number of threads.
///
/// # Errors
/// When a file cannot be read, or the labelmaps of a pair differ in shape: the first such pair is
/// named. [`InferError::Interrupted`] when `on_event` says so.
///
/// # Source
/// nnU-Net 2.2 and 2.8, `evaluate_predictions.py`: `compute_metrics`; nnU-Net 1.7, `evaluator.py`.
///
/// # Deviations
/// Files of different shape are an error with both shapes, not NumPy's about broadcasting.
pub fn evaluate(
    pairs: &[Pair],
    rules: &EvaluationRules,
    on_event: &(dyn Fn(Counted<'_>) -> ControlFlow<()> + Sync),
) -> Result<Evaluation, InferError> {
    let done = AtomicUsize::new(0);
    // Events come one at a time, so that numbers seen by the listener only grow.
    let turn = Mutex::new(());
    let results: Vec<Result<CaseCounts, InferError>> = pairs
        .par_iter()
        .map(|pair| {
            let case = count(pair, rules)?;
            let guard = turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            let heard = on_event(Counted { case: &case, done, total: pairs.len() });
            drop(guard);
            if heard.is_break() { Err(InferError::Interrupted) } else { Ok(case) }
        })
        .collect();
    // An interruption is the user's wish and outranks whatever else went wrong.
    if results.iter().any(|r| matches!(r, Err(InferError::Interrupted))) {
        return Err(InferError::Interrupted);
    }
    let cases = results.into_iter().collect::<Result<_, _>>()?;
    Ok(Evaluation { rules: rules.clone(), cases })
}

fn count(pair: &Pair, rules: &EvaluationRules) -> Result<CaseCounts, InferError> {
    let (reference, prediction) = read_pair(pair, rules)?;
    let grids = reference.geometry.check_same_grid_within(&prediction.geometry, &rules.leniency);
    let contingency = Contingency::of(reference.data.view(), prediction.data.view());
    let counts = rules.classes.iter().map(|class| contingency.counts(class, rules.ignore));
    let (surfaces, lesions) = measured(&reference, &prediction, rules);
    Ok(CaseCounts {
        pair: pair.clone(),
        counts: counts.collect(),
        voxel_volume_mm3: reference.geometry.voxel_volume_mm3(),
        surfaces,
        lesions,
        note: grids.err().map(|difference| difference.to_string()),
    })
}

/// Reference and prediction, renumbered if the rules say so.
pub(crate) fn read_pair(
    pair: &Pair,
    rules: &EvaluationRules,
) -> Result<(LabelMap, LabelMap), InferError> {
    let opener = rules.reader.leniently(rules.leniency);
    let mut reference = opener.read_labelmap(&pair.reference)?;
    let mut prediction = opener.read_labelmap(&pair.prediction)?;
    if let Some(mapping) = &rules.mapping {
        mapping.renumber_reference(&mut reference);
        mapping.renumber_prediction(&mut prediction);
    }
    if reference.data.shape() != prediction.data.shape() {
        let mismatch = DataError::Mismatch {
            what: "shape of prediction and reference",
            expected: format!("{:?}", reference.data.shape()),
            found: format!("{:?}", prediction.data.shape()),
        };
        return Err(mismatch.at(&pair.prediction).into());
    }
    Ok((reference, prediction))
}

/// What is not counted voxel by voxel: both, or one, or none, as the rules say.
fn measured(
    reference: &LabelMap,
    prediction: &LabelMap,
    rules: &EvaluationRules,
) -> (Vec<SurfaceScores>, Vec<LesionCounts>) {
    if rules.surface.is_none() && rules.lesions.is_none() {
        return (Vec::new(), Vec::new());
    }
    let geometry = &reference.geometry;
    let pair = LabelPair::new(reference, prediction, rules.ignore);
    let of_class = |class: &Class| {
        let masks = pair.masks(class);
        let surface = rules.surface.as_ref().map(|rules| {
            SurfaceScores::of(&masks, geometry.spacing_mm(), geometry.is_plane(), rules)
        });
        (surface, rules.lesions.as_ref().map(|rules| LesionCounts::of(&masks, rules)))
    };
    let found: Vec<_> = rules.classes.par_iter().map(of_class).collect();
    let (surfaces, lesions): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    (surfaces.into_iter().flatten().collect(), lesions.into_iter().flatten().collect())
}

impl Evaluation {
    /// Mean Dice of one class over the cases that have it, in reference or prediction; NaN if none
    /// has.
    ///
    /// # Panics
    /// When there is no class of that index.
    pub fn mean_dice(&self, class: usize) -> f64 {
        self.mean_of(class, Counts::dice)
    }

    /// Mean of [`Evaluation::mean_dice`] over the foreground; NaN as soon as one class is NaN, as
    /// nnU-Net has it.
    pub fn foreground_dice(&self) -> f64 {
        self.foreground_mean(Counts::dice)
    }

    /// The mean for people: of [`Evaluation::mean_dice`] over the foreground classes that any case has,
    /// and how many classes none has. It is [`Evaluation::foreground_dice`] where there are none of those;
    /// NaN where no case has any.
    pub fn dice_of_classes_there(&self) -> (f64, usize) {
        let classes = self.rules.classes.iter().enumerate();
        let foreground = classes.filter(|(_, class)| **class != Class::Label(0));
        let means: Vec<f64> = foreground.map(|(i, _)| self.mean_dice(i)).collect();
        let there: Vec<f64> = means.iter().copied().filter(|mean| !mean.is_nan()).collect();
        (numpy::mean(&there), means.len() - there.len())
    }

    /// A score of one class for every case; NaN where it does not exist.
    ///
    /// # Panics
    /// When there is no class of that index.
    pub fn values(&self, metric: Metric, class: usize) -> Vec<f64> {
        self.cases.iter().map(|case| metric.of(case, class)).collect()
    }

    fn mean_of(&self, class: usize, score: impl Fn(&Counts) -> f64) -> f64 {
        let values: Vec<f64> = self.cases.iter().map(|case| score(&case.counts[class])).collect();
        numpy::nan_mean(&values)
    }

    fn foreground_mean(&self, score: impl Fn(&Counts) -> f64) -> f64 {
        let classes = self.rules.classes.iter().enumerate();
        let foreground = classes.filter(|(_, class)| **class != Class::Label(0));
        let means: Vec<f64> = foreground.map(|(i, _)| self.mean_of(i, &score)).collect();
        numpy::mean(&means)
    }
}

#[cfg(test)]
mod tests;
