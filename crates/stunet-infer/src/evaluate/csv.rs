//! Tables of scores as comma-separated values.

use super::difference::PairedDifference;
use super::report::EvaluationReport;

/// One row for each case and class.
pub(super) fn cases(report: &EvaluationReport<'_>) -> String {
    let rules = &report.evaluation.rules;
    let mut titles: Vec<String> =
        ["case", "class", "name", "tp", "fp", "fn", "tn", "reference_ml", "prediction_ml"]
            .map(str::to_owned)
            .to_vec();
    titles.extend(report.means.iter().map(|(metric, _)| metric.key(rules)));
    if rules.lesions.is_some() {
        let counts = ["reference", "prediction", "detected", "confirmed"];
        titles.extend(counts.map(|which| format!("lesions_{which}")));
    }
    let mut text = row(titles);
    for case in &report.evaluation.cases {
        for (index, (class, name)) in rules.classes.iter().zip(&report.names).enumerate() {
            let counts = &case.counts[index];
            let volume = |voxels: u64| number(voxels as f64 * case.voxel_volume_mm3 / 1000.0);
            let mut cells = vec![case.pair.name.clone(), class.to_string(), name.clone()];
            let voxels = [
                counts.true_positives,
                counts.false_positives,
                counts.false_negatives,
                counts.true_negatives,
            ];
            cells.extend(voxels.map(|count| count.to_string()));
            cells.extend([counts.num_reference(), counts.num_predicted()].map(volume));
            cells.extend(report.means.iter().map(|(metric, _)| number(metric.of(case, index))));
            if let Some(found) = case.lesions.get(index) {
                let counts = [found.reference, found.prediction, found.detected, found.confirmed];
                cells.extend(counts.map(|count| count.to_string()));
            }
            text.push_str(&row(cells));
        }
    }
    text
}

/// One row for each class and score.
pub(super) fn means(report: &EvaluationReport<'_>) -> String {
    let rules = &report.evaluation.rules;
    let mut titles = "class,name,metric,cases,mean,low,high,deviation,quartile_1,median,quartile_3"
        .split(',')
        .map(str::to_owned)
        .collect::<Vec<_>>();
    if report.comparison.is_some() {
        let more = "other_cases,difference,difference_low,difference_high,better,worse,p_value,\
                    p_corrected";
        titles.extend(more.split(',').map(str::to_owned));
    }
    let mut text = row(titles);
    let names = report.names.iter().map(String::as_str).chain(["mean over classes"]);
    let classes = rules.classes.iter().map(ToString::to_string).chain(["mean".to_owned()]);
    for (index, (class, name)) in classes.zip(names).enumerate() {
        for (place, (metric, means)) in report.means.iter().enumerate() {
            let mean = &means[index];
            let ends = mean.interval.map_or([f64::NAN; 2], |i| [i.low, i.high]);
            let mut cells = vec![class.clone(), name.to_owned(), metric.key(rules)];
            cells.push(mean.cases.to_string());
            let numbers = [mean.mean, ends[0], ends[1], mean.deviation];
            cells.extend(numbers.into_iter().chain(mean.quartiles).map(number));
            if let Some(comparison) = &report.comparison {
                cells.extend(match comparison.differences[place].1.get(index) {
                    None => vec![String::new(); 8],
                    Some(found) => difference(found),
                });
            }
            text.push_str(&row(cells));
        }
    }
    text
}

fn difference(found: &PairedDifference) -> Vec<String> {
    let ends = found.interval.map_or([f64::NAN; 2], |i| [i.low, i.high]);
    let mut cells = vec![found.cases.to_string()];
    cells.extend([found.mean, ends[0], ends[1]].map(number));
    cells.extend(found.better.map(|count| count.to_string()));
    cells.extend([found.test.p_value, found.p_corrected].map(number));
    cells
}

/// Nothing for what does not exist.
fn number(value: f64) -> String {
    if value.is_nan() { String::new() } else { value.to_string() }
}

/// A line of RFC 4180, but with a plain line break.
fn row(cells: Vec<String>) -> String {
    let quoted: Vec<String> = cells
        .into_iter()
        .map(|cell| match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell,
        })
        .collect();
    quoted.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let cells = ["(1, 2)", "a \"b\"", "", "0.5"].map(str::to_owned).to_vec();
        assert_eq!(row(cells), "\"(1, 2)\",\"a \"\"b\"\"\",,0.5\n");
        assert_eq!((number(f64::NAN), number(1e-7)), (String::new(), "0.0000001".to_owned()));
    }
}
