//! A part of a preprocessed volume: only it is predicted, and the rest of the file is background.

use super::crop::BoundingBox;
use super::resample::AxisTaps;
use super::{Preprocessed, Trace};
use ndarray::s;

/// Which part of the network's volume there is, and the voxels of the output frame that need nothing
/// else.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub network: BoundingBox,
    pub output: BoundingBox,
}

impl Part {
    /// The part's taps of those of the whole volume.
    pub fn taps(&self, whole: [AxisTaps; 3]) -> [AxisTaps; 3] {
        let mut axes = whole.into_iter().zip(self.network.iter().zip(&self.output));
        std::array::from_fn(|_| {
            let (taps, ([begin, end], [from, to])) = axes.next().expect("three axes");
            // An upper neighbour beyond the part has no weight.
            let shifted =
                |at: &[usize]| at[*from..*to].iter().map(|at| (*at).min(end - 1) - begin).collect();
            AxisTaps {
                lower: shifted(&taps.lower),
                upper: shifted(&taps.upper),
                weight_upper: taps.weight_upper[*from..*to].to_vec(),
            }
        })
    }
}

impl Trace {
    /// Where the voxels of a box of the file (`[z, y, x]`, half-open) are in the network's volume; none
    /// where the box lies outside of what preprocessing has kept.
    pub fn network_box(&self, file_box: BoundingBox) -> Option<BoundingBox> {
        let turn = self.geometry.turn();
        let shape = self.geometry.shape();
        let mut turned = turn.reorder(file_box);
        for axis in (0..3).filter(|axis| turn.flipped()[*axis]) {
            let [from, to] = turned[axis];
            turned[axis] = [shape[axis].saturating_sub(to), shape[axis].saturating_sub(from)];
        }
        let mut cropped = [[0; 2]; 3];
        for (axis, [low, high]) in self.bounds.into_iter().enumerate() {
            let [from, to] = turned[axis];
            let (from, to) = (from.clamp(low, high) - low, to.clamp(low, high) - low);
            if from >= to {
                return None;
            }
            cropped[axis] = [from, to];
        }
        let output = self.transpose_forward.map(|axis| cropped[axis]);
        let taps = self.whole_taps();
        Some(std::array::from_fn(|axis| {
            let [from, to] = output[axis];
            let lower = taps[axis].lower[from..to].iter().copied().min().unwrap_or(0);
            let upper = (from..to).map(|at| upper(&taps[axis], at)).max().unwrap_or(0);
            [lower, upper + 1]
        }))
    }

    /// The part of the network's volume that this is of, half-open; none where it is of all of it.
    pub fn part_of_network(&self) -> Option<BoundingBox> {
        Some(self.part.as_ref()?.network)
    }

    /// Shape of the network's volume as a whole, also where this is of a part.
    pub fn whole_network_shape(&self) -> [usize; 3] {
        self.network_shape
    }

    /// What comes back to the file of what is there, as a box of the file (`[z, y, x]`, half-open).
    pub fn file_box(&self) -> BoundingBox {
        let (turn, shape, bounds) =
            (self.geometry.turn(), self.geometry.shape(), self.bounding_box());
        let mut in_file = [[0; 2]; 3];
        for axis in 0..3 {
            let [from, to] = bounds[axis];
            in_file[turn.axes()[axis]] = match turn.flipped()[axis] {
                true => [shape[axis] - to, shape[axis] - from],
                false => [from, to],
            };
        }
        in_file
    }

    /// The trace of a part of the network's volume: labels of the part come back to their place in the
    /// file, and everything else is background.
    ///
    /// # Panics
    /// When the box is empty or reaches beyond the network's volume, or this is a part already.
    pub fn within(&self, network: BoundingBox) -> Self {
        assert!(self.part.is_none(), "a part of a part");
        let fits = |([from, to], length): (&[usize; 2], usize)| from < to && *to <= length;
        assert!(network.iter().zip(self.network_shape).all(fits), "a box beyond the volume");
        let taps = self.whole_taps();
        let output = std::array::from_fn(|axis| {
            let [begin, end] = network[axis];
            let inside =
                |at: &usize| taps[axis].lower[*at] >= begin && upper(&taps[axis], *at) < end;
            let first = (0..taps[axis].len()).find(inside).unwrap_or(0);
            let count = (first..taps[axis].len()).take_while(inside).count();
            [first, first + count]
        });
        let mut part = self.clone();
        part.part = Some(Part { network, output });
        part
    }
}

/// The last voxel that counts for an output.
fn upper(taps: &AxisTaps, at: usize) -> usize {
    if taps.weight_upper[at] == 0.0 { taps.lower[at] } else { taps.upper[at] }
}

impl Preprocessed {
    /// A part of it, by a box of the network's volume: normalised and resampled as in the whole, so that
    /// the network sees the same voxels.
    ///
    /// ```
    /// use ndarray::Array4;
    /// use stunet_data::geometry::Geometry;
    /// use stunet_data::image::Image;
    /// use stunet_data::plans::Plans;
    /// use stunet_data::preprocess::preprocess;
    /// let geometry = Geometry::axis_aligned([8, 8, 8], [1.5; 3])?;
    /// let image = Image::new(Array4::from_elem((1, 8, 8, 8), 40.0), geometry)?;
    /// let whole = preprocess(&image, &Plans::totalsegmentator())?;
    /// let part = whole.within([[2, 6], [0, 8], [1, 4]]);
    /// assert_eq!(part.image.shape(), [1, 4, 8, 3]);
    /// assert_eq!(part.trace.output_shape(), [4, 8, 3]);
    /// assert_eq!(part.trace.bounding_box(), [[2, 6], [0, 8], [1, 4]]);
    /// # Ok::<(), stunet_data::DataError>(())
    /// ```
    ///
    /// # Panics
    /// As [`Trace::within`].
    pub fn within(self, network: BoundingBox) -> Self {
        let trace = self.trace.within(network);
        let [z, y, x] = network.map(|[from, to]| from..to);
        Self { image: self.image.slice(s![.., z, y, x]).to_owned(), trace }
    }
}

#[cfg(test)]
mod tests;
