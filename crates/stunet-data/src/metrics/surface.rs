//! How far the surfaces of two masks are apart.

use super::distance::NearestPoint;
use super::masks::MaskPair;
use super::numpy;
use super::surfels::{Surfels, corners};

/// Where the surface of a mask is, and what each of its points counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SurfaceDefinition {
    /// The centres of the voxels that have a face in common with the outside; all count the same. What
    /// MedPy measures, and with it nnU-Net 1.
    #[default]
    VoxelCentres,
    /// The corners between voxels at which some are in and some are out; each counts as the area of
    /// the surface there. What DeepMind's surface-distance measures.
    Surfels,
}

/// What is measured between surfaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SurfaceRules {
    /// Of what the Hausdorff distances and the mean distance are.
    pub definition: SurfaceDefinition,
    /// For each of these, the part of both surfaces that is no further from the other (NSD).
    pub tolerances_mm: Vec<f64>,
}

/// Distances between the surfaces of a reference and a prediction.
///
/// # Units
/// Millimetres, but for the NSD.
#[derive(Clone, Debug, PartialEq)]
pub struct SurfaceScores {
    /// The largest distance from either surface to the other (HD).
    pub hausdorff_mm: f64,
    /// The same, the farthest 5 % left out (HD95).
    pub hausdorff95_mm: f64,
    /// Mean distance from either surface to the other (ASSD).
    pub mean_distance_mm: f64,
    /// Normalised surface Dice for each tolerance, from 0 to 1.
    pub nsd: Vec<f64>,
}

impl SurfaceScores {
    /// Measures two masks on a grid of this spacing; `plane` says that the grid is that of an image of
    /// two dimensions, whose slice has no neighbours.
    ///
    /// If one of the masks is empty, distances do not exist (NaN) and the NSD is 0; if both are, it
    /// does not exist, either.
    ///
    /// ```
    /// use ndarray::Array3;
    /// use stunet_data::metrics::{MaskPair, SurfaceRules, SurfaceScores};
    /// let voxel = |x| Array3::from_shape_fn((3, 3, 9), |at| at == (1, 1, x));
    /// let masks = MaskPair::new(voxel(2).view(), voxel(6).view());
    /// let rules = SurfaceRules { tolerances_mm: vec![1.0], ..SurfaceRules::default() };
    /// let scores = SurfaceScores::of(&masks, [3.0, 1.0, 0.5], false, &rules);
    /// assert_eq!((scores.hausdorff_mm, scores.nsd[0]), (2.0, 0.0));
    /// ```
    ///
    /// # Panics
    /// When the spacing is not positive.
    ///
    /// # Source
    /// MedPy 0.5.2, `metric/binary.py`: `hd`, `hd95`, `assd`; surface-distance 0.1, `metrics.py`:
    /// `compute_robust_hausdorff`, `compute_average_surface_distance`,
    /// `compute_surface_dice_at_tolerance`; nnU-Net 1.7, `metrics.py`, for empty masks.
    ///
    /// # Deviations
    /// surface-distance says that the distance to nothing is infinite. nnU-Net 1 has no distances where
    /// a mask is the whole volume, either; here it is a mask like others. The mean distance between
    /// surfels is the mean of surface-distance's two.
    pub fn of(masks: &MaskPair, spacing_mm: [f64; 3], plane: bool, rules: &SurfaceRules) -> Self {
        assert!(spacing_mm.iter().all(|s| *s > 0.0), "a positive spacing");
        if masks.any() != [true; 2] {
            let nsd = if masks.any() == [false; 2] { f64::NAN } else { 0.0 };
            let nsd = vec![nsd; rules.tolerances_mm.len()];
            let none = f64::NAN;
            return Self { hausdorff_mm: none, hausdorff95_mm: none, mean_distance_mm: none, nsd };
        }
        let by_surfels = rules.definition == SurfaceDefinition::Surfels;
        let surfels = (by_surfels || !rules.tolerances_mm.is_empty())
            .then(|| Sides::between_surfels(masks, spacing_mm, plane));
        let nsd =
            surfels.iter().flat_map(|sides| rules.tolerances_mm.iter().map(|t| sides.nsd(*t)));
        let nsd = nsd.collect();
        match surfels.filter(|_| by_surfels) {
            Some(sides) => sides.scores_by_area(nsd),
            None => Sides::between_voxels(masks, spacing_mm, plane).scores_by_count(nsd),
        }
    }
}

/// Points of one surface: how far each is from the other, and its area.
#[derive(Default)]
struct Side {
    distances_mm: Vec<f64>,
    areas: Vec<f64>,
}

/// From the reference to the prediction, and back.
struct Sides([Side; 2]);

impl Sides {
    fn between_voxels(masks: &MaskPair, spacing_mm: [f64; 3], plane: bool) -> Self {
        let borders =
            [&masks.reference, &masks.prediction].map(|mask| border(mask, masks.shape, plane));
        let distances = distances(&borders, masks.shape, spacing_mm);
        Self(distances.map(|distances_mm| Side { distances_mm, areas: Vec::new() }))
    }

    fn between_surfels(masks: &MaskPair, spacing_mm: [f64; 3], plane: bool) -> Self {
        let of = |mask| Surfels::of(mask, masks.shape, spacing_mm, plane);
        let (first, second) = rayon::join(|| of(&masks.reference), || of(&masks.prediction));
        let borders = [first.is_border, second.is_border];
        let distances = distances(&borders, corners(masks.shape, plane), spacing_mm);
        let mut areas = [first.areas, second.areas].into_iter();
        Self(
            distances
                .map(|distances_mm| Side { distances_mm, areas: areas.next().unwrap_or_default() }),
        )
    }

    fn scores_by_count(self, nsd: Vec<f64>) -> SurfaceScores {
        let Self([mut all, back]) = self;
        all.distances_mm.extend(back.distances_mm);
        let mut all = all.distances_mm;
        let mean_distance_mm = numpy::mean(&all);
        SurfaceScores {
            hausdorff_mm: all.iter().copied().fold(0.0, f64::max),
            hausdorff95_mm: numpy::percentile(&mut all, 0.95),
            mean_distance_mm,
            nsd,
        }
    }

    fn scores_by_area(self, nsd: Vec<f64>) -> SurfaceScores {
        let mean = |side: &Side| {
            let weighted: Vec<f64> =
                side.distances_mm.iter().zip(&side.areas).map(|(d, a)| d * a).collect();
            numpy::sum(&weighted) / numpy::sum(&side.areas)
        };
        let mean_distance_mm = numpy::mean(&self.0.each_ref().map(mean));
        let robust = self.0.map(|side| side.farthest([1.0, 0.95]));
        SurfaceScores {
            hausdorff_mm: robust[0][0].max(robust[1][0]),
            hausdorff95_mm: robust[0][1].max(robust[1][1]),
            mean_distance_mm,
            nsd,
        }
    }

    fn nsd(&self, tolerance_mm: f64) -> f64 {
        let near = |side: &Side| {
            let pairs = side.distances_mm.iter().zip(&side.areas);
            let near: Vec<f64> =
                pairs.filter(|(d, _)| **d <= tolerance_mm).map(|(_, a)| *a).collect();
            numpy::sum(&near)
        };
        let [there, back] = self.0.each_ref().map(near);
        let [all, others] = self.0.each_ref().map(|side| numpy::sum(&side.areas));
        (there + back) / (all + others)
    }
}

impl Side {
    /// The distance that these parts of the area do not exceed.
    fn farthest(self, parts: [f64; 2]) -> [f64; 2] {
        let mut points: Vec<(f64, f64)> = self.distances_mm.into_iter().zip(self.areas).collect();
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let areas: Vec<f64> = points.iter().map(|(_, area)| *area).collect();
        let whole = numpy::sum(&areas);
        let mut so_far = 0.0;
        let shares: Vec<f64> = areas
            .iter()
            .map(|area| {
                so_far += area;
                so_far / whole
            })
            .collect();
        parts.map(|part| {
            let at = shares.partition_point(|share| *share < part);
            points[at.min(points.len() - 1)].0
        })
    }
}

/// Distances from each of the surfaces to the other.
fn distances(borders: &[Vec<bool>; 2], shape: [usize; 3], spacing_mm: [f64; 3]) -> [Vec<f64>; 2] {
    let [first, second] = borders;
    let to =
        |other: &[bool], from: &[bool]| NearestPoint::new(other, shape, spacing_mm).distances(from);
    let (there, back) = rayon::join(|| to(second, first), || to(first, second));
    [there, back]
}

/// Voxels of a mask that have a face in common with the outside.
fn border(mask: &[bool], [depth, height, width]: [usize; 3], plane: bool) -> Vec<bool> {
    let mut border = mask.to_vec();
    if width < 3 {
        return border;
    }
    let row = |z: usize, y: usize| &mask[(z * height + y) * width..][..width];
    for (index, out) in border.chunks_exact_mut(width).enumerate() {
        let (z, y) = (index / height, index % height);
        let rim = y == 0 || y + 1 == height || (!plane && (z == 0 || z + 1 == depth));
        if rim {
            continue;
        }
        let here = row(z, y);
        let (up, down) = (row(z, y - 1), row(z, y + 1));
        // A plane has no neighbours along z: it stands for itself.
        let (above, below) = if plane { (here, here) } else { (row(z - 1, y), row(z + 1, y)) };
        for x in 1..width - 1 {
            let inside = here[x - 1] & here[x + 1] & up[x] & down[x] & above[x] & below[x];
            out[x] = here[x] & !inside;
        }
    }
    border
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    const MM: [f64; 3] = [3.0, 1.0, 0.5];

    fn block(begin: [usize; 3], size: [usize; 3]) -> Array3<bool> {
        let held = |at: usize, i: usize| (begin[i]..begin[i] + size[i]).contains(&at);
        Array3::from_shape_fn((6, 9, 12), |(z, y, x)| held(z, 0) && held(y, 1) && held(x, 2))
    }

    fn scores(
        masks: [Array3<bool>; 2],
        definition: SurfaceDefinition,
        tolerances: &[f64],
    ) -> SurfaceScores {
        let rules = SurfaceRules { definition, tolerances_mm: tolerances.to_vec() };
        SurfaceScores::of(&MaskPair::new(masks[0].view(), masks[1].view()), MM, false, &rules)
    }

    #[test]
    fn a_shifted_block() {
        let (a, b) = (block([1, 2, 3], [3, 4, 4]), block([1, 2, 5], [3, 4, 4]));
        for definition in [SurfaceDefinition::VoxelCentres, SurfaceDefinition::Surfels] {
            let found = scores([a.clone(), b.clone()], definition, &[0.0, 0.9, 1.0]);
            // Two voxels along x are 1 mm.
            assert_eq!(found.hausdorff_mm, 1.0, "{definition:?}");
            assert!(found.mean_distance_mm < 1.0 && found.hausdorff95_mm <= 1.0, "{found:?}");
            assert!(found.nsd[0] < found.nsd[1] && found.nsd[1] < 1.0, "{found:?}");
            assert_eq!(found.nsd[2], 1.0);
            let back = scores([b.clone(), a.clone()], definition, &[0.0, 0.9, 1.0]);
            assert_eq!(back.hausdorff95_mm, found.hausdorff95_mm);
            let same = scores([a.clone(), a.clone()], definition, &[0.0]);
            let zero = (same.hausdorff_mm, same.hausdorff95_mm, same.mean_distance_mm);
            assert_eq!((zero, &same.nsd[..]), ((0.0, 0.0, 0.0), &[1.0][..]));
        }
    }

    #[test]
    fn empty_masks() {
        let (empty, some) = (block([0; 3], [0; 3]), block([1, 1, 1], [1, 1, 1]));
        let voxels = SurfaceDefinition::VoxelCentres;
        for masks in [[empty.clone(), some.clone()], [some, empty.clone()]] {
            let found = scores(masks, voxels, &[5.0]);
            assert!(found.hausdorff_mm.is_nan() && found.mean_distance_mm.is_nan());
            assert_eq!(found.nsd, [0.0]);
        }
        let neither = scores([empty.clone(), empty], voxels, &[5.0]);
        assert!(neither.hausdorff95_mm.is_nan() && neither.nsd[0].is_nan());
    }

    /// Where the volume ends does not matter, but for the two sides of a plane.
    #[test]
    fn borders() {
        let count =
            |mask: &[bool], shape, plane| border(mask, shape, plane).iter().filter(|b| **b).count();
        assert_eq!(count(&[true; 60], [3, 4, 5], false), 60 - 2 * 3);
        assert_eq!(count(&[true; 20], [1, 4, 5], false), 20);
        assert_eq!(count(&[true; 20], [1, 4, 5], true), 20 - 2 * 3);
    }
}
