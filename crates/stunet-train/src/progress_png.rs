//! `progress.png`: loss, pseudo-Dice and learning rate over the epochs.

use crate::error::{Result, TrainError};
use crate::history::EpochRecord;
use std::io::Write;
use std::path::Path;
use stunet_model::weights::atomic;
use stunet_pictures::canvas::{Canvas, Colour};
use stunet_pictures::chart::{Chart, Curve, draw_charts};

/// Name of the picture in a fold's folder.
pub const PROGRESS_FILE: &str = "progress.png";

const BLUE: Colour = [31, 90, 180];
const RED: Colour = [205, 55, 45];
const GREEN: Colour = [30, 140, 60];
const PALE: Colour = [150, 200, 160];

/// Draws the history of a run into a PNG file, which appears whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(history: &[EpochRecord], path: &Path) -> Result<()> {
    let bytes = picture(history)
        .to_png()
        .map_err(|e| TrainError::io("write", path, std::io::Error::other(e)))?;
    let io = |e| TrainError::io("write", path, e);
    atomic::write(path, io, |file| file.write_all(&bytes).map_err(io))
}

fn picture(history: &[EpochRecord]) -> Canvas {
    let curve = |name: &str, colour, value: &dyn Fn(&EpochRecord) -> Option<f64>| {
        let points =
            history.iter().filter_map(|record| Some((record.epoch as f64, value(record)?)));
        Curve::new(name, colour, points.collect())
    };
    let losses = vec![
        curve("training loss", BLUE, &|r| Some(r.train_loss)),
        curve("validation loss", RED, &|r| r.val_loss),
    ];
    let dice = vec![
        curve("pseudo Dice", PALE, &|r| r.pseudo_dice),
        curve("moving average", GREEN, &|r| r.ema_pseudo_dice),
    ];
    let rate = vec![curve("learning rate", BLUE, &|r| Some(r.lr))];
    let x_last = history.last().map(|record| record.epoch as f64);
    let chart = |curves| Chart { x_last, ..Chart::new("epoch", curves) };
    let dice = Chart { range: Some([0.0, 1.0]), ..chart(dice) };
    draw_charts(&[chart(losses), dice, chart(rate)])
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
        let (width, height) = (canvas.width(), canvas.height());
        (0..width * height).filter(|i| canvas.pixel(i % width, i / width) == colour).count()
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
    fn the_file_is_a_png_of_that_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROGRESS_FILE);
        draw(&history(30), &path).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (1200, 1140));
    }
}
