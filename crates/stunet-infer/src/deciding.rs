//! Labels that are decided on the device, where the sums are: only they are read back.

use crate::sink::RowDecision;
use crate::tile::Tile;
use std::ops::{ControlFlow, Range};
use stunet_data::preprocess::resample::AxisTaps;
use stunet_model::{LinePlace, WindowSums};

/// Bytes of labels that are read back at a time.
pub(crate) const PIECE_BYTES: usize = 64 << 20;

/// How far the labels of a tile have come.
pub(crate) struct Deciding {
    rule: RowDecision,
    /// Rows and columns of the output, in those of the tile.
    lines: [Vec<LinePlace>; 2],
    /// Planes of padding below the volume.
    below: usize,
    /// The next plane of the output.
    next: usize,
    /// The lowest plane of the volume of which averages are kept.
    kept: usize,
}

impl Deciding {
    pub fn new(rule: RowDecision, tile: &Tile, below: usize) -> Self {
        let rows = places(&rule.taps[1], tile.out_rows.clone(), |at| at - tile.rows.start);
        let columns = places(&rule.taps[2], tile.out_columns.clone(), |at| at - tile.columns.start);
        Self { rule, lines: [rows, columns], below, next: 0, kept: 0 }
    }

    /// Decides what became possible with planes of the volume that are final, and gives labels
    /// `[planes, rows, columns]` to `send`, some planes of the output at a time.
    pub fn close(
        &mut self,
        sums: &mut WindowSums,
        planes: &Range<usize>,
        num_folds: usize,
        send: &mut dyn FnMut(Range<usize>, Vec<i32>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let below = self.below;
        sums.average(planes.start + below..planes.end + below, num_folds);
        let taps = &self.rule.taps[0];
        let last = taps.upper.partition_point(|upper| *upper < planes.end).max(self.next);
        let [rows, columns] = &self.lines;
        let step = (PIECE_BYTES / (rows.len() * columns.len() * size_of::<i32>()).max(1)).max(1);
        for from in (self.next..last).step_by(step) {
            let part = from..(from + step).min(last);
            let lines = places(taps, part.clone(), |at| at + below);
            let labels = sums.labels([&lines, rows, columns], &self.rule.decision);
            let labels =
                stunet_model::read(labels).try_into_vec::<i32>().expect("labels are integers");
            send(part, labels)?;
        }
        self.next = last;
        // What the next plane of the output is interpolated with.
        let needed = taps.lower.get(last).map_or(planes.end, |lower| (*lower).min(planes.end));
        assert!(planes.end - needed <= 1, "neighbours are interpolated: {needed} of {planes:?}");
        if needed > self.kept {
            sums.forget(self.kept + below..needed + below);
            self.kept = needed;
        }
        ControlFlow::Continue(())
    }
}

/// Where the places of a range of the output lie.
fn places(
    taps: &AxisTaps,
    range: Range<usize>,
    shifted: impl Fn(usize) -> usize,
) -> Vec<LinePlace> {
    let place = |index: usize| LinePlace {
        lower: shifted(taps.lower[index]),
        upper: shifted(taps.upper[index]),
        weight_upper: taps.weight_upper[index],
    };
    range.map(place).collect()
}
