//! Names, volumes and scores of labels under a picture.

use super::layout::{COLUMNS, Fields};
use super::{FoundLabel, Scene};
use crate::canvas::{Anchor, Area, Canvas, TextStyle};

/// Rows of labels at most.
const MOST_ROWS: usize = 9;
/// Pixels of a row.
pub(super) const ROW: usize = 23;
/// Pixels of the headings.
pub(super) const HEAD: usize = 30;
const SIZE: f32 = 14.0;
/// Between columns, beside the gap of the fields.
const APART: f32 = 14.0;

/// How labels are spread over columns.
pub(super) struct Legend<'a> {
    labels: &'a [FoundLabel],
    with_dice: bool,
    rows: usize,
}

impl<'a> Legend<'a> {
    pub fn of(scene: &'a Scene<'_>) -> Self {
        let labels = scene.found();
        let rows = labels.len().div_ceil(COLUMNS).min(MOST_ROWS);
        Self { labels, with_dice: scene.truth.is_some(), rows }
    }

    pub fn height(&self) -> usize {
        HEAD + self.rows.max(1) * ROW
    }

    /// Labels that are named, and how many are not.
    fn named(&self) -> (usize, usize) {
        let places = self.rows * COLUMNS;
        match self.labels.len() > places {
            true => (places - 1, self.labels.len() - (places - 1)),
            false => (self.labels.len(), 0),
        }
    }

    pub fn draw(&self, canvas: &mut Canvas, fields: &Fields, top: usize, colours: &[[u8; 3]; 2]) {
        let [ink, dim] = *colours;
        let heading = TextStyle::new(SIZE, dim);
        if self.labels.is_empty() {
            canvas.text((fields.left(0) as f32, (top + 18) as f32), &heading, "No label was found");
            return;
        }
        let (named, more) = self.named();
        let text = TextStyle::new(SIZE, ink);
        for (index, label) in self.labels.iter().take(named).enumerate() {
            let (column, row) = (index / self.rows, index % self.rows);
            let left = fields.left(column) as f32;
            let right = left + fields.width as f32 - APART;
            let baseline = (top + HEAD + row * ROW) as f32 + 12.0;
            if row == 0 {
                let end = heading.anchored(Anchor::End);
                canvas.text((self.ml_end(right), top as f32 + 18.0), &end, "ml");
                if self.with_dice {
                    canvas.text((right, top as f32 + 18.0), &end, "Dice");
                }
                if column == 0 {
                    canvas.text((left, top as f32 + 18.0), &heading, "Labels by volume");
                }
            }
            let swatch = Area { x: left, y: baseline - 11.0, width: 13.0, height: 13.0 };
            canvas.fill_round(swatch, 3.0, label.colour);
            let volume = millilitres(label.volume_ml);
            let end = text.anchored(Anchor::End);
            canvas.text((self.ml_end(right), baseline), &end, &volume);
            if let Some(dice) = label.dice {
                canvas.text((right, baseline), &end, &format!("{dice:.2}"));
            }
            let room = self.ml_end(right) - text.width(&volume) - left - 20.0 - 10.0;
            canvas.text((left + 20.0, baseline), &text, &text.fitted(&label.name, room));
        }
        if more > 0 {
            let (left, row) = (fields.left(COLUMNS - 1) as f32, self.rows - 1);
            let baseline = (top + HEAD + row * ROW) as f32 + 12.0;
            canvas.text((left + 20.0, baseline), &heading, &format!("and {more} more"));
        }
    }

    /// Where volumes end in a column that ends at `right`.
    fn ml_end(&self, right: f32) -> f32 {
        if self.with_dice { right - 48.0 } else { right }
    }
}

/// Millilitres with as many digits as say something, thousands apart.
pub(super) fn millilitres(ml: f64) -> String {
    let text = match ml {
        0.0 => return "0".to_owned(),
        ml if ml < 0.005 => return "<0.01".to_owned(),
        ml if ml < 0.095 => return format!("{ml:.2}"),
        ml if ml < 9.95 => return format!("{ml:.1}"),
        ml => format!("{ml:.0}"),
    };
    let mut grouped = String::new();
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            grouped.push('\u{a0}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_readable() {
        let check = |ml, text: &str| assert_eq!(millilitres(ml), text);
        check(0.0, "0");
        check(0.004, "<0.01");
        check(0.04, "0.04");
        check(0.34, "0.3");
        check(9.96, "10");
        check(1489.6, "1\u{a0}490");
    }
}
