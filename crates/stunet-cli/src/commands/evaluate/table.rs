//! What is printed of an evaluation.

use std::collections::BTreeMap;

use stunet::infer::evaluate::{
    Class, Comparison, Evaluation, EvaluationReport, EvaluationRules, MeanScore, Metric,
};

use crate::output;

/// Prints notes, a table of means, and one of differences where there is another run.
pub fn print(
    result: &Evaluation,
    names: &BTreeMap<Class, String>,
    report: Option<&EvaluationReport<'_>>,
) -> anyhow::Result<()> {
    for case in &result.cases {
        if let Some(note) = &case.note {
            output::line(&format!("note: {}: {note}", case.pair.name))?;
        }
    }
    means(result, names, report)?;
    match report.and_then(EvaluationReport::comparison) {
        Some(comparison) => differences(result, names, comparison),
        None => Ok(()),
    }
}

/// Width of the column of classes.
fn width(rules: &EvaluationRules) -> usize {
    rules.classes.iter().map(|class| class.to_string().len()).max().unwrap_or(0).max(5)
}

fn means(
    result: &Evaluation,
    names: &BTreeMap<Class, String>,
    report: Option<&EvaluationReport<'_>>,
) -> anyhow::Result<()> {
    let rules = &result.rules;
    let width = width(rules);
    // Beside Dice, what was asked for.
    let more: Vec<&(Metric, Vec<MeanScore>)> = report
        .map_or(&[][..], EvaluationReport::means)
        .iter()
        .filter(|(metric, _)| {
            use Metric::{Hausdorff95, LesionF1, MeanDistance, Nsd};
            matches!(metric, Hausdorff95 | MeanDistance | Nsd(_) | LesionF1)
        })
        .collect();
    let titles: Vec<String> = more.iter().map(|(metric, _)| metric.title(rules)).collect();
    let cells = |index: usize| -> String {
        let cell = |((metric, means), title): (&&(Metric, Vec<MeanScore>), &String)| {
            let text = score(*metric, means[index].mean);
            format!("  {text:>width$}", width = title.chars().count().max(7))
        };
        more.iter().zip(&titles).map(cell).collect()
    };
    let heads: String = titles.iter().map(|title| format!("  {title:>7}")).collect();
    output::line(&format!("{:<width$}  {:>6}{heads}  {:>5}", "class", "Dice", "cases"))?;
    for (index, class) in rules.classes.iter().enumerate() {
        let having = result.cases.iter().filter(|case| !case.counts[index].dice().is_nan()).count();
        let name = names.get(class).map_or("", String::as_str);
        let dice = score(Metric::Dice, result.mean_dice(index));
        let (class, more) = (class.to_string(), cells(index));
        let line = format!("{class:<width$}  {dice:>6}{more}  {having:>5}  {name}");
        output::line(line.trim_end())?;
    }
    let (dice, without) = result.dice_of_classes_there();
    let mean = score(Metric::Dice, dice);
    let without = match without {
        0 => String::new(),
        1 => ", without a class that no case has".to_owned(),
        count => format!(", without {count} classes that no case has"),
    };
    let (cases, more) = (result.cases.len(), cells(rules.classes.len()));
    output::line(&format!(
        "{:<width$}  {mean:>6}{more}  {cases:>5}  of the foreground{without}",
        "mean"
    ))
}

fn differences(
    result: &Evaluation,
    names: &BTreeMap<Class, String>,
    comparison: &Comparison,
) -> anyhow::Result<()> {
    let width = width(&result.rules);
    let [first, second] = &comparison.names;
    let cases = comparison.num_cases;
    output::line("")?;
    output::line(&format!("Dice of {first} less that of {second}, {cases} cases of both:"))?;
    output::line(&format!("{:<width$}  {:>7}  {:>18}  {:>6}", "class", "mean", "95 %", "p"))?;
    let Some((metric, found)) = comparison.differences.first() else { return Ok(()) };
    for (class, found) in result.rules.classes.iter().zip(found) {
        let ends = found.interval.map_or_else(
            || "-".to_owned(),
            |ends| format!("{} to {}", score(*metric, ends.low), score(*metric, ends.high)),
        );
        let name = names.get(class).map_or("", String::as_str);
        let p = score(*metric, found.p_corrected);
        let mean = score(*metric, found.mean);
        let line = format!("{:<width$}  {mean:>7}  {ends:>18}  {p:>6}  {name}", class.to_string());
        output::line(line.trim_end())?;
    }
    Ok(())
}

/// Four digits of shares, two of lengths.
fn score(metric: Metric, value: f64) -> String {
    match metric {
        _ if value.is_nan() => "-".to_owned(),
        Metric::Hausdorff | Metric::Hausdorff95 | Metric::MeanDistance => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
