//! nnU-Net's rule: what makes predictions better is done.

use super::Postprocessing;
use super::step::KeepLargest;
use crate::InferError;
use crate::evaluate::{CaseCounts, Evaluation, EvaluationRules, Pair};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use stunet_data::components::Connectivity;
use stunet_data::labels::LabelMap;
use stunet_data::metrics::{Class, Contingency};

/// Whose rule decides, and what connects voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostprocessingRule {
    /// nnU-Net 2: corners connect; the foreground as one is treated if the mean over the classes gets
    /// better and no class worse.
    #[default]
    V2,
    /// nnU-Net 1: faces connect; the foreground as one is treated if any class gets better and none
    /// worse.
    V1,
}

/// What became of one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct PostprocessingTrial {
    /// What was tried.
    pub step: KeepLargest,
    /// Mean Dice without it: of the foreground for the first candidate, of the class for others.
    pub before: f64,
    /// And with it.
    pub after: f64,
    /// Whether it is done.
    pub taken: bool,
}

/// What is to be done, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Determined {
    /// The steps that were taken.
    pub postprocessing: Postprocessing,
    /// Everything that was tried.
    pub decisions: Vec<PostprocessingTrial>,
    /// Scores without postprocessing.
    pub before: Evaluation,
    /// Scores when all but the largest part of the foreground goes, whether that was taken or not.
    pub with_foreground: Evaluation,
    /// Scores with it.
    pub after: Evaluation,
}

/// Decides on the predictions of cross-validation: first whether all but the largest part of the
/// foreground goes, then the same of each class, on top of what was decided before.
///
/// `foreground` are the labels that make the foreground, which need not be the classes that are scored:
/// regions overlap. `on_pass` hears how many times all cases were read, and of how many at most.
///
/// # Errors
/// When a file cannot be read or shapes differ; [`InferError::Interrupted`] when `on_pass` says so.
///
/// # Source
/// nnU-Net 2.8.1, `determine_postprocessing`; nnU-Net 1.7.1, the function of the same name without
/// its "advanced" sizes.
///
/// # Deviations
/// A `summary.json` that lies beside the predictions is not trusted: they are scored again.
pub fn determine(
    pairs: &[Pair],
    rules: &EvaluationRules,
    foreground: &[u16],
    rule: PostprocessingRule,
    on_pass: &(dyn Fn(usize, usize) -> ControlFlow<()> + Sync),
) -> Result<Determined, InferError> {
    let classes = &rules.classes;
    let each = |class: &Class| rule.step(vec![class.clone()]);
    let singles: Vec<KeepLargest> =
        if classes.len() > 1 { classes.iter().map(each).collect() } else { Vec::new() };
    // Labels do not overlap, so that what is done to one does not change another.
    let apart = classes.iter().all(|class| matches!(class, Class::Label(_)));
    let batches: Vec<&[KeepLargest]> =
        if apart { vec![&singles[..]] } else { singles.chunks(1).collect() };
    let total = 2 + batches.iter().filter(|batch| !batch.is_empty()).count();
    let passes = AtomicUsize::new(0);
    let run = |done: &Postprocessing, candidates: &[KeepLargest]| {
        let pass = passes.fetch_add(1, Ordering::Relaxed) + 1;
        if on_pass(pass, total).is_break() {
            return Err(InferError::Interrupted);
        }
        pass_over(pairs, rules, done, candidates)
    };
    let mut postprocessing = Postprocessing::default();
    let mut decisions = Vec::new();
    let whole = rule.step(match foreground {
        // A list of one, which nnU-Net tells from a class.
        [one] => vec![Class::Region(vec![*one])],
        several => several.iter().copied().map(Class::Label).collect(),
    });
    let [before, with_foreground] = two(run(&postprocessing, std::slice::from_ref(&whole))?);
    let taken = rule.foreground_is_better(&before, &with_foreground);
    let (old, new) = (before.foreground_dice(), with_foreground.foreground_dice());
    decisions.push(PostprocessingTrial { step: whole.clone(), before: old, after: new, taken });
    if taken {
        postprocessing.steps.push(whole);
    }
    for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
        let mut found = run(&postprocessing, batch)?.into_iter();
        let base = found.next().expect("a pass begins with what is done already");
        for (step, with) in batch.iter().zip(found) {
            let class = classes.iter().position(|class| step.classes[0] == *class);
            let class = class.expect("a candidate is one of the classes");
            let (before, after) = (base.mean_dice(class), with.mean_dice(class));
            let taken = after > before;
            decisions.push(PostprocessingTrial { step: step.clone(), before, after, taken });
            if taken {
                postprocessing.steps.push(step.clone());
            }
        }
    }
    let after = run(&postprocessing, &[])?.remove(0);
    Ok(Determined { postprocessing, decisions, before, with_foreground, after })
}

impl PostprocessingRule {
    fn step(self, classes: Vec<Class>) -> KeepLargest {
        let connectivity = match self {
            Self::V2 => Connectivity::Corners,
            Self::V1 => Connectivity::Faces,
        };
        KeepLargest { connectivity, ..KeepLargest::of(classes) }
    }

    fn foreground_is_better(self, before: &Evaluation, after: &Evaluation) -> bool {
        let dice = |run: &Evaluation| -> Vec<f64> {
            (0..run.rules.classes.len()).map(|class| run.mean_dice(class)).collect()
        };
        let (old, new) = (dice(before), dice(after));
        let any =
            |compare: fn(&f64, &f64) -> bool| new.iter().zip(&old).any(|(a, b)| compare(a, b));
        let better = match self {
            Self::V2 => after.foreground_dice() > before.foreground_dice(),
            Self::V1 => any(|a, b| a > b),
        };
        better && !any(|a, b| a < b)
    }
}

fn two(found: Vec<Evaluation>) -> [Evaluation; 2] {
    found.try_into().expect("one candidate beside what is done already")
}

/// Scores of what is done already, and of each candidate on top of it.
fn pass_over(
    pairs: &[Pair],
    rules: &EvaluationRules,
    done: &Postprocessing,
    candidates: &[KeepLargest],
) -> Result<Vec<Evaluation>, InferError> {
    let of_case = |pair: &Pair| -> Result<Vec<CaseCounts>, InferError> {
        let (reference, mut prediction) = crate::evaluate::read_pair(pair, rules)?;
        done.apply(&mut prediction);
        let base = counts(pair, &reference, &prediction, rules);
        let with = |step: &KeepLargest| {
            let mut labels = prediction.clone();
            Postprocessing { steps: vec![step.clone()] }.apply(&mut labels);
            counts(pair, &reference, &labels, rules)
        };
        Ok(std::iter::once(base).chain(candidates.iter().map(with)).collect())
    };
    let cases: Vec<Vec<CaseCounts>> = pairs.par_iter().map(of_case).collect::<Result<_, _>>()?;
    let evaluation = |place: usize| Evaluation {
        rules: rules.clone(),
        cases: cases.iter().map(|case| case[place].clone()).collect(),
    };
    Ok((0..=candidates.len()).map(evaluation).collect())
}

fn counts(
    pair: &Pair,
    reference: &LabelMap,
    prediction: &LabelMap,
    rules: &EvaluationRules,
) -> CaseCounts {
    let contingency = Contingency::of(reference.data.view(), prediction.data.view());
    let counts = rules.classes.iter().map(|class| contingency.counts(class, rules.ignore));
    CaseCounts {
        pair: pair.clone(),
        counts: counts.collect(),
        voxel_volume_mm3: reference.geometry.voxel_volume_mm3(),
        surfaces: Vec::new(),
        lesions: Vec::new(),
        note: None,
    }
}
