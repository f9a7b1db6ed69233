//! A report as one page: tables and plots, no other file and no script.

use super::difference::{Comparison, PairedDifference};
use super::metric::{Better, Metric};
use super::plot::{PlotRow, plot};
use super::report::{EvaluationReport, MeanScore};
use super::{CaseCounts, Counts};
use std::fmt::Write;
use stunet_data::metrics::Interval;
use stunet_pictures::page::escaped;

/// Rows of the table of cases to look at.
const WORST: usize = 20;

/// Most points of a plot; where there are more, those near the box are left out.
const POINTS: usize = 4000;

const STYLE: &str = include_str!("report.css");

/// The page.
pub(super) fn page(report: &EvaluationReport<'_>) -> String {
    let mut out = String::new();
    let cases = report.evaluation.cases.len();
    let title = match cases {
        1 => "Evaluation of 1 case".to_owned(),
        cases => format!("Evaluation of {cases} cases"),
    };
    let _ = writeln!(out, "<h1>{title}</h1>");
    let percent = report.bootstrap.confidence * 100.0;
    let _ = writeln!(
        out,
        "<p>Means over the cases in which a score exists, with {percent}&nbsp;% bootstrap intervals \
         ({} resamples, seed {}). A class that is absent from both labelmaps of a case has no score \
         there; if it is absent from one of them, Dice is 0 and distances do not exist.</p>",
        report.bootstrap.resamples, report.bootstrap.seed
    );
    if let Some(mapping) = &report.evaluation.rules.mapping {
        let note = mapping.note().map(|note| format!(" ({note})")).unwrap_or_default();
        let _ = writeln!(out, "<p>Label map: {}{}</p>", escaped(mapping.title()), escaped(&note));
    }
    means(&mut out, report);
    if let Some(comparison) = &report.comparison {
        differences(&mut out, report, comparison);
    }
    let far = match is_crowded(report) {
        true => " that is further from the box than one and a half times its length",
        false => "",
    };
    let _ = writeln!(
        out,
        "<h2>Every case</h2>\n<p>A point for each case{far} (its name shows under the pointer), a box from \
         the first to the third quartile with a line at the median, and the mean with its interval.</p>"
    );
    for (index, (metric, _)) in report.means.iter().enumerate() {
        distribution(&mut out, report, *metric, index < 1);
    }
    worst(&mut out, report);
    notes(&mut out, report);
    stunet_pictures::page::page(&title, STYLE, &out)
}

fn means(out: &mut String, report: &EvaluationReport<'_>) {
    let rules = &report.evaluation.rules;
    out.push_str(
        "<h2>Means</h2>\n<div class=\"wide\"><table>\n<tr><th>Class</th><th>Cases</th>\
                  <th>Missed</th><th>Only predicted</th>",
    );
    for (metric, _) in &report.means {
        let _ = write!(out, "<th>{}</th>", escaped(&metric.title(rules)));
    }
    out.push_str("</tr>\n");
    let names = report.names.iter().map(String::as_str).chain(["Mean over classes"]);
    for (index, name) in names.enumerate() {
        let class = if index < report.names.len() { "" } else { " class=\"last\"" };
        let _ = write!(out, "<tr{class}><th>{}</th>", escaped(name));
        if index < report.names.len() {
            let cases = report.evaluation.cases.iter().map(|case| &case.counts[index]);
            let missed = |c: &&Counts| c.num_reference() > 0 && c.num_predicted() == 0;
            let invented = |c: &&Counts| c.num_reference() == 0 && c.num_predicted() > 0;
            let there = report.means[0].1[index].cases;
            let (missed, invented) =
                (cases.clone().filter(missed).count(), cases.filter(invented).count());
            let _ = write!(out, "<td>{there}</td><td>{missed}</td><td>{invented}</td>");
        } else {
            let _ = write!(out, "<td>{}</td><td></td><td></td>", report.evaluation.cases.len());
        }
        for (metric, means) in &report.means {
            out.push_str(&mean_cell(&means[index], *metric));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn mean_cell(mean: &MeanScore, metric: Metric) -> String {
    let ends = mean.interval.map(|i| format!("<small>{}</small>", between(i, metric)));
    format!("<td>{}{}</td>", number(mean.mean, metric), ends.unwrap_or_default())
}

fn between(interval: Interval, metric: Metric) -> String {
    format!("{} to {}", number(interval.low, metric), number(interval.high, metric))
}

/// Four digits for shares, two for lengths and volumes.
fn number(value: f64, metric: Metric) -> String {
    let share = metric.better() == Better::Higher || metric == Metric::RelativeVolumeError;
    match (value.is_nan(), share) {
        (true, _) => "–".to_owned(),
        (_, true) => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}

/// The part of the axis that is shown in any case.
fn whole(metric: Metric) -> [f64; 2] {
    if metric.better() == Better::Higher { [0.0, 1.0] } else { [0.0, 0.0] }
}

fn is_crowded(report: &EvaluationReport<'_>) -> bool {
    report.evaluation.cases.len() * report.names.len() > POINTS
}

fn distribution(out: &mut String, report: &EvaluationReport<'_>, metric: Metric, open: bool) {
    let Some((_, means)) = report.means.iter().find(|(other, _)| *other == metric) else { return };
    let crowded = is_crowded(report);
    let row = |(class, name): (usize, &String)| {
        let values = report.evaluation.values(metric, class);
        let cases = report.evaluation.cases.iter().zip(values);
        let point = |(case, v): (&CaseCounts, f64)| {
            (v, format!("{}: {}", case.pair.name, number(v, metric)))
        };
        let [low, _, high] = means[class].quartiles;
        let far =
            |value: f64| value < low - 1.5 * (high - low) || value > high + 1.5 * (high - low);
        let points = cases.map(point).filter(|(value, _)| !crowded || far(*value));
        PlotRow {
            name: name.clone(),
            points: points.collect(),
            quartiles: Some(means[class].quartiles),
            mean: means[class].mean,
            interval: means[class].interval,
        }
    };
    let rows: Vec<PlotRow> = report.names.iter().enumerate().map(row).collect();
    let title = escaped(&metric.title(&report.evaluation.rules));
    let open = if open { " open" } else { "" };
    let _ = writeln!(
        out,
        "<details{open}><summary>{title}</summary>\n{}</details>",
        plot(&rows, whole(metric))
    );
}

fn differences(out: &mut String, report: &EvaluationReport<'_>, comparison: &Comparison) {
    let rules = &report.evaluation.rules;
    let [first, second] = comparison.names.each_ref().map(|name| escaped(name));
    let _ = writeln!(
        out,
        "<h2>{first} against {second}</h2>\n<p>{} cases of both, paired: score of {first} less that of \
         {second} (errors by their size), with intervals; p is Wilcoxon's signed-rank test, corrected \
         over the classes by Holm's method.</p>",
        comparison.num_cases
    );
    for (index, (metric, found)) in comparison.differences.iter().enumerate() {
        let row = |(name, found): (&String, &PairedDifference)| PlotRow {
            name: name.clone(),
            points: Vec::new(),
            quartiles: None,
            mean: found.mean,
            interval: found.interval,
        };
        let rows: Vec<PlotRow> = report.names.iter().zip(found).map(row).collect();
        let open = if index == 0 { " open" } else { "" };
        let _ = writeln!(
            out,
            "<details{open}><summary>{}</summary>\n{}<div class=\"wide\"><table>\n<tr><th>Class</th>\
             <th>Cases</th><th>Difference</th><th>{first} better</th><th>{second} better</th><th>p</th>\
             <th>p, corrected</th></tr>",
            escaped(&metric.title(rules)),
            plot(&rows, [0.0, 0.0])
        );
        for (name, found) in report.names.iter().zip(found) {
            let ends = found.interval.map(|i| format!("<small>{}</small>", between(i, *metric)));
            let [better, worse] = found.better;
            let _ = writeln!(
                out,
                "<tr><th>{}</th><td>{}</td><td>{}{}</td><td>{better}</td><td>{worse}</td><td>{}</td>\
                 <td>{}</td></tr>",
                escaped(name),
                found.cases,
                number(found.mean, *metric),
                ends.unwrap_or_default(),
                chance(found.test.p_value),
                chance(found.p_corrected)
            );
        }
        out.push_str("</table></div></details>\n");
    }
}

/// A probability.
fn chance(p: f64) -> String {
    match p {
        p if p.is_nan() => "–".to_owned(),
        p if p < 1e-4 => format!("{p:.1e}"),
        p => format!("{p:.4}"),
    }
}

/// Cases and classes with the lowest Dice: what to look at first.
fn worst(out: &mut String, report: &EvaluationReport<'_>) {
    let mut all: Vec<(f64, usize, usize)> = Vec::new();
    for class in 0..report.names.len() {
        let values = report.evaluation.values(Metric::Dice, class);
        let there = values.into_iter().enumerate().filter(|(_, dice)| !dice.is_nan());
        all.extend(there.map(|(case, dice)| (dice, case, class)));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let rules = &report.evaluation.rules;
    let _ = write!(
        out,
        "<h2>To look at first</h2>\n<p>The {} lowest Dice.</p>\n<div class=\"wide\"><table>\n<tr>\
         <th>Case</th><th class=\"text\">Class</th>",
        all.len().min(WORST)
    );
    for (metric, _) in &report.means {
        let _ = write!(out, "<th>{}</th>", escaped(&metric.title(rules)));
    }
    out.push_str("</tr>\n");
    for (_, case, class) in all.into_iter().take(WORST) {
        let found = &report.evaluation.cases[case];
        let (name, class_name) = (escaped(&found.pair.name), escaped(&report.names[class]));
        let _ = write!(out, "<tr><th>{name}</th><td class=\"text\">{class_name}</td>");
        for (metric, _) in &report.means {
            let _ = write!(out, "<td>{}</td>", number(metric.of(found, class), *metric));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn notes(out: &mut String, report: &EvaluationReport<'_>) {
    let noted: Vec<_> = report.evaluation.cases.iter().filter(|c| c.note.is_some()).collect();
    if noted.is_empty() {
        return;
    }
    out.push_str("<h2>Notes</h2>\n<ul>\n");
    for case in noted {
        let note = case.note.as_deref().unwrap_or_default();
        let _ = writeln!(out, "<li>{}: {}</li>", escaped(&case.pair.name), escaped(note));
    }
    out.push_str("</ul>\n");
}
