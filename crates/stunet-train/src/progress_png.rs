//! `progress.png`: loss, pseudo-Dice and learning rate over the epochs.

mod canvas;
mod font;

use crate::error::{Result, TrainError};
use crate::history::EpochRecord;
use canvas::{Canvas, Colour, text_width};
use std::io::Write;
use std::path::Path;
use stunet_model::weights::atomic;

/// Name of the picture in a fold's folder.
pub const PROGRESS_FILE: &str = "progress.png";

const WIDTH: usize = 1200;
const PANEL: usize = 400;
/// Left, right, top, bottom of a panel's plot within the panel.
const MARGINS: [f64; 4] = [110.0, 30.0, 46.0, 54.0];
const TEXT: usize = 2;

const BLUE: Colour = [31, 90, 180];
const RED: Colour = [205, 55, 45];
const GREEN: Colour = [30, 140, 60];
const PALE: Colour = [150, 200, 160];
const GREY: Colour = [225, 225, 225];
const BLACK: Colour = [40, 40, 40];

/// One curve.
struct Curve {
    name: &'static str,
    colour: Colour,
    /// Epoch and value.
    points: Vec<(f64, f64)>,
}

/// Draws the history of a run into a PNG file, which appears whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(history: &[EpochRecord], path: &Path) -> Result<()> {
    let bytes = encode(&picture(history))
        .map_err(|e| TrainError::io("write", path, std::io::Error::other(e)))?;
    let io = |e| TrainError::io("write", path, e);
    atomic::write(path, io, |file| file.write_all(&bytes).map_err(io))
}

fn picture(history: &[EpochRecord]) -> Canvas {
    let curve = |name, colour, value: &dyn Fn(&EpochRecord) -> Option<f64>| {
        let points = history.iter().filter_map(|record| {
            let value = value(record).filter(|v| v.is_finite())?;
            Some((record.epoch as f64, value))
        });
        Curve { name, colour, points: points.collect() }
    };
    let mut canvas = Canvas::new(WIDTH, 3 * PANEL);
    let losses = [
        curve("training loss", BLUE, &|r| Some(r.train_loss)),
        curve("validation loss", RED, &|r| r.val_loss),
    ];
    let dice = [
        curve("pseudo Dice", PALE, &|r| r.pseudo_dice),
        curve("moving average", GREEN, &|r| r.ema_pseudo_dice),
    ];
    let rate = [curve("learning rate", BLUE, &|r| Some(r.lr))];
    let last = history.last().map_or(1.0, |record| record.epoch as f64).max(1.0);
    panel(&mut canvas, 0, last, None, &losses);
    panel(&mut canvas, 1, last, Some((0.0, 1.0)), &dice);
    panel(&mut canvas, 2, last, None, &rate);
    canvas
}

/// One plot: axes, grid, labels, curves; `fixed` are the ends of its axis where they are known.
fn panel(
    canvas: &mut Canvas,
    index: usize,
    last_epoch: f64,
    fixed: Option<(f64, f64)>,
    curves: &[Curve],
) {
    let [left, right, top, bottom] = MARGINS;
    let (x0, x1) = (left, WIDTH as f64 - right);
    let (y0, y1) = ((index * PANEL) as f64 + top, ((index + 1) * PANEL) as f64 - bottom);
    let values = || curves.iter().flat_map(|c| &c.points).map(|p| p.1);
    let (low, high) = fixed.unwrap_or_else(|| {
        let (low, high) = values().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        match low < high {
            true => (low - 0.05 * (high - low), high + 0.05 * (high - low)),
            // Nothing to show yet, or always the same.
            false if low == high => {
                (low - 0.5 * low.abs().max(1e-9), low + 0.5 * low.abs().max(1e-9))
            }
            false => (0.0, 1.0),
        }
    });
    let x = |epoch: f64| x0 + (x1 - x0) * epoch / last_epoch;
    let y = |value: f64| y1 - (y1 - y0) * (value - low) / (high - low);

    for (value, label) in ticks(low, high, 5) {
        canvas.line((x0, y(value)), (x1, y(value)), 1.0, GREY);
        canvas.text((x0 - 8.0 - text_width(&label, TEXT), y(value) - 7.0), TEXT, BLACK, &label);
    }
    for (value, label) in ticks(0.0, last_epoch, 8).into_iter().filter(|t| t.0.fract() == 0.0) {
        canvas.line((x(value), y0), (x(value), y1), 1.0, GREY);
        canvas.text((x(value) - text_width(&label, TEXT) / 2.0, y1 + 8.0), TEXT, BLACK, &label);
    }
    for (from, to) in [((x0, y0), (x0, y1)), ((x0, y1), (x1, y1))] {
        canvas.line(from, to, 2.0, BLACK);
    }
    canvas.text(
        ((x0 + x1) / 2.0 - text_width("epoch", TEXT) / 2.0, y1 + 30.0),
        TEXT,
        BLACK,
        "epoch",
    );

    let mut legend = x0;
    for curve in curves {
        canvas.line((legend, y0 - 18.0), (legend + 30.0, y0 - 18.0), 3.0, curve.colour);
        canvas.text((legend + 40.0, y0 - 25.0), TEXT, BLACK, curve.name);
        legend += 70.0 + text_width(curve.name, TEXT);
        for pair in curve.points.windows(2) {
            let [from, to] = [pair[0], pair[1]].map(|(epoch, value)| (x(epoch), y(value)));
            canvas.line(from, to, 2.0, curve.colour);
        }
        if let [(epoch, value)] = curve.points[..] {
            canvas.dot((x(epoch), y(value)), 6.0, curve.colour);
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
            let label = match decimals > 4 && value != 0.0 {
                true => format!("{value:.1e}"),
                false => format!("{value:.decimals$}"),
            };
            (value, label)
        })
        .collect()
}

fn encode(canvas: &Canvas) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&canvas.pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of some epochs, with an epoch in it that knows no Dice.
    fn history(epochs: usize) -> Vec<EpochRecord> {
        let record = |epoch: usize| {
            let t = (epoch + 1) as f64 / (epochs + 1) as f64;
            EpochRecord {
                epoch,
                lr: 0.01 * (1.0 - t).powf(0.9),
                train_loss: 1.0 - 1.8 * t.sqrt(),
                val_loss: Some(1.0 - 1.6 * t.sqrt()),
                dice_per_class: vec![Some(t)],
                pseudo_dice: (epoch != 1).then_some(t),
                ema_pseudo_dice: Some(0.9 * t),
                grad_norm: 1.0,
                skipped_steps: 0,
                train_secs: 1.0,
                wait_secs: 0.0,
                val_secs: 0.1,
            }
        };
        (0..epochs).map(record).collect()
    }

    fn count(canvas: &Canvas, colour: Colour) -> usize {
        canvas.pixels.chunks(3).filter(|pixel| **pixel == colour).count()
    }

    #[test]
    fn every_curve_is_drawn() {
        let empty = picture(&[]);
        for epochs in [1, 2, 50, 1000] {
            let full = picture(&history(epochs));
            for colour in [BLUE, RED, PALE, GREEN] {
                // More than the legend has.
                assert!(count(&full, colour) > count(&empty, colour), "{epochs}: {colour:?}");
            }
        }
    }

    #[test]
    fn values_stand_at_their_height() {
        // A line from loss 1 down to 0 crosses the middle of the plot in its middle.
        let curve = Curve { name: "", colour: RED, points: vec![(0.0, 1.0), (10.0, 0.0)] };
        let mut canvas = Canvas::new(WIDTH, PANEL);
        panel(&mut canvas, 0, 10.0, Some((0.0, 1.0)), &[curve]);
        let [left, right, top, bottom] = MARGINS;
        let at = |x: f64, y: f64| {
            let at = (y as usize * WIDTH + x as usize) * 3;
            canvas.pixels[at..at + 3] == RED
        };
        let (x, y) = ((left + WIDTH as f64 - right) / 2.0, (top + PANEL as f64 - bottom) / 2.0);
        assert!(at(x, y));
        assert!(!at(x, y + 20.0) && !at(x, y - 20.0));
    }

    #[test]
    fn ticks_are_round() {
        let check = |low, high, labels: &[&str]| {
            let found: Vec<_> = ticks(low, high, 5).into_iter().map(|t| t.1).collect();
            assert_eq!(found, labels);
        };
        check(0.0, 1.0, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(-0.93, 1.1, &["-0.5", "0.0", "0.5", "1.0"]);
        check(0.0, 1000.0, &["0", "200", "400", "600", "800", "1000"]);
        check(0.0, 1e-5, &["0.000000", "2.0e-6", "4.0e-6", "6.0e-6", "8.0e-6", "1.0e-5"]);
    }

    #[test]
    fn the_file_is_a_png_of_that_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROGRESS_FILE);
        draw(&history(30), &path).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (1200, 1200));
    }

    #[test]
    fn every_letter_of_the_labels_is_known() {
        for letter in "training loss validation pseudo Dice moving average learning rate epoch \
                       0123456789.-e"
            .chars()
            .filter(|letter| *letter != ' ')
        {
            assert_ne!(font::glyph(letter), [0; font::HEIGHT], "{letter}");
        }
    }
}
