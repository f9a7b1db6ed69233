//! Where an axis may be cut, and which cuts cost the fewest windows.

use crate::windows::Windows;
use std::ops::Range;
use stunet_data::preprocess::resample::AxisTaps;

/// A stretch of an axis.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub network: Range<usize>,
    pub output: Range<usize>,
    /// Starts of windows that reach into it.
    num_starts: usize,
}

/// The stretches between any two of the places where an axis may be cut.
pub(super) struct Divisions {
    num_cuts: usize,
    /// Stretch from cut `i` to cut `j` at `[i][j - i - 1]`.
    pieces: Vec<Vec<Option<Stretch>>>,
}

impl Divisions {
    /// Cuts at starts and ends of windows, where the fewest are run twice, and at equal distances;
    /// at multiples of `grain` in the output.
    pub fn new(windows: &Windows, axis: usize, taps: &AxisTaps, grain: usize) -> Self {
        const EQUAL_PARTS: usize = 12;
        let (size, below) = (windows.volume_shape()[axis], windows.padding_below()[axis]);
        let window = windows.window_shape()[axis];
        let starts = &windows.starts()[axis];
        let ends = starts.iter().map(|start| start + window);
        let of_windows = starts.iter().copied().chain(ends).map(|at| at.saturating_sub(below));
        let equal = (1..EQUAL_PARTS).map(|i| i * size / EQUAL_PARTS);
        let mut cuts: Vec<usize> = of_windows
            .chain(equal)
            .filter(|at| (1..size).contains(at))
            // The output that is restored from voxels below the cut alone.
            .map(|at| taps.upper.partition_point(|upper| *upper < at))
            .map(|at| at / grain * grain)
            .chain([0, taps.len()])
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let piece = |from: usize, to: usize| {
            let network = taps.lower[from]..taps.upper[to - 1] + 1;
            let reached = starts.iter().filter(|start| {
                **start < network.end + below && **start + window > network.start + below
            });
            Stretch { num_starts: reached.count(), network, output: from..to }
        };
        let pieces = (0..cuts.len() - 1)
            .map(|i| cuts[i + 1..].iter().map(|to| Some(piece(cuts[i], *to))).collect())
            .collect();
        Self { num_cuts: cuts.len(), pieces }
    }

    pub fn pieces(&self) -> impl Iterator<Item = &Stretch> {
        self.pieces.iter().flatten().flatten()
    }

    /// The pieces between neighbouring cuts.
    pub fn finest(&self) -> impl Iterator<Item = &Stretch> {
        self.pieces.iter().filter_map(|from| from.first()?.as_ref())
    }

    /// The division into allowed pieces with the fewest starts in all, and their number.
    pub fn cheapest(&self, allowed: &dyn Fn(&Stretch) -> bool) -> Option<(usize, Vec<Stretch>)> {
        // Cost of the cheapest division up to each cut, and where its last piece begins.
        let mut best: Vec<Option<(usize, usize)>> = vec![None; self.num_cuts];
        best[0] = Some((0, 0));
        for to in 1..self.num_cuts {
            for from in 0..to {
                let piece = self.pieces[from][to - from - 1].as_ref();
                let (Some((cost, _)), Some(piece)) = (best[from], piece) else { continue };
                let cost = cost + piece.num_starts;
                if best[to].is_none_or(|(least, _)| cost < least) && allowed(piece) {
                    best[to] = Some((cost, from));
                }
            }
        }
        let (cost, _) = best[self.num_cuts - 1]?;
        let mut parts = Vec::new();
        let mut to = self.num_cuts - 1;
        while to > 0 {
            let (_, from) = best[to]?;
            parts.extend(self.pieces[from][to - from - 1].clone());
            to = from;
        }
        parts.reverse();
        Some((cost, parts))
    }
}
