//! What is told about an evaluation besides nnU-Net's summary.

use super::difference::Comparison;
use super::metric::Metric;
use super::{Class, Evaluation};
use stunet_data::metrics::{Bootstrap, Draws, Interval, mean_of, numpy};

/// A score of one class over all cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanScore {
    /// Cases that have it.
    pub cases: usize,
    /// Mean over them; NaN if none has it.
    pub mean: f64,
    /// Bootstrap interval of the mean.
    pub interval: Option<Interval>,
    /// Quartiles: a quarter of the cases is below the first, a half below the second.
    pub quartiles: [f64; 3],
    /// Standard deviation over the cases (of a sample); NaN for fewer than two.
    pub deviation: f64,
}

/// Scores, their means and intervals, and a second run if there is one.
#[derive(Clone, Debug)]
pub struct EvaluationReport<'a> {
    pub(super) evaluation: &'a Evaluation,
    pub(super) names: Vec<String>,
    pub(super) bootstrap: Bootstrap,
    pub(super) comparison: Option<Comparison>,
    /// Per metric: classes, and last their mean.
    pub(super) means: Vec<(Metric, Vec<MeanScore>)>,
}

impl<'a> EvaluationReport<'a> {
    /// Computes means and intervals. `name` gives the classes their names.
    pub fn new(
        evaluation: &'a Evaluation,
        name: impl Fn(&Class) -> Option<String>,
        bootstrap: Bootstrap,
    ) -> Self {
        let classes = evaluation.rules.classes.iter();
        let names = classes.map(|class| name(class).unwrap_or_else(|| class.to_string())).collect();
        let draws = Draws::new(&bootstrap, evaluation.cases.len());
        let metrics = Metric::measured(&evaluation.rules).into_iter();
        let means = metrics.map(|metric| (metric, means(evaluation, metric, &draws))).collect();
        Self { evaluation, names, bootstrap, comparison: None, means }
    }

    /// Adds how it differs from another run.
    #[must_use]
    pub fn with_comparison(self, comparison: Comparison) -> Self {
        Self { comparison: Some(comparison), ..self }
    }

    /// How it differs from another run, if that was added.
    pub fn comparison(&self) -> Option<&Comparison> {
        self.comparison.as_ref()
    }

    /// Per metric the mean of every class, in the order of the rules, and last the mean over the
    /// foreground classes of what the cases have; a class without a value is left out of that one.
    pub fn means(&self) -> &[(Metric, Vec<MeanScore>)] {
        &self.means
    }
}

fn means(evaluation: &Evaluation, metric: Metric, draws: &Draws) -> Vec<MeanScore> {
    let classes = &evaluation.rules.classes;
    let values: Vec<Vec<f64>> =
        (0..classes.len()).map(|class| evaluation.values(metric, class)).collect();
    let mut means: Vec<MeanScore> = values
        .iter()
        .map(|values| MeanScore { interval: draws.mean(values), ..of_values(values) })
        .collect();
    let foreground: Vec<&Vec<f64>> = classes
        .iter()
        .zip(&values)
        .filter(|(class, _)| **class != Class::Label(0))
        .map(|(_, values)| values)
        .collect();
    let over_classes = |cases: &[u32]| {
        let means: Vec<f64> = foreground.iter().map(|values| mean_of(values, cases)).collect();
        numpy::nan_mean(&means)
    };
    let num_cases = evaluation.cases.len();
    let all: Vec<u32> = (0..num_cases as u32).collect();
    // Quartiles are those of the means of the classes.
    let of_classes: Vec<f64> = foreground.iter().map(|values| mean_of(values, &all)).collect();
    means.push(MeanScore {
        cases: num_cases,
        mean: over_classes(&all),
        interval: if num_cases < 2 { None } else { draws.of(over_classes) },
        ..of_values(&of_classes)
    });
    means
}

/// All but the interval.
fn of_values(values: &[f64]) -> MeanScore {
    let mut there: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    let mean = numpy::nan_mean(values);
    let squares: Vec<f64> = there.iter().map(|v| (v - mean) * (v - mean)).collect();
    let deviation = match there.len() {
        0 | 1 => f64::NAN,
        count => (numpy::sum(&squares) / (count - 1) as f64).sqrt(),
    };
    let quartiles = [0.25, 0.5, 0.75].map(|part| numpy::percentile(&mut there, part));
    MeanScore { cases: there.len(), mean, interval: None, quartiles, deviation }
}
