//! A report as JSON.

use super::difference::{Comparison, PairedDifference};
use super::metric::{Better, Metric};
use super::report::{EvaluationReport, MeanScore};
use super::{CaseCounts, Class};
use serde_json::{Map, Value, json};

/// The form of `metrics.json`.
const FORMAT: &str = "stunet-metrics";

/// Everything that is known.
pub(super) fn everything(report: &EvaluationReport<'_>) -> Value {
    let rules = &report.evaluation.rules;
    let metrics: Vec<Value> = report
        .means
        .iter()
        .map(|(metric, _)| {
            let better = match metric.better() {
                Better::Higher => "higher",
                Better::Lower => "lower",
                Better::NearZero => "near zero",
            };
            json!({ "key": metric.key(rules), "title": metric.title(rules), "better": better })
        })
        .collect();
    let classes = rules.classes.iter().zip(&report.names);
    let classes: Vec<Value> =
        classes.map(|(class, name)| json!({ "key": class.to_string(), "name": name })).collect();
    let mut all = json!({
        "format": FORMAT,
        "version": 1,
        "bootstrap": {
            "resamples": report.bootstrap.resamples,
            "confidence": report.bootstrap.confidence,
            "seed": report.bootstrap.seed,
        },
        "classes": classes,
        "metrics": metrics,
        "means": means(report),
        "cases": cases(report),
    });
    if let Some(comparison) = &report.comparison {
        all["comparison"] = differences(report, comparison);
    }
    all
}

/// Keys of the classes, and one for their mean.
fn keys(report: &EvaluationReport<'_>) -> impl Iterator<Item = String> {
    report.evaluation.rules.classes.iter().map(Class::to_string).chain(["mean".to_owned()])
}

fn means(report: &EvaluationReport<'_>) -> Value {
    let rules = &report.evaluation.rules;
    let by_class = |(index, class): (usize, String)| {
        let score = |(metric, means): &(Metric, Vec<MeanScore>)| {
            let mean = &means[index];
            let value = json!({
                "cases": mean.cases,
                "mean": mean.mean,
                "interval": mean.interval.map(|i| [i.low, i.high]),
                "quartiles": mean.quartiles,
                "deviation": mean.deviation,
            });
            (metric.key(rules), value)
        };
        (class, Value::Object(report.means.iter().map(score).collect()))
    };
    Value::Object(keys(report).enumerate().map(by_class).collect())
}

fn cases(report: &EvaluationReport<'_>) -> Value {
    let rules = &report.evaluation.rules;
    let one = |case: &CaseCounts| {
        let of_class = |(index, class): (usize, &Class)| {
            let counts = &case.counts[index];
            let mut scores: Map<String, Value> = report
                .means
                .iter()
                .map(|(metric, _)| (metric.key(rules), json!(metric.of(case, index))))
                .collect();
            scores.insert("voxels_reference".to_owned(), counts.num_reference().into());
            scores.insert("voxels_prediction".to_owned(), counts.num_predicted().into());
            if let Some(lesions) = case.lesions.get(index) {
                let lesions = json!({
                    "reference": lesions.reference,
                    "prediction": lesions.prediction,
                    "detected": lesions.detected,
                    "confirmed": lesions.confirmed,
                });
                scores.insert("lesions".to_owned(), lesions);
            }
            (class.to_string(), Value::Object(scores))
        };
        json!({
            "name": case.pair.name,
            "reference": case.pair.reference,
            "prediction": case.pair.prediction,
            "voxel_volume_mm3": case.voxel_volume_mm3,
            "note": case.note,
            "classes": rules.classes.iter().enumerate().map(of_class).collect::<Map<_, _>>(),
        })
    };
    report.evaluation.cases.iter().map(one).collect()
}

fn differences(report: &EvaluationReport<'_>, comparison: &Comparison) -> Value {
    let rules = &report.evaluation.rules;
    let one = |found: &PairedDifference| {
        json!({
            "cases": found.cases,
            "mean": found.mean,
            "interval": found.interval.map(|i| [i.low, i.high]),
            "better": found.better,
            "pairs_that_differ": found.test.pairs,
            "rank_sum": found.test.rank_sum,
            "p_value": found.test.p_value,
            "p_corrected": found.p_corrected,
        })
    };
    let of_metric = |(metric, found): &(Metric, Vec<PairedDifference>)| {
        let classes = rules.classes.iter().map(Class::to_string).zip(found.iter().map(one));
        (metric.key(rules), Value::Object(classes.collect()))
    };
    json!({
        "runs": comparison.names,
        "num_cases": comparison.num_cases,
        "differences": comparison.differences.iter().map(of_metric).collect::<Map<_, _>>(),
    })
}
