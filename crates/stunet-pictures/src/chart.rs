//! Charts of curves, one below the other.

use crate::canvas::{Anchor, Canvas, Colour, TextStyle};

/// Pixels from left to right of all charts.
pub const WIDTH: usize = 1200;
/// Pixels from top to bottom of one chart.
pub const HEIGHT: usize = 380;
/// Left, right, top and bottom margin of a chart's axes within it.
const MARGINS: [f32; 4] = [86.0, 34.0, 52.0, 56.0];

const GROUND: Colour = [255; 3];
const GRID: Colour = [229, 231, 235];
const AXIS: Colour = [107, 114, 128];
const INK: Colour = [31, 41, 55];
const TICKS: f32 = 15.0;
const TITLES: f32 = 16.0;

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// Its colour.
    pub colour: Colour,
    /// Places along both axes, those along the first ascending; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What the horizontal axis counts: whole numbers from 0.
    pub x_title: String,
    /// Ends of the vertical axis; those of the curves, and a little more, where they are not given.
    pub range: Option<[f64; 2]>,
    /// The last number of the horizontal axis; that of the curves where it is not given.
    pub x_last: Option<f64>,
    /// What is drawn, the last one on top.
    pub curves: Vec<Curve>,
}

impl Curve {
    /// A curve of a name and a colour.
    pub fn new(name: impl Into<String>, colour: Colour, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), colour, points }
    }
}

impl Chart {
    /// A chart whose axes hold the curves.
    pub fn new(x_title: impl Into<String>, curves: Vec<Curve>) -> Self {
        Self { x_title: x_title.into(), range: None, x_last: None, curves }
    }

    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let points = self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        points.filter(|(x, y)| x.is_finite() && y.is_finite())
    }

    fn last(&self) -> f64 {
        let last = self.x_last.unwrap_or_else(|| self.finite().map(|p| p.0).fold(0.0, f64::max));
        last.max(1.0)
    }

    fn ends(&self) -> [f64; 2] {
        if let Some(ends) = self.range {
            return ends;
        }
        let ends = (f64::MAX, f64::MIN);
        let (low, high) = self.finite().fold(ends, |(l, h), p| (l.min(p.1), h.max(p.1)));
        match low < high {
            true => [low - 0.05 * (high - low), high + 0.05 * (high - low)],
            // Always the same.
            false if low == high => {
                let room = 0.5 * low.abs().max(1e-9);
                [low - room, low + room]
            }
            // Nothing to show yet.
            false => [0.0, 1.0],
        }
    }
}

/// Draws charts one below the other, each [`WIDTH`] by [`HEIGHT`] pixels.
///
/// # Panics
/// When there are none, or more than 20.
pub fn draw_charts(charts: &[Chart]) -> Canvas {
    assert!((1..=20).contains(&charts.len()), "{} charts", charts.len());
    let mut canvas = Canvas::new(WIDTH, HEIGHT * charts.len(), GROUND);
    for (index, chart) in charts.iter().enumerate() {
        let [left, right, top, bottom] = MARGINS;
        let above = (index * HEIGHT) as f32;
        let axes = Axes {
            x: [left, WIDTH as f32 - right],
            y: [above + HEIGHT as f32 - bottom, above + top],
            last: chart.last(),
            ends: chart.ends(),
        };
        axes.draw(&mut canvas, &chart.x_title);
        axes.draw_curves(&mut canvas, &chart.curves);
    }
    canvas
}

/// Where values lie in the picture.
struct Axes {
    /// Pixels of 0 and of `last`.
    x: [f32; 2],
    /// Pixels of the lower and the upper end.
    y: [f32; 2],
    last: f64,
    ends: [f64; 2],
}

impl Axes {
    fn place(&self, (x, y): (f64, f64)) -> (f32, f32) {
        let along = |[from, to]: [f32; 2], share: f64| from + (to - from) * share as f32;
        let [low, high] = self.ends;
        (along(self.x, x / self.last), along(self.y, (y - low) / (high - low)))
    }

    fn draw(&self, canvas: &mut Canvas, x_title: &str) {
        let ([x0, x1], [y0, y1]) = (self.x, self.y);
        let style = TextStyle::new(TICKS, AXIS);
        let crisp = |v: f32| v.floor() + 0.5;
        for (value, label) in ticks(self.ends[0], self.ends[1], 5) {
            let y = self.place((0.0, value)).1;
            canvas.line(&[(x0, crisp(y)), (x1, crisp(y))], 1.0, GRID);
            canvas.text((x0 - 10.0, y + 5.0), &style.anchored(Anchor::End), &label);
        }
        let whole = |tick: &(f64, String)| tick.0.fract() == 0.0;
        for (value, label) in ticks(0.0, self.last, 8).into_iter().filter(whole) {
            let x = self.place((value, self.ends[0])).0;
            canvas.line(&[(crisp(x), y0), (crisp(x), y1)], 1.0, GRID);
            canvas.text((x, y0 + 21.0), &style.anchored(Anchor::Middle), &label);
        }
        canvas.line(&[(crisp(x0), y1), (crisp(x0), crisp(y0)), (x1, crisp(y0))], 1.2, AXIS);
        let title = TextStyle::new(TITLES, INK).anchored(Anchor::Middle);
        canvas.text(((x0 + x1) / 2.0, y0 + 45.0), &title, x_title);
    }

    fn draw_curves(&self, canvas: &mut Canvas, curves: &[Curve]) {
        let style = TextStyle::new(TITLES, INK);
        let (mut legend, above) = (self.x[0], self.y[1] - 20.0);
        for curve in curves {
            let points: Vec<_> = curve
                .points
                .iter()
                .filter(|(x, y)| x.is_finite() && y.is_finite())
                .map(|point| self.place(*point))
                .collect();
            match points[..] {
                [only] => canvas.disc(only, 7.0, curve.colour),
                _ => canvas.line(&points, 2.0, curve.colour),
            }
            canvas.line(&[(legend + 2.0, above), (legend + 28.0, above)], 3.0, curve.colour);
            canvas.text((legend + 38.0, above + 5.5), &style, &curve.name);
            legend += 38.0 + style.width(&curve.name) + 28.0;
        }
    }
}

/// Round values within a range, about `wanted` of them, and their labels.
fn ticks(low: f64, high: f64, wanted: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = power * steps.into_iter().find(|s| s * power >= rough * 0.999).unwrap_or(10.0);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last)
        .map(|n| {
            let value = n as f64 * step;
            let label = match decimals > 4 {
                true if n == 0 => "0".to_owned(),
                true => format!("{value:.1e}"),
                false => format!("{value:.decimals$}"),
            };
            // A minus as long as a plus, as in print.
            (value, label.replacen('-', "−", usize::from(value < 0.0)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Colour = [205, 55, 45];

    #[test]
    fn values_stand_at_their_height() {
        // A line from 1 down to 0 crosses the middle of the axes in its middle.
        let curve = Curve::new("", RED, vec![(0.0, 1.0), (5.0, f64::NAN), (10.0, 0.0)]);
        let chart = Chart { range: Some([0.0, 1.0]), ..Chart::new("epoch", vec![curve]) };
        let canvas = draw_charts(&[chart]);
        let [left, right, top, bottom] = MARGINS;
        let x = (left + WIDTH as f32 - right) / 2.0;
        let y = (top + HEIGHT as f32 - bottom) / 2.0;
        let (x, y) = (x as usize, y as usize);
        assert_eq!(canvas.pixel(x, y), RED);
        assert_ne!(canvas.pixel(x, y + 20), RED);
        assert_ne!(canvas.pixel(x, y - 20), RED);
        let start = (left as usize + 4, top as usize + 1);
        assert_eq!(canvas.pixel(start.0, start.1), RED);
    }

    #[test]
    fn any_curve_can_be_drawn() {
        let ends = [f64::MAX / 2.0, -1e300, f64::INFINITY, 0.0, 1e-300];
        for points in [vec![], vec![(0.0, 3.0)], vec![(0.0, 2.0), (1.0, 2.0)]] {
            draw_charts(&[Chart::new("", vec![Curve::new("", RED, points)])]);
        }
        let points = ends.into_iter().enumerate().map(|(x, y)| (x as f64, y)).collect();
        draw_charts(&[Chart::new("", vec![Curve::new("", RED, points)])]);
    }

    #[test]
    fn ticks_are_round() {
        let check = |low, high, labels: &[&str]| {
            let found: Vec<_> = ticks(low, high, 5).into_iter().map(|t| t.1).collect();
            assert_eq!(found, labels);
        };
        check(0.0, 1.0, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(-0.93, 1.1, &["−0.5", "0.0", "0.5", "1.0"]);
        check(0.0, 1000.0, &["0", "200", "400", "600", "800", "1000"]);
        check(0.0, 1e-5, &["0", "2.0e-6", "4.0e-6", "6.0e-6", "8.0e-6", "1.0e-5"]);
    }
}
