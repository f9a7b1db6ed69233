//! How a volume is cut into boxes of tiles.

/// Bytes of a box's transformed values, about: most of a second cache.
const BOX_BYTES: usize = 640 << 10;
/// Tiles of a box: enough to use every weight often, few enough to fit.
const TILES: std::ops::RangeInclusive<usize> = 28..=64;

/// A cut of a volume into boxes of 2×2×2 tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Voxels of the volume.
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
    pub sample: usize,
    /// First voxel.
    pub origin: [usize; 3],
    /// Tiles along each axis.
    pub tiles: [usize; 3],
}

impl Cut {
    /// A cut into boxes of which a tile keeps `channels` transformed values per frequency.
    pub(super) fn new(size: [usize; 3], samples: usize, channels: usize) -> Self {
        let all = size.map(|size| size.div_ceil(2));
        let most = BOX_BYTES / (4 * super::FREQUENCIES * channels);
        let most = most.clamp(*TILES.start(), *TILES.end());
        let mut best: Option<(f64, [usize; 3])> = None;
        for z in 1..=all[0].min(4) {
            for y in 1..=all[1].min(most / z) {
                // Whole rows, or runs that are read and written in blocks of eight voxels.
                let x = all[2].min(most / (z * y));
                let x = if x < all[2] && x > 4 { x / 4 * 4 } else { x };
                let cost = cost(all, [z, y, x]);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, [z, y, x]));
                }
            }
        }
        let tiles = best.expect("a volume has a tile").1;
        let boxes = std::array::from_fn(|axis| all[axis].div_ceil(tiles[axis]));
        Self { size, tiles, boxes, samples }
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
            self.tiles[axis].min(self.size[axis].div_ceil(2) - first[axis])
        });
        Box3 { sample, origin: first.map(|first| 2 * first), tiles }
    }

    /// The largest box there is, for the buffers.
    pub(super) fn largest(&self) -> Box3 {
        Box3 { sample: 0, origin: [0; 3], tiles: self.tiles }
    }
}

/// What a row costs to begin, in voxels copied.
const ROW: usize = 16;

/// Work beside the products, for one tile: voxels read with their halo in blocks of eight, and what
/// boxes that end short waste.
fn cost(all: [usize; 3], tiles: [usize; 3]) -> f64 {
    let [z, y, x] = tiles.map(|tiles| 2 * tiles + 2);
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

    /// Voxels written along each axis, those behind the volume's end included.
    pub(super) fn inner(&self) -> [usize; 3] {
        self.tiles.map(|tiles| 2 * tiles)
    }

    /// Voxels read along each axis.
    pub(super) fn outer(&self) -> [usize; 3] {
        self.tiles.map(|tiles| 2 * tiles + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_hold_every_voxel_once() {
        for (size, channels) in [([7, 12, 19], 32), ([128, 128, 128], 32), ([1, 2, 300], 4000)] {
            let cut = Cut::new(size, 2, channels);
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
