//! Tiles, and how a volume is cut into boxes of them.

use super::Shape;

/// Bytes of a box's transformed values, about: most of a second cache.
const BOX_BYTES: usize = 640 << 10;
/// Tiles of a box: enough to use every weight often, few enough to fit.
const TILES: std::ops::RangeInclusive<usize> = 28..=64;

/// Channels below which transforms cost more than the products they save.
const LEAST_CHANNELS: usize = 8;
/// Small tiles below which the kernel's transform costs more than the products they save.
const LEAST_TILES: usize = 32;
/// The same for large tiles instead of small ones.
const LEAST_LARGE_TILES: usize = 128;
/// The same for tiles of strided convolutions.
const LEAST_STRIDED_TILES: usize = 64;

/// What is transformed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu::conv) enum Tile {
    /// 2×2×2 outputs.
    Small,
    /// 4×4×2 outputs.
    Large,
    /// 2×2×2 outputs at stride 2 along each axis; forward alone.
    Strided,
}

impl Tile {
    /// The tiles by which a convolution is computed fastest, if by any.
    pub(super) fn of(shape: &Shape) -> Option<Self> {
        if shape.inputs.min(shape.outputs) < LEAST_CHANNELS {
            return None;
        }
        let size = shape.out_size();
        let pays = |tile: &Self| {
            let (tiles, least) = (tile.count(size), tile.least());
            // Sizes are filled up to whole tiles; thin volumes would mostly be filling.
            let filled = tiles * tile.outputs().iter().product::<usize>();
            let is_filled = tile.is_filled(filled, super::super::voxels(size));
            shape.stride == [tile.stride(); 3] && shape.batch * tiles >= least && is_filled
        };
        [Self::Large, Self::Small, Self::Strided].into_iter().find(pays)
    }

    /// The same of the gradients of a convolution.
    pub(super) fn of_gradients(shape: &Shape) -> Option<Self> {
        Self::of(shape).filter(|tile| tile.stride() == 1)
    }

    const fn least(self) -> usize {
        match self {
            Self::Small => LEAST_TILES,
            Self::Large => LEAST_LARGE_TILES,
            Self::Strided => LEAST_STRIDED_TILES,
        }
    }

    const fn is_filled(self, filled: usize, voxels: usize) -> bool {
        match self {
            Self::Small => filled <= voxels * 5 / 3,
            // A small tile needs twice as many products for each output.
            Self::Large => filled <= voxels * 5 / 4,
            // Products are 0.58 of the direct ones.
            Self::Strided => filled <= voxels * 4 / 3,
        }
    }

    /// Outputs along each axis.
    pub(super) const fn outputs(self) -> [usize; 3] {
        match self {
            Self::Small | Self::Strided => [2, 2, 2],
            Self::Large => [4, 4, 2],
        }
    }

    /// The stride along each axis.
    pub(super) const fn stride(self) -> usize {
        match self {
            Self::Small | Self::Large => 1,
            Self::Strided => 2,
        }
    }

    /// Inputs along each axis.
    pub(super) const fn inputs(self) -> [usize; 3] {
        let ([z, y, x], step) = (self.outputs(), self.stride());
        [step * (z - 1) + 3, step * (y - 1) + 3, step * (x - 1) + 3]
    }

    /// Transformed values of the inputs: as many as inputs.
    pub(super) const fn input_frequencies(self) -> usize {
        let [z, y, x] = self.inputs();
        z * y * x
    }

    /// Transformed values of a kernel.
    pub(in crate::cpu::conv) const fn frequencies(self) -> usize {
        match self {
            Self::Small | Self::Large => self.input_frequencies(),
            // Two of five along each axis are the same.
            Self::Strided => 64,
        }
    }

    /// Transformed values of the outputs.
    pub(super) const fn output_frequencies(self) -> usize {
        match self {
            Self::Small | Self::Large => self.input_frequencies(),
            Self::Strided => 27,
        }
    }

    /// Tiles of a volume along each axis.
    fn along(self, size: [usize; 3]) -> [usize; 3] {
        let outputs = self.outputs();
        std::array::from_fn(|axis| size[axis].div_ceil(outputs[axis]))
    }

    fn count(self, size: [usize; 3]) -> usize {
        self.along(size).iter().product()
    }
}

/// A cut of a volume into boxes of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// What boxes consist of.
    pub tile: Tile,
    /// Voxels of the volume written.
    pub size: [usize; 3],
    /// Tiles of a box along each axis.
    tiles: [usize; 3],
    /// Boxes along each axis.
    boxes: [usize; 3],
    samples: usize,
}

/// Some tiles of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Box3 {
    /// What it consists of.
    pub tile: Tile,
    pub sample: usize,
    /// First voxel written.
    pub origin: [usize; 3],
    /// Tiles along each axis.
    pub tiles: [usize; 3],
}

impl Cut {
    /// A cut of outputs into boxes of which a tile keeps transformed values of so many channels read and written.
    pub(super) fn new(
        tile: Tile,
        size: [usize; 3],
        samples: usize,
        [read, written]: [usize; 2],
    ) -> Self {
        let all = tile.along(size);
        let values = tile.input_frequencies() * read + tile.output_frequencies() * written;
        let most = BOX_BYTES / (4 * values);
        let most = most.clamp(*TILES.start(), *TILES.end());
        let mut best: Option<(f64, [usize; 3])> = None;
        for z in 1..=all[0].min(4) {
            for y in 1..=all[1].min(most / z) {
                // Whole rows, or runs that are read and written in blocks of eight voxels.
                let x = all[2].min(most / (z * y));
                let x = if x < all[2] && x > 4 { x / 4 * 4 } else { x };
                let cost = cost(tile, all, [z, y, x]);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, [z, y, x]));
                }
            }
        }
        let tiles = best.expect("a volume has a tile").1;
        let boxes = std::array::from_fn(|axis| all[axis].div_ceil(tiles[axis]));
        Self { tile, size, tiles, boxes, samples }
    }

    /// Boxes of all samples.
    pub(super) fn len(&self) -> usize {
        self.samples * self.boxes.iter().product::<usize>()
    }

    /// Box `index` of [`len`](Self::len).
    pub(super) fn get(&self, index: usize) -> Box3 {
        let [_, by, bx] = self.boxes;
        let per_sample = self.boxes.iter().product::<usize>();
        let (sample, index) = (index / per_sample, index % per_sample);
        let at = [index / (by * bx), index / bx % by, index % bx];
        let first: [usize; 3] = std::array::from_fn(|axis| at[axis] * self.tiles[axis]);
        let tiles = std::array::from_fn(|axis| {
            self.tiles[axis].min(self.tile.along(self.size)[axis] - first[axis])
        });
        let outputs = self.tile.outputs();
        let origin = std::array::from_fn(|axis| outputs[axis] * first[axis]);
        Box3 { tile: self.tile, sample, origin, tiles }
    }

    /// The largest box there is, for the buffers.
    pub(super) fn largest(&self) -> Box3 {
        Box3 { tile: self.tile, sample: 0, origin: [0; 3], tiles: self.tiles }
    }
}

/// What a row costs to begin, in voxels copied.
const ROW: usize = 16;

/// Work beside the products, for one tile: voxels read with their halo in blocks of eight, and what
/// boxes that end short waste.
fn cost(tile: Tile, all: [usize; 3], tiles: [usize; 3]) -> f64 {
    let [z, y, x] = Box3 { tile, sample: 0, origin: [0; 3], tiles }.outer();
    let row = (x.div_ceil(8) * 8 + ROW) as f64;
    let waste: f64 = (0..3)
        .map(|axis| (all[axis].div_ceil(tiles[axis]) * tiles[axis]) as f64 / all[axis] as f64)
        .product();
    let count = tiles.iter().product::<usize>() as f64;
    let few = (*TILES.start() as f64 / count).max(1.0);
    ((z * y) as f64 * row / count + 20.0) * waste.sqrt() * few
}

impl Box3 {
    /// Tiles.
    pub(super) fn count(&self) -> usize {
        self.tiles.iter().product()
    }

    /// Tiles from one frequency to the next: odd, so that frequencies fall on different cache sets.
    pub(super) fn pitch(&self) -> usize {
        self.count() | 1
    }

    /// Vectors from the first frequency's tiles to behind the last one's, of inputs.
    pub(super) fn input_len(&self) -> usize {
        self.tile.input_frequencies() * self.pitch()
    }

    /// The same of outputs.
    pub(super) fn output_len(&self) -> usize {
        self.tile.output_frequencies() * self.pitch()
    }

    /// Voxels written along each axis, those behind the volume's end included.
    pub(super) fn inner(&self) -> [usize; 3] {
        let outputs = self.tile.outputs();
        std::array::from_fn(|axis| outputs[axis] * self.tiles[axis])
    }

    /// Voxels read along each axis.
    pub(super) fn outer(&self) -> [usize; 3] {
        let step = self.tile.stride();
        self.inner().map(|inner| step * (inner - 1) + 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_hold_every_voxel_once() {
        let sizes = [([7, 12, 19], 32), ([128, 128, 128], 32), ([1, 2, 300], 4000)];
        let tiles = [Tile::Small, Tile::Large, Tile::Strided];
        for (tile, (size, channels)) in tiles.into_iter().flat_map(|tile| sizes.map(|s| (tile, s)))
        {
            let cut = Cut::new(tile, size, 2, [channels / 2; 2]);
            let mut seen = vec![0u8; 2 * size.iter().product::<usize>()];
            for index in 0..cut.len() {
                let found = cut.get(index);
                assert!(found.count() <= cut.largest().count());
                let end: [usize; 3] = std::array::from_fn(|axis| {
                    (found.origin[axis] + found.inner()[axis]).min(size[axis])
                });
                for z in found.origin[0]..end[0] {
                    for y in found.origin[1]..end[1] {
                        for x in found.origin[2]..end[2] {
                            seen[((found.sample * size[0] + z) * size[1] + y) * size[2] + x] += 1;
                        }
                    }
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{size:?}");
        }
    }
}
