//! Plots as SVG: scores of many cases along one axis, a row for each class.

use std::fmt::Write;
use stunet_data::metrics::Interval;
use stunet_pictures::page::escaped;

const WIDTH: f64 = 900.0;
/// Where names end and the axis begins.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 880.0;
const ROW: f64 = 22.0;
/// Room for the axis below the rows.
const BELOW: f64 = 34.0;

/// One row of a plot.
pub(super) struct PlotRow {
    pub name: String,
    /// What is drawn as points, with a text for each that shows where the pointer is.
    pub points: Vec<(f64, String)>,
    /// Drawn as a box from the first to the third, with a line at the second.
    pub quartiles: Option<[f64; 3]>,
    /// Drawn as a diamond.
    pub mean: f64,
    /// Drawn as a bar through the diamond.
    pub interval: Option<Interval>,
}

/// Rows over a common axis; `whole` is what the axis shows in any case.
pub(super) fn plot(rows: &[PlotRow], whole: [f64; 2]) -> String {
    let values = rows.iter().flat_map(|row| {
        let ends = row.interval.map_or([f64::NAN; 2], |i| [i.low, i.high]);
        row.points.iter().map(|(v, _)| *v).chain([row.mean]).chain(ends)
    });
    let [mut low, mut high] = whole;
    for value in values.filter(|v| v.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if high - low < 1e-12 {
        high = low + 1.0;
    }
    let axis = Axis { low, high };
    let height = ROW * rows.len() as f64 + BELOW;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" width=\"{WIDTH}\" height=\"{height}\">\n"
    );
    axis.draw(&mut out, ROW * rows.len() as f64);
    for (index, row) in rows.iter().enumerate() {
        draw(&mut out, row, ROW * (index as f64 + 0.5), &axis);
    }
    out.push_str("</svg>\n");
    out
}

struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        LEFT + (value - self.low) / (self.high - self.low) * (RIGHT - LEFT)
    }

    /// Lines at round numbers, named below.
    fn draw(&self, out: &mut String, bottom: f64) {
        let rough = (self.high - self.low) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|f| f * power).into_iter().find(|s| *s >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        for number in first..=last {
            let value = number as f64 * step;
            let x = self.place(value);
            let class = if number == 0 { "zero" } else { "grid" };
            let text = short(value, step);
            let _ = writeln!(
                out,
                "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{}\">{text}</text>",
                bottom + 18.0
            );
        }
    }
}

/// A number with as many digits as the step between its neighbours needs.
fn short(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let text = format!("{value:.digits$}");
    if text.trim_start_matches('-').chars().all(|c| "0.".contains(c)) {
        "0".to_owned()
    } else {
        text
    }
}

fn draw(out: &mut String, row: &PlotRow, y: f64, axis: &Axis) {
    let name: String = match row.name.chars().count() {
        0..=28 => row.name.clone(),
        _ => row.name.chars().take(27).chain(['…']).collect(),
    };
    let _ = write!(
        out,
        "<text class=\"name\" x=\"{}\" y=\"{:.1}\">{}<title>{}</title></text>",
        LEFT - 10.0,
        y + 4.0,
        escaped(&name),
        escaped(&row.name)
    );
    if let Some([low, middle, high]) = row.quartiles.filter(|q| q.iter().all(|v| v.is_finite())) {
        let [low, middle, high] = [low, middle, high].map(|v| axis.place(v));
        let _ = write!(
            out,
            "<rect class=\"box\" x=\"{low:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\"/>\
             <line class=\"median\" x1=\"{middle:.1}\" y1=\"{:.1}\" x2=\"{middle:.1}\" y2=\"{:.1}\"/>",
            y - 6.0,
            (high - low).max(0.5),
            y - 6.0,
            y + 6.0
        );
    }
    for (index, (value, text)) in row.points.iter().filter(|(v, _)| v.is_finite()).enumerate() {
        // Spread over the row in a fixed pattern, so that equal values show.
        let y = y + ((index * 7) % 11) as f64 - 5.0;
        let x = axis.place(*value);
        let text = escaped(text);
        let _ = write!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\"><title>{text}</title></circle>"
        );
    }
    if row.mean.is_finite() {
        if let Some(Interval { low, high }) = row.interval {
            let (low, high) = (axis.place(low), axis.place(high));
            let _ = write!(
                out,
                "<line class=\"interval\" x1=\"{low:.1}\" y1=\"{y:.1}\" x2=\"{high:.1}\" y2=\"{y:.1}\"/>"
            );
        }
        let x = axis.place(row.mean);
        let _ = write!(
            out,
            "<path class=\"mean\" d=\"M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z\"/>",
            x - 5.0,
            y - 5.0,
            x + 5.0,
            y + 5.0
        );
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, values: &[f64]) -> PlotRow {
        PlotRow {
            name: name.to_owned(),
            points: values.iter().map(|v| (*v, format!("<case> {v}"))).collect(),
            quartiles: None,
            mean: 0.5,
            interval: Some(Interval { low: 0.25, high: 0.75 }),
        }
    }

    #[test]
    fn values_are_where_the_axis_says() {
        let svg = plot(&[row("a & b", &[0.0, 1.0, f64::NAN])], [0.0, 1.0]);
        assert!(svg.contains(&format!("cx=\"{LEFT:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("cx=\"{RIGHT:.1}\"")), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;case&gt;"), "{svg}");
        for tick in [">0<", ">0.2<", ">1.0<"] {
            assert!(svg.contains(tick), "{tick} in {svg}");
        }
    }

    #[test]
    fn axes_hold_whatever_there_is() {
        for values in [&[][..], &[1e-9, 2e-9], &[-3e8, 12.0], &[0.0, f64::INFINITY]] {
            let svg =
                plot(&[PlotRow { interval: None, mean: f64::NAN, ..row("x", values) }], [0.0, 0.0]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let ticks = svg.matches("class=\"tick\"").count();
            assert!((1..15).contains(&ticks), "{ticks} ticks in {svg}");
        }
    }
}
