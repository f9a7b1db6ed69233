//! Two runs on the same cases.

use super::Evaluation;
use super::metric::{Better, Metric};
use std::collections::BTreeMap;
use stunet_data::metrics::{Bootstrap, Draws, Interval, SignedRank, holm};

/// How a score of one class differs between two runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedDifference {
    /// Mean over the cases of the first run's score less the second's; NaN if no case has both.
    pub mean: f64,
    /// Bootstrap interval of that mean.
    pub interval: Option<Interval>,
    /// Cases that have the score in both runs.
    pub cases: usize,
    /// Cases in which the first run is better, and in which the second is.
    pub better: [usize; 2],
    /// Wilcoxon's test of the pairs.
    pub test: SignedRank,
    /// Its probability, corrected over the classes (Holm).
    pub p_corrected: f64,
}

/// Two runs, paired by case.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What the runs are called.
    pub names: [String; 2],
    /// Cases of both.
    pub num_cases: usize,
    /// Per metric, in the order of [`Metric::measured`], and class.
    pub differences: Vec<(Metric, Vec<PairedDifference>)>,
}

impl Comparison {
    /// Compares two evaluations under the same rules, over the cases that both have.
    ///
    /// For scores that are best near 0, sizes are compared: an error of -2 mL is as good as one of 2.
    ///
    /// # Panics
    /// When the rules differ.
    pub fn new(
        first: &Evaluation,
        second: &Evaluation,
        names: [String; 2],
        bootstrap: &Bootstrap,
    ) -> Self {
        assert_eq!(first.rules, second.rules, "evaluations under the same rules");
        let places: BTreeMap<&str, usize> =
            second.cases.iter().enumerate().map(|(i, case)| (&*case.pair.name, i)).collect();
        let pairs: Vec<[usize; 2]> = first
            .cases
            .iter()
            .enumerate()
            .filter_map(|(i, case)| Some([i, *places.get(&*case.pair.name)?]))
            .collect();
        let draws = Draws::new(bootstrap, pairs.len());
        let of_metric = |metric: Metric| {
            let of_class = |class: usize| {
                let score = |run: &Evaluation, case: usize| {
                    let value = metric.of(&run.cases[case], class);
                    if metric.better() == Better::NearZero { value.abs() } else { value }
                };
                let both = pairs.iter().map(|[a, b]| score(first, *a) - score(second, *b));
                difference(&both.collect::<Vec<_>>(), metric, &draws)
            };
            let mut found: Vec<PairedDifference> =
                (0..first.rules.classes.len()).map(of_class).collect();
            let p_values =
                found.iter().map(|d| if d.cases == 0 { f64::NAN } else { d.test.p_value });
            let corrected = holm(&p_values.collect::<Vec<_>>());
            found.iter_mut().zip(corrected).for_each(|(found, p)| found.p_corrected = p);
            (metric, found)
        };
        let differences = Metric::measured(&first.rules).into_iter().map(of_metric).collect();
        Self { names, num_cases: pairs.len(), differences }
    }
}

fn difference(values: &[f64], metric: Metric, draws: &Draws) -> PairedDifference {
    let there: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    let above = there.iter().filter(|v| **v > 0.0).count();
    let below = there.iter().filter(|v| **v < 0.0).count();
    let higher = metric.better() == Better::Higher;
    PairedDifference {
        mean: there.iter().sum::<f64>() / there.len() as f64,
        interval: draws.mean(values),
        cases: there.len(),
        better: if higher { [above, below] } else { [below, above] },
        test: SignedRank::of(&there),
        p_corrected: f64::NAN,
    }
}
